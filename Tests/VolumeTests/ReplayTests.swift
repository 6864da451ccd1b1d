import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

extension VolumeSketch {
    /// Writes one transaction into the journal of a slot, from its tail on, and marks the journal
    /// as not clean. The images are whole blocks in their new versions.
    func logTransaction(slot: Int, _ images: [(BlockAddress, AlignedBuffer)]) throws {
        let journal = plan.slots[slot]
        let start = journal.journalStart
        let volume = superblock.volume
        edit(start, seals: false) { block in
            JournalHeader(
                slot: journal.slot,
                tailSequence: 1,
                tail: 1,
                length: journal.journalLength,
                isClean: false
            ).write(to: block, at: start, volume: volume, version: 2)
        }
        let descriptor = AlignedBuffer(zeroed: blockSize)
        BlockHeader(
            kind: .journalDescriptor,
            address: start + 1,
            version: 1,
            volume: volume,
            owner: 1,
            generation: 0
        ).write(to: descriptor.bytes)
        JournalDescriptorHeader(count: UInt32(images.count), index: 0)
            .writeFields(to: descriptor.bytes)
        for (index, (address, image)) in images.enumerated() {
            BlockHeader.seal(image.bytes)
            JournalEntry(
                address: address,
                version: BlockHeader.version(of: image.readOnly),
                covering: .resourceGroup(0),
                checksum: crc32c(image.readOnly)
            ).write(
                to: descriptor.bytes,
                at: JournalDescriptorHeader.entriesOffset + index * JournalEntry.byteCount
            )
            write(image, at: start + UInt64(2 + index))
        }
        BlockHeader.seal(descriptor.bytes)
        write(descriptor, at: start + 1)
        let commit = AlignedBuffer(zeroed: blockSize)
        let place = 2 + images.count
        BlockHeader(
            kind: .journalCommit,
            address: start + UInt64(place),
            version: UInt64(place),
            volume: volume,
            owner: 1,
            generation: 0
        ).write(to: commit.bytes)
        JournalCommitHeader(
            blockCount: UInt32(place - 1),
            checksum: crc32c(descriptor.readOnly.window(8, 4))
        ).writeFields(to: commit.bytes)
        BlockHeader.seal(commit.bytes)
        write(commit, at: start + UInt64(place))
    }
}

@Suite struct ReplayTests {
    /// A volume whose group 0 is wrong in place and right in the journal of slot 1.
    private func unclean() async throws -> VolumeSketch {
        let sketch = try await VolumeSketch.populated()
        let address = sketch.superblock.groupStart(0)
        let image = sketch.read(address)
        BlockHeader.setVersion(BlockHeader.version(of: image.readOnly) + 5, of: image.bytes)
        sketch.editGroup(0) { record, _ in record.freeCount -= 3 }
        try sketch.logTransaction(slot: 1, [(address, image)])
        return sketch
    }

    private func check(_ sketch: VolumeSketch, _ journals: JournalTreatment) async throws
        -> CheckReport
    {
        var options = CheckOptions()
        options.journals = journals
        return try await VolumeChecker.check(sketch.device, options: options)
    }

    @Test func anUncleanVolumeIsJudgedAsIfReplayed() async throws {
        let sketch = try await unclean()
        let before = sketch.read(sketch.superblock.groupStart(0))
        let report = try await check(sketch, .overlay)
        #expect(report.isClean, "\(lines(report))")
        #expect(report.uncleanJournals == [SlotIndex(1)])
        #expect(report.replays.map(\.transactions) == [1])
        #expect(report.replays.map(\.written) == [1])
        // C1: below, nothing has changed.
        let after = sketch.read(sketch.superblock.groupStart(0))
        #expect(before.readOnly.elementsEqual(after.readOnly))
        #expect(try await check(sketch, .ignore).count(of: .groupFreeCountWrong) == 1)
    }

    @Test func aReplayThatIsAskedForStays() async throws {
        let sketch = try await unclean()
        #expect(try await check(sketch, .replay).isClean)
        let report = try await check(sketch, .ignore)
        #expect(report.isClean && report.uncleanJournals.isEmpty, "\(lines(report))")
    }

    /// A guard left behind by nodes that are gone is freed when all is well, and only then.
    @Test func theGuardIsFreed() async throws {
        for isDamaged in [false, true] {
            let sketch = try await unclean()
            let address = sketch.superblock.guardTable
            sketch.edit(address) { block in
                GuardRecord(mode: .hostLocal, clusterHigh: 1, clusterLow: 2, host: "gone")
                    .write(to: block, at: address, volume: sketch.superblock.volume, version: 7)
            }
            #expect(try await check(sketch, .overlay).guardMode == .hostLocal)
            if isDamaged { try sketch.cause(.blockLost) }
            let report = try await check(sketch, .replay)
            #expect(report.guardMode == (isDamaged ? .hostLocal : .free))
            let block = sketch.read(address)
            let (record, version) = try GuardRecord.read(
                verifying: block.readOnly,
                at: address,
                volume: sketch.superblock.volume
            )
            #expect(record.mode == report.guardMode && version == (isDamaged ? 7 : 8))
            withExtendedLifetime(block) {}
        }
    }

    /// Bytes in a log that no node wrote, under checksums that are right.
    @Test(arguments: 0..<80)
    func hostileLogsAreSurvived(seed: Int) async throws {
        let sketch = try await unclean()
        var dice = SeededGenerator(seed: 3_000_000 + UInt64(seed))
        let start = sketch.plan.slots[1].journalStart
        for _ in 0...dice.below(4) {
            sketch.edit(start + UInt64(dice.below(4))) { block in
                for _ in 0...dice.below(4) {
                    let offset = 24 + dice.below(110)
                    switch dice.below(4) {
                    case 0: block.put64(UInt64.max, offset)
                    case 1: block.put64(1 << UInt64(dice.below(64)), offset)
                    case 2: block.put32(UInt32(dice.below(1000)), offset)
                    default: block[offset] = UInt8(dice.below(256))
                    }
                }
            }
        }
        // The checksums of images and descriptors that the log itself holds, right again as well.
        sketch.edit(start + 1) { block in
            let image = sketch.read(start + 2)
            block.put32(crc32c(image.readOnly), JournalDescriptorHeader.entriesOffset + 32)
        }
        let descriptor = sketch.read(start + 1)
        sketch.edit(start + 3) { block in
            block.put32(crc32c(descriptor.readOnly.window(8, 4)), 68)
        }
        do {
            let report = try await check(sketch, .overlay)
            #expect(report.superblock == sketch.superblock)
        } catch let error as CheckError {
            Issue.record("no damage of a log is a reason not to check: \(error)")
        }
    }

    /// A journal that stands in another one is not replayed.
    @Test func aMisplacedJournalIsNotBelieved() async throws {
        let sketch = try await unclean()
        try sketch.cause(.journalMisplaced)
        let report = try await check(sketch, .replay)
        #expect(report.count(of: .journalMisplaced) == 1 && report.replays.isEmpty)
        #expect(report.count(of: .groupFreeCountWrong) == 1)
    }
}
