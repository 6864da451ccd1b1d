// Renaming: the operation that needs the most locks.
//
//   1. the rename lock in EX, if two directories take part: while it is held no directory changes
//   its parent, so
//      "is an ancestor of" stays true, and nobody else holds two unrelated directories
//   2. the ancestors of both directories are read, each lock let go before the next is taken
//   3. both directories in EX, the ancestor first, else by number
//   4. the objects that are moved or replaced in EX, directories first, then by number
//   5. this node's orphan directory, if an object loses its last name
//   6. groups, the transaction
//
// A directory is never moved into itself or below itself (EINVAL), nor over one of its own
// ancestors, which cannot be empty (ENOTEMPTY): both are decided by the ancestors read in step 2.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func rename(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        to newParent: NodeHandle,
        _ newName: UnsafeRawBufferPointer,
        _ kind: RenameKind,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try checkWritable()
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let from = try inode(parent)
        let to = try inode(newParent)
        try checkNewName(newName)
        var lines = Ancestry(ofFrom: [], ofTo: [])
        let isCross = from !== to
        if isCross { try await locks.enter(renameGlock, .exclusive, interruption) }
        defer { if isCross { locks.leave(renameGlock, .exclusive) } }
        if isCross {
            lines.ofFrom = try await ancestors(of: from, interruption)
            lines.ofTo = try await ancestors(of: to, interruption)
        }
        let pair = try await holdDirectories(from, to, lines, interruption)
        defer { releaseDirectories(pair) }
        // Within one directory a name only takes the place of another: a file is saved also by who may use no more.
        to.isExempt = caller.isExempt || !isCross
        try await renameHeld(pair, name, newName, kind, lines, interruption)
    }

    /// The directories above two directories, nearest first.
    private struct Ancestry {
        var ofFrom: [InodeNumber]
        var ofTo: [InodeNumber]
    }

    private struct DirectoryPair {
        let from: Held
        let to: Held
        var isOne: Bool { from.inode === to.inode }
    }

    /// All directories above one. The rename lock is held, so the answer stays true.
    private func ancestors(
        of directory: Inode,
        _ interruption: Interruption?
    ) async throws(FileError) -> [InodeNumber] {
        var line: [InodeNumber] = []
        var next = directory
        while next.number != superblock.root {
            let current = next
            // It may be known for this alone.
            defer { unrefer(current) }
            let stored = try await hold(current, .shared, interruption)
            let parent = stored.record.parent
            let isDirectory = stored.record.isDirectory
            release(current, .shared)
            guard isDirectory else { throw .notDirectory }
            // Longer than any path the kernel would walk: the chain is damaged.
            guard line.count < 100_000 else { throw .loop }
            line.append(parent)
            next = remember(parent)
        }
        return line
    }

    private func holdDirectories(
        _ from: Inode,
        _ to: Inode,
        _ lines: Ancestry,
        _ interruption: Interruption?
    ) async throws(FileError) -> DirectoryPair {
        if from === to {
            let held = Held(inode: from, stored: try await hold(from, .exclusive, interruption))
            return DirectoryPair(from: held, to: held)
        }
        let isFromFirst =
            lines.ofTo.contains(from.number)
            || (!lines.ofFrom.contains(to.number) && from.number < to.number)
        let first = isFromFirst ? from : to
        let second = isFromFirst ? to : from
        let firstStored = try await hold(first, .exclusive, interruption)
        do throws(FileError) {
            let secondStored = try await hold(second, .exclusive, interruption)
            let firstHeld = Held(inode: first, stored: firstStored)
            let secondHeld = Held(inode: second, stored: secondStored)
            return isFromFirst
                ? DirectoryPair(from: firstHeld, to: secondHeld)
                : DirectoryPair(from: secondHeld, to: firstHeld)
        } catch {
            release(first, .exclusive)
            throw error
        }
    }

    private func releaseDirectories(_ pair: DirectoryPair) {
        release(pair.from.inode, .exclusive)
        if !pair.isOne { release(pair.to.inode, .exclusive) }
    }

    private func renameHeld(
        _ pair: DirectoryPair,
        _ name: UnsafeRawBufferPointer,
        _ newName: UnsafeRawBufferPointer,
        _ kind: RenameKind,
        _ lines: Ancestry,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try checkLiveDirectory(pair.from.stored)
        try checkLiveDirectory(pair.to.stored)
        let sourceEntry: DirectoryEntryRecord
        let targetEntry: DirectoryEntryRecord?
        do throws(StoreError) {
            sourceEntry = try await Directory(store, pair.from.stored).locate(name).entry
            targetEntry = try await Directory(store, pair.to.stored).find(newName)
        } catch {
            throw fileError(error)
        }
        let source = sourceEntry.inode
        let target = targetEntry?.inode
        if let target {
            if kind == .noReplace { throw .exists }
            if target == source { return }
        } else if kind == .exchange {
            throw .notFound
        }
        try checkEntry(sourceEntry, of: pair.from.inode)
        if let targetEntry { try checkEntry(targetEntry, of: pair.to.inode) }
        try checkLoops(source, target, pair, kind, lines)
        let children = try await holdChildren(
            [sourceEntry, targetEntry].compactMap { $0 },
            interruption
        )
        defer {
            for child in children {
                release(child.inode, .exclusive)
                unrefer(child.inode)
            }
        }
        let moved = children.first { $0.inode.number == source }
        let replaced = children.first { $0.inode.number == target }
        guard let moved else { preconditionFailure("the moved object is held") }
        try checkChildren(moved, replaced, pair)
        try checkMayRemove(moved.stored.record, from: pair.from.stored.record)
        if let replaced {
            try checkMayRemove(replaced.stored.record, from: pair.to.stored.record)
        } else {
            try checkMayAdd(to: pair.to.stored.record)
        }
        pair.from.inode.answered.add(name)
        pair.to.inode.answered.add(newName)
        if kind == .exchange, let replaced {
            try await exchange(pair, name, newName, moved, replaced)
        } else if let replaced {
            try checkReplaceable(moved, replaced)
            try await moveOver(pair, name, newName, moved, replaced)
        } else {
            try await move(pair, name, newName, moved)
        }
    }

    private func checkLoops(
        _ source: InodeNumber,
        _ target: InodeNumber?,
        _ pair: DirectoryPair,
        _ kind: RenameKind,
        _ lines: Ancestry
    ) throws(FileError) {
        if source == pair.to.inode.number || lines.ofTo.contains(source) { throw .invalid }
        guard let target else { return }
        if target == pair.from.inode.number || lines.ofFrom.contains(target) {
            throw kind == .exchange ? .invalid : .notEmpty
        }
    }

    /// Nothing is renamed that the file system keeps for itself, and link counts can follow.
    private func checkChildren(
        _ moved: Held,
        _ replaced: Held?,
        _ pair: DirectoryPair
    ) throws(FileError) {
        try checkChild(moved.inode, moved.stored)
        if moved.stored.record.isDirectory {
            try checkLinks(of: pair.from)
            guard pair.to.stored.record.linkCount < .max else { throw .tooManyLinks }
        }
        guard let replaced else { return }
        try checkChild(replaced.inode, replaced.stored)
        if replaced.stored.record.isDirectory { try checkLinks(of: pair.to) }
    }

    private func checkReplaceable(_ moved: Held, _ replaced: Held) throws(FileError) {
        if replaced.stored.record.isDirectory {
            guard moved.stored.record.isDirectory else { throw .isDirectory }
            guard replaced.stored.record.entryCount == 0 else { throw .notEmpty }
        } else if moved.stored.record.isDirectory {
            throw .notDirectory
        }
    }

    /// Holds the objects themselves. Which of them are directories is known only under their locks;
    /// two directories are children of directories that are held, so nobody else can be on the way
    /// from one to the other.
    private func holdChildren(
        _ entries: [DirectoryEntryRecord],
        _ interruption: Interruption?
    ) async throws(FileError) -> [Held] {
        var held: [Held] = []
        let isDirectory: (DirectoryEntryRecord) -> Bool = { $0.type == 0o04 }
        let ordered = entries.sorted {
            isDirectory($0) != isDirectory($1) ? isDirectory($0) : $0.inode < $1.inode
        }
        for number in ordered.map(\.inode) {
            let inode = remember(number)
            do throws(FileError) {
                held.append(
                    Held(
                        inode: inode,
                        stored: try await holdEntry(inode, .exclusive, interruption)
                    )
                )
            } catch {
                unrefer(inode)
                for child in held {
                    release(child.inode, .exclusive)
                    unrefer(child.inode)
                }
                throw error
            }
        }
        return held
    }

    // MARK: The three kinds

    private func move(
        _ pair: DirectoryPair,
        _ name: UnsafeRawBufferPointer,
        _ newName: UnsafeRawBufferPointer,
        _ moved: Held
    ) async throws(FileError) {
        let removal: DirectoryRemoval
        let insertion: DirectoryInsertion
        do throws(StoreError) {
            removal = try await Directory(store, pair.from.stored).prepareRemoval(name)
            insertion = try await Directory(store, pair.to.stored).prepareInsertion(newName)
        } catch {
            throw fileError(error)
        }
        let insertionCost =
            pair.isOne
            ? Directory(store, pair.to.stored).worstInsertionCost : insertion.cost
        let cost = removal.cost + insertionCost
        var demand = QuotaDemand(
            pair.to.stored.record,
            blocks: insertionCost.newBlocks,
            isExempt: pair.to.inode.isExempt
        )
        demand.add(pair.from.stored.record, blocks: removal.cost.newBlocks)
        try await change(removal.groups, cost, demand, pair, moved) {
            (allocator: Allocator) async throws(StoreError) in
            try Directory(self.store, pair.from.stored).remove(removal, with: allocator)
            let place =
                pair.isOne
                ? try await Directory(self.store, pair.to.stored).prepareInsertion(newName)
                : insertion
            try Directory(self.store, pair.to.stored).insert(
                place,
                newName,
                target: moved.inode.number,
                type: UInt8(moved.stored.record.typeBits >> 12),
                with: allocator
            )
            self.moveParent(moved, pair)
        }
    }

    private func moveOver(
        _ pair: DirectoryPair,
        _ name: UnsafeRawBufferPointer,
        _ newName: UnsafeRawBufferPointer,
        _ moved: Held,
        _ replaced: Held
    ) async throws(FileError) {
        let record = replaced.stored.record
        let isLast = record.isDirectory || record.linkCount == 1
        let orphans = isLast ? try await holdOrphanDirectory(for: replaced.inode.number) : nil
        defer { if let orphans { release(orphans.held.inode, .exclusive) } }
        let removal: DirectoryRemoval
        let location: DirectoryLocation
        do throws(StoreError) {
            removal = try await Directory(store, pair.from.stored).prepareRemoval(name)
            location = try await Directory(store, pair.to.stored).locate(newName)
        } catch {
            throw fileError(error)
        }
        var cost = removal.cost + OperationCost(newBlocks: 0, modifiedBlocks: 2)
        if let orphans { cost += orphans.insertion.cost }
        var demand = QuotaDemand(
            pair.from.stored.record,
            blocks: removal.cost.newBlocks,
            isExempt: true
        )
        if let orphans { demand.add(orphans.held.stored.record, blocks: cost.newBlocks) }
        try await change(removal.groups, cost, demand, pair, moved) {
            (allocator: Allocator) async throws(StoreError) in
            Directory(self.store, pair.to.stored).replaceTarget(
                location,
                with: moved.inode.number,
                type: UInt8(moved.stored.record.typeBits >> 12),
                in: allocator.transaction
            )
            try Directory(self.store, pair.from.stored).remove(removal, with: allocator)
            if let orphans { try self.enlist(replaced, orphans, allocator) }
            self.moveParent(moved, pair)
            if record.isDirectory { pair.to.stored.record.linkCount -= 1 }
            replaced.stored.record.linkCount = isLast ? 0 : record.linkCount - 1
            replaced.stored.record.changed = self.now
            replaced.stored.store(in: allocator.transaction)
            replaced.inode.hasChanged(in: allocator.transaction.sequence)
        }
        if isLast { awaitClosingOfReplaced(replaced.inode) }
    }

    private func exchange(
        _ pair: DirectoryPair,
        _ name: UnsafeRawBufferPointer,
        _ newName: UnsafeRawBufferPointer,
        _ moved: Held,
        _ other: Held
    ) async throws(FileError) {
        let first: DirectoryLocation
        let second: DirectoryLocation
        do throws(StoreError) {
            first = try await Directory(store, pair.from.stored).locate(name)
            second = try await Directory(store, pair.to.stored).locate(newName)
        } catch {
            throw fileError(error)
        }
        let cost = OperationCost(newBlocks: 0, modifiedBlocks: 6)
        try await change([], cost, QuotaDemand(isExempt: true), pair, moved) {
            (allocator: Allocator) async throws(StoreError) in
            let transaction = allocator.transaction
            Directory(self.store, pair.from.stored).replaceTarget(
                first,
                with: other.inode.number,
                type: UInt8(other.stored.record.typeBits >> 12),
                in: transaction
            )
            Directory(self.store, pair.to.stored).replaceTarget(
                second,
                with: moved.inode.number,
                type: UInt8(moved.stored.record.typeBits >> 12),
                in: transaction
            )
            self.moveParent(moved, pair)
            self.moveParent(other, DirectoryPair(from: pair.to, to: pair.from))
            other.stored.record.changed = self.now
            other.stored.store(in: transaction)
            other.inode.hasChanged(in: transaction.sequence)
        }
    }

    /// A directory that moves has another "..", and its parents other link counts.
    private func moveParent(_ moved: Held, _ pair: DirectoryPair) {
        guard moved.stored.record.isDirectory, !pair.isOne else { return }
        moved.stored.record.parent = pair.to.inode.number
        pair.from.stored.record.linkCount -= 1
        pair.to.stored.record.linkCount += 1
    }

    /// The frame of the three: groups, transaction, times of the directories and of what moves.
    private func change(
        _ needed: [UInt32],
        _ cost: OperationCost,
        _ demand: QuotaDemand,
        _ pair: DirectoryPair,
        _ moved: Held,
        _ body: (Allocator) async throws(StoreError) -> Void
    ) async throws(FileError) {
        let held = try await holdGroups(needed, metadata: cost.newBlocks)
        defer { for group in held { groups.release(group, self) } }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + held.count + 6,
            charging: demand
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: held, transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        do throws(StoreError) {
            try await body(allocator)
        } catch {
            throw failed(error)
        }
        moved.stored.record.changed = now
        for each in pair.isOne ? [pair.from] : [pair.from, pair.to] {
            touchDirectory(each.stored)
            each.stored.store(in: transaction)
            each.inode.hasChanged(in: transaction.sequence)
        }
        moved.stored.store(in: transaction)
        moved.inode.hasChanged(in: transaction.sequence)
    }
}
