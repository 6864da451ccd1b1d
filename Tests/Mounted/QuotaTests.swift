// Quotas on real mounts: usage as du(1) counts it, limits of two nodes, owners, and what the dead leave.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct QuotaTests {
        private static let mebibyte = 1 << 20

        private func onCluster(_ body: (TestCluster, [String]) throws -> Void) throws {
            let cluster = try TestCluster(nodes: 2, size: "128M", format: ["-O", "quota"])
            try Watchdog.guarding(cluster, limit: 240) {
                // Others than root come here.
                try check(chmod(cluster.folder, 0o755))
                try cluster.mountAll()
                try check(chmod(cluster.nodes[0].root, 0o777))
                try body(cluster, cluster.nodes.map(\.root))
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Runs a line of shell as some user; its result.
        private func run(as user: Int, _ line: String) throws -> CommandResult {
            let identity = ["--reuid", "\(user)", "--regid", "\(user)", "--clear-groups"]
            return try Commands.run("setpriv", identity + ["sh", "-c", line])
        }

        private func report(_ root: String) throws -> JSONText {
            let text = try Commands.demand("lockstep", ["quota", "report", "--json", root]).output
            return try JSONText(parsing: text)
        }

        private func usage(
            _ root: String,
            _ kind: String,
            _ identity: UInt64
        ) throws -> (bytes: Int, inodes: Int) {
            let found = try report(root).list("principals").first {
                $0.string("kind") == kind && $0.number("id") == identity
            }
            return (Int(found?.number("bytes") ?? 0), Int(found?.number("inodes") ?? 0))
        }

        private func limit(_ root: String, _ words: String...) throws {
            try Commands.demand("lockstep", ["quota", "set", root] + words)
        }

        /// Bytes that files of a user have on a mount, by the shell's tools.
        private func counted(_ root: String, _ user: Int) throws -> Int {
            let line =
                "find \(root) -user \(user) -printf '%i %b\\n' | sort -u | awk '{s += $2} END {print s * 512}'"
            let text = try Commands.demand("sh", ["-c", line]).output
            return Int(text.filter(\.isNumber)) ?? -1
        }

        @Test func usageIsWhatTheFilesHave() throws {
            try onCluster { _, roots in
                let line = """
                    mkdir d && cd d && for i in 1 2 3 4 5 6 7 8 9; do mkdir s$i; \
                    dd if=/dev/zero of=s$i/f bs=1000 count=$((i * i * 9)) 2>/dev/null; ln -s s$i/f l$i; done; \
                    ln s1/f hard; truncate -s 100M sparse; rm -r s4
                    """
                for (index, root) in roots.enumerated() {
                    let result = try run(
                        as: 1000 + index,
                        "cd \(root) && mkdir -p u\(index) && cd u\(index) && " + line
                    )
                    #expect(result.succeeded, "\(result)")
                }
                for root in roots {
                    for user in [1000, 1001] {
                        let told = try usage(root, "user", UInt64(user))
                        #expect(told.bytes == (try counted(root, user)))
                        #expect(told.inodes == 2 + 8 + 8 + 9 + 1)
                        #expect(try usage(root, "group", UInt64(user)) == told)
                    }
                }
                // chown on the other node takes it all along.
                let moved = try usage(roots[0], "user", 1001)
                try Commands.demand("chown", ["-hR", "1002", roots[0] + "/u1"])
                #expect(try usage(roots[1], "user", 1001) == (0, 0))
                #expect(try usage(roots[1], "user", 1002) == moved)
                #expect(try usage(roots[1], "group", 1001) == moved)
                let table = try Commands.demand("lockstep", ["quota", roots[0]]).output
                #expect(table.contains("user 1002"))
            }
        }

        /// Both nodes write for one user at the same time until they are told that it is enough.
        @Test func twoNodesFillToOneLimit() throws {
            try onCluster { _, roots in
                let hard = 20 * Self.mebibyte
                try limit(roots[0], "--user", "1000", "--bytes", "\(hard)", "--inodes", "0:50")
                let commands =
                    "printf '%s\\n' \(roots[0])/f0 \(roots[1])/f1 | xargs -P 2 -I FILE "
                    + "sh -c 'dd if=/dev/zero of=FILE bs=64k count=640 2>/dev/null; true'"
                let result = try run(as: 1000, commands)
                #expect(result.succeeded, "\(result)")
                for root in roots {
                    let used = try usage(root, "user", 1000)
                    #expect(used.bytes <= hard, "passed: \(used)")
                    #expect(used.bytes > hard - 16 * 4096, "refused early: \(used)")
                    #expect(used.bytes == (try counted(root, 1000)))
                }
                let refused = try run(as: 1000, "dd if=/dev/zero of=\(roots[0])/g bs=1M count=1")
                #expect(
                    !refused.succeeded && refused.complaint.contains("quota exceeded"),
                    "\(refused)"
                )
                // The superuser may, whosever the file is.
                try Commands.demand(
                    "dd",
                    [
                        "if=/dev/zero", "of=\(roots[1])/f0", "bs=1M", "count=2", "oflag=append",
                        "conv=notrunc",
                    ]
                )
                #expect(try usage(roots[0], "user", 1000).bytes > hard)
                // What is deleted on one node is room for the other, as soon as nobody has it open.
                let held = try Files.open(roots[1] + "/f0", O_RDONLY)
                try check(unlink(roots[0] + "/f0"))
                #expect(try usage(roots[0], "user", 1000).bytes > hard)
                close(held)
                try waitUntil(limit: 20, "what is deleted is given back") {
                    try self.usage(roots[0], "user", 1000).bytes < hard
                }
                let again = try run(as: 1000, "dd if=/dev/zero of=\(roots[1])/g bs=1M count=1")
                #expect(again.succeeded, "\(again)")
            }
        }

        /// What a node had written and not synchronised is gone with it, and so is what it had charged for that.
        @Test func theDeadAreCountedRight() throws {
            try onCluster { cluster, roots in
                try limit(roots[0], "--user", "1000", "--bytes", "10M:40M")
                let made = try run(
                    as: 1000,
                    "dd if=/dev/zero of=\(roots[0])/kept bs=1M count=5 conv=fsync && "
                        + "dd if=/dev/zero of=\(roots[1])/other bs=1M count=3"
                )
                #expect(made.succeeded, "\(made)")
                _ = try run(as: 1000, "dd if=/dev/zero of=\(roots[0])/lost bs=1M count=20")
                try cluster.kill(cluster.nodes[0])
                try waitUntil(limit: 30, "the survivor counts") {
                    let used = try self.usage(roots[1], "user", 1000).bytes
                    return used == (try self.counted(roots[1], 1000))
                }
                #expect(try usage(roots[1], "user", 1000).bytes >= 8 * Self.mebibyte)
                let rest = try run(as: 1000, "dd if=/dev/zero of=\(roots[1])/rest bs=1M count=60")
                #expect(!rest.succeeded)
                let used = try usage(roots[1], "user", 1000).bytes
                #expect(used <= 40 * Self.mebibyte && used > 39 * Self.mebibyte, "\(used)")
                #expect(used == (try counted(roots[1], 1000)))
            }
        }

        @Test func whatIsAskedWronglyIsRefused() throws {
            try onCluster { cluster, roots in
                for words in [
                    ["--user", "0", "--bytes", "5"], ["--user", "5", "--bytes", "7M:5M"],
                    ["--user", "5", "--bytes", "much"], ["--user", "no-such-user", "--bytes", "5"],
                ] {
                    let result = try Commands.run("lockstep", ["quota", "set", roots[0]] + words)
                    #expect(!result.succeeded && !result.complaint.isEmpty, "\(words): \(result)")
                }
                let shown = try Commands.run("lockstep", ["inspect", cluster.image, "quotas"])
                #expect(shown.output.contains("user 0"), "\(shown)")
            }
            let plain = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(plain, limit: 60) {
                try plain.mountAll()
                let result = try Commands.run("lockstep", ["quota", plain.nodes[0].root])
                #expect(!result.succeeded && result.complaint.contains("-O quota"), "\(result)")
                try plain.unmountAll()
            }
        }
    }
}
