// A volume's metadata in a file, without file data: to be sent to whoever shall look at what is wrong with
// it. The format stands in Docs/METADATA-IMAGE.md; this is the same as code.
//
//   header · record · record · ... · end record
//
// A record is one block, without the zeros at its end. Records ascend by address. Each has a checksum,
// and the end record has one over all of these and their number: nothing can be lost, cut off or put
// elsewhere without being noticed.

import DiskFormat
import Vocabulary

/// The first bytes of a metadata image.
package struct MetadataImageHeader: Hashable, Sendable {
    /// Bytes in a block of the volume.
    package var blockSize: UInt32
    /// Blocks of the volume.
    package var blockCount: UInt64
    /// Bytes of the device that the volume is on.
    package var deviceSize: UInt64
    package var recordCount: UInt64
    var volume: VolumeID

    static let byteCount = 64
    /// "LKSTMETA" as it stands in the file.
    static let magic: UInt64 = 0x4154_454D_5453_4B4C
    static let version: UInt32 = 1
    private static let checkedCount = 60

    var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.withUnsafeMutableBytes { field in
            field.put64(Self.magic, 0)
            field.put32(Self.version, 8)
            field.put32(blockSize, 12)
            field.put64(blockCount, 16)
            field.put64(deviceSize, 24)
            field.put64(recordCount, 32)
            volume.write(to: field.window(40, 16))
            field.put32(crc32c(field.readOnly.window(0, Self.checkedCount)), Self.checkedCount)
        }
        return bytes
    }

    init(
        blockSize: UInt32,
        blockCount: UInt64,
        deviceSize: UInt64,
        recordCount: UInt64,
        volume: VolumeID
    ) {
        self.blockSize = blockSize
        self.blockCount = blockCount
        self.deviceSize = deviceSize
        self.recordCount = recordCount
        self.volume = volume
    }

    /// Decodes and verifies `byteCount` bytes.
    init(_ bytes: UnsafeRawBufferPointer) throws(InspectionError) {
        precondition(bytes.count == Self.byteCount, "a header has its length")
        guard bytes.u64(0) == Self.magic else {
            throw InspectionError(
                "is no metadata image; make one with 'lockstep inspect DEVICE save FILE'"
            )
        }
        guard bytes.u32(8) == Self.version else {
            throw InspectionError(
                "is a metadata image of version \(bytes.u32(8)); this program knows \(Self.version)"
            )
        }
        let computed = crc32c(bytes.window(0, Self.checkedCount))
        guard computed == bytes.u32(Self.checkedCount) else {
            throw InspectionError("is damaged: its header fails its checksum")
        }
        self.init(
            blockSize: bytes.u32(12),
            blockCount: bytes.u64(16),
            deviceSize: bytes.u64(24),
            recordCount: bytes.u64(32),
            volume: VolumeID(bytes.window(40, 16))
        )
        let size = UInt64(blockSize)
        guard Superblock.blockSizes.contains(blockSize), blockSize & (blockSize - 1) == 0,
            deviceSize <= UInt64(Int64.max), blockCount > 0, blockCount <= deviceSize / size,
            recordCount <= blockCount
        else { throw InspectionError("is damaged: its header contradicts itself") }
    }
}

/// What stands before the bytes of a block, and what stands at the end.
struct MetadataImageRecord: Hashable {
    /// Of the block; `endAddress` for the end record.
    var address: UInt64
    /// Bytes that follow; the rest of the block is zeros.
    var length: UInt32 = 0
    var flags: UInt32 = 0
    /// Of the end record: a checksum over the checksums of all records.
    var total: UInt32 = 0

    static let byteCount = 24
    static let endAddress = UInt64.max
    /// File data, or what may be, was left out of the block.
    static let leftOut: UInt32 = 1
    /// The device could not read the block.
    static let unreadable: UInt32 = 2
    private static let checkedCount = 20

    /// The record with its checksum over these bytes and the payload.
    func bytes(with payload: UnsafeRawBufferPointer) -> (bytes: [UInt8], checksum: UInt32) {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        let checksum = bytes.withUnsafeMutableBytes { field in
            field.put64(address, 0)
            field.put32(length, 8)
            field.put32(flags, 12)
            field.put32(total, 16)
            let own = crc32c(field.readOnly.window(0, Self.checkedCount))
            let checksum = crc32c(payload, startingWith: own)
            field.put32(checksum, Self.checkedCount)
            return checksum
        }
        return (bytes, checksum)
    }

    /// Decodes `byteCount` bytes; the checksum can be verified when the payload is there.
    init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == Self.byteCount, "a record has its length")
        address = bytes.u64(0)
        length = bytes.u32(8)
        flags = bytes.u32(12)
        total = bytes.u32(16)
    }

    init(address: UInt64) { self.address = address }
}

/// What went into a metadata image or came out of it.
package struct MetadataImageSummary: Hashable, Sendable {
    /// Blocks.
    package var records: UInt64 = 0
    /// Blocks of which something was left out.
    package var leftOut: UInt64 = 0
    /// Blocks that could not be read.
    package var unreadable: UInt64 = 0
    /// Bytes of the file.
    package var byteCount: UInt64 = 0

    mutating func count(_ record: MetadataImageRecord) {
        records += 1
        if record.flags & MetadataImageRecord.leftOut != 0 { leftOut += 1 }
        if record.flags & MetadataImageRecord.unreadable != 0 { unreadable += 1 }
        byteCount += UInt64(MetadataImageRecord.byteCount) + UInt64(record.length)
    }

    /// Tells them.
    package func show(on sheet: Sheet) {
        sheet.field("blocks", records)
        sheet.field("blocks with something left out", leftOut)
        sheet.field("unreadable blocks", unreadable)
        sheet.field("bytes", byteCount)
        if unreadable > 0 { sheet.damage("\(unreadable) blocks could not be read; they are zeros") }
    }
}
