// What a check remembers of every block of a group: two bits. Made when a group is first touched, and
// only where there is something to remember, so that an empty volume costs little.

import DiskFormat
import Vocabulary

/// Two bits for each block of one group, 32 blocks in a word. Stretches of 1,024 blocks of which nothing
/// is known cost a pointer: of a large volume most is empty.
struct PairMap: Sendable {
    private static let wordsPerChunk = 32
    private var chunks: [[UInt64]?]

    init(blockCount: UInt32) {
        let words = (Int(blockCount) + 31) / 32
        let count = (words + Self.wordsPerChunk - 1) / Self.wordsPerChunk
        chunks = Array(repeating: nil, count: count)
    }

    /// The same two bits for each block, in the same places: four blocks in a byte.
    init(blockCount: UInt32, bytes: UnsafeRawBufferPointer) {
        self.init(blockCount: blockCount)
        let count = (Int(blockCount) + 3) / 4
        for start in stride(from: 0, to: count, by: 8) {
            var word: UInt64 = 0
            for index in start..<min(start + 8, count) {
                word |= UInt64(bytes[index]) << UInt64(8 * (index - start))
            }
            if word != 0 { set(word, at: start / 8) }
        }
    }

    func word(_ index: Int) -> UInt64 {
        guard let chunk = chunks[index / Self.wordsPerChunk] else { return 0 }
        return chunk[index % Self.wordsPerChunk]
    }

    /// Whether the words from `index` on that lie in one chunk with it are all zero.
    func isEmptyChunk(_ index: Int) -> Bool { chunks[index / Self.wordsPerChunk] == nil }

    /// The first word of the next chunk.
    static func nextChunk(_ index: Int) -> Int { (index / wordsPerChunk + 1) * wordsPerChunk }

    /// The first block at or behind `start` of which something is known, below `end`.
    func nextNonzero(from start: UInt32, below end: UInt32) -> UInt32? {
        var index = Int(start / 32)
        var mask = ~UInt64(0) << UInt64(2 * (start % 32))
        while index * 32 < Int(end) {
            if isEmptyChunk(index) {
                index = Self.nextChunk(index)
            } else {
                let found = word(index) & mask
                if found != 0 {
                    let place = UInt32(index * 32 + found.trailingZeroBitCount / 2)
                    return place < end ? place : nil
                }
                index += 1
            }
            mask = ~0
        }
        return nil
    }

    private mutating func set(_ word: UInt64, at index: Int) {
        let place = index / Self.wordsPerChunk
        if chunks[place] == nil {
            chunks[place] = [UInt64](repeating: 0, count: Self.wordsPerChunk)
        }
        chunks[place]?[index % Self.wordsPerChunk] = word
    }

    subscript(index: UInt32) -> UInt8 {
        get { UInt8(word(Int(index / 32)) >> UInt64(2 * (index % 32)) & 3) }
        set {
            let shift = UInt64(2 * (index % 32))
            let old = word(Int(index / 32))
            set(old & ~(3 << shift) | UInt64(newValue) << shift, at: Int(index / 32))
        }
    }
}
