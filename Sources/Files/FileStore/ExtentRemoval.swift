// Taking extents out: truncation, punching of holes, deletion.

package import DiskFormat
import Journaling
import Vocabulary

/// One step of a removal: what goes, which groups must be held, what it costs.
package struct ExtentRemoval {
    /// The data that is freed, ascending.
    package let pieces: [Extent]
    /// The groups that must be held, ascending; of data and of tree blocks.
    package let groups: [UInt32]
    package let cost: OperationCost
    /// Behind the step, nothing of the range from here on is left.
    package let firstLogical: UInt64

    fileprivate let tree: Tree
    fileprivate let target: ExtentMap.Target
    fileprivate let range: Range<Int>
    fileprivate let remains: [Extent]
    fileprivate let leafRemoval: LeafRemoval?
    fileprivate let movesIntoBody: Bool
    fileprivate let structureVersion: UInt64
}

extension ExtentMap {
    /// The next step that frees what lies in `start ..< end` (logical blocks), the highest first;
    /// nil if nothing is left there. A step frees data in at most `groupLimit` groups.
    package func nextRemoval(
        from start: UInt64,
        to end: UInt64 = .max,
        groupLimit: Int = 4
    ) async throws(StoreError) -> ExtentRemoval? {
        precondition(start < end && groupLimit > 0, "an empty range")
        var source = NodeSource(store, inode)
        return try await source.run { source throws(Interruption) in
            try plan(start, end, groupLimit, Tree(source, .extents))
        }
    }

    private func plan(
        _ start: UInt64,
        _ end: UInt64,
        _ groupLimit: Int,
        _ tree: Tree
    ) throws(Interruption) -> ExtentRemoval? {
        try checkLayout()
        var path = try tree.descend(to: end - 1)
        var area = try ExtentArea(path, of: inode, store)
        var last = area.search(end - 1)
        if last < 0 {
            guard try tree.moveToPreviousLeaf(&path) else { return nil }
            area = try ExtentArea(path, of: inode, store)
            last = area.count - 1
        }
        var groups: [UInt32] = []
        var pieces: [Extent] = []
        var first = last
        while first >= 0, let piece = try area.extent(first).clipped(start, end) {
            guard let group = store.superblock.group(of: piece.physical) else { break }
            if !groups.contains(group) {
                if groups.count == groupLimit { break }
                groups.append(group)
            }
            pieces.append(piece)
            first -= 1
        }
        guard !pieces.isEmpty else { return nil }
        pieces.reverse()
        let range = first + 1..<last + 1
        var remains: [Extent] = []
        let low = try area.extent(range.lowerBound)
        if let head = low.clipped(low.logical, start) { remains.append(head) }
        let high = try area.extent(last)
        if let tail = high.clipped(end, high.logicalEnd) { remains.append(tail) }
        return try finish(
            tree,
            Target(path: path, area: area, lowersBound: false),
            range,
            remains,
            pieces,
            groups
        )
    }

    /// Adds the tree's own blocks to a plan.
    private func finish(
        _ tree: Tree,
        _ target: Target,
        _ range: Range<Int>,
        _ remains: [Extent],
        _ pieces: [Extent],
        _ groups: [UInt32]
    ) throws(Interruption) -> ExtentRemoval {
        let area = target.area
        let path = target.path
        let countAfter = area.count - range.count + remains.count
        var cost = OperationCost(newBlocks: 0, modifiedBlocks: path.steps.count + 2)
        var groups = groups
        var leafRemoval: LeafRemoval?
        var movesIntoBody = false
        var freed: [MetadataBlock] = []
        if !area.isRoot, countAfter == 0 {
            let removal = try tree.planRemoval(of: path)
            leafRemoval = removal
            freed = removal.freed(path)
            cost.modifiedBlocks += removal.lowered.count
        } else if let leaf = path.leaf, path.steps.count == 1, path.steps[0].area.count == 1,
            countAfter <= ExtentArea.rootCapacity(inode) / 2
        {
            movesIntoBody = true
            freed = [leaf]
        } else if countAfter > area.capacity {
            cost.newBlocks = area.isRoot ? 2 : tree.blocksToAddLeaf(path)
            cost.modifiedBlocks += cost.newBlocks
        }
        for block in freed {
            guard let group = store.superblock.group(of: block.address) else {
                throw .damaged(inode.number.address, "child", block.address.rawValue)
            }
            if !groups.contains(group) { groups.append(group) }
        }
        return ExtentRemoval(
            pieces: pieces,
            groups: groups.sorted(),
            cost: cost,
            firstLogical: pieces[0].logical,
            tree: tree,
            target: target,
            range: range,
            remains: remains,
            leafRemoval: leafRemoval,
            movesIntoBody: movesIntoBody,
            structureVersion: inode.structureVersion
        )
    }

    /// Carries out a step: its groups are held, its cost is set aside. Stores the inode.
    package func remove(
        _ step: ExtentRemoval,
        with allocator: Allocator
    ) throws(StoreError) {
        precondition(
            step.structureVersion == inode.structureVersion,
            "FileStore F2: the inode changed"
        )
        let transaction = allocator.transaction
        for piece in step.pieces {
            try allocator.freeData(piece.physical, length: piece.length)
            try allocator.subtract(UInt64(piece.length), from: inode)
        }
        if let removal = step.leafRemoval {
            try step.tree.remove(step.target.path, removal, with: allocator)
        } else if step.movesIntoBody, let leaf = step.target.path.leaf {
            try moveIntoBody(step, leaf, allocator)
        } else {
            try replace(step.range, with: step.remains, step.target, step.tree, allocator)
            return
        }
        inode.storeStructure(in: transaction)
    }

    /// The last leaf's remaining extents move into the body (X4).
    private func moveIntoBody(
        _ step: ExtentRemoval,
        _ leaf: MetadataBlock,
        _ allocator: Allocator
    ) throws(StoreError) {
        var extents: [Extent]
        do throws(Interruption) { extents = try step.target.area.all() } catch {
            throw error.asStoreError(leaf.address)
        }
        extents.replaceSubrange(step.range, with: step.remains)
        try allocator.freeBlock(leaf, of: inode)
        allocator.transaction.modify(inode.block)
        step.tree.clearBody()
        var offset = InodeRecord.bodyOffset
        for extent in extents {
            extent.write(to: inode.block.bytes, at: offset)
            offset += Extent.byteCount
        }
        inode.record.rootCount = UInt16(extents.count)
    }
}
