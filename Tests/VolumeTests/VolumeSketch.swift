// A volume written by hand, record by record, with one of everything the format knows. Slow and
// simple on purpose: it shares no code with the store that it stands in for.

import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeMaking

/// A made volume that a test may change block by block.
final class VolumeSketch {
    let device: MemoryDevice
    let plan: VolumePlan
    var superblock: Superblock { plan.superblock }
    var root: InodeNumber { superblock.root }
    /// What `populate` made, by path.
    var inodes: [String: InodeNumber] = [:]
    /// Blocks that `populate` made, by what they are.
    var blocks: [String: BlockAddress] = [:]

    init(_ options: VolumeOptions) async throws {
        (device, plan) = try await made(options)
    }

    /// A volume with one of everything: a copy of one that is made once.
    static func populated() async throws -> VolumeSketch {
        try await Original.shared.copy()
    }

    /// The same without what is not on every volume.
    static func populatedWithoutFeatures() async throws -> VolumeSketch {
        try await makePopulated(hasQuotas: false)
    }

    fileprivate static func makePopulated(hasQuotas: Bool) async throws -> VolumeSketch {
        var wanted = options(mebibytes: 16)
        wanted.journalSize = 1 << 20
        wanted.hasQuotas = hasQuotas
        let sketch = try await VolumeSketch(wanted)
        try sketch.populate()
        return sketch
    }

    init(sharing device: MemoryDevice, _ plan: VolumePlan, _ places: Places) {
        self.device = device
        self.plan = plan
        inodes = places.inodes
        blocks = places.blocks
    }

    struct Places: Sendable {
        var inodes: [String: InodeNumber]
        var blocks: [String: BlockAddress]
    }

    init(copying other: VolumeSketch) {
        device = MemoryDevice(copying: other.device)
        plan = other.plan
        inodes = other.inodes
        blocks = other.blocks
    }

    // MARK: blocks

    var blockSize: Int { Int(superblock.blockSize) }

    func read(_ address: BlockAddress) -> AlignedBuffer {
        let buffer = AlignedBuffer(zeroed: blockSize)
        device.readNow(buffer.bytes, at: superblock.byteOffset(address))
        return buffer
    }

    func write(_ buffer: AlignedBuffer, at address: BlockAddress) {
        device.writeNow(buffer.readOnly, at: superblock.byteOffset(address))
    }

    /// Changes a block; with `seals` its checksum is made right again.
    func edit(
        _ address: BlockAddress,
        seals: Bool = true,
        _ body: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        let buffer = read(address)
        body(buffer.bytes)
        if seals { BlockHeader.seal(buffer.bytes) }
        write(buffer, at: address)
    }

