// Times of files with each of the rules that mount(8) knows (FileSystem/AccessTimes.swift, LazyTimes.swift), as two nodes see them.

import CLinux
import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct TimesTests {
        /// Times in nanoseconds since 1970.
        private struct Times: Equatable, CustomStringConvertible {
            let accessed: Int
            let modified: Int

            init(_ path: String) throws {
                var raw = stat()
                try check(lstat(path, &raw))
                accessed = raw.st_atim.tv_sec * 1_000_000_000 + raw.st_atim.tv_nsec
                modified = raw.st_mtim.tv_sec * 1_000_000_000 + raw.st_mtim.tv_nsec
            }

            var description: String { "atime \(accessed) mtime \(modified)" }
        }

        private static let keepsAccessTime: Int32 = 0o1_000_000

        private static func now() -> Int {
            var now = timespec()
            clock_gettime(CLOCK_REALTIME, &now)
            return now.tv_sec * 1_000_000_000 + now.tv_nsec
        }

        /// Waits until every node shows what is wanted: of a read the others hear a moment later.
        private static func expect(
            _ paths: [String],
            _ what: Comment,
            _ isRight: (Times) -> Bool
        ) throws {
            let limit = now() + Int(10e9 * Patience.factor)
            for path in paths {
                while try !isRight(Times(path)), now() < limit { sched_yield() }
                let times = try Times(path)
                #expect(isRight(times), "\(what): \(path): \(times)")
            }
        }

        /// Reads a file in a process's usual way; returns when that began.
        private static func look(_ path: String, _ flags: Int32 = O_RDONLY) throws -> Int {
            let begun = now()
            let file = try Files.open(path, flags)
            defer { close(file) }
            _ = try Files.contents(of: file)
            return begun
        }

        private static func onTwoNodes(
            _ options: [String],
            _ body: (TestCluster, [String]) throws -> Void
        ) throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                for node in cluster.nodes { try cluster.mount(node, options: options) }
                try body(cluster, cluster.nodes.map { $0.root })
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Whether the kernel says of a mount what it was asked for.
        private static func shown(_ root: String) throws -> [String] {
            let text = String(decoding: try Files.contents("/proc/self/mountinfo"), as: UTF8.self)
            for line in text.split(separator: "\n") {
                let fields = line.split(separator: " ").map(String.init)
                guard fields[4] == root else { continue }
                return (fields[5] + "," + fields[fields.count - 1]).split(separator: ",").map(
                    String.init
                )
            }
            throw Trouble("\(root) is not mounted")
        }

        /// The first read after a change counts, on whichever node, and takes nobody's lock.
        @Test func relative() throws {
            try Self.onTwoNodes([]) { cluster, roots in
                try check(mkdir(roots[0] + "/d", 0o755))
                let files = roots.map { root in (0..<40).map { "\(root)/d/f\($0)" } }
                for path in files[0] { try Files.write([1, 2, 3], to: path) }
                // The writer's lock becomes a reader's, and its names are known everywhere.
                for path in files[1] { _ = try Times(path) }
                let before = try Counters.value("demotions", roots[0])
                for place in files[0].indices {
                    let paths = files.map { $0[place] }
                    let begun = try Self.look(paths[1])
                    try Self.expect(paths.reversed(), "the first read") { $0.accessed >= begun }
                    let first = try Times(paths[0])
                    _ = try Self.look(paths[1])
                    _ = try Self.look(paths[0])
                    #expect(try paths.map(Times.init) == [first, first], "a second read")
                }
                #expect(
                    try Counters.value("demotions", roots[0]) == before,
                    "a read has taken a lock"
                )
                // Once more after a change, which the other node makes now; and a directory and a link.
                let paths = files.map { $0[0] }
                try Files.write([4], to: paths[1])
                let begun = try Self.look(paths[0])
                try Self.expect(paths, "a read after a change") { $0.accessed >= begun }
                let listed = Self.now()
                _ = try Files.names(roots[1] + "/d")
                try Self.expect(roots.map { $0 + "/d" }, "a listing") { $0.accessed >= listed }
                try check(symlink("nowhere", roots[0] + "/l"))
                let followed = Self.now()
                _ = try Files.linkTarget(roots[1] + "/l")
                try Self.expect(roots.map { $0 + "/l" }, "a link") { $0.accessed >= followed }
            }
        }

        /// What somebody sets counts more than all earlier reads, and is not touched by O_NOATIME.
        @Test func whatIsSetStays() throws {
            try Self.onTwoNodes([]) { _, roots in
                let paths = roots.map { $0 + "/f" }
                try Files.write([1], to: paths[0])
                for round in 0..<30 {
                    _ = try Self.look(paths[round % 2])
                    var set = [
                        timespec(tv_sec: 1000 + round, tv_nsec: 7), timespec(tv_sec: 5, tv_nsec: 9),
                    ]
                    try check(utimensat(AT_FDCWD, paths[(round / 2) % 2], &set, 0))
                    _ = try Self.look(paths[(round + 1) % 2], O_RDONLY | Self.keepsAccessTime)
                    for path in paths {
                        let times = try Times(path)
                        #expect(times.accessed == (1000 + round) * 1_000_000_000 + 7)
                        #expect(times.modified == 5_000_000_009)
                    }
                }
            }
        }

        @Test func noneAndNotOfDirectories() throws {
            for rule in ["noatime", "nodiratime"] {
                try Self.onTwoNodes([rule]) { _, roots in
                    try check(mkdir(roots[0] + "/d", 0o755))
                    let paths = roots.map { $0 + "/d/f" }
                    try Files.write([1], to: paths[0])
                    let file = try Times(paths[0])
                    let folder = try Times(roots[0] + "/d")
                    let begun = try Self.look(paths[1])
                    for root in roots { _ = try Files.names(root + "/d") }
                    _ = try Self.look(paths[0])
                    if rule == "noatime" {
                        #expect(try paths.map(Times.init) == [file, file])
                        #expect(try Self.shown(roots[0]).contains("noatime"))
                    } else {
                        try Self.expect(paths, "a file") { $0.accessed >= begun }
                        if geteuid() == 0 {
                            #expect(try Self.shown(roots[0]).contains("nodiratime"))
                        }
                    }
                    #expect(try roots.map { try Times($0 + "/d") } == [folder, folder])
                }
            }
        }

        /// Each read(2) counts, also of what the page cache would have.
        @Test func strict() throws {
            try Self.onTwoNodes(["strictatime"]) { _, roots in
                let paths = roots.map { $0 + "/f" }
                try Files.write([1, 2, 3], to: paths[0])
                for reader in [paths[0], paths[1], paths[0]] {
                    let file = try Files.open(reader, O_RDONLY)
                    defer { close(file) }
                    for _ in 0..<2 {
                        let begun = Self.now()
                        var byte: UInt8 = 0
                        try check(pread(file, &byte, 1, 0))
                        try Self.expect(paths, "a read") { $0.accessed >= begun }
                    }
                }
                for root in roots {
                    for _ in 0..<2 {
                        let begun = Self.now()
                        _ = try Files.names(root)
                        try Self.expect(roots, "a listing") { $0.accessed >= begun }
                    }
                }
                #expect(try !Self.shown(roots[0]).contains("relatime"))
            }
        }

        @Test(.enabled(if: geteuid() == 0)) func otherRulesByRemount() throws {
            try Self.onTwoNodes(["noatime"]) { cluster, roots in
                func remount(_ options: String...) throws {
                    let arguments = cluster.mountArguments(
                        cluster.nodes[1],
                        options: ["remount"] + options
                    )
                    try Commands.demand("mount.lockstep", arguments)
                }
                let paths = roots.map { $0 + "/f" }
                try Files.write([1, 2], to: paths[0])
                let written = try Times(paths[0])
                _ = try Self.look(paths[1])
                #expect(try paths.map(Times.init) == [written, written])
                try remount("relatime")
                #expect(try Self.shown(roots[1]).contains("relatime"))
                let first = try Self.look(paths[1])
                try Self.expect(paths, "relatime") { $0.accessed >= first }
                try remount("strictatime", "lazytime")
                #expect(try Self.shown(roots[1]).contains("lazytime"))
                #expect(try !Self.shown(roots[1]).contains("relatime"))
                for _ in 0..<3 {
                    let again = try Self.look(paths[1])
                    try Self.expect(paths, "strictatime") { $0.accessed >= again }
                }
                try remount("ro")
                #expect(try Self.shown(roots[1]).contains("lazytime"), "what was there stays")
                let last = try Times(paths[1])
                _ = try Self.look(paths[1])
                #expect(try paths.map(Times.init) == [last, last], "read-only")
                try remount("rw", "noatime", "nolazytime")
                #expect(try Self.shown(roots[1]).contains("noatime"))
                #expect(try !Self.shown(roots[1]).contains("lazytime"))
                _ = try Self.look(paths[1])
                #expect(try paths.map(Times.init) == [last, last])
            }
        }

        /// Writes that change data and times alone log nothing; whoever looks sees their times, and fsync stores them.
        @Test func lazy() throws {
            try Self.onTwoNodes(["lazytime", "commit=1"]) { cluster, roots in
                let paths = roots.map { $0 + "/f" }
                let bytes = [UInt8](repeating: 7, count: 64 << 10)
                try Files.write(bytes, to: paths[0], sync: true)
                let file = try Files.open(paths[0], O_RDWR)
                try Files.write([1], to: file, at: 0)
                try check(fsync(file))
                let before = try Counters.value("commits", roots[0])
                let begun = Self.now()
                for round in 0..<200 {
                    try Files.write([UInt8(round)], to: file, at: round * 100)
                    if round % 20 == 0 { try check(fdatasync(file)) }
                }
                #expect(
                    try Counters.value("commits", roots[0]) == before,
                    "times alone were logged"
                )
                // What the other node sees is true, by asking or because the lock is handed over.
                try Self.expect(paths, "a write") { $0.modified >= begun }
                let last = try Times(paths[0])
                #expect(try Files.contents(paths[1]).count == bytes.count)
                #expect(try Times(paths[1]).modified == last.modified)
                // The node dies: what was fsynced, or handed over, is there.
                try Files.write([9], to: file, at: 5)
                try check(fsync(file))
                let synced = try Times(paths[0])
                try Files.write([8], to: file, at: 6)
                try check(fdatasync(file))
                let lost = try Times(paths[0])
                try cluster.kill(cluster.nodes[0])
                close(file)
                let kept = try Times(paths[1]).modified
                #expect(kept == synced.modified || kept == lost.modified)
                let content = try Files.contents(paths[1])
                #expect(content[5] == 9 && content[6] == 8 && content.count == bytes.count)
            }
        }

        /// A time of access that no lock has stored yet is not lost with the node whose user has read, nor when all leave.
        @Test func othersKnowWhatWasRead() throws {
            try Self.onTwoNodes([]) { cluster, roots in
                let paths = roots.map { $0 + "/f" }
                try Files.write([1], to: paths[0])
                _ = try Times(paths[1])
                let begun = try Self.look(paths[1])
                try Self.expect([paths[0]], "a read") { $0.accessed >= begun }
                try cluster.kill(cluster.nodes[1])
                #expect(try Times(paths[0]).accessed >= begun)
                let seen = try Times(paths[0])
                try cluster.unmount(cluster.nodes[0])
                for node in cluster.nodes { try cluster.mount(node) }
                #expect(try paths.map(Times.init) == [seen, seen])
                // Who mounts later is told by those who know.
                try Files.write([2], to: paths[0])
                _ = try Times(paths[1])
                let later = try Self.look(paths[1])
                try cluster.unmount(cluster.nodes[0])
                try cluster.mount(cluster.nodes[0])
                try Self.expect(paths, "a read before the mount") { $0.accessed >= later }
            }
        }
    }
}
