// Reading and writing while other nodes write the same file (Regions.swift). Each request is carried out under the
// inode's lock in CW and those of the regions it uses, or not at all: then it goes the ordinary way, under the
// inode's lock alone.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
import Vocabulary

extension MountedVolume {
    // MARK: Reading

    /// Reads under locks of regions; nil if that cannot be, and nothing was done.
    func readConcurrently(
        _ inode: Inode,
        at offset: UInt64,
        into buffer: UnsafeMutableRawBufferPointer,
        isFill: Bool,
        isAccess: Bool,
        reader: UInt32?,
        _ interruption: Interruption?
    ) async throws(FileError) -> Int? {
        let range = offset..<offset + UInt64(buffer.count)
        let parking: ParkedRequest.Kind? = isFill ? .fill : nil
        let stored = try await holdConcurrently(inode, range, parking, interruption)
        defer { release(inode, .concurrent) }
        guard stored.record.isRegular, stored.record.layout == .extents else { return nil }
        while true {
            // A page that a mapping may change without a word (KERNEL M1).
            let mode: HolderMode = isFill && inode.readWriteOpens > 0 ? .exclusive : .shared
            if mode == .exclusive {
                // R4, R6: its write-back is a write like others.
                guard stored.record.flags.contains(.sharedWriters),
                    try await isWritten(stored, pages(around: range))
                else { return nil }
            }
            let regions = try await enterRegions(
                of: range,
                inode,
                mode,
                parking: parking,
                interruption
            )
            guard let regions else { return nil }
            defer { leave(regions, mode) }
            // Somebody opened it for writing while this waited.
            if isFill, mode == .shared, inode.readWriteOpens > 0 { continue }
            counters.regionRequests += 1
            if isFill {
                inode.kernelMayCache = true
                inode.pageUse.noteFill(range)
            }
            if isAccess { noteAccess(inode, stored) }
            defer { noteShortRead(inode, range.upperBound, stored.record.size, reader) }
            guard offset < stored.record.size else { return 0 }
            let count = Int(min(range.upperBound, stored.record.size) - offset)
            try await readHeld(inode, stored, at: offset, count, into: buffer)
            return count
        }
    }

    /// Enters an inode's glock in order to lock regions; `parking`: what the kernel does with the pages of
    /// `range` meanwhile.
    private func holdConcurrently(
        _ inode: Inode,
        _ range: Range<UInt64>,
        _ parking: ParkedRequest.Kind?,
        _ interruption: Interruption?
    ) async throws(FileError) -> StoredInode {
        if let stored = holdIfCached(inode, .concurrent) { return stored }
        guard let parking else { return try await hold(inode, .concurrent, interruption) }
        let isCovered = parking == .writeBack
        // A region may be waiting for it that is being given up.
        if isCovered, let stored = inode.stored, locks.enterPastWaiters(inode.glock) {
            return stored
        }
        let ticket = inode.pageUse.park(parking, pages(around: range), .concurrent)
        defer { inode.pageUse.unpark(ticket) }
        return try await hold(
            inode,
            .concurrent,
            interruption,
            bytes: isCovered ? pages(around: range) : nil
        )
    }

    /// Whether all bytes of a range, as far as it is in the file, have blocks that were written. (The end of the
    /// last block belongs to the file.)
    private func isWritten(
        _ stored: StoredInode,
        _ range: Range<UInt64>
    ) async throws(FileError) -> Bool {
        let size = UInt64(blockSize)
        guard range.lowerBound < stored.record.size else { return false }
        let end = (min(range.upperBound, stored.record.size) + size - 1) / size
        var block = range.lowerBound / size
        while block < end {
            guard case .extent(let extent) = try await find(stored, block), !extent.isUnwritten
            else { return false }
            block = extent.logicalEnd
        }
        return true
    }

    private func find(
        _ stored: StoredInode,
        _ block: UInt64
    ) async throws(FileError) -> ExtentLookup {
        let map = ExtentMap(store, stored)
        if let cached = map.lookupIfCached(block) { return cached }
        do throws(StoreError) {
            return try await map.lookup(block)
        } catch {
            throw fileError(error)
        }
    }

    // MARK: Writing

