// Calls of the conformance suite about what is not a plain file, and about who uses one: pipes, sockets, devices,
// programs, locks, leases, watches.

import CLinux
import Glibc

extension ConformanceStage {
    static let deviceCalls: [String: ConformanceCall] =
        objectCalls.merging(lockCalls) { first, _ in first }

    private static func address(_ words: ConformanceArguments, _ index: Int) throws -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // Through the directory, since the path of a case is longer than an address may be.
        let path = try words.bytes(index) + [0]
        guard path.count <= MemoryLayout.size(ofValue: address.sun_path) else {
            throw Trouble("an address that long cannot be")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        return address
    }

    private static func withAddress(
        _ words: ConformanceArguments,
        _ index: Int,
        _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> String
    ) throws -> String {
        try check(chdir(words.stage.folders[words.stage.turn]))
        defer { chdir("/") }
        var address = try address(words, index)
        return try withUnsafePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    private static let objectCalls: [String: ConformanceCall] = [
        "listen": { words in
            let descriptor = try check(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
            words.stage.descriptors[words[0]] = descriptor
            return try withAddress(words, 1) { address, length in
                try check(bind(descriptor, address, length))
                return try done(Glibc.listen(descriptor, 4))
            }
        },
        "connect": { words in
            let descriptor = try check(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
            defer { close(descriptor) }
            return try withAddress(words, 0) { address, length in
                try done(Glibc.connect(descriptor, address, length))
            }
        },
        // A copy of a program of the system.
        "install": { words in
            let program = try Files.contents("/bin/sleep")
            let path = try words.path(0)
            try Files.withOpen(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o755) {
                try Files.write(program, to: $0, at: 0)
            }
            return "ok"
        },
        "run": { words in
            let path = try words.path(1)
            var actions = posix_spawn_file_actions_t()
            posix_spawn_file_actions_init(&actions)
            defer { posix_spawn_file_actions_destroy(&actions) }
            lockstep_spawn_close_from(&actions, 3)
            var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("60"), nil]
            defer { for argument in arguments { free(argument) } }
            var process = pid_t()
            let code = posix_spawn(&process, path, &actions, nil, &arguments, environ)
            if code != 0 { throw SystemFailure(code) }
            words.stage.processes[words[0]] = process
            return "ok"
        },
        "end": { words in
            try words.stage.end(program: words[0])
            return "ok"
        },
        "ioctl": { words in
            try done(
                lockstep_ioctl(try words.descriptor(0), UInt(try words.number(1)), 0)
            )
        },
        "watch": { words in
            let watcher = try check(inotify_init1(Int32(O_NONBLOCK | O_CLOEXEC)))
            words.stage.descriptors[words[0]] = watcher
            try words.withPath(1) { path in
                return try check(inotify_add_watch(watcher, path, 0xFFF))
            }
            return "ok"
        },
        // The kinds of events since the last time, without repetitions.
        "events": { words in
            let names: [(UInt32, String)] = [
                (1, "access"), (2, "modify"), (4, "attrib"), (8, "close-write"),
                (16, "close-nowrite"), (32, "open"), (64, "moved-from"), (128, "moved-to"),
                (256, "create"), (512, "delete"), (1024, "delete-self"), (2048, "move-self"),
                (0x8000, "ignored"),
            ]
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let count = read(try words.descriptor(0), &buffer, buffer.count)
            if count < 0 { return "none" }
            var events: [String] = []
            var place = 0
            while place + 16 <= count {
                let word = { (at: Int) in
                    (0..<4).reduce(UInt32(0)) { $0 | UInt32(buffer[at + $1]) << (8 * UInt32($1)) }
                }
                let mask = word(place + 4)
                let name: String = names.first { mask & $0.0 != 0 }.map(\.1) ?? "?"
                if events.last ?? "" != name { events.append(name) }
                place += 16 + Int(word(place + 12))
            }
            return events.joined(separator: " ")
        },
        "setfl": { words in
            let flags = try words.flags(1, openFlags)
            return try done(lockstep_fcntl(try words.descriptor(0), F_SETFL, flags))
        },
    ]

    private static let lockKinds: [String: Int] = [
        "read": Int(F_RDLCK), "write": Int(F_WRLCK), "none": Int(F_UNLCK),
    ]

    private static func lock(_ words: ConformanceArguments, _ command: Int32) throws -> flock {
        var lock = flock()
        lock.l_type = Int16(try words.flags(1, lockKinds))
        lock.l_whence = Int16(SEEK_SET)
        lock.l_start = off_t(try words.number(2))
        lock.l_len = off_t(try words.number(3))
        let descriptor = try words.descriptor(0)
        try withUnsafeMutablePointer(to: &lock) {
            _ = try check(lockstep_fcntl(descriptor, command, Int(bitPattern: $0)))
        }
        return lock
    }

    private static let lockCalls: [String: ConformanceCall] = [
        // `lock H read|write|none START LENGTH`: of the process. `ofd` the same, of the open file.
        "lock": { words in
            _ = try lock(words, F_SETLK)
            return "ok"
        },
        "ofd": { words in
            _ = try lock(words, lockstep_f_ofd_setlk)
            return "ok"
        },
        "ofd-test": { words in
            let found = try lock(words, lockstep_f_ofd_getlk)
            let kinds = [F_RDLCK: "read", F_WRLCK: "write"]
            guard let kind = kinds[Int32(found.l_type)] else { return "free" }
            return "\(kind) \(found.l_start) \(found.l_len) \(found.l_pid)"
        },
        "flock": { words in
            let how = try words.flags(1, ["shared": 1, "exclusive": 2, "none": 8]) | 4
            return try done(
                lockstep_system_call(Int(SYS_flock), Int(try words.descriptor(0)), how, 0, 0, 0, 0)
            )
        },
        "lease": { words in
            try done(
                lockstep_fcntl(try words.descriptor(0), 1024, try words.flags(1, lockKinds))
            )
        },
    ]
}
