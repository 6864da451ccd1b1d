// What processes do: the system calls of the model. Paths are walked through the name cache, data
// goes through the page cache, errors are those of the file system.

import Execution
package import FileSystem
package import Vocabulary

/// An open file of a process.
package final class KernelFile {
    let inode: KernelInode
    let handle: OpenHandle
    let intent: OpenIntent
    let isDirect: Bool
    /// Made without a name, and never linked to (I_LINKABLE).
    var isTemporary = false
    /// Who closes it, as a number for owners of locks.
    var closer: UInt64 = 0
    /// A process has it mapped.
    var isMapped = false
    /// The inode's number.
    package var node: NodeHandle { inode.handle }
    package fileprivate(set) var isClosed = false
    /// Write-backs that use the handle; RELEASE waits for them.
    var users = 0
    let unused = Signal()

    init(inode: KernelInode, reply: OpenReply, intent: OpenIntent) {
        self.inode = inode
        handle = reply.handle
        self.intent = intent
        isDirect = reply.isDirect
    }
}

extension KernelModel {
    static let caller = Caller(user: 1000, group: 1000, process: 1)

    /// A system call on a path: once more with all names looked up again if something on the way
    /// was stale.
    func retrying<Result>(
        _ body: (_ distrusts: Bool) async throws(FileError) -> Result
    ) async throws(FileError) -> Result {
        do throws(FileError) {
            return try await body(false)
        } catch .stale {
            return try await body(true)
        }
    }

    // MARK: Attributes

    /// stat(2).
    package func status(_ path: PathNames) async throws(FileError) -> FileAttributes {
        try await retrying { distrusts throws(FileError) in
            let inode = try await walk(path, distrusts: distrusts)
            defer { unpin(inode) }
            return try await refresh(inode, .all)
        }
    }

    /// access(2), whether something is there.
    package func access(_ path: PathNames) async throws(FileError) {
        try await retrying { distrusts throws(FileError) in
            let inode = try await walk(path, distrusts: distrusts)
            defer { unpin(inode) }
            try await checkPermission(inode)
        }
    }

    /// fstat(2).
    package func status(_ file: KernelFile) async throws(FileError) -> FileAttributes {
        try await refresh(file.inode, .all)
    }

    /// chmod(2), chown(2), utimensat(2), truncate(2).
    package func setAttributes(
        _ path: PathNames,
        _ change: AttributeChange
    ) async throws(FileError) {
        try await retrying { distrusts throws(FileError) in
            let inode = try await walk(path, distrusts: distrusts)
            defer { unpin(inode) }
            if change.size != nil, inode.isDirectory { throw .isDirectory }
            if change.size != nil, !inode.isRegular { throw .invalid }
            if change.size != nil { try await checkPermission(inode) }
            try await setAttributes(inode, nil, change)
            if inode.isDirectory, change.mode != nil { distrustNames(of: inode) }
        }
    }

    /// ftruncate(2).
    package func truncate(_ file: KernelFile, to size: UInt64) async throws(FileError) {
        var change = AttributeChange()
        change.size = size
        try await setAttributes(file.inode, file.handle, change)
    }

    private func setAttributes(
        _ inode: KernelInode,
        _ handle: OpenHandle?,
        _ change: AttributeChange
    ) async throws(FileError) {
        await inode.latch.enterExclusive()
        defer { inode.latch.leaveExclusive() }
        let since = attributeMark()
        let node = inode.handle
        let reply = try await ask { () async throws(FileError) in
            try await self.volume.setAttributes(node, handle, change, KernelModel.caller, nil)
        }
        let old = inode.size
        // Linux takes the size at once. What else the reply says it does not keep if something
        // changed the attributes while the request was under way: the next stat asks.
        let isCrossed = inode.attributeVersion > since
        await self.change(
            inode,
            reply.attributes,
            isValid: reply.isCacheable && !isCrossed,
            since: nil
        )
        if inode.isRegular, old != reply.attributes.size { await dropPages(inode, 0, nil) }
    }

    /// The permissions of a directory have changed: Linux looks its name up again.
    private func distrustNames(of directory: KernelInode) {
        for parent in known {
            for name in parent.nameOrder where parent.names[name]?.target === directory {
                parent.names[name]?.isTrusted = false
            }
        }
    }

    // MARK: Making and removing

