// Pass 4: every inode that can be reached. Directories are walked from a list, not by recursion,
// however deep they lie; the trees inside one inode are at most `InodeRecord.maximumHeight` high.

import BlockIO
package import DiskFormat
import Vocabulary

/// What is gathered while one inode's content is walked.
final class InodeVisit {
    let number: InodeNumber
    let record: InodeRecord
    /// Blocks found to belong to it, its own included.
    var blocks: UInt64 = 1
    /// Nothing was left out because of damage: what was counted can be judged (C3).
    var isComplete = true
    /// The keys above were in order, so that those below can be judged by them (C3).
    var trustsKeys = true
    /// Logical end of the extents so far.
    var nextLogical: UInt64 = 0
    /// Logical end of the extents that were written.
    var writtenEnd: UInt64 = 0
    /// Directory entries so far.
    var entries: UInt64 = 0
    var lastKey: UInt64?
    /// Names whose key has the same hash as the last one's.
    var namesOfHash: [[UInt8]] = []
    /// Entries of directories, of those that count.
    var subdirectories: UInt32 = 0
    /// The slot whose orphan directory this is.
    var orphanSlot: SlotIndex?

    init(number: InodeNumber, record: InodeRecord) {
        self.number = number
        self.record = record
    }
}

/// What became of an inode that something leads to.
enum Admission {
    /// It has a record in `inodes`, damaged or not.
    case seen
    /// There is no such inode.
    case missing
}

extension VolumeChecker {
    func checkTree() async throws(CheckError) {
        try await admitAnchor(superblock.root)
        for case let slot? in slots { try await admitAnchor(slot.orphanDirectory) }
        try await walkPending()
    }

    /// The root and the orphan directories are found by the superblock and the slots, not by an
    /// entry.
    private func admitAnchor(_ number: InodeNumber) async throws(CheckError) {
        guard try await admit(number, isAnchor: true) == .seen else {
            add(
                Finding(
                    .inodeDamaged,
                    inode: number,
                    block: number.address,
                    error: .notMetadata(number.address)
                )
            )
            return
        }
        guard let inode = inodes[number.address], !inode.isDamaged else { return }
        if !inode.isDirectory {
            add(Finding(.inodeModeInvalid, inode: number, found: UInt64(inode.mode)))
        } else if inode.parent != number {
            add(
                Finding(
                    .directoryParentWrong,
                    inode: number,
                    found: inode.parent.address.rawValue,
                    expected: number.address.rawValue
                )
            )
        }
    }

    /// Walks the directories that were found and not yet walked.
    func walkPending() async throws(CheckError) {
        while let next = pending.popLast() {
            try await walkDirectory(next)
            show(.tree, report.inodes, of: max(report.usedBlocks, report.inodes))
        }
    }

    /// Takes an inode into `inodes`, and checks all of it but the entries of a directory, which is
    /// put on the list. One that was there gets its record again if it has none.
    func admit(_ number: InodeNumber, isAnchor: Bool = false) async throws(CheckError)
        -> Admission
    {
        let address = number.address
        switch inodes.state(of: address) {
        case .unknown: break
        case .open:
            return inodes[address]?.number.generation == number.generation ? .seen : .missing
        case .settled, .awaiting: return try await reopen(number)
        }
        guard let (group, index) = place(of: address),
            use.use(group: group, index: index) != .metadata
        else { return .missing }
        let isTaken = use.use(group: group, index: index) == .data
        let buffer = makeBuffer()
        let (record, error) = try await readInode(number, into: buffer)
        if let error, isTaken || !isDamage(error, mark: use.mark(group: group, index: index)) {
            return .missing
        }
        var inode = SeenInode(number, record)
        inode.isAnchor = isAnchor
        inodes.insert(inode)
        if let record, superblock.features.hasQuotas { quotas.count(record) }
        _ = try await claimMetadata(address, for: number, as: .inode)
        if let record {
            try await checkInode(inode, InodeVisit(number: number, record: record), buffer)
        } else {
            add(Finding(.inodeDamaged, inode: number, block: address, error: error))
        }
        return .seen
    }

    /// Reads the block of an inode. What is wrong with it is given back, for the caller to judge.
    private func readInode(
        _ number: InodeNumber,
        into buffer: AlignedBuffer
    ) async throws(CheckError) -> (record: InodeRecord?, error: FormatError?) {
        let address = number.address
        if let error = try await read(
            address,
            into: buffer,
            kind: .inode,
            owner: address.rawValue,
            generation: number.generation
        ) {
            return (nil, error)
        }
        do throws(FormatError) {
            guard number.generation <= BlockHeader.largestNumber else {
                throw .invalidField(address, field: "generation", value: number.generation)
            }
            let record = try InodeRecord(fields: buffer.readOnly, at: address)
            try checkShape(record, address)
            return (record, nil)
        } catch {
            return (nil, error)
        }
    }

    /// Reads the block of an inode without a record again. It was sound, and nobody writes (C1); a
    /// device that gives other bytes the second time is caught all the same.
    func reopen(_ number: InodeNumber) async throws(CheckError) -> Admission {
        let isWalked = inodes.state(of: number.address) == .settled
        let (record, error) = try await readInode(number, into: makeBuffer())
        if let record {
            inodes.reopen(SeenInode(number, quiet: record, isWalked: isWalked))
            return .seen
        }
        if let error, !isDamage(error, mark: .metadata) { return .missing }
        inodes.reopen(SeenInode(number, nil))
        add(Finding(.inodeDamaged, inode: number, block: number.address, error: error))
        return .seen
    }

