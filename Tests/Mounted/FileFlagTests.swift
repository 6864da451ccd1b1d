// Flags of files (chattr(1)): obeyed on every node as Linux obeys them on its own file systems.

import CLinux
import Glibc
import Testing

/// The same tries in two places, in the same order.
private struct Trials {
    /// What was tried, and the errno; 0 if it was done.
    private(set) var outcomes: [String] = []
    let folder: String

    mutating func attempt(_ what: String, _ body: (String) -> Int) {
        errno = 0
        let code = body(folder) < 0 ? errno : 0
        outcomes.append("\(what): \(code == 0 ? "done" : String(cString: strerror(code)))")
    }

    mutating func open(_ what: String, _ name: String, _ flags: Int32) {
        attempt(what) { folder in
            let descriptor = lockstep_open("\(folder)/\(name)", flags, 0o644)
            if descriptor >= 0 { close(descriptor) }
            return Int(descriptor)
        }
    }
}

extension MountedTests {
    @Suite(.serialized) struct FileFlagTests {
        private static func chattr(_ what: String, _ paths: [String]) throws {
            try Commands.demand("chattr", [what] + paths)
        }

        /// The letters that lsattr shows of a path.
        private static func letters(_ path: String) throws -> Set<Character> {
            let text = try Commands.demand("lsattr", ["-d", path]).output
            return Set(text.prefix { $0 != " " }.filter { $0 != "-" })
        }

        /// A file, a directory with something in it, and things to move.
        private static func populate(_ folder: String) throws {
            for name in ["", "/dir", "/dir/sub", "/out"] { try check(mkdir(folder + name, 0o755)) }
            for name in ["/file", "/dir/child", "/out/other", "/out/second"] {
                try Files.write([UInt8](repeating: 7, count: 10_000), to: folder + name)
            }
        }

        private static func tryFile(_ trials: inout Trials) {
            trials.open("open to read", "file", O_RDONLY)
            trials.open("open to write", "file", O_WRONLY)
            trials.open("open to read and write", "file", O_RDWR)
            trials.open("open to append", "file", O_WRONLY | O_APPEND)
            trials.open("open to append and cut", "file", O_WRONLY | O_APPEND | O_TRUNC)
            trials.open("open to read and cut", "file", O_RDONLY | O_TRUNC)
            trials.open("open by creating", "file", O_WRONLY | O_CREAT)
            trials.attempt("truncate") { Int(truncate($0 + "/file", 5000)) }
            trials.attempt("chmod") { Int(chmod($0 + "/file", 0o600)) }
            trials.attempt("chown") { Int(chown($0 + "/file", 7, 7)) }
            let (now, omit) = ((1 << 30) - 1, (1 << 30) - 2)
            for (what, first, second) in [
                ("both now", now, now), ("both given", 0, 0), ("one now", now, omit),
                ("one given", omit, 0), ("now and given", now, 0),
            ] {
                let times = [
                    timespec(tv_sec: 5, tv_nsec: first), timespec(tv_sec: 5, tv_nsec: second),
                ]
                trials.attempt("utimes: \(what)") {
                    Int(utimensat(AT_FDCWD, $0 + "/file", times, 0))
                }
            }
            trials.attempt("utimes") { Int(utimensat(AT_FDCWD, $0 + "/file", nil, 0)) }
            trials.attempt("setxattr") { Int(setxattr($0 + "/file", "user.x", "v", 1, 0)) }
            trials.attempt("removexattr") { Int(removexattr($0 + "/file", "user.x")) }
            trials.attempt("link") { Int(link($0 + "/file", $0 + "/out/link")) }
            trials.attempt("rename") { Int(rename($0 + "/file", $0 + "/out/moved")) }
            trials.attempt("rename over it") { Int(rename($0 + "/out/other", $0 + "/file")) }
            trials.attempt("unlink") { Int(unlink($0 + "/file")) }
        }

