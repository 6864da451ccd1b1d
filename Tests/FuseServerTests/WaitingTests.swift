import CLinux
import Execution
import FileSystem
import FuseServer
import Glibc
import LinuxSystem
import Testing
import Vocabulary

extension MountedTests {
    /// Requests that the file system holds back, and mounts that end.
    @Suite(.serialized) struct Waiting {
        @Test func aHeldRequestDelaysNoOther() throws {
            try withMount { mount in
                for name in ["a", "b"] { try makeFile(mount.file(name), [1]) }
                let hold = mount.hold("held")
                let waiter = try background { statusCode(mount.file("held")) }
                mount.arrival(of: hold)
                #expect(status(mount.file("a")) != nil)
                #expect(try content(mount.file("b")) == [1])
                mount.release(hold)
                #expect(waiter.result() == Int(-ENOENT))
            }
        }

        @Test func manyHeldRequestsDelayNoOther() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), [1])
                let holds = (0..<50).map { mount.hold("held\($0)") }
                let waiters = try (0..<50).map { index in
                    try background { statusCode(mount.file("held\(index)")) }
                }
                for hold in holds { mount.arrival(of: hold) }
                #expect(try content(mount.file("a")) == [1])
                for hold in holds { mount.release(hold) }
                for waiter in waiters { #expect(waiter.result() == Int(-ENOENT)) }
            }
        }

        /// KERNEL D7.
        @Test func aKilledProcessInterruptsItsRequest() throws {
            try withMount { mount in
                let hold = mount.hold("held")
                var process: pid_t = 0
                var words =
                    ["stat", mount.file("held")].map { (word: String) in strdup(word) } + [nil]
                defer { for word in words { free(word) } }
                // The threads of tests block signals, and a child would inherit that.
                var attributes = posix_spawnattr_t()
                var none = sigset_t()
                sigemptyset(&none)
                posix_spawnattr_init(&attributes)
                posix_spawnattr_setsigmask(&attributes, &none)
                posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
                #expect(posix_spawnp(&process, "stat", nil, &attributes, &words, environ) == 0)
                posix_spawnattr_destroy(&attributes)
                mount.arrival(of: hold)
                #expect(kill(process, SIGTERM) == 0)
                var exit: Int32 = 0
                #expect(waitpid(process, &exit, 0) == process)
                #expect(exit & 0x7f == SIGTERM)
                #expect(mount.inside { _ in hold.value.wasInterrupted })
                #expect(mount.server.requestCounts[.interrupt] >= 1)
            }
        }

        /// KERNEL D1: the kernel holds the directory for the create; dropping a name would wait for
        /// it.
        @Test func namesAreDroppedWhileACreateIsHeld() throws {
            try withMount { mount in
                try #require(mount.server.agreement.keepsEntries)
                #expect(statusCode(mount.file("kept")) == Int(-ENOENT))
                let hold = mount.hold("held")
                let waiter = try background {
                    call { Int(lockstep_open(mount.file("held"), O_CREAT | O_RDWR, 0o644)) }
                }
                mount.arrival(of: hold)
                let cache = EngineBound(mount.server.kernelCache)
                let counts = mount.requests {
                    mount.inside { _ in
                        await cache.value.invalidateEntries(
                            of: .root,
                            names: [Array("kept".utf8)]
                        )
                    }
                }
                #expect(counts.total == 0)
                mount.release(hold)
                let file = waiter.result()
                #expect(file >= 0)
                close(Int32(file))
                #expect(mount.requests { _ = statusCode(mount.file("kept")) }[.lookup] == 1)
            }
        }

        /// KERNEL D1: the create comes while a name is being dropped.
        @Test func aCreateThatComesWhileNamesAreDroppedIsNoDeadlock() throws {
            try withMount { mount in
                try #require(mount.server.agreement.keepsEntries)
                for round in 0..<20 {
                    let names = (0..<200).map { "n\(round)-\($0)" }
                    for name in names { #expect(statusCode(mount.file(name)) == Int(-ENOENT)) }
                    let hold = mount.hold("held\(round)")
                    let waiter = try background {
                        call {
                            Int(lockstep_open(mount.file("held\(round)"), O_CREAT | O_RDWR, 0o644))
                        }
                    }
                    let cache = EngineBound(mount.server.kernelCache)
                    mount.inside { _ in
                        await cache.value.invalidateEntries(
                            of: .root,
                            names: names.map { Array($0.utf8) }
                        )
                    }
                    mount.release(hold)
                    let file = waiter.result()
                    #expect(file >= 0)
                    close(Int32(file))
                }
            }
        }

        @Test func attributesAreDroppedWhileACreateIsHeld() throws {
            try withMount { mount in
                try makeFile(mount.file("a"))
                let node = mount.node("a")
                let hold = mount.hold("held")
                let waiter = try background {
                    call { Int(lockstep_open(mount.file("held"), O_CREAT | O_RDWR, 0o644)) }
                }
                mount.arrival(of: hold)
                let cache = EngineBound(mount.server.kernelCache)
                mount.inside { _ in
                    await cache.value.invalidateInode(node, data: (offset: 0, length: nil))
                    await cache.value.invalidateInode(.root, data: nil)
                }
                mount.release(hold)
                close(Int32(waiter.result()))
            }
        }

        @Test func aReplyNobodyTakesIsTakenBack() throws {
            try withMount { mount in
                try makeFile(mount.file("held"))
                let node = mount.node("held")
                // The name must be asked for again.
                let cache = EngineBound(mount.server.kernelCache)
                mount.inside { _ in await cache.value.invalidateEntries(of: .root, names: nil) }
                let hold = mount.hold("held")
                let waiter = try background {
                    call { Int(lockstep_open(mount.file("held"), O_RDONLY, 0)) }
                }
                mount.arrival(of: hold)
                let before = mount.inside { files in (try? files.node(node))?.references ?? 99 }
                #expect(!abortIsRefused(mount))
                #expect(waiter.result() < 0)
                mount.release(hold)
                // The reply's fate is known when the effect behind it has run.
                while mount.inside({ files in (try? files.node(node))?.references ?? 99 }) > before
                {
                    sched_yield()
                }
            }
        }

        /// What finds no room is tried once more when room has come: once, and only then.
        @Test(
            arguments: [
                ([.noSpace], true, 0, 2, 1), ([.noSpace, .noSpace], true, ENOSPC, 2, 1),
                ([.noSpace], false, ENOSPC, 1, 1), ([.quotaExceeded], true, EDQUOT, 1, 0),
                ([.noSpace, .exists], true, EEXIST, 2, 1),
            ] as [([FileError], Bool, Int32, Int, Int)]
        )
        func whoFindsNoRoomTriesOnceMore(
            failures: [FileError],
            comes: Bool,
            code: Int32,
            attempts: Int,
            questions: Int
        ) throws {
            try withMount { mount in
                mount.inside { files in
                    files.failures = failures
                    files.roomIsComing = comes
                }
                #expect(call { Int(mkdir(mount.file("folder"), 0o755)) } == Int(-code))
                let seen = mount.inside { files in [files.attempts, files.roomQuestions] }
                #expect(seen == [attempts, questions])
                #expect((status(mount.file("folder")) != nil) == (code == 0))
            }
        }

        /// Whoever waits for room delays nobody, and the bytes of his write are those of his call.
        @Test func aWriteThatWaitsForRoomIsWhole() throws {
            try withMount { mount in
                try makeFile(mount.file("a"))
                let room = mount.inside { files in
                    let room = Hold()
                    files.room = room
                    files.roomIsComing = true
                    files.failures = [.noSpace]
                    return EngineBound(room)
                }
                let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
                let file = try openFile(mount.file("a"), O_WRONLY)
                defer { close(file) }
                let writer = try background {
                    let count = call {
                        bytes.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, 0) }
                    }
                    // Whoever has not waited is not waited for.
                    mount.inside { _ in
                        if room.value.arrived.value == nil { room.value.arrived.deliver(()) }
                    }
                    return count
                }
                mount.arrival(of: room)
                #expect(mkdir(mount.file("folder"), 0o755) == 0)
                mount.release(room)
                #expect(writer.result() == bytes.count)
                #expect(try content(mount.file("a")) == bytes)
            }
        }

        @Test func unmountingWaitsForUsers() throws {
            try withMount { mount in
                try makeFile(mount.file("a"))
                let file = try openFile(mount.file("a"), O_RDWR)
                #expect(throws: FuseServerError.self) { try mount.server.unmount(.orderly) }
                #expect(mount.server.isAnswering)
                close(file)
                // RELEASE is not waited for by close(2).
                while mount.inside({ $0.openFiles }) > 0 { sched_yield() }
                try mount.server.unmount(.orderly)
                #expect(statusCode(mount.file("a")) == Int(-ENOENT))
            }
        }

        @Test func aLazyUnmountServesItsLastUser() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), [1, 2])
                let file = try openFile(mount.file("a"), O_RDWR)
                try mount.server.unmount(.lazy)
                #expect(statusCode(mount.file("a")) == Int(-ENOENT))
                try writeAll(file, [3])
                var bytes: [UInt8] = [0, 0]
                #expect(pread(file, &bytes, 2, 0) == 2)
                #expect(bytes == [3, 2])
                close(file)
            }
        }

        @Test func badOptionsAreRefusedWithALine() throws {
            #expect {
                try withMount(configure: { $0.mountOptions = ["nonsense"] }) { _ in }
            } throws: { error in
                "\(error)".contains("nonsense") && !"\(error)".contains("\n")
            }
            #expect {
                try withMount(configure: { $0.mountPoint = "/nowhere/at/all" }) { _ in }
            } throws: { error in
                "\(error)" == "mount point /nowhere/at/all: No such file or directory"
            }
        }

        @Test func aReadOnlyMountIsReadOnly() throws {
            try withMount(configure: { $0.mountOptions = ["ro", "noatime"] }) { mount in
                #expect(throws: SystemError("open", mount.file("a"), code: EROFS)) {
                    try makeFile(mount.file("a"))
                }
                let table = String(decoding: try content("/proc/self/mountinfo"), as: UTF8.self)
                let line = try #require(
                    table.split(separator: "\n").first { $0.contains(" \(mount.path) ") }
                )
                #expect(line.contains("fuse.lockstep a,test"))
                #expect(line.contains("noatime"))
                #expect(line.contains("default_permissions"))
            }
        }

        // MARK: Helpers

        private func abortIsRefused(_ mount: TestMount) -> Bool {
            do {
                try mount.server.unmount(.abort)
                return false
            } catch {
                return true
            }
        }

    }
}

/// Runs a system call that may wait, on a thread of its own.
func background(_ body: @escaping @Sendable () -> Int) throws -> BackgroundCall {
    try BackgroundCall(body)
}

/// A system call on a thread of its own.
final class BackgroundCall: @unchecked Sendable {
    private var value = 0
    private var thread: RunningThread?

    init(_ body: @escaping @Sendable () -> Int) throws {
        thread = try runThread(name: "background") { [self] in value = body() }
    }

    /// Waits for the call to end. Once.
    func result() -> Int {
        thread?.join()
        return value
    }
}
