// Results in words for people and in JSON for scripts.

import Vocabulary

/// A number with the digits that carry meaning.
func rounded(_ value: Double) -> String {
    if value >= 100 { return "\(Int(value.rounded()))" }
    let tenths = Int((value * (value >= 10 ? 10 : 100)).rounded())
    let scale = value >= 10 ? 10 : 100
    let rest = "\(tenths % scale)"
    let zeros = String(repeating: "0", count: (scale == 10 ? 1 : 2) - rest.count)
    return "\(tenths / scale).\(zeros)\(rest)"
}

/// Text in columns: the first to the left, the others to the right.
func table(_ rows: [[String]]) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in
        rows.map { $0.count > column ? $0[column].count : 0 }.max() ?? 0
    }
    let lines = rows.map { row in
        row.enumerated().map { column, cell in
            let blank = String(repeating: " ", count: widths[column] - cell.count)
            return column == 0 ? cell + blank : blank + cell
        }.joined(separator: "  ")
    }
    return lines.joined(separator: "\n")
}

extension Measurement {
    /// One line of a report.
    var row: [String] {
        let throughput = bytes == 0 ? "" : "\(rounded(Double(bytes) / 1_048_576 / seconds)) MiB/s"
        return [
            test, "\(count) \(unit)", rounded(seconds) + " s", rounded(rate) + " /s",
            rounded(median), rounded(percentile99), throughput,
        ]
    }

    static let header = ["test", "what", "took", "rate", "median µs", "p99 µs", ""]

    var json: String {
        "{\"test\": \(JSONText.string(test).text), \"unit\": \(JSONText.string(unit).text), \"count\": \(count), "
            + "\"seconds\": \(seconds), \"perSecond\": \(rate), \"medianMicroseconds\": \(median), "
            + "\"p99Microseconds\": \(percentile99), \"bytes\": \(bytes)}"
    }
}
