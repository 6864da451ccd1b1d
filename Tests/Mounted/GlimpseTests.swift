// Looking at a file that another node writes (FileSystem/Glimpse.swift): what is shown is true at once, and the writer keeps
// its lock.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct GlimpseTests {
        private static func status(_ path: String) throws -> stat {
            var status = stat()
            try check(stat(path, &status))
            return status
        }

        private static func append(_ descriptor: Int32, _ count: Int) throws {
            let bytes = [UInt8](repeating: 0x61, count: count)
            guard write(descriptor, bytes, count) == count else { throw SystemFailure(errno) }
        }

        private static func attribute(_ path: String) -> (count: Int, error: Int32) {
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = getxattr(path, "user.note", &bytes, bytes.count)
            return (count, count < 0 ? errno : 0)
        }

        /// Each append is seen by the next look, and no look takes the lock away.
        @Test func whatGrowsIsSeenAndLeftAlone() throws {
            let cluster = try TestCluster(nodes: 3, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/log" }
                let log = try Files.open(paths[0], O_WRONLY | O_CREAT | O_APPEND, mode: 0o644)
                // The name is durable when the others have found it.
                for path in paths { _ = try Self.status(path) }
                try Self.append(log, 1)
                let before = try Counters.value("demotions", cluster.nodes[0].root)
                var size = 1
                for round in 1...300 {
                    try Self.append(log, round)
                    size += round
                    let own = try Self.status(paths[0])
                    for path in paths.dropFirst() {
                        let seen = try Self.status(path)
                        #expect(seen.st_size == off_t(size), "round \(round)")
                        #expect(seen.st_mtim.tv_sec == own.st_mtim.tv_sec)
                        #expect(seen.st_mtim.tv_nsec == own.st_mtim.tv_nsec)
                        #expect(seen.st_blocks == own.st_blocks)
                        let attribute = Self.attribute(path)
                        #expect(attribute.count == -1 && attribute.error == ENODATA)
                    }
                }
                for node in cluster.nodes[1...2] {
                    // A round may take longer than the memory of writes on a machine that stands still.
                    #expect(try Counters.value("glimpses", node.root) > 400)
                }
                let after = try Counters.value("demotions", cluster.nodes[0].root)
                #expect(after - before < 60, "looks have taken the lock \(after - before) times")
                #expect(try Files.contents(paths[1]).count == size)
                #expect(try Self.status(paths[2]).st_size == off_t(size))
                close(log)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// What is no data is seen at once as well, and whatever else the writer does.
        @Test func allElseIsSeenToo() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/log" }
                let log = try Files.open(paths[0], O_RDWR | O_CREAT | O_APPEND, mode: 0o644)
                for round in 0..<50 {
                    try Self.append(log, 100)
                    _ = try Self.status(paths[1])
                    let mode = mode_t(0o600 + round % 8)
                    try check(chmod(paths[0], mode))
                    #expect(try Self.status(paths[1]).st_mode & 0o777 == mode)
                    try Self.append(log, 1)
                    try check(ftruncate(log, off_t(round)))
                    #expect(try Self.status(paths[1]).st_size == off_t(round))
                    try Self.append(log, 7)
                    try check(setxattr(paths[0], "user.note", "abcd", round % 5, 0))
                    #expect(Self.attribute(paths[1]).count == round % 5)
                    try check(removexattr(paths[0], "user.note"))
                    #expect(Self.attribute(paths[1]).error == ENODATA)
                    try Self.append(log, 7)
                    let other = cluster.nodes[0].root + "/other\(round)"
                    try check(link(paths[0], other))
                    #expect(try Self.status(paths[1]).st_nlink == nlink_t(2 + round))
                }
                try Self.append(log, 7)
                _ = try Self.status(paths[1])
                try check(unlink(paths[0]))
                var gone = stat()
                #expect(stat(paths[1], &gone) == -1 && errno == ENOENT)
                close(log)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
