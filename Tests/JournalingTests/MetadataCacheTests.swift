import DiskFormat
import Execution
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct MetadataCacheTests {
    @Test func readsAreJoinedAndObjectsUnique() throws {
        try onTestVolume(seed: 1) { node in
            var blocks: [MetadataBlock] = []
            let done = Signal()
            for _ in 0..<8 {
                node.engine.spawn {
                    do {
                        blocks.append(try await node.block(3))
                    } catch {
                        Issue.record("\(error)")
                    }
                    done.notify()
                }
            }
            while blocks.count < 8 { await done.wait() }
            #expect(node.cache.readCount == 1)
            #expect(blocks.allSatisfy { $0 === blocks[0] })
        }
    }

    @Test func cleanBlocksGoInOrderOfUseAndUsedOnesStay() throws {
        try onTestVolume(seed: 2, capacity: 10) { node in
            let held = try await node.block(1)
            try await node.store(9, in: [2])
            for index in 3...40 { _ = try await node.block(index) }
            #expect(node.cache.count <= 12)
            #expect(node.cache.cached(held.address) === held)
            let dirty = node.cache.cached(node.volume.address(2))
            #expect(dirty?.bytes.readOnly.u64(64) == 9)
            #expect(node.cache.cached(node.volume.address(3)) == nil)
            #expect(node.cache.cached(node.volume.address(40)) != nil)
            _ = node.cache.cached(node.volume.address(35))
            for index in 41...46 { _ = try await node.block(index) }
            #expect(node.cache.cached(node.volume.address(35)) != nil, "used lately")
            #expect(node.cache.cached(node.volume.address(36)) == nil)
        }
    }

    @Test func blocksAreWhatTheyShouldBe() throws {
        try onTestVolume(seed: 3) { node in
            func fetch(
                _ address: BlockAddress,
                kind: BlockKind = .extentNode,
                owner: UInt64 = 1001,
                generation: UInt64 = 1
            ) async throws(StorageError) {
                _ = try await node.cache.block(
                    address,
                    kind: kind,
                    owner: owner,
                    generation: generation,
                    covering: node.volume.lock(1)
                )
            }
            let there = node.volume.address(1)
            for attempt in 0..<2 {
                // First from the device, then from memory.
                if attempt == 1 { try await fetch(there) }
                await #expect(throws: StorageError.self) { try await fetch(there, kind: .inode) }
                await #expect(throws: StorageError.self) { try await fetch(there, owner: 5) }
                await #expect(throws: StorageError.self) { try await fetch(there, generation: 2) }
            }
            for bad in [0, node.volume.superblock.blockCount, UInt64.max] {
                await #expect(
                    throws: StorageError.format(
                        .invalidField(BlockAddress(bad), field: "address", value: bad)
                    )
                ) { try await fetch(BlockAddress(bad)) }
            }
            await #expect(throws: StorageError.self) { try await fetch(node.volume.address(300)) }
            node.disk.faults.failRead = 1
            await #expect(throws: StorageError.self) { _ = try await node.block(9) }
            _ = try await node.block(9)
            #expect(!node.journal.isStopped, "a failed read stops nothing here")
        }
    }

    @Test func dropForgetsOneLockOnly() throws {
        try onTestVolume(seed: 4) { node in
            for index in 1...5 { _ = try await node.block(index) }
            node.cache.drop(covering: node.volume.lock(2))
            #expect(!node.cache.hasBlocks(covering: node.volume.lock(2)))
            #expect(node.cache.hasBlocks(covering: node.volume.lock(3)))
            #expect(node.cache.count == 4)
        }
    }
}
