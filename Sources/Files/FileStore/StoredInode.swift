package import DiskFormat
package import Journaling
package import Vocabulary

/// An inode in memory: its block and the decoded fields. One object per inode while its lock is
/// held.
package final class StoredInode {
    package let number: InodeNumber
    package let block: MetadataBlock

    /// The fields. The caller may change times, owner, permissions, link count, flags, parent and
    /// (for regular files) size, and then calls `store`; layout, counts and attributes belong to
    /// the store.
    package var record: InodeRecord

    /// Grows with each change of the inode's tree or attributes (F2).
    package private(set) var structureVersion: UInt64 = 0

    init(number: InodeNumber, block: MetadataBlock, record: InodeRecord) {
        self.number = number
        self.block = block
        self.record = record
    }

    /// Writes the fields into the block, as part of a transaction.
    package func store(in transaction: Transaction) {
        transaction.modify(block)
        record.writeFields(to: block.bytes)
    }

    /// As `store`, after the tree, body or attributes have changed: what was prepared before is
    /// void.
    func storeStructure(in transaction: Transaction) {
        structureVersion += 1
        store(in: transaction)
    }

    /// Bytes of the body that are not taken by inline attributes.
    var bodyLength: Int { record.bodyLength(blockSize: block.bytes.count) }

    /// Bytes of the body in use.
    var bodyUsed: Int {
        switch record.layout {
        case .inlineData: Int(clamping: record.size)
        case .extents where record.height == 0: Int(record.rootCount) * Extent.byteCount
        case .extents, .directoryIndex: Int(record.rootCount) * TreePointer.byteCount
        case .inlineDirectory: Int(record.rootLength)
        case .none: 0
        }
    }

    /// Bytes of the body that inline attributes always leave, so that every layout can begin: eight
    /// extents or twelve pointers.
    static let smallestBody = 192
}
