// Making files, directories, links' targets and devices.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func make(
        _ object: NewObject,
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply {
        try checkWritable()
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let directory = try await holdDirectoryForNewName(parent, name, interruption)
        defer { release(directory.inode, .exclusive) }
        let child = try await makeHeld(object, directory, name, caller, interruption)
        defer { release(child.inode, .exclusive) }
        return entry(child.inode, child.stored, isEntryCacheable: true)
    }

    package func create(
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        mode: UInt32,
        isExclusive: Bool,
        _ intent: OpenIntent,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> (EntryReply, OpenReply) {
        try checkWritable()
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let directory = try await holdDirectoryForNewName(parent, name, interruption)
        if let existing = try await existingChild(directory, name, isExclusive) {
            let isSticky = directory.stored.record.mode & 0o1000 != 0
            release(directory.inode, .exclusive)
            // If it cannot be opened nobody else refers to it.
            defer { unrefer(existing) }
            // Gone before it could be opened: ESTALE makes the kernel begin again.
            let opened = try await openInode(
                existing,
                intent,
                finder: Finder(caller: caller, isSticky: isSticky),
                interruption
            )
            do throws(FileError) {
                let reply = try await entryReply(
                    existing,
                    interruption,
                    isEntryCacheable: false
                )
                return (reply, opened)
            } catch {
                await release(existing.handle, opened.handle)
                throw error
            }
        }
        defer { release(directory.inode, .exclusive) }
        let object = NewObject.node(mode: mode & 0o7777 | 0o100000, device: 0)
        let child = try await makeHeld(object, directory, name, caller, interruption)
        defer {
            release(child.inode, .exclusive)
            unrefer(child.inode)
        }
        let opened = try await openHeld(child.inode, intent, isFresh: true, nil)
        return (entry(child.inode, child.stored, isEntryCacheable: true), opened)
    }

    /// An inode together with its fields, both under a glock that is held.
    struct Held {
        let inode: Inode
        let stored: StoredInode
    }

    /// Holds a directory in which a name is to be made. Ends with `release`.
    func holdDirectoryForNewName(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) -> Held {
        try checkWritable()
        let directory = try inode(parent)
        try checkNewName(name)
        let stored = try await hold(directory, .exclusive, interruption)
        do throws(FileError) {
            try checkLiveDirectory(stored)
        } catch {
            release(directory, .exclusive)
            throw error
        }
        return Held(inode: directory, stored: stored)
    }

    /// What already has the name; the directory is let go when this throws.
    private func existingChild(
        _ directory: Held,
        _ name: UnsafeRawBufferPointer,
        _ isExclusive: Bool
    ) async throws(FileError) -> Inode? {
        do throws(StoreError) {
            guard let found = try await Directory(store, directory.stored).find(name) else {
                return nil
            }
            if isExclusive { throw .exists }
            return remember(found.inode)
        } catch {
            release(directory.inode, .exclusive)
            throw fileError(error)
        }
    }

    /// Makes an object in a directory that is held; the new inode comes back held exclusively.
    private func makeHeld(
        _ object: NewObject,
        _ directory: Held,
        _ name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> Held {
        if case .directory = object, directory.stored.record.linkCount == .max {
            throw .tooManyLinks
        }
        let insertion: DirectoryInsertion
        do throws(StoreError) {
            insertion = try await Directory(store, directory.stored).prepareInsertion(name)
        } catch {
            throw fileError(error)
        }
        try checkMayAdd(to: directory.stored.record)
        var record = newRecord(object, directory, caller)
        let access = try await initialAccess(record.mode, in: directory.stored, caller)
        record.mode = access.mode
        let plan = NewInode(
            object: object,
            record: record,
            attributes: access.attributes,
            longTarget: longTarget(of: object),
            insertion: insertion
        )
        let group = try await groups.holdWithRoom(
            metadata: plan.cost(blockSize: blockSize).newBlocks,
            data: plan.longTarget == nil ? 0 : 1,
            self,
            interruption
        )
        defer { groups.release(group, self) }
        let (child, dirty) = try await write(plan, directory, name, group, caller)
        directory.inode.answered.add(name)
        return try await adopt(child, dirty, directory.inode.lastSequence)
    }

    /// An inode about to be made.
    private struct NewInode {
        let object: NewObject
        let record: InodeRecord
        /// Its access control lists.
        let attributes: [(name: String, value: [UInt8])]
        let longTarget: [UInt8]?
        let insertion: DirectoryInsertion

        /// A long target's one extent goes into the body. Attributes: the most there can be.
        func cost(blockSize: Int) -> OperationCost {
            insertion.cost + FileStore.makeInodeCost
                + MountedVolume.attributeCost(attributes, blockSize: blockSize)
                + OperationCost(newBlocks: 0, modifiedBlocks: longTarget == nil ? 0 : 1)
        }
    }

    /// The most that the first attributes of an inode can cost.
    private static func attributeCost(
        _ attributes: [(name: String, value: [UInt8])],
        blockSize: Int
    ) -> OperationCost {
        if attributes.isEmpty { return OperationCost(newBlocks: 0, modifiedBlocks: 0) }
        let bytes = attributes.reduce(0) { $0 + $1.name.utf8.count + $1.value.count + 64 }
        let blocks = 1 + bytes / (blockSize / 2)
        return OperationCost(newBlocks: blocks, modifiedBlocks: blocks)
    }

    func attributeCost(_ attributes: [(name: String, value: [UInt8])]) -> OperationCost {
        Self.attributeCost(attributes, blockSize: blockSize)
    }

    /// Gives a new inode its first attributes.
    func give(
        _ attributes: [(name: String, value: [UInt8])],
        to child: StoredInode,
        _ allocator: Allocator
    ) throws(StoreError) {
        if attributes.isEmpty { return }
        let all = ExtendedAttributes(store, child)
        try all.apply(all.prepareFirst(attributes), with: allocator)
    }

    /// The transaction: the inode, its content, its name.
    private func write(
        _ plan: NewInode,
        _ directory: Held,
        _ name: UnsafeRawBufferPointer,
        _ group: ResourceGroup,
        _ caller: Caller
    ) async throws(FileError) -> (StoredInode, DirtyData?) {
        let cost = plan.cost(blockSize: blockSize)
        var demand = QuotaDemand(
            plan.record,
            blocks: attributeCost(plan.attributes).newBlocks + (plan.longTarget == nil ? 1 : 2),
            inodes: 1,
            isExempt: caller.isExempt
        )
        demand.add(directory.stored.record, blocks: plan.insertion.cost.newBlocks)
        let transaction = try await begin(
            blocks: cost.modifiedBlocks + 3,
            charging: demand
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: [group], transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw .noSpace }
        let child = store.makeInode(
            plan.record,
            near: directory.inode.number.address,
            with: allocator
        )
        let dirty = try await fill(child, plan.object, plan.longTarget, allocator)
        do throws(StoreError) {
            try give(plan.attributes, to: child, allocator)
            try Directory(store, directory.stored).insert(
                plan.insertion,
                name,
                target: child.number,
                type: UInt8(plan.record.typeBits >> 12),
                with: allocator
            )
        } catch {
            throw failed(error)
        }
        if plan.record.isDirectory { directory.stored.record.linkCount += 1 }
        touchDirectory(directory.stored)
        directory.stored.store(in: transaction)
        directory.inode.hasChanged(in: transaction.sequence)
        return (child, dirty)
    }

    /// The new inode gets its lock: nobody can know the name before the directory's lock is let go,
    /// so nobody is in the way, and no answer of another node is waited for.
    func adopt(
        _ child: StoredInode,
        _ dirty: DirtyData?,
        _ sequence: UInt64
    ) async throws(FileError) -> Held {
        let inode = remember(child.number, flags: .freshName)
        try await locks.enter(inode.glock, .exclusive)
        inode.stored = child
        inode.dirty = dirty
        inode.hasChanged(in: sequence)
        return Held(inode: inode, stored: child)
    }

    func newRecord(
        _ object: NewObject,
        _ directory: Held,
        _ caller: Caller
    ) -> InodeRecord {
        let parent = directory.stored.record
        // A directory with the set-group-id bit gives its group to what is made in it, and the bit
        // to directories.
        let inherits = parent.mode & 0o2000 != 0
        var mode: UInt32
        var device: UInt32 = 0
        switch object {
        case .node(let given, let number):
            mode = given
            device = number
        case .directory(let given):
            mode = given & 0o7777 | 0o040000 | (inherits ? 0o2000 : 0)
        case .symlink:
            mode = 0o120777
        }
        if mode & 0o170000 == 0 { mode |= 0o100000 }
        var record = InodeRecord(
            mode: mode,
            user: caller.user,
            group: inherits ? parent.group : caller.group,
            linkCount: mode & 0o170000 == 0o040000 ? 2 : 1,
            born: now
        )
        record.device = device
        if record.canHaveFileFlags { record.flags = parent.flags.intersection(.inherited) }
        if record.isDirectory { record.parent = directory.inode.number }
        return record
    }

    /// What fits into the body of an inode without attributes.
    private var largestInlineTarget: Int { blockSize - InodeRecord.bodyOffset }

    /// A symbolic link's target that does not fit into an inode's body.
    private func longTarget(of object: NewObject) -> [UInt8]? {
        guard case .symlink(let target) = object, target.count > largestInlineTarget else {
            return nil
        }
        return target
    }

    /// Gives a new inode its content, if it has some from the start.
    private func fill(
        _ child: StoredInode,
        _ object: NewObject,
        _ longTarget: [UInt8]?,
        _ allocator: Allocator
    ) async throws(FileError) -> DirtyData? {
        guard case .symlink(let target) = object else { return nil }
        guard let longTarget else {
            target.withUnsafeBytes {
                child.writeInline($0, at: 0, in: allocator.transaction)
            }
            return nil
        }
        _ = child.convertInlineDataToExtents(in: allocator.transaction)
        guard let run = allocator.takeData(near: child.number.address, wanted: 1) else {
            preconditionFailure("the group was chosen because it has a block for data")
        }
        do throws(StoreError) {
            try await ExtentMap(store, child).insert(
                Extent(logical: 0, physical: run.start, length: 1),
                with: allocator
            )
        } catch {
            throw failed(error)
        }
        let dirty = DirtyData(
            device: device,
            engine: engine,
            account: dirtyAccount,
            blockSize: blockSize,
            regionSize: Int(superblock.regionSize)
        )
        longTarget.withUnsafeBytes { dirty.write($0, at: 0, logical: 0, physical: run.start) }
        allocator.transaction.order(dirty)
        child.record.size = UInt64(longTarget.count)
        child.store(in: allocator.transaction)
        return dirty
    }
}
