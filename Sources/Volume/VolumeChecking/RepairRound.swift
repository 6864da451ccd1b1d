// One round of a repair: what one check has found, and the means to write.

import BlockIO
import DiskFormat
import Vocabulary

/// The repairs that follow one check.
final class RepairRound {
    /// The check. What it knows of the use of blocks is kept up to date as blocks are taken.
    let checker: VolumeChecker
    let device: any BlockDevice
    let options: RepairOptions
    var superblock: Superblock { checker.superblock }
    var blockSize: Int { checker.blockSize }

    /// Blocks written.
    private(set) var writes = 0
    /// Findings that something was done about.
    private(set) var repaired: [Finding] = []
    /// Findings that nothing can be done about, of all rounds.
    private(set) var stuck: Set<Finding>
    /// A block was wanted and none was free.
    var lacksSpace = false
    /// Where the last free block was found: the search goes on there.
    var nextFree: (group: UInt32, index: UInt32) = (0, 1)

    /// Of directories with entries in several places, the one that keeps its own where that is not
    /// the one that was met first: the one that the directory names as its parent. Nil until they
    /// are looked for.
    var keepers: [BlockAddress: InodeNumber]?

    init(
        _ checker: VolumeChecker,
        _ device: any BlockDevice,
        _ options: RepairOptions,
        stuck: Set<Finding>
    ) {
        self.checker = checker
        self.device = device
        self.options = options
        self.stuck = stuck
    }

    /// Repairs the earliest stage that found anything, and those after it that need no new check.
    func run() async throws(CheckError) {
        let isTruncated = checker.report.findingCount > UInt64(checker.report.findings.count)
        let open = checker.report.findings.filter { !stuck.contains($0) }
        for stage in RepairStage.allCases {
            let found = open.filter { $0.stage == stage }
            guard !found.isEmpty else { continue }
            // V3: what could not be repaired may lead to what seems lost.
            if stage == .blocks, !stuck.isEmpty { return }
            let allowed = found.filter { options.mode == .everything || $0.kind.isSafeToRepair }
            let done = try await repair(stage, allowed)
            try await flush()
            repaired += done
            let outcome = Set(done)
            stuck.formUnion(allowed.filter { !outcome.contains($0) })
            if allowed.count < found.count || isTruncated { return }
            if stage.needsNewCheck, writes > 0 { return }
        }
    }

    /// Repairs what was found in one stage; returns the findings that something was done about.
    private func repair(
        _ stage: RepairStage,
        _ found: [Finding]
    ) async throws(CheckError) -> [Finding] {
        guard !found.isEmpty else { return [] }
        switch stage {
        case .superblocks: return try await repairSuperblocks(found)
        case .places: return try await repairPlaces(found)
        case .journals: return try await repairJournals(found)
        case .groups: return try await repairGroups(found)
        case .marks: return try await repairMarks(found)
        case .inodes: return try await repairInodes(found)
        case .contents: return try await repairContents(found)
        case .sharing: return try await repairSharing(found)
        case .parents: return try await repairParents(found)
        case .counts: return try await repairCounts(found)
        case .lost: return try await repairLost(found)
        case .orphans: return try await repairOrphans(found)
        case .links: return try await repairLinks(found)
        case .blocks: return try await repairBlocks(found)
        case .quotas: return try await repairQuotas(found)
        }
    }

    /// The findings of which `body` says that it did something.
    func each(
        _ found: [Finding],
        _ body: (Finding) async throws(CheckError) -> Bool
    ) async throws(CheckError) -> [Finding] {
        var done: [Finding] = []
        for finding in found where try await body(finding) { done.append(finding) }
        return done
    }

    // MARK: blocks

    func makeBuffer() -> AlignedBuffer { AlignedBuffer(zeroed: blockSize) }

    /// Reads one block of the volume, as it is now.
    func read(_ address: BlockAddress, into buffer: AlignedBuffer) async throws(CheckError) {
        precondition(address.rawValue < superblock.blockCount, "C2: a block outside the volume")
        do throws(DeviceError) {
            try await device.read(buffer.bytes, at: superblock.byteOffset(address))
        } catch {
            throw .device(CheckError.DeviceFailure(text: "\(address) cannot be read: \(error)"))
        }
    }

    /// Writes one block as it stands in memory.
    func write(_ buffer: AlignedBuffer, at address: BlockAddress) async throws(CheckError) {
        precondition(address.rawValue < superblock.blockCount, "C2: a block outside the volume")
        do throws(DeviceError) {
            try await device.write(buffer.readOnly, at: superblock.byteOffset(address))
        } catch {
            throw .device(CheckError.DeviceFailure(text: "\(address) cannot be written: \(error)"))
        }
        writes += 1
    }

    /// Makes durable what was written (V2).
    func flush() async throws(CheckError) {
        do throws(DeviceError) {
            try await device.flush()
        } catch {
            throw .device(CheckError.DeviceFailure(text: "the device cannot be flushed: \(error)"))
        }
    }

    /// The version after this one (V1). At the end of the numbers it stays: nothing gets there but
    /// by forgery.
    static func nextVersion(_ version: UInt64) -> UInt64 {
        min(version, BlockHeader.largestNumber - 1) + 1
    }

