// What a log holds that several writers append to.
//
// L1  Every record is whole and stands where the one before it ends.
// L2  The records of one writer have the numbers 1, 2, 3, …, in this order, each once: none is lost, none is
//     there twice, none has overtaken another.
// L3  What was read once stays: a later look finds at least as many records of each writer.

/// Reads a log from its start, in pieces.
package struct StressLogReader: Sendable {
    private let run: UInt64
    /// The generation of the log.
    private let group: Int
    /// The records of each writer so far.
    package private(set) var counts: [UInt64]
    /// Bytes read so far.
    package private(set) var offset = 0

    /// Bytes of a record.
    package static let recordSize = 128

    package init(run: UInt64, group: Int, writers: Int) {
        self.run = run
        self.group = group
        counts = [UInt64](repeating: 0, count: writers)
    }

    /// Takes what comes next. What does not make a whole record at the end is left for the next time.
    ///
    /// - Returns: what is wrong, with the writer it concerns if that is known; nil if nothing is.
    package mutating func take(_ bytes: UnsafeRawBufferPointer) -> (writer: Int?, words: String)? {
        var at = 0
        while bytes.count - at >= Self.recordSize {
            let piece = UnsafeRawBufferPointer(rebasing: bytes[at..<at + Self.recordSize])
            let place = "at byte \(offset)"
            switch StressBlock.look(piece) {
            case .empty: return (nil, "torn: zeros \(place) instead of a record")
            case .torn(let why): return (nil, "torn: \(why) \(place)")
            case .block(let record):
                let writer = record.key.index
                guard record.run == run, record.key.workload == .logs, record.key.group == group,
                    counts.indices.contains(writer)
                else { return (nil, "foreign: record of \(record.key) \(place)") }
                let expected = counts[writer] + 1
                if record.version < expected {
                    return (writer, "duplicate: record \(record.version) once more \(place)")
                }
                if record.version > expected {
                    return (
                        writer,
                        "lost or out of order: record \(record.version) \(place) instead of \(expected)"
                    )
                }
                counts[writer] = expected
            }
            at += Self.recordSize
            offset += Self.recordSize
        }
        return nil
    }
}
