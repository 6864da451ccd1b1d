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

/// Times that are not in the inode's block yet: those that only memory has (LazyTimes.swift, B1 to B3), and those of accesses
/// under a shared lock (AccessTimes.swift, A1 to A5). The workloads compare no times of access.
@Suite struct KeptTimesTests {
    private let path = [Array("quiet".utf8)]
    private static let second: UInt64 = 1_000_000_000
    /// More than fits into an inode of any volume.
    private static let size = 200_000

    /// Two nodes, and a file about which they have never fought: the first node has made it.
    private func run(_ body: @escaping (TwoNodes) async throws -> Void) throws {
        try runOnTwoNodes(synchronizes: true) { two in
            try await make(path, on: two.first)
            try await body(two)
        }
    }

    private func make(_ path: PathNames, on node: SimulatedNode) async throws {
        _ = try await node.perform(.create(path, isExclusive: true))
        _ = try await node.perform(
            .write(path, 0, count: Self.size, pattern: 1, synchronizes: true)
        )
    }

    private func inode(on node: SimulatedNode) async throws -> Inode {
        let found = try await node.kernel.walk(path)
        defer { node.kernel.unpin(found) }
        return try node.volume.inode(found.handle)
    }

    private func isUnstored(_ inode: Inode) -> Bool { inode.stored?.hasUnstoredTimes == true }

    /// Where an expectation that fails would describe the whole node.
    private func expect(
        _ inode: Inode,
        isUnstored expected: Bool,
        _ location: SourceLocation = #_sourceLocation
    ) {
        let found = isUnstored(inode)
        #expect(found == expected, sourceLocation: location)
    }

    /// What the file system says, whatever the kernel keeps.
    private func look(_ node: SimulatedNode) async throws -> FileAttributes {
        let found = try await node.kernel.walk(path)
        defer { node.kernel.unpin(found) }
        return try await node.volume.getAttributes(found.handle, asker: nil, nil).attributes
    }

    /// Bytes in place of others, which changes nothing but data and times.
    private func overwrite(_ node: SimulatedNode, _ path: PathNames) async throws {
        _ = try await node.perform(.write(path, 0, count: 100, pattern: 2, synchronizes: false))
    }

    /// A read that the kernel asks for.
    private func read(_ node: SimulatedNode) async throws {
        let found = try await node.kernel.walk(path)
        let opened = try await node.volume.open(found.handle, .reading, nil)
        let buffer = AlignedBuffer(byteCount: 4096)
        _ = try await node.volume.read(
            found.handle,
            opened.handle,
            at: 0,
            into: buffer.bytes,
            isFill: false,
            reader: nil,
            nil
        )
        await node.volume.release(found.handle, opened.handle)
        node.kernel.unpin(found)
    }

    private func setAccess(
        on node: SimulatedNode,
        to time: Timestamp,
        others: Timestamp? = nil
    ) async throws {
        var change = AttributeChange()
        change.accessed = .at(time)
        change.modified = others.map { .at($0) }
        change.changed = others
        try await node.kernel.setAttributes(path, change)
    }

    // MARK: Times that only memory has

    /// What takes times out of memory.
    enum Way: CaseIterable, Sendable {
        case demotion, fsync, sync, freeze, unmount
    }

    /// Does it, and makes sure that what was only in memory is gone.
    private func take(_ way: Way, _ two: TwoNodes, _ inode: Inode) async throws {
        switch way {
        case .demotion: break
        case .fsync:
            let file = try await two.first.kernel.open(path, .writing)
            try await two.first.kernel.synchronize(file, dataOnly: true)
            expect(inode, isUnstored: true)  // fdatasync leaves them
            try await two.first.kernel.synchronize(file, dataOnly: false)
            two.cluster.kill(0)
            try await two.cluster.recover()
        case .sync:
            try await two.first.kernel.synchronizeAll()
            two.cluster.kill(0)
            try await two.cluster.recover()
        case .freeze:
            try await two.first.freeze(seconds: 0).get()
            expect(inode, isUnstored: false)
        case .unmount: try await two.cluster.unmount(0)
        }
    }

