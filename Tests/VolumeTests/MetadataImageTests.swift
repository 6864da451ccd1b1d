import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeInspection
import VolumeMaking

private final class Bytes {
    var bytes: [UInt8] = []
}

private func saved(_ device: any BlockDevice) async throws -> ([UInt8], MetadataImageSummary) {
    let file = Bytes()
    let sheet = Sheet(TextRenderer { _ in })
    let inspector = try await Inspector.open(device, sheet: sheet, replayed: false)
    let summary = try await inspector.save { part in file.bytes += part }
    #expect(summary.byteCount == UInt64(file.bytes.count))
    return (file.bytes, summary)
}

private func restored(_ bytes: [UInt8]) async throws -> MemoryDevice {
    var position = 0
    let reader = try MetadataImageReader { buffer in
        let count = min(buffer.count, bytes.count - position)
        buffer.copyBytes(from: bytes[position..<position + count])
        position += count
        return count
    }
    let device = MemoryDevice(byteCount: reader.header.deviceSize)
    _ = try await reader.restore(to: device)
    return device
}

/// The findings without the figures of checksums that fail: what is left out changes those.
private func essence(_ report: CheckReport) -> [Finding] {
    report.findings.map { finding in
        var finding = finding
        if case .wrongChecksum(let address, _, _)? = finding.error {
            finding.error = .wrongChecksum(address, stored: 0, computed: 0)
        }
        return finding
    }
}

private func check(_ device: MemoryDevice, _ journals: JournalTreatment) async throws
    -> CheckReport
{
    var options = CheckOptions()
    options.journals = journals
    return try await VolumeChecker.check(MemoryDevice(copying: device), options: options)
}

/// Whether a text stands anywhere on a device.
private func holds(_ device: MemoryDevice, _ text: String) -> Bool {
    let wanted = Array(text.utf8)
    for page in device.writtenPages {
        let buffer = AlignedBuffer(zeroed: 4096)
        device.readNow(buffer.bytes, at: page * 4096)
        for offset in 0...4096 - wanted.count where buffer.readOnly[offset] == wanted[0] {
            if buffer.readOnly.window(offset, wanted.count).elementsEqual(wanted) { return true }
        }
    }
    return false
}

@Suite struct MetadataImageTests {
    private static let secret = "what nobody else may read"

