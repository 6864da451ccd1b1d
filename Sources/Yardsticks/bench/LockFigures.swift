// Figures of the lock benchmark: what one round measured, and what is typical of all rounds.

import CLinux
import Glibc
import Vocabulary

/// The order of the report, and what each figure is compared with.
enum LockTest: String, CaseIterable {
    case coreHeld = "core: pair beside a held lock"
    case coreHeldCold = "core: the same, cache misses"
    case coreConversion = "core: NL to EX and back"
    case coreConversionCold = "core: the same conversions, cache misses"
    case coreNewName = "core: pair on a new name"
    case engine1 = "engine: pairs, 1 thread"
    case engine2 = "engine: pairs, 2 threads"
    case engine8 = "engine: pairs, 8 threads"
    case pingPongTCP = "ping-pong in C, TCP"
    case pingPongUnix = "ping-pong in C, Unix socket"
    case remoteAwaited = "remote request, awaited in the engine"
    case remoteEntered = "remote request, from a thread"
    case remoteWoken = "remote request, thread woken again"
    case remoteUnlock = "remote unlock, awaited in the engine"
    case remoteUnknown = "remote request, master unknown"
    case remoteMany = "remote pairs, 64 under way"
    case handOff2 = "hand-off between 2 nodes"
    case handOff3 = "hand-off between 3 nodes"

    /// What is counted.
    var unit: String {
        switch self {
        case .coreConversion, .coreConversionCold: "pairs of conversions"
        case .pingPongTCP, .pingPongUnix: "round trips"
        case .remoteAwaited, .remoteEntered, .remoteWoken, .remoteUnknown: "requests"
        case .remoteUnlock: "unlocks"
        case .handOff2, .handOff3: "hand-offs"
        default: "pairs"
        }
    }

    /// Whether a ping-pong is its yardstick.
    var isBetweenNodes: Bool { ![.engine1, .engine2, .engine8].contains(self) }

    /// What has to be reached: so many per second.
    var leastRate: Double? {
        switch self {
        case .coreHeld, .coreConversion, .coreNewName: 5e6
        case .engine1, .engine2, .engine8: 1e6
        default: nil
        }
    }

    /// What has to be reached: a median of so many times that of the TCP ping-pong.
    var mostRoundTrips: Double? {
        self == .remoteAwaited || self == .remoteEntered ? 1.5 : nil
    }
}

/// What one round measured of one test.
struct LockFigure {
    var test: LockTest
    var perSecond: Double
    /// Microseconds of one, 0 where that makes no sense.
    var median = 0.0
    var percentile99 = 0.0
    /// Messages between nodes for one, 0 where none are sent.
    var messages = 0.0

    init(_ test: LockTest, count: Int, seconds: Double) {
        self.test = test
        perSecond = Double(count) / max(seconds, 1e-9)
    }

    /// From the nanoseconds of each; the rate is that of one after the other.
    init(_ test: LockTest, samples: [UInt64]) {
        let sum = samples.reduce(0, +)
        self.init(test, count: samples.count, seconds: Double(sum) * 1e-9)
        let spread = Spread(samples)
        median = spread.median
        percentile99 = spread.percentile99
    }
}

/// Median and 99th percentile of nanoseconds, in microseconds.
struct Spread {
    let median: Double
    let percentile99: Double

    init(_ samples: [UInt64]) {
        let sorted = samples.sorted()
        func percentile(_ part: Int) -> Double {
            sorted.isEmpty ? 0 : Double(sorted[(sorted.count - 1) * part / 100]) * 1e-3
        }
        median = percentile(50)
        percentile99 = percentile(99)
    }
}

/// Bytes of a resource with one lock.
struct LockMemory {
    static let goal = 128.0

    /// As the tables count themselves.
    var counted: Double
    /// As the process has grown.
    var resident: Double
}

/// All rounds.
struct LockResults {
    private var figures: [LockTest: [LockFigure]] = [:]
    var memory = LockMemory(counted: 0, resident: 0)

    mutating func add(_ figure: LockFigure) { figures[figure.test, default: []].append(figure) }

