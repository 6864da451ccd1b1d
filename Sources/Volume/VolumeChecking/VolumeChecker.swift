// Checks a volume that nobody has mounted: finds everything that no writer of this format would
// have left.
//
// Seven passes, each of which may rely on what the ones before it guarantee when they find nothing:
//
//   1 superblocks   the superblock is sound, fits the device, and all copies agree with it
//   2 slots         every slot descriptor, the guard, all heartbeats and journal headers are sound;
//                   journals overlap nothing
//   3 groups        every group's block is sound and its counts agree with its bits
//   4 tree          every inode that can be reached from the root and from the orphan directories
//   is sound,
//                   with its trees, directories and extended attributes; no block is used twice,
//                   and every block used is marked as what it is
//   5 links         no inode lies about that nothing leads to; link counts and orphan lists are
//   right
//   6 blocks        no block is marked in use that nothing uses; each group's inode count, highest
//                   generation and highest version are right
//   7 quotas        what users and groups use, by shares and table, is what the inodes say
//
// Between passes 2 and 3 the journals that are not clean are replayed, by the same code as after a
// crash: on the device, or, for a check that must not write, on an `OverlayDevice` above it. What
// the later passes judge is what the next mount would see.
//
// Invariants
// C1. Nothing is written, but by a replay that was asked for.
// C2. Whatever bytes the volume holds: no trap, and an end. A block is descended into only when it
// is claimed
//     for the first time, so the work is bounded by the number of blocks; numbers read from the
//     volume are checked before they are used in arithmetic.
// C3. One damage, one finding, as far as that is possible: what cannot be judged because something
// above it
//     is damaged is left out (`InodeVisit.isComplete`, `BlockUse.isKnown`).
// C4. Memory: six bits for each block that is in use, 16 bytes for each directory that is still to be
// walked, one leaf of a directory, and a record for each inode with which something is wrong or of which
// an entry is still missing (`InodeTable`): nothing for those that are right.
//
// Findings are values (`Finding`) that hold what a repair needs: see VolumeRepair. Sources of the
// shape: e2fsck's passes; fsck.ocfs2, where every check has a name and a paragraph.

package import BlockIO
package import DiskFormat
import Vocabulary

/// How to check.
package struct CheckOptions: Sendable {
    /// Findings that are kept; more are only counted.
    package var findingLimit = 10_000
    /// What is done about journals that are not clean.
    package var journals = JournalTreatment.overlay

    package init() {}
}

/// What a check does about journals that are not clean.
package enum JournalTreatment: Sendable {
    /// Replays them in memory: nothing is written, and the volume is judged as if they had been
    /// replayed.
    case overlay
    /// Replays them on the device, and frees the volume's guard if nothing is wrong then.
    case replay
    /// Judges the volume as it stands.
    case ignore
}

/// How far a check has come.
package struct CheckProgress: Hashable, Sendable {
    package var pass: CheckPass
    package var done: UInt64
    package var total: UInt64
}

