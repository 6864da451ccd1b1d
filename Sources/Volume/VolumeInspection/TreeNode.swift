// A node of a tree, or the root in an inode's body, cut to what fits: whatever it says, its records lie
// in the block (I2).

import BlockIO
import DiskFormat
import Vocabulary

/// One name of a directory, out of the block it was read from.
struct ListedEntry {
    var record: DirectoryEntryRecord
    var name: [UInt8]
}

/// One block of records.
struct TreeNode {
    let address: BlockAddress
    let kind: BlockKind
    /// 0 for a leaf.
    let height: Int
    /// Keys that may stand in it: from `lower` on and below `upper`.
    var lower: UInt64 = 0
    var upper: UInt64 = .max
    var isRoot = false
    /// Why the records cannot be all there; nil if they are.
    var problem: String?

    private let block: AlignedBuffer?
    private let offset: Int
    /// Bytes that records may fill.
    private let room: Int
    private let count: Int

    /// A node below the root.
    init(
        _ block: AlignedBuffer,
        kind: BlockKind,
        at address: BlockAddress,
        _ header: TreeNodeHeader
    ) {
        let space = block.bytes.count - TreeNodeHeader.recordsOffset
        let isDirectoryLeaf = kind == .directoryLeaf
        self.block = block
        self.address = address
        self.kind = kind
        // A leaf of a directory is one by its kind, an index is none.
        height = isDirectoryLeaf ? 0 : max(Int(header.height), kind == .directoryIndex ? 1 : 0)
        offset = TreeNodeHeader.recordsOffset
        room = isDirectoryLeaf ? min(Int(header.usedBytes), space) : space
        count = Int(header.count)
        if header.count == 0 {
            problem = "\(address), a node below the root, is empty"
        } else if isDirectoryLeaf ? header.height != 0 : Int(header.height) != height {
            problem = "\(address), a \(kind), has height \(header.height)"
        } else if isDirectoryLeaf && Int(header.usedBytes) > space {
            problem = "\(address) says \(header.usedBytes) bytes of entries, \(space) fit"
        } else if count > most {
            problem = "\(address) says \(count) records, \(most) fit"
        }
    }

    /// The root of a tree, in the block of an inode.
    init(rootIn block: AlignedBuffer, at address: BlockAddress, _ record: InodeRecord) {
        let isDirectory = record.layout == .inlineDirectory || record.layout == .directoryIndex
        self.block = block
        self.address = address
        isRoot = true
        let isTree = record.layout == .extents || record.layout == .directoryIndex
        height = isTree ? Int(record.height) : 0
        kind =
            isDirectory ? (height == 0 ? .directoryLeaf : .directoryIndex) : .extentNode
        offset = InodeRecord.bodyOffset
        let body = max(0, record.bodyLength(blockSize: block.bytes.count))
        room =
            record.layout == .inlineDirectory ? min(Int(record.rootLength), body) : body
        count = record.layout == .inlineData || record.layout == .none ? 0 : Int(record.rootCount)
        if count > most {
            problem = "the root of inode \(address.rawValue) says \(count) records, \(most) fit"
        } else if height > 0 && count == 0 {
            problem = "the root of inode \(address.rawValue) has no pointers"
        } else if record.layout == .directoryIndex && height == 0 {
            problem = "the root of inode \(address.rawValue) is an index of height 0"
        }
    }

    /// A node that cannot be looked into.
    init(lost address: BlockAddress, kind: BlockKind, height: Int, because problem: String) {
        self.address = address
        self.kind = kind
        self.height = height
        self.problem = problem
        block = nil
        offset = 0
        room = 0
        count = 0
    }

    private var most: Int {
        if height > 0 { return room / TreePointer.byteCount }
        return kind == .extentNode
            ? room / Extent.byteCount : room / DirectoryEntryRecord.fixedByteCount
    }

    /// How many records it says it has.
    var statedCount: Int { count }
    /// Whether it could be looked into.
    var isThere: Bool { block != nil }

    /// The pointers of a node that is no leaf.
    var pointers: [TreePointer] {
        guard let block, height > 0 else { return [] }
        return (0..<min(count, most)).map {
            TreePointer(block.readOnly, at: offset + $0 * TreePointer.byteCount)
        }
    }

    /// The extents of a leaf.
    var extents: [Extent] {
        guard let block, height == 0, kind == .extentNode else { return [] }
        return (0..<min(count, most)).map {
            Extent(block.readOnly, at: offset + $0 * Extent.byteCount)
        }
    }

    /// The entries of a leaf, up to the first that does not fit.
    var entries: (entries: [ListedEntry], problem: String?) {
        guard let block, height == 0, kind == .directoryLeaf else { return ([], nil) }
        var found: [ListedEntry] = []
        var position = offset
        let end = offset + room
        for _ in 0..<count {
            guard let record = DirectoryEntryRecord(block.readOnly, at: position, end: end) else {
                break
            }
            let name = block.readOnly.window(
                position + DirectoryEntryRecord.fixedByteCount,
                Int(record.nameLength)
            )
            found.append(ListedEntry(record: record, name: Array(name)))
            position += record.byteCount
        }
        guard found.count == count, position == end else {
            return (
                found,
                "\(found.count) of \(count) entries of \(address) can be read, "
                    + "\(position - offset) of \(room) bytes"
            )
        }
        return (found, nil)
    }

    /// What is wrong with the keys of the pointers; nil if nothing is.
    var keyProblem: String? {
        let pointers = pointers
        guard let first = pointers.first, let last = pointers.last else { return nil }
        let areSorted = zip(pointers, pointers.dropFirst()).allSatisfy { $0.key < $1.key }
        guard first.key == lower, last.key < upper, areSorted else {
            return "the keys of \(address) are not in order, or not those of its place in the tree"
        }
        return nil
    }
}
