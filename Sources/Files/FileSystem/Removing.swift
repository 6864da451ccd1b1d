// Unlinking and removing directories. The common case, a file of a few extents that nobody has
// open, is one transaction: the name goes, the blocks go, the inode goes. Everything else becomes
// an orphan first (Orphans.swift).

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func unlink(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try await remove(parent, name, isDirectory: false, interruption)
    }

    package func removeDirectory(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try await remove(parent, name, isDirectory: true, interruption)
    }

    private func remove(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        isDirectory: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try checkWritable()
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let parentInode = try inode(parent)
        let parentStored = try await hold(parentInode, .exclusive, interruption)
        defer { release(parentInode, .exclusive) }
        try checkDirectory(parentStored)
        let directory = Held(inode: parentInode, stored: parentStored)
        let removal: DirectoryRemoval
        do throws(StoreError) {
            removal = try await Directory(store, parentStored).prepareRemoval(name)
        } catch {
            throw fileError(error)
        }
        try checkEntry(removal.entry, of: parentInode)
        let childInode = remember(removal.entry.inode)
        defer { unrefer(childInode) }
        let childStored = try await holdEntry(childInode, .exclusive, interruption)
        defer { release(childInode, .exclusive) }
        let child = Held(inode: childInode, stored: childStored)
        try checkChild(childInode, childStored)
        if childStored.record.isDirectory { try checkLinks(of: directory) }
        try checkMayRemove(child.stored.record, from: parentStored.record)
        try checkRemovable(child, isDirectory)
        parentInode.answered.add(name)
        if !childStored.record.isDirectory, childStored.record.linkCount > 1 {
            try await removeName(directory, child, removal, orphaning: false)
            return
        }
        let openLock = openGlock(of: childInode)
        let isAlone =
            childInode.opens == 0
            ? await locks.enterWithoutQueueing(openLock, .exclusive) : false
        defer { if isAlone { locks.leave(openLock, .exclusive) } }
        if !isAlone, childInode.opens == 0 { reached(.lastNameWhileOpenElsewhere) }
        if isAlone, try await removeWhole(directory, child, removal) { return }
        try await removeName(directory, child, removal, orphaning: true)
        awaitClosing(of: childInode)
    }

    private func checkRemovable(_ child: Held, _ isDirectory: Bool) throws(FileError) {
        if isDirectory {
            guard child.stored.record.isDirectory else { throw .notDirectory }
            guard child.stored.record.entryCount == 0 else { throw .notEmpty }
        } else if child.stored.record.isDirectory {
            throw .isDirectory
        }
    }

    /// What the parent loses with a name.
    private func unlinkFromParent(_ directory: Held, _ child: Held, _ transaction: Transaction) {
        if child.stored.record.isDirectory { directory.stored.record.linkCount -= 1 }
        touchDirectory(directory.stored)
        directory.stored.store(in: transaction)
        directory.inode.hasChanged(in: transaction.sequence)
    }

    /// Takes the name away; the inode stays, with a name less, or as an orphan.
    func removeName(
        _ directory: Held,
        _ child: Held,
        _ removal: DirectoryRemoval,
        orphaning: Bool
    ) async throws(FileError) {
        let orphans = orphaning ? try await holdOrphanDirectory(for: child.inode.number) : nil
        defer { if let orphans { release(orphans.held.inode, .exclusive) } }
        var cost = removal.cost
        if let orphans { cost += orphans.insertion.cost }
        let held = try await holdGroups(removal.groups, metadata: cost.newBlocks)
        defer { for group in held { groups.release(group, self) } }
        var demand = QuotaDemand(
            directory.stored.record,
            blocks: removal.cost.newBlocks,
            isExempt: true
        )
        if let orphans { demand.add(orphans.held.stored.record, blocks: cost.newBlocks) }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + held.count + 3,
            charging: demand
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: held, transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        do throws(StoreError) {
            try Directory(store, directory.stored).remove(removal, with: allocator)
            if let orphans { try enlist(child, orphans, allocator) }
        } catch {
            throw failed(error)
        }
        unlinkFromParent(directory, child, transaction)
        child.stored.record.linkCount = orphaning ? 0 : child.stored.record.linkCount - 1
        child.stored.record.changed = now
        child.stored.store(in: transaction)
        child.inode.hasChanged(in: transaction.sequence)
    }

    /// Takes the name and the inode away in one transaction; false, and nothing has changed, if the
    /// inode is too big or too complicated for one. Nobody has it open on any node.
    private func removeWhole(
        _ directory: Held,
        _ child: Held,
        _ removal: DirectoryRemoval
    ) async throws(FileError) -> Bool {
        let stored = child.stored
        guard stored.record.attributeBlock == .none,
            let home = superblock.group(of: child.inode.number.address)
        else { return false }
        var needed = removal.groups + [home]
        var cost = removal.cost + FileStore.freeInodeCost
        var step: ExtentRemoval?
        if stored.record.layout == .extents, stored.record.blockCount > 1 {
            guard stored.record.height == 0 else { return false }
            do throws(StoreError) {
                step = try await ExtentMap(store, stored).nextRemoval(from: 0)
            } catch {
                throw fileError(error)
            }
            guard let step, step.pieces.count == Int(stored.record.rootCount) else {
                return false
            }
            needed += step.groups
            cost += step.cost
        }
        let held = try await holdGroups(needed, metadata: cost.newBlocks)
        defer { for group in held { groups.release(group, self) } }
        var demand = QuotaDemand(
            directory.stored.record,
            blocks: removal.cost.newBlocks,
            isExempt: true
        )
        if let step { demand.add(stored.record, blocks: step.cost.newBlocks) }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + held.count + 2,
            charging: demand
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: held, transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        try await discardDirty(child.inode, from: 0, transaction)
        do throws(StoreError) {
            try Directory(store, directory.stored).remove(removal, with: allocator)
            if let step { try ExtentMap(store, stored).remove(step, with: allocator) }
            unlinkFromParent(directory, child, transaction)
            try store.freeInode(stored, with: allocator)
        } catch {
            throw failed(error)
        }
        forgetFreed(child.inode)
        return true
    }

    /// After an inode was freed under its exclusive lock.
    func forgetFreed(_ inode: Inode) {
        if inode.lookups > 0, var record = inode.stored?.record {
            record.linkCount = 0
            record.changed = now
            inode.remains = record
        }
        inode.isFreed = true
        inode.stored = nil
        inode.dirty = nil
    }
}
