// What a metadata image holds of a block: all, but for what is or may be file data.
//
// S1. A block that does not begin as a metadata block does is left out as a whole: nobody believes it, and
//     it may be file data that a wrong pointer leads to.
// S2. Of an inode only fields, attributes and the used part of a root are kept; inline data becomes
//     zeros, the target of a symbolic link as many `x`. Of one that fails its checksum only the fields
//     are kept, since nothing can be relied on to say what the rest is.
// S3. What was sound is sound afterwards, and what was not is not: whoever checks the image finds the
//     same, but for the figures of checksums that fail.
// S4. A journal holds images of inodes. They are treated alike, and so that the log stays what it was,
//     descriptors and commits get the checksums that follow.

import BlockIO
import DiskFormat
import Vocabulary

/// Takes file data out of blocks.
enum MetadataScrub {
    /// Whether a block begins as a metadata block does and its checksum is right.
    private static func isWhole(_ block: UnsafeRawBufferPointer) -> Bool {
        StatedHeader(block).hasMagic && StatedHeader(block).checksum == BlockHeader.checksum(block)
    }

    /// A block in its own place; whether something was left out.
    static func scrubHome(_ block: UnsafeMutableRawBufferPointer) -> Bool {
        let stated = StatedHeader(block.readOnly)
        guard stated.hasMagic else { return clear(block, from: 0) }
        return stated.kind == .inode ? scrubInode(block) : false
    }

    /// An image in a journal; whether something was left out.
    static func scrubImage(_ block: UnsafeMutableRawBufferPointer) -> Bool {
        let stated = StatedHeader(block.readOnly)
        guard isWhole(block.readOnly) else {
            // No block of a log is taken for one that does not verify; its rest may be anything.
            let isChanged = clear(block, from: BlockHeader.byteCount)
            keepUnsound(block, stated.checksum)
            return isChanged
        }
        return stated.kind == .inode ? scrubInode(block) : false
    }

    private static func clear(_ block: UnsafeMutableRawBufferPointer, from offset: Int) -> Bool {
        let rest = block.count - offset
        guard !block.readOnly.window(offset, rest).isAllZero else { return false }
        block.clear(offset, rest)
        return true
    }

    private static func scrubInode(_ block: UnsafeMutableRawBufferPointer) -> Bool {
        let stored = StatedHeader(block.readOnly).checksum
        guard isWhole(block.readOnly) else {
            let isChanged = clear(block, from: InodeRecord.bodyOffset)
            keepUnsound(block, stored)
            return isChanged
        }
        let address = StatedHeader(block.readOnly).address
        guard let record = try? InodeRecord(fields: block.readOnly, at: address) else {
            let isChanged = clear(block, from: InodeRecord.bodyOffset)
            BlockHeader.seal(block)
            return isChanged
        }
        let offset = InodeRecord.bodyOffset
        let room = record.bodyLength(blockSize: block.count)
        let kept = min(room, keptLength(record))
        let rest = block.window(offset + kept, room - kept)
        if record.layout == .inlineData, record.isSymbolicLink {
            rest.initializeMemory(as: UInt8.self, repeating: 0)
            let target = rest.prefix(Int(min(record.size, UInt64(room))))
            for index in target.indices { rest[index] = UInt8(ascii: "x") }
        } else {
            guard !rest.readOnly.isAllZero else { return false }
            rest.initializeMemory(as: UInt8.self, repeating: 0)
        }
        BlockHeader.seal(block)
        return true
    }

    /// Bytes of the body that are metadata.
    private static func keptLength(_ record: InodeRecord) -> Int {
        switch record.layout {
        case .inlineData, .none: 0
        case .extents where record.height == 0: Int(record.rootCount) * Extent.byteCount
        case .extents, .directoryIndex: Int(record.rootCount) * TreePointer.byteCount
        case .inlineDirectory: Int(record.rootLength)
        }
    }

