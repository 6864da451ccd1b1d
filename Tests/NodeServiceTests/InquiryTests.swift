// Inquiries from node to node: answers in parts, silence, recoveries, and what peers may send.

import ClusterWire
import Execution
import LockCache
import LockCore
import NodeService
import SimulatedMachine
import Testing
import Vocabulary

/// A cluster whose nodes answer inquiries.
private final class AskingCluster {
    let cluster: Cluster
    var desks: [InquiryDesk] = []
    /// Nodes to which nothing is delivered.
    var stopped: Set<UInt32> = []

    init(_ count: UInt32) {
        cluster = Cluster(count)
        for (place, node) in cluster.nodes.enumerated() {
            let desk = InquiryDesk(node, engine: cluster.engine)
            desk.answer = { question in Array("n\(place + 1) heard ".utf8) + question }
            desks.append(desk)
        }
    }

    /// Delivers until nothing is on the way but what stopped nodes have said.
    func deliver() {
        while let link = cluster.wires.first(where: {
            !$0.packets.isEmpty && !stopped.contains($0.sender.rawValue)
        }) {
            let (from, to, bytes) = link.packets.removeFirst()
            if stopped.contains(to.rawValue) { continue }
            bytes.withUnsafeBytes { cluster.nodes[Int(to.rawValue) - 1].received($0, from: from) }
        }
    }

    /// Asks from node 1; returns what was answered and how long it took, in nanoseconds.
    func ask(
        _ text: String,
        of nodes: [UInt32],
        patience: UInt64 = 2_000_000_000
    ) -> (answers: [InquiryAnswer], nanoseconds: UInt64) {
        var answers: [InquiryAnswer]?
        let start = cluster.executor.now.rawValue
        let desk = desks[0]
        cluster.engine.spawn {
            answers = await desk.ask(
                nodes.map { (NodeID($0), Array(text.utf8)) },
                patience: patience
            )
        }
        let end = cluster.executor.run(until: {
            self.deliver()
            return answers != nil
        })
        #expect(end == .done)
        return (answers ?? [], cluster.executor.now.rawValue - start)
    }
}

private func text(_ answer: InquiryAnswer) -> String? {
    answer.bytes.map { String(decoding: $0, as: UTF8.self) }
}

struct InquiryTests {
    @Test(
        "Every node is asked and answers, the asking one among them, in the order of the questions"
    )
    func all() {
        let world = AskingCluster(3)
        world.cluster.show(1)
        world.deliver()
        let answers = world.ask("why", of: [3, 1, 2]).answers
        #expect(answers.map(\.node.rawValue) == [3, 1, 2])
        #expect(answers.map(text) == ["n3 heard why", "n1 heard why", "n2 heard why"])
    }

    @Test("A node that says nothing is silent after the patience, not before and not for ever (Q1)")
    func silence() {
        let world = AskingCluster(3)
        world.cluster.show(1)
        world.deliver()
        world.stopped = [3]
        let (answers, took) = world.ask("why", of: [1, 2, 3])
        #expect(answers.map(text) == ["n1 heard why", "n2 heard why", nil])
        #expect(took >= 2_000_000_000 && took < 2_200_000_000, "\(took)")
    }

    @Test("Inquiries work without a view and while a recovery goes on")
    func recovery() {
        let world = AskingCluster(2)
        #expect(world.ask("early", of: [2]).answers.map(text) == ["n2 heard early"])
        world.cluster.show(1)
        // What the nodes say of the recovery is not delivered: it does not end.
        for link in world.cluster.wires { link.packets = [] }
        #expect(!world.cluster.nodes[0].isRunning)
        #expect(world.ask("now", of: [2]).answers.map(text) == ["n2 heard now"])
        #expect(!world.cluster.nodes[1].isRunning)
    }

    @Test(
        "A long answer comes in parts, with pauses, and patience counts from the last part (Q1, Q3)"
    )
    func parts() {
        let world = AskingCluster(2)
        let long = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        world.desks[1].answer = { _ in long }
        let (answers, took) = world.ask("all", of: [2], patience: 3_000_000)
        #expect(answers.first?.bytes == long)
        #expect(took >= 15_000_000, "\(took)")
        // An empty answer is an answer.
        world.desks[1].answer = { _ in [] }
        #expect(world.ask("none", of: [2]).answers.map(text) == [""])
    }

