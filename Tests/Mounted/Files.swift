// The file calls of the tests: thin, and honest about errno.

import CLinux
import Glibc

/// A system call failed.
struct SystemFailure: Error, Hashable, CustomStringConvertible {
    let code: Int32

    init(_ code: Int32) { self.code = code }

    var description: String { String(cString: strerror(code)) + " (errno \(code))" }
}

/// A test cannot go on: something outside the system under test, or a command that failed.
struct Trouble: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// The result of a call that returns a negative number when it fails.
@discardableResult
func check<Number: SignedInteger>(_ result: Number) throws(SystemFailure) -> Number {
    if result < 0 { throw SystemFailure(errno) }
    return result
}

/// What stat(2) says, as far as it must be the same on every node.
struct Status: Hashable, Sendable, CustomStringConvertible {
    var inode: UInt64
    var mode: UInt32
    var links: Int
    var owner: UInt32
    var group: UInt32
    var size: Int
    /// Nanoseconds since 1970.
    var modification: Int
    var change: Int

    init(_ raw: stat) {
        inode = UInt64(raw.st_ino)
        mode = raw.st_mode
        links = Int(raw.st_nlink)
        owner = raw.st_uid
        group = raw.st_gid
        size = Int(raw.st_size)
        modification = raw.st_mtim.tv_sec * 1_000_000_000 + raw.st_mtim.tv_nsec
        change = raw.st_ctim.tv_sec * 1_000_000_000 + raw.st_ctim.tv_nsec
    }

    var isDirectory: Bool { mode & S_IFMT == S_IFDIR }

    var description: String {
        "inode \(inode) mode \(String(mode, radix: 8)) links \(links) owner \(owner):\(group) "
            + "size \(size) mtime \(modification) ctime \(change)"
    }
}

/// A named extended attribute.
struct Attribute: Hashable, Sendable {
    let name: String
    let value: [UInt8]
}

/// File calls by path or descriptor. Each throws `SystemFailure`.
enum Files {
    static func status(_ path: String) throws -> Status {
        var raw = stat()
        try check(lstat(path, &raw))
        return Status(raw)
    }

    static func status(of descriptor: Int32) throws -> Status {
        var raw = stat()
        try check(fstat(descriptor, &raw))
        return Status(raw)
    }

    /// The device of the file system that a path is on.
    static func device(_ path: String) throws -> UInt64 {
        var raw = stat()
        try check(stat(path, &raw))
        return UInt64(raw.st_dev)
    }

    static func exists(_ path: String) -> Bool { (try? status(path)) != nil }

    static func open(_ path: String, _ flags: Int32, mode: UInt32 = 0o644) throws -> Int32 {
        try check(lockstep_open(path, flags, mode))
    }

    /// Opens, hands the descriptor to `body`, and closes whatever happens. An error of close
    /// counts.
    @discardableResult
    static func withOpen<Result>(
        _ path: String,
        _ flags: Int32,
        mode: UInt32 = 0o644,
        _ body: (Int32) throws -> Result
    ) throws -> Result {
        let descriptor = try open(path, flags, mode: mode)
        let result: Result
        do {
            result = try body(descriptor)
        } catch {
            close(descriptor)
            throw error
        }
        try check(close(descriptor))
        return result
    }

    /// Everything of a file, through `descriptor`, whatever its size is said to be.
    static func contents(of descriptor: Int32) throws -> [UInt8] {
        var bytes: [UInt8] = []
        let piece = 128 * 1024
        while true {
            var count = 0
            let more = try [UInt8](unsafeUninitializedCapacity: piece) { buffer, filled in
                count = try check(pread(descriptor, buffer.baseAddress, piece, off_t(bytes.count)))
                filled = count
            }
            if count == 0 { return bytes }
            bytes += more
        }
    }

    static func contents(_ path: String) throws -> [UInt8] {
        try withOpen(path, O_RDONLY | O_NOFOLLOW) { try contents(of: $0) }
    }

    /// Writes all bytes at `offset`, or at the end where the descriptor appends.
    static func write(_ bytes: [UInt8], to descriptor: Int32, at offset: Int?) throws {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { buffer in
                let rest = UnsafeRawBufferPointer(rebasing: buffer[done...])
                guard let offset else {
                    return Glibc.write(descriptor, rest.baseAddress, rest.count)
                }
                return pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset + done))
            }
            done += try check(count)
        }
    }

    static func write(_ bytes: [UInt8], to path: String, sync: Bool = false) throws {
        try withOpen(path, O_WRONLY | O_CREAT | O_TRUNC) { descriptor in
            try write(bytes, to: descriptor, at: 0)
            if sync { try check(fsync(descriptor)) }
        }
    }

    /// Names in a directory but `.` and `..`, sorted.
    static func names(_ path: String) throws -> [String] {
        guard let folder = opendir(path) else { throw SystemFailure(errno) }
        defer { closedir(folder) }
        var names: [String] = []
        errno = 0
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { field in
                field.withMemoryRebound(to: CChar.self, capacity: 256) { (start) -> String in
                    String(cString: start)
                }
            }
            if name != "." && name != ".." { names.append(name) }
            errno = 0
        }
        if errno != 0 { throw SystemFailure(errno) }
        return names.sorted()
    }

    static func linkTarget(_ path: String) throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = try check(readlink(path, &buffer, buffer.count))
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The attributes of the `user.` name space, by name.
    static func attributes(_ path: String) throws -> [Attribute] {
        let size = try check(llistxattr(path, nil, 0))
        guard size > 0 else { return [] }
        var list = [UInt8](repeating: 0, count: size + 256)
        let count = try check(
            list.withUnsafeMutableBytes {
                llistxattr(path, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
            }
        )
        let names = list[..<count].split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        return try names.filter { $0.hasPrefix("user.") }.sorted().map { name in
            Attribute(name: name, value: try attribute(name, of: path))
        }
    }

    static func attribute(_ name: String, of path: String) throws -> [UInt8] {
        var value = [UInt8](repeating: 0, count: 65_536)
        let count = try check(
            value.withUnsafeMutableBytes { lgetxattr(path, name, $0.baseAddress, $0.count) }
        )
        return Array(value[..<count])
    }

    /// Removes a tree. Does not cross into what is mounted below and complains about nothing.
    static func removeTree(_ path: String) {
        if let status = try? status(path), status.isDirectory {
            for name in (try? names(path)) ?? [] { removeTree(path + "/" + name) }
        }
        remove(path)
    }
}

/// Time that only grows, in seconds.
func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1_000_000_000
}
