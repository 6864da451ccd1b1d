import BlockIO
import DiskFormat
import Vocabulary

/// Reads the transactions of a log one after the other, from the tail to the first that is not
/// whole.
final class LogReader {
    /// One block of a whole transaction.
    struct Found {
        var entry: JournalEntry
        /// Where its image stands.
        var place: UInt64
    }

    private enum Part {
        case descriptor(JournalDescriptorHeader)
        case commit(JournalCommitHeader)
    }

    private let device: any BlockDevice
    private let ring: LogRing
    private let window: AlignedBuffer
    private let windowBlocks: UInt64
    private var windowPlace: UInt64 = 0
    private var windowCount: UInt64 = 0

    /// Sequence number of the next transaction, and where it would begin.
    private(set) var sequence: UInt64
    private(set) var place: UInt64
    private let end: UInt64

    init(device: any BlockDevice, ring: LogRing, header: JournalHeader) {
        self.device = device
        self.ring = ring
        windowBlocks = min(64, ring.blockCount)
        window = AlignedBuffer(byteCount: Int(windowBlocks) * ring.blockSize)
        sequence = header.tailSequence
        place = ring.place(ofIndex: header.tail)
        end = place + ring.blockCount
    }

    /// The block at a place. The bytes are valid until the next call.
    func block(_ place: UInt64) async throws(StorageError) -> UnsafeRawBufferPointer {
        if place < windowPlace || place >= windowPlace + windowCount {
            let count = min(windowBlocks, ring.contiguous(from: place))
            windowCount = 0
            let bytes = window.bytes.window(0, Int(count) * ring.blockSize)
            let offset = ring.superblock.byteOffset(ring.address(place))
            try await onDevice { () async throws(DeviceError) in
                try await device.read(bytes, at: offset)
            }
            windowPlace = place
            windowCount = count
        }
        return window.readOnly.window(Int(place - windowPlace) * ring.blockSize, ring.blockSize)
    }

    /// The blocks of the next transaction, or nil if what follows is not a whole transaction: the
    /// end of the log.
    func next() async throws(StorageError) -> [Found]? {
        var found: [Found] = []
        var at = place
        var checksum: UInt32 = 0
        var descriptors: UInt32 = 0
        while at < end {
            let bytes = try await block(at)
            switch part(bytes, at: at) {
            case nil: return nil
            case .descriptor(let descriptor):
                let entries = try entries(of: bytes, descriptor, at: at)
                guard let entries, descriptor.index == descriptors,
                    at + UInt64(entries.count) + 1 < end
                else { return nil }
                checksum = crc32c(bytes.window(8, 4), startingWith: checksum)
                descriptors += 1
                at += 1
                for entry in entries {
                    let image = try await block(at)
                    guard crc32c(image) == entry.checksum else { return nil }
                    try check(image, entry)
                    found.append(Found(entry: entry, place: at))
                    at += 1
                }
            case .commit(let commit):
                guard UInt64(commit.blockCount) == at - place, commit.checksum == checksum else {
                    return nil
                }
                place = at + 1
                sequence += 1
                return found
            }
        }
        return nil
    }

    /// An image that arrived whole and is not what its entry says was never written by a journal.
    private func check(
        _ image: UnsafeRawBufferPointer,
        _ entry: JournalEntry
    ) throws(StorageError) {
        let header = try checkingFormat { () throws(FormatError) in
            try BlockHeader(
                verifying: image,
                at: entry.address,
                volume: ring.superblock.volume
            )
        }
        guard header.version == entry.version else {
            throw .format(
                .invalidField(entry.address, field: "logged version", value: header.version)
            )
        }
    }

    /// The part of the present transaction that stands at a place, or nil.
    private func part(_ bytes: UnsafeRawBufferPointer, at place: UInt64) -> Part? {
        guard
            let header = try? BlockHeader(
                verifying: bytes,
                at: ring.address(place),
                volume: ring.superblock.volume
            ),
            header.owner == sequence, header.version == UInt64(ring.index(place))
        else { return nil }
        switch header.kind {
        case .journalDescriptor: return .descriptor(JournalDescriptorHeader(fields: bytes))
        case .journalCommit: return .commit(JournalCommitHeader(fields: bytes))
        default: return nil
        }
    }

    /// The entries of a descriptor that is whole. One that no writer produces is damage, not the
    /// end.
    private func entries(
        of bytes: UnsafeRawBufferPointer,
        _ descriptor: JournalDescriptorHeader,
        at place: UInt64
    ) throws(StorageError) -> [JournalEntry]? {
        let there = ring.address(place)
        guard descriptor.count > 0, descriptor.count <= UInt32(ring.entriesPerDescriptor) else {
            throw .format(
                .invalidField(there, field: "entry count", value: UInt64(descriptor.count))
            )
        }
        var entries: [JournalEntry] = []
        for index in 0..<Int(descriptor.count) {
            let offset = JournalDescriptorHeader.entriesOffset + index * JournalEntry.byteCount
            guard let entry = JournalEntry(bytes, at: offset) else {
                throw .format(
                    .invalidField(there, field: "resource kind", value: UInt64(bytes[offset + 36]))
                )
            }
            guard ring.superblock.group(of: entry.address) != nil else {
                throw .format(
                    .invalidField(there, field: "entry address", value: entry.address.rawValue)
                )
            }
            entries.append(entry)
        }
        return entries
    }
}
