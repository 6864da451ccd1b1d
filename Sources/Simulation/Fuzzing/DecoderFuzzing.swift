// Every structure of the format: bytes that nobody wrote are decoded, and what was decoded is
// encoded again.
//
// The normal form of a structure is what its encoder writes: bytes that Docs/FORMAT.md does not name
// are zero, numbers of which only one bit counts have no other, and texts are cut at their first zero
// byte. So for all bytes that decode:
//   - decoding what was encoded gives the same value
//   - what was encoded has no bit that the bytes did not have (texts that are not UTF-8 aside)

import BlockIO
import DiskFormat
import Vocabulary
import VolumeMaking

/// One block, and the decoder that it is given to.
struct DecoderFuzzing {
    private var input: FuzzInput
    private let block: AlignedBuffer
    private let superblock: Superblock
    private static let place = BlockAddress(17)

    init(_ input: FuzzInput) throws {
        self.input = input
        superblock = try FuzzVolume.plan(blockSize: 4096).superblock
        block = AlignedBuffer(zeroed: 4096)
    }

    private var bytes: UnsafeRawBufferPointer { block.readOnly }

    mutating func run() throws {
        defer { withExtendedLifetime(block) {} }
        let structure = input.below(14)
        switch structure {
        case 0: try superblocks()
        case 1: try slotDescriptor()
        case 2: try volumeGuard()
        case 3: try heartbeat()
        case 4: try group()
        case 5: try inode()
        case 6: try directoryEntries()
        case 7: try treeNode()
        case 8: try attributes()
        case 9: try journalHeader()
        case 10: try journalDescriptor()
        case 11: try journalCommit()
        case 12: signatures()
        default: try names()
        }
    }

    // MARK: the block

    /// Fills the block: from the front with what is left of the input, or behind a header that is
    /// right for `kind`; sealed or not.
    private mutating func fill(
        _ kind: BlockKind,
        at address: BlockAddress = Self.place,
        owner: UInt64 = 0
    ) {
        let flags = input.byte()
        let hasHeader = flags & 1 == 0
        if hasHeader {
            BlockHeader(
                kind: kind,
                address: address,
                version: input.number() & BlockHeader.largestNumber,
                volume: superblock.volume,
                owner: owner,
                generation: flags & 4 == 0 ? 1 : input.number()
            ).write(to: block.bytes)
        }
        let start = hasHeader ? BlockHeader.byteCount : 0
        for (index, byte) in input.rest.prefix(4096 - start).enumerated() {
            block.bytes[start + index] = byte
        }
        if flags & 2 == 0 { BlockHeader.seal(block.bytes) }
    }

    /// What an encoder makes of a value: `encode` gets a block of zeros.
    private func encoded(
        _ encode: (UnsafeMutableRawBufferPointer) -> Void
    ) -> AlignedBuffer {
        let buffer = AlignedBuffer(zeroed: 4096)
        encode(buffer.bytes)
        return buffer
    }

    /// Compares with the bytes that were decoded, in `range` and outside `texts`.
    private func demandNormal(
        _ again: AlignedBuffer,
        _ range: Range<Int>,
        texts: [Range<Int>] = []
    ) throws {
        for place in range where !texts.contains(where: { $0.contains(place) }) {
            let (old, new) = (bytes[place], again.readOnly[place])
            try demand(new & ~old == 0, "byte \(place): \(old) became \(new)")
        }
        withExtendedLifetime(again) {}
    }

    private static let fields = BlockHeader.byteCount..<4096

    // MARK: structures with a block of their own

