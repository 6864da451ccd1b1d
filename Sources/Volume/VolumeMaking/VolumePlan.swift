// Where everything of a new volume will stand. Pure computation: the same options give the same
// plan, on every host, so that a plan can be shown, tested and compared without a device.
//
// P1. The volume ends at or before the device's end; what is cut off is less than one block, or
// less
//     than the shortest group (`Superblock.minimumGroupLength`).
// P2. Journals stand between the heartbeat blocks and the first group, one behind the other.
// P3. At least about four groups for every journal, so that nodes that allocate do so under locks
// of
//     their own; no group is shorter than 1,024 blocks for it; none is longer than its one block of
//     state bits can describe.
// P5. With quotas, shares and table stand between the journals and the first group.
// P4. The root directory is the first inode of group 0. The orphan directories are spread evenly
// over
//     the groups.

package import DiskFormat
package import Vocabulary

/// What the maker of a volume may choose.
package struct VolumeOptions: Sendable {
    /// Bytes of the device.
    package var deviceSize: UInt64
    /// Bytes in a block: a power of two, 4,096 ... 65,536.
    package var blockSize: UInt32 = 4096
    /// Journals, and so how many nodes can mount the volume at once: 1 ... 64.
    package var journalCount: UInt32 = 4
    /// Bytes of each journal; nil chooses by the size of the volume.
    package var journalSize: UInt64?
    /// Blocks in a resource group; nil chooses.
    package var blocksPerGroup: UInt32?
    /// Bytes in a data-lock region.
    package var regionSize: UInt32 = 1 << 20
    package var volume: VolumeID
    package var created: Timestamp
    /// Up to 31 bytes each.
    package var clusterName = ""
    package var volumeName = ""
    /// Up to 63 bytes.
    package var label = ""
    /// Owner of the root directory.
    package var user: UInt32 = 0
    package var group: UInt32 = 0
    /// Whether files and directories can have flags (chattr(1)); what does not know them may only read the volume.
    package var hasFileFlags = false
    /// Whether what users and groups use is counted, and can be limited.
    package var hasQuotas = false
    /// Users and groups of whom can be counted, at least; nil chooses by the size of the volume.
    package var quotaPrincipals: UInt32?

    package init(deviceSize: UInt64, volume: VolumeID, created: Timestamp) {
        self.deviceSize = deviceSize
        self.volume = volume
        self.created = created
    }
}

/// Why a volume cannot be made as asked.
package enum PlanError: Error, Hashable, Sendable, CustomStringConvertible {
    case tooSmall(needed: UInt64, found: UInt64)
    case tooLarge(limit: UInt64, found: UInt64)
    case badBlockSize(UInt32)
    case badJournalCount(UInt32)
    case badJournalSize(UInt64, least: UInt64, most: UInt64)
    case badGroupLength(UInt32, least: UInt32, most: UInt32)
    case badRegionSize(UInt32)
    case badPrincipals(UInt32, most: UInt32)
    case nameTooLong(field: String, limit: Int, found: Int)
    /// A name holds a byte that would end or hide it: zero, a control character, ':' or '/'.
    case badName(field: String)

    package var description: String {
        switch self {
        case .tooSmall(let needed, let found):
            "\(found) bytes are too few: a volume with these options needs at least \(needed) bytes "
                + "(\((needed + 1_048_575) / 1_048_576) MiB); use a larger device, fewer journals (-j) or "
                + "shorter ones (-J)"
        case .tooLarge(let limit, let found):
            "\(found) bytes are too many: this block size allows at most \(limit); use a larger one (-b)"
        case .badBlockSize(let size):
            "the block size \(size) is not possible: use 4096, 8192, 16384, 32768 or 65536 (-b)"
        case .badJournalCount(let count):
            "\(count) journals are not possible: use 1 to \(Superblock.maximumSlots) (-j)"
        case .badJournalSize(let size, let least, let most):
            "journals of \(size) bytes are not possible: use \((least + 1_048_575) / 1_048_576) to "
                + "\(most / 1_048_576) MiB (-J)"
        case .badGroupLength(let length, let least, let most):
            "groups of \(length) blocks are not possible: use \(least) to \(most)"
        case .badRegionSize(let size):
            "regions of \(size) bytes are not possible: use a multiple of the block size"
        case .badPrincipals(let count, let most):
            "quotas of \(count) users and groups are not possible: use 1 to \(most) (-O quota=COUNT)"
        case .nameTooLong(let field, let limit, let found):
            "the \(field) has \(found) bytes: use at most \(limit)"
        case .badName(let field):
            "the \(field) holds a control character, ':' or '/': choose another"
        }
    }
}

