// `restore FILE IMAGE`: reads a metadata image and verifies all of it on the way.

package import BlockIO
import DiskFormat
import Vocabulary

/// Reads a metadata image from its beginning to its end, once.
package final class MetadataImageReader {
    package let header: MetadataImageHeader
    private let read: (UnsafeMutableRawBufferPointer) throws(InspectionError) -> Int

    /// Reads the header. `read` fills a buffer with the bytes that come next and returns how many
    /// there were, fewer only at the end of the file.
    ///
    /// - Throws: if it is no metadata image, or a damaged one, and what `read` throws.
    package init(
        _ read: @escaping (UnsafeMutableRawBufferPointer) throws(InspectionError) -> Int
    ) throws(InspectionError) {
        self.read = read
        let buffer = AlignedBuffer(zeroed: MetadataImageHeader.byteCount)
        guard try read(buffer.bytes) == MetadataImageHeader.byteCount else {
            throw InspectionError("is no metadata image: it is shorter than a header")
        }
        header = try MetadataImageHeader(buffer.readOnly)
    }

    /// Writes all blocks to a device of `header.deviceSize` bytes that holds zeros.
    ///
    /// - Throws: if the image is damaged or ends early; what is on the device then is of no use.
    package func restore(
        to device: any BlockDevice
    ) async throws(InspectionError) -> MetadataImageSummary {
        var summary = MetadataImageSummary()
        summary.byteCount = UInt64(MetadataImageHeader.byteCount + MetadataImageRecord.byteCount)
        let front = AlignedBuffer(zeroed: MetadataImageRecord.byteCount)
        let block = AlignedBuffer(zeroed: Int(header.blockSize))
        var total: UInt32 = 0
        var next: UInt64 = 0
        while true {
            try fill(front.bytes, after: summary.records)
            let record = MetadataImageRecord(front.readOnly)
            if record.address == MetadataImageRecord.endAddress {
                try checkEnd(record, front, summary, total)
                return summary
            }
            guard record.address >= next, record.address < header.blockCount,
                record.length <= header.blockSize
            else { throw damaged(summary.records, "its address or length is impossible") }
            next = record.address + 1
            block.bytes.clear(0, block.bytes.count)
            let payload = block.bytes.window(0, Int(record.length))
            if record.length > 0 { try fill(payload, after: summary.records) }
            let (bytes, checksum) = record.bytes(with: payload.readOnly)
            guard bytes.elementsEqual(front.readOnly) else {
                throw damaged(summary.records, "it fails its checksum")
            }
            total = Inspector.chained(total, checksum)
            summary.count(record)
            guard record.length > 0 else { continue }
            do throws(DeviceError) {
                try await device.write(
                    block.readOnly,
                    at: record.address * UInt64(header.blockSize)
                )
            } catch {
                throw InspectionError("block \(record.address) cannot be written: \(error)")
            }
        }
    }

    private func damaged(_ record: UInt64, _ why: String) -> InspectionError {
        InspectionError("is damaged: record \(record) of \(header.recordCount): \(why)")
    }

    private func fill(_ buffer: UnsafeMutableRawBufferPointer, after records: UInt64)
        throws(InspectionError)
    {
        guard try read(buffer) == buffer.count else {
            throw InspectionError(
                "is cut off: it ends after \(records) of \(header.recordCount) blocks; get the whole file"
            )
        }
    }

    private func checkEnd(
        _ record: MetadataImageRecord,
        _ front: AlignedBuffer,
        _ summary: MetadataImageSummary,
        _ total: UInt32
    ) throws(InspectionError) {
        let empty = UnsafeRawBufferPointer(start: nil, count: 0)
        guard record.bytes(with: empty).bytes.elementsEqual(front.readOnly) else {
            throw damaged(summary.records, "the end record fails its checksum")
        }
        let count = UInt64(record.length) | UInt64(record.flags) << 32
        guard count == summary.records, count == header.recordCount, record.total == total else {
            throw InspectionError(
                "is damaged: it has \(summary.records) blocks, its header says "
                    + "\(header.recordCount), its end \(count), or they are not those that were saved"
            )
        }
        let rest = AlignedBuffer(zeroed: 1)
        guard try read(rest.bytes) == 0 else {
            throw InspectionError("is damaged: something follows its end")
        }
    }
}
