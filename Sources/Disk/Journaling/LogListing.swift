// A log as whoever looks at a volume wants to see it: transaction by transaction, and why it ends
// where it does. The same reading as that of a replay (`LogReader`).

package import BlockIO
package import DiskFormat
package import Vocabulary

/// One image of a transaction.
package struct ListedImage: Hashable, Sendable {
    package var entry: JournalEntry
    /// The block of the ring that holds it.
    package var place: BlockAddress
    /// What the image says it is.
    package var kind: BlockKind?
}

/// One whole transaction of a log.
package struct ListedTransaction: Hashable, Sendable {
    package var sequence: UInt64
    /// The block of the ring where it begins.
    package var place: BlockAddress
    /// Blocks of the ring that it takes: descriptors, images, commit.
    package var blockCount: UInt64
    package var images: [ListedImage]
}

/// Reads the log of a slot from its tail on, without writing.
package final class LogListing {
    package let header: JournalHeader
    /// Of the header's block.
    package let version: UInt64
    private let ring: LogRing
    private let reader: LogReader

    /// The log of the journal that a sound descriptor leads to.
    ///
    /// - Throws: `.format` if the journal's header is damaged; `.device`.
    package init(
        device: any BlockDevice,
        superblock: Superblock,
        descriptor: SlotDescriptor
    ) async throws(StorageError) {
        ring = LogRing(descriptor: descriptor, superblock: superblock)
        (header, version) = try await ring.readHeader(from: device)
        reader = LogReader(device: device, ring: ring, header: header)
    }

    /// Where the next transaction begins or would begin.
    package var nextPlace: BlockAddress { ring.address(reader.place) }
    /// Its number.
    package var nextSequence: UInt64 { reader.sequence }
    /// Why there is no further transaction: once `next` has returned nil.
    package var whyEnded: LogEnd? { reader.whyEnded }

    /// The next whole transaction; nil at the end of the log.
    ///
    /// - Throws: `.format` if a block arrived whole and holds what no writer produces; `.device`.
    package func next() async throws(StorageError) -> ListedTransaction? {
        let (sequence, start) = (reader.sequence, reader.place)
        guard let found = try await reader.next() else { return nil }
        var images: [ListedImage] = []
        for block in found {
            let image = try await reader.block(block.place)
            images.append(
                ListedImage(
                    entry: block.entry,
                    place: ring.address(block.place),
                    kind: StatedHeader(image).kind
                )
            )
        }
        return ListedTransaction(
            sequence: sequence,
            place: ring.address(start),
            blockCount: reader.place - start,
            images: images
        )
    }
}
