// The processes of a concurrent run, and the deaths of the nodes they run on.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// When nodes die in a concurrent run. The survivors recover them while they work; whoever recovers
/// may die as well.
struct ConcurrentDeaths {
    private let simulation: Simulation
    private var dice: SeededGenerator
    /// At which operation the next one dies.
    private var next: Int
    private let interval: Int

    init(_ simulation: Simulation) {
        self.simulation = simulation
        let kills =
            !simulation.plan.faults.isDisjoint(with: ConcurrentDisaster.faults)
            && (simulation.plan.nodes > 1 || simulation.plan.faults.contains(.crash))
        dice = kills ? simulation.dice.fork() : SeededGenerator(seed: 0)
        interval = max(10, simulation.plan.steps / 4)
        next = kills ? 1 + dice.below(interval) : .max
    }

    /// Perhaps begins a disaster, which the run then waits for.
    mutating func perhaps(_ run: ConcurrentRun, _ operations: Int) {
        guard operations >= next else { return }
        next = .max
        let disaster = ConcurrentDisaster(
            run: run,
            dice: dice.fork(),
            steps: 1 + dice.below(interval)
        )
        run.begin()
        simulation.engine.spawn {
            do {
                try await disaster.play()
            } catch {
                run.fail("\(error)")
            }
            run.deaths.rest(operations: run.operations)
            run.end()
        }
    }

    /// A disaster has ended.
    private mutating func rest(operations: Int) { next = operations + 1 + dice.below(interval) }
}

/// Nodes die, stand still or do not hear each other; who is dead is recovered, and perhaps comes back.
private struct ConcurrentDisaster {
    static let faults: SimulationFaults = [.kill, .pause, .partition, .inputOutput, .crash]

    let run: ConcurrentRun
    var dice: SeededGenerator
    /// Operations of each process of a node that comes back.
    let steps: Int

    func play() async throws {
        var dice = dice
        if dice.oneIn(2) {
            await run.cluster.awaitDelicateMoment(&dice, limit: 60_000_000)
            await pause(&dice, below: 400_000)
        } else {
            await pause(&dice, below: 3_000_000)
        }
        var kinds: [SimulationFaults] = []
        for fault in [SimulationFaults.kill, .pause, .partition, .inputOutput, .crash]
        where run.simulation.plan.faults.contains(fault) {
            kinds.append(fault)
        }
        switch kinds[dice.below(kinds.count)] {
        case .pause: try await standstill(&dice)
        case .partition: try await partition(&dice)
        case .inputOutput: try await withdrawal(&dice)
        case .crash: try await powerFailure()
        default: await deaths(&dice)
        }
        try await recover().get()
        let isDown = run.cluster.living.isEmpty
        for index in run.takeVictims() where isDown || dice.oneIn(2) {
            try await run.simulation.mount(index)
            if let node = run.cluster.nodes[index] { run.start(on: node, steps) }
        }
    }

    /// One or two at once, perhaps another in the midst of recovering them.
    private func deaths(_ dice: inout SeededGenerator) async {
        kill(&dice)
        if dice.oneIn(3) { kill(&dice) }
        if dice.oneIn(2) {
            await pause(&dice, below: dice.oneIn(2) ? 600_000 : 6_000_000)
            kill(&dice)
        }
    }

    /// The power fails for all; what the disk had not made durable it may have forgotten.
    private func powerFailure() async throws {
        let simulation = run.simulation
        simulation.log("the power fails")
        simulation.report.crashes += 1
        let nodes = run.cluster.living
        run.cluster.crash()
        for node in nodes { run.died(node) }
    }

    private func standstill(_ dice: inout SeededGenerator) async throws {
        guard let victim = some(&dice) else { return }
        let patience = Int(SimulatedMembership.patience)
        let isLong = run.cluster.living.count > 1 && dice.oneIn(3)
        let time = isLong ? 2 * patience + dice.below(patience) : dice.below(patience / 2)
        run.simulation.log("\(victim.kernel.name) stands still for \(time / 1_000_000) ms")
        run.simulation.report.pauses += 1
        victim.member.lane.hold()
        await run.engine.sleep(nanoseconds: UInt64(time))
        guard victim.isDead == isLong else {
            throw SimulationFailure(
                "\(victim.kernel.name) stood still for \(time / 1_000_000) ms and was \(isLong ? "not " : "")killed"
            )
        }
        victim.member.lane.release()
    }

    /// A node's way to the disk fails under its processes: it withdraws, writes nothing from then on, and its
    /// process ends a while later.
    private func withdrawal(_ dice: inout SeededGenerator) async throws {
        guard run.cluster.living.count > 1, let victim = some(&dice),
            let index = run.cluster.nodes.firstIndex(where: { $0 === victim })
        else { return }
        run.diskFails(for: victim)
        victim.member.host.faults.fail(&dice)
        run.simulation.log("the disk fails for \(victim.kernel.name): \(victim.member.host.faults)")
        let withdrawn = Outcome<Void>()
        victim.whenWithdrawn = withdrawn
        await pause(&dice, below: 20_000_000)
        // Who has met no failure meets them all.
        victim.member.host.faults.failEverything = true
        run.engine.spawn {
            while victim.withdrawal == nil, !victim.isDead {
                _ = await Simulation.result { () async throws(FileError) in
                    try await victim.kernel.make(
                        .node(mode: 0o100600, device: 0),
                        [Array("asked".utf8)]
                    )
                }
                _ = await Simulation.result { () async throws(FileError) in
                    try await victim.kernel.remove([Array("asked".utf8)], isDirectory: false)
                }
                _ = await Simulation.result { () async throws(FileError) in
                    try await victim.kernel.synchronizeAll()
                }
            }
        }
        try await run.simulation.within("\(victim.kernel.name) withdraws") { await withdrawn.get() }
        run.simulation.log("\(victim.kernel.name) withdraws: \(victim.withdrawal ?? "?")")
        run.simulation.report.withdrawals += 1
        await pause(&dice, below: dice.oneIn(2) ? 600_000 : 20_000_000)
        if victim.wroteAfterWithdrawal {
            throw SimulationFailure("\(victim.kernel.name) wrote after it had withdrawn (V4)")
        }
        guard !victim.isDead else { return }
        run.cluster.kill(index)
        run.died(victim)
    }

