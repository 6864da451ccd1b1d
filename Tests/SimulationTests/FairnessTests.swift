// Nodes that fight for one lock: each gets on, and a grant does more than one piece of work where work is coming
// (LockCache/MinimumHold.swift).

import Execution
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

@Suite struct FairnessTests {
    /// What the programs of two nodes have done.
    private final class Tally {
        var made = [0, 0]
        var running = 0
        let ended = Signal()
        /// The longest that one call took, in nanoseconds.
        var longest: UInt64 = 0
        /// Wants delayed by both.
        var holds = 0
    }

    /// Makes files in the root one after the other until `end`.
    private func work(
        _ node: SimulatedNode,
        _ index: Int,
        _ program: Int,
        _ tally: Tally,
        until end: Tick
    ) async {
        var round = 0
        do throws(FileError) {
            while node.engine.clock.now < end {
                let begin = node.engine.clock.now
                let path = [Array("n\(index)p\(program)r\(round)".utf8)]
                round += 1
                _ = try await node.perform(.create(path, isExclusive: true))
                tally.made[index] += 1
                let took = node.engine.clock.now.rawValue - begin.rawValue
                tally.longest = max(tally.longest, took)
            }
        } catch {
            Issue.record("\(error)")
        }
        tally.running -= 1
        tally.ended.notify()
    }

    /// What some programs on each of two nodes do at one directory in two seconds.
    private func fight(_ programs: Int, keepsLocks: Bool) throws -> Tally {
        let tally = Tally()
        try runOnTwoNodes(synchronizes: true) { two in
            let nodes = [two.first, two.second]
            let before = nodes.reduce(0) { $0 + Int($1.volume.counters.minimumHolds) }
            let end = two.engine.clock.now.advanced(milliseconds: 2000)
            for (index, node) in nodes.enumerated() {
                node.volume.locks.keepsCostlyLocks = keepsLocks
                for program in 0..<programs {
                    tally.running += 1
                    node.engine.spawn {
                        await self.work(node, index, program, tally, until: end)
                    }
                }
            }
            while tally.running > 0 { await tally.ended.wait() }
            tally.holds = nodes.reduce(0) { $0 + Int($1.volume.counters.minimumHolds) } - before
            for node in nodes { #expect(node.withdrawal == nil && node.reports.isEmpty) }
        }
        return tally
    }

    /// Of two nodes each makes at least a third of what the other makes, and both make more than if locks were
    /// given up after each operation. Also where always some operation is inside.
    @Test(arguments: [1, 4]) func twoNodesAtOneDirectoryGetOn(programs: Int) throws {
        let with = try fight(programs, keepsLocks: true)
        let without = try fight(programs, keepsLocks: false)
        #expect(with.holds > 0 && without.holds == 0)
        let (least, most) = (with.made.min() ?? 0, with.made.max() ?? 0)
        #expect(3 * least >= most, "\(with.made) made")
        #expect(
            with.made.reduce(0, +) >= 2 * without.made.reduce(0, +),
            "\(with.made), without \(without.made)"
        )
        // A call looks for the name and then makes it: it may have to wait for the other's turn twice, and once more for each
        // when the time is over just then. Hand-overs themselves are slow here.
        #expect(
            with.longest < without.longest + 8 * MinimumHold.longestHold,
            "somebody waited \(with.longest) ns, without \(without.longest) ns"
        )
    }

    /// Who does one operation each time delays the other only now and then.
    @Test func whoIsNotAtWorkDelaysNobody() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let nodes = [two.first, two.second]
            let holdsBefore = nodes.map(\.volume.counters.minimumHolds)
            for round in 0..<60 {
                for (index, node) in nodes.enumerated() {
                    let path = [Array("r\(round)n\(index)".utf8)]
                    _ = try await node.perform(.create(path, isExclusive: true))
                }
            }
            for (node, before) in zip(nodes, holdsBefore) {
                let counters = node.volume.counters
                #expect(counters.demotions >= 60 && counters.minimumHolds - before <= 6)
            }
        }
    }
}
