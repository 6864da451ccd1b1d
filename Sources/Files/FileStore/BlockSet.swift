/// A set of block indices of one group, one bit each, with its size. Sixty-four blocks a step.
struct BlockSet {
    private var words: [UInt64]
    /// Indices are below this.
    let capacity: UInt32
    /// Members.
    private(set) var count: UInt32 = 0

    init(capacity: UInt32) {
        self.capacity = capacity
        words = Array(repeating: 0, count: Int((capacity + 63) / 64))
    }

    func contains(_ index: UInt32) -> Bool {
        words[Int(index / 64)] >> UInt64(index % 64) & 1 != 0
    }

    /// Adds a range of which nothing is a member.
    mutating func insert(_ range: Range<UInt32>) {
        forEachWord(range) { word, mask in
            precondition(word & mask == 0, "ResourceGroup G3: a block became available twice")
            word |= mask
        }
        count += UInt32(range.count)
    }

    /// Takes away a range of which everything is a member.
    mutating func remove(_ range: Range<UInt32>) {
        forEachWord(range) { word, mask in
            precondition(word & mask == mask, "ResourceGroup G3: a block was taken twice")
            word &= ~mask
        }
        count -= UInt32(range.count)
    }

    private mutating func forEachWord(
        _ range: Range<UInt32>,
        _ body: (inout UInt64, UInt64) -> Void
    ) {
        precondition(range.upperBound <= capacity, "a block outside the group")
        var index = range.lowerBound
        while index < range.upperBound {
            let shift = index % 64
            let length = min(64 - shift, range.upperBound - index)
            let mask = (length == 64 ? ~0 : (UInt64(1) << UInt64(length)) - 1) << UInt64(shift)
            body(&words[Int(index / 64)], mask)
            index += length
        }
    }

    /// The first member at or behind `start`.
    func first(from start: UInt32) -> UInt32? { scan(from: start, inverted: 0) }

    /// How many members follow each other from `start` on.
    func runLength(from start: UInt32) -> UInt32 {
        (scan(from: start, inverted: ~0) ?? capacity) - start
    }

    private func scan(from start: UInt32, inverted: UInt64) -> UInt32? {
        guard start < capacity else { return nil }
        var index = Int(start / 64)
        var word = (words[index] ^ inverted) & (~0 << UInt64(start % 64))
        while word == 0 {
            index += 1
            guard index < words.count else { return nil }
            word = words[index] ^ inverted
        }
        let found = UInt32(index * 64 + word.trailingZeroBitCount)
        return found < capacity ? found : nil
    }

    /// All members, ascending, as runs.
    func forEachRun(_ body: (Range<UInt32>) -> Void) {
        var next: UInt32 = 0
        while let start = first(from: next) {
            let end = start + runLength(from: start)
            body(start..<end)
            next = end
        }
    }
}
