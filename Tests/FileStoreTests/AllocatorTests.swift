import BlockIO
import DiskFormat
import FileStore
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct AllocatorTests {
    private static let small = OperationCost(newBlocks: 0, modifiedBlocks: 4)

    /// Random allocations and frees of data by a model that knows every owner; nothing is given out
    /// twice, and what is freed is not given out again before the commit.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func nothingTwice(seed: UInt64) throws {
        try runSimulated(seed: seed) { engine in
            let volume = try await TestVolume.make(engine, blocksPerGroup: 256)
            var dice = SeededGenerator(seed: seed)
            var owned: [(start: BlockAddress, length: UInt32)] = []
            var taken: Set<UInt64> = []
            var frozen: Set<UInt64> = []
            for _ in 0..<1500 {
                try await volume.change(Self.small, groups: [1, 2, 3]) { allocator in
                    if owned.isEmpty || dice.below(5) < 3 {
                        let goal = owned.last.map { $0.start + UInt64($0.length) }
                        let wanted = UInt32(1 + dice.below(40))
                        guard let run = allocator.takeData(near: goal, wanted: wanted) else {
                            #expect(allocator.groups.allSatisfy { $0.freeForData == 0 })
                            return
                        }
                        #expect(run.length > 0 && run.length <= wanted)
                        for block in run.start.rawValue..<run.start.rawValue + UInt64(run.length) {
                            #expect(taken.insert(block).inserted)
                            #expect(!frozen.contains(block))
                        }
                        owned.append(run)
                    } else {
                        let run = owned.remove(at: dice.below(owned.count))
                        try allocator.freeData(run.start, length: run.length)
                        for block in run.start.rawValue..<run.start.rawValue + UInt64(run.length) {
                            taken.remove(block)
                            frozen.insert(block)
                        }
                    }
                }
                if dice.oneIn(25) {
                    try await volume.journal.commit()
                    frozen = []
                }
                volume.checkGroups()
            }
            try await volume.remount()
            // On the device it is the same: exactly the model's blocks are in use beside metadata.
            var data = 0
            for index in volume.everyGroup {
                let group = try await volume.store.group(index)
                for offset in 0..<UInt64(group.record.blockCount) {
                    guard group.state(of: group.start + offset) == .data else { continue }
                    data += 1
                    #expect(taken.contains(group.start.rawValue + offset))
                }
            }
            #expect(data == taken.count)
        }
    }

    @Test func frozenUntilCommit() throws {
        try runSimulated(seed: 4) { engine in
            let volume = try await TestVolume.make(engine, blocksPerGroup: 256)
            let group = try await volume.store.group(1)
            let all = group.freeForData
            // The whole group, then one run of it given back: nothing can be had until the commit.
            let runs = try await volume.change(Self.small, groups: [1]) { allocator in
                var runs: [(start: BlockAddress, length: UInt32)] = []
                while let run = allocator.takeData(near: nil, wanted: 30) { runs.append(run) }
                return runs
            }
            #expect(runs.reduce(0) { $0 + $1.length } == all && group.freeForData == 0)
            try await volume.change(Self.small, groups: [1]) { allocator in
                try allocator.freeData(runs[2].start, length: runs[2].length)
                #expect(group.record.freeCount == runs[2].length)
                #expect(group.freeForData == 0 && group.freeForMetadata == 0)
                #expect(allocator.takeData(near: runs[2].start, wanted: 1) == nil)
                #expect(!allocator.reserve(metadata: 1))
            }
            try await volume.journal.commit()
            #expect(group.freeForData == runs[2].length)
            try await volume.change(Self.small, groups: [1]) { allocator in
                let run = try #require(allocator.takeData(near: nil, wanted: 1000))
                #expect(run.start == runs[2].start && run.length == runs[2].length)
            }
            group.checkInvariants()
        }
    }

    @Test func quarantine() throws {
        try runSimulated(seed: 5) { engine in
            let volume = try await TestVolume.make(engine, blocksPerGroup: 256)
            let file = try await volume.make("file", mode: 0o100644)
            let index = try #require(volume.superblock.group(of: file.number.address))
            let group = try await volume.store.group(index)
            let highest = group.record.highestVersion
            try await volume.journal.commit()
            try await volume.unlink("file", file)
            #expect(group.record.quarantinedCount == 1)
            #expect(group.record.highestVersion > highest)
            #expect(group.state(of: file.number.address) == .quarantined)
            #expect(try await isStale(volume, file.number))
            // Frozen, then in quarantine: never data.
            #expect(group.releasable == 0)
            try await volume.journal.commit()
            #expect(group.releasable == 0)
            try await volume.journal.checkpointAll()
            #expect(group.releasable == 1)
            try await volume.change(Self.small, groups: [index]) { allocator in
                var runs: [(start: BlockAddress, length: UInt32)] = []
                while let run = allocator.takeData(near: nil, wanted: 500) { runs.append(run) }
                #expect(
                    !runs.contains {
                        $0.start <= file.number.address
                            && file.number.address < $0.start + UInt64($0.length)
                    }
                )
                #expect(group.freeForData == 0 && group.freeForMetadata == 1)
                for run in runs { try allocator.freeData(run.start, length: run.length) }
            }
            try await volume.journal.commit()
            // As metadata it comes first, with a version above all that was there.
            let again = try await volume.make("again", mode: 0o100644)
            #expect(again.number.address == file.number.address)
            #expect(again.number.generation > file.number.generation)
            #expect(again.block.version > highest)
            #expect(try await isStale(volume, file.number))
            try await volume.journal.commit()
            try await volume.unlink("again", again)
            try await volume.journal.checkpointAll()
            let released = try await volume.change(Self.small, groups: [index]) {
                group.releaseQuarantine(in: $0.transaction)
            }
            #expect(released == 1 && group.record.quarantinedCount == 0)
            #expect(group.state(of: file.number.address) == .free)
            volume.checkGroups()
            try await volume.remount()
            #expect(try await isStale(volume, file.number))
            #expect(try await isStale(volume, again.number))
            try await volume.expectSound()
        }
    }

    private func isStale(_ volume: TestVolume, _ number: InodeNumber) async throws -> Bool {
        await storeError { _ = try await volume.store.readInode(number) } == "stale"
    }

    /// What one operation has set aside no other gets, be it for metadata or for data.
    @Test func setAside() throws {
        try runSimulated(seed: 6) { engine in
            let volume = try await TestVolume.make(engine, blocksPerGroup: 256)
            let group = try await volume.store.group(1)
            let all = Int(group.freeForMetadata)
            try await volume.change(
                OperationCost(newBlocks: 10, modifiedBlocks: 12),
                groups: [1]
            ) { first in
                let second = Allocator(
                    store: volume.store,
                    groups: [group],
                    transaction: first.transaction
                )
                #expect(!second.reserve(metadata: all - 9))
                #expect(second.reserved == 0)
                var data = 0
                while let run = second.takeData(near: nil, wanted: 64) { data += Int(run.length) }
                #expect(data == all - 10)
                #expect(first.reserved == 10)
                let record = InodeRecord(
                    mode: 0o100644,
                    user: 0,
                    group: 0,
                    linkCount: 1,
                    born: .zero
                )
                for _ in 0..<10 {
                    _ = volume.store.makeInode(record, near: group.start, with: first)
                }
                #expect(group.freeForMetadata == 0)
                #expect(group.record.freeCount == 0)
            }
            group.checkInvariants()
        }
    }

    /// Counts that do not agree with the bits are damage.
    @Test func damagedGroupIsRefused() throws {
        try runSimulated(seed: 7) { engine in
            let volume = try await TestVolume.make(engine, blocksPerGroup: 256)
            let address = volume.superblock.groupStart(1)
            try await volume.damage(address) { $0.put32(99, 72) }
            #expect(await isDamage { _ = try await volume.store.group(1) })
            let other = volume.superblock.groupStart(2)
            try await volume.damage(other) { $0[ResourceGroupRecord.bitmapOffset] = 0 }
            #expect(await isDamage { _ = try await volume.store.group(2) })
            // Freeing what is free already is damage as well, not a trap.
            let start = volume.superblock.groupStart(3)
            #expect(
                await isDamage {
                    try await volume.change(Self.small, groups: [3]) {
                        try $0.freeData(start + 40, length: 2)
                    }
                }
            )
        }
    }
}

extension TestVolume {
    /// Removes a name of the root directory and frees its inode, which has nothing but its own
    /// block.
    func unlink(_ name: String, _ inode: StoredInode) async throws {
        let root = try await root
        let directory = Directory(store, root)
        let removal = try await directory.prepareRemoval(Array(name.utf8))
        let group = try #require(superblock.group(of: inode.number.address))
        let groups = Set(removal.groups + [group]).sorted()
        try await change(removal.cost + FileStore.freeInodeCost, groups: groups) {
            try directory.remove(removal, with: $0)
            try store.freeInode(inode, with: $0)
        }
    }

    /// Changes a block on the device behind the back of everybody, with a checksum that fits.
    func damage(
        _ address: BlockAddress,
        _ body: (UnsafeMutableRawBufferPointer) -> Void
    ) async throws {
        let buffer = AlignedBuffer(byteCount: Int(superblock.blockSize))
        try await device.read(buffer.bytes, at: superblock.byteOffset(address))
        body(buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        try await device.write(buffer.readOnly, at: superblock.byteOffset(address))
    }
}
