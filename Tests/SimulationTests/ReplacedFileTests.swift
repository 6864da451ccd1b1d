import BlockIO
import Execution
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

/// Files that lose their last name to a rename between somebody's lookup and his open (Orphans.swift, G1 to G4).
@Suite struct ReplacedFileTests {
    private let path = [Array("file".utf8)]
    private let new = [Array("new".utf8)]

    private func replace(on node: SimulatedNode) async throws {
        _ = try await node.perform(.create(new, isExclusive: true))
        _ = try await node.perform(.rename(new, path, .replace))
    }

    /// On the node that replaces, and on another.
    @Test(arguments: [0, 1]) func whoHasLookedItUpOpensIt(looker: Int) throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let node = looker == 0 ? two.first : two.second
            let found = try await node.kernel.walk(path)
            try await replace(on: two.first)
            let opened = try await node.volume.open(found.handle, .reading, nil)
            let shown = try await node.volume.getAttributes(found.handle, asker: nil, nil)
            #expect(shown.attributes.size == 5000 && shown.attributes.linkCount == 0)
            // It stays for who has it open.
            await two.engine.sleep(nanoseconds: 2_000_000_000)
            #expect(two.first.volume.pendingOrphans == 1)
            _ = try await node.volume.getAttributes(found.handle, asker: nil, nil)
            await node.volume.release(found.handle, opened.handle)
            await two.engine.sleep(nanoseconds: 1_000_000_000)
            #expect(two.first.volume.pendingOrphans == 0)
            #expect(two.first.volume.counters.orphansFreed == 1)
            await #expect(throws: FileError.stale) {
                _ = try await node.volume.open(found.handle, .reading, nil)
            }
            node.kernel.unpin(found)
        }
    }

    /// Nobody gets in whose lookup is long ago, and nobody waits for the lock that the reaper has (G2).
    @Test func nobodyIsLetInLater() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let found = try await two.second.kernel.walk(path)
            try await replace(on: two.first)
            await two.engine.sleep(nanoseconds: 2_000_000_000)
            #expect(two.first.volume.counters.orphansFreed == 1)
            await #expect(throws: FileError.stale) {
                _ = try await two.second.volume.open(found.handle, .reading, nil)
            }
            two.second.kernel.unpin(found)
        }
    }

    /// G3: of more than so many within the grace the oldest go, whoever replaces them how fast.
    @Test func manyAtOnceAreBounded() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            let (new, old) = (NameBuffer(new[0]), NameBuffer(path[0]))
            let caller = KernelModel.caller
            // Without the kernel, which takes its time.
            for _ in 0..<1030 {
                let made = try await volume.make(
                    .node(mode: 0o100644, device: 0),
                    in: .root,
                    named: new.bytes,
                    caller,
                    nil
                )
                volume.forget(made.node, count: 1)
                let before = volume.graced.count
                try await volume.rename(
                    .root,
                    new.bytes,
                    to: .root,
                    old.bytes,
                    .replace,
                    caller,
                    nil
                )
                let after = volume.graced.count
                #expect(after == min(before + 1, 1024))
            }
            #expect(volume.graced.count == 1024)
        }
    }

    /// G3: the oldest of too many goes; all go when room is needed or the node leaves.
    @Test func notTooManyAndNotForEver() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            #expect(await !volume.roomComes())
            for _ in 0..<1030 { try await replace(on: two.first) }
            #expect(volume.graced.count <= 1024 && volume.graced.count > 0)
            let freed = volume.counters.orphansFreed
            #expect(await volume.roomComes())
            #expect(volume.graced.isEmpty && volume.counters.orphansFreed > freed)
            try await replace(on: two.first)
            #expect(volume.graced.count == 1)
            _ = try await two.cluster.unmount(0)
            #expect(volume.counters.orphansFreed == volume.counters.orphansListed)
        }
    }

    /// G2: the open lock of what somebody has open is queued for by its reaper; nobody waits behind that. G4: who waits for
    /// room does not wait for it either.
    @Test func nobodyWaitsForWhatIsOpenElsewhere() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            let (here, there) = (
                try await two.first.kernel.walk(path), try await two.second.kernel.walk(path)
            )
            let opened = try await two.second.volume.open(there.handle, .reading, nil)
            try await replace(on: two.first)
            await two.engine.sleep(nanoseconds: 2_000_000_000)
            try #require(volume.pendingOrphans == 1 && volume.graced.isEmpty)
            let tried = Outcome<FileError?>()
            two.first.engine.spawn {
                do throws(FileError) {
                    _ = try await volume.open(here.handle, .reading, nil)
                    tried.deliver(nil)
                } catch {
                    tried.deliver(error)
                }
            }
            // Another one is just being freed when somebody finds no room.
            try await replace(on: two.first)
            let room = Outcome<Bool>()
            two.first.engine.spawn { room.deliver(await volume.roomComes()) }
            await two.engine.sleep(nanoseconds: 1_000_000_000)
            #expect(tried.value == .some(.stale))
            #expect(room.value == true)
            #expect(volume.pendingOrphans == 1 && volume.counters.orphansFreed == 1)
            await two.second.volume.release(there.handle, opened.handle)
            await two.engine.sleep(nanoseconds: 1_000_000_000)
            #expect(volume.pendingOrphans == 0 && volume.counters.orphansFreed == 2)
            two.first.kernel.unpin(here)
            two.second.kernel.unpin(there)
        }
    }
}
