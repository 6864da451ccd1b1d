// Making and freeing inodes.

package import DiskFormat
import Journaling
package import Vocabulary

extension FileStore {
    /// What `makeInode` needs.
    package static let makeInodeCost = OperationCost(newBlocks: 1, modifiedBlocks: 1)

    /// Makes an inode near `goal` (its directory, say) out of a block that is set aside. The layout
    /// follows from the type in `record.mode`; all other fields of `record` are taken as they are.
    package func makeInode(
        _ record: InodeRecord,
        near goal: BlockAddress,
        with allocator: Allocator
    ) -> StoredInode {
        let (address, firstVersion) = allocator.takeReserved(near: goal)
        guard let group = allocator.group(of: address) else {
            preconditionFailure("a block of a group that is not held")
        }
        let number = group.nameInode(at: address, in: allocator.transaction)
        let block = allocator.transaction.create(
            address,
            kind: .inode,
            owner: address.rawValue,
            generation: number.generation,
            firstVersion: firstVersion,
            covering: .inode(number)
        )
        var record = record
        record.layout = Self.firstLayout(of: record)
        record.blockCount = 1
        let inode = StoredInode(
            number: number,
            block: block,
            record: record,
            isNew: true,
            accountant: accountant
        )
        inode.storeStructure(in: allocator.transaction)
        return inode
    }

    private static func firstLayout(of record: InodeRecord) -> InodeLayout {
        if record.isDirectory { return .inlineDirectory }
        return record.isRegular || record.isSymbolicLink ? .inlineData : .none
    }

    /// What `freeInode` needs; the inode's own group is held.
    package static let freeInodeCost = OperationCost(newBlocks: 0, modifiedBlocks: 2)

    /// Frees an inode whose extents, tree and attribute blocks have been removed. Its block becomes
    /// a tombstone (`ResourceGroup`), and `inode` is void.
    ///
    /// - Throws: `storage` if the inode still counts other blocks or its group's state does not
    ///   fit.
    package func freeInode(
        _ inode: StoredInode,
        with allocator: Allocator
    ) throws(StoreError) {
        guard inode.record.blockCount == 1, inode.record.attributeBlock == .none else {
            throw .damaged(inode.number.address, "block count", inode.record.blockCount)
        }
        guard let group = allocator.group(of: inode.number.address) else {
            preconditionFailure("an inode is freed but its group is not held")
        }
        inode.discharge(in: allocator.transaction)
        try group.freeInode(inode, in: allocator.transaction)
    }
}
