// Calls of the conformance suite about modes, owners, times, extended attributes and access lists.

import CLinux
import Glibc

extension ConformanceStage {
    static let attributeCalls: [String: ConformanceCall] =
        statusCalls.merging(changeCalls) { first, _ in first }
        .merging(extendedCalls) { first, _ in first }

    // MARK: What is shown

    /// "file 644 0:0 links 1 size 0"; directories without a size, which is the file system's business, and devices
    /// with their number.
    private static func inWords(_ status: stat) -> String {
        let kind = status.st_mode & S_IFMT
        let names: [UInt32: String] = [
            S_IFREG: "file", S_IFDIR: "directory", S_IFLNK: "link", S_IFIFO: "fifo",
            S_IFSOCK: "socket", S_IFCHR: "char", S_IFBLK: "block",
        ]
        let mode = String(status.st_mode & 0o7777, radix: 8)
        var text = "\(names[kind] ?? "?") \(mode) \(status.st_uid):\(status.st_gid)"
        text += " links \(status.st_nlink)"
        if kind == S_IFREG || kind == S_IFLNK { text += " size \(status.st_size)" }
        if kind == S_IFCHR || kind == S_IFBLK {
            text += " device \(status.st_rdev >> 8 & 0xFFF),\(status.st_rdev & 0xFF)"
        }
        return text
    }

    private static func status(_ words: ConformanceArguments, _ index: Int, follow: Bool) throws
        -> stat
    {
        var raw = stat()
        if let descriptor = words.stage.descriptors[words[index]] {
            try check(fstat(descriptor, &raw))
        } else {
            try words.withPath(index) { path in
                try check(fstatat(AT_FDCWD, path, &raw, follow ? 0 : AT_SYMLINK_NOFOLLOW))
            }
        }
        return raw
    }

    private static func time(_ time: timespec) -> String {
        "\(time.tv_sec)." + String(time.tv_nsec + 1_000_000_000).dropFirst()
    }

