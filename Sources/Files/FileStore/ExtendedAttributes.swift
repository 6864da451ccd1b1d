// Extended attributes: one stream of records, small as a rule, read and written as a whole.
//
//   in the body   the last `inlineAttributeLength` bytes of the inode's block, when the rest of the
//                 body keeps room for what it holds and at least `StoredInode.smallestBody`
//   in a chain    otherwise: `attributeBlock`, then each block's `next`
//
// A change is prepared (the stream read, taken apart, put together anew) and then written. Blocks
// of the chain that stay are written in place, missing ones are made, superfluous ones freed; so
// the prepared change names the groups of the blocks it frees.
//
// Invariants
// A1. The stream is in one of the two places, never in both; without attributes in neither.
// A2. body used + inlineAttributeLength <= body, and inlineAttributeLength <= body - smallestBody.
// A3. Every block of the chain but the last is full; the chain has no more bytes than
//     `longestStream`, which also ends a chain that a damaged volume has closed into a ring.
// A4. Names are unique in the stream.

import DiskFormat
import Journaling
import Vocabulary

/// A change of the attributes, ready to be written.
package struct AttributeUpdate {
    /// The groups that must be held because blocks are freed, ascending.
    package let groups: [UInt32]
    /// Exact.
    package let cost: OperationCost

    fileprivate let stream: [UInt8]
    fileprivate let isInline: Bool
    fileprivate let chain: [MetadataBlock]
    fileprivate let structureVersion: UInt64
}

extension InodeRecord {
    /// Whether the inode has extended attributes.
    package var hasAttributes: Bool { inlineAttributeLength > 0 || attributeBlock != .none }
}

