import DiskFormat
import Journaling
import Vocabulary

/// The extents in one leaf, or in the inode's body.
struct ExtentArea {
    let block: MetadataBlock
    let isRoot: Bool
    let count: Int
    let capacity: Int
    private let superblock: Superblock

    private var offset: Int {
        isRoot ? InodeRecord.bodyOffset : TreeNodeHeader.recordsOffset
    }

    init(_ path: TreePath, of inode: StoredInode, _ store: FileStore) throws(Interruption) {
        superblock = store.superblock
        if let leaf = path.leaf {
            block = leaf
            isRoot = false
            count = Int(TreeNodeHeader(fields: leaf.bytes.readOnly).count)
            capacity = Self.leafCapacity(store.blockSize)
        } else {
            block = inode.block
            isRoot = true
            count = Int(inode.record.rootCount)
            capacity = Self.rootCapacity(inode)
        }
        guard count <= capacity else {
            throw .damaged(block.address, "extent count", UInt64(count))
        }
    }

    /// Extents that fit into a leaf.
    static func leafCapacity(_ blockSize: Int) -> Int {
        (blockSize - TreeNodeHeader.recordsOffset) / Extent.byteCount
    }

    /// Extents that fit into the body.
    static func rootCapacity(_ inode: StoredInode) -> Int { inode.bodyLength / Extent.byteCount }

    /// The extent at `index`, checked: not empty, no overflow, all of it in one resource group, and
    /// not beyond the start of its successor.
    func extent(_ index: Int) throws(Interruption) -> Extent {
        precondition(index < count, "an extent that is not there")
        let extent = Extent(block.bytes.readOnly, at: offset + index * Extent.byteCount)
        guard extent.length > 0,
            extent.logical <= UInt64.max - UInt64(extent.length)
        else { throw .damaged(block.address, "extent length", UInt64(extent.length)) }
        guard extent.physical.rawValue < superblock.blockCount,
            let group = superblock.group(of: extent.physical),
            superblock.group(of: extent.physical + UInt64(extent.length - 1)) == group
        else { throw .damaged(block.address, "extent", extent.physical.rawValue) }
        guard index + 1 == count || logical(index + 1) >= extent.logicalEnd else {
            throw .damaged(block.address, "extent order", extent.logical)
        }
        return extent
    }

    /// The first logical block of an extent, unchecked.
    func logical(_ index: Int) -> UInt64 {
        block.bytes.readOnly.u64(offset + index * Extent.byteCount)
    }

    /// The last extent that starts at or before `logical`; -1 if there is none.
    func search(_ logical: UInt64) -> Int {
        var low = -1
        var high = count
        while high - low > 1 {
            let middle = (low + high) / 2
            if self.logical(middle) <= logical { low = middle } else { high = middle }
        }
        return low
    }

    /// All extents.
    func all() throws(Interruption) -> [Extent] {
        var extents: [Extent] = []
        extents.reserveCapacity(count + 2)
        for index in 0..<count { extents.append(try extent(index)) }
        return extents
    }

    /// Replaces some extents by others, which fit. The block has been announced to the transaction.
    func replace(_ range: Range<Int>, with new: [Extent], of inode: StoredInode) {
        let newCount = count - range.count + new.count
        precondition(newCount <= capacity, "more extents than fit")
        let bytes = block.bytes
        let size = Extent.byteCount
        let base = bytes.baseAddress.unsafelyUnwrapped + offset
        let tail = count - range.upperBound
        memmove(base, from: range.upperBound, to: range.lowerBound + new.count, count: tail)
        for (index, extent) in new.enumerated() {
            extent.write(to: bytes, at: offset + (range.lowerBound + index) * size)
        }
        if newCount < count { bytes.clear(offset + newCount * size, (count - newCount) * size) }
        setCount(newCount, of: inode)
    }

    private func memmove(_ base: UnsafeMutableRawPointer, from: Int, to: Int, count: Int) {
        guard count > 0, from != to else { return }
        (base + to * Extent.byteCount).copyMemory(
            from: base + from * Extent.byteCount,
            byteCount: count * Extent.byteCount
        )
    }

    private func setCount(_ count: Int, of inode: StoredInode) {
        if isRoot {
            inode.record.rootCount = UInt16(count)
        } else {
            TreeNodeHeader(count: UInt16(count), height: 0, usedBytes: 0)
                .writeFields(to: block.bytes)
        }
    }

    /// Fills an empty new leaf.
    static func fill(_ leaf: MetadataBlock, with extents: ArraySlice<Extent>) {
        TreeNodeHeader(count: UInt16(extents.count), height: 0, usedBytes: 0)
            .writeFields(to: leaf.bytes)
        var offset = TreeNodeHeader.recordsOffset
        for extent in extents {
            extent.write(to: leaf.bytes, at: offset)
            offset += Extent.byteCount
        }
    }
}
