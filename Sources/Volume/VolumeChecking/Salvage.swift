// What is sound of a tree: the nodes that verify as the inode's, and the records of its leaves. A
// node that does not verify, or that the walk has met before, is left out with all below it. The
// keys of pointers are not asked: whatever leads to a sound leaf is good enough, since the tree is
// built anew from the leaves.

import BlockIO
import DiskFormat
import Vocabulary

/// A leaf, or the root of a tree of height 0, as it lies in memory while it is looked at.
struct SalvagedLeaf {
    var block: UnsafeRawBufferPointer
    /// Where its records begin and, of a directory, how many bytes they fill.
    var offset: Int
    var length: Int
    var count: Int
    var version: UInt64
}

/// One name of a directory, out of the block it was read from.
struct SalvagedEntry {
    var key: UInt64
    var inode: InodeNumber
    var type: UInt8
    var name: [UInt8]
}

/// A walk over the sound part of one inode's tree.
final class TreeSalvage {
    private let round: RepairRound
    private let number: InodeNumber
    private let kind: TreeKind
    private let takeLeaf: (SalvagedLeaf) -> Void
    private var visited: Set<UInt64> = []
    /// The sound nodes, in the order of the walk.
    private(set) var nodes: [BlockAddress] = []

    private init(
        _ round: RepairRound,
        _ number: InodeNumber,
        _ kind: TreeKind,
        _ takeLeaf: @escaping (SalvagedLeaf) -> Void
    ) {
        self.round = round
        self.number = number
        self.kind = kind
        self.takeLeaf = takeLeaf
    }

    /// Walks the tree whose root is in `block`, the block of an inode; returns its sound nodes.
    static func walk(
        _ kind: TreeKind,
        of number: InodeNumber,
        _ record: InodeRecord,
        _ block: UnsafeRawBufferPointer,
        in round: RepairRound,
        _ takeLeaf: @escaping (SalvagedLeaf) -> Void
    ) async throws(CheckError) -> [BlockAddress] {
        let salvage = TreeSalvage(round, number, kind, takeLeaf)
        let offset = InodeRecord.bodyOffset
        if record.height == 0 {
            takeLeaf(
                SalvagedLeaf(
                    block: block,
                    offset: offset,
                    length: Int(record.rootLength),
                    count: Int(record.rootCount),
                    version: BlockHeader.version(of: block)
                )
            )
        } else {
            try await salvage.follow(
                block,
                at: offset,
                count: Int(record.rootCount),
                height: Int(record.height)
            )
        }
        return salvage.nodes
    }

    /// Follows the pointers of a node of the height given. (At most
    /// `InodeRecord.maximumHeight` deep.)
    private func follow(
        _ block: UnsafeRawBufferPointer,
        at offset: Int,
        count: Int,
        height: Int
    ) async throws(CheckError) {
        for index in 0..<count {
            let pointer = TreePointer(block, at: offset + index * TreePointer.byteCount)
            let address = pointer.child
            guard round.checker.place(of: address) != nil,
                visited.insert(address.rawValue).inserted
            else { continue }
            let buffer = round.makeBuffer()
            try await round.read(address, into: buffer)
            let error = round.checker.headerError(
                buffer.readOnly,
                at: address,
                kind: kind.blockKind(height: height - 1),
                owner: number.address.rawValue,
                generation: number.generation
            )
            let header = TreeNodeHeader(fields: buffer.readOnly)
            guard error == nil, Int(header.height) == height - 1, header.count > 0,
                round.checker.fits(header, kind, height: height - 1)
            else { continue }
            nodes.append(address)
            if height > 1 {
                try await follow(
                    buffer.readOnly,
                    at: TreeNodeHeader.recordsOffset,
                    count: Int(header.count),
                    height: height - 1
                )
            } else {
                takeLeaf(
                    SalvagedLeaf(
                        block: buffer.readOnly,
                        offset: TreeNodeHeader.recordsOffset,
                        length: Int(header.usedBytes),
                        count: Int(header.count),
                        version: BlockHeader.version(of: buffer.readOnly)
                    )
                )
            }
            withExtendedLifetime(buffer) {}
        }
    }
}

extension SalvagedLeaf {
    /// The entries before the first that cannot be read.
    var entries: [SalvagedEntry] {
        var entries: [SalvagedEntry] = []
        var position = offset
        for _ in 0..<count {
            guard let record = DirectoryEntryRecord(block, at: position, end: offset + length)
            else {
                break
            }
            let name = block.window(
                position + DirectoryEntryRecord.fixedByteCount,
                Int(record.nameLength)
            )
            entries.append(
                SalvagedEntry(
                    key: record.key,
                    inode: record.inode,
                    type: record.type,
                    name: Array(name)
                )
            )
            position += record.byteCount
        }
        return entries
    }

    /// The extents that can be ones.
    func extents(in superblock: Superblock) -> [Extent] {
        (0..<count).map { Extent(block, at: offset + $0 * Extent.byteCount) }
            .filter { $0.isPlausible(in: superblock) }
    }
}
