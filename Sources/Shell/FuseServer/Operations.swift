// Each request of the kernel as a call of the file system. Inside the engine; may wait.

import CFuse3
import FileSystem
import Glibc
import Vocabulary

extension Dispatcher {
    /// Does what a request asks for and returns its answer.
    func execute(_ request: Request) async throws(FileError) -> Answer {
        switch request.message.opcode {
        case .lookup: try await lookup(request)
        case .getAttributes: try await getAttributes(request)
        case .setAttributes: try await setAttributes(request)
        case .readLink:
            .bytes(try await operations.readLink(request.message.node, request.interruption))
        case .makeSymlink, .makeNode, .makeDirectory: try await make(request)
        case .unlink, .removeDirectory: try await remove(request)
        case .rename, .renameWithFlags: try await rename(request)
        case .link: try await link(request)
        case .create, .makeTemporary: try await create(request)
        case .open: try await open(request)
        case .read: try await read(request)
        case .write: try await write(request)
        case .flush, .release, .synchronize: try await finishFile(request)
        case .setLock, .setLockWaiting: try await lock(request)
        case .getLock: try await findLock(request)
        case .allocate: try await allocate(request)
        case .seek: try await seek(request)
        case .openDirectory, .readDirectory, .releaseDirectory, .synchronizeDirectory:
            try await directory(request)
        case .statistics:
            put(Encoding.statistics(try await operations.usage()), request)
        case .setExtendedAttribute, .getExtendedAttribute, .listExtendedAttributes,
            .removeExtendedAttribute:
            try await extendedAttribute(request)
        case .synchronizeAll:
            try await synchronizeAll()
        case .destroy:
            .done
        case .ioctl:
            try await control(request)
        default:
            // The kernel falls back (copy), or fails the call, and does not ask again.
            .failure(ENOSYS)
        }
    }

    /// Puts a structure into the request's reply area.
    func put<Structure: BitwiseCopyable>(_ value: Structure, _ request: Request) -> Answer {
        .short(Encoding.put(value, at: request.replyArea))
    }

    private func lookup(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let reply = try await operations.lookup(
            message.node,
            try message.name(),
            request.interruption
        )
        switch reply {
        case .found(let entry):
            request.undo.node = entry.node
            return put(encode(entry, keepsAttributes: true), request)
        case .absent(isCacheable: true) where session.agreement.keepsEntries:
            return put(Encoding.absence(), request)
        case .absent:
            return .failure(ENOENT)
        }
    }

    private func synchronizeAll() async throws(FileError) -> Answer {
        try await operations.synchronizeAll()
        return .done
    }

    // MARK: Attributes

    private func getAttributes(_ request: Request) async throws(FileError) -> Answer {
        let reply = try await operations.getAttributes(
            request.message.node,
            asker: request.message.attributeAsker,
            request.interruption
        )
        return put(Encoding.attributesReply(reply), request)
    }

    private func setAttributes(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_setattr_in.self)
        func asks(_ bit: Int32) -> Bool { wish.valid & UInt32(bit) != 0 }

