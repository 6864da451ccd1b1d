import BlockIO
import Execution
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

/// What a mounted volume answers, where no workload notices the difference.
@Suite struct MountedVolumeTests {
    private let path = [Array("file".utf8)]

    /// A listing goes on as long as there is room for more.
    @Test func aListingIsOneCall() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            let root = NodeHandle(1)
            let opened = try await volume.openDirectory(root, nil)
            func list(after cookie: UInt64, room: Int) async throws -> [String] {
                var names: [String] = []
                try await volume.readDirectory(root, opened.handle, after: cookie, nil) { entry in
                    if names.count == room { return false }
                    names.append(String(decoding: entry.name, as: UTF8.self))
                    return true
                }
                return names
            }
            #expect(try await list(after: 0, room: 10) == [".", "..", "file"])
            #expect(try await list(after: 0, room: 1) == ["."])
            #expect(try await list(after: 1, room: 10) == ["..", "file"])
            #expect(try await list(after: 0, room: 0) == [])
            await volume.releaseDirectory(root, opened.handle)
        }
    }

    /// A node that changes nothing opens files for reading, and not for writing.
    @Test func readOnlyOpens() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            try await two.cluster.unmount(1)
            two.cluster.mountsReadOnly = true
            let node = try #require(try await two.cluster.mount(1))
            let file = try await node.kernel.open(path, .reading)
            #expect(try await node.kernel.read(file, at: 0, count: 9000).count == 5000)
            try await node.kernel.close(file)
            for intent in [OpenIntent.writing, .both, .appending] {
                await #expect(throws: FileError.readOnly) {
                    _ = try await node.kernel.open(path, intent)
                }
            }
        }
    }

    /// M1 costs whoever has a file open for reading and writing the shared lock, and nobody afterwards.
    @Test func pagesAreSharedAgainAfterwards() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            func mode(_ node: SimulatedNode) -> LockMode {
                node.volume.memory(under: two.file).covering
            }
            let file = try await two.first.kernel.open(path, .both)
            _ = try await two.first.kernel.read(file, at: 0, count: 100)
            #expect(mode(two.first) == .exclusive)
            try await two.first.kernel.close(file)
            // The kernel says so later.
            await two.engine.sleep(nanoseconds: 1_000_000)
            _ = try await two.second.perform(.read(path, 0, count: 100))
            _ = try await two.first.perform(.read(path, 0, count: 100))
            #expect(mode(two.first) == .protectedRead && mode(two.second) == .protectedRead)
        }
    }

    /// A fill that waits for the lock while the file is opened for reading and writing takes EX (M1).
    @Test func aFillThatWaitsForWhoOpens() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let (node, other) = (two.first, two.second)
            let reader = try await node.kernel.open(path, .reading)
            _ = try await other.perform(
                .write(path, 0, count: 5000, pattern: 2, synchronizes: false)
            )
            let volume = node.volume
            let inode = try volume.inode(reader.inode.handle)
            let done = Outcome<Result<Int, FileError>>()
            node.engine.spawn {
                let buffer = AlignedBuffer(byteCount: 4096)
                do throws(FileError) {
                    let count = try await volume.read(
                        inode.handle,
                        reader.handle,
                        at: 0,
                        into: buffer.bytes,
                        isFill: true,
                        reader: nil,
                        nil
                    )
                    done.deliver(.success(count))
                } catch {
                    done.deliver(.failure(error))
                }
            }
            await two.engine.sleep(nanoseconds: 1_000)
            try #require(done.value == nil && inode.glock.held == .null)
            // Somebody opens it now; the lock comes later.
            inode.readWriteOpens += 1
            #expect(try await done.get().get() == 4096)
            #expect(inode.glock.held == .exclusive)
            inode.readWriteOpens -= 1
            try await node.kernel.close(reader)
        }
    }

    /// A node that cannot empty its log withdraws, and gives the log barrier up to nobody (V4).
    @Test func noBarrierIsGivenUpOverAFullLog() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            _ = try await two.first.perform(.create([Array("new".utf8)], isExclusive: true))
            let volume = two.first.volume
            two.first.member.host.faults.failEverything = true
            let given = Outcome<Void>()
            two.first.engine.spawn {
                await volume.barrierOwner.demote(
                    volume.barrierGlock,
                    from: .protectedRead,
                    to: .null
                )
                given.deliver(())
            }
            await two.engine.sleep(nanoseconds: 100_000_000)
            #expect(two.first.withdrawal != nil)
            #expect(given.value == nil)
        }
    }

    /// Whoever is interrupted while he waits for a lock of programs does not get it (ProgramLocks P3).
    @Test(arguments: [false, true]) func anInterruptedFlock(isMaster: Bool) throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let (holder, waiter) = isMaster ? (two.second, two.first) : (two.first, two.second)
            let (held, file) = (
                try await holder.kernel.open(path, .reading),
                try await waiter.kernel.open(path, .reading)
            )
            func lock(
                _ node: SimulatedNode,
                _ file: KernelFile,
                _ wanted: WholeFileLock,
                _ interruption: Interruption? = nil
            ) async throws(FileError) {
                let node = node.volume
                try await node.lock(
                    file.inode.handle,
                    file.handle,
                    wanted,
                    waits: interruption != nil,
                    interruption
                )
            }
            // Whoever has it first is the master, and stays it.
            try await lock(two.first, isMaster ? file : held, .exclusive)
            try await lock(two.first, isMaster ? file : held, .unlocked)
            try await lock(holder, held, .exclusive)
            let interruption = Interruption()
            let result = Outcome<Result<Void, FileError>>()
            waiter.engine.spawn {
                do throws(FileError) {
                    try await lock(waiter, file, .exclusive, interruption)
                    result.deliver(.success(()))
                } catch {
                    result.deliver(.failure(error))
                }
            }
            await two.engine.sleep(nanoseconds: 10_000_000)
            #expect(result.value == nil)
            interruption.request()
            await #expect(throws: FileError.interrupted) { try await result.get().get() }
            try await lock(holder, held, .unlocked)
            try await lock(waiter, file, .exclusive)
            // The lock and the anchor; the anchor.
            #expect(waiter.volume.programLocks.count == 2 && holder.volume.programLocks.count == 1)
            for (node, file) in [(holder, held), (waiter, file)] {
                try await node.kernel.close(file)
            }
            await two.engine.sleep(nanoseconds: 10_000_000)
            #expect(waiter.volume.programLocks.count == 0)
        }
    }

    /// How long a lock has been on its way is told from when it set out.
    @Test func ageOfAPhase() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            await two.engine.sleep(nanoseconds: 2_000_000_000)
            let volume = two.first.volume
            let node = try #require(volume.memory(under: two.file).node)
            let inode = try volume.inode(node)
            let begin = two.engine.clock.now
            _ = try await two.second.perform(
                .write(path, 0, count: 5000, pattern: 2, synchronizes: false)
            )
            #expect(inode.glock.held == .null)
            let given = inode.glock.phaseSince
            #expect(given > begin)
            _ = try await two.first.perform(.read(path, 0, count: 5000))
            let granted = inode.glock.phaseSince
            #expect(inode.glock.held == .protectedRead && granted > given)
            // Who comes and goes under the lock changes nothing.
            await two.engine.sleep(nanoseconds: 1_000_000)
            _ = try await volume.getAttributes(node, asker: nil, nil)
            #expect(inode.glock.phaseSince == granted)
        }
    }
}
