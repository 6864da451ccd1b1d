// Extended attributes are one stream of records: name length u8 · reserved u8 · value length u16 ·
// name · value, sorted by nothing. The stream stands at the end of the inode's block when it fits
// there, else in a chain of blocks, each: header · 64 next u64 · 72 bytes here u32 · 76 reserved
// u32 · 80 bytes.

package import Vocabulary

/// One record of the stream.
package struct AttributeRecord: Hashable, Sendable {
    package var nameLength: UInt8
    package var valueLength: UInt16

    package static let fixedByteCount = 4
    package static let longestName = 255
    package static let longestValue = 65_535
    /// All records of an inode together.
    package static let longestStream = 65_536 + 4096

    package init(nameLength: UInt8, valueLength: UInt16) {
        self.nameLength = nameLength
        self.valueLength = valueLength
    }

    /// Decodes the record at `offset`; nil if it would reach beyond the stream.
    package init?(_ stream: UnsafeRawBufferPointer, at offset: Int) {
        guard offset + Self.fixedByteCount <= stream.count else { return nil }
        self.init(nameLength: stream[offset], valueLength: stream.u16(offset + 2))
        guard nameLength > 0, offset + byteCount <= stream.count else { return nil }
    }

    /// Bytes of the record.
    package var byteCount: Int { Self.fixedByteCount + Int(nameLength) + Int(valueLength) }
}

/// The fields of a block of extended attributes.
package struct AttributeBlockHeader: Hashable, Sendable {
    package var next: BlockAddress
    package var byteCount: UInt32

    package static let bytesOffset = 80

    package init(next: BlockAddress, byteCount: UInt32) {
        self.next = next
        self.byteCount = byteCount
    }

    /// The fields as they stand in a block, right or wrong: for looking at damage.
    package init(unchecked block: UnsafeRawBufferPointer) {
        self.init(next: BlockAddress(block.u64(64)), byteCount: block.u32(72))
    }

    /// Decodes the fields.
    package init(fields block: UnsafeRawBufferPointer, at address: BlockAddress)
        throws(FormatError)
    {
        self.init(unchecked: block)
        guard Int(byteCount) <= block.count - Self.bytesOffset else {
            throw .invalidField(address, field: "attribute bytes", value: UInt64(byteCount))
        }
    }

    /// Writes the fields.
    package func writeFields(to block: UnsafeMutableRawBufferPointer) {
        block.put64(next.rawValue, 64)
        block.put32(byteCount, 72)
    }
}
