// Inodes that are deleted but still there: somebody, on some node, has them open, or they are too
// big to free in the transaction that deletes them. An orphan has link count 0, the orphan flag,
// and an entry in the orphan directory of the slot whose node deleted it, so that it is freed even
// if everybody dies.
//
// Who frees it? The node that deleted it waits for the inode's open lock in EX, holding nothing
// else: it is granted when the last process on the last node has closed the inode. After a death,
// and at mount, a node does the same for what it finds in its own slot's orphan directory, and the
// coordinator, with each view, for slots that nobody is in: a node may leave while others have open
// what it deleted. Two may wait for one inode: the inode's lock in EX
// and the orphan flag decide, the second finds the inode gone.
//
// Here the open lock comes before the inode's, against the lock order (L1). It cannot lock up: who
// holds the inode's lock asks for the open lock either without queueing or to open the inode, and
// an orphan is opened anew only if its open lock is to be had without queueing.
//
// Who looks a name up opens what it found in a second request, and between the two the name may get something else by
// rename(2). The kernel looks up again when it is told ESTALE, but once only, and where files are replaced again and again
// a program would see an error for a name that was always there.
//
// G1. What loses its last name to a rename stays for `grace`, on the list of orphans. Who has looked it up
//     opens it until then: as if he had done so before the rename.
// G2. It is opened only without queueing for the open lock: its reaper may have that already, and wait for the inode.
// G3. Not more than `mostGraced` stay so: the oldest goes. They go at once when an operation finds no room, and when the
//     node leaves.
// G4. Who waits for room waits for those that are being freed, not for those that somebody has open, and is inside
//     no lock: the reapers need them.

