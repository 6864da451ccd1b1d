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
        try Self.check(name)
        var source = NodeSource(store, inode)
        let found = try await source.run { source throws(Interruption) in
            try search(name, source).found
        }
        guard let found else { throw .notFound }
        return DirectoryLocation(
            entry: found.record,
            place: found.place,
            structureVersion: inode.structureVersion
        )
    }

    /// Finds a name that is to be removed, and what goes with it.
    ///
    /// - Throws: `notFound`, `tooLong`, `invalidName`, `storage`.
    package func prepareRemoval(
        _ name: UnsafeRawBufferPointer
    ) async throws(StoreError) -> DirectoryRemoval {
        try Self.check(name)
        var source = NodeSource(store, inode)
        let plan = try await source.run { source throws(Interruption) in
            try planRemoval(name, source)
        }
        guard let plan else { throw .notFound }
        let path = plan.place.path
        var freed: [MetadataBlock] = []
        if let removal = plan.leafRemoval {
            freed = removal.freed(path)
        } else if plan.movesIntoBody, let leaf = path.leaf {
            freed = [leaf]
        }
        var groups: [UInt32] = []
        for block in freed {
            guard let group = store.superblock.group(of: block.address) else {
                throw .damaged(inode.number.address, "child", block.address.rawValue)
            }
            if !groups.contains(group) { groups.append(group) }
        }
        return DirectoryRemoval(
            entry: plan.entry,
            groups: groups.sorted(),
            cost: OperationCost(
                newBlocks: 0,
                modifiedBlocks: path.steps.count + 2 + (plan.leafRemoval?.lowered.count ?? 0)
            ),
            place: plan.place,
            tree: plan.tree,
            leafRemoval: plan.leafRemoval,
            movesIntoBody: plan.movesIntoBody,
            structureVersion: inode.structureVersion
        )
    }

    /// A name found, and what goes with it.
    private struct RemovalPlan {
        let tree: Tree
        let place: Place
        let entry: DirectoryEntryRecord
        var leafRemoval: LeafRemoval?
        var movesIntoBody = false
    }

    private func planRemoval(
        _ name: UnsafeRawBufferPointer,
        _ source: NodeSource
    ) throws(Interruption) -> RemovalPlan? {
        let result = try search(name, source)
        guard let (place, record) = result.found else { return nil }
        var plan = RemovalPlan(tree: result.tree, place: place, entry: record)
        let path = place.path
        guard path.leaf != nil else { return plan }
        if place.area.count == 1 {
            plan.leafRemoval = try result.tree.planRemoval(of: path)
        } else if path.steps.count == 1, path.steps[0].area.count == 1 {
            plan.movesIntoBody =
                place.area.used - record.byteCount <= inode.bodyLength / 2
        }
        return plan
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
