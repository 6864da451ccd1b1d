// Every record is written into memory full of 0x5a and read back: a field that is not written, or
// written somewhere else than it is read, shows.

import CChecksum
import DiskFormat
import Testing
import Vocabulary

@Suite struct RoundTripTests {
    private let filling: UInt8 = 0x5A

    /// Bytes from `from` on that are still the filling.
    private func isFilling(_ block: TestBlock, from: Int) -> Bool {
        block.readOnly[from...].allSatisfy { $0 == filling }
    }

    @Test func blockHeader() throws {
        for kind in BlockKind.allCases {
            let block = TestBlock(filling: filling)
            let header = BlockHeader(
                kind: kind,
                address: BlockAddress(0x1122_3344_5566),
                version: 0x99AA_BBCC_DDEE,
                volume: sampleVolume,
                owner: 0xFFEE_DDCC,
                generation: 0x1234_5678_9ABC
            )
            header.write(to: block.bytes)
            BlockHeader.seal(block.bytes)
            #expect(
                try BlockHeader(
                    verifying: block.readOnly,
                    at: header.address,
                    volume: sampleVolume
                ) == header
            )
            #expect(BlockHeader.version(of: block.readOnly) == header.version)
            #expect(isFilling(block, from: BlockHeader.byteCount))
            BlockHeader.setVersion(7, of: block.bytes)
            #expect(BlockHeader.version(of: block.readOnly) == 7)
        }
    }

    /// What the header of an inode at block 50 is refused for, after a change.
    private func refusal(
        expecting kind: BlockKind = .inode,
        seals: Bool = true,
        _ change: (UnsafeMutableRawBufferPointer) -> Void
    ) -> FormatError? {
        let address = BlockAddress(50)
        let block = TestBlock()
        BlockHeader(
            kind: .inode,
            address: address,
            version: 1,
            volume: sampleVolume,
            owner: 50,
            generation: 1
        ).write(to: block.bytes)
        BlockHeader.seal(block.bytes)
        change(block.bytes)
        if seals { BlockHeader.seal(block.bytes) }
        do throws(FormatError) {
            _ = try BlockHeader(
                verifying: block.readOnly,
                at: address,
                volume: sampleVolume,
                kind: kind
            )
            return nil
        } catch {
            #expect(!error.description.contains("\n"))
            return error
        }
    }

    @Test func headersAreRefusedForTheRightReason() {
        let address = BlockAddress(50)
        #expect(refusal { _ in } == nil)
        #expect(refusal { $0.put32(1, 0) } == .notMetadata(address))
        let torn = refusal(seals: false) { $0[4000] = 1 }
        if case .wrongChecksum = torn {} else { Issue.record("a torn block was accepted") }
        #expect(refusal { $0.put64(51, 16) } == .misplaced(address, claims: BlockAddress(51)))
        #expect(refusal { $0.put64(9, 32) } == .foreign(address))
        let revision = refusal { $0.put16(2, 6) }
        #expect(revision == .unknownRevision(address, kind: .inode, found: 2))
        let kind = refusal { $0.put16(99, 4) }
        #expect(kind == .invalidField(address, field: "kind", value: 99))
        let other = refusal(expecting: .extentNode) { _ in }
        #expect(other == .wrongKind(address, expected: .extentNode, found: 6))
    }

    @Test func superblock() throws {
        for size in [4096, 65_536] {
            let block = TestBlock(size, filling: filling)
            let superblock = sampleSuperblock()
            let address = BlockAddress(16)
            let whole = UnsafeMutableRawBufferPointer(rebasing: block.bytes[0..<4096])
            superblock.write(to: whole, at: address, version: 3)
            #expect(try Superblock(verifying: block.readOnly, at: address) == superblock)
            #expect(try Superblock(verifying: block.readOnly, at: nil) == superblock)
            #expect(throws: FormatError.self) {
                try Superblock(verifying: block.readOnly, at: BlockAddress(17))
            }
            #expect(whole[332...].allSatisfy { $0 == 0 })
        }
    }

    @Test func namesOfFullLength() throws {
        var superblock = sampleSuperblock()
        superblock.clusterName = String(repeating: "c", count: 31)
        superblock.volumeName = String(repeating: "ö", count: 15)
        superblock.label = String(repeating: "€", count: 21)
        let block = TestBlock(filling: filling)
        superblock.write(to: block.bytes, at: BlockAddress(16), version: 1)
        #expect(try Superblock(verifying: block.readOnly, at: BlockAddress(16)) == superblock)
        // Bytes that are no UTF-8, to the last: refused, because they could not be written back.
        for index in 256..<320 { block.bytes[index] = 0xFF }
        BlockHeader.seal(block.bytes)
        #expect(throws: FormatError.self) {
            try Superblock(verifying: block.readOnly, at: BlockAddress(16))
        }
    }

    @Test func slotRecords() throws {
        let superblock = sampleSuperblock()
        let block = TestBlock(filling: filling)
        let descriptor = SlotDescriptor(
            slot: SlotIndex(2),
            journalStart: BlockAddress(300),
            journalLength: 256,
            orphanDirectory: InodeNumber(address: BlockAddress(1005), generation: 4)
        )
        let place = superblock.slotDescriptor(SlotIndex(2))
        descriptor.write(to: block.bytes, at: place, volume: sampleVolume)
        #expect(
            try SlotDescriptor(verifying: block.readOnly, at: place, in: superblock) == descriptor
        )
        #expect(throws: FormatError.self) {
            try SlotDescriptor(
                verifying: block.readOnly,
                at: superblock.slotDescriptor(SlotIndex(1)),
                in: superblock
            )
        }
        let record = GuardRecord(
            mode: .corosync,
            clusterHigh: 0x1111_2222_3333,
            clusterLow: 0x4444_5555_6666,
            host: String(repeating: "h", count: 63)
        )
        record.write(to: block.bytes, at: superblock.guardTable, volume: sampleVolume, version: 8)
        let read = try GuardRecord.read(
            verifying: block.readOnly,
            at: superblock.guardTable,
            volume: sampleVolume
        )
        #expect(read.record == record && read.version == 8)
        let beat = SlotHeartbeat(
            slot: SlotIndex(63),
            incarnation: 0xABCD_EF01_2345,
            beat: 99,
            clusterHigh: 5,
            clusterLow: 6
        )
        let heart = superblock.heartbeat(SlotIndex(63))
        beat.write(to: block.bytes, at: heart, volume: sampleVolume)
        #expect(
            try SlotHeartbeat(verifying: block.readOnly, at: heart, volume: sampleVolume) == beat
        )
    }

    @Test func inode() throws {
        let block = TestBlock(filling: filling)
        let record = sampleInode()
        record.writeFields(to: block.bytes)
        #expect(try InodeRecord(fields: block.readOnly, at: BlockAddress(9)) == record)
        #expect(isFilling(block, from: 196))
        #expect(record.bodyLength(blockSize: 4096) == 4096 - 256 - 40)
        #expect(record.isRegular && !record.isDirectory && !record.isSymbolicLink)
    }

    @Test func groupAndBitmapDoNotMeet() throws {
        let superblock = sampleSuperblock()
        let block = TestBlock(filling: filling)
        let record = ResourceGroupRecord(
            index: 3,
            blockCount: 1024,
            freeCount: 500,
            quarantinedCount: 20,
            inodeCount: 7,
            highestVersion: 0x1234_5678_9ABC,
            highestGeneration: 0x9ABC_DEF0
        )
        let bitmap = GroupBitmap(block: block.bytes, blockCount: 1024)
        for index in 0..<UInt32(1024) { bitmap[index] = .metadata }
        record.writeFields(to: block.bytes)
        #expect(ResourceGroupRecord(fields: block.readOnly) == record)
        #expect(
            try ResourceGroupRecord(
                checking: block.readOnly,
                at: superblock.groupStart(3),
                in: superblock
            ) == record
        )
        #expect(bitmap.counts()[2] == 1024)
        #expect(isFilling(block, from: 128 + 256))
        #expect(block.readOnly[104..<128].allSatisfy { $0 == filling })
    }

    @Test func treeRecords() {
        let block = TestBlock(filling: filling)
        let extent = Extent(
            logical: 0x1_0203_0405,
            physical: BlockAddress(0x6_0708_090A),
            length: 0x0B0C_0D0E,
            isUnwritten: true
        )
        extent.write(to: block.bytes, at: 104)
        #expect(Extent(block.readOnly, at: 104) == extent)
        let pointer = TreePointer(key: 0x7FFF_FFFF_FFFF_FF11, child: BlockAddress(0x2233_4455))
        pointer.write(to: block.bytes, at: 128)
        #expect(TreePointer(block.readOnly, at: 128) == pointer)
        #expect(Extent(block.readOnly, at: 104) == extent)
        let header = TreeNodeHeader(count: 0x1234, height: 0x5678, usedBytes: 0x9ABC_DEF0)
        header.writeFields(to: block.bytes)
        #expect(TreeNodeHeader(fields: block.readOnly) == header)
        #expect(isFilling(block, from: 144))
    }

    @Test func extentsAreJudgedWithoutOverflow() {
        let superblock = sampleSuperblock()
        func plausible(_ logical: UInt64, _ physical: UInt64, _ length: UInt32) -> Bool {
            Extent(logical: logical, physical: BlockAddress(physical), length: length)
                .isPlausible(in: superblock)
        }
        #expect(plausible(0, 1001, 1) && plausible(0, 1001, 1023))
        #expect(!plausible(0, 1001, 0) && !plausible(0, 1000, 1) && !plausible(0, 1001, 1024))
        #expect(!plausible(0, 999, 1) && !plausible(0, 16_384, 1) && !plausible(0, .max, 1))
        #expect(plausible(0, 16_383, 1) && !plausible(0, 16_383, 2) && !plausible(0, 1001, .max))
        #expect(!plausible(.max, 1001, 1) && !plausible(.max - 5, 1001, 10))
        #expect(plausible(superblock.maximumFileBlocks - 1, 1001, 1))
        #expect(!plausible(superblock.maximumFileBlocks, 1001, 1))
    }

    @Test func directoryEntry() throws {
        let block = TestBlock(filling: filling)
        for length in [1, 17, 255] {
            let name = TestBlock(255, filling: 0x61)
            let bytes = name.readOnly.window(0, length)
            let record = DirectoryEntryRecord(
                key: 0x1234_5678_9ABC_DE01,
                inode: InodeNumber(address: BlockAddress(0xFEDC_BA98), generation: 0x7654_3210),
                type: 8,
                nameLength: UInt8(length)
            )
            record.write(to: block.bytes, at: 300, name: bytes)
            let end = 300 + 26 + length
            #expect(DirectoryEntryRecord(block.readOnly, at: 300, end: end) == record)
            #expect(DirectoryEntryRecord(block.readOnly, at: 300, end: end - 1) == nil)
            #expect(DirectoryEntryRecord(block.readOnly, at: 300, end: 325) == nil)
            #expect(block.readOnly.window(326, length).elementsEqual(bytes))
            #expect(isFilling(block, from: end))
        }
    }

    @Test func attributes() throws {
        let block = TestBlock(filling: filling)
        let header = AttributeBlockHeader(next: BlockAddress(0x1122_3344), byteCount: 4016)
        header.writeFields(to: block.bytes)
        #expect(try AttributeBlockHeader(fields: block.readOnly, at: BlockAddress(1)) == header)
        block.bytes.put32(4017, 72)
        #expect(throws: FormatError.self) {
            try AttributeBlockHeader(fields: block.readOnly, at: BlockAddress(1))
        }
        let stream: [UInt8] = [3, 0, 2, 0] + Array("a.bxy".utf8)
        stream.withUnsafeBytes { bytes in
            let record = AttributeRecord(bytes, at: 0)
            #expect(record == AttributeRecord(nameLength: 3, valueLength: 2))
            #expect(record?.byteCount == 9)
            for end in 0..<9 {
                let cut = UnsafeRawBufferPointer(rebasing: bytes[0..<end])
                #expect(AttributeRecord(cut, at: 0) == nil)
            }
        }
    }

    @Test func journalRecords() throws {
        let block = TestBlock(filling: filling)
        let at = BlockAddress(400)
        let header = JournalHeader(
            slot: SlotIndex(5),
            tailSequence: 0x1234_5678_9ABC,
            tail: 77,
            length: 2048,
            isClean: true
        )
        header.write(to: block.bytes, at: at, volume: sampleVolume, version: 12)
        let read = try JournalHeader.read(
            verifying: block.readOnly,
            at: at,
            volume: sampleVolume,
            slot: SlotIndex(5)
        )
        #expect(read.header == header && read.version == 12)
        #expect(throws: FormatError.wrongOwner(at, expected: 4, found: 5)) {
            try JournalHeader.read(
                verifying: block.readOnly,
                at: at,
                volume: sampleVolume,
                slot: SlotIndex(4)
            )
        }
        let filled = TestBlock(filling: filling)
        let entry = JournalEntry(
            address: BlockAddress(0x1_0203_0405),
            version: 0x6_0708_090A,
            covering: ResourceName(kind: .orphanList, number: 0xB_0C0D_0E0F, generation: 0x1011),
            checksum: 0x1213_1415
        )
        entry.write(to: filled.bytes, at: 80)
        #expect(JournalEntry(filled.readOnly, at: 80) == entry)
        #expect(isFilling(filled, from: 120))
        let descriptor = JournalDescriptorHeader(count: 0x1122_3344, index: 0x5566_7788)
        descriptor.writeFields(to: filled.bytes)
        #expect(JournalDescriptorHeader(fields: filled.readOnly) == descriptor)
        let commit = JournalCommitHeader(blockCount: 0x99AA_BBCC, checksum: 0xDDEE_FF00)
        commit.writeFields(to: filled.bytes)
        #expect(JournalCommitHeader(fields: filled.readOnly) == commit)
        #expect(JournalDescriptorHeader.entriesPerDescriptor(blockSize: 4096) == 100)
    }

    @Test func volumeIdentity() {
        let text = "01234567-89ab-4def-8edc-ba9876543210"
        #expect(sampleVolume.description == text)
        #expect(VolumeID(text) == sampleVolume && VolumeID(text.uppercased()) == sampleVolume)
        for bad in [
            "", "0123", text + "0", "0" + text, text.replacing("-", with: "0"),
            text.replacing("a", with: "g"), "01234567-89ab-4def-8edcba98765432-10",
        ] { #expect(VolumeID(bad) == nil, "\(bad)") }
        #expect(VolumeID(high: 1, low: 2).description == "00000000-0000-0001-0000-000000000002")
    }

    @Test func namesAndTheirKeys() {
        func key(_ name: String) -> UInt64 {
            Array(name.utf8).withUnsafeBytes { DirectoryEntryRecord.firstKey(forName: $0) }
        }
        var dice = SeededGenerator(seed: 5)
        for length in 1...255 {
            let name = (0..<length).map { _ in UInt8(dice.below(256)) }
            let key = name.withUnsafeBytes { DirectoryEntryRecord.firstKey(forName: $0) }
            #expect(key >= DirectoryEntryRecord.firstKey && key & 0xFF == 0 && key >> 63 == 0)
        }
        #expect(key("a") != key("b"))
        func refused(_ name: String) -> NameError? {
            Array(name.utf8).withUnsafeBytes { bytes in
                do throws(NameError) {
                    try checkName(bytes)
                    return nil
                } catch {
                    return error
                }
            }
        }
        for good in ["a", "...", ".a", "..a", "ö", "a b", String(repeating: "x", count: 255)] {
            #expect(refused(good) == nil)
        }
        #expect(refused("") == .empty)
        #expect(refused(String(repeating: "x", count: 256)) == .tooLong)
        for bad in [".", "..", "a/b", "/", "a\0"] { #expect(refused(bad) == .invalid) }
    }
}

@Suite struct ChecksumTests {
    /// RFC 3720, appendix B.4, and the check value of the catalogue of parametrised CRC algorithms.
    @Test func knownVectors() {
        func checksum(_ bytes: [UInt8]) -> UInt32 { bytes.withUnsafeBytes { crc32c($0) } }
        #expect(checksum(Array("123456789".utf8)) == 0xE306_9283)
        #expect(checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(checksum([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(checksum(Array(0..<32)) == 0x46DD_794E)
        #expect(checksum(Array((0..<32).reversed())) == 0x113F_DB5C)
        #expect(checksum([]) == 0)
    }

    @Test func instructionAndTablesAgree() {
        var dice = SeededGenerator(seed: 9)
        let block = TestBlock()
        block.randomize(&dice)
        for _ in 0..<2000 {
            let start = dice.below(64)
            let length = dice.below(dice.oneIn(10) ? 4000 : 40)
            let window = block.readOnly.window(start, length)
            guard let base = window.baseAddress else { continue }
            let seed = UInt32(truncatingIfNeeded: dice.next())
            let whole = lockstep_crc32c(seed, base, length)
            #expect(whole == lockstep_crc32c_portable(seed, base, length))
            let cut = dice.below(length + 1)
            let first = crc32c(block.readOnly.window(start, cut), startingWith: seed)
            #expect(
                crc32c(block.readOnly.window(start + cut, length - cut), startingWith: first)
                    == whole
            )
        }
    }
}

