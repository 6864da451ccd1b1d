// Reading file data. What is dirty here comes from memory, everything else straight from the device
// into the kernel's buffer; clean data is cached by the kernel alone.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func read(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        at offset: UInt64,
        into buffer: UnsafeMutableRawBufferPointer,
        isFill: Bool,
        reader: UInt32?,
        _ interruption: Interruption?
    ) async throws(FileError) -> Int {
        let inode = try inode(node)
        if let reader {
            isHeard(inode, reader)
            inode.toldSize.asks(reader, .shortRead, at: engine.clock.now)
        }
        defer { if let reader { inode.toldSize.isAnswered(reader, .shortRead) } }
        guard let file = openFiles[handle], file.inode === inode else { throw .badHandle }
        file.wasRead = true
        guard offset < UInt64(Int64.max), buffer.count > 0 else { return 0 }
        let end = offset.addingReportingOverflow(UInt64(buffer.count)).partialValue
        if usesRegions(inode, writes: isFill && inode.readWriteOpens > 0) {
            let count = try await readConcurrently(
                inode,
                at: offset,
                into: buffer,
                isFill: isFill,
                isAccess: !file.intent.keepsAccessTime,
                reader: reader,
                interruption
            )
            if let count { return count }
        }
        // A page that a shared mapping here may make dirty without a word is filled under EX only
        // (rule M1).
        var mode: HolderMode = isFill && inode.readWriteOpens > 0 ? .exclusive : .shared
        var stored = try await holdForFill(inode, mode, offset..<end, isFill, interruption)
        if isFill, mode == .shared, inode.readWriteOpens > 0 {
            // Somebody opened it for writing while this waited.
            release(inode, mode)
            mode = .exclusive
            stored = try await holdForFill(inode, mode, offset..<end, isFill, interruption)
        }
        defer { release(inode, mode) }
        guard stored.record.isRegular else {
            throw stored.record.isDirectory ? .isDirectory : .invalid
        }
        if isFill {
            inode.kernelMayCache = true
            inode.pageUse.noteFill(offset..<end)
        }
        if !file.intent.keepsAccessTime { noteAccess(inode, stored) }
        defer { noteShortRead(inode, end, stored.record.size, reader) }
        guard offset < stored.record.size else { return 0 }
        let count = Int(min(end, stored.record.size) - offset)
        try await readHeld(inode, stored, at: offset, count, into: buffer)
        return count
    }

    /// The kernel takes a read that ends early for the end of the file (rule F6).
    func noteShortRead(_ inode: Inode, _ end: UInt64, _ size: UInt64, _ reader: UInt32?) {
        guard end > size else { return }
        tell(inode, size, to: reader, .shortRead)
    }

    /// Holds for a read; while it waits, a fill is parked: its pages are locked by the kernel (rule
    /// F3).
    private func holdForFill(
        _ inode: Inode,
        _ mode: HolderMode,
        _ range: Range<UInt64>,
        _ isFill: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) -> StoredInode {
        if let stored = holdIfCached(inode, mode) { return stored }
        guard isFill else { return try await hold(inode, mode, interruption) }
        return try await holdParked(inode, mode, .fill, pages(around: range), interruption)
    }

    /// Holds for a request for which the kernel holds pages while it waits (rule F3).
    func holdParked(
        _ inode: Inode,
        _ mode: HolderMode,
        _ kind: ParkedRequest.Kind,
        _ pages: Range<UInt64>,
        _ interruption: Interruption?
    ) async throws(FileError) -> StoredInode {
        let ticket = inode.pageUse.park(kind, pages, mode)
        defer { inode.pageUse.unpark(ticket) }
        return try await hold(inode, mode, interruption, bytes: pages)
    }

    /// Reads `count` bytes, all inside the file, of an inode that is held.
    func readHeld(
        _ inode: Inode,
        _ stored: StoredInode,
        at offset: UInt64,
        _ count: Int,
        into buffer: UnsafeMutableRawBufferPointer
    ) async throws(FileError) {
        if stored.record.layout == .inlineData {
            _ = stored.readInline(
                at: offset,
                into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
            )
            return
        }
        let range = offset..<offset + UInt64(count)
        // Copied before the first wait: what is dirty now may be on its way to the device and gone
        // from memory later.
        let gaps = inode.dirty?.copy(range, to: buffer) ?? [range]
        let map = ExtentMap(store, stored)
        do throws(StoreError) {
            for gap in gaps {
                var position = gap.lowerBound
                while position < gap.upperBound {
                    position = try await readPiece(map, position..<gap.upperBound, offset, buffer)
                }
            }
        } catch {
            throw fileError(error)
        }
    }

    /// Reads the front of `range` up to where the next extent or hole begins; returns how far.
    private func readPiece(
        _ map: ExtentMap,
        _ range: Range<UInt64>,
        _ bufferOffset: UInt64,
        _ buffer: UnsafeMutableRawBufferPointer
    ) async throws(StoreError) -> UInt64 {
        let size = UInt64(blockSize)
        let block = range.lowerBound / size
        let found: ExtentLookup
        if let cached = map.lookupIfCached(block) {
            found = cached
        } else {
            found = try await map.lookup(block)
        }
        let place = Int(range.lowerBound - bufferOffset)
        func zero(until end: UInt64) -> UInt64 {
            let stop = min(end, range.upperBound)
            UnsafeMutableRawBufferPointer(
                rebasing: buffer[place..<place + Int(stop - range.lowerBound)]
            ).initializeMemory(as: UInt8.self, repeating: 0)
            return stop
        }
        switch found {
        case .hole(let until):
            return zero(until: until > UInt64.max / size ? UInt64.max : until * size)
        case .extent(let extent) where extent.isUnwritten:
            return zero(until: extent.logicalEnd * size)
        case .extent(let extent):
            let stop = min(extent.logicalEnd * size, range.upperBound)
            let deviceOffset =
                (extent.physical.rawValue + (block - extent.logical)) * size
                + range.lowerBound % size
            do throws(DeviceError) {
                try await readDevice(
                    deviceOffset,
                    Int(stop - range.lowerBound),
                    buffer,
                    place
                )
            } catch {
                throw .data(error)
            }
            return stop
        }
    }

    /// Reads bytes at any offset of the device to `place` in `buffer`; directly if everything is
    /// aligned or what is read too much at the end fits into the buffer, else through memory of its
    /// own.
    private func readDevice(
        _ offset: UInt64,
        _ count: Int,
        _ buffer: UnsafeMutableRawBufferPointer,
        _ place: Int
    ) async throws(DeviceError) {
        let unit = UInt64(device.alignment)
        let start = offset / unit * unit
        let end = (offset + UInt64(count) + unit - 1) / unit * unit
        let address = UInt(bitPattern: buffer.baseAddress) + UInt(place)
        let length = Int(end - start)
        if start == offset, address % UInt(unit) == 0, place + length <= buffer.count,
            length == count || place + length == buffer.count
        {
            try await device.read(
                UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + length]),
                at: start
            )
            return
        }
        let bounce = AlignedBuffer(byteCount: length)
        try await device.read(bounce.bytes, at: start)
        let skip = Int(offset - start)
        UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + count]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: bounce.readOnly[skip..<skip + count])
        )
    }

    package func readLink(
        _ node: NodeHandle,
        _ interruption: Interruption?
    ) async throws(FileError) -> [UInt8] {
        let inode = try inode(node)
        let stored = try await hold(inode, .shared, interruption)
        defer { release(inode, .shared) }
        guard stored.record.isSymbolicLink else { throw .invalid }
        guard stored.record.size <= UInt64(InodeRecord.longestTarget) else {
            throw damaged(inode.number.address, "length of a symbolic link", stored.record.size)
        }
        let count = Int(stored.record.size)
        let buffer = AlignedBuffer(byteCount: max(count, 1))
        try await readHeld(inode, stored, at: 0, count, into: buffer.bytes)
        noteAccess(inode, stored)
        return [UInt8](buffer.readOnly.prefix(count))
    }
}
