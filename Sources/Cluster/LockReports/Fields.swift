// Taking JSON objects apart and putting them together.

package import Vocabulary

extension JSONText {
    /// A whole number that is not negative.
    package static func count(_ value: some BinaryInteger) -> JSONText {
        .number(UInt64(clamping: value))
    }

    /// Named numbers.
    package static func counts(_ members: [(String, any BinaryInteger)]) -> JSONText {
        func number(_ value: some BinaryInteger) -> JSONText { .count(value) }
        return .object(members.map { Member($0, number($1)) })
    }

    /// A number; nil for anything else.
    package var number: UInt64? {
        guard case .number(let value) = self else { return nil }
        return value
    }

    /// A string; nil for anything else.
    package var string: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    /// The elements of an array; none for anything else.
    package var elements: [JSONText] {
        guard case .array(let values) = self else { return [] }
        return values
    }

    func number(_ name: String) -> UInt64 { self[name]?.number ?? 0 }

    func flag(_ name: String) -> Bool { self[name] == .boolean(true) }

    func node(_ name: String) -> NodeID { NodeID(UInt32(clamping: number(name))) }

    func mode(_ name: String) -> LockMode? { self[name]?.string.flatMap(LockMode.init(word:)) }
}

extension [JSONText.Member] {
    /// Appends a member, if there is something to say.
    mutating func append(_ name: String, _ value: JSONText?) {
        if let value { append(JSONText.Member(name, value)) }
    }

    /// Appends a number unless it is zero.
    mutating func append(nonzero name: String, _ value: some BinaryInteger) {
        if value != 0 { append(JSONText.Member(name, .count(value))) }
    }

    /// Appends a mark unless it is not set.
    mutating func append(mark name: String, _ value: Bool) {
        if value { append(JSONText.Member(name, .boolean(true))) }
    }
}

extension LockMode {
    /// The mode of that abbreviation.
    package init?(word: String) {
        guard let mode = Self.allCases.first(where: { $0.description == word }) else { return nil }
        self = mode
    }
}