@Suite struct GroupBitmapTests {
    @Test(arguments: 0..<20)
    func searchesAgreeWithTheNaiveOnes(seed: Int) {
        var dice = SeededGenerator(seed: UInt64(seed))
        let block = TestBlock(filling: 0)
        let count = UInt32(1 + dice.below(seed % 2 == 0 ? 70 : 2000))
        let bitmap = GroupBitmap(block: block.bytes, blockCount: count)
        var model = [BlockState](repeating: .free, count: Int(count))
        // Runs, so that whole bytes can be skipped.
        for _ in 0..<dice.below(60) {
            let start = dice.below(Int(count))
            let state = BlockState.allCases[dice.below(4)]
            for index in start..<min(Int(count), start + 1 + dice.below(40)) {
                bitmap[UInt32(index)] = state
                model[index] = state
            }
        }
        for index in 0..<Int(count) { #expect(bitmap[UInt32(index)] == model[index]) }
        for state in BlockState.allCases {
            #expect(Int(bitmap.counts()[Int(state.rawValue)]) == model.count { $0 == state })
            for start in 0...Int(count) {
                let expected = model[start...].firstIndex(of: state).map { UInt32($0) }
                #expect(bitmap.first(state, from: UInt32(start)) == expected)
                let limit = dice.below(50)
                let run = model[start...].prefix(limit).prefix { $0 == state }.count
                #expect(
                    Int(bitmap.run(of: state, from: UInt32(start), limit: UInt32(limit))) == run
                )
            }
        }
        // Nothing behind the last block was touched.
        let end = ResourceGroupRecord.bitmapOffset + (Int(count) + 3) / 4
        #expect(block.readOnly[end...].allSatisfy { $0 == 0 })
    }
}
