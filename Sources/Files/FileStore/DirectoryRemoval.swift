package import DiskFormat
import Journaling
import Vocabulary

/// Where an existing name stands.
package struct DirectoryLocation {
    package let entry: DirectoryEntryRecord

    let place: Directory.Place
    let structureVersion: UInt64
}

/// A name about to be removed.
package struct DirectoryRemoval {
    package let entry: DirectoryEntryRecord
    /// The groups that must be held because blocks are freed, ascending; mostly none.
    package let groups: [UInt32]
    package let cost: OperationCost

    fileprivate let place: Directory.Place
    fileprivate let tree: Tree
    fileprivate let leafRemoval: LeafRemoval?
    fileprivate let movesIntoBody: Bool
    fileprivate let structureVersion: UInt64
}

extension Directory {
    /// Finds an existing name.
    ///
    /// - Throws: `notFound`, `tooLong`, `invalidName`, `storage`.
    package func locate(
        _ name: UnsafeRawBufferPointer
    ) async throws(StoreError) -> DirectoryLocation {
        let (_, place, record) = try await find(existing: name)
        return DirectoryLocation(
            entry: record,
            place: place,
            structureVersion: inode.structureVersion
        )
    }

    private func find(
        existing name: UnsafeRawBufferPointer
    ) async throws(StoreError) -> (Tree, Place, DirectoryEntryRecord) {
        try Self.check(name)
        var source = NodeSource(store, inode)
        let result = try await source.run { source throws(Interruption) in
            try search(name, source)
        }
        guard let found = result.found else { throw .notFound }
        return (result.tree, found.place, found.record)
    }

    /// Finds a name that is to be removed, and what goes with it.
    ///
    /// - Throws: `notFound`, `tooLong`, `invalidName`, `storage`.
    package func prepareRemoval(
        _ name: UnsafeRawBufferPointer
    ) async throws(StoreError) -> DirectoryRemoval {
        let (tree, place, record) = try await find(existing: name)
        let path = place.path
        var leafRemoval: LeafRemoval?
        var movesIntoBody = false
        var freed: [MetadataBlock] = []
        if let leaf = path.leaf {
            if place.area.count == 1 {
                let removal = tree.planRemoval(of: path)
                leafRemoval = removal
                freed = removal.freed(path)
            } else if path.steps.count == 1, path.steps[0].area.count == 1,
                place.area.used - record.byteCount <= inode.bodyLength / 2
            {
                movesIntoBody = true
                freed = [leaf]
            }
        }
        var groups: [UInt32] = []
        for block in freed {
            guard let group = store.superblock.group(of: block.address) else {
                throw .damaged(inode.number.address, "child", block.address.rawValue)
            }
            if !groups.contains(group) { groups.append(group) }
        }
        return DirectoryRemoval(
            entry: record,
            groups: groups.sorted(),
            cost: OperationCost(newBlocks: 0, modifiedBlocks: path.steps.count + 2),
            place: place,
            tree: tree,
            leafRemoval: leafRemoval,
            movesIntoBody: movesIntoBody,
            structureVersion: inode.structureVersion
        )
    }

    /// Removes the name that was prepared; its groups are held. Stores the inode, whose times are
    /// the caller's business.
    ///
    /// A rename within one directory removes the old name first and then prepares the new one, for
    /// which `worstInsertionCost` was set aside.
    package func remove(
        _ removal: DirectoryRemoval,
        with allocator: Allocator
    ) throws(StoreError) {
        precondition(
            removal.structureVersion == inode.structureVersion,
            "FileStore F2: the directory changed"
        )
        guard inode.record.entryCount > 0 else {
            throw .damaged(inode.number.address, "entry count", 0)
        }
        let area = removal.place.area
        if let leafRemoval = removal.leafRemoval {
            try removal.tree.remove(removal.place.path, leafRemoval, with: allocator)
            if inode.record.height == 0 { inode.record.layout = .inlineDirectory }
        } else {
            allocator.transaction.modify(area.block)
            area.remove(removal.entry.byteCount, at: removal.place.offset, of: inode)
            if removal.movesIntoBody, let leaf = removal.place.path.leaf {
                try moveIntoBody(leaf, removal, allocator)
            }
        }
        inode.record.entryCount -= 1
        inode.record.size = inode.record.entryCount * Self.bytesPerEntry
        inode.storeStructure(in: allocator.transaction)
    }

    /// The only leaf's remaining entries move into the body.
    private func moveIntoBody(
        _ leaf: MetadataBlock,
        _ removal: DirectoryRemoval,
        _ allocator: Allocator
    ) throws(StoreError) {
        let header = TreeNodeHeader(fields: leaf.bytes.readOnly)
        let entries = Array(
            leaf.bytes.readOnly.window(TreeNodeHeader.recordsOffset, Int(header.usedBytes))
        )
        try allocator.freeBlock(leaf, of: inode)
        allocator.transaction.modify(inode.block)
        removal.tree.clearBody()
        entries.withUnsafeBytes { inode.block.bytes.put($0, InodeRecord.bodyOffset) }
        inode.record.rootCount = header.count
        inode.record.rootLength = UInt16(entries.count)
        inode.record.layout = .inlineDirectory
    }
}
