import CLinux
import Glibc

/// Nanoseconds of a clock that only grows.
func nanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// A call failed; the line that the user sees.
struct BenchFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }

    /// What `call` on `path` left in errno.
    static func last(_ call: String, _ path: String) -> BenchFailure {
        BenchFailure("cannot \(call) \(path): \(String(cString: strerror(errno)))")
    }
}

/// What one test of one run came to.
struct Measurement {
    let test: String
    /// What is counted: files, names, calls.
    let unit: String
    let count: Int
    let seconds: Double
    /// Microseconds of one call.
    let median: Double
    let percentile99: Double
    /// Bytes moved, 0 where that is not the point.
    var bytes = 0

    /// Units in a second.
    var rate: Double { Double(count) / max(seconds, 1e-9) }
}

/// The latencies of the calls of one test.
struct Stopwatch {
    private var samples: [UInt64] = []
    private let began = nanoseconds()
    /// Time that does not count (preparation between calls).
    private var excluded: UInt64 = 0

    /// Runs and times one call.
    mutating func time<Result>(_ body: () throws -> Result) rethrows -> Result {
        let start = nanoseconds()
        let result = try body()
        samples.append(nanoseconds() - start)
        return result
    }

    /// Runs what belongs to no call.
    mutating func exclude(_ body: () throws -> Void) rethrows {
        let start = nanoseconds()
        try body()
        excluded += nanoseconds() - start
    }

    /// Ends the test. `count` is the number of units, where one call handles several.
    func measurement(_ test: String, unit: String, count: Int? = nil, bytes: Int = 0) -> Measurement
    {
        let sorted = samples.sorted()
        func percentile(_ part: Double) -> Double {
            guard !sorted.isEmpty else { return 0 }
            let index = Int(Double(sorted.count - 1) * part + 0.5)
            return Double(sorted[index]) / 1_000
        }
        let took = nanoseconds() - began - excluded
        return Measurement(
            test: test,
            unit: unit,
            count: count ?? samples.count,
            seconds: Double(took) / 1_000_000_000,
            median: percentile(0.5),
            percentile99: percentile(0.99),
            bytes: bytes
        )
    }
}
