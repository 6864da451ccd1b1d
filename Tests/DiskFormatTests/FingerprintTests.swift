// The fingerprint of the format: which bytes each field stands in, found by changing the field and
// looking, and every number that has a meaning on disk. `Tests/Images/format-1.txt` holds what it
// was when version 1 was fixed. A change here without a new version breaks every volume in use.

import DiskFormat
import Glibc
import Testing
import Vocabulary

/// Reads a whole file; nil if there is none.
func contents(of path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = fread(&part, 1, part.count, file)
        guard count > 0 else { break }
        bytes += part[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// The folder of recorded images and fingerprints.
func imagesFolder(_ file: String = #filePath) -> String {
    file.split(separator: "/", omittingEmptySubsequences: false).dropLast(2).joined(separator: "/")
        + "/Images"
}

/// Whether recordings are to be rewritten.
var isRecording: Bool { getenv("LOCKSTEP_RECORD") != nil }

@Suite struct FingerprintTests {
    private typealias Change<Record> = (name: String, change: (inout Record) -> Void)

    /// Finds the bytes of each field. The checksum changes with everything and is left out.
    private func fields<Record>(
        _ name: String,
        _ base: Record,
        _ changes: [Change<Record>],
        _ write: (Record, UnsafeMutableRawBufferPointer) -> Void
    ) -> [String] {
        let before = TestBlock()
        write(base, before.bytes)
        return changes.map { field, change in
            var record = base
            change(&record)
            let after = TestBlock()
            write(record, after.bytes)
            let differing = (0..<4096).filter {
                !(8..<12).contains($0) && before.bytes[$0] != after.bytes[$0]
            }
            guard let first = differing.first, let last = differing.last else {
                return "\(name).\(field): nowhere"
            }
            return "\(name).\(field): \(first)...\(last)"
        }
    }

    private var superblockFields: [String] {
        let zero = Superblock(
            volume: VolumeID(high: 0, low: 0),
            features: VolumeFeatures(compatible: 0, incompatible: 0, readOnlyCompatible: 0),
            blockSize: 0,
            blockCount: 0,
            slotCapacity: 0,
            slotCount: 0,
            slotTable: .none,
            guardTable: .none,
            firstGroup: .none,
            blocksPerGroup: 0,
            groupCount: 0,
            root: InodeNumber(address: .none, generation: 0),
            regionSize: 0,
            created: .zero,
            clusterName: "",
            volumeName: "",
            label: ""
        )
        let all = BlockAddress(.max)
        return fields(
            "superblock",
            zero,
            [
                ("volume", { $0.volume = VolumeID(high: .max, low: .max) }),
                ("blockSize", { $0.blockSize = .max }),
                ("features.compatible", { $0.features.compatible = .max }),
                ("features.incompatible", { $0.features.incompatible = .max }),
                ("features.readOnlyCompatible", { $0.features.readOnlyCompatible = .max }),
                ("blockCount", { $0.blockCount = .max }),
                ("slotCapacity", { $0.slotCapacity = .max }),
                ("slotCount", { $0.slotCount = .max }),
                ("quotaStart", { $0.quotaStart = all }),
                ("quotaTableLength", { $0.quotaTableLength = .max }),
                ("slotTable", { $0.slotTable = all }), ("guardTable", { $0.guardTable = all }),
                ("firstGroup", { $0.firstGroup = all }),
                ("blocksPerGroup", { $0.blocksPerGroup = .max }),
                ("groupCount", { $0.groupCount = .max }),
                ("root.address", { $0.root.address = all }),
                ("root.generation", { $0.root.generation = .max }),
                ("regionSize", { $0.regionSize = .max }),
                ("created.seconds", { $0.created.seconds = -1 }),
                ("created.nanoseconds", { $0.created.nanoseconds = .max }),
                ("clusterName", { $0.clusterName = String(repeating: "x", count: 31) }),
                ("volumeName", { $0.volumeName = String(repeating: "x", count: 31) }),
                ("label", { $0.label = String(repeating: "x", count: 63) }),
            ]
        ) { $0.write(to: $1, at: BlockAddress(16), version: 1) }
    }

    private var headerFields: [String] {
        fields(
            "header",
            BlockHeader(
                kind: .superblock,
                address: .none,
                version: 0,
                volume: VolumeID(high: 0, low: 0),
                owner: 0,
                generation: 0
            ),
            [
                ("kind", { $0.kind = .journalCommit }),
                ("address", { $0.address = BlockAddress(.max) }),
                ("version", { $0.version = .max }),
                ("volume.high", { $0.volume.high = .max }),
                ("volume.low", { $0.volume.low = .max }),
                ("owner", { $0.owner = .max }), ("generation", { $0.generation = .max }),
            ]
        ) { $0.write(to: $1) }
    }

    private var inodeFields: [String] {
        var zero = InodeRecord(mode: 0, user: 0, group: 0, linkCount: 0, born: .zero)
        zero.blockCount = 0
        zero.layout = .inlineData
        let time = Timestamp(seconds: -1, nanoseconds: .max)
        return fields(
            "inode",
            zero,
            [
                ("mode", { $0.mode = .max }), ("user", { $0.user = .max }),
                ("group", { $0.group = .max }), ("linkCount", { $0.linkCount = .max }),
                ("size", { $0.size = .max }), ("blockCount", { $0.blockCount = .max }),
                ("accessed", { $0.accessed = time }), ("modified", { $0.modified = time }),
                ("changed", { $0.changed = time }), ("born", { $0.born = time }),
                ("flags", { $0.flags = InodeFlags(rawValue: .max) }),
                ("device", { $0.device = .max }), ("layout", { $0.layout = .none }),
                ("height", { $0.height = .max }),
                ("inlineAttributeLength", { $0.inlineAttributeLength = .max }),
                ("rootCount", { $0.rootCount = .max }), ("rootLength", { $0.rootLength = .max }),
                ("attributeBlock", { $0.attributeBlock = BlockAddress(.max) }),
                ("entryCount", { $0.entryCount = .max }),
                ("parent.address", { $0.parent.address = BlockAddress(.max) }),
                ("parent.generation", { $0.parent.generation = .max }),
                ("orphanSlot", { $0.orphanSlot = SlotIndex(.max) }),
            ]
        ) { $0.writeFields(to: $1) }
    }

    private var slotFields: [String] {
        let volume = VolumeID(high: 0, low: 0)
        let descriptor = fields(
            "slotDescriptor",
            SlotDescriptor(
                slot: SlotIndex(0),
                journalStart: .none,
                journalLength: 0,
                orphanDirectory: InodeNumber(address: .none, generation: 0)
            ),
            [
                ("slot", { $0.slot = SlotIndex(.max) }),
                ("journalStart", { $0.journalStart = BlockAddress(.max) }),
                ("journalLength", { $0.journalLength = .max }),
                ("orphanDirectory.address", { $0.orphanDirectory.address = BlockAddress(.max) }),
                ("orphanDirectory.generation", { $0.orphanDirectory.generation = .max }),
            ]
        ) { $0.write(to: $1, at: .none, volume: volume) }
        let record = fields(
            "guard",
            GuardRecord.free,
            [
                ("mode", { $0.mode = .alone }), ("clusterHigh", { $0.clusterHigh = .max }),
                ("clusterLow", { $0.clusterLow = .max }),
                ("host", { $0.host = String(repeating: "x", count: 63) }),
            ]
        ) { $0.write(to: $1, at: .none, volume: volume, version: 0) }
        let heartbeat = fields(
            "heartbeat",
            SlotHeartbeat(
                slot: SlotIndex(0),
                incarnation: 0,
                beat: 0,
                clusterHigh: 0,
                clusterLow: 0
            ),
            [
                ("slot", { $0.slot = SlotIndex(.max) }), ("incarnation", { $0.incarnation = .max }),
                ("beat", { $0.beat = .max }), ("clusterHigh", { $0.clusterHigh = .max }),
                ("clusterLow", { $0.clusterLow = .max }),
            ]
        ) { $0.write(to: $1, at: .none, volume: volume) }
        return descriptor + record + heartbeat
    }

    private var groupFields: [String] {
        fields(
            "group",
            ResourceGroupRecord(
                index: 0,
                blockCount: 0,
                freeCount: 0,
                quarantinedCount: 0,
                inodeCount: 0,
                highestVersion: 0,
                highestGeneration: 0
            ),
            [
                ("index", { $0.index = .max }), ("blockCount", { $0.blockCount = .max }),
                ("freeCount", { $0.freeCount = .max }),
                ("quarantinedCount", { $0.quarantinedCount = .max }),
                ("inodeCount", { $0.inodeCount = .max }),
                ("highestVersion", { $0.highestVersion = .max }),
                ("highestGeneration", { $0.highestGeneration = .max }),
            ]
        ) { $0.writeFields(to: $1) }
    }

    private var treeFields: [String] {
        let extent = fields(
            "extent",
            Extent(logical: 0, physical: .none, length: 0),
            [
                ("logical", { $0.logical = .max }),
                ("physical", { $0.physical = BlockAddress(.max) }),
                ("length", { $0.length = .max }), ("isUnwritten", { $0.isUnwritten = true }),
            ]
        ) { $0.write(to: $1, at: 12) }
        let pointer = fields(
            "treePointer",
            TreePointer(key: 0, child: .none),
            [("key", { $0.key = .max }), ("child", { $0.child = BlockAddress(.max) })]
        ) { $0.write(to: $1, at: 12) }
        let node = fields(
            "treeNode",
            TreeNodeHeader(count: 0, height: 0, usedBytes: 0),
            [
                ("count", { $0.count = .max }), ("height", { $0.height = .max }),
                ("usedBytes", { $0.usedBytes = .max }),
            ]
        ) { $0.writeFields(to: $1) }
        let name: [UInt8] = [0x78]
        let entry = fields(
            "directoryEntry",
            DirectoryEntryRecord(
                key: 0,
                inode: InodeNumber(address: .none, generation: 0),
                type: 0,
                nameLength: 1
            ),
            [
                ("key", { $0.key = .max }),
                ("inode.address", { $0.inode.address = BlockAddress(.max) }),
                ("inode.generation", { $0.inode.generation = .max }), ("type", { $0.type = .max }),
            ]
        ) { record, block in
            name.withUnsafeBytes { record.write(to: block, at: 12, name: $0) }
        }
        let attributes = fields(
            "attributeBlock",
            AttributeBlockHeader(next: .none, byteCount: 0),
            [("next", { $0.next = BlockAddress(.max) }), ("byteCount", { $0.byteCount = .max })]
        ) { $0.writeFields(to: $1) }
        return extent + pointer + node + entry + attributes
    }

    private var journalFields: [String] {
        let header = fields(
            "journalHeader",
            JournalHeader(slot: SlotIndex(0), tailSequence: 0, tail: 0, length: 0, isClean: false),
            [
                ("slot", { $0.slot = SlotIndex(.max) }),
                ("tailSequence", { $0.tailSequence = .max }), ("tail", { $0.tail = .max }),
                ("length", { $0.length = .max }), ("isClean", { $0.isClean = true }),
            ]
        ) { $0.write(to: $1, at: .none, volume: VolumeID(high: 0, low: 0), version: 0) }
        let entry = fields(
            "journalEntry",
            JournalEntry(
                address: .none,
                version: 0,
                covering: ResourceName(kind: .inode, number: 0),
                checksum: 0
            ),
            [
                ("address", { $0.address = BlockAddress(.max) }),
                ("version", { $0.version = .max }),
                ("covering.number", { $0.covering.number = .max }),
                ("covering.generation", { $0.covering.generation = .max }),
                ("checksum", { $0.checksum = .max }),
                ("covering.kind", { $0.covering.kind = .resourceGroup }),
            ]
        ) { $0.write(to: $1, at: 12) }
        let descriptor = fields(
            "journalDescriptor",
            JournalDescriptorHeader(count: 0, index: 0),
            [("count", { $0.count = .max }), ("index", { $0.index = .max })]
        ) { $0.writeFields(to: $1) }
        let commit = fields(
            "journalCommit",
            JournalCommitHeader(blockCount: 0, checksum: 0),
            [("blockCount", { $0.blockCount = .max }), ("checksum", { $0.checksum = .max })]
        ) { $0.writeFields(to: $1) }
        return header + entry + descriptor + commit
    }

    private var numbers: [String] {
        func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
        func key(_ name: String) -> UInt64 {
            Array(name.utf8).withUnsafeBytes { DirectoryEntryRecord.firstKey(forName: $0) }
        }
        var lines = [
            "formatVersion: \(Superblock.formatVersion)",
            "magic: \(hexadecimal(Superblock.magic))",
            "blockMagic: \(hexadecimal(UInt64(BlockHeader.magic)))",
            "revision: \(BlockHeader.revision)", "superblockOffset: \(Superblock.byteOffset)",
            "blockSizes: \(Superblock.blockSizes)", "maximumSlots: \(Superblock.maximumSlots)",
            "minimumGroupLength: \(Superblock.minimumGroupLength)",
            "maximumBlocksPerGroup(4096): \(Superblock.maximumBlocksPerGroup(blockSize: 4096))",
            "headerLength: \(BlockHeader.byteCount)", "inodeBody: \(InodeRecord.bodyOffset)",
            "maximumHeight: \(InodeRecord.maximumHeight)",
            "groupBitmap: \(ResourceGroupRecord.bitmapOffset)",
            "treeRecords: \(TreeNodeHeader.recordsOffset)",
            "extentLength: \(Extent.byteCount)", "pointerLength: \(TreePointer.byteCount)",
            "entryFixedLength: \(DirectoryEntryRecord.fixedByteCount)",
            "entryFirstKey: \(DirectoryEntryRecord.firstKey)",
            "attributeBytes: \(AttributeBlockHeader.bytesOffset)",
            "attributeLongestStream: \(AttributeRecord.longestStream)",
            "journalMinimum: \(SlotDescriptor.minimumJournalLength)",
            "journalEntries: \(JournalDescriptorHeader.entriesOffset)",
            "journalEntryLength: \(JournalEntry.byteCount)",
        ]
        lines += BlockKind.allCases.map { "kind.\($0): \($0.rawValue)" }
        lines += BlockState.allCases.map { "state.\($0): \($0.rawValue)" }
        lines += InodeLayout.allCases.map { "layout.\($0): \($0.rawValue)" }
        lines += ResourceKind.allCases.map { "resource.\($0): \($0.rawValue)" }
        lines += [
            "flag.system: \(InodeFlags.system.rawValue)",
            "flag.orphan: \(InodeFlags.orphan.rawValue)",
        ]
        lines += ["a", "README.md", "lost+found", "ö"].map { "key.\($0): \(hexadecimal(key($0)))" }
        return lines
    }

    private var quotaFields: [String] {
        fields(
            "quotaRecord",
            QuotaRecord(.user(0)),
            [
                ("principal", { $0.principal = .group(.max) }),
                ("blocks", { $0.usage.blocks = -1 }), ("inodes", { $0.usage.inodes = -1 }),
                ("softBlocks", { $0.blockLimit.soft = .max }),
                ("hardBlocks", { $0.blockLimit.hard = .max }),
                ("softInodes", { $0.inodeLimit.soft = .max }),
                ("hardInodes", { $0.inodeLimit.hard = .max }),
                ("blockDeadline", { $0.blockDeadline = .max }),
                ("inodeDeadline", { $0.inodeDeadline = .max }),
            ]
        ) { QuotaTableBlock($1).set($0, at: 0) }
            + fields(
                "quotaShare",
                QuotaAmount(blocks: 0, inodes: 0),
                [("blocks", { $0.blocks = -1 }), ("inodes", { $0.inodes = -1 })]
            ) { QuotaShareBlock($1).set(.user(0), $0, at: 0) }
            + fields(
                "quotaTable",
                0,
                [
                    ("overflowed", { $0 = 1 }), ("blockGrace", { $0 = 2 }),
                    ("inodeGrace", { $0 = 3 }),
                ]
            ) { value, bytes in
                let table = QuotaTableBlock(bytes)
                table.hasOverflowed = value == 1
                table.grace = (value == 2 ? .max : 0, value == 3 ? .max : 0)
            }
    }

    @Test func theFormatIsWhatItWas() throws {
        let lines =
            numbers + headerFields + superblockFields + slotFields + groupFields + inodeFields
            + treeFields + journalFields + quotaFields
        #expect(!lines.contains { $0.hasSuffix("nowhere") })
        let text = lines.joined(separator: "\n") + "\n"
        let path = imagesFolder() + "/format-\(Superblock.formatVersion).txt"
        if isRecording {
            let file = try #require(fopen(path, "w"))
            fputs(text, file)
            fclose(file)
        }
        let recorded = try #require(
            contents(of: path),
            "\(path) is missing: run LOCKSTEP_RECORD=1 swift test --filter FingerprintTests"
        )
        let differing = zip(
            recorded.split(separator: "\n"),
            text.split(separator: "\n")
        ).filter { $0 != $1 }.map { "recorded \($0), now \($1)" }
        #expect(
            recorded == text,
            """
            the format has changed: \(differing.joined(separator: "; ")). That needs a new format \
            version and Docs/FORMAT.md; then record it: LOCKSTEP_RECORD=1 swift test --filter \
            FingerprintTests
            """
        )
    }
}
