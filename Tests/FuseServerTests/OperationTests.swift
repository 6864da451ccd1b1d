import CLinux
import Execution
import FileSystem
import FuseServer
import Glibc
import LinuxSystem
import Testing
import Vocabulary

/// What system calls do on a mount. One suite, one mount after the other.
@Suite(.serialized) struct MountedTests {}

extension MountedTests {
    @Suite(.serialized) struct Operations {
        @Test func filesKeepTheirBytes() throws {
            try withMount { mount in
                let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
                try makeFile(mount.file("a"), bytes)
                #expect(try content(mount.file("a")) == bytes)
                let seen = try #require(status(mount.file("a")))
                #expect(seen.st_size == 10_000)
                #expect(seen.st_mode == 0o100644)
                #expect(seen.st_nlink == 1)
                #expect(seen.st_blksize == 4096)
                #expect(unlink(mount.file("a")) == 0)
                #expect(statusCode(mount.file("a")) == Int(-ENOENT))
            }
        }

        @Test func errorsArriveAsTheManualSays() throws {
            try withMount { mount in
                try makeFile(mount.file("file"))
                #expect(mkdir(mount.file("folder"), 0o755) == 0)
                try makeFile(mount.file("folder/inner"))
                #expect(statusCode(mount.file("absent")) == Int(-ENOENT))
                #expect(call { Int(mkdir(mount.file("file"), 0o755)) } == Int(-EEXIST))
                #expect(statusCode(mount.file("file/below")) == Int(-ENOTDIR))
                #expect(call { Int(rmdir(mount.file("folder"))) } == Int(-ENOTEMPTY))
                #expect(call { Int(unlink(mount.file("folder"))) } == Int(-EISDIR))
                #expect(call { Int(unlink(mount.file("absent"))) } == Int(-ENOENT))
                let long = String(repeating: "x", count: 256)
                #expect(statusCode(mount.file(long)) == Int(-ENAMETOOLONG))
                #expect(throws: SystemError("open", mount.file("file"), code: EEXIST)) {
                    try makeFile(mount.file("file"))
                }
                let file = try openFile(mount.file("file"), O_RDWR)
                defer { close(file) }
                #expect(call { Int(lockstep_ioctl_unknown(file)) } == Int(-ENOTTY))
            }
        }

        @Test func directoriesListAThousandNamesOnce() throws {
            try withMount { mount in
                let names = (0..<1000).map { "a-name-of-some-length-\($0)" }
                for name in names { try makeFile(mount.file(name)) }
                #expect(try list(mount.path) == [".", ".."] + names)
                #expect(mkdir(mount.file("folder"), 0o755) == 0)
                #expect(try list(mount.file("folder")) == [".", ".."])
                #expect(rmdir(mount.file("folder")) == 0)
                #expect(mount.inside { $0.openDirectories } == 0)
            }
        }

        @Test func renameKnowsItsFlags() throws {
            try withMount { mount in
                let (a, b) = (mount.file("a"), mount.file("b"))
                try makeFile(a, [1])
                try makeFile(b, [2])
                #expect(call { Int(lockstep_rename_with_flags(a, b, 1)) } == Int(-EEXIST))
                #expect(lockstep_rename_with_flags(a, b, 2) == 0)
                #expect(try content(a) == [2])
                #expect(try content(b) == [1])
                #expect(rename(a, b) == 0)
                #expect(try content(b) == [2])
                #expect(statusCode(a) == Int(-ENOENT))
                #expect(lockstep_rename_with_flags(b, a, 1) == 0)
                #expect(call { Int(lockstep_rename_with_flags(a, b, 4)) } == Int(-EINVAL))
                #expect(mkdir(mount.file("d"), 0o755) == 0)
                #expect(rename(a, mount.file("d/a")) == 0)
                #expect(try content(mount.file("d/a")) == [2])
            }
        }

