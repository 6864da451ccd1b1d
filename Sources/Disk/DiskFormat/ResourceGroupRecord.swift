// A resource group is a slice of the volume with its own lock. Its first block holds the counts and
// two bits for each of its blocks, the first block itself included:
//
//   00 free         may become anything
//   01 data         file data
//   10 metadata     an inode, a tree node, an attribute block, the group's own block, a superblock
//   copy
//   11 quarantined  free, was metadata: may become metadata again, but not data until every journal
//   has
//                   been written back past the moment it was freed (Docs/decisions/0003)
//
// The two numbers that only grow make re-use safe. `highestVersion` is at least the version of
// every metadata block that was ever freed here: a new block starts above it, so that replay of
// anybody's older log entry for that place is skipped. `highestGeneration` is at least the
// generation of every inode that ever lived here.

package import Vocabulary

/// The state of one block.
package enum BlockState: UInt8, CaseIterable, Sendable, CustomStringConvertible {
    case free = 0
    case data = 1
    case metadata = 2
    case quarantined = 3

    package var description: String {
        switch self {
        case .free: "free"
        case .data: "data"
        case .metadata: "metadata"
        case .quarantined: "quarantined"
        }
    }
}

/// The counts of a group. The bits are worked on in place: see `GroupBitmap`.
package struct ResourceGroupRecord: Hashable, Sendable {
    package var index: UInt32
    /// Blocks of the group, its own first block included.
    package var blockCount: UInt32
    package var freeCount: UInt32
    package var quarantinedCount: UInt32
    package var inodeCount: UInt32
    package var highestVersion: UInt64
    package var highestGeneration: UInt64

    package static let bitmapOffset = 128

    package init(
        index: UInt32,
        blockCount: UInt32,
        freeCount: UInt32,
        quarantinedCount: UInt32,
        inodeCount: UInt32,
        highestVersion: UInt64,
        highestGeneration: UInt64
    ) {
        self.index = index
        self.blockCount = blockCount
        self.freeCount = freeCount
        self.quarantinedCount = quarantinedCount
        self.inodeCount = inodeCount
        self.highestVersion = highestVersion
        self.highestGeneration = highestGeneration
    }

    /// Decodes the fields of a block whose header was verified.
    package init(fields block: UnsafeRawBufferPointer) {
        self.init(
            index: block.u32(64),
            blockCount: block.u32(68),
            freeCount: block.u32(72),
            quarantinedCount: block.u32(76),
            inodeCount: block.u32(80),
            highestVersion: block.u64(88),
            highestGeneration: block.u64(96)
        )
    }

    /// Writes the fields; header, bits and checksum are left alone.
    package func writeFields(to block: UnsafeMutableRawBufferPointer) {
        block.put32(index, 64)
        block.put32(blockCount, 68)
        block.put32(freeCount, 72)
        block.put32(quarantinedCount, 76)
        block.put32(inodeCount, 80)
        block.put64(highestVersion, 88)
        block.put64(highestGeneration, 96)
    }

    /// Decodes and checks against the superblock.
    package init(
        checking block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        in superblock: Superblock
    ) throws(FormatError) {
        self.init(fields: block)
        guard index < superblock.groupCount, superblock.groupStart(index) == address else {
            throw .invalidField(address, field: "group index", value: UInt64(index))
        }
        guard blockCount == superblock.groupLength(index) else {
            throw .invalidField(address, field: "group length", value: UInt64(blockCount))
        }
        guard UInt64(freeCount) + UInt64(quarantinedCount) < UInt64(blockCount) else {
            throw .invalidField(address, field: "free count", value: UInt64(freeCount))
        }
        guard highestVersion <= BlockHeader.largestNumber,
            highestGeneration <= BlockHeader.largestNumber, inodeCount < blockCount
        else {
            throw .invalidField(address, field: "highest version", value: highestVersion)
        }
    }
}

/// The state bits of a group, in place in its block.
package struct GroupBitmap {
    /// The bytes from `ResourceGroupRecord.bitmapOffset` to the end of the block.
    package let bits: UnsafeMutableRawBufferPointer
    package let blockCount: UInt32

    /// The bitmap of a group's block.
    package init(block: UnsafeMutableRawBufferPointer, blockCount: UInt32) {
        let offset = ResourceGroupRecord.bitmapOffset
        bits = block.window(offset, block.count - offset)
        self.blockCount = blockCount
        precondition(Int(blockCount) <= bits.count * 4, "more blocks than state bits")
    }

    /// The state of block `index` of the group.
    package subscript(index: UInt32) -> BlockState {
        get {
            precondition(index < blockCount, "a block outside the group")
            let byte = bits[Int(index / 4)]
            return BlockState(rawValue: byte >> (2 * UInt8(index % 4)) & 3).unsafelyUnwrapped
        }
        nonmutating set {
            precondition(index < blockCount, "a block outside the group")
            let shift = 2 * UInt8(index % 4)
            let byte = bits[Int(index / 4)] & ~(3 << shift)
            bits[Int(index / 4)] = byte | newValue.rawValue << shift
        }
    }

    /// The first block at or behind `start` in `state`, or nil.
    package func first(_ state: BlockState, from start: UInt32) -> UInt32? {
        var index = start
        // A byte that cannot contain the state is skipped whole.
        let pattern = state.rawValue &* 0b01_01_01_01
        while index < blockCount {
            if index % 4 == 0 {
                let difference = bits[Int(index / 4)] ^ pattern
                // A pair of bits that is zero in `difference` is a match.
                if (difference | difference >> 1) & 0b01_01_01_01 == 0b01_01_01_01 {
                    index += 4
                    continue
                }
            }
            if self[index] == state { return index }
            index += 1
        }
        return nil
    }

    /// How many blocks from `start` on are in `state`, up to `limit`.
    package func run(of state: BlockState, from start: UInt32, limit: UInt32) -> UInt32 {
        var length: UInt32 = 0
        while length < limit, start + length < blockCount, self[start + length] == state {
            length += 1
        }
        return length
    }

    /// How many blocks are in each state, indexed by its raw value.
    package func counts() -> InlineArray<4, UInt32> {
        var counts: InlineArray<4, UInt32> = [0, 0, 0, 0]
        let low: UInt64 = 0x5555_5555_5555_5555
        let words = Int(blockCount) / 32
        for word in 0..<words {
            // 32 blocks at once: each pair of bits is one of four states.
            let pairs = UInt64(
                littleEndian: bits.loadUnaligned(fromByteOffset: word * 8, as: UInt64.self)
            )
            let (odd, even) = (pairs & low, pairs >> 1 & low)
            counts[1] += UInt32((odd & ~even).nonzeroBitCount)
            counts[2] += UInt32((even & ~odd).nonzeroBitCount)
            counts[3] += UInt32((odd & even).nonzeroBitCount)
        }
        counts[0] = UInt32(words) * 32 - counts[1] - counts[2] - counts[3]
        for index in UInt32(words) * 32..<blockCount { counts[Int(self[index].rawValue)] += 1 }
        return counts
    }
}
