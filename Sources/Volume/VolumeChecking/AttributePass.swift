// Pass 4, extended attributes: one stream of records, at the end of the inode's block or in a chain
// of blocks.

import BlockIO
import DiskFormat
import Vocabulary

extension VolumeChecker {
    /// Checks the attributes of an inode whose block is given.
    func checkAttributes(
        of visit: InodeVisit,
        _ block: UnsafeRawBufferPointer
    ) async throws(CheckError) {
        let record = visit.record
        let inlineLength = Int(record.inlineAttributeLength)
        if inlineLength > 0 {
            checkStream(Array(block.window(blockSize - inlineLength, inlineLength)), of: visit)
        }
        guard record.attributeBlock != .none else { return }
        if inlineLength > 0 {
            // Either here or there: two streams could give one name two values.
            add(Finding(.attributesDamaged, inode: visit.number, found: UInt64(inlineLength)))
        }
        if let stream = try await readChain(from: record.attributeBlock, of: visit) {
            checkStream(stream, of: visit)
        }
    }

    /// The bytes of a chain; nil, with a finding, if it is damaged.
    private func readChain(from first: BlockAddress, of visit: InodeVisit)
        async throws(CheckError) -> [UInt8]?
    {
        var stream: [UInt8] = []
        var next = first
        let buffer = makeBuffer()
        while next != .none {
            guard place(of: next) != nil else {
                return damaged(
                    visit,
                    next,
                    .invalidField(next, field: "next", value: next.rawValue)
                )
            }
            // A chain that bites its tail ends here (C2).
            guard
                try await claimMetadata(next, for: visit.number, as: .extendedAttributes)
            else {
                visit.isComplete = false
                return nil
            }
            visit.blocks += 1
            if let error = try await read(
                next,
                into: buffer,
                kind: .extendedAttributes,
                owner: visit.number.address.rawValue,
                generation: visit.number.generation
            ) {
                return damaged(visit, next, error)
            }
            let header: AttributeBlockHeader
            do throws(FormatError) {
                header = try AttributeBlockHeader(fields: buffer.readOnly, at: next)
            } catch {
                return damaged(visit, next, error)
            }
            stream += buffer.readOnly.window(
                AttributeBlockHeader.bytesOffset,
                Int(header.byteCount)
            )
            guard header.byteCount > 0 else {
                return damaged(
                    visit,
                    next,
                    .invalidField(next, field: "attribute bytes", value: 0)
                )
            }
            guard stream.count <= AttributeRecord.longestStream else {
                return damaged(
                    visit,
                    next,
                    .invalidField(next, field: "stream length", value: UInt64(stream.count))
                )
            }
            next = header.next
        }
        return stream
    }

    private func damaged(_ visit: InodeVisit, _ address: BlockAddress, _ error: FormatError)
        -> [UInt8]?
    {
        visit.isComplete = false
        add(Finding(.attributeBlockDamaged, inode: visit.number, block: address, error: error))
        return nil
    }

    /// Records fill the stream exactly, and no name comes twice.
    private func checkStream(_ stream: [UInt8], of visit: InodeVisit) {
        var names: Set<[UInt8]> = []
        var offset = 0
        var isSound = true
        stream.withUnsafeBytes { bytes in
            while offset < bytes.count {
                guard let record = AttributeRecord(bytes, at: offset) else {
                    isSound = false
                    return
                }
                let name = Array(
                    bytes.window(
                        offset + AttributeRecord.fixedByteCount,
                        Int(record.nameLength)
                    )
                )
                if !names.insert(name).inserted || name.contains(0) { isSound = false }
                offset += record.byteCount
            }
        }
        if !isSound {
            add(Finding(.attributesDamaged, inode: visit.number, found: UInt64(offset)))
        }
    }
}