    /// S3: what fails its checksum fails it still, should the damage have been in what is gone.
    private static func keepUnsound(_ block: UnsafeMutableRawBufferPointer, _ stored: UInt32) {
        if BlockHeader.checksum(block.readOnly) == stored { block.put32(~stored, 8) }
    }
}

/// The blocks of one journal without file data (S4).
final class JournalScrub {
    private let inspector: Inspector
    private let descriptor: SlotDescriptor

    init(_ inspector: Inspector, _ descriptor: SlotDescriptor) {
        self.inspector = inspector
        self.descriptor = descriptor
    }

    /// The block of the ring behind one.
    private func after(_ index: UInt32, by count: UInt32 = 1) -> UInt32 {
        let ring = UInt64(descriptor.journalLength) - 1
        return UInt32((UInt64(index) - 1 + UInt64(count)) % ring) + 1
    }

    private func address(_ index: UInt32) -> BlockAddress {
        descriptor.journalStart + UInt64(index)
    }

    /// What a block of the ring is in its place, if it is part of the log itself.
    private func kind(_ block: AlignedBuffer, _ index: UInt32) -> BlockHeader? {
        let header = try? BlockHeader(
            verifying: block.readOnly,
            at: address(index),
            volume: inspector.superblock.volume
        )
        guard let header, header.kind == .journalDescriptor || header.kind == .journalCommit else {
            return nil
        }
        return header
    }

    /// Block `index` of the journal, from 1; nil if it cannot be read. And whether something was left
    /// out of it.
    func block(_ index: UInt32) async -> (block: AlignedBuffer, isChanged: Bool)? {
        guard let block = await inspector.block(address(index)) else { return nil }
        switch kind(block, index)?.kind {
        case .journalDescriptor: await scrubDescriptor(block, at: index)
        case .journalCommit: await scrubCommit(block, at: index)
        default: return (block, MetadataScrub.scrubImage(block.bytes))
        }
        return (block, false)
    }

    /// Entries, at most as many as fit.
    private func entryCount(_ block: AlignedBuffer) -> UInt32 {
        let most = JournalDescriptorHeader.entriesPerDescriptor(blockSize: inspector.blockSize)
        return min(JournalDescriptorHeader(fields: block.readOnly).count, UInt32(most))
    }

    private func scrubDescriptor(_ block: AlignedBuffer, at index: UInt32) async {
        for entry in 0..<entryCount(block) {
            let offset =
                JournalDescriptorHeader.entriesOffset + Int(entry) * JournalEntry.byteCount + 32
            guard let image = await inspector.block(address(after(index, by: entry + 1))),
                crc32c(image.readOnly) == block.readOnly.u32(offset)
            else { continue }
            _ = MetadataScrub.scrubImage(image.bytes)
            block.bytes.put32(crc32c(image.readOnly), offset)
        }
        BlockHeader.seal(block.bytes)
    }

    private func scrubCommit(_ block: AlignedBuffer, at index: UInt32) async {
        let commit = JournalCommitHeader(fields: block.readOnly)
        let ring = descriptor.journalLength - 1
        guard commit.blockCount < ring else { return }
        var (old, new): (UInt32, UInt32) = (0, 0)
        var at = after(index, by: ring - commit.blockCount)
        var rest = commit.blockCount
        while rest > 0 {
            guard let part = await inspector.block(address(at)),
                kind(part, at)?.kind == .journalDescriptor
            else { return }
            let length = entryCount(part) + 1
            guard length <= rest else { return }
            old = crc32c(part.readOnly.window(8, 4), startingWith: old)
            await scrubDescriptor(part, at: at)
            new = crc32c(part.readOnly.window(8, 4), startingWith: new)
            rest -= length
            at = after(at, by: length)
        }
        guard old == commit.checksum else { return }
        JournalCommitHeader(blockCount: commit.blockCount, checksum: new).writeFields(
            to: block.bytes
        )
        BlockHeader.seal(block.bytes)
    }
}
