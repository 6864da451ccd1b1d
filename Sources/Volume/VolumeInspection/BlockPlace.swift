import BlockIO
import DiskFormat
import Vocabulary
import VolumeChecking

/// What the layout of a volume says of the place of a block, whatever the block holds.
enum BlockPlace: Hashable, CustomStringConvertible {
    /// Before the superblock: for boot loaders.
    case reserved
    case superblock
    case slotDescriptor(SlotIndex)
    case volumeGuard
    case heartbeat(SlotIndex)
    /// A block of a journal, counted from its header.
    case journal(SlotIndex, UInt64)
    case quotaShare(SlotIndex)
    case quotaTable(UInt32)
    /// Before the first group, and of nobody that is known.
    case unused
    /// The block with the counts and state bits of a group.
    case groupHeader(UInt32)
    case superblockCopy(UInt32)
    /// Any other block of a group, counted from the group's first.
    case group(UInt32, UInt32)

    var description: String {
        switch self {
        case .reserved: "reserved for boot loaders"
        case .superblock: "the superblock"
        case .slotDescriptor(let slot): "the descriptor of \(slot)"
        case .volumeGuard: "the volume guard"
        case .heartbeat(let slot): "the heartbeat of \(slot)"
        case .journal(let slot, 0): "the header of the journal of \(slot)"
        case .journal(let slot, let index): "block \(index) of the journal of \(slot)"
        case .quotaShare(let slot): "the share of the quotas of \(slot)"
        case .quotaTable(let index): "block \(index) of the table of quotas"
        case .unused: "between the tables and the first group, and of no known journal"
        case .groupHeader(let group): "the first block of group \(group)"
        case .superblockCopy(let group): "the copy of the superblock in group \(group)"
        case .group(let group, let index): "block \(index) of group \(group)"
        }
    }
}

extension Inspector {
    /// The place of a block of the volume.
    func place(of address: BlockAddress) -> BlockPlace {
        let number = address.rawValue
        if let group = superblock.group(of: address) {
            let index = UInt32(address - superblock.groupStart(group))
            if index == 0 { return .groupHeader(group) }
            if Superblock.groupHasCopy(group), address == superblock.copyAddress(inGroup: group) {
                return .superblockCopy(group)
            }
            return .group(group, index)
        }
        let first = Superblock.address(blockSize: superblock.blockSize).rawValue
        if number < first { return .reserved }
        if number == first { return .superblock }
        let capacity = UInt64(superblock.slotCapacity)
        if number < superblock.guardTable.rawValue {
            return .slotDescriptor(SlotIndex(UInt32(address - superblock.slotTable)))
        }
        if address == superblock.guardTable { return .volumeGuard }
        if number <= superblock.guardTable.rawValue + capacity {
            return .heartbeat(SlotIndex(UInt32(address - superblock.guardTable - 1)))
        }
        for case let slot? in slots where address >= slot.journalStart {
            let index = address - slot.journalStart
            if index < UInt64(slot.journalLength) { return .journal(slot.slot, index) }
        }
        if superblock.quotaBlocks.contains(number) {
            let index = UInt32(number - superblock.quotaBlocks.lowerBound)
            return index < superblock.slotCount
                ? .quotaShare(SlotIndex(index)) : .quotaTable(index - superblock.slotCount)
        }
        return .unused
    }

    /// What the group of a block says of it; nil where there is no group, or none that is sound.
    func mark(of address: BlockAddress) async -> BlockState? {
        guard let group = superblock.group(of: address) else { return nil }
        let start = superblock.groupStart(group)
        guard let block = await block(start),
            headerError(
                block.readOnly,
                at: start,
                kind: .resourceGroup,
                owner: UInt64(group),
                generation: 0
            ) == nil
        else { return nil }
        let bitmap = GroupBitmap(block: block.bytes, blockCount: superblock.groupLength(group))
        return bitmap[UInt32(address - start)]
    }
}
