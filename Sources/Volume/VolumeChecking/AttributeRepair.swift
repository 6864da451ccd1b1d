// Extended attributes made anew from the whole records before the first fault: at the end of the
// inode's block if they fit there, else in a chain of new blocks.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    /// The sound blocks of an inode's chain, and the bytes in them.
    func attributeChain(
        of number: InodeNumber,
        _ record: InodeRecord
    ) async throws(CheckError) -> (blocks: [BlockAddress], stream: [UInt8]) {
        var blocks: [BlockAddress] = []
        var stream: [UInt8] = []
        var next = record.attributeBlock
        let buffer = makeBuffer()
        while next != .none, checker.place(of: next) != nil, !blocks.contains(next) {
            try await read(next, into: buffer)
            let error = checker.headerError(
                buffer.readOnly,
                at: next,
                kind: .extendedAttributes,
                owner: number.address.rawValue,
                generation: number.generation
            )
            guard error == nil,
                let header = try? AttributeBlockHeader(fields: buffer.readOnly, at: next),
                header.byteCount > 0,
                stream.count + Int(header.byteCount) <= AttributeRecord.longestStream
            else { break }
            blocks.append(next)
            stream += buffer.readOnly.window(
                AttributeBlockHeader.bytesOffset,
                Int(header.byteCount)
            )
            next = header.next
        }
        return (blocks, stream)
    }

    /// Rebuilds the extended attributes of an inode; false if it is not sound or there is no room.
    func rebuildAttributes(_ number: InodeNumber) async throws(CheckError) -> Bool {
        let buffer = makeBuffer()
        guard var record = try await readInode(number, into: buffer) else { return false }
        let inlineLength = Int(record.inlineAttributeLength)
        let (blocks, chain) = try await attributeChain(of: number, record)
        let inline = Array(buffer.readOnly.window(blockSize - inlineLength, inlineLength))
        let stream = Self.wholeRecords([inline, chain])
        let room = blockSize - InodeRecord.bodyOffset - bodyInUse(record)
        let end = blockSize - inlineLength
        buffer.bytes.clear(end, inlineLength)
        record.inlineAttributeLength = 0
        record.attributeBlock = .none
        record.blockCount =
            record.blockCount > blocks.count
            ? record.blockCount - UInt64(blocks.count) : 1
        if stream.count <= room {
            record.inlineAttributeLength = UInt16(stream.count)
            stream.withUnsafeBytes { buffer.bytes.put($0, blockSize - stream.count) }
        } else {
            guard let made = try await writeChain(number, stream) else { return false }
            record.attributeBlock = made.first
            record.blockCount += made.count
            try await flush()
        }
        record.writeFields(to: buffer.bytes)
        try await writeNext(buffer, at: number.address)
        return true
    }

    /// Bytes of the body that hold something.
    private func bodyInUse(_ record: InodeRecord) -> Int {
        switch record.layout {
        case .inlineData: Int(record.size)
        case .extents where record.height == 0: Int(record.rootCount) * Extent.byteCount
        case .extents, .directoryIndex: Int(record.rootCount) * TreePointer.byteCount
        case .inlineDirectory: Int(record.rootLength)
        case .none: 0
        }
    }

    /// The whole records of several streams, each up to its first fault; of two with one name the
    /// first.
    private static func wholeRecords(_ streams: [[UInt8]]) -> [UInt8] {
        var whole: [UInt8] = []
        var names: Set<[UInt8]> = []
        for stream in streams {
            stream.withUnsafeBytes { bytes in
                var offset = 0
                while offset < bytes.count, let record = AttributeRecord(bytes, at: offset) {
                    let name = Array(
                        bytes.window(
                            offset + AttributeRecord.fixedByteCount,
                            Int(record.nameLength)
                        )
                    )
                    if !name.contains(0),
                        whole.count + record.byteCount <= AttributeRecord.longestStream,
                        names.insert(name).inserted
                    {
                        whole += bytes.window(offset, record.byteCount)
                    }
                    offset += record.byteCount
                }
            }
        }
        return whole
    }

    /// Writes a stream into a chain of new blocks; nil if there is no room.
    private func writeChain(
        _ number: InodeNumber,
        _ stream: [UInt8]
    ) async throws(CheckError) -> (first: BlockAddress, count: UInt64)? {
        let perBlock = blockSize - AttributeBlockHeader.bytesOffset
        let count = (stream.count + perBlock - 1) / perBlock
        guard hasRoom(for: count, .metadata) else { return nil }
        var next = BlockAddress.none
        // From the last to the first, so that each knows what it leads to.
        for index in (0..<count).reversed() {
            guard let taken = try await takeMetadata() else { return nil }
            let part = stream[index * perBlock..<min((index + 1) * perBlock, stream.count)]
            let buffer = makeBuffer()
            BlockHeader(
                kind: .extendedAttributes,
                address: taken.address,
                version: taken.version,
                volume: superblock.volume,
                owner: number.address.rawValue,
                generation: number.generation
            ).write(to: buffer.bytes)
            AttributeBlockHeader(next: next, byteCount: UInt32(part.count))
                .writeFields(to: buffer.bytes)
            part.withUnsafeBytes { buffer.bytes.put($0, AttributeBlockHeader.bytesOffset) }
            BlockHeader.seal(buffer.bytes)
            try await write(buffer, at: taken.address)
            next = taken.address
        }
        return (next, UInt64(count))
    }
}
