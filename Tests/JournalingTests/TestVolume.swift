import BlockIO
import DiskFormat
import Execution
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

/// A volume that has slots, journals and one resource group of blocks that tests use as they like.
struct TestVolume {
    static let blockSize = 4096
    let superblock: Superblock
    let journalLength: UInt32

    init(slots: UInt32 = 1, journalLength: UInt32 = 256, blocks: UInt32 = 512) {
        self.journalLength = journalLength
        let slotTable = BlockAddress(17)
        let guardTable = slotTable + 4
        let firstGroup = guardTable + 5 + UInt64(slots * journalLength)
        superblock = Superblock(
            volume: VolumeID(high: 0x1122_3344_5566_7788, low: 42),
            features: .known,
            blockSize: UInt32(Self.blockSize),
            blockCount: firstGroup.rawValue + UInt64(blocks),
            slotCapacity: 4,
            slotCount: slots,
            slotTable: slotTable,
            guardTable: guardTable,
            firstGroup: firstGroup,
            blocksPerGroup: blocks,
            groupCount: 1,
            root: InodeNumber(address: firstGroup + 1, generation: 1),
            regionSize: 1 << 20,
            created: .zero,
            clusterName: "test",
            volumeName: "volume",
            label: ""
        )
    }

    func descriptor(_ slot: UInt32 = 0) -> SlotDescriptor {
        SlotDescriptor(
            slot: SlotIndex(slot),
            journalStart: superblock.guardTable + 5 + UInt64(slot * journalLength),
            journalLength: journalLength,
            orphanDirectory: InodeNumber(address: superblock.firstGroup + 1, generation: 1)
        )
    }

    /// Block `index` of the group.
    func address(_ index: Int) -> BlockAddress { superblock.firstGroup + UInt64(index) }

    /// What mkfs would leave, and a block of version 1 at each of `indices`.
    func make(
        blocks indices: Range<Int> = 0..<0,
        covering: (Int) -> InodeNumber
    ) -> DiskContent {
        var content = DiskContent(
            byteCount: superblock.blockCount * UInt64(superblock.blockSize)
        )
        let buffer = AlignedBuffer(zeroed: Self.blockSize)
        func write(_ address: BlockAddress) {
            content.write(buffer.readOnly, at: superblock.byteOffset(address))
        }
        for slot in 0..<superblock.slotCount {
            let descriptor = descriptor(slot)
            let place = superblock.slotDescriptor(SlotIndex(slot))
            descriptor.write(to: buffer.bytes, at: place, volume: superblock.volume)
            write(place)
            JournalHeader(
                slot: SlotIndex(slot),
                tailSequence: 1,
                tail: 1,
                length: journalLength,
                isClean: true
            ).write(
                to: buffer.bytes,
                at: descriptor.journalStart,
                volume: superblock.volume,
                version: 1
            )
            write(descriptor.journalStart)
        }
        for index in indices {
            let owner = covering(index)
            buffer.bytes.clear(0, Self.blockSize)
            BlockHeader(
                kind: .extentNode,
                address: address(index),
                version: 1,
                volume: superblock.volume,
                owner: owner.address.rawValue,
                generation: owner.generation
            ).write(to: buffer.bytes)
            BlockHeader.seal(buffer.bytes)
            write(address(index))
        }
        return content
    }

    /// The inode that tests let own block `index` when they do not care.
    func owner(_ index: Int) -> InodeNumber {
        InodeNumber(address: BlockAddress(1000 + UInt64(index)), generation: 1)
    }

    func lock(_ index: Int) -> ResourceName { .inode(owner(index)) }
}

/// One node's journal and cache on a simulated disk.
final class TestNode {
    let volume: TestVolume
    let disk: SimulatedDisk
    let host: SimulatedHost
    let cache: MetadataCache
    let journal: Journal
    let engine: Engine

    init(
        volume: TestVolume,
        disk: SimulatedDisk,
        slot: UInt32 = 0,
        engine: Engine,
        capacity: Int = 1000,
        options: JournalOptions = JournalOptions()
    ) async throws {
        self.volume = volume
        self.disk = disk
        self.engine = engine
        host = disk.attach("host \(slot)")
        cache = MetadataCache(device: host, superblock: volume.superblock, capacity: capacity)
        journal = try await Journal.open(
            device: host,
            superblock: volume.superblock,
            descriptor: volume.descriptor(slot),
            cache: cache,
            engine: engine,
            options: options
        )
    }

    func block(_ index: Int) async throws -> MetadataBlock {
        let owner = volume.owner(index)
        return try await cache.block(
            volume.address(index),
            kind: .extentNode,
            owner: owner.address.rawValue,
            generation: owner.generation,
            covering: volume.lock(index)
        )
    }

    /// One operation that writes `value` into all these blocks.
    func store(_ value: UInt64, in indices: [Int]) async throws {
        var blocks: [MetadataBlock] = []
        for index in indices { blocks.append(try await block(index)) }
        let transaction = try await journal.begin(blocks: indices.count)
        for block in blocks {
            transaction.modify(block)
            block.bytes.put64(value, 64)
        }
        transaction.end()
    }

    /// What the platter has for a block after a power cut in which nothing unflushed survives.
    func durableValue(_ index: Int) -> UInt64 { value(index, in: disk.durable) }

    func visibleValue(_ index: Int) -> UInt64 { value(index, in: disk.visible) }

    private func value(_ index: Int, in content: DiskContent) -> UInt64 {
        let offset = volume.superblock.byteOffset(volume.address(index))
        return content.bytes(at: offset + 64, count: 8).withUnsafeBytes {
            UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self))
        }
    }
}

/// Runs `body` on a fresh volume with one node.
func onTestVolume(
    seed: UInt64,
    slots: UInt32 = 1,
    blocks: Range<Int> = 1..<100,
    capacity: Int = 1000,
    options: JournalOptions = JournalOptions(),
    _ body: @escaping (TestNode) async throws -> Void
) throws {
    try runSimulated(seed: seed, stepLimit: 5_000_000) { engine in
        let volume = TestVolume(slots: slots)
        let disk = SimulatedDisk(
            content: volume.make(blocks: blocks, covering: volume.owner),
            executor: engine.seededExecutor
        )
        let node = try await TestNode(
            volume: volume,
            disk: disk,
            engine: engine,
            capacity: capacity,
            options: options
        )
        try await body(node)
        #expect(disk.counters.overlappingWrites == 0, "J5: two writes of one place in flight")
    }
}

extension ExitTest.Result? {
    /// Whether the process that ended had this on its standard error: which assertion it was.
    func hasSaid(_ words: String) -> Bool {
        guard let self else { return false }
        return String(decoding: self.standardErrorContent, as: UTF8.self).contains(words)
    }
}
