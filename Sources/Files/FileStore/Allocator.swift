import DiskFormat
package import Journaling
package import Vocabulary

/// The groups whose locks one operation holds, and its transaction: trees take their blocks from
/// here and give them back here.
///
/// Blocks are set aside first (`reserve`), so that no tree finds itself without one when it is half
/// changed (FileStore F1), whatever other operations of this node do in the meantime.
package final class Allocator {
    package let store: FileStore
    package let transaction: Transaction
    private var holdings: [(group: ResourceGroup, reserved: UInt32)]

    /// `groups` are loaded and their locks are held until `end`.
    package init(store: FileStore, groups: [ResourceGroup], transaction: Transaction) {
        self.store = store
        self.transaction = transaction
        holdings = groups.map { ($0, 0) }
    }

    deinit { end() }

    /// The groups.
    package var groups: [ResourceGroup] { holdings.map(\.group) }

    /// Sets aside `count` metadata blocks over and above what is set aside already; false, and
    /// nothing is changed, if the groups together do not have them.
    package func reserve(metadata count: Int) -> Bool {
        var available = 0
        for holding in holdings { available += Int(holding.group.freeForMetadata) }
        guard count <= available else { return false }
        var missing = UInt32(count)
        for index in holdings.indices where missing > 0 {
            let taken = holdings[index].group.reserve(upTo: missing)
            holdings[index].reserved += taken
            missing -= taken
        }
        precondition(missing == 0)
        return true
    }

    /// Metadata blocks that are set aside and not used.
    package var reserved: Int { holdings.reduce(0) { $0 + Int($1.reserved) } }

    /// Gives back what was set aside and not used. At the end of the operation.
    package func end() {
        for index in holdings.indices {
            holdings[index].group.unreserve(holdings[index].reserved)
            holdings[index].reserved = 0
        }
    }

    /// The held group in which a block lies.
    package func group(of address: BlockAddress) -> ResourceGroup? {
        for holding in holdings where holding.group.contains(address) { return holding.group }
        return nil
    }

    // MARK: data

    /// Takes a run of blocks for file data from the group of `goal`, else from the held groups in
    /// turn; nil if none has a block.
    package func takeData(
        near goal: BlockAddress?,
        wanted: UInt32
    ) -> (start: BlockAddress, length: UInt32)? {
        if let goal, let group = group(of: goal),
            let run = group.allocateData(near: goal, wanted: wanted, in: transaction)
        {
            return run
        }
        for holding in holdings {
            if let run = holding.group.allocateData(near: nil, wanted: wanted, in: transaction) {
                return run
            }
        }
        return nil
    }

    /// Frees file data; its group is held.
    package func freeData(_ first: BlockAddress, length: UInt32) throws(StoreError) {
        try held(first).free(first, length: length, in: transaction)
    }

    // MARK: metadata of inodes

    /// A new tree or attribute block of an inode, out of what is set aside; its header is written.
    func makeBlock(_ kind: BlockKind, for inode: StoredInode) -> MetadataBlock {
        let (address, firstVersion) = takeReserved(near: inode.number.address)
        inode.record.blockCount += 1
        return transaction.create(
            address,
            kind: kind,
            owner: inode.number.address.rawValue,
            generation: inode.number.generation,
            firstVersion: firstVersion,
            covering: .inode(inode.number)
        )
    }

    /// Frees a tree or attribute block of an inode; its group is held.
    func freeBlock(_ block: MetadataBlock, of inode: StoredInode) throws(StoreError) {
        try held(block.address).freeMetadata(block, in: transaction)
        try subtract(1, from: inode)
    }

    /// Lowers an inode's count of blocks.
    func subtract(_ blocks: UInt64, from inode: StoredInode) throws(StoreError) {
        guard inode.record.blockCount > blocks else {
            throw .damaged(inode.number.address, "block count", inode.record.blockCount)
        }
        inode.record.blockCount -= blocks
    }

    func takeReserved(near goal: BlockAddress) -> (address: BlockAddress, firstVersion: UInt64) {
        let near = holdings.firstIndex { $0.reserved > 0 && $0.group.contains(goal) }
        guard let index = near ?? holdings.firstIndex(where: { $0.reserved > 0 }) else {
            preconditionFailure("FileStore F1: a metadata block that was not set aside")
        }
        holdings[index].reserved -= 1
        return holdings[index].group.allocateReserved(in: transaction)
    }

    private func held(_ address: BlockAddress) -> ResourceGroup {
        guard let group = group(of: address) else {
            preconditionFailure("FileStore: \(address) is freed but its group is not held")
        }
        return group
    }
}