    /// One of everything; file data in blocks and in inodes, and more than is used of some.
    private func sketchWithSecrets() async throws -> VolumeSketch {
        let sketch = try await VolumeSketch.populated()
        try sketch.fillData()
        try putSecret(in: #require(sketch.inodes["hello"]).address, sketch)
        // What is left behind the used part of a root.
        try putSecret(in: #require(sketch.inodes["flat"]).address, sketch)
        let data = try #require(sketch.blocks["flat data"])
        let block = AlignedBuffer(zeroed: 4096)
        Self.secret.utf8.enumerated().forEach { block.bytes[100 + $0.offset] = $0.element }
        sketch.write(block, at: data)
        #expect(holds(sketch.device, Self.secret))
        return sketch
    }

    private func putSecret(in address: BlockAddress, _ sketch: VolumeSketch) {
        sketch.edit(address) { self.putSecret(in: $0) }
    }

    private func putSecret(in block: UnsafeMutableRawBufferPointer) {
        for (index, byte) in Self.secret.utf8.enumerated() {
            block[InodeRecord.bodyOffset + 600 + index] = byte
        }
    }

    /// Saved and restored, the check finds the same, whatever is wrong.
    @Test(arguments: FindingKind.allCases)
    func theSameIsFound(kind: FindingKind) async throws {
        let sketch = try await sketchWithSecrets()
        try sketch.cause(kind)
        let (bytes, _) = try await saved(sketch.device)
        let copy = try await restored(bytes)
        #expect(!holds(copy, Self.secret))
        for journals in [JournalTreatment.overlay, .ignore] {
            let before = try await check(sketch.device, journals)
            let after = try await check(copy, journals)
            #expect(before.count(of: kind) > 0 || journals == .ignore)
            #expect(essence(before) == essence(after), "\(lines(before))\n---\n\(lines(after))")
            #expect(before.usedBlocks == after.usedBlocks && before.inodes == after.inodes)
        }
    }

    /// Several things at once, and what a repair makes of it.
    @Test(arguments: 0..<30)
    func theSameIsFoundOfMuchDamage(seed: Int) async throws {
        let sketch = try await sketchWithSecrets()
        var dice = SeededGenerator(seed: 9_000_000 + UInt64(seed))
        for _ in 0..<2 + dice.below(5) {
            try? sketch.cause(FindingKind.allCases[dice.below(FindingKind.allCases.count)])
        }
        let (bytes, _) = try await saved(sketch.device)
        let copy = try await restored(bytes)
        #expect(!holds(copy, Self.secret))
        let before = try await check(sketch.device, .overlay)
        let after = try await check(copy, .overlay)
        #expect(essence(before) == essence(after), "\(lines(before))\n---\n\(lines(after))")
    }

    @Test func aSoundVolumeStaysOne() async throws {
        let sketch = try await sketchWithSecrets()
        let (bytes, summary) = try await saved(sketch.device)
        let copy = try await restored(bytes)
        #expect(try await check(copy, .overlay).isClean)
        #expect(copy.byteCount == sketch.device.byteCount && summary.unreadable == 0)
        #expect(summary.leftOut >= 2)
        // Names and attributes are kept, data and targets are not.
        let there = VolumeSketch(
            sharing: copy,
            sketch.plan,
            VolumeSketch.Places(inodes: sketch.inodes, blocks: sketch.blocks)
        )
        let (old, new) = (try sketch.contents(), try there.contents())
        #expect(old.keys.sorted() == new.keys.sorted())
        for (path, seen) in new {
            #expect(seen.attributes == old[path]?.attributes && seen.mode == old[path]?.mode)
            #expect(seen.size == old[path]?.size)
        }
        let link = try #require(sketch.inodes["symlink"])
        let block = there.read(link.address)
        #expect(
            block.readOnly.window(InodeRecord.bodyOffset, 6).elementsEqual(Array("xxxxx\0".utf8))
        )
        // Saved and restored again it is the same.
        let again = try await restored(saved(copy).0)
        #expect(again.writtenPages == copy.writtenPages)
        for page in copy.writtenPages {
            let (one, other) = (AlignedBuffer(zeroed: 4096), AlignedBuffer(zeroed: 4096))
            copy.readNow(one.bytes, at: page * 4096)
            again.readNow(other.bytes, at: page * 4096)
            #expect(one.readOnly.elementsEqual(other.readOnly), "page \(page)")
        }
    }

    /// S4: logs are replayed as before, and hold no file data either, used or torn.
    @Test(arguments: 0..<4)
    func journalsHoldNoFileData(way: Int) async throws {
        let sketch = try await sketchWithSecrets()
        let hello = try #require(sketch.inodes["hello"])
        let group = sketch.superblock.groupStart(0)
        var images: [(BlockAddress, AlignedBuffer)] = []
        for address in [hello.address, group, sketch.root.address] {
            let image = sketch.read(address)
            BlockHeader.setVersion(BlockHeader.version(of: image.readOnly) + 5, of: image.bytes)
            if address == hello.address {
                image.bytes.put64(777, 80 + 8 + 8)  // an access time, to be seen after the replay
                putSecret(in: image.bytes)
            }
            images.append((address, image))
        }
        sketch.editGroup(0) { record, _ in record.freeCount -= 3 }
        try sketch.logTransaction(slot: 1, images)
        let start = sketch.plan.slots[1].journalStart
        switch way {
        case 1: sketch.edit(start + 2, seals: false) { $0[3000] ^= 1 }  // an image is torn
        case 2: sketch.edit(start + 5, seals: false) { $0[3000] ^= 1 }  // the commit is
        case 3:
            // An image that arrived whole and is none: only its entry's checksum is right.
            sketch.edit(start + 2, seals: false) { $0[3000] ^= 1 }
            sketch.edit(start + 1) { block in
                let image = sketch.read(start + 2)
                block.put32(crc32c(image.readOnly), JournalDescriptorHeader.entriesOffset + 32)
            }
            let descriptor = sketch.read(start + 1)
            sketch.edit(start + 5) { $0.put32(crc32c(descriptor.readOnly.window(8, 4)), 68) }
        default: break
        }
        let (bytes, _) = try await saved(sketch.device)
        let copy = try await restored(bytes)
        #expect(!holds(copy, Self.secret))
        let before = try await check(sketch.device, .overlay)
        let after = try await check(copy, .overlay)
        #expect(essence(before) == essence(after), "\(lines(before))\n---\n\(lines(after))")
        #expect(before.replays == after.replays && before.uncleanJournals == after.uncleanJournals)
        #expect(before.replays.map(\.transactions) == (way == 0 ? [1] : way == 3 ? [] : [0]))
        #expect(before.isClean == (way == 0))
        let reference = InodeReference("/hello")
        let shown = try await told(copy, replayed: true) { try await $0.showInode(reference) }
        #expect(shown.text.contains("1970-01-01T00:12:57") == (way == 0))
    }

    /// A tree that only the log knows: its blocks in place are needed, too.
    @Test func whatOnlyAReplayLeadsToIsThere() async throws {
        let sketch = try await sketchWithSecrets()
        let later = try await sketchWithSecrets()
        let directory = try later.add("new", in: later.root, 0o040755, .directoryIndex)
        let hello = try #require(later.inodes["hello"])
        let leaf = later.makeDirectoryLeaf(directory, [later.entryBytes("leaf", hello, 8)])
        try later.setPointers(directory, [TreePointer(key: 0, child: leaf)], height: 1)
        try later.editInode(directory) {
            $0.entryCount = 1
            $0.blockCount = 2
        }
        try later.editInode(hello) { $0.linkCount += 1 }
        // All but the leaf is in the log only; the leaf is home and marked nowhere.
        sketch.write(later.read(leaf), at: leaf)
        let changed = [
            later.root.address, directory.address, hello.address,
            later.superblock.groupStart(1),
        ]
        let images = changed.map { address in
            let image = later.read(address)
            BlockHeader.setVersion(BlockHeader.version(of: image.readOnly) + 9, of: image.bytes)
            return (address, image)
        }
        try sketch.logTransaction(slot: 0, images)
        try later.countQuotas()
        for number in sketch.superblock.quotaBlocks {
            let address = BlockAddress(number)
            sketch.write(later.read(address), at: address)
        }
        #expect(try await check(sketch.device, .overlay).isClean)
        let (bytes, _) = try await saved(sketch.device)
        let report = try await check(try await restored(bytes), .overlay)
        #expect(report.isClean && report.replays.count == 1, "\(lines(report))")
    }

    /// S3: a bit that flipped in what is left out leaves the inode damaged.
    @Test func damageInWhatIsLeftOutStays() async throws {
        let sketch = try await VolumeSketch.populated()
        let empty = try #require(sketch.inodes["empty"])
        sketch.edit(empty.address, seals: false) { $0[1000] ^= 4 }
        let before = try await check(sketch.device, .overlay)
        let after = try await check(try await restored(saved(sketch.device).0), .overlay)
        #expect(before.count(of: .inodeDamaged) == 1)
        #expect(essence(before) == essence(after), "\(lines(before))\n---\n\(lines(after))")
    }

    /// S1: where a wrong entry leads to file data, that is no metadata.
    @Test func dataThatSomethingLeadsToIsLeftOut() async throws {
        let sketch = try await sketchWithSecrets()
        let data = try #require(sketch.blocks["flat data"])
        let wrong = InodeNumber(address: data, generation: 1)
        let sub = try #require(sketch.inodes["sub"])
        let entry = sketch.entryBytes("wrong", wrong, 8)
        try sketch.setInlineEntries(sub, sketch.pack([entry]), count: 1)
        let copy = try await restored(saved(sketch.device).0)
        #expect(!holds(copy, Self.secret))
        let before = try await check(sketch.device, .overlay)
        let after = try await check(copy, .overlay)
        #expect(before.count(of: .entryTargetMissing) == 1)
        #expect(essence(before) == essence(after), "\(lines(before))\n---\n\(lines(after))")
    }

    /// A whole record of another image in place of one.
    @Test func recordsOfAnotherImageAreNoticed() async throws {
        let sketch = try await sketchWithSecrets()
        let (bytes, _) = try await saved(sketch.device)
        let length = bytes.withUnsafeBytes { Int($0.u32(64 + 8)) }
        sketch.edit(BlockAddress(16)) { $0.put64(9, 24) }  // another version of the superblock
        let (others, _) = try await saved(sketch.device)
        #expect(others.count == bytes.count && others != bytes)
        let mixed = bytes[..<64] + others[64..<88 + length] + bytes[(88 + length)...]
        #expect(await refusal(Array(mixed))?.contains("is damaged") == true)
    }

    private func refusal(_ bytes: [UInt8]) async -> String? {
        do {
            _ = try await restored(bytes)
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// Cut anywhere, or with a bit flipped anywhere, it is refused, and the reason is one line.
    @Test func damageIsNoticed() async throws {
        let sketch = try await sketchWithSecrets()
        let (bytes, _) = try await saved(sketch.device)
        #expect(await refusal(bytes) == nil)
        let near = Array(0..<200) + Array(bytes.count - 200..<bytes.count)
        for length in near + Array(stride(from: 200, to: bytes.count - 200, by: 997)) {
            let why = await refusal(Array(bytes[..<length]))
            #expect(why?.contains("cut off") == true || length < 64, "\(length): \(why ?? "taken")")
            #expect(why?.contains("\n") == false)
        }
        for place in near + Array(stride(from: 200, to: bytes.count - 200, by: 397)) {
            var other = bytes
            other[place] ^= 1 << UInt8(place % 8)
            #expect(await refusal(other) != nil, "a flip of byte \(place) is not noticed")
        }
        let why = await refusal(bytes + [0])
        #expect(why?.contains("something follows") == true)
    }

    /// What has whole records, but not all of them or not in their places.
    @Test func recordsThatAreMissingOrMovedAreNoticed() async throws {
        let sketch = try await sketchWithSecrets()
        let (bytes, summary) = try await saved(sketch.device)
        var starts: [Int] = []
        var position = 64
        for _ in 0..<summary.records {
            starts.append(position)
            let length = bytes.withUnsafeBytes { $0.u32(position + 8) }
            position += 24 + Int(length)
        }
        #expect(position + 24 == bytes.count)
        for index in [0, 1, starts.count / 2, starts.count - 1] {
            var other = bytes
            let end = index + 1 < starts.count ? starts[index + 1] : position
            other.removeSubrange(starts[index]..<end)
            #expect(await refusal(other)?.contains("is damaged") == true)
            other.insert(contentsOf: bytes[starts[index]..<end], at: 64)
            let why = await refusal(other)
            #expect(why == nil || why?.contains("is damaged") == true)
            #expect((why == nil) == (index == 0))
        }
    }

    @Test func whatIsNoMetadataImageIsRefused() async throws {
        for bytes in [[], Array("just a text".utf8), [UInt8](repeating: 7, count: 5000)] {
            #expect(await refusal(bytes)?.contains("is no metadata image") == true)
        }
        let sketch = try await VolumeSketch.populated()
        var (bytes, _) = try await saved(sketch.device)
        bytes[8] = 9
        #expect(await refusal(bytes)?.contains("version 9") == true)
    }
}
