import BlockIO
import DiskFormat
import Execution
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct JournalTests {
    @Test func openMarksTheJournalInUse() throws {
        try onTestVolume(seed: 1) { node in
            let clean = try await JournalReplay.isClean(
                device: node.host,
                superblock: node.volume.superblock,
                slot: SlotIndex(0)
            )
            #expect(!clean)
            await #expect(throws: StorageError.self) {
                _ = try await TestNode(
                    volume: node.volume,
                    disk: node.disk,
                    engine: node.engine
                )
            }
            try await node.journal.close()
            let cleanAgain = try await JournalReplay.isClean(
                device: node.host,
                superblock: node.volume.superblock,
                slot: SlotIndex(0)
            )
            #expect(cleanAgain)
            await #expect(throws: StorageError.stopped) {
                _ = try await node.journal.begin(blocks: 1)
            }
        }
    }

    @Test func aCommitIsInTheLogAndNotInPlace() throws {
        try onTestVolume(seed: 2) { node in
            try await node.store(7, in: [1, 2, 3])
            #expect(node.journal.statistics.runningBlocks == 3)
            try await node.journal.commit()
            #expect(node.journal.statistics.runningBlocks == 0)
            #expect(node.durableValue(1) == 0)
            let block = try await node.block(1)
            #expect(block.version == 2)
            #expect(block.isDirty)
            try await node.journal.checkpointAll()
            #expect(node.durableValue(1) == 7)
            #expect(!block.isDirty)
            #expect(node.journal.statistics.usedBlocks == 0)
            #expect(node.journal.statistics.blocksAwaitingHome == 0)
        }
    }

    /// An operation that has begun and has announced no block yet is not overlooked when the log is emptied.
    @Test func emptyingTheLogWaitsForWhoHasJustBegun() throws {
        try onTestVolume(seed: 14) { node in
            let block = try await node.block(1)
            let transaction = try await node.journal.begin(blocks: 1)
            let isDone = Outcome<Bool>()
            node.engine.spawn {
                do throws(StorageError) {
                    try await node.journal.checkpointAll()
                    isDone.deliver(true)
                } catch {
                    isDone.deliver(false)
                }
            }
            await node.engine.sleep(nanoseconds: 100_000_000)
            #expect(isDone.value == nil, "the log is said to be empty under an open transaction")
            transaction.modify(block)
            block.bytes.put64(9, 64)
            transaction.end()
            #expect(await isDone.get())
            #expect(node.durableValue(1) == 9)
            #expect(node.journal.statistics.usedBlocks == 0)
        }
    }

    @Test func emptyingTheLogDoesNotWaitForWhoChangesNothing() throws {
        try onTestVolume(seed: 15) { node in
            let transaction = try await node.journal.begin(blocks: 1)
            let isDone = Outcome<Bool>()
            node.engine.spawn {
                isDone.deliver((try? await node.journal.checkpointAll()) != nil)
            }
            await node.engine.sleep(nanoseconds: 1_000_000)
            transaction.end()
            #expect(await isDone.get())
            #expect(node.journal.statistics.commits == 0)
        }
    }

    @Test func atRestTheLogIsCleanAndNobodyBegins() throws {
        try onTestVolume(seed: 16) { node in
            func isClean() async throws -> Bool {
                try await JournalReplay.isClean(
                    device: node.host,
                    superblock: node.volume.superblock,
                    slot: SlotIndex(0)
                )
            }
            try await node.store(3, in: [1, 2])
            try await node.journal.rest()
            #expect(node.durableValue(2) == 3)
            #expect(try await isClean())
            #expect(node.journal.beginIfPossible(blocks: 1) == nil)
            let writes = node.disk.counters.writes
            try await node.journal.checkpointAll()
            try await node.journal.commit()
            var hasBegun = false
            let isDone = Outcome<Void>()
            node.engine.spawn {
                (try? await node.journal.begin(blocks: 1))?.end()
                hasBegun = true
                isDone.deliver(())
            }
            await node.engine.sleep(nanoseconds: 100_000_000)
            #expect(!hasBegun && node.disk.counters.writes == writes)
            try await node.journal.wake()
            await isDone.get()
            #expect(try await !isClean())
            try await node.store(4, in: [1])
            try await node.journal.rest()
            // Closed at rest, nothing more is written.
            let last = node.disk.counters.writes
            try await node.journal.close()
            #expect(node.disk.counters.writes == last)
            #expect(try await isClean())
            #expect(node.durableValue(1) == 4)
        }
    }

    @Test func concurrentCommitsShareFlushes() throws {
        try onTestVolume(seed: 3) { node in
            for index in 1...16 { _ = try await node.block(index) }
            let before = node.disk.counters.flushes
            var left = 16
            let done = Signal()
            for index in 1...16 {
                node.engine.spawn {
                    do {
                        try await node.store(UInt64(index), in: [index])
                        try await node.journal.commit()
                    } catch {
                        Issue.record("\(error)")
                    }
                    left -= 1
                    done.notify()
                }
            }
            while left > 0 { await done.wait() }
            let flushes = node.disk.counters.flushes - before
            #expect(flushes >= 1 && flushes <= 3, "\(flushes) flushes for 16 commits")
            #expect(node.journal.statistics.commits <= 3)
            let idle = node.disk.counters.flushes
            try await node.journal.commit()
            #expect(node.disk.counters.flushes == idle, "nothing to commit, nothing flushed")
        }
    }

    @Test func settleWritesOneLockOnly() throws {
        try onTestVolume(seed: 4) { node in
            try await node.store(5, in: [1])
            try await node.store(6, in: [2])
            #expect(!node.journal.isSettled(covering: node.volume.lock(1)))
            try await node.journal.settle(covering: node.volume.lock(1))
            #expect(node.journal.isSettled(covering: node.volume.lock(1)))
            #expect(!node.journal.isSettled(covering: node.volume.lock(2)))
            #expect(node.visibleValue(1) == 5)
            #expect(node.visibleValue(2) == 0)
            node.cache.drop(covering: node.volume.lock(1))
            #expect(!node.cache.hasBlocks(covering: node.volume.lock(1)))
            let again = try await node.block(1)
            #expect(again.bytes.readOnly.u64(64) == 5)
        }
    }

    @Test func theLogGoesRoundManyTimes() throws {
        try onTestVolume(seed: 5) { node in
            for round in 1...120 as ClosedRange<UInt64> {
                let first = Int(round * 7 % 60) + 1
                try await node.store(round, in: Array(first..<first + 30))
                if round % 3 == 0 { try await node.journal.commit() }
            }
            try await node.journal.commit()
            let statistics = node.journal.statistics
            #expect(statistics.blocksLogged > 4 * statistics.ringBlocks)
            #expect(statistics.usedBlocks <= statistics.ringBlocks)
            try await node.journal.close()
            // Round 120 wrote 1 ... 30, round 119 the 30 from 54 on.
            #expect(node.durableValue(30) == 120)
            #expect(node.durableValue(60) == 119)
        }
    }

    @Test func manyTasksOnASmallLogDoNotDeadlock() throws {
        for seed in 10..<40 as Range<UInt64> {
            try onTestVolume(seed: seed) { node in
                let limit = node.journal.largestTransaction
                var dice = SeededGenerator(seed: seed)
                var left = 12
                let done = Signal()
                for _ in 0..<12 {
                    var own = dice.fork()
                    node.engine.spawn {
                        do {
                            for _ in 0..<12 {
                                let count = 1 + own.below(min(40, limit))
                                let first = 1 + own.below(99 - count)
                                var blocks: [MetadataBlock] = []
                                for index in first..<first + count {
                                    blocks.append(try await node.block(index))
                                }
                                let bound = own.oneIn(4) ? limit : count
                                let transaction = try await node.journal.begin(blocks: bound)
                                await node.engine.sleep(nanoseconds: UInt64(own.below(300_000)))
                                for block in blocks { transaction.modify(block) }
                                transaction.end()
                                if own.oneIn(5) { try await node.journal.commit() }
                            }
                        } catch {
                            Issue.record("\(error)")
                        }
                        left -= 1
                        done.notify()
                    }
                }
                while left > 0 { await done.wait() }
                try await node.journal.close()
            }
        }
    }

    @Test func theTimerCommits() throws {
        try onTestVolume(seed: 6) { node in
            var committed = false
            let transaction = try await node.journal.begin(blocks: 1)
            transaction.modify(try await node.block(1))
            transaction.whenCommitted { committed = true }
            transaction.end()
            await node.engine.sleep(nanoseconds: 4_900_000_000)
            #expect(!committed)
            await node.engine.sleep(nanoseconds: 300_000_000)
            #expect(committed)
            #expect(node.journal.isDurable(transaction.sequence))
        }
    }

    private final class Data: OrderedData {
        let host: SimulatedHost
        let buffer = AlignedBuffer(zeroed: 4096)
        var writes = 0

        init(host: SimulatedHost) { self.host = host }

        func writeOrderedData() async throws(StorageError) {
            writes += 1
            buffer.bytes[0] = 99
            do throws(DeviceError) {
                try await host.write(buffer.readOnly, at: 0)
            } catch {
                throw .device(error)
            }
        }
    }

    @Test func orderedDataIsDurableBeforeTheCommit() throws {
        try onTestVolume(seed: 7) { node in
            let data = Data(host: node.host)
            node.disk.record()
            let transaction = try await node.journal.begin(blocks: 1)
            transaction.modify(try await node.block(1))
            transaction.order(data)
            transaction.order(data)
            transaction.end()
            try await node.journal.commit()
            #expect(data.writes == 1)
            var order: [String] = []
            for event in node.disk.events {
                switch event {
                case .wrote(_, _, let offset, _): order.append(offset == 0 ? "data" : "log")
                case .flushed: order.append("flush")
                }
            }
            #expect(order == ["data", "flush", "log", "flush"])
        }
    }

    @Test func aFreedBlockIsNotWrittenHome() throws {
        try onTestVolume(seed: 8) { node in
            try await node.store(5, in: [1, 2])
            try await node.journal.commit()
            let block = try await node.block(1)
            let transaction = try await node.journal.begin(blocks: 2)
            transaction.forget(block)
            transaction.end()
            #expect(node.cache.cached(node.volume.address(1)) == nil)
            try await node.journal.checkpointAll()
            #expect(node.durableValue(1) == 0)
            #expect(node.durableValue(2) == 5)
        }
    }

    @Test func anImageThatIsGivenUpBeforeItsWriteStaysAway() throws {
        try onTestVolume(seed: 12) { node in
            _ = Probes.take()
            try await node.store(5, in: [1, 2, 3])
            try await node.journal.commit()
            await node.journal.holdWritesHome()
            let isDone = Outcome<Bool>()
            node.engine.spawn {
                do throws(StorageError) {
                    try await node.journal.checkpointAll()
                    isDone.deliver(true)
                } catch {
                    isDone.deliver(false)
                }
            }
            // All three are chosen, and wait.
            await node.engine.sleep(nanoseconds: 1_000_000)
            let block = try await node.block(2)
            let transaction = try await node.journal.begin(blocks: 1)
            transaction.forget(block)
            transaction.end()
            try await node.journal.commit()
            #expect(isDone.value == nil)
            node.journal.releaseWritesHome()
            #expect(await isDone.get())
            try await node.journal.close()
            #expect([1, 2, 3].map { node.durableValue($0) } == [5, 0, 5])
            #expect(Probes.take().contains(.imageGivenUp))
        }
    }

    @Test func whoComesWhileATransactionClosesIsInTheNextOne() throws {
        try onTestVolume(seed: 13) { node in
            _ = Probes.take()
            let first = try await node.journal.begin(blocks: 1)
            first.modify(try await node.block(1))
            let outcome = Outcome<UInt64>()
            node.engine.spawn {
                // Nobody else asks for it: it ends well, or nobody hears of the other one.
                try? await node.journal.commit()
            }
            await node.engine.sleep(nanoseconds: 1_000_000)
            node.engine.spawn {
                guard let second = try? await node.journal.begin(blocks: 1) else { return }
                outcome.deliver(second.sequence)
                second.end()
            }
            await node.engine.sleep(nanoseconds: 1_000_000)
            #expect(outcome.value == nil)
            first.end()
            #expect(await outcome.get() == first.sequence + 1)
            #expect(Probes.take().contains(.waitForClosing))
            try await node.journal.close()
        }
    }

    @Test func aFreedBlockMayBecomeAnotherAtOnce() throws {
        for seed in 0..<30 as Range<UInt64> {
            try onTestVolume(seed: seed) { node in
                try await node.store(5, in: [1])
                if seed % 2 == 0 { try await node.journal.commit() }
                let old = try await node.block(1)
                let transaction = try await node.journal.begin(blocks: 3)
                let version = old.version
                transaction.forget(old)
                let new = transaction.create(
                    node.volume.address(1),
                    kind: .inode,
                    owner: 77,
                    generation: 3,
                    firstVersion: version + 1,
                    covering: node.volume.lock(50)
                )
                new.bytes.put64(8, 64)
                transaction.end()
                if seed % 3 == 0 {
                    try await node.journal.settle(covering: node.volume.lock(1))
                }
                try await node.journal.close()
                #expect(node.durableValue(1) == 8)
            }
        }
    }

    /// J8: a write in place that was in flight when its block was freed must have ended before
    /// anybody else may use the place.
    @Test(arguments: [true, false])
    func lateWritesOfFreedBlocksAreWaitedFor(bySettle: Bool) throws {
        try onTestVolume(seed: 11) { node in
            func writesTake(_ nanoseconds: UInt64) {
                node.disk.latency = DiskLatency(
                    read: 1000...1000,
                    write: nanoseconds...nanoseconds,
                    flush: 1000...1000,
                    slowOneIn: 0
                )
            }
            try await node.store(5, in: [1, 2])
            try await node.journal.commit()
            writesTake(50_000_000)
            node.engine.spawn {
                do {
                    try await node.journal.settle(covering: node.volume.lock(1))
                } catch {
                    Issue.record("\(error)")
                }
            }
            await node.engine.sleep(nanoseconds: 1_000_000)
            writesTake(1_000_000)
            let transaction = try await node.journal.begin(blocks: 1)
            transaction.modify(try await node.block(2))
            transaction.forget(try await node.block(1))
            transaction.end()
            try await node.journal.commit()
            #expect(node.visibleValue(1) == 0, "the write is still in flight")
            if bySettle {
                try await node.journal.settle(covering: node.volume.lock(2))
            } else {
                try await node.journal.checkpointAll()
            }
            #expect(node.visibleValue(1) == 5, "nothing comes later")
        }
    }

    /// A version at the end of the numbers is not counted on: what was written then could not be read.
    @Test func aVersionThatCannotGrowStopsTheJournal() throws {
        try onTestVolume(seed: 1) { node in
            var failures: [StorageError] = []
            node.journal.onFailure = { failures.append($0) }
            try await node.store(1, in: [1])
            let block = try await node.block(1)
            BlockHeader.setVersion(BlockHeader.largestNumber, of: block.bytes)
            await #expect(throws: StorageError.self) { try await node.journal.commit() }
            #expect(
                failures == [
                    .format(
                        .invalidField(
                            node.volume.address(1),
                            field: "version",
                            value: BlockHeader.largestNumber
                        )
                    )
                ]
            )
            #expect(node.disk.counters.writes == 0 || node.visibleValue(1) == 0)
        }
    }

    @Test func failuresStopTheJournalOnce() throws {
        for fault in 0..<3 {
            try onTestVolume(seed: UInt64(fault)) { node in
                try await node.store(1, in: [1, 2, 3])
                var failures = 0
                node.journal.onFailure = { _ in failures += 1 }
                switch fault {
                case 0: node.disk.faults.failWrite = 1
                case 1: node.disk.faults.failFlush = 1
                default:
                    try await node.journal.commit()
                    node.disk.faults.failWrite = 1
                }
                await #expect(throws: StorageError.self) {
                    try await node.journal.checkpointAll()
                }
                #expect(failures == 1)
                #expect(node.journal.isStopped)
                await #expect(throws: StorageError.stopped) {
                    _ = try await node.journal.begin(blocks: 1)
                }
                await #expect(throws: StorageError.stopped) {
                    try await node.journal.settle(covering: node.volume.lock(1))
                }
                let writes = node.disk.counters.writes
                await node.engine.sleep(nanoseconds: 10_000_000_000)
                #expect(node.disk.counters.writes == writes, "J9")
            }
        }
    }

    @Test func stoppingWakesEverybody() throws {
        try onTestVolume(seed: 9) { node in
            let block = try await node.block(1)
            let open = try await node.journal.begin(blocks: 1)
            open.modify(block)
            var errors: [StorageError] = []
            let done = Signal()
            for attempt in 0..<3 {
                node.engine.spawn {
                    do throws(StorageError) {
                        switch attempt {
                        case 0: try await node.journal.commit()
                        case 1: try await node.journal.settle(covering: node.volume.lock(1))
                        default:
                            let largest = node.journal.largestTransaction
                            try await node.journal.begin(blocks: largest).end()
                        }
                    } catch {
                        errors.append(error)
                    }
                    done.notify()
                }
            }
            await node.engine.sleep(nanoseconds: 1_000_000)
            #expect(errors.isEmpty)
            node.journal.stop()
            while errors.count < 3 { await done.wait() }
            #expect(errors == [.stopped, .stopped, .stopped])
            open.end()
        }
    }

    @Test func moreBlocksThanDeclaredTrap() async {
        let trapped = await #expect(
            processExitsWith: .failure,
            observing: [\.standardErrorContent]
        ) {
            try onTestVolume(seed: 1) { node in
                let (one, two) = (try await node.block(1), try await node.block(2))
                let transaction = try await node.journal.begin(blocks: 1)
                transaction.modify(one)
                transaction.modify(two)
                transaction.end()
            }
        }
        #expect(trapped.hasSaid("J3:"))
    }

    @Test func blocksAnotherOperationBroughtInCountAsWell() async {
        let trapped = await #expect(
            processExitsWith: .failure,
            observing: [\.standardErrorContent]
        ) {
            try onTestVolume(seed: 1) { node in
                try await node.store(1, in: [1, 2])
                let (one, two) = (try await node.block(1), try await node.block(2))
                let transaction = try await node.journal.begin(blocks: 1)
                transaction.modify(one)
                transaction.modify(two)
                transaction.end()
            }
        }
        #expect(trapped.hasSaid("J3:"))
    }

    @Test func aTransactionWithoutItsEndTraps() async {
        let trapped = await #expect(
            processExitsWith: .failure,
            observing: [\.standardErrorContent]
        ) {
            try onTestVolume(seed: 1) { node in
                _ = try await node.journal.begin(blocks: 1)
                await node.engine.sleep(nanoseconds: 1)
            }
        }
        #expect(trapped.hasSaid("J1:"))
    }

    @Test func droppingADirtyLockTraps() async {
        let trapped = await #expect(
            processExitsWith: .failure,
            observing: [\.standardErrorContent]
        ) {
            try onTestVolume(seed: 1) { node in
                try await node.store(1, in: [1])
                node.cache.drop(covering: node.volume.lock(1))
            }
        }
        #expect(trapped.hasSaid("M4:"))
    }
}
