import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

/// The lines of a report, for messages of failed tests.
func lines(_ report: CheckReport) -> String {
    report.findings.map(\.text).joined(separator: "\n")
}

@Suite struct CheckingTests {
    @Test(arguments: [UInt64(8), 9, 33, 64, 200, 1024, 3000])
    func newVolumesAreClean(mebibytes: UInt64) async throws {
        for (blockSize, journals) in [(UInt32(4096), UInt32(1)), (4096, 5), (16384, 2), (65536, 3)]
        {
            var wanted = options(mebibytes: mebibytes, journals: journals, blockSize: blockSize)
            wanted.deviceSize += 12_288
            guard tried(wanted).plan != nil else { continue }
            let (device, plan) = try await made(wanted)
            let report = try await VolumeChecker.check(device)
            #expect(report.isClean, "\(lines(report))")
            #expect(report.inodes == 1 && report.directories == 1 && report.orphans == 0)
            let copies = UInt64(plan.copies.count)
            #expect(
                report.usedBlocks
                    == UInt64(plan.superblock.groupCount) + copies + UInt64(journals) + 1
            )
            #expect(report.uncleanJournals.isEmpty && report.guardMode == .free)
        }
    }

    @Test func oneOfEverythingIsClean() async throws {
        let sketch = try await VolumeSketch.populated()
        let report = try await VolumeChecker.check(sketch.device)
        #expect(report.isClean, "\(lines(report))")
        #expect(report.inodes == 15 && report.directories == 5 && report.orphans == 2)
        #expect(report.quarantinedBlocks == 1)
    }

    @Test func progressCoversAllPasses() async throws {
        let sketch = try await VolumeSketch.populated()
        var passes: Set<CheckPass> = []
        _ = try await VolumeChecker.check(sketch.device) { passes.insert($0.pass) }
        #expect(passes == Set(CheckPass.allCases))
    }

    @Test(arguments: FindingKind.allCases)
    func everyFindingIsFound(kind: FindingKind) async throws {
        let sketch = try await VolumeSketch.populated()
        try sketch.cause(kind)
        let report = try await VolumeChecker.check(sketch.device)
        #expect(report.count(of: kind) > 0, "\(kind.rawValue) not found, but: \(lines(report))")
        let others = Set(report.findings.map(\.kind)).subtracting([kind])
        #expect(others.isSubset(of: kind.companions), "besides: \(lines(report))")
        for finding in report.findings {
            #expect(!finding.text.contains("\n"))
            #expect(finding.text.hasPrefix(finding.kind.rawValue + ": " + finding.kind.summary))
        }
        #expect(report.json.text.contains("\"finding\": \"\(kind.rawValue)\""))
    }

    /// Every bit of every block that carries a checksum and that a clean volume relies on counts.
    @Test func oneBitAnywhereIsFound() async throws {
        let original = try await VolumeSketch.populated()
        let superblock = original.superblock
        var addresses: [BlockAddress] = [
            Superblock.address(blockSize: superblock.blockSize), superblock.slotTable,
            superblock.guardTable, superblock.heartbeat(SlotIndex(1)),
            original.plan.slots[0].journalStart, superblock.groupStart(0),
            superblock.groupStart(2), superblock.root.address,
            original.plan.slots[0].orphanDirectory.address, original.plan.copies[0],
        ]
        for name in [
            "extent leaf", "extent index", "directory leaf", "directory index", "attributes",
        ] {
            addresses.append(try #require(original.blocks[name]))
        }
        for name in ["hello", "dir", "tree", "orphan", "symlink"] {
            addresses.append(try #require(original.inodes[name]).address)
        }
        var dice = SeededGenerator(seed: 77)
        for address in addresses {
            for _ in 0..<6 {
                let sketch = VolumeSketch(copying: original)
                let bit = dice.below(4096 * 8)
                sketch.edit(address, seals: false) { $0[bit / 8] ^= 1 << UInt8(bit % 8) }
                let report = try await VolumeChecker.check(sketch.device)
                #expect(!report.isClean, "bit \(bit) of \(address)")
            }
        }
    }

    /// C2, with damage that a checksum shows.
    @Test(arguments: 0..<40)
    func randomDamageIsSurvived(seed: Int) async throws {
        let sketch = try await VolumeSketch.populated()
        var dice = SeededGenerator(seed: UInt64(seed))
        let pages = sketch.device.writtenPages
        for _ in 0..<(1 << dice.below(9)) {
            let page = pages[dice.below(pages.count)]
            let buffer = AlignedBuffer(zeroed: 4096)
            sketch.device.readNow(buffer.bytes, at: page * 4096)
            for _ in 0..<(1 << dice.below(8)) {
                buffer.bytes[dice.below(4096)] = UInt8(dice.below(256))
            }
            sketch.device.writeNow(buffer.readOnly, at: page * 4096)
        }
        await survives(sketch.device)
    }

    /// C2, with damage that no checksum shows: a hostile image.
    @Test(arguments: 0..<150)
    func hostileDamageIsSurvived(seed: Int) async throws {
        let sketch = try await VolumeSketch.populated()
        var dice = SeededGenerator(seed: 1_000_000 + UInt64(seed))
        let first = Superblock.address(blockSize: 4096).rawValue
        let pages = sketch.device.writtenPages.filter { $0 > first || seed % 4 == 0 }
        for _ in 0..<(1 << dice.below(7)) {
            sketch.edit(BlockAddress(pages[dice.below(pages.count)])) { block in
                for _ in 0..<(1 << dice.below(5)) {
                    // Near the front, where the fields are; now and then a number that is extreme.
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
        }
        await survives(sketch.device)
    }

    /// A report or a clear refusal; never the end of the process, never no end.
    private func survives(_ device: MemoryDevice) async {
        do {
            let report = try await VolumeChecker.check(device)
            #expect(report.findingCount >= UInt64(report.findings.count))
            for finding in report.findings { #expect(!finding.text.isEmpty) }
        } catch {
            #expect(!error.description.contains("\n") && !error.description.isEmpty)
        }
    }

    @Test func refusesWhatIsNoVolume() async throws {
        let blank = MemoryDevice(byteCount: 32 << 20)
        await #expect(throws: CheckError.format(.notMetadata(.none))) {
            try await VolumeChecker.check(blank)
        }
        let tiny = MemoryDevice(byteCount: 8192)
        await #expect(throws: CheckError.format(.truncated(needed: 131_072, found: 8192))) {
            try await VolumeChecker.check(tiny)
        }
        let (device, plan) = try await made(options(mebibytes: 64))
        let whole = plan.superblock.byteOffset(BlockAddress(plan.superblock.blockCount))
        let cut = MemoryDevice(copying: device, byteCount: 32 << 20)
        await #expect(throws: CheckError.format(.truncated(needed: whole, found: 32 << 20))) {
            try await VolumeChecker.check(cut)
        }
        // A feature of the future.
        let block = AlignedBuffer(zeroed: 4096)
        var future = plan.superblock
        future.features.incompatible = 4
        future.write(
            to: block.bytes,
            at: Superblock.address(blockSize: 4096),
            version: 1
        )
        device.writeNow(block.readOnly, at: 65_536)
        await #expect(throws: CheckError.format(.unsupportedFeatures(incompatible: 4))) {
            try await VolumeChecker.check(device)
        }
    }

    @Test func findingsAreBoundedAndCounted() async throws {
        let sketch = try await VolumeSketch.populated()
        sketch.editGroup(3) { record, bitmap in
            for index in stride(from: UInt32(100), to: 300, by: 2) { bitmap[index] = .data }
            record.freeCount -= 100
        }
        var few = CheckOptions()
        few.findingLimit = 7
        let report = try await VolumeChecker.check(sketch.device, options: few)
        #expect(report.findings.count == 7 && report.findingCount == 100)
    }

    @Test func anOverlayChangesNothingBelow() async throws {
        let (device, plan) = try await made(options(mebibytes: 16))
        let overlay = OverlayDevice(over: device)
        let block = AlignedBuffer(zeroed: 4096)
        let root = plan.superblock.byteOffset(plan.superblock.root.address)
        try await overlay.write(block.readOnly, at: root)
        #expect(try await !VolumeChecker.check(overlay).isClean)
        #expect(try await VolumeChecker.check(device).isClean)
        let wide = AlignedBuffer(zeroed: 12_288)
        try await overlay.read(wide.bytes, at: root - 4096)
        #expect(wide.readOnly.window(4096, 4096).isAllZero)
        #expect(!wide.readOnly.window(0, 4096).isAllZero)
        await #expect(throws: DeviceError.self) {
            try await overlay.write(block.readOnly, at: device.byteCount)
        }
    }

    /// A device that fails is named, and not taken for damage.
    @Test func aDeviceThatFailsEndsTheCheck() async throws {
        let sketch = try await VolumeSketch.populated()
        let leaf = try #require(sketch.blocks["directory leaf"])
        let device = FailingDevice(sketch.device, failing: leaf.rawValue * 4096)
        do {
            _ = try await VolumeChecker.check(device)
            Issue.record("the check did not notice")
        } catch {
            #expect(error.description.contains("block \(leaf.rawValue) cannot be read"))
        }
        // A block that nobody asks for may be as bad as it likes.
        let data = try #require(sketch.blocks["flat data"])
        let beside = FailingDevice(sketch.device, failing: data.rawValue * 4096)
        #expect(try await VolumeChecker.check(beside).isClean)
    }

    @Test func reportsAreProperJSON() {
        let value = JSONText.object([
            .init("a \"quoted\" name", .string("line\nbreak\t\\ \u{1} ö")),
            .init("numbers", .array([.number(.max), .null, .boolean(false)])),
            .init("empty", .object([])),
        ])
        #expect(
            value.text
                == #"{"a \"quoted\" name": "line\nbreak\t\\ \u0001 ö", "numbers": [18446744073709551615, null, false], "empty": {}}"#
        )
    }
}

/// Another device of which one block cannot be read.
private final class FailingDevice: BlockDevice {
    private let below: MemoryDevice
    private let bad: UInt64

    init(_ below: MemoryDevice, failing offset: UInt64) {
        self.below = below
        bad = offset
    }

    var alignment: Int { below.alignment }
    var byteCount: UInt64 { below.byteCount }

    func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64)
        async throws(DeviceError)
    {
        if offset <= bad, bad < offset + UInt64(buffer.count) {
            throw .failed(operation: "read", offset: bad, errno: 5)
        }
        try await below.read(buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) async throws(DeviceError) {
        try await below.write(buffer, at: offset)
    }

    func flush() async throws(DeviceError) { try await below.flush() }
}