/// The extended attributes of one inode.
package struct ExtendedAttributes {
    package let store: FileStore
    package let inode: StoredInode

    package init(_ store: FileStore, _ inode: StoredInode) {
        self.store = store
        self.inode = inode
    }

    /// Whether there are none: known without reading.
    package var isEmpty: Bool { !inode.record.hasAttributes }

    /// The value of an attribute.
    ///
    /// - Throws: `notFound`, `storage`.
    package func value(_ name: UnsafeRawBufferPointer) async throws(StoreError) -> [UInt8] {
        guard !isEmpty else { throw .notFound }
        guard let value = try await load().stream.value(name) else { throw .notFound }
        return value
    }

    /// All names, each followed by a zero byte.
    package func names() async throws(StoreError) -> [UInt8] {
        guard !isEmpty else { return [] }
        return try await load().stream.names()
    }

    /// Prepares setting an attribute.
    ///
    /// - Throws: `exists` or `notFound` against `expectation`; `tooLong` (name), `tooLarge`
    ///   (value), `noSpace` (all together), `invalidName` (empty), `storage`.
    package func prepareSet(
        _ name: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer,
        _ expectation: AttributeExpectation = .any
    ) async throws(StoreError) -> AttributeUpdate {
        var (stream, chain) = try await load()
        try stream.set(name, value, expectation)
        return try plan(stream.bytes, chain, mayBeInline: true)
    }

    /// Prepares the attributes of an inode that has just been made and has none.
    ///
    /// - Throws: as `prepareSet`.
    package func prepareFirst(
        _ attributes: [(name: String, value: [UInt8])]
    ) throws(StoreError) -> AttributeUpdate {
        precondition(isEmpty, "an inode with attributes")
        var stream = try AttributeStream([], from: inode.number.address)
        for (name, value) in attributes {
            let name = Array(name.utf8)
            // Pointers to two arrays at once; what is thrown inside goes out as a value.
            let result = name.withUnsafeBytes { name in
                value.withUnsafeBytes { value -> Result<Void, StoreError> in
                    do throws(StoreError) {
                        try stream.set(name, value, .absent)
                        return .success(())
                    } catch {
                        return .failure(error)
                    }
                }
            }
            try result.get()
        }
        return try plan(stream.bytes, [], mayBeInline: true)
    }

    /// Prepares removing an attribute.
    ///
    /// - Throws: `notFound`, `storage`.
    package func prepareRemove(
        _ name: UnsafeRawBufferPointer
    ) async throws(StoreError) -> AttributeUpdate {
        guard !isEmpty else { throw .notFound }
        var (stream, chain) = try await load()
        try stream.remove(name)
        return try plan(stream.bytes, chain, mayBeInline: true)
    }

    /// Prepares removing all attributes, before an inode is freed.
    package func prepareRemoveAll() async throws(StoreError) -> AttributeUpdate {
        guard !isEmpty else { return try plan([], [], mayBeInline: true) }
        return try plan([], try await loadChain().blocks, mayBeInline: true)
    }

    /// Prepares moving inline attributes into a chain, because the body needs the room. One block.
    package func prepareMovingOut() throws(StoreError) -> AttributeUpdate {
        let length = Int(inode.record.inlineAttributeLength)
        precondition(length > 0, "no inline attributes")
        return try plan(inlineBytes, [], mayBeInline: false)
    }

    /// Writes a prepared change: its cost is set aside, its groups are held. Stores the inode.
    package func apply(
        _ update: AttributeUpdate,
        with allocator: Allocator
    ) throws(StoreError) {
        precondition(
            update.structureVersion == inode.structureVersion,
            "FileStore F2: the inode changed"
        )
        let transaction = allocator.transaction
        transaction.modify(inode.block)
        clearInline()
        if update.isInline {
            for block in update.chain { try allocator.freeBlock(block, of: inode) }
            inode.record.attributeBlock = .none
            let bytes = inode.block.bytes
            update.stream.withUnsafeBytes { bytes.put($0, bytes.count - $0.count) }
            inode.record.inlineAttributeLength = UInt16(update.stream.count)
        } else {
            try writeChain(update, allocator)
        }
        inode.storeStructure(in: transaction)
    }

    // MARK: reading

    /// The stream and, if it is in a chain, its blocks.
    private func load() async throws(StoreError) -> (
        stream: AttributeStream, chain: [MetadataBlock]
    ) {
        guard inode.record.attributeBlock != .none else {
            return (try AttributeStream(inlineBytes, from: inode.number.address), [])
        }
        let (bytes, blocks) = try await loadChain()
        return (try AttributeStream(bytes, from: inode.record.attributeBlock), blocks)
    }

    private var inlineBytes: [UInt8] {
        let length = Int(inode.record.inlineAttributeLength)
        let bytes = inode.block.bytes.readOnly
        return Array(bytes.window(bytes.count - length, length))
    }

    private func loadChain() async throws(StoreError) -> (bytes: [UInt8], blocks: [MetadataBlock]) {
        var source = NodeSource(store, inode)
        var bytes: [UInt8] = []
        var blocks: [MetadataBlock] = []
        var next = inode.record.attributeBlock
        while next != .none {
            let address = next
            let block = try await source.run { source throws(Interruption) in
                try source.block(address, .extendedAttributes)
            }
            let header: AttributeBlockHeader
            do {
                header = try AttributeBlockHeader(fields: block.bytes.readOnly, at: address)
            } catch {
                throw .format(error)
            }
            let length = Int(header.byteCount)
            guard length > 0, bytes.count + length <= AttributeRecord.longestStream else {
                throw .damaged(address, "attribute bytes", UInt64(header.byteCount))
            }
            bytes += block.bytes.readOnly.window(AttributeBlockHeader.bytesOffset, length)
            blocks.append(block)
            next = header.next
        }
        return (bytes, blocks)
    }

    // MARK: planning and writing

    private var bytesPerBlock: Int { store.blockSize - AttributeBlockHeader.bytesOffset }

    private func plan(
        _ stream: [UInt8],
        _ chain: [MetadataBlock],
        mayBeInline: Bool
    ) throws(StoreError) -> AttributeUpdate {
        let body = store.blockSize - InodeRecord.bodyOffset
        let taken = max(inode.bodyUsed, StoredInode.smallestBody)
        let isInline = stream.isEmpty || mayBeInline && stream.count <= body - taken
        let blocks = isInline ? 0 : (stream.count + bytesPerBlock - 1) / bytesPerBlock
        var groups: [UInt32] = []
        for block in chain.dropFirst(blocks) {
            guard let group = store.superblock.group(of: block.address) else {
                throw .damaged(inode.number.address, "attribute block", block.address.rawValue)
            }
            if !groups.contains(group) { groups.append(group) }
        }
        return AttributeUpdate(
            groups: groups.sorted(),
            cost: OperationCost(
                newBlocks: max(0, blocks - chain.count),
                modifiedBlocks: 1 + blocks
            ),
            stream: stream,
            isInline: isInline,
            chain: chain,
            structureVersion: inode.structureVersion
        )
    }

    private func clearInline() {
        let length = Int(inode.record.inlineAttributeLength)
        inode.block.bytes.clear(inode.block.bytes.count - length, length)
        inode.record.inlineAttributeLength = 0
    }

    private func writeChain(
        _ update: AttributeUpdate,
        _ allocator: Allocator
    ) throws(StoreError) {
        let transaction = allocator.transaction
        let count = (update.stream.count + bytesPerBlock - 1) / bytesPerBlock
        var blocks: [MetadataBlock] = []
        for (index, block) in update.chain.enumerated() {
            if index < count {
                transaction.modify(block)
                blocks.append(block)
            } else {
                try allocator.freeBlock(block, of: inode)
            }
        }
        while blocks.count < count {
            blocks.append(allocator.makeBlock(.extendedAttributes, for: inode))
        }
        for (index, block) in blocks.enumerated() {
            let part = update.stream.dropFirst(index * bytesPerBlock).prefix(bytesPerBlock)
            let next = index + 1 < blocks.count ? blocks[index + 1].address : .none
            AttributeBlockHeader(next: next, byteCount: UInt32(part.count))
                .writeFields(to: block.bytes)
            let start = AttributeBlockHeader.bytesOffset
            part.withUnsafeBytes { block.bytes.put($0, start) }
            block.bytes.clear(start + part.count, bytesPerBlock - part.count)
        }
        inode.record.attributeBlock = blocks[0].address
    }
}
