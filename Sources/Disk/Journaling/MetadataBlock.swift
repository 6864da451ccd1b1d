import BlockIO
import DiskFormat
package import Vocabulary

/// One cached metadata block. There is at most one object per address (M1).
package final class MetadataBlock {
    /// Where the block belongs.
    package let address: BlockAddress

    /// The lock under which the block is cached.
    package let covering: ResourceName

    let kind: BlockKind
    let owner: UInt64
    let generation: UInt64
    let buffer: AlignedBuffer

    // Of the cache: its slot (nil when the cache has let go of it) and its place in the list of its
    // lock.
    var slot: Int?
    var indexInCovering = 0

    // Of the journal: who holds it as dirty (running, committing or waiting to be written home);
    // the running transaction that contains it and where; the handle that touched it last.
    var pins = 0
    var runningSequence: UInt64 = 0
    var indexInRunning = 0
    var lastHandle: UInt64 = 0

    init(
        address: BlockAddress,
        covering: ResourceName,
        header: BlockHeader,
        buffer: AlignedBuffer
    ) {
        self.address = address
        self.covering = covering
        kind = header.kind
        owner = header.owner
        generation = header.generation
        self.buffer = buffer
    }

    /// The whole block, header included. Changed only between `Transaction.modify` and `end`, and
    /// never in its header.
    package var bytes: UnsafeMutableRawBufferPointer { buffer.bytes }

    /// The version the block had when it was last committed; at least that of every image of it in
    /// any log.
    package var version: UInt64 { bytes.readOnly.u64(24) }

    /// Whether changes of it are not yet written in place.
    package var isDirty: Bool { pins > 0 }

    /// Refuses a block that is in memory but is not the one the caller's pointer promised.
    func check(
        kind: BlockKind,
        owner: UInt64,
        generation: UInt64,
        covering: ResourceName
    ) throws(FormatError) {
        guard self.kind == kind else {
            throw .wrongKind(address, expected: kind, found: self.kind.rawValue)
        }
        guard self.owner == owner else {
            throw .wrongOwner(address, expected: owner, found: self.owner)
        }
        guard self.generation == generation else {
            throw .wrongGeneration(address, expected: generation, found: self.generation)
        }
        guard self.covering == covering else {
            throw .wrongOwner(address, expected: covering.number, found: self.covering.number)
        }
    }
}
