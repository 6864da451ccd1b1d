import CLinux
import Execution
import FileSystem
import FuseServer
import Glibc
import LinuxSystem
import Testing
import Vocabulary

extension MountedTests {
    /// What the kernel keeps, and how it is taken back.
    @Suite(.serialized) struct Caches {
        @Test func aCachedStatAsksNobody() throws {
            try withMount { mount in
                try makeFile(mount.file("a"))
                #expect(status(mount.file("a")) != nil)
                let counts = mount.requests {
                    for _ in 0..<100 { #expect(status(mount.file("a")) != nil) }
                }
                #expect(counts.total == 0)
            }
        }

        @Test func withoutPermissionEveryStatAsks() throws {
            try withMount { mount in
                mount.inside {
                    $0.attributesAreCacheable = false
                    $0.entriesAreCacheable = false
                }
                try makeFile(mount.file("a"))
                let counts = mount.requests {
                    for _ in 0..<10 { #expect(status(mount.file("a")) != nil) }
                }
                #expect(counts[.lookup] == 10)
            }
        }

        @Test func invalidatedAttributesAreAskedForAgain() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), [1, 2, 3])
                #expect(status(mount.file("a"))?.st_size == 3)
                let node = mount.node("a")
                let cache = EngineBound(mount.server.kernelCache)
                mount.inside { files in
                    if let file = try? files.node(node) { files.resize(file, 77) }
                }
                #expect(status(mount.file("a"))?.st_size == 3)
                mount.inside { _ in await cache.value.invalidateInode(node, data: nil) }
                let counts = mount.requests { #expect(status(mount.file("a"))?.st_size == 77) }
                #expect(counts[.getAttributes] == 1)
            }
        }

