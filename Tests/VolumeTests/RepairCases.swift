// Repairs of particular damage: what is left, and what a user finds afterwards.

import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

@Suite struct RepairCases {
    private func repaired(_ sketch: VolumeSketch) async throws -> RepairReport {
        let report = try await VolumeRepair.repair(sketch.device)
        #expect(report.outcome == .corrected, "left: \(lines(report.check))")
        #expect(try await VolumeChecker.check(sketch.device).isClean)
        return report
    }

    private func sketchWithData() async throws -> VolumeSketch {
        let sketch = try await VolumeSketch.populated()
        try sketch.fillData()
        return sketch
    }

    /// Several things at once, each of which is found and repaired alone.
    @Test(arguments: 0..<60)
    func severalThingsAtOnce(seed: Int) async throws {
        let sketch = try await sketchWithData()
        var dice = SeededGenerator(seed: 5_000_000 + UInt64(seed))
        var kinds: [FindingKind] = []
        for _ in 0..<2 + dice.below(5) {
            let kind = FindingKind.allCases[dice.below(FindingKind.allCases.count)]
            // What the damage before it has left nothing of cannot be damaged.
            if (try? sketch.cause(kind)) != nil { kinds.append(kind) }
        }
        let report = try await VolumeRepair.repair(sketch.device)
        #expect(report.check.isClean, "\(kinds): \(lines(report.check))")
        #expect(try await VolumeChecker.check(sketch.device).isClean, "\(kinds)")
    }

    /// A directory whose new tree needs an index of two levels.
    @Test func aLargeDirectoryKeepsItsNames() async throws {
        let sketch = try await sketchWithData()
        let large = try sketch.add("large", in: sketch.root, 0o040755, .directoryIndex)
        let target = try #require(sketch.inodes["hello"])
        let count = 30_000
        let entries = (0..<count).map { sketch.entryBytes("name-\($0)", target, 8) }
            .sorted { $0.0 < $1.0 }
        var leaves: [TreePointer] = []
        for start in stride(from: 0, to: count, by: 100) {
            let part = Array(entries[start..<start + 100])
            let key = start == 0 ? 0 : part[0].0
            leaves.append(
                TreePointer(key: key, child: sketch.makeDirectoryLeaf(large, part))
            )
        }
        let nodes = stride(from: 0, to: leaves.count, by: 200).map { start in
            let part = Array(leaves[start..<min(start + 200, leaves.count)])
            let child = sketch.makeIndexNode(.directoryIndex, large, part, height: 1)
            return TreePointer(key: part[0].key, child: child)
        }
        try sketch.setPointers(large, nodes, height: 2)
        try sketch.editInode(large) {
            $0.entryCount = UInt64(count)
            $0.blockCount = UInt64(1 + nodes.count + leaves.count)
        }
        try sketch.editInode(target) { $0.linkCount += UInt32(count) }
        try sketch.countQuotas()
        #expect(try await VolumeChecker.check(sketch.device).isClean)
        let names = Set(try sketch.names(in: large).map(\.0))
        sketch.edit(nodes[1].child) { $0.put64(7, TreeNodeHeader.recordsOffset) }
        _ = try await repaired(sketch)
        #expect(try sketch.record(large).height == 2)
        #expect(Set(try sketch.names(in: large).map(\.0)) == names)
        // A leaf that is gone takes its own names with it, and no others.
        sketch.edit(try sketch.leafOfDirectory(large), seals: false) { $0[500] ^= 1 }
        _ = try await repaired(sketch)
        let left = Set(try sketch.names(in: large).map(\.0))
        #expect(left.isSubset(of: names) && left.count < count && left.count > count - 200)
    }

    /// Of two leaves that claim the same blocks of a file the newer one is believed.
    @Test func newerExtentsWin() async throws {
        let sketch = try await sketchWithData()
        let file = try sketch.add("file", in: sketch.root, 0o100644, .extents)
        let old = sketch.allocate(.data, length: 5)
        let new = sketch.allocate(.data, length: 4)
        let left = sketch.makeExtentLeaf(file, [Extent(logical: 0, physical: old, length: 5)])
        let right = sketch.makeExtentLeaf(file, [Extent(logical: 3, physical: new, length: 4)])
        sketch.edit(right) { BlockHeader.setVersion(9, of: $0) }
        try sketch.setPointers(
            file,
            [TreePointer(key: 0, child: left), TreePointer(key: 3, child: right)],
            height: 1
        )
        try sketch.editInode(file) {
            $0.size = 7 * 4096
            $0.blockCount = 1 + 2 + 9
        }
        _ = try await repaired(sketch)
        let block = sketch.read(file.address)
        let extents = withExtendedLifetime(block) {
            (0..<2).map { Extent(block.readOnly, at: InodeRecord.bodyOffset + $0 * 24) }
        }
        #expect(try sketch.record(file).rootCount == 2)
        #expect(extents[0] == Extent(logical: 0, physical: old, length: 3))
        #expect(extents[1] == Extent(logical: 3, physical: new, length: 4))
    }