    private func partition(_ dice: inout SeededGenerator) async throws {
        guard let one = some(&dice), let other = some(&dice), one !== other else { return }
        let ids = [one, other].map { NodeID(slot: $0.slot) }
        run.cluster.network.cut(from: ids[0], to: ids[1])
        if dice.oneIn(2) { run.cluster.network.cut(from: ids[1], to: ids[0]) }
        run.simulation.log("\(one.kernel.name), \(other.kernel.name): nothing arrives")
        run.simulation.report.partitions += 1
        await pause(&dice, below: dice.oneIn(2) ? 3_000_000 : 200_000_000)
        let isLost = dice.oneIn(2)
        if isLost { run.cluster.network.breakConnection(ids[0], ids[1]) }
        run.cluster.network.heal()
        guard isLost else { return }
        try await run.simulation.within("one of two that lost each other is killed") {
            while !one.isDead, !other.isDead { await run.engine.sleep(nanoseconds: 1_000_000) }
        }
        await pause(&dice, below: 20_000_000)
        if one.isDead, other.isDead {
            throw SimulationFailure("\(one.kernel.name), \(other.kernel.name) killed each other")
        }
    }

    private func recover() async -> Result<Void, any Error> {
        do {
            try await run.simulation.within("recovery") { try await run.cluster.recover() }
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    private func pause(_ dice: inout SeededGenerator, below limit: Int) async {
        await run.engine.sleep(
            until: run.engine.clock.now.advanced(nanoseconds: UInt64(dice.below(limit)))
        )
    }

    private func some(_ dice: inout SeededGenerator) -> SimulatedNode? {
        let living = run.cluster.living
        return living.isEmpty ? nil : living[dice.below(living.count)]
    }

    /// Kills a node, if another one is left.
    private func kill(_ dice: inout SeededGenerator) {
        guard run.cluster.living.count > 1, let victim = some(&dice),
            let index = run.cluster.nodes.firstIndex(where: { $0 === victim })
        else { return }
        run.cluster.kill(index)
        run.died(victim)
    }
}

/// A process wants to change something, or has, and its daemon is dead.
struct Orphaned: Error {}

/// A process with its open files.
struct SimulatedProcess: CustomStringConvertible {
    struct Opened {
        let file: KernelFile
        let index: Int
        var isKept: Bool
    }

    let node: SimulatedNode
    let life: Life
    let number: Int
    var dice: SeededGenerator
    var files: [Opened] = []
    var appendCount = 0

    init(node: SimulatedNode, life: Life, number: Int, dice: SeededGenerator) {
        self.node = node
        self.life = life
        self.number = number
        self.dice = dice
    }

    /// Whether nothing that it did counts any more: the daemon is dead, or has withdrawn and will be, and
    /// what is not on the disk may be lost. It can still read what is cached, which must be right
    /// (Docs/MEMBERSHIP.md).
    var isOrphan: Bool { node.isDead || node.withdrawal != nil }

    /// The process ends when the guardian of its node has taken everything back.
    var hasEnded: Bool { node.kernel.isDead }

    /// What a process that has ended was told counts for nothing.
    func demandLife() throws(SimulationFailure) {
        if hasEnded { throw SimulationFailure("\(self) has ended") }
    }

    /// What an orphan changes does not count either.
    func demandDaemon() throws(Orphaned) {
        if isOrphan { throw Orphaned() }
    }

    var description: String { "\(node.kernel.name) process \(number)" }

    /// A file that is open already, or a new open file.
    mutating func open(
        _ path: PathNames,
        _ index: Int,
        writes: Bool
    ) async throws(FileError) -> Opened {
        let suitable = files.filter {
            $0.index == index && (writes ? $0.file.intent.writes : $0.file.intent.reads)
        }
        if let kept = suitable.first, dice.oneIn(2) { return kept }
        let intent: OpenIntent = dice.oneIn(3) ? .both : writes ? .writing : .reading
        let opened = Opened(
            file: try await node.kernel.open(path, intent),
            index: index,
            isKept: files.count < 4 && dice.oneIn(3)
        )
        if opened.isKept { files.append(opened) }
        return opened
    }

    /// Closes what is not kept; now and then also what was.
    mutating func done(_ opened: Opened) async throws(FileError) {
        if opened.isKept {
            guard dice.oneIn(6) else { return }
            files.removeAll { $0.file === opened.file }
        }
        try await node.kernel.close(opened.file)
    }
}