    /// Waits until the kernel's coarse clock, from which older kernels stamp files, has moved on.
    private static func waitForClock() {
        var before = timespec()
        var now = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &before)
        repeat {
            sched_yield()
            clock_gettime(CLOCK_REALTIME_COARSE, &now)
        } while now.tv_sec == before.tv_sec && now.tv_nsec == before.tv_nsec
    }

    private static let statusCalls: [String: ConformanceCall] = [
        "stat": { words in inWords(try status(words, 0, follow: false)) },
        "stat-follow": { words in inWords(try status(words, 0, follow: true)) },
        "times": { words in
            let raw = try status(words, 0, follow: false)
            return "\(time(raw.st_atim)) \(time(raw.st_mtim))"
        },
        "mtime": { words in time(try status(words, 0, follow: false).st_mtim) },
        "blocks": { words in "\(try status(words, 0, follow: false).st_blocks)" },
        "has-blocks": { words in
            try status(words, 0, follow: false).st_blocks > 0 ? "yes" : "no"
        },
        // `mark NAME PATH` keeps what stat says; `changed NAME PATH` says which of the times are later, or earlier, now.
        "mark": { words in
            words.stage.marks[words[0]] = try status(words, 1, follow: false)
            waitForClock()
            return "ok"
        },
        "changed": { words in
            guard let before = words.stage.marks[words[0]] else { throw Trouble("no mark") }
            let now = try status(words, 1, follow: false)
            let times = [
                ("atime", before.st_atim, now.st_atim), ("mtime", before.st_mtim, now.st_mtim),
                ("ctime", before.st_ctim, now.st_ctim),
            ]
            let changed = times.compactMap { name, old, new -> String? in
                if (old.tv_sec, old.tv_nsec) == (new.tv_sec, new.tv_nsec) { return nil }
                return (old.tv_sec, old.tv_nsec) < (new.tv_sec, new.tv_nsec)
                    ? name : "earlier-\(name)"
            }
            return changed.isEmpty ? "nothing" : changed.joined(separator: " ")
        },
        // The same of the time of access alone; of a read on another node this one hears a moment later.
        "accessed": { words in
            guard let before = words.stage.marks[words[0]] else { throw Trouble("no mark") }
            let limit = Glibc.time(nil) + Int(10 * Patience.factor)
            while true {
                let now = try status(words, 1, follow: false)
                if (now.st_atim.tv_sec, now.st_atim.tv_nsec)
                    > (before.st_atim.tv_sec, before.st_atim.tv_nsec)
                {
                    return "later"
                }
                if Glibc.time(nil) > limit { return "not later" }
                sched_yield()
            }
        },
        // Whether times of two are the same: `same-times A B`.
        "same-mtime-ctime": { words in
            let raw = try status(words, 0, follow: false)
            let (a, b) = (raw.st_mtim, raw.st_ctim)
            return (a.tv_sec, a.tv_nsec) == (b.tv_sec, b.tv_nsec) ? "yes" : "no"
        },
        "same-file": { words in
            let (a, b) = (try status(words, 0, follow: true), try status(words, 1, follow: true))
            return a.st_ino == b.st_ino ? "yes" : "no"
        },
        "access": { words in
            let how = Int32(try words.number(1))
            return try words.withPath(0) { path in
                try done(faccessat(AT_FDCWD, path, how, 0))
            }
        },
        "eaccess": { words in
            let how = try words.number(1)
            return try words.withPath(0) { path in
                // faccessat2(2), with AT_EACCESS.
                try done(
                    lockstep_system_call(
                        439,
                        Int(AT_FDCWD),
                        Int(bitPattern: path),
                        how,
                        0x200,
                        0,
                        0
                    )
                )
            }
        },
        "statfs": { words in
            var raw = statvfs()
            try words.withPath(0) { _ = try check(statvfs($0, &raw)) }
            let sane = raw.f_bfree <= raw.f_blocks && raw.f_bavail <= raw.f_bfree && raw.f_bsize > 0
            return "names \(raw.f_namemax) \(sane ? "sane" : "not sane")"
        },
        "statvfs-flag": { words in
            var raw = statvfs()
            try words.withPath(0) { _ = try check(statvfs($0, &raw)) }
            return "\(raw.f_flag & 0xF)"
        },
        // statx(2): whether a time of birth is said, and whether it lies before the time of change.
        "birth": { words in
            var raw = [UInt64](repeating: 0, count: 32)
            try words.withPath(0) { path in
                _ = try raw.withUnsafeMutableBytes { buffer in
                    try check(
                        lockstep_system_call(
                            332,
                            Int(AT_FDCWD),
                            Int(bitPattern: path),
                            0x100,
                            0xFFF,
                            Int(bitPattern: buffer.baseAddress),
                            0
                        )
                    )
                }
            }
            guard raw[0] & 0x800 != 0 else { return "no" }
            return raw[10] <= raw[12] ? "yes" : "after the change"
        },
    ]

    // MARK: What is changed

    /// A time: "now", "omit", "5", "5.000000001".
    private static func moment(_ word: String) throws -> timespec {
        if word == "now" { return timespec(tv_sec: 0, tv_nsec: 0x3FFF_FFFF) }
        if word == "omit" { return timespec(tv_sec: 0, tv_nsec: 0x3FFF_FFFE) }
        let parts = word.split(separator: ".")
        guard let seconds = Int(parts[0]), let nanoseconds = parts.count > 1 ? Int(parts[1]) : 0
        else {
            throw Trouble("'\(word)' is no time")
        }
        return timespec(tv_sec: seconds, tv_nsec: nanoseconds)
    }

    private static func setTimes(_ words: ConformanceArguments, flags: Int32) throws -> String {
        let isNull = words[1] == "null"
        let times = isNull ? [] : [try moment(words[1]), try moment(words[2])]
        return try times.withUnsafeBufferPointer { buffer in
            let pointer = isNull ? nil : buffer.baseAddress
            if let descriptor = words.stage.descriptors[words[0]] {
                return try done(futimens(descriptor, pointer))
            }
            return try words.withPath(0) { path in
                try done(
                    lockstep_system_call(
                        Int(SYS_utimensat),
                        Int(AT_FDCWD),
                        Int(bitPattern: path),
                        Int(bitPattern: pointer),
                        Int(flags),
                        0,
                        0
                    )
                )
            }
        }
    }

    private static let changeCalls: [String: ConformanceCall] = [
        "chmod": { words in
            let mode = try words.mode(1)
            return try words.withPath(0) { try done(chmod($0, mode)) }
        },
        "fchmod": { words in
            try done(fchmod(try words.descriptor(0), try words.mode(1)))
        },
        // fchmodat2(2) with AT_SYMLINK_NOFOLLOW.
        "lchmod": { words in
            let mode = try words.mode(1)
            return try words.withPath(0) { path in
                try done(
                    lockstep_system_call(
                        452,
                        Int(AT_FDCWD),
                        Int(bitPattern: path),
                        Int(mode),
                        Int(AT_SYMLINK_NOFOLLOW),
                        0,
                        0
                    )
                )
            }
        },
        "chown": { words in
            let (user, group) = (try words.number(1), try words.number(2))
            return try words.withPath(0) {
                try done(
                    chown($0, uid_t(truncatingIfNeeded: user), gid_t(truncatingIfNeeded: group))
                )
            }
        },
        "lchown": { words in
            let (user, group) = (try words.number(1), try words.number(2))
            return try words.withPath(0) {
                try done(
                    lchown($0, uid_t(truncatingIfNeeded: user), gid_t(truncatingIfNeeded: group))
                )
            }
        },
        "fchown": { words in
            let (user, group) = (try words.number(1), try words.number(2))
            return try done(
                fchown(
                    try words.descriptor(0),
                    uid_t(truncatingIfNeeded: user),
                    gid_t(truncatingIfNeeded: group)
                )
            )
        },
        "utimens": { words in try setTimes(words, flags: 0) },
        "lutimens": { words in try setTimes(words, flags: AT_SYMLINK_NOFOLLOW) },
        "truncate": { words in
            let size = try words.number(1)
            return try words.withPath(0) { try done(truncate($0, size)) }
        },
        "ftruncate": { words in
            try done(ftruncate(try words.descriptor(0), try words.number(1)))
        },
    ]

    // MARK: Extended attributes

    private static func attributeNames(_ list: [UInt8]) -> String {
        let names = list.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        // Of a security module, not of the file system.
        return names.filter { !$0.hasPrefix("security.selinux") }.sorted().joined(separator: " ")
    }

    private static let extendedCalls: [String: ConformanceCall] = [
        "setxattr": { words in
            let flags = Int32(try words.flags(3, ["create": 1, "replace": 2, "": 0]))
            let (name, value) = (
                try words.bytes(1) + [0], words[2] == "''" ? [] : try words.bytes(2)
            )
            return try words.withPath(0) { path in
                try done(
                    setxattr(path, name.map { CChar(bitPattern: $0) }, value, value.count, flags)
                )
            }
        },
        "lsetxattr": { words in
            let (name, value) = (try words.bytes(1) + [0], try words.bytes(2))
            return try words.withPath(0) { path in
                try done(lsetxattr(path, name.map { CChar(bitPattern: $0) }, value, value.count, 0))
            }
        },
        "fsetxattr": { words in
            let (name, value) = (try words.bytes(1) + [0], try words.bytes(2))
            return try done(
                fsetxattr(
                    try words.descriptor(0),
                    name.map { CChar(bitPattern: $0) },
                    value,
                    value.count,
                    0
                )
            )
        },
        "getxattr": { words in
            let size = words.count > 2 ? try words.number(2) : 65_536
            var value = [UInt8](repeating: 0, count: size)
            let name = (try words.bytes(1) + [0]).map { CChar(bitPattern: $0) }
            let count = try words.withPath(0) { try check(lgetxattr($0, name, &value, size)) }
            if size == 0 || count > 64 { return "\(count) bytes" }
            return String(decoding: value[..<count], as: UTF8.self)
        },
        "listxattr": { words in
            let size = words.count > 1 ? try words.number(1) : 65_536
            var list = [UInt8](repeating: 0, count: size)
            let count = try words.withPath(0) { path in
                try check(
                    list.withUnsafeMutableBytes {
                        llistxattr(
                            path,
                            $0.baseAddress?.assumingMemoryBound(to: CChar.self),
                            $0.count
                        )
                    }
                )
            }
            return size == 0 ? (count > 0 ? "some" : "none") : attributeNames(Array(list[..<count]))
        },
        "removexattr": { words in
            let name = (try words.bytes(1) + [0]).map { CChar(bitPattern: $0) }
            return try words.withPath(0) { try done(removexattr($0, name)) }
        },
        "lremovexattr": { words in
            let name = (try words.bytes(1) + [0]).map { CChar(bitPattern: $0) }
            return try words.withPath(0) { try done(lremovexattr($0, name)) }
        },
        // `setacl PATH access u::rwx,u:1001:r,g::r,m::rx,o::-`
        "setacl": { words in
            let value = try accessList(words[2])
            return try words.withPath(0) {
                try done(setxattr($0, "system.posix_acl_\(words[1])", value, value.count, 0))
            }
        },
        "getacl": { words in
            var value = [UInt8](repeating: 0, count: 4096)
            let count = try words.withPath(0) {
                try check(getxattr($0, "system.posix_acl_\(words[1])", &value, value.count))
            }
            return accessWords(Array(value[..<count]))
        },
        "removeacl": { words in
            try words.withPath(0) { try done(removexattr($0, "system.posix_acl_\(words[1])")) }
        },
    ]

    private static func accessList(_ text: String) throws -> [UInt8] {
        var bytes: [UInt8] = [2, 0, 0, 0]
        for entry in text.split(separator: ",") {
            let parts = entry.split(separator: ":", omittingEmptySubsequences: false).map(
                String.init
            )
            guard parts.count == 3 else { throw Trouble("'\(entry)' is no entry of a list") }
            let tags = ["u": 1, "U": 2, "g": 4, "G": 8, "m": 16, "o": 32]
            let isNamed = !parts[1].isEmpty
            guard let tag = tags[isNamed ? parts[0].uppercased() : parts[0]] else {
                throw Trouble("'\(entry)' is no entry of a list")
            }
            var permissions = 0
            if parts[2].contains("r") { permissions |= 4 }
            if parts[2].contains("w") { permissions |= 2 }
            if parts[2].contains("x") { permissions |= 1 }
            let identity = isNamed ? try ConformanceWord.number(parts[1]) : 0xFFFF_FFFF
            for word in [tag, permissions, identity & 0xFFFF, identity >> 16] {
                bytes += [UInt8(word & 0xFF), UInt8(word >> 8 & 0xFF)]
            }
        }
        return bytes
    }

    private static func accessWords(_ bytes: [UInt8]) -> String {
        let tags = [1: "u", 2: "u", 4: "g", 8: "g", 16: "m", 32: "o"]
        return stride(from: 4, to: bytes.count - 7, by: 8).map { start in
            let words = (0..<4).map { index in
                Int(bytes[start + 2 * index]) | Int(bytes[start + 2 * index + 1]) << 8
            }
            let isNamed = words[0] == 2 || words[0] == 8
            let name = isNamed ? "\(words[2] | words[3] << 16)" : ""
            let permissions = [(4, "r"), (2, "w"), (1, "x")].map {
                words[1] & $0.0 != 0 ? $0.1 : "-"
            }
            return "\(tags[words[0]] ?? "?"):\(name):\(permissions.joined())"
        }.joined(separator: ",")
    }
}