    /// Preening does the safe part and stops where it has to leave something.
    @Test func preeningStopsAtWhatItLeaves() async throws {
        let sketch = try await sketchWithData()
        try sketch.cause(.superblockCopyDamaged)
        try sketch.cause(.groupTailNotClear)
        try sketch.cause(.treeBlockDamaged)
        try sketch.cause(.blockLost)
        var options = RepairOptions()
        options.mode = .preen
        let report = try await VolumeRepair.repair(sketch.device, options: options)
        #expect(report.outcome == .left)
        #expect(Set(report.repaired.map(\.kind)) == [.superblockCopyDamaged, .groupTailNotClear])
        // What lies below the damaged node seems lost, and is not freed.
        #expect(report.check.count(of: .treeBlockDamaged) == 1)
        #expect(report.check.count(of: .blockLost) > 0)
        _ = try await repaired(sketch)
    }

    /// The log of a slot whose descriptor was damaged is replayed once the slot is found again.
    @Test func aJournalThatIsFoundAgainIsReplayed() async throws {
        let sketch = try await sketchWithData()
        let before = try sketch.contents()
        let address = try #require(sketch.inodes["hello"]).address
        let image = sketch.read(address)
        BlockHeader.setVersion(50, of: image.bytes)
        image.bytes.put32(0o100600, 64)
        try sketch.logTransaction(slot: 1, [(address, image)])
        sketch.edit(sketch.superblock.slotDescriptor(SlotIndex(1)), seals: false) { $0[70] ^= 1 }
        let report = try await repaired(sketch)
        #expect(report.replays.map(\.slot) == [SlotIndex(1)])
        let after = try sketch.contents()
        #expect(before["hello"]?.mode == 0o100644 && after["hello"]?.mode == 0o100600)
    }

    /// Two descriptors, one pointing at the other's journal, whichever comes first.
    @Test(arguments: [0, 1])
    func theWrongOneOfTwoJournalsMoves(wrong: Int) async throws {
        let sketch = try await sketchWithData()
        var slot = sketch.plan.slots[wrong]
        slot.journalStart = sketch.plan.slots[1 - wrong].journalStart
        let address = sketch.superblock.slotDescriptor(slot.slot)
        sketch.edit(address) { slot.write(to: $0, at: address, volume: sketch.superblock.volume) }
        _ = try await repaired(sketch)
        for (index, planned) in sketch.plan.slots.enumerated() {
            #expect(try sketch.descriptor(index) == planned)
        }
    }

    /// One descriptor is damaged, and the other leads to its journal: the log that stands there is
    /// its owner's still.
    @Test func theLogOfADamagedSlotIsNotEmptied() async throws {
        let sketch = try await sketchWithData()
        let address = try #require(sketch.inodes["hello"]).address
        let image = sketch.read(address)
        BlockHeader.setVersion(50, of: image.bytes)
        image.bytes.put32(0o100600, 64)
        try sketch.logTransaction(slot: 0, [(address, image)])
        try sketch.cause(.journalMisplaced)
        try sketch.cause(.slotDescriptorDamaged)
        let report = try await repaired(sketch)
        #expect(report.replays.map(\.slot) == [SlotIndex(0)])
        #expect(try sketch.contents()["hello"]?.mode == 0o100600)
        for (index, planned) in sketch.plan.slots.enumerated() {
            #expect(try sketch.descriptor(index) == planned)
        }
    }

    /// What is left in the ring of a journal that was emptied is never replayed.
    @Test func anEmptiedJournalStartsAboveWhatItHeld() async throws {
        let sketch = try await sketchWithData()
        try sketch.cause(.journalLogDamaged)
        _ = try await repaired(sketch)
        let journal = sketch.plan.slots[1]
        let block = sketch.read(journal.journalStart)
        let (header, version) = try JournalHeader.read(
            verifying: block.readOnly,
            at: journal.journalStart,
            volume: sketch.superblock.volume,
            slot: journal.slot
        )
        withExtendedLifetime(block) {}
        #expect(header.isClean && header.tailSequence > 2 && version > 2)
    }

