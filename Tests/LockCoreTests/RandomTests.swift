// Seeds through the random world (Sources/Simulation/LockWorld): every oracle after every event.
// `lockstep-lockcheck random` runs more of them, and larger ones.

import LockWorld
import Testing

struct RandomTests {
    /// One run. The failure names the line that replays it.
    static func run(_ seed: UInt64, _ options: WorldOptions) -> WorldStatistics {
        let world = World(seed: seed, options: options)
        do {
            try world.run()
        } catch {
            Issue.record("\(options.replayLine(seed)): \(error)")
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

    @Test("Random histories with everything that can happen", arguments: [3, 4, 5])
    func everything(nodeCount: Int) {
        var views = 0
        var overtaken = 0
        var values = 0
        var losses = 0
        var met = WorldStatistics()
        for seed in Self.seeds() {
            let statistics = Self.run(seed, WorldOptions(nodeCount: nodeCount))
            views += statistics.views
            overtaken += statistics.overtakenViews
            values += statistics.valuesChecked
            losses += statistics.losses
            met.add(statistics)
        }
        if environment("LOCKSTEP_SEED") != nil { return }
        #expect(
            views > 100 && overtaken > 10 && values > 100 && losses > 10,
            "the runs met too little"
        )
        #expect(
            met.moves > 50 && met.circles > 2 && met.pairs > 2 && met.demotions > 2
                && met.timeouts > 20 && met.parts > 200 && met.orphans > 20 && met.adoptions > 0
                && met.synchronous > 50,
            "the runs met too little: \(met.summary)"
        )
    }

    /// Seeds that once found something: nodes, seed, what it was then. A change of the world changes
    /// what a seed does; the runs must still pass.
    static let kept: [(nodes: Int, seed: UInt64, found: String)] = [
        (3, 3, "a circle of one hop could not be decoded"),
        (3, 5, "a request with HEADQUE waited at the head of its queue for nothing"),
        (3, 16, "QUECVT and HEADQUE together: a conversion waited for nothing"),
        (3, 89, "an adopted lock outlived its new owner although that had not asked for it"),
        (
            3, 174,
            "a new master granted what its client had asked before all its locks were in place"
        ),
        (3, 337, "a part was forgotten under a request asked during a move"),
        (3, 1139, "a part from an unopened transfer, of nobody who is left, was kept"),
        (5, 296, "NOORDER granted sideways made room before it, and nobody looked"),
        (5, 513, "an orphan adopted in a recovery was told twice"),
        (8, 1109, "who adopted a remote orphan was not told what it stood in the way of"),
        (3, 63678, "a word that nobody wants an entry, said in an older view, was not heard"),
        (3, 71784, "what the end of its owner had granted to a waiting lock became an orphan"),
        (
            3, 71951,
            "a wait granted by the old master and withdrawn by its holder ended the new one"
        ),
        (
            3, 78979,
            "who learned during a move who the old master is spoke to it: an unlock was lost"
        ),
        (3, 89594, "a doomed lock whose patience ended stayed"),
        (3, 51905, "a wait withdrawn when the old master had died stayed with the new one"),
    ]

    @Test("Seeds that once found something", arguments: kept.map { ($0.nodes, $0.seed) })
    func keptSeed(nodeCount: Int, seed: UInt64) {
        _ = Self.run(seed, WorldOptions(nodeCount: nodeCount))
    }

    /// What only a large world met: what a purge that came too early was thought to reach was adopted
    /// before, and its client waited for ever for it to go.
    @Test(
        "A purge that comes too early, and an heir",
        arguments: [(8, 62, 20_000), (16, 17, 60_000)]
    )
    func earlyPurge(nodeCount: Int, seed: UInt64, steps: Int) {
        let options = WorldOptions(nodeCount: nodeCount, nameCount: 1000, steps: steps)
        _ = Self.run(seed, options)
    }

    @Test("Circles of owners while nobody dies and no view changes: each is broken once")
    func circles() {
        var circles = 0
        for seed in Self.seeds() {
            let options = WorldOptions(nodeCount: 3, faults: [.deadlocks, .trees, .moves, .delays])
            circles += Self.run(seed, options).circles
        }
        if environment("LOCKSTEP_SEED") == nil { #expect(circles > 5, "too few circles") }
    }

    @Test("Sixteen nodes and a thousand resources")
    func large() {
        let statistics = Self.run(1, WorldOptions(nodeCount: 16, nameCount: 1000, steps: 2_000))
        #expect(statistics.grants > 300 && statistics.views > 1, "the run met too little")
    }

    @Test("Without deaths no value is ever lost, also when nodes join")
    func joinsKeepValues() {
        var checked = 0
        for seed in Self.seeds() {
            let statistics = Self.run(seed, WorldOptions(nodeCount: 3, faults: [.joins, .delays]))
            #expect(statistics.invalidValues == 0, "seed \(seed)")
            checked += statistics.valuesChecked
        }
        if environment("LOCKSTEP_SEED") == nil { #expect(checked > 100) }
    }

    @Test("One node alone answers everything at once and sends nothing")
    func alone() {
        for seed in Self.seeds() {
            #expect(Self.run(seed, WorldOptions(nodeCount: 1, faults: [])).messages == 0)
        }
    }

    @Test("A seed is one run")
    func repeats() {
        var told: [[String]] = [[], []]
        for round in 0...1 {
            let options = WorldOptions(nodeCount: 4, steps: 300)
            let world = World(seed: 5, options: options) { told[round].append($0) }
            do { try world.run() } catch { Issue.record("\(error)") }
        }
        #expect(told[0] == told[1] && told[0].count > 300)
    }
}
