import ArgumentParser
import LockWorld
import Vocabulary

/// `lockstep-lockcheck random`: histories by seed.
struct RandomCheck: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "random",
        abstract: "Runs random histories of several lock managers and checks every step.",
        discussion: """
            Prints "seed N: ok" and some figures, or what was violated and the line that replays it.
            """
    )

    @Option(help: "One seed; everything that happens follows from it.")
    var seed: UInt64?

    @Option(help: "Several seeds, as in 1..100; on all cores.")
    var seeds: String?

    @Option(help: "Nodes at the beginning.")
    var nodes = 3

    @Option(help: "Resources that all nodes know, besides those they create.")
    var resources = 4

    @Option(help: "Steps of a run.")
    var steps = 600

    @Option(
        help: """
            What happens besides work, separated by commas: deaths, joins, leaves, losses (of \
            connections), delays (of messages), moves (of masterships), deadlocks (of owners), \
            trees, patience, orphans, ranges (of bytes), or all, or none.
            """
    )
    var faults = "all"

    @Flag(help: "Tell every event as it happens.")
    var explain = false

    func validate() throws {
        guard (1...64).contains(nodes) else { throw ValidationError("--nodes is 1 to 64") }
        guard resources > 0 else { throw ValidationError("--resources is at least 1") }
        guard steps >= 0 else { throw ValidationError("--steps is not negative") }
        guard (seed == nil) != (seeds == nil) else {
            throw ValidationError("--seed N or --seeds A..B")
        }
        _ = try (chosenFaults(), chosenSeeds())
    }

    private func chosenFaults() throws -> WorldFaults {
        if faults == "all" { return .all }
        var chosen: WorldFaults = []
        for name in faults.split(separator: ",") where name != "none" {
            guard let known = WorldFaults.byName.first(where: { $0.name == name }) else {
                let names = WorldFaults.byName.map(\.name).joined(separator: ", ")
                throw ValidationError("no fault is called \(name); there are \(names)")
            }
            chosen.insert(known.fault)
        }
        return chosen
    }

    private func chosenSeeds() throws -> ClosedRange<UInt64> {
        if let seed { return seed...seed }
        let parts = (seeds ?? "").replacing("..", with: " ").split(separator: " ")
            .compactMap { UInt64($0) }
        guard parts.count == 2, parts[0] <= parts[1] else {
            throw ValidationError("--seeds is A..B with A not above B")
        }
        return parts[0]...parts[1]
    }

    func run() async throws {
        let options = WorldOptions(
            nodeCount: nodes,
            nameCount: resources,
            steps: steps,
            faults: try chosenFaults()
        )
        let seeds = try chosenSeeds()
        let explains = explain
        // On as many threads as there are cores; the lines come as the runs end.
        let failures = await withTaskGroup(of: (String, Bool).self) { group in
            var failures = 0
            var next = seeds.lowerBound
            var isLast = false
            for _ in 0..<16 where !isLast {
                let seed = next
                group.addTask { RandomCheck.check(seed, options, explains: explains) }
                if next == seeds.upperBound { isLast = true } else { next += 1 }
            }
            while let (line, isOkay) = await group.next() {
                print(line)
                if !isOkay { failures += 1 }
                if isLast { continue }
                let seed = next
                group.addTask { RandomCheck.check(seed, options, explains: explains) }
                if next == seeds.upperBound { isLast = true } else { next += 1 }
            }
            return failures
        }
        if failures > 0 {
            print("\(failures) of \(seeds.count) seeds failed")
            throw ExitCode(1)
        }
    }

    /// One run: the line to print, and whether all was well.
    private static func check(
        _ seed: UInt64,
        _ options: WorldOptions,
        explains: Bool
    ) -> (String, Bool) {
        let world = World(seed: seed, options: options, tell: explains ? { print($0) } : nil)
        do {
            try world.run()
            return ("seed \(seed): ok, \(world.statistics.summary)", true)
        } catch {
            return ("seed \(seed): FAILED: \(error)\nreplay: \(options.replayLine(seed))", false)
        }
    }
}
