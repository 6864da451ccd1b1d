import BlockIO
import DiskFormat
import Vocabulary

/// The geometry of a journal. Places in the ring are counted without end from the ring's first
/// block; the disk knows only the remainder.
struct LogRing {
    let descriptor: SlotDescriptor
    let superblock: Superblock

    /// Blocks of the ring: the journal without its header.
    var blockCount: UInt64 { UInt64(descriptor.journalLength) - 1 }

    var blockSize: Int { Int(superblock.blockSize) }

    /// Block of the journal (1 ..< length) at a place.
    func index(_ place: UInt64) -> UInt32 { UInt32(place % blockCount) + 1 }

    /// The place of a block of the journal, in the first round.
    func place(ofIndex index: UInt32) -> UInt64 { UInt64(index) - 1 }

    func address(_ place: UInt64) -> BlockAddress {
        descriptor.journalStart + UInt64(index(place))
    }

    /// Blocks from `place` on before the ring wraps.
    func contiguous(from place: UInt64) -> UInt64 { blockCount - place % blockCount }

    var entriesPerDescriptor: Int {
        JournalDescriptorHeader.entriesPerDescriptor(blockSize: blockSize)
    }

    /// Blocks that a transaction of `images` blocks occupies: descriptors, images, commit.
    func cost(images: Int) -> UInt64 {
        let descriptors = (images + entriesPerDescriptor - 1) / entriesPerDescriptor
        return UInt64(images + descriptors + 1)
    }

    // MARK: The header

    func readHeader(
        from device: any BlockDevice
    ) async throws(StorageError) -> (header: JournalHeader, version: UInt64) {
        let buffer = AlignedBuffer(byteCount: blockSize)
        let start = descriptor.journalStart
        try await onDevice { () async throws(DeviceError) in
            try await device.read(buffer.bytes, at: superblock.byteOffset(start))
        }
        let found = try checkingFormat { () throws(FormatError) in
            try JournalHeader.read(
                verifying: buffer.readOnly,
                at: start,
                volume: superblock.volume,
                slot: descriptor.slot
            )
        }
        guard found.header.length == descriptor.journalLength else {
            throw .format(
                .invalidField(start, field: "length", value: UInt64(found.header.length))
            )
        }
        return found
    }

    /// All that the header says stands in its first 512 bytes and the rest is always zero, so that
    /// a torn rewriting leaves the old header or the new one (B3).
    func writeHeader(
        _ header: JournalHeader,
        version: UInt64,
        to device: any BlockDevice
    ) async throws(StorageError) {
        let buffer = AlignedBuffer(byteCount: blockSize)
        header.write(
            to: buffer.bytes,
            at: descriptor.journalStart,
            volume: superblock.volume,
            version: version
        )
        try await onDevice { () async throws(DeviceError) in
            try await device.write(
                buffer.readOnly,
                at: superblock.byteOffset(descriptor.journalStart)
            )
        }
    }
}
