// The file store: inodes, extents, directories, extended attributes and free space, as transactions
// on cached metadata blocks. It knows no locks. Whoever calls holds the locks of the inodes and
// groups concerned, alone among the tasks of this node when it changes something, and proceeds in
// this order:
//
//   1. prepare       async: reads what is needed, finds out what can be refused; nothing has
//                    changed. Says which groups will be touched and what it costs
//                    (`OperationCost`).
//   2. groups        the caller takes the locks of those groups, ascending, and of those to
//                    allocate from.
//   3. begin         a transaction with the bound, then `Allocator.reserve`.
//   4. change        mostly synchronous, nothing is refused any more.
//   5. end           `Allocator.end`, `Transaction.end`.
//
// Invariants
// F1. What can be refused (no space, name exists, too long) is refused before the first change.
//     After it only `StoreError.storage` may come, and the node withdraws.
// F2. Something prepared is valid until the inode's structure changes
//     (`StoredInode.structureVersion`).
// F3. One `ResourceGroup` object per group while the group's lock is held; it is dropped with the
//     lock, after the journal has settled.
// F4. Metadata from the device never traps and never loops: every field is checked where it is
//     used, and each step down a tree lowers the height.

package import DiskFormat
package import Journaling
package import Vocabulary

/// The store of one mounted volume. Engine-bound.
package final class FileStore {
    package let superblock: Superblock
    package let cache: MetadataCache
    /// Bytes in a block.
    package let blockSize: Int
    private var groups: [UInt32: ResourceGroup] = [:]
    /// Who counts what users and groups use; nil on a volume without quotas. Set before the first inode is
    /// read.
    package var accountant: (any UsageAccountant)?

    package init(superblock: Superblock, cache: MetadataCache) {
        self.superblock = superblock
        self.cache = cache
        blockSize = Int(superblock.blockSize)
    }

    // MARK: inodes

    /// Reads an inode, whose lock is held.
    ///
    /// - Throws: `stale` if the block is not that inode (any more); `storage`.
    package func readInode(_ number: InodeNumber) async throws(StoreError) -> StoredInode {
        guard superblock.group(of: number.address) != nil, number.generation > 0 else {
            throw .stale
        }
        let block: MetadataBlock
        do {
            block = try await cache.block(
                number.address,
                kind: .inode,
                owner: number.address.rawValue,
                generation: number.generation,
                covering: .inode(number)
            )
        } catch {
            throw Self.staleIfAnotherObject(error)
        }
        return try decodeInode(number, block)
    }

    /// An inode whose block is in memory; nil if it is not, or is not that inode.
    package func inodeIfCached(_ number: InodeNumber) -> StoredInode? {
        guard let block = cache.cached(number.address),
            isBlock(block, .inode, owner: number.address.rawValue, number.generation)
        else { return nil }
        return try? decodeInode(number, block)
    }

    private func decodeInode(
        _ number: InodeNumber,
        _ block: MetadataBlock
    ) throws(StoreError) -> StoredInode {
        do {
            let record = try InodeRecord(fields: block.bytes.readOnly, at: number.address)
            try checkCounts(record, at: number.address)
            return StoredInode(
                number: number,
                block: block,
                record: record,
                isNew: false,
                accountant: accountant
            )
        } catch {
            throw .format(error)
        }
    }

    /// Refuses counts that no inode of this volume can have, so that whoever adds to them need not
    /// think of overflow. (A check corrects them: they are no reason to give an inode up.)
    private func checkCounts(
        _ record: InodeRecord,
        at address: BlockAddress
    ) throws(FormatError) {
        guard record.blockCount <= superblock.blockCount else {
            throw .invalidField(address, field: "block count", value: record.blockCount)
        }
        let bytes = superblock.byteOffset(BlockAddress(superblock.blockCount))
        // Of what is no directory nobody reads it, and a check has nothing to correct.
        guard
            !record.isDirectory
                || record.entryCount <= bytes / UInt64(DirectoryEntryRecord.fixedByteCount)
        else {
            throw .invalidField(address, field: "entry count", value: record.entryCount)
        }
        guard record.size <= UInt64(Int64.max) else {
            throw .invalidField(address, field: "size", value: record.size)
        }
    }

    private static func staleIfAnotherObject(_ error: StorageError) -> StoreError {
        guard case .format(let format) = error else { return .storage(error) }
        switch format {
        case .notMetadata, .wrongKind, .wrongOwner, .wrongGeneration: return .stale
        default: return .storage(error)
        }
    }

    /// Whether a cached block is what a pointer says it is.
    func isBlock(
        _ block: MetadataBlock,
        _ kind: BlockKind,
        owner: UInt64,
        _ generation: UInt64
    ) -> Bool {
        let bytes = block.bytes.readOnly
        return bytes.u16(4) == kind.rawValue && bytes.u64(48) == owner
            && bytes.u64(56) == generation
    }

    // MARK: resource groups

    /// Reads a group, whose lock is held, unless it is in memory already.
    package func group(_ index: UInt32) async throws(StoreError) -> ResourceGroup {
        if let group = groups[index] { return group }
        precondition(index < superblock.groupCount, "a group the volume does not have")
        let block: MetadataBlock
        do {
            block = try await cache.block(
                superblock.groupStart(index),
                kind: .resourceGroup,
                owner: UInt64(index),
                generation: 0,
                covering: .resourceGroup(index)
            )
        } catch {
            throw .storage(error)
        }
        // Another task may have been faster (F3).
        if let group = groups[index] { return group }
        let group = try ResourceGroup(index: index, block: block, store: self)
        groups[index] = group
        return group
    }

    /// A group that is in memory.
    package func groupIfLoaded(_ index: UInt32) -> ResourceGroup? { groups[index] }

    // MARK: giving locks up

    /// Before a lock is given up: commits what was changed under it and writes it home, the
    /// tombstones of a group as well.
    package func settle(
        _ resource: ResourceName,
        _ journal: Journal
    ) async throws(StorageError) {
        try await journal.settle(covering: resource)
        var names = tombstoneNames(resource).filter { !journal.isSettled(covering: $0) }
        // Many are written faster together than one by one.
        if names.count > 16 {
            try await journal.checkpointAll()
            names.removeAll { journal.isSettled(covering: $0) }
        }
        for name in names { try await journal.settle(covering: name) }
    }

    /// Whether `settle` would return at once.
    package func isSettled(_ resource: ResourceName, _ journal: Journal) -> Bool {
        journal.isSettled(covering: resource)
            && tombstoneNames(resource).allSatisfy { journal.isSettled(covering: $0) }
    }

    private func tombstoneNames(_ resource: ResourceName) -> [ResourceName] {
        guard resource.kind == .resourceGroup else { return [] }
        return groups[UInt32(resource.number)]?.tombstoneNames ?? []
    }

    /// Forgets a group whose lock is being given up, after `settle` (F3).
    package func dropGroup(_ index: UInt32) {
        groups[index]?.buryTombstones()
        groups[index] = nil
    }
}
