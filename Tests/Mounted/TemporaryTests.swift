// Files without a name (O_TMPFILE), and the names they may get.

import CLinux
import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct TemporaryTests {
        private static func make(_ folder: String, _ flags: Int32 = O_RDWR) throws -> Int32 {
            try check(lockstep_open(folder, lockstep_o_tmpfile | flags, 0o640))
        }

        /// linkat(2) of an open file; 0 or errno.
        private static func link(_ file: Int32, _ path: String) -> Int32 {
            let name = "/proc/self/fd/\(file)"
            return linkat(AT_FDCWD, name, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno
        }

        private static func freeBlocks(_ path: String) throws -> Int {
            var usage = statvfs()
            try check(statvfs(path, &usage))
            return Int(usage.f_bfree)
        }

        private static func contentsOpenedAgain(_ file: Int32) throws -> [UInt8] {
            let again = try check(lockstep_open("/proc/self/fd/\(file)", O_RDONLY, 0))
            defer { close(again) }
            return try Files.contents(of: again)
        }

        private static func links(_ file: Int32) throws -> Int {
            var status = stat()
            try check(fstat(file, &status))
            return Int(status.st_nlink)
        }

        @Test func theyGetNames() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
                let file = try Self.make(one)
                try Files.write(bytes, to: file, at: 0)
                #expect(try Self.links(file) == 0)
                #expect(try Files.names(one) == [])
                // Anybody on this node may open it once more as long as it is open.
                #expect(try Self.contentsOpenedAgain(file) == bytes)
                #expect(Self.link(file, one + "/name") == 0)
                #expect(try Self.links(file) == 1)
                #expect(try Files.contents(two + "/name") == bytes)
                #expect(Self.link(file, one + "/name") == EEXIST)
                // It is a file like others now: kept while it is open, though its name goes elsewhere.
                #expect(unlink(two + "/name") == 0)
                #expect(try Self.links(file) == 0)
                #expect(try Self.contentsOpenedAgain(file) == bytes)
                #expect(Self.link(file, one + "/again") == ENOENT)
                close(file)
                let never = try Self.make(two, O_WRONLY | O_EXCL)
                #expect(Self.link(never, two + "/never") == ENOENT)
                close(never)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Those without a name are gone with the node that had them open, the others stay.
        @Test func theDeadLeaveNone() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                let free = try Self.freeBlocks(two)
                let files = try (0..<20).map { _ in try Self.make(one) }
                for file in files {
                    try Files.write([UInt8](repeating: 5, count: 9000), to: file, at: 0)
                }
                #expect(Self.link(files[0], one + "/kept") == 0)
                for file in files { try check(fsync(file)) }
                try cluster.kill(cluster.nodes[0])
                #expect(try Files.contents(two + "/kept") == [UInt8](repeating: 5, count: 9000))
                #expect(unlink(two + "/kept") == 0)
                for file in files { close(file) }
                try cluster.unmount(cluster.nodes[1])
                try cluster.checkClean()
                try cluster.mount(cluster.nodes[1])
                #expect(try Self.freeBlocks(two) >= free - 20, "what had no name is free")
            }
        }
    }
}