    /// mkdir(2), mknod(2), symlink(2).
    package func make(_ object: NewObject, _ path: PathNames) async throws(FileError) {
        try await changeName(path, asks: true) { directory, name, existing throws(FileError) in
            if existing != nil { throw .exists }
            try await checkPermission(directory)
            let bytes = StableBytes(name)
            let handle = directory.handle
            let sampled = epoch
            let reply = try await askForEntry { () async throws(FileError) in
                try await self.volume.make(
                    object,
                    in: handle,
                    named: bytes.readOnly,
                    Self.caller,
                    nil
                )
            }
            await installNew(directory, name, reply, sampled)
        }
    }

    /// link(2).
    package func link(_ path: PathNames, as newPath: PathNames) async throws(FileError) {
        let target = try await walk(path)
        defer { unpin(target) }
        try await link(target, as: newPath)
    }

    /// linkat(2) of an open file: also of one that was made without a name and never had one.
    func link(_ file: KernelFile, as newPath: PathNames) async throws(FileError) {
        try await link(file.inode, as: newPath, isTemporary: file.isTemporary)
        file.isTemporary = false
    }

    private func link(
        _ target: KernelInode,
        as newPath: PathNames,
        isTemporary: Bool = false
    ) async throws(FileError) {
        try await changeName(newPath, asks: true) { directory, name, existing throws(FileError) in
            if existing != nil { throw .exists }
            // Nobody may link to what he may not open (the setting protected_hardlinks).
            if target.isRegular { try await checkPermission(target) }
            try await checkPermission(directory)
            if target.isDirectory { throw .notPermitted }
            if target.attributes.linkCount == 0, !isTemporary { throw .notFound }
            await target.latch.enterExclusive()
            defer { target.latch.leaveExclusive() }
            let bytes = StableBytes(name)
            let (node, handle) = (target.handle, directory.handle)
            let sampled = epoch
            let reply = try await askForEntry { () async throws(FileError) in
                try await self.volume.link(
                    node,
                    in: handle,
                    named: bytes.readOnly,
                    Self.caller,
                    nil
                )
            }
            await installNew(directory, name, reply, sampled)
        }
    }

    private func installNew(
        _ directory: KernelInode,
        _ name: [UInt8],
        _ reply: EntryReply,
        _ sampled: UInt64
    ) async {
        let inode = await install(reply, since: nil, keepsAttributes: false)
        setName(
            directory,
            name,
            KernelName(target: inode, isTrusted: reply.isEntryCacheable, epoch: sampled)
        )
        directoryChanged(directory)
    }

    /// Everything that makes a name: the directory latched, the name looked up, also if it is
    /// known (`asks`: LOOKUP_EXCL). open(2) checks permissions before it looks (`checksFirst`).
    private func changeName<Result>(
        _ path: PathNames,
        asks: Bool = false,
        checksFirst: Bool = false,
        _ body: (KernelInode, [UInt8], KernelInode?) async throws(FileError) -> Result
    ) async throws(FileError) -> Result {
        try await retrying { distrusts throws(FileError) in
            let (directory, name) = try await walkToParent(path, distrusts: distrusts)
            defer { unpin(directory) }
            await directory.latch.enterExclusive()
            defer { directory.latch.leaveExclusive() }
            let before = current(directory, name)?.target
            if checksFirst, before == nil { try await checkPermission(directory) }
            let existing = try await child(
                directory,
                name,
                distrusts: distrusts || asks,
                isLatched: true
            )
            defer { if let existing { unpin(existing) } }
            if checksFirst, before != nil, existing !== before {
                try await checkPermission(directory)
            }
            return try await body(directory, name, existing)
        }
    }

    /// unlink(2), rmdir(2).
    package func remove(_ path: PathNames, isDirectory: Bool) async throws(FileError) {
        try await changeName(path) { directory, name, existing throws(FileError) in
            guard let existing else { throw .notFound }
            try await checkPermission(directory)
            if isDirectory, !existing.isDirectory { throw .notDirectory }
            if !isDirectory, existing.isDirectory { throw .isDirectory }
            await existing.latch.enterExclusive()
            defer { existing.latch.leaveExclusive() }
            let bytes = StableBytes(name)
            let handle = directory.handle
            do throws(FileError) {
                try await ask { () async throws(FileError) in
                    if isDirectory {
                        try await self.volume.removeDirectory(handle, bytes.readOnly, nil)
                    } else {
                        try await self.volume.unlink(handle, bytes.readOnly, nil)
                    }
                }
            } catch {
                // What was known of the name is wrong.
                if error == .notFound || error == .interrupted { dropName(directory, name) }
                throw error
            }
            dropName(directory, name)
            directoryChanged(directory)
            lostName(existing)
        }
    }

