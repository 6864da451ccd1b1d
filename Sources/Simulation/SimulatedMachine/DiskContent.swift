/// The bytes of a disk as a value: copies share what they have in common, so that keeping the
/// content of every moment of a run is cheap. Bytes never written are all the same.
package struct DiskContent: Sendable {
    private static let chunkSize = 16_384

    private var chunks: [[UInt8]?]
    private let fill: UInt8

    /// Size in bytes.
    package let byteCount: UInt64

    /// A disk full of zeros, or of what somebody else has left on it.
    package init(byteCount: UInt64, fill: UInt8 = 0) {
        self.byteCount = byteCount
        self.fill = fill
        chunks = Array(
            repeating: nil,
            count: Int((byteCount + UInt64(Self.chunkSize) - 1)) / Self.chunkSize
        )
    }

    /// Fills `buffer` from `offset` on. The range lies within the disk (precondition).
    package func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) {
        forEachPiece(offset, buffer.count) { chunk, start, piece in
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[piece])
            if let bytes = chunks[chunk] {
                bytes.withUnsafeBytes {
                    target.copyMemory(
                        from: UnsafeRawBufferPointer(rebasing: $0[start..<start + piece.count])
                    )
                }
            } else {
                target.initializeMemory(as: UInt8.self, repeating: fill)
            }
        }
    }

    /// The bytes of a range within the disk.
    package func bytes(at offset: UInt64, count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            read(UnsafeMutableRawBufferPointer(buffer), at: offset)
            initialized = count
        }
    }

    /// Writes bytes at `offset`. The range lies within the disk (precondition).
    package mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) {
        precondition(offset + UInt64(bytes.count) <= byteCount, "a write outside the disk")
        var done = 0
        while done < bytes.count {
            let position = Int(offset) + done
            let chunk = position / Self.chunkSize
            let start = position % Self.chunkSize
            let length = min(bytes.count - done, Self.chunkSize - start)
            if chunks[chunk] == nil {
                chunks[chunk] = Array(repeating: fill, count: Self.chunkSize)
            }
            chunks[chunk]?.withUnsafeMutableBytes {
                UnsafeMutableRawBufferPointer(rebasing: $0[start..<start + length]).copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: bytes[done..<done + length])
                )
            }
            done += length
        }
    }

    private func forEachPiece(
        _ offset: UInt64,
        _ count: Int,
        _ body: (_ chunk: Int, _ start: Int, Range<Int>) -> Void
    ) {
        precondition(offset + UInt64(count) <= byteCount, "a read outside the disk")
        var done = 0
        while done < count {
            let position = Int(offset) + done
            let start = position % Self.chunkSize
            let length = min(count - done, Self.chunkSize - start)
            body(position / Self.chunkSize, start, done..<done + length)
            done += length
        }
    }
}