import BlockIO
import DequeModule
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    /// An orphan directory that is held, with the place of a new name found.
    struct OrphanEnlisting {
        let held: Held
        let insertion: DirectoryInsertion
        let name: [UInt8]
    }

    /// The name of an inode in an orphan directory.
    static func orphanName(_ number: InodeNumber) -> [UInt8] {
        Array(
            (String(number.address.rawValue, radix: 16) + "."
                + String(number.generation, radix: 16)).utf8
        )
    }

    /// Holds this node's orphan directory for a new entry.
    func holdOrphanDirectory(
        for number: InodeNumber
    ) async throws(FileError) -> OrphanEnlisting {
        let inode = remember(orphanDirectory)
        let stored = try await hold(inode, .exclusive)
        let name = Self.orphanName(number)
        do throws(StoreError) {
            let insertion = try await prepare(name, stored)
            return OrphanEnlisting(
                held: Held(inode: inode, stored: stored),
                insertion: insertion,
                name: name
            )
        } catch {
            release(inode, .exclusive)
            throw fileError(error)
        }
    }

    private func prepare(
        _ name: [UInt8],
        _ stored: StoredInode
    ) async throws(StoreError) -> DirectoryInsertion {
        let bytes = NameBuffer(name)
        return try await Directory(store, stored).prepareInsertion(bytes.bytes)
    }

    /// Puts an inode on the list, in the transaction that takes its last name.
    func enlist(
        _ child: Held,
        _ orphans: OrphanEnlisting,
        _ allocator: Allocator
    ) throws(StoreError) {
        let name = NameBuffer(orphans.name)
        try Directory(store, orphans.held.stored).insert(
            orphans.insertion,
            name.bytes,
            target: child.inode.number,
            type: UInt8(child.stored.record.typeBits >> 12),
            with: allocator
        )
        touchDirectory(orphans.held.stored)
        orphans.held.stored.store(in: allocator.transaction)
        child.stored.record.flags.insert(.orphan)
        child.stored.record.orphanSlot = slot
        counters.orphansListed += 1
        reached(.orphanMade)
    }

    /// Nanoseconds for which a replaced inode may still be opened (G1).
    private static let grace: UInt64 = 500_000_000
    /// Replaced inodes that stay so long (G3).
    private static let mostGraced = 1024

    /// Begins to wait until nobody has an orphan open on any node, and frees it then.
    func awaitClosing(of inode: Inode) {
        // Memory shall not want it back before the task has begun.
        inode.pins += 1
        pendingOrphans += 1
        reap(inode)
    }

    /// The same, after those who have looked it up have had time to open it (G1).
    func awaitClosingOfReplaced(_ inode: Inode) {
        inode.pins += 1
        pendingOrphans += 1
        graced.append((inode, engine.clock.now.advanced(nanoseconds: Self.grace)))
        if graced.count > Self.mostGraced, let oldest = graced.popFirst() { reap(oldest.inode) }
        setGraceTimer()
    }

    private func reap(_ inode: Inode) {
        engine.spawn {
            await self.freeOrphanWhenClosed(inode)
            self.isReaped(inode)
        }
    }

    private func isReaped(_ inode: Inode) {
        inode.pins -= 1
        pendingOrphans -= 1
        orphansAwaited.remove(inode.number)
        unrefer(inode)
    }

    private func setGraceTimer() {
        guard !isGraceTimerSet, let first = graced.first else { return }
        isGraceTimerSet = true
        engine.clock.schedule(
            at: first.due,
            in: engine,
            EngineBound { [weak self] in self?.endGrace() }
        )
    }

    private func endGrace() {
        isGraceTimerSet = false
        let now = engine.clock.now
        while let first = graced.first, first.due <= now {
            graced.removeFirst()
            reap(first.inode)
        }
        setGraceTimer()
    }

    package func roomComes() async -> Bool {
        guard !graced.isEmpty || reapers > 0 else { return false }
        reached(.roomByReaping)
        await freeReplaced()
        while reapers > 0, !isWithdrawn { await reapersEnded.wait() }
        return !isWithdrawn
    }

    /// Frees what was replaced and nobody has open, and waits for the rest as for all orphans (G3).
    func freeReplaced() async {
        while let next = graced.popFirst() {
            let openLock = openGlock(of: next.inode)
            if !isWithdrawn, await locks.enterWithoutQueueing(openLock, .exclusive) {
                if freezer.enterIfPossible() {
                    await freeClosed(next.inode)
                    freezer.leave()
                }
                locks.leave(openLock, .exclusive)
            }
            reap(next.inode)
        }
    }

    /// Frees an orphan as soon as nobody has it open on any node; does nothing for other inodes.
    private func freeOrphanWhenClosed(_ inode: Inode) async {
        guard !inode.isFreed, !isWithdrawn, !options.isReadOnly else { return }
        let openLock = openGlock(of: inode)
        do throws(FileError) {
            reapers += 1
            let isAlone = await locks.enterWithoutQueueing(openLock, .exclusive)
            endReaping()
            if !isAlone { try await locks.enter(openLock, .exclusive) }
        } catch {
            // The node is going down: the list on disk remembers.
            counters.orphansLeft += 1
            return
        }
        defer { locks.leave(openLock, .exclusive) }
        // The list on disk remembers; whoever mounts next goes on.
        if isStopping { return }
        do throws(FileError) {
            try await freezer.enter(nil)
        } catch {
            counters.orphansLeft += 1
            return
        }
        defer { freezer.leave() }
        if isStopping { return }
        await freeClosed(inode)
    }

    private func endReaping() {
        reapers -= 1
        if reapers == 0 { reapersEnded.notify() }
    }

    /// Frees an orphan whose open lock this node is inside of in EX.
    private func freeClosed(_ inode: Inode) async {
        reapers += 1
        defer { endReaping() }
        do throws(FileError) {
            let stored = try await hold(inode, .exclusive)
            defer { release(inode, .exclusive) }
            if stored.record.flags.contains(.orphan), stored.record.linkCount == 0 {
                try await freeOrphan(Held(inode: inode, stored: stored))
            }
        } catch {
            // Gone already, or the node is going down: the list on disk remembers.
            if error != .stale { counters.orphansLeft += 1 }
        }
    }

    private func freeOrphan(_ child: Held) async throws(FileError) {
        try await freeBlocks(child.inode, child.stored, from: 0)
        try await freeAttributes(child)
        guard let home = superblock.group(of: child.inode.number.address) else { return }
        let listInode = try await orphanDirectory(of: child.stored.record.orphanSlot)
        let listStored = try await hold(listInode, .exclusive)
        defer { release(listInode, .exclusive) }
        let name = NameBuffer(Self.orphanName(child.inode.number))
        let list = Directory(store, listStored)
        let removal: DirectoryRemoval
        do throws(StoreError) {
            removal = try await list.prepareRemoval(name.bytes)
        } catch {
            throw fileError(error)
        }
        let cost = removal.cost + FileStore.freeInodeCost
        let held = try await holdGroups(removal.groups + [home], metadata: cost.newBlocks)
        defer { for group in held { groups.release(group, self) } }
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + held.count + 1,
            charging: QuotaDemand(listStored.record, blocks: cost.newBlocks, isExempt: true)
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: held, transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        do throws(StoreError) {
            try list.remove(removal, with: allocator)
            touchDirectory(listStored)
            listStored.store(in: transaction)
            try store.freeInode(child.stored, with: allocator)
        } catch {
            throw failed(error)
        }
        forgetFreed(child.inode)
        counters.orphansFreed += 1
        if listInode.number != orphanDirectory { reached(.orphanOfTheAbsent) }
    }

    private func freeAttributes(_ child: Held) async throws(FileError) {
        let attributes = ExtendedAttributes(store, child.stored)
        if attributes.isEmpty { return }
        let update: AttributeUpdate
        do throws(StoreError) {
            update = try await attributes.prepareRemoveAll()
        } catch {
            throw fileError(error)
        }
        try await apply(update, to: child)
    }

    /// The orphan directory of a slot.
    private func orphanDirectory(of slot: SlotIndex) async throws(FileError) -> Inode {
        if slot == self.slot { return remember(orphanDirectory) }
        return remember(try await readDescriptor(slot).orphanDirectory)
    }

    /// Looks through the orphan directory of a slot and frees what nobody has open, now or later.
    /// What it waits for already it does not wait for twice.
    package func freeOrphans(of slot: SlotIndex) async {
        guard !options.isReadOnly else { return }
        var found: [InodeNumber] = []
        do throws(FileError) {
            let list = try await orphanDirectory(of: slot)
            let stored = try await hold(list, .shared)
            defer { release(list, .shared) }
            do throws(StoreError) {
                try await Directory(store, stored).enumerate(after: 0) { record, _ in
                    found.append(record.inode)
                    return true
                }
            } catch {
                throw fileError(error)
            }
        } catch {
            return
        }
        for number in found where !isStopping {
            // Its last close sees to it (Temporary.swift, O1).
            if inodes[number]?.isTemporary == true { continue }
            guard orphansAwaited.insert(number).inserted else { continue }
            awaitClosing(of: remember(number))
        }
    }
}

/// The bytes of a name, valid as long as the object lives.
final class NameBuffer {
    let bytes: UnsafeRawBufferPointer
    private let memory: UnsafeMutableRawBufferPointer

    init(_ name: [UInt8]) {
        memory = .allocate(byteCount: max(name.count, 1), alignment: 1)
        for (index, byte) in name.enumerated() { memory[index] = byte }
        bytes = UnsafeRawBufferPointer(rebasing: memory[..<name.count])
    }

    deinit { memory.deallocate() }
}
