// Names: the kernel's path walk, what it caches of directories, and listings.

import Execution
import FileSystem
package import Vocabulary

/// A path below the root, as names.
package typealias PathNames = [[UInt8]]

extension KernelModel {
    // MARK: The name cache

    func dropName(_ directory: KernelInode, _ name: [UInt8]) {
        guard let known = directory.names.removeValue(forKey: name) else { return }
        directory.nameOrder.removeAll { $0 == name }
        known.target?.nameCount -= 1
    }

    func setName(_ directory: KernelInode, _ name: [UInt8], _ entry: KernelName) {
        dropName(directory, name)
        directory.names[name] = entry
        directory.nameOrder.append(name)
        entry.target?.nameCount += 1
    }

    /// A name that may be wrong. With that of a directory Linux forgets what is cached below it and
    /// not in use; the dice leave it, as if all of it were.
    func invalidateName(_ directory: KernelInode, _ name: [UInt8]) {
        let target = directory.names[name]?.target
        dropName(directory, name)
        if let target, habits != nil { forgetBelow(target) }
    }

    private func forgetBelow(_ directory: KernelInode) {
        for name in directory.nameOrder {
            let target = directory.names[name]?.target
            if let target { forgetBelow(target) }
            if let target, target.pins > 0 || !target.nameOrder.isEmpty { continue }
            dropName(directory, name)
        }
    }

    /// What is cached of a name, unless an epoch has passed.
    func current(_ directory: KernelInode, _ name: [UInt8]) -> KernelName? {
        guard let known = directory.names[name] else { return nil }
        if known.epoch == epoch { return known }
        invalidateName(directory, name)
        if let target = known.target { evictIfUnused(target) }
        return nil
    }

    // MARK: Walking

    /// Walks to the object of a path. It comes back pinned.
    func walk(_ path: PathNames, distrusts: Bool = false) async throws(FileError) -> KernelInode {
        var here = root
        here.pins += 1
        for name in path {
            let directory = here
            defer { unpin(directory) }
            try await checkSearch(directory)
            guard let next = try await child(directory, name, distrusts: distrusts) else {
                throw .notFound
            }
            here = next
        }
        return here
    }

    /// Whoever goes through a directory must be permitted to search it.
    private func checkSearch(_ directory: KernelInode) async throws(FileError) {
        guard directory.isDirectory else { throw .notDirectory }
        try await checkPermission(directory)
    }

    /// Walks to the directory of a path's last name. It comes back pinned.
    func walkToParent(
        _ path: PathNames,
        distrusts: Bool = false
    ) async throws(FileError) -> (directory: KernelInode, name: [UInt8]) {
        guard let name = path.last else { throw .busy }
        let directory = try await walk(Array(path.dropLast()), distrusts: distrusts)
        do throws(FileError) {
            try await checkSearch(directory)
        } catch {
            unpin(directory)
            throw error
        }
        return (directory, name)
    }

    /// What a program finds through a mapping of a file without asking anybody: bytes of pages that are
    /// all there. Nil if one is not, or no name leads there without a question.
    package func mapped(_ path: PathNames, at offset: UInt64, count: Int) -> [UInt8]? {
        var here = root
        for name in path {
            guard let next = here.names[name]?.target else { return nil }
            here = next
        }
        guard !isDead, offset + UInt64(count) <= here.size else { return nil }
        var result: [UInt8] = []
        let unit = UInt64(KernelPage.size)
        while result.count < count {
            let position = offset + UInt64(result.count)
            guard let page = here.pages[position / unit], page.isUptodate, !page.isGone else {
                return nil
            }
            let within = Int(position % unit)
            result +=
                page.bytes[within..<within + min(KernelPage.size - within, count - result.count)]
        }
        return result
    }

    func unpin(_ inode: KernelInode) {
        precondition(inode.pins > 0, "unpinned too often")
        inode.pins -= 1
    }

    /// A name in a directory, from the cache or by LOOKUP; comes back pinned. Nil: absent.
    func child(
        _ directory: KernelInode,
        _ name: [UInt8],
        distrusts: Bool,
        isLatched: Bool = false
    ) async throws(FileError) -> KernelInode? {
        guard directory.isDirectory else { throw .notDirectory }
        var distrusts = distrusts
        while true {
            if let known = current(directory, name) {
                if known.isTrusted, !distrusts {
                    cachedNames += 1
                    known.target?.pins += 1
                    return known.target
                }
                if known.target == nil {
                    dropName(directory, name)
                } else if let target = try await revalidate(directory, name, known) {
                    return target
                }
                distrusts = false
                continue
            }
            if isLatched { return try await lookUp(directory, name) }
            if let found = try await lookUpShared(directory, name) { return found.inode }
        }
    }

    /// A LOOKUP that only confirms a known name; holds nothing (K2). Nil: the name was dropped.
    private func revalidate(
        _ directory: KernelInode,
        _ name: [UInt8],
        _ known: KernelName
    ) async throws(FileError) -> KernelInode? {
        guard let target = known.target else { return nil }
        target.pins += 1
        let since = attributeMark()
        let reply: LookupReply
        do throws(FileError) {
            reply = try await sendLookup(directory, name)
        } catch {
            unpin(target)
            throw error
        }
        if case .found(let entry) = reply {
            if entry.node == target.handle, entry.attributes.inode == target.identity,
                directory.names[name] === known
            {
                known.isTrusted = entry.isEntryCacheable
                _ = await install(entry, since: since, keepsAttributes: true)
                return target
            }
            forgetOne(entry)
        }
        if directory.names[name] === known { invalidateName(directory, name) }
        unpin(target)
        return nil
    }

