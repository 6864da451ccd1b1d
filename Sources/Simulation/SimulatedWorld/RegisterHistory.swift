// Whether what processes read of a register, while others wrote it, is what some order of all these
// operations gives that keeps the order of those that did not overlap (linearizability).
//
// Every write has a value of its own. So each read belongs to one write, and a write with its reads
// stands together in any such order. Of each value only two moments count: the end of its operation
// that ended first (from then on it had been written), and the begin of the one that began last
// (until then it had not been overwritten). If the first comes before the second, the value *filled*
// the time in between; if not, its operations all overlap, and it can be put anywhere in between.
//
//   Z1. No read ends before its write begins.
//   Z2. The times that two values filled do not overlap.
//   Z3. A value whose operations all overlap does not lie as a whole within the time that another
//       one filled.
//
// These three are sufficient as well (Gibbons and Korach, Testing Shared Memories, 1997, theorem 4.1).
//
// Where this is weaker than the theory:
//   - write(2) puts bytes into pages before the file system has the lock: processes of the same node
//     see them before the write has taken effect (Docs/CAVEATS.md). Such reads do not count while the
//     write has not returned.
//   - After a death what was in doubt may be lost though it had been read. Then a new history begins
//     (`restart`): of a value that is older than that only the reads count.

/// The order of begins and ends of operations. No two have the same moment.
final class HistoryClock {
    private var now = 0

    /// A moment later than all before.
    func next() -> Int {
        now += 1
        return now
    }
}

/// What was written to one register and read from it.
struct RegisterHistory {
    private struct Look {
        let life: Life
        let begin: Int
        let end: Int
    }

    private struct Value {
        let value: UInt64
        let life: Life
        var begin: Int
        var end = Int.max
        /// The write was in an earlier history, or is in doubt: only the reads count.
        var isOld = false
        var looks: [Look] = []

        /// Those that count.
        var reads: [Look] {
            if isOld { return looks }
            return looks.filter { $0.life != life || $0.end > end }
        }

        /// The end of the operation that ended first; the begin of the one that began last.
        var moments: (firstEnd: Int, lastBegin: Int)? {
            let (ends, begins) = (reads.map(\.end), reads.map(\.begin))
            if isOld {
                guard let end = ends.min(), let begin = begins.max() else { return nil }
                return (end, begin)
            }
            return (min(end, ends.min() ?? .max), max(begin, begins.max() ?? .min))
        }
    }

    private var values: [Value]
    private var restarted = 0

    /// A register with `value` in it.
    init(_ value: UInt64) {
        values = [Value(value: value, life: 0, begin: -1, end: 0)]
    }

    /// A write begins. No other one has or had this value.
    mutating func begin(_ value: UInt64, by life: Life, at moment: Int) {
        values.append(Value(value: value, life: life, begin: moment))
    }

    /// It has returned.
    mutating func end(_ value: UInt64, at moment: Int) {
        guard let index = values.lastIndex(where: { $0.value == value }) else { return }
        values[index].end = moment
    }

    /// Whether the write has taken effect nobody knows, also when it has returned. If it has not, it was to be seen on its
    /// own node in any case: Linux puts the bytes of a write(2) into pages that are up to date before the file
    /// system hears of it, and they stay there when it fails.
    mutating func doubt(_ value: UInt64) {
        guard let index = values.lastIndex(where: { $0.value == value }) else { return }
        values[index].isOld = true
        guard values[index].end == .max else { return }
        let life = values[index].life
        values[index].looks.removeAll { $0.life == life }
    }

    /// A read has returned a value.
    mutating func read(_ value: UInt64, by life: Life, from begin: Int, at end: Int) {
        guard begin > restarted, let index = values.firstIndex(where: { $0.value == value })
        else { return }
        values[index].looks.append(Look(life: life, begin: begin, end: end))
    }

    /// What had been written may be lost from here on. To be judged before.
    mutating func restart(at moment: Int) {
        restarted = moment
        for index in values.indices {
            values[index].looks = []
            values[index].isOld = true
        }
    }

    /// What cannot be, in words; nil if all can.
    func violation() -> String? {
        for value in values where !value.isOld {
            if let early = value.looks.first(where: { $0.end < value.begin }) {
                return "\(value.value) was read at \(early.end) and written from \(value.begin) on"
            }
        }
        var filled: [(value: UInt64, time: Range<Int>)] = []
        var loose: [(value: UInt64, time: Range<Int>)] = []
        for value in values {
            guard let (end, begin) = value.moments else { continue }
            if end < begin {
                filled.append((value.value, end..<begin))
            } else {
                loose.append((value.value, begin..<end))
            }
        }
        for (index, one) in filled.enumerated() {
            if let other = filled[..<index].first(where: { $0.time.overlaps(one.time) }) {
                return
                    "\(one.value) was there during \(one.time), \(other.value) during \(other.time)"
            }
            if let other = loose.first(where: {
                one.time.lowerBound < $0.time.lowerBound && $0.time.upperBound < one.time.upperBound
            }) {
                return
                    "\(one.value) was there during \(one.time), \(other.value) within \(other.time)"
            }
        }
        return nil
    }
}
