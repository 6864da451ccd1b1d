// The names of the workloads, and of the objects in them.

/// What agents do. Each is explained at the head of the file that does it.
package enum StressWorkload: UInt8, CaseIterable, Sendable {
    case registers = 1, logs, names, mmap, flock, ranges, sizes, directories, pingpong

    /// As options and reports call it.
    package var name: String {
        switch self {
        case .registers: "registers"
        case .logs: "logs"
        case .names: "names"
        case .mmap: "mmap"
        case .flock: "flock"
        case .ranges: "ranges"
        case .sizes: "sizes"
        case .directories: "directories"
        case .pingpong: "pingpong"
        }
    }

    /// The one of a name.
    package static func named(_ name: String) -> StressWorkload? {
        allCases.first { $0.name == name }
    }
}

/// An object of a workload: a block, a log of one writer, a name, a counter.
package struct StressKey: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// - Parameters:
    ///   - group: below 2²⁴: a file, an agent, a generation.
    ///   - index: the object in it.
    package init(_ workload: StressWorkload, _ group: Int, _ index: Int) {
        precondition((0..<1 << 24).contains(group) && (0..<1 << 32).contains(index))
        rawValue = UInt64(workload.rawValue) << 56 | UInt64(group) << 32 | UInt64(index)
    }

    /// The workload it belongs to; nil for a number that is no key.
    package var workload: StressWorkload? { StressWorkload(rawValue: UInt8(rawValue >> 56)) }
    /// The file, agent or generation it is in.
    package var group: Int { Int(rawValue >> 32 & 0xFF_FFFF) }
    /// Its number there.
    package var index: Int { Int(rawValue & 0xFFFF_FFFF) }

    package var description: String {
        workload.map { "\($0.name) \(group).\(index)" } ?? "of the run"
    }
}

/// Mixes two numbers into one that looks random and is always the same.
package func stressMix(_ one: UInt64, _ two: UInt64) -> UInt64 {
    var mixed = one &* 0x9E37_79B9_7F4A_7C15 &+ two
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
}
