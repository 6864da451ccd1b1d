// A resource group in memory: who may have which block.
//
// On disk each block of the group is free, data, metadata or quarantined
// (DiskFormat/ResourceGroupRecord). In memory a block is besides *frozen* from the moment it is
// freed until the transaction that frees it is durable. Until then a crash brings the old owner
// back, and it must find its content: so nobody else may write there, be it data (written before
// the commit) or metadata (written home by a later transaction).
//
//      free --allocateData--> data --free--> free, frozen --commit--> free
//      free, quarantined --allocateMetadata--> metadata --freeMetadata--> quarantined, frozen
//            --commit--> quarantined --releaseQuarantine (log barrier)--> free
//
// A metadata block that was freed stays in quarantine, because some journal may still hold an old
// image of it and a replay would write that over file data, which carries no version. As metadata
// it may be used again at once: the new block starts above `highestVersion`, and replay skips what
// is not newer.
//
// A freed inode leaves a *tombstone* in its block: an inode of generation 0. Whoever comes with an
// old number, on whatever node, gets the inode's lock, reads a wrong generation and knows that the
// inode is gone. So the tombstone is home before the inode's lock is given up: that lock covers it.
// It is also home, and forgotten, before the group is given up (`FileStore.settle`): the next owner
// may put something else there.
//
// Invariants
// G1. freeCount, quarantinedCount and inodeCount of the record agree with the bits (inodes: with
//     what was allocated and freed).
// G2. No block is given out that is not free or quarantined; data never gets a quarantined block.
// G3. `free` and `quarantined` are exactly the blocks in that state that are not frozen and hold no
//     tombstone that is still on its way home.
// G4. highestVersion is above the version of every metadata block ever freed here;
//     highestGeneration is the generation of the newest inode ever made here.
// G5. reserved <= free + quarantined: whoever has reserved metadata blocks gets them.
// G6. The block of a tombstone is not used again before the tombstone is home (`Tombstones`).
//
// Sources: GFS2's resource groups (fs/gfs2/rgrp.c: the "clone" bitmap is what is called frozen
// here).

package import DiskFormat
package import Journaling
package import Vocabulary

