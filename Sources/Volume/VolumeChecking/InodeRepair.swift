// Stages "inodes", "counts", "orphans" and "links": single inodes, and what their entries say.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    // MARK: inodes

    func repairInodes(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var rebuilt: [InodeNumber: Bool] = [:]
        return try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let number = finding.inode else { return false }
            let inode = checker.inodes[number.address]
            switch finding.kind {
            case .inodeFlagsInvalid:
                guard let inode else { return false }
                let isSystem = checker.isSystem(inode)
                return try await editInode(number) { record in
                    record.flags.formIntersection(
                        checker.knownFlags(of: record, isSystem: isSystem)
                    )
                    if isSystem {
                        record.flags.insert(.system)
                    } else {
                        record.flags.remove(.system)
                    }
                }
            case .inodeModeInvalid:
                return try await editInode(number) { record in
                    Self.reconcile(&record, isAnchor: inode?.isAnchor ?? false)
                }
            default:
                if isAnchor(number) { return try await remakeAnchor(number) }
                guard let holder = holder(of: inode) else { return false }
                // The entry goes; what belonged to the inode is lost, and the last stage frees it.
                if let known = rebuilt[holder] { return known }
                let isDone = try await rebuildDirectory(holder)
                rebuilt[holder] = isDone
                return isDone
            }
        }
    }

    /// The directory that has an entry for an inode, the orphan directories among them.
    private func holder(of inode: SeenInode?) -> InodeNumber? {
        guard let inode else { return nil }
        if let slot = inode.listedIn { return checker.slots[Int(slot.rawValue)]?.orphanDirectory }
        return inode.linkedFrom
    }

    /// Makes type and body fit. Content decides: a body of entries makes a directory, one of data a
    /// file (a symbolic link stays one); without content the type in the mode decides.
    static func reconcile(_ record: inout InodeRecord, isAnchor: Bool) {
        let permissions = record.mode & 0o7777
        func become(_ type: UInt32, _ layout: InodeLayout? = nil) {
            record.mode = type | permissions
            guard let layout else { return }
            record.layout = layout
            record.size = 0
            record.height = 0
            record.rootCount = 0
            record.rootLength = 0
            record.entryCount = 0
        }
        let isEmpty =
            switch record.layout {
            case .inlineData: record.size == 0
            case .extents: record.rootCount == 0
            case .none: true
            case .inlineDirectory, .directoryIndex: false
            }
        switch (record.layout, record.typeBits) {
        case (.inlineDirectory, _), (.directoryIndex, _): become(0o040000)
        case _ where isAnchor: become(0o040000, .inlineDirectory)
        case (.inlineData, 0o120000) where !isEmpty, (.extents, 0o120000) where !isEmpty:
            become(0o120000)
        case (_, 0o010000) where isEmpty, (_, 0o020000) where isEmpty,
            (_, 0o060000) where isEmpty, (_, 0o140000) where isEmpty:
            become(record.typeBits, InodeLayout.none)
        case (_, 0o040000) where isEmpty: become(0o040000, .inlineDirectory)
        case _ where isEmpty: become(0o100000, .inlineData)
        default: become(0o100000)
        }
    }

    // MARK: counts

    func repairCounts(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let number = finding.inode else { return false }
            switch (finding.kind, finding.expected) {
            case (.inodeBlockCountWrong, let count?):
                return try await editInode(number) { $0.blockCount = count }
            case (.directoryEntryCountWrong, let count?):
                return try await editInode(number) { $0.entryCount = count }
            case (.inodeSizeWrong, let size?):
                // Behind the largest file there is none; the extents were judged before.
                return try await editInode(number) { $0.size = min(size, UInt64(Int64.max)) }
            case (.inodeSizeWrong, nil): return try await repairSize(number)
            default: return false
            }
        }
    }

    /// A size that is no size: that of a link's target ends before the first zero byte, that of a
    /// file with its last block. A link without a target is none, and becomes an empty file.
    private func repairSize(_ number: InodeNumber) async throws(CheckError) -> Bool {
        let buffer = makeBuffer()
        guard let record = try await readInode(number, into: buffer) else { return false }
        let (extents, _) =
            record.layout == .extents
            ? try await soundExtents(of: number, record, buffer) : ([], [])
        guard record.isSymbolicLink else {
            let end = extents.last { !$0.isUnwritten }?.logicalEnd ?? 0
            let (size, overflows) = end.multipliedReportingOverflow(by: UInt64(blockSize))
            return try await editInode(number) {
                $0.size = overflows ? UInt64(Int64.max) : min(size, UInt64(Int64.max))
            }
        }
        var target: [UInt8] = []
        if record.layout == .inlineData {
            let room = record.bodyLength(blockSize: blockSize)
            target = Array(buffer.readOnly.window(InodeRecord.bodyOffset, room))
        } else if let first = extents.first, first.logical == 0, !first.isUnwritten {
            try await read(first.physical, into: buffer)
            target = Array(buffer.readOnly.prefix(InodeRecord.longestTarget))
        }
        let length = UInt64(target.prefix(InodeRecord.longestTarget).prefix { $0 != 0 }.count)
        return try await editInode(number) { record in
            record.size = length
            if length == 0 { record.mode = 0o100000 | record.mode & 0o7777 }
        }
    }

    // MARK: orphans

    /// Entries of ordinary directories are believed: what has one is no orphan and is listed
    /// nowhere. What is listed and has none is an orphan of the slot whose list it stands in.
    func repairOrphans(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var lists: Set<SlotIndex> = []
        var done: [Finding] = []
        for finding in found {
            guard let number = finding.inode,
                let inode = checker.inodes[number.address]
            else { continue }
            if let listed = inode.listedIn {
                lists.insert(listed)
                if let slot = finding.slot { lists.insert(slot) }
            }
            if let listed = inode.listedIn, inode.links == 0, !inode.isAnchor {
                _ = try await editInode(number) { record in
                    record.flags.insert(.orphan)
                    record.orphanSlot = listed
                    record.linkCount = 0
                }
            } else {
                let links = inode.isDirectory ? 2 + inode.subdirectories : inode.links
                _ = try await editInode(number) { record in
                    record.flags.remove(.orphan)
                    record.linkCount = links
                }
            }
            done.append(finding)
        }
        for slot in lists.sorted() {
            guard let descriptor = checker.slots[Int(slot.rawValue)] else { continue }
            _ = try await rebuildDirectory(descriptor.orphanDirectory)
        }
        return writes > 0 ? done : []
    }

    // MARK: links

    func repairLinks(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let number = finding.inode, let links = finding.expected else { return false }
            return try await editInode(number) { $0.linkCount = UInt32(clamping: links) }
        }
    }
}
