import ArgumentParser
import CrashWorld

/// The options of `--crashes`, and what it does.
struct CrashOptions: ParsableArguments {
    @Flag(
        help: ArgumentHelp(
            "Enumerate crashes instead: at every moment of short workloads, on one node or several.",
            discussion: """
                On one node the power fails; with --nodes 2 or 3, one node dies or the power fails. \
                Each disk that may be left is checked, mounted and compared with what the \
                operations had promised. --workload, --point, --variant and --death repeat one crash.
                """
        )
    )
    var crashes = false

    @Option(
        help: "Operations in a workload, 1 to 4; all sequences of them unless --sample is given."
    )
    var operations = 1

    @Option(help: "With --crashes: so many workloads by dice for each seed, instead of all.")
    var sample: Int?

    @Option(help: "The seeds, as A..B or one number; with --crashes 1 if not given.")
    var seeds: String?

    @Option(help: "With --crashes: bytes in a block.")
    var blockSize: UInt32 = 4096

    @Option(
        help:
            "What the processes do, by name; with --crashes this workload alone, as a failure prints it."
    )
    var workload: String?

    @Option(help: "With --crashes: only the crash after so many events.")
    var point: Int?

    @Option(help: "With --crashes: only this image at each point.")
    var variant: Int?

    @Flag(help: "With --crashes: the power fails again during each replay.")
    var interruptReplays = false

    func validate() throws {
        guard (1...4).contains(operations) else { throw ValidationError("--operations is 1 to 4") }
        guard operations < 3 || sample != nil || workload != nil else {
            throw ValidationError("sequences of \(operations) are too many for all: use --sample")
        }
        guard sample ?? 1 > 0 else { throw ValidationError("--sample is at least 1") }
        _ = try chosenSeeds()
    }

    func chosenSeeds() throws -> ClosedRange<UInt64> {
        let ends = (seeds ?? "1").components("..").map { UInt64($0) }
        guard let first = ends[0], ends.count <= 2, let last = ends[ends.count - 1], first <= last
        else { throw ValidationError("--seeds is a number, or two as in 1..5") }
        return first...last
    }

    private func workloads(_ seed: UInt64) throws -> [CrashWorkload] {
        if let workload {
            guard let chosen = CrashWorkload(workload) else {
                throw ValidationError("\(workload) is no workload")
            }
            guard CrashHistory(chosen) != nil else {
                throw ValidationError("\(workload) cannot be done")
            }
            return [chosen]
        }
        if let sample {
            return CrashWorkload.sample(sample, operations: operations, seed: seed)
        }
        return CrashWorkload.all(operations: operations)
    }

    /// Enumerates; the exit code is 1 if a crash left what it may not leave.
    func run() throws {
        var hasFailed = false
        for seed in try chosenSeeds() {
            let workloads = try workloads(seed)
            let enumeration = try CrashEnumeration(seed: seed, blockSize: blockSize)
            enumeration.interruptsReplays = interruptReplays
            for (number, workload) in workloads.enumerated() {
                let before = enumeration.failures.count
                enumeration.run(workload, onlyPoint: point, onlyVariant: variant)
                for failure in enumeration.failures[before...].prefix(1) {
                    print("FAILED: \(failure.complaint)")
                    print("replay: lockstep-simulate \(failure.arguments)")
                }
                if (number + 1) % 500 == 0, number + 1 < workloads.count {
                    print(
                        "seed \(seed): \(number + 1) of \(workloads.count) workloads, "
                            + "\(enumeration.counts.distinctImages) distinct images"
                    )
                }
            }
            let counts = enumeration.counts
            guard counts.images > 0 || counts.failures > 0 else {
                throw ValidationError("there is no such point or variant")
            }
            hasFailed = hasFailed || counts.failures > 0
            print(
                "seed \(seed): \(counts.failures == 0 ? "ok" : "FAILED"), "
                    + "\(counts.workloads) workloads, \(counts.points) crash points, "
                    + "\(counts.images) images judged, \(counts.distinctImages) distinct images, "
                    + "\(counts.distinctTrees) distinct trees, \(counts.failures) failures"
            )
        }
        if hasFailed { throw ExitCode(1) }
    }
}

extension String {
    /// What stands between the separators.
    fileprivate func components(_ separator: String) -> [String] {
        var parts: [String] = []
        var rest = self[...]
        while let found = rest.firstRange(of: separator) {
            parts.append(String(rest[..<found.lowerBound]))
            rest = rest[found.upperBound...]
        }
        return parts + [String(rest)]
    }
}
