// `save FILE`: which blocks are metadata, and how they get into the file.
//
// Metadata is what has its place in the layout; what a walk from the roots meets, sound or not, over what
// stands in place as well as over what a replay would leave; what the journals bring home; and what the
// groups mark as metadata, or as quarantined, and has a header of that very place: so that what nothing
// leads to any more is there, too.

import BlockIO
import DiskFormat
import Journaling
import Vocabulary
import VolumeChecking

/// Says nothing: for the second look, at what a replay would leave.
private final class SilentRenderer: SheetRenderer {
    func field(_ name: String, _ value: SheetValue) {}
    func beginSection(_ name: String) {}
    func beginList(_ name: String) {}
    func beginItem(_ title: String) {}
    func beginTable(_ name: String, _ columns: [SheetColumn]) {}
    func row(_ values: [SheetValue]) {}
    func end() {}
    func damage(_ text: String) {}
    func note(_ text: String) {}
    func finish(damageCount: UInt64) {}
}

extension Inspector {
    /// Gives a metadata image of the volume to `write`, in pieces and in order. The volume was opened
    /// without replaying its journals: they are saved as they are.
    ///
    /// - Throws: if the volume cannot be walked, and what `write` throws.
    package func save(
        to write: (UnsafeRawBufferPointer) throws(InspectionError) -> Void
    ) async throws(InspectionError) -> MetadataImageSummary {
        precondition(!(device is OverlayDevice), "the journals of a metadata image are as they are")
        let blocks = try await metadataBlocks()
        let header = MetadataImageHeader(
            blockSize: superblock.blockSize,
            blockCount: superblock.blockCount,
            deviceSize: device.byteCount,
            recordCount: blocks.count,
            volume: superblock.volume
        )
        try Self.put(header.bytes, to: write)
        var summary = MetadataImageSummary()
        summary.byteCount = UInt64(MetadataImageHeader.byteCount + MetadataImageRecord.byteCount)
        var total: UInt32 = 0
        let journals = placedJournals.map { JournalScrub(self, $0) }
        for piece in blocks.pieceNumbers {
            for address in blocks.blocks(ofPiece: piece) {
                let (block, isChanged) = await content(of: address, journals)
                var record = MetadataImageRecord(address: address.rawValue)
                if isChanged { record.flags |= MetadataImageRecord.leftOut }
                if block == nil { record.flags |= MetadataImageRecord.unreadable }
                let payload =
                    block?.readOnly.withoutZerosAtEnd
                    ?? UnsafeRawBufferPointer(start: nil, count: 0)
                record.length = UInt32(payload.count)
                let (bytes, checksum) = record.bytes(with: payload)
                try Self.put(bytes, to: write)
                if !payload.isEmpty { try write(payload) }
                withExtendedLifetime(block) {}
                total = Self.chained(total, checksum)
                summary.count(record)
            }
        }
        var end = MetadataImageRecord(address: MetadataImageRecord.endAddress)
        end.length = UInt32(truncatingIfNeeded: blocks.count)
        end.flags = UInt32(truncatingIfNeeded: blocks.count >> 32)
        end.total = total
        try Self.put(end.bytes(with: UnsafeRawBufferPointer(start: nil, count: 0)).bytes, to: write)
        return summary
    }

    /// A checksum over checksums.
    static func chained(_ total: UInt32, _ checksum: UInt32) -> UInt32 {
        withUnsafeBytes(of: checksum.littleEndian) { crc32c($0, startingWith: total) }
    }

    private static func put(
        _ bytes: [UInt8],
        to write: (UnsafeRawBufferPointer) throws(InspectionError) -> Void
    ) throws(InspectionError) {
        let buffer = AlignedBuffer(byteCount: bytes.count)
        bytes.withUnsafeBytes { buffer.bytes.put($0, 0) }
        try write(buffer.readOnly)
        withExtendedLifetime(buffer) {}
    }

    /// What the image holds of a block; nil if it cannot be read.
    private func content(
        of address: BlockAddress,
        _ journals: [JournalScrub]
    ) async -> (AlignedBuffer?, Bool) {
        for (slot, journal) in zip(placedJournals, journals)
        where address > slot.journalStart
            && address - slot.journalStart < UInt64(slot.journalLength)
        {
            guard let found = await journal.block(UInt32(address - slot.journalStart)) else {
                return (nil, false)
            }
            return (found.block, found.isChanged)
        }
        guard let block = await block(address) else { return (nil, false) }
        return (block, MetadataScrub.scrubHome(block.bytes))
    }