        private static func tryDirectory(_ trials: inout Trials) {
            trials.open("create in it", "dir/new", O_CREAT | O_WRONLY)
            trials.open("create what is there", "dir/child", O_CREAT | O_EXCL | O_WRONLY)
            trials.open("write what is in it", "dir/child", O_WRONLY | O_TRUNC)
            trials.open("a temporary file in it", "dir", lockstep_o_tmpfile | O_RDWR)
            trials.attempt("mkdir in it") { Int(mkdir($0 + "/dir/folder", 0o755)) }
            trials.attempt("mkdir of what is there") { Int(mkdir($0 + "/dir/sub", 0o755)) }
            trials.attempt("symlink in it") { Int(symlink("target", $0 + "/dir/symlink")) }
            trials.attempt("mkfifo in it") { Int(mkfifo($0 + "/dir/fifo", 0o644)) }
            trials.attempt("link into it") { Int(link($0 + "/out/second", $0 + "/dir/link")) }
            trials.attempt("rename into it") { Int(rename($0 + "/out/second", $0 + "/dir/second")) }
            trials.attempt("rename onto what is in it") {
                Int(rename($0 + "/out", $0 + "/dir/sub"))
            }
            trials.attempt("rename within it") { Int(rename($0 + "/dir/child", $0 + "/dir/c")) }
            trials.attempt("rename away") { Int(rename($0 + "/dir/child", $0 + "/child")) }
            trials.attempt("unlink in it") { Int(unlink($0 + "/dir/child")) }
            trials.attempt("rmdir in it") { Int(rmdir($0 + "/dir/sub")) }
            trials.attempt("unlink of what is not in it") { Int(unlink($0 + "/dir/nothing")) }
            trials.attempt("chmod of it") { Int(chmod($0 + "/dir", 0o700)) }
            trials.attempt("utimes of it") { Int(utimensat(AT_FDCWD, $0 + "/dir", nil, 0)) }
            trials.attempt("setxattr of it") { Int(setxattr($0 + "/dir", "user.x", "v", 1, 0)) }
            trials.attempt("rename of it") { Int(rename($0 + "/dir", $0 + "/dir2")) }
            trials.attempt("rmdir of it") { Int(rmdir($0 + "/dir")) }
        }

        /// What those do who had the file open before.
        private static func tryOpen(_ trials: inout Trials, _ plain: Int32, _ appending: Int32) {
            let keep = Int32(1)  // FALLOC_FL_KEEP_SIZE
            for (name, file) in [("plain", plain), ("appending", appending)] {
                trials.attempt("\(name): write") { _ in write(file, "x", 1) }
                if file == plain {
                    trials.attempt("\(name): pwrite") { _ in pwrite(file, "x", 1, 100) }
                }
                trials.attempt("\(name): ftruncate") { _ in Int(ftruncate(file, 100)) }
                trials.attempt("\(name): fchmod") { _ in Int(fchmod(file, 0o644)) }
                trials.attempt("\(name): fallocate") { _ in
                    Int(lockstep_allocate(file, 0, 0, 30_000))
                }
                trials.attempt("\(name): fallocate, size kept") { _ in
                    Int(lockstep_allocate(file, keep, 0, 50_000))
                }
                trials.attempt("\(name): punch") { _ in
                    Int(lockstep_allocate(file, keep | 2, 0, 4096))
                }
                trials.attempt("\(name): zero") { _ in
                    Int(lockstep_allocate(file, 16, 0, 4096))
                }
                trials.attempt("\(name): futimens") { _ in Int(futimens(file, nil)) }
                trials.attempt("\(name): fsetxattr") { _ in
                    Int(fsetxattr(file, "user.x", "v", 1, 0))
                }
            }
        }

