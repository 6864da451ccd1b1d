// The way from an inode's body down to one leaf. Both trees of an inode, extents and directory,
// have the same pointers above their leaves (DiskFormat/TreeRecords); what stands in the leaves is
// the business of `ExtentArea` and `DirectoryArea`.
//
// Invariants
// T1. The first pointer of the root has key 0; the first pointer of any other index node has the
//     key of the pointer that leads to the node. So every key belongs to exactly one leaf.
// T2. A node of height h has children of height h - 1; leaves have height 0; the root counts as
//     `InodeRecord.height`. Height 0 in the inode: the body itself is the leaf.
// T3. No node below the root is empty, and neither is a leaf.
// T4. What stands in a leaf lies within the leaf's bounds: not below its key, not at or beyond the
//     key of the next leaf (an extent as a whole).

import DiskFormat
import Journaling
import Vocabulary

/// Which tree.
enum TreeKind {
    case extents
    case directory

    var index: BlockKind { self == .extents ? .extentNode : .directoryIndex }
    var leaf: BlockKind { self == .extents ? .extentNode : .directoryLeaf }
}

/// The pointers of an index node, or of the root in the inode's body.
struct PointerArea {
    let block: MetadataBlock
    let isRoot: Bool
    let count: Int
    let capacity: Int

    private var offset: Int {
        isRoot ? InodeRecord.bodyOffset : TreeNodeHeader.recordsOffset
    }

    /// The root.
    init(root inode: StoredInode) throws(Interruption) {
        block = inode.block
        isRoot = true
        count = Int(inode.record.rootCount)
        capacity = inode.bodyLength / TreePointer.byteCount
        try check(inode.block.address)
    }

    /// An index node of the height given.
    init(node: MetadataBlock, height: Int) throws(Interruption) {
        let header = TreeNodeHeader(fields: node.bytes.readOnly)
        guard Int(header.height) == height else {
            throw .damaged(node.address, "height", UInt64(header.height))
        }
        block = node
        isRoot = false
        count = Int(header.count)
        capacity = Self.nodeCapacity(node.bytes.count)
        try check(node.address)
    }

    /// Pointers that fit into a node.
    static func nodeCapacity(_ blockSize: Int) -> Int {
        (blockSize - TreeNodeHeader.recordsOffset) / TreePointer.byteCount
    }

    private func check(_ address: BlockAddress) throws(Interruption) {
        guard count > 0, count <= capacity else {
            throw .damaged(address, "pointer count", UInt64(count))
        }
    }

    subscript(index: Int) -> TreePointer {
        precondition(index < count, "a pointer that is not there")
        return TreePointer(block.bytes.readOnly, at: offset + index * TreePointer.byteCount)
    }

    /// The pointer to follow for `key`: the last whose key is not above it, or the first.
    func search(_ key: UInt64) -> Int {
        let bytes = block.bytes.readOnly
        var low = 0
        var high = count
        while high - low > 1 {
            let middle = (low + high) / 2
            if bytes.u64(offset + middle * TreePointer.byteCount) <= key {
                low = middle
            } else {
                high = middle
            }
        }
        return low
    }
}

/// One node on the way down and the pointer taken there.
struct TreeStep {
    let area: PointerArea
    var slot: Int
}

/// The way to one leaf.
struct TreePath {
    /// From the root down to the parent of the leaf; empty if the body is the leaf.
    var steps: [TreeStep] = []
    /// Nil if the body is the leaf.
    var leaf: MetadataBlock?

    /// The key of the next leaf; nil in the last leaf.
    var upperBound: UInt64? {
        for step in steps.reversed() where step.slot + 1 < step.area.count {
            return step.area[step.slot + 1].key
        }
        return nil
    }
}

/// A tree of one inode, to be walked.
struct Tree {
    let source: NodeSource
    let kind: TreeKind

    init(_ source: NodeSource, _ kind: TreeKind) {
        self.source = source
        self.kind = kind
    }

    var inode: StoredInode { source.inode }

    /// The way to the leaf to which `key` belongs.
    func descend(to key: UInt64) throws(Interruption) -> TreePath {
        var path = TreePath()
        guard inode.record.height > 0 else { return path }
        let root = try PointerArea(root: inode)
        path.steps.append(TreeStep(area: root, slot: root.search(key)))
        try goDown(&path) { $0.search(key) }
        return path
    }

    /// Moves to the leaf behind; false in the last leaf.
    func moveToNextLeaf(_ path: inout TreePath) throws(Interruption) -> Bool {
        guard let depth = path.steps.lastIndex(where: { $0.slot + 1 < $0.area.count }) else {
            return false
        }
        path.steps.removeSubrange((depth + 1)...)
        path.steps[depth].slot += 1
        try goDown(&path) { _ in 0 }
        return true
    }

    /// Moves to the leaf before; false in the first leaf.
    func moveToPreviousLeaf(_ path: inout TreePath) throws(Interruption) -> Bool {
        guard let depth = path.steps.lastIndex(where: { $0.slot > 0 }) else { return false }
        path.steps.removeSubrange((depth + 1)...)
        path.steps[depth].slot -= 1
        try goDown(&path) { $0.count - 1 }
        return true
    }

    /// From the last step of `path` down to a leaf (T2: ends).
    private func goDown(
        _ path: inout TreePath,
        _ choose: (PointerArea) -> Int
    ) throws(Interruption) {
        while let step = path.steps.last {
            let child = step.area[step.slot].child
            let height = Int(inode.record.height) - path.steps.count
            guard height > 0 else {
                let leaf = try source.block(child, kind.leaf)
                let header = TreeNodeHeader(fields: leaf.bytes.readOnly)
                guard header.height == 0, header.count > 0 else {
                    throw .damaged(
                        child,
                        "leaf",
                        UInt64(header.height) << 16 | UInt64(header.count)
                    )
                }
                path.leaf = leaf
                return
            }
            let area = try PointerArea(
                node: try source.block(child, kind.index),
                height: height
            )
            path.steps.append(TreeStep(area: area, slot: choose(area)))
        }
    }
}
