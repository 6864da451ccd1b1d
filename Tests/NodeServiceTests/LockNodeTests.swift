// LockNode: re-entrance, batching, epochs on messages, replay, bad peers. The rules of locking
// themselves are tested in LockCoreTests.

import ClusterWire
import Execution
import LockCache
import LockCore
import NodeService
import SimulatedMachine
import Testing
import Vocabulary

/// Carries bytes between nodes, when asked to.
final class Wires: PeerLink {
    var nodes: [LockNode] = []
    var packets: [(from: NodeID, to: NodeID, bytes: [UInt8])] = []
    let sender: NodeID

    init(sender: NodeID) { self.sender = sender }

    func send(_ bytes: [UInt8], to peer: NodeID) { packets.append((sender, peer, bytes)) }
}

final class Client: LockClient {
    var completions: [LockCompletion] = []
    var notices: [(cookie: UInt64, wanted: LockMode)] = []
    var onCompletion: ((LockCompletion) -> Void)?
    var onNotice: ((UInt64, LockMode) -> Void)?

    func completed(_ completion: LockCompletion) {
        completions.append(completion)
        onCompletion?(completion)
    }

    func isBlocking(cookie: UInt64, wanted: LockMode) {
        notices.append((cookie, wanted))
        onNotice?(cookie, wanted)
    }
}

/// Some nodes with their clients and wires.
final class Cluster {
    var wires: [Wires] = []
    var nodes: [LockNode] = []
    var clients: [Client] = []
    var members: [Member] = []
    let executor = SeededExecutor(seed: 1)
    let engine: Engine

    init(_ count: UInt32) {
        engine = Engine(executor: executor, clock: SimulatedClock(executor: executor))
        for number in 1...count {
            let link = Wires(sender: NodeID(number))
            let node = LockNode(
                node: NodeID(number),
                incarnation: UInt64(number) + 10,
                engine: engine,
                peers: link
            )
            let client = Client()
            node.client = client
            wires.append(link)
            nodes.append(node)
            clients.append(client)
            members.append(Member(node: NodeID(number), incarnation: UInt64(number) + 10))
        }
    }

    func show(_ epoch: UInt64, replaying slots: [SlotIndex] = []) {
        let view = ClusterView(epoch: Epoch(epoch), members: members, slotsToReplay: slots)
        for node in nodes { node.viewChanged(view) }
    }

    /// Whether something holds on every node.
    func all(_ condition: (LockNode) -> Bool) -> Bool { nodes.allSatisfy(condition) }

    /// Delivers until nothing is on the way. Returns the number of pieces.
    @discardableResult
    func deliver() -> Int {
        var count = 0
        while let link = wires.first(where: { !$0.packets.isEmpty }) {
            let (from, to, bytes) = link.packets.removeFirst()
            count += 1
            bytes.withUnsafeBytes { nodes[Int(to.rawValue) - 1].received($0, from: from) }
        }
        return count
    }
}

private let name = ResourceName(kind: .application, number: 1)