    /// An inode has lost a name: Linux counts its links down by itself.
    private func lostName(_ inode: KernelInode) {
        inode.attributeVersion = nextVersion()
        if inode.isDirectory {
            inode.attributes.linkCount = 0
        } else if inode.attributes.linkCount > 0 {
            inode.attributes.linkCount -= 1
        }
        invalidateAttributes(inode, .change)
    }

    /// renameat2(2). Comes back with false if the two names led to one inode when each was looked up: then the
    /// kernel takes it for done and asks nobody (`vfs_rename`).
    @discardableResult
    package func rename(
        _ path: PathNames,
        to newPath: PathNames,
        _ kind: RenameKind
    ) async throws(FileError) -> Bool {
        try await retrying { distrusts throws(FileError) in
            let (from, name) = try await walkToParent(path, distrusts: distrusts)
            defer { unpin(from) }
            let (to, newName) = try await walkToParent(newPath, distrusts: distrusts)
            defer { unpin(to) }
            // The kernel's s_vfs_rename_mutex, and the ancestor first: latches by number do not
            // suffice.
            if from !== to { await renaming.enter() }
            defer { if from !== to { renaming.leave() } }
            let isFromFirst = !isAbove(newPath, path)
            for each in from === to ? [from] : isFromFirst ? [from, to] : [to, from] {
                await each.latch.enterExclusive()
            }
            defer {
                from.latch.leaveExclusive()
                if from !== to { to.latch.leaveExclusive() }
            }
            // Who is above whom, which Linux looks at before it looks at what they are.
            let loop: FileError? =
                newPath.count > path.count && newPath.starts(with: path)
                ? .invalid
                : path.count > newPath.count && path.starts(with: newPath)
                    ? (kind == .exchange ? .invalid : .notEmpty) : nil
            return try await renameLatched((from, name), (to, newName), kind, loop, distrusts)
        }
    }

    /// Whether the directory of `first` is above that of `second`.
    private func isAbove(_ first: PathNames, _ second: PathNames) -> Bool {
        first.count < second.count && second.starts(with: first.dropLast())
    }

    private func renameLatched(
        _ source: (directory: KernelInode, name: [UInt8]),
        _ place: (directory: KernelInode, name: [UInt8]),
        _ kind: RenameKind,
        _ loop: FileError?,
        _ distrusts: Bool
    ) async throws(FileError) -> Bool {
        let moved = try await child(
            source.directory,
            source.name,
            distrusts: distrusts,
            isLatched: true
        )
        guard let moved else { throw .notFound }
        defer { unpin(moved) }
        let target = try await child(
            place.directory,
            place.name,
            distrusts: distrusts || kind != .exchange,
            isLatched: true
        )
        defer { if let target { unpin(target) } }
        if target != nil, kind == .noReplace { throw .exists }
        if target == nil, kind == .exchange { throw .notFound }
        if let loop { throw loop }
        if let target, target === moved { return false }
        try await checkPermission(source.directory)
        try await checkPermission(place.directory)
        if let target, kind == .replace {
            if moved.isDirectory, !target.isDirectory { throw .notDirectory }
            if !moved.isDirectory, target.isDirectory { throw .isDirectory }
        }
        try await sendRename(source, place, kind, moved, target)
        // d_move: what was known of the name moves along with it.
        let known = source.directory.names[source.name]
        let other = place.directory.names[place.name]
        dropName(source.directory, source.name)
        dropName(place.directory, place.name)
        if let known { setName(place.directory, place.name, known) }
        if kind == .exchange, let other { setName(source.directory, source.name, other) }
        directoryChanged(source.directory)
        directoryChanged(place.directory)
        invalidateAttributes(moved, .change)
        if let target {
            if kind == .exchange { invalidateAttributes(target, .change) } else { lostName(target) }
        }
        return true
    }

    /// RENAME; what was known of the names is wrong if there is no such name.
    private func sendRename(
        _ source: (directory: KernelInode, name: [UInt8]),
        _ place: (directory: KernelInode, name: [UInt8]),
        _ kind: RenameKind,
        _ moved: KernelInode,
        _ target: KernelInode?
    ) async throws(FileError) {
        let (bytes, newBytes) = (StableBytes(source.name), StableBytes(place.name))
        let (from, to) = (source.directory.handle, place.directory.handle)
        do throws(FileError) {
            try await ask { () async throws(FileError) in
                try await self.volume.rename(
                    from,
                    bytes.readOnly,
                    to: to,
                    newBytes.readOnly,
                    kind,
                    Self.caller,
                    nil
                )
            }
        } catch {
            if error == .notFound || error == .interrupted {
                if source.directory.names[source.name]?.target === moved {
                    dropName(source.directory, source.name)
                }
                if target != nil { dropName(place.directory, place.name) }
            }
            throw error
        }
    }

