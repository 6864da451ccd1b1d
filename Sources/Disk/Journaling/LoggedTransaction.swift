import BlockIO
import DiskFormat
import Vocabulary

/// A compound transaction that collects changes.
final class RunningTransaction {
    let sequence: UInt64

    /// Distinct blocks changed so far.
    var blocks: [MetadataBlock] = []
    /// Blocks that open handles may still add.
    var promised = 0
    var openHandles = 0
    /// No more handles: the commit waits for those that are open.
    var isClosing = false
    var commitWanted = false
    var isTimed = false
    /// Locks under which something was changed or freed.
    var touched: Set<ResourceName> = []
    /// Addresses freed in it.
    var forgotten: [BlockAddress] = []
    var ordered: [any OrderedData] = []
    var orderedIdentities: Set<ObjectIdentifier> = []
    var callbacks: [() -> Void] = []

    init(sequence: UInt64) { self.sequence = sequence }

    /// Whether there is anything to commit. Once true it stays true.
    var hasContent: Bool {
        !blocks.isEmpty || !forgotten.isEmpty || !ordered.isEmpty || !callbacks.isEmpty
    }

    /// Blocks it has and may still get.
    var reserved: Int { blocks.count + promised }
}

/// A compound transaction whose content is fixed: in the log, or on its way.
final class LoggedTransaction {
    struct Image {
        var block: MetadataBlock
        var version: UInt64
        /// Byte offset in `buffer`.
        var offset: Int
    }

    let sequence: UInt64
    let touched: Set<ResourceName>
    let forgotten: [BlockAddress]

    /// Where it begins and how many blocks of the ring it occupies.
    let place: UInt64
    let blockCount: UInt64

    /// Descriptors, images and commit, as they stand in the log. Given up when all images are home.
    private(set) var buffer: AlignedBuffer?

    /// Until it is durable.
    var images: [Image] = []
    /// From then on: what it has or had to bring home.
    var copies: [HomeCopy] = []
    /// How many of its images are the newest of their block and not durably in place (J6).
    private(set) var remaining = 0

    /// Gives every block its next version and takes its image. No handle is open.
    init(_ running: RunningTransaction, place: UInt64, ring: LogRing) {
        precondition(running.openHandles == 0, "J2: a snapshot under an open handle")
        sequence = running.sequence
        touched = running.touched
        forgotten = running.forgotten
        self.place = place
        blockCount = ring.cost(images: running.blocks.count)
        let buffer = AlignedBuffer(byteCount: Int(blockCount) * ring.blockSize)
        self.buffer = buffer
        images.reserveCapacity(running.blocks.count)
        encode(running.blocks, into: buffer, ring)
    }

    private func encode(_ blocks: [MetadataBlock], into buffer: AlignedBuffer, _ ring: LogRing) {
        var next = 0
        var checksum: UInt32 = 0
        func block(_ index: Int) -> UnsafeMutableRawBufferPointer {
            buffer.bytes.window(index * ring.blockSize, ring.blockSize)
        }
        for first in stride(from: 0, to: blocks.count, by: ring.entriesPerDescriptor) {
            let group = blocks[first..<min(first + ring.entriesPerDescriptor, blocks.count)]
            let descriptor = block(next)
            writeHeader(.journalDescriptor, to: descriptor, at: next, ring)
            JournalDescriptorHeader(
                count: UInt32(group.count),
                index: UInt32(first / ring.entriesPerDescriptor)
            ).writeFields(to: descriptor)
            next += 1
            for (position, member) in group.enumerated() {
                let version = member.version + 1
                BlockHeader.setVersion(version, of: member.bytes)
                BlockHeader.seal(member.bytes)
                buffer.bytes.put(member.bytes.readOnly, next * ring.blockSize)
                JournalEntry(
                    address: member.address,
                    version: version,
                    covering: member.covering,
                    checksum: crc32c(member.bytes.readOnly)
                ).write(
                    to: descriptor,
                    at: JournalDescriptorHeader.entriesOffset + position * JournalEntry.byteCount
                )
                images.append(
                    Image(block: member, version: version, offset: next * ring.blockSize)
                )
                next += 1
            }
            BlockHeader.seal(descriptor)
            checksum = crc32c(descriptor.readOnly.window(8, 4), startingWith: checksum)
        }
        let commit = block(next)
        writeHeader(.journalCommit, to: commit, at: next, ring)
        JournalCommitHeader(blockCount: UInt32(next), checksum: checksum).writeFields(to: commit)
        BlockHeader.seal(commit)
        precondition(next + 1 == Int(blockCount), "J3: the snapshot is not as long as reserved")
    }

    private func writeHeader(
        _ kind: BlockKind,
        to block: UnsafeMutableRawBufferPointer,
        at index: Int,
        _ ring: LogRing
    ) {
        let there = place + UInt64(index)
        block.clear(0, block.count)
        BlockHeader(
            kind: kind,
            address: ring.address(there),
            version: UInt64(ring.index(there)),
            volume: ring.superblock.volume,
            owner: sequence,
            generation: 0
        ).write(to: block)
    }

    /// One more image to bring home.
    func retain() { remaining += 1 }

    /// One image is durably in place, or a newer one is durable in the log.
    func release() {
        precondition(remaining > 0, "J6: transaction \(sequence) released too often")
        remaining -= 1
        if remaining == 0 {
            buffer = nil
            copies = []
        }
    }
}

/// What stands between the log and a block's place: exists while the newest committed image of an
/// address is not durably in place, or a write to that place is in flight (J5).
final class HomeCopy {
    struct Image {
        var transaction: LoggedTransaction
        var offset: Int
        var version: UInt64
    }

    let address: BlockAddress
    var covering: ResourceName
    var indexInCovering = 0

    /// The newest committed image, until it is durably in place or the block is freed.
    var image: Image?
    /// That image has been written in place; a flush has not followed yet.
    var isWritten = false
    /// A write in place is in flight, perhaps of an older image.
    var isWriting = false
    /// The write in flight is of a block that was freed or given to another lock meanwhile (J8).
    var isOrphanWrite = false
    /// Keeps the block cached until its image is in place (M2).
    var block: MetadataBlock?

    init(address: BlockAddress, covering: ResourceName) {
        self.address = address
        self.covering = covering
    }

    /// Whether its image still has to be written.
    var needsWrite: Bool { image != nil && !isWritten }
}

/// The copies of one lock, in no particular order.
final class CoveredCopies {
    var copies: [HomeCopy] = []
}