        @Test func invalidatedPagesAreReadAgain() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), Array(repeating: 1, count: 8192))
                let node = mount.node("a")
                let file = try openFile(mount.file("a"), O_RDONLY)
                defer { close(file) }
                func byte(_ offset: Int) -> UInt8 {
                    var byte: UInt8 = 0
                    #expect(pread(file, &byte, 1, offset) == 1)
                    return byte
                }
                #expect(byte(0) == 1 && byte(5000) == 1)
                let cache = EngineBound(mount.server.kernelCache)
                mount.inside { files in
                    if let file = try? files.node(node) {
                        file.data = Array(repeating: 2, count: 8192)
                    }
                }
                #expect(byte(0) == 1 && byte(5000) == 1)
                mount.inside { _ in
                    await cache.value.invalidateInode(node, data: (offset: 4096, length: nil))
                }
                #expect(byte(0) == 1)
                #expect(byte(5000) == 2)
                mount.inside { _ in
                    await cache.value.invalidateInode(node, data: (offset: 0, length: 10))
                }
                #expect(byte(0) == 2)
            }
        }

        @Test func dirtyMappedPagesAreWrittenByTheInvalidation() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), Array(repeating: 1, count: 8192))
                let node = mount.node("a")
                let file = try openFile(mount.file("a"), O_RDWR)
                defer { close(file) }
                let map = mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                let bytes = try #require(map).assumingMemoryBound(to: UInt8.self)
                defer { munmap(map, 8192) }
                bytes[10] = 99
                let cache = EngineBound(mount.server.kernelCache)
                nonisolated(unsafe) var writebacks = 0
                let after = mount.inside { files -> UInt8 in
                    files.onWrite = { flags, _ in writebacks += flags.isWriteback ? 1 : 0 }
                    await cache.value.invalidateInode(node, data: (offset: 0, length: nil))
                    return (try? files.node(node))?.data[10] ?? 0
                }
                #expect(after == 99)
                #expect(writebacks == 1)
                #expect(bytes[10] == 99)
            }
        }

        @Test func directFilesCanBeMapped() throws {
            try withMount { mount in
                guard mount.server.agreement.mapsDirectFiles else { return }
                try makeFile(mount.file("a"), Array(repeating: 1, count: 4096))
                mount.inside { $0.opensDirectly = true }
                let file = try openFile(mount.file("a"), O_RDWR)
                defer { close(file) }
                let map = try #require(
                    mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                )
                #expect(map != MAP_FAILED)
                map.storeBytes(of: 5, as: UInt8.self)
                var byte: UInt8 = 0
                #expect(pread(file, &byte, 1, 0) == 1)
                #expect(byte == 5)
                munmap(map, 4096)
            }
        }

        @Test func absenceIsKeptUntilInvalidated() throws {
            try withMount { mount in
                let path = mount.file("absent")
                #expect(statusCode(path) == Int(-ENOENT))
                let counts = mount.requests {
                    for _ in 0..<10 { #expect(statusCode(path) == Int(-ENOENT)) }
                }
                #expect(counts[.lookup] == (mount.server.agreement.keepsEntries ? 0 : 10))
                addBehindTheKernel("absent", mount)
                invalidateNames(["absent"], mount)
                #expect(statusCode(path) == 0)
            }
        }

        @Test func oneNameIsDroppedAndOthersStay() throws {
            try withMount { mount in
                try #require(mount.server.agreement.keepsEntries)
                for name in ["a", "b"] { try makeFile(mount.file(name)) }
                for name in ["a", "b"] { #expect(status(mount.file(name)) != nil) }
                invalidateNames(["a"], mount)
                // The directory's attributes went with its listing.
                _ = status(mount.path)
                #expect(mount.requests { _ = status(mount.file("b")) }[.lookup] == 0)
                #expect(mount.requests { _ = status(mount.file("a")) }[.lookup] == 1)
                invalidateNames(nil, mount)
                #expect(mount.requests { _ = status(mount.file("b")) }[.lookup] == 1)
            }
        }

        /// KERNEL M5.
        @Test func onOldKernelsDirectFilesAreNotMapped() throws {
            try withMount(configure: { $0.treatsKernelAsOld = true }) { mount in
                #expect(!mount.server.agreement.mapsDirectFiles)
                #expect(!mount.server.kernelCache.mapsDirectFiles)
                try makeFile(mount.file("a"), Array(repeating: 1, count: 4096))
                mount.inside { $0.opensDirectly = true }
                let file = try openFile(mount.file("a"), O_RDWR)
                defer { close(file) }
                #expect(mmap(nil, 4096, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED)
                #expect(errno == ENODEV)
                let copy = mmap(nil, 4096, PROT_READ, MAP_PRIVATE, file, 0)
                #expect(copy != MAP_FAILED)
                munmap(copy, 4096)
            }
        }

        @Test func kernelsWithoutEpochsKeepNoNames() throws {
            try withMount(configure: { $0.treatsKernelAsOld = true }) { mount in
                try makeFile(mount.file("a"))
                let counts = mount.requests {
                    for _ in 0..<10 {
                        #expect(status(mount.file("a")) != nil)
                        #expect(statusCode(mount.file("b")) == Int(-ENOENT))
                    }
                }
                #expect(counts[.lookup] == 20)
                addBehindTheKernel("b", mount)
                #expect(statusCode(mount.file("b")) == 0)
                invalidateNames(nil, mount)
                #expect(try list(mount.path) == [".", "..", "a", "b"])
            }
        }

        @Test func listingsAreKeptUntilInvalidated() throws {
            try withMount { mount in
                try makeFile(mount.file("a"))
                #expect(try list(mount.path) == [".", "..", "a"])
                var names: [String] = []
                let counts = try mount.requests { names = try list(mount.path) }
                #expect(names == [".", "..", "a"])
                #expect(counts[.readDirectory] == 0)
                addBehindTheKernel("b", mount)
                invalidateNames(["b"], mount)
                #expect(try list(mount.path) == [".", "..", "a", "b"])
            }
        }

        @Test func symlinkTargetsAreKept() throws {
            try withMount { mount in
                #expect(symlink("over-there", mount.file("s")) == 0)
                var room = [CChar](repeating: 0, count: 64)
                #expect(readlink(mount.file("s"), &room, 64) == 10)
                let counts = mount.requests { #expect(readlink(mount.file("s"), &room, 64) == 10) }
                #expect(counts[.readLink] == 0)
            }
        }

        /// KERNEL S2: replies to CREATE are not protected against a crossing invalidation.
        @Test func whatWasJustMadeIsAskedForOnce() throws {
            try withMount { mount in
                try makeFile(mount.file("a"))
                #expect(mkdir(mount.file("d"), 0o755) == 0)
                #expect(symlink("a", mount.file("s")) == 0)
                #expect(link(mount.file("a"), mount.file("l")) == 0)
                _ = status(mount.path)
                for name in ["d", "s", "l"] {
                    let first = mount.requests { #expect(status(mount.file(name)) != nil) }
                    #expect(first[.getAttributes] == 1 && first.total == 1, "\(name)")
                    let second = mount.requests { #expect(status(mount.file(name)) != nil) }
                    #expect(second.total == 0, "\(name)")
                }
            }
        }

        /// KERNEL S1: HANDLE_KILLPRIV_V2 saves the GETXATTR before each write.
        @Test func aWriteCostsOneRequest() throws {
            try withMount { mount in
                let file = try openFile(mount.file("a"), O_CREAT | O_RDWR)
                defer { close(file) }
                try writeAll(file, [1])
                let counts = try mount.requests { for _ in 0..<10 { try writeAll(file, [1]) } }
                #expect(counts[.write] == 10)
                #expect(counts.total == 10)
            }
        }

        @Test func pagesStayWhenAFileIsOpenedAgain() throws {
            try withMount { mount in
                let bytes = [UInt8](repeating: 3, count: 100_000)
                try makeFile(mount.file("a"), bytes)
                #expect(try content(mount.file("a")) == bytes)
                var again: [UInt8] = []
                let counts = try mount.requests { again = try content(mount.file("a")) }
                #expect(again == bytes)
                #expect(counts[.open] == 1)
                #expect(counts[.read] == 0)
            }
        }

        /// What a guardian does when the daemon is dead: bytes to a duplicate of the descriptor.
        @Test func aDuplicateOfTheDescriptorCanInvalidate() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), [1])
                #expect(status(mount.file("a")) != nil)
                let node = mount.node("a")
                let duplicate = dup(mount.server.fileDescriptor)
                defer { close(duplicate) }
                func send(_ message: [UInt8]) -> Int {
                    call { message.withUnsafeBytes { write(duplicate, $0.baseAddress, $0.count) } }
                }
                #expect(send(FuseNotification.invalidateInode(node, offset: -1, length: 0)) == 40)
                let attributes = mount.requests { _ = status(mount.file("a")) }
                #expect(attributes[.getAttributes] == 1)
                let unknown = NodeHandle(123_456)
                #expect(
                    send(FuseNotification.invalidateInode(unknown, offset: 0, length: 0))
                        == Int(-ENOENT)
                )
                if mount.server.agreement.keepsEntries {
                    #expect(send(FuseNotification.incrementEpoch()) == 16)
                    #expect(mount.requests { _ = status(mount.file("a")) }[.lookup] == 1)
                }
                let name = FuseNotification.invalidateEntry(.root, name: Array("a".utf8))
                #expect(send(name) == 16 + 16 + 2)
                #expect(mount.requests { _ = status(mount.file("a")) }[.lookup] == 1)
            }
        }

        /// F6: the file system is asked just before the kernel is told, and may keep it from being told.
        @Test func anInvalidationMayBePutOff() throws {
            try withMount { mount in
                try makeFile(mount.file("a"), [1])
                #expect(status(mount.file("a")) != nil)
                let node = mount.node("a")
                let cache = EngineBound(mount.server.kernelCache)
                let end = mount.inside { _ in
                    await cache.value.invalidateInode(node, data: nil, mayBegin: { false })
                }
                #expect(end == .notBegun)
                #expect(mount.requests { _ = status(mount.file("a")) }[.getAttributes] == 0)
                let second = mount.inside { _ in
                    await cache.value.invalidateInode(node, data: nil, mayBegin: { true })
                }
                #expect(second == .done)
                #expect(mount.requests { _ = status(mount.file("a")) }[.getAttributes] == 1)
            }
        }

        /// F6: a thread that waits has not run; one that has gone on has.
        @Test func aThreadThatGoesOnHasRun() throws {
            try withMount { mount in
                let cache = EngineBound(mount.server.kernelCache)
                #expect(mount.inside { _ in cache.value.timesRun(0) } == nil)
                #expect(mount.inside { _ in cache.value.timesRun(UInt32(Int32.max)) } == nil)
                mount.inside { $0.awaitsReaders = true }
                let hold = mount.hold("held")
                let second = mount.hold("later")
                let waiter = try runThread(name: "waiter", stackSize: 64 << 10) {
                    _ = statusCode(mount.file("held"))
                    _ = statusCode(mount.file("later"))
                }
                mount.arrival(of: hold)
                let thread = try #require(mount.inside { $0.heardThreads.last })
                let before = try #require(mount.inside { _ in cache.value.timesRun(thread) })
                let after = mount.inside { _ in cache.value.timesRun(thread) }
                #expect(after == before)
                mount.release(hold)
                mount.arrival(of: second)
                let later = try #require(mount.inside { _ in cache.value.timesRun(thread) })
                #expect(later > before)
                mount.release(second)
                waiter.join()
            }
        }

        /// F4, for file systems that decide a reply some steps before they return it.
        @Test func anInvalidationGoesOnWhileTheFileSystemCountsAReference() throws {
            try withMount { mount in
                let cache = EngineBound(mount.server.kernelCache)
                let asked = mount.inside { _ -> Int in
                    var asked = 0
                    cache.value.isReferenced = { node in
                        asked += node == NodeHandle(777) ? 1 : 0
                        return asked < 4
                    }
                    await cache.value.invalidateInode(NodeHandle(777), data: nil)
                    cache.value.isReferenced = nil
                    return asked
                }
                #expect(asked == 4)
            }
        }

        /// F4: a reply that crosses an invalidation must not leave stale attributes behind.
        @Test(arguments: [false, true])
        func aFirstReplyThatCrossesAnInvalidationIsNotKept(holdsInTask: Bool) throws {
            try withMount { mount in
                let cache = EngineBound(mount.server.kernelCache)
                let rounds = 300
                let latch = Latch()
                let changed = WaitCondition()
                nonisolated(unsafe) var done = 0
                mount.inside { files in
                    for round in 0..<rounds {
                        files.add(files.nodes[0], Array("n\(round)".utf8), files.nodes.count)
                        files.nodes.append(MemoryNode(files.nodes[0].attributes))
                        files.nodes[files.nodes.count - 1].attributes.mode = 0o100644
                        files.nodes[files.nodes.count - 1].attributes.inode = InodeNumber(
                            address: BlockAddress(UInt64(files.nodes.count)),
                            generation: 1
                        )
                    }
                    files.onLookup = { name, node in
                        mount.engine.spawn {
                            if holdsInTask {
                                await mount.engine.sleep(
                                    until: mount.engine.clock.now.advanced(nanoseconds: 20_000)
                                )
                            }
                            if let file = try? files.node(node) { file.attributes.size = 50 }
                            await cache.value.invalidateInode(node, data: nil)
                            latch.withLock {
                                done += 1
                                changed.broadcast()
                            }
                        }
                    }
                }
                for round in 0..<rounds {
                    let name = "n\(round)"
                    #expect(mount.requests { _ = status(mount.file(name)) }[.lookup] == 1)
                    latch.lock()
                    while done <= round { changed.wait(latch) }
                    latch.unlock()
                    var size = 0
                    let counts = mount.requests { size = status(mount.file(name))?.st_size ?? -1 }
                    #expect(size == 50, "\(name) after \(counts[.getAttributes]) GETATTR")
                }
                mount.inside { $0.onLookup = nil }
            }
        }

        private func addBehindTheKernel(_ name: String, _ mount: TestMount) {
            mount.inside { files in
                let node = MemoryNode(files.nodes[0].attributes)
                node.attributes.mode = 0o100644
                node.attributes.inode = InodeNumber(
                    address: BlockAddress(UInt64(files.nodes.count) + 1),
                    generation: 1
                )
                files.nodes.append(node)
                files.add(files.nodes[0], Array(name.utf8), files.nodes.count - 1)
            }
        }

        private func invalidateNames(_ names: [String]?, _ mount: TestMount) {
            let cache = EngineBound(mount.server.kernelCache)
            mount.inside { _ in
                await cache.value.invalidateEntries(
                    of: .root,
                    names: names?.map { Array($0.utf8) }
                )
            }
        }
    }
}
