import BlockIO
import DiskFormat
import Execution
import FileStore
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

/// Files that two nodes write at the same time (Regions.swift, R4 and R5; DirtyData D6), where workloads would have to be lucky.
@Suite struct RegionRuleTests {
    private let path = [Array("shared".utf8)]

    /// Two nodes that have a file in CW: three regions, of which the third is a hole, and the first bytes of a fourth.
    private struct Scene {
        let two: TwoNodes
        let first: Inode
        let second: Inode
        let region: UInt64
        /// The file, open on each node.
        let files: [KernelFile]
    }

    private func inode(on node: SimulatedNode) async throws -> Inode {
        let found = try await node.kernel.walk(path)
        defer { node.kernel.unpin(found) }
        return try node.volume.inode(found.handle)
    }

    private func write(
        _ node: SimulatedNode,
        _ offset: UInt64,
        count: Int = 100,
        pattern: UInt64 = 2
    ) async throws {
        _ = try await node.perform(
            .write(path, offset, count: count, pattern: pattern, synchronizes: false)
        )
    }

    private func onScene(_ body: @escaping (Scene) async throws -> Void) throws {
        // By the seed nodes remember for long that they fought over a file, or not, and regions are larger than pages, or not.
        var suits = false
        for seed in 5..<40 as Range<UInt64> where !suits {
            try runOnTwoNodes(seed: seed, synchronizes: true) { two in
                suits = [two.first, two.second].allSatisfy {
                    $0.volume.options.memoryOfFights >= 1_000_000_000
                }
                let region = UInt64(two.first.volume.superblock.regionSize)
                suits = suits && region >= 8192
                guard suits else { return }
                _ = try await two.first.perform(.create(path, isExclusive: true))
                try await write(two.first, 0, count: Int(2 * region))
                try await write(two.first, 3 * region)
                try await two.first.kernel.synchronizeAll()
                _ = try await two.second.perform(.read(path, 0, count: 10))
                // Whoever opens looks at the attributes, under a lock that keeps writers away.
                let files = [
                    try await two.first.kernel.open(path, .both),
                    try await two.second.kernel.open(path, .both),
                ]
                let scene = Scene(
                    two: two,
                    first: try await inode(on: two.first),
                    second: try await inode(on: two.second),
                    region: region,
                    files: files
                )
                for _ in 0..<3 {
                    for inode in [scene.first, scene.second] {
                        inode.sharedSince = two.engine.clock.now
                    }
                    try await two.first.write(files[0], 0, patternBytes(3, count: 100))
                    try await two.second.write(files[1], region, patternBytes(3, count: 100))
                }
                try await two.first.write(files[0], 0, patternBytes(3, count: 100))
                let modes = [scene.first.glock.held, scene.second.glock.held]
                try #require(modes == [.concurrentWrite, .concurrentWrite])
                try await body(scene)
                try await two.first.kernel.close(files[0])
                try await two.second.kernel.close(files[1])
            }
        }
        #expect(suits, "no seed suits")
    }

    /// R5: fsync flushes what another node has written of a region that it gave up.
    @Test func fsyncFlushesWhatOthersHaveWritten() throws {
        try onScene { scene in
            let two = scene.two
            // Of its own it has nothing to flush.
            try await two.second.kernel.synchronize(scene.files[1], dataOnly: true)
            try await two.first.write(scene.files[0], 50, patternBytes(9, count: 100))
            let extent = try await ExtentMap(
                two.first.volume.store,
                try #require(scene.first.stored)
            ).lookup(0)
            guard case .extent(let extent) = extent else {
                Issue.record("no block")
                return
            }
            let place = two.first.volume.superblock.byteOffset(extent.physical) + 50
            func isThere(_ content: DiskContent) -> Bool {
                content.bytes(at: place, count: 100) == patternBytes(9, count: 100)
            }
            _ = try await two.second.kernel.read(scene.files[1], at: 0, count: 200)
            try #require(scene.first.glock.held == .concurrentWrite)
            let isWritten = isThere(two.cluster.disk.visible)
            let wasFlushed = isThere(two.cluster.disk.durable)
            try #require(isWritten && !wasFlushed)
            try await two.second.kernel.synchronize(scene.files[1], dataOnly: true)
            let isFlushed = isThere(two.cluster.disk.durable)
            #expect(isFlushed)
        }
    }

    /// D6: what is written across the edge of two regions goes with each of them by itself.
    @Test func regionsAreGivenUpOneByOne() throws {
        try onScene { scene in
            let (two, edge, file) = (scene.two, scene.region, scene.files[0])
            // As while a part of a block is being changed: what is written stays in memory.
            let dirty = scene.first.dirtyData()
            dirty.hold()
            // Whole blocks; the kernel would send them in pieces.
            var bytes = patternBytes(9, count: Int(2 * edge))
            let stable = StableBytes(bytes)
            let count = try await two.first.volume.write(
                file.inode.handle,
                file.handle,
                at: 0,
                from: stable.readOnly,
                WriteFlags(
                    appends: false,
                    isWriteback: false,
                    isDirect: true,
                    dropsPrivileges: false
                ),
                nil
            )
            withExtendedLifetime(stable) {}
            #expect(count == bytes.count)
            try #require(scene.first.glock.held == .concurrentWrite)
            try await two.second.write(scene.files[1], edge + 10, patternBytes(7, count: 10))
            try #require(scene.first.glock.held == .concurrentWrite)
            dirty.unhold()
            bytes.replaceSubrange(Int(edge) + 10..<Int(edge) + 20, with: patternBytes(7, count: 10))
            let shown = try await two.second.kernel.read(scene.files[1], at: 0, count: bytes.count)
            let isShown = shown == bytes
            #expect(isShown)
        }
    }

    /// R4: a page over a hole that a mapping may store into needs the whole file.
    @Test func aHoleThatIsMappedTakesTheWhole() throws {
        try onScene { scene in
            let volume = scene.two.first.volume
            let file = scene.files[0]
            let buffer = AlignedBuffer(byteCount: 4096)
            func fill(at offset: UInt64) async throws {
                _ = try await volume.read(
                    file.inode.handle,
                    file.handle,
                    at: offset,
                    into: buffer.bytes,
                    isFill: true,
                    reader: nil,
                    nil
                )
            }
            try await fill(at: 0)
            #expect(scene.first.glock.held == .concurrentWrite)
            try await fill(at: 2 * scene.region)
            #expect(scene.first.glock.held == .exclusive)
        }
    }
}

/// Freezing.swift, Z4.
@Suite struct QuietTests {
    /// A node is not quiet while something that entered late is being carried out.
    @Test func whoEnteredLateIsWaitedFor() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let freezer = two.first.volume.freezer
            try #require(freezer.enterLateIfPossible())
            let frozen = Outcome<Bool>()
            two.engine.spawn {
                let result = await two.second.freeze(seconds: 0)
                frozen.deliver((try? result.get()) != nil)
            }
            await two.engine.sleep(nanoseconds: 2_000_000_000)
            #expect(frozen.value == nil && freezer.phase == .stopped)
            freezer.leaveLate()
            #expect(await frozen.get())
            #expect(freezer.phase == .quiet)
            #expect(await two.second.thaw())
        }
    }
}
