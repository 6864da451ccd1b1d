// Calls of the conformance suite that make, find, move and remove names.

import CLinux
import Glibc

extension ConformanceStage {
    /// "ok", or the error that the call set.
    static func done<Number: SignedInteger>(_ result: Number) throws -> String {
        try check(result)
        return "ok"
    }

    static let openFlags: [String: Int] = [
        "r": Int(O_RDONLY), "w": Int(O_WRONLY), "rw": Int(O_RDWR), "creat": Int(O_CREAT),
        "excl": Int(O_EXCL), "trunc": Int(O_TRUNC), "append": Int(O_APPEND),
        "nofollow": Int(O_NOFOLLOW), "directory": Int(O_DIRECTORY), "path": 0o10000000,
        "tmpfile": Int(lockstep_o_tmpfile), "direct": Int(lockstep_o_direct),
        "nonblock": Int(O_NONBLOCK), "sync": Int(O_SYNC), "dsync": Int(O_DSYNC),
        "noatime": 0o1000000, "async": Int(O_ASYNC), "noctty": Int(O_NOCTTY),
    ]

    private static let renameFlags = ["noreplace": 1, "exchange": 2, "whiteout": 4, "none": 0]

    private static let kinds: [String: UInt32] = [
        "fifo": S_IFIFO, "char": S_IFCHR, "block": S_IFBLK, "file": S_IFREG, "socket": S_IFSOCK,
        "directory": S_IFDIR, "link": S_IFLNK,
    ]

    /// makedev(3).
    private static func device(_ word: String) throws -> UInt64 {
        let parts = word.split(separator: ",").compactMap { UInt64($0) }
        guard parts.count == 2 else { return 0 }
        let (major, minor) = (parts[0], parts[1])
        return (major & 0xFFF) << 8 | (major & 0xFFFF_F000) << 32 | minor & 0xFF
            | (minor & 0xFFFF_FF00) << 12
    }

