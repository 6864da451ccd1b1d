// Metadata stands close together, and a check reads it block by block: reading 64 KiB at a time and
// keeping the last few MiB saves most of the waiting. Only while nobody writes (VolumeChecker C1).

package import BlockIO
import DiskFormat
import Vocabulary

/// The chunks of a device that were read last.
package final class ReadAhead {
    private let device: any BlockDevice
    private let end: UInt64
    private let chunkLength: Int
    private var chunks: [(number: UInt64, bytes: AlignedBuffer)] = []
    private var places: [UInt64: Int] = [:]
    private var oldest = 0

    /// Chunks kept: 16 MiB with blocks of up to 64 KiB.
    private static let limit = 256

    /// - Parameter end: bytes of the device that may be read.
    package init(_ device: any BlockDevice, blockSize: Int, end: UInt64) {
        self.device = device
        self.end = end
        chunkLength = max(65_536, blockSize)
    }

    /// Fills a buffer of one block from a multiple of its length.
    package func read(_ buffer: AlignedBuffer, at offset: UInt64) async throws(DeviceError) {
        let number = offset / UInt64(chunkLength)
        let within = Int(offset % UInt64(chunkLength))
        guard let chunk = await chunk(number), within + buffer.bytes.count <= chunk.count else {
            // A part of the chunk cannot be read, perhaps not this one.
            try await device.read(buffer.bytes, at: offset)
            return
        }
        buffer.bytes.put(chunk.window(within, buffer.bytes.count), 0)
    }

    /// The bytes of a chunk, fewer at the end of the device; nil if it cannot be read as a whole.
    /// Valid until the next call.
    private func chunk(_ number: UInt64) async -> UnsafeRawBufferPointer? {
        let start = number * UInt64(chunkLength)
        let length = Int(min(UInt64(chunkLength), end - start))
        if let place = places[number] { return chunks[place].bytes.readOnly.window(0, length) }
        let bytes: AlignedBuffer
        if chunks.count < Self.limit {
            bytes = AlignedBuffer(byteCount: chunkLength)
        } else {
            bytes = chunks[oldest].bytes
            places[chunks[oldest].number] = nil
        }
        do throws(DeviceError) {
            try await device.read(bytes.bytes.window(0, length), at: start)
        } catch {
            // Its place is empty now, whatever stood there: it is the next to be used again.
            if chunks.count == Self.limit { chunks[oldest].number = .max }
            return nil
        }
        if chunks.count < Self.limit {
            places[number] = chunks.count
            chunks.append((number, bytes))
        } else {
            places[number] = oldest
            chunks[oldest].number = number
            oldest = (oldest + 1) % Self.limit
        }
        return bytes.readOnly.window(0, length)
    }
}
