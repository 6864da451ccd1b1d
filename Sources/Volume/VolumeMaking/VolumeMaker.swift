// Makes a volume according to a plan.
//
// The order of the writes makes an interrupted run harmless:
//
//   1. wipe    the first 128 KiB and the last 128 KiB, so that neither an older superblock nor the
//              signature of another file system survives; flush
//   2. body    slot table, guard, heartbeats, journals, groups, directories, superblock copies;
//   flush
//   3. seal    the primary superblock; flush
//
// M1. Until step 3 there is no primary superblock: what is on the device is not a volume.
// M2. All blocks that mkfs writes have version 1, and every group's `highestVersion` is 1, so that
// the
//     first change of any of them and the first block made anywhere are newer.
// M3. A volume's UUID must be new to the device: blocks and logs of an older volume are told from
// those
//     of this one by nothing else.

package import BlockIO
import DiskFormat
import Vocabulary

/// How far the making has come.
package struct MakingProgress: Hashable, Sendable {
    package var groupsWritten: UInt32
    package var groupCount: UInt32

    package init(groupsWritten: UInt32, groupCount: UInt32) {
        self.groupsWritten = groupsWritten
        self.groupCount = groupCount
    }
}

/// Writes a new volume.
package enum VolumeMaker {
    /// Bytes at either end of the device that are wiped first.
    package static let wipedLength: UInt64 = 131_072

    /// Makes the volume `plan` describes; when this returns the volume is durable.
    ///
    /// - Parameter progress: called after every so many groups, and at the end.
    /// - Throws: the first error of the device; there is no volume then (M1).
    package static func make(
        on device: any BlockDevice,
        plan: VolumePlan,
        progress: (MakingProgress) -> Void = { _ in }
    ) async throws(DeviceError) {
        let superblock = plan.superblock
        precondition(
            superblock.byteOffset(BlockAddress(superblock.blockCount)) <= device.byteCount,
            "P1: a plan for a larger device"
        )
        let writer = BlockWriter(device: device, superblock: superblock)
        try await writer.wipe()
        try await device.flush()
        try await writer.writeSlots(of: plan)
        for index in 0..<superblock.groupCount {
            try await writer.writeGroup(index, of: plan)
            if index % 64 == 63 || index + 1 == superblock.groupCount {
                progress(
                    MakingProgress(groupsWritten: index + 1, groupCount: superblock.groupCount)
                )
            }
        }
        try await writer.writeDirectory(
            superblock.root,
            mode: 0o040755,
            flags: [],
            user: plan.user,
            group: plan.group
        )
        for slot in plan.slots {
            try await writer.writeDirectory(
                slot.orphanDirectory,
                mode: 0o040700,
                flags: .system,
                user: 0,
                group: 0
            )
        }
        if superblock.features.hasQuotas { try await writer.writeQuotas(of: plan) }
        for copy in plan.copies { try await writer.writeSuperblock(at: copy) }
        try await device.flush()
        try await writer.writeSuperblock(at: Superblock.address(blockSize: superblock.blockSize))
        try await device.flush()
    }
}

/// One block of memory, filled and written again and again.
private final class BlockWriter {
    private let device: any BlockDevice
    private let superblock: Superblock
    private let buffer: AlignedBuffer

    /// Version of everything that mkfs writes (M2).
    static let firstVersion: UInt64 = 1

    init(device: any BlockDevice, superblock: Superblock) {
        self.device = device
        self.superblock = superblock
        buffer = AlignedBuffer(zeroed: Int(superblock.blockSize))
    }

    private func write(at address: BlockAddress) async throws(DeviceError) {
        precondition(address.rawValue < superblock.blockCount, "a block outside the volume")
        try await device.write(buffer.readOnly, at: superblock.byteOffset(address))
    }

    func wipe() async throws(DeviceError) {
        let zeros = AlignedBuffer(zeroed: Int(VolumeMaker.wipedLength))
        let unit = UInt64(AlignedBuffer.alignment)
        let end = device.byteCount / unit * unit
        let length = min(VolumeMaker.wipedLength, end)
        let bytes = UnsafeRawBufferPointer(rebasing: zeros.readOnly[0..<Int(length)])
        try await device.write(bytes, at: 0)
        try await device.write(bytes, at: end - length)
    }

