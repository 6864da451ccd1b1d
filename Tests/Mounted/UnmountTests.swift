// umount.lockstep, and what happens to work that is under way when a mount ends.

import CLinux
import Glibc
import Synchronization
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct UnmountTests {
        private func withTwoNodes(_ body: (TestCluster) throws -> Void) throws {
            let cluster = try TestCluster(nodes: 2)
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                try body(cluster)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        private func complains(
            _ arguments: [String],
            code: Int32,
            _ words: String,
            sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            let result = try Commands.run("umount.lockstep", arguments)
            #expect(result.exitCode == code, "\(result)", sourceLocation: sourceLocation)
            #expect(
                result.complaint.contains(words)
                    && result.complaint.split(separator: "\n").count == 1,
                "\(result)",
                sourceLocation: sourceLocation
            )
        }

        @Test func theNodeIsGoneWhenTheCommandReturns() throws {
            try withTwoNodes { cluster in
                let node = cluster.nodes[0]
                let content = Pattern(seed: 5, count: 24 << 20).bytes
                try Files.write(content, to: node.root + "/large")
                let result = try Commands.demand("umount.lockstep", ["-v", node.root])
                #expect(result.complaint.contains("has left"), "\(result)")
                #expect(!cluster.isMounted(node))
                #expect(cluster.processes(of: node) == [])
                #expect(try Files.contents(cluster.nodes[1].root + "/large") == content)
                // Its slot is free at once.
                try cluster.mount(node, options: ["slot=0"])
            }
        }

        @Test func whatCannotBeUnmountedIsSaid() throws {
            try complains([], code: 1, "directory")
            try complains(["-x", "/"], code: 1, "-x")
            try complains(["--patience", "long", "/"], code: 1, "--patience")
            try complains(["/"], code: 32, "not on a mounted Lockstep volume")
            try complains(["/nothing/here"], code: 32, "No such file")
            try withTwoNodes { cluster in
                let node = cluster.nodes[0]
                try Files.withOpen(node.root + "/busy", O_RDWR | O_CREAT) { _ in
                    try complains([node.root], code: 32, "busy")
                    #expect(cluster.isMounted(node))
                    try complains(["-l", "--patience", "0", node.root], code: 32, "still")
                    #expect(!cluster.isMounted(node))
                }
                for process in cluster.processes(of: node) {
                    #expect(Commands.waitForEnd(of: process, limit: 30))
                }
            }
        }

        /// A daemon that dies instead of leaving is not reported as a success.
        @Test func aNodeThatDiesIsReported() throws {
            let cluster = try TestCluster(nodes: 1)
            try Watchdog.guarding(cluster, limit: 60) {
                try cluster.mountAll()
                let node = cluster.nodes[0]
                // Its connection is gone when it is closed.
                let busy = try check(lockstep_open(node.root + "/busy", O_RDWR | O_CREAT, 0o644))
                defer { close(busy) }
                let daemons = cluster.processes(of: node)
                try TestThread.together(2) { number in
                    if number == 0 {
                        try complains(["-l", node.root], code: 32, "did not leave in order")
                        return
                    }
                    // The directory is free before the daemon ends, which the open file prevents.
                    while try Files.device(node.root + "/..") != Files.device(node.root) {
                        sched_yield()
                    }
                    for process in daemons { kill(process, SIGKILL) }
                }
                try cluster.mount(node)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// What a node deleted while another had it open is freed although the node has left: by the
        /// coordinator, as soon as it is closed.
        @Test func whatWasDeletedIsFreedAfterItsNodeHasLeft() throws {
            let cluster = try TestCluster(nodes: 3)
            try Watchdog.guarding(cluster, limit: 90) {
                try cluster.mountAll()
                // The coordinator is the lowest member: first 0, then 1.
                let (coordinator, reader, leaver) = (
                    cluster.nodes[0], cluster.nodes[1], cluster.nodes[2]
                )
                func orphansFreed() throws -> Bool {
                    let status = try Commands.demand("lockstep", ["status", "--json", reader.root])
                    return status.output.contains("\"orphansFreed\": 1,")
                }
                let content = [UInt8](repeating: 7, count: 8 << 20)
                try Files.write(content, to: leaver.root + "/deleted")
                try Files.withOpen(reader.root + "/deleted", O_RDONLY) { descriptor in
                    try check(unlink(leaver.root + "/deleted"))
                    try Commands.demand("umount.lockstep", [leaver.root])
                    #expect(try Files.contents(of: descriptor) == content)
                    // Whoever comes after the coordinator takes the waiting over.
                    try Commands.demand("umount.lockstep", [coordinator.root])
                    #expect(try Files.contents(of: descriptor) == content)
                    #expect(try !orphansFreed())
                }
                while try !orphansFreed() { sched_yield() }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// A connection that is ended by force leaves caches behind that still serve whoever has a
        /// file open. They are empty before another node may change anything.
        @Test func aForcedEndLeavesNothingOldBehind() throws {
            try #require(geteuid() == 0, "only root can end a connection by force")
            let cluster = try TestCluster(nodes: 2)
            try Watchdog.guarding(cluster, limit: 60) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0], cluster.nodes[1])
                let old = [UInt8](repeating: 1, count: 8192)
                try Files.write(old, to: one.root + "/file")
                let reader = try check(lockstep_open(one.root + "/file", O_RDONLY, 0))
                defer { close(reader) }
                var bytes = [UInt8](repeating: 0, count: 8192)
                try check(pread(reader, &bytes, 8192, 0))
                #expect(bytes == old)
                let before = try cluster.requests(of: one)
                for _ in 0..<100 { try check(pread(reader, &bytes, 8192, 0)) }
                #expect(try cluster.requests(of: one) < before + 50, "it is cached")
                try Commands.demand("umount.lockstep", ["-f", "-l", one.root])
                try Files.write([UInt8](repeating: 2, count: 8192), to: two.root + "/file")
                #expect(pread(reader, &bytes, 8192, 0) < 0, "old bytes from a dead mount")
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// A guardian that is killed is replaced, so that a later death of the daemon is guarded.
        @Test func aGuardianThatEndsIsReplaced() throws {
            let cluster = try TestCluster(nodes: 2)
            try Watchdog.guarding(cluster, limit: 60) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0], cluster.nodes[1])
                try Files.write([1, 2, 3], to: one.root + "/file")
                let reader = try check(lockstep_open(one.root + "/file", O_RDONLY, 0))
                defer { close(reader) }
                var bytes: [UInt8] = [0, 0, 0]
                try check(pread(reader, &bytes, 3, 0))
                let first = cluster.guardians(of: one)
                #expect(first.count == 1)
                for process in first { kill(process, SIGKILL) }
                let deadline = monotonicSeconds() + 30
                // One look each time: between two the old one ends, and none would pass for a new.
                while case let now = cluster.guardians(of: one), now.isEmpty || now == first {
                    guard monotonicSeconds() < deadline else { throw Trouble("no new guardian") }
                    sched_yield()
                }
                for process in cluster.processes(of: one) { kill(process, SIGKILL) }
                // Granted only after the new guardian has taken back what node 1's kernel had.
                try Files.write([4, 5, 6], to: two.root + "/file")
                #expect(pread(reader, &bytes, 3, 0) < 0, "old bytes from a dead mount")
                try Commands.demand("fusermount3", ["-u", "-z", one.root])
                try cluster.mount(one)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// SIGTERM makes durable what was changed even while somebody keeps the mount busy, and a
        /// second one does no harm to what lies at the directory by then.
        @Test func aBusyNodeThatIsStoppedLosesNothing() throws {
            let cluster = try TestCluster(nodes: 1)
            try Watchdog.guarding(cluster, limit: 60) {
                try cluster.mountAll()
                let node = cluster.nodes[0]
                let busy = try check(lockstep_open(node.root + "/busy", O_RDWR | O_CREAT, 0o644))
                let daemons = cluster.processes(of: node)
                for process in daemons { kill(process, SIGTERM) }
                while try Files.device(node.root + "/..") != Files.device(node.root) {
                    sched_yield()
                }
                let content = [UInt8](repeating: 9, count: 100_000)
                try Files.write(content, to: busy, at: 0)
                try Commands.demand("mount", ["-t", "tmpfs", "none", node.root])
                defer { _ = try? Commands.run("umount", [node.root]) }
                for process in daemons { kill(process, SIGTERM) }
                try check(fsync(busy))
                try Files.write([1], to: node.root + "/on-top")
                for process in daemons { kill(process, SIGKILL) }
                close(busy)
                for process in daemons {
                    #expect(Commands.waitForEnd(of: process, limit: 30))
                }
                try Commands.demand("umount", [node.root])
                try cluster.mount(node)
                #expect(try Files.contents(node.root + "/busy") == content)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Writers, makers and removers that are at work on all nodes when one node's connection is
        /// ended by force: what they had begun is carried out or not, never half; others go on.
        @Test func requestsUnderWayAreSettledBeforeTheNodeLeaves() throws {
            try #require(geteuid() == 0, "only root can end a connection by force")
            for round in 0..<6 {
                let cluster = try TestCluster(nodes: 2, size: "128M")
                try Watchdog.guarding(cluster, limit: 60) {
                    try cluster.mountAll()
                    try check(mkdir(cluster.nodes[0].root + "/dir", 0o755))
                    let nodes = cluster.nodes
                    let steps = StepCounter()
                    try TestThread.together(5) { number in
                        if number == 4 {
                            // In the midst of it, at another point each time.
                            while steps.count < 40 + round * 30 { sched_yield() }
                            try Commands.demand("umount.lockstep", ["-f", "-l", nodes[0].root])
                            return
                        }
                        // Until its node is gone; on the other node to the end.
                        for step in 0..<400 {
                            let path = "\(nodes[number % 2].root)/dir/\(number).\(step % 7)"
                            do {
                                let content = [UInt8](repeating: UInt8(step & 255), count: 9000)
                                try Files.write(content, to: path)
                                if step % 3 == 0 { try check(unlink(path)) }
                            } catch  where number % 2 == 0 {
                                return
                            }
                            steps.add()
                        }
                    }
                    #expect(cluster.processes(of: cluster.nodes[0]) == [])
                    for name in try Files.names(cluster.nodes[1].root + "/dir") {
                        _ = try Files.contents("\(cluster.nodes[1].root)/dir/\(name)")
                    }
                    try cluster.unmountAll()
                    try cluster.checkClean()
                }
            }
        }
    }
}

/// Counts on any thread.
private final class StepCounter: Sendable {
    private let value = Atomic(0)

    func add() { value.add(1, ordering: .relaxed) }

    var count: Int { value.load(ordering: .relaxed) }
}
