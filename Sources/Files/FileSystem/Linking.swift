// Hard links.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    /// Names that one inode may have.
    static let mostLinks: UInt32 = 1_000_000

    package func link(
        _ node: NodeHandle,
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply {
        try checkWritable()
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        return try await linkInside(node, parent, name, caller, interruption)
    }

    private func linkInside(
        _ node: NodeHandle,
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply {
        let target = try inode(node)
        let directory = try await holdDirectoryForNewName(parent, name, interruption)
        defer { release(directory.inode, .exclusive) }
        // A directory is refused before its lock is asked for: it might be the one that is held.
        guard target !== directory.inode else { throw .notPermitted }
        let stored = try await hold(target, .exclusive, interruption)
        defer { release(target, .exclusive) }
        try checkLinkable(stored.record, in: directory.stored.record)
        let held = Held(inode: target, stored: stored)
        let delisting = try await prepareDelisting(held)
        defer { if let delisting { release(delisting.list.inode, .exclusive) } }
        try await link(held, directory, name, delisting, caller, interruption)
        return entry(target, stored, isEntryCacheable: true)
    }

    /// Gives what is held a name.
    private func link(
        _ held: Held,
        _ directory: Held,
        _ name: UnsafeRawBufferPointer,
        _ delisting: Delisting?,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        let (target, stored) = (held.inode, held.stored)
        let insertion: DirectoryInsertion
        do throws(StoreError) {
            insertion = try await Directory(store, directory.stored).prepareInsertion(name)
        } catch {
            throw fileError(error)
        }
        var cost = insertion.cost
        if let delisting { cost += delisting.removal.cost }
        let groupsHeld = try await holdGroups(
            delisting?.removal.groups ?? [],
            metadata: cost.newBlocks,
            interruption
        )
        defer { for group in groupsHeld { groups.release(group, self) } }
        var demand = QuotaDemand(
            directory.stored.record,
            blocks: insertion.cost.newBlocks,
            isExempt: caller.isExempt
        )
        if let delisting {
            demand.add(delisting.list.stored.record, blocks: delisting.removal.cost.newBlocks)
        }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + groupsHeld.count + 3,
            charging: demand
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: groupsHeld, transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        do throws(StoreError) {
            try Directory(store, directory.stored).insert(
                insertion,
                name,
                target: target.number,
                type: UInt8(stored.record.typeBits >> 12),
                with: allocator
            )
            if let delisting { try delist(held, delisting, allocator) }
        } catch {
            throw failed(error)
        }
        touchDirectory(directory.stored)
        directory.stored.store(in: transaction)
        directory.inode.hasChanged(in: transaction.sequence)
        directory.inode.answered.add(name)
        stored.record.linkCount += 1
        stored.record.changed = now
        stored.store(in: transaction)
        target.hasChanged(in: transaction.sequence)
    }

    private func checkLinkable(
        _ record: InodeRecord,
        in directory: InodeRecord
    ) throws(FileError) {
        if record.isDirectory { throw .notPermitted }
        try checkMayAdd(to: directory)
        try checkMayChangeFully(record)
        if record.linkCount >= Self.mostLinks { throw .tooManyLinks }
    }
}
