/// A value of JSON (RFC 8259), for the few things that commands print for scripts. Members of an
/// object keep their order, so that the same result is the same text.
public indirect enum JSONText: Hashable, Sendable {
    case null
    case boolean(Bool)
    case number(UInt64)
    case string(String)
    case array([JSONText])
    case object([Member])

    /// A named value of an object.
    public struct Member: Hashable, Sendable {
        /// What the member is called.
        public var name: String
        /// What it holds.
        public var value: JSONText

        /// From its parts.
        public init(_ name: String, _ value: JSONText) {
            self.name = name
            self.value = value
        }
    }

    /// The text, on one line.
    public var text: String {
        switch self {
        case .null: "null"
        case .boolean(let value): value ? "true" : "false"
        case .number(let value): String(value)
        case .string(let value): Self.quoted(value)
        case .array(let values): "[" + values.map(\.text).joined(separator: ", ") + "]"
        case .object(let members):
            "{"
                + members.map { Self.quoted($0.name) + ": " + $0.value.text }
                .joined(separator: ", ") + "}"
        }
    }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case "\t": quoted += "\\t"
            case "\r": quoted += "\\r"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
