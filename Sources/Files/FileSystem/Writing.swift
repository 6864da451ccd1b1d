// Writing file data: blocks are found or allocated at once, the bytes stay in memory (DirtyData)
// and reach the device before the transaction that points to them commits ("ordered"), at fsync,
// when they are old, when there are too many, or when another node wants the file.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    /// No file is longer: offsets are signed 64-bit numbers.
    /// Behind it is a page of the kernel's that no file has: notifications that mean "from here to the end", with the
    /// last offset that they can say, then name no page that a request holds (KERNEL F3).
    static let largestFile = UInt64(Int64.max) / 65_536 * 65_536

    package func write(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        at offset: UInt64,
        from buffer: UnsafeRawBufferPointer,
        _ flags: WriteFlags,
        _ interruption: Interruption?
    ) async throws(FileError) -> Int {
        try checkWritable()
        let inode = try inode(node)
        guard let file = openFiles[handle], file.inode === inode, file.intent.writes else {
            throw .badHandle
        }
        guard buffer.count > 0 else { return 0 }
        guard offset <= Self.largestFile - UInt64(buffer.count) else { throw .tooLarge }
        var flags = flags
        flags.isOfAppender = file.intent.appends
        // The kernel has put the bytes into its pages before it asks.
        if !flags.isDirect { inode.kernelMayCache = true }
        flags.invalidationsBefore = inode.invalidations
        try await enterToWrite(inode, offset..<offset + UInt64(buffer.count), flags, interruption)
        defer { leaveAfterWriting(flags) }
        if !flags.isWriteback, dirtyAccount.isFull {
            let range = offset..<offset + UInt64(buffer.count)
            try await waitForRoom(inode, range, flags, interruption)
        }
        var ticket: UInt64?
        let (start, count) = try await writeLocked(
            inode,
            offset,
            buffer,
            flags,
            interruption,
            &ticket
        )
        let written = start..<start + UInt64(count)
        defer { if let ticket { inode.pageUse.endDirectWrite(ticket) } }
        if flags.isDirect, ticket != nil {
            // The kernel drops the pages of a direct write itself, but not of one that it does not
            // wait for (asynchronous I/O), nor at our offset.
            await invalidateWholly(inode, pages(around: written))
        }
        guard count > 0, !flags.isWriteback else { return buffer.count }
        let cached = pages(around: offset..<offset + UInt64(count))
        let isContended =
            inode.invalidations != flags.invalidationsBefore || inode.wasInvalidatedWhileWritable
            || inode.pageUse.mayDisagree(cached)
        if !flags.isDirect, inode.pageUse.mayDisagree(cached) { reached(.pagesDisagree) }
        if !flags.isDirect, isContended || start != offset {
            await invalidateAfterwards(inode, offset..<offset + UInt64(count))
            inode.pageUse.noteDropped(cached)
        }
        if !flags.isDirect, start != offset { await invalidateAfterwards(inode, written) }
        // For others the kernel asks for FSYNC itself.
        if flags.isSynchronous, flags.isDirect {
            try await synchronize(node, handle, dataOnly: false)
        }
        return count
    }

    /// Waits while the volume stands still (Freezing Z1). Meanwhile the kernel may hold the write's last page, and shows
    /// the others as if the write had been carried out: they go, and those that are read in their place go afterwards (F5).
    private func enterToWrite(
        _ inode: Inode,
        _ range: Range<UInt64>,
        _ flags: WriteFlags,
        _ interruption: Interruption?
    ) async throws(FileError) {
        if flags.isWriteback { return try await freezer.enterLate(nil) }
        if freezer.enterIfPossible() { return }
        if flags.isDirect { return try await freezer.enter(interruption) }
        dropUnwritten(inode, ofWrite: range)
        inode.invalidations += 1
        // It waits elsewhere than for the inode's lock, which may be given up meanwhile (Demotion D7).
        let ticket = lockedPage(of: range).map {
            inode.pageUse.park(.partialWrite, $0, .concurrent)
        }
        defer { if let ticket { inode.pageUse.unpark(ticket) } }
        try await freezer.enter(interruption)
    }

    private func leaveAfterWriting(_ flags: WriteFlags) {
        if flags.isWriteback { freezer.leaveLate() } else { freezer.leave() }
    }

    /// Waits until there is not too much dirty data, with the pages as while the volume stands still.
    private func waitForRoom(
        _ inode: Inode,
        _ range: Range<UInt64>,
        _ flags: WriteFlags,
        _ interruption: Interruption?
    ) async throws(FileError) {
        if !flags.isDirect {
            dropUnwritten(inode, ofWrite: range)
            inode.invalidations += 1
        }
        let ticket =
            flags.isDirect
            ? nil
            : lockedPage(of: range).map {
                inode.pageUse.park(.partialWrite, $0)
            }
        defer { if let ticket { inode.pageUse.unpark(ticket) } }
        reached(.waitForDirtyRoom)
        try await dirtyAccount.waitForRoom(interruption)
    }

    /// Takes the lock and writes; returns where and how much.
    private func writeLocked(
        _ inode: Inode,
        _ offset: UInt64,
        _ buffer: UnsafeRawBufferPointer,
        _ flags: WriteFlags,
        _ interruption: Interruption?,
        _ overtaking: inout UInt64?
    ) async throws(FileError) -> (start: UInt64, count: Int) {
        if !flags.appends, usesRegions(inode, writes: true) {
            let result = try await writeConcurrently(
                inode,
                offset,
                buffer,
                flags,
                interruption,
                &overtaking
            )
            if let result { return result }
        }
        let asked = offset..<offset + UInt64(buffer.count)
        let stored = try await holdForWrite(inode, asked, flags, interruption)
        defer { release(inode, .exclusive) }
        inode.isExempt = flags.isExempt && !flags.isWriteback
        guard stored.record.isRegular else { throw .invalid }
        try checkMayWrite(inode, stored.record, asked, flags)
        // Again: while this waited, the lock may have been given up, and everything invalidated.
        if !flags.isDirect { inode.kernelMayCache = true }
        var bytes = buffer
        var start = offset
        if flags.isWriteback {
            bytes = cutAtEnd(inode, stored, offset, buffer)
            if bytes.isEmpty { return (offset, 0) }
        } else if flags.appends {
            start = stored.record.size
            guard start <= Self.largestFile - UInt64(bytes.count) else { throw .tooLarge }
        }
        if flags.dropsPrivileges { try await dropPrivilegesFirst(inode, stored, flags.writerGroup) }
        if !flags.isWriteback { try await dropCapabilities(inode, stored, interruption) }
        let range = start..<start + UInt64(bytes.count)
        if flags.isWriteback {
            do throws(FileError) {
                return (start, try await writeBackHeld(inode, stored, range, bytes))
            } catch {
                // The page would go on showing here what is nowhere else (rule M7).
                dropUnwritten(inode, pages(around: range))
                reached(.storeLost)
                throw error
            }
        }
        if !flags.isDirect {
            inode.pageUse.noteCachedWrite(asked)
        }
        let count = try await writeHeld(inode, stored, at: start, bytes)
        inode.toldChange = nil  // after a write(2) the kernel believes no older answer (F9)
        overtaking = overtake(inode, start..<start + UInt64(count), flags)
        return (start, count)
    }

    /// Notes that there may be pages that are older than a write (KERNEL M4): it went past them, or they were dropped
    /// while it waited and have been read again since. Returns what ends that, if there may be any.
    func overtake(_ inode: Inode, _ bytes: Range<UInt64>, _ flags: WriteFlags) -> UInt64? {
        let hasWaited = !flags.isWriteback && inode.invalidations != flags.invalidationsBefore
        return flags.isDirect || hasWaited ? inode.pageUse.beginDirectWrite(bytes) : nil
    }

    /// What of a write-back lies within the file: a mapping does not make a file longer (rule F8).
    func cutAtEnd(
        _ inode: Inode,
        _ stored: StoredInode,
        _ offset: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) -> UnsafeRawBufferPointer {
        let rest = stored.record.size - min(offset, stored.record.size)
        guard UInt64(bytes.count) > rest else { return bytes }
        // Should the file grow again, the page would show here what nobody else has.
        if bytes[Int(rest)...].contains(where: { $0 != 0 }) {
            reached(.storeBehindEnd)
            dropUnwritten(inode, pages(around: offset..<offset + UInt64(bytes.count)))
        }
        return UnsafeRawBufferPointer(rebasing: bytes[..<Int(rest)])
    }

    /// Writes what a mapping has changed, except what was written past the page cache since the page
    /// was filled (rule M4).
    private func writeBackHeld(
        _ inode: Inode,
        _ stored: StoredInode,
        _ range: Range<UInt64>,
        _ bytes: UnsafeRawBufferPointer
    ) async throws(FileError) -> Int {
        inode.pageUse.noteWriteBack(pages(around: range))
        let pieces = inode.pageUse.notOvertaken(range)
        if pieces != [range] { reached(.writeBackOvertaken) }
        for piece in pieces {
            let start = Int(piece.lowerBound - range.lowerBound)
            _ = try await writeHeld(
                inode,
                stored,
                at: piece.lowerBound,
                UnsafeRawBufferPointer(rebasing: bytes[start..<start + piece.count])
            )
        }
        return bytes.count
    }

    /// Holds for a write; while it waits, the kernel may hold its last page, or be waiting to have
    /// it written back (rule F3).
    private func holdForWrite(
        _ inode: Inode,
        _ range: Range<UInt64>,
        _ flags: WriteFlags,
        _ interruption: Interruption?
    ) async throws(FileError) -> StoredInode {
        if let stored = holdIfCached(inode, .exclusive) { return stored }
        let touched = pages(around: range)
        if flags.isWriteback {
            // A page that became up to date without any lock, by a write(2) that is not carried out
            // yet, and was then stored into.
            let isStray = inode.glock.held != .exclusive
            if isStray { counters.strayWritebacks += 1 }
            return try await holdParked(
                inode,
                .exclusive,
                isStray ? .strayWriteBack : .writeBack,
                touched,
                nil
            )
        }
        guard !flags.isDirect else { return try await hold(inode, .exclusive, interruption) }
        if !inode.glock.machine.canEnter(.exclusive) { dropUnwritten(inode, ofWrite: range) }
        guard let page = lockedPage(of: range) else {
            return try await hold(inode, .exclusive, interruption)
        }
        return try await holdParked(inode, .exclusive, .partialWrite, page, interruption)
    }

    /// Has the pages dropped that show a write(2) which is not carried out yet, because it must wait: nobody shall
    /// read or store there before (F5). Those are the pages that it covers as a whole, which the kernel has taken for
    /// up to date, and the others that were so before.
    func dropUnwritten(_ inode: Inode, ofWrite range: Range<UInt64>) {
        var shown = pages(around: range)
        // Else it is locked until the write is answered, and shows nothing.
        if let last = lockedPage(of: range), !inode.pageUse.mayBeUpToDate(last) {
            shown = shown.lowerBound..<last.lowerBound
        }
        if !shown.isEmpty { reached(.unwrittenDropped) }
        dropUnwritten(inode, shown)
    }

    /// Has pages dropped that show what is not in the file, without waiting for it.
    func dropUnwritten(_ inode: Inode, _ range: Range<UInt64>) {
        guard kernel != nil, !range.isEmpty else { return }
        engine.spawn {
            await self.takeBack(inode, data: (range.lowerBound, UInt64(range.count)))
        }
    }

    // MARK: Held

    /// Writes bytes to a regular file that is held exclusively. Returns how many, fewer only when
    /// the volume is full, or its owners may not use more.
    ///
    /// - Throws: `noSpace` or `quotaExceeded` when not one byte could be written.
    func writeHeld(
        _ inode: Inode,
        _ stored: StoredInode,
        at start: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) async throws(FileError) -> Int {
        let end = start + UInt64(bytes.count)
        if stored.record.layout == .inlineData {
            if max(end, stored.record.size) <= UInt64(stored.inlineCapacity), !prefersRegions(inode)
            {
                try await writeInline(inode, stored, at: start, bytes)
                return bytes.count
            }
            try await leaveBody(inode, stored)
        }
        if start > stored.record.size {
            try await zeroTail(inode, stored, from: stored.record.size)
        }
        var done = 0
        do throws(FileError) {
            while done < bytes.count {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
                done += try await writePiece(inode, stored, at: start + UInt64(done), rest)
            }
        } catch .noSpace where done > 0 {
            return done
        } catch .quotaExceeded where done > 0 {
            return done
        }
        if let dirty = inode.dirty, dirty.byteCount >= Self.writeBehind { dirty.startWriteBack() }
        return bytes.count
    }

    /// Dirty bytes of one file above which they begin to move to the device.
    static let writeBehind = 4 << 20

    private func writeInline(
        _ inode: Inode,
        _ stored: StoredInode,
        at start: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) async throws(FileError) {
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        stored.writeInline(bytes, at: start, in: transaction)
        finishWrite(inode, stored, end: start + UInt64(bytes.count), transaction)
    }

    /// Size, times and the inode's block, at the end of each change of data.
    private func finishWrite(
        _ inode: Inode,
        _ stored: StoredInode,
        end: UInt64,
        _ transaction: Transaction
    ) {
        stored.record.size = max(stored.record.size, end)
        inode.toldSize.written(to: end)
        let time = now
        stored.record.modified = time
        stored.record.changed = time
        markSharing(inode, stored)
        stored.store(in: transaction)
        inode.dataHasChanged(in: transaction.sequence)
    }

    /// The same of a write that changed nothing but data and times (LazyTimes.swift).
    private func finishLazily(_ inode: Inode, _ stored: StoredInode, end: UInt64) {
        inode.toldSize.written(to: end)
        let time = now
        delayTimes(inode, stored) {
            $0.modified = time
            $0.changed = time
        }
        inode.dataChangedAt = engine.clock.now
    }

    /// Inline data moves into a block of its own, because the file outgrows the inode.
    func leaveBody(_ inode: Inode, _ stored: StoredInode) async throws(FileError) {
        let length = Int(stored.record.size)
        if length == 0 {
            let transaction = try await begin(blocks: 1)
            defer { transaction.end() }
            _ = stored.convertInlineDataToExtents(in: transaction)
            inode.dataHasChanged(in: transaction.sequence)
            return
        }
        let cost = ExtentMap(store, stored).insertionCost()
        let group = try await groups.holdWithRoom(
            metadata: cost.newBlocks,
            data: 1,
            near: inode.number.address,
            self
        )
        defer { groups.release(group, self) }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + 2,
            charging: demand(inode, stored, blocks: cost.newBlocks + 1)
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: [group], transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks),
            let run = allocator.takeData(near: inode.number.address, wanted: 1)
        else { throw .noSpace }
        let old = stored.convertInlineDataToExtents(in: transaction)
        do throws(StoreError) {
            try await ExtentMap(store, stored).insert(
                Extent(logical: 0, physical: run.start, length: 1),
                with: allocator
            )
        } catch {
            throw failed(error)
        }
        old.withUnsafeBytes {
            inode.dirtyData().write($0, at: 0, logical: 0, physical: run.start)
        }
        stored.store(in: transaction)
        transaction.order(inode.dirtyData())
        inode.dataHasChanged(in: transaction.sequence)
    }

    /// Writes the front of `bytes`, as far as one extent or one allocation reaches.
    private func writePiece(
        _ inode: Inode,
        _ stored: StoredInode,
        at start: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) async throws(FileError) -> Int {
        let map = ExtentMap(store, stored)
        let block = start / UInt64(blockSize)
        let found: ExtentLookup
        if let cached = map.lookupIfCached(block) {
            found = cached
        } else {
            do throws(StoreError) {
                found = try await map.lookup(block)
            } catch {
                throw fileError(error)
            }
        }
        switch found {
        case .extent(let extent):
            return try await overwrite(inode, stored, extent, at: start, bytes)
        case .hole(let until):
            return try await fillHole(inode, stored, until: until, at: start, bytes)
        }
    }

    private func overwrite(
        _ inode: Inode,
        _ stored: StoredInode,
        _ extent: Extent,
        at start: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) async throws(FileError) -> Int {
        let size = UInt64(blockSize)
        let end = min(start + UInt64(bytes.count), extent.logicalEnd * size)
        let piece = UnsafeRawBufferPointer(rebasing: bytes[..<Int(end - start)])
        let block = start / size
        let physical = extent.physical + (block - extent.logical)
        let lastBlock = (end - 1) / size
        let dirty = inode.dirtyData()
        dirty.hold()  // what is brought in stays until it is changed (DirtyData, D5)
        defer { dirty.unhold() }
        if !extent.isUnwritten { try await bringInEdges(inode, stored, extent, start..<end) }
        if !extent.isUnwritten, end <= stored.record.size, mayDelayWriteTimes(inode, stored) {
            dirty.write(piece, at: start, logical: block, physical: physical)
            finishLazily(inode, stored, end: end)
            return piece.count
        }
        let map = ExtentMap(store, stored)
        let cost =
            extent.isUnwritten
            ? map.insertionCost() : OperationCost(newBlocks: 0, modifiedBlocks: 1)
        let group =
            cost.newBlocks > 0
            ? try await groups.holdWithRoom(metadata: cost.newBlocks, data: 0, self) : nil
        defer { if let group { groups.release(group, self) } }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + 2,
            charging: demand(inode, stored, blocks: cost.newBlocks)
        )
        defer { transaction.end() }
        let allocator = Allocator(
            store: store,
            groups: group.map { [$0] } ?? [],
            transaction: transaction
        )
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        if extent.isUnwritten {
            do throws(StoreError) {
                try await map.markWritten(
                    block,
                    length: UInt32(lastBlock - block + 1),
                    with: allocator
                )
            } catch {
                throw failed(error)
            }
        }
        inode.dirtyData().write(piece, at: start, logical: block, physical: physical)
        if extent.isUnwritten || end > stored.record.size { transaction.order(inode.dirtyData()) }
        finishWrite(inode, stored, end: end, transaction)
        return piece.count
    }

    /// Has the first and the last block of bytes that will be replaced, and lie in one extent, among the dirty data
    /// if they are replaced in part only.
    func bringInEdges(
        _ inode: Inode,
        _ stored: StoredInode,
        _ extent: Extent,
        _ bytes: Range<UInt64>
    ) async throws(FileError) {
        let size = UInt64(blockSize)
        let (block, lastBlock) = (bytes.lowerBound / size, (bytes.upperBound - 1) / size)
        let physical = extent.physical + (block - extent.logical)
        let isInside = bytes.upperBound < stored.record.size
        if bytes.lowerBound % size != 0 || (bytes.upperBound < (block + 1) * size && isInside) {
            try await bringIn(inode, block, physical)
        }
        if lastBlock != block, bytes.upperBound % size != 0, isInside {
            try await bringIn(inode, lastBlock, physical + (lastBlock - block))
        }
    }

    /// Has a block that will be changed in part among the dirty data, with what it holds now.
    func bringIn(
        _ inode: Inode,
        _ block: UInt64,
        _ physical: BlockAddress
    ) async throws(FileError) {
        let dirty = inode.dirtyData()
        if dirty.contains(block) { return }
        let buffer = AlignedBuffer(byteCount: blockSize)
        do throws(DeviceError) {
            try await device.read(buffer.bytes, at: physical.rawValue * UInt64(blockSize))
        } catch {
            throw dataFailed(error)
        }
        dirty.write(
            buffer.readOnly,
            at: block * UInt64(blockSize),
            logical: block,
            physical: physical
        )
    }

    private func fillHole(
        _ inode: Inode,
        _ stored: StoredInode,
        until: UInt64,
        at start: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) async throws(FileError) -> Int {
        let size = UInt64(blockSize)
        let block = start / size
        let lastBlock = (start + UInt64(bytes.count) - 1) / size
        let wanted = UInt32(clamping: min(lastBlock + 1, until) - block)
        return try await allocateHole(inode, stored, block, wanted, isUnwritten: false) {
            extent,
            transaction in
            let end = min(start + UInt64(bytes.count), extent.logicalEnd * size)
            let piece = UnsafeRawBufferPointer(rebasing: bytes[..<Int(end - start)])
            inode.dirtyData().write(piece, at: start, logical: block, physical: extent.physical)
            transaction.order(inode.dirtyData())
            finishWrite(inode, stored, end: end, transaction)
            return piece.count
        }
    }

    /// Gives blocks to the front of a hole, as many as there are in one piece, `wanted` at most.
    /// `finish` goes on in the same transaction, and stores the inode.
    func allocateHole<Value>(
        _ inode: Inode,
        _ stored: StoredInode,
        _ block: UInt64,
        _ wanted: UInt32,
        isUnwritten: Bool,
        _ finish: (Extent, Transaction) -> Value
    ) async throws(FileError) -> Value {
        let map = ExtentMap(store, stored)
        let cost = map.insertionCost()
        let goal = try await self.goal(inode, map, before: block)
        let group = try await groups.holdWithRoom(
            metadata: cost.newBlocks,
            data: 1,
            near: goal,
            self
        )
        defer { groups.release(group, self) }
        let (transaction, wanted) = try await beginAllocating(inode, stored, wanted, cost)
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: [group], transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks),
            let run = allocator.takeData(near: goal, wanted: wanted)
        else { throw .noSpace }
        let extent = Extent(
            logical: block,
            physical: run.start,
            length: run.length,
            isUnwritten: isUnwritten
        )
        do throws(StoreError) {
            try await map.insert(extent, with: allocator)
        } catch {
            throw failed(error)
        }
        return finish(extent, transaction)
    }

    /// Begins a transaction that gives blocks to a file, as many as its owners may still use.
    private func beginAllocating(
        _ inode: Inode,
        _ stored: StoredInode,
        _ wanted: UInt32,
        _ cost: OperationCost
    ) async throws(FileError) -> (Transaction, UInt32) {
        var wanted = wanted
        while true {
            do throws(FileError) {
                let transaction = try await begin(
                    blocks: cost.modifiedBlocks + 2,
                    charging: demand(inode, stored, blocks: cost.newBlocks + Int(wanted))
                )
                return (transaction, wanted)
            } catch .quotaExceeded {
                let room = (quotas?.lastRoom ?? 0) - Int64(cost.newBlocks)
                guard room > 0, room < Int64(wanted) else { throw .quotaExceeded }
                wanted = UInt32(room)
            }
        }
    }

    /// What an operation on a file may charge its owners with.
    func demand(_ inode: Inode, _ stored: StoredInode, blocks: Int) -> QuotaDemand {
        QuotaDemand(stored.record, blocks: blocks, isExempt: inode.isExempt)
    }

    /// Where the block before `block` ends on the device, so that a growing file stays in one
    /// piece.
    private func goal(
        _ inode: Inode,
        _ map: ExtentMap,
        before block: UInt64
    ) async throws(FileError) -> BlockAddress {
        guard block > 0 else { return inode.number.address + 1 }
        do throws(StoreError) {
            guard case .extent(let extent) = try await map.lookup(block - 1) else {
                return inode.number.address + 1
            }
            return extent.physical + UInt64(extent.length)
        } catch {
            throw fileError(error)
        }
    }
}
