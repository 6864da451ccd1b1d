import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

extension FindingKind {
    /// Paths, and what lies below those with a slash at the end, that the damage itself changes or
    /// that its repair makes. All others must be as they were.
    var concerned: [String] {
        switch self {
        case .inodeDamaged: ["hello", "dir/again"]
        case .inodeSizeWrong, .extentInvalid, .extentsUnsorted: ["flat"]
        case .treeBlockDamaged: ["tree"]
        case .entryNameInvalid, .entryNameDuplicate, .entryKeyWrong, .entriesUnsorted,
            .entryTypeWrong:
            ["dir/sub/"]
        case .attributeBlockDamaged: ["long"]
        case .attributesDamaged: ["short"]
        case .blockUsedTwice: ["empty"]
        case .inodeUnreachable: ["lost+found", "lost+found/"]
        default: []
        }
    }

    fileprivate func concerns(_ path: String) -> Bool {
        concerned.contains { $0.hasSuffix("/") ? path.hasPrefix($0) : path == $0 }
    }
}

/// What differs between two readings of a volume, but for what a finding concerns.
private func differences(
    _ before: [String: SeenPath],
    _ after: [String: SeenPath],
    besides kind: FindingKind
) -> [String] {
    Set(before.keys).union(after.keys).sorted().compactMap { path in
        guard before[path] != after[path], !kind.concerns(path) else { return nil }
        let old = before[path].map(\.description) ?? "nothing"
        let new = after[path].map(\.description) ?? "nothing"
        return "\(path): \(old) became \(new)"
    }
}

private func sketchWithData() async throws -> VolumeSketch {
    let sketch = try await VolumeSketch.populated()
    try sketch.fillData()
    return sketch
}

private func repair(
    _ device: any BlockDevice,
    _ mode: RepairMode = .everything
) async throws -> RepairReport {
    var options = RepairOptions()
    options.mode = mode
    return try await VolumeRepair.repair(device, options: options)
}

@Suite struct RepairTests {
    /// Corrupt, find, repair, find nothing; and all that was not damaged is still there.
    @Test(arguments: FindingKind.allCases)
    func everyFindingIsRepaired(kind: FindingKind) async throws {
        let sketch = try await sketchWithData()
        let before = try sketch.contents()
        try sketch.cause(kind)
        let found = try await VolumeChecker.check(sketch.device)
        #expect(found.count(of: kind) > 0)
        let first = try await repair(sketch.device)
        #expect(first.check.isClean, "left: \(lines(first.check))")
        #expect(first.outcome == .corrected)
        #expect(first.repaired.contains { $0.kind == kind })
        #expect(first.json.text.contains("\"finding\": \"\(kind.rawValue)\""))
        let second = try await repair(sketch.device)
        #expect(second.outcome == .clean && second.rounds == 1, "\(lines(second.check))")
        #expect(second.repairedCount == 0)
        let changed = differences(before, try sketch.contents(), besides: kind)
        #expect(changed.isEmpty, "\(changed.joined(separator: "\n"))")
    }

    /// Preening repairs what is safe, and leaves the rest as it is for a full repair.
    @Test(arguments: FindingKind.allCases)
    func preeningDoesWhatIsSafe(kind: FindingKind) async throws {
        let sketch = try await sketchWithData()
        let before = try sketch.contents()
        try sketch.cause(kind)
        let pages = sketch.device.writtenPages.count
        let preened = try await repair(sketch.device, .preen)
        if kind.isSafeToRepair {
            #expect(preened.outcome == .corrected, "left: \(lines(preened.check))")
        } else {
            #expect(preened.outcome == .left)
            #expect(preened.check.count(of: kind) > 0)
            #expect(preened.repairedCount == 0 && sketch.device.writtenPages.count == pages)
            #expect(try await repair(sketch.device).outcome == .corrected)
        }
        let changed = differences(before, try sketch.contents(), besides: kind)
        #expect(changed.isEmpty, "\(changed.joined(separator: "\n"))")
    }

