// flock(2) on several nodes at once.

import CLinux
import Glibc
import Synchronization
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct FlockTests {
        /// What flock says; 0 when it has the lock.
        private static func lock(_ descriptor: Int32, _ operation: Int32) -> Int32 {
            flock(descriptor, operation) == 0 ? 0 : errno
        }

        private static func count(_ path: String) throws {
            try Files.withOpen(path, O_RDWR) { file in
                try check(flock(file, LOCK_EX))
                var number: UInt64 = 0
                let size = MemoryLayout<UInt64>.size
                guard pread(file, &number, size, 0) == size else { throw SystemFailure(errno) }
                number += 1
                guard pwrite(file, &number, size, 0) == size else { throw SystemFailure(errno) }
            }
        }

        @Test func modesAcrossNodes() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([], to: paths[0])
                try Files.withOpen(paths[0], O_RDONLY) { one in
                    try Files.withOpen(paths[1], O_RDONLY) { two in
                        let (alone, shared) = (LOCK_EX | LOCK_NB, LOCK_SH | LOCK_NB)
                        #expect(Self.lock(one, alone) == 0)
                        #expect(Self.lock(two, alone) == EWOULDBLOCK)
                        #expect(Self.lock(two, shared) == EWOULDBLOCK)
                        #expect(Self.lock(one, shared) == 0)
                        #expect(Self.lock(two, shared) == 0)
                        // Who cannot have the stronger one at once has lost the weaker.
                        #expect(Self.lock(two, alone) == EWOULDBLOCK)
                        #expect(Self.lock(one, alone) == 0)
                        #expect(Self.lock(one, LOCK_UN) == 0)
                        #expect(Self.lock(one, LOCK_UN) == 0)
                        #expect(Self.lock(two, alone) == 0)
                        // Another open file of the same node is somebody else; a duplicate is not.
                        try Files.withOpen(paths[1], O_RDWR) { other in
                            #expect(Self.lock(other, shared) == EWOULDBLOCK)
                        }
                        let copy = try check(dup(two))
                        #expect(Self.lock(copy, alone) == 0)
                        close(copy)
                        #expect(Self.lock(one, shared) == EWOULDBLOCK)
                    }
                    // Closed, it is free; the kernel says so a moment later.
                    #expect(Self.lock(one, LOCK_EX) == 0)
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Who waits is given the lock of a process, and of a node, that is killed.
        @Test func theDeadHoldNothing() throws {
            let cluster = try TestCluster(nodes: 3, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([], to: paths[0])
                let (one, two) = (
                    try Files.open(paths[0], O_RDONLY), try Files.open(paths[1], O_RDONLY)
                )
                defer { close(one) }
                #expect(Self.lock(two, LOCK_EX) == 0)
                #expect(Self.lock(one, LOCK_EX | LOCK_NB) == EWOULDBLOCK)
                try cluster.kill(cluster.nodes[1])
                #expect(Self.lock(one, LOCK_EX) == 0)
                close(two)
                #expect(Self.lock(one, LOCK_UN) == 0)
                // A process that does nothing but hold it, until it is killed.
                let third = paths[2]
                let script = """
                    (exec 9<\(third); flock 9; exec sleep 600) & holder=$!
                    while flock -n \(third) true; do :; done
                    kill -KILL $holder
                    exec flock -w 20 \(third) true
                    """
                let result = try Commands.run("sh", ["-c", script])
                #expect(result.succeeded, "\(result)")
                // The kernel tells us of the end of an open file when its process may be gone already.
                #expect(Self.lock(one, LOCK_EX) == 0)
                // Who waits is told why, and can be killed.
                let waiting = """
                    flock \(third) true & waiter=$!
                    until \(Commands.folder)/lockstep locks --waiting --type flock \(third) | grep -q flock; do :; done
                    \(Commands.folder)/lockstep locks --why \(third)
                    kill -KILL $waiter
                    wait $waiter
                    """
                let killed = try Commands.run("sh", ["-c", waiting])
                #expect(killed.exitCode == 128 + SIGKILL, "\(killed)")
                #expect(killed.output.contains("in EX\n  n1 holds EX since"), "\(killed)")
                #expect(Self.lock(one, LOCK_UN) == 0)
            }
        }

        /// A number that everybody adds to while he has the lock.
        @Test func aCounterIsExact() throws {
            let cluster = try TestCluster(nodes: 3, size: "64M")
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/count" }
                try Files.write([UInt8](repeating: 0, count: 8), to: paths[0])
                let rounds = 150
                let failures = Mutex<[String]>([])
                let threads = (paths + paths).map { path in
                    TestThread {
                        do {
                            for _ in 0..<rounds { try Self.count(path) }
                        } catch {
                            failures.withLock { $0.append("\(path): \(error)") }
                        }
                    }
                }
                for thread in threads { thread.join() }
                #expect(failures.withLock { $0 } == [])
                let bytes = try Files.contents(paths[1])
                let number = bytes.reversed().reduce(0) { $0 << 8 | Int($1) }
                #expect(number == 6 * rounds)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
