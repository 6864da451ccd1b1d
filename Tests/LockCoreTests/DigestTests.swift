// The digest that replays are compared by: the same history gives the same, any difference in what is
// known another.

import Testing
import Vocabulary

@testable import LockCore

struct DigestTests {
    /// What may differ between two histories.
    struct History {
        var name = ResourceName(kind: .inode, number: 7, generation: 1)
        var epoch: UInt64 = 1
        var isReplayPending = false
        var mode = LockMode.protectedRead
        var flags: LockFlags = []
        var cookie: UInt64 = 1
        var owner = LockOwner.none
        var value: ValueBlock?
        var isInvalidated = false
        /// A second lock on the same name.
        var second: LockMode?
        var isSecondFirst = false
        /// A part below the name, and one below that.
        var part: UInt64?
        var subpart: UInt64?

        func digest() -> UInt64 {
            var space = Lockspace(node: NodeID(1), incarnation: 5)
            var effects: [LockEffect] = []
            let view = ClusterView(
                epoch: Epoch(epoch),
                members: [Member(node: NodeID(1), incarnation: 5)],
                slotsToReplay: isReplayPending ? [SlotIndex(0)] : []
            )
            space.viewChanged(view, effects: &effects)
            let first = ask(&space, name, isSecondFirst ? second ?? mode : mode, cookie)
            if let second {
                _ = ask(&space, name, isSecondFirst ? mode : second, cookie + 1)
            }
            if let part {
                let below = ask(&space, name.child(part), .null, 20, parent: first)
                if let subpart {
                    _ = ask(&space, name.child(part).child(subpart), .null, 21, parent: below)
                }
            }
            if value != nil || isInvalidated {
                let other = ResourceName(kind: .application, number: 1)
                let writer = ask(&space, other, .exclusive, 30)
                let how: LockFlags = isInvalidated ? .invalidateValueBlock : .valueBlock
                space.convert(writer, to: .null, how, value: value, effects: &effects)
            }
            return space.digest
        }

        private func ask(
            _ space: inout Lockspace,
            _ name: ResourceName,
            _ mode: LockMode,
            _ cookie: UInt64,
            parent: LockID = .none
        ) -> LockID {
            var effects: [LockEffect] = []
            return space.request(
                name,
                mode,
                flags,
                cookie: cookie,
                owner: owner,
                parent: parent,
                effects: &effects
            )
        }
    }

    static func histories() -> [History] {
        let changes: [(inout History) -> Void] = [
            { _ in },
            { $0.name = ResourceName(kind: .inode, number: 8, generation: 1) },
            { $0.name = ResourceName(kind: .inode, number: 7, generation: 2) },
            { $0.name = ResourceName(kind: .application, number: 7, generation: 1) },
            { $0.epoch = 2 },
            { $0.isReplayPending = true },
            { $0.mode = .exclusive },
            { $0.flags = .persistent },
            { $0.cookie = 9 },
            { $0.owner = LockOwner(3) },
            { $0.value = ValueBlock(1) },
            { $0.value = ValueBlock(0, 1) },
            { $0.value = ValueBlock(0, 0, 0, 1) },
            { $0.isInvalidated = true },
            { $0.second = .concurrentRead },
            { ($0.second, $0.isSecondFirst) = (.concurrentRead, true) },
            { $0.second = .exclusive },
            { $0.part = 1 },
            { $0.part = 2 },
            { ($0.part, $0.subpart) = (1, 1) },
            { ($0.part, $0.subpart) = (1, 2) },
        ]
        return changes.map {
            var history = History()
            $0(&history)
            return history
        }
    }

    @Test("The same history gives the same digest, another one another")
    func distinct() {
        let digests = Self.histories().map { $0.digest() }
        #expect(Self.histories().map { $0.digest() } == digests)
        for (place, digest) in digests.enumerated() {
            #expect(digests[..<place].allSatisfy { $0 != digest }, "history \(place)")
        }
    }
}
