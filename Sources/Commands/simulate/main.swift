import ArgumentParser
import Execution
import Glibc
import SimulatedWorld
import Vocabulary

/// `lockstep-simulate`: simulated runs by seed, or the enumeration of crashes.
struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lockstep-simulate",
        abstract: "Runs simulated clusters by seed and compares them with a model.",
        discussion: """
            Everything follows from the seed: how many nodes there are, the shape of their volume, what \
            they do, what happens to them. Options take part of that away from the seed. Prints "seed N: \
            ok" and some figures, or what went wrong and the line that replays it. Several seeds run on \
            all cores; then only those that fail have a line, and a summary follows.
            With --crashes a line every 500 workloads and a summary for each seed.
            Exit code 0 when all seeds passed, 1 when one failed, 64 for wrong arguments.
            """
    )

    @Option(help: "The seed of one run. This or --seeds is needed without --crashes.")
    var seed: UInt64?

    @Option(help: "How many seeds to run, from --seed on.")
    var count: UInt64 = 1

    @Option(help: "Processes that run seeds. (default: one for each core)")
    var jobs: Int?

    @Option(help: "Real time that a run may take, in seconds, when there are several.")
    var limit = 300

    @Flag(help: "Begin no seed any more when one has failed.")
    var untilFailure = false

    @Flag(help: "Tell of each rare branch how many runs took it.")
    var probes = false

    @Option(help: "Operations in a run.")
    var steps: Int?

    @Option(help: "Nodes, 1 to 8; with --crashes 1 to 3, 1 if not given.")
    var nodes: Int?

    @Option(
        help: ArgumentHelp(
            "What happens besides work, separated by commas, or none: "
                + SimulationFaults.byName.map(\.name).joined(separator: ", ") + "."
        )
    )
    var faults: String?

    @Option(help: "The lock manager: distributed, or central to tell whose fault something is.")
    var locks = "distributed"

    @Flag(help: "Several processes per node at the same time.")
    var concurrent = false

    @Flag(help: "One operation at a time.")
    var sequential = false

    @Flag(help: "Tell every step as it happens.")
    var explain = false

    /// Runs the seeds that come on standard input, one a line.
    @Flag(help: .private)
    var worker = false

    @OptionGroup(title: "Crashes")
    var crashOptions: CrashOptions

    @OptionGroup(title: "Crashes of several nodes")
    var clusterOptions: ClusterCrashOptions

    func validate() throws {
        guard (1...8).contains(nodes ?? 3) else { throw ValidationError("--nodes is 1 to 8") }
        guard steps ?? 1 >= 0 else { throw ValidationError("--steps is not negative") }
        guard count > 0 else { throw ValidationError("--count is at least 1") }
        guard (1...1024).contains(jobs ?? 1) else { throw ValidationError("--jobs is 1 to 1024") }
        guard (1...86_400).contains(limit) else { throw ValidationError("--limit is 1 to 86400") }
        guard !concurrent || !sequential else {
            throw ValidationError("--concurrent and --sequential exclude each other")
        }
        if crashOptions.crashes || worker { return }
        guard (seed == nil) != (crashOptions.seeds == nil) else {
            throw ValidationError("one of --seed and --seeds is needed")
        }
        _ = try (chosenSeeds(), plan(1))
    }

    private func chosenSeeds() throws -> ClosedRange<UInt64> {
        guard let seed else { return try crashOptions.chosenSeeds() }
        let (end, isTooLarge) = seed.addingReportingOverflow(count - 1)
        guard !isTooLarge else { throw ValidationError("--seed and --count are too large") }
        return seed...end
    }

    /// What the seed says, but for what the options say.
    private func plan(_ seed: UInt64) throws -> SimulationPlan {
        var plan = SimulationPlan.drawn(seed: seed)
        if let nodes { plan.nodes = nodes }
        if let faults { plan.faults = try chosenFaults(faults) }
        if concurrent || sequential { plan.isConcurrent = concurrent }
        if let steps { plan.steps = steps }
        if let workload = crashOptions.workload {
            guard let mix = WorkloadMix.all.first(where: { $0.name == workload }) else {
                let names = WorkloadMix.all.map(\.name).joined(separator: ", ")
                throw ValidationError("no workload is called \(workload); there are \(names)")
            }
            plan.workload = mix
        }
        guard let chosen = SimulatedLocks(rawValue: locks) else {
            throw ValidationError("--locks is distributed or central")
        }
        plan.locks = chosen
        return plan
    }

    private func chosenFaults(_ text: String) throws -> SimulationFaults {
        var chosen: SimulationFaults = []
        for name in text.split(separator: ",") where name != "none" {
            guard let known = SimulationFaults.byName.first(where: { $0.name == name }) else {
                let names = SimulationFaults.byName.map(\.name).joined(separator: ", ")
                throw ValidationError("no fault is called \(name); there are \(names)")
            }
            chosen.insert(known.fault)
        }
        return chosen
    }

    func run() throws {
        if crashOptions.crashes {
            let nodes = nodes ?? 1
            if nodes > 1 { return try crashOptions.runCluster(clusterOptions, nodes: nodes) }
            return try crashOptions.run()
        }
        if worker { return try serve() }
        let seeds = try chosenSeeds()
        if seeds.count > 1, !explain { return try runMany(seeds) }
        var hasFailed = false
        for seed in seeds {
            let result = try result(of: seed)
            if let failure = result.failure {
                hasFailed = true
                print("seed \(seed): FAILED: \(failure)")
                print("replay: lockstep-simulate \(result.arguments) --explain")
            } else {
                print("seed \(seed): ok, \(result.report.summary)")
                print("replay: lockstep-simulate \(result.arguments)")
            }
        }
        if hasFailed { throw ExitCode(1) }
    }

    private func result(of seed: UInt64) throws -> RunResult {
        let plan = try plan(seed)
        var result = RunResult(seed: seed, arguments: plan.arguments)
        do {
            result.report = try Simulation.run(plan, tell: explain ? { print("  \($0)") } : nil)
        } catch {
            result.failure = "\(error)"
        }
        return result
    }

    /// As a worker: a seed a line, a result a line.
    private func serve() throws {
        while let line = readLine() {
            guard let seed = UInt64(line) else {
                throw ValidationError("'\(line)' is no seed")
            }
            print(try result(of: seed).json.text)
            fflush(nil)
        }
    }

    private func runMany(_ seeds: ClosedRange<UInt64>) throws {
        let begin = monotonicSeconds()
        let cores = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        let workers = SeedWorkers(
            seeds,
            arguments: ["--worker"] + CommandLine.arguments.dropFirst(),
            settings: SeedWorkers.Settings(limit: limit, endsAtFailure: untilFailure),
            // Checked before: the options are right for any seed.
            plan: { seed in (try? self.plan(seed)) ?? .drawn(seed: seed) }
        )
        try workers.run(
            processes: min(jobs ?? cores, seeds.count),
            showsProgress: isatty(STDERR_FILENO) == 1
        )
        let seconds = monotonicSeconds() - begin
        let speed = Double(workers.total.virtualTime) / 1_000_000_000 / max(seconds, 0.001)
        print(
            "seeds \(seeds.lowerBound)..\(seeds.upperBound): \(workers.failed == 0 ? "ok" : "\(workers.failed) FAILED"), "
                + "\(workers.passed) passed in \(Int(seconds)) s (\(Int(speed)) times real time)"
        )
        print(workers.total.summary)
        if probes {
            for probe in Probe.allCases {
                let (runs, seed) = workers.reaching[probe.rawValue]
                print("\(probe): \(runs == 0 ? "never" : "\(runs) runs, first seed \(seed)")")
            }
        }
        let unreached = workers.total.probes.probes(contained: false).map { "\($0)" }
        if !unreached.isEmpty { print("never reached: \(unreached.joined(separator: ", "))") }
        if workers.failed > 0 { throw ExitCode(1) }
    }
}

Simulate.main()
