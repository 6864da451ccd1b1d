// Putting extents in, and turning unwritten ones into written ones. Both replace a few neighbours
// in one leaf by a few others; a leaf that overflows is split.

package import DiskFormat
import Journaling
import Vocabulary

extension ExtentMap {
    /// What `insert` or `markWritten` needs at most when called `times` times in one transaction.
    package func insertionCost(times: Int = 1) -> OperationCost {
        var cost = OperationCost(newBlocks: 0, modifiedBlocks: 1)
        for time in 0..<times {
            // Each insertion may make the tree one level higher, the first at most one level from
            // now.
            let height = min(
                inode.record.height + UInt8(clamping: min(time, 2)),
                InodeRecord.maximumHeight
            )
            cost += Tree.worstChange(height: height)
        }
        return cost
    }

    /// Reads what an insertion at `logical` needs, so that one that follows while the inode's lock
    /// is kept reads nothing more as long as the cache keeps it: to be called before the
    /// transaction begins.
    package func prepareInsertion(at logical: UInt64) async throws(StoreError) {
        var source = NodeSource(store, inode)
        _ = try await source.run { source throws(Interruption) in
            try target(logical, logical + 1, Tree(source, .extents))
        }
    }

    /// Puts an extent into a hole, merging it with its neighbours. `insertionCost` is set aside.
    ///
    /// - Throws: `storage`, also if the place is no hole.
    package func insert(_ new: Extent, with allocator: Allocator) async throws(StoreError) {
        precondition(new.length > 0, "an empty extent")
        var source = NodeSource(store, inode)
        let (tree, target) = try await source.run { source throws(Interruption) in
            let tree = Tree(source, .extents)
            let target = try self.target(new.logical, new.logicalEnd, tree)
            let index = target.area.search(new.logical)
            if index >= 0, try target.area.extent(index).logicalEnd > new.logical {
                throw .damaged(target.area.block.address, "extent", new.logical)
            }
            if index + 1 < target.area.count,
                try target.area.extent(index + 1).logical < new.logicalEnd
            {
                throw .damaged(target.area.block.address, "extent", new.logical)
            }
            return (tree, target)
        }
        if target.lowersBound {
            tree.lowerBound(of: target.path, to: new.logical, allocator.transaction)
        }
        let index = target.area.search(new.logical)
        inode.record.blockCount += UInt64(new.length)
        try replace(index + 1..<index + 1, with: [new], target, tree, allocator)
    }

    /// Marks a range that lies in one unwritten extent as written. `insertionCost` is set aside.
    ///
    /// - Throws: `storage`, also if there is no such extent.
    package func markWritten(
        _ logical: UInt64,
        length: UInt32,
        with allocator: Allocator
    ) async throws(StoreError) {
        try await mark(logical, length: length, isUnwritten: false, with: allocator)
    }

    /// Marks a range that lies in one extent, which is marked the other way, as unwritten or as
    /// written. `insertionCost` is set aside.
    ///
    /// - Throws: `storage`, also if there is no such extent.
    package func mark(
        _ logical: UInt64,
        length: UInt32,
        isUnwritten: Bool,
        with allocator: Allocator
    ) async throws(StoreError) {
        precondition(length > 0, "an empty range")
        let end = logical + UInt64(length)
        var source = NodeSource(store, inode)
        let (tree, target, index, old) = try await source.run { source throws(Interruption) in
            try checkLayout()
            let tree = Tree(source, .extents)
            let path = try tree.descend(to: logical)
            let area = try ExtentArea(path, of: inode, store)
            let index = area.search(logical)
            guard index >= 0 else {
                throw .damaged(area.block.address, "extent to mark", logical)
            }
            let old = try area.extent(index)
            guard old.isUnwritten != isUnwritten, end <= old.logicalEnd else {
                throw .damaged(area.block.address, "extent to mark", logical)
            }
            return (tree, Target(path: path, area: area, lowersBound: false), index, old)
        }
        var pieces: [Extent] = []
        if let head = old.clipped(old.logical, logical) { pieces.append(head) }
        if var middle = old.clipped(logical, end) {
            middle.isUnwritten = isUnwritten
            pieces.append(middle)
        }
        if let tail = old.clipped(end, old.logicalEnd) { pieces.append(tail) }
        try replace(index..<index + 1, with: pieces, target, tree, allocator)
    }

    /// The leaf that a change concerns.
    struct Target {
        var path: TreePath
        var area: ExtentArea
        /// The leaf's bound must be lowered before something is put at its front (TreePath T4).
        var lowersBound: Bool
    }

