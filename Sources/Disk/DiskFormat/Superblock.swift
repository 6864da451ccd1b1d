// The superblock says what the volume is and where everything starts. It stands at byte 65,536, so
// that a boot loader may have what lies before it, and is written by mkfs and by offline tools
// only; copies stand in the last block of every resource group whose index is a power of two (1, 2,
// 4, 8, ...).
//
// Layout of a volume, in blocks:
//
//   0 ..< S            reserved, S = 65,536 / block size
//   S                  superblock
//   slotTable          one slot descriptor per possible slot (`slotCapacity`)
//   guardTable         the volume guard, then one heartbeat block per possible slot
//   journals           one contiguous log per made slot (`slotCount`), each found by its slot
//   descriptor
//   quotaStart         with quotas: one share per made slot, then the table (QuotaRecords.swift)
//   firstGroup ...     resource groups of `blocksPerGroup` blocks each, the last one may be shorter

package import Vocabulary

/// Features of a volume. Bits nobody has defined yet are refused as their word demands.
package struct VolumeFeatures: Hashable, Sendable {
    /// May be ignored by who does not know them.
    package var compatible: UInt64
    /// Must be known to mount at all.
    package var incompatible: UInt64
    /// Must be known to write.
    package var readOnlyCompatible: UInt64

    package init(compatible: UInt64, incompatible: UInt64, readOnlyCompatible: UInt64) {
        self.compatible = compatible
        self.incompatible = incompatible
        self.readOnlyCompatible = readOnlyCompatible
    }

    /// What this version knows.
    package static let known = VolumeFeatures(
        compatible: 0,
        incompatible: 0,
        readOnlyCompatible: fileFlags | quotas
    )

    /// No features at all.
    package static let none = VolumeFeatures(
        compatible: 0,
        incompatible: 0,
        readOnlyCompatible: 0
    )

    /// Of `readOnlyCompatible`: inodes may have `InodeFlags.ofFiles`. Who does not know them would change what is
    /// immutable.
    package static let fileFlags: UInt64 = 1 << 0
    /// Of `readOnlyCompatible`: what users and groups use is counted, and may be limited. Who does not know it
    /// would write without counting.
    package static let quotas: UInt64 = 1 << 1
    /// Whether what users and groups use is counted.
    package var hasQuotas: Bool { readOnlyCompatible & Self.quotas != 0 }
    /// Whether inodes may have `InodeFlags.ofFiles`.
    package var hasFileFlags: Bool { readOnlyCompatible & Self.fileFlags != 0 }
}

