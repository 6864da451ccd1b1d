// A fuzzer without knowledge of what its inputs reach: changes kept inputs by dice. For the tests, which
// are not built for libFuzzer.

import Vocabulary

/// Makes inputs out of others. The same seed and the same inputs give the same ones.
public struct FuzzMutator: Sendable {
    private var dice: SeededGenerator
    private let kept: [[UInt8]]

    /// The most changes of one input.
    private static let mostChanges = 5

    /// `kept` are the inputs to begin with; without any, inputs are random.
    public init(seed: UInt64, kept: [[UInt8]]) {
        dice = SeededGenerator(seed: seed)
        self.kept = kept
    }

    /// The next input, at most `limit` bytes.
    public mutating func next(limit: Int) -> [UInt8] {
        var input = pick()
        for _ in 0...dice.below(Self.mostChanges) { change(&input) }
        return Array(input.prefix(limit))
    }

    private mutating func pick() -> [UInt8] {
        guard !kept.isEmpty else { return (0..<dice.below(200)).map { _ in byte() } }
        return kept[dice.below(kept.count)]
    }

    private mutating func byte() -> UInt8 {
        // Zero and what is near the ends of the numbers are likely to mean something.
        switch dice.below(4) {
        case 0: UInt8(dice.below(4))
        case 1: UInt8(255 - dice.below(4))
        default: UInt8(dice.below(256))
        }
    }

    private mutating func change(_ input: inout [UInt8]) {
        let place = dice.below(input.count + 1)
        let count = 1 + dice.below(dice.oneIn(4) ? 32 : 4)
        let end = min(place + count, input.count)
        switch dice.below(6) {
        case 0: input.insert(contentsOf: (0..<count).map { _ in byte() }, at: place)
        case 1: input.removeSubrange(place..<end)
        case 2: for index in place..<end { input[index] = byte() }
        case 3: if place < input.count { input[place] ^= 1 << UInt8(dice.below(8)) }
        case 4: input.insert(contentsOf: input[place..<end], at: dice.below(input.count + 1))
        default:
            let other = pick()
            let start = dice.below(other.count + 1)
            input.replaceSubrange(place..., with: other[start...])
        }
    }
}