    func editInode(_ number: InodeNumber, _ body: (inout InodeRecord) -> Void) throws {
        let buffer = read(number.address)
        var record = try InodeRecord(fields: buffer.readOnly, at: number.address)
        body(&record)
        record.writeFields(to: buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        write(buffer, at: number.address)
    }

    func record(_ number: InodeNumber) throws -> InodeRecord {
        let block = read(number.address)
        return try withExtendedLifetime(block) {
            try InodeRecord(fields: block.readOnly, at: number.address)
        }
    }

    func newBlock(_ kind: BlockKind, of owner: InodeNumber, group: UInt32 = 1) -> BlockAddress {
        let address = allocate(.metadata, group: group)
        let buffer = AlignedBuffer(zeroed: blockSize)
        BlockHeader(
            kind: kind,
            address: address,
            version: 2,
            volume: superblock.volume,
            owner: owner.address.rawValue,
            generation: owner.generation
        ).write(to: buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        write(buffer, at: address)
        return address
    }

    // MARK: groups

    func editGroup(
        _ index: UInt32,
        _ body: (inout ResourceGroupRecord, GroupBitmap) -> Void
    ) {
        edit(superblock.groupStart(index)) { block in
            var record = ResourceGroupRecord(fields: block.readOnly)
            body(&record, GroupBitmap(block: block, blockCount: superblock.groupLength(index)))
            record.writeFields(to: block)
        }
    }

    /// Takes the first run of free blocks.
    func allocate(_ state: BlockState, length: UInt32 = 1, group: UInt32 = 1) -> BlockAddress {
        var first: UInt32 = 0
        editGroup(group) { record, bitmap in
            while let found = bitmap.first(.free, from: first) {
                if bitmap.run(of: .free, from: found, limit: length) == length {
                    first = found
                    break
                }
                first = found + 1
            }
            for index in first..<first + length { bitmap[index] = state }
            record.freeCount -= length
            if state == .quarantined { record.quarantinedCount += length }
        }
        return superblock.groupStart(group) + UInt64(first)
    }

    /// Marks a block and keeps the counts right.
    func mark(_ address: BlockAddress, _ state: BlockState) {
        guard let group = superblock.group(of: address) else { return }
        editGroup(group) { record, bitmap in
            let index = UInt32(address - superblock.groupStart(group))
            if bitmap[index] == .free { record.freeCount -= 1 }
            if bitmap[index] == .quarantined { record.quarantinedCount -= 1 }
            bitmap[index] = state
            if state == .free { record.freeCount += 1 }
            if state == .quarantined { record.quarantinedCount += 1 }
        }
    }

    // MARK: inodes

    func newInode(_ mode: UInt32, _ layout: InodeLayout, group: UInt32 = 1) throws -> InodeNumber {
        let address = allocate(.metadata, group: group)
        var generation: UInt64 = 0
        editGroup(group) { record, _ in
            record.inodeCount += 1
            record.highestGeneration += 1
            generation = record.highestGeneration
        }
        let number = InodeNumber(address: address, generation: generation)
        let buffer = AlignedBuffer(zeroed: blockSize)
        BlockHeader(
            kind: .inode,
            address: address,
            version: 2,
            volume: superblock.volume,
            owner: address.rawValue,
            generation: generation
        ).write(to: buffer.bytes)
        var record = InodeRecord(
            mode: mode,
            user: 1,
            group: 1,
            linkCount: 0,
            born: Timestamp(seconds: 1_700_000_001, nanoseconds: 7)
        )
        record.layout = layout
        if record.isDirectory { record.linkCount = 2 }
        record.writeFields(to: buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        write(buffer, at: address)
        return number
    }

    /// Bytes of one entry.
    func entryBytes(_ name: String, _ target: InodeNumber, _ type: UInt8) -> (UInt64, [UInt8]) {
        var text = Array(name.utf8)
        let key = text.withUnsafeBytes { DirectoryEntryRecord.firstKey(forName: $0) }
        let record = DirectoryEntryRecord(
            key: key,
            inode: target,
            type: type,
            nameLength: UInt8(text.count)
        )
        var bytes = [UInt8](repeating: 0, count: record.byteCount)
        bytes.withUnsafeMutableBytes { target in
            text.withUnsafeMutableBytes {
                record.write(to: target, at: 0, name: UnsafeRawBufferPointer($0))
            }
        }
        return (key, bytes)
    }

    /// Packs entries in the order of their keys.
    func pack(_ entries: [(UInt64, [UInt8])]) -> [UInt8] {
        entries.sorted { $0.0 < $1.0 }.flatMap { $0.1 }
    }

    /// The entries of an inline directory.
    func inlineEntries(_ directory: InodeNumber) throws -> [(UInt64, [UInt8])] {
        let buffer = read(directory.address)
        let record = try InodeRecord(fields: buffer.readOnly, at: directory.address)
        var entries: [(UInt64, [UInt8])] = []
        var offset = InodeRecord.bodyOffset
        let end = offset + Int(record.rootLength)
        while let entry = DirectoryEntryRecord(buffer.readOnly, at: offset, end: end) {
            entries.append((entry.key, Array(buffer.readOnly.window(offset, entry.byteCount))))
            offset += entry.byteCount
        }
        return entries
    }

    /// Replaces the entries of an inline directory, packed as they come.
    func setInlineEntries(_ directory: InodeNumber, _ packed: [UInt8], count: Int) throws {
        let buffer = read(directory.address)
        var record = try InodeRecord(fields: buffer.readOnly, at: directory.address)
        record.rootCount = UInt16(count)
        record.rootLength = UInt16(packed.count)
        record.entryCount = UInt64(count)
        record.writeFields(to: buffer.bytes)
        packed.withUnsafeBytes { buffer.bytes.put($0, InodeRecord.bodyOffset) }
        BlockHeader.seal(buffer.bytes)
        write(buffer, at: directory.address)
    }

    /// Adds a name to an inline directory, and the link to what it names.
    func link(_ name: String, in directory: InodeNumber, to target: InodeNumber) throws {
        let mode = try record(target).mode
        var entries = try inlineEntries(directory)
        entries.append(entryBytes(name, target, UInt8(mode >> 12)))
        try setInlineEntries(directory, pack(entries), count: entries.count)
        if mode & 0o170000 == 0o040000 {
            try editInode(target) { $0.parent = directory }
            try editInode(directory) { $0.linkCount += 1 }
        } else {
            try editInode(target) { $0.linkCount += 1 }
        }
    }

    func add(
        _ name: String,
        in directory: InodeNumber,
        _ mode: UInt32,
        _ layout: InodeLayout,
        group: UInt32 = 1
    ) throws -> InodeNumber {
        let number = try newInode(mode, layout, group: group)
        try link(name, in: directory, to: number)
        inodes[name] = number
        return number
    }

    // MARK: bodies

    /// Puts extents into the body.
    func setExtents(_ number: InodeNumber, _ extents: [Extent]) throws {
        edit(number.address) { block in
            for (index, extent) in extents.enumerated() {
                extent.write(to: block, at: InodeRecord.bodyOffset + index * Extent.byteCount)
            }
        }
        try editInode(number) { $0.rootCount = UInt16(extents.count) }
    }

    /// Puts pointers into the body.
    func setPointers(_ number: InodeNumber, _ pointers: [TreePointer], height: UInt8) throws {
        edit(number.address) { block in
            for (index, pointer) in pointers.enumerated() {
                pointer.write(
                    to: block,
                    at: InodeRecord.bodyOffset + index * TreePointer.byteCount
                )
            }
        }
        try editInode(number) {
            $0.rootCount = UInt16(pointers.count)
            $0.height = height
        }
    }

    func makeExtentLeaf(_ owner: InodeNumber, _ extents: [Extent]) -> BlockAddress {
        let address = newBlock(.extentNode, of: owner)
        edit(address) { block in
            TreeNodeHeader(count: UInt16(extents.count), height: 0, usedBytes: 0)
                .writeFields(to: block)
            for (index, extent) in extents.enumerated() {
                extent.write(
                    to: block,
                    at: TreeNodeHeader.recordsOffset + index * Extent.byteCount
                )
            }
        }
        return address
    }

    func makeIndexNode(
        _ kind: BlockKind,
        _ owner: InodeNumber,
        _ pointers: [TreePointer],
        height: UInt16
    ) -> BlockAddress {
        let address = newBlock(kind, of: owner)
        edit(address) { block in
            TreeNodeHeader(count: UInt16(pointers.count), height: height, usedBytes: 0)
                .writeFields(to: block)
            for (index, pointer) in pointers.enumerated() {
                pointer.write(
                    to: block,
                    at: TreeNodeHeader.recordsOffset + index * TreePointer.byteCount
                )
            }
        }
        return address
    }

    func makeDirectoryLeaf(_ owner: InodeNumber, _ entries: [(UInt64, [UInt8])]) -> BlockAddress {
        let address = newBlock(.directoryLeaf, of: owner)
        let packed = pack(entries)
        edit(address) { block in
            TreeNodeHeader(
                count: UInt16(entries.count),
                height: 0,
                usedBytes: UInt32(packed.count)
            ).writeFields(to: block)
            packed.withUnsafeBytes { block.put($0, TreeNodeHeader.recordsOffset) }
        }
        return address
    }

    func attributeBytes(_ name: String, _ value: [UInt8]) -> [UInt8] {
        [
            UInt8(name.utf8.count), 0, UInt8(truncatingIfNeeded: value.count),
            UInt8(value.count >> 8),
        ] + Array(name.utf8) + value
    }
}

/// The populated volume that all tests copy.
private actor Original {
    static let shared = Original()
    private var made: (MemoryDevice, VolumePlan, VolumeSketch.Places)?

    func copy() async throws -> sending VolumeSketch {
        if made == nil {
            let sketch = try await VolumeSketch.makePopulated(hasQuotas: true)
            made = (
                sketch.device, sketch.plan,
                VolumeSketch.Places(inodes: sketch.inodes, blocks: sketch.blocks)
            )
        }
        guard let (device, plan, places) = made else { throw CancellationError() }
        return VolumeSketch(sharing: MemoryDevice(copying: device), plan, places)
    }
}

extension VolumeSketch {
    /// One of everything.
    func populate() throws {
        let file: UInt32 = 0o100644
        let hello = try add("hello", in: root, file, .inlineData)
        try editInode(hello) { $0.size = 100 }
        _ = try add("empty", in: root, file, .inlineData, group: 2)
        let symlink = try add("symlink", in: root, 0o120777, .inlineData)
        try editInode(symlink) { $0.size = 5 }
        _ = try add("fifo", in: root, 0o010600, .none)
        let directory = try add("dir", in: root, 0o040755, .inlineDirectory)
        _ = try add("sub", in: directory, 0o040755, .inlineDirectory, group: 3)
        try link("again", in: directory, to: hello)
        try populateExtents()
        try populateManyNames()
        try populateAttributes()
        try populateOrphans()
        let quarantined = newBlock(.directoryLeaf, of: hello)
        mark(quarantined, .quarantined)
        edit(quarantined) { BlockHeader.setVersion(5, of: $0) }
        editGroup(1) { record, _ in record.highestVersion = 6 }
        blocks["quarantined"] = quarantined
        if superblock.features.hasQuotas { try countQuotas() }
    }

    /// Lets the table of quotas say what the inodes use, but for a little that a share says.
    func countQuotas() throws {
        let made = plan.slots.map(\.orphanDirectory) + [root] + inodes.values
        var usage: [UInt64: QuotaAmount] = [:]
        for number in Set(made) {
            let record = try record(number)
            let amount = QuotaAmount(blocks: Int64(record.blockCount), inodes: 1)
            usage[QuotaPrincipal.user(record.user).key, default: .zero] += amount
            usage[QuotaPrincipal.group(record.group).key, default: .zero] += amount
        }
        let unsettled = QuotaAmount(blocks: 2, inodes: -1)
        let address = superblock.quotaShare(SlotIndex(1))
        for (place, key) in usage.keys.sorted().enumerated() {
            let principal = try #require(QuotaPrincipal(key: key))
            edit(address) { QuotaShareBlock($0).set(principal, unsettled, at: 3 + place) }
            try editQuota(of: principal) { record in
                record.usage = (usage[key] ?? .zero) - unsettled
            }
        }
    }

    /// Changes the record of a user or group, which gets one if it has none.
    func editQuota(
        of principal: QuotaPrincipal,
        _ body: (inout QuotaRecord) -> Void
    ) throws {
        let home = UInt32(principal.hash % UInt64(superblock.quotaTableLength))
        edit(superblock.quotaTable(home)) { bytes in
            let table = QuotaTableBlock(bytes)
            let records = (0..<table.capacity).map { try? table.record(at: $0) }
            let place =
                records.firstIndex { $0?.principal == principal }
                ?? records.firstIndex { $0 == nil } ?? 0
            var record = records[place] ?? QuotaRecord(principal)
            body(&record)
            table.set(record, at: place)
        }
    }

    private func populateExtents() throws {
        let flat = try add("flat", in: root, 0o100644, .extents)
        let one = allocate(.data, length: 3)
        let two = allocate(.data, length: 5, group: 2)
        let three = allocate(.data, length: 2, group: 0)
        try setExtents(
            flat,
            [
                Extent(logical: 0, physical: one, length: 3),
                Extent(logical: 10, physical: two, length: 5),
                Extent(logical: 100, physical: three, length: 2, isUnwritten: true),
            ]
        )
        try editInode(flat) {
            $0.size = 15 * 4096 - 9
            $0.blockCount = 11
        }
        blocks["flat data"] = one

        // Height 2: root, two index nodes, three leaves.
        let tree = try add("tree", in: root, 0o100600, .extents)
        var leaves: [TreePointer] = []
        for leaf in 0..<3 {
            let extents = (0..<4).map { index in
                Extent(
                    logical: UInt64(leaf * 1000 + index * 10),
                    physical: allocate(.data, length: 2),
                    length: 2
                )
            }
            leaves.append(
                TreePointer(
                    key: UInt64(leaf * 1000),
                    child: makeExtentLeaf(tree, extents)
                )
            )
        }
        let left = makeIndexNode(.extentNode, tree, Array(leaves[..<2]), height: 1)
        let right = makeIndexNode(.extentNode, tree, Array(leaves[2...]), height: 1)
        try setPointers(
            tree,
            [TreePointer(key: 0, child: left), TreePointer(key: 2000, child: right)],
            height: 2
        )
        try editInode(tree) {
            $0.size = 2032 * 4096
            $0.blockCount = 1 + 2 + 3 + 24
        }
        blocks["extent leaf"] = leaves[1].child
        blocks["extent index"] = left
    }

    private func populateManyNames() throws {
        let many = try add("many", in: root, 0o040755, .directoryIndex)
        let target = try newInode(0o100644, .inlineData)
        inodes["target"] = target
        let entries = (0..<120).map { entryBytes("name-\($0)", target, 8) }
            .sorted { $0.0 < $1.0 }
        try editInode(target) { $0.linkCount = 120 }
        var pointers: [TreePointer] = []
        for part in 0..<3 {
            let slice = Array(entries[part * 40..<part * 40 + 40])
            pointers.append(
                TreePointer(
                    key: part == 0 ? 0 : slice[0].0,
                    child: makeDirectoryLeaf(many, slice)
                )
            )
        }
        let index = makeIndexNode(.directoryIndex, many, pointers, height: 1)
        try setPointers(many, [TreePointer(key: 0, child: index)], height: 2)
        try editInode(many) {
            $0.entryCount = 120
            $0.blockCount = 5
        }
        blocks["directory leaf"] = pointers[1].child
        blocks["directory index"] = index
    }

    private func populateAttributes() throws {
        let short = try add("short", in: root, 0o100644, .inlineData)
        let stream =
            attributeBytes("user.colour", Array("blue".utf8)) + attributeBytes("user.none", [])
        edit(short.address) { block in
            stream.withUnsafeBytes { block.put($0, block.count - stream.count) }
        }
        try editInode(short) { $0.inlineAttributeLength = UInt16(stream.count) }

        let long = try add("long", in: root, 0o100644, .inlineData)
        let value = attributeBytes("user.long", [UInt8](repeating: 7, count: 6000))
        let second = newBlock(.extendedAttributes, of: long)
        let first = newBlock(.extendedAttributes, of: long)
        let room = blockSize - AttributeBlockHeader.bytesOffset
        for (address, part, next) in [
            (first, value[..<room], second), (second, value[room...], BlockAddress.none),
        ] {
            edit(address) { block in
                AttributeBlockHeader(next: next, byteCount: UInt32(part.count))
                    .writeFields(to: block)
                part.withUnsafeBytes { block.put($0, AttributeBlockHeader.bytesOffset) }
            }
        }
        try editInode(long) {
            $0.attributeBlock = first
            $0.blockCount = 3
        }
        blocks["attributes"] = first
    }

    private func populateOrphans() throws {
        let orphan = try newInode(0o100600, .inlineData)
        let list = plan.slots[1].orphanDirectory
        try link("0000001234", in: list, to: orphan)
        try editInode(orphan) {
            $0.linkCount = 0
            $0.flags = .orphan
            $0.orphanSlot = SlotIndex(1)
        }
        inodes["orphan"] = orphan
        let directory = try newInode(0o040700, .inlineDirectory)
        try link("0000005678", in: list, to: directory)
        try editInode(list) { $0.linkCount = 2 }
        try editInode(directory) {
            $0.linkCount = 0
            $0.flags = .orphan
            $0.orphanSlot = SlotIndex(1)
            $0.parent = root
        }
        inodes["orphan directory"] = directory
    }
}
