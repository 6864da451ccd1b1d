// The operations of the simulation's workloads, done to a real directory as a program does them.

import CLinux
import FileSystem
import Glibc
import SimulatedWorld

/// Does operations below one directory.
struct TreeOperations {
    /// Stands for `/` of the operations' paths.
    let root: String

    func path(_ names: PathNames) -> String {
        names.reduce(root) { $0 + "/" + String(decoding: $1, as: UTF8.self) }
    }

    /// Whether the system takes a path of that length.
    func isShort(_ names: PathNames) -> Bool { path(names).utf8.count < Int(PATH_MAX) - 1 }

    /// Does it, and returns what a read has read.
    func perform(_ operation: TreeOperation) throws -> [UInt8] {
        switch operation {
        case .create(let path, let isExclusive):
            let flags = O_WRONLY | O_CREAT | (isExclusive ? O_EXCL : 0)
            try withFile(path, flags, mode: 0o640) { _ in }
        case .make(let kind, let path, let target): try make(kind, self.path(path), target)
        case .link(let from, let to): try check(Glibc.link(path(from), path(to)))
        case .remove(let path, let isDirectory):
            try check(isDirectory ? rmdir(self.path(path)) : unlink(self.path(path)))
        case .rename(let from, let to, let kind):
            try check(lockstep_rename_with_flags(path(from), path(to), flags(of: kind)))
        case .truncate(let path, let size):
            try withFile(path, O_WRONLY) { try check(ftruncate($0, off_t(size))) }
        case .allocate(let path, let range, let allocation):
            var mode = allocation.keepsSize ? FALLOC_FL_KEEP_SIZE : 0
            switch allocation.kind {
            case .allocate: break
            case .punch: mode |= FALLOC_FL_PUNCH_HOLE
            case .zero: mode |= FALLOC_FL_ZERO_RANGE
            }
            try withFile(path, O_WRONLY) {
                try check(
                    lockstep_allocate(
                        $0,
                        mode,
                        Int64(range.lowerBound),
                        Int64(range.count)
                    )
                )
            }
        case .mode(let path, let mode):
            try check(fchmodat(AT_FDCWD, self.path(path), mode, AT_SYMLINK_NOFOLLOW))
        case .setAttribute(let path, let name, let value):
            let (path, name) = (self.path(path), String(decoding: name, as: UTF8.self))
            if let value {
                try check(lsetxattr(path, name, value, value.count, 0))
            } else {
                try check(lremovexattr(path, name))
            }
        default: return try performOnFile(operation)
        }
        return []
    }

    private func flags(of kind: RenameKind) -> UInt32 {
        switch kind {
        case .replace: 0
        case .noReplace: 1
        case .exchange: 2
        }
    }

    private func make(_ kind: ModelKind, _ path: String, _ target: [UInt8]) throws {
        switch kind {
        case .directory: try check(mkdir(path, 0o750))
        case .symbolicLink: try check(symlink(String(decoding: target, as: UTF8.self), path))
        case .pipe: try check(mkfifo(path, 0o750))
        case .file: try check(mknod(path, S_IFREG | 0o750, 0))
        }
    }

    /// Never follows a link and never waits for the other end of a pipe: another program may have
    /// put either there.
    @discardableResult
    private func withFile<Result>(
        _ path: PathNames,
        _ flags: Int32,
        mode: UInt32 = 0,
        _ body: (Int32) throws -> Result
    ) throws -> Result {
        let flags = flags | O_NOFOLLOW | O_NONBLOCK
        return try Files.withOpen(self.path(path), flags, mode: mode, body)
    }

    private func performOnFile(_ operation: TreeOperation) throws -> [UInt8] {
        switch operation {
        case .write(let path, let offset, let count, let pattern, let synchronizes):
            try withFile(path, O_WRONLY) {
                try Files.write(patternBytes(pattern, count: count), to: $0, at: Int(offset))
                if synchronizes { try check(fsync($0)) }
            }
        case .append(let path, let count, let pattern):
            try withFile(path, O_WRONLY | O_APPEND) {
                try Files.write(patternBytes(pattern, count: count), to: $0, at: nil)
            }
        case .store(let path, let offset, let count, let pattern):
            try withFile(path, O_RDWR) {
                let size = UInt64(try Files.status(of: $0).size)
                guard offset < size else { return }
                let bytes = patternBytes(pattern, count: Int(min(UInt64(count), size - offset)))
                try store(bytes, into: $0, at: Int(offset))
            }
        case .read(let path, let offset, let count):
            return try withFile(path, O_RDONLY) { descriptor in
                try [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
                    filled = try check(pread(descriptor, buffer.baseAddress, count, off_t(offset)))
                }
            }
        case .synchronize(let path): try withFile(path, O_RDONLY) { try check(fdatasync($0)) }
        default: preconditionFailure("not an operation on a file")
        }
        return []
    }

    /// Writes through a shared mapping. The kernel stores the bytes, by a read(2) into the mapping:
    /// behind the end of a file that another program has just cut it says EFAULT, where a store of
    /// this program would end it by SIGBUS.
    private func store(_ bytes: [UInt8], into descriptor: Int32, at offset: Int) throws {
        let page = Int(getpagesize())
        let start = offset / page * page
        let length = offset + bytes.count - start
        let base = mmap(
            nil,
            length,
            PROT_READ | PROT_WRITE,
            MAP_SHARED,
            descriptor,
            off_t(start)
        )
        guard let base, base != MAP_FAILED else { throw SystemFailure(errno) }
        defer { munmap(base, length) }
        let source = try check(lockstep_memory_file("stored"))
        defer { close(source) }
        try Files.write(bytes, to: source, at: 0)
        var done = 0
        while done < bytes.count {
            let target = base + (offset - start + done)
            let count = try check(pread(source, target, bytes.count - done, off_t(done)))
            done += count
        }
    }
}