    private mutating func superblocks() throws {
        fill(.superblock, at: Superblock.address(blockSize: 4096))
        if input.rest.first ?? 0 & 1 == 0 {
            block.bytes.put64(Superblock.magic, 64)
            block.bytes.put32(Superblock.formatVersion, 72)
            BlockHeader.seal(block.bytes)
        }
        guard let value = try? Superblock(verifying: bytes, at: nil) else { return }
        _ = try? value.checkFeatures(forWriting: true)
        let address = BlockAddress(bytes.u64(16))
        let again = encoded { value.write(to: $0, at: address, version: bytes.u64(24)) }
        let second = try? Superblock(verifying: again.readOnly, at: address)
        try demand(second == value, "the superblock \(value) became \(String(describing: second))")
        try demandNormal(again, Self.fields, texts: [192..<320])
        // What later arithmetic relies on.
        let last = value.groupCount - 1
        try demand(
            value.groupStart(last).rawValue + UInt64(value.groupLength(last)) == value.blockCount,
            "the last group does not end with the volume"
        )
        try demand(
            value.group(of: BlockAddress(value.blockCount - 1)) == last
                && value.byteOffset(BlockAddress(value.blockCount)) <= UInt64(Int64.max),
            "the last block is in no group"
        )
    }

    private mutating func slotDescriptor() throws {
        let slot = SlotIndex(UInt32(input.below(64)))
        let address = superblock.slotDescriptor(slot)
        fill(.slotDescriptor, at: address, owner: UInt64(slot.rawValue))
        guard let value = try? SlotDescriptor(verifying: bytes, at: address, in: superblock) else {
            return
        }
        let again = encoded { value.write(to: $0, at: address, volume: superblock.volume) }
        let second = try? SlotDescriptor(verifying: again.readOnly, at: address, in: superblock)
        try demand(second == value, "\(value) became \(String(describing: second))")
        try demandNormal(again, Self.fields)
        let end = value.journalStart + UInt64(value.journalLength)
        try demand(end.rawValue <= superblock.blockCount, "a journal outside the volume")
    }

    private mutating func volumeGuard() throws {
        fill(.volumeGuard)
        let volume = superblock.volume
        guard
            let (value, version) = try? GuardRecord.read(
                verifying: bytes,
                at: Self.place,
                volume: volume
            )
        else { return }
        let again = encoded {
            value.write(to: $0, at: Self.place, volume: volume, version: version)
        }
        let second = try? GuardRecord.read(
            verifying: again.readOnly,
            at: Self.place,
            volume: volume
        )
        try demand(
            second?.record == value && second?.version == version,
            "\(value) became \(String(describing: second))"
        )
        try demandNormal(again, Self.fields, texts: [88..<152])
    }

    private mutating func heartbeat() throws {
        fill(.slotHeartbeat, owner: UInt64(input.below(70)))
        let volume = superblock.volume
        guard let value = try? SlotHeartbeat(verifying: bytes, at: Self.place, volume: volume)
        else { return }
        let again = encoded { value.write(to: $0, at: Self.place, volume: volume) }
        let second = try? SlotHeartbeat(
            verifying: again.readOnly,
            at: Self.place,
            volume: volume
        )
        try demand(second == value, "\(value) became \(String(describing: second))")
        try demandNormal(again, Self.fields)
    }

    private mutating func group() throws {
        let index = UInt32(input.below(Int(superblock.groupCount)))
        let address = superblock.groupStart(index)
        fill(.resourceGroup, at: address, owner: UInt64(index))
        guard let value = try? ResourceGroupRecord(checking: bytes, at: address, in: superblock)
        else { return }
        let again = encoded { value.writeFields(to: $0) }
        let second = ResourceGroupRecord(fields: again.readOnly)
        try demand(second == value, "\(value) became \(second)")
        try demandNormal(again, 64..<ResourceGroupRecord.bitmapOffset)
        // The bits, counted in three ways.
        let bitmap = GroupBitmap(block: block.bytes, blockCount: value.blockCount)
        let counts = bitmap.counts()
        for state in BlockState.allCases {
            var found: UInt32 = 0
            var next: UInt32 = 0
            while let first = bitmap.first(state, from: next) {
                let length = bitmap.run(of: state, from: first, limit: .max)
                try demand(length > 0, "an empty run")
                found += length
                next = first + length
            }
            let counted = counts[Int(state.rawValue)]
            try demand(found == counted, "\(state): \(found) in runs, \(counted) counted")
        }
    }

