// How long operations took, in little room: four buckets for each power of two of nanoseconds.

/// A histogram of times.
package struct StressLatencies: Hashable, Sendable {
    private static let buckets = 256
    private var counts = [UInt64](repeating: 0, count: buckets)
    /// Nanoseconds.
    package private(set) var longest: UInt64 = 0
    package private(set) var count: UInt64 = 0

    package init() {}

    /// Notes one.
    package mutating func note(nanoseconds: UInt64) {
        counts[Self.bucket(nanoseconds)] += 1
        longest = max(longest, nanoseconds)
        count += 1
    }

    /// Adds those of another.
    package mutating func add(_ other: StressLatencies) {
        for place in counts.indices { counts[place] += other.counts[place] }
        longest = max(longest, other.longest)
        count += other.count
    }

    private static func bucket(_ value: UInt64) -> Int {
        guard value >= 4 else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        return exponent * 4 + Int(value >> UInt64(exponent - 2) & 3) - 4
    }

    /// The least value that is beyond a bucket.
    private static func end(_ bucket: Int) -> UInt64 {
        guard bucket >= 4 else { return UInt64(bucket) + 1 }
        let exponent = (bucket + 4) / 4
        let part = UInt64((bucket + 4) % 4) + 5
        return part << UInt64(exponent - 2)
    }

    /// Nanoseconds within which a part of all ended; 0 if there are none.
    ///
    /// - Parameter part: in thousandths.
    package func within(_ part: UInt64) -> UInt64 {
        guard count > 0 else { return 0 }
        let wanted = max(1, (count * part + 999) / 1000)
        var sum: UInt64 = 0
        for (bucket, many) in counts.enumerated() {
            sum += many
            if sum >= wanted { return min(Self.end(bucket), longest) }
        }
        return longest
    }

    /// For a message: the longest, then pairs of bucket and count.
    package var numbers: [UInt64] {
        counts.enumerated().filter { $0.element > 0 }
            .reduce(into: [longest]) { $0 += [UInt64($1.offset), $1.element] }
    }

    /// What `numbers` were made of; nil if they are not such.
    package init?(numbers: some Collection<UInt64>) {
        let numbers = Array(numbers)
        guard let longest = numbers.first, numbers.count % 2 == 1 else { return nil }
        for place in stride(from: 1, to: numbers.count, by: 2) {
            guard numbers[place] < UInt64(Self.buckets) else { return nil }
            counts[Int(numbers[place])] = numbers[place + 1]
            count += numbers[place + 1]
        }
        self.longest = longest
    }
}
