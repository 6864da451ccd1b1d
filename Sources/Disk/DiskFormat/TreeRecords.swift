// The two trees of an inode have one shape: sorted records in leaves, sorted (key, child) pointers
// above them, the root in the inode's body. Leaves of the extent tree hold extents, leaves of a
// directory hold entries. The key of a pointer is a lower bound of the keys below it.
//
// A tree block after its header:  64 count u16 · 66 height u16 (0 = leaf) · 68 bytes used u32
// (directory leaves) · 72 records

package import Vocabulary

/// A run of blocks of a file.
package struct Extent: Hashable, Sendable {
    /// First block of the run, counted in blocks from the start of the file.
    package var logical: UInt64
    package var physical: BlockAddress
    /// Blocks in the run, 1 or more.
    package var length: UInt32
    /// Allocated but never written: reads as zeros.
    package var isUnwritten: Bool

    package static let byteCount = 24

    package init(logical: UInt64, physical: BlockAddress, length: UInt32, isUnwritten: Bool = false)
    {
        self.logical = logical
        self.physical = physical
        self.length = length
        self.isUnwritten = isUnwritten
    }

    /// Decodes the record at `offset`.
    package init(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        self.init(
            logical: bytes.u64(offset),
            physical: BlockAddress(bytes.u64(offset + 8)),
            length: bytes.u32(offset + 16),
            isUnwritten: bytes.u32(offset + 20) & 1 != 0
        )
    }

    /// Encodes the record at `offset`.
    package func write(to bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.put64(logical, offset)
        bytes.put64(physical.rawValue, offset + 8)
        bytes.put32(length, offset + 16)
        bytes.put32(isUnwritten ? 1 : 0, offset + 20)
    }

    /// The first logical block behind the run. (Saturates: bytes that were not checked may say
    /// anything.)
    package var logicalEnd: UInt64 {
        let (end, overflows) = logical.addingReportingOverflow(UInt64(length))
        return overflows ? .max : end
    }

    /// Whether the run is one that a writer of this format could have made: not empty, below the
    /// end of the largest file, and inside one resource group, whose first block it does not touch.
    package func isPlausible(in superblock: Superblock) -> Bool {
        guard length > 0, logicalEnd <= superblock.maximumFileBlocks,
            let group = superblock.group(of: physical)
        else { return false }
        let within = physical - superblock.groupStart(group)
        return within > 0 && within + UInt64(length) <= UInt64(superblock.groupLength(group))
    }
}

/// A child of a tree node.
package struct TreePointer: Hashable, Sendable {
    package var key: UInt64
    package var child: BlockAddress

    package static let byteCount = 16

    package init(key: UInt64, child: BlockAddress) {
        self.key = key
        self.child = child
    }

    /// Decodes the record at `offset`.
    package init(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        self.init(key: bytes.u64(offset), child: BlockAddress(bytes.u64(offset + 8)))
    }

    /// Encodes the record at `offset`.
    package func write(to bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.put64(key, offset)
        bytes.put64(child.rawValue, offset + 8)
    }
}

/// The few bytes between a tree block's header and its records.
package struct TreeNodeHeader: Hashable, Sendable {
    package var count: UInt16
    /// 0 for a leaf.
    package var height: UInt16
    /// Bytes used by the entries of a directory leaf; 0 elsewhere.
    package var usedBytes: UInt32

    package static let recordsOffset = 72

    package init(count: UInt16, height: UInt16, usedBytes: UInt32) {
        self.count = count
        self.height = height
        self.usedBytes = usedBytes
    }

    /// Decodes the fields of a tree block.
    package init(fields block: UnsafeRawBufferPointer) {
        self.init(count: block.u16(64), height: block.u16(66), usedBytes: block.u32(68))
    }

    /// Writes the fields of a tree block.
    package func writeFields(to block: UnsafeMutableRawBufferPointer) {
        block.put16(count, 64)
        block.put16(height, 66)
        block.put32(usedBytes, 68)
    }
}
