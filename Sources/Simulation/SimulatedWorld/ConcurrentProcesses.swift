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
        let kills = simulation.plan.faults.contains(.kill) && simulation.plan.nodes > 1
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

/// One or more nodes die, are recovered, and perhaps come back.
private struct ConcurrentDisaster {
    let run: ConcurrentRun
    var dice: SeededGenerator
    /// Operations of each process of a node that comes back.
    let steps: Int

    func play() async throws {
        var dice = dice
        await pause(&dice, below: 3_000_000)
        var victims: [Int] = []
        kill(&dice, &victims)
        // Two at once; or the one that recovers, in the midst of it.
        if dice.oneIn(3) { kill(&dice, &victims) }
        await pause(&dice, below: dice.oneIn(2) ? 100_000 : 5_000_000)
        let recovered = Outcome<Result<Void, any Error>>()
        run.engine.spawn { recovered.deliver(await recover()) }
        if dice.oneIn(2) {
            await pause(&dice, below: dice.oneIn(2) ? 400_000 : 4_000_000)
            if recovered.value == nil, kill(&dice, &victims) {
                await pause(&dice, below: 3_000_000)
                try await recover().get()
            }
        }
        try await recovered.get().get()
        for index in victims where dice.oneIn(2) {
            try await run.simulation.mount(index)
            if let node = run.cluster.nodes[index] { run.start(on: node, steps) }
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

    /// Kills a node, if another one is left.
    @discardableResult
    private func kill(_ dice: inout SeededGenerator, _ victims: inout [Int]) -> Bool {
        let living = run.cluster.nodes.indices.filter { run.cluster.nodes[$0] != nil }
        guard living.count > 1 else { return false }
        let index = living[dice.below(living.count)]
        guard let victim = run.cluster.nodes[index] else { return false }
        run.simulation.log("n\(index + 1) dies")
        run.simulation.count(victim)
        run.simulation.report.deaths += 1
        run.cluster.kill(index)
        run.died(victim)
        victims.append(index)
        return true
    }
}

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

    /// What a process was told when its node was dead already counts for nothing.
    func demandLife() throws(SimulationFailure) {
        if node.isDead { throw SimulationFailure("\(self) is dead") }
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
