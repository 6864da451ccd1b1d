/// Seeded dice (splitmix64, Steele, Lea and Flood 2014). The only source of chance in pure and
/// closed code: the same seed gives the same run.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// From its parts.
    public init(seed: UInt64) { state = seed }

    /// The next number of the sequence.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// A number in `0 ..< bound`. The bias is below 2⁻³² for the bounds used here.
    public mutating func below(_ bound: Int) -> Int {
        precondition(bound > 0, "nothing to choose from")
        return Int(next() % UInt64(bound))
    }

    /// True once in `n` throws on average.
    public mutating func oneIn(_ n: Int) -> Bool { below(n) == 0 }

    /// A generator whose throws are independent of this one's later throws.
    public mutating func fork() -> SeededGenerator { SeededGenerator(seed: next()) }
}