    /// Journals that stand where journals do, and not in each other.
    private var placedJournals: [SlotDescriptor] {
        let misplaced = superblock.misplacedJournals(slots)
        return slots.compactMap { $0 }.filter { !misplaced.contains($0) }
    }

    // MARK: which blocks

    private func metadataBlocks() async throws(InspectionError) -> BlockSet {
        var blocks = BlockSet()
        addFixed(to: &blocks)
        await addLogged(to: &blocks)
        await addWalked(to: &blocks)
        if !uncleanJournals.isEmpty {
            let silent = Sheet(SilentRenderer())
            let replayed = try await Self.open(device, sheet: silent, replayed: true)
            await replayed.addWalked(to: &blocks)
        }
        return blocks
    }

    private func addFixed(to blocks: inout BlockSet) {
        var address = Superblock.address(blockSize: superblock.blockSize)
        let end = superblock.guardTable + UInt64(superblock.slotCapacity)
        while address <= end {
            blocks.insert(address)
            address = address + 1
        }
        for number in superblock.quotaBlocks { blocks.insert(BlockAddress(number)) }
        for slot in placedJournals {
            for index in 0..<UInt64(slot.journalLength) { blocks.insert(slot.journalStart + index) }
        }
        for case let slot? in slots { blocks.insert(slot.journalStart) }
        for group in 0..<superblock.groupCount { blocks.insert(superblock.groupStart(group)) }
        for group in superblock.groupsWithCopy {
            blocks.insert(superblock.copyAddress(inGroup: group))
        }
    }

    /// Where the images of the logs belong.
    private func addLogged(to blocks: inout BlockSet) async {
        for slot in placedJournals {
            do throws(StorageError) {
                let listing = try await LogListing(
                    device: device,
                    superblock: superblock,
                    descriptor: slot
                )
                while let transaction = try await listing.next() {
                    for image in transaction.images { blocks.insert(image.entry.address) }
                }
            } catch {
                sheet.damage("the journal of \(slot.slot): \(error)")
            }
        }
    }

    /// What a walk meets, and what is marked.
    private func addWalked(to blocks: inout BlockSet) async {
        let met = AddressList()
        let scan = InodeScan(self) { met.add($0) }
        while let found = await scan.next() {
            let inode = found.inode
            blocks.insert(inode.number.address)
            let walk = TreeWalk(self, of: inode)
            while let node = await walk.next() { met.add(node.address) }
            if inode.record.attributeBlock != .none {
                for address in await attributeChain(of: inode).blocks { met.add(address) }
            }
            for address in met.taken() where superblock.group(of: address) != nil {
                blocks.insert(address)
            }
        }
        await addMarked(to: &blocks)
    }

    private func addMarked(to blocks: inout BlockSet) async {
        for group in 0..<superblock.groupCount {
            let length = superblock.groupLength(group)
            let known = await soundGroup(group)
            for index in 1..<length {
                if let known {
                    let mark = GroupBitmap(block: known.bytes, blockCount: length)[index]
                    guard mark == .metadata || mark == .quarantined else { continue }
                }
                let address = superblock.groupStart(group) + UInt64(index)
                guard !blocks.contains(address), let block = await block(address) else { continue }
                let header = try? BlockHeader(
                    verifying: block.readOnly,
                    at: address,
                    volume: superblock.volume
                )
                if header != nil { blocks.insert(address) }
            }
        }
    }
}

/// Addresses that a scan has met since they were last asked for.
private final class AddressList {
    private var addresses: [BlockAddress] = []

    func add(_ address: BlockAddress) { addresses.append(address) }

    func taken() -> [BlockAddress] {
        defer { addresses.removeAll(keepingCapacity: true) }
        return addresses
    }
}

extension UnsafeRawBufferPointer {
    /// The bytes up to the last that is not zero.
    fileprivate var withoutZerosAtEnd: UnsafeRawBufferPointer {
        var length = count
        while length > 0, self[length - 1] == 0 { length -= 1 }
        return UnsafeRawBufferPointer(rebasing: self[0..<length])
    }
}
