// A scrub on some node while all nodes work: whatever it reports is wrong, as nothing is.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary
import VolumeChecking
import VolumeScrubbing

/// A scrub that is under way.
struct RunningScrub {
    let scrub: Scrub
    let node: SimulatedNode
    /// What it ended with.
    let outcome: Outcome<FileError?>
}

extension Simulation {
    /// Perhaps begins a scrub; judges one that has ended.
    func perhapsScrub() async throws {
        guard plan.faults.contains(.scrub) else { return }
        if let running = scrubbing {
            guard let outcome = running.outcome.value else { return }
            try judge(running, outcome)
        }
        let living = cluster.living
        guard dice.oneIn(10), !living.isEmpty else { return }
        let node = living[dice.below(living.count)]
        log("\(node.kernel.name): scrub")
        scrubbing = Self.begin(on: node)
    }

    /// Scrubs on some node to the end, while others do what they do.
    func scrubOnce() async throws {
        let living = cluster.living
        // All may just be leaving, to come back.
        guard !living.isEmpty else { return await engine.sleep(nanoseconds: 300_000) }
        let node = living[dice.below(living.count)]
        log("\(node.kernel.name): scrub")
        let running = Self.begin(on: node)
        // Of a node that dies meanwhile nothing may end.
        while running.outcome.value == nil, !node.isDead {
            await engine.sleep(nanoseconds: 300_000)
        }
        try judge(running, running.outcome.value ?? nil)
    }

    /// Begins a scrub.
    static func begin(on node: SimulatedNode) -> RunningScrub {
        let scrub = Scrub(node.volume)
        let outcome = Outcome<FileError?>()
        node.engine.spawn {
            do throws(FileError) {
                try await scrub.run()
                outcome.deliver(nil)
            } catch {
                outcome.deliver(error)
            }
        }
        return RunningScrub(scrub: scrub, node: node, outcome: outcome)
    }

    /// Before a node leaves, or in the end: a scrub that is under way there is stopped, half of the
    /// time when it has ended by itself.
    func endScrub(on node: SimulatedNode? = nil) async throws {
        guard let running = scrubbing, node == nil || running.node === node else { return }
        if !running.node.isDead {
            if dice.oneIn(2) { running.scrub.stop() }
            let outcome = try await within("a scrub") { await running.outcome.get() }
            try judge(running, outcome)
        }
        scrubbing = nil
    }

    private func judge(_ running: RunningScrub, _ error: FileError?) throws(SimulationFailure) {
        scrubbing = nil
        if running.node.isDead || running.node.withdrawal != nil || running.node.hasFailingDisk {
            return
        }
        let name = running.node.kernel.name
        if let error { throw SimulationFailure("a scrub on \(name) ended with \(error)") }
        let found = running.scrub.report
        report.scrubs += found.wasStopped ? 0 : 1
        report.scrubbedInodes += Int(found.inodes)
        report.unjudgedScrubs += found.changedGroups + found.changedInodes > 0 ? 1 : 0
        guard found.isClean else {
            let lines = found.findings.prefix(5).map(\.text) + found.unreadable.prefix(5)
            throw SimulationFailure("a scrub on \(name) found \(lines.joined(separator: "; "))")
        }
    }
}
