// Changing the size of a file. Making it shorter frees blocks in steps, each a transaction of its
// own, from the end backwards; each step stores the size that it has reached, so that after a crash
// the file is longer than asked but whole.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
import Vocabulary

extension MountedVolume {
    /// Makes a regular file, held exclusively, `size` bytes long.
    func resize(
        _ inode: Inode,
        _ stored: StoredInode,
        to size: UInt64
    ) async throws(FileError) {
        if size == stored.record.size { return }
        if stored.record.layout == .inlineData {
            if size <= UInt64(stored.inlineCapacity) {
                let transaction = try await begin(blocks: 1)
                defer { transaction.end() }
                stored.resizeInline(to: size, in: transaction)
                inode.hasChanged(in: transaction.sequence)
                return
            }
            try await leaveBody(inode, stored)
        }
        if size < stored.record.size {
            try await zeroTail(inode, stored, from: size)
            try await freeBlocks(inode, stored, from: size)
        } else {
            try await zeroTail(inode, stored, from: stored.record.size)
        }
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        stored.record.size = size
        if let dirty = inode.dirty, !dirty.isEmpty { transaction.order(dirty) }
        stored.store(in: transaction)
        inode.hasChanged(in: transaction.sequence)
    }

    /// Zeroes what lies behind an end in its block (D4): behind the new end when the file becomes
    /// shorter, and behind the old one when it becomes longer, because after a crash there may be
    /// data whose size was not committed.
    func zeroTail(
        _ inode: Inode,
        _ stored: StoredInode,
        from size: UInt64
    ) async throws(FileError) {
        let unit = UInt64(blockSize)
        guard size % unit != 0 else { return }
        let block = size / unit
        let found: ExtentLookup
        do throws(StoreError) {
            found = try await ExtentMap(store, stored).lookup(block)
        } catch {
            throw fileError(error)
        }
        guard case .extent(let extent) = found, !extent.isUnwritten else { return }
        try await bringIn(inode, block, extent.physical + (block - extent.logical))
        inode.dirty?.zero(size..<(block + 1) * unit)
    }

    /// Frees all blocks behind `size`, step by step.
    func freeBlocks(
        _ inode: Inode,
        _ stored: StoredInode,
        from size: UInt64
    ) async throws(FileError) {
        guard stored.record.layout == .extents else { return }
        let unit = UInt64(blockSize)
        let first = (size + unit - 1) / unit
        try await free(inode, stored, first..<UInt64.max, nil) {
            step,
            transaction throws(FileError) in
            try await self.discardDirty(inode, from: step.firstLogical, transaction)
            // The zeros behind the new end come before the size that shows it (D4).
            if let dirty = inode.dirty, !dirty.isEmpty { transaction.order(dirty) }
            stored.record.size = min(
                stored.record.size,
                max(size, step.firstLogical * unit)
            )
        }
    }

    /// Frees blocks within a file of which nothing is dirty.
    func freeBlocks(
        _ inode: Inode,
        _ stored: StoredInode,
        _ blocks: Range<UInt64>,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try await free(inode, stored, blocks, interruption) { _, _ in }
    }

    /// Frees blocks from the end of a range backwards, step by step. `prepare` is called in the
    /// transaction of each step, before anything goes.
    private func free(
        _ inode: Inode,
        _ stored: StoredInode,
        _ blocks: Range<UInt64>,
        _ interruption: Interruption?,
        _ prepare: (ExtentRemoval, Transaction) async throws(FileError) -> Void
    ) async throws(FileError) {
        let map = ExtentMap(store, stored)
        while true {
            if interruption?.isRequested == true { throw .interrupted }
            let step: ExtentRemoval
            do throws(StoreError) {
                let next = try await map.nextRemoval(
                    from: blocks.lowerBound,
                    to: blocks.upperBound
                )
                guard let next else { return }
                step = next
            } catch {
                throw fileError(error)
            }
            let held = try await holdGroups(step.groups, metadata: step.cost.newBlocks)
            defer { for group in held { groups.release(group, self) } }
            var demand = demand(inode, stored, blocks: step.cost.newBlocks)
            // What only makes a file shorter is never refused.
            if blocks.upperBound == .max { demand.isExempt = true }
            let transaction = try await begin(
                blocks: step.cost.modifiedBlocks + held.count + 1,
                charging: demand
            )
            defer { transaction.end() }
            let allocator = Allocator(store: store, groups: held, transaction: transaction)
            defer { allocator.end() }
            guard allocator.reserve(metadata: step.cost.newBlocks) else { throw .noSpace }
            try await prepare(step, transaction)
            do throws(StoreError) {
                try map.remove(step, with: allocator)
            } catch {
                throw failed(error)
            }
            stored.store(in: transaction)
            inode.hasChanged(in: transaction.sequence)
        }
    }

    /// Forgets dirty data of blocks that `transaction` frees. An earlier transaction that points to
    /// them and is just committing gets its data first: after a crash before `transaction` is
    /// durable the blocks are still the file's.
    func discardDirty(
        _ inode: Inode,
        from block: UInt64,
        _ transaction: Transaction
    ) async throws(FileError) {
        guard let dirty = inode.dirty, !dirty.isEmpty else { return }
        if inode.lastSequence < transaction.sequence, !journal.isDurable(inode.lastSequence) {
            do throws(DeviceError) {
                try await dirty.writeBack()
            } catch {
                throw dataFailed(error)
            }
        }
        await dirty.discard(from: block)
    }

    /// Holds the groups that a change touches and, if it needs new metadata blocks, groups that
    /// have them; ascending.
    func holdGroups(
        _ needed: [UInt32],
        metadata: Int,
        _ interruption: Interruption? = nil
    ) async throws(FileError) -> [ResourceGroup] {
        if needed.isEmpty {
            if metadata == 0 { return [] }
            return [
                try await groups.holdWithRoom(metadata: metadata, data: 0, self, interruption)
            ]
        }
        var wanted = needed
        while true {
            let held = try await groups.hold(all: wanted, self, interruption)
            if held.reduce(0, { $0 + Int($1.freeForMetadata) }) >= metadata { return held }
            for group in held { groups.release(group, self) }
            // Found first, then taken in order with the others; it may have filled up in between.
            let roomy = try await groups.holdWithRoom(
                metadata: metadata,
                data: 0,
                self,
                interruption
            )
            groups.release(roomy, self)
            wanted = needed + [roomy.index]
        }
    }
}