/// A complete plan: the superblock and the place of everything that mkfs writes.
package struct VolumePlan: Hashable, Sendable {
    package let superblock: Superblock
    /// One per journal, ascending.
    package let slots: [SlotDescriptor]
    /// Owner of the root directory.
    package let user: UInt32
    package let group: UInt32
    /// Bytes of the device the plan was made for.
    package let deviceSize: UInt64

    /// Blocks left for files at least, beyond what mkfs itself uses.
    package static let minimumFreeBlocks: UInt64 = 64
    /// The longest journal, in bytes: more would only make recovery slow.
    package static let maximumJournalSize: UInt64 = 1 << 30
    private static let usualMinimumGroupLength: UInt64 = 1024
    private static let groupsPerJournal: UInt64 = 4
    private static let mebibyte: UInt64 = 1 << 20

    /// Plans a volume.
    ///
    /// - Throws: what cannot be done, with the limits that apply.
    package init(_ options: VolumeOptions) throws(PlanError) {
        try Self.check(options)
        let blockSize = UInt64(options.blockSize)
        let capacity = UInt64(Superblock.maximumSlots)
        let slotTable = Superblock.address(blockSize: options.blockSize) + 1
        let guardTable = slotTable + capacity
        let firstJournal = guardTable + 1 + capacity
        let journalLength = try Self.journalLength(options)
        let quotaStart = firstJournal + UInt64(options.journalCount) * UInt64(journalLength)
        let tableLength = options.hasQuotas ? Self.quotaTableLength(options) : 0
        let firstGroup =
            options.hasQuotas
            ? quotaStart + UInt64(options.journalCount) + UInt64(tableLength) : quotaStart

        let deviceBlocks = options.deviceSize / blockSize
        // Group block, root and orphan directories, and something to work with.
        let leastForGroups = max(
            2 + UInt64(options.journalCount) + Self.minimumFreeBlocks,
            UInt64(options.blocksPerGroup ?? 0)
        )
        let needed = firstGroup.rawValue + leastForGroups
        guard deviceBlocks >= needed else {
            throw .tooSmall(needed: needed * blockSize, found: options.deviceSize)
        }
        let (perGroup, groupCount, used) = try Self.groups(
            options,
            groupBlocks: deviceBlocks - firstGroup.rawValue
        )

        var superblock = Superblock(
            volume: options.volume,
            features: Self.features(options),
            blockSize: options.blockSize,
            blockCount: firstGroup.rawValue + used,
            slotCapacity: Superblock.maximumSlots,
            slotCount: options.journalCount,
            slotTable: slotTable,
            guardTable: guardTable,
            firstGroup: firstGroup,
            blocksPerGroup: perGroup,
            groupCount: groupCount,
            root: InodeNumber(address: firstGroup + 1, generation: 1),
            regionSize: options.regionSize,
            created: options.created,
            clusterName: options.clusterName,
            volumeName: options.volumeName,
            label: options.label
        )
        superblock.quotaStart = options.hasQuotas ? quotaStart : .none
        superblock.quotaTableLength = tableLength
        self.superblock = superblock
        slots = Self.slots(
            of: superblock,
            firstJournal: firstJournal,
            journalLength: journalLength
        )
        user = options.user
        group = options.group
        deviceSize = options.deviceSize
    }

    private static func features(_ options: VolumeOptions) -> VolumeFeatures {
        var features = VolumeFeatures.none
        if options.hasFileFlags { features.readOnlyCompatible |= VolumeFeatures.fileFlags }
        if options.hasQuotas { features.readOnlyCompatible |= VolumeFeatures.quotas }
        return features
    }

    /// The most users and groups that a volume can count.
    package static let maximumPrincipals: UInt32 = 1 << 20

    /// Blocks of the table of quotas: for as many as are asked for, and half as many again, so that a search
    /// seldom goes beyond one block; else a 512th of the volume, 4 to 1,024.
    private static func quotaTableLength(_ options: VolumeOptions) -> UInt32 {
        if let wanted = options.quotaPrincipals {
            let capacity = UInt64(QuotaTableBlock.capacity(blockSize: Int(options.blockSize)))
            return UInt32((UInt64(wanted) * 3 / 2 + capacity - 1) / capacity)
        }
        let share = options.deviceSize / UInt64(options.blockSize) / 512
        return UInt32(min(max(share, 4), 1024))
    }

    /// Blocks of a group, how many groups there are, and how many blocks they have together.
    private static func groups(_ options: VolumeOptions, groupBlocks: UInt64)
        throws(PlanError) -> (UInt32, UInt32, UInt64)
    {
        let perGroup = try blocksPerGroup(options, groupBlocks: groupBlocks)
        // P1: a stub of a group at the end is not worth having.
        let stub = groupBlocks % perGroup
        let used = stub < UInt64(Superblock.minimumGroupLength) ? groupBlocks - stub : groupBlocks
        let count = (used + perGroup - 1) / perGroup
        guard count <= UInt64(UInt32.max) else {
            throw .tooLarge(
                limit: UInt64(UInt32.max) * perGroup * UInt64(options.blockSize),
                found: options.deviceSize
            )
        }
        return (UInt32(perGroup), UInt32(count), used)
    }

    private static func check(_ options: VolumeOptions) throws(PlanError) {
        let size = options.blockSize
        guard Superblock.blockSizes.contains(size), size & (size - 1) == 0 else {
            throw .badBlockSize(size)
        }
        guard options.deviceSize <= UInt64(Int64.max) else {
            throw .tooLarge(limit: UInt64(Int64.max), found: options.deviceSize)
        }
        guard (1...Superblock.maximumSlots).contains(options.journalCount) else {
            throw .badJournalCount(options.journalCount)
        }
        if let wanted = options.quotaPrincipals, !(1...maximumPrincipals).contains(wanted) {
            throw .badPrincipals(wanted, most: maximumPrincipals)
        }
        guard options.regionSize >= size, options.regionSize % size == 0 else {
            throw .badRegionSize(options.regionSize)
        }
        try checkName(options.clusterName, "cluster name", limit: 31)
        try checkName(options.volumeName, "volume name", limit: 31)
        try checkName(options.label, "label", limit: 63, allowsSeparators: true)
    }

    private static func checkName(
        _ name: String,
        _ field: String,
        limit: Int,
        allowsSeparators: Bool = false
    ) throws(PlanError) {
        guard name.utf8.count <= limit else {
            throw .nameTooLong(field: field, limit: limit, found: name.utf8.count)
        }
        for byte in name.utf8 {
            let isSeparator = byte == UInt8(ascii: ":") || byte == UInt8(ascii: "/")
            guard byte >= 0x20, byte != 0x7F, allowsSeparators || !isSeparator else {
                throw .badName(field: field)
            }
        }
    }

    private static func journalLength(_ options: VolumeOptions) throws(PlanError) -> UInt32 {
        let blockSize = UInt64(options.blockSize)
        let least = UInt64(SlotDescriptor.minimumJournalLength) * blockSize
        let size: UInt64
        if let asked = options.journalSize {
            size = asked
        } else {
            // 8 MiB below 1 GiB, then a 128th of the volume, at most 64 MiB; but no more than a
            // quarter of the volume for all journals together, as long as that is possible.
            let usual = min(max(options.deviceSize / 128, 8 * mebibyte), 64 * mebibyte)
            let share = options.deviceSize / 4 / UInt64(options.journalCount)
            size = max(min(usual, share), least)
        }
        guard size >= least, size <= maximumJournalSize else {
            throw .badJournalSize(size, least: least, most: maximumJournalSize)
        }
        return UInt32(size / blockSize)
    }

    /// P3.
    private static func blocksPerGroup(_ options: VolumeOptions, groupBlocks: UInt64)
        throws(PlanError) -> UInt64
    {
        let most = UInt64(Superblock.maximumBlocksPerGroup(blockSize: options.blockSize))
        if let asked = options.blocksPerGroup {
            let least = Superblock.minimumGroupLength
            guard asked >= least, UInt64(asked) <= most else {
                throw .badGroupLength(asked, least: least, most: UInt32(most))
            }
            return UInt64(asked)
        }
        let wanted = groupBlocks / (groupsPerJournal * UInt64(options.journalCount))
        let atLeast = max(wanted, min(usualMinimumGroupLength, groupBlocks))
        return min(atLeast, most)
    }

    /// P2 and P4.
    private static func slots(
        of superblock: Superblock,
        firstJournal: BlockAddress,
        journalLength: UInt32
    ) -> [SlotDescriptor] {
        var slots: [SlotDescriptor] = []
        var inodesInGroup: [UInt32: UInt64] = [0: 1]  // the root
        for slot in 0..<superblock.slotCount {
            // The last group may be too short to be a good neighbour; all others are long enough.
            let candidates = UInt64(max(superblock.groupCount - 1, 1))
            let group = UInt32(UInt64(slot) * candidates / UInt64(superblock.slotCount))
            let before = inodesInGroup[group, default: 0]
            inodesInGroup[group] = before + 1
            slots.append(
                SlotDescriptor(
                    slot: SlotIndex(slot),
                    journalStart: firstJournal + UInt64(slot) * UInt64(journalLength),
                    journalLength: journalLength,
                    orphanDirectory: InodeNumber(
                        address: superblock.groupStart(group) + 1 + before,
                        generation: 1
                    )
                )
            )
        }
        return slots
    }

    /// The inodes that mkfs makes in a group.
    package func inodes(inGroup index: UInt32) -> [InodeNumber] {
        let made = [superblock.root] + slots.map(\.orphanDirectory)
        return made.filter { superblock.group(of: $0.address) == index }
    }

    /// Where copies of the superblock go, ascending.
    package var copies: [BlockAddress] {
        var copies: [BlockAddress] = []
        var index: UInt32 = 1
        while index < superblock.groupCount {
            copies.append(
                superblock.groupStart(index) + (UInt64(superblock.groupLength(index)) - 1)
            )
            let (next, overflows) = index.multipliedReportingOverflow(by: 2)
            if overflows { break }
            index = next
        }
        return copies
    }
}
