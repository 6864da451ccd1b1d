// Bytes that no writer made. Each decoder answers with an error or a value whose numbers can be
// used; it never stops the process.

import DiskFormat
import Testing
import Vocabulary

@Suite struct HostileTests {
    /// Calls every decoder on one block, at a few addresses.
    private func decodeAll(_ block: UnsafeRawBufferPointer, _ dice: inout SeededGenerator) {
        let superblock = sampleSuperblock()
        let claimed = BlockAddress(block.u64(16))
        for address in [claimed, BlockAddress(1000), superblock.guardTable] {
            _ = try? BlockHeader(verifying: block, at: address, volume: sampleVolume)
            _ = try? GuardRecord.read(verifying: block, at: address, volume: sampleVolume)
            _ = try? SlotHeartbeat(verifying: block, at: address, volume: sampleVolume)
            _ = try? JournalHeader.read(
                verifying: block,
                at: address,
                volume: sampleVolume,
                slot: SlotIndex(1)
            )
            _ = try? AttributeBlockHeader(fields: block, at: address)
            if let record = try? ResourceGroupRecord(checking: block, at: address, in: superblock) {
                #expect(record.blockCount == superblock.groupLength(record.index))
            }
            if let record = try? InodeRecord(fields: block, at: address) {
                #expect(record.bodyLength(blockSize: block.count) >= 0)
                #expect(record.height <= InodeRecord.maximumHeight)
            }
            if let found = try? Superblock(verifying: block, at: address) { use(found) }
        }
        for slot in 0..<superblock.slotCapacity {
            let address = superblock.slotDescriptor(SlotIndex(slot))
            if let slot = try? SlotDescriptor(verifying: block, at: address, in: superblock) {
                let end = slot.journalStart + UInt64(slot.journalLength)
                #expect(end.rawValue <= superblock.blockCount)
            }
        }
        for _ in 0..<20 {
            let offset = dice.below(block.count - 64)
            let extent = Extent(block, at: offset)
            #expect(extent.logicalEnd >= extent.logical)
            if extent.isPlausible(in: superblock) {
                #expect((extent.physical + UInt64(extent.length)).rawValue <= superblock.blockCount)
            }
            _ = TreePointer(block, at: offset)
            _ = JournalEntry(block, at: offset)
            let end = dice.below(block.count + 1)
            if let entry = DirectoryEntryRecord(block, at: offset, end: end) {
                #expect(offset + entry.byteCount <= end)
            }
            if let record = AttributeRecord(block, at: offset) {
                #expect(offset + record.byteCount <= block.count)
            }
        }
        _ = TreeNodeHeader(fields: block)
        _ = JournalDescriptorHeader(fields: block)
        _ = JournalCommitHeader(fields: block)
        _ = ForeignSignature.find(
            head: block,
            tail: block,
            tailOffset: 126_976,
            deviceSize: 131_072
        )
    }