    private mutating func inode() throws {
        fill(.inode, owner: Self.place.rawValue)
        guard let value = try? InodeRecord(fields: bytes, at: Self.place) else { return }
        let again = encoded { value.writeFields(to: $0) }
        let second = try? InodeRecord(fields: again.readOnly, at: Self.place)
        try demand(second == value, "\(value) became \(String(describing: second))")
        try demandNormal(again, 64..<InodeRecord.bodyOffset)
        let room = value.bodyLength(blockSize: 4096)
        try demand((0...4096 - InodeRecord.bodyOffset).contains(room), "a body of \(room) bytes")
        _ = value.modified.successor
        switch value.layout {
        case .extents where value.height == 0:
            try extents(at: InodeRecord.bodyOffset, count: Int(value.rootCount))
        case .extents, .directoryIndex:
            try pointers(at: InodeRecord.bodyOffset, count: Int(value.rootCount))
        case .inlineDirectory:
            let start = InodeRecord.bodyOffset
            try entries(from: start, to: start + Int(value.rootLength))
        case .inlineData, .none: break
        }
        let inline = Int(value.inlineAttributeLength)
        try stream(bytes.window(4096 - inline, inline))
    }

    private mutating func journalHeader() throws {
        let slot = SlotIndex(UInt32(input.below(64)))
        fill(.journalHeader, owner: UInt64(slot.rawValue))
        let volume = superblock.volume
        guard
            let (value, version) = try? JournalHeader.read(
                verifying: bytes,
                at: Self.place,
                volume: volume,
                slot: slot
            )
        else { return }
        let again = encoded {
            value.write(to: $0, at: Self.place, volume: volume, version: version)
        }
        let second = try? JournalHeader.read(
            verifying: again.readOnly,
            at: Self.place,
            volume: volume,
            slot: slot
        )
        try demand(
            second?.header == value && second?.version == version,
            "\(value) became \(String(describing: second))"
        )
        try demandNormal(again, Self.fields)
    }

    // MARK: parts of blocks

    private mutating func treeNode() throws {
        fill(.extentNode)
        let value = TreeNodeHeader(fields: bytes)
        let again = encoded { value.writeFields(to: $0) }
        try demand(TreeNodeHeader(fields: again.readOnly) == value, "\(value) became another")
        try demandNormal(again, 64..<TreeNodeHeader.recordsOffset)
        try extents(at: TreeNodeHeader.recordsOffset, count: 4024 / Extent.byteCount)
        try pointers(at: TreeNodeHeader.recordsOffset, count: 4024 / TreePointer.byteCount)
    }

    private func extents(at start: Int, count: Int) throws {
        for index in 0..<count {
            let offset = start + index * Extent.byteCount
            let value = Extent(bytes, at: offset)
            let again = encoded { value.write(to: $0, at: offset) }
            try demand(Extent(again.readOnly, at: offset) == value, "\(value) became another")
            try demandNormal(again, offset..<offset + Extent.byteCount)
            guard value.isPlausible(in: superblock) else { continue }
            let end = value.physical + UInt64(value.length)
            try demand(end.rawValue <= superblock.blockCount, "plausible beyond the end: \(value)")
            _ = value.logical * UInt64(superblock.blockSize)
        }
    }

    private func pointers(at start: Int, count: Int) throws {
        for index in 0..<count {
            let offset = start + index * TreePointer.byteCount
            let value = TreePointer(bytes, at: offset)
            let again = encoded { value.write(to: $0, at: offset) }
            try demand(TreePointer(again.readOnly, at: offset) == value, "\(value) became another")
            try demandNormal(again, offset..<offset + TreePointer.byteCount)
        }
    }

    private mutating func directoryEntries() throws {
        fill(.directoryLeaf)
        try entries(from: TreeNodeHeader.recordsOffset, to: 4096)
    }

    private func entries(from start: Int, to end: Int) throws {
        var offset = start
        while let value = DirectoryEntryRecord(bytes, at: offset, end: end) {
            let next = offset + value.byteCount
            try demand(next <= end, "an entry reaches beyond \(end): \(value)")
            let name = bytes.window(
                offset + DirectoryEntryRecord.fixedByteCount,
                Int(value.nameLength)
            )
            let again = encoded { value.write(to: $0, at: offset, name: name) }
            let second = DirectoryEntryRecord(again.readOnly, at: offset, end: end)
            try demand(second == value, "\(value) became \(String(describing: second))")
            try demand(
                again.readOnly.window(offset, value.byteCount)
                    .elementsEqual(bytes.window(offset, value.byteCount)),
                "the entry \(value) has other bytes"
            )
            if name.count > 0 { _ = DirectoryEntryRecord.firstKey(forName: name) }
            offset = next
        }
    }