    /// readlink(2).
    package func readLink(_ path: PathNames) async throws(FileError) -> [UInt8] {
        try await retrying { distrusts throws(FileError) in
            let inode = try await walk(path, distrusts: distrusts)
            defer { unpin(inode) }
            guard inode.typeBits == 0o120000 else { throw .invalid }
            if let known = inode.linkTarget { return known }
            let handle = inode.handle
            let target = try await ask { () async throws(FileError) in
                try await self.volume.readLink(handle, nil)
            }
            inode.linkTarget = target
            invalidateAttributes(inode, .access)
            return target
        }
    }

    // MARK: Opening

    /// open(2). With `creates`, makes a regular file of this mode if there is none.
    package func open(
        _ path: PathNames,
        _ intent: OpenIntent,
        creates: UInt32? = nil,
        isExclusive: Bool = false
    ) async throws(FileError) -> KernelFile {
        if let mode = creates {
            return try await changeName(path, asks: isExclusive, checksFirst: true) {
                directory,
                name,
                existing throws(FileError) in
                if let existing {
                    if isExclusive { throw .exists }
                    return try await openKnown(existing, intent)
                }
                return try await create(directory, name, mode, intent, isExclusive)
            }
        }
        return try await retrying { distrusts throws(FileError) in
            let inode = try await walk(path, distrusts: distrusts)
            defer { unpin(inode) }
            return try await openKnown(inode, intent)
        }
    }

    private func openKnown(
        _ inode: KernelInode,
        _ intent: OpenIntent
    ) async throws(FileError) -> KernelFile {
        if inode.isDirectory {
            throw .isDirectory
        }
        guard inode.isRegular else { throw .invalid }
        try await checkPermission(inode)
        let handle = inode.handle
        let reply = try await ask { () async throws(FileError) in
            try await self.volume.open(handle, intent, nil)
        }
        if intent.truncates {
            inode.size = 0
            inode.attributeVersion = nextVersion()
            invalidateAttributes(inode, .written)
            await truncatePages(inode, to: 0)
        } else if !reply.keepsCache {
            await dropPages(inode, 0, nil)
        }
        return opened(inode, reply, intent)
    }

    private func create(
        _ directory: KernelInode,
        _ name: [UInt8],
        _ mode: UInt32,
        _ intent: OpenIntent,
        _ isExclusive: Bool
    ) async throws(FileError) -> KernelFile {
        let bytes = StableBytes(name)
        let handle = directory.handle
        let sampled = epoch
        let (entry, reply) = try await ask(
            { () async throws(FileError) in
                try await self.volume.create(
                    in: handle,
                    named: bytes.readOnly,
                    mode: mode,
                    isExclusive: isExclusive,
                    intent,
                    Self.caller,
                    nil
                )
            },
            arrived: { [self] in depart($0.0) }
        )
        // Nobody gives back the handle and the reference then (KERNEL S5).
        guard entry.attributes.mode & 0o170000 == 0o100000 else { throw .inputOutput }
        await installNew(directory, name, entry, sampled)
        guard let inode = inode(entry.node) else { preconditionFailure("K3: just installed") }
        let file = opened(inode, reply, intent)
        do throws(FileError) {
            // Of a file that was just made nothing is asked but this.
            try await checkPermission(inode)
        } catch {
            try await release(file)
            throw error
        }
        return file
    }

    /// O_TMPFILE, below a directory.
    func makeTemporary(
        below path: PathNames,
        _ intent: OpenIntent
    ) async throws(FileError) -> KernelFile {
        let directory = try await walk(path)
        defer { unpin(directory) }
        let handle = directory.handle
        let (entry, reply) = try await ask(
            { () async throws(FileError) in
                try await self.volume.makeTemporary(
                    in: handle,
                    mode: 0o600,
                    intent,
                    Self.caller,
                    nil
                )
            },
            arrived: { [self] in depart($0.0) }
        )
        let inode = await install(entry, since: nil, keepsAttributes: false)
        let file = opened(inode, reply, intent)
        file.isTemporary = true
        return file
    }

