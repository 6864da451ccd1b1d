// Where the blocks of a file are: a sorted list of extents in the inode's body or, when that
// overflows, in the leaves of a tree (TreePath has the tree's own invariants).
//
// A *hole* is where no extent is; an *unwritten* extent has blocks that were never written and
// reads as zeros. Writers put new extents into holes only, and turn unwritten ones into written
// ones piece by piece.
//
// Removal goes in steps, from the end of the range backwards, each within one leaf and a few
// groups: the caller learns first which groups a step touches, takes their locks, and gives each
// step a transaction of its own. A truncation stores a size with each step
// (`ExtentRemoval.firstLogical`), so that after a crash the file is a whole file that is too long,
// never one with old blocks beyond its end.
//
// Invariants
// X1. Extents are sorted, not empty, and do not overlap; each lies in one resource group. (A
//     group's first block is never data, so extents of neighbouring groups never touch.)
// X2. Neighbours within one leaf that continue each other in file and on disk, in the same state,
//     are one extent.
// X3. The inode's blockCount is 1 + blocks of extents + blocks of the tree + blocks of attributes.
// X4. With height 0 the extents stand in the body; a tree whose one leaf would half fill the body
//     goes back there.

package import DiskFormat
import Journaling
import Vocabulary

/// What stands at a place of a file.
package enum ExtentLookup: Hashable, Sendable {
    /// The whole extent that covers the place.
    case extent(Extent)
    /// Nothing, at least up to this logical block (not included); `UInt64.max` if nothing follows.
    case hole(until: UInt64)
}

/// The extents of one inode (layout `extents`).
package struct ExtentMap {
    package let store: FileStore
    package let inode: StoredInode

    package init(_ store: FileStore, _ inode: StoredInode) {
        self.store = store
        self.inode = inode
    }

    /// What stands at logical block `logical`.
    package func lookup(_ logical: UInt64) async throws(StoreError) -> ExtentLookup {
        var source = NodeSource(store, inode)
        return try await source.run { source throws(Interruption) in
            try find(logical, source)
        }
    }

    /// As `lookup`, at once; nil if a block of the tree would have to be read (or is damaged:
    /// `lookup` says how).
    package func lookupIfCached(_ logical: UInt64) -> ExtentLookup? {
        NodeSource(store, inode).runIfCached { source throws(Interruption) in
            try find(logical, source)
        }
    }

    private func find(
        _ logical: UInt64,
        _ source: NodeSource
    ) throws(Interruption) -> ExtentLookup {
        try checkLayout()
        let path = try Tree(source, .extents).descend(to: logical)
        let area = try ExtentArea(path, of: inode, store)
        let index = area.search(logical)
        if index >= 0 {
            let extent = try area.extent(index)
            if logical < extent.logicalEnd { return .extent(extent) }
        }
        let end =
            index + 1 < area.count
            ? try area.extent(index + 1).logical : path.upperBound ?? UInt64.max
        guard end > logical || end == UInt64.max else {
            throw .damaged(area.block.address, "extent order", end)
        }
        return .hole(until: end)
    }

    func checkLayout() throws(Interruption) {
        guard inode.record.layout == .extents else {
            throw .damaged(
                inode.number.address,
                "layout",
                UInt64(inode.record.layout.rawValue)
            )
        }
    }

    /// Calls `body` for each extent from the one that covers or follows `logical` on, until it
    /// returns false.
    package func forEach(
        from logical: UInt64,
        _ body: (Extent) -> Bool
    ) async throws(StoreError) {
        var next = logical
        while true {
            switch try await lookup(next) {
            case .extent(let extent):
                guard body(extent) else { return }
                next = extent.logicalEnd
            case .hole(let until):
                guard until < UInt64.max else { return }
                next = until
            }
        }
    }
}
