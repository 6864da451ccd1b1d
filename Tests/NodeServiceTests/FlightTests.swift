// The flight recorder: a replay does what the node did; the ring; what is no recording.

import ClusterWire
import Execution
import LockCache
import LockCore
import NodeService
import SimulatedMachine
import Testing
import Vocabulary

/// Some nodes under a random load, with everything the lockspace can be told.
private final class BusyCluster {
    let executor: SeededExecutor
    let engine: Engine
    var wires: [Wires] = []
    var nodes: [LockNode] = []
    var clients: [Client] = []
    var dice: SeededGenerator
    private var epoch: UInt64 = 0
    private var left: Set<Int> = []
    private var cookie: UInt64 = 0

    init(_ count: Int, seed: UInt64, capacity: Int = 64 << 20) {
        executor = SeededExecutor(seed: seed)
        engine = Engine(executor: executor, clock: SimulatedClock(executor: executor))
        dice = SeededGenerator(seed: seed)
        var settings = LockSettings()
        settings.deadlockWait = 40
        settings.activityInterval = 60
        settings.leastActivity = 3
        for number in 0..<count {
            let link = Wires(sender: NodeID(UInt32(number + 1)))
            let node = LockNode(
                node: NodeID(UInt32(number + 1)),
                incarnation: UInt64(number) + 10,
                engine: engine,
                peers: link,
                settings: settings,
                recording: capacity
            )
            let client = Client()
            node.client = client
            wires.append(link)
            nodes.append(node)
            clients.append(client)
        }
    }

    func show(replaying slots: [SlotIndex] = []) {
        epoch += 1
        let members = nodes.indices.filter { !left.contains($0) }.map {
            Member(node: NodeID(UInt32($0 + 1)), incarnation: UInt64($0) + 10)
        }
        let view = ClusterView(epoch: Epoch(epoch), members: members, slotsToReplay: slots)
        for index in nodes.indices where !left.contains(index) { nodes[index].viewChanged(view) }
        if let first = members.first, !slots.isEmpty {
            deliver()
            nodes[Int(first.node.rawValue) - 1].journalsReplayed(Epoch(epoch))
        }
    }

    func deliver() {
        while let index = wires.indices.first(where: { !wires[$0].packets.isEmpty }) {
            let (from, to, bytes) = wires[index].packets.removeFirst()
            if left.contains(Int(to.rawValue) - 1) || left.contains(index) { continue }
            bytes.withUnsafeBytes { nodes[Int(to.rawValue) - 1].received($0, from: from) }
        }
    }

    func step() {
        let index = dice.below(nodes.count)
        if left.contains(index) { return }
        let node = nodes[index]
        let granted = clients[index].completions.filter { $0.status == .granted }
        let mode = LockMode.allCases[dice.below(6)]
        let owner = LockOwner(UInt32(dice.below(4)))
        cookie += 1
        switch dice.below(14) {
        case 0..<5:
            var name = ResourceName(kind: .application, number: UInt64(dice.below(6)))
            if dice.below(3) == 0 {
                name = ResourceName(kind: .inode, number: cookie + 100, generation: 1)
            }
            var flags: LockFlags = name.kind == .inode ? [.freshName, .valueBlock] : [.valueBlock]
            if dice.below(4) == 0 { flags.insert(.noQueue) }
            if dice.below(4) == 0 { flags.insert(.persistent) }
            let patience = UInt32(dice.below(3) * 30)
            if dice.below(2) == 0 {
                let answer = node.requestSynchronously(
                    name,
                    mode,
                    flags,
                    cookie: cookie,
                    owner: owner,
                    patience: patience
                )
                if let completion = answer.completion {
                    clients[index].completions.append(completion)
                }
            } else {
                node.request(name, mode, flags, cookie: cookie, owner: owner, patience: patience)
            }
        case 5..<8:
            guard let lock = granted.randomLock(&dice) else { return }
            node.convert(lock, to: mode, [.valueBlock], value: ValueBlock(cookie, 1, 2, 3))
        case 8, 9:
            guard let lock = granted.randomLock(&dice) else { return }
            node.unlock(lock, [], value: nil)
        case 10:
            guard let lock = granted.randomLock(&dice) else { return }
            node.cancel(lock)
        case 11: node.ownerIsGone(owner)
        case 12: node.purgeOrphans(of: NodeID(UInt32(dice.below(nodes.count) + 1)), owner: .none)
        default:
            let soon = executor.now.rawValue + 30_000_000
            _ = executor.run(until: { self.executor.now.rawValue >= soon })
        }
        if dice.below(3) > 0 { deliver() }
    }

    func kill(_ index: Int) {
        left.insert(index)
        wires[index].packets = []
        show(replaying: [SlotIndex(UInt32(index))])
    }