        /// Everything that is tried in `folder` under a flag, which is set through `setter`, another path to
        /// the same folder.
        private static func outcomes(
            of flag: String,
            in folder: String,
            setter: String
        ) throws -> [String] {
            try populate(folder)
            var trials = Trials(folder: folder)
            let plain = try Files.open(folder + "/file", O_RDWR)
            defer { close(plain) }
            let appending = try Files.open(folder + "/file", O_RDWR | O_APPEND)
            defer { close(appending) }
            if !flag.isEmpty { try chattr("+" + flag, [setter + "/file", setter + "/dir"]) }
            tryOpen(&trials, plain, appending)
            let size = try Files.status(setter + "/file").size
            tryFile(&trials)
            tryDirectory(&trials)
            let all = try Commands.demand("find", [setter]).output.split(separator: "\n").count
            if !flag.isEmpty { try chattr("-" + flag, [folder + "/file", folder + "/dir"]) }
            return ["with \(flag)"] + trials.outcomes + ["\(size) bytes, \(all) names"]
        }

        /// Whether the file system of the tests' folders knows the flags itself.
        private static var isComparable: Bool {
            var info = statfs()
            return geteuid() == 0 && statfs("/var/tmp", &info) == 0 && info.f_type == 0xEF53
        }

        @Test(.enabled(if: isComparable), arguments: ["", "i", "a"])
        func theyAreObeyedAsOnALocalFileSystem(flag: String) throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let local = cluster.folder + "/local"
                let expected = try Self.outcomes(of: flag, in: local, setter: local)
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                let here = try Self.outcomes(of: flag, in: one + "/1", setter: one + "/1")
                let there = try Self.outcomes(of: flag, in: two + "/2", setter: one + "/2")
                #expect(here == expected)
                #expect(there == expected)
                #expect(
                    expected.contains { $0.hasSuffix("Operation not permitted") } != flag.isEmpty
                )
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// They are read on every node at once, and stay.
        @Test(.enabled(if: geteuid() == 0)) func theyStayWithTheFile() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                mkdir(one + "/d", 0o755)
                try Files.write([1], to: one + "/f")
                for (what, shown) in [("+iadA", "iadA"), ("-a", "idA"), ("=d", "d"), ("-d", "")] {
                    // What is immutable is let go first.
                    if try Self.letters(one + "/f").contains("i") {
                        try Self.chattr("-i", [two + "/f"])
                    }
                    let before = try Files.status(two + "/f").change
                    try Self.chattr(what == "-a" ? "=idA" : what, [one + "/f"])
                    #expect(try Self.letters(two + "/f") == Set(shown))
                    #expect(try Self.letters(one + "/f") == Set(shown))
                    let after = try Files.status(one + "/f").change
                    #expect(after > before)
                    #expect(try Files.status(two + "/f").change == after)
                }
                // Flags that do not exist here are refused.
                #expect(try Commands.run("chattr", ["+c", one + "/f"]).exitCode != 0)
                // Two are inherited.
                try Self.chattr("+aAd", [one + "/d"])
                mkdir(two + "/d/d", 0o755)
                try Files.write([1], to: two + "/d/f")
                try check(symlink("x", two + "/d/s"))
                #expect(try Self.letters(one + "/d/d") == Set("Ad"))
                #expect(try Self.letters(one + "/d/f") == Set("Ad"))
                try Self.chattr("+i", [one + "/f"])
                try cluster.unmountAll()
                try cluster.checkClean()
                let shown = try Commands.demand(
                    "lockstep",
                    ["inspect", cluster.image, "inode", "/f"]
                )
                #expect(shown.output.contains("immutable"))
                try cluster.mountAll()
                #expect(try Self.letters(two + "/f") == Set("i"))
                #expect(try Self.letters(one + "/d") == Set("aAd"))
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// The other pair of requests (FS_IOC_FSGETXATTR): the same flags.
        @Test(.enabled(if: geteuid() == 0)) func extendedFlags() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                try Files.write([1], to: one + "/f")
                try Files.withOpen(one + "/f", O_RDONLY) { file in
                    var words = [UInt32](repeating: 9, count: 7)
                    try check(ioctl(file, 0x801C_581F, &words))
                    #expect(words == [0, 0, 0, 0, 0, 0, 0])
                    words[0] = 0x8 | 0x40 | 0x80
                    try check(ioctl(file, 0x401C_5820, &words))
                    #expect(try Self.letters(two + "/f") == Set("iAd"))
                    try Self.chattr("=A", [two + "/f"])
                    try check(ioctl(file, 0x801C_581F, &words))
                    #expect(words == [0x40, 0, 0, 0, 0, 0, 0])
                    // A project, the size of extents, an unknown flag: not here.
                    for (index, value) in [(3, 5), (1, 4096), (0, 0x60)] as [(Int, UInt32)] {
                        var wish = words
                        wish[index] = value
                        let result = ioctl(file, 0x401C_5820, &wish)
                        #expect(result < 0, "word \(index)")
                    }
                    #expect(try Self.letters(one + "/f") == Set("A"))
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test(.enabled(if: geteuid() == 0)) func whoMaySetThem() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                for node in cluster.nodes { try cluster.mount(node, options: ["allow_other"]) }
                chmod(cluster.folder, 0o755)
                let path = cluster.nodes[0].root + "/f"
                try Files.write([1], to: path)
                chown(path, 65_534, 65_534)
                func code(_ what: String, as options: [String]) throws -> Bool {
                    try Commands.run("setpriv", options + ["chattr", what, path]).exitCode == 0
                }
                let owner = ["--reuid", "65534", "--clear-groups"]
                let other = ["--reuid", "65533", "--clear-groups"]
                let caps = "-linux_immutable"
                let weak = ["--inh-caps", caps, "--bounding-set", caps]
                #expect(try code("+d", as: owner))
                #expect(try !code("-d", as: other))
                #expect(try code("-d", as: weak))
                for options in [owner, other, weak] {
                    #expect(try !code("+i", as: options))
                    #expect(try !code("+a", as: options))
                }
                #expect(try Self.letters(cluster.nodes[1].root + "/f") == [])
                try Self.chattr("+i", [path])
                for options in [owner, other, weak] { #expect(try !code("-i", as: options)) }
                #expect(try Self.letters(cluster.nodes[1].root + "/f") == Set("i"))
                try Self.chattr("-i", [cluster.nodes[1].root + "/f"])
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// What was stored in a mapping before is in the file, what is stored afterwards never is.
        @Test(.enabled(if: geteuid() == 0)) func mappings() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root + "/f", cluster.nodes[1].root + "/f")
                for setter in [one, two] {
                    try Files.write([UInt8](repeating: 1, count: 8192), to: one)
                    try Files.withOpen(one, O_RDWR) { file in
                        let map = mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                        guard let map, map != MAP_FAILED else { throw SystemFailure(errno) }
                        defer { munmap(map, 8192) }
                        let bytes = map.assumingMemoryBound(to: UInt8.self)
                        bytes[5000] = 2
                        try Self.chattr("+i", [setter])
                        bytes[5001] = 3
                        bytes[100] = 3
                        #expect(msync(map, 8192, MS_SYNC) != 0)
                        var expected = [UInt8](repeating: 1, count: 8192)
                        expected[5000] = 2
                        #expect(try Files.contents(two) == expected)
                        #expect(try Files.contents(one) == expected)
                        try Self.chattr("-i", [two])
                        bytes[100] = 4
                        try check(msync(map, 8192, MS_SYNC))
                        expected[100] = 4
                        #expect(try Files.contents(two) == expected)
                    }
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// O_APPEND cannot be taken off a descriptor of a file that is append-only.
        @Test(.enabled(if: geteuid() == 0)) func appendingStaysAppending() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root + "/f", cluster.nodes[1].root + "/f")
                try Files.write([UInt8](repeating: 1, count: 100), to: one)
                try Self.chattr("+a", [two])
                try Files.withOpen(one, O_RDWR | O_APPEND) { file in
                    try Files.write([2], to: file, at: nil)
                    try check(fcntl(file, F_SETFL, 0))
                    #expect(pwrite(file, "x", 1, 0) < 0 && errno == EPERM)
                    try check(fcntl(file, F_SETFL, O_APPEND))
                    try Files.write([3], to: file, at: nil)
                }
                #expect(try Files.contents(two) == [UInt8](repeating: 1, count: 100) + [2, 3])
                try Self.chattr("-a", [one])
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
