import Execution
import SimulatedWorld
import Testing
import Vocabulary

@Suite struct SimulationTests {
    static func run(
        _ seed: UInt64,
        nodes: Int,
        steps: Int = 60,
        faults: SimulationFaults = [],
        isConcurrent: Bool = false,
        locks: SimulatedLocks = .distributed
    ) throws -> SimulationReport {
        var plan = SimulationPlan(seed: seed, steps: steps, nodes: nodes, faults: faults)
        plan.isConcurrent = isConcurrent
        plan.locks = locks
        return try Simulation.run(plan)
    }

    @Test func sameSeedSameRun() throws {
        let first = try Self.run(11, nodes: 2)
        let second = try Self.run(11, nodes: 2)
        let other = try Self.run(12, nodes: 2)
        #expect(first == second)
        #expect(first.scheduleHash != other.scheduleHash)
    }

    /// All by the seed, each twice: not one event is another one, or comes at another time.
    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func drawnTwice(_ seed: UInt64) throws {
        let first = try Simulation.run(.drawn(seed: seed))
        let second = try Simulation.run(.drawn(seed: seed))
        #expect(first.scheduleHash == second.scheduleHash)
        #expect(first.virtualTime == second.virtualTime && first.jobs == second.jobs)
    }

    /// One node: the operations, the kernel's caches in front of them, time, memory pressure,
    /// mounting again.
    @Test(arguments: 1...30 as ClosedRange<UInt64>)
    func oneNode(_ seed: UInt64) throws {
        let report = try Self.run(seed, nodes: 1, faults: .remount)
        #expect(report.operations > 30)
        #expect(report.cachedNames > 100)
    }

    /// Three nodes on one tree: whatever one does, the others show.
    @Test(arguments: 1...30 as ClosedRange<UInt64>)
    func threeNodes(_ seed: UInt64) throws {
        let report = try Self.run(seed, nodes: 3, faults: .remount)
        #expect(report.demotions > 20)
        #expect(report.messages > 100)
        #expect(report.grants > 50)
        #expect(report.records > 5)
        #expect(report.diskGrants > 50)
    }

    /// Nodes die in the midst of operations; the others recover them and go on.
    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func deaths(_ seed: UInt64) throws {
        _ = try Self.run(seed, nodes: 3, steps: 120, faults: [.kill, .remount])
    }

    /// The power fails for all; what was synchronised is there.
    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func powerFailures(_ seed: UInt64) throws {
        _ = try Self.run(seed, nodes: 2, steps: 120, faults: [.crash, .remount])
    }

    /// A node's way to the disk fails; it withdraws, and the others recover it.
    @Test func withdrawals() throws {
        var count = 0
        for seed in 1...10 as ClosedRange<UInt64> {
            count += try Self.run(seed, nodes: 3, steps: 150, faults: [.inputOutput, .remount])
                .withdrawals
        }
        #expect(count > 10)
    }

    /// Scrubs while all nodes work, die and come back: nothing is reported, and they do meet changes.
    @Test(arguments: [false, true])
    func scrubs(isConcurrent: Bool) throws {
        let faults: SimulationFaults = isConcurrent ? [.scrub] : [.scrub, .kill, .remount]
        var (scrubs, unjudged) = (0, 0)
        for seed in 1...10 as ClosedRange<UInt64> {
            let report = try Self.run(
                seed,
                nodes: 3,
                steps: 150,
                faults: faults,
                isConcurrent: isConcurrent
            )
            scrubs += report.scrubs
            unjudged += report.unjudgedScrubs
        }
        #expect(scrubs > 20 && unjudged > 5, "\(scrubs) scrubs, \(unjudged) that met changes")
    }

    /// Several processes per node at once, on few files.
    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func concurrentProcesses(_ seed: UInt64) throws {
        let report = try Self.run(seed, nodes: 3, steps: 300, isConcurrent: true)
        #expect(report.operations > 250)
        #expect(report.demotions > 50)
        // Names whose order was searched for, and found or not: none was given up.
        #expect(report.judged > 20 && report.undecided == 0)
    }

    /// Nodes die under processes that fight, one or two at once, and in the midst of recovering others.
    @Test func concurrentDeaths() throws {
        var deaths = 0
        for seed in 1...20 as ClosedRange<UInt64> {
            deaths += try Self.run(seed, nodes: 4, steps: 400, faults: .kill, isConcurrent: true)
                .deaths
        }
        #expect(deaths > 60)
    }

    /// Everything by the seed: the shape of the cluster, what is done, and all that may happen.
    @Test(arguments: 1...25 as ClosedRange<UInt64>)
    func drawn(_ seed: UInt64) throws { _ = try Simulation.run(.drawn(seed: seed)) }

    /// Nodes stand still or do not hear each other: nobody is killed who need not be, one of two is who
    /// must be, and nothing is lost.
    @Test(arguments: [false, true])
    func standstillsAndPartitions(isConcurrent: Bool) throws {
        var (pauses, partitions) = (0, 0)
        for seed in 1...4 as ClosedRange<UInt64> {
            let report = try Self.run(
                seed,
                nodes: 3,
                steps: 250,
                faults: [.pause, .partition],
                isConcurrent: isConcurrent
            )
            pauses += report.pauses
            partitions += report.partitions
        }
        #expect(pauses > 2 && partitions > 2, "\(pauses), \(partitions)")
    }

    /// The volume is frozen in the midst of work, and nodes die and leave meanwhile: nothing is written, nothing is lost,
    /// and who reads goes on.
    @Test(arguments: [false, true])
    func freezes(isConcurrent: Bool) throws {
        var (freezes, deaths) = (0, 0)
        for seed in 1...5 as ClosedRange<UInt64> {
            let report = try Self.run(
                seed,
                nodes: 3,
                steps: 200,
                faults: [.freeze, .kill],
                isConcurrent: isConcurrent
            )
            freezes += report.freezes
            deaths += report.deaths
        }
        #expect(freezes > 5 && deaths > 5, "\(freezes), \(deaths)")
    }

    /// One bit of the metadata turns over: nothing wrong is shown, and a repair puts it right.
    @Test func turnedBits() throws {
        var (bits, withdrawals) = (0, 0)
        for seed in 1...16 as ClosedRange<UInt64> {
            let report = try Self.run(seed, nodes: 2, steps: 40, faults: .rot)
            bits += report.rotted
            withdrawals += report.withdrawals
        }
        #expect(bits == 16 && withdrawals > 0, "\(withdrawals) of \(bits)")
    }

    /// The volume is full now and then.
    @Test func fullVolumes() throws {
        var (count, traced) = (0, 0)
        for seed in 7...11 as ClosedRange<UInt64> {
            let report = try Self.run(seed, nodes: 2, steps: 200, faults: [.full, .kill])
            count += report.withoutSpace
            traced += report.traced
        }
        #expect(count > 0)
        // Bytes that were asked where they come from.
        #expect(traced > 100_000)
    }

    /// The same with a lock manager that is right by inspection.
    @Test(arguments: 1...5 as ClosedRange<UInt64>)
    func centralLocks(_ seed: UInt64) throws {
        let report = try Self.run(seed, nodes: 3, faults: .remount, locks: .central)
        // Those of its recovery remain, and questions for times and attributes to two nodes, with their answers.
        let questions = report.timeQuestions + report.glimpseQuestions
        #expect(report.messages < 200 + 4 * questions && report.demotions > 20)
    }
}
