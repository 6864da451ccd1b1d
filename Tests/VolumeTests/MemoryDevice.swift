// A device in memory, as sparse as what is written to it.

import BlockIO
import Synchronization

final class MemoryDevice: BlockDevice, Sendable {
    let alignment = 4096
    let byteCount: UInt64
    /// Pages that hold anything but zeros.
    private let pages = Mutex<[UInt64: [UInt8]]>([:])
    private let writes = Mutex<Int>(0)
    /// The write after which all later ones fail; nil for none.
    let failsAfter: Int?

    static let page: UInt64 = 4096

    init(byteCount: UInt64, failsAfter: Int? = nil) {
        self.byteCount = byteCount
        self.failsAfter = failsAfter
    }

    /// A copy that shares nothing.
    init(copying other: MemoryDevice, byteCount: UInt64? = nil) {
        self.byteCount = byteCount ?? other.byteCount
        failsAfter = nil
        let content = other.pages.withLock { $0 }
        pages.withLock { $0 = content }
    }

    private func check(_ offset: UInt64, _ length: Int) throws(DeviceError) {
        guard offset % UInt64(alignment) == 0, length % alignment == 0 else {
            throw .failed(operation: "unaligned", offset: offset, errno: 22)
        }
        guard offset <= byteCount, UInt64(length) <= byteCount - offset else {
            throw .outOfRange(offset: offset, length: length, size: byteCount)
        }
    }

    func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64)
        async throws(DeviceError)
    {
        try check(offset, buffer.count)
        readNow(buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) async throws(DeviceError) {
        try check(offset, buffer.count)
        let number = writes.withLock { count in
            count += 1
            return count
        }
        if let failsAfter, number > failsAfter {
            throw .failed(operation: "write", offset: offset, errno: 5)
        }
        writeNow(buffer, at: offset)
    }

    func flush() async throws(DeviceError) {}

    /// As `read`, for tests that are not async.
    func readNow(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) {
        pages.withLock { pages in
            for part in stride(from: 0, to: buffer.count, by: Int(Self.page)) {
                let target = UnsafeMutableRawBufferPointer(
                    rebasing: buffer[part..<part + Int(Self.page)]
                )
                if let page = pages[(offset + UInt64(part)) / Self.page] {
                    target.copyBytes(from: page)
                } else {
                    target.initializeMemory(as: UInt8.self, repeating: 0)
                }
            }
        }
    }

    /// As `write`, for tests that are not async.
    func writeNow(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) {
        pages.withLock { pages in
            for part in stride(from: 0, to: buffer.count, by: Int(Self.page)) {
                let source = buffer[part..<part + Int(Self.page)]
                let index = (offset + UInt64(part)) / Self.page
                pages[index] = source.contains { $0 != 0 } ? [UInt8](source) : nil
            }
        }
    }

    /// Indexes of the pages that are not zero, ascending.
    var writtenPages: [UInt64] { pages.withLock { $0.keys.sorted() } }
}