/// One group, whose lock is held. Engine-bound.
package final class ResourceGroup {
    package let index: UInt32
    /// The group's own block.
    package let block: MetadataBlock
    /// The counts, as they stand in the block.
    package private(set) var record: ResourceGroupRecord
    /// The first block of the group.
    package let start: BlockAddress

    private unowned let store: FileStore
    private var free: BlockSet
    private var quarantined: BlockSet
    private var tombstones: Tombstones
    private var reserved: UInt32 = 0
    private var nextData: UInt32
    private var nextMetadata: UInt32 = 1

    init(index: UInt32, block: MetadataBlock, store: FileStore) throws(StoreError) {
        self.index = index
        self.block = block
        self.store = store
        start = store.superblock.groupStart(index)
        do {
            record = try ResourceGroupRecord(
                checking: block.bytes.readOnly,
                at: block.address,
                in: store.superblock
            )
        } catch {
            throw .format(error)
        }
        guard record.index == index else {
            throw .damaged(block.address, "group index", UInt64(record.index))
        }
        let bitmap = GroupBitmap(block: block.bytes, blockCount: record.blockCount)
        guard bitmap[0] == .metadata else {
            throw .damaged(block.address, "state of the group's own block", 0)
        }
        free = Self.members(.free, of: bitmap)
        quarantined = Self.members(.quarantined, of: bitmap)
        tombstones = Tombstones(start: start, blockCount: record.blockCount)
        guard free.count == record.freeCount else {
            throw .damaged(block.address, "free count", UInt64(record.freeCount))
        }
        guard quarantined.count == record.quarantinedCount else {
            throw .damaged(block.address, "quarantined count", UInt64(record.quarantinedCount))
        }
        // Metadata from the front, data behind it, so that long runs stay whole.
        nextData = record.blockCount / 8
    }

    private static func members(_ state: BlockState, of bitmap: GroupBitmap) -> BlockSet {
        var set = BlockSet(capacity: bitmap.blockCount)
        var index: UInt32 = 0
        while let found = bitmap.first(state, from: index) {
            let length = bitmap.run(of: state, from: found, limit: .max)
            set.insert(found..<found + length)
            index = found + length
        }
        return set
    }

    // MARK: what there is

    /// Blocks that file data can have now: neither frozen nor set aside.
    package var freeForData: UInt32 { min(free.count, freeForMetadata) }

    /// Blocks that metadata can have now: free or quarantined, neither frozen nor set aside. None if
    /// the group's numbers are used up.
    package var freeForMetadata: UInt32 { areNumbersUsedUp ? 0 : remainingForMetadata }

    /// Nobody gets there but by forgery; a volume with such numbers is sound, and full. The distance
    /// to the end is more than can be set aside, which is to be had in any case.
    private var areNumbersUsedUp: Bool {
        max(record.highestVersion, record.highestGeneration)
            >= BlockHeader.largestNumber - (1 << 32)
    }

    private var remainingForMetadata: UInt32 {
        var count: UInt32 { free.count + quarantined.count - reserved }
        // All of them only when it matters.
        releaseTombstones(limit: count < 64 ? .max : 4)
        return count
    }

    /// Lets blocks be used again whose tombstones have come home (G6).
    private func releaseTombstones(limit: Int) {
        for place in tombstones.takeHome(limit: limit, store.cache) {
            quarantined.insert(place..<place + 1)
        }
    }

    /// Quarantined blocks that a log barrier would release.
    package var releasable: UInt32 {
        releaseTombstones(limit: .max)
        return quarantined.count
    }

    /// Whether a block lies in this group.
    package func contains(_ address: BlockAddress) -> Bool {
        address >= start && address - start < UInt64(record.blockCount)
    }

    /// The state of a block of this group.
    package func state(of address: BlockAddress) -> BlockState {
        precondition(contains(address), "a block outside the group")
        return bitmap[UInt32(address - start)]
    }

    private var bitmap: GroupBitmap {
        GroupBitmap(block: block.bytes, blockCount: record.blockCount)
    }

    // MARK: setting aside

    /// Sets aside up to `count` metadata blocks and returns how many.
    func reserve(upTo count: UInt32) -> UInt32 {
        let taken = min(count, freeForMetadata)
        reserved += taken
        return taken
    }

    /// Gives back what was set aside and not used.
    func unreserve(_ count: UInt32) {
        precondition(count <= reserved, "ResourceGroup G5: more given back than set aside")
        reserved -= count
    }

    // MARK: data

    /// Takes a run of free blocks for data: at `goal` if that is free, else a run of `wanted`
    /// blocks, else the longest. Returns nil if there is none.
    package func allocateData(
        near goal: BlockAddress?,
        wanted: UInt32,
        in transaction: Transaction
    ) -> (start: BlockAddress, length: UInt32)? {
        let limit = min(wanted, freeForData)
        guard limit > 0, let run = findRun(near: goal, wanted: limit) else { return nil }
        transaction.modify(block)
        free.remove(run)
        let bitmap = bitmap
        for index in run {
            precondition(bitmap[index] == .free, "ResourceGroup G2")
            bitmap[index] = .data
        }
        record.freeCount -= UInt32(run.count)
        record.writeFields(to: block.bytes)
        nextData = run.upperBound
        return (start + UInt64(run.lowerBound), UInt32(run.count))
    }

    private func findRun(near goal: BlockAddress?, wanted: UInt32) -> Range<UInt32>? {
        var from = nextData
        if let goal, contains(goal) {
            from = UInt32(goal - start)
            if free.contains(from) {
                return from..<from + min(wanted, free.runLength(from: from))
            }
        }
        var longest: Range<UInt32>?
        for (low, high) in [(from, record.blockCount), (0, record.blockCount)] {
            var next = low
            while next < high, let found = free.first(from: next) {
                let length = free.runLength(from: found)
                if length >= wanted { return found..<found + wanted }
                if length > longest.map({ UInt32($0.count) }) ?? 0 {
                    longest = found..<found + length
                }
                next = found + length
            }
        }
        return longest
    }

    /// Frees a run of data blocks; frozen until the transaction is durable.
    package func free(
        _ first: BlockAddress,
        length: UInt32,
        in transaction: Transaction
    ) throws(StoreError) {
        precondition(length > 0 && contains(first) && contains(first + UInt64(length - 1)))
        let low = UInt32(first - start)
        let bitmap = bitmap
        for index in low..<low + length where bitmap[index] != .data {
            throw .damaged(
                first + UInt64(index - low),
                "state of a data block",
                UInt64(bitmap[index].rawValue)
            )
        }
        transaction.modify(block)
        for index in low..<low + length { bitmap[index] = .free }
        record.freeCount += length
        record.writeFields(to: block.bytes)
        transaction.whenCommitted { self.free.insert(low..<low + length) }
    }

    // MARK: metadata

    /// Takes a block for metadata that was set aside with `reserve`. A new block there starts at
    /// `firstVersion`.
    func allocateReserved(
        in transaction: Transaction
    ) -> (address: BlockAddress, firstVersion: UInt64) {
        precondition(reserved > 0, "ResourceGroup G5: a block that nobody set aside")
        reserved -= 1
        guard let taken = allocateMetadata(in: transaction) else {
            preconditionFailure("ResourceGroup G5: a block set aside is not there")
        }
        return taken
    }

    /// Takes a block for metadata, quarantined ones first, or returns nil if there is none. A new
    /// block there starts at `firstVersion` (G4).
    package func allocateMetadata(
        in transaction: Transaction
    ) -> (address: BlockAddress, firstVersion: UInt64)? {
        guard remainingForMetadata > 0 else { return nil }
        let index: UInt32
        transaction.modify(block)
        if let found = quarantined.first(from: nextMetadata) ?? quarantined.first(from: 0) {
            index = found
            quarantined.remove(found..<found + 1)
            record.quarantinedCount -= 1
        } else if let found = free.first(from: nextMetadata) ?? free.first(from: 0) {
            index = found
            free.remove(found..<found + 1)
            record.freeCount -= 1
            nextMetadata = found
        } else {
            preconditionFailure("ResourceGroup G3: counted but not there")
        }
        let bitmap = bitmap
        precondition(
            bitmap[index] == .free || bitmap[index] == .quarantined,
            "ResourceGroup G2"
        )
        bitmap[index] = .metadata
        record.writeFields(to: block.bytes)
        let address = start + UInt64(index)
        tombstones.remove(index)
        // The tombstone may still be in memory.
        if let remains = store.cache.cached(address) { transaction.forget(remains) }
        return (address, record.highestVersion + 1)
    }

    /// Frees a metadata block: into quarantine, frozen until the transaction is durable. The block
    /// is forgotten.
    package func freeMetadata(
        _ freed: MetadataBlock,
        in transaction: Transaction
    ) throws(StoreError) {
        let place = try quarantine(freed, in: transaction)
        transaction.whenCommitted { self.quarantined.insert(place..<place + 1) }
    }

    private func quarantine(
        _ freed: MetadataBlock,
        in transaction: Transaction
    ) throws(StoreError) -> UInt32 {
        precondition(contains(freed.address) && freed.address != start)
        let place = UInt32(freed.address - start)
        let bitmap = bitmap
        guard freed.version < BlockHeader.largestNumber else {
            throw .damaged(freed.address, "version, which cannot grow", freed.version)
        }
        guard bitmap[place] == .metadata else {
            throw .damaged(
                freed.address,
                "state of a metadata block",
                UInt64(bitmap[place].rawValue)
            )
        }
        transaction.modify(block)
        bitmap[place] = .quarantined
        record.quarantinedCount += 1
        raiseHighestVersion(above: freed)
        record.writeFields(to: block.bytes)
        transaction.forget(freed)
        return place
    }

    /// G4. One more than the version that the block shows, which a commit that is under way may be
    ///     about
    /// to raise.
    private func raiseHighestVersion(above freed: MetadataBlock) {
        record.highestVersion = max(record.highestVersion, freed.version + 1)
    }

    // MARK: inodes

    /// The number for an inode in a block just taken from this group.
    func nameInode(at address: BlockAddress, in transaction: Transaction) -> InodeNumber {
        precondition(contains(address))
        transaction.modify(block)
        record.highestGeneration += 1
        record.inodeCount += 1
        record.writeFields(to: block.bytes)
        return InodeNumber(address: address, generation: record.highestGeneration)
    }

    /// Frees an inode's block and leaves a tombstone there.
    func freeInode(_ inode: StoredInode, in transaction: Transaction) throws(StoreError) {
        guard record.inodeCount > 0 else {
            throw .damaged(block.address, "inode count", 0)
        }
        let place = try quarantine(inode.block, in: transaction)
        record.inodeCount -= 1
        let tombstone = transaction.create(
            inode.number.address,
            kind: .inode,
            owner: inode.number.address.rawValue,
            generation: 0,
            firstVersion: record.highestVersion + 1,
            covering: .inode(inode.number)
        )
        tombstones.add(place, generation: inode.number.generation)
        transaction.whenCommitted { self.tombstones.becameDurable(place) }
        InodeRecord(mode: 0, user: 0, group: 0, linkCount: 0, born: .zero)
            .writeFields(to: tombstone.bytes)
        raiseHighestVersion(above: tombstone)
        record.writeFields(to: block.bytes)
    }

    /// The locks that cover the tombstones of this group.
    var tombstoneNames: [ResourceName] { tombstones.names }

    /// Forgets the tombstones, which are home, when the group is given up.
    func buryTombstones() {
        for name in tombstoneNames { store.cache.drop(covering: name) }
        tombstones = Tombstones(start: start, blockCount: record.blockCount)
    }

    // MARK: quarantine

    /// Makes all quarantined blocks free. The caller holds the log barrier: no journal holds
    /// anything older. What is frozen stays. Returns how many.
    package func releaseQuarantine(in transaction: Transaction) -> UInt32 {
        releaseTombstones(limit: .max)
        let released = quarantined
        guard released.count > 0 else { return 0 }
        transaction.modify(block)
        let bitmap = bitmap
        released.forEachRun { run in
            for index in run {
                bitmap[index] = .free
                // Home since the barrier; whoever has the block next must not find it in memory.
                if let name = tombstones.name(index) { store.cache.drop(covering: name) }
                tombstones.remove(index)
            }
            quarantined.remove(run)
            free.insert(run)
        }
        record.quarantinedCount -= released.count
        record.freeCount += released.count
        record.writeFields(to: block.bytes)
        return released.count
    }

    /// Traps unless the group's invariants hold. Reads the whole bitmap: for tests.
    package func checkInvariants() {
        let bitmap = bitmap
        let counts = bitmap.counts()
        let inBlock = ResourceGroupRecord(fields: block.bytes.readOnly)
        precondition(inBlock == record, "ResourceGroup G1: the block does not show the counts")
        precondition(counts[0] == record.freeCount, "ResourceGroup G1: free")
        precondition(counts[3] == record.quarantinedCount, "ResourceGroup G1: quarantined")
        precondition(record.inodeCount <= counts[2], "ResourceGroup G1: inodes")
        precondition(reserved <= free.count + quarantined.count, "ResourceGroup G5")
        for index in 0..<record.blockCount {
            precondition(!free.contains(index) || bitmap[index] == .free, "ResourceGroup G3: free")
            precondition(
                !quarantined.contains(index) || bitmap[index] == .quarantined,
                "ResourceGroup G3: quarantined"
            )
        }
    }
}