    /// V2: power fails at any write or flush; of what was not flushed any part may be lost.
    @Test(arguments: FindingKind.allCases)
    func aRepairCanBeInterrupted(kind: FindingKind) async throws {
        let original = try await sketchWithData()
        let before = try original.contents()
        try original.cause(kind)
        var limit = 0
        var isWhole = false
        while !isWhole {
            // What of the unflushed comes through: four ways.
            for way in 0..<4 {
                let sketch = VolumeSketch(copying: original)
                let device = PowerDevice(
                    sketch.device,
                    operations: limit,
                    seed: UInt64(4 * limit + way)
                )
                isWhole = (try? await repair(device)) != nil
                device.fail()
                let again = try await repair(sketch.device)
                #expect(again.check.isClean, "after \(limit): \(lines(again.check))")
                let changed = differences(before, try sketch.contents(), besides: kind)
                #expect(changed.isEmpty, "after \(limit): \(changed.joined(separator: "\n"))")
            }
            limit += 1
        }
        #expect(limit > 1)
    }

    /// V1: no block that is sound before and after has become older.
    @Test(arguments: FindingKind.allCases)
    func versionsOnlyGrow(kind: FindingKind) async throws {
        let sketch = try await sketchWithData()
        try sketch.cause(kind)
        let pages = sketch.device.writtenPages
        var versions: [UInt64: (UInt64, UInt32)] = [:]
        for page in pages {
            guard let header = header(page, sketch) else { continue }
            versions[page] = (header.version, checksum(page, sketch))
        }
        _ = try await repair(sketch.device)
        for (page, (version, checksum)) in versions {
            guard let after = header(page, sketch) else { continue }
            let isSame = self.checksum(page, sketch) == checksum
            let isOutsideJournals = [.superblock, .slotDescriptor].contains(after.kind)
            #expect(isSame || isOutsideJournals || after.version > version, "block \(page)")
        }
    }

    private func checksum(_ page: UInt64, _ sketch: VolumeSketch) -> UInt32 {
        let block = sketch.read(BlockAddress(page))
        return withExtendedLifetime(block) { block.readOnly.u32(8) }
    }

    private func header(_ page: UInt64, _ sketch: VolumeSketch) -> BlockHeader? {
        let block = sketch.read(BlockAddress(page))
        return withExtendedLifetime(block) {
            try? BlockHeader(
                verifying: block.readOnly,
                at: BlockAddress(page),
                volume: sketch.superblock.volume
            )
        }
    }

    // MARK: what a user would expect

    @Test func lostFilesComeIntoLostAndFound() async throws {
        let sketch = try await sketchWithData()
        let before = try sketch.contents()
        // The names of "dir" are gone, and with them the only way to "sub"; "hello" has another.
        let directory = try #require(sketch.inodes["dir"])
        try sketch.setInlineEntries(directory, [], count: 0)
        try sketch.cause(.inodeUnreachable)
        #expect(try await repair(sketch.device).outcome == .corrected)
        let after = try sketch.contents()
        let sub = try #require(sketch.inodes["sub"])
        #expect(after["lost+found/#\(sub.address.rawValue).\(sub.generation)"] == before["dir/sub"])
        #expect(after.keys.count { $0.hasPrefix("lost+found/") } == 2)
        #expect(after["lost+found"]?.mode == 0o040700)
        // A second time the directory is there.
        try sketch.cause(.inodeUnreachable)
        #expect(try await repair(sketch.device).outcome == .corrected)
        let last = try sketch.contents()
        #expect(last.keys.count { $0.hasPrefix("lost+found/") } == 3)
        #expect(!last.keys.contains { $0.hasPrefix("lost+found~") })
    }

    /// A file of that name is left in peace.
    @Test func aFileCalledLostAndFoundStays() async throws {
        let sketch = try await sketchWithData()
        _ = try sketch.add("lost+found", in: sketch.root, 0o100644, .inlineData)
        for count in 1...2 {
            try sketch.cause(.inodeUnreachable)
            #expect(try await repair(sketch.device).outcome == .corrected)
            let after = try sketch.contents()
            #expect(after["lost+found"]?.mode == 0o100644)
            #expect(after.keys.count { $0.hasPrefix("lost+found~1/") } == count)
        }
    }

    /// What was being deleted is freed, not found.
    @Test func inodesWithoutLinksAreFreed() async throws {
        let sketch = try await sketchWithData()
        let before = try sketch.contents()
        let gone = try sketch.newInode(0o100644, .inlineData)
        #expect(try await repair(sketch.device).outcome == .corrected)
        #expect(try sketch.contents() == before)
        let block = sketch.read(gone.address)
        #expect(withExtendedLifetime(block) { block.readOnly.u64(56) } == 0)
    }