    /// The middle of all rounds, each number by itself.
    func typical(_ test: LockTest) -> LockFigure? {
        guard let all = figures[test], var result = all.first else { return nil }
        func middle(_ value: KeyPath<LockFigure, Double>) -> Double {
            all.map { $0[keyPath: value] }.sorted()[all.count / 2]
        }
        result.perSecond = middle(\.perSecond)
        result.median = middle(\.median)
        result.percentile99 = middle(\.percentile99)
        result.messages = middle(\.messages)
        return result
    }

    /// The lowest and the highest median of all rounds, or rate where there is no median.
    private func range(_ test: LockTest) -> String {
        let all = figures[test] ?? []
        let values = all.map { $0.median > 0 ? $0.median : $0.perSecond }
        guard let least = values.min(), let most = values.max() else { return "" }
        return "[\(short(least)) \(short(most))]"
    }

    /// Times the median of a ping-pong; nil where that makes no sense.
    private func times(_ figure: LockFigure, _ yardstick: LockTest) -> Double? {
        guard figure.test.isBetweenNodes, figure.median > 0, let base = typical(yardstick),
            base.median > 0
        else { return nil }
        return figure.median / base.median
    }

    private func verdict(_ figure: LockFigure) -> String {
        if let least = figure.test.leastRate {
            return (figure.perSecond >= least ? "reached" : "MISSED") + ": \(short(least)) /s"
        }
        if let most = figure.test.mostRoundTrips, let found = times(figure, .pingPongTCP) {
            return (found <= most ? "reached" : "MISSED") + ": \(rounded(most)) x TCP"
        }
        return ""
    }

    /// One row for each test.
    func report() -> String {
        var rows = [
            [
                "test", "/s", "median µs", "p99 µs", "of all rounds", "x TCP", "x Unix", "messages",
                "goal",
            ]
        ]
        for test in LockTest.allCases {
            guard let figure = typical(test) else { continue }
            func cell(_ value: Double?) -> String { value.map { $0 > 0 ? rounded($0) : "" } ?? "" }
            rows.append([
                test.rawValue, short(figure.perSecond), cell(figure.median),
                cell(figure.percentile99), range(test), cell(times(figure, .pingPongTCP)),
                cell(times(figure, .pingPongUnix)), cell(figure.messages), verdict(figure),
            ])
        }
        if memory.counted == 0 { return table(rows) }
        let isSmall = memory.counted <= LockMemory.goal && memory.resident <= LockMemory.goal
        return table(rows)
            + "\na resource with one lock: \(rounded(memory.counted)) bytes of tables, "
            + "\(rounded(memory.resident)) bytes resident "
            + "(goal \(rounded(LockMemory.goal)): \(isSmall ? "reached" : "MISSED"))"
    }

    var json: String {
        let tests = LockTest.allCases.compactMap(typical).map { figure in
            "{\"test\": \(JSONText.string(figure.test.rawValue).text), \"unit\": \"\(figure.test.unit)\", "
                + "\"perSecond\": \(figure.perSecond), \"medianMicroseconds\": \(figure.median), "
                + "\"p99Microseconds\": \(figure.percentile99), \"messages\": \(figure.messages), "
                + "\"timesTCP\": \(times(figure, .pingPongTCP).map { "\($0)" } ?? "null"), "
                + "\"timesUnix\": \(times(figure, .pingPongUnix).map { "\($0)" } ?? "null")}"
        }
        return
            "{\"tableBytesPerLock\": \(memory.counted), \"residentBytesPerLock\": \(memory.resident), "
            + "\"results\": [\n\(tests.joined(separator: ",\n"))\n]}"
    }
}

/// A number in thousands or millions.
private func short(_ value: Double) -> String {
    if value >= 1e6 { return rounded(value / 1e6) + " M" }
    if value >= 1e4 { return rounded(value / 1e3) + " k" }
    return rounded(value)
}

/// Nanoseconds that the calling thread has used of a processor: other work on the machine does not
/// count.
func processorNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
