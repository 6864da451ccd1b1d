// Locks of ranges: who conflicts with whom, in which order they are granted, questions, and that they survive
// what happens to masters. Random histories: RandomTests; whole clusters: the simulation.

import Testing
import Vocabulary

@testable import LockCore

/// Several lockspaces and the messages between them, carried at once and in order.
private struct Few: ~Copyable {
    static let name = ResourceName(kind: .byteLocks, number: 7, generation: 1)

    var first = Lockspace(node: NodeID(1), incarnation: 1)
    var second = Lockspace(node: NodeID(2), incarnation: 1)
    var answers: [[LockCompletion]] = [[], []]
    private var epoch: UInt64 = 0
    private var cookie: UInt64 = 0

    init(first isFirst: Bool = true) {
        setView([1, 2])
    }

    mutating func setView(_ nodes: [UInt32]) {
        epoch += 1
        let view = ClusterView(
            epoch: Epoch(epoch),
            members: nodes.map { Member(node: NodeID($0), incarnation: 1) },
            slotsToReplay: []
        )
        if nodes.contains(1) { act(1) { $0.viewChanged(view, effects: &$1) } }
        if nodes.contains(2) { act(2) { $0.viewChanged(view, effects: &$1) } }
    }

    /// Does something on a node, and whatever follows from it.
    mutating func act(_ node: UInt32, _ body: (inout Lockspace, inout [LockEffect]) -> Void) {
        var effects: [LockEffect] = []
        if node == 1 { body(&first, &effects) } else { body(&second, &effects) }
        carryOut(effects, of: node)
    }

    private mutating func carryOut(_ effects: [LockEffect], of node: UInt32) {
        for effect in effects {
            switch effect {
            case .send(let message, let peer):
                let now = epoch
                act(peer.rawValue) {
                    $0.receive(message, from: NodeID(node), epoch: Epoch(now), effects: &$1)
                }
            case .complete(let completion): answers[Int(node) - 1].append(completion)
            case .blocking: Issue.record("whoever locked bytes is told to go")
            default: break
            }
        }
        #expect(throws: Never.self) { try first.checkInvariants() }
        #expect(throws: Never.self) { try second.checkInvariants() }
    }

    @discardableResult
    mutating func ask(
        _ node: UInt32,
        _ owner: UInt32,
        _ mode: LockMode,
        _ bytes: ClosedRange<UInt64>,
        _ flags: LockFlags = []
    ) -> LockID {
        cookie += 1
        var lock = LockID.none
        let (number, name) = (cookie, Self.name)
        act(node) {
            lock = $0.request(
                name,
                mode,
                flags.union(.noOrder),
                cookie: number,
                owner: LockOwner(owner),
                bytes: LockedBytes(
                    first: bytes.lowerBound,
                    last: bytes.upperBound,
                    process: owner * 10
                ),
                effects: &$1
            )
        }
        return lock
    }

    mutating func unlock(_ node: UInt32, _ lock: LockID) {
        act(node) { $0.unlock(lock, [], value: nil, effects: &$1) }
    }

    /// How the last request of a node ended; nil if it waits.
    mutating func status(_ node: UInt32) -> LockStatus? {
        defer { answers[Int(node) - 1] = [] }
        return answers[Int(node) - 1].last?.status
    }

    mutating func obstacle(_ node: UInt32) -> LockObstacle? {
        defer { answers[Int(node) - 1] = [] }
        return answers[Int(node) - 1].last?.obstacle
    }
}

struct ByteRangeTests {
    @Test func whoConflicts() {
        var few = Few()
        few.ask(1, 1, .exclusive, 10...19)
        #expect(few.status(1) == .granted)
        for node in [1, 2] as [UInt32] {
            few.ask(node, 2, .exclusive, 20...29, .noQueue)
            #expect(few.status(node) == .granted, "side by side")
            few.ask(node, 3, .protectedRead, 19...19, .noQueue)
            #expect(few.status(node) == .wouldBlock, "the last byte")
            few.ask(node, 3, .protectedRead, 0...10, .noQueue)
            #expect(few.status(node) == .wouldBlock, "the first byte")
            few.ask(node, 3, .null, 0...100, .noQueue)
            #expect(few.status(node) == .granted, "null is in nobody's way")
            if node == 1 { few.unlock(1, LockID(few.first.lockNamed(owner: 2))) }
        }
        // The same number on another node is another owner.
        few.ask(2, 1, .protectedRead, 15...15, .noQueue)
        #expect(few.status(2) == .wouldBlock)
        few.ask(1, 1, .protectedRead, 15...15, .noQueue)
        #expect(few.status(1) == .granted, "an owner is not in its own way")
    }

    @Test func sharedBytes() {
        var few = Few()
        few.ask(1, 1, .protectedRead, 0...9)
        few.ask(2, 1, .protectedRead, 5...14, .noQueue)
        #expect(few.status(2) == .granted)
        few.ask(2, 2, .exclusive, 10...10, .noQueue)
        #expect(few.status(2) == .wouldBlock)
        few.ask(2, 2, .exclusive, 15...15, .noQueue)
        #expect(few.status(2) == .granted)
    }