/// The decoded superblock. Field order and offsets: `Docs/FORMAT.md`.
package struct Superblock: Hashable, Sendable {
    package var volume: VolumeID
    package var features: VolumeFeatures
    /// Bytes in a block: a power of two, 4,096 ... 65,536.
    package var blockSize: UInt32
    /// Blocks of the whole volume.
    package var blockCount: UInt64
    package var slotCapacity: UInt32
    package var slotCount: UInt32
    package var slotTable: BlockAddress
    package var guardTable: BlockAddress
    package var firstGroup: BlockAddress
    package var blocksPerGroup: UInt32
    package var groupCount: UInt32
    package var root: InodeNumber
    /// Bytes in a data-lock region; a multiple of the block size.
    package var regionSize: UInt32
    package var created: Timestamp
    /// Up to 31 bytes of UTF-8 each.
    package var clusterName: String
    package var volumeName: String
    /// Up to 63 bytes of UTF-8.
    package var label: String
    /// With quotas: where the shares begin, behind which the table stands; else `none`.
    package var quotaStart = BlockAddress.none
    /// With quotas: blocks of the table; else 0.
    package var quotaTableLength: UInt32 = 0

    /// Where the primary copy stands, in bytes from the start of the device.
    package static let byteOffset: UInt64 = 65_536
    package static let formatVersion: UInt32 = 1
    /// "LOCKSTEP" as it stands on disk.
    package static let magic: UInt64 = 0x5045_5453_4B43_4F4C
    package static let blockSizes: ClosedRange<UInt32> = 4096...65_536
    /// Bytes of the block that carry fields, so that the smallest block can be read before the
    /// block size is known.
    package static let byteCount = 4096
    package static let maximumSlots: UInt32 = 64
    /// No group, the last one included, is shorter (in blocks).
    package static let minimumGroupLength: UInt32 = 16

    package init(
        volume: VolumeID,
        features: VolumeFeatures,
        blockSize: UInt32,
        blockCount: UInt64,
        slotCapacity: UInt32,
        slotCount: UInt32,
        slotTable: BlockAddress,
        guardTable: BlockAddress,
        firstGroup: BlockAddress,
        blocksPerGroup: UInt32,
        groupCount: UInt32,
        root: InodeNumber,
        regionSize: UInt32,
        created: Timestamp,
        clusterName: String,
        volumeName: String,
        label: String
    ) {
        self.volume = volume
        self.features = features
        self.blockSize = blockSize
        self.blockCount = blockCount
        self.slotCapacity = slotCapacity
        self.slotCount = slotCount
        self.slotTable = slotTable
        self.guardTable = guardTable
        self.firstGroup = firstGroup
        self.blocksPerGroup = blocksPerGroup
        self.groupCount = groupCount
        self.root = root
        self.regionSize = regionSize
        self.created = created
        self.clusterName = clusterName
        self.volumeName = volumeName
        self.label = label
    }

    /// The block that holds the primary superblock of a volume with this block size.
    package static func address(blockSize: UInt32) -> BlockAddress {
        BlockAddress(byteOffset / UInt64(blockSize))
    }

    /// The groups whose last block holds a copy.
    package static func groupHasCopy(_ index: UInt32) -> Bool {
        index > 0 && index & (index - 1) == 0
    }

    /// The first block of a group.
    package func groupStart(_ index: UInt32) -> BlockAddress {
        firstGroup + UInt64(index) * UInt64(blocksPerGroup)
    }

    /// How many blocks a group has: `blocksPerGroup`, fewer in the last.
    package func groupLength(_ index: UInt32) -> UInt32 {
        precondition(index < groupCount, "a group the volume does not have")
        return UInt32(min(UInt64(blocksPerGroup), blockCount - groupStart(index).rawValue))
    }

    /// The group a block lies in; nil for blocks before the first group or behind the last.
    package func group(of address: BlockAddress) -> UInt32? {
        guard address >= firstGroup, address.rawValue < blockCount else { return nil }
        return UInt32((address - firstGroup) / UInt64(blocksPerGroup))
    }

    /// The slot descriptor of a slot.
    package func slotDescriptor(_ slot: SlotIndex) -> BlockAddress {
        slotTable + UInt64(slot.rawValue)
    }

    /// The heartbeat block of a slot.
    package func heartbeat(_ slot: SlotIndex) -> BlockAddress {
        guardTable + 1 + UInt64(slot.rawValue)
    }

    /// Blocks of the largest possible file: its last byte has an offset that fits into 63 bits.
    package var maximumFileBlocks: UInt64 { UInt64(Int64.max) / UInt64(blockSize) + 1 }

    /// The byte offset of a block on the device.
    package func byteOffset(_ address: BlockAddress) -> UInt64 {
        address.rawValue * UInt64(blockSize)
    }

    /// Blocks of state bits that fit into a group's one block: the largest `blocksPerGroup`.
    package static func maximumBlocksPerGroup(blockSize: UInt32) -> UInt32 {
        (blockSize - UInt32(ResourceGroupRecord.bitmapOffset)) * 4
    }

    /// Encodes header and fields and seals a block that belongs at `address` (the primary or a
    /// copy).
    package func write(
        to block: UnsafeMutableRawBufferPointer,
        at address: BlockAddress,
        version: UInt64
    ) {
        block.clear(0, block.count)
        BlockHeader(
            kind: .superblock,
            address: address,
            version: version,
            volume: volume,
            owner: 0,
            generation: 0
        ).write(to: block)
        block.put64(Self.magic, 64)
        block.put32(Self.formatVersion, 72)
        block.put32(blockSize, 76)
        block.put64(features.compatible, 80)
        block.put64(features.incompatible, 88)
        block.put64(features.readOnlyCompatible, 96)
        block.put64(blockCount, 104)
        block.put32(slotCapacity, 112)
        block.put32(slotCount, 116)
        block.put64(slotTable.rawValue, 120)
        block.put64(guardTable.rawValue, 128)
        block.put64(firstGroup.rawValue, 136)
        block.put32(blocksPerGroup, 144)
        block.put32(groupCount, 148)
        block.put64(root.address.rawValue, 152)
        block.put64(root.generation, 160)
        block.put32(regionSize, 168)
        block.put64(UInt64(bitPattern: created.seconds), 176)
        block.put32(created.nanoseconds, 184)
        Self.put(clusterName, block.window(192, 32))
        Self.put(volumeName, block.window(224, 32))
        Self.put(label, block.window(256, 64))
        block.put64(quotaStart.rawValue, 320)
        block.put32(quotaTableLength, 328)
        BlockHeader.seal(block)
    }

    /// Verifies and decodes a superblock. `block` is the whole block, which is at least as long as
    /// the block size it states; `address` nil accepts the address that the header states (used
    /// before the block size is known).
    package init(verifying block: UnsafeRawBufferPointer, at address: BlockAddress?)
        throws(FormatError)
    {
        let place = address ?? .none
        guard block.count >= Self.byteCount, block.u32(0) == BlockHeader.magic,
            block.u64(64) == Self.magic
        else { throw .notMetadata(place) }
        let blockSize = block.u32(76)
        guard Self.blockSizes.contains(blockSize), blockSize & (blockSize - 1) == 0,
            block.count >= Int(blockSize)
        else { throw .invalidField(place, field: "block size", value: UInt64(blockSize)) }
        let whole = block.window(0, Int(blockSize))
        guard block.u32(72) == Self.formatVersion else {
            // Magic, block size and checksum are the same in every version: a bit that has turned over
            // is damage, not another version.
            try BlockHeader.checkSum(of: whole, at: place)
            throw .unsupportedVersion(block.u32(72))
        }
        _ = try BlockHeader(
            verifying: whole,
            at: address ?? BlockAddress(whole.u64(16)),
            volume: VolumeID(whole.window(32, 16)),
            kind: .superblock
        )
        self.init(unchecked: whole)
        try checkFields(place)
    }

    /// The fields as they stand in the first `byteCount` bytes of a block, right or wrong: for
    /// looking at damage. Nothing may be computed from them.
    package init(unchecked block: UnsafeRawBufferPointer) {
        precondition(block.count >= Self.byteCount, "less than a superblock")
        self.init(
            volume: VolumeID(block.window(32, 16)),
            features: VolumeFeatures(
                compatible: block.u64(80),
                incompatible: block.u64(88),
                readOnlyCompatible: block.u64(96)
            ),
            blockSize: block.u32(76),
            blockCount: block.u64(104),
            slotCapacity: block.u32(112),
            slotCount: block.u32(116),
            slotTable: BlockAddress(block.u64(120)),
            guardTable: BlockAddress(block.u64(128)),
            firstGroup: BlockAddress(block.u64(136)),
            blocksPerGroup: block.u32(144),
            groupCount: block.u32(148),
            root: InodeNumber(
                address: BlockAddress(block.u64(152)),
                generation: block.u64(160)
            ),
            regionSize: block.u32(168),
            created: Timestamp(
                seconds: Int64(bitPattern: block.u64(176)),
                nanoseconds: block.u32(184)
            ),
            clusterName: Self.text(block.window(192, 32)),
            volumeName: Self.text(block.window(224, 32)),
            label: Self.text(block.window(256, 64))
        )
        // A volume without quotas may have anything there.
        if features.hasQuotas {
            quotaStart = BlockAddress(block.u64(320))
            quotaTableLength = block.u32(328)
        }
    }

    /// Refuses fields that contradict each other, so that later arithmetic cannot overflow.
    private func checkFields(_ place: BlockAddress) throws(FormatError) {
        func require(_ holds: Bool, _ field: String, _ value: UInt64) throws(FormatError) {
            guard holds else { throw .invalidField(place, field: field, value: value) }
        }
        try checkPlaces(place)
        try require(
            group(of: root.address) != nil && root.generation > 0,
            "root",
            root.address.rawValue
        )
        try require(
            regionSize >= blockSize && regionSize % blockSize == 0,
            "region size",
            UInt64(regionSize)
        )
        try require(
            created.nanoseconds < 1_000_000_000,
            "creation time",
            UInt64(created.nanoseconds)
        )
        // Bytes that are not UTF-8 decode to longer text, which could not be written back.
        for (text, limit) in [(clusterName, 31), (volumeName, 31), (label, 63)] {
            try require(text.utf8.count <= limit, "name", UInt64(text.utf8.count))
        }
    }

    /// The part of `checkFields` that says where everything starts.
    private func checkPlaces(_ place: BlockAddress) throws(FormatError) {
        func require(_ holds: Bool, _ field: String, _ value: UInt64) throws(FormatError) {
            guard holds else { throw .invalidField(place, field: field, value: value) }
        }
        try require(
            blockCount > 0 && blockCount <= UInt64(Int64.max) / UInt64(blockSize),
            "block count",
            blockCount
        )
        try require(
            (1...Self.maximumSlots).contains(slotCapacity),
            "slot capacity",
            UInt64(slotCapacity)
        )
        try require((1...slotCapacity).contains(slotCount), "slot count", UInt64(slotCount))
        try require(
            slotTable == Self.address(blockSize: blockSize) + 1,
            "slot table",
            slotTable.rawValue
        )
        try require(
            guardTable == slotTable + UInt64(slotCapacity),
            "guard table",
            guardTable.rawValue
        )
        try require(
            firstGroup > guardTable + UInt64(slotCapacity) && firstGroup.rawValue < blockCount,
            "first group",
            firstGroup.rawValue
        )
        try require(
            blocksPerGroup >= Self.minimumGroupLength
                && blocksPerGroup <= Self.maximumBlocksPerGroup(blockSize: blockSize),
            "blocks per group",
            UInt64(blocksPerGroup)
        )
        if features.hasQuotas {
            try require(
                quotaStart > guardTable + UInt64(slotCapacity) && quotaStart < firstGroup,
                "quota start",
                quotaStart.rawValue
            )
            try require(
                quotaTableLength > 0
                    && UInt64(quotaTableLength) + UInt64(slotCount) <= firstGroup - quotaStart,
                "quota table length",
                UInt64(quotaTableLength)
            )
        }
        let groups =
            (blockCount - firstGroup.rawValue + UInt64(blocksPerGroup) - 1)
            / UInt64(blocksPerGroup)
        try require(UInt64(groupCount) == groups, "group count", UInt64(groupCount))
        let last = groupLength(groupCount - 1)
        try require(last >= Self.minimumGroupLength, "last group", UInt64(last))
    }

    /// Whether this version may mount the volume.
    package func checkFeatures(forWriting writes: Bool) throws(FormatError) {
        let unknown = features.incompatible & ~VolumeFeatures.known.incompatible
        guard unknown == 0 else { throw .unsupportedFeatures(incompatible: unknown) }
        let unwritable =
            features.readOnlyCompatible & ~VolumeFeatures.known.readOnlyCompatible
        guard unwritable == 0 || !writes else { throw .readOnlyFeatures(unwritable) }
    }

    private static func put(_ text: String, _ field: UnsafeMutableRawBufferPointer) {
        precondition(text.utf8.count < field.count, "'\(text)' is too long for its field")
        for (index, byte) in text.utf8.enumerated() { field[index] = byte }
    }

    private static func text(_ field: UnsafeRawBufferPointer) -> String {
        String(decoding: field.prefix { $0 != 0 }, as: UTF8.self)
    }
}
