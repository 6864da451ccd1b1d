// Questions of the nodes' volumes to each other (PeerQuestions, T1 and T2), and what is told unasked.

import Execution
import LockCache
import NodeService
import SimulatedMachine
import Testing
import Vocabulary

/// Nodes that answer such questions.
private final class QuestioningCluster {
    let cluster: Cluster
    var questions: [PeerQuestions] = []
    /// Nodes to which nothing is delivered.
    var silent: Set<UInt32> = []

    init(_ count: UInt32) {
        cluster = Cluster(count)
        questions = cluster.nodes.map { PeerQuestions($0, engine: cluster.engine) }
        cluster.show(1)
        cluster.deliver()
    }

    private func deliver() {
        while let link = cluster.wires.first(where: { !$0.packets.isEmpty }) {
            let (from, to, bytes) = link.packets.removeFirst()
            if silent.contains(to.rawValue) { continue }
            bytes.withUnsafeBytes { cluster.nodes[Int(to.rawValue) - 1].received($0, from: from) }
        }
    }

    /// Has node 1 ask; returns the answer and how long it took, in nanoseconds. `meanwhile` is done a millisecond after
    /// the question.
    func ask<Answer>(
        _ question: @escaping (PeerQuestions) async -> Answer,
        meanwhile: @escaping () -> Void = {}
    ) -> (answer: Answer?, nanoseconds: UInt64) {
        let asker = questions[0]
        let engine = cluster.engine
        let start = cluster.executor.now.rawValue
        var answer: Answer?
        var hasAnswer = false
        engine.spawn {
            answer = await question(asker)
            hasAnswer = true
        }
        engine.spawn {
            await engine.sleep(nanoseconds: 1_000_000)
            meanwhile()
            await engine.sleep(nanoseconds: 1_000_000_000)
        }
        let end = cluster.executor.run(until: {
            self.deliver()
            return hasAnswer
        })
        #expect(end == .done, "nobody answers, and the question does not end")
        return (answer, cluster.executor.now.rawValue - start)
    }

    /// Whoever asks learns that node 3 is no longer there.
    func loseThird() {
        let view = ClusterView(
            epoch: Epoch(2),
            members: Array(cluster.members.prefix(2)),
            slotsToReplay: []
        )
        questions[0].adopt(view)
    }
}

private func file(_ number: Int) -> InodeNumber {
    InodeNumber(address: BlockAddress(UInt64(number)), generation: 1)
}

private func time(_ seconds: Int) -> Timestamp {
    Timestamp(seconds: Int64(seconds), nanoseconds: 0)
}

private func attributes(size: UInt64) -> GlimpsedAttributes {
    GlimpsedAttributes(
        mode: 0o100644,
        user: 1,
        group: 2,
        linkCount: 1,
        device: 0,
        size: size,
        blockCount: 1,
        accessed: time(1),
        modified: time(2),
        changed: time(3),
        born: time(1),
        hasExtendedAttributes: false
    )
}

struct PeerQuestionsTests {
    @Test(
        "What is told of accesses before anybody listens waits, in order, as far as there is room"
    )
    func earlyAccesses() {
        let world = QuestioningCluster(2)
        let (teller, hearer) = (world.questions[0], world.questions[1])
        let most = 4096
        for number in 0..<most + 10 {
            teller.tellAccess(to: file(number), at: time(number))
            world.cluster.deliver()
        }
        var heard: [InodeNumber] = []
        hearer.onAccess = { file, _ in heard.append(file) }
        #expect(heard == (0..<most).map(file))
        // From now on at once; and what had waited is told once.
        teller.tellAccess(to: file(9999), at: time(1))
        world.cluster.deliver()
        #expect(heard.count == most + 1 && heard.last == file(9999))
        hearer.onAccess = { file, _ in heard.append(file) }
        #expect(heard.count == most + 1)
    }

    @Test("Of several last writes the newest counts, and it is asked of everybody (T1)")
    func lastWrites() {
        let world = QuestioningCluster(4)
        var takers: [Bool] = []
        for (place, answer) in [(1, time(5)), (2, time(9)), (3, nil)] as [(Int, Timestamp?)] {
            world.questions[place].lastWriteHere = { _, takes in
                takers.append(takes)
                return answer
            }
        }
        let latest = world.ask { await $0.lastWrite(to: file(1), takes: true) }.answer ?? nil
        #expect(latest == time(9) && takers == [true, true, true])
    }

    @Test("A question for a last write has no patience: it ends when who was asked is gone (T1)")
    func lastWriteOfTheGone() {
        let world = QuestioningCluster(3)
        world.questions[1].lastWriteHere = { _, _ in time(5) }
        world.silent = [3]
        let (answer, took) = world.ask {
            await $0.lastWrite(to: file(1), takes: false)
        } meanwhile: {
            #expect(world.questions[0].asked(about: file(1))?.nodes == [NodeID(3)])
            world.loseThird()
        }
        #expect((answer ?? nil) == time(5))
        #expect(took >= 1_000_000 && took < 10_000_000, "\(took)")
        #expect(world.questions[0].asked(about: file(1)) == nil)
    }

    @Test("The first who tells attributes is enough; nobody is waited for longer than the patience")
    func attributesInTime() {
        let world = QuestioningCluster(3)
        world.questions[1].attributesHere = { _ in attributes(size: 7) }
        world.silent = [3]
        let told = world.ask { await $0.attributes(of: file(1), from: nil) }
        #expect((told.answer ?? nil)?.teller == NodeID(2))
        #expect((told.answer ?? nil)?.attributes.size == 7)
        #expect(told.nanoseconds < 10_000_000)
        // Only who told last is asked; he says nothing any more.
        world.silent = [2]
        let untold = world.ask { await $0.attributes(of: file(1), from: NodeID(2)) }
        #expect((untold.answer ?? nil) == nil)
        let patience = PeerQuestions.patience
        #expect(untold.nanoseconds >= patience && untold.nanoseconds < patience * 11 / 10)
    }

    @Test("A question for attributes ends when who was asked is gone, before the patience does")
    func attributesOfTheGone() {
        let world = QuestioningCluster(3)
        world.silent = [3]
        let (answer, took) = world.ask {
            await $0.attributes(of: file(1), from: NodeID(3))
        } meanwhile: {
            world.loseThird()
        }
        #expect((answer ?? nil) == nil)
        #expect(took < 10_000_000, "\(took)")
    }
}
