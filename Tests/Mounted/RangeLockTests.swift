// fcntl(2) on several nodes at once: as open file descriptions (F_OFD_*) and as processes. A thread that has
// unshared its descriptors is a process for the kernel as far as locks go.

import CLinux
import Glibc
import Synchronization
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct RangeLockTests {
        private struct Found: Equatable {
            var type: Int32
            var start: Int
            var length: Int
            var process: Int32

            static func lock(_ type: Int32, _ start: Int, _ length: Int) -> Found {
                // A description has no process.
                Found(type: type, start: start, length: length, process: -1)
            }
        }

        private static func wish(_ type: Int32, _ start: Int, _ length: Int) -> flock {
            var wish = flock()
            wish.l_type = Int16(type)
            wish.l_whence = Int16(SEEK_SET)
            wish.l_start = start
            wish.l_len = length
            return wish
        }

        /// Locks as an open file description; 0 or errno.
        private static func lock(
            _ file: Int32,
            _ type: Int32,
            _ start: Int,
            _ length: Int,
            _ command: Int32 = lockstep_f_ofd_setlk
        ) -> Int32 {
            var wish = wish(type, start, length)
            return fcntl(file, command, &wish) == 0 ? 0 : errno
        }

        private static func ask(
            _ file: Int32,
            _ type: Int32,
            _ start: Int,
            _ length: Int,
            _ command: Int32 = lockstep_f_ofd_getlk
        ) throws -> Found {
            var wish = wish(type, start, length)
            try check(fcntl(file, command, &wish))
            return Found(
                type: Int32(wish.l_type),
                start: wish.l_start,
                length: wish.l_len,
                process: wish.l_pid
            )
        }

        /// Runs `body` as another process would: with descriptors, and so locks, of its own.
        private static func asProcess(_ body: @escaping @Sendable () throws -> Void) -> TestThread {
            TestThread {
                do {
                    try check(lockstep_unshare_descriptors())
                    try body()
                } catch {
                    Issue.record("\(error)")
                }
            }
        }

        private static let (read, write, none) = (Int32(F_RDLCK), Int32(F_WRLCK), Int32(F_UNLCK))

        @Test func piecesAcrossNodes() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([], to: paths[0])
                try Files.withOpen(paths[0], O_RDWR) { one in
                    // Of another node, and of the same.
                    for other in [paths[1], paths[0]] {
                        try Files.withOpen(other, O_RDWR) { two in try Self.pieces(one, two) }
                    }
                }
                // The end of a description ends its locks.
                let one = try Files.open(paths[0], O_RDWR)
                try Files.withOpen(paths[1], O_RDWR) { two in
                    #expect(Self.lock(one, Self.write, 0, 0) == 0)
                    #expect(Self.lock(two, Self.read, 1000, 1) == EAGAIN)
                    let copy = try check(dup(one))
                    close(one)
                    #expect(Self.lock(two, Self.read, 1000, 1) == EAGAIN)
                    close(copy)
                    #expect(Self.lock(two, Self.read, 1000, 1, lockstep_f_ofd_setlkw) == 0)
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        private static func pieces(_ one: Int32, _ two: Int32) throws {
            #expect(lock(one, write, 10, 10) == 0)
            #expect(lock(two, read, 19, 1) == EAGAIN)
            #expect(lock(two, read, 20, 5) == 0)
            #expect(lock(one, read, 22, 1) == 0)
            #expect(lock(one, write, 22, 1) == EAGAIN)
            #expect(lock(one, write, 15, 6) == EAGAIN)
            // What was refused has changed nothing.
            #expect(try ask(two, write, 0, 0) == .lock(write, 10, 10))
            #expect(lock(one, none, 13, 2) == 0)
            #expect(lock(two, write, 13, 2) == 0)
            #expect(lock(two, write, 12, 1) == EAGAIN)
            #expect(lock(two, write, 15, 1) == EAGAIN)
            #expect(try ask(two, read, 0, 0) == .lock(write, 10, 3))
            #expect(try ask(one, write, 0, 0) == .lock(write, 13, 2))
            // Weaker in the middle; then whole again, which is one piece for others.
            #expect(lock(two, none, 13, 2) == 0)
            #expect(lock(one, read, 11, 1) == 0)
            #expect(lock(two, read, 11, 1) == 0)
            #expect(lock(one, write, 10, 10) == EAGAIN)
            #expect(lock(two, none, 11, 1) == 0)
            #expect(lock(one, write, 13, 2) == 0)
            #expect(lock(one, write, 10, 10) == 0)
            #expect(lock(one, write, 5, 5) == 0)
            #expect(try ask(two, read, 0, 0) == .lock(write, 5, 15))
            // To the end, however far that is.
            #expect(lock(one, read, 1 << 40, 0) == 0)
            #expect(try ask(two, write, 1 << 41, 1).length == 0)
            #expect(lock(two, write, Int.max, 1) == EAGAIN)
            #expect(lock(one, none, 0, 0) == 0)
            #expect(try ask(two, write, 0, 0).type == none)
            #expect(lock(two, none, 0, 0) == 0)
        }

        /// Locks of processes: they go when any descriptor of the file is closed, F_GETLK names who is on this
        /// node, and a circle of waits over two nodes is broken.
        @Test func processes() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([], to: paths[0])
                let (locked, asked) = (eventfd(0, 0), eventfd(0, 0))
                defer {
                    close(locked)
                    close(asked)
                }
                let holder = Self.asProcess {
                    let file = try Files.open(paths[0], O_RDWR)
                    let other = try Files.open(paths[0], O_RDONLY)
                    #expect(Self.lock(file, Self.write, 100, 50, F_SETLK) == 0)
                    eventfd_write(locked, 1)
                    var count: UInt64 = 0
                    eventfd_read(asked, &count)
                    // Closing the other one gives them up, too.
                    close(other)
                    eventfd_write(locked, 1)
                    eventfd_read(asked, &count)
                    close(file)
                }
                var count: UInt64 = 0
                eventfd_read(locked, &count)
                for (path, process) in zip(paths, [getpid(), 0]) {
                    try Files.withOpen(path, O_RDWR) { file in
                        #expect(Self.lock(file, Self.read, 149, 1, F_SETLK) == EAGAIN)
                        let found = try Self.ask(file, Self.read, 0, 0, F_GETLK)
                        #expect(
                            found
                                == Found(
                                    type: Self.write,
                                    start: 100,
                                    length: 50,
                                    process: process
                                )
                        )
                    }
                }
                let shown = try Commands.demand(
                    "lockstep",
                    ["locks", "--path", paths[1], paths[1]]
                )
                #expect(
                    shown.output.contains("bytes 100-149, process \(getpid())"),
                    "\(shown.output)"
                )
                eventfd_write(asked, 1)
                eventfd_read(locked, &count)
                try Files.withOpen(paths[1], O_RDWR) { file in
                    #expect(Self.lock(file, Self.write, 0, 0, F_SETLK) == 0)
                }
                eventfd_write(asked, 1)
                holder.join()
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func aCircleIsBroken() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let names = ["/one", "/two"]
                for name in names { try Files.write([], to: cluster.nodes[0].root + name) }
                let ready = eventfd(0, Int32(EFD_SEMAPHORE))
                let go = eventfd(0, Int32(EFD_SEMAPHORE))
                defer {
                    close(ready)
                    close(go)
                }
                let refused = Atomic(0)
                let threads = cluster.nodes.indices.map { index in
                    let root = cluster.nodes[index].root
                    return Self.asProcess {
                        let mine = try Files.open(root + names[index], O_RDWR)
                        let others = try Files.open(root + names[1 - index], O_RDWR)
                        #expect(Self.lock(mine, Self.write, 0, 1, F_SETLK) == 0)
                        eventfd_write(ready, 1)
                        var count: UInt64 = 0
                        eventfd_read(go, &count)
                        let status = Self.lock(others, Self.write, 0, 1, F_SETLKW)
                        if status == EDEADLK {
                            refused.add(1, ordering: .relaxed)
                        } else {
                            #expect(status == 0)
                        }
                        close(mine)
                        close(others)
                    }
                }
                var count: UInt64 = 0
                for _ in threads { eventfd_read(ready, &count) }
                eventfd_write(go, 2)
                for thread in threads { thread.join() }
                #expect(refused.load(ordering: .relaxed) == 1)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Who waits is given the bytes of a node that is killed; a signal ends a wait.
        @Test func theDeadHoldNothing() throws {
            let cluster = try TestCluster(nodes: 3, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([], to: paths[0])
                let files = try paths.map { try Files.open($0, O_RDWR) }
                defer { close(files[0]) }
                // The last node masters the locks, the one in the middle dies with some.
                #expect(Self.lock(files[2], Self.read, 500, 1) == 0)
                #expect(Self.lock(files[1], Self.write, 0, 100) == 0)
                #expect(Self.lock(files[0], Self.write, 50, 1) == EAGAIN)
                try cluster.kill(cluster.nodes[1])
                #expect(Self.lock(files[0], Self.write, 50, 1, lockstep_f_ofd_setlkw) == 0)
                // The master dies: the locks of the others are there all the same.
                try cluster.kill(cluster.nodes[2])
                #expect(Self.lock(files[0], Self.write, 500, 1, lockstep_f_ofd_setlkw) == 0)
                try Files.withOpen(paths[0], O_RDWR) { other in
                    #expect(Self.lock(other, Self.read, 50, 1) == EAGAIN)
                    try Self.interrupted(other)
                }
                for file in files[1...] { close(file) }
            }
        }

        private static func interrupted(_ file: Int32) throws {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { _ in }
            try check(sigaction(SIGUSR2, &action, nil))
            let ended = Atomic(false)
            let status = Atomic<Int32>(0)
            let waiter = Mutex<pthread_t?>(nil)
            let thread = TestThread {
                // Threads made by tests hear no signals otherwise.
                var signals = sigset_t()
                sigemptyset(&signals)
                sigaddset(&signals, SIGUSR2)
                pthread_sigmask(SIG_UNBLOCK, &signals, nil)
                waiter.withLock { $0 = pthread_self() }
                status.store(lock(file, read, 50, 1, lockstep_f_ofd_setlkw), ordering: .relaxed)
                ended.store(true, ordering: .releasing)
            }
            // Before it waits a signal changes nothing, so that one is not enough.
            while !ended.load(ordering: .acquiring) {
                if let waiter = waiter.withLock({ $0 }) { pthread_kill(waiter, SIGUSR2) }
                sched_yield()
            }
            thread.join()
            #expect(status.load(ordering: .relaxed) == EINTR)
        }

        /// Numbers side by side in one page, each added to by whoever has its bytes.
        @Test func countersAreExact() throws {
            let cluster = try TestCluster(nodes: 3, size: "64M")
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                let paths = cluster.nodes.map { $0.root + "/count" }
                let (numbers, rounds) = (4, 100)
                try Files.write([UInt8](repeating: 0, count: numbers * 8), to: paths[0])
                let threads = (paths + paths).enumerated().map { index, path in
                    Self.asProcess {
                        var dice = SeededGenerator(seed: UInt64(index))
                        let file = try Files.open(path, O_RDWR)
                        for _ in 0..<rounds {
                            let offset = dice.below(numbers) * 8
                            guard Self.lock(file, Self.write, offset, 8, F_SETLKW) == 0 else {
                                throw SystemFailure(errno)
                            }
                            var number: UInt64 = 0
                            guard pread(file, &number, 8, offset) == 8 else {
                                throw SystemFailure(errno)
                            }
                            number += 1
                            guard pwrite(file, &number, 8, offset) == 8 else {
                                throw SystemFailure(errno)
                            }
                            if Self.lock(file, Self.none, offset, 8, F_SETLK) != 0 {
                                throw SystemFailure(errno)
                            }
                        }
                        close(file)
                    }
                }
                for thread in threads { thread.join() }
                let bytes = try Files.contents(paths[1])
                var sum = 0
                for place in stride(from: 0, to: bytes.count, by: 8) {
                    sum += bytes[place..<place + 8].reversed().reduce(0) { $0 << 8 | Int($1) }
                }
                #expect(sum == 6 * rounds)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
