package import BlockIO

/// A device in memory that answers at once and never fails. For tests that are about something
/// else.
package final class MemoryBlockDevice: BlockDevice, @unchecked Sendable {
    // Sendable: used by one test at a time.

    package let alignment: Int

    /// What the device holds.
    package var content: DiskContent

    /// Calls so far.
    package private(set) var readCount = 0
    package private(set) var writeCount = 0
    package private(set) var flushCount = 0

    package init(byteCount: UInt64, alignment: Int = 4096) {
        content = DiskContent(byteCount: byteCount)
        self.alignment = alignment
    }

    package init(content: DiskContent, alignment: Int = 4096) {
        self.content = content
        self.alignment = alignment
    }

    package var byteCount: UInt64 { content.byteCount }

    package func read(
        _ buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try checkRange(offset: offset, length: buffer.count)
        readCount += 1
        content.read(buffer, at: offset)
    }

    package func write(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try checkRange(offset: offset, length: buffer.count)
        writeCount += 1
        content.write(buffer, at: offset)
    }

    package func flush() async throws(DeviceError) { flushCount += 1 }
}

extension BlockDevice {
    /// Refuses a range outside the device; traps if B1 is not kept.
    func checkRange(offset: UInt64, length: Int) throws(DeviceError) {
        precondition(
            offset % UInt64(alignment) == 0 && length % alignment == 0,
            "B1: \(length) bytes at \(offset) are not aligned to \(alignment)"
        )
        guard offset <= byteCount, UInt64(length) <= byteCount - offset else {
            throw .outOfRange(offset: offset, length: length, size: byteCount)
        }
    }
}
