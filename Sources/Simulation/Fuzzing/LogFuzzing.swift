// A journal of any content behind a sound superblock and a sound descriptor.
//
// The bytes lay transactions into the ring and then change blocks of it. Afterwards the checksums that
// a log holds of itself are made right (Z3): of each image in its entry, of each descriptor in the
// commit block; unless the bytes say that they stay as they are.
//
// What is demanded (Journaling R1 to R4)
//   - a log that is refused is refused by reading and by replaying alike, and nothing is written
//   - a replay brings home what reading it announced, and marks the journal clean
//   - a second replay of the same log finds every place as new and writes nothing

import BlockIO
import DiskFormat
import Journaling
import SimulatedMachine
import Vocabulary

/// One log and its replay.
struct LogFuzzing {
    private static let mostTransactions = 6
    private static let mostEntries = 12

    private var input: FuzzInput
    private let volume: FuzzVolume
    private var content: DiskContent
    private let block: AlignedBuffer
    private let slot = SlotIndex(1)
    /// Where the next block of the log goes, counted without end.
    private var place: UInt64 = 0
    private var sequence: UInt64 = 1
    /// Descriptors that were laid, with the places of their images, and the commit behind them.
    private var transactions: [(descriptors: [UInt64], commit: UInt64)] = []

    init(_ input: FuzzInput) throws {
        self.input = input
        volume = try FuzzVolume.with(.everything)
        content = volume.content
        block = AlignedBuffer(zeroed: Int(volume.superblock.blockSize))
    }

    private var superblock: Superblock { volume.superblock }
    private var descriptor: SlotDescriptor { volume.slots[Int(slot.rawValue)] }
    private var ringLength: UInt64 { UInt64(descriptor.journalLength) - 1 }

    mutating func run() throws {
        let flags = input.byte()
        let header = layHeader(flags)
        for _ in 0..<input.below(Self.mostTransactions) where !input.isAtEnd { layTransaction() }
        // What is left changes blocks of the log.
        while !input.isAtEnd { change() }
        if flags & 1 == 0 {
            for transaction in transactions {
                settleChecksums(transaction.descriptors, transaction.commit)
            }
        }
        try judge(header)
        // And the volume as a whole is what a check and a mount make of it.
        if flags & 6 == 6 { try ImageFuzzing.judge(content, mayBeLeft: false) }
    }

    // MARK: laying

    private func index(_ place: UInt64) -> UInt32 { UInt32(place % ringLength) + 1 }

    private func address(_ place: UInt64) -> BlockAddress {
        descriptor.journalStart + UInt64(index(place))
    }

    private mutating func write(_ address: BlockAddress) {
        content.write(block.readOnly, at: superblock.byteOffset(address))
    }

    private func read(_ address: BlockAddress) {
        content.read(block.bytes, at: superblock.byteOffset(address))
    }

    /// The header of the journal as it is laid: usually of a log that begins where it says.
    private mutating func layHeader(_ flags: UInt8) -> JournalHeader {
        sequence = flags & 8 == 0 ? 7 : max(1, input.number() & BlockHeader.largestNumber)
        let tail = flags & 16 == 0 ? 1 : UInt32(truncatingIfNeeded: input.number())
        place = UInt64(max(tail, 1) - 1) % ringLength
        let header = JournalHeader(
            slot: slot,
            tailSequence: sequence,
            tail: tail,
            length: flags & 32 == 0 ? descriptor.journalLength : UInt32(input.byte()) + 200,
            isClean: flags & 0xC0 == 0xC0
        )
        header.write(
            to: block.bytes,
            at: descriptor.journalStart,
            volume: superblock.volume,
            version: 5
        )
        write(descriptor.journalStart)
        return header
    }

    private func dress(_ kind: BlockKind) {
        block.bytes.clear(0, block.bytes.count)
        BlockHeader(
            kind: kind,
            address: address(place),
            version: UInt64(index(place)),
            volume: superblock.volume,
            owner: sequence,
            generation: 0
        ).write(to: block.bytes)
    }

    private mutating func layTransaction() {
        let start = place
        var descriptors: [UInt64] = []
        for number in 0...UInt32(input.below(3)) {
            descriptors.append(place)
            layDescriptor(number)
        }
        let flags = input.byte()
        dress(.journalCommit)
        let count = flags & 1 == 0 ? UInt32(place - start) : UInt32(input.byte())
        JournalCommitHeader(blockCount: count, checksum: 0).writeFields(to: block.bytes)
        BlockHeader.seal(block.bytes)
        write(address(place))
        transactions.append((descriptors, place))
        place += 1
        sequence &+= flags & 2 == 0 ? 1 : UInt64(flags)
    }

    /// A descriptor and its images.
    private mutating func layDescriptor(_ number: UInt32) {
        let flags = input.byte()
        let there = place
        let wanted = 1 + input.below(Self.mostEntries)
        var entries: [JournalEntry] = []
        place += 1
        for _ in 0..<wanted {
            entries.append(layImage())
            place += 1
        }
        let end = place
        place = there
        dress(.journalDescriptor)
        JournalDescriptorHeader(
            count: flags & 1 == 0 ? UInt32(wanted) : UInt32(truncatingIfNeeded: input.number()),
            index: flags & 2 == 0 ? number : UInt32(input.byte())
        ).writeFields(to: block.bytes)
        for (index, entry) in entries.enumerated() {
            let offset = JournalDescriptorHeader.entriesOffset + index * JournalEntry.byteCount
            entry.write(to: block.bytes, at: offset)
            if flags & 4 != 0 { block.bytes[offset + 36] = input.byte() }
        }
        BlockHeader.seal(block.bytes)
        write(address(there))
        place = end
    }

