// One inode or one group of a mounted volume, judged by the same code as in a check. The caller holds
// its lock, and what the device has of it is current; nothing is known of any other inode, so what
// it claims and whom it names is returned, to be compared by whoever looks at all of them.

package import BlockIO
package import DiskFormat
package import Vocabulary

/// What was found in one inode.
package final class InodeInspection {
    /// Blocks of one group that the inode says are its own.
    package struct Claim: Hashable, Sendable {
        package var start: BlockAddress
        package var length: UInt32
        /// What the group should say of them.
        package var state: BlockState

        init(_ start: BlockAddress, _ length: UInt32, _ state: BlockState) {
            self.start = start
            self.length = length
            self.state = state
        }
    }

    /// One entry of a directory.
    package struct Entry: Hashable, Sendable {
        package var name: [UInt8]
        package var inode: InodeNumber
        /// The upper four bits of the mode that it should have.
        package var type: UInt32
    }

    package let number: InodeNumber
    /// The version of the inode's block: it changes with every change of the inode.
    package internal(set) var version: UInt64 = 0
    /// Nil if the inode is damaged.
    package internal(set) var record: InodeRecord?
    /// What is wrong with it by itself.
    package internal(set) var findings: [Finding] = []
    package internal(set) var claims: [Claim] = []
    /// Called with each entry of a directory, in the order of its tree.
    let onEntry: (Entry) -> Void
    /// Nothing was left out because of damage.
    package internal(set) var isComplete = true
    private var claimed: Set<UInt64> = []

    init(_ number: InodeNumber, _ onEntry: @escaping (Entry) -> Void) {
        self.number = number
        self.onEntry = onEntry
    }

    /// Claims a block of metadata; false if it was claimed before: a tree or chain that bites its
    /// tail must end (VolumeChecker C2).
    func claim(_ address: BlockAddress) -> Bool {
        guard claimed.insert(address.rawValue).inserted else { return false }
        claims.append(Claim(address, 1, .metadata))
        return true
    }
}

/// What was found in one group's block.
package struct GroupInspection: Sendable {
    /// Nil if the block is damaged.
    package var record: ResourceGroupRecord?
    /// The version of the group's block: it changes with every allocation and every free.
    package var version: UInt64
    /// Two bits for each block of the group, as on disk; empty if it is damaged.
    package var bits: [UInt8]
    package var findings: [Finding]
}