    /// The leaf into which an extent goes. Where an extent in a hole would reach beyond its leaf's
    /// bound, it goes to the front of the next leaf instead, and the bound moves.
    private func target(
        _ start: UInt64,
        _ end: UInt64,
        _ tree: Tree
    ) throws(Interruption) -> Target {
        try checkLayout()
        var path = try tree.descend(to: start)
        var lowers = false
        if let bound = path.upperBound, bound < end {
            guard try tree.moveToNextLeaf(&path) else {
                throw .damaged(inode.number.address, "bound", bound)
            }
            lowers = true
        }
        return Target(
            path: path,
            area: try ExtentArea(path, of: inode, store),
            lowersBound: lowers
        )
    }

    /// Replaces extents of a leaf by others, merged among themselves and with their neighbours
    /// (X2), and splits the leaf if they do not fit.
    func replace(
        _ range: Range<Int>,
        with new: [Extent],
        _ target: Target,
        _ tree: Tree,
        _ allocator: Allocator
    ) throws(StoreError) {
        let area = target.area
        var range = range
        var new = new
        do throws(Interruption) {
            if range.lowerBound > 0 {
                range = range.lowerBound - 1..<range.upperBound
                new.insert(try area.extent(range.lowerBound), at: 0)
            }
            if range.upperBound < area.count {
                new.append(try area.extent(range.upperBound))
                range = range.lowerBound..<range.upperBound + 1
            }
        } catch {
            throw error.asStoreError(area.block.address)
        }
        let merged = Extent.merged(new)
        allocator.transaction.modify(area.block)
        if area.count - range.count + merged.count <= area.capacity {
            area.replace(range, with: merged, of: inode)
        } else {
            try split(range, with: merged, target, tree, allocator)
        }
        inode.storeStructure(in: allocator.transaction)
    }

    /// Spreads the extents of a leaf (or of the body) and new ones over two leaves. When the file
    /// grows at its end the full leaf stays full.
    private func split(
        _ range: Range<Int>,
        with new: [Extent],
        _ target: Target,
        _ tree: Tree,
        _ allocator: Allocator
    ) throws(StoreError) {
        let area = target.area
        var extents: [Extent]
        do throws(Interruption) { extents = try area.all() } catch {
            throw error.asStoreError(area.block.address)
        }
        let isAtEnd = range.upperBound == area.count
        extents.replaceSubrange(range, with: new)
        let leafCapacity = ExtentArea.leafCapacity(store.blockSize)
        if area.isRoot {
            let first = allocator.makeBlock(.extentNode, for: inode)
            var pointers = [TreePointer(key: 0, child: first.address)]
            var middle = extents.count
            if extents.count > leafCapacity {
                middle = extents.count / 2
                let second = allocator.makeBlock(.extentNode, for: inode)
                ExtentArea.fill(second, with: extents[middle...])
                pointers.append(TreePointer(key: extents[middle].logical, child: second.address))
            }
            ExtentArea.fill(first, with: extents[..<middle])
            tree.plantRoot(pointers)
            return
        }
        let middle = isAtEnd ? min(extents.count - 1, leafCapacity) : extents.count / 2
        let leaf = allocator.makeBlock(.extentNode, for: inode)
        ExtentArea.fill(leaf, with: extents[middle...])
        area.replace(0..<area.count, with: Array(extents[..<middle]), of: inode)
        try tree.addPointer(
            TreePointer(key: extents[middle].logical, child: leaf.address),
            behind: target.path,
            with: allocator
        )
    }
}

extension Interruption {
    /// What it means where everything needed is known to be in memory.
    func asStoreError(_ block: BlockAddress) -> StoreError {
        switch self {
        case .failed(let error): error
        case .missing(let address, _): .damaged(block, "child", address.rawValue)
        }
    }
}

extension Extent {
    /// The part between two logical blocks; nil if there is none.
    func clipped(_ start: UInt64, _ end: UInt64) -> Extent? {
        let low = max(start, logical)
        let high = min(end, logicalEnd)
        guard low < high else { return nil }
        return Extent(
            logical: low,
            physical: physical + (low - logical),
            length: UInt32(high - low),
            isUnwritten: isUnwritten
        )
    }

    /// Whether `next` continues this extent in the file and on disk, in the same state.
    func isContinued(by next: Extent) -> Bool {
        next.logical == logicalEnd && next.physical == physical + UInt64(length)
            && next.isUnwritten == isUnwritten && next.length <= UInt32.max - length
    }

    /// Sorted extents with those joined that continue each other.
    static func merged(_ extents: [Extent]) -> [Extent] {
        var merged: [Extent] = []
        for extent in extents {
            if let last = merged.last, last.isContinued(by: extent) {
                merged[merged.count - 1].length += extent.length
            } else {
                merged.append(extent)
            }
        }
        return merged
    }
}