        @Test func linksAndSpecialFiles() throws {
            try withMount(configure: { $0.mountOptions = ["dev"] }) { mount in
                try makeFile(mount.file("a"), [5])
                #expect(link(mount.file("a"), mount.file("b")) == 0)
                #expect(status(mount.file("a"))?.st_nlink == 2)
                #expect(status(mount.file("a"))?.st_ino == status(mount.file("b"))?.st_ino)
                #expect(symlink("a", mount.file("s")) == 0)
                var target = [CChar](repeating: 0, count: 64)
                #expect(readlink(mount.file("s"), &target, 64) == 1)
                #expect(target[0] == CChar(UInt8(ascii: "a")))
                #expect(try content(mount.file("s")) == [5])
                #expect(mkfifo(mount.file("p"), 0o600) == 0)
                #expect(status(mount.file("p"))?.st_mode == 0o010600)
                #expect(mknod(mount.file("c"), 0o020600, 0x0103) == 0)
                #expect(status(mount.file("c"))?.st_rdev == 0x0103)
            }
        }

        @Test func attributesCanBeSet() throws {
            try withMount { mount in
                let path = mount.file("a")
                try makeFile(path, Array(repeating: 1, count: 5000))
                #expect(chmod(path, 0o4711) == 0)
                #expect(status(path)?.st_mode == 0o104711)
                #expect(chown(path, 12, 34) == 0)
                #expect(status(path)?.st_uid == 12)
                #expect(status(path)?.st_gid == 34)
                #expect(truncate(path, 100) == 0)
                #expect(status(path)?.st_size == 100)
                #expect(truncate(path, 9000) == 0)
                #expect(
                    try content(path)
                        == Array(repeating: 1, count: 100) + Array(repeating: 0, count: 8900)
                )
                var times = [
                    timespec(tv_sec: -5, tv_nsec: 6), timespec(tv_sec: 1 << 33, tv_nsec: 7),
                ]
                #expect(utimensat(AT_FDCWD, path, &times, 0) == 0)
                let now = try #require(status(path))
                #expect(now.st_atim.tv_sec == -5 && now.st_atim.tv_nsec == 6)
                #expect(now.st_mtim.tv_sec == 1 << 33 && now.st_mtim.tv_nsec == 7)
                let file = try openFile(path, O_WRONLY | O_TRUNC)
                close(file)
                #expect(status(path)?.st_size == 0)
            }
        }

        @Test func extendedAttributesOfAllSizes() throws {
            try withMount { mount in
                let path = mount.file("a")
                try makeFile(path)
                let large = [UInt8](repeating: 9, count: 65_536)
                #expect(setxattr(path, "user.small", "abc", 3, 0) == 0)
                #expect(setxattr(path, "user.large", large, large.count, 0) == 0)
                #expect(setxattr(path, "user.empty", "", 0, 0) == 0)
                #expect(call { Int(setxattr(path, "user.small", "x", 1, 1)) } == Int(-EEXIST))
                #expect(call { Int(setxattr(path, "user.none", "x", 1, 2)) } == Int(-ENODATA))
                var room = [UInt8](repeating: 0, count: 70_000)
                #expect(getxattr(path, "user.small", nil, 0) == 3)
                #expect(getxattr(path, "user.small", &room, 3) == 3)
                #expect(room[..<3] == [97, 98, 99])
                #expect(call { getxattr(path, "user.small", &room, 2) } == Int(-ERANGE))
                #expect(getxattr(path, "user.large", &room, 70_000) == 65_536)
                #expect(room[..<65_536].allSatisfy { $0 == 9 })
                #expect(getxattr(path, "user.empty", &room, 10) == 0)
                #expect(call { getxattr(path, "user.none", &room, 10) } == Int(-ENODATA))
                let names = Array("user.small\0user.large\0user.empty\0".utf8)
                var list = [CChar](repeating: 0, count: 100)
                #expect(listxattr(path, nil, 0) == names.count)
                #expect(call { listxattr(path, &list, 5) } == Int(-ERANGE))
                #expect(listxattr(path, &list, 100) == names.count)
                #expect(list[..<names.count].map { UInt8(bitPattern: $0) } == names)
                #expect(removexattr(path, "user.small") == 0)
                #expect(call { Int(removexattr(path, "user.small")) } == Int(-ENODATA))
            }
        }

        @Test func largeTransfersTravelInOnePiece() throws {
            try withMount { mount in
                let bytes = (0..<(4 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
                let path = mount.file("big")
                var file = try openFile(path, O_CREAT | O_WRONLY)
                let writes = try mount.requests { try writeAll(file, bytes) }
                close(file)
                #expect(writes[.write] == 4)
                file = try openFile(path, O_RDONLY | lockstep_o_direct)
                defer { close(file) }
                let room = UnsafeMutableRawBufferPointer.allocate(
                    byteCount: 4 << 20,
                    alignment: 4096
                )
                defer { room.deallocate() }
                let reads = mount.requests {
                    #expect(pread(file, room.baseAddress, room.count, 0) == room.count)
                }
                #expect(reads[.read] == 4)
                #expect(room.elementsEqual(bytes))
                #expect(try content(path) == bytes)
            }
        }

        @Test func whatKindOfReadAndWriteIsKnown() throws {
            try withMount { mount in
                let path = mount.file("a")
                try makeFile(path, [1, 2, 3])
                let seen = mount.files
                nonisolated(unsafe) var writes: [WriteFlags] = []
                nonisolated(unsafe) var fills: [Bool] = []
                mount.inside { _ in
                    seen.value.onWrite = { flags, _ in writes.append(flags) }
                    seen.value.onRead = { fills.append($0) }
                }
                var file = try openFile(path, O_WRONLY | O_APPEND)
                try writeAll(file, [4])
                close(file)
                file = try openFile(path, O_WRONLY)
                try writeAll(file, [9])
                close(file)
                #expect(try content(path) == [9, 2, 3, 4])
                mount.inside { $0.opensDirectly = true }
                file = try openFile(path, O_RDWR)
                var byte: UInt8 = 0
                #expect(pread(file, &byte, 1, 0) == 1)
                #expect(pwrite(file, &byte, 1, 0) == 1)
                close(file)
                mount.inside { _ in }
                #expect(writes.map(\.appends) == [true, false, false])
                #expect(writes.map(\.isDirect) == [false, false, true])
                #expect(writes.map(\.isWriteback) == [false, false, false])
                #expect(fills.first == true)
                #expect(fills.last == false)
            }
        }

        @Test func allocations() throws {
            try withMount { mount in
                let path = mount.file("a")
                try makeFile(path, Array(repeating: 7, count: 10_000))
                let file = try openFile(path, O_RDWR)
                defer { close(file) }
                let (keep, punch, zero) = (
                    FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE
                )
                #expect(lockstep_allocate(file, keep | punch, 1_000, 5_000) == 0)
                #expect(lockstep_allocate(file, keep | zero, 9_000, 9_000) == 0)
                #expect(lockstep_allocate(file, 0, 9_000, 3_000) == 0)
                var expected =
                    [UInt8](repeating: 7, count: 10_000) + Array(repeating: 0, count: 2_000)
                for place in 1_000..<6_000 { expected[place] = 0 }
                for place in 9_000..<10_000 { expected[place] = 0 }
                #expect(try content(path) == expected)
                let collapse = FALLOC_FL_COLLAPSE_RANGE
                #expect(
                    call { Int(lockstep_allocate(file, collapse, 0, 4_096)) } == Int(-EOPNOTSUPP)
                )
                #expect(call { Int(lockstep_allocate(file, punch, 0, 4_096)) } == Int(-EOPNOTSUPP))
                #expect(call { Int(lockstep_allocate(file, 0, 0, 0)) } == Int(-EINVAL))
            }
        }

        @Test func unknownCallsFallBack() throws {
            try withMount { mount in
                let path = mount.file("a")
                try makeFile(path, Array(repeating: 7, count: 10_000))
                let file = try openFile(path, O_RDWR)
                defer { close(file) }
                #expect(lseek(file, 0, 4) == 10_000)
                #expect(lseek(file, 5, 3) == 5)
                #expect(lseek(file, 0, SEEK_SET) == 0)
                try makeFile(mount.file("b"))
                let copy = try openFile(mount.file("b"), O_WRONLY)
                #expect(lockstep_copy_range(file, copy, 10_000) == 10_000)
                close(copy)
                #expect(try content(mount.file("b")) == Array(repeating: 7, count: 10_000))
                let flags = lockstep_o_tmpfile | O_RDWR
                #expect(
                    call { Int(lockstep_open(mount.path, flags, 0o600)) } == Int(-EOPNOTSUPP)
                )
            }
        }

        @Test func synchronizingReachesTheFileSystem() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), [1])
                let file = try openFile(mount.file("a"), O_RDWR)
                #expect(fsync(file) == 0)
                #expect(fdatasync(file) == 0)
                close(file)
                let folder = try openFile(mount.path, O_RDONLY | O_DIRECTORY)
                #expect(fsync(folder) == 0)
                close(folder)
                #expect(mount.inside { $0.synchronized } == 102)
                var usage = statvfs()
                #expect(statvfs(mount.path, &usage) == 0)
                #expect(usage.f_blocks == 1000 && usage.f_bfree == 600 && usage.f_bavail == 600)
                #expect(usage.f_files == 500 && usage.f_ffree == 499 && usage.f_namemax == 255)
            }
        }

        /// Every request that a thread waits for is a sign that it has taken in what it was told (KERNEL F6), but data: that may
        /// have been queued before. Nobody is told where nobody waits for signs.
        @Test func threadsAreHeardOf() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), [1, 2, 3])
                let file = try openFile(mount.file("a"), O_RDWR)
                #expect(mount.inside { $0.heardThreads }.isEmpty)
                mount.inside { $0.awaitsReaders = true }
                let own = UInt32(lockstep_thread_number())
                /// Signs of this thread during a call, which succeeds.
                func signs(_ body: () -> Bool) -> Int {
                    let before = mount.inside { $0.heardThreads.count }
                    guard body() else { return -1 }
                    let new = mount.inside { $0.heardThreads.dropFirst(before) }
                    return new.filter { $0 == own }.count
                }
                var byte: UInt8 = 7
                let ofWrite = signs { pwrite(file, &byte, 1, 0) == 1 }
                var lock = flock()
                lock.l_type = Int16(F_WRLCK)
                lock.l_start = 1_000_000
                lock.l_len = 1
                let ofLock = signs { fcntl(file, F_SETLK, &lock) == 0 }
                let ofSync = signs { fsync(file) == 0 }
                #expect(
                    ofWrite == 0 && ofLock >= 1 && ofSync >= 1,
                    "\(ofWrite) \(ofLock) \(ofSync)"
                )
                close(file)
            }
        }

        @Test func everyFileIsReleased() throws {
            try withMount { mount in
                for index in 0..<50 {
                    let counts = try mount.requests { try makeFile(mount.file("\(index)"), [1]) }
                    // A process that is being started closes what it inherits: one more FLUSH.
                    #expect(counts[.create] == 1 && counts[.write] == 1 && counts[.flush] >= 1)
                }
                // RELEASE is not waited for; the next requests queue behind it.
                while mount.server.requestCounts[.release] < 50 { sched_yield() }
                #expect(mount.inside { $0.openFiles } == 0)
            }
        }

        @Test func manyProcessorsAtOnce() throws {
            try withMount { mount in
                let failures = Latch()
                nonisolated(unsafe) var count = 0
                let threads = try (0..<8).map { worker in
                    try runThread(name: "worker") {
                        for round in 0..<200 {
                            let path = mount.file("w\(worker)-\(round)")
                            let bytes = [UInt8](repeating: UInt8(worker), count: 100 * round)
                            do {
                                try makeFile(path, bytes)
                                let isRight =
                                    try content(path) == bytes
                                    && status(path)?.st_size == bytes.count
                                    && rename(path, path + "x") == 0 && unlink(path + "x") == 0
                                if !isRight { failures.withLock { count += 1 } }
                            } catch {
                                failures.withLock { count += 1 }
                            }
                        }
                    }
                }
                for thread in threads { thread.join() }
                #expect(count == 0)
                #expect(try list(mount.path) == [".", ".."])
            }
        }
    }
}
