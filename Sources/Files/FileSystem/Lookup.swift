// Finding names and listing directories: readers of directories.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func lookup(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) -> LookupReply {
        let directory = try inode(parent)
        if isSpecial(name) { return try await lookUpSpecial(name, directory, interruption) }
        let stored = try await hold(directory, .shared, interruption)
        defer { release(directory, .shared) }
        try checkDirectory(stored)
        guard name.count <= DirectoryEntryRecord.longestName else { throw .nameTooLong }
        let found: DirectoryEntryRecord?
        do throws(StoreError) {
            found = try await Directory(store, stored).find(name)
        } catch {
            throw fileError(error)
        }
        guard let found else {
            directory.answered.add(name)
            return .absent(isCacheable: mayBeCached(directory))
        }
        try checkEntry(found, of: directory)
        let child = remember(found.inode)
        if wasLostLately(child) {
            pin(child)
            defer { unpin(child) }
            if let told = try await glimpse(child, interruption) {
                directory.answered.add(name)
                return .found(entry(child, told, isEntryCacheable: true))
            }
        }
        do throws(FileError) {
            let mode = lookMode(child)
            let childStored = try await holdEntry(child, mode, interruption)
            defer { release(child, mode) }
            let lastWrite = mode == .concurrent ? await lastWrite(child, takes: false) : nil
            let reply = entry(child, childStored, isEntryCacheable: true, lastWrite: lastWrite)
            directory.answered.add(name)
            return .found(reply)
        } catch {
            unrefer(child)
            throw error
        }
    }

    package func lookupIfCached(_ parent: NodeHandle, _ name: UnsafeRawBufferPointer)
        -> LookupReply?
    {
        guard !isWithdrawn, let directory = inodes[parent],
            let stored = holdIfCached(directory, .shared)
        else { return nil }
        defer { release(directory, .shared) }
        guard stored.record.isDirectory, !isSpecial(name),
            name.count <= DirectoryEntryRecord.longestName
        else { return nil }
        switch Directory(store, stored).findIfCached(name) {
        case .unknown: return nil
        case .absent:
            directory.answered.add(name)
            return .absent(isCacheable: mayBeCached(directory))
        case .found(let found):
            guard found.inode != directory.number, let child = inodes[found.inode],
                let childStored = holdIfCached(child, .shared)
            else { return nil }
            defer { release(child, .shared) }
            directory.answered.add(name)
            return .found(entry(child, childStored, isEntryCacheable: true))
        }
    }

    /// The reply that gives the kernel an inode, whose lock is taken for its attributes.
    func entryReply(
        _ inode: Inode,
        _ interruption: Interruption?,
        isEntryCacheable: Bool
    ) async throws(FileError) -> EntryReply {
        let mode = lookMode(inode)
        let stored = try await hold(inode, mode, interruption)
        defer { release(inode, mode) }
        let lastWrite = mode == .concurrent ? await lastWrite(inode, takes: false) : nil
        return entry(inode, stored, isEntryCacheable: isEntryCacheable, lastWrite: lastWrite)
    }

    /// The same of an inode that is held. The kernel gains a reference.
    func entry(
        _ inode: Inode,
        _ stored: StoredInode,
        isEntryCacheable: Bool,
        lastWrite: Timestamp? = nil
    ) -> EntryReply {
        refer(to: inode)
        inode.kernelMayCache = true
        return EntryReply(
            node: inode.handle,
            attributes: attributes(inode, stored, lastWrite: lastWrite),
            isEntryCacheable: isEntryCacheable && mayBeCached(inode),
            isAttributesCacheable: attributesMayBeCached(inode)
        )
    }

    /// The same of an inode that another node tells about.
    private func entry(
        _ inode: Inode,
        _ told: GlimpsedAttributes,
        isEntryCacheable: Bool
    ) -> EntryReply {
        refer(to: inode)
        inode.kernelMayCache = true
        return EntryReply(
            node: inode.handle,
            attributes: attributes(inode, told),
            isEntryCacheable: isEntryCacheable && mayBeCached(inode),
            isAttributesCacheable: false
        )
    }

    /// "." and "..", which are not stored as entries.
    private func isSpecial(_ name: UnsafeRawBufferPointer) -> Bool {
        name.count > 0 && name.count <= 2 && name.allSatisfy { $0 == UInt8(ascii: ".") }
    }

    /// The directory's own lock is let go before the parent's is taken: parents come first (L1).
    private func lookUpSpecial(
        _ name: UnsafeRawBufferPointer,
        _ directory: Inode,
        _ interruption: Interruption?
    ) async throws(FileError) -> LookupReply {
        var target = directory
        if name.count == 2 {
            let stored = try await hold(directory, .shared, interruption)
            defer { release(directory, .shared) }
            try checkDirectory(stored)
            target = remember(stored.record.parent)
        }
        do throws(FileError) {
            return .found(try await entryReply(target, interruption, isEntryCacheable: false))
        } catch {
            unrefer(target)
            throw error
        }
    }

    /// Fails for anything but a directory that still exists.
    func checkDirectory(_ stored: StoredInode) throws(FileError) {
        guard stored.record.isDirectory else { throw .notDirectory }
    }

    /// Fails for a directory in which nothing can be made any more.
    func checkLiveDirectory(_ stored: StoredInode) throws(FileError) {
        try checkDirectory(stored)
        if stored.record.linkCount == 0 { throw .notFound }
    }

    /// Fails for bytes that cannot be a name.
    func checkNewName(_ name: UnsafeRawBufferPointer) throws(FileError) {
        do throws(NameError) {
            try checkName(name)
        } catch {
            switch error {
            case .tooLong: throw .nameTooLong
            case .empty: throw .notFound
            case .invalid: throw .invalid
            }
        }
    }

    // MARK: Listing

    package func openDirectory(_ node: NodeHandle, _ interruption: Interruption?)
        async throws(FileError) -> OpenReply
    {
        let directory = try inode(node)
        let stored = try await hold(directory, .shared, interruption)
        defer { release(directory, .shared) }
        try checkDirectory(stored)
        directory.listings += 1
        let intent = OpenIntent(reads: true, writes: false, appends: false, truncates: false)
        let file = OpenFile(inode: directory, intent: intent, isDirect: false)
        return OpenReply(
            handle: openFiles.insert(file),
            keepsCache: times.access != .strict,
            isDirect: false
        )
    }

    package func readDirectory(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        after cookie: UInt64,
        _ interruption: Interruption?,
        _ body: (DirectoryEntry) -> Bool
    ) async throws(FileError) {
        let directory = try inode(node)
        guard openFiles[handle]?.inode === directory else { throw .badHandle }
        if directory.isFreed { return }
        let stored = try await hold(directory, .shared, interruption)
        defer { release(directory, .shared) }
        directory.kernelMayCache = true
        noteAccess(directory, stored)
        let directoryBits: UInt32 = 0o040000
        for (own, name, target) in [
            (UInt64(1), ".", directory.number), (2, "..", stored.record.parent),
        ] where cookie < own {
            var isWanted = true
            var bytes = name
            bytes.withUTF8 { text in
                isWanted = body(
                    DirectoryEntry(
                        name: UnsafeRawBufferPointer(text),
                        inode: target,
                        typeBits: directoryBits,
                        nextCookie: own
                    )
                )
            }
            if !isWanted { return }
        }
        do throws(StoreError) {
            try await Directory(store, stored).enumerate(after: cookie) { record, name in
                body(
                    DirectoryEntry(
                        name: name,
                        inode: record.inode,
                        typeBits: UInt32(record.type) << 12,
                        nextCookie: record.key
                    )
                )
            }
        } catch {
            throw fileError(error)
        }
    }

    package func releaseDirectory(_ node: NodeHandle, _ handle: OpenHandle) async {
        guard let file = openFiles.remove(handle) else { return }
        file.inode.listings -= 1
        unrefer(file.inode)
    }

    package func forget(_ node: NodeHandle, count: UInt64) {
        guard let inode = inodes[node] else { return }
        precondition(inode.lookups >= count, "the kernel forgets more than it was told")
        inode.lookups -= count
        unrefer(inode)
    }
}
