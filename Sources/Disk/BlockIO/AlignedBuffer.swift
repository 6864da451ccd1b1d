/// Memory aligned for direct I/O, freed with its owner. A class, because the bytes of a cached
/// block are shared by the cache, a transaction and a write in flight.
package final class AlignedBuffer: @unchecked Sendable {
    // Sendable: the pointer is constant; who may touch the bytes when is said by the owner (the
    // engine, or the one I/O in flight that was given the buffer).

    /// The bytes.
    package let bytes: UnsafeMutableRawBufferPointer

    /// Alignment of every buffer: one page.
    package static let alignment = 4096

    /// Uninitialised memory of `byteCount` bytes.
    package init(byteCount: Int) {
        precondition(byteCount > 0, "an empty buffer")
        bytes = .allocate(byteCount: byteCount, alignment: Self.alignment)
    }

    /// Zeroed memory of `byteCount` bytes.
    package convenience init(zeroed byteCount: Int) {
        self.init(byteCount: byteCount)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { bytes.deallocate() }

    /// The bytes for reading.
    package var readOnly: UnsafeRawBufferPointer { UnsafeRawBufferPointer(bytes) }
}