    @Test func bothOwnersOfABlockKeepWhatTheyRead() async throws {
        let sketch = try await sketchWithData()
        let flat = try #require(try sketch.contents()["flat"])
        try sketch.cause(.blockUsedTwice)
        let shared = try #require(try sketch.contents()["empty"])
        #expect(try await repair(sketch.device).outcome == .corrected)
        let after = try sketch.contents()
        #expect(after["flat"] == flat && after["empty"] == shared)
        // Writing through one no longer changes the other.
        let block = AlignedBuffer(zeroed: 4096)
        sketch.write(block, at: try #require(sketch.blocks["flat data"]))
        let last = try sketch.contents()
        #expect((last["flat"] == flat) != (last["empty"] == shared))
    }

    /// Extents that lead over an inode do not take the inode away.
    @Test func anInodeIsNoFilesData() async throws {
        for name in ["hello", "tree", "many"] {
            let sketch = try await sketchWithData()
            let before = try sketch.contents()
            let number = try #require(sketch.inodes[name])
            let greedy = try #require(sketch.inodes["empty"])
            try sketch.setExtents(
                greedy,
                [Extent(logical: 0, physical: number.address, length: 1)]
            )
            try sketch.editInode(greedy) {
                $0.layout = .extents
                $0.size = 4096
                $0.blockCount = 2
            }
            let first = try await repair(sketch.device)
            #expect(first.outcome == .corrected, "\(lines(first.check))")
            let changed = differences(before, try sketch.contents(), besides: .blockUsedTwice)
            #expect(changed.isEmpty, "\(changed.joined(separator: "\n"))")
        }
    }

    @Test func aLostRootIsMadeAnew() async throws {
        let sketch = try await sketchWithData()
        let count = try sketch.contents().count
        sketch.edit(sketch.root.address, seals: false) { $0[1000] ^= 4 }
        let first = try await repair(sketch.device)
        #expect(first.outcome == .corrected, "\(lines(first.check))")
        let after = try sketch.contents()
        // Everything is there, under lost+found; "hello" has a name in "dir" still, and only that.
        #expect(after.keys.allSatisfy { $0.hasPrefix("lost+found") })
        #expect(after.count == count)
        #expect(try await VolumeChecker.check(sketch.device).inodes == 16)
    }

    /// Without room nothing is half done: it is left, and said.
    @Test func aFullVolumeIsSaid() async throws {
        let sketch = try await sketchWithData()
        let filler = try sketch.add("filler", in: sketch.root, 0o100600, .extents)
        var extents: [Extent] = []
        for group in 0..<sketch.superblock.groupCount {
            var runs: [(UInt32, UInt32)] = []
            sketch.editGroup(group) { record, bitmap in
                var next: UInt32 = 0
                while let first = bitmap.first(.free, from: next) {
                    let length = bitmap.run(of: .free, from: first, limit: .max)
                    for index in first..<first + length { bitmap[index] = .data }
                    record.freeCount -= length
                    runs.append((first, length))
                    next = first + length
                }
            }
            for (first, length) in runs {
                extents.append(
                    Extent(
                        logical: UInt64(extents.count) << 20,
                        physical: sketch.superblock.groupStart(group) + UInt64(first),
                        length: length,
                        isUnwritten: true
                    )
                )
            }
        }
        try sketch.setExtents(filler, extents)
        try sketch.editInode(filler) { record in
            record.blockCount = 1 + extents.reduce(0) { $0 + UInt64($1.length) }
        }
        try sketch.countQuotas()
        #expect(try await VolumeChecker.check(sketch.device).isClean)
        try sketch.cause(.blockUsedTwice)
        let first = try await repair(sketch.device)
        #expect(first.outcome == .left && first.lacksSpace)
        #expect(first.check.count(of: .blockUsedTwice) == 1, "\(lines(first.check))")
    }

    // MARK: any damage

    /// Bytes that a checksum catches: whatever is left is clean in the end.
    @Test(arguments: 0..<40)
    func randomDamageIsRepaired(seed: Int) async throws {
        let sketch = try await sketchWithData()
        var dice = SeededGenerator(seed: 7_000_000 + UInt64(seed))
        let pages = sketch.device.writtenPages
        for _ in 0..<(1 << dice.below(6)) {
            let page = pages[dice.below(pages.count)]
            sketch.edit(BlockAddress(page), seals: false) { $0[dice.below(4096)] ^= 0x41 }
        }
        try await endsWell(sketch, mustBeClean: true)
    }

    /// A hostile image: an end, and no trap.
    @Test(arguments: 0..<100)
    func hostileDamageIsSurvived(seed: Int) async throws {
        let sketch = try await sketchWithData()
        var dice = SeededGenerator(seed: 9_000_000 + UInt64(seed))
        let first = Superblock.address(blockSize: 4096).rawValue
        // Now and then the superblock as well: what it says cannot be put right by anything.
        let withSuperblock = seed % 5 == 0
        let pages = sketch.device.writtenPages.filter { $0 > first || withSuperblock }
        for _ in 0..<(1 << dice.below(6)) {
            sketch.edit(BlockAddress(pages[dice.below(pages.count)])) { block in
                let offset = 16 + dice.below(dice.oneIn(3) ? 4072 : 300)
                switch dice.below(5) {
                case 0: block.put64(UInt64.max, offset)
                case 1: block.put64(UInt64(dice.below(5000)), offset)
                case 2: block.put64(1 << UInt64(dice.below(64)), offset)
                case 3: block.put32(UInt32(dice.below(4096)), offset)
                default: block[offset] = UInt8(dice.below(256))
                }
            }
        }
        try await endsWell(sketch, mustBeClean: !withSuperblock)
    }

    private func endsWell(_ sketch: VolumeSketch, mustBeClean: Bool) async throws {
        let report: RepairReport
        do {
            report = try await repair(sketch.device)
        } catch CheckError.noSuperblock {
            return
        } catch CheckError.format where !mustBeClean {
            return
        }
        #expect(report.check.isClean || !mustBeClean, "left: \(lines(report.check))")
        let second = try await repair(sketch.device)
        #expect(second.check.findings == report.check.findings)
        // A root that had to move is not where the sketch looks for it.
        guard report.check.isClean, report.check.superblock.root == sketch.root else { return }
        _ = try sketch.contents()
    }
}

/// A device whose power fails after so many writes and flushes: what was not flushed is lost in
/// part.
private final class PowerDevice: BlockDevice, @unchecked Sendable {
    // Sendable: one repair uses it, one call after the other.
    private let below: MemoryDevice
    private var left: Int
    private var dice: SeededGenerator
    private var pending: [(offset: UInt64, bytes: [UInt8])] = []

