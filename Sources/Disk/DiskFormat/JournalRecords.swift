// A journal is one contiguous run of blocks. Block 0 is its header; the rest is a ring of
// transactions:
//
//   descriptor(s) · images · commit
//
// A descriptor lists up to `entriesPerDescriptor` blocks: where each belongs, its version, the
// resource that covers it and the checksum of its image; its images follow it. The commit block
// names the sequence number and a checksum over all descriptors, so a transaction counts only if
// every byte of it arrived. The header names the oldest transaction that may not yet be in place
// everywhere (the tail); it is rewritten only when the tail moves.
//
// In the block headers of descriptors and commits `owner` is the sequence number and `version` the
// position in the ring, so that remains of an older round are never taken for the present.

package import Vocabulary

/// The first block of a journal.
package struct JournalHeader: Hashable, Sendable {
    package var slot: SlotIndex
    /// Sequence number of the transaction at `tail`, or of the next one if the journal is empty.
    /// From 1.
    package var tailSequence: UInt64
    /// Block of the ring (1 ..< length) where that transaction begins.
    package var tail: UInt32
    /// Blocks of the journal, header included.
    package var length: UInt32
    /// Nothing to replay: the last owner left in order.
    package var isClean: Bool

    package init(
        slot: SlotIndex,
        tailSequence: UInt64,
        tail: UInt32,
        length: UInt32,
        isClean: Bool
    ) {
        self.slot = slot
        self.tailSequence = tailSequence
        self.tail = tail
        self.length = length
        self.isClean = isClean
    }

    /// Encodes and seals the header that belongs at `address`; `version` grows with each rewriting.
    package func write(
        to block: UnsafeMutableRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID,
        version: UInt64
    ) {
        block.clear(0, block.count)
        BlockHeader(
            kind: .journalHeader,
            address: address,
            version: version,
            volume: volume,
            owner: UInt64(slot.rawValue),
            generation: 0
        ).write(to: block)
        block.put64(tailSequence, 64)
        block.put32(tail, 72)
        block.put32(length, 76)
        block.put32(isClean ? 1 : 0, 80)
        BlockHeader.seal(block)
    }

    /// The fields as they stand in a block, right or wrong: for looking at damage.
    package init(unchecked block: UnsafeRawBufferPointer) {
        self.init(
            slot: SlotIndex(UInt32(truncatingIfNeeded: StatedHeader(block).owner)),
            tailSequence: block.u64(64),
            tail: block.u32(72),
            length: block.u32(76),
            isClean: block.u32(80) & 1 != 0
        )
    }

    /// Verifies and decodes; the version comes with it.
    package static func read(
        verifying block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID,
        slot: SlotIndex
    ) throws(FormatError) -> (header: JournalHeader, version: UInt64) {
        let header = try BlockHeader(
            verifying: block,
            at: address,
            volume: volume,
            kind: .journalHeader
        )
        guard header.owner == UInt64(slot.rawValue) else {
            throw .wrongOwner(address, expected: UInt64(slot.rawValue), found: header.owner)
        }
        let decoded = JournalHeader(unchecked: block)
        guard decoded.length >= SlotDescriptor.minimumJournalLength,
            (1..<decoded.length).contains(decoded.tail)
        else {
            throw .invalidField(address, field: "tail", value: UInt64(decoded.tail))
        }
        guard (1...BlockHeader.largestNumber).contains(decoded.tailSequence) else {
            throw .invalidField(address, field: "sequence", value: decoded.tailSequence)
        }
        return (decoded, header.version)
    }
}

/// One block of a transaction.
package struct JournalEntry: Hashable, Sendable {
    package var address: BlockAddress
    package var version: UInt64
    /// The lock under which the block was changed: recovery's footprint.
    package var covering: ResourceName
    /// CRC32C of the whole image.
    package var checksum: UInt32

    package static let byteCount = 40

    package init(
        address: BlockAddress,
        version: UInt64,
        covering: ResourceName,
        checksum: UInt32
    ) {
        self.address = address
        self.version = version
        self.covering = covering
        self.checksum = checksum
    }

    /// Decodes the entry at `offset`; nil if its resource kind is unknown.
    package init?(_ block: UnsafeRawBufferPointer, at offset: Int) {
        guard let kind = ResourceKind(rawValue: block[offset + 36]) else { return nil }
        self.init(
            address: BlockAddress(block.u64(offset)),
            version: block.u64(offset + 8),
            covering: ResourceName(
                kind: kind,
                number: block.u64(offset + 16),
                generation: block.u64(offset + 24)
            ),
            checksum: block.u32(offset + 32)
        )
    }

    /// Encodes the entry at `offset`.
    package func write(to block: UnsafeMutableRawBufferPointer, at offset: Int) {
        block.put64(address.rawValue, offset)
        block.put64(version, offset + 8)
        block.put64(covering.number, offset + 16)
        block.put64(covering.generation, offset + 24)
        block.put32(checksum, offset + 32)
        block[offset + 36] = covering.kind.rawValue
        block[offset + 37] = 0
        block.put16(0, offset + 38)
    }
}

/// The fields of a descriptor.
package struct JournalDescriptorHeader: Hashable, Sendable {
    package var count: UInt32
    /// Which descriptor of the transaction it is, from 0.
    package var index: UInt32

    package static let entriesOffset = 80

    package init(count: UInt32, index: UInt32) {
        self.count = count
        self.index = index
    }

    /// Decodes the fields.
    package init(fields block: UnsafeRawBufferPointer) {
        self.init(count: block.u32(64), index: block.u32(68))
    }

    /// Writes the fields.
    package func writeFields(to block: UnsafeMutableRawBufferPointer) {
        block.put32(count, 64)
        block.put32(index, 68)
    }

    /// How many entries fit into one descriptor.
    package static func entriesPerDescriptor(blockSize: Int) -> Int {
        (blockSize - entriesOffset) / JournalEntry.byteCount
    }
}

/// The fields of a commit block.
package struct JournalCommitHeader: Hashable, Sendable {
    /// Blocks of the transaction, descriptors and images, without the commit block.
    package var blockCount: UInt32
    /// CRC32C over the checksums of its descriptors, in order.
    package var checksum: UInt32

    package init(blockCount: UInt32, checksum: UInt32) {
        self.blockCount = blockCount
        self.checksum = checksum
    }

    /// Decodes the fields.
    package init(fields block: UnsafeRawBufferPointer) {
        self.init(blockCount: block.u32(64), checksum: block.u32(68))
    }

    /// Writes the fields.
    package func writeFields(to block: UnsafeMutableRawBufferPointer) {
        block.put32(blockCount, 64)
        block.put32(checksum, 68)
    }
}