    @Test("Parts out of order, of others, or too late are not taken (Q2)")
    func strays() {
        let world = AskingCluster(3)
        world.cluster.show(1)
        world.deliver()
        func say(_ message: NodeMessage, from peer: UInt32) {
            var bytes: [UInt8] = []
            encode(message, epoch: Epoch(1), into: &bytes)
            bytes.withUnsafeBytes { world.cluster.nodes[0].received($0, from: NodeID(peer)) }
        }
        var answers: [InquiryAnswer]?
        let desk = world.desks[0]
        world.cluster.engine.spawn {
            answers = await desk.ask([(NodeID(2), [1])], patience: 1_000_000_000)
        }
        let isAsked = world.cluster.executor.run(until: { !world.cluster.wires[0].packets.isEmpty })
        #expect(isAsked == .done)
        world.cluster.wires[0].packets = []
        say(.report(1, part: 0, isLast: true, [9]), from: 3)
        say(.report(7, part: 0, isLast: true, [9]), from: 2)
        say(.report(1, part: 0, isLast: false, [5]), from: 2)
        #expect(answers == nil)
        say(.report(1, part: 2, isLast: true, [6]), from: 2)
        #expect(world.cluster.executor.run(until: { answers != nil }) == .done)
        #expect(answers?.first?.bytes == [])
        say(.report(1, part: 1, isLast: true, [6]), from: 2)
        #expect(world.cluster.nodes[0].malformedMessages == 0)
    }

    @Test("Pieces of another version are counted and reported, with the kinds that this one has")
    func otherVersion() {
        let world = AskingCluster(2)
        world.cluster.show(1)
        world.deliver()
        var reports: [WireError] = []
        let node = world.cluster.nodes[0]
        node.onMalformed = { _, error in reports.append(error) }
        var bytes: [UInt8] = []
        encode(.inquiry(1, []), epoch: Epoch(1), into: &bytes)
        bytes[4] = WireFormat.version + 1
        for _ in 0..<3 { bytes.withUnsafeBytes { node.received($0, from: NodeID(2)) } }
        #expect(node.malformedMessages == 3)
        #expect(reports.first == .unsupportedVersion(WireFormat.version + 1))
        #expect(
            node.allCounters.last?.name == "malformedMessages" && node.allCounters.last?.count == 3
        )
    }

    @Test("A message that no correct peer sends is reported with its sender")
    func protocolErrors() {
        let world = AskingCluster(2)
        world.cluster.show(1)
        world.deliver()
        var peers: [NodeID] = []
        let node = world.cluster.nodes[0]
        node.onProtocolError = { peers.append($0) }
        var bytes: [UInt8] = []
        let name = ResourceName(kind: .inode, number: 1, generation: 1)
        encode(.lock(.taken(name)), epoch: Epoch(1), into: &bytes)
        bytes.withUnsafeBytes { node.received($0, from: NodeID(2)) }
        #expect(peers == [NodeID(2)] && node.counters.protocolErrors == 1)
    }

    @Test("Of many complaints about a peer one a while is said, with the number of the others")
    func complaints() {
        var complaints = Complaints(interval: 10)
        #expect(complaints.mayComplain(of: NodeID(1), at: Tick(5)) == 0)
        #expect(complaints.mayComplain(of: NodeID(1), at: Tick(6)) == nil)
        #expect(complaints.mayComplain(of: NodeID(2), at: Tick(6)) == 0)
        #expect(complaints.mayComplain(of: NodeID(1), at: Tick(14)) == nil)
        #expect(complaints.mayComplain(of: NodeID(1), at: Tick(15)) == 2)
        #expect(complaints.mayComplain(of: NodeID(1), at: Tick(25)) == 0)
    }

    @Test("What a node describes is chosen, in order, and cut")
    func describing() {
        let world = AskingCluster(2)
        world.cluster.show(1)
        world.deliver()
        let node = world.cluster.nodes[0]
        for number in [5, 3, 9, 1] as [UInt64] {
            let name = ResourceName(kind: .inode, number: number, generation: 1)
            node.request(name, .exclusive, [.freshName], cookie: number)
            world.deliver()
        }
        let waited = ResourceName(kind: .inode, number: 3, generation: 1)
        world.cluster.nodes[1].request(waited, .exclusive, [], cookie: 1)
        world.deliver()
        func numbers(
            _ limit: Int,
            _ onlyWaiting: Bool = false,
            _ holder: NodeID? = nil,
            of node: LockNode
        ) -> [UInt64] {
            node.describe(atMost: limit, onlyWaiting: onlyWaiting, holder: holder) {
                $0.kind == .inode
            }.found.map(\.name.number)
        }
        #expect(numbers(10, of: node) == [1, 3, 5, 9])
        #expect(numbers(2, of: node) == [1, 3])
        #expect(
            node.describe(atMost: 2, onlyWaiting: false, holder: nil) { _ in true }.omitted == 2
        )
        #expect(numbers(10, true, of: node) == [3])
        #expect(numbers(10, true, of: world.cluster.nodes[1]) == [3])
        #expect(numbers(10, false, NodeID(2), of: node) == [3])
    }
}
