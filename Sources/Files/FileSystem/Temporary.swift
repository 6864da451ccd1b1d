// Files without a name (O_TMPFILE), and the name they may get (linkat(2)).
//
// A temporary file is an orphan from its birth: link count 0, the orphan flag, an entry in this slot's orphan
// directory, so that it is freed when it is closed, also if everybody dies (Orphans.swift). A link takes it off the
// list in the transaction that gives it its first name.
//
// O1. Nobody waits for a temporary file to be closed while it may still get a name: who waits for its open lock in
//     EX would keep out those who open it by that name. Its last close here begins to wait, if it is an orphan still.
// O2. Only this node can give it a name, and only while it has the file open: no name leads to it.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func makeTemporary(
        in parent: NodeHandle,
        mode: UInt32,
        _ intent: OpenIntent,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> (EntryReply, OpenReply) {
        try checkWritable()
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let (record, attributes) = try await temporaryRecord(parent, mode, caller, interruption)
        let list = remember(orphanDirectory)
        let listStored = try await hold(list, .exclusive, interruption)
        defer { release(list, .exclusive) }
        var cost = Directory(store, listStored).worstInsertionCost + FileStore.makeInodeCost
        cost += attributeCost(attributes)
        let group = try await groups.holdWithRoom(
            metadata: cost.newBlocks,
            data: 0,
            self,
            interruption
        )
        defer { groups.release(group, self) }
        let child = try await writeTemporary(
            caller,
            record,
            attributes,
            Held(inode: list, stored: listStored),
            group,
            cost
        )
        let held = try await adopt(child, nil, list.lastSequence)
        defer { release(held.inode, .exclusive) }
        let opened: OpenReply
        do throws(FileError) {
            opened = try await openHeld(held.inode, intent, isFresh: true, nil)
        } catch {
            awaitClosing(of: held.inode)
            throw error
        }
        held.inode.isTemporary = true
        return (entry(held.inode, held.stored, isEntryCacheable: false), opened)
    }

    /// What the new inode gets from its directory, which is let go: it gets no name there.
    private func temporaryRecord(
        _ parent: NodeHandle,
        _ mode: UInt32,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> (InodeRecord, [(name: String, value: [UInt8])]) {
        let inode = try inode(parent)
        let stored = try await hold(inode, .shared, interruption)
        defer { release(inode, .shared) }
        try checkLiveDirectory(stored)
        try checkMayAdd(to: stored.record)
        let object = NewObject.node(mode: mode & 0o7777 | 0o100000, device: 0)
        var record = newRecord(object, Held(inode: inode, stored: stored), caller)
        let access = try await initialAccess(record.mode, in: stored, caller)
        record.mode = access.mode
        record.linkCount = 0
        record.flags.insert(.orphan)
        record.orphanSlot = slot
        return (record, access.attributes)
    }

    private func writeTemporary(
        _ caller: Caller,
        _ record: InodeRecord,
        _ attributes: [(name: String, value: [UInt8])],
        _ list: Held,
        _ group: ResourceGroup,
        _ cost: OperationCost
    ) async throws(FileError) -> StoredInode {
        var demand = QuotaDemand(
            record,
            blocks: attributeCost(attributes).newBlocks + 1,
            inodes: 1,
            isExempt: caller.isExempt
        )
        demand.add(list.stored.record, blocks: cost.newBlocks)
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + 3,
            charging: demand
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: [group], transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        let child = store.makeInode(record, near: orphanDirectory.address, with: allocator)
        do throws(StoreError) {
            try give(attributes, to: child, allocator)
            let name = NameBuffer(Self.orphanName(child.number))
            let directory = Directory(store, list.stored)
            try directory.insert(
                try await directory.prepareInsertion(name.bytes),
                name.bytes,
                target: child.number,
                type: UInt8(record.typeBits >> 12),
                with: allocator
            )
        } catch {
            throw failed(error)
        }
        touchDirectory(list.stored)
        list.stored.store(in: transaction)
        list.inode.hasChanged(in: transaction.sequence)
        counters.orphansListed += 1
        return child
    }

    // MARK: Its first name

    /// The entry of a temporary file in the list of orphans, about to go.
    struct Delisting {
        let list: Held
        let removal: DirectoryRemoval
    }

    /// Holds the list of orphans to take a temporary file off it; nil for a file that has names.
    func prepareDelisting(_ target: Held) async throws(FileError) -> Delisting? {
        if target.stored.record.linkCount > 0 { return nil }
        guard target.inode.isTemporary else { throw .stale }  // O2
        let list = remember(orphanDirectory)
        let stored = try await hold(list, .exclusive)
        let name = NameBuffer(Self.orphanName(target.inode.number))
        do throws(StoreError) {
            let removal = try await Directory(store, stored).prepareRemoval(name.bytes)
            return Delisting(list: Held(inode: list, stored: stored), removal: removal)
        } catch {
            release(list, .exclusive)
            throw fileError(error)
        }
    }

    /// Takes it off the list, in the transaction that gives it a name.
    func delist(
        _ target: Held,
        _ delisting: Delisting,
        _ allocator: Allocator
    ) throws(StoreError) {
        let list = delisting.list
        try Directory(store, list.stored).remove(delisting.removal, with: allocator)
        touchDirectory(list.stored)
        list.stored.store(in: allocator.transaction)
        list.inode.hasChanged(in: allocator.transaction.sequence)
        target.stored.record.flags.remove(.orphan)
        target.stored.record.orphanSlot = SlotIndex(0)
        target.inode.isTemporary = false
    }
}
