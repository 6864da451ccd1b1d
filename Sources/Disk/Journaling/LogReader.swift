import BlockIO
package import DiskFormat
package import Vocabulary

/// Why the reading of a log ends: what stands where the next transaction would, or in it.
package enum LogEnd: Hashable, Sendable, CustomStringConvertible {
    /// The whole ring has been read.
    case ringIsFull
    /// No block of a log, or a torn one.
    case noBlockOfLog(BlockAddress, FormatError)
    /// A sound block of another transaction: what is left of an older round.
    case otherTransaction(BlockAddress, sequence: UInt64)
    case descriptorOutOfOrder(BlockAddress)
    /// An image that is not the one its descriptor speaks of.
    case imageTorn(BlockAddress, of: BlockAddress)
    /// A commit of other descriptors than those before it.
    case commitWrong(BlockAddress)

    package var description: String {
        switch self {
        case .ringIsFull: "the whole ring has been read"
        case .noBlockOfLog(_, let error): "\(error)"
        case .otherTransaction(let at, let sequence):
            "\(at) is left from transaction \(sequence)"
        case .descriptorOutOfOrder(let at): "the descriptor in \(at) is not the next one"
        case .imageTorn(let at, let of):
            "\(at) should hold the image of \(of), and does not"
        case .commitWrong(let at): "the commit in \(at) is not of what stands before it"
        }
    }
}

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
        case none(LogEnd)
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
    /// Why the log ends where it does: once `next` has returned nil.
    private(set) var whyEnded: LogEnd?

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
            case .none(let reason): return ended(reason)
            case .descriptor(let descriptor):
                let entries = try entries(of: bytes, descriptor, at: at)
                guard descriptor.index == descriptors else {
                    return ended(.descriptorOutOfOrder(ring.address(at)))
                }
                guard at + UInt64(entries.count) + 1 < end else { return ended(.ringIsFull) }
                checksum = crc32c(bytes.window(8, 4), startingWith: checksum)
                descriptors += 1
                at += 1
                for entry in entries {
                    let image = try await block(at)
                    guard crc32c(image) == entry.checksum else {
                        return ended(.imageTorn(ring.address(at), of: entry.address))
                    }
                    try check(image, entry)
                    found.append(Found(entry: entry, place: at))
                    at += 1
                }
            case .commit(let commit):
                guard UInt64(commit.blockCount) == at - place, commit.checksum == checksum else {
                    return ended(.commitWrong(ring.address(at)))
                }
                place = at + 1
                sequence += 1
                return found
            }
        }
        return ended(.ringIsFull)
    }

    private func ended(_ reason: LogEnd) -> [Found]? {
        whyEnded = reason
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

    /// The part of the present transaction that stands at a place.
    private func part(_ bytes: UnsafeRawBufferPointer, at place: UInt64) -> Part {
        let address = ring.address(place)
        let header: BlockHeader
        do throws(FormatError) {
            header = try BlockHeader(verifying: bytes, at: address, volume: ring.superblock.volume)
        } catch {
            return .none(.noBlockOfLog(address, error))
        }
        let isPart = header.kind == .journalDescriptor || header.kind == .journalCommit
        guard isPart, header.owner == sequence, header.version == UInt64(ring.index(place)) else {
            return .none(.otherTransaction(address, sequence: header.owner))
        }
        return header.kind == .journalDescriptor
            ? .descriptor(JournalDescriptorHeader(fields: bytes))
            : .commit(JournalCommitHeader(fields: bytes))
    }

    /// The entries of a descriptor that is whole. One that no writer produces is damage, not the
    /// end.
    private func entries(
        of bytes: UnsafeRawBufferPointer,
        _ descriptor: JournalDescriptorHeader,
        at place: UInt64
    ) throws(StorageError) -> [JournalEntry] {
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
            let superblock = ring.superblock
            guard
                superblock.group(of: entry.address) != nil
                    || superblock.quotaBlocks.contains(entry.address.rawValue)
            else {
                throw .format(
                    .invalidField(there, field: "entry address", value: entry.address.rawValue)
                )
            }
            entries.append(entry)
        }
        return entries
    }
}
