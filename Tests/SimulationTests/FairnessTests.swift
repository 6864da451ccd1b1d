// Nodes that fight for one lock: each gets on, and a grant does more than one piece of work where many wait
// (GlockMachine G10, HandOverCost).

import Execution
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

@Suite struct FairnessTests {
    /// What the processes of two nodes have done.
    private final class Tally {
        var made = [0, 0]
        var looked = [0, 0]
        var running = 0
        let ended = Signal()
        /// The longest that one call took, in nanoseconds.
        var longest: UInt64 = 0
    }

    /// Makes files in the root, or looks for some that are not there, until `end`.
    private func work(
        _ node: SimulatedNode,
        _ index: Int,
        _ worker: Int,
        _ tally: Tally,
        until end: Tick
    ) async {
        var round = 0
        do throws(FileError) {
            while node.engine.clock.now < end {
                let begin = node.engine.clock.now
                let path = [Array("n\(index)w\(worker)r\(round)".utf8)]
                round += 1
                if worker == 0 {
                    _ = try await node.perform(.create(path, isExclusive: true))
                    tally.made[index] += 1
                } else {
                    do throws(FileError) {
                        _ = try await node.kernel.status(path)
                        Issue.record("a name is there that nobody made")
                    } catch .notFound {
                        tally.looked[index] += 1
                    }
                }
                tally.longest = max(
                    tally.longest,
                    node.engine.clock.now.rawValue - begin.rawValue
                )
            }
        } catch {
            Issue.record("\(error)")
        }
        tally.running -= 1
        tally.ended.notify()
    }

    /// What two nodes do at one directory in two seconds; the calls for each time that a lock was given up.
    private func fight(keepsLocks: Bool) throws -> (tally: Tally, callsPerDemotion: Int) {
        let tally = Tally()
        var demotions = 0
        try runOnTwoNodes(synchronizes: true) { two in
            let nodes = [two.first, two.second]
            let before = nodes.reduce(0) { $0 + Int($1.volume.counters.demotions) }
            let end = two.engine.clock.now.advanced(milliseconds: 2000)
            for (index, node) in nodes.enumerated() {
                node.volume.locks.keepsCostlyLocks = keepsLocks
                for worker in 0..<5 {
                    tally.running += 1
                    node.engine.spawn { await self.work(node, index, worker, tally, until: end) }
                }
            }
            while tally.running > 0 { await tally.ended.wait() }
            demotions = nodes.reduce(0) { $0 + Int($1.volume.counters.demotions) } - before
            let holds = nodes.reduce(0) { $0 + Int($1.volume.counters.minimumHolds) }
            #expect(keepsLocks ? holds > 0 : holds == 0)
            for node in nodes {
                #expect(node.withdrawal == nil && node.reports.isEmpty)
                node.volume.locks.forEach { #expect(!$0.machine.isHeldBack) }
            }
        }
        let calls = tally.made.reduce(0, +) + tally.looked.reduce(0, +)
        return (tally, calls / max(demotions, 1))
    }

    @Test func twoNodesAtOneDirectoryGetMoreDone() throws {
        let (with, without) = (try fight(keepsLocks: true), try fight(keepsLocks: false))
        #expect(
            with.tally.made.allSatisfy { $0 >= 10 } && with.tally.looked.allSatisfy { $0 >= 100 }
        )
        #expect(with.callsPerDemotion >= without.callsPerDemotion)
        #expect(with.tally.longest < 500_000_000, "somebody waited \(with.tally.longest) ns")
    }

    /// A lock that nobody here uses is given up at once, whatever it costs.
    @Test func whoDoesNotUseItDelaysNobody() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            for round in 0..<20 {
                for (index, node) in [two.first, two.second].enumerated() {
                    let path = [Array("r\(round)n\(index)".utf8)]
                    _ = try await node.perform(.create(path, isExclusive: true))
                }
            }
            let counters = [two.first, two.second].map(\.volume.counters)
            #expect(counters.allSatisfy { $0.demotions >= 10 && $0.minimumHolds == 0 })
        }
    }
}
