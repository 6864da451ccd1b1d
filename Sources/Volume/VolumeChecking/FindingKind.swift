/// Everything that can be wrong with a volume, by the name it has in reports, tests and
/// `Docs/CHECKS.md`. The order is the order of the passes.
package enum FindingKind: String, CaseIterable, Hashable, Sendable {
    // Pass 1: the superblock and its copies.
    case superblockDamaged = "superblock-damaged"
    case superblockCopyDamaged = "superblock-copy-damaged"
    case superblockCopyDiffers = "superblock-copy-differs"

    // Pass 2: what the volume knows about its nodes.
    case slotDescriptorDamaged = "slot-descriptor-damaged"
    case guardDamaged = "guard-damaged"
    case heartbeatDamaged = "heartbeat-damaged"
    case journalMisplaced = "journal-misplaced"
    case journalHeaderDamaged = "journal-header-damaged"
    case journalLogDamaged = "journal-log-damaged"

    // Pass 3: resource groups by themselves.
    case groupDamaged = "group-damaged"
    case groupFreeCountWrong = "group-free-count-wrong"
    case groupQuarantinedCountWrong = "group-quarantined-count-wrong"
    case groupTailNotClear = "group-tail-not-clear"

    // Pass 4: everything that can be reached.
    case inodeDamaged = "inode-damaged"
    case inodeModeInvalid = "inode-mode-invalid"
    case inodeFlagsInvalid = "inode-flags-invalid"
    case inodeSizeWrong = "inode-size-wrong"
    case inodeBlockCountWrong = "inode-block-count-wrong"
    case treeBlockDamaged = "tree-block-damaged"
    case treeKeyWrong = "tree-key-wrong"
    case extentInvalid = "extent-invalid"
    case extentsUnsorted = "extents-unsorted"
    case entryDamaged = "entry-damaged"
    case entryNameInvalid = "entry-name-invalid"
    case entryNameDuplicate = "entry-name-duplicate"
    case entryKeyWrong = "entry-key-wrong"
    case entriesUnsorted = "entries-unsorted"
    case entryTargetMissing = "entry-target-missing"
    case entryTypeWrong = "entry-type-wrong"
    case directoryEntryCountWrong = "directory-entry-count-wrong"
    case directoryParentWrong = "directory-parent-wrong"
    case directoryLinkedTwice = "directory-linked-twice"
    case attributeBlockDamaged = "attribute-block-damaged"
    case attributesDamaged = "attributes-damaged"
    case blockUsedTwice = "block-used-twice"
    case blockNotMarked = "block-not-marked"
    case blockMarkedWrongly = "block-marked-wrongly"

    // Pass 5: inodes that nothing leads to, and the links of those that something does.
    case inodeUnreachable = "inode-unreachable"
    case inodeLinkCountWrong = "inode-link-count-wrong"
    case inodeOrphanWrong = "inode-orphan-wrong"

    // Pass 6: groups against what was found in them.
    case blockLost = "block-lost"
    case groupInodeCountWrong = "group-inode-count-wrong"
    case groupGenerationLow = "group-generation-low"
    case groupVersionLow = "group-version-low"

    // Pass 7: quotas.
    case quotaShareDamaged = "quota-share-damaged"
    case quotaTableDamaged = "quota-table-damaged"
    case quotaRecordLost = "quota-record-lost"
    case quotaBlocksWrong = "quota-blocks-wrong"
    case quotaInodesWrong = "quota-inodes-wrong"

    /// The pass that finds it.
    package var pass: CheckPass {
        switch self {
        case .superblockDamaged, .superblockCopyDamaged, .superblockCopyDiffers: .superblocks
        case .slotDescriptorDamaged, .guardDamaged, .heartbeatDamaged, .journalMisplaced,
            .journalHeaderDamaged, .journalLogDamaged:
            .slots
        case .groupDamaged, .groupFreeCountWrong, .groupQuarantinedCountWrong, .groupTailNotClear:
            .groups
        case .inodeUnreachable, .inodeLinkCountWrong, .inodeOrphanWrong: .links
        case .blockLost, .groupInodeCountWrong, .groupGenerationLow, .groupVersionLow: .blocks
        case .quotaShareDamaged, .quotaTableDamaged, .quotaRecordLost, .quotaBlocksWrong,
            .quotaInodesWrong:
            .quotas
        default: .tree
        }
    }

    /// What it means, without the particulars: the beginning of the line that is printed.
    package var summary: String {
        switch self {
        case .superblockDamaged: "the superblock is damaged; a copy is used"
        case .superblockCopyDamaged: "a copy of the superblock is damaged"
        case .superblockCopyDiffers: "a copy of the superblock says something else"
        case .slotDescriptorDamaged: "a slot descriptor is damaged"
        case .guardDamaged: "the volume guard is damaged"
        case .heartbeatDamaged: "a heartbeat block is damaged"
        case .journalMisplaced: "a journal stands where none can be"
        case .journalHeaderDamaged: "a journal header is damaged"
        case .journalLogDamaged: "a journal holds what no node has written; it is not replayed"
        case .groupDamaged: "a resource group's block is damaged"
        case .groupFreeCountWrong: "a group's count of free blocks is wrong"
        case .groupQuarantinedCountWrong: "a group's count of quarantined blocks is wrong"
        case .groupTailNotClear: "a group's state bits behind its last block are not clear"
        case .inodeDamaged: "an inode is damaged"
        case .inodeModeInvalid: "an inode's type does not fit its content"
        case .inodeFlagsInvalid: "an inode has flags that it cannot have"
        case .inodeSizeWrong: "an inode's size does not fit its content"
        case .inodeBlockCountWrong: "an inode's count of blocks is wrong"
        case .treeBlockDamaged: "a tree block is damaged"
        case .treeKeyWrong: "a key in a tree is wrong"
        case .extentInvalid: "an extent leads to where no data can be"
        case .extentsUnsorted: "extents overlap or are out of order"
        case .entryDamaged: "directory entries cannot be read"
        case .entryNameInvalid: "a directory entry has an impossible name"
        case .entryNameDuplicate: "a name stands twice in a directory"
        case .entryKeyWrong: "a directory entry's key does not fit its name"
        case .entriesUnsorted: "directory entries are out of order"
        case .entryTargetMissing: "a directory entry leads to no inode"
        case .entryTypeWrong: "a directory entry shows the wrong type"
        case .directoryEntryCountWrong: "a directory's count of entries is wrong"
        case .directoryParentWrong: "a directory names the wrong parent"
        case .directoryLinkedTwice: "a directory has a second entry"
        case .attributeBlockDamaged: "a block of extended attributes is damaged"
        case .attributesDamaged: "extended attributes cannot be read"
        case .blockUsedTwice: "a block is used twice"
        case .blockNotMarked: "a block in use is marked free"
        case .blockMarkedWrongly: "a block is marked as what it is not"
        case .inodeUnreachable: "an inode cannot be reached"
        case .inodeLinkCountWrong: "an inode's link count is wrong"
        case .inodeOrphanWrong: "an inode and the lists of orphans disagree"
        case .blockLost: "a block is marked in use but nothing uses it"
        case .groupInodeCountWrong: "a group's count of inodes is wrong"
        case .groupGenerationLow: "a group's highest generation is too low"
        case .groupVersionLow: "a group's highest version is too low"
        case .quotaShareDamaged: "a slot's share of the quotas is damaged"
        case .quotaTableDamaged: "a block of the table of quotas is damaged"
        case .quotaRecordLost: "a record of the table of quotas is not found by a search"
        case .quotaBlocksWrong:
            "the blocks that a user or group is said to use are not those it uses"
        case .quotaInodesWrong:
            "the inodes that a user or group is said to use are not those it uses"
        }
    }
}

/// The passes of a check, in order. What each guarantees when it finds nothing: `Docs/CHECKS.md`.
package enum CheckPass: Int, CaseIterable, Hashable, Sendable, Comparable {
    case superblocks = 1
    case slots
    case groups
    case tree
    case links
    case blocks
    case quotas

    package static func < (left: CheckPass, right: CheckPass) -> Bool {
        left.rawValue < right.rawValue
    }

    /// What it looks at.
    package var title: String {
        switch self {
        case .superblocks: "superblocks"
        case .slots: "slots and journals"
        case .groups: "resource groups"
        case .tree: "inodes, trees and directories"
        case .links: "links"
        case .blocks: "blocks"
        case .quotas: "quotas"
        }
    }
}
