// A program on a real mount, by system calls of the test process.

import CLinux
import Execution
import FileSystem
import FuseServer
import Glibc
import LinuxSystem
import Testing
import Vocabulary

/// The kernel's caches, names dropped as the program says and not, when that takes long, by an
/// epoch.
private final class NotifyingCache: KernelCache {
    private let server: FuseServer

    init(_ server: FuseServer) { self.server = server }

    var mapsDirectFiles: Bool { server.kernelCache.mapsDirectFiles }

    func invalidateInode(
        _ node: NodeHandle,
        data: (offset: UInt64, length: UInt64?)?,
        mayBegin: (() -> Bool)?
    ) async -> InvalidationEnd {
        await server.kernelCache.invalidateInode(node, data: data, mayBegin: mayBegin)
    }

    func timesRun(_ thread: UInt32) -> UInt64? { server.kernelCache.timesRun(thread) }

    /// No request holds the directory: none of this waits.
    func invalidateEntries(of parent: NodeHandle, names: [[UInt8]]?) async {
        for name in names ?? [] { tell(FuseNotification.invalidateEntry(parent, name: name)) }
        if names == nil { tell(FuseNotification.incrementEpoch()) }
        await invalidateInode(parent, data: (0, nil))
    }

    private func tell(_ message: [UInt8]) {
        _ = message.withUnsafeBytes { write(server.fileDescriptor, $0.baseAddress, $0.count) }
    }
}

/// The model keeps the names that nobody has in use, which is the harder case: so does the kernel here (KERNEL D12).
func keepsNames(_ options: inout FuseOptions) { options.dropsUnusedNames = false }

/// Runs programs on a mount.
final class RealKernelSide {
    let mount: TestMount
    private struct File {
        let descriptor: Int32
        let kind: OpenKind
        var map: UnsafeMutableRawPointer?
    }

    private static let mapLength = ProgramWriter.mostPages * 4096
    private var files: [Int: File] = [:]
    private var pipes: [Int32] = [-1, -1]

    init(_ mount: TestMount) throws {
        self.mount = mount
        guard pipe(&pipes) == 0 else { throw SystemError.last("pipe") }
    }

    deinit {
        for file in files.values { _ = close(file) }
        for end in pipes { Glibc.close(end) }
    }

    /// Runs a program; what each step led to.
    func run(_ program: [KernelStep]) -> [StepOutcome] {
        nonisolated(unsafe) var recorded: [RecordedRequest] = []  // engine-bound
        mount.inside { files in
            files.time = Timestamp(seconds: 1, nanoseconds: 0)
            files.plantTree()
            files.onRequest = { recorded.append($0) }
        }
        let cache = EngineBound(NotifyingCache(mount.server) as any KernelCache)
        var outcomes: [StepOutcome] = []
        for (number, step) in program.enumerated() {
            mount.inside { $0.time = Timestamp(seconds: 1000 + Int64(number), nanoseconds: 0) }
            var result = ""
            if step.isCall {
                result = perform(step)
            } else {
                mount.inside { await $0.happen(step, cache.value) }
            }
            settle()
            let requests = mount.inside { _ in
                defer { recorded = [] }
                return recorded
            }
            outcomes.append(StepOutcome(result: result, requests: requests))
        }
        return outcomes
    }

    /// Requests nobody waits for (RELEASE, read-ahead) arrive in the order in which they were made:
    /// before this one.
    func settle() {
        var usage = statvfs()
        _ = statvfs(mount.path, &usage)
    }

    private func path(_ path: String) -> String {
        path.isEmpty ? mount.path : mount.file(path)
    }

    private func outcome(_ code: Int) -> String {
        code < 0 ? errorName(Int32(-code)) : "\(code)"
    }

    private func errorName(_ code: Int32) -> String {
        let names: [Int32: FileError] = [
            ENOENT: .notFound, EEXIST: .exists, ENOTDIR: .notDirectory, EISDIR: .isDirectory,
            ENOTEMPTY: .notEmpty, EINVAL: .invalid, EPERM: .notPermitted, ENODATA: .noAttribute,
            ESTALE: .stale, EIO: .inputOutput,
        ]
        return names[code].map { "\($0)" } ?? "error \(code)"
    }