    @Test(arguments: [UInt32(16_384), 65_536])
    func otherBlockSizesAreRepaired(blockSize: UInt32) async throws {
        let wanted = options(mebibytes: 256, journals: 3, blockSize: blockSize)
        let sketch = try await VolumeSketch(wanted)
        let superblock = sketch.superblock
        let damaged = [
            Superblock.address(blockSize: blockSize), sketch.plan.copies[0],
            superblock.slotDescriptor(SlotIndex(1)), superblock.heartbeat(SlotIndex(2)),
            sketch.plan.slots[2].journalStart, superblock.groupStart(0), superblock.root.address,
            sketch.plan.slots[0].orphanDirectory.address,
        ]
        for address in damaged { sketch.edit(address, seals: false) { $0[$0.count - 1] ^= 1 } }
        let report = try await VolumeRepair.repair(sketch.device)
        // The copy that is left is believed, the rest is made again.
        #expect(report.outcome == .corrected, "left: \(lines(report.check))")
        #expect(report.check.inodes == 1)
    }

    /// Type and body: content decides, and stays.
    @Test func modesFollowTheContent() async throws {
        let sketch = try await sketchWithData()
        let before = try sketch.contents()
        try sketch.editInode(#require(sketch.inodes["hello"])) { $0.mode = 0o070644 }
        try sketch.editInode(#require(sketch.inodes["dir"])) { $0.mode = 0o100755 }
        try sketch.editInode(#require(sketch.inodes["flat"])) { $0.mode = 0o010644 }
        try sketch.editInode(#require(sketch.inodes["fifo"])) { $0.layout = .inlineData }
        try sketch.editInode(#require(sketch.inodes["symlink"])) { $0.mode = 0o1120777 }
        let report = try await repaired(sketch)
        #expect(report.repaired.count { $0.kind == .inodeModeInvalid } == 5)
        #expect(try sketch.contents() == before)
    }

    /// A link whose size is lost has its target back, up to the first zero byte.
    @Test func aLinkKeepsItsTarget() async throws {
        let sketch = try await sketchWithData()
        let link = try #require(sketch.inodes["symlink"])
        sketch.edit(link.address) { block in
            Array("../x".utf8).withUnsafeBytes { block.put($0, InodeRecord.bodyOffset) }
        }
        try sketch.editInode(link) { $0.size = 0 }
        _ = try await repaired(sketch)
        #expect(try sketch.record(link).size == 4 && sketch.record(link).isSymbolicLink)
        // And one without a target is an empty file.
        sketch.edit(link.address) { $0.clear(InodeRecord.bodyOffset, 16) }
        try sketch.editInode(link) { $0.size = 0 }
        _ = try await repaired(sketch)
        #expect(try sketch.record(link).mode == 0o100777)
    }

    /// A lost inode is found although its group has to be made again; what was metadata once is
    /// not given away as free.
    @Test func aGroupMadeAnewKeepsItsInodes() async throws {
        let sketch = try await sketchWithData()
        let lost = try sketch.newInode(0o100644, .inlineData, group: 3)
        try sketch.editInode(lost) { $0.linkCount = 1 }
        let gone = sketch.newBlock(.directoryLeaf, of: lost, group: 3)
        let data = sketch.allocate(.data, length: 1, group: 3)
        try sketch.cause(.groupDamaged)
        _ = try await repaired(sketch)
        let path = "lost+found/#\(lost.address.rawValue).\(lost.generation)"
        #expect(try sketch.contents()[path] != nil)
        #expect(sketch.state(of: gone) == .quarantined)
        #expect(sketch.state(of: data) == .free)
    }

    /// Metadata that nothing uses goes into quarantine, data does not, and the group's highest
    /// version is not below theirs.
    @Test func freedMetadataIsQuarantined() async throws {
        let sketch = try await sketchWithData()
        let data = sketch.allocate(.data, length: 1)
        let gone = sketch.newBlock(.extentNode, of: try #require(sketch.inodes["tree"]))
        sketch.edit(gone) { BlockHeader.setVersion(70, of: $0) }
        _ = try await repaired(sketch)
        #expect(sketch.state(of: gone) == .quarantined && sketch.state(of: data) == .free)
        var highest: UInt64 = 0
        sketch.editGroup(1) { record, _ in highest = record.highestVersion }
        #expect(highest >= 70)
    }

    /// A root whose place another inode has taken is made in another place.
    @Test func aRootMayMove() async throws {
        let sketch = try await sketchWithData()
        let paths = try sketch.contents().count
        let root = sketch.root
        sketch.edit(root.address) { $0.put64(root.generation + 5, 56) }
        _ = try await repaired(sketch)
        let superblock = try await VolumeChecker.superblock(of: sketch.device)
        #expect(superblock.root != root)
        let names = try sketch.names(in: superblock.root)
        #expect(names.map(\.0) == ["lost+found"])
        let moved = try sketch.names(in: try #require(names.first).1)
        #expect(moved.map(\.0) == ["#\(root.address.rawValue).\(root.generation + 5)"])
        let old = try sketch.names(in: try #require(moved.first).1)
        #expect(old.count == 10 && paths > 10)
    }

    /// Attributes before a fault stay.
    @Test func attributesBeforeAFaultStay() async throws {
        let sketch = try await sketchWithData()
        let file = try #require(sketch.inodes["long"])
        let first = sketch.attributeBytes("user.first", [1, 2, 3])
        let rest = sketch.attributeBytes("user.rest", [UInt8](repeating: 9, count: 6000))
        let stream = first + rest
        let room = sketch.blockSize - AttributeBlockHeader.bytesOffset
        let head = try sketch.record(file).attributeBlock
        let block = sketch.read(head)
        let next = try AttributeBlockHeader(fields: block.readOnly, at: head).next
        withExtendedLifetime(block) {}
        for (address, part, next) in [
            (head, stream[..<room], next), (next, stream[room...], BlockAddress.none),
        ] {
            sketch.edit(address) { block in
                AttributeBlockHeader(next: next, byteCount: UInt32(part.count))
                    .writeFields(to: block)
                part.withUnsafeBytes { block.put($0, AttributeBlockHeader.bytesOffset) }
            }
        }
        #expect(try await VolumeChecker.check(sketch.device).isClean)
        sketch.edit(next, seals: false) { $0[2000] ^= 1 }
        _ = try await repaired(sketch)
        #expect(try sketch.contents()["long"]?.attributes == [first])
    }

    /// Names that cannot be, and names that come twice, can be reached afterwards.
    @Test func namesBecomeNames() async throws {
        let sketch = try await sketchWithData()
        try sketch.cause(.entryNameDuplicate)
        _ = try await repaired(sketch)
        let sub = try #require(sketch.inodes["sub"])
        #expect(try sketch.names(in: sub).map(\.0).sorted() == ["x", "x~1"])
        try sketch.editInode(#require(sketch.inodes["hello"])) { $0.linkCount -= 2 }
        try sketch.cause(.entryNameInvalid)
        _ = try await repaired(sketch)
        let names = try sketch.names(in: sub).map(\.0)
        #expect(names.count == 1 && names[0].hasPrefix("#"))
    }

    /// An orphan that has a name is none; one that only its list knows is one.
    @Test func orphansAreToldByTheirNames() async throws {
        let sketch = try await sketchWithData()
        let before = try sketch.contents()
        let list = sketch.plan.slots[0].orphanDirectory
        let hello = try #require(sketch.inodes["hello"])
        let orphan = try #require(sketch.inodes["orphan"])
        try sketch.link("0000000001", in: list, to: hello)
        try sketch.editInode(hello) {
            $0.flags = .orphan
            $0.linkCount = 0
        }
        try sketch.editInode(orphan) { $0.flags = [] }
        _ = try await repaired(sketch)
        #expect(try sketch.contents() == before)
        #expect(try sketch.names(in: list).isEmpty)
        #expect(try sketch.record(hello).flags == [] && sketch.record(hello).linkCount == 2)
        #expect(try sketch.record(orphan).flags == .orphan)
    }

    /// More findings than are kept take more rounds.
    @Test func moreThanIsKeptIsRepaired() async throws {
        let sketch = try await sketchWithData()
        for _ in 0..<30 { try sketch.cause(.inodeUnreachable) }
        var options = RepairOptions()
        options.findingLimit = 7
        let report = try await VolumeRepair.repair(sketch.device, options: options)
        #expect(report.outcome == .corrected && report.rounds > 4, "\(lines(report.check))")
        #expect(report.repaired.count == 7 && report.repairedCount >= 30)
        let names = try sketch.contents().keys.count { $0.hasPrefix("lost+found/") }
        #expect(names == 30)
    }
}

extension VolumeSketch {
    /// The descriptor of a slot, which must be sound.
    fileprivate func descriptor(_ slot: Int) throws -> SlotDescriptor {
        let address = superblock.slotDescriptor(SlotIndex(UInt32(slot)))
        let block = read(address)
        return try withExtendedLifetime(block) {
            try SlotDescriptor(verifying: block.readOnly, at: address, in: superblock)
        }
    }

    /// What a block's group says it is.
    fileprivate func state(of address: BlockAddress) -> BlockState? {
        guard let group = superblock.group(of: address) else { return nil }
        let block = read(superblock.groupStart(group))
        return withExtendedLifetime(block) {
            GroupBitmap(block: block.bytes, blockCount: superblock.groupLength(group))[
                UInt32(address - superblock.groupStart(group))
            ]
        }
    }

    /// The first leaf of a directory whose root has height 2.
    fileprivate func leafOfDirectory(_ number: InodeNumber) throws -> BlockAddress {
        let root = read(number.address)
        let node = withExtendedLifetime(root) {
            TreePointer(root.readOnly, at: InodeRecord.bodyOffset).child
        }
        let index = read(node)
        return withExtendedLifetime(index) {
            TreePointer(index.readOnly, at: TreeNodeHeader.recordsOffset).child
        }
    }
}
