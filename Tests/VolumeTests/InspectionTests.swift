import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeInspection
import VolumeMaking

@Suite struct InspectionTests {
    private func sketchWithData() async throws -> VolumeSketch {
        let sketch = try await VolumeSketch.populated()
        try sketch.fillData()
        return sketch
    }

    private func path(_ text: String) -> InodeReference { InodeReference(text) }

    // MARK: what is shown

    @Test func theSuperblockIsShown() async throws {
        let sketch = try await VolumeSketch.populated()
        let answer = try await toldSuperblock(sketch.device)
        #expect(answer.damageCount == 0, "\(answer.text)")
        #expect(answer.json.number("block_size") == 4096)
        #expect(answer.json.number("block_count") == sketch.superblock.blockCount)
        #expect(answer.json.string("created") == "2023-11-14T22:13:20.000000005Z")
        #expect(answer.json.string("cluster_name") == "lab")
        let copies = sketch.plan.copies
        #expect(answer.column("block", of: "copies") == copies.map { .number($0.rawValue) })
        #expect(answer.column("state", of: "copies").allSatisfy { $0 == .string("same") })
        let copy = try await toldSuperblock(sketch.device, copy: 1)
        #expect(copy.json.number("block") == copies[0].rawValue && copy.damageCount == 0)
        await #expect(throws: InspectionError.self) {
            _ = try await toldSuperblock(sketch.device, copy: 99)
        }
    }

    @Test func whatIsLeftOfASuperblockIsShown() async throws {
        let sketch = try await VolumeSketch.populated()
        sketch.edit(BlockAddress(16), seals: false) { $0[1000] ^= 1 }
        for address in sketch.plan.copies { sketch.edit(address, seals: false) { $0[80] ^= 1 } }
        let answer = try await toldSuperblock(sketch.device)
        #expect(answer.damageCount == 1 && answer.text.contains("checksum"), "\(answer.text)")
        #expect(answer.json.number("block_count") == sketch.superblock.blockCount)
        let why = try await refusal(sketch.device) { _ in }
        #expect(why.contains("'superblock'"))
        // A copy stands in, and it is said.
        let other = try await VolumeSketch.populated()
        try other.cause(.superblockDamaged)
        let list = try await told(other.device) { try await $0.showList(path("/"), long: false) }
        #expect(list.damageCount == 1 && list.text.contains("a copy stands in"))
        #expect(try await toldSuperblock(other.device).damageCount == 1)
    }

    @Test func groupsAndSlotsAreShown() async throws {
        let sketch = try await VolumeSketch.populated()
        let slots = try await sound(sketch.device) { await $0.showSlots() }
        #expect(
            slots.column("journal", of: "slots")
                == sketch.plan.slots.map { .number($0.journalStart.rawValue) }
        )
        let groups = try await sound(sketch.device) { await $0.showGroups() }
        #expect(groups.rows("groups").count == Int(sketch.superblock.groupCount))
        let group = try await sound(sketch.device) { try await $0.showGroup(1) }
        let runs = group.rows("runs")
        let total = runs.reduce(0) { $0 + ($1.number("blocks") ?? 0) }
        #expect(total == UInt64(sketch.superblock.groupLength(1)))
        #expect(runs.contains { $0.string("state") == "quarantined" })
        let why = try await refusal(sketch.device) { try await $0.showGroup(99) }
        #expect(why.contains("groups 0 to"))
    }

    @Test func inodesAndAttributesAreShown() async throws {
        let sketch = try await VolumeSketch.populated()
        let hello = try await sound(sketch.device) { try await $0.showInode(path("/hello")) }
        let fields = try #require(hello.json["fields"])
        #expect(fields.number("size") == 100 && fields.number("link_count") == 2)
        #expect(fields.string("mode") == "0100644" && fields.string("layout") == "inline data")
        #expect(fields.string("born") == "2023-11-14T22:13:21.000000007Z")
        let short = try await sound(sketch.device) { try await $0.showAttributes(path("/short")) }
        #expect(
            short.column("name", of: "attributes") == [
                .string("user.colour"), .string("user.none"),
            ]
        )
        #expect(short.column("value", of: "attributes") == [.string("blue"), .string("")])
        let long = try await sound(sketch.device) { try await $0.showAttributes(path("/long")) }
        #expect(long.column("length", of: "attributes") == [.number(6000)])
        #expect(long.rows("attribute_blocks").count == 2)
        let orphan = try #require(sketch.inodes["orphan"])
        let reference = InodeReference.number(orphan.address.rawValue, generation: nil)
        let shown = try await sound(sketch.device) { try await $0.showInode(reference) }
        #expect(shown.json["fields"]?.number("orphan_slot") == 1)
    }

    /// Points of time far from now, before 1970, and days that only some years have.
    @Test func timesAreShown() async throws {
        let sketch = try await VolumeSketch.populated()
        let hello = try #require(sketch.inodes["hello"])
        for (seconds, text) in [
            (Int64(-1), "1969-12-31T23:59:59."), (951_782_400, "2000-02-29T00:00:00."),
            (4_107_542_400, "2100-03-01T00:00:00."), (-2_203_977_600, "1900-02-28T00:00:00."),
            (.max, "@9223372036854775807."), (.min, "@-9223372036854775808."),
        ] {
            try sketch.editInode(hello) {
                $0.accessed = Timestamp(seconds: seconds, nanoseconds: 0)
            }
            let answer = try await sound(sketch.device) { try await $0.showInode(path("/hello")) }
            let shown = try #require(answer.json["fields"]?.string("accessed"))
            #expect(shown.hasPrefix(text), "\(shown)")
        }
    }

    @Test func extentsAndHolesAreShown() async throws {
        let sketch = try await VolumeSketch.populated()
        let flat = try await sound(sketch.device) { try await $0.showExtents(path("/flat")) }
        #expect(
            flat.column("what", of: "tree")
                == ["extent", "hole", "extent", "hole", "unwritten"].map { .string($0) }
        )
        #expect(flat.column("logical", of: "tree") == [0, 3, 10, 15, 100].map { .number($0) })
        let tree = try await sound(sketch.device) { try await $0.showExtents(path("/tree")) }
        #expect(tree.json.number("data_blocks") == 24 && tree.json.number("tree_blocks") == 5)
        let nodes = tree.rows("tree").filter { $0.string("what") == "node" }
        let leaf = try #require(sketch.blocks["extent leaf"])
        #expect(nodes.count == 5 && nodes.contains { $0.number("address") == leaf.rawValue })
        // Extents and holes cover the file from its beginning without a gap.
        var next: UInt64 = 0
        for row in tree.rows("tree") where row.string("what") != "node" {
            #expect(row.number("logical") == next)
            next += row.number("length") ?? 0
        }
        #expect(next == 2032)
        let why = try await refusal(sketch.device) { try await $0.showExtents(path("/hello")) }
        #expect(why.contains("inline data"))
    }

    @Test func directoriesAreShown() async throws {
        let sketch = try await VolumeSketch.populated()
        let many = try await sound(sketch.device) {
            try await $0.showList(path("/many"), long: true)
        }
        let names = try sketch.names(in: #require(sketch.inodes["many"])).map { $0.0 }
        #expect(many.column("name", of: "entries") == names.map { .string($0) })
        #expect(many.column("links", of: "entries").allSatisfy { $0 == .number(120) })
        let keys = many.rows("entries").compactMap { $0.string("key") }
        #expect(keys == keys.sorted() && keys.count == 120)
        let tree = try await sound(sketch.device) { try await $0.showTree(path("/many")) }
        #expect(tree.column("height", of: "nodes") == [2, 1, 0, 0, 0].map { .number($0) })
        #expect(tree.column("records", of: "nodes") == [1, 3, 40, 40, 40].map { .number($0) })
    }

    @Test func blocksAreShownAsWhatTheyAre() async throws {
        let sketch = try await VolumeSketch.populated()
        var kinds: Set<String> = []
        for address in sketch.interestingBlocks {
            let answer = try await sound(sketch.device) { try await $0.showBlock(address.rawValue) }
            guard let kind = answer.json["header"]?.string("kind") else { continue }
            kinds.insert(kind)
            #expect(answer.json[kind.replacing(" ", with: "_")] != nil, "\(kind): \(answer.text)")
        }
        let inJournals: [BlockKind] = [.journalDescriptor, .journalCommit]
        let expected = BlockKind.allCases.filter { !inJournals.contains($0) }
        #expect(kinds == Set(expected.map(\.description)))
        // The bytes.
        var dump = ""
        let inspector = try await Inspector.open(
            sketch.device,
            sheet: Sheet(TextRenderer { _ in }),
            replayed: false
        )
        try await inspector.hexadecimalDump(ofBlock: 16) { dump += $0 }
        #expect(dump.hasPrefix("00000  4c 4b 53 54 01 00 01 00  "))
        #expect(dump.contains("|LOCKSTEP"))
        let why = try await refusal(sketch.device) { try await $0.showBlock(.max) }
        #expect(why.contains("the volume has blocks 0 to"))
    }

    // MARK: who has what

    @Test func ownersAreFound() async throws {
        let sketch = try await VolumeSketch.populated()
        func owner(_ address: BlockAddress) async throws -> [String] {
            try await sound(sketch.device) { try await $0.showOwner(address.rawValue) }
                .rows("owners").map {
                    "\($0.number("inode") ?? 0) \($0.string("as") ?? "") \($0["logical"]?.text ?? "")"
                }
        }
        func number(_ name: String) throws -> UInt64 {
            try #require(sketch.inodes[name]).address.rawValue
        }
        func block(_ name: String) throws -> BlockAddress { try #require(sketch.blocks[name]) }
        #expect(try await owner(block("flat data") + 1) == ["\(number("flat")) data 1"])
        #expect(try await owner(block("extent leaf")) == ["\(number("tree")) extent node 1000"])
        #expect(
            try await owner(block("directory index")) == ["\(number("many")) directory index 0"]
        )
        #expect(try await owner(block("attributes")) == ["\(number("long")) attributes null"])
        #expect(try await owner(block("quarantined")) == [])
        let orphan = try #require(sketch.inodes["orphan"])
        #expect(try await owner(orphan.address) == ["\(orphan.address.rawValue) inode null"])
        let listed = try await sound(sketch.device) {
            try await $0.showOwner(orphan.address.rawValue)
        }
        #expect(listed.column("reachable", of: "owners") == [.boolean(true)])
        // Both owners of a block that two have.
        try sketch.cause(.blockUsedTwice)
        let twice = try block("flat data")
        let answer = try await told(sketch.device) { try await $0.showOwner(twice.rawValue) }
        #expect(answer.rows("owners").count == 2 && answer.damageCount == 1)
        // What nothing leads to is found by its mark.
        try sketch.cause(.inodeUnreachable)
        let lost = BlockAddress(
            try #require(
                sketch.device.writtenPages.last { page in
                    let block = sketch.read(BlockAddress(page))
                    return withExtendedLifetime(block) {
                        StatedHeader(block.readOnly).kind == .inode
                            && !sketch.inodes.values.contains { $0.address.rawValue == page }
                            && page != sketch.root.address.rawValue
                            && !sketch.plan.slots.contains {
                                $0.orphanDirectory.address.rawValue == page
                            }
                    }
                }
            )
        )
        let found = try await told(sketch.device) { try await $0.showOwner(lost.rawValue) }
        #expect(found.column("reachable", of: "owners") == [.boolean(false)])
    }

    @Test func allNamesOfAnInodeAreFound() async throws {
        let sketch = try await VolumeSketch.populated()
        func names(_ name: String) async throws -> [String] {
            let number = try #require(sketch.inodes[name])
            let reference = InodeReference.number(number.address.rawValue, generation: nil)
            return try await sound(sketch.device) { try await $0.showNames(reference) }
                .rows("names").compactMap { $0.string("path") }.sorted()
        }
        #expect(try await names("hello") == ["/dir/again", "/hello"])
        #expect(try await names("sub") == ["/dir/sub"])
        let many = try await names("target")
        #expect(many.count == 120 && many.allSatisfy { $0.hasPrefix("/many/name-") })
        #expect(try await names("orphan") == ["(orphans of slot 1)/0000001234"])
        try sketch.cause(.inodeUnreachable)
    }

    // MARK: paths

    @Test func pathsAreFollowedOrRefusedByName() async throws {
        let sketch = try await VolumeSketch.populated()
        for text in ["/dir/sub", "dir//sub/", "/dir/../dir/./sub", "/../../dir/sub"] {
            let answer = try await sound(sketch.device) { try await $0.showInode(path(text)) }
            #expect(answer.json.number("inode") == sketch.inodes["sub"]?.address.rawValue)
        }
        let sub = try #require(sketch.inodes["sub"])
        let exact = InodeReference("\(sub.address.rawValue).\(sub.generation)")
        _ = try await sound(sketch.device) { try await $0.showInode(exact) }
        let cases: [(String, [String])] = [
            ("/dir/nothing/x", ["/dir/nothing", "no such name in /dir"]),
            ("/hello/x", ["/hello: is no directory"]),
            ("/symlink/x", ["/symlink: is a symbolic link to"]),
            ("\(sub.address.rawValue).\(sub.generation + 1)", ["generation \(sub.generation)"]),
            ("\(sketch.superblock.groupStart(0).rawValue)", ["but a resource group"]),
            ("99999999", ["the volume has blocks"]),
        ]
        for (text, words) in cases {
            let why = try await refusal(sketch.device) { try await $0.showInode(path(text)) }
            for word in words { #expect(why.contains(word), "\(text): \(why)") }
        }
        // An entry that leads to what is not there.
        try sketch.cause(.entryTargetMissing)
        let why = try await refusal(sketch.device) { try await $0.showInode(path("/dir/sub/x")) }
        #expect(why.contains("/dir/sub/x: the entry leads to inode"))
    }

    /// A name is found although the index above it is wrong or its own key is.
    @Test func namesAreFoundInDamagedDirectories() async throws {
        let sketch = try await VolumeSketch.populated()
        try sketch.cause(.treeKeyWrong)
        _ = try await told(sketch.device) { try await $0.showInode(path("/many/name-7")) }
        try sketch.cause(.entryKeyWrong)
        let answer = try await told(sketch.device) { try await $0.showInode(path("/dir/sub/x")) }
        #expect(answer.damageCount == 1 && answer.text.contains("under a wrong key"))
        // One leaf is gone: its names are not there, and it is said why.
        let leaf = try #require(sketch.blocks["directory leaf"])
        sketch.edit(leaf, seals: false) { $0[300] ^= 1 }
        var lost = 0
        for index in 0..<120 {
            do {
                _ = try await told(sketch.device) {
                    try await $0.showInode(path("/many/name-\(index)"))
                }
            } catch let error as InspectionError {
                lost += 1
                #expect(error.description.contains("fails its checksum"), "\(error)")
            }
        }
        #expect(lost == 40)
    }

    // MARK: contents

    private func content(_ sketch: VolumeSketch, _ name: String) async throws -> ([UInt8], UInt64) {
        let sheet = Sheet(TextRenderer { _ in })
        let inspector = try await Inspector.open(sketch.device, sheet: sheet, replayed: false)
        var bytes: [UInt8] = []
        try await inspector.writeContent(path(name)) { part in
            bytes += part
            return true
        }
        return (bytes, sheet.damageCount)
    }

    @Test func contentsAreReadWithTheirHoles() async throws {
        let sketch = try await sketchWithData()
        let flat = try #require(sketch.blocks["flat data"])
        let (bytes, damages) = try await content(sketch, "/flat")
        #expect(bytes.count == 15 * 4096 - 9 && damages == 0)
        for index in 0..<3 {
            let block = sketch.read(flat + UInt64(index))
            #expect(bytes[index * 4096..<(index + 1) * 4096].elementsEqual(block.readOnly))
        }
        #expect(bytes[3 * 4096..<10 * 4096].allSatisfy { $0 == 0 })
        #expect(bytes[10 * 4096] != 0 || bytes[10 * 4096 + 1] != 0)
        // What was allocated and never written is zeros, whatever stands in its blocks.
        try sketch.editInode(#require(sketch.inodes["flat"])) { $0.size = 102 * 4096 }
        let (longer, _) = try await content(sketch, "/flat")
        #expect(longer.count == 102 * 4096 && longer[(100 * 4096)...].allSatisfy { $0 == 0 })
        let hello = try #require(sketch.inodes["hello"])
        sketch.edit(hello.address) { $0[InodeRecord.bodyOffset + 3] = 77 }
        let (small, _) = try await content(sketch, "/hello")
        #expect(small == [0, 0, 0, 77] + [UInt8](repeating: 0, count: 96))
        let why = try await refusal(sketch.device) {
            try await $0.writeContent(path("/fifo")) { _ in true }
        }
        #expect(why.contains("a fifo has no content"))
    }

    /// What a lost leaf of the tree led to comes as zeros, and all else as it was.
    @Test func whatCannotBeReadComesAsZeros() async throws {
        let sketch = try await sketchWithData()
        let (before, none) = try await content(sketch, "/tree")
        #expect(none == 0)
        try sketch.cause(.treeBlockDamaged)
        let (after, damages) = try await content(sketch, "/tree")
        #expect(damages == 1 && after.count == before.count)
        var expected = before
        for index in 1000 * 4096..<2000 * 4096 { expected[index] = 0 }
        #expect(after == expected && before != expected)
    }

    // MARK: journals

    private func unclean() async throws -> VolumeSketch {
        let sketch = try await VolumeSketch.populated()
        let address = sketch.superblock.groupStart(0)
        let image = sketch.read(address)
        BlockHeader.setVersion(BlockHeader.version(of: image.readOnly) + 5, of: image.bytes)
        sketch.editGroup(0) { record, _ in record.freeCount -= 3 }
        try sketch.logTransaction(slot: 1, [(address, image)])
        return sketch
    }

    @Test func logsAreShownAndReplayedInMemory() async throws {
        let sketch = try await unclean()
        let before = MemoryDevice(copying: sketch.device)
        let log = try await sound(sketch.device) { try await $0.showJournal(1, blocks: true) }
        #expect(log.text.contains("is not clean: what is shown is what stands in place"))
        let transaction = try #require(log.rows("transactions").first)
        #expect(transaction.number("sequence") == 1 && transaction.number("length") == 3)
        guard case .array(let images)? = transaction["blocks"] else {
            Issue.record("no blocks: \(log.text)")
            return
        }
        #expect(images.count == 1 && images[0].string("kind") == "resource group")
        #expect(images[0].string("lock") == "group:0")
        #expect(log.json["to_replay"] == .boolean(true))
        #expect(log.json.string("because")?.contains("is not a metadata block") == true)
        let home = try await told(sketch.device) { try await $0.showGroup(0) }
        #expect(home.damageCount == 1)
        let group = try await sound(sketch.device, replayed: true) { try await $0.showGroup(0) }
        #expect(group.text.contains("as if the journal of slot 1 had been replayed"))
        let clean = try await sound(sketch.device, replayed: true) {
            try await $0.showJournal(1, blocks: false)
        }
        #expect(clean.json["to_replay"] == .boolean(false))
        // I1.
        #expect(sketch.device.writtenPages == before.writtenPages)
        for page in before.writtenPages {
            let (old, new) = (AlignedBuffer(zeroed: 4096), AlignedBuffer(zeroed: 4096))
            before.readNow(old.bytes, at: page * 4096)
            sketch.device.readNow(new.bytes, at: page * 4096)
            #expect(old.readOnly.elementsEqual(new.readOnly))
        }
    }

    @Test func whyALogEndsIsSaid() async throws {
        let reasons: [(UInt64, (UnsafeMutableRawBufferPointer) -> Void, String)] = [
            (3, { $0[2000] ^= 1 }, "fails its checksum"),
            (2, { $0[2000] ^= 1 }, "should hold the image of"),
            (3, { $0.put32(9, 64) }, "is not of what stands before it"),
            (1, { $0.put64(7, 48) }, "is left from transaction 7"),
            (1, { $0.put32(4, 68) }, "is not the next one"),
        ]
        for (index, change, reason) in reasons {
            let sketch = try await unclean()
            let start = sketch.plan.slots[1].journalStart
            sketch.edit(start + index, seals: !reason.contains("checksum"), change)
            let log = try await sound(sketch.device) { try await $0.showJournal(1, blocks: true) }
            let said = log.json.string("because") ?? ""
            #expect(said.contains(reason), "\(said)")
            #expect(log.rows("transactions").isEmpty)
        }
        // A log that no writer writes is damage.
        let sketch = try await VolumeSketch.populated()
        try sketch.cause(.journalLogDamaged)
        let log = try await told(sketch.device) { try await $0.showJournal(1, blocks: true) }
        #expect(log.damageCount == 1 && log.text.contains("entry count"))
    }

    // MARK: damage

    /// I2, I3: whatever a check finds, everything can be asked, and that something is wrong shows, as
    /// long as one structure tells it.
    @Test(arguments: FindingKind.allCases)
    func damageIsShown(kind: FindingKind) async throws {
        let sketch = try await sketchWithData()
        #expect(try await sketch.askEverything() == 0)
        try sketch.cause(kind)
        let damages = try await sketch.askEverything()
        let copies = try await toldSuperblock(sketch.device).damageCount
        #expect(damages + copies > 0 || kind.needsAWholeCheck, "\(kind.rawValue)")
        #expect(damages == 0 || !kind.needsAWholeCheck, "\(kind.rawValue) shows")
    }

    /// I2: every byte of a block of each kind, with its checksum right and wrong.
    @Test(arguments: 0..<13)
    func everyByteMayBeWrong(which: Int) async throws {
        let sketch = try await sketchWithData()
        let names = [
            "directory leaf", "directory index", "extent leaf", "extent index", "attributes",
        ]
        var targets = try names.map { try #require(sketch.blocks[$0]) }
        targets += try ["hello", "flat", "short"].map { try #require(sketch.inodes[$0]).address }
        targets += [
            sketch.root.address, sketch.superblock.groupStart(1),
            sketch.superblock.slotDescriptor(SlotIndex(0)), sketch.superblock.guardTable,
            sketch.plan.slots[1].journalStart,
        ]
        let target = targets[which]
        let original = sketch.read(target)
        let inode = StatedHeader(original.readOnly).owner
        var unnoticed = 0
        for offset in 0..<4096 where offset < 420 || offset % 61 == 0 {
            for seals in [false, true] {
                sketch.edit(target, seals: seals) { $0[offset] ^= 0xFF }
                let sheet = Sheet(TextRenderer { _ in })
                let inspector = try await Inspector.open(
                    sketch.device,
                    sheet: sheet,
                    replayed: false
                )
                try await inspector.showBlock(target.rawValue)
                if !seals && sheet.damageCount == 0 { unnoticed += 1 }
                if offset < 420, seals, which < 9 { try await sketch.askBriefly(inode, inspector) }
                sketch.write(original, at: target)
            }
        }
        #expect(unnoticed == 0)
    }

    /// I2: bytes that no node wrote, under checksums that are right.
    @Test(arguments: 0..<40)
    func hostileVolumesAreSurvived(seed: Int) async throws {
        let sketch = try await unclean()
        try sketch.fillData()
        var dice = SeededGenerator(seed: 8_000_000 + UInt64(seed))
        let places = sketch.interestingBlocks.filter { address in
            let block = sketch.read(address)
            return withExtendedLifetime(block) { StatedHeader(block.readOnly).hasMagic }
        }
        for _ in 0...dice.below(6) {
            sketch.edit(places[1 + dice.below(places.count - 1)]) { block in
                for _ in 0...dice.below(4) {
                    let offset = 48 + dice.below(300)
                    switch dice.below(5) {
                    case 0: block.put64(UInt64.max, offset)
                    case 1: block.put64(1 << UInt64(dice.below(64)), offset)
                    case 2: block.put32(UInt32(dice.below(5000)), offset)
                    case 3: block.put64(places[dice.below(places.count)].rawValue, offset)
                    default: block[offset] = UInt8(dice.below(256))
                    }
                }
            }
        }
        _ = try await sketch.askEverything()
        _ = try await sketch.askEverything(replayed: true)
    }
}

extension VolumeSketch {
    /// What leads through the tree of one inode.
    fileprivate func askBriefly(_ number: UInt64, _ inspector: Inspector) async throws {
        let inode = InodeReference.number(number, generation: nil)
        let questions: [(Inspector) async throws -> Void] = [
            { try await $0.showInode(inode) }, { try await $0.showExtents(inode) },
            { try await $0.showList(inode, long: false) }, { try await $0.showTree(inode) },
            { try await $0.writeContent(inode) { _ in false } },
        ]
        for question in questions {
            do {
                try await question(inspector)
            } catch let error as InspectionError {
                #expect(!error.description.contains("\n"))
            }
        }
    }
}

extension FindingKind {
    /// Only a comparison of many structures tells it: what a whole group has, and blocks and inodes
    /// that nothing which was asked for leads to.
    fileprivate var needsAWholeCheck: Bool {
        switch self {
        case .blockLost, .blockNotMarked, .groupInodeCountWrong, .groupGenerationLow,
            .groupVersionLow, .inodeUnreachable, .quotaRecordLost, .quotaBlocksWrong,
            .quotaInodesWrong:
            true
        default: false
        }
    }
}
