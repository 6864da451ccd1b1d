// What comes from other nodes and from administrators' commands: bytes to messages, questions, reports
// and records, and back.

import ClusterWire
import DiskFormat
import LockReports
import Membership
import NodeService
import Vocabulary

/// A stream of bytes, and the decoder that it is given to.
struct MessageFuzzing {
    private var input: FuzzInput

    init(_ input: FuzzInput) { self.input = input }

    mutating func run() throws {
        switch input.below(6) {
        case 0: try dressedMessage()
        case 1: try batch(Array(input.rest))
        case 2: try administration(String(decoding: input.rest, as: UTF8.self))
        case 3: try viewRecord(String(decoding: input.rest, as: UTF8.self))
        case 4: try recording(isSealed: false)
        default: try recording(isSealed: true)
        }
    }

    /// The input is the payload of one message of the kind its first byte names.
    private mutating func dressedMessage() throws {
        let kind = input.byte()
        let payload = Array(input.rest)
        var bytes: [UInt8] = []
        for number in [UInt32(WireFormat.magic), UInt32(WireFormat.version) | UInt32(kind) << 8] {
            bytes += (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * UInt32($0))) }
        }
        bytes += (0..<4).map { UInt8(truncatingIfNeeded: payload.count >> (8 * $0)) }
        bytes += [UInt8](repeating: 3, count: 8)
        try batch(bytes + payload)
    }

    /// W1 and W2 of the wire.
    private func batch(_ bytes: [UInt8]) throws {
        var offset = 0
        while offset < bytes.count {
            let left = Array(bytes[offset...])
            guard
                let decoded = left.withUnsafeBytes({ bytes in try? decodeMessage(bytes) })
            else { return }
            var again: [UInt8] = []
            encode(decoded.message, epoch: decoded.epoch, into: &again)
            try demand(
                again == Array(left[..<decoded.byteCount]),
                "W1: \(decoded.message) has another encoding"
            )
            offset += decoded.byteCount
        }
    }

    /// What the control socket of a mount, and other nodes, are sent as JSON.
    private func administration(_ text: String) throws {
        guard let json = try? JSONText(parsing: text) else { return }
        try demand((try? JSONText(parsing: json.text)) == json, "JSON is read as another")
        if let question = LockQuestion(json) {
            try demand(LockQuestion(question.json) == question, "\(question) is read as another")
            _ = question.bound
        }
        if let report = NodeReport(json) {
            let second = NodeReport(report.json)
            try demand(second == report, "\(report) became \(String(describing: second))")
            _ = CounterTable([report, report], silent: []).rates(
                since: CounterTable([report], silent: [])
            )
        }
        if let table = CounterTable(json) {
            _ = table.table
            _ = table.rates(since: table)
        }
    }

    private func viewRecord(_ text: String) throws {
        guard let record = try? ViewRecord(text: text) else { return }
        let second = try? ViewRecord(text: record.text)
        try demand(second == record, "\(record) became \(String(describing: second))")
    }

    /// A recording of a lock manager; when `isSealed`, with the version, length and checksum that
    /// belong to its bytes.
    private func recording(isSealed: Bool) throws {
        var bytes = Array(input.rest)
        let rest = FlightFormat.headerLength + 4
        if isSealed, bytes.count >= rest {
            bytes.withUnsafeMutableBytes { raw in
                raw.put32(FlightFormat.magic, 0)
                raw.put16(FlightFormat.version, 4)
                raw.put64(UInt64(raw.count - rest), 24)
                raw.put32(crc32c(raw.readOnly.window(0, raw.count - 4)), raw.count - 4)
            }
        }
        _ = try? FlightRecording(bytes)
    }
}