    /// B4: whoever waits for other bytes does not hold anybody up.
    @Test func notInOrder() {
        var few = Few()
        let low = few.ask(1, 1, .exclusive, 0...9)
        let high = few.ask(1, 2, .exclusive, 20...29)
        few.ask(2, 1, .exclusive, 0...29)
        #expect(few.status(2) == nil)
        few.ask(2, 2, .exclusive, 10...15)
        #expect(few.status(2) == .granted, "free, though somebody waits for it")
        few.ask(2, 3, .exclusive, 5...5)
        #expect(few.status(2) == nil)
        few.unlock(1, low)
        #expect(few.status(2) == .granted, "the second of those that wait")
        few.unlock(1, high)
        #expect(few.status(2) == nil, "the first still waits for the others")
    }

    @Test func questions() {
        var few = Few()
        few.ask(1, 1, .exclusive, 10...14)
        few.ask(1, 1, .exclusive, 15...19)
        few.ask(1, 1, .protectedRead, 20...24)
        few.ask(1, 1, .exclusive, 40...49)
        for node in [1, 2] as [UInt32] {
            few.ask(node, 9, .protectedRead, 0...100, .question)
            let found = few.obstacle(node)
            #expect(found?.node == NodeID(1) && found?.mode == .exclusive)
            #expect(found?.bytes == LockedBytes(first: 10, last: 19, process: 10), "in one piece")
            few.ask(node, 9, .protectedRead, 20...30, .question)
            #expect(few.status(node) == .notFound, "both read")
            few.ask(node, 9, .exclusive, 22...30, .question)
            #expect(few.obstacle(node)?.bytes == LockedBytes(first: 20, last: 24, process: 10))
            few.ask(node, 9, .exclusive, 25...39, .question)
            #expect(few.status(node) == .notFound)
        }
        few.ask(1, 1, .exclusive, 0...100, .question)
        #expect(few.status(1) == .notFound, "nobody is in his own way")
        // Nothing was granted by it.
        #expect(few.first.describe(Few.name)?.locks.count == 4)
        #expect(few.second.describe(Few.name) == nil)
    }

    @Test("A change of view and the death of the master", arguments: [false, true])
    func recovery(masterDies: Bool) {
        var few = Few()
        let master: UInt32 = masterDies ? 2 : 1
        few.ask(master, 5, .null, 0...0)
        few.ask(1, 1, .exclusive, 10...19)
        few.ask(1, 2, .protectedRead, 20...29)
        few.ask(2, 1, .exclusive, 30...39)
        few.ask(1, 3, .exclusive, 35...35)
        #expect(few.status(1) == .granted || few.status(1) == nil)
        few.setView([1, 2])
        few.ask(2, 2, .exclusive, 15...15, .noQueue)
        #expect(few.status(2) == .wouldBlock, "reported with its bytes")
        few.ask(2, 2, .exclusive, 40...40, .noQueue)
        #expect(few.status(2) == .granted)
        _ = few.status(1)
        few.setView([1])
        #expect(few.status(1) == .granted, "what the dead had locked is free")
        few.ask(1, 4, .exclusive, 10...10, .noQueue)
        #expect(few.status(1) == .wouldBlock)
        few.ask(1, 4, .protectedRead, 20...20, .noQueue)
        #expect(few.status(1) == .granted)
        few.ask(1, 4, .exclusive, 40...40, .noQueue)
        #expect(few.status(1) == .granted)
    }

    /// B0.
    @Test func noParts() {
        var few = Few()
        let above = few.ask(1, 1, .exclusive, 10...19)
        _ = few.status(1)
        few.act(1) {
            _ = $0.request(
                Few.name.child(3),
                .exclusive,
                .noOrder,
                cookie: 99,
                owner: LockOwner(1),
                parent: above,
                bytes: LockedBytes(first: 0, last: 1),
                effects: &$1
            )
        }
        #expect(few.status(1) == .parentNotGranted)
    }

    @Test func theMastershipMoves() {
        var few = Few()
        few.ask(1, 1, .exclusive, 10...19)
        few.ask(2, 1, .exclusive, 20...29)
        few.ask(1, 2, .protectedRead, 25...25)
        _ = few.status(1)
        few.act(1) {
            let root = $0.find(Few.name)
            $0.beginMove(root, to: NodeID(2), &$1)
        }
        #expect(few.second.describe(Few.name)?.master == NodeID(2))
        let bytes = few.second.describe(Few.name)?.locks.compactMap(\.bytes?.first)
        #expect(bytes == [10, 20, 25])
        few.ask(2, 3, .exclusive, 0...10, .noQueue)
        #expect(few.status(2) == .wouldBlock)
        few.unlock(2, LockID(few.second.lockNamed(owner: 1)))
        #expect(few.status(1) == .granted)
    }
}

extension Lockspace {
    /// The one granted lock of an owner of this node.
    fileprivate func lockNamed(owner: UInt32) -> UInt64 {
        let locks = describe(Few.name)?.locks ?? []
        let own = locks.filter {
            $0.holder == node && $0.owner == LockOwner(owner) && $0.granted == .exclusive
        }
        return own.first?.lock.rawValue ?? 0
    }
}
