// `lockstep freeze` and `lockstep thaw` on real mounts.

import CLinux
import Glibc
import Synchronization
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct FreezeTests {
        private func lockstep(_ arguments: String...) throws -> CommandResult {
            try Commands.run("lockstep", arguments, limit: 60)
        }

        private func demand(_ arguments: String...) throws {
            try Commands.demand("lockstep", arguments, limit: 60)
        }

        /// The member `freeze` of what a node says of itself.
        private func freeze(_ node: TestNode) throws -> JSONText {
            let text = try Commands.demand("lockstep", ["status", "--json", node.root]).output
            guard let freeze = try JSONText(parsing: text)["freeze"] else {
                throw Trouble("'lockstep status --json' tells nothing of a freeze: \(text)")
            }
            return freeze
        }

        /// What is on the device now.
        private func copy(_ cluster: TestCluster, _ name: String) throws -> String {
            let path = "\(cluster.folder)/\(name)"
            try Commands.demand("cp", ["--sparse=always", cluster.image, path])
            return path
        }

        private func areSame(_ one: String, _ other: String) throws -> Bool {
            try Commands.run("cmp", [one, other], limit: 120).exitCode == 0
        }

        /// Works on a file of its own until it is told to end, and counts what it has done.
        private final class Writer: Sendable {
            let path: String
            let done = Atomic(0)
            let mayEnd = Atomic(false)
            let failure = Mutex<(any Error)?>(nil)

            init(_ path: String) { self.path = path }

            static let record = 8192

            func work() {
                do {
                    try Files.withOpen(path, O_RDWR | O_CREAT) { descriptor in
                        while !mayEnd.load(ordering: .acquiring) {
                            let number = done.load(ordering: .relaxed)
                            let bytes = [UInt8](repeating: UInt8(number % 251), count: Self.record)
                            try Files.write(bytes, to: descriptor, at: number % 64 * Self.record)
                            if number % 8 == 0 {
                                try Files.write(bytes, to: "\(path).\(number % 64)")
                            }
                            if number % 16 == 5 { _ = unlink("\(path).\((number - 5) % 64)") }
                            done.store(number + 1, ordering: .releasing)
                        }
                    }
                } catch {
                    failure.withLock { $0 = error }
                }
            }

            /// Waits until it has done so much.
            func wait(for count: Int) throws {
                while done.load(ordering: .acquiring) < count {
                    if let failure = failure.withLock({ $0 }) { throw failure }
                    sched_yield()
                }
            }
        }

        /// Writers on all nodes and a mapping; a copy that is taken meanwhile is a sound volume with all that
        /// was written, and mounts elsewhere. Then all go on.
        @Test func aCopyOfAFrozenVolumeIsSound() throws {
            let cluster = try TestCluster(nodes: 3, size: "256M")
            try Watchdog.guarding(cluster, limit: 300) {
                try cluster.mountAll()
                for node in cluster.nodes {
                    try check(mkdir("\(node.root)/d\(node.number)", 0o755))
                }
                let writers = cluster.nodes.map { Writer("\($0.root)/d\($0.number)/w") }
                let threads = writers.map { writer in TestThread { writer.work() } }
                defer { for writer in writers { writer.mayEnd.store(true, ordering: .releasing) } }
                for writer in writers { try writer.wait(for: 20) }
                let mapped = cluster.nodes[1].root + "/mapped"
                try Files.write([UInt8](repeating: 1, count: 8192), to: mapped)
                let descriptor = try Files.open(mapped, O_RDWR)
                let map = mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
                guard let map, map != MAP_FAILED else { throw SystemFailure(errno) }
                map.storeBytes(of: 77, toByteOffset: 5000, as: UInt8.self)

                try demand("freeze", cluster.nodes[0].root)
                let first = try copy(cluster, "copy1")
                let counts = writers.map { $0.done.load(ordering: .acquiring) }
                try lookWhileFrozen(cluster, mapped)
                let second = try copy(cluster, "copy2")
                #expect(try areSame(first, second), "something was written while frozen")
                for (writer, count) in zip(writers, counts) {
                    // One may have been done and not counted yet.
                    #expect(writer.done.load(ordering: .acquiring) <= count + 1)
                }
                try checkCopy(cluster, first)

                try demand("thaw", cluster.nodes[2].root)
                for (writer, count) in zip(writers, counts) { try writer.wait(for: count + 40) }
                for writer in writers { writer.mayEnd.store(true, ordering: .releasing) }
                for thread in threads { thread.join() }
                for writer in writers {
                    if let error = writer.failure.withLock({ $0 }) { throw error }
                }
                try check(munmap(map, 8192))
                close(descriptor)
                try compareRecords(cluster, writers)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// All nodes read, and say that the volume is frozen.
        private func lookWhileFrozen(_ cluster: TestCluster, _ mapped: String) throws {
            let name = mapped.split(separator: "/").last.map(String.init) ?? ""
            for node in cluster.nodes {
                _ = try Files.status(node.root)
                #expect(try Files.status(node.root + "/" + name).size == 8192)
                // Elsewhere than where it is mapped: what is stored now stays there.
                #expect(try Files.contents(node.root + "/" + name)[5000] == 77)
                let freeze = try freeze(node)
                #expect(freeze.string("phase") == "quiet" && freeze.number("by") == 1, "\(freeze)")
                let status = try lockstep("status", node.root)
                #expect(status.output.contains("FROZEN by node 1 since 2"), "\(status)")
            }
            let again = try lockstep("freeze", cluster.nodes[1].root)
            #expect(again.exitCode == 1 && again.complaint.contains("EBUSY"), "\(again)")
            #expect(again.complaint.contains("frozen already") && again.complaint.contains("by n1"))
        }

        private func checkCopy(_ cluster: TestCluster, _ copy: String) throws {
            let slots = try Commands.demand("lockstep", ["inspect", copy, "slots"]).output
            #expect(!slots.contains("unclean"), "\(slots)")
            let check = try Commands.run("fsck.lockstep", ["-n", "-f", copy], limit: 120)
            #expect(check.exitCode == 0, "\(check)")
            let root = cluster.folder + "/elsewhere"
            mkdir(root, 0o755)
            mkdir(cluster.folder + "/run2", 0o700)
            let options = "run=\(cluster.folder)/run2,takeover"
            try Commands.demand("mount.lockstep", [copy, root, "-o", options])
            defer { _ = try? Commands.run("umount.lockstep", [root]) }
            let status = try JSONText(
                parsing: try Commands.demand("lockstep", ["status", "--json", root]).output
            )
            #expect(status.list("recoveries").allSatisfy { $0.number("transactions") == 0 })
            #expect(try Files.contents(root + "/mapped")[5000] == 77)
            try Files.write([1, 2, 3], to: root + "/new")
            #expect(try Files.contents(root + "/new") == [1, 2, 3])
        }

        /// What was written is what every node reads.
        private func compareRecords(_ cluster: TestCluster, _ writers: [Writer]) throws {
            for (number, writer) in writers.enumerated() {
                let count = writer.done.load(ordering: .acquiring)
                for node in cluster.nodes {
                    let bytes = try Files.contents("\(node.root)/d\(number)/w")
                    for last in max(0, count - 64)..<count {
                        let place = last % 64 * Writer.record
                        #expect(bytes[place] == UInt8(last % 251), "\(node.name), w\(number)")
                    }
                }
            }
        }

        /// The node that froze the volume is killed: it stays frozen, nothing is written to recover it, nobody
        /// mounts, and another node thaws.
        @Test func theDeathOfWhoFrozeThawsNothing() throws {
            let cluster = try TestCluster(nodes: 3, size: "128M")
            try Watchdog.guarding(cluster, limit: 180) {
                try cluster.mountAll()
                let (one, two, three) = (cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])
                for node in cluster.nodes {
                    try Files.write([1], to: node.root + "/of\(node.number)")
                }
                // Who waits to make a name keeps its directory from being looked through (Docs/FREEZING.md).
                try check(mkdir(two.root + "/later", 0o755))
                try demand("freeze", one.root)
                let before = try copy(cluster, "before")
                try cluster.kill(one)
                let writer = Writer(two.root + "/later/file")
                let thread = TestThread { writer.work() }
                defer { writer.mayEnd.store(true, ordering: .releasing) }
                try waitForViews(of: [two, three], members: 2)
                for node in [two, three] {
                    #expect(try freeze(node).string("phase") == "quiet")
                    #expect(try Files.contents(node.root + "/of0") == [1])
                }
                let refused = try Commands.run(
                    "mount.lockstep",
                    cluster.mountArguments(one),
                    limit: 60
                )
                #expect(refused.exitCode == 32 && refused.complaint.contains("is frozen by n1"))
                #expect(refused.complaint.split(separator: "\n").count == 1, "\(refused)")
                #expect(try areSame(before, try copy(cluster, "after")))
                #expect(writer.done.load(ordering: .acquiring) == 0)
                try demand("thaw", three.root)
                try writer.wait(for: 10)
                writer.mayEnd.store(true, ordering: .releasing)
                thread.join()
                try cluster.mount(one)
                #expect(try Files.contents(one.root + "/of1") == [1])
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        private func waitForViews(of nodes: [TestNode], members: Int) throws {
            for node in nodes {
                while true {
                    let text = try Commands.demand("lockstep", ["status", "--json", node.root])
                    let status = try JSONText(parsing: text.output)
                    if status.list("members").count == members { break }
                }
            }
        }

        /// It thaws by itself in time, and a thaw of what is not frozen is an error.
        @Test func itThawsByItself() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let root = cluster.nodes[1].root
                let unfrozen = try lockstep("thaw", root)
                #expect(unfrozen.exitCode == 1 && unfrozen.complaint.contains("not frozen"))
                try Files.write([1], to: root + "/file")
                try demand("freeze", "--timeout", "2", cluster.nodes[0].root)
                let status = try lockstep("status", root)
                #expect(status.output.contains("for 2 s at most"), "\(status)")
                // Waits until then.
                try Files.write([2], to: root + "/file")
                #expect(try freeze(cluster.nodes[1]).string("phase") == "running")
                #expect(try Files.contents(cluster.nodes[0].root + "/file") == [2])
                // And can be frozen again.
                try demand("freeze", root)
                try demand("thaw", cluster.nodes[0].root)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// A node leaves a frozen volume in order, and writes nothing for it; who waits can be killed.
        @Test func aNodeLeavesAFrozenVolume() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0], cluster.nodes[1])
                try Files.write([1], to: one.root + "/file")
                try demand("freeze", one.root)
                let before = try copy(cluster, "before")
                // Ends by SIGKILL while it waits (KERNEL D7), and its directory can be read again.
                let waiting = try Commands.run(
                    "timeout",
                    ["-s", "KILL", "1", "touch", two.root + "/new"]
                )
                #expect(waiting.exitCode == 137, "\(waiting)")
                #expect(try Files.names(two.root) == ["file"])
                try cluster.unmount(one)
                #expect(try areSame(before, try copy(cluster, "after")))
                #expect(try freeze(two).string("phase") == "quiet")
                try demand("thaw", two.root)
                try cluster.mount(one)
                try Files.write([3], to: two.root + "/file")
                #expect(try Files.contents(one.root + "/file") == [3])
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
