// Four bits for each block of the volume: what its group says it is, and what was found there. Both
// maps are made group by group when a group is first touched, so that an empty volume costs little.

package import DiskFormat
import Vocabulary

/// What was found to use a block.
package enum FoundUse: UInt8, Sendable {
    case nothing = 0
    case data = 1
    case metadata = 2
}

/// Two bits for each block of one group.
private struct PairMap: Sendable {
    private var bits: [UInt8]

    init(blockCount: UInt32) { bits = [UInt8](repeating: 0, count: (Int(blockCount) + 3) / 4) }

    /// The same two bits for each block, in the same places.
    init(copying bitmap: GroupBitmap) {
        bits = Array(bitmap.bits[0..<(Int(bitmap.blockCount) + 3) / 4])
    }

    /// Bits as `GroupInspection` has them.
    init(bits: [UInt8]) { self.bits = bits }

    subscript(index: UInt32) -> UInt8 {
        get { bits[Int(index / 4)] >> (2 * UInt8(index % 4)) & 3 }
        set {
            let shift = 2 * UInt8(index % 4)
            bits[Int(index / 4)] = bits[Int(index / 4)] & ~(3 << shift) | newValue << shift
        }
    }
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
        let map = PairMap(copying: bitmap)
        marked[Int(group)] = map
    }

    /// The same of bits as `GroupInspection` has them: two for each block of the group.
    package mutating func setMarks(ofGroup group: UInt32, bits: [UInt8]) {
        precondition(bits.count == (Int(superblock.groupLength(group)) + 3) / 4, "too few bits")
        marked[Int(group)] = PairMap(bits: bits)
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
}
