// The ends of what fits: names, space, sizes, links.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct LimitTests {
        /// The errno that `body` fails with; 0 when it does not.
        private func code(_ body: () throws -> Void) throws -> Int32 {
            do {
                try body()
                return 0
            } catch let failure as SystemFailure {
                return failure.code
            }
        }

        @Test func namesMayHave255Bytes() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                let longest = String(repeating: "n", count: 253) + "ä"
                #expect(longest.utf8.count == 255)
                try Files.write([1], to: "\(one)/\(longest)")
                #expect(try Files.contents("\(two)/\(longest)") == [1])
                #expect(try Files.names(two) == [longest])
                let tooLong = "\(one)/\(longest)x"
                #expect(try code { try Files.write([1], to: tooLong) } == ENAMETOOLONG)
                #expect(try code { try check(mkdir(tooLong, 0o755)) } == ENAMETOOLONG)
                #expect(
                    try code { try check(rename("\(one)/\(longest)", tooLong)) } == ENAMETOOLONG
                )
                #expect(try code { try check(symlink("x", tooLong)) } == ENAMETOOLONG)
                // A target of 4095 bytes is the kernel's own limit.
                let target = String(repeating: "t", count: 4_095)
                try check(symlink(target, one + "/link"))
                #expect(try Files.linkTarget(two + "/link") == target)
                // Bytes that are no UTF-8 are a name like any other.
                let strange: [CChar] = one.utf8CString.dropLast() + [47, -1, -2, 10, 0]
                #expect(mkdir(strange, 0o755) == 0)
                #expect(rmdir(two.utf8CString.dropLast() + [47, -1, -2, 10, 0]) == 0)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Full, then emptied by another node, then usable again.
        @Test func aFullVolumeSaysSoAndRecovers() throws {
            let cluster = try TestCluster(nodes: 2, size: "96M", format: ["-J", "8"])
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0], cluster.nodes[1])
                let data = Pattern(seed: 3, count: 1 << 20).bytes
                var written = 0
                let full = try code {
                    while written < 500 {
                        let path = "\(one.root)/file\(written)"
                        try Files.withOpen(path, O_WRONLY | O_CREAT) {
                            try Files.write(data, to: $0, at: 0)
                            try check(fsync($0))
                        }
                        written += 1
                    }
                }
                #expect(full == ENOSPC)
                #expect(written > 20, "only \(written) MiB fitted into 96")
                // What was written before is whole, everywhere; and reading needs no space.
                for number in 0..<written {
                    #expect(try Files.contents("\(two.root)/file\(number)") == data)
                }
                for number in 0..<written { try check(unlink("\(two.root)/file\(number)")) }
                for node in [one, two] {
                    try Files.write(data, to: "\(node.root)/again\(node.number)", sync: true)
                }
                #expect(try Files.contents("\(one.root)/again1") == data)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func callsFailAsLinuxSays() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                try check(mkdir(one + "/dir", 0o755))
                try Files.write([1], to: one + "/dir/file")
                try check(symlink("loop", one + "/loop"))
                #expect(try code { try check(rmdir(two + "/dir")) } == ENOTEMPTY)
                #expect(try code { try check(rmdir(two + "/dir/file")) } == ENOTDIR)
                #expect(try code { try check(unlink(two + "/dir")) } == EISDIR)
                #expect(try code { try check(mkdir(two + "/dir", 0o755)) } == EEXIST)
                #expect(try code { try check(link(two + "/dir", two + "/new")) } == EPERM)
                #expect(try code { try check(rename(two + "/dir", two + "/dir/x")) } == EINVAL)
                #expect(try code { try check(rename(two + "/none", two + "/x")) } == ENOENT)
                #expect(try code { _ = try Files.contents(two + "/dir/file/x") } == ENOTDIR)
                #expect(try code { _ = try Files.open(two + "/loop", O_RDONLY) } == ELOOP)
                #expect(
                    try code { _ = try Files.attribute("user.none", of: two + "/dir") } == ENODATA
                )
                #expect(
                    try code { try check(setxattr(two + "/dir", "user.a", [1], 1, 2)) } == ENODATA
                )
                let huge = [UInt8](repeating: 1, count: 70_000)
                let code = try code {
                    try check(setxattr(two + "/dir", "user.a", huge, huge.count, 0))
                }
                #expect([E2BIG, ENOSPC, ERANGE].contains(code))
                try Files.withOpen(two + "/dir/file", O_RDWR) { descriptor in
                    // A file of a tebibyte that is nearly all hole; and what no file can be.
                    try Files.write([5], to: descriptor, at: 1 << 40)
                    #expect(try Files.status(one + "/dir/file").size == 1 << 40 | 1)
                    try check(ftruncate(descriptor, 1))
                    #expect(try Files.contents(one + "/dir/file") == [1])
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// What hard links, and many entries, do to counts and to the listing.
        @Test func manyNames() throws {
            let cluster = try TestCluster(nodes: 2, size: "256M")
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root, cluster.nodes[1].root)
                try check(mkdir(one + "/dir", 0o755))
                try Files.write([1], to: one + "/file")
                let count = 2_000
                for number in 0..<count { try check(link(one + "/file", "\(one)/dir/\(number)")) }
                #expect(try Files.status(two + "/file").links == count + 1)
                let names = (0..<count).map { "\($0)" }.sorted()
                #expect(try Files.names(two + "/dir") == names)
                for number in stride(from: 0, to: count, by: 2) {
                    try check(unlink("\(two)/dir/\(number)"))
                }
                #expect(try Files.status(one + "/file").links == count / 2 + 1)
                #expect(try Files.names(one + "/dir") == names.filter { (Int($0) ?? 0) % 2 == 1 })
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