    func leave(_ index: Int) {
        nodes[index].leave()
        deliver()
        left.insert(index)
        show()
    }
}

extension [LockCompletion] {
    fileprivate func randomLock(_ dice: inout SeededGenerator) -> LockID? {
        isEmpty ? nil : self[dice.below(count)].lock
    }
}

struct FlightTests {
    @Test(
        "A replay has the same effects and ends in the same state",
        arguments: 1...12 as ClosedRange<UInt64>
    )
    func replay(seed: UInt64) throws {
        let cluster = BusyCluster(4, seed: seed)
        cluster.show()
        cluster.deliver()
        for round in 0..<600 {
            cluster.step()
            if round == 200 { cluster.show(replaying: [SlotIndex(9)]) }
            if round == 350 { cluster.kill(3) }
            if round == 500 { cluster.leave(2) }
        }
        cluster.deliver()
        for node in cluster.nodes {
            let recording = try FlightRecording(node.recording)
            #expect(recording.isWhole && recording.node == node.node)
            var effects = 0
            #expect(recording.replay { effects += $1.count } == .same, "\(node.node), seed \(seed)")
            #expect(effects > 50 && recording.records.count > 100)
        }
    }

    @Test("A replay notices what is missing or was changed")
    func difference() throws {
        let cluster = BusyCluster(2, seed: 3)
        cluster.show()
        cluster.deliver()
        for _ in 0..<200 { cluster.step() }
        let recording = try FlightRecording(cluster.nodes[0].recording)
        var shorter = recording
        shorter.records.removeLast(20)
        #expect(shorter.replay() == .otherState)
        var changed = recording
        let index = changed.records.indices.first { changed.records[$0].effects > 0 } ?? 0
        changed.records[index].effects += 1
        guard case .otherEffects(let record, _, _) = changed.replay() else {
            Issue.record("not noticed")
            return
        }
        #expect(record == index)
    }

    @Test(
        "When the ring has wrapped the end of the story is there, whole, and cannot be replayed (R3)"
    )
    func wrapped() throws {
        let all = BusyCluster(2, seed: 5)
        let some = BusyCluster(2, seed: 5, capacity: 1)
        for cluster in [all, some] {
            cluster.show()
            cluster.deliver()
            for cookie in 1...9000 as ClosedRange<UInt64> {
                let name = ResourceName(kind: .application, number: cookie % 50)
                let node = cluster.nodes[Int(cookie % 2)]
                let answer = node.requestSynchronously(name, .protectedRead, [], cookie: cookie)
                node.unlock(answer.lock, [], value: nil)
                cluster.deliver()
            }
        }
        let whole = try FlightRecording(all.nodes[0].recording)
        let end = try FlightRecording(some.nodes[0].recording)
        #expect(whole.isWhole && !end.isWhole)
        #expect(end.records.count < whole.records.count && end.records.count > 2000)
        #expect(Array(whole.records.suffix(end.records.count)) == end.records)
        #expect(end.replay() == .notWhole)
    }

    @Test("Lines tell what went in, and when")
    func story() throws {
        let cluster = BusyCluster(2, seed: 1)
        cluster.show()
        cluster.deliver()
        let name = ResourceName(kind: .application, number: 7)
        cluster.nodes[0].request(name, .exclusive, [], cookie: 5)
        cluster.deliver()
        let recording = try FlightRecording(cluster.nodes[0].recording)
        let lines = recording.records.map(recording.line)
        #expect(
            lines.contains { $0.hasSuffix("n1 asks for application:7.0 EX (cookie 5)") },
            "\(lines)"
        )
        #expect(lines.contains { $0.contains("n1 view epoch 1: n1 n2") })
        #expect(lines.contains { $0.contains("n1 from n2, epoch 1: ") })
        #expect(recording.records.contains { $0.event.name == name })
    }

    @Test("Damaged bytes are no recording, and records that mean nothing are refused")
    func damage() throws {
        let cluster = BusyCluster(2, seed: 2)
        cluster.show()
        cluster.deliver()
        for _ in 0..<50 { cluster.step() }
        let good = cluster.nodes[0].recording
        #expect(throws: FlightError.notARecording) { try FlightRecording([]) }
        #expect(throws: FlightError.notARecording) {
            try FlightRecording([UInt8](repeating: 7, count: 500))
        }
        var bytes = good
        bytes[4] = 9
        #expect(throws: FlightError.otherVersion(9)) { try FlightRecording(bytes) }
        #expect(throws: FlightError.damaged) { try FlightRecording(Array(good.dropLast())) }
        var dice = SeededGenerator(seed: 8)
        for _ in 0..<300 {
            var bytes = good
            bytes[6 + dice.below(good.count - 6)] ^= UInt8(1 + dice.below(255))
            #expect(throws: FlightError.damaged) { try FlightRecording(bytes) }
        }
    }
}
