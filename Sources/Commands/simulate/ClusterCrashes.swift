import ArgumentParser
import CrashWorld

/// What `--crashes --nodes 2` and more does, and the options that only it has.
struct ClusterCrashOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "With --crashes and several nodes: death (of one node), recovery (and of whoever recovers), power (fails for all), separated by commas.",
            discussion: "death,power if not given; what --death or --point ask for, if they are."
        )
    )
    var kinds: String?

    @Flag(help: "With --crashes and several nodes: the scripts written by hand.")
    var families = false

    @Option(
        help: ArgumentHelp(
            "With --crashes and several nodes: this death alone, as a failure prints it.",
            discussion:
                "Events before it, the node, what becomes of its last writes. May be repeated.",
            valueName: "event:node:variant"
        )
    )
    var death: [String] = []

    @Option(help: "With --kinds recovery: only every so many first deaths.")
    var stride = 1

    func validate() throws {
        _ = try chosenKinds()
        _ = try chosenDeaths()
        guard stride > 0 else { throw ValidationError("--stride is at least 1") }
    }

    func chosenKinds() throws -> [ClusterCrash] {
        try (kinds ?? "death,power").split(separator: ",").map {
            guard let kind = ClusterCrash(rawValue: String($0)) else {
                let names = ClusterCrash.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("no kind is called \($0); there are \(names)")
            }
            return kind
        }
    }

    func chosenDeaths() throws -> [NodeDeath] {
        try death.map { text in
            let numbers = text.split(separator: ":", omittingEmptySubsequences: false)
                .map { Int($0) ?? -1 }
            guard numbers.count == 3, numbers.allSatisfy({ (0...1_000_000).contains($0) }),
                (1...3).contains(numbers[1])
            else { throw ValidationError("--death is event:node:variant, not \(text)") }
            return NodeDeath(event: numbers[0], node: numbers[1], variant: numbers[2])
        }
    }
}

extension CrashOptions {
    /// Enumerates crashes of `nodes` nodes; the exit code is 1 if one left what it may not leave.
    func runCluster(_ options: ClusterCrashOptions, nodes: Int) throws {
        guard nodes <= 3 else { throw ValidationError("--nodes is 1 to 3 with --crashes") }
        guard blockSize == 4096, !interruptReplays else {
            throw ValidationError("--block-size and --interrupt-replays are for one node")
        }
        let (kinds, deaths) = (try options.chosenKinds(), try options.chosenDeaths())
        guard deaths.allSatisfy({ $0.node <= nodes }) else {
            throw ValidationError("--death names a node of more than \(nodes)")
        }
        var hasFailed = false
        for seed in try chosenSeeds() {
            let scripts = try scripts(options, nodes, seed)
            let enumeration = try ClusterEnumeration(seed: seed, nodes: nodes)
            enumeration.stride = options.stride
            for (number, script) in scripts.enumerated() {
                let before = enumeration.failures.count
                if !deaths.isEmpty {
                    enumeration.run(script, deaths: deaths)
                } else if point != nil || variant != nil {
                    enumeration.run(script, point: point, variant: variant)
                } else {
                    enumeration.run(script, kinds)
                }
                report(enumeration, before)
                if (number + 1) % 500 == 0, number + 1 < scripts.count {
                    print("seed \(seed): \(number + 1) of \(scripts.count) scripts")
                }
            }
            let counts = enumeration.counts
            guard counts.images > 0 || counts.failures > 0 else {
                throw ValidationError("there is no such point or variant")
            }
            hasFailed = hasFailed || counts.failures > 0
            print(
                "seed \(seed): \(counts.failures == 0 ? "ok" : "FAILED"), "
                    + "\(counts.workloads) scripts, \(counts.points) crash points, "
                    + "\(counts.images) crashes judged, \(counts.distinctImages) distinct images, "
                    + "\(counts.distinctTrees) distinct trees, "
                    + "\(enumeration.broughtHome) blocks brought home by survivors, "
                    + "\(enumeration.settled) names held by others, "
                    + "\(enumeration.unjudged) trees not judged, \(counts.failures) failures"
            )
        }
        if hasFailed { throw ExitCode(1) }
    }

    private func report(_ enumeration: ClusterEnumeration, _ before: Int) {
        for failure in enumeration.failures[before...].prefix(1) {
            print("FAILED: \(failure.complaint)")
            print("replay: lockstep-simulate \(failure.arguments)")
        }
    }

    private func scripts(
        _ options: ClusterCrashOptions,
        _ nodes: Int,
        _ seed: UInt64
    ) throws -> [ClusterScript] {
        if let workload {
            guard let chosen = ClusterScript(workload, nodes: nodes), chosen.isPossible else {
                throw ValidationError("\(workload) cannot be done by \(nodes) nodes")
            }
            return [chosen]
        }
        if options.families { return ClusterScript.families(nodes: nodes).map(\.script) }
        if let sample {
            return ClusterScript.sample(sample, operations: operations, nodes: nodes, seed: seed)
        }
        return ClusterScript.allPairs()
    }
}