    /// The arithmetic of an accepted superblock does not overflow.
    private func use(_ superblock: Superblock) {
        var total: UInt64 = 0
        for group in [0, superblock.groupCount / 2, superblock.groupCount - 1] {
            let start = superblock.groupStart(group)
            let length = superblock.groupLength(group)
            #expect(superblock.group(of: start) == group)
            #expect(superblock.group(of: start + UInt64(length - 1)) == group)
            #expect(length >= Superblock.minimumGroupLength)
            total &+= superblock.byteOffset(start + UInt64(length))
        }
        #expect(total > 0)
        #expect(superblock.group(of: BlockAddress(superblock.blockCount)) == nil)
        #expect(superblock.group(of: BlockAddress(.max)) == nil)
        _ = try? superblock.checkFeatures(forWriting: true)
        let block = TestBlock(Int(superblock.blockSize))
        superblock.write(to: block.bytes, at: BlockAddress(16), version: 1)
        #expect(throws: Never.self) {
            try Superblock(verifying: block.readOnly, at: BlockAddress(16))
        }
    }

    @Test(arguments: 0..<100)
    func randomBytes(seed: Int) {
        var dice = SeededGenerator(seed: UInt64(seed))
        let block = TestBlock(seed % 3 == 0 ? 65_536 : 4096)
        block.randomize(&dice)
        decodeAll(block.readOnly, &dice)
        // The same with a header that verifies, so that the fields behind it are reached.
        for kind in BlockKind.allCases {
            let address = dice.oneIn(2) ? BlockAddress(1000) : BlockAddress(17 + dice.next() % 200)
            BlockHeader(
                kind: kind,
                address: address,
                version: dice.next(),
                volume: sampleVolume,
                owner: dice.oneIn(2) ? dice.next() : address.rawValue - 17 & 63,
                generation: dice.next()
            ).write(to: block.bytes)
            BlockHeader.seal(block.bytes)
            decodeAll(block.readOnly, &dice)
        }
    }

    /// Valid records with one to four fields bent.
    @Test(arguments: 0..<200)
    func bentRecords(seed: Int) {
        var dice = SeededGenerator(seed: 50_000 + UInt64(seed))
        let samples: [(UnsafeMutableRawBufferPointer) -> Void] = [
            { sampleSuperblock().write(to: $0, at: BlockAddress(16), version: 1) },
            { block in
                BlockHeader(
                    kind: .inode,
                    address: BlockAddress(1000),
                    version: 1,
                    volume: sampleVolume,
                    owner: 1000,
                    generation: 1
                ).write(to: block)
                sampleInode().writeFields(to: block)
            },
            { block in
                JournalHeader(
                    slot: SlotIndex(1),
                    tailSequence: 4,
                    tail: 9,
                    length: 300,
                    isClean: false
                ).write(to: block, at: BlockAddress(1000), volume: sampleVolume, version: 1)
            },
            { block in
                SlotDescriptor(
                    slot: SlotIndex(1),
                    journalStart: BlockAddress(300),
                    journalLength: 256,
                    orphanDirectory: InodeNumber(address: BlockAddress(1005), generation: 4)
                ).write(to: block, at: BlockAddress(18), volume: sampleVolume)
            },
        ]
        for sample in samples {
            let block = TestBlock()
            sample(block.bytes)
            for _ in 0...dice.below(4) {
                let offset = 64 + dice.below(260)
                switch dice.below(5) {
                case 0: block.bytes.put64(.max, offset)
                case 1: block.bytes.put64(1 << UInt64(dice.below(64)), offset)
                case 2: block.bytes.put32(UInt32(dice.below(70_000)), offset)
                case 3: block.bytes.put32(0, offset)
                default: block.bytes[offset] ^= 1 << UInt8(dice.below(8))
                }
            }
            BlockHeader.seal(block.bytes)
            decodeAll(block.readOnly, &dice)
        }
    }

    @Test func everyFlippedBitOfASealedBlockIsNoticed() {
        let block = TestBlock()
        sampleSuperblock().write(to: block.bytes, at: BlockAddress(16), version: 1)
        for bit in 0..<4096 * 8 where bit < 3000 || bit % 7 == 0 {
            block.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect {
                try Superblock(verifying: block.readOnly, at: BlockAddress(16))
            } throws: { error in
                // Damage, which a copy mends, and not a volume that a newer program could read.
                switch error as? FormatError {
                case .notMetadata, .wrongChecksum: true
                case .invalidField(_, "block size", _): true
                default: false
                }
            }
            block.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        }
        #expect(throws: Never.self) {
            try Superblock(verifying: block.readOnly, at: BlockAddress(16))
        }
    }

    @Test func aVolumeOfAnotherVersionIsNoDamage() {
        let block = TestBlock()
        sampleSuperblock().write(to: block.bytes, at: BlockAddress(16), version: 1)
        block.bytes.put32(3, 72)
        BlockHeader.seal(block.bytes)
        #expect(throws: FormatError.unsupportedVersion(3)) {
            try Superblock(verifying: block.readOnly, at: BlockAddress(16))
        }
    }

    @Test func foreignSignaturesAreNamed() {
        let size: UInt64 = 10 << 20
        func found(_ changes: [(UInt64, [UInt8])]) -> [String] {
            let head = TestBlock(ForeignSignature.headLength)
            let tail = TestBlock(ForeignSignature.tailLength)
            let tailOffset = size - UInt64(ForeignSignature.tailLength)
            for (offset, bytes) in changes {
                for (index, byte) in bytes.enumerated() {
                    let place = offset + UInt64(index)
                    if place < UInt64(head.bytes.count) { head.bytes[Int(place)] = byte }
                    if place >= tailOffset { tail.bytes[Int(place - tailOffset)] = byte }
                }
            }
            return ForeignSignature.find(
                head: head.readOnly,
                tail: tail.readOnly,
                tailOffset: tailOffset,
                deviceSize: size
            ).map(\.name)
        }
        func text(_ text: String) -> [UInt8] { Array(text.utf8) }
        #expect(found([]) == [])
        #expect(found([(1080, [0x53, 0xEF])]) == ["ext2/3/4"])
        #expect(found([(0, text("XFSB"))]) == ["XFS"])
        #expect(found([(65_600, text("_BHRfS_M"))]) == ["Btrfs"])
        #expect(found([(65_536, [1, 0x16, 0x19, 0x70])]) == ["GFS2"])
        #expect(found([(8192, text("OCFSV2"))]) == ["OCFS2"])
        #expect(found([(4086, text("SWAPSPACE2"))]) == ["swap"])
        #expect(found([(512, text("LABELONE"))]) == ["LVM2"])
        #expect(found([(4096, [0xFC, 0x4E, 0x2B, 0xA9])]) == ["Linux RAID member"])
        #expect(found([(size - 65_536, [0xFC, 0x4E, 0x2B, 0xA9])]) == ["Linux RAID member"])
        #expect(found([(size - 8192, [0xFC, 0x4E, 0x2B, 0xA9])]) == ["Linux RAID member"])
        #expect(found([(3, text("NTFS    ")), (510, [0x55, 0xAA])]) == ["NTFS"])
        #expect(found([(82, text("FAT32   ")), (510, [0x55, 0xAA])]) == ["FAT"])
        #expect(found([(32_769, text("CD001"))]) == ["ISO 9660"])
        #expect(found([(510, [0x55, 0xAA])]) == ["MBR partition table"])
        #expect(
            found([(510, [0x55, 0xAA]), (512, text("EFI PART"))]) == ["GPT partition table"]
        )
        #expect(found([(size - 512, text("EFI PART"))]) == ["GPT partition table"])
        #expect(found([(131_072 + 5 * 1024, [0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0])]) == ["ZFS"])
        #expect(found([(131_072 + 1024, [0, 0, 0, 0, 0, 0xBA, 0xB1, 0x0C])]) == ["ZFS"])
        #expect(found([(65_600, text("LOCKSTEP"))]) == ["lockstep"])
        #expect(
            found([(0, text("XFSB")), (1080, [0x53, 0xEF])]) == ["ext2/3/4", "XFS"]
        )
    }
}
