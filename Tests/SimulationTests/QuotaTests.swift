// Quotas on two nodes of a simulated cluster, where everything that a node has not told yet is still untold.

import DiskFormat
import Execution
import SimulatedMachine
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

@testable import FileSystem
@testable import SimulatedWorld

@Suite struct QuotaTests {
    private static let user = QuotaPrincipal.user(KernelModel.caller.user)
    private static let group = QuotaPrincipal.group(KernelModel.caller.group)

    private struct Scene {
        let engine: Engine
        let cluster: SimulatedCluster
        let nodes: [SimulatedNode]

        func usage(
            of principal: QuotaPrincipal,
            on node: Int = 0
        ) async throws(FileError) -> QuotaAmount {
            let report = try await nodes[node].volume.quotaReport()
            return report.records.first { $0.principal == principal }?.usage ?? .zero
        }

        func limit(
            _ principal: QuotaPrincipal,
            blocks: QuotaLimit? = nil,
            inodes: QuotaLimit? = nil
        ) async throws(FileError) {
            try await nodes[0].volume.setQuota(of: principal, blocks: blocks, inodes: inodes)
        }

        func make(_ name: String, on node: Int) async throws(FileError) {
            _ = try await nodes[node].perform(.create([Array(name.utf8)], isExclusive: true))
        }

        /// Writes so many blocks at the end; how many arrived.
        func append(_ blocks: Int, to name: String, on node: Int) async -> Int {
            for done in 0..<blocks {
                let written = await Simulation.result { () async throws(FileError) in
                    try await nodes[node].perform(
                        .append(
                            [Array(name.utf8)],
                            count: Int(cluster.plan.superblock.blockSize),
                            pattern: UInt64(done)
                        )
                    )
                }
                switch written {
                case .success: continue
                case .failure(let error):
                    #expect(error == .quotaExceeded)
                    return done
                }
            }
            return blocks
        }

        /// Everybody leaves, and nothing is wrong.
        func checkExactness() async throws {
            for node in nodes.indices where cluster.nodes[node] != nil {
                try await cluster.unmount(node)
            }
            let report = try await cluster.check()
            #expect(report.isClean, "\(report.findings.prefix(4).map(\.text))")
        }
    }

