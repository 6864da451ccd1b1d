// The division of names over the members of a view.

import Testing
import Vocabulary

@testable import LockCore

struct DirectoryMapTests {
    static func members(_ numbers: some Sequence<Int>) -> [Member] {
        numbers.map { Member(node: NodeID(UInt32($0)), incarnation: UInt64($0)) }
    }

    static let hashes = (1...20_000).map {
        ResourceName(kind: .inode, number: UInt64($0), generation: 1).rootHash
    }

    @Test("Who departs leaves only its own names to others", arguments: [2, 3, 8, 9, 40, 256])
    func departs(count: Int) {
        let before = DirectoryMap(Self.members(1...count))
        for gone in [1, count / 2 + 1, count] {
            let after = DirectoryMap(Self.members((1...count).filter { $0 != gone }))
            for hash in Self.hashes {
                let old = before.member(hash)
                let new = after.member(hash)
                #expect(old == new || old.node == NodeID(UInt32(gone)))
                #expect(new.node != NodeID(UInt32(gone)))
            }
        }
    }

    @Test("Every member has about as much as the others", arguments: [2, 3, 8, 9, 40])
    func isEven(count: Int) {
        let map = DirectoryMap(Self.members(1...count))
        var shares = [Int](repeating: 0, count: count + 1)
        for hash in Self.hashes { shares[Int(map.member(hash).node.rawValue)] += 1 }
        let fair = Self.hashes.count / count
        for share in shares.dropFirst() {
            #expect(share > fair / 2 && share < fair * 2, "\(share) of \(fair)")
        }
    }

    @Test("A new life of a node is another member")
    func newLife() {
        let one = DirectoryMap(Self.members(1...3))
        var lives = Self.members(1...3)
        lives[1].incarnation = 77
        let two = DirectoryMap(lives)
        for hash in Self.hashes {
            #expect(one.member(hash).node == two.member(hash).node)
            #expect((one.member(hash) == two.member(hash)) == (one.member(hash).node != NodeID(2)))
        }
    }
}