    static let nameCalls: [String: ConformanceCall] = [
        "mkdir": { words in
            let mode = try words.mode(1)
            return try words.withPath(0) { try done(mkdir($0, mode)) }
        },
        "rmdir": { words in try words.withPath(0) { try done(rmdir($0)) } },
        "unlink": { words in try words.withPath(0) { try done(unlink($0)) } },
        "link": { words in
            try words.withPath(0) { from in
                try words.withPath(1) { try done(linkat(AT_FDCWD, from, AT_FDCWD, $0, 0)) }
            }
        },
        "link-follow": { words in
            try words.withPath(0) { from in
                try words.withPath(1) {
                    try done(linkat(AT_FDCWD, from, AT_FDCWD, $0, AT_SYMLINK_FOLLOW))
                }
            }
        },
        // A descriptor gets a name, through /proc as everybody may.
        "link-descriptor": { words in
            let from = "/proc/self/fd/\(try words.descriptor(0))"
            return try words.withPath(1) {
                try done(linkat(AT_FDCWD, from, AT_FDCWD, $0, AT_SYMLINK_FOLLOW))
            }
        },
        // The target is not a path of the case: it is what it says.
        "symlink": { words in
            let target = words[0] == "''" ? [] : try words.bytes(0)
            return try words.withPath(1) { path in
                try done(symlink((target + [0]).map { CChar(bitPattern: $0) }, path))
            }
        },
        "readlink": { words in
            var buffer = [UInt8](repeating: 0, count: words.count > 1 ? try words.number(1) : 4096)
            let count = try words.withPath(0) { path in
                try check(
                    lockstep_system_call(
                        Int(SYS_readlinkat),
                        Int(AT_FDCWD),
                        Int(bitPattern: path),
                        buffer.withUnsafeMutableBytes { Int(bitPattern: $0.baseAddress) },
                        buffer.count,
                        0,
                        0
                    )
                )
            }
            return String(decoding: buffer[..<count], as: UTF8.self)
        },
        "rename": { words in
            try words.withPath(0) { from in try words.withPath(1) { try done(rename(from, $0)) } }
        },
        "rename2": { words in
            let flags = try words.flags(2, renameFlags)
            return try words.withPath(0) { from in
                try words.withPath(1) { to in
                    try done(lockstep_rename_with_flags(from, to, UInt32(flags)))
                }
            }
        },
        "mknod": { words in
            guard let kind = kinds[words[1]] else { throw Trouble("no kind of file") }
            let mode = try words.mode(2) | kind
            let number = try device(words[3])
            return try words.withPath(0) { try done(mknod($0, mode, dev_t(number))) }
        },
        "mkfifo": { words in
            let mode = try words.mode(1)
            return try words.withPath(0) { try done(mkfifo($0, mode)) }
        },
        // An empty file.
        "create": { words in
            let mode = words.count > 1 ? try words.mode(1) : 0o644
            let descriptor = try words.withPath(0) { path in
                return try check(lockstep_open(path, O_WRONLY | O_CREAT | O_EXCL, mode))
            }
            return try done(close(descriptor))
        },
        // A file of some bytes.
        "put": { words in
            let descriptor = try words.withPath(0) { path in
                return try check(lockstep_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644))
            }
            try Files.write(try words.bytes(1), to: descriptor, at: 0)
            return try done(close(descriptor))
        },
        "open": { words in
            let flags = try words.flags(2, openFlags)
            let mode = words.count > 3 ? try words.mode(3) : 0o644
            let descriptor = try words.withPath(1) { path in
                try check(
                    Int32(
                        lockstep_system_call(
                            Int(SYS_openat),
                            Int(AT_FDCWD),
                            Int(bitPattern: path),
                            flags | Int(O_CLOEXEC),
                            Int(mode),
                            0,
                            0
                        )
                    )
                )
            }
            if let old = words.stage.descriptors[words[0]] { close(old) }
            words.stage.descriptors[words[0]] = descriptor
            return "ok"
        },
        // The same file once more, through /proc: what is open is found, whatever has become of its name.
        "reopen": { words in
            let flags = try words.flags(2, openFlags)
            let path = "/proc/self/fd/\(try words.descriptor(1))"
            let descriptor = try check(lockstep_open(path, Int32(flags), 0))
            if let old = words.stage.descriptors[words[0]] { close(old) }
            words.stage.descriptors[words[0]] = descriptor
            return "ok"
        },
        "close": { words in
            let descriptor = try words.descriptor(0)
            words.stage.descriptors[words[0]] = nil
            return try done(close(descriptor))
        },
        "cd": { words in try words.withPath(0) { try done(chdir($0)) } },
        "fchdir": { words in try done(fchdir(try words.descriptor(0))) },
        "getcwd": { words in
            var buffer = [CChar](repeating: 0, count: 8192)
            try check(
                lockstep_system_call(
                    Int(SYS_getcwd),
                    buffer.withUnsafeMutableBytes { Int(bitPattern: $0.baseAddress) },
                    buffer.count,
                    0,
                    0,
                    0,
                    0
                )
            )
            return "ok"
        },
        "umask": { words in
            umask(try words.mode(0))
            return "ok"
        },
        "ls": { words in try names(of: try words.path(0)) },
        "mkdirs": { words in try many(words) { mkdir($0, 0o755) } },
        "rmdirs": { words in try many(words) { rmdir($0) } },
        "creates": { words in
            try many(words) { path in
                let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
                return descriptor < 0 ? descriptor : close(descriptor)
            }
        },
        "unlinks": { words in try many(words) { unlink($0) } },
        "walk": { words in try walk(try words.path(0)) },
    ]

    /// The same for PATH0…PATHn: `mkdirs PATH COUNT`.
    private static func many(
        _ words: ConformanceArguments,
        _ body: (UnsafePointer<CChar>) -> Int32
    ) throws -> String {
        let path = try words.path(0)
        for number in 0..<(try words.number(1)) { try check(body("\(path)\(number)")) }
        return "ok"
    }

    private static func names(of path: String) throws -> String {
        try Files.names(path).joined(separator: " ")
    }

    /// Reads a directory and remembers the place of each entry; goes to each place, in another order, and must find
    /// there what was there; and once more from the beginning.
    private static func walk(_ path: String) throws -> String {
        guard let folder = opendir(path) else { throw SystemFailure(errno) }
        defer { closedir(folder) }
        func next() -> String? {
            guard let entry = readdir(folder) else { return nil }
            return withUnsafePointer(to: &entry.pointee.d_name) { field in
                field.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
        }
        var places: [(Int, String)] = []
        var place = telldir(folder)
        while let name = next() {
            places.append((place, name))
            place = telldir(folder)
        }
        for step in [7, 3, 1] {
            for index in stride(from: places.count - 1, through: 0, by: -step) {
                seekdir(folder, places[index].0)
                let name = next()
                if name != places[index].1 {
                    return "at the place of \(places[index].1) is \(name ?? "the end")"
                }
            }
        }
        rewinddir(folder)
        var again = 0
        while next() != nil { again += 1 }
        return again == places.count ? "\(again) entries" : "\(again) instead of \(places.count)"
    }
}
