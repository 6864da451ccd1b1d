// Access control lists on two nodes: what is set on one is seen, and obeyed, on the other. What must come out is what
// ext4 does.

import CLinux
import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct AccessListTests {
        private static let (access, byDefault) = (
            "system.posix_acl_access", "system.posix_acl_default"
        )

        /// A value of the attributes: tag, permissions, and user or group.
        private static func list(_ entries: (UInt16, UInt16, UInt32)...) -> [UInt8] {
            var bytes: [UInt8] = [2, 0, 0, 0]
            for (tag, permissions, identity) in entries {
                for word in [tag, permissions, UInt16(identity & 0xFFFF), UInt16(identity >> 16)] {
                    bytes += [UInt8(word & 0xFF), UInt8(word >> 8)]
                }
            }
            return bytes
        }

        private static let nobody = UInt32.max

        private static func set(_ path: String, _ name: String, _ value: [UInt8]) -> Int32 {
            setxattr(path, name, value, value.count, 0) == 0 ? 0 : errno
        }

        /// The attribute's value; empty if there is none.
        private static func get(_ path: String, _ name: String) throws -> [UInt8] {
            var value = [UInt8](repeating: 0, count: 4096)
            let count = getxattr(path, name, &value, value.count)
            if count < 0, errno == ENODATA { return [] }
            return Array(value[..<Int(try check(count))])
        }

        private static func mode(_ path: String) throws -> UInt32 {
            var status = stat()
            try check(lstat(path, &status))
            return status.st_mode & 0o7777
        }

        /// Whether a user that is in no group of others may open a file.
        private static func may(_ how: String, _ path: String) throws -> Bool {
            let arguments = [
                "--reuid", "1234", "--regid", "1234", "--clear-groups", "sh", "-c",
                "exec 9\(how)\(path)",
            ]
            return try Commands.run("setpriv", arguments).succeeded
        }

        @Test func listsAndModes() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                for node in cluster.nodes { try cluster.mount(node, options: ["allow_other"]) }
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                try Files.write([], to: one + "/f")
                chmod(one + "/f", 0o644)
                #expect(try Self.get(two + "/f", Self.access) == [])
                #expect(Self.set(one + "/f", Self.access, [1, 2, 3]) == EINVAL)
                let minimal = Self.list(
                    (1, 6, Self.nobody),
                    (4, 4, Self.nobody),
                    (32, 1, Self.nobody)
                )
                #expect(Self.set(one + "/f", Self.byDefault, minimal) == EACCES)
                let named = Self.list(
                    (1, 6, Self.nobody),
                    (2, 7, 1234),
                    (4, 4, Self.nobody),
                    (16, 5, Self.nobody),
                    (32, 0, Self.nobody)
                )
                #expect(Self.set(one + "/f", Self.access, named) == 0)
                #expect(try Self.get(two + "/f", Self.access) == named)
                #expect(try Self.mode(two + "/f") == 0o650)
                chmod(two + "/f", 0o4731)
                let changed = Self.list(
                    (1, 7, Self.nobody),
                    (2, 7, 1234),
                    (4, 4, Self.nobody),
                    (16, 3, Self.nobody),
                    (32, 1, Self.nobody)
                )
                #expect(try Self.get(one + "/f", Self.access) == changed)
                #expect(try Self.mode(one + "/f") == 0o4731)
                // No more than a mode is none.
                #expect(Self.set(two + "/f", Self.access, minimal) == 0)
                #expect(try Self.get(one + "/f", Self.access) == [])
                #expect(try Self.mode(one + "/f") == 0o4641)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func defaultsAreInherited() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                for node in cluster.nodes { try cluster.mount(node, options: ["allow_other"]) }
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                mkdir(one + "/d", 0o755)
                let list = Self.list(
                    (1, 7, Self.nobody),
                    (2, 6, 1234),
                    (4, 5, Self.nobody),
                    (16, 7, Self.nobody),
                    (32, 4, Self.nobody)
                )
                #expect(Self.set(one + "/d", Self.byDefault, list) == 0)
                // The umask of a process is what it is; a shell has one of its own.
                try Commands.demand("sh", ["-c", "umask 077; mkdir \(two)/d/s; : >\(two)/d/f"])
                try Commands.demand("sh", ["-c", "umask 027; mkdir \(two)/s; : >\(two)/f"])
                #expect(try Self.mode(one + "/d/f") == 0o664)
                #expect(try Self.mode(one + "/d/s") == 0o774)
                #expect(try Self.get(one + "/d/s", Self.byDefault) == list)
                #expect(try Self.get(one + "/d/s", Self.access) == list)
                let file = Self.list(
                    (1, 6, Self.nobody),
                    (2, 6, 1234),
                    (4, 5, Self.nobody),
                    (16, 6, Self.nobody),
                    (32, 4, Self.nobody)
                )
                #expect(try Self.get(one + "/d/f", Self.access) == file)
                #expect(try Self.get(one + "/d/f", Self.byDefault) == [])
                // Without a default the umask counts.
                #expect(try Self.mode(one + "/s") == 0o750)
                #expect(try Self.mode(one + "/f") == 0o640)
                // Too long for the inode's own block.
                var long = Self.list((1, 7, Self.nobody))
                for user in 2000..<2400 { long += Self.list((2, 5, UInt32(user)))[4...] }
                for entry in [(4, 5), (16, 7), (32, 4)] as [(UInt16, UInt16)] {
                    long += Self.list((entry.0, entry.1, Self.nobody))[4...]
                }
                #expect(Self.set(one + "/d", Self.byDefault, long) == 0)
                try Commands.demand("mkdir", [two + "/d/t"])
                #expect(try Self.get(one + "/d/t", Self.byDefault) == long)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// A list that lies in blocks of its own, because the inode's is full, moves there when it is not.
        @Test func aListMovesWithTheMode() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let path = cluster.nodes[0].root + "/f"
                try Files.write([UInt8](repeating: 7, count: 3600), to: path, sync: true)
                var long = Self.list((1, 7, Self.nobody))
                for user in 2000..<2040 { long += Self.list((2, 5, UInt32(user)))[4...] }
                for entry in [(4, 5), (16, 7), (32, 4)] as [(UInt16, UInt16)] {
                    long += Self.list((entry.0, entry.1, Self.nobody))[4...]
                }
                #expect(Self.set(path, Self.access, long) == 0)
                #expect(truncate(path, 0) == 0)
                #expect(chmod(path, 0o741) == 0)
                #expect(try Self.mode(path) == 0o741)
                long[long.count - 8 - 6] = 4
                long[long.count - 6] = 1
                #expect(try Self.get(path, Self.access) == long)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// The kernel of each node keeps lists; a change on another takes them away.
        @Test(.enabled(if: geteuid() == 0)) func theyAreObeyed() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                for node in cluster.nodes { try cluster.mount(node, options: ["allow_other"]) }
                chmod(cluster.folder, 0o755)
                let paths = cluster.nodes.map { $0.root + "/f" }
                try Files.write([1], to: paths[0])
                chmod(paths[0], 0o600)
                func expect(_ reads: Bool, _ writes: Bool, _ when: Comment) throws {
                    for path in paths {
                        #expect(try Self.may("<", path) == reads, when)
                        #expect(try Self.may(">>", path) == writes, when)
                    }
                }
                func allow(_ permissions: UInt16) -> [UInt8] {
                    Self.list(
                        (1, 6, Self.nobody),
                        (2, permissions, 1234),
                        (4, 0, Self.nobody),
                        (16, 6, Self.nobody),
                        (32, 0, Self.nobody)
                    )
                }
                try expect(false, false, "the mode alone")
                #expect(Self.set(paths[0], Self.access, allow(4)) == 0)
                try expect(true, false, "named to read")
                #expect(Self.set(paths[1], Self.access, allow(6)) == 0)
                try expect(true, true, "named to read and write")
                chmod(paths[0], 0o640)
                try expect(true, false, "masked")
                #expect(removexattr(paths[1], Self.access) == 0)
                try expect(false, false, "the list is gone")
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func withoutLists() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mount(cluster.nodes[0], options: ["noacl"])
                let path = cluster.nodes[0].root + "/f"
                try Commands.demand("sh", ["-c", "umask 027; : >\(path)"])
                #expect(try Self.mode(path) == 0o640)
                let minimal = Self.list(
                    (1, 6, Self.nobody),
                    (4, 4, Self.nobody),
                    (32, 1, Self.nobody)
                )
                #expect(Self.set(path, Self.access, minimal) == EOPNOTSUPP)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