    private mutating func attributes() throws {
        fill(.extendedAttributes)
        guard let value = try? AttributeBlockHeader(fields: bytes, at: Self.place) else { return }
        let again = encoded { value.writeFields(to: $0) }
        let second = try? AttributeBlockHeader(fields: again.readOnly, at: Self.place)
        try demand(second == value, "\(value) became \(String(describing: second))")
        try demandNormal(again, 64..<AttributeBlockHeader.bytesOffset)
        try stream(bytes.window(AttributeBlockHeader.bytesOffset, Int(value.byteCount)))
    }

    private func stream(_ stream: UnsafeRawBufferPointer) throws {
        var offset = 0
        while let record = AttributeRecord(stream, at: offset) {
            offset += record.byteCount
            try demand(offset <= stream.count, "\(record) reaches beyond the stream")
        }
    }

    private mutating func journalDescriptor() throws {
        fill(.journalDescriptor)
        let value = JournalDescriptorHeader(fields: bytes)
        let again = encoded { value.writeFields(to: $0) }
        try demand(JournalDescriptorHeader(fields: again.readOnly) == value, "\(value) changed")
        for index in 0..<JournalDescriptorHeader.entriesPerDescriptor(blockSize: 4096) {
            let offset = JournalDescriptorHeader.entriesOffset + index * JournalEntry.byteCount
            guard let entry = JournalEntry(bytes, at: offset) else { continue }
            let again = encoded { entry.write(to: $0, at: offset) }
            let second = JournalEntry(again.readOnly, at: offset)
            try demand(second == entry, "\(entry) became \(String(describing: second))")
            try demandNormal(again, offset..<offset + JournalEntry.byteCount)
        }
    }

    private mutating func journalCommit() throws {
        fill(.journalCommit)
        let value = JournalCommitHeader(fields: bytes)
        let again = encoded { value.writeFields(to: $0) }
        try demand(JournalCommitHeader(fields: again.readOnly) == value, "\(value) changed")
        try demandNormal(again, 64..<72)
    }

    // MARK: bytes that are no structure

    /// Somebody else's device, of any size.
    private mutating func signatures() {
        let size = Int(input.integer(UInt16.self)) * 4 + Int(input.byte())
        var device = [UInt8](repeating: 0, count: size)
        while !input.isAtEnd, size > 0 {
            let place = Int(input.integer(UInt32.self)) % size
            for index in 0..<min(Int(input.below(12)), size - place) {
                device[place + index] = input.byte()
            }
        }
        device.withUnsafeBytes { whole in
            let head = whole.prefix(ForeignSignature.headLength)
            let start = max(0, size - ForeignSignature.tailLength)
            _ = ForeignSignature.find(
                head: UnsafeRawBufferPointer(rebasing: head),
                tail: UnsafeRawBufferPointer(rebasing: whole[start...]),
                tailOffset: UInt64(start),
                deviceSize: UInt64(size)
            )
        }
    }

    /// Names and identities as people type them.
    private mutating func names() throws {
        let text = String(decoding: input.rest.prefix(300), as: UTF8.self)
        if let volume = VolumeID(text) {
            try demand(VolumeID(volume.description) == volume, "\(volume) is read as another")
        }
        if let name = ResourceName(text) {
            try demand(ResourceName(name.description) == name, "\(name) is read as another")
        }
        try Array(input.rest.prefix(300)).withUnsafeBytes { name in
            guard (try? checkName(name)) != nil else { return }
            let key = DirectoryEntryRecord.firstKey(forName: name)
            try demand(
                key >= DirectoryEntryRecord.firstKey && key <= UInt64(Int64.max) && key & 255 == 0,
                "a name has the key \(key)"
            )
        }
    }
}
