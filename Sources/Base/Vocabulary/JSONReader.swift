// Reads what `JSONText` writes: objects, arrays, strings, numbers that are not negative and whole.

/// A text is not JSON, or holds what `JSONText` cannot: where it stops to be, in bytes from the
/// start.
public struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
    /// In bytes from the start.
    public let offset: Int

    /// For logs and reports.
    public var description: String { "not understood at byte \(offset)" }
}

extension JSONText {
    /// Objects and arrays may be nested so deep.
    public static let deepest = 32

    /// Reads one value and nothing else.
    ///
    /// - Throws: `JSONError` for anything but one value of those that `JSONText` has.
    public init(parsing text: String) throws(JSONError) {
        var reader = JSONReader(text)
        self = try reader.value(depth: 0)
        guard reader.isAtEnd else { throw reader.error }
    }

    /// A member of an object; nil if this is none, or has no such member.
    public subscript(name: String) -> JSONText? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }

    /// The number of that name; 0 if there is none: what an older program did not tell yet.
    public func number(_ name: String) -> UInt64 {
        if case .number(let value)? = self[name] { value } else { 0 }
    }

    /// The text of that name; "?" if there is none.
    public func string(_ name: String) -> String {
        if case .string(let text)? = self[name] { text } else { "?" }
    }

    /// The values of that name; none if there is no such list.
    public func list(_ name: String) -> [JSONText] {
        if case .array(let values)? = self[name] { values } else { [] }
    }
}

/// Takes a text apart, byte by byte.
private struct JSONReader {
    private let bytes: [UInt8]
    private var at = 0

    init(_ text: String) {
        bytes = Array(text.utf8)
        skipBlanks()
    }

    var isAtEnd: Bool { at == bytes.count }
    var error: JSONError { JSONError(offset: at) }

    private mutating func skipBlanks() {
        while at < bytes.count, [0x20, 0x0A, 0x0D, 0x09].contains(bytes[at]) { at += 1 }
    }

    /// Takes `text` if it comes next, and the blanks behind it.
    private mutating func take(_ text: StaticString) -> Bool {
        let isNext = text.withUTF8Buffer { bytes[at...].starts(with: $0) }
        if isNext {
            at += text.utf8CodeUnitCount
            skipBlanks()
        }
        return isNext
    }

    mutating func value(depth: Int) throws(JSONError) -> JSONText {
        guard at < bytes.count, depth <= JSONText.deepest else { throw error }
        if take("null") { return .null }
        if take("true") { return .boolean(true) }
        if take("false") { return .boolean(false) }
        if take("[") { return .array(try elements(depth)) }
        if take("{") { return .object(try members(depth)) }
        if bytes[at] == UInt8(ascii: "\"") { return .string(try string()) }
        return .number(try number())
    }

    private mutating func elements(_ depth: Int) throws(JSONError) -> [JSONText] {
        if take("]") { return [] }
        var found: [JSONText] = []
        repeat { found.append(try value(depth: depth + 1)) } while take(",")
        guard take("]") else { throw error }
        return found
    }

    private mutating func members(_ depth: Int) throws(JSONError) -> [JSONText.Member] {
        if take("}") { return [] }
        var found: [JSONText.Member] = []
        repeat {
            let name = try string()
            guard take(":") else { throw error }
            found.append(.init(name, try value(depth: depth + 1)))
        } while take(",")
        guard take("}") else { throw error }
        return found
    }

    private mutating func number() throws(JSONError) -> UInt64 {
        let digits = bytes[at...].prefix { (0x30...0x39).contains($0) }
        guard let number = UInt64(String(decoding: digits, as: UTF8.self)) else { throw error }
        at += digits.count
        skipBlanks()
        return number
    }

    private mutating func string() throws(JSONError) -> String {
        guard at < bytes.count, bytes[at] == UInt8(ascii: "\"") else { throw error }
        at += 1
        var text: [UInt8] = []
        while at < bytes.count, bytes[at] != UInt8(ascii: "\"") {
            guard bytes[at] >= 0x20 else { throw error }
            if bytes[at] == UInt8(ascii: "\\") {
                text += try escaped()
            } else {
                text.append(bytes[at])
                at += 1
            }
        }
        guard at < bytes.count, let whole = String(validating: text, as: UTF8.self) else {
            throw error
        }
        at += 1
        skipBlanks()
        return whole
    }

    /// What a backslash and the characters behind it stand for. Pairs of surrogates are not taken:
    /// `JSONText` writes such characters as they are.
    private mutating func escaped() throws(JSONError) -> [UInt8] {
        let plain: [UInt8: UInt8] = [
            UInt8(ascii: "\""): 0x22, UInt8(ascii: "\\"): 0x5C, UInt8(ascii: "/"): 0x2F,
            UInt8(ascii: "b"): 8, UInt8(ascii: "f"): 12, UInt8(ascii: "n"): 10,
            UInt8(ascii: "r"): 13, UInt8(ascii: "t"): 9,
        ]
        guard at + 1 < bytes.count else { throw error }
        if let byte = plain[bytes[at + 1]] {
            at += 2
            return [byte]
        }
        guard bytes[at + 1] == UInt8(ascii: "u"), at + 6 <= bytes.count,
            let code = UInt32(String(decoding: bytes[at + 2..<at + 6], as: UTF8.self), radix: 16),
            let scalar = Unicode.Scalar(code)
        else { throw error }
        at += 6
        return Array(String(Character(scalar)).utf8)
    }
}
