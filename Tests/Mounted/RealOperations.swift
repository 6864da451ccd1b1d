import CLinux
import Glibc

/// Does an operation to a mount. Returns the errno, 0 for success; `read` operations only look
/// whether the thing can be opened, what they read is compared elsewhere. `handle` is the open
/// handle it names.
enum RealOperations {
    static func apply(
        _ operation: Operation,
        root: String,
        tree: ModelTree,
        handle: Handle?
    ) -> (errno: Int32, descriptor: Int32) {
        do {
            return (0, try perform(operation, root: root, tree: tree, handle: handle))
        } catch let failure as SystemFailure {
            return (failure.code, -1)
        } catch {
            return (EIO, -1)
        }
    }

    private static func perform(
        _ operation: Operation,
        root: String,
        tree: ModelTree,
        handle: Handle?
    ) throws -> Int32 {
        func path(_ place: Place) -> String { root + "/" + tree.path(of: place) }
        switch operation {
        case .write(let place, let data, let offset):
            try Files.withOpen(path(place), O_WRONLY | O_CREAT | O_NOFOLLOW) {
                try Files.write(data.bytes, to: $0, at: offset)
            }
        case .append(let place, let data):
            try Files.withOpen(path(place), O_WRONLY | O_CREAT | O_NOFOLLOW | O_APPEND) {
                try Files.write(data.bytes, to: $0, at: nil)
            }
        case .truncate(let place, let size):
            try Files.withOpen(path(place), O_WRONLY | O_NOFOLLOW) {
                try check(ftruncate($0, size))
            }
        case .rename(let from, let to, let replacing):
            // RENAME_NOREPLACE
            try check(lockstep_rename_with_flags(path(from), path(to), replacing ? 0 : 1))
        case .link(let from, let to): try check(Glibc.link(path(from), path(to)))
        case .unlink(let place): try check(Glibc.unlink(path(place)))
        case .makeDirectory(let place): try check(mkdir(path(place), 0o755))
        case .removeDirectory(let place): try check(rmdir(path(place)))
        case .makeSymbolicLink(let place, let target): try check(symlink(target, path(place)))
        case .changeMode, .changeOwner, .setTime, .setAttribute, .removeAttribute:
            try change(operation, path)
        case .synchronise(let place):
            try Files.withOpen(path(place), O_RDONLY | O_NOFOLLOW) { try check(fsync($0)) }
        case .read(let place): _ = try Files.status(path(place))
        case .openHandle(_, let place, let appends):
            return try Files.open(path(place), O_RDWR | O_NOFOLLOW | (appends ? O_APPEND : 0))
        case .writeHandle, .mapAndWriteHandle, .truncateHandle, .synchroniseHandle, .readHandle,
            .closeHandle:
            try use(operation, handle)
        }
        return -1
    }

    private static func change(_ operation: Operation, _ path: (Place) -> String) throws {
        switch operation {
        case .changeMode(let place, let mode): try check(chmod(path(place), mode))
        case .changeOwner(let place, let owner, let group):
            try check(lchown(path(place), owner, group))
        case .setTime(let place, let nanoseconds):
            let time = timespec(
                tv_sec: nanoseconds / 1_000_000_000,
                tv_nsec: nanoseconds % 1_000_000_000
            )
            let times = [time, time]
            try check(utimensat(AT_FDCWD, path(place), times, AT_SYMLINK_NOFOLLOW))
        case .setAttribute(let place, let attribute):
            try check(
                lsetxattr(path(place), attribute.name, attribute.value, attribute.value.count, 0)
            )
        case .removeAttribute(let place, let name): try check(lremovexattr(path(place), name))
        default: preconditionFailure("not a change of attributes")
        }
    }

    private static func use(_ operation: Operation, _ handle: Handle?) throws {
        guard let handle else { preconditionFailure("the handle is not open") }
        switch operation {
        case .writeHandle(_, let data, let offset):
            try Files.write(data.bytes, to: handle.descriptor, at: handle.appends ? nil : offset)
        case .mapAndWriteHandle(_, let data, let offset):
            try map(handle.descriptor, data.bytes, offset)
        case .truncateHandle(_, let size): try check(ftruncate(handle.descriptor, size))
        case .synchroniseHandle: try check(fsync(handle.descriptor))
        case .closeHandle: try check(close(handle.descriptor))
        default: break
        }
    }

    /// Writes through a shared mapping and takes it away without msync: what the processor stored
    /// is written all the same, and other nodes must see it.
    private static func map(_ descriptor: Int32, _ bytes: [UInt8], _ offset: Int) throws {
        let size = offset + bytes.count
        guard let base = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            base != MAP_FAILED
        else { throw SystemFailure(errno) }
        bytes.withUnsafeBytes { source in
            UnsafeMutableRawBufferPointer(start: base + offset, count: bytes.count).copyMemory(
                from: source
            )
        }
        try check(munmap(base, size))
    }
}