    /// A LOOKUP of an uncached name under the directory's latch; one per name at a time. Nil: try
    /// again.
    private func lookUpShared(
        _ directory: KernelInode,
        _ name: [UInt8]
    ) async throws(FileError) -> (inode: KernelInode?, Void)? {
        await directory.latch.enterShared()
        defer { directory.latch.leaveShared() }
        if let other = directory.lookupsInFlight[name] {
            await other.wait()
            return nil
        }
        if current(directory, name) != nil { return nil }
        let signal = Signal()
        directory.lookupsInFlight[name] = signal
        defer {
            directory.lookupsInFlight[name] = nil
            signal.notify()
        }
        return (try await lookUp(directory, name), ())
    }

    private func lookUp(
        _ directory: KernelInode,
        _ name: [UInt8]
    ) async throws(FileError) -> KernelInode? {
        let sampled = epoch
        let since = attributeMark()
        switch try await sendLookup(directory, name) {
        case .absent(let isCacheable):
            setName(
                directory,
                name,
                KernelName(target: nil, isTrusted: isCacheable, epoch: sampled)
            )
            return nil
        case .found(let entry):
            let inode = await install(entry, since: since, keepsAttributes: true)
            setName(
                directory,
                name,
                KernelName(
                    target: inode,
                    isTrusted: entry.isEntryCacheable,
                    epoch: sampled
                )
            )
            inode.pins += 1
            return inode
        }
    }

    private func sendLookup(
        _ directory: KernelInode,
        _ name: [UInt8]
    ) async throws(FileError) -> LookupReply {
        let bytes = StableBytes(name)
        let handle = directory.handle
        return try await ask(
            { () async throws(FileError) in
                if let quick = self.volume.lookupIfCached(handle, bytes.readOnly) { return quick }
                return try await self.volume.lookup(handle, bytes.readOnly, nil)
            },
            arrived: { [self] reply in
                if case .found(let entry) = reply { depart(entry) }
            }
        )
    }

    // MARK: Listing

    /// readdir(3) of a whole directory, sorted by name.
    package func list(_ path: PathNames) async throws(FileError) -> [ListedName] {
        try await listing(path).entries
    }

    /// The same, and whether all of it is from one moment: from the cache, or of one READDIR.
    func listing(
        _ path: PathNames
    ) async throws(FileError) -> (entries: [ListedName], isWhole: Bool) {
        let directory = try await walk(path)
        defer { unpin(directory) }
        guard directory.isDirectory else { throw .notDirectory }
        try await checkPermission(directory)
        let handle = directory.handle
        let opened = try await ask { () async throws(FileError) in
            try await self.volume.openDirectory(handle, nil)
        }
        do throws(FileError) {
            let entries = try await listOpened(directory, opened)
            await closeDirectory(handle, opened.handle)
            return entries
        } catch {
            await closeDirectory(handle, opened.handle)
            throw error
        }
    }

    private func closeDirectory(_ node: NodeHandle, _ handle: OpenHandle) async {
        do throws(FileError) {
            try await ask { () async throws(FileError) in
                await self.volume.releaseDirectory(node, handle)
            }
        } catch {
            return  // The connection is gone, and with it the handle.
        }
    }

    private func listOpened(
        _ directory: KernelInode,
        _ opened: OpenReply
    ) async throws(FileError) -> (entries: [ListedName], isWhole: Bool) {
        await directory.latch.enterShared()
        defer { directory.latch.leaveShared() }
        // The modification time that is known is not asked for again: the check of permissions
        // has, if all attributes were invalid.
        let modified = directory.attributes.modified
        let version = directory.directoryVersion
        if opened.keepsCache, let listing = directory.listing, listing.modified == modified,
            listing.version == version
        {
            return (listing.entries, true)
        }
        directory.listing = nil
        var entries: [ListedName] = []
        var cookie: UInt64 = 0
        var parts = 0
        var isCut = false
        while true {
            let part = try await readPart(directory.handle, opened.handle, after: cookie)
            guard let last = part.names.last else { break }
            cookie = last.cookie
            parts += 1
            entries += part.names.map(\.entry)
            // What did not fit may be gone when it is asked for.
            isCut = isCut || part.isCut
        }
        invalidateAttributes(directory, .access)
        entries.sort { $0.name.lexicographicallyPrecedes($1.name) }
        if opened.keepsCache, directory.directoryVersion == version {
            directory.listing = KernelListing(
                modified: modified,
                version: version,
                entries: entries
            )
        }
        return (entries, parts <= 1 && !isCut)
    }

    /// One READDIR: as many entries as fit into a buffer of random size.
    private func readPart(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        after cookie: UInt64
    ) async throws(FileError) -> (names: [(entry: ListedName, cookie: UInt64)], isCut: Bool) {
        let room = habits == nil ? 1 + dice.below(60) : 1000
        return try await ask { () async throws(FileError) in
            var part: [(entry: ListedName, cookie: UInt64)] = []
            var isCut = false
            try await self.volume.readDirectory(node, handle, after: cookie, nil) { entry in
                if part.count == room {
                    isCut = true
                    return false
                }
                part.append(
                    (
                        ListedName(
                            name: [UInt8](entry.name),
                            inode: entry.inode,
                            typeBits: entry.typeBits
                        ), entry.nextCookie
                    )
                )
                return true
            }
            return (part, isCut)
        }
    }
}