    private func onScene(
        seed: UInt64 = 5,
        _ body: @escaping (Scene) async throws -> Void
    ) throws {
        let plan = SimulationPlan(seed: seed, steps: 1, nodes: 2, faults: .quota)
        try runSimulated(seed: seed) { engine in
            let cluster = try await SimulatedCluster(engine: engine, plan)
            var nodes: [SimulatedNode] = []
            for index in 0..<2 { nodes.append(try #require(try await cluster.mount(index))) }
            try await body(Scene(engine: engine, cluster: cluster, nodes: nodes))
        }
    }

    /// Q1: what both nodes have made is seen by both, to the block, and the checker agrees.
    @Test(arguments: [UInt64(1), 5, 9])
    func whatIsUsedIsCounted(seed: UInt64) throws {
        try onScene(seed: seed) { scene in
            for node in 0..<2 {
                for index in 0..<5 { try await scene.make("f\(node)\(index)", on: node) }
                #expect(await scene.append(7, to: "f\(node)0", on: node) == 7)
            }
            let size = UInt64(scene.cluster.plan.superblock.blockSize)
            var counted = QuotaAmount.zero
            for name in (0..<2).flatMap({ node in (0..<5).map { "f\(node)\($0)" } }) {
                let status = try await scene.nodes[1].kernel.status([Array(name.utf8)])
                counted += QuotaAmount(blocks: Int64(status.blocks * 512 / size), inodes: 1)
            }
            #expect(counted.inodes == 10 && counted.blocks >= 24)
            for node in 0..<2 {
                #expect(try await scene.usage(of: Self.user, on: node) == counted)
                #expect(try await scene.usage(of: Self.group, on: node) == counted)
            }
            try await scene.checkExactness()
        }
    }

    /// Q4: two nodes fill to the limit by turns; it is not passed, and nearly reached.
    @Test(arguments: [UInt64(1), 2, 5, 9])
    func theLimitIsNotPassed(seed: UInt64) throws {
        try onScene(seed: seed) { scene in
            for node in 0..<2 { try await scene.make("f\(node)", on: node) }
            try await scene.limit(Self.user, blocks: QuotaLimit(soft: 0, hard: 60))
            var isOpen = [true, true]
            while isOpen.contains(true) {
                for node in 0..<2 where isOpen[node] {
                    isOpen[node] = await scene.append(3, to: "f\(node)", on: node) == 3
                    #expect(try await scene.usage(of: Self.user, on: 1 - node).blocks <= 60)
                }
            }
            let reached = try await scene.usage(of: Self.user)
            #expect(reached.blocks > 60 - 8, "refused early: \(reached)")
            // What one gives back the other may use at once.
            _ = try await scene.nodes[0].perform(.truncate([Array("f0".utf8)], 0))
            #expect(await scene.append(8, to: "f1", on: 1) == 8)
            #expect(try await scene.usage(of: Self.user).blocks <= 60)
            // No limit, no end.
            try await scene.limit(Self.user, blocks: QuotaLimit.none)
            #expect(await scene.append(70, to: "f1", on: 1) == 70)
            try await scene.checkExactness()
        }
    }

    @Test func inodesAreLimited() throws {
        try onScene { scene in
            try await scene.limit(Self.group, inodes: QuotaLimit(soft: 0, hard: 9))
            var made = 0
            for index in 0..<20 {
                let done = await Simulation.result { () async throws(FileError) in
                    try await scene.make("f\(index)", on: index % 2)
                }
                if case .success = done { made += 1 } else { #expect(done.isQuotaExceeded) }
            }
            #expect(made == 9)
            #expect(try await scene.usage(of: Self.group).inodes == 9)
            _ = try await scene.nodes[1].perform(.remove([Array("f0".utf8)], isDirectory: false))
            await scene.engine.sleep(nanoseconds: 2_000_000_000)
            try await scene.make("again", on: 0)
            #expect(try await scene.usage(of: Self.group).inodes == 9)
            try await scene.checkExactness()
        }
    }

    /// What an inode uses goes with it to its new owner, if that one may have it.
    @Test func usageGoesWithTheOwner() throws {
        try onScene { scene in
            try await scene.make("file", on: 0)
            #expect(await scene.append(10, to: "file", on: 0) == 10)
            let before = try await scene.usage(of: Self.user)
            var change = AttributeChange()
            change.user = 1001
            try await scene.limit(.user(1001), blocks: QuotaLimit(soft: 0, hard: 10))
            let path = [Array("file".utf8)]
            let refused = change
            await #expect(throws: FileError.quotaExceeded) {
                try await scene.nodes[1].kernel.setAttributes(path, refused)
            }
            #expect(try await scene.usage(of: Self.user) == before)
            #expect(try await scene.usage(of: .user(1001)) == .zero)
            try await scene.limit(.user(1001), blocks: QuotaLimit(soft: 0, hard: 100))
            try await scene.nodes[1].kernel.setAttributes(path, refused)
            #expect(try await scene.usage(of: Self.user) == .zero)
            #expect(try await scene.usage(of: .user(1001)) == before)
            #expect(try await scene.usage(of: Self.group) == before)
            try await scene.checkExactness()
        }
    }

    /// An allowance of the dead is not lost: what they had not used others may.
    @Test func theDeadKeepNothing() throws {
        try onScene { scene in
            for node in 0..<2 { try await scene.make("f\(node)", on: node) }
            try await scene.limit(Self.user, blocks: QuotaLimit(soft: 0, hard: 200))
            #expect(await scene.append(20, to: "f0", on: 0) == 20)
            try await scene.nodes[0].kernel.synchronizeAll()
            scene.cluster.kill(0)
            let used = await scene.append(300, to: "f1", on: 1)
            #expect(used > 160 && used < 180)
            #expect(try await scene.usage(of: Self.user, on: 1).blocks <= 200)
            try await scene.checkExactness()
        }
    }

    /// Beyond a soft limit one may go on until grace is over; below it grace begins anew.
    @Test func graceEnds() throws {
        try onScene { scene in
            try await scene.make("file", on: 0)
            try await scene.nodes[0].volume.setQuotaGrace(blocks: 100, inodes: 100)
            try await scene.limit(Self.user, blocks: QuotaLimit(soft: 20, hard: 200))
            #expect(await scene.append(40, to: "file", on: 0) == 40)
            #expect(try await deadline(scene) > 0)
            await scene.engine.sleep(nanoseconds: 101_000_000_000)
            #expect(await scene.append(40, to: "file", on: 0) == 0)
            #expect(await scene.append(40, to: "file", on: 1) == 0)
            let size = UInt64(scene.cluster.plan.superblock.blockSize)
            _ = try await scene.nodes[1].perform(.truncate([Array("file".utf8)], 5 * size))
            #expect(await scene.append(40, to: "file", on: 1) == 40)
            #expect(try await deadline(scene) > 0)
            #expect(try await scene.usage(of: Self.user).blocks > 40)
            try await scene.checkExactness()
        }
    }

    private func deadline(_ scene: Scene) async throws(FileError) -> UInt64 {
        let report = try await scene.nodes[0].volume.quotaReport()
        return report.records.first { $0.principal == Self.user }?.blockDeadline ?? 0
    }

    /// Q6: more owners than a share has places, and the superuser gives to everybody, whatever their limits.
    @Test func aShareIsSettledWhenItIsFull() throws {
        try onScene { scene in
            try await scene.make("file", on: 0)
            try await scene.limit(.user(1100), blocks: QuotaLimit(soft: 0, hard: 1))
            #expect(await scene.append(3, to: "file", on: 0) == 3)
            let before = try await scene.usage(of: Self.user)
            let number = try await scene.nodes[0].kernel.status([Array("file".utf8)]).inode
            let handle = try #require(scene.nodes[0].volume.inodes[number]?.handle)
            let root = Caller(user: 0, group: 0, process: 0)
            for identity in 1001...1400 {
                var change = AttributeChange()
                change.user = UInt32(identity)
                change.group = UInt32(identity)
                _ = try await scene.nodes[0].volume.setAttributes(handle, nil, change, root, nil)
            }
            #expect(try await scene.usage(of: .user(1400)) == before)
            #expect(try await scene.usage(of: .group(1400)) == before)
            let report = try await scene.nodes[1].volume.quotaReport()
            #expect(report.records.count { $0.usage != .zero } == 4)  // with user 0 and group 0
            try await scene.checkExactness()
        }
    }

    @Test func whatIsRefused() throws {
        try onScene { scene in
            await #expect(throws: FileError.notPermitted) {
                try await scene.limit(.user(0), blocks: QuotaLimit(soft: 0, hard: 5))
            }
            await #expect(throws: FileError.invalid) {
                try await scene.limit(.user(5), blocks: QuotaLimit(soft: 6, hard: 5))
            }
            try await scene.limit(.user(5), blocks: QuotaLimit(soft: 6, hard: 0))
        }
        try runOnTwoNodes(synchronizes: true) { two in
            await #expect(throws: FileError.notSupported) {
                _ = try await two.first.volume.quotaReport()
            }
        }
    }
}

extension Result where Failure == FileError {
    fileprivate var isQuotaExceeded: Bool {
        if case .failure(.quotaExceeded) = self { return true }
        return false
    }
}
