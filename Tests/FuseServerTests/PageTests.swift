import CLinux
import Execution
import FileSystem
import FuseServer
import Glibc
import LinuxSystem
import Testing
import Vocabulary

extension MountedTests {
    /// What the kernel does with pages while a request is held back: the facts behind Demotion D1
    /// to D5 and KERNEL F3, F5, F6 and M4.
    @Suite(.serialized) struct Pages {
        private let one = [UInt8](repeating: 1, count: 8192)
        private let two = [UInt8](repeating: 2, count: 4096)

        /// Begins to drop the pages of a range; the outcome is nil while the kernel waits.
        private func dropping(
            _ mount: TestMount,
            _ node: NodeHandle,
            _ offset: UInt64,
            _ length: UInt64
        ) -> EngineBound<Outcome<Void>> {
            let cache = EngineBound(mount.server.kernelCache)
            return mount.inside { files in
                let outcome = Outcome<Void>()
                files.engine.spawn {
                    await cache.value.invalidateInode(node, data: (offset, length))
                    outcome.deliver(())
                }
                return EngineBound(outcome)
            }
        }

        /// Whether the dropping waits: others that began later have ended.
        private func waits(
            _ outcome: EngineBound<Outcome<Void>>,
            _ mount: TestMount,
            _ node: NodeHandle
        ) -> Bool {
            for _ in 0..<20 { ends(dropping(mount, node, 1 << 20, 4096), mount) }
            return mount.inside { _ in outcome.value.value == nil }
        }

        private func ends(_ outcome: EngineBound<Outcome<Void>>, _ mount: TestMount) {
            mount.inside { _ in await outcome.value.get() }
        }

        private func byte(_ file: Int32, _ offset: Int) -> UInt8 {
            var byte: UInt8 = 0
            #expect(pread(file, &byte, 1, offset) == 1)
            return byte
        }

        /// A file of two pages, open for reading and for writing.
        private func withFile(
            _ body: (TestMount, NodeHandle, _ reader: Int32, _ writer: Int32) throws -> Void
        ) throws {
            try withMount { mount in
                try makeFile(mount.file("a"), one)
                let node = mount.node("a")
                ends(dropping(mount, node, 0, 1 << 30), mount)
                let reader = try openFile(mount.file("a"), O_RDONLY)
                let writer = try openFile(mount.file("a"), O_WRONLY)
                defer {
                    close(reader)
                    close(writer)
                }
                try body(mount, node, reader, writer)
            }
        }

        @Test func aReadLocksItsPages() throws {
            try withFile { mount, node, reader, _ in
                let hold = mount.hold(next: .read)
                let waiter = try background { Int(byte(reader, 10)) }
                mount.arrival(of: hold)
                let drop = dropping(mount, node, 0, 4096)
                #expect(waits(drop, mount, node))
                mount.release(hold)
                #expect(waiter.result() == 1)
                ends(drop, mount)
            }
        }

        @Test func aWriteLocksThePageThatWasNotUpToDate() throws {
            try withFile { mount, node, _, writer in
                let hold = mount.hold(next: .write)
                let waiter = try background { call { pwrite(writer, two, 10, 4096 + 100) } }
                mount.arrival(of: hold)
                let drop = dropping(mount, node, 4096, 4096)
                #expect(waits(drop, mount, node))
                ends(dropping(mount, node, 0, 4096), mount)
                mount.release(hold)
                #expect(waiter.result() == 10)
                ends(drop, mount)
            }
        }

        @Test func aWriteDoesNotLockAPageThatIsUpToDate() throws {
            try withFile { mount, node, reader, writer in
                #expect(byte(reader, 5000) == 1)
                let hold = mount.hold(next: .write)
                let waiter = try background { call { pwrite(writer, two, 10, 4096 + 100) } }
                mount.arrival(of: hold)
                // It shows the bytes before they are written, and can be dropped.
                #expect(byte(reader, 4096 + 100) == 2)
                ends(dropping(mount, node, 4096, 4096), mount)
                #expect(byte(reader, 4096 + 100) == 1)
                mount.release(hold)
                #expect(waiter.result() == 10)
                // Read before the write was carried out: old for ever, if it is not dropped (F5).
                #expect(byte(reader, 4096 + 100) == 1)
                ends(dropping(mount, node, 4096, 4096), mount)
                #expect(byte(reader, 4096 + 100) == 2)
            }
        }

        @Test func aWholePageIsUpToDateBeforeItIsWritten() throws {
            try withFile { mount, node, reader, writer in
                let hold = mount.hold(next: .write)
                let waiter = try background { call { pwrite(writer, two, 4096, 0) } }
                mount.arrival(of: hold)
                let counts = mount.requests { #expect(byte(reader, 0) == 2) }
                #expect(counts[.read] == 0)
                ends(dropping(mount, node, 0, 4096), mount)
                #expect(byte(reader, 0) == 1)
                mount.release(hold)
                #expect(waiter.result() == 4096)
            }
        }

        @Test func aChangeOfSizeThatIsCrossedIsAskedForAgain() throws {
            try withFile { mount, node, _, _ in
                let hold = mount.hold(next: .change)
                let waiter = try background { call { Int(truncate(mount.file("a"), 50)) } }
                mount.arrival(of: hold)
                let cache = EngineBound(mount.server.kernelCache)
                mount.inside { _ in await cache.value.invalidateInode(node, data: nil) }
                mount.release(hold)
                #expect(waiter.result() == 0)
                mount.inside { files in
                    if let file = try? files.node(node) { files.resize(file, 60) }
                }
                let counts = mount.requests { #expect(status(mount.file("a"))?.st_size == 60) }
                #expect(counts[.getAttributes] == 1)
            }
        }

        @Test func aDirectWriteDropsPagesBeforeAndAfter() throws {
            try withFile { mount, _, reader, _ in
                guard mount.server.agreement.mapsDirectFiles else { return }
                mount.inside { $0.opensDirectly = true }
                let direct = try openFile(mount.file("a"), O_RDWR)
                defer { close(direct) }
                mount.inside { $0.opensDirectly = false }
                let mapped = try openFile(mount.file("a"), O_RDWR)
                defer { close(mapped) }
                #expect(byte(reader, 0) == 1)
                let map = try #require(
                    mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0)
                )
                defer { munmap(map, 4096) }
                let hold = mount.hold(next: .write)
                let waiter = try background { call { pwrite(direct, two, 10, 0) } }
                mount.arrival(of: hold)
                nonisolated(unsafe) var writebacks = 0
                mount.inside { files in
                    files.onWrite = { flags, _ in writebacks += flags.isWriteback ? 1 : 0 }
                }
                // Filled again while the write is under way, with the old bytes, and changed.
                let counts = mount.requests {
                    map.storeBytes(of: 7, toByteOffset: 20, as: UInt8.self)
                }
                #expect(counts[.read] == 1)
                mount.release(hold)
                #expect(waiter.result() == 10)
                // The page came back with old bytes and the store in it (M4).
                #expect(writebacks == 1)
                #expect(byte(reader, 0) == 1 && byte(reader, 20) == 7)
            }
        }
    }
}
