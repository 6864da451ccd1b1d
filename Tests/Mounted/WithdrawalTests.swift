// A node whose view of the disk cannot be trusted goes; its programs get EIO, the others go on, and
// nothing that was made durable is lost (Docs/WITHDRAWAL.md).

import CLinux
import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct WithdrawalTests {
        /// From now on no write of the process succeeds: the limit of the size of its files is 0.
        private func failWrites(of process: pid_t) throws {
            try Commands.demand("prlimit", ["--pid", "\(process)", "--fsize=0"])
        }

        private func daemon(of node: TestNode, _ cluster: TestCluster) throws -> pid_t {
            let all = cluster.processes(of: node)
            guard let only = all.first, all.count == 1 else {
                throw Trouble("\(node.name) has \(all.count) daemons")
            }
            return only
        }

        private func code(_ body: () throws -> Void) -> Int32 {
            do {
                try body()
                return 0
            } catch let error as SystemFailure {
                return error.code
            } catch {
                Issue.record("\(error)")
                return -1
            }
        }

        /// What every call on a node must say, once the others could go on: names, attributes and
        /// pages that were cached are taken back before that, not before the first call that fails.
        private func expectEverythingFails(_ node: TestNode, _ wanted: Int32) {
            let results = [
                code { _ = try Files.status(node.root + "/durable") },
                code { _ = try Files.names(node.root) },
                code { try Files.write([1], to: node.root + "/new") },
                code { try check(mkdir(node.root + "/folder", 0o755)) },
                code { try check(unlink(node.root + "/durable")) },
                code { try check(rename(node.root + "/durable", node.root + "/moved")) },
            ]
            #expect(results.allSatisfy { $0 == wanted }, "\(results)")
        }

        /// What the others have: everything durable, and they can work where the other one did.
        private func expectOthersGoOn(_ cluster: TestCluster, but victim: TestNode) throws {
            for node in cluster.nodes where node.number != victim.number {
                #expect(
                    try Files.contents(node.root + "/durable")
                        == Pattern(seed: 7, count: 70_000).bytes
                )
                try Files.write([9], to: "\(node.root)/after.\(node.number)", sync: true)
                try check(
                    rename("\(node.root)/after.\(node.number)", "\(node.root)/late.\(node.number)")
                )
            }
            let others = cluster.nodes.filter { $0.number != victim.number }
            let told = try Commands.demand("lockstep", ["status", others[0].root]).output
            #expect(
                told.contains("node \(victim.number + 1) at \(victim.root) has WITHDRAWN"),
                "\(told)"
            )
            let json = try Commands.demand(
                "lockstep",
                ["status", "--json", "--run", cluster.runDirectory]
            ).output
            #expect(json.contains("\"withdrawn\": true, \"reason\": "), "\(json)")
        }

        /// One of three cannot write any more: its program is told so, what it had open and mapped
        /// says EIO, the others go on.
        @Test func aNodeThatCannotWriteWithdraws() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                let victim = cluster.nodes[1]
                let durable = Pattern(seed: 7, count: 70_000).bytes
                try Files.write(durable, to: victim.root + "/durable", sync: true)
                let handle = try Files.open(victim.root + "/durable", O_RDWR)
                defer { close(handle) }
                let mapping = try #require(mmap(nil, 70_000, PROT_READ, MAP_SHARED, handle, 0))
                defer { munmap(mapping, 70_000) }
                #expect(mapping.load(as: UInt8.self) == durable[0])
                try failWrites(of: try daemon(of: victim, cluster))
                let fresh = code { try Files.write([1], to: victim.root + "/lost", sync: true) }
                #expect(fresh == EIO)
                try expectOthersGoOn(cluster, but: victim)
                expectEverythingFails(victim, EIO)
                #expect(code { _ = try Files.contents(of: handle) } == EIO, "cached pages are gone")
                let refused = try Commands.run("lockstep", ["status", "--json", victim.root])
                #expect(
                    refused.exitCode != 0 && refused.complaint.contains("withdrawn"),
                    "\(refused)"
                )
                // It still says EIO until somebody unmounts it; then it is a node like any other.
                expectEverythingFails(victim, EIO)
                munmap(mapping, 70_000)
                close(handle)
                let freed = try Commands.run("umount.lockstep", [victim.root])
                #expect(freed.exitCode == 0 && !cluster.isMounted(victim), "\(freed)")
                try cluster.mount(victim)
                #expect(try Files.contents(victim.root + "/durable") == durable)
                #expect(try Files.names(victim.root).contains("late.2"))
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// A node that has to give a lock up and cannot write what it protects gives it up by going:
        /// the other gets what was durable.
        @Test func aNodeThatCannotWriteBackWithdraws() throws {
            let cluster = try TestCluster(nodes: 2)
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                let (victim, other) = (cluster.nodes[0], cluster.nodes[1])
                let durable = Pattern(seed: 7, count: 70_000).bytes
                try Files.write(durable, to: victim.root + "/durable", sync: true)
                try failWrites(of: try daemon(of: victim, cluster))
                try Files.withOpen(victim.root + "/durable", O_WRONLY) {
                    try Files.write([1, 2, 3], to: $0, at: 0)
                }
                #expect(try Files.contents(other.root + "/durable") == durable)
                try expectOthersGoOn(cluster, but: victim)
                expectEverythingFails(victim, EIO)
                try Commands.demand("fusermount3", ["-u", victim.root])
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Who reads a damaged inode withdraws; who does not goes on.
        @Test func aNodeThatReadsDamageWithdraws() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 240) {
                let victim = cluster.nodes[2]
                try cluster.mount(victim)
                try Files.write(
                    Pattern(seed: 7, count: 70_000).bytes,
                    to: victim.root + "/durable",
                    sync: true
                )
                try Files.write([1], to: victim.root + "/damaged")
                // An inode's number is the block that it lies in.
                let block = try Files.status(victim.root + "/damaged").inode
                try cluster.unmountAll()
                try cluster.mountAll()
                let nodes = cluster.nodes
                try Files.withOpen(cluster.image, O_RDWR) {
                    var byte: UInt8 = 0
                    try check(pread($0, &byte, 1, off_t(block) * 4096 + 100))
                    try Files.write([byte ^ 4], to: $0, at: Int(block) * 4096 + 100)
                }
                let shown = code { _ = try Files.status(victim.root + "/damaged") }
                #expect(shown == EIO)
                try expectOthersGoOn(cluster, but: victim)
                expectEverythingFails(victim, EIO)
                let told = try Commands.demand("lockstep", ["status", nodes[0].root]).output
                #expect(told.contains("block \(block)"), "\(told)")
                try Commands.demand("fusermount3", ["-u", victim.root])
                try cluster.unmountAll()
                let repaired = try Commands.run("fsck.lockstep", ["-y", "-f", cluster.image])
                #expect(repaired.exitCode == 1, "\(repaired)")
                try cluster.checkClean()
            }
        }

        /// With errors=panic the connection ends too.
        @Test func aPanicEndsTheConnection() throws {
            let cluster = try TestCluster(nodes: 2)
            try Watchdog.guarding(cluster, limit: 240) {
                let (victim, other) = (cluster.nodes[0], cluster.nodes[1])
                try cluster.mount(victim, options: ["errors=panic"])
                try cluster.mount(other)
                let durable = Pattern(seed: 7, count: 70_000).bytes
                try Files.write(durable, to: victim.root + "/durable", sync: true)
                try failWrites(of: try daemon(of: victim, cluster))
                let fresh = code { try Files.write([1], to: victim.root + "/lost", sync: true) }
                #expect([ENOTCONN, ECONNABORTED].contains(fresh), "\(fresh)")
                try expectOthersGoOn(cluster, but: victim)
                expectEverythingFails(victim, ENOTCONN)
                let freed = try Commands.run("umount.lockstep", [victim.root])
                #expect(freed.exitCode == 0 && !cluster.isMounted(victim), "\(freed)")
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