    private func opened(
        _ inode: KernelInode,
        _ reply: OpenReply,
        _ intent: OpenIntent
    ) -> KernelFile {
        let file = KernelFile(inode: inode, reply: reply, intent: intent)
        inode.pins += 1
        inode.files.append(file)
        return file
    }

    /// close(2) of the last descriptor.
    package func close(_ file: KernelFile) async throws(FileError) {
        precondition(!file.isClosed, "closed twice")
        file.isClosed = true
        let inode = file.inode
        // Write-back of mappings needs a writable file: it goes before the handle does.
        await writeBackDirtyPages(inode)
        let (node, handle) = (inode.handle, file.handle)
        let closer = ByteLockOwner(file.closer)
        let flushed: Result<Void, FileError>
        do throws(FileError) {
            try await ask { () async throws(FileError) in
                try await self.volume.flush(node, handle, closer)
            }
            flushed = .success(())
        } catch {
            flushed = .failure(error)
        }
        try await release(file)
        try flushed.get()
    }

    private func release(_ file: KernelFile) async throws(FileError) {
        let inode = file.inode
        inode.files.removeAll { $0 === file }
        while file.users > 0 { await file.unused.wait() }
        defer { unpin(inode) }
        let (node, handle) = (inode.handle, file.handle)
        try await ask { () async throws(FileError) in
            await self.volume.release(node, handle)
        }
    }

    /// fsync(2), fdatasync(2).
    package func synchronize(
        _ file: KernelFile,
        dataOnly: Bool
    ) async throws(FileError) {
        await file.inode.latch.enterExclusive()
        defer { file.inode.latch.leaveExclusive() }
        await writeBackDirtyPages(file.inode)
        let (node, handle) = (file.inode.handle, file.handle)
        try await ask { () async throws(FileError) in
            try await self.volume.synchronize(node, handle, dataOnly: dataOnly)
        }
    }

    /// sync(2), which writes back what mappings have changed, and `lockstep sync`: everything of
    /// this node becomes durable.
    package func synchronizeAll() async throws(FileError) {
        for inode in known where inode.pages.hasDirty { await writeBackDirtyPages(inode) }
        try await ask { () async throws(FileError) in
            try await self.volume.synchronizeAll()
        }
    }

    // MARK: Extended attributes

    /// getxattr(2).
    package func extendedAttribute(
        _ path: PathNames,
        _ name: [UInt8]
    ) async throws(FileError) -> [UInt8] {
        try await onInode(path) { node throws(FileError) in
            let bytes = StableBytes(name)
            return try await self.volume.getExtendedAttribute(node, bytes.readOnly, nil)
        }
    }

    /// setxattr(2).
    package func setExtendedAttribute(
        _ path: PathNames,
        _ name: [UInt8],
        _ value: [UInt8]
    ) async throws(FileError) {
        try await onInode(path, changes: true) { node throws(FileError) in
            let (bytes, content) = (StableBytes(name), StableBytes(value))
            try await self.volume.setExtendedAttribute(
                node,
                bytes.readOnly,
                content.readOnly,
                .createOrReplace,
                Self.caller,
                nil
            )
        }
    }

    /// removexattr(2).
    package func removeExtendedAttribute(
        _ path: PathNames,
        _ name: [UInt8]
    ) async throws(FileError) {
        try await onInode(path, changes: true) { node throws(FileError) in
            let bytes = StableBytes(name)
            try await self.volume.removeExtendedAttribute(node, bytes.readOnly, Self.caller, nil)
        }
    }

    /// listxattr(2): names, each followed by a zero byte.
    package func extendedAttributeNames(
        _ path: PathNames
    ) async throws(FileError) -> [UInt8] {
        try await onInode(path, checks: false) { node throws(FileError) in
            try await self.volume.listExtendedAttributes(node, nil)
        }
    }

    private func onInode<Result>(
        _ path: PathNames,
        changes: Bool = false,
        checks: Bool = true,
        _ body: @escaping (NodeHandle) async throws(FileError) -> Result
    ) async throws(FileError) -> Result {
        try await retrying { distrusts throws(FileError) in
            let inode = try await walk(path, distrusts: distrusts)
            defer { unpin(inode) }
            if changes { await inode.latch.enterExclusive() }
            defer { if changes { inode.latch.leaveExclusive() } }
            let handle = inode.handle
            if checks { try await checkPermission(inode) }
            let result = try await ask { () async throws(FileError) in try await body(handle) }
            if changes { invalidateAttributes(inode, .change) }
            return result
        }
    }
}
