// What is repaired together, and in which order: see VolumeRepair.

import DiskFormat

/// The stages of a repair, in order.
enum RepairStage: Int, CaseIterable, Hashable, Comparable {
    case superblocks
    case places
    case journals
    case groups
    case marks
    case inodes
    case contents
    case sharing
    case parents
    case counts
    case lost
    case orphans
    case links
    case blocks
    case quotas

    static func < (left: RepairStage, right: RepairStage) -> Bool {
        left.rawValue < right.rawValue
    }

    /// Whether what it repairs changes what else is found, so that a new check has to come first.
    /// The others only correct a number or a mark from what the check has found already.
    var needsNewCheck: Bool {
        switch self {
        case .superblocks, .marks, .counts, .links, .blocks: false
        case .places, .journals, .groups, .inodes, .contents, .sharing, .parents, .lost, .orphans,
            .quotas:
            true
        }
    }
}

extension Finding {
    /// The stage that repairs it. Where another slot's journal begins it is not the journal that is
    /// wrong but the descriptor that leads there: to empty it would be to lose the other's log.
    var stage: RepairStage {
        if kind == .journalHeaderDamaged, case .wrongOwner? = error { return .places }
        return kind.stage
    }
}

extension FindingKind {
    /// The stage that repairs it, as a rule.
    var stage: RepairStage {
        switch self {
        case .superblockDamaged, .superblockCopyDamaged, .superblockCopyDiffers: .superblocks
        case .slotDescriptorDamaged, .journalMisplaced: .places
        case .guardDamaged, .heartbeatDamaged, .journalHeaderDamaged, .journalLogDamaged: .journals
        case .groupDamaged, .groupFreeCountWrong, .groupQuarantinedCountWrong, .groupTailNotClear:
            .groups
        case .blockNotMarked, .blockMarkedWrongly: .marks
        case .inodeDamaged, .inodeModeInvalid, .inodeFlagsInvalid: .inodes
        case .treeBlockDamaged, .treeKeyWrong, .extentInvalid, .extentsUnsorted, .entryDamaged,
            .entryNameInvalid, .entryNameDuplicate, .entryKeyWrong, .entriesUnsorted,
            .entryTargetMissing, .entryTypeWrong, .attributeBlockDamaged, .attributesDamaged:
            .contents
        case .blockUsedTwice: .sharing
        case .directoryLinkedTwice, .directoryParentWrong: .parents
        case .inodeSizeWrong, .inodeBlockCountWrong, .directoryEntryCountWrong: .counts
        case .inodeUnreachable: .lost
        case .inodeOrphanWrong: .orphans
        case .inodeLinkCountWrong: .links
        case .blockLost, .groupInodeCountWrong, .groupGenerationLow, .groupVersionLow: .blocks
        case .quotaShareDamaged, .quotaTableDamaged, .quotaRecordLost, .quotaBlocksWrong,
            .quotaInodesWrong:
            .quotas
        }
    }

    /// Whether preening repairs it: what is right is plain, and nothing that somebody may have
    /// written goes away.
    package var isSafeToRepair: Bool {
        switch self {
        case .superblockCopyDamaged, .superblockCopyDiffers, .heartbeatDamaged,
            .groupFreeCountWrong, .groupQuarantinedCountWrong, .groupTailNotClear, .blockNotMarked,
            .blockMarkedWrongly, .inodeBlockCountWrong, .directoryEntryCountWrong,
            .inodeLinkCountWrong, .blockLost, .groupInodeCountWrong, .groupGenerationLow,
            .groupVersionLow, .quotaRecordLost, .quotaBlocksWrong, .quotaInodesWrong:
            true
        default: false
        }
    }
}
