package import BlockIO
import DiskFormat
package import Journaling
import Vocabulary

/// Why the store refused or failed.
///
/// Everything but `storage` is decided before the first byte is changed; `storage` may also come
/// later, and the node then withdraws.
package enum StoreError: Error, Sendable {
    /// The device failed, metadata is not what it should be, or the journal has stopped.
    case storage(StorageError)
    /// The device could not read the data of a file.
    case data(DeviceError)
    /// No such name, no such attribute.
    case notFound
    /// The name or attribute is already there.
    case exists
    /// No room: in the groups held, among names of one hash, or for more extended attributes.
    case noSpace
    /// A name is longer than the format allows.
    case tooLong
    /// A value is longer than the format allows.
    case tooLarge
    /// Empty, or with a slash or a zero byte, or "." or "..".
    case invalidName
    /// The inode that was asked for is gone: its block is free, or holds a later inode or something
    /// else.
    case stale

    /// A structure that no writer of this format produces.
    static func damaged(_ block: BlockAddress, _ field: String, _ value: UInt64) -> StoreError {
        .storage(.format(.invalidField(block, field: field, value: value)))
    }

    static func format(_ error: FormatError) -> StoreError { .storage(.format(error)) }
}

/// What an operation needs at most, known before its transaction begins.
package struct OperationCost: Hashable, Sendable {
    /// Metadata blocks that must be set aside: `Allocator.reserve(metadata:)`.
    package var newBlocks: Int
    /// Blocks that the transaction must admit, new ones included; the blocks of the resource groups
    /// held come on top.
    package var modifiedBlocks: Int

    package init(newBlocks: Int, modifiedBlocks: Int) {
        self.newBlocks = newBlocks
        self.modifiedBlocks = modifiedBlocks
    }

    package static let nothing = OperationCost(newBlocks: 0, modifiedBlocks: 0)

    package static func + (left: OperationCost, right: OperationCost) -> OperationCost {
        OperationCost(
            newBlocks: left.newBlocks + right.newBlocks,
            modifiedBlocks: left.modifiedBlocks + right.modifiedBlocks
        )
    }

    package static func += (left: inout OperationCost, right: OperationCost) {
        left = left + right
    }
}
