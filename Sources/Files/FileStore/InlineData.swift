// The data of a small file, or the target of a symbolic link, in the body of its inode.
//
// Invariant: bytes of the body behind `size` are zero, so that a file that grows reads zeros there.

import DiskFormat
package import Journaling
import Vocabulary

extension StoredInode {
    /// Whether the data stands in the body.
    package var hasInlineData: Bool { record.layout == .inlineData }

    /// Bytes of data that the body can hold beside the attributes there are.
    package var inlineCapacity: Int { bodyLength }

    /// Copies inline data from `offset` on to the front of `buffer`; returns how many bytes, fewer
    /// only at the end.
    package func readInline(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        precondition(hasInlineData, "no inline data")
        guard offset < record.size, buffer.count > 0 else { return 0 }
        let length = min(buffer.count, Int(record.size - offset))
        buffer.put(
            block.bytes.readOnly.window(InodeRecord.bodyOffset + Int(offset), length),
            0
        )
        return length
    }

    /// All inline data.
    package var inlineData: [UInt8] {
        precondition(hasInlineData, "no inline data")
        return Array(block.bytes.readOnly.window(InodeRecord.bodyOffset, Int(record.size)))
    }

    /// Writes inline data, which ends within `inlineCapacity`; the size grows as needed. The inode
    /// is stored.
    package func writeInline(
        _ bytes: UnsafeRawBufferPointer,
        at offset: UInt64,
        in transaction: Transaction
    ) {
        precondition(
            hasInlineData && offset <= UInt64(inlineCapacity)
                && bytes.count <= inlineCapacity - Int(offset),
            "inline data beyond the body"
        )
        transaction.modify(block)
        block.bytes.put(bytes, InodeRecord.bodyOffset + Int(offset))
        record.size = max(record.size, offset + UInt64(bytes.count))
        store(in: transaction)
    }

    /// Cuts or grows (with zeros) inline data to `size`, which is at most `inlineCapacity`. The
    /// inode is stored.
    package func resizeInline(to size: UInt64, in transaction: Transaction) {
        precondition(
            hasInlineData && size <= UInt64(inlineCapacity),
            "inline data beyond the body"
        )
        transaction.modify(block)
        if size < record.size {
            block.bytes.clear(InodeRecord.bodyOffset + Int(size), Int(record.size - size))
        }
        record.size = size
        store(in: transaction)
    }

    /// Empties the body and makes it the root of an extent tree without extents. Returns the data,
    /// which the caller puts where file data goes; the size stays. The inode is stored.
    package func convertInlineDataToExtents(in transaction: Transaction) -> [UInt8] {
        let data = inlineData
        transaction.modify(block)
        block.bytes.clear(InodeRecord.bodyOffset, bodyLength)
        record.layout = .extents
        record.height = 0
        record.rootCount = 0
        record.rootLength = 0
        storeStructure(in: transaction)
        return data
    }

    /// The way back for a file that has become empty: no extents, size 0. The inode is stored.
    package func convertEmptyExtentsToInlineData(in transaction: Transaction) {
        precondition(
            record.layout == .extents && record.height == 0 && record.rootCount == 0
                && record.size == 0,
            "the file is not empty"
        )
        transaction.modify(block)
        record.layout = .inlineData
        storeStructure(in: transaction)
    }
}
