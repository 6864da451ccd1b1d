import DiskFormat
import Vocabulary

/// Memory of one block, freed with its owner.
final class TestBlock {
    let bytes: UnsafeMutableRawBufferPointer

    init(_ count: Int = 4096, filling: UInt8 = 0) {
        bytes = .allocate(byteCount: count, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: filling)
    }

    deinit { bytes.deallocate() }

    var readOnly: UnsafeRawBufferPointer { UnsafeRawBufferPointer(bytes) }

    /// Random bytes.
    func randomize(_ dice: inout SeededGenerator) {
        for offset in stride(from: 0, to: bytes.count, by: 8) {
            bytes.storeBytes(of: dice.next(), toByteOffset: offset, as: UInt64.self)
        }
    }
}

let sampleVolume = VolumeID(high: 0x0123_4567_89AB_4DEF, low: 0x8EDC_BA98_7654_3210)

/// A superblock that its own decoder accepts.
func sampleSuperblock() -> Superblock {
    var superblock = Superblock(
        volume: sampleVolume,
        features: .known,
        blockSize: 4096,
        blockCount: 16_384,
        slotCapacity: 64,
        slotCount: 3,
        slotTable: BlockAddress(17),
        guardTable: BlockAddress(81),
        firstGroup: BlockAddress(1000),
        blocksPerGroup: 1024,
        groupCount: 16,
        root: InodeNumber(address: BlockAddress(1001), generation: 1),
        regionSize: 1 << 20,
        created: Timestamp(seconds: 1_700_000_000, nanoseconds: 5),
        clusterName: "lab",
        volumeName: "data",
        label: "a label"
    )
    superblock.quotaStart = BlockAddress(900)
    superblock.quotaTableLength = 20
    return superblock
}

func sampleInode() -> InodeRecord {
    var record = InodeRecord(
        mode: 0o100644,
        user: 1000,
        group: 100,
        linkCount: 2,
        born: Timestamp(seconds: 1_700_000_001, nanoseconds: 1)
    )
    record.size = 100
    record.layout = .inlineData
    record.accessed = Timestamp(seconds: -5, nanoseconds: 2)
    record.modified = Timestamp(seconds: 1 << 40, nanoseconds: 999_999_999)
    record.changed = Timestamp(seconds: 3, nanoseconds: 4)
    record.flags = .orphan
    record.device = 0x801
    record.inlineAttributeLength = 40
    record.attributeBlock = BlockAddress(77)
    record.entryCount = 9
    record.parent = InodeNumber(address: BlockAddress(1001), generation: 3)
    record.orphanSlot = SlotIndex(2)
    return record
}
