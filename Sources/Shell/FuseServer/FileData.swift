// Requests that move file data or extended attributes. Inside the engine; may wait.

import CFuse3
import CLinux
import FileSystem
import Glibc
import Vocabulary

extension Dispatcher {
    func read(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_read_in.self)
        let buffer = pool.take()
        let area = UnsafeMutableRawBufferPointer(
            rebasing: buffer.data[..<min(Int(wish.size), maximumTransfer)]
        )
        do {
            // A lock owner is named only by reads that go straight to a process (KERNEL M1).
            let count = try await operations.read(
                message.node,
                OpenHandle(wish.fh),
                at: wish.offset,
                into: area,
                isFill: wish.read_flags & UInt32(FUSE_READ_LOCKOWNER) == 0,
                reader: message.thread,
                request.interruption
            )
            precondition(count <= area.count, "more was read than there is room for")
            return .data(buffer, count)
        } catch {
            pool.giveBack(buffer)
            throw error
        }
    }

    func write(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_write_in.self)
        let data = try message.rest(after: MemoryLayout<fuse_write_in>.size)
        guard data.count >= Int(wish.size) else { throw .inputOutput }
        let isWriteback = wish.write_flags & UInt32(FUSE_WRITE_CACHE) != 0
        var flags = WriteFlags(
            appends: !isWriteback && wish.flags & UInt32(O_APPEND) != 0,
            isWriteback: isWriteback,
            isDirect: wish.write_flags & UInt32(FUSE_WRITE_LOCKOWNER) != 0,
            dropsPrivileges: wish.write_flags & UInt32(FUSE_WRITE_KILL_SUIDGID) != 0
        )
        flags.writerGroup = message.caller.writerGroup
        flags.isExempt = !isWriteback && message.caller.isExempt
        // O_SYNC holds the bit of O_DSYNC.
        flags.isSynchronous = !isWriteback && wish.flags & UInt32(O_DSYNC) != 0
        let count = try await operations.write(
            message.node,
            OpenHandle(wish.fh),
            at: wish.offset,
            from: UnsafeRawBufferPointer(rebasing: data[..<Int(wish.size)]),
            flags,
            request.interruption
        )
        precondition(count <= Int(wish.size), "more was written than was given")
        return put(fuse_write_out(size: UInt32(count), padding: 0), request)
    }

    /// flock(2) and fcntl(2).
    func lock(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_lk_in.self)
        if wish.lk_flags & UInt32(FUSE_LK_FLOCK) == 0 {
            try await operations.lockBytes(
                message.node,
                OpenHandle(wish.fh),
                ByteLockOwner(wish.owner),
                try wish.byteLockWish,
                waits: message.opcode == .setLockWaiting,
                request.interruption
            )
            return .done
        }
        let wanted: WholeFileLock
        switch Int32(bitPattern: wish.lk.type) {
        case Int32(F_RDLCK): wanted = .shared
        case Int32(F_WRLCK): wanted = .exclusive
        case Int32(F_UNLCK): wanted = .unlocked
        default: throw .invalid
        }
        try await operations.lock(
            message.node,
            OpenHandle(wish.fh),
            wanted,
            waits: message.opcode == .setLockWaiting,
            request.interruption
        )
        return .done
    }

    /// F_GETLK. A process of another node has no number here: it is named by a negative one, which the
    /// kernel shows as 0.
    func findLock(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_lk_in.self)
        let found = try await operations.byteLock(
            inTheWayOf: try wish.byteLockWish,
            message.node,
            OpenHandle(wish.fh),
            ByteLockOwner(wish.owner),
            request.interruption
        )
        var answer = fuse_lk_out()
        answer.lk.type = UInt32(F_UNLCK)
        if let found {
            let process = Int32(truncatingIfNeeded: found.bytes.process)
            answer.lk.start = found.bytes.first
            answer.lk.end = found.bytes.last
            answer.lk.type = UInt32(found.isWrite ? F_WRLCK : F_RDLCK)
            answer.lk.pid = UInt32(bitPattern: found.node == nil ? process : -process)
        }
        return put(answer, request)
    }

    /// fallocate(2).
    func allocate(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_fallocate_in.self)
        let end = wish.offset.addingReportingOverflow(wish.length)
        guard !end.overflow, wish.offset <= end.partialValue else { throw .tooLarge }
        let keepsSize = wish.mode & UInt32(FALLOC_FL_KEEP_SIZE) != 0
        let kind: Allocation.Kind
        switch wish.mode & ~UInt32(FALLOC_FL_KEEP_SIZE) {
        case 0: kind = .allocate
        case UInt32(FALLOC_FL_PUNCH_HOLE) where keepsSize: kind = .punch
        case UInt32(FALLOC_FL_ZERO_RANGE): kind = .zero
        default: throw .notSupported
        }
        try await operations.allocate(
            message.node,
            OpenHandle(wish.fh),
            wish.offset..<end.partialValue,
            Allocation(kind, keepsSize: keepsSize),
            message.caller,
            request.interruption
        )
        return .done
    }

    /// lseek(2) for data and holes.
    func seek(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        let wish = try message.argument(fuse_lseek_in.self)
        let goal: SeekGoal
        switch Int32(bitPattern: wish.whence) {
        case SEEK_DATA: goal = .data
        case SEEK_HOLE: goal = .hole
        default: throw .invalid
        }
        let offset = try await operations.seek(
            message.node,
            OpenHandle(wish.fh),
            from: wish.offset,
            to: goal,
            request.interruption
        )
        return put(fuse_lseek_out(offset: offset), request)
    }

    /// close(2), the end of an open file, fsync(2).
    func finishFile(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        switch message.opcode {
        case .flush:
            let wish = try message.argument(fuse_flush_in.self)
            try await operations.flush(
                message.node,
                OpenHandle(wish.fh),
                ByteLockOwner(wish.lock_owner)
            )
        case .release:
            let wish = try message.argument(fuse_release_in.self)
            await operations.release(message.node, OpenHandle(wish.fh))
        default:
            let wish = try message.argument(fuse_fsync_in.self)
            try await operations.synchronize(
                message.node,
                OpenHandle(wish.fh),
                dataOnly: wish.fsync_flags & 1 != 0
            )
        }
        return .done
    }

    // MARK: Extended attributes

    /// XATTR_SIZE_MAX and XATTR_LIST_MAX.
    private static let longestValue = 65_536

    func extendedAttribute(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        switch message.opcode {
        case .getExtendedAttribute:
            let wish = try message.argument(fuse_getxattr_in.self)
            let value = try await operations.getExtendedAttribute(
                message.node,
                try message.name(at: MemoryLayout<fuse_getxattr_in>.size),
                request.interruption
            )
            return sized(value, wish.size, request)
        case .listExtendedAttributes:
            let wish = try message.argument(fuse_getxattr_in.self)
            let names = try await operations.listExtendedAttributes(
                message.node,
                request.interruption
            )
            return sized(visible(names, to: message.caller), wish.size, request)
        case .removeExtendedAttribute:
            try await operations.removeExtendedAttribute(
                message.node,
                try message.name(),
                message.caller,
                request.interruption
            )
            return .done
        default:
            return try await setExtendedAttribute(request)
        }
    }

    /// The names of a list without those that only who administers the system may see.
    private func visible(_ names: [UInt8], to caller: Caller) -> [UInt8] {
        if caller.user == 0 { return names }
        let shown = names.split(separator: 0).filter { !$0.starts(with: Array("trusted.".utf8)) }
        return shown.flatMap { Array($0) + [0] }
    }

    /// A room of 0 asks for the size alone.
    private func sized(_ value: [UInt8], _ room: UInt32, _ request: Request) -> Answer {
        if room == 0 {
            return put(fuse_getxattr_out(size: UInt32(value.count), padding: 0), request)
        }
        if value.count > Int(room) {
            return .failure(value.count > Self.longestValue ? E2BIG : ERANGE)
        }
        return .bytes(value)
    }

    private func setExtendedAttribute(_ request: Request) async throws(FileError) -> Answer {
        let message = request.message
        // Without FUSE_SETXATTR_EXT the structure has its two first fields only.
        let isLong = session.agreement.features & Feature.longSetAttribute != 0
        let fixed =
            isLong ? MemoryLayout<fuse_setxattr_in>.size : Int(FUSE_COMPAT_SETXATTR_IN_SIZE)
        let head = try message.rest(after: 0)
        guard head.count >= fixed else { throw .inputOutput }
        let size = Int(head.load(as: UInt32.self))
        let flags = head.load(fromByteOffset: 4, as: UInt32.self)
        let more = isLong ? head.load(fromByteOffset: 8, as: UInt32.self) : 0
        let name = try message.name(at: fixed)
        let value = try message.rest(after: fixed + name.count + 1)
        guard value.count >= size else { throw .inputOutput }
        if size > Self.longestValue { return .failure(E2BIG) }
        let setting: AttributeSetting
        switch flags {
        case 0 where more & UInt32(FUSE_SETXATTR_ACL_KILL_SGID) != 0:
            setting = .createOrReplaceWithoutSetGroupID
        case 0: setting = .createOrReplace
        case 1: setting = .create
        case 2: setting = .replace
        default: throw .invalid
        }
        try await operations.setExtendedAttribute(
            message.node,
            name,
            UnsafeRawBufferPointer(rebasing: value[..<size]),
            setting,
            message.caller,
            request.interruption
        )
        return .done
    }
}

extension fuse_lk_in {
    /// What is asked of the bytes.
    fileprivate var byteLockWish: ByteLockWish {
        get throws(FileError) {
            let kind: ByteLockWish.Kind
            switch Int32(bitPattern: lk.type) {
            case Int32(F_RDLCK): kind = .read
            case Int32(F_WRLCK): kind = .write
            case Int32(F_UNLCK): kind = .unlock
            default: throw .invalid
            }
            guard lk.start <= lk.end else { throw .invalid }
            return ByteLockWish(
                kind,
                LockedBytes(first: lk.start, last: lk.end, process: lk.pid)
            )
        }
    }
}
