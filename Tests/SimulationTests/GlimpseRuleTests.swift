import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

/// Looks at a file that another node is writing (Glimpse.swift, P1 to P3), and readers that were just told another size
/// (ToldSize.swift, KERNEL F6).
@Suite struct GlimpseRuleTests {
    private let path = [Array("file".utf8)]

    private func inode(_ two: TwoNodes, on node: SimulatedNode) throws -> Inode {
        try node.volume.inode(try #require(node.volume.memory(under: two.file).node))
    }

    private func write(_ node: SimulatedNode, at offset: UInt64) async throws {
        _ = try await node.perform(
            .write(path, offset, count: 5000, pattern: 2, synchronizes: false)
        )
    }

    /// P1, P2: each look asks, and shows what is true at that moment; the writer keeps the lock.
    @Test func eachLookIsAsked() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let (first, second) = (
                try inode(two, on: two.first), try inode(two, on: two.second)
            )
            for round in 1...5 as ClosedRange<UInt64> {
                try await write(two.first, at: round * 5000)
                for _ in 0..<2 {
                    let glimpses = two.second.volume.counters.glimpses
                    let shown = try await two.second.kernel.status(path)
                    #expect(shown.size == (round + 1) * 5000)
                    #expect(two.second.volume.counters.glimpses == glimpses + 1)
                    #expect(first.glock.held == .exclusive && second.glock.held == .null)
                }
            }
        }
    }

    /// P1: nothing is told without EX, or before the times of all who write are known.
    @Test func onlyWhoHasTheLockTells() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            let first = try inode(two, on: two.first)
            try await write(two.first, at: 5000)
            try await volume.journal.commit()
            #expect(volume.attributesHere(of: first.number)?.size == 10_000)
            first.stored?.record.flags.insert(.sharedWriters)
            first.hasAllTimes = false
            #expect(volume.attributesHere(of: first.number) == nil)
            first.stored?.record.flags.remove(.sharedWriters)
            _ = try await two.second.perform(.read(path, 0, count: 100))
            try #require(first.glock.held == .protectedRead && first.stored != nil)
            #expect(volume.attributesHere(of: first.number) == nil)
        }
    }

    /// P3: data is told before it is durable, anything else is not.
    @Test func whatMayBeLostIsNotTold() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            let first = try inode(two, on: two.first)
            try await write(two.first, at: 5000)
            try await volume.journal.commit()
            try await write(two.first, at: 10_000)
            try #require(!volume.journal.isDurable(first.lastSequence))
            #expect(volume.attributesHere(of: first.number)?.size == 15_000)
            _ = try await two.first.perform(.mode(path, 0o600))
            try #require(!volume.journal.isDurable(first.attributeSequence))
            #expect(volume.attributesHere(of: first.number) == nil)
            try await volume.journal.commit()
            #expect(volume.attributesHere(of: first.number)?.mode == 0o100600)
        }
    }

    /// F6: pages are not dropped before a thread that was told another size is heard of, nor much later.
    @Test(arguments: [true, false]) func readersAreWaitedFor(isHeard: Bool) throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            let first = try inode(two, on: two.first)
            let file = try await two.first.kernel.open(path, .reading)
            let begin = two.engine.clock.now
            _ = try await volume.getAttributes(first.handle, asker: .reader(7), nil)
            try #require(first.toldSize.waitBeforeInvalidation(at: begin) != nil)
            let done = Outcome<Void>()
            two.second.engine.spawn {
                do throws(FileError) {
                    _ = try await two.second.perform(
                        .write(path, 0, count: 100, pattern: 2, synchronizes: false)
                    )
                } catch {
                    Issue.record("\(error)")
                }
                done.deliver(())
            }
            await two.engine.sleep(nanoseconds: 12_000_000)
            #expect(done.value == nil && first.glock.held == .protectedRead)
            #expect(first.glock.machine.isDemoting)
            if isHeard { volume.isHeard(first, 7) }
            while first.glock.machine.isDemoting { await two.engine.sleep(nanoseconds: 10_000) }
            let took = two.engine.clock.now.rawValue - begin.rawValue
            #expect(isHeard ? took < 18_000_000 : took >= 20_000_000)
            #expect(took < 30_000_000)
            await done.get()
            try await two.first.kernel.close(file)
        }
    }
}