    init(_ below: MemoryDevice, operations: Int, seed: UInt64) {
        self.below = below
        left = operations
        dice = SeededGenerator(seed: seed)
    }

    var alignment: Int { below.alignment }
    var byteCount: UInt64 { below.byteCount }

    func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64)
        async throws(DeviceError)
    {
        try await below.read(buffer, at: offset)
        for write in pending {
            let start = max(write.offset, offset)
            let end = min(
                write.offset + UInt64(write.bytes.count),
                offset + UInt64(buffer.count)
            )
            guard start < end else { continue }
            let part = write.bytes[Int(start - write.offset)..<Int(end - write.offset)]
            part.withUnsafeBytes { buffer.put($0, Int(start - offset)) }
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) async throws(DeviceError) {
        guard left > 0 else { throw .failed(operation: "write", offset: offset, errno: 5) }
        left -= 1
        pending.append((offset, Array(buffer)))
    }

    func flush() async throws(DeviceError) {
        guard left > 0 else { throw .failed(operation: "flush", offset: 0, errno: 5) }
        left -= 1
        for write in pending { settle(write) }
        pending = []
    }

    /// Power fails: any part of what was not flushed has come through.
    func fail() {
        for write in pending where dice.below(2) == 0 { settle(write) }
        pending = []
    }

    private func settle(_ write: (offset: UInt64, bytes: [UInt8])) {
        let buffer = AlignedBuffer(byteCount: write.bytes.count)
        write.bytes.withUnsafeBytes { buffer.bytes.put($0, 0) }
        below.writeNow(buffer.readOnly, at: write.offset)
    }
}