    func writeSlots(of plan: VolumePlan) async throws(DeviceError) {
        let volume = superblock.volume
        // Descriptors of slots that were not made are zero: whoever adds a journal fills one.
        for index in 0..<superblock.slotCapacity {
            let address = superblock.slotDescriptor(SlotIndex(index))
            if index < superblock.slotCount {
                plan.slots[Int(index)].write(to: buffer.bytes, at: address, volume: volume)
            } else {
                buffer.bytes.clear(0, buffer.bytes.count)
            }
            try await write(at: address)
        }
        GuardRecord.free.write(
            to: buffer.bytes,
            at: superblock.guardTable,
            volume: volume,
            version: Self.firstVersion
        )
        try await write(at: superblock.guardTable)
        for index in 0..<superblock.slotCapacity {
            let slot = SlotIndex(index)
            let address = superblock.heartbeat(slot)
            SlotHeartbeat(slot: slot, incarnation: 0, beat: 0, clusterHigh: 0, clusterLow: 0)
                .write(to: buffer.bytes, at: address, volume: volume)
            try await write(at: address)
        }
        for slot in plan.slots {
            JournalHeader(
                slot: slot.slot,
                tailSequence: 1,
                tail: 1,
                length: slot.journalLength,
                isClean: true
            ).write(
                to: buffer.bytes,
                at: slot.journalStart,
                volume: volume,
                version: Self.firstVersion
            )
            try await write(at: slot.journalStart)
            // Where the first descriptor will stand. Older remains further on are of another volume
            // (M3).
            buffer.bytes.clear(0, buffer.bytes.count)
            try await write(at: slot.journalStart + 1)
        }
    }

    func writeGroup(_ index: UInt32, of plan: VolumePlan) async throws(DeviceError) {
        let length = superblock.groupLength(index)
        let address = superblock.groupStart(index)
        let inodes = plan.inodes(inGroup: index)
        let hasCopy = Superblock.groupHasCopy(index)
        let used = 1 + UInt32(inodes.count) + (hasCopy ? 1 : 0)
        precondition(used < length, "a group too short for what mkfs puts into it")

        buffer.bytes.clear(0, buffer.bytes.count)
        BlockHeader(
            kind: .resourceGroup,
            address: address,
            version: Self.firstVersion,
            volume: superblock.volume,
            owner: UInt64(index),
            generation: 0
        ).write(to: buffer.bytes)
        ResourceGroupRecord(
            index: index,
            blockCount: length,
            freeCount: length - used,
            quarantinedCount: 0,
            inodeCount: UInt32(inodes.count),
            highestVersion: Self.firstVersion,
            highestGeneration: 1
        ).writeFields(to: buffer.bytes)
        let bitmap = GroupBitmap(block: buffer.bytes, blockCount: length)
        bitmap[0] = .metadata
        for inode in inodes { bitmap[UInt32(inode.address - address)] = .metadata }
        if hasCopy { bitmap[length - 1] = .metadata }
        BlockHeader.seal(buffer.bytes)
        try await write(at: address)
    }

    /// An empty directory that is its own parent.
    func writeDirectory(
        _ number: InodeNumber,
        mode: UInt32,
        flags: InodeFlags,
        user: UInt32,
        group: UInt32
    ) async throws(DeviceError) {
        buffer.bytes.clear(0, buffer.bytes.count)
        BlockHeader(
            kind: .inode,
            address: number.address,
            version: Self.firstVersion,
            volume: superblock.volume,
            owner: number.address.rawValue,
            generation: number.generation
        ).write(to: buffer.bytes)
        var record = InodeRecord(
            mode: mode,
            user: user,
            group: group,
            linkCount: 2,
            born: superblock.created
        )
        record.layout = .inlineDirectory
        record.flags = flags
        record.parent = number
        record.writeFields(to: buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        try await write(at: number.address)
    }

    /// Empty shares, and the table with what the directories above use.
    func writeQuotas(of plan: VolumePlan) async throws(DeviceError) {
        for slot in plan.slots {
            QuotaShareBlock(buffer.bytes).format(
                superblock,
                slot.slot,
                version: Self.firstVersion
            )
            try await writeSealed(at: superblock.quotaShare(slot.slot))
        }
        let records = Self.firstRecords(of: plan)
        let length = superblock.quotaTableLength
        for index in 0..<length {
            let table = QuotaTableBlock(buffer.bytes)
            table.format(superblock, index: index, version: Self.firstVersion)
            let own = records.filter { $0.principal.hash % UInt64(length) == UInt64(index) }
            precondition(own.count <= table.capacity, "four records fit into any block")
            for (place, record) in own.enumerated() { table.set(record, at: place) }
            try await writeSealed(at: superblock.quotaTable(index))
        }
    }

    private func writeSealed(at address: BlockAddress) async throws(DeviceError) {
        BlockHeader.seal(buffer.bytes)
        try await write(at: address)
    }

    /// Each directory is one inode of one block.
    private static func firstRecords(of plan: VolumePlan) -> [QuotaRecord] {
        let lists = Int64(plan.slots.count)
        var records: [QuotaRecord] = []
        func charge(_ principal: QuotaPrincipal, _ count: Int64) {
            let amount = QuotaAmount(blocks: count, inodes: count)
            if let known = records.firstIndex(where: { $0.principal == principal }) {
                records[known].usage += amount
            } else {
                var record = QuotaRecord(principal)
                record.usage = amount
                records.append(record)
            }
        }
        charge(.user(0), lists)
        charge(.group(0), lists)
        charge(.user(plan.user), 1)
        charge(.group(plan.group), 1)
        return records
    }

    func writeSuperblock(at address: BlockAddress) async throws(DeviceError) {
        superblock.write(to: buffer.bytes, at: address, version: Self.firstVersion)
        try await write(at: address)
    }
}
