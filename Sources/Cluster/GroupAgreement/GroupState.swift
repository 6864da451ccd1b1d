// What all members of a group agree on: the record of the view, where its members live, and who is to be fenced.
// It changes only by messages, which all members of a configuration hear in one order, and by what they say when
// somebody has come; so whoever has heard the same has the same.

package import Membership
package import Vocabulary

/// A life that is to be fenced before anybody goes on with what it had.
package struct DoomedLife: Hashable, Sendable {
    /// Who.
    package var member: Member
    /// Where it lived.
    package var host: UInt32
    /// Why.
    package var why: Suspicion
    /// The device shows that it has begun to write, and nobody here knew of it.
    package var isOnDevice: Bool

    /// From its parts.
    package init(member: Member, host: UInt32, why: Suspicion, isOnDevice: Bool = false) {
        self.member = member
        self.host = host
        self.why = why
        self.isOnDevice = isOnDevice
    }
}

/// A member and where it lives.
package struct PlacedMember: Hashable, Sendable {
    /// Who.
    package var member: Member
    /// Where.
    package var place: MemberPlace

    /// From its parts.
    package init(member: Member, place: MemberPlace) {
        self.member = member
        self.place = place
    }
}

/// The state of a group. See the head of this file.
package struct GroupState: Hashable, Sendable {
    /// The sequence of the ring in which a quorum last began to change it; 0 before the first.
    package private(set) var era: UInt64
    /// Counts the changes.
    package private(set) var revision: UInt64
    /// Who is in.
    package private(set) var record: ViewRecord
    /// Where they are, in their order.
    package private(set) var places: [PlacedMember]
    /// Who is to be fenced, ascending: members, and lives that only the device knew of.
    package private(set) var doomed: [DoomedLife]
    /// Lives that were buried, the last of each slot, ascending: the device may go on showing them.
    package private(set) var buried: [Member]

    /// The state of a volume that nobody has mounted.
    package init(volume: String) {
        era = 0
        revision = 0
        record = ViewRecord(volume: volume)
        places = []
        doomed = []
        buried = []
    }

    /// From its parts (decoding). Nil when they contradict each other.
    package init?(
        era: UInt64,
        revision: UInt64,
        record: ViewRecord,
        places: [PlacedMember],
        doomed: [DoomedLife],
        buried: [Member]
    ) {
        self.era = era
        self.revision = revision
        self.record = record
        self.places = places
        self.doomed = doomed
        self.buried = buried
        guard violation == nil else { return nil }
    }

    /// Which of two states has more of the past in it: one that a quorum changed in a later ring, or more often (A3).
    package func isOlder(than other: GroupState) -> Bool {
        (era, revision) < (other.era, other.revision)
    }

    /// Where a member lives; nil if that life is not in.
    package func place(of member: Member) -> MemberPlace? {
        places.first { $0.member == member }?.place
    }

    /// The life of a process; nil if it has none.
    package func life(of process: GroupProcess) -> Member? {
        places.first { $0.place.process == process }?.member
    }

    /// Whether a life is to be fenced.
    package func isDoomed(_ member: Member) -> Bool { doomed.contains { $0.member == member } }

    /// Whether somebody is to be fenced who is no member: his journal may not be touched before (A7).
    package var awaitsStrangers: Bool { doomed.contains { !record.contains($0.member) } }

    // MARK: Changes

    /// A quorum goes on in a ring. Lives that the device shows and nobody here knows of are doomed (A7): once in each ring. The
    /// look at the device is of the ring's beginning; who has left since was there then, and is nobody's concern any more.
    package mutating func begin(_ inspection: Inspection) {
        guard era < inspection.ring.sequence else { return changed() }
        era = inspection.ring.sequence
        for found in inspection.remains where !buried.contains(found.member) {
            doom(stranger: found.member, host: found.host)
            let place = doomed.firstIndex { $0.member == found.member }
            if let place, !record.contains(found.member) { doomed[place].isOnDevice = true }
        }
        changed()
    }

    /// A life begins. The slot is free by `record`.
    package mutating func join(_ member: Member, _ place: MemberPlace, slotCount: UInt32) {
        record.join(member, slotCount: slotCount)
        places.append(PlacedMember(member: member, place: place))
        places.sort { $0.member < $1.member }
        buried.removeAll { $0.node == member.node }
        changed()
    }

    /// A goodbye. False, and nothing changes, if that life is not in.
    package mutating func leave(_ member: Member) -> Bool {
        guard record.leave(member) else { return false }
        places.removeAll { $0.member == member }
        doomed.removeAll { $0.member == member }
        changed()
        return true
    }

    /// As `ViewRecord.replayed`.
    package mutating func replayed(under epoch: Epoch) -> Bool {
        guard epoch <= record.epoch, record.replayed(under: epoch) else { return false }
        changed()
        return true
    }

    /// A member is to be fenced. False if it is no member, or is so already.
    package mutating func doom(_ member: Member, _ why: Suspicion) -> Bool {
        guard let place = place(of: member), !isDoomed(member) else { return false }
        doomed.append(DoomedLife(member: member, host: place.process.host, why: why))
        doomed.sort { $0.member < $1.member }
        changed()
        return true
    }

    /// A process of the group claims a life that nobody else knows of, or that was buried (A6).
    package mutating func doom(stranger member: Member, host: UInt32) {
        guard !record.contains(member), !isDoomed(member) else { return }
        doomed.append(DoomedLife(member: member, host: host, why: .asked))
        doomed.sort { $0.member < $1.member }
        changed()
    }

    /// A doomed life is over. False if it is not doomed.
    package mutating func bury(_ member: Member) -> Bool {
        guard let place = doomed.firstIndex(where: { $0.member == member }) else { return false }
        let isOnDevice = doomed.remove(at: place).isOnDevice
        buried.removeAll { $0.node == member.node }
        buried.append(member)
        buried.sort()
        if record.bury([member]) {
            places.removeAll { $0.member == member }
        } else if isOnDevice, !record.list(member.node.slot),
            let owner = record.members.first(where: { $0.node == member.node })
        {
            // It has written nothing, or there would have been two; and it must not: the stranger's journal is there (A5).
            _ = doom(owner, .asked)
        }
        changed()
        return true
    }

    private mutating func changed() {
        revision += 1
        if let violation { preconditionFailure("Agreement \(violation)") }
    }

    private var violation: String? {
        if places.map(\.member) != record.members { return "A1: members without a place" }
        if Set(places.map(\.place.process)).count != places.count {
            return "A1: two members in one process"
        }
        if !zip(doomed, doomed.dropFirst()).allSatisfy({ $0.member < $1.member }) {
            return "A1: the doomed are not ascending and distinct"
        }
        if !zip(buried, buried.dropFirst()).allSatisfy({ $0.node < $1.node }) {
            return "A1: the buried are not ascending, one of each slot"
        }
        return nil
    }
}
