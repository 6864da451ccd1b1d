// For each finding a way to cause it, in the volume of `VolumeSketch.populated`. A finding without
// a corruptor fails its test.

import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

extension FindingKind {
    /// What the corruptor cannot help causing besides.
    var companions: Set<FindingKind> {
        switch self {
        // Without the descriptor its orphan directory is an inode that nothing leads to.
        case .slotDescriptorDamaged: [.inodeUnreachable, .inodeFlagsInvalid]
        // The header of the journal that is there is another slot's.
        case .journalMisplaced: [.journalHeaderDamaged]
        // What the block led to is not found any more.
        case .treeBlockDamaged, .extentInvalid, .attributeBlockDamaged: [.blockLost]
        // The second entry is met first and taken for the true one.
        case .directoryLinkedTwice: [.directoryParentWrong, .inodeLinkCountWrong]
        default: []
        }
    }
}

extension VolumeSketch {
    private func inode(_ name: String) throws -> InodeNumber { try #require(inodes[name]) }
    private func block(_ name: String) throws -> BlockAddress { try #require(blocks[name]) }

    /// Flips a bit without making the checksum right.
    private func flip(_ address: BlockAddress, byte: Int = 1000) {
        edit(address, seals: false) { $0[byte] ^= 4 }
    }

    /// Puts hand-made entries into the empty directory "sub", each of which links to "hello".
    private func setEntries(_ entries: [(UInt64, [UInt8])], links: Int) throws {
        try setInlineEntries(
            inode("sub"),
            entries.flatMap { $0.1 },
            count: entries.count
        )
        try editInode(inode("hello")) { $0.linkCount += UInt32(links) }
    }

    private func entry(
        _ name: String,
        key: UInt64? = nil,
        type: UInt8 = 8,
        generation: UInt64? = nil
    ) throws -> (UInt64, [UInt8]) {
        var target = try inode("hello")
        if let generation { target.generation = generation }
        var (own, bytes) = entryBytes(name, target, type)
        if let key {
            own = key
            bytes.withUnsafeMutableBytes { $0.put64(key, 0) }
        }
        return (own, bytes)
    }

    /// Causes one finding.
    func cause(_ kind: FindingKind) throws {
        switch kind.pass {
        case .superblocks: try causeInSuperblocks(kind)
        case .slots: try causeInSlots(kind)
        case .groups, .blocks: try causeInGroups(kind)
        case .tree, .links: try causeInTree(kind)
        case .quotas: try causeInQuotas(kind)
        }
    }

    private func causeInQuotas(_ kind: FindingKind) throws {
        switch kind {
        case .quotaShareDamaged: flip(superblock.quotaShare(SlotIndex(1)))
        case .quotaTableDamaged: flip(superblock.quotaTable(2))
        case .quotaRecordLost:
            // With a limit, in the block before its own, which nobody comes over.
            let principal = QuotaPrincipal.user(4711)
            let home = UInt32(principal.hash % UInt64(superblock.quotaTableLength))
            let length = superblock.quotaTableLength
            edit(superblock.quotaTable((home + length - 1) % length)) {
                var record = QuotaRecord(principal)
                record.blockLimit.hard = 1000
                QuotaTableBlock($0).set(record, at: 20)
            }
        case .quotaBlocksWrong: try editQuota(of: .user(0)) { $0.usage.blocks += 1 }
        default:
            try #require(kind == .quotaInodesWrong)
            try editQuota(of: .group(77)) { $0.usage.inodes -= 1 }
        }
    }

    private func causeInSuperblocks(_ kind: FindingKind) throws {
        switch kind {
        case .superblockDamaged: flip(Superblock.address(blockSize: superblock.blockSize))
        case .superblockCopyDamaged: flip(plan.copies[1])
        default:
            try #require(kind == .superblockCopyDiffers)
            edit(plan.copies[0]) { block in
                var other = superblock
                other.label = "another"
                other.write(to: block, at: plan.copies[0], version: 1)
            }
        }
    }

    private func causeInSlots(_ kind: FindingKind) throws {
        let volume = superblock.volume
        switch kind {
        case .slotDescriptorDamaged: flip(superblock.slotDescriptor(SlotIndex(0)))
        case .guardDamaged: flip(superblock.guardTable)
        case .heartbeatDamaged: flip(superblock.heartbeat(SlotIndex(40)))
        case .journalHeaderDamaged: flip(plan.slots[1].journalStart)
        case .journalLogDamaged:
            try logTransaction(slot: 1, [])  // a descriptor without entries
        default:
            try #require(kind == .journalMisplaced)
            var slot = plan.slots[1]
            slot.journalStart = plan.slots[0].journalStart
            let address = superblock.slotDescriptor(slot.slot)
            edit(address) { slot.write(to: $0, at: address, volume: volume) }
        }
    }

    private func causeInGroups(_ kind: FindingKind) throws {
        switch kind {
        case .groupDamaged: flip(superblock.groupStart(3))
        case .groupFreeCountWrong: editGroup(1) { record, _ in record.freeCount -= 1 }
        case .groupQuarantinedCountWrong:
            editGroup(1) { record, _ in record.quarantinedCount += 1 }
        case .groupTailNotClear: edit(superblock.groupStart(3)) { $0[$0.count - 1] = 1 }
        case .blockLost: _ = allocate(.data, length: 3)
        case .groupInodeCountWrong: editGroup(1) { record, _ in record.inodeCount += 1 }
        case .groupGenerationLow: editGroup(1) { record, _ in record.highestGeneration = 1 }
        default:
            try #require(kind == .groupVersionLow)
            editGroup(1) { record, _ in record.highestVersion = 4 }
        }
    }

    private func causeInTree(_ kind: FindingKind) throws {
        switch kind {
        case .inodeDamaged: try flip(inode("hello").address)
        case .inodeModeInvalid: try editInode(inode("fifo")) { $0.layout = .inlineData }
        case .inodeFlagsInvalid:
            try editInode(inode("hello")) { $0.flags = InodeFlags(rawValue: 32) }
        case .inodeSizeWrong: try editInode(inode("flat")) { $0.size = 4096 }
        case .inodeBlockCountWrong: try editInode(inode("tree")) { $0.blockCount += 1 }
        case .inodeUnreachable:
            let lost = try newInode(0o100644, .inlineData)
            try editInode(lost) { $0.linkCount = 1 }
        case .inodeLinkCountWrong: try editInode(inode("hello")) { $0.linkCount += 1 }
        case .inodeOrphanWrong: try editInode(inode("hello")) { $0.flags = .orphan }
        case .attributeBlockDamaged: try flip(block("attributes"))
        case .attributesDamaged:
            try editInode(inode("short")) { $0.inlineAttributeLength -= 1 }
        case .blockUsedTwice:
            let empty = try inode("empty")
            try setExtents(
                empty,
                [Extent(logical: 0, physical: block("flat data"), length: 3)]
            )
            try editInode(empty) {
                $0.layout = .extents
                $0.size = 12_288
                $0.blockCount = 4
            }
        case .blockNotMarked: try mark(block("flat data") + 1, .free)
        case .blockMarkedWrongly: try mark(block("flat data") + 1, .metadata)
        case .treeBlockDamaged: try flip(block("extent leaf"))
        case .treeKeyWrong:
            try edit(block("directory index")) { $0.put64(5, TreeNodeHeader.recordsOffset) }
        case .extentInvalid:
            try edit(inode("flat").address) { $0.put32(0, InodeRecord.bodyOffset + 16) }
        case .extentsUnsorted:
            try edit(inode("flat").address) {
                $0.put64(10, InodeRecord.bodyOffset)
                $0.put64(0, InodeRecord.bodyOffset + Extent.byteCount)
            }
        default: try causeInDirectories(kind)
        }
    }

    private func causeInDirectories(_ kind: FindingKind) throws {
        switch kind {
        case .entryDamaged: try editInode(root) { $0.rootLength += 1 }
        case .entryNameInvalid: try setEntries([entry("a/b")], links: 1)
        case .entryNameDuplicate:
            let first = try entry("x")
            try setEntries([first, entry("x", key: first.0 + 1)], links: 2)
        case .entryKeyWrong: try setEntries([entry("x", key: entry("y").0)], links: 1)
        case .entriesUnsorted:
            let sorted = try [entry("x"), entry("y")].sorted { $0.0 < $1.0 }
            try setEntries(sorted.reversed(), links: 2)
        case .entryTargetMissing: try setEntries([entry("x", generation: 99)], links: 0)
        case .entryTypeWrong: try setEntries([entry("x", type: 10)], links: 1)
        case .directoryEntryCountWrong: try editInode(inode("many")) { $0.entryCount -= 1 }
        case .directoryParentWrong: try editInode(inode("sub")) { $0.parent = root }
        default:
            try #require(kind == .directoryLinkedTwice)
            var entries = try inlineEntries(root)
            entries.append(entryBytes("sub2", try inode("sub"), 4))
            try setInlineEntries(root, pack(entries), count: entries.count)
        }
    }
}