    /// The image of a block of the volume, a little newer and a little changed, at `place`.
    private mutating func layImage() -> JournalEntry {
        let flags = input.byte()
        var home = volume.place(5 + (flags & 7), input.byte())
        read(home)
        if flags & 8 != 0 { home = BlockAddress(input.number()) }
        let version = BlockHeader.version(of: block.readOnly) &+ UInt64(input.byte() & 3)
        BlockHeader.setVersion(flags & 16 == 0 ? version : input.number(), of: block.bytes)
        if flags & 32 != 0 {
            let offset = Int(input.integer(UInt16.self)) % (block.bytes.count - 7)
            block.bytes.put64(input.number(), offset)
        }
        if flags & 64 == 0 { BlockHeader.seal(block.bytes) }
        write(address(place))
        return JournalEntry(
            address: home,
            version: BlockHeader.version(of: block.readOnly),
            covering: ResourceName(
                kind: ResourceKind.allCases[Int(flags & 7)],
                number: UInt64(flags),
                generation: 1
            ),
            checksum: crc32c(block.readOnly)
        )
    }

    /// One number in one block of the log becomes another.
    private mutating func change() {
        let choice = input.byte()
        let address = descriptor.journalStart + UInt64(choice & 63)
        read(address)
        let offset =
            choice & 64 == 0
            ? 2 * input.below(100) : Int(input.integer(UInt16.self)) % (block.bytes.count - 7)
        block.bytes.put64(input.number(), min(offset, block.bytes.count - 8))
        if choice & 128 == 0 { BlockHeader.seal(block.bytes) }
        write(address)
    }

    /// Makes right what a transaction says of itself.
    private mutating func settleChecksums(_ descriptors: [UInt64], _ commit: UInt64) {
        var checksum: UInt32 = 0
        for there in descriptors {
            read(address(there))
            let limit = JournalDescriptorHeader.entriesPerDescriptor(blockSize: block.bytes.count)
            let count = min(Int(JournalDescriptorHeader(fields: block.readOnly).count), limit)
            let bytes = Array(block.readOnly)
            var sums: [UInt32] = []
            for index in 0..<count {
                read(address(there + 1 + UInt64(index)))
                sums.append(crc32c(block.readOnly))
            }
            bytes.withUnsafeBytes { block.bytes.put($0, 0) }
            for (index, sum) in sums.enumerated() {
                let offset = JournalDescriptorHeader.entriesOffset + index * JournalEntry.byteCount
                block.bytes.put32(sum, offset + 32)
            }
            BlockHeader.seal(block.bytes)
            write(address(there))
            checksum = crc32c(block.readOnly.window(8, 4), startingWith: checksum)
        }
        read(address(commit))
        block.bytes.put32(checksum, 68)
        BlockHeader.seal(block.bytes)
        write(address(commit))
    }

    // MARK: judging

    /// What was done with the log.
    private struct Outcome {
        var report: ReplayReport?
        var writes = 0
        var isClean = false
        var content: DiskContent
    }

    private func judge(_ header: JournalHeader) throws {
        let (content, superblock, slot) = (content, superblock, slot)
        let announced = try runSimulated(seed: 1, stepLimit: ImageFuzzing.stepLimit) { _ in
            let device = MemoryBlockDevice(content: content)
            let report = try? await JournalReplay.inspect(
                device: device,
                superblock: superblock,
                slot: slot
            )
            try demand(device.writeCount == 0, "reading a log has written")
            return report
        }
        let first = try replay(content)
        guard let announced else {
            try demand(first.report == nil, "a log that cannot be read was replayed")
            try demand(first.writes == 0, "a log was refused after something was written")
            return
        }
        guard let report = first.report else {
            throw FuzzComplaint("a log that can be read cannot be replayed")
        }
        try demand(
            report.blocks == announced.blocks && report.footprint == announced.footprint
                && report.written + report.skipped == report.blocks,
            "announced \(announced), done \(report)"
        )
        try demand(first.isClean, "the journal is not clean after its replay")
        // R2: once more, as if the power had failed before the journal was marked.
        var unmarked = first.content
        let start = superblock.byteOffset(descriptor.journalStart)
        content.bytes(at: start, count: Int(superblock.blockSize)).withUnsafeBytes {
            unmarked.write($0, at: start)
        }
        let second = try replay(unmarked)
        try demand(second.report?.written == 0, "R2: a second replay has written: \(second)")
    }

    private func replay(_ content: DiskContent) throws -> Outcome {
        let (superblock, slot) = (superblock, slot)
        return try runSimulated(seed: 1, stepLimit: ImageFuzzing.stepLimit) { _ in
            let device = MemoryBlockDevice(content: content)
            let report = try? await JournalReplay.replay(
                device: device,
                superblock: superblock,
                slot: slot
            )
            let writes = device.writeCount
            let isClean =
                (try? await JournalReplay.isClean(
                    device: device,
                    superblock: superblock,
                    slot: slot
                )) ?? false
            return Outcome(
                report: report,
                writes: writes,
                isClean: isClean,
                content: device.content
            )
        }
    }
}
