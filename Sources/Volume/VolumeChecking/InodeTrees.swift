// Pass 4, inside one inode: the tree of extents or the tree of a directory. The rules are those of
// `Docs/FORMAT.md`, "Trees":
//
//   - the root's first key is 0; the first key of another node is the key of the pointer that leads
//   to it
//   - keys of one node ascend; the last one's range ends where the node's does
//   - a node of height h has children of height h - 1; no node below the root is empty
//   - what stands in a leaf lies within the leaf's range, in ascending order, over all leaves

import BlockIO
import DiskFormat
import Vocabulary

/// Which tree of an inode.
enum TreeKind {
    case extents
    case directory

    func blockKind(height: Int) -> BlockKind {
        switch self {
        case .extents: .extentNode
        case .directory: height == 0 ? .directoryLeaf : .directoryIndex
        }
    }
}

/// Keys that may stand below a pointer: `lower ..< upper`.
struct KeyRange {
    var lower: UInt64 = 0
    var upper: UInt64 = .max
}

extension VolumeChecker {
    /// Walks the tree whose root is in the body of an inode's block.
    func walkTree(
        _ kind: TreeKind,
        of visit: InodeVisit,
        _ block: UnsafeRawBufferPointer
    ) async throws(CheckError) {
        let record = visit.record
        let offset = InodeRecord.bodyOffset
        let count = Int(record.rootCount)
        if record.height > 0 {
            guard count > 0 else {
                damaged(visit, visit.number.address, "pointer count", 0)
                return
            }
            try await walkPointers(
                kind,
                of: visit,
                block,
                at: offset,
                count: count,
                KeyRange(),
                height: Int(record.height),
                of: visit.number.address
            )
        } else if kind == .extents {
            checkExtents(of: visit, block, at: offset, count: count, KeyRange())
        } else {
            try await checkEntries(
                of: visit,
                block,
                at: offset,
                length: Int(record.rootLength),
                count: count,
                KeyRange()
            )
        }
    }

    private func damaged(
        _ visit: InodeVisit,
        _ address: BlockAddress,
        _ field: String,
        _ value: UInt64
    ) {
        damaged(visit, address, .invalidField(address, field: field, value: value))
    }

    private func damaged(_ visit: InodeVisit, _ address: BlockAddress, _ error: FormatError) {
        visit.isComplete = false
        add(Finding(.treeBlockDamaged, inode: visit.number, block: address, error: error))
    }

    /// Follows the pointers of one node of the height given.
    private func walkPointers(
        _ kind: TreeKind,
        of visit: InodeVisit,
        _ block: UnsafeRawBufferPointer,
        at offset: Int,
        count: Int,
        _ range: KeyRange,
        height: Int,
        of parent: BlockAddress
    ) async throws(CheckError) {
        let pointers = (0..<count).map {
            TreePointer(block, at: offset + $0 * TreePointer.byteCount)
        }
        if visit.trustsKeys, !areKeysRight(pointers, range) {
            visit.trustsKeys = false
            add(Finding(.treeKeyWrong, inode: visit.number, block: parent))
        }
        for (index, pointer) in pointers.enumerated() {
            guard place(of: pointer.child) != nil else {
                damaged(visit, parent, "child", pointer.child.rawValue)
                continue
            }
            let below = kind.blockKind(height: height - 1)
            guard try await claimMetadata(pointer.child, for: visit.number, as: below) else {
                visit.isComplete = false
                continue
            }
            visit.blocks += 1
            let upper = index + 1 < pointers.count ? pointers[index + 1].key : range.upper
            try await walkNode(
                kind,
                of: visit,
                pointer.child,
                KeyRange(lower: pointer.key, upper: upper),
                height: height - 1
            )
        }
    }

    private func areKeysRight(_ pointers: [TreePointer], _ range: KeyRange) -> Bool {
        guard let first = pointers.first, let last = pointers.last else { return true }
        return first.key == range.lower && last.key < range.upper
            && zip(pointers, pointers.dropFirst()).allSatisfy { $0.key < $1.key }
    }

    private func walkNode(
        _ kind: TreeKind,
        of visit: InodeVisit,
        _ address: BlockAddress,
        _ range: KeyRange,
        height: Int
    ) async throws(CheckError) {
        let buffer = makeBuffer()
        if let error = try await read(
            address,
            into: buffer,
            kind: kind.blockKind(height: height),
            owner: visit.number.address.rawValue,
            generation: visit.number.generation
        ) {
            damaged(visit, address, error)
            return
        }
        let header = TreeNodeHeader(fields: buffer.readOnly)
        guard Int(header.height) == height else {
            damaged(visit, address, "height", UInt64(header.height))
            return
        }
        let count = Int(header.count)
        guard count > 0, fits(header, kind, height: height) else {
            damaged(visit, address, "count", UInt64(header.count))
            return
        }
        let offset = TreeNodeHeader.recordsOffset
        if height > 0 {
            try await walkPointers(
                kind,
                of: visit,
                buffer.readOnly,
                at: offset,
                count: count,
                range,
                height: height,
                of: address
            )
        } else if kind == .extents {
            checkExtents(of: visit, buffer.readOnly, at: offset, count: count, range)
        } else {
            try await checkEntries(
                of: visit,
                buffer.readOnly,
                at: offset,
                length: Int(header.usedBytes),
                count: count,
                range
            )
        }
    }

    /// Whether the records of a node can be in it.
    func fits(_ header: TreeNodeHeader, _ kind: TreeKind, height: Int) -> Bool {
        let room = blockSize - TreeNodeHeader.recordsOffset
        let count = Int(header.count)
        switch kind {
        case _ where height > 0: return count * TreePointer.byteCount <= room
        case .extents: return count * Extent.byteCount <= room
        case .directory:
            return count * DirectoryEntryRecord.fixedByteCount <= Int(header.usedBytes)
                && Int(header.usedBytes) <= room
        }
    }

    // MARK: extents

    private func checkExtents(
        of visit: InodeVisit,
        _ block: UnsafeRawBufferPointer,
        at offset: Int,
        count: Int,
        _ range: KeyRange
    ) {
        var areSorted = true
        for index in 0..<count {
            let extent = Extent(block, at: offset + index * Extent.byteCount)
            guard extent.isPlausible(in: superblock) else {
                visit.isComplete = false
                add(
                    Finding(
                        .extentInvalid,
                        inode: visit.number,
                        block: extent.physical,
                        found: UInt64(extent.length)
                    )
                )
                continue
            }
            if extent.logical < visit.nextLogical
                || (visit.trustsKeys
                    && (extent.logical < range.lower || extent.logicalEnd > range.upper))
            {
                areSorted = false
            }
            visit.nextLogical = max(visit.nextLogical, extent.logicalEnd)
            if !extent.isUnwritten {
                visit.writtenEnd = max(visit.writtenEnd, extent.logicalEnd)
            }
            visit.blocks += UInt64(extent.length)
            claimData(extent.physical, length: extent.length, for: visit.number)
        }
        if !areSorted { add(Finding(.extentsUnsorted, inode: visit.number)) }
    }
}
