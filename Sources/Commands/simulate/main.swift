import ArgumentParser
import SimulatedWorld
import Vocabulary

/// `lockstep-simulate`: simulated runs by seed, or the enumeration of crashes.
struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lockstep-simulate",
        abstract: "Runs a simulated cluster by seed and compares it with a model.",
        discussion: """
            Prints "seed N: ok" and some figures, or what went wrong and the line that replays it.
            With --crashes a line every 500 workloads and a summary for each seed.
            Exit code 0 when all seeds passed, 1 when one failed, 64 for wrong arguments.
            """
    )

    @Option(help: "The seed; everything that happens follows from it. Needed without --crashes.")
    var seed: UInt64?

    @Option(help: "How many seeds to run, from --seed on.")
    var count: UInt64 = 1

    @Option(help: "Operations in a run.")
    var steps = 200

    @Option(help: "Nodes, 1 to 8, 3 if not given; with --crashes 1 to 3, 1 if not given.")
    var nodes: Int?

    @Option(help: "What happens besides work, separated by commas: remount, kill, crash, io, scrub, or none.")
    var faults = "remount"

    @Option(help: "The lock manager: distributed, or central to tell whose fault something is.")
    var locks = "distributed"

    @Flag(help: "Several processes per node at the same time, instead of one operation at a time.")
    var concurrent = false

    @Flag(help: "Tell every step as it happens.")
    var explain = false

    @OptionGroup(title: "Crashes")
    var crashOptions: CrashOptions

    @OptionGroup(title: "Crashes of several nodes")
    var clusterOptions: ClusterCrashOptions

    func validate() throws {
        guard crashOptions.crashes || seed != nil else {
            throw ValidationError("--seed or --crashes is needed")
        }
        guard (1...8).contains(nodes ?? 3) else { throw ValidationError("--nodes is 1 to 8") }
        guard steps >= 0 else { throw ValidationError("--steps is not negative") }
        guard count > 0 else { throw ValidationError("--count is at least 1") }
        _ = try (chosenFaults(), chosenLocks())
    }

    private func chosenFaults() throws -> SimulationFaults {
        var chosen: SimulationFaults = []
        for name in faults.split(separator: ",") where name != "none" {
            guard let known = SimulationFaults.byName.first(where: { $0.name == name }) else {
                let names = SimulationFaults.byName.map(\.name).joined(separator: ", ")
                throw ValidationError("no fault is called \(name); there are \(names)")
            }
            chosen.insert(known.fault)
        }
        return chosen
    }

    private func chosenLocks() throws -> SimulatedLocks {
        guard let chosen = SimulatedLocks(rawValue: locks) else {
            throw ValidationError("--locks is distributed or central")
        }
        return chosen
    }

    func run() throws {
        if crashOptions.crashes {
            let nodes = nodes ?? 1
            if nodes > 1 { return try crashOptions.runCluster(clusterOptions, nodes: nodes) }
            return try crashOptions.run()
        }
        let nodes = nodes ?? 3
        guard let seed else { throw ValidationError("--seed is needed") }
        var hasFailed = false
        for seed in seed..<seed + count {
            var plan = SimulationPlan(
                seed: seed,
                steps: steps,
                nodes: nodes,
                faults: try chosenFaults()
            )
            plan.isConcurrent = concurrent
            plan.locks = try chosenLocks()
            do {
                let report = try Simulation.run(plan, tell: explain ? { print("  \($0)") } : nil)
                print("seed \(seed): ok, \(report.summary)")
            } catch {
                hasFailed = true
                print("seed \(seed): FAILED: \(error)")
                print(
                    "replay: lockstep-simulate --seed \(seed) --steps \(steps) --nodes \(nodes) --faults \(faults) --locks \(locks)\(concurrent ? " --concurrent" : "") --explain"
                )
            }
        }
        if hasFailed { throw ExitCode(1) }
    }
}

Simulate.main()
