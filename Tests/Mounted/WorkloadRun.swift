// All programs of a workload at once, with what goes on beside them.

import SimulatedWorld
import Synchronization

/// One run of one mix: roamers and fighters on the working nodes, one more node that comes and goes, and
/// an administrator.
final class WorkloadRun: Sendable {
    private static let roamers = 3
    private static let fightersPerNode = 2

    private let nodes: [TestNode]
    private let tally: WorkloadTally
    /// As they are at the end; each is its own thread's before.
    private let roamers: Mutex<[Roamer]>
    private let arena: Arena
    private let visitor: Visitor
    private let administrator: Administrator
    private let programs: Int
    private let working: Atomic<Int>

    init(
        _ cluster: TestCluster,
        _ nodes: [TestNode],
        _ mix: WorkloadMix,
        seed: UInt64,
        _ tally: WorkloadTally
    ) {
        self.nodes = nodes
        self.tally = tally
        roamers = Mutex(
            (0..<Self.roamers).map {
                Roamer(mix, name: "own\($0)", nodes: nodes, seed: seed << 8 + UInt64($0))
            }
        )
        arena = Arena(mix, name: "arena", seed: seed << 8 + 100)
        visitor = Visitor(
            cluster: cluster,
            node: cluster.nodes[nodes.count],
            mix: mix,
            seed: seed << 8 + 200
        )
        administrator = Administrator(cluster: cluster, nodes: nodes)
        programs = Self.roamers + Self.fightersPerNode * nodes.count
        working = Atomic(programs)
    }

    /// Lets all programs do `each` operations, and checks what each of them must find at the end.
    func play(_ each: Int) throws {
        try arena.make(on: nodes[0])
        try TestThread.together(programs + 2) { [self] number in
            do {
                switch number {
                case 0..<programs: try work(number, each)
                case programs: try receive()
                default: repeat { try administrator.look() } while goesOn
                }
            } catch {
                tally.isOver.store(true, ordering: .relaxed)
                throw Trouble("program \(number): \(error)")
            }
        }
        for roamer in roamers.withLock({ $0 }) { try roamer.verify() }
        try arena.verify(on: nodes)
    }

    private var goesOn: Bool { working.load(ordering: .relaxed) > 0 }

    private func work(_ number: Int, _ each: Int) throws {
        defer { working.subtract(1, ordering: .relaxed) }
        guard number < Self.roamers else {
            return try arena.fight(on: nodes[number % nodes.count], each, tally)
        }
        var roamer = roamers.withLock { $0[number] }
        try roamer.run(each, tally)
        roamers.withLock { [roamer] in $0[number] = roamer }
    }

    /// The node that comes and goes; it is killed once and unmounted once at least.
    private func receive() throws {
        var number = 0
        while (goesOn || number < 2) && !tally.isOver.load(ordering: .relaxed) {
            try visitor.visit(number, tally)
            tally.visits.add(1, ordering: .relaxed)
            number += 1
        }
    }
}