        var change = AttributeChange()
        if asks(FATTR_MODE) { change.mode = wish.mode }
        if asks(FATTR_UID) { change.user = wish.uid }
        if asks(FATTR_GID) { change.group = wish.gid }
        if asks(FATTR_SIZE) { change.size = wish.size }
        if asks(FATTR_ATIME) {
            change.accessed =
                asks(FATTR_ATIME_NOW) ? .now : .at(timestamp(wish.atime, wish.atimensec))
        }
        if asks(FATTR_MTIME) {
            change.modified =
                asks(FATTR_MTIME_NOW) ? .now : .at(timestamp(wish.mtime, wish.mtimensec))
        }
        if asks(FATTR_CTIME) { change.changed = timestamp(wish.ctime, wish.ctimensec) }
        // chown(2) that changes neither owner nor group comes with nothing that is asked for, and drops them as well.
        let asked = UInt32(FATTR_FH | FATTR_LOCKOWNER)
        change.dropsPrivileges = asks(FATTR_KILL_SUIDGID) || wish.valid & ~asked == 0
        if change.size != nil { change.writerGroup = message.caller.writerGroup }
        let reply = try await operations.setAttributes(
            message.node,
            asks(FATTR_FH) ? OpenHandle(wish.fh) : nil,
            change,
            message.caller,
            request.interruption
        )
        return put(Encoding.attributesReply(reply), request)
    }

    private func timestamp(_ seconds: UInt64, _ nanoseconds: UInt32) -> Timestamp {
        Timestamp(
            seconds: Int64(bitPattern: seconds),
            nanoseconds: min(nanoseconds, 999_999_999)
        )
    }

    // MARK: Names

    private func make(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let object: NewObject
        let name: UnsafeRawBufferPointer
        var caller = message.caller
        switch message.opcode {
        case .makeNode:
            let wish = try message.argument(fuse_mknod_in.self)
            object = .node(mode: wish.mode, device: wish.rdev)
            caller.umask = wish.umask
            name = try message.name(at: MemoryLayout<fuse_mknod_in>.size)
        case .makeDirectory:
            let wish = try message.argument(fuse_mkdir_in.self)
            object = .directory(mode: (wish.mode & 0o7777) | FileKind.directory)
            caller.umask = wish.umask
            name = try message.name(at: MemoryLayout<fuse_mkdir_in>.size)
        default:
            name = try message.name()
            object = .symlink(target: Array(try message.name(at: name.count + 1)))
        }
        let entry = try await operations.make(
            object,
            in: message.node,
            named: name,
            caller,
            request.interruption
        )
        request.undo.node = entry.node
        return put(encode(entry, keepsAttributes: false), request)
    }

    private func remove(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let name = try message.name()
        if message.opcode == .unlink {
            try await operations.unlink(message.node, name, request.interruption)
        } else {
            try await operations.removeDirectory(message.node, name, request.interruption)
        }
        return .done
    }

    private func rename(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let target: UInt64
        let flags: UInt32
        let namesAt: Int
        if message.opcode == .renameWithFlags {
            let wish = try message.argument(fuse_rename2_in.self)
            (target, flags) = (wish.newdir, wish.flags)
            namesAt = MemoryLayout<fuse_rename2_in>.size
        } else {
            target = try message.argument(fuse_rename_in.self).newdir
            flags = 0
            namesAt = MemoryLayout<fuse_rename_in>.size
        }
        let kind: RenameKind
        switch flags {
        case 0: kind = .replace
        case 1: kind = .noReplace
        case 2: kind = .exchange
        default: throw .invalid
        }
        let old = try message.name(at: namesAt)
        let new = try message.name(at: namesAt + old.count + 1)
        try await operations.rename(
            message.node,
            old,
            to: NodeHandle(target),
            new,
            kind,
            message.caller,
            request.interruption
        )
        return .done
    }

    private func link(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let existing = NodeHandle(try message.argument(fuse_link_in.self).oldnodeid)
        let entry = try await operations.link(
            existing,
            in: message.node,
            named: try message.name(at: MemoryLayout<fuse_link_in>.size),
            message.caller,
            request.interruption
        )
        request.undo.node = entry.node
        return put(encode(entry, keepsAttributes: false), request)
    }

    // MARK: Opening

    private func create(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_create_in.self)
        var caller = message.caller
        caller.umask = wish.umask
        let (entry, opened) = try await made(wish, message, caller, request.interruption)
        request.undo.node = entry.node
        request.undo.file = (entry.node, opened.handle)
        let size = Encoding.put(encode(entry, keepsAttributes: false), at: request.replyArea)
        let more = Encoding.put(
            Encoding.opened(opened, isDirectory: false),
            at: request.replyArea,
            offset: size
        )
        return .short(size + more)
    }

    private func made(
        _ wish: fuse_create_in,
        _ message: Message,
        _ caller: Caller,
        _ interruption: Interruption
    ) async throws(FileError) -> (EntryReply, OpenReply) {
        let intent = intent(wish.flags, wish.open_flags, caller)
        if message.opcode == .makeTemporary {
            return try await operations.makeTemporary(
                in: message.node,
                mode: wish.mode,
                intent,
                caller,
                interruption
            )
        }
        return try await operations.create(
            in: message.node,
            named: try message.name(at: MemoryLayout<fuse_create_in>.size),
            mode: wish.mode,
            isExclusive: wish.flags & UInt32(O_EXCL) != 0,
            intent,
            caller,
            interruption
        )
    }

    private func open(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_open_in.self)
        let opened = try await operations.open(
            message.node,
            intent(wish.flags, wish.open_flags, message.caller),
            request.interruption
        )
        request.undo.file = (message.node, opened.handle)
        return put(Encoding.opened(opened, isDirectory: false), request)
    }

    /// O_NOATIME, which Glibc does not show to Swift.
    private static let keepsAccessTime: UInt32 = 0o1_000_000

    private func intent(_ flags: UInt32, _ openFlags: UInt32, _ caller: Caller) -> OpenIntent {
        let access = flags & UInt32(O_ACCMODE)
        var intent = OpenIntent(
            reads: access != UInt32(O_WRONLY),
            writes: access != UInt32(O_RDONLY),
            appends: flags & UInt32(O_APPEND) != 0,
            truncates: flags & UInt32(O_TRUNC) != 0
        )
        intent.dropsPrivileges = openFlags & UInt32(FUSE_OPEN_KILL_SUIDGID) != 0
        intent.keepsAccessTime = flags & Self.keepsAccessTime != 0
        intent.writerGroup = caller.writerGroup
        return intent
    }

    // MARK: Directories

    private func directory(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        switch message.opcode {
        case .openDirectory:
            let opened = try await operations.openDirectory(message.node, request.interruption)
            request.undo.directory = (message.node, opened.handle)
            return put(Encoding.opened(opened, isDirectory: true), request)
        case .readDirectory:
            return try await readDirectory(request)
        case .releaseDirectory:
            let wish = try message.argument(fuse_release_in.self)
            await operations.releaseDirectory(message.node, OpenHandle(wish.fh))
            return .done
        default:
            let wish = try message.argument(fuse_fsync_in.self)
            try await operations.synchronize(
                message.node,
                nil,
                dataOnly: wish.fsync_flags & 1 != 0
            )
            return .done
        }
    }

    private func readDirectory(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_read_in.self)
        let buffer = pool.take()
        var filler = DirectoryFiller(
            UnsafeMutableRawBufferPointer(
                rebasing: buffer.data[..<min(Int(wish.size), maximumTransfer)]
            )
        )
        do {
            try await operations.readDirectory(
                message.node,
                OpenHandle(wish.fh),
                after: wish.offset,
                request.interruption
            ) { filler.append($0) }
        } catch {
            pool.giveBack(buffer)
            throw error
        }
        return .data(buffer, filler.count)
    }
}
