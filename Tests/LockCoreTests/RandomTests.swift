// Seeds through the world: every oracle after every event.

import LockCore
import Testing
import Vocabulary

struct RandomTests {
    /// One run. The failure line names what replays it.
    static func run(_ seed: UInt64, _ options: WorldOptions) -> WorldStatistics {
        let world = World(seed: seed, options: options)
        do {
            try world.run()
        } catch {
            let again = World(seed: seed, options: options)
            again.isTracing = true
            try? again.run()
            let lineCount = Int(environment("LOCKSTEP_TRACE") ?? "") ?? 0
            print(again.trace.suffix(lineCount).joined(separator: "\n"))
            Issue.record(
                "LOCKSTEP_SEED=\(seed) LOCKSTEP_NODES=\(options.nodeCount) LOCKSTEP_TRACE=200 deaths \(options.hasDeaths): \(error)"
            )
        }
        return world.statistics
    }

    /// `LOCKSTEP_SEED=7` runs one seed, `LOCKSTEP_SEED=1-5000` many.
    static func seeds() -> ClosedRange<UInt64> {
        let parts = (environment("LOCKSTEP_SEED") ?? "1-80").split(separator: "-")
            .compactMap { UInt64($0) }
        guard let first = parts.first, let last = parts.last, first <= last else { return 1...80 }
        return first...last
    }

    /// `LOCKSTEP_NODES=4` runs one size only.
    static func isChosen(_ nodeCount: Int) -> Bool {
        guard let chosen = environment("LOCKSTEP_NODES").flatMap({ Int($0) }) else { return true }
        return chosen == nodeCount
    }

    @Test("Random histories with deaths, joins and leaves", arguments: [3, 4, 5])
    func everything(nodeCount: Int) {
        if !Self.isChosen(nodeCount) { return }
        var views = 0
        var overtaken = 0
        var values = 0
        for seed in Self.seeds() {
            let statistics = Self.run(seed, WorldOptions(nodeCount: nodeCount))
            views += statistics.views
            overtaken += statistics.overtakenViews
            values += statistics.valuesChecked
        }
        if environment("LOCKSTEP_SEED") != nil { return }
        #expect(views > 100 && overtaken > 10 && values > 100, "the runs met too little")
    }

    @Test("Without deaths no value is ever lost, also when nodes join")
    func joinsKeepValues() {
        var checked = 0
        for seed in Self.seeds() {
            let statistics = Self.run(
                seed,
                WorldOptions(nodeCount: 3, hasDeaths: false, hasLeaves: false)
            )
            #expect(statistics.invalidValues == 0, "seed \(seed)")
            checked += statistics.valuesChecked
        }
        if environment("LOCKSTEP_SEED") == nil { #expect(checked > 100) }
    }

    @Test("One node alone answers everything at once and sends nothing")
    func alone() {
        for seed in Self.seeds() {
            let options = WorldOptions(
                nodeCount: 1,
                hasDeaths: false,
                hasJoins: false,
                hasLeaves: false
            )
            #expect(Self.run(seed, options).messages == 0)
        }
    }
}
