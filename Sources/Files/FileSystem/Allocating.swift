// fallocate(2) and lseek(2) for data and holes: what of a file has blocks.
//
// Three changes of a range:
//
//   allocate   what has no blocks gets them, unwritten: it reads as zeros, and writing there needs no
//              room any more
//   punch      whole blocks go, the rest of the range becomes zero
//   zero       what is written becomes unwritten where it stands; then as allocate
//
// All of it happens under EX, in steps that are each a transaction of their own, as when a file is made
// shorter: after a crash some of the range is changed and some is not, and nothing is wrong. The size
// and the times come with the last. What fails half-way for want of space leaves its blocks with the file.
//
// Invariants
// A1. Before a block is given away or marked unwritten, nothing dirty of it is in memory (DirtyData D2): everything
//     dirty goes to the device first, as a later flush would bring it back.
// A2. A page that a mapping has changed before its bytes became zero does not bring them back: its write-back leaves
//     the range out (KERNEL M4) until the page is gone. The kernel drops these pages itself, but after
//     the answer.
// A3. What a file has behind its end is unwritten.
//
// A hole is what has no blocks, or unwritten ones, so what is written through a mapping and only in the kernel yet
// would pass for one. Before holes are looked for this node's kernel is made to write it back.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func allocate(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ range: Range<UInt64>,
        _ allocation: Allocation,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try checkWritable()
        let inode = try inode(node)
        guard let file = openFiles[handle], file.inode === inode, file.intent.writes else {
            throw .badHandle
        }
        guard !range.isEmpty else { throw .invalid }
        guard range.upperBound <= Self.largestFile else { throw .tooLarge }
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        var overtaking: UInt64?
        var failure: FileError?
        do throws(FileError) {
            try await allocateLocked(
                inode,
                range,
                allocation,
                caller,
                interruption,
                &overtaking
            )
        } catch {
            failure = error
        }
        if let overtaking {
            // After a failure, too: some of it may be zero by then, and the kernel drops nothing.
            await invalidateWholly(inode, pages(around: range))
            inode.pageUse.endDirectWrite(overtaking)
        }
        if let failure { throw failure }
    }

    /// Takes the lock and changes the file; `overtaking` is the number under which pages are kept from being
    /// written back over it.
    private func allocateLocked(
        _ inode: Inode,
        _ range: Range<UInt64>,
        _ allocation: Allocation,
        _ caller: Caller,
        _ interruption: Interruption?,
        _ overtaking: inout UInt64?
    ) async throws(FileError) {
        let stored = try await hold(inode, .exclusive, interruption)
        defer { release(inode, .exclusive) }
        inode.isExempt = caller.isExempt
        guard stored.record.isRegular else { throw .notSupported }
        try checkMayAllocate(stored.record, allocation)
        if let writer = caller.writerGroup { try await dropPrivilegesFirst(inode, stored, writer) }
        try await dropCapabilities(inode, stored, interruption)
        let size = stored.record.size
        let inside = min(range.lowerBound, size)..<min(range.upperBound, size)
        if allocation.kind != .allocate {
            overtaking = inode.pageUse.beginDirectWrite(range)
        }
        if stored.record.layout == .inlineData, !inside.isEmpty, allocation.kind != .allocate {
            try await zeroInline(inode, stored, inside)
        }
        if allocation.kind != .punch {
            try await prepareBody(inode, stored, range.upperBound)
        }
        if stored.record.layout == .extents {
            try await changeBlocks(inode, stored, range, allocation.kind, interruption)
        }
        let end = allocation.keepsSize ? size : max(size, range.upperBound)
        try await finishAllocation(inode, stored, size: end)
    }

    /// Size and times.
    private func finishAllocation(
        _ inode: Inode,
        _ stored: StoredInode,
        size: UInt64
    ) async throws(FileError) {
        if size > stored.record.size { try await resize(inode, stored, to: size) }
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        let time = now
        stored.record.modified = time
        stored.record.changed = time
        if let dirty = inode.dirty, !dirty.isEmpty { transaction.order(dirty) }
        stored.store(in: transaction)
        inode.dataHasChanged(in: transaction.sequence)
    }

    private func zeroInline(
        _ inode: Inode,
        _ stored: StoredInode,
        _ range: Range<UInt64>
    ) async throws(FileError) {
        let zeros = [UInt8](repeating: 0, count: range.count)
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        zeros.withUnsafeBytes { stored.writeInline($0, at: range.lowerBound, in: transaction) }
        inode.dataHasChanged(in: transaction.sequence)
    }

    /// What does not fit into the inode leaves it.
    private func prepareBody(
        _ inode: Inode,
        _ stored: StoredInode,
        _ end: UInt64
    ) async throws(FileError) {
        guard stored.record.layout == .inlineData, end > UInt64(stored.inlineCapacity) else {
            return
        }
        try await leaveBody(inode, stored)
    }

    // MARK: Blocks

    private func changeBlocks(
        _ inode: Inode,
        _ stored: StoredInode,
        _ range: Range<UInt64>,
        _ kind: Allocation.Kind,
        _ interruption: Interruption?
    ) async throws(FileError) {
        let unit = UInt64(blockSize)
        if kind != .allocate {
            try await writeBackAll(inode)
            let whole = wholeBlocks(in: range, size: stored.record.size)
            if !whole.isEmpty {
                if kind == .punch {
                    try await freeBlocks(inode, stored, whole, interruption)
                } else {
                    try await markUnwritten(inode, stored, whole, interruption)
                }
            }
            try await zeroEdges(inode, stored, range, besides: whole)
        }
        if kind != .punch {
            let blocks = range.lowerBound / unit..<(range.upperBound + unit - 1) / unit
            try await fillHoles(inode, stored, blocks, interruption)
        }
    }

    /// The blocks that lie in a range as a whole, as far as the file goes: behind its end everything
    /// is zero.
    private func wholeBlocks(in range: Range<UInt64>, size: UInt64) -> Range<UInt64> {
        let unit = UInt64(blockSize)
        let first = (range.lowerBound + unit - 1) / unit
        var end = range.upperBound / unit
        if range.upperBound >= size { end = max(end, (size + unit - 1) / unit) }
        return first..<max(first, end)
    }

    private func writeBackAll(_ inode: Inode) async throws(FileError) {
        guard let dirty = inode.dirty, !dirty.isEmpty else { return }
        do throws(DeviceError) {
            try await dirty.writeBack()
        } catch {
            throw dataFailed(error)
        }
        precondition(dirty.isEmpty, "Allocating A1: dirty data of a file that nobody else writes")
    }

    /// Zeroes what of a range lies in blocks that are not in it as a whole.
    private func zeroEdges(
        _ inode: Inode,
        _ stored: StoredInode,
        _ range: Range<UInt64>,
        besides whole: Range<UInt64>
    ) async throws(FileError) {
        let unit = UInt64(blockSize)
        let (first, last) = (range.lowerBound / unit, (range.upperBound - 1) / unit)
        for block in first == last ? [first] : [first, last] where !whole.contains(block) {
            let found = try await lookUp(stored, block)
            guard case .extent(let extent) = found, !extent.isUnwritten else { continue }
            try await bringIn(inode, block, extent.physical + (block - extent.logical))
            inode.dirty?.zero(range.clamped(to: block * unit..<(block + 1) * unit))
        }
    }

    private func lookUp(
        _ stored: StoredInode,
        _ block: UInt64
    ) async throws(FileError) -> ExtentLookup {
        do throws(StoreError) {
            return try await ExtentMap(store, stored).lookup(block)
        } catch {
            throw fileError(error)
        }
    }

    private func markUnwritten(
        _ inode: Inode,
        _ stored: StoredInode,
        _ blocks: Range<UInt64>,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try await walk(stored, blocks, interruption) { block, found throws(FileError) in
            switch found {
            case .hole(let until): return until
            case .extent(let extent) where extent.isUnwritten: return extent.logicalEnd
            case .extent(let extent):
                let end = min(extent.logicalEnd, blocks.upperBound)
                try await self.markUnwritten(inode, stored, block, UInt32(end - block))
                return end
            }
        }
    }

    /// A range that lies in one extent.
    private func markUnwritten(
        _ inode: Inode,
        _ stored: StoredInode,
        _ block: UInt64,
        _ length: UInt32
    ) async throws(FileError) {
        let map = ExtentMap(store, stored)
        let cost = map.insertionCost()
        let group = try await groups.holdWithRoom(metadata: cost.newBlocks, data: 0, self)
        defer { groups.release(group, self) }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + 2,
            charging: demand(inode, stored, blocks: cost.newBlocks)
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: [group], transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        do throws(StoreError) {
            try await map.mark(block, length: length, isUnwritten: true, with: allocator)
        } catch {
            throw failed(error)
        }
        stored.store(in: transaction)
        inode.dataHasChanged(in: transaction.sequence)
    }

    /// Gives blocks to what has none.
    private func fillHoles(
        _ inode: Inode,
        _ stored: StoredInode,
        _ blocks: Range<UInt64>,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try await walk(stored, blocks, interruption) { block, found throws(FileError) in
            switch found {
            case .extent(let extent): return extent.logicalEnd
            case .hole(let until):
                let wanted = UInt32(clamping: min(until, blocks.upperBound) - block)
                return try await self.allocateHole(inode, stored, block, wanted, isUnwritten: true)
                {
                    extent,
                    transaction in
                    stored.store(in: transaction)
                    inode.dataHasChanged(in: transaction.sequence)
                    return extent.logicalEnd
                }
            }
        }
    }

    /// Calls `body` with each block of a range at which an extent or a hole begins, or the range; it returns where
    /// to go on.
    private func walk(
        _ stored: StoredInode,
        _ blocks: Range<UInt64>,
        _ interruption: Interruption?,
        _ body: (UInt64, ExtentLookup) async throws(FileError) -> UInt64
    ) async throws(FileError) {
        var block = blocks.lowerBound
        while block < blocks.upperBound {
            if interruption?.isRequested == true { throw .interrupted }
            block = try await body(block, try await lookUp(stored, block))
        }
    }

    // MARK: Looking for data and holes

    package func seek(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        from offset: UInt64,
        to goal: SeekGoal,
        _ interruption: Interruption?
    ) async throws(FileError) -> UInt64 {
        let inode = try inode(node)
        guard openFiles[handle]?.inode === inode else { throw .badHandle }
        if inode.readWriteOpens > 0, inode.kernelMayCache {
            await invalidateWholly(inode, 0..<Self.largestFile)
        }
        let stored = try await hold(inode, .shared, interruption)
        defer { release(inode, .shared) }
        let size = stored.record.size
        guard offset < size else { throw .noSuchAddress }
        guard stored.record.isRegular, stored.record.layout == .extents else {
            return goal == .data ? offset : size
        }
        let unit = UInt64(blockSize)
        var place = offset
        while place < size {
            let isData: Bool
            let end: UInt64
            switch try await lookUp(stored, place / unit) {
            case .hole(let until): (isData, end) = (false, until)
            case .extent(let extent): (isData, end) = (!extent.isUnwritten, extent.logicalEnd)
            }
            if isData == (goal == .data) { return place }
            place = end > UInt64.max / unit ? size : end * unit
        }
        if goal == .data { throw .noSuchAddress }
        return size
    }
}
