// What the observers are shown: two nodes of one cluster, with a file that one has made and both have read.

import Execution
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

struct TwoNodes {
    let engine: Engine
    let cluster: SimulatedCluster
    let first: SimulatedNode
    let second: SimulatedNode
    /// The lock of the file, which both have in PR.
    let file: ResourceName
}

/// Runs `body` on a new cluster, whose shape follows from the seed.
/// - Parameter synchronizes: whether the file's maker has synchronised it.
func runOnTwoNodes(
    seed: UInt64 = 5,
    synchronizes: Bool,
    _ body: @escaping (TwoNodes) async throws -> Void
) throws {
    let plan = SimulationPlan(seed: seed, steps: 1, nodes: 2, faults: [])
    try runSimulated(seed: seed) { engine in
        let cluster = try await SimulatedCluster(engine: engine, plan)
        let first = try #require(try await cluster.mount(0))
        let second = try #require(try await cluster.mount(1))
        let path = [Array("file".utf8)]
        _ = try await first.perform(.create(path, isExclusive: true))
        _ = try await first.perform(
            .write(path, 0, count: 5000, pattern: 1, synchronizes: synchronizes)
        )
        _ = try await second.perform(.read(path, 0, count: 5000))
        let file = ResourceName.inode(try await second.kernel.status(path).inode)
        try #require(second.volume.memory(under: file).covering == .protectedRead)
        try await body(
            TwoNodes(engine: engine, cluster: cluster, first: first, second: second, file: file)
        )
    }
}
