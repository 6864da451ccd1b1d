// Builds a tree anew from its leaves' records: all nodes in new blocks, the root into the inode's
// body. The old nodes are left where they are; nothing leads to them any more, and the last stage
// frees them (VolumeRepair V3).

import BlockIO
import DiskFormat
import Vocabulary

/// What will stand in one leaf.
struct PlannedLeaf {
    /// Key of its first record.
    var key: UInt64
    var count: Int
    var bytes: [UInt8]
}

/// A tree but for its root.
struct BuiltTree {
    var height: UInt8
    /// The records of the root.
    var pointers: [TreePointer]
    /// Nodes below the root.
    var nodeCount: UInt64
}

extension RepairRound {
    /// Packs records, given with their keys in ascending order, into leaves.
    func plan(_ records: [(key: UInt64, bytes: [UInt8])]) -> [PlannedLeaf] {
        let room = blockSize - TreeNodeHeader.recordsOffset
        var leaves: [PlannedLeaf] = []
        for record in records {
            if let last = leaves.last, last.bytes.count + record.bytes.count <= room {
                leaves[leaves.count - 1].bytes += record.bytes
                leaves[leaves.count - 1].count += 1
            } else {
                leaves.append(PlannedLeaf(key: record.key, count: 1, bytes: record.bytes))
            }
        }
        return leaves
    }

    /// Writes the leaves and the index above them, and flushes; nil if there is no room, on the
    /// volume or, for the root, in `rootRoom` bytes.
    func build(
        _ kind: TreeKind,
        of owner: InodeNumber,
        _ leaves: [PlannedLeaf],
        rootRoom: Int
    ) async throws(CheckError) -> BuiltTree? {
        let perRoot = rootRoom / TreePointer.byteCount
        let perNode = (blockSize - TreeNodeHeader.recordsOffset) / TreePointer.byteCount
        guard perRoot > 0 else { return nil }
        var needed = leaves.count
        var level = leaves.count
        while level > perRoot {
            level = (level + perNode - 1) / perNode
            needed += level
        }
        guard hasRoom(for: needed, .metadata) else { return nil }
        var pointers: [TreePointer] = []
        for leaf in leaves {
            let header = TreeNodeHeader(
                count: UInt16(leaf.count),
                height: 0,
                usedBytes: kind == .directory ? UInt32(leaf.bytes.count) : 0
            )
            guard let address = try await writeNode(kind, of: owner, header, leaf.bytes) else {
                return nil
            }
            // The first key of a root is 0 (FORMAT.md, "Trees").
            pointers.append(TreePointer(key: pointers.isEmpty ? 0 : leaf.key, child: address))
        }
        var height: UInt8 = 1
        while pointers.count > perRoot {
            var above: [TreePointer] = []
            for start in stride(from: 0, to: pointers.count, by: perNode) {
                let part = pointers[start..<min(start + perNode, pointers.count)]
                let header = TreeNodeHeader(
                    count: UInt16(part.count),
                    height: UInt16(height),
                    usedBytes: 0
                )
                let bytes = part.flatMap(Self.bytes)
                guard let address = try await writeNode(kind, of: owner, header, bytes) else {
                    return nil
                }
                above.append(TreePointer(key: part[start].key, child: address))
            }
            pointers = above
            height += 1
        }
        try await flush()
        return BuiltTree(height: height, pointers: pointers, nodeCount: UInt64(needed))
    }

    private static func bytes(_ pointer: TreePointer) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: TreePointer.byteCount)
        bytes.withUnsafeMutableBytes { pointer.write(to: $0, at: 0) }
        return bytes
    }

    private func writeNode(
        _ kind: TreeKind,
        of owner: InodeNumber,
        _ header: TreeNodeHeader,
        _ records: [UInt8]
    ) async throws(CheckError) -> BlockAddress? {
        guard let taken = try await takeMetadata() else { return nil }
        let buffer = makeBuffer()
        BlockHeader(
            kind: kind.blockKind(height: Int(header.height)),
            address: taken.address,
            version: taken.version,
            volume: superblock.volume,
            owner: owner.address.rawValue,
            generation: owner.generation
        ).write(to: buffer.bytes)
        header.writeFields(to: buffer.bytes)
        records.withUnsafeBytes { buffer.bytes.put($0, TreeNodeHeader.recordsOffset) }
        BlockHeader.seal(buffer.bytes)
        try await write(buffer, at: taken.address)
        return taken.address
    }

    /// Puts a root into the body of an inode whose block is given, and writes the inode.
    func writeRoot(
        _ number: InodeNumber,
        _ record: InodeRecord,
        body: [UInt8],
        in buffer: AlignedBuffer
    ) async throws(CheckError) {
        let room = record.bodyLength(blockSize: blockSize)
        precondition(body.count <= room, "a root longer than the body")
        buffer.bytes.clear(InodeRecord.bodyOffset, room)
        body.withUnsafeBytes { buffer.bytes.put($0, InodeRecord.bodyOffset) }
        record.writeFields(to: buffer.bytes)
        try await writeNext(buffer, at: number.address)
        try await flush()
    }

    /// Puts a tree's root into the body of an inode, and writes the inode.
    func writeRoot(
        _ number: InodeNumber,
        _ record: InodeRecord,
        _ tree: BuiltTree,
        in buffer: AlignedBuffer
    ) async throws(CheckError) {
        var record = record
        record.height = tree.height
        record.rootCount = UInt16(tree.pointers.count)
        record.rootLength = 0
        try await writeRoot(
            number,
            record,
            body: tree.pointers.flatMap(Self.bytes),
            in: buffer
        )
    }
}
