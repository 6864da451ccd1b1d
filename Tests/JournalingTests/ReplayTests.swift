import BlockIO
import DiskFormat
import Execution
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct ReplayTests {
    private func replay(_ node: TestNode, _ device: any BlockDevice) async throws -> ReplayReport {
        try await JournalReplay.replay(
            device: device,
            superblock: node.volume.superblock,
            slot: SlotIndex(0)
        )
    }

    /// A disk after a power cut in which everything that was written arrived.
    private func survivor(_ node: TestNode) -> MemoryBlockDevice {
        MemoryBlockDevice(content: node.disk.visible, alignment: 512)
    }

    private func value(_ index: Int, _ node: TestNode, _ device: MemoryBlockDevice) -> UInt64 {
        let offset = node.volume.superblock.byteOffset(node.volume.address(index))
        return device.content.bytes(at: offset + 64, count: 8).withUnsafeBytes {
            $0.loadUnaligned(as: UInt64.self)
        }
    }

    @Test func theReportSaysWhatWasDone() throws {
        try onTestVolume(seed: 1) { node in
            try await node.store(1, in: [1, 2])
            try await node.journal.commit()
            try await node.store(2, in: [2, 3])
            try await node.journal.settle(covering: node.volume.lock(3))
            try await node.store(3, in: [4])  // Never committed.
            let device = survivor(node)
            let seen = try await JournalReplay.inspect(
                device: device,
                superblock: node.volume.superblock,
                slot: SlotIndex(0)
            )
            #expect(seen.transactions == 2 && seen.written == 0 && device.writeCount == 0)
            let report = try await replay(node, device)
            #expect(report.transactions == 2)
            #expect(report.images == 4)
            #expect(report.blocks == 3)
            #expect(report.written == 2)
            #expect(report.skipped == 1)
            #expect(report.footprint == [1, 2, 3].map(node.volume.lock))
            #expect((1...4).map { value($0, node, device) } == [1, 2, 2, 0])
            #expect(try await replay(node, device) == ReplayReport(), "clean: nothing to do")
        }
    }

    @Test func aTornLastTransactionIsTheEndOfTheLog() throws {
        try onTestVolume(seed: 2) { node in
            try await node.store(1, in: [1, 2, 3])
            try await node.journal.commit()
            let before = node.disk.visible
            try await node.store(2, in: [1, 2, 3])
            try await node.journal.commit()
            let after = node.disk.visible
            let start = node.volume.superblock.byteOffset(node.volume.descriptor().journalStart)
            // The second transaction: descriptor, three images, commit, behind the five of the
            // first.
            for lost in 0..<5 * 8 {
                var content = after
                let offset = start + UInt64(6 * 4096 + lost * 512)
                let old = before.bytes(at: offset, count: 512)
                guard old != after.bytes(at: offset, count: 512) else { continue }
                old.withUnsafeBytes { content.write($0, at: offset) }
                let device = MemoryBlockDevice(content: content, alignment: 512)
                let report = try await replay(node, device)
                #expect(report.transactions == 1, "unit \(lost) of the transaction is missing")
                #expect((1...3).map { value($0, node, device) } == [1, 1, 1])
            }
        }
    }

    @Test func theNextOwnerNeverUsesASequenceNumberAgain() throws {
        try onTestVolume(seed: 3) { node in
            try await node.store(1, in: [1])
            try await node.journal.commit()
            let device = survivor(node)
            _ = try await replay(node, device)
            let journal = try await Journal.open(
                device: device,
                superblock: node.volume.superblock,
                descriptor: node.volume.descriptor(),
                cache: node.cache,
                engine: node.engine
            )
            let transaction = try await journal.begin(blocks: 0)
            #expect(transaction.sequence == 3, "1 is in the log, 2 may have been begun")
            transaction.end()
        }
    }

    @Test func damageIsAnErrorAndNothingIsWritten() throws {
        try onTestVolume(seed: 4) { node in
            try await node.store(1, in: [1, 2])
            try await node.journal.commit()
            let superblock = node.volume.superblock
            let start = node.volume.descriptor().journalStart
            func attempt(
                _ damage: (inout [UInt8]) -> Void,
                at address: BlockAddress,
                seal: Bool
            ) async throws {
                let device = survivor(node)
                let offset = superblock.byteOffset(address)
                var bytes = device.content.bytes(at: offset, count: 4096)
                damage(&bytes)
                bytes.withUnsafeMutableBytes { if seal { BlockHeader.seal($0) } }
                bytes.withUnsafeBytes { device.content.write($0, at: offset) }
                await #expect(throws: StorageError.self) { _ = try await replay(node, device) }
                #expect(device.writeCount == 0)
            }
            func put(_ value: UInt64, _ offset: Int) -> (inout [UInt8]) -> Void {
                { bytes in bytes.withUnsafeMutableBytes { $0.put64(value, offset) } }
            }
            // The header: a flipped bit, another length, an impossible tail, another slot.
            try await attempt({ $0[70] ^= 1 }, at: start, seal: false)
            try await attempt(put(100 << 32 | 1, 72), at: start, seal: true)
            try await attempt(put(256 << 32 | 256, 72), at: start, seal: true)
            try await attempt(put(1, 48), at: start, seal: true)
            // The slot's descriptor.
            try await attempt(
                { $0[70] ^= 1 },
                at: superblock.slotDescriptor(SlotIndex(0)),
                seal: false
            )
            // A descriptor of the log that points at the superblock, outside the volume, or to
            // nothing.
            for wild in [0, 16, superblock.blockCount, .max] {
                try await attempt(put(wild, 80), at: start + 1, seal: true)
            }
            try await attempt({ $0[80 + 36] = 200 }, at: start + 1, seal: true)
            try await attempt(put(UInt64(UInt32.max), 64), at: start + 1, seal: true)
            // An entry with another version than its image.
            try await attempt(put(77, 88), at: start + 1, seal: true)
        }
    }

    /// Puts a block of a version into a place; torn: its end is that of another.
    private func overwrite(
        _ index: Int,
        _ node: TestNode,
        _ device: MemoryBlockDevice,
        version: UInt64,
        value: UInt64,
        torn: Bool
    ) {
        let buffer = AlignedBuffer(zeroed: 4096)
        let superblock = node.volume.superblock
        BlockHeader(
            kind: .extentNode,
            address: node.volume.address(index),
            version: version,
            volume: superblock.volume,
            owner: UInt64(1000 + index),
            generation: 1
        ).write(to: buffer.bytes)
        buffer.bytes.put64(value, 64)
        BlockHeader.seal(buffer.bytes)
        if torn { buffer.bytes[4000] ^= 1 }
        let offset = superblock.byteOffset(node.volume.address(index))
        device.content.write(buffer.readOnly, at: offset)
    }

    @Test func aPlaceThatIsNewerOrWillBeIsLeftAlone() throws {
        try onTestVolume(seed: 5) { node in
            try await node.store(1, in: [1, 2, 3])
            try await node.journal.commit()
            let device = survivor(node)
            // A later owner's; a later owner's, in its log as well; this log's own, torn.
            overwrite(1, node, device, version: 3, value: 90, torn: false)
            overwrite(2, node, device, version: 3, value: 91, torn: true)
            overwrite(3, node, device, version: 2, value: 92, torn: true)
            let report = try await replay(node, device)
            #expect(report.skipped == 2 && report.written == 1)
            #expect((1...3).map { value($0, node, device) } == [90, 91, 1])
        }
    }

    /// R5: beside living nodes a place waits for quiet if its first bytes say that a later owner may
    /// be writing it, and no other does.
    @Test func onlyWhatMayBeInWriteWaitsForQuiet() throws {
        try onTestVolume(seed: 9) { node in
            try await node.store(1, in: [1, 2, 3, 4, 5, 6])
            try await node.journal.commit()
            let device = survivor(node)
            overwrite(1, node, device, version: 3, value: 90, torn: false)
            overwrite(2, node, device, version: 3, value: 91, torn: true)
            overwrite(3, node, device, version: 2, value: 92, torn: true)
            overwrite(4, node, device, version: 2, value: 93, torn: true)
            overwrite(5, node, device, version: 1, value: 94, torn: true)
            let log = try #require(
                try await JournalReplay.read(
                    device: device,
                    superblock: node.volume.superblock,
                    slot: SlotIndex(0)
                )
            )
            var calls = 0
            try await log.bringHome(isSettled: { $0 == node.volume.lock(6) }) {
                () async throws(StorageError) in
                calls += 1
                #expect((1...5).map { self.value($0, node, device) } == [90, 91, 92, 93, 1])
                // The later owner's write has arrived.
                self.overwrite(3, node, device, version: 3, value: 95, torn: false)
            }
            #expect(calls == 1)
            #expect((1...6).map { value($0, node, device) } == [90, 91, 95, 1, 1, 0])
            #expect(log.report.skipped == 4 && log.report.written == 2)
        }
    }

    /// More blocks than one descriptor lists, at every position of the ring: whole or not at all.
    @Test func transactionsOfSeveralDescriptorsAreWholeOrNotThere() throws {
        try runSimulated(seed: 8) { engine in
            let volume = TestVolume(slots: 1, journalLength: 1024, blocks: 512)
            let disk = SimulatedDisk(
                content: volume.make(blocks: 1..<300, covering: volume.owner),
                executor: engine.seededExecutor
            )
            let node = try await TestNode(volume: volume, disk: disk, engine: engine)
            let blocks = Array(1...230)  // Three descriptors.
            disk.record()
            var dice = SeededGenerator(seed: 8)
            for round in 1...25 as ClosedRange<UInt64> {
                let before = disk.events.count
                let content = disk.visible
                try await node.store(round, in: blocks)
                try await node.journal.commit()
                for trial in 0..<12 as Range<UInt64> {
                    // Some of the commit's writes arrived, in part; all of them at last.
                    let events = Array(disk.events[before...])
                    let found = SimulatedDisk.content(
                        base: content,
                        events: events,
                        count: trial == 0 ? events.count : dice.below(events.count),
                        alignment: 512,
                        seed: dice.next()
                    )
                    let device = MemoryBlockDevice(content: found, alignment: 512)
                    _ = try await replay(node, device)
                    let values = Set(blocks.map { value($0, node, device) })
                    #expect(values.count == 1, "round \(round): half of a transaction")
                    if trial == 0 { #expect(values == [round]) }
                }
            }
            #expect(node.journal.statistics.commits == 25)
        }
    }

    /// A logs a block and hands it over; B frees it, and its log comes round; C writes data there;
    /// A dies. The barrier before the block may become data is what keeps A's old image from being
    /// replayed.
    @Test(arguments: [true, false])
    func dataIsSafeFromOldImagesBehindTheBarrier(withBarrier: Bool) throws {
        try runSimulated(seed: 6) { engine in
            let volume = TestVolume(slots: 2)
            let disk = SimulatedDisk(
                content: volume.make(blocks: 1..<50, covering: volume.owner),
                executor: engine.seededExecutor
            )
            let a = try await TestNode(volume: volume, disk: disk, slot: 0, engine: engine)
            let b = try await TestNode(volume: volume, disk: disk, slot: 1, engine: engine)
            try await a.store(1, in: [1])
            try await a.journal.settle(covering: volume.lock(1))
            a.cache.drop(covering: volume.lock(1))

            let block = try await b.block(1)
            #expect(block.bytes.readOnly.u64(64) == 1)
            let transaction = try await b.journal.begin(blocks: 0)
            transaction.forget(block)
            transaction.end()
            try await b.journal.checkpointAll()
            if withBarrier { try await a.journal.checkpointAll() }

            let data = AlignedBuffer(zeroed: 4096)
            let offset = volume.superblock.byteOffset(volume.address(1))
            try await b.host.write(data.readOnly, at: offset)
            try await b.host.flush()
            a.host.cutOff()
            _ = try await JournalReplay.replay(
                device: b.host,
                superblock: volume.superblock,
                slot: SlotIndex(0)
            )
            let isIntact = disk.visible.bytes(at: offset, count: 4096).allSatisfy { $0 == 0 }
            #expect(isIntact == withBarrier)
        }
    }

    @Test func writesHomeAreHeldWhileAnotherLogIsReplayed() throws {
        try onTestVolume(seed: 7) { node in
            try await node.store(1, in: [1, 3])
            try await node.journal.commit()
            await node.journal.holdWritesHome()
            var settled = false
            node.engine.spawn {
                do {
                    try await node.journal.settle(covering: node.volume.lock(1))
                    settled = true
                } catch {
                    Issue.record("\(error)")
                }
            }
            try await node.store(2, in: [2])
            try await node.journal.commit()
            await node.engine.sleep(nanoseconds: 100_000_000)
            #expect(!settled)
            #expect(node.visibleValue(1) == 0)
            node.journal.releaseWritesHome()
            await node.engine.sleep(nanoseconds: 100_000_000)
            #expect(settled)
            #expect(node.visibleValue(1) == 1)
        }
    }
}