    /// Whether a block that should be an inode is a damaged one, rather than something else by now.
    func isDamage(_ error: FormatError, mark: BlockState?) -> Bool {
        guard mark == .metadata || mark == nil else { return false }
        switch error {
        case .wrongKind, .wrongGeneration: return false
        default: return true
        }
    }

    /// The height must suit the layout.
    func checkShape(_ record: InodeRecord, _ address: BlockAddress) throws(FormatError) {
        let isPossible: Bool
        switch record.layout {
        case .extents: isPossible = true
        case .directoryIndex: isPossible = record.height > 0
        case .inlineData, .inlineDirectory, .none: isPossible = record.height == 0
        }
        guard isPossible else {
            throw .invalidField(address, field: "height", value: UInt64(record.height))
        }
    }

    // MARK: one inode

    private func checkInode(
        _ inode: SeenInode,
        _ visit: InodeVisit,
        _ buffer: AlignedBuffer
    ) async throws(CheckError) {
        checkFlags(inode, visit.record)
        guard visit.record.hasLayoutOfType else {
            add(
                Finding(
                    .inodeModeInvalid,
                    inode: inode.number,
                    found: UInt64(visit.record.mode)
                )
            )
            return
        }
        if !isSystem(inode) {
            report.inodes += 1
            if visit.record.isDirectory { report.directories += 1 }
        }
        if visit.record.isDirectory {
            pending.append(inode.number)
            return
        }
        if visit.record.layout == .extents {
            try await walkTree(.extents, of: visit, buffer.readOnly)
        }
        try await finish(visit, buffer)
        checkSize(visit)
    }

    /// What comes last for every inode: its attributes, and whether its blocks are as many as it
    /// says.
    func finish(_ visit: InodeVisit, _ buffer: AlignedBuffer) async throws(CheckError) {
        try await checkAttributes(of: visit, buffer.readOnly)
        if visit.isComplete, visit.blocks != visit.record.blockCount {
            add(
                Finding(
                    .inodeBlockCountWrong,
                    inode: visit.number,
                    found: visit.record.blockCount,
                    expected: visit.blocks
                )
            )
        }
    }

    func isSystem(_ inode: SeenInode) -> Bool {
        inode.isAnchor && inode.number != superblock.root
    }

    /// The flags that an inode of this type can have on this volume.
    func knownFlags(of record: InodeRecord, isSystem: Bool) -> InodeFlags {
        var known: InodeFlags = [.system, .orphan]
        if record.isRegular { known.insert(.sharedWriters) }
        if superblock.features.hasFileFlags, record.canHaveFileFlags, !isSystem {
            known.formUnion(.ofFiles)
        }
        return known
    }

    func checkFlags(_ inode: SeenInode, _ record: InodeRecord) {
        let shouldBeSystem = isSystem(inode)
        let known = knownFlags(of: record, isSystem: shouldBeSystem)
        if !record.flags.subtracting(known).isEmpty
            || record.flags.contains(.system) != shouldBeSystem
        {
            add(
                Finding(
                    .inodeFlagsInvalid,
                    inode: inode.number,
                    found: UInt64(record.flags.rawValue)
                )
            )
        }
    }

    func checkSize(_ visit: InodeVisit) {
        let record = visit.record
        func wrong(_ expected: UInt64?) {
            add(
                Finding(
                    .inodeSizeWrong,
                    inode: visit.number,
                    found: record.size,
                    expected: expected
                )
            )
        }
        if record.size > UInt64(Int64.max) {
            wrong(nil)
        } else if record.isSymbolicLink {
            if !(1...UInt64(InodeRecord.longestTarget)).contains(record.size) { wrong(nil) }
        } else if record.isDirectory {
            // An estimate, for stat(2): anything that a size can be will do.
        } else if !record.isRegular {
            if record.size != 0 { wrong(0) }
        } else if record.layout == .extents {
            let blockSize = UInt64(blockSize)
            let covered = record.size / blockSize + (record.size % blockSize == 0 ? 0 : 1)
            if visit.writtenEnd > covered { wrong(visit.writtenEnd * blockSize) }
        }
    }

    // MARK: directories

    private func walkDirectory(_ number: InodeNumber) async throws(CheckError) {
        let address = number.address
        if inodes.state(of: address) == .awaiting { _ = try await reopen(number) }
        let buffer = makeBuffer()
        let (found, error) = try await readInode(number, into: buffer)
        guard let record = found else {
            // Sound when it was admitted: see `reopen`.
            if inodes[address]?.isDamaged != true {
                add(Finding(.inodeDamaged, inode: number, block: address, error: error))
            }
            return
        }
        let visit = InodeVisit(number: number, record: record)
        visit.orphanSlot =
            slots.lazy.compactMap { $0 }.first { $0.orphanDirectory == number }?.slot
        try await walkTree(.directory, of: visit, buffer.readOnly)
        try await finish(visit, buffer)
        checkSize(visit)
        if visit.isComplete, visit.entries != record.entryCount {
            add(
                Finding(
                    .directoryEntryCountWrong,
                    inode: number,
                    found: record.entryCount,
                    expected: visit.entries
                )
            )
        }
        inodes.update(address) {
            $0.isWalked = true
            $0.isIncomplete = !visit.isComplete
            $0.subdirectories = visit.subdirectories
        }
        inodes.settle(address)
    }
}

extension InodeRecord {
    /// Whether the mode is one that there is, and the layout one that its type can have.
    package var hasLayoutOfType: Bool {
        guard mode <= 0o177777 else { return false }
        switch typeBits {
        case 0o040000: return layout == .inlineDirectory || layout == .directoryIndex
        case 0o100000, 0o120000: return layout == .inlineData || layout == .extents
        case 0o010000, 0o020000, 0o060000, 0o140000: return layout == .none
        default: return false
        }
    }
}
