// What a coordinator and its agents say to each other. All messages have one shape: a kind, some
// numbers, some texts. Length-checked, so that a stranger at the port can do nothing but be refused.

/// A message is not one.
package enum StressWireError: Error, Hashable, Sendable, CustomStringConvertible {
    case truncated
    case tooLong(Int)
    case unknownKind(UInt8)
    case notText

    package var description: String {
        switch self {
        case .truncated: "a message ends too early"
        case .tooLong(let length): "a message of \(length) bytes"
        case .unknownKind(let kind): "a message of unknown kind \(kind)"
        case .notText: "a message with a text that is none"
        }
    }
}

/// One message.
package struct StressMessage: Hashable, Sendable {
    /// What it is about. What its numbers mean is said where it is sent.
    package enum Kind: UInt8, Sendable {
        case hello = 1, welcome, setup, ready, go, claims, announce, announced, heard, agreed
        case lost, back, lostAgent, doubt, probe, probed, answered
        case meet, met, join, joined
        case violation, history, events, stop, stopped, verify, report, trouble, bye
    }

    /// Both sides must say the same.
    package static let version: UInt64 = 1
    /// Bytes of the longest message, without the four of its length.
    package static let longest = 4 << 20

    package var kind: Kind
    package var numbers: [UInt64]
    package var texts: [String]

    package init(_ kind: Kind, _ numbers: [UInt64] = [], texts: [String] = []) {
        self.kind = kind
        self.numbers = numbers
        self.texts = texts
    }

    /// The message with its length in front, as it is sent.
    package var frame: [UInt8] {
        var body = [kind.rawValue]
        Self.append(UInt32(numbers.count), to: &body)
        for number in numbers { Self.append(number, to: &body) }
        Self.append(UInt32(texts.count), to: &body)
        for text in texts {
            Self.append(UInt32(text.utf8.count), to: &body)
            body += text.utf8
        }
        precondition(body.count <= Self.longest, "a message of \(body.count) bytes")
        var whole: [UInt8] = []
        whole.reserveCapacity(body.count + 4)
        Self.append(UInt32(body.count), to: &whole)
        return whole + body
    }

    /// Takes apart what came behind the length.
    ///
    /// - Throws: `StressWireError` for bytes that are no message.
    package init(body: [UInt8]) throws(StressWireError) {
        guard body.count <= Self.longest else { throw .tooLong(body.count) }
        var reader = Reader(bytes: body)
        let code = UInt8(truncatingIfNeeded: try reader.number(bytes: 1))
        guard let kind = Kind(rawValue: code) else { throw .unknownKind(code) }
        self.kind = kind
        numbers = []
        let count = Int(try reader.number(bytes: 4))
        guard count <= body.count / 8 else { throw .truncated }
        numbers.reserveCapacity(count)
        for _ in 0..<count { numbers.append(try reader.number(bytes: 8)) }
        texts = []
        let many = Int(try reader.number(bytes: 4))
        guard many <= body.count / 4 else { throw .truncated }
        for _ in 0..<many { texts.append(try reader.text()) }
        guard reader.isAtEnd else { throw .tooLong(body.count) }
    }

    /// The number at a place; 0 if there are not so many.
    package func number(_ place: Int) -> UInt64 {
        place < numbers.count ? numbers[place] : 0
    }

    /// The text at a place; "" if there are not so many.
    package func text(_ place: Int) -> String { place < texts.count ? texts[place] : "" }

    private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
    }

    private struct Reader {
        let bytes: [UInt8]
        var at = 0
        var isAtEnd: Bool { at == bytes.count }

        mutating func number(bytes width: Int) throws(StressWireError) -> UInt64 {
            guard bytes.count - at >= width else { throw .truncated }
            defer { at += width }
            return bytes[at..<at + width].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }

        mutating func text() throws(StressWireError) -> String {
            let length = Int(try number(bytes: 4))
            guard bytes.count - at >= length else { throw .truncated }
            guard let text = String(validating: bytes[at..<at + length], as: UTF8.self) else {
                throw .notText
            }
            at += length
            return text
        }
    }
}