    /// The version that a block has, or claims to have if it is torn; 0 if it is none of ours.
    func claimedVersion(_ block: UnsafeRawBufferPointer, at address: BlockAddress) -> UInt64 {
        guard block.u32(0) == BlockHeader.magic, block.u64(16) == address.rawValue,
            VolumeID(block.window(32, 16)) == superblock.volume,
            block.u64(24) <= BlockHeader.largestNumber
        else { return 0 }
        return block.u64(24)
    }

    /// Gives a sound block its next version, seals and writes it.
    func writeNext(_ buffer: AlignedBuffer, at address: BlockAddress) async throws(CheckError) {
        let version = BlockHeader.version(of: buffer.readOnly)
        precondition(
            claimedVersion(buffer.readOnly, at: address) == version,
            "V1: a block is written where it belongs"
        )
        BlockHeader.setVersion(Self.nextVersion(version), of: buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        try await write(buffer, at: address)
    }

    // MARK: inodes

    /// What the check knows of the inode whose block is at an address; nil if it saw none there. Of
    /// one with which nothing is wrong that is what its block says.
    func seen(_ address: BlockAddress) async throws(CheckError) -> SeenInode? {
        switch checker.inodes.state(of: address) {
        case .unknown: return nil
        case .open: return checker.inodes[address]
        case .settled, .awaiting: break
        }
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        let generation = BlockHeader.generation(of: buffer.readOnly)
        let number = InodeNumber(address: address, generation: generation)
        guard let record = try await readInode(number, into: buffer) else { return nil }
        return SeenInode(number, quiet: record, isWalked: true)
    }

    /// Calls `body` for every inode that the check saw, in the order of their blocks.
    func forEachInode(
        _ body: (SeenInode) async throws(CheckError) -> Void
    ) async throws(CheckError) {
        for group in 0..<superblock.groupCount {
            var next: UInt32 = 0
            while let index = checker.inodes.next(inGroup: group, from: next) {
                next = index + 1
                let address = superblock.groupStart(group) + UInt64(index)
                if let inode = try await seen(address) { try await body(inode) }
            }
        }
    }

    /// Reads the block of an inode; nil if it is not sound, or another one by now.
    func readInode(
        _ number: InodeNumber,
        into buffer: AlignedBuffer
    ) async throws(CheckError) -> InodeRecord? {
        guard checker.place(of: number.address) != nil else { return nil }
        try await read(number.address, into: buffer)
        let error = checker.headerError(
            buffer.readOnly,
            at: number.address,
            kind: .inode,
            owner: number.address.rawValue,
            generation: number.generation
        )
        guard error == nil else { return nil }
        do throws(FormatError) {
            return try InodeRecord(fields: buffer.readOnly, at: number.address)
        } catch {
            return nil
        }
    }

    /// Changes fields of a sound inode; false if it is none, or if nothing changes.
    func editInode(
        _ number: InodeNumber,
        _ body: (inout InodeRecord) -> Void
    ) async throws(CheckError) -> Bool {
        let buffer = makeBuffer()
        guard let before = try await readInode(number, into: buffer) else { return false }
        var record = before
        body(&record)
        guard record != before else { return false }
        record.writeFields(to: buffer.bytes)
        try await writeNext(buffer, at: number.address)
        return true
    }

    // MARK: groups

    /// Changes a sound group, whose counts and tail are made right at the same time; false if it is
    /// not sound, or if nothing changes.
    func editGroup(
        _ index: UInt32,
        _ body: (inout ResourceGroupRecord, GroupBitmap) -> Void = { _, _ in }
    ) async throws(CheckError) -> Bool {
        let address = superblock.groupStart(index)
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        let error = checker.headerError(
            buffer.readOnly,
            at: address,
            kind: .resourceGroup,
            owner: UInt64(index),
            generation: 0
        )
        var record = ResourceGroupRecord(fields: buffer.readOnly)
        let length = superblock.groupLength(index)
        guard error == nil, record.index == index, record.blockCount == length else { return false }
        let before = Array(buffer.readOnly)
        let bitmap = GroupBitmap(block: buffer.bytes, blockCount: length)
        body(&record, bitmap)
        Self.settle(&record, bitmap)
        record.writeFields(to: buffer.bytes)
        guard !buffer.readOnly.elementsEqual(before) else { return false }
        try await writeNext(buffer, at: address)
        return true
    }

    /// Makes the counts those of the bits, and clears the bits behind the last block.
    static func settle(_ record: inout ResourceGroupRecord, _ bitmap: GroupBitmap) {
        let counts = bitmap.counts()
        record.freeCount = counts[Int(BlockState.free.rawValue)]
        record.quarantinedCount = counts[Int(BlockState.quarantined.rawValue)]
        let count = Int(bitmap.blockCount)
        for index in count..<(count + 3) / 4 * 4 {
            bitmap.bits[index / 4] &= ~(3 << (2 * UInt8(index % 4)))
        }
        let end = (count + 3) / 4
        bitmap.bits.clear(end, bitmap.bits.count - end)
    }
}