/// Judges single structures of a mounted volume. One thing at a time.
package final class LiveInspector {
    private let checker: VolumeChecker
    /// The root and the orphan directories.
    package var anchors: [InodeNumber] = []

    /// An inspector of the volume on `device`.
    package init(_ device: any BlockDevice, _ superblock: Superblock) {
        checker = VolumeChecker(
            device: device,
            superblock: superblock,
            options: CheckOptions(),
            progress: { _ in }
        )
    }

    /// Judges an inode, whose lock is held. Nil if there is no such inode (any more). With
    /// `entriesToo` false a directory's own block is all that is looked at.
    ///
    /// - Throws: `CheckError` when the device fails.
    package func inspect(
        _ number: InodeNumber,
        entriesToo: Bool,
        onEntry: @escaping (InodeInspection.Entry) -> Void = { _ in }
    ) async throws(CheckError) -> InodeInspection? {
        let inspection = InodeInspection(number, onEntry)
        checker.inspection = inspection
        defer {
            checker.inspection = nil
            inspection.findings = takeFindings()
        }
        guard checker.place(of: number.address) != nil, number.generation > 0 else { return nil }
        let buffer = checker.makeBuffer()
        let error = try await checker.read(
            number.address,
            into: buffer,
            kind: .inode,
            owner: number.address.rawValue,
            generation: number.generation
        )
        if let error, !checker.isDamage(error, mark: nil) { return nil }
        _ = inspection.claim(number.address)
        do throws(FormatError) {
            if let error { throw error }
            inspection.version = buffer.readOnly.u64(24)
            let record = try InodeRecord(fields: buffer.readOnly, at: number.address)
            try checker.checkShape(record, number.address)
            inspection.record = record
        } catch {
            checker.add(
                Finding(.inodeDamaged, inode: number, block: number.address, error: error)
            )
            inspection.isComplete = false
            return inspection
        }
        try await judge(inspection, buffer, entriesToo: entriesToo)
        return inspection
    }

    private func judge(
        _ inspection: InodeInspection,
        _ buffer: AlignedBuffer,
        entriesToo: Bool
    ) async throws(CheckError) {
        guard let record = inspection.record else { return }
        let number = inspection.number
        var seen = SeenInode(number, record)
        seen.isAnchor = anchors.contains(number)
        checker.checkFlags(seen, record)
        guard record.hasLayoutOfType else {
            checker.add(Finding(.inodeModeInvalid, inode: number, found: UInt64(record.mode)))
            return
        }
        if record.isDirectory, !entriesToo { return }
        let visit = InodeVisit(number: number, record: record)
        if record.isDirectory {
            try await checker.walkTree(.directory, of: visit, buffer.readOnly)
        } else if record.layout == .extents {
            try await checker.walkTree(.extents, of: visit, buffer.readOnly)
        }
        try await checker.finish(visit, buffer)
        inspection.isComplete = visit.isComplete
        checker.checkSize(visit)
        if record.isDirectory, visit.isComplete, visit.entries != record.entryCount {
            checker.add(
                Finding(
                    .directoryEntryCountWrong,
                    inode: number,
                    found: record.entryCount,
                    expected: visit.entries
                )
            )
        }
    }

    /// Judges a group's block, whose lock is held.
    ///
    /// - Throws: `CheckError` when the device fails.
    package func inspect(group index: UInt32) async throws(CheckError) -> GroupInspection {
        let address = checker.superblock.groupStart(index)
        let buffer = checker.makeBuffer()
        let error = try await checker.read(
            address,
            into: buffer,
            kind: .resourceGroup,
            owner: UInt64(index),
            generation: 0
        )
        let record = checker.checkGroup(index, buffer.bytes, headerError: error)
        let length = record == nil ? 0 : (Int(checker.superblock.groupLength(index)) + 3) / 4
        return GroupInspection(
            record: record,
            version: record == nil ? 0 : buffer.readOnly.u64(24),
            bits: Array(buffer.readOnly.window(ResourceGroupRecord.bitmapOffset, length)),
            findings: takeFindings()
        )
    }

    /// The inode that a block says it is, or belongs to; nil if it is none of an inode's. No lock is
    /// held: what it says is a hint, to be looked at again under the inode's lock.
    ///
    /// - Throws: `CheckError` when the device fails.
    package func owner(
        of address: BlockAddress
    ) async throws(CheckError) -> (number: InodeNumber, isInode: Bool)? {
        let buffer = checker.makeBuffer()
        try await checker.read(address, into: buffer)
        let bytes = buffer.readOnly
        // The checksum may be wrong, as the block is just being written or is damaged: whoever holds
        // the lock will see.
        guard bytes.u32(0) == BlockHeader.magic,
            let kind = BlockKind(rawValue: bytes.u16(4)),
            [.inode, .extentNode, .directoryIndex, .directoryLeaf, .extendedAttributes].contains(
                kind
            )
        else { return nil }
        let number = InodeNumber(address: BlockAddress(bytes.u64(48)), generation: bytes.u64(56))
        guard checker.place(of: number.address) != nil,
            (1...BlockHeader.largestNumber).contains(number.generation)
        else { return nil }
        return (number, kind == .inode && number.address == address)
    }

    /// Judges what never changes while the volume is mounted: superblock, its copies, the slots'
    /// descriptors; and what is kept twice. With it come the orphan directories, by slot; nil where
    /// the descriptor is damaged.
    ///
    /// - Throws: `CheckError` when the device fails.
    package func inspectFixed() async throws(CheckError) -> (
        findings: [Finding], orphanDirectories: [InodeNumber?]
    ) {
        try await checker.checkFixedStructures()
        return (takeFindings(), checker.slots.map { $0?.orphanDirectory })
    }

    /// The blocks of a group that belong to the file system itself, by their places in it: the group's
    /// own, and a copy of the superblock.
    package func fixedPlaces(inGroup index: UInt32) -> [UInt32] {
        let superblock = checker.superblock
        guard Superblock.groupHasCopy(index) else { return [0] }
        return [0, UInt32(superblock.copyAddress(inGroup: index) - superblock.groupStart(index))]
    }

    private func takeFindings() -> [Finding] {
        defer {
            checker.report.findings.removeAll()
            checker.report.findingCount = 0
        }
        return checker.report.findings
    }
}
