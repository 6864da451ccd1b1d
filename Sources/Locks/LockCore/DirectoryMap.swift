// Who knows the master of a name: the division of all names over the members of a view.
//
// Names fall into 4,096 *shares* by their hash. Each share belongs to the member with the highest
// weight for it, a number mixed from both (rendezvous hashing). So all members of a view agree
// without a word, and when somebody departs or comes only that node's shares change hands: whatever
// else a directory node knows stays true where it is.
//
// Source: Thaler, Ravishankar, "A name-based mapping scheme for rendezvous", 1996.

import Vocabulary

/// The directory of one view.
struct DirectoryMap: Sendable {
    private static let shareCount = 4096
    /// With so few members a share is looked for when asked, and nothing is kept.
    private static let fewMembers = 8

    /// Ascending by node.
    private var members: [Member]
    /// For each share the place of its member; empty with few members.
    private var places: [UInt16] = []

    init() { members = [] }

    init(_ members: [Member]) {
        self.members = members
        if members.count <= Self.fewMembers { return }
        places = (0..<Self.shareCount).map { UInt16(Self.heaviest(members, for: $0)) }
    }

    /// The member whose share a name falls into; `hash` is that of its root. There are members.
    @inline(__always)
    func member(_ hash: UInt64) -> Member {
        // The high bits: the low ones choose the bucket.
        let share = Int(truncatingIfNeeded: hash >> 52)
        return members[
            places.isEmpty ? Self.heaviest(members, for: share) : Int(places[share])
        ]
    }

    private static func heaviest(_ members: [Member], for share: Int) -> Int {
        var best = 0
        var most: UInt64 = 0
        for (place, member) in members.enumerated() {
            let weight = weight(UInt64(share), UInt64(member.node.rawValue))
            if weight > most { (best, most) = (place, weight) }
        }
        return best
    }

    /// Two rounds of multiply and fold (wyhash).
    private static func weight(_ share: UInt64, _ node: UInt64) -> UInt64 {
        let one = (share &+ 0xA076_1D64_78BD_642F)
            .multipliedFullWidth(by: node &* 2 &+ 0xE703_7ED1_A0B4_28DB)
        let two = (one.high ^ one.low).multipliedFullWidth(by: 0x8EBC_6AF0_9C88_C6E3)
        return two.high ^ two.low
    }
}