    /// Writes under locks of regions; nil if that cannot be, and nothing was done. Otherwise where and how much;
    /// `overtaking` as in `writeLocked`.
    func writeConcurrently(
        _ inode: Inode,
        _ offset: UInt64,
        _ buffer: UnsafeRawBufferPointer,
        _ flags: WriteFlags,
        _ interruption: Interruption?,
        _ overtaking: inout UInt64?
    ) async throws(FileError) -> (start: UInt64, count: Int)? {
        let whole = offset..<offset + UInt64(buffer.count)
        // The kernel may hold its last page while it waits now for one region and now for another (R3).
        let isPartial = !flags.isDirect && !flags.isWriteback && lockedPage(of: whole) != nil
        if isPartial, spansRegions(whole) { return nil }
        let parking = parkingOfWrite(inode, whole, flags)
        if !flags.isDirect, !flags.isWriteback { dropUnwrittenUnlessHeld(inode, whole) }
        let stored = try await holdConcurrently(inode, whole, parking, interruption)
        defer { release(inode, .concurrent) }
        let bytes = flags.isWriteback ? cutAtEnd(inode, stored, offset, buffer) : buffer
        if bytes.isEmpty { return (offset, 0) }
        let range = offset..<offset + UInt64(bytes.count)
        guard isWritableConcurrently(inode, stored, range, flags) else { return nil }
        let regions = try await enterRegions(
            of: range,
            inode,
            .exclusive,
            parking: parking,
            interruption
        )
        guard let regions else { return nil }
        defer { leave(regions, .exclusive) }
        // Inside the regions, so that no READ that came later comes first (F5).
        guard try await isReplacement(inode, stored, range, flags) else { return nil }
        counters.regionRequests += 1
        if !flags.isDirect { inode.kernelMayCache = true }
        var pieces = [range]
        if flags.isWriteback {
            inode.pageUse.noteWriteBack(pages(around: range))
            pieces = inode.pageUse.notOvertaken(range)
            if pieces != [range] { reached(.writeBackOvertaken) }
        } else if !flags.isDirect {
            inode.pageUse.noteCachedWrite(range)
        }
        reached(.regionWritten)
        // Also of what fails half way.
        defer {
            inode.pendingTime = max(now, stored.record.changed.successor, inode.pendingTime ?? now)
            inode.toldChange = nil
        }
        try await replace(inode, stored, pieces, of: bytes, at: offset, flags)
        overtaking = overtake(inode, range, flags)
        if let dirty = inode.dirty, dirty.byteCount >= Self.writeBehind { dirty.startWriteBack() }
        return (offset, bytes.count)
    }

    private func parkingOfWrite(
        _ inode: Inode,
        _ range: Range<UInt64>,
        _ flags: WriteFlags
    ) -> ParkedRequest.Kind? {
        if flags.isWriteback {
            let isCovered =
                inode.glock.held == .exclusive
                || (inode.glock.held == .concurrentWrite
                    && holdsRegions(of: range, inode, .exclusive))
            if !isCovered { counters.strayWritebacks += 1 }
            return isCovered ? .writeBack : .strayWriteBack
        }
        return flags.isDirect || lockedPage(of: range) == nil ? nil : .partialWrite
    }

    /// F5, unless nothing has to be waited for until the regions are entered.
    private func dropUnwrittenUnlessHeld(_ inode: Inode, _ range: Range<UInt64>) {
        let isAtHand = inode.stored != nil && inode.glock.machine.canEnter(.concurrent)
        if isAtHand, canEnterRegions(of: range, inode, .exclusive) { return }
        dropUnwritten(inode, ofWrite: range)
    }

    /// R4, R6.
    private func isWritableConcurrently(
        _ inode: Inode,
        _ stored: StoredInode,
        _ range: Range<UInt64>,
        _ flags: WriteFlags
    ) -> Bool {
        let record = stored.record
        guard record.isRegular, record.layout == .extents, record.flags.contains(.sharedWriters),
            record.flags.isDisjoint(with: [.immutable, .appendOnly])
        else { return false }
        // Privileges have to go first.
        if flags.dropsPrivileges, losesPrivileges(record, flags.writerGroup) { return false }
        if range.upperBound <= record.size { return true }
        inode.regionsRefusedAt = engine.clock.now
        return false
    }

    /// The part of it that may have to read.
    private func isReplacement(
        _ inode: Inode,
        _ stored: StoredInode,
        _ range: Range<UInt64>,
        _ flags: WriteFlags
    ) async throws(FileError) -> Bool {
        if !flags.isWriteback, try await hasCapabilities(stored) { return false }
        if try await isWritten(stored, range) { return true }
        inode.regionsRefusedAt = engine.clock.now
        return false
    }

    /// Replaces what of a write is not left out.
    private func replace(
        _ inode: Inode,
        _ stored: StoredInode,
        _ pieces: [Range<UInt64>],
        of bytes: UnsafeRawBufferPointer,
        at offset: UInt64,
        _ flags: WriteFlags
    ) async throws(FileError) {
        do throws(FileError) {
            for piece in pieces {
                let start = Int(piece.lowerBound - offset)
                let rest = UnsafeRawBufferPointer(rebasing: bytes[start..<start + piece.count])
                try await replace(inode, stored, at: piece.lowerBound, rest)
            }
        } catch {
            // The page would go on showing here what is nowhere else (rule M7).
            let range = offset..<offset + UInt64(bytes.count)
            if flags.isWriteback { dropUnwritten(inode, pages(around: range)) }
            throw error
        }
    }

    /// Replaces bytes that have blocks.
    private func replace(
        _ inode: Inode,
        _ stored: StoredInode,
        at start: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) async throws(FileError) {
        let size = UInt64(blockSize)
        let dirty = inode.dirtyData()
        dirty.hold()  // what is brought in stays until it is changed (DirtyData, D5)
        defer { dirty.unhold() }
        var done = 0
        while done < bytes.count {
            let position = start + UInt64(done)
            guard case .extent(let extent) = try await find(stored, position / size) else {
                throw damaged(inode.number.address, "extents under CW", position)  // R1
            }
            let end = min(start + UInt64(bytes.count), extent.logicalEnd * size)
            try await bringInEdges(inode, stored, extent, position..<end)
            let block = position / size
            dirty.write(
                UnsafeRawBufferPointer(rebasing: bytes[done..<done + Int(end - position)]),
                at: position,
                logical: block,
                physical: extent.physical + (block - extent.logical)
            )
            done += Int(end - position)
        }
    }
}