/// One check of one volume.
package final class VolumeChecker {
    let device: any BlockDevice
    let superblock: Superblock
    let options: CheckOptions
    private let progress: (CheckProgress) -> Void
    private var lastShown = UInt64.max

    /// From pass 3 on, when nothing is written any more.
    private var readAhead: ReadAhead?

    var report: CheckReport
    var use: BlockUse
    /// Sound slot descriptors, by slot; nil where damaged.
    var slots: [SlotDescriptor?] = []
    /// Sound groups, by index; nil where damaged.
    var groups: [ResourceGroupRecord?] = []
    /// The inodes seen.
    var inodes: InodeTable
    /// What users and groups use.
    var quotas = QuotaCensus()
    /// Directories whose entries are still to be read, last in first out.
    var pending: [InodeNumber] = []
    /// What is gathered of the one inode that is being inspected on a mounted volume, where nothing
    /// is known of the others; nil in a check.
    var inspection: InodeInspection?

    /// Checks the volume on `device`.
    ///
    /// - Throws: `CheckError` if there is nothing that could be checked, or the device fails.
    package static func check(
        _ device: any BlockDevice,
        options: CheckOptions = CheckOptions(),
        progress: @escaping (CheckProgress) -> Void = { _ in }
    ) async throws(CheckError) -> CheckReport {
        try await run(device, options: options, progress: progress).report
    }

    /// Checks the volume on `device`, and returns all that is known of it then.
    static func run(
        _ device: any BlockDevice,
        options: CheckOptions,
        progress: @escaping (CheckProgress) -> Void
    ) async throws(CheckError) -> VolumeChecker {
        let (superblock, damage) = try await SuperblockReader(device: device).find()
        let isOverlaid = options.journals == .overlay
        let checker = VolumeChecker(
            device: isOverlaid ? OverlayDevice(over: device) : device,
            superblock: superblock,
            options: options,
            progress: progress
        )
        try await checker.checkSuperblocks(damage: damage)
        try await checker.checkSlots()
        try await checker.replayJournals()
        checker.readAhead = ReadAhead(
            checker.device,
            blockSize: checker.blockSize,
            end: superblock.byteOffset(BlockAddress(superblock.blockCount))
        )
        try await checker.checkGroups()
        try await checker.checkTree()
        try await checker.checkLinks()
        try await checker.checkBlocks()
        try await checker.checkQuotas()
        try await checker.freeGuard()
        checker.report.mostInodeRecords = checker.inodes.mostRecords
        return checker
    }

    /// The superblock of the volume on `device`, from a copy if the primary is damaged.
    ///
    /// - Throws: `CheckError` if there is nothing that could be checked, or the device fails.
    package static func superblock(
        of device: any BlockDevice
    ) async throws(CheckError) -> Superblock {
        try await SuperblockReader(device: device).find().0
    }

    init(
        device: any BlockDevice,
        superblock: Superblock,
        options: CheckOptions,
        progress: @escaping (CheckProgress) -> Void
    ) {
        self.device = device
        self.superblock = superblock
        self.options = options
        self.progress = progress
        report = CheckReport(superblock: superblock)
        use = BlockUse(superblock)
        inodes = InodeTable(superblock)
    }

    func add(_ finding: Finding) {
        if let number = finding.inode { inodes.noteFinding(of: number.address) }
        report.findingCount += 1
        if report.findings.count < options.findingLimit { report.findings.append(finding) }
    }

    /// Tells whoever watches; at most once for each hundredth of a pass.
    func show(_ pass: CheckPass, _ done: UInt64, of total: UInt64) {
        let mark = UInt64(pass.rawValue) << 32 | (total == 0 ? 0 : done * 100 / total)
        guard mark != lastShown || done == total else { return }
        lastShown = mark
        progress(CheckProgress(pass: pass, done: done, total: total))
    }

    // MARK: blocks

    var blockSize: Int { Int(superblock.blockSize) }

    func makeBuffer() -> AlignedBuffer { AlignedBuffer(byteCount: blockSize) }

    /// Reads one block of the volume.
    func read(_ address: BlockAddress, into buffer: AlignedBuffer) async throws(CheckError) {
        precondition(address.rawValue < superblock.blockCount, "C2: a block outside the volume")
        do throws(DeviceError) {
            let offset = superblock.byteOffset(address)
            if let readAhead {
                try await readAhead.read(buffer, at: offset)
            } else {
                try await device.read(buffer.bytes, at: offset)
            }
        } catch {
            throw .device(CheckError.DeviceFailure(text: "\(address) cannot be read: \(error)"))
        }
    }

    /// Reads a block that should be `kind`, belonging to `owner`; returns what is wrong with its
    /// header.
    func read(
        _ address: BlockAddress,
        into buffer: AlignedBuffer,
        kind: BlockKind,
        owner: UInt64,
        generation: UInt64
    ) async throws(CheckError) -> FormatError? {
        try await read(address, into: buffer)
        return headerError(
            buffer.readOnly,
            at: address,
            kind: kind,
            owner: owner,
            generation: generation
        )
    }

    func headerError(
        _ block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        kind: BlockKind,
        owner: UInt64,
        generation: UInt64
    ) -> FormatError? {
        BlockHeader.error(
            in: block,
            at: address,
            volume: superblock.volume,
            kind: kind,
            owner: owner,
            generation: generation
        )
    }

    // MARK: who uses what

    /// The group of a block and its place there; nil outside the groups and for a group's own
    /// block.
    func place(of address: BlockAddress) -> (group: UInt32, index: UInt32)? {
        guard let group = superblock.group(of: address) else { return nil }
        let index = UInt32(address - superblock.groupStart(group))
        return index == 0 ? nil : (group, index)
    }

    /// Notes that one metadata block belongs to `inode`. Returns false, and has noted the finding,
    /// if the block belongs to somebody already; nothing may be read from it then (C2).
    func claimMetadata(_ address: BlockAddress, for inode: InodeNumber?) -> Bool {
        guard let (group, index) = place(of: address) else { return false }
        if let inspection {
            if inspection.claim(address) { return true }
            add(Finding(.blockUsedTwice, inode: inode, block: address))
            return false
        }
        guard use.use(group: group, index: index) == .nothing else {
            add(Finding(.blockUsedTwice, inode: inode, block: address))
            return false
        }
        use.setUse(.metadata, group: group, index: index)
        judgeMark(of: address, length: 1, group, index, .metadata, inode)
        return true
    }

    /// The same for a block that shows by its own header whose it is. If extents of a file led over
    /// it before, the file is wrong and the block is taken from it (C2: a block becomes metadata
    /// once).
    func claimMetadata(
        _ address: BlockAddress,
        for inode: InodeNumber,
        as kind: BlockKind
    ) async throws(CheckError) -> Bool {
        guard let (group, index) = place(of: address),
            use.use(group: group, index: index) == .data
        else { return claimMetadata(address, for: inode) }
        let error = try await read(
            address,
            into: makeBuffer(),
            kind: kind,
            owner: inode.address.rawValue,
            generation: inode.generation
        )
        add(Finding(.blockUsedTwice, inode: inode, block: address))
        guard error == nil else { return false }
        use.setUse(.metadata, group: group, index: index)
        return true
    }

    /// Notes that a run of data blocks of one group belongs to `inode`.
    func claimData(_ start: BlockAddress, length: UInt32, for inode: InodeNumber) {
        guard let (group, first) = place(of: start) else { return }
        if let inspection {
            inspection.claims.append(InodeInspection.Claim(start, length, .data))
            return
        }
        precondition(first + length <= superblock.groupLength(group), "C2: a run across groups")
        var twice: (first: UInt32, count: UInt64)?
        for index in first..<first + length {
            if use.use(group: group, index: index) != .nothing {
                twice = (twice?.first ?? index, (twice?.count ?? 0) + 1)
            } else {
                use.setUse(.data, group: group, index: index)
            }
        }
        if let twice {
            let address = superblock.groupStart(group) + UInt64(twice.first)
            add(
                Finding(
                    .blockUsedTwice,
                    inode: inode,
                    block: address,
                    blockCount: twice.count
                )
            )
            return
        }
        judgeMark(of: start, length: length, group, first, .data, inode)
    }

    /// Compares what a run is with what its group says; one finding for each kind of disagreement.
    private func judgeMark(
        of start: BlockAddress,
        length: UInt32,
        _ group: UInt32,
        _ first: UInt32,
        _ state: BlockState,
        _ inode: InodeNumber?
    ) {
        guard use.isKnown(group: group) else { return }
        var free: (first: UInt32, count: UInt64)?
        var wrong: (first: UInt32, count: UInt64)?
        for index in first..<first + length {
            switch use.mark(group: group, index: index) {
            case .free, .quarantined: free = (free?.first ?? index, (free?.count ?? 0) + 1)
            case let mark? where mark != state:
                wrong = (wrong?.first ?? index, (wrong?.count ?? 0) + 1)
            default: break
            }
        }
        let groupStart = superblock.groupStart(group)
        if let free {
            add(
                Finding(
                    .blockNotMarked,
                    inode: inode,
                    block: groupStart + UInt64(free.first),
                    blockCount: free.count
                )
            )
        }
        if let wrong {
            add(
                Finding(
                    .blockMarkedWrongly,
                    inode: inode,
                    block: groupStart + UInt64(wrong.first),
                    blockCount: wrong.count
                )
            )
        }
    }
}