struct LockNodeTests {
    @Test("A client that yields in the notice and asks again in the completion is served in order")
    func reentrance() {
        let cluster = Cluster(1)
        cluster.show(1)
        let node = cluster.nodes[0]
        let client = cluster.clients[0]
        var held: [UInt64: LockID] = [:]
        client.onCompletion = { completion in
            if completion.status == .granted { held[completion.cookie] = completion.lock }
            if completion.status == .unlocked && completion.cookie == 1 {
                node.request(name, .protectedRead, [], cookie: 3)
            }
        }
        client.onNotice = { cookie, _ in
            if let lock = held[cookie] { node.unlock(lock, [], value: nil) }
        }
        node.request(name, .exclusive, [], cookie: 1)
        node.request(name, .exclusive, [], cookie: 2)
        #expect(client.completions.map(\.cookie) == [1, 1, 2, 2, 3])
        #expect(
            client.completions.map(\.status) == [
                .granted, .unlocked, .granted, .unlocked, .granted,
            ]
        )
        #expect(client.notices.map(\.wanted) == [.exclusive, .protectedRead])
    }

    @Test("Two nodes hand a lock and its value to and fro")
    func handToAndFro() {
        let cluster = Cluster(2)
        cluster.show(1)
        cluster.deliver()
        #expect(cluster.all { $0.isRunning })
        for (index, client) in cluster.clients.enumerated() {
            let node = cluster.nodes[index]
            client.onNotice = { cookie, _ in
                guard let lock = client.completions.last(where: { $0.cookie == cookie })?.lock
                else { return }
                node.unlock(lock, [.valueBlock], value: ValueBlock(cookie))
            }
        }
        for round in 1...10 as ClosedRange<UInt64> {
            cluster.nodes[Int(round % 2)].request(name, .exclusive, [.valueBlock], cookie: round)
            cluster.deliver()
            let last = cluster.clients[Int(round % 2)].completions.last
            #expect(last?.cookie == round && last?.status == .granted)
            #expect(last?.value == ValueBlock(round - 1) && last?.isValueValid == true)
        }
    }

    @Test("Messages that one call causes leave in one piece per peer")
    func batches() {
        let cluster = Cluster(2)
        cluster.show(1)
        cluster.deliver()
        let node = cluster.nodes[0]
        var remaining: UInt64 = 20
        cluster.clients[0].onCompletion = { completion in
            while remaining > 0 {
                remaining -= 1
                let private_ = ResourceName(kind: .inode, number: remaining, generation: 1)
                node.request(private_, .exclusive, [.freshName], cookie: 100 + remaining)
            }
        }
        node.request(ResourceName(kind: .inode, number: 99), .exclusive, [.freshName], cookie: 1)
        #expect(cluster.wires[0].packets.count == 1)
        cluster.deliver()
        #expect(node.counters.claims > 3)
        #expect(cluster.clients[0].completions.count == 21)
    }

    @Test("Locks wait for the replay that the coordinator announces, requests of recovery do not")
    func replay() {
        let cluster = Cluster(3)
        var finished: [Epoch] = []
        cluster.nodes[0].onRecoveryFinished = { finished.append($0.epoch) }
        cluster.show(1, replaying: [SlotIndex(7)])
        cluster.deliver()
        #expect(finished == [Epoch(1)])
        cluster.nodes[1].request(name, .exclusive, [], cookie: 1)
        cluster.nodes[2].request(.journal(SlotIndex(7)), .exclusive, [.recovery], cookie: 2)
        cluster.deliver()
        #expect(cluster.clients[1].completions.isEmpty && cluster.nodes[1].waitsForReplay)
        #expect(cluster.clients[2].completions.map(\.status) == [.granted])
        cluster.nodes[0].journalsReplayed(Epoch(1))
        cluster.deliver()
        #expect(cluster.clients[1].completions.map(\.status) == [.granted])
        #expect(cluster.all { !$0.waitsForReplay })
    }

    @Test(
        "A call made in a callback of a view change carries the new epoch, older messages the old"
    )
    func epochs() {
        let cluster = Cluster(2)
        cluster.show(1)
        cluster.deliver()
        cluster.nodes[0].request(name, .exclusive, [], cookie: 1)
        cluster.nodes[1].request(name, .exclusive, [], cookie: 2)
        let other = ResourceName(kind: .application, number: 2)
        cluster.nodes[0].onRecoveryFinished = { [node = cluster.nodes[0]] _ in
            node.request(other, .protectedRead, [], cookie: 3)
        }
        cluster.show(2)
        cluster.deliver()
        #expect(cluster.clients[0].completions.contains { $0.cookie == 3 && $0.status == .granted })
        let granted = cluster.clients.map { $0.completions.filter { $0.cookie < 3 }.count }
        #expect(granted == [1, 0] || granted == [0, 1])
        #expect(cluster.all { $0.counters.protocolErrors == 0 })
    }

    @Test("A malformed peer is reported, and harms nobody")
    func malformed() {
        let cluster = Cluster(2)
        cluster.show(1)
        cluster.deliver()
        var reports: [WireError] = []
        cluster.nodes[0].onMalformed = { _, error in reports.append(error) }
        var bytes: [UInt8] = []
        encode(.lock(.cancel(name, lock: LockID(7))), epoch: Epoch(1), into: &bytes)
        bytes += [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
        bytes.withUnsafeBytes { cluster.nodes[0].received($0, from: NodeID(2)) }
        #expect(reports == [.badMagic(0x0403_0201)])
        cluster.nodes[0].request(name, .exclusive, [], cookie: 1)
        cluster.deliver()
        #expect(cluster.clients[0].completions.count == 1)
    }

    @Test("A move that no master can begin, and one that carries another tree, change nothing")
    func foreignMoves() {
        let cluster = Cluster(2)
        cluster.show(1)
        cluster.deliver()
        let other = ResourceName(kind: .application, number: 77)
        let value = SequencedValue(value: ValueBlock(1), sequence: 1, isValid: true)
        var bytes: [UInt8] = []
        encode(.lock(.moving(name, to: NodeID(1))), epoch: Epoch(1), into: &bytes)
        let transfer = LockMessage.transfer(name, [.value(other, value)], moves: 0, isLast: true)
        encode(.lock(transfer), epoch: Epoch(1), into: &bytes)
        encode(.lock(.moved(name, to: NodeID(1))), epoch: Epoch(1), into: &bytes)
        bytes.withUnsafeBytes { cluster.nodes[0].received($0, from: NodeID(2)) }
        // The transfer, and the word that it is ours although none has come.
        #expect(cluster.nodes[0].counters.protocolErrors == 2)
        #expect(cluster.nodes[0].snapshot.isEmpty)
        bytes = []
        encode(.lock(.condemn(1, place: 0, [])), epoch: Epoch(1), into: &bytes)
        bytes.withUnsafeBytes { cluster.nodes[0].received($0, from: NodeID(2)) }
        #expect(cluster.nodes[0].counters.protocolErrors == 3)
    }

    @Test("A node that leaves says goodbye last, and answers everything as shut down")
    func leaving() {
        let cluster = Cluster(2)
        cluster.show(1)
        cluster.deliver()
        var goodbyes: [NodeID] = []
        cluster.nodes[0].onGoodbye = { goodbyes.append($0) }
        cluster.nodes[1].request(name, .exclusive, [], cookie: 1)
        cluster.nodes[1].leave()
        cluster.deliver()
        #expect(goodbyes == [NodeID(2)])
        cluster.nodes[1].request(name, .exclusive, [], cookie: 2)
        #expect(cluster.clients[1].completions.last?.status == .shutDown)
        cluster.members.removeLast()
        cluster.show(2)
        cluster.nodes[0].request(name, .exclusive, [], cookie: 3)
        #expect(cluster.clients[0].completions.last?.status == .granted)
        #expect(cluster.nodes[0].snapshot.map(\.name) == [name])
    }

    @Test("Patience ends by the engine's clock, and a synchronous grant has no completion (N6)")
    func time() {
        let cluster = Cluster(2)
        cluster.show(1)
        cluster.deliver()
        let (held, grant) = cluster.nodes[0].requestSynchronously(name, .exclusive, [], cookie: 1)
        cluster.deliver()
        let (waiting, none) = cluster.nodes[1].requestSynchronously(
            name,
            .protectedRead,
            [],
            cookie: 2,
            patience: 250
        )
        cluster.deliver()
        #expect(grant?.lock == held || cluster.clients[0].completions.map(\.lock) == [held])
        #expect(none == nil && waiting != .none)
        let before = cluster.executor.now
        let end = cluster.executor.run(until: {
            cluster.deliver()
            return cluster.clients[1].completions.last?.status == .timedOut
        })
        #expect(end == .done)
        let waited = cluster.executor.now.rawValue - before.rawValue
        #expect(waited >= 250_000_000 && waited <= 360_000_000)
        #expect(cluster.clients[1].completions.count == 1)
    }
}