    private func text(_ characters: ArraySlice<CChar>) -> String {
        String(decoding: characters.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    // MARK: Steps

    func perform(_ step: KernelStep) -> String {
        switch step {
        case .open(let slot, let path, let kind): return open(slot, path, kind)
        case .close(let slot):
            guard let file = files.removeValue(forKey: slot) else { return "-" }
            return outcome(close(file))
        case .read(let slot, let offset, let count):
            guard let file = files[slot], file.kind.reads else { return "-" }
            var buffer = [UInt8](repeating: 0, count: count)
            let done = call { pread(file.descriptor, &buffer, count, offset) }
            return done < 0 ? outcome(done) : Outcomes.bytes(Array(buffer[..<done]))
        case .write(let slot, let offset, let count, let byte):
            guard let file = files[slot], file.kind.writes else { return "-" }
            let bytes = [UInt8](repeating: byte, count: count)
            return outcome(call { pwrite(file.descriptor, bytes, count, offset) })
        case .load(let slot, let pages): return load(slot, pages)
        case .store(let slot, let page, let byte): return store(slot, page, byte)
        case .synchronize(let slot):
            guard let file = files[slot] else { return "-" }
            return outcome(call { Int(fsync(file.descriptor)) })
        case .truncateFile(let slot, let size):
            guard let file = files[slot], file.kind.writes else { return "-" }
            return outcome(call { Int(ftruncate(file.descriptor, size)) })
        case .fileStatus(let slot):
            guard let file = files[slot] else { return "-" }
            var status = stat()
            return attributes(call { Int(fstat(file.descriptor, &status)) }, status)
        default: return performOnPath(step)
        }
    }

    private func performOnPath(_ step: KernelStep) -> String {
        switch step {
        case .truncate(let path, let size):
            return outcome(call { Int(Glibc.truncate(self.path(path), size)) })
        case .status(let path):
            var status = stat()
            return attributes(call { Int(lstat(self.path(path), &status)) }, status)
        case .access(let path):
            let flags = Int32(AT_SYMLINK_NOFOLLOW)
            return outcome(call { Int(faccessat(AT_FDCWD, self.path(path), F_OK, flags)) })
        case .list(let path): return list(path)
        case .readLink(let path):
            var buffer = [CChar](repeating: 0, count: 200)
            let done = call { readlink(self.path(path), &buffer, 200) }
            return done < 0 ? outcome(done) : text(buffer[..<done])
        case .setTimes(let path, let seconds):
            var times = [timespec](repeating: timespec(tv_sec: seconds, tv_nsec: 7), count: 2)
            let flags = Int32(AT_SYMLINK_NOFOLLOW)
            return outcome(call { Int(utimensat(AT_FDCWD, self.path(path), &times, flags)) })
        case .setMode(let path, let mode):
            return outcome(call { Int(chmod(self.path(path), mode)) })
        case .setExtended, .getExtended, .listExtended, .removeExtended:
            return performOnExtended(step)
        default: return performOnName(step)
        }
    }

    private func performOnName(_ step: KernelStep) -> String {
        outcome(
            call {
                switch step {
                case .makeDirectory(let path): Int(mkdir(self.path(path), 0o755))
                case .makeNode(let path): Int(mknod(self.path(path), 0o100644, 0))
                case .makeSymlink(let path, let target): Int(symlink(target, self.path(path)))
                case .link(let path, let new): Int(Glibc.link(self.path(path), self.path(new)))
                case .unlink(let path): Int(Glibc.unlink(self.path(path)))
                case .removeDirectory(let path): Int(rmdir(self.path(path)))
                case .rename(let path, let new, let kind):
                    Int(
                        lockstep_rename_with_flags(
                            self.path(path),
                            self.path(new),
                            kind == .replace ? 0 : kind == .noReplace ? 1 : 2
                        )
                    )
                default: preconditionFailure("no step of a process: \(step)")
                }
            }
        )
    }

    private func performOnExtended(_ step: KernelStep) -> String {
        switch step {
        case .setExtended(let path, let name):
            return outcome(call { Int(setxattr(self.path(path), name, name, name.utf8.count, 0)) })
        case .getExtended(let path, let name):
            var buffer = [UInt8](repeating: 0, count: 200)
            let done = call { getxattr(self.path(path), name, &buffer, 200) }
            return done < 0 ? outcome(done) : String(decoding: buffer[..<done], as: UTF8.self)
        case .listExtended(let path):
            var buffer = [CChar](repeating: 0, count: 200)
            let done = call { listxattr(self.path(path), &buffer, 200) }
            return done < 0 ? outcome(done) : text(buffer[..<done])
        case .removeExtended(let path, let name):
            return outcome(call { Int(removexattr(self.path(path), name)) })
        default: preconditionFailure("no extended attribute")
        }
    }

    // MARK: Files

    private func open(_ slot: Int, _ path: String, _ kind: OpenKind) -> String {
        guard files[slot] == nil else { return "-" }
        var flags = kind.reads ? (kind.writes ? O_RDWR : O_RDONLY) : O_WRONLY
        if kind == .append { flags |= O_APPEND }
        if kind.creates { flags |= O_CREAT }
        if kind == .createExclusive { flags |= O_EXCL }
        if kind == .truncate || kind == .createTruncate { flags |= O_TRUNC }
        let descriptor = call { Int(lockstep_open(self.path(path), flags | O_NOFOLLOW, 0o644)) }
        guard descriptor >= 0 else { return outcome(descriptor) }
        files[slot] = File(descriptor: Int32(descriptor), kind: kind)
        return "open"
    }

    private func close(_ file: File) -> Int {
        if let map = file.map { munmap(map, Self.mapLength) }
        return call { Int(Glibc.close(file.descriptor)) }
    }

    /// Through a pipe: where a process would be sent SIGBUS the kernel says EFAULT.
    private func load(_ slot: Int, _ pages: Range<Int>) -> String {
        guard let file = files[slot], file.kind.reads else { return "-" }
        guard let map = mapped(slot) else { return errorName(errno) }
        var loaded: [UInt8] = []
        for page in pages {
            guard write(pipes[1], map + page * 4096, 1) == 1 else { break }
            var byte: UInt8 = 0
            guard Glibc.read(pipes[0], &byte, 1) == 1 else { break }
            loaded.append(byte)
        }
        return Outcomes.bytes(loaded)
    }

    private func store(_ slot: Int, _ page: Int, _ byte: UInt8) -> String {
        guard let file = files[slot], file.kind.reads, file.kind.writes else { return "-" }
        guard let map = mapped(slot) else { return errorName(errno) }
        var byte = byte
        guard write(pipes[1], &byte, 1) == 1 else { return "no pipe" }
        if Glibc.read(pipes[0], map + page * 4096, 1) == 1 { return "1" }
        _ = Glibc.read(pipes[0], &byte, 1)
        return "0"
    }

    /// A mapping stays until the file is closed: ending it writes back what it has changed.
    private func mapped(_ slot: Int) -> UnsafeMutableRawPointer? {
        guard let file = files[slot] else { return nil }
        if let map = file.map { return map }
        let protection = file.kind.writes ? PROT_READ | PROT_WRITE : PROT_READ
        let map = mmap(nil, Self.mapLength, protection, MAP_SHARED, file.descriptor, 0)
        guard map != MAP_FAILED else { return nil }
        files[slot]?.map = map
        return map
    }

    // MARK: Attributes and listings

    private func attributes(_ code: Int, _ status: stat) -> String {
        if code < 0 { return outcome(code) }
        return Outcomes.attributes(
            inode: UInt64(status.st_ino),
            mode: status.st_mode,
            links: UInt64(status.st_nlink),
            size: UInt64(status.st_size),
            times: [
                Int64(status.st_atim.tv_sec), Int64(status.st_mtim.tv_sec),
                Int64(status.st_mtim.tv_nsec), Int64(status.st_ctim.tv_sec),
            ]
        )
    }

    /// getdents64(2), which Swift's headers do not show.
    private typealias ReadEntries = @convention(c) (Int32, UnsafeMutableRawPointer, Int) -> Int

    private let readEntries = unsafeBitCast(dlsym(nil, "getdents64"), to: ReadEntries.self)

    /// Not opendir(3), which asks for attributes.
    private func list(_ path: String) -> String {
        let directory = call {
            Int(lockstep_open(self.path(path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0))
        }
        guard directory >= 0 else { return outcome(directory) }
        defer { Glibc.close(Int32(directory)) }
        var names: [(name: [UInt8], inode: UInt64, type: UInt32)] = []
        var buffer = [UInt8](repeating: 0, count: 32768)
        while true {
            let count = call { readEntries(Int32(directory), &buffer, 32768) }
            if count < 0 { return outcome(count) }
            if count == 0 { return Outcomes.names(names) }
            var position = 0
            while position < count {
                let length = Int(buffer[position + 16]) + Int(buffer[position + 17]) << 8
                let inode = buffer.withUnsafeBytes {
                    $0.loadUnaligned(fromByteOffset: position, as: UInt64.self)
                }
                let name = buffer[(position + 19)..<position + length].prefix { $0 != 0 }
                names.append((Array(name), inode, UInt32(buffer[position + 18])))
                position += length
            }
        }
    }
}
