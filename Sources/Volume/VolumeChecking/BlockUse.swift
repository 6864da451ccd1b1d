// Four bits for each block of the volume: what its group says it is, and what was found there. Both
// maps are made group by group when a group is first touched.

package import DiskFormat
import Vocabulary

/// What was found to use a block.
package enum FoundUse: UInt8, Sendable {
    case nothing = 0
    case data = 1
    case metadata = 2
}

/// Blocks that a pass looks for.
package enum BlockSearch: Sendable {
    /// Marked in use, and nothing was found to use it.
    case lost
    /// Marked so.
    case marked(BlockState)
    /// Marked so, and nothing was found to use it.
    case unclaimed(BlockState)
    /// In use, and marked as something else.
    case mismarked

    private static let low: UInt64 = 0x5555_5555_5555_5555

    private static func equal(_ word: UInt64, _ state: BlockState) -> UInt64 {
        let difference = word ^ (UInt64(state.rawValue) &* low)
        return ~(difference | difference >> 1) & low
    }

    private static func nonzero(_ word: UInt64) -> UInt64 { (word | word >> 1) & low }

    /// The low bit of each pair of two words that is looked for.
    fileprivate func matches(_ marks: UInt64, _ found: UInt64) -> UInt64 {
        switch self {
        case .lost:
            (Self.equal(marks, .data) | Self.equal(marks, .metadata)) & ~Self.nonzero(found)
        case .marked(let state): Self.equal(marks, state)
        case .unclaimed(let state): Self.equal(marks, state) & ~Self.nonzero(found)
        // A use has the number of the state that it is marked with.
        case .mismarked: Self.nonzero(found) & Self.nonzero(marks ^ found)
        }
    }

    /// Whether blocks of which nothing is known, marked free, are looked for.
    fileprivate var wantsEmpty: Bool { matches(0, 0) != 0 }
}

/// Who says what about which block.
package struct BlockUse: Sendable {
    private let superblock: Superblock
    /// As the groups say; nil where the group's block is damaged.
    private var marked: [PairMap?]
    private var found: [PairMap?]

    /// Nothing is known of any block.
    package init(_ superblock: Superblock) {
        self.superblock = superblock
        marked = Array(repeating: nil, count: Int(superblock.groupCount))
        found = Array(repeating: nil, count: Int(superblock.groupCount))
    }

    /// Takes over what a sound group says.
    mutating func setMarks(ofGroup group: UInt32, from bitmap: GroupBitmap) {
        marked[Int(group)] = PairMap(
            blockCount: bitmap.blockCount,
            bytes: UnsafeRawBufferPointer(bitmap.bits)
        )
    }

    /// The same of bits as `GroupInspection` has them: two for each block of the group.
    package mutating func setMarks(ofGroup group: UInt32, bits: [UInt8]) {
        let length = superblock.groupLength(group)
        precondition(bits.count == (Int(length) + 3) / 4, "too few bits")
        marked[Int(group)] = bits.withUnsafeBytes { PairMap(blockCount: length, bytes: $0) }
    }

    /// Whether the group's block could be read.
    package func isKnown(group: UInt32) -> Bool { marked[Int(group)] != nil }

    /// What the group says about one of its blocks; nil if the group is damaged.
    package func mark(group: UInt32, index: UInt32) -> BlockState? {
        guard let map = marked[Int(group)] else { return nil }
        return BlockState(rawValue: map[index])
    }

    /// What uses a block, as far as it is known by now.
    package func use(group: UInt32, index: UInt32) -> FoundUse {
        guard let map = found[Int(group)] else { return .nothing }
        return FoundUse(rawValue: map[index]) ?? .nothing
    }

    /// Notes a use.
    package mutating func setUse(_ use: FoundUse, group: UInt32, index: UInt32) {
        if found[Int(group)] == nil {
            found[Int(group)] = PairMap(blockCount: superblock.groupLength(group))
        }
        found[Int(group)]?[index] = use.rawValue
    }

    /// Whether a block is marked in use and nothing was found to use it.
    package func isLost(group: UInt32, index: UInt32) -> Bool {
        guard use(group: group, index: index) == .nothing else { return false }
        let mark = mark(group: group, index: index)
        return mark == .data || mark == .metadata
    }

    /// The first such block at or behind `start`; nil if there is none in the group, or the group is
    /// damaged.
    package func next(_ search: BlockSearch, group: UInt32, from start: UInt32) -> UInt32? {
        guard let marks = marked[Int(group)] else { return nil }
        let uses = found[Int(group)]
        let length = superblock.groupLength(group)
        let end = (Int(length) + 31) / 32
        let skipsEmpty = !search.wantsEmpty
        var index = Int(start / 32)
        var mask = ~UInt64(0) << UInt64(2 * (start % 32))
        while index < end {
            if skipsEmpty, marks.isEmptyChunk(index), uses?.isEmptyChunk(index) ?? true {
                index = PairMap.nextChunk(index)
            } else {
                let matches = search.matches(marks.word(index), uses?.word(index) ?? 0) & mask
                if matches != 0 {
                    let place = UInt32(index * 32 + matches.trailingZeroBitCount / 2)
                    return place < length ? place : nil
                }
                index += 1
            }
            mask = ~0
        }
        return nil
    }
}