    @Test(arguments: Way.allCases) func whatMemoryHasIsSeenByOthers(way: Way) throws {
        try run { two in
            two.first.volume.times.isLazy = true
            try await overwrite(two.first, path)
            let inode = try await inode(on: two.first)
            let written = try await look(two.first)
            // Nobody is told by the writer any more, and no timer has stored them.
            await two.engine.sleep(nanoseconds: 2 * Self.second)
            expect(inode, isUnstored: true)
            try await take(way, two, inode)
            let shown = try await look(two.second)
            #expect(shown.modified == written.modified && shown.changed == written.changed)
            if way == .freeze { #expect(await two.second.thaw()) }
        }
    }

    @Test func whatIsOldIsStoredAndNothingElse() throws {
        try run { two in
            let volume = two.first.volume
            volume.times.isLazy = true
            try await overwrite(two.first, path)
            let inode = try await inode(on: two.first)
            await two.engine.sleep(nanoseconds: 2 * Self.second)
            try await volume.storeTimes(olderThan: 3 * Self.second)
            expect(inode, isUnstored: true)
            try await volume.storeTimes(olderThan: Self.second)
            expect(inode, isUnstored: false)
            #expect(volume.unstoredTimes.count == 0)
        }
    }

    /// B3: a freeze, an unmount or a sync stores what a timer has just begun with, too.
    @Test func whoStoresAllFindsWhatIsBeingStored() throws {
        try run { two in
            let volume = two.first.volume
            let other = [Array("other".utf8)]
            volume.times.isLazy = true
            try await make(other, on: two.first)
            for path in [path, other] { try await overwrite(two.first, path) }
            let inodes = volume.unstoredTimes
            try #require(inodes.count == 2)
            // A transaction waits for the log barrier now.
            await volume.locks.giveWay(volume.barrierGlock)
            let begun = Outcome<Void>()
            let ended = Outcome<Void>()
            two.first.engine.spawn {
                begun.deliver(())
                await volume.storeAllTimes()
                ended.deliver(())
            }
            await begun.get()
            try await volume.storeTimes(olderThan: 0)
            let areLeft = inodes.map(isUnstored)
            #expect(areLeft == [false, false])
            await ended.get()
            #expect(volume.unstoredTimes.count == 0)
        }
    }

    /// What cannot be stored is not forgotten: it is said, and tried again.
    @Test func whatFailsIsSaidAndTriedAgain() throws {
        try run { two in
            let volume = two.first.volume
            volume.times.isLazy = true
            try await overwrite(two.first, path)
            let inode = try await inode(on: two.first)
            volume.times.isLazy = false
            volume.journal.stop()
            await volume.storeOldTimes()
            expect(inode, isUnstored: true)
            #expect(inode.isUnstoredListed && volume.unstoredTimes.count == 1)
            #expect(two.first.reports.contains { $0.hasPrefix("storing times failed") })
        }
    }

    /// A disk that fails when times are stored makes the node withdraw, as any other failure of metadata does.
    @Test func aDiskThatFailsIsNoticed() throws {
        try run { two in
            let volume = two.first.volume
            volume.times.isLazy = true
            try await overwrite(two.first, path)
            two.first.member.host.faults.failEverything = true
            volume.times.isLazy = false
            await volume.storeOldTimes()
            await two.engine.sleep(nanoseconds: Self.second)
            #expect(two.first.withdrawal?.contains("fail") == true)
        }
    }

    // MARK: Times of access

    /// relatime: an access counts if the time of the last one would not be newer than the last change, or is a day old.
    @Test func oneAccessADayCounts() throws {
        try run { two in
            let node = two.first
            for node in [two.first, two.second] { node.volume.times = TimeRules() }
            let day: Int64 = 86_400
            let now = node.volume.now
            func ago(_ seconds: Int64) -> Timestamp {
                Timestamp(seconds: now.seconds - seconds, nanoseconds: 5)
            }
            for (age, counts) in [(day - 60, false), (day, true), (30 * day, true)] {
                try await setAccess(on: node, to: ago(age), others: ago(40 * day))
                try await read(node)
                let accessed = try await look(node).accessed
                #expect(accessed == ago(age) || counts, "\(age) s ago")
                #expect(accessed >= now || !counts, "\(age) s ago")
            }
            // The same under a shared lock.
            try await setAccess(on: node, to: ago(2 * day), others: ago(40 * day))
            try await read(two.second)
            let inode = try await inode(on: node)
            try #require(inode.glock.held == .protectedRead)
            await two.engine.sleep(nanoseconds: 2 * Self.second)
            let told = try await look(node).accessed
            #expect(told >= now)
            try await read(node)
            #expect(try await look(node).accessed == told)
            // A change makes the next one count.
            try await setAccess(on: node, to: ago(10), others: ago(5))
            try await read(node)
            #expect(try await look(node).accessed >= now)
        }
    }

    /// A read under PR takes no lock, and is shown on both nodes; who changes the file keeps it (A2, A3).
    @Test func aReadIsShownEverywhere() throws {
        try run { two in
            for node in [two.first, two.second] {
                node.volume.times.access = .strict
                node.volume.times.isLazy = true
            }
            let (first, second) = (
                try await inode(on: two.first), try await inode(on: two.second)
            )
            try await read(two.second)
            let before = try await look(two.second).accessed
            _ = try await two.second.kernel.status(path)
            await two.engine.sleep(nanoseconds: 3 * Self.second)
            try await read(two.first)
            let time = try #require(first.access.time)
            #expect(time > before)
            #expect(first.glock.held == .protectedRead && second.glock.held == .protectedRead)
            #expect(try await look(two.first).accessed == time)
            await two.engine.sleep(nanoseconds: Self.second)
            // Its kernel had the attributes, and was told to forget them.
            #expect(try await two.second.kernel.status(path).accessed == time)
            _ = try await two.second.perform(.mode(path, 0o600))
            #expect(second.access.time == nil && second.stored?.record.accessed == time)
            two.cluster.kill(0)
            try await two.cluster.recover()
            #expect(try await look(two.second).accessed == time)
        }
    }

    /// A1, with words of the read that come too late.
    @Test func whoSetsTimesOutdoesEarlierReads() throws {
        try run { two in
            two.first.volume.times.access = .strict
            try await read(two.second)
            await two.engine.sleep(nanoseconds: 3 * Self.second)
            try await read(two.first)
            let first = try await inode(on: two.first)
            let time = try #require(first.access.time)
            let given = Timestamp(seconds: 1_000_000, nanoseconds: 7)
            try await setAccess(on: two.second, to: given)
            func show(_ expected: Timestamp) async throws {
                for node in [two.first, two.second] {
                    node.volume.hearAccess(to: first.number, at: time)
                    #expect(try await look(node).accessed == expected)
                }
            }
            try await show(given)
            // Who gets EX would store it.
            for node in [two.first, two.second] {
                let inode = try await inode(on: node)
                inode.access.time = time
                _ = try await node.perform(.mode(path, 0o640))
                try await show(given)
            }
        }
    }

    /// What was heard under EX goes with the lock: whoever comes later may not have heard it.
    @Test func whatWasHeardGoesWithTheLock() throws {
        try run { two in
            for node in [two.first, two.second] { node.volume.times.access = .never }
            try await overwrite(two.first, path)
            await two.engine.sleep(nanoseconds: 3 * Self.second)
            let first = try await inode(on: two.first)
            try #require(first.glock.held == .exclusive)
            let time = two.first.volume.now
            two.first.volume.hearAccess(to: first.number, at: time)
            #expect(try await look(two.second).accessed == time)
        }
    }

    /// Whoever comes hears of what was read before; inodes that go leave what is known of them.
    @Test func whatIsPendingIsNotForgotten() throws {
        try run { two in
            let volume = two.first.volume
            volume.times.access = .strict
            volume.times.isLazy = true
            try await read(two.second)
            try await two.cluster.unmount(1)
            await two.engine.sleep(nanoseconds: 3 * Self.second)
            try await read(two.first)
            let inode = try await inode(on: two.first)
            let time = try #require(inode.access.time)
            let second = try #require(try await two.cluster.mount(1))
            await two.engine.sleep(nanoseconds: 2 * Self.second)
            #expect(try await look(second).accessed == time)
            // The first node forgets the inode.
            await two.first.kernel.invalidateEntries(of: .root, names: path)
            two.first.kernel.forgetUnused()
            await two.engine.sleep(nanoseconds: Self.second)
            for glock in [inode.glock, inode.openGlock] {
                if let glock { volume.locks.reclaim(glock) }
            }
            await two.engine.sleep(nanoseconds: Self.second)
            volume.sweep()
            let isKnown = volume.inodes[inode.number] != nil
            try #require(!isKnown)
            #expect(try await look(two.first).accessed == time)
        }
    }

    /// A4, A5: while the volume stands still times stay pending, under EX too.
    @Test func whatStandsStillIsNotChanged() throws {
        try run { two in
            let volume = two.first.volume
            volume.times = TimeRules()
            volume.times.access = .strict
            let file = try await two.first.kernel.open(path, .both)
            await two.engine.sleep(nanoseconds: 3 * Self.second)
            try await two.first.freeze(seconds: 0).get()
            let inode = try await inode(on: two.first)
            let buffer = AlignedBuffer(byteCount: 4096)
            for _ in 0..<2 {
                _ = try await volume.read(
                    file.inode.handle,
                    file.handle,
                    at: 0,
                    into: buffer.bytes,
                    isFill: true,
                    reader: nil,
                    nil
                )
                try #require(inode.glock.held == .exclusive)
                expect(inode, isUnstored: false)
            }
            let time = try #require(inode.access.time)
            #expect(inode.stored?.record.accessed != time)
            #expect(await two.first.thaw())
            await two.engine.sleep(nanoseconds: Self.second)
            #expect(inode.access.time == nil)
            expect(inode, isUnstored: false)
            #expect(inode.stored?.record.accessed == time)
            try await two.first.kernel.close(file)
        }
    }
}

extension MountedVolume {
    /// As `storeTimes`, of all; where an error is the test's failure.
    fileprivate func storeAllTimes() async {
        do throws(FileError) {
            try await storeTimes(olderThan: 0)
        } catch {
            Issue.record("\(error)")
        }
    }
}
