// Swift source as the rules see it: a list of tokens with their lines, without comments and without
// what stands inside string literals. It is not a parser. It knows just enough of the language
// (nested comments, raw and multi-line strings, interpolation) that no rule mistakes prose for
// code.

/// One piece of source text.
struct Token: Hashable, Sendable {
    enum Kind: Sendable { case word, number, string, symbol }

    let kind: Kind
    /// The characters; for a string literal what stands between the quotes.
    let text: String
    /// Counted from 1.
    let line: Int
    /// Whether white space or the start of the file stands before it.
    let isApart: Bool
}

/// A file cut into tokens.
struct SourceText: Sendable {
    /// Path relative to the root of the project.
    let path: String
    let lines: [String]
    let tokens: [Token]
    /// Lines that hold a `///` comment.
    let documentedLines: Set<Int>
    /// Where each text stands, as indices of tokens.
    private let positions: [String: [Int]]

    init(path: String, text: String) {
        self.path = path
        let pieces = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        lines = pieces.last == "" ? Array(pieces.dropLast()) : pieces
        var scanner = Scanner(text)
        scanner.run()
        let tokens = scanner.tokens
        self.tokens = tokens
        documentedLines = scanner.documentedLines
        positions = Dictionary(grouping: tokens.indices) { tokens[$0].text }
    }

    /// Where the words and symbols of `pattern` follow each other, as indices of the first token.
    func matches(of pattern: [String]) -> [Int] {
        (positions[pattern[0]] ?? []).filter { start in
            start + pattern.count <= tokens.count
                && pattern.indices.allSatisfy {
                    tokens[start + $0].text == pattern[$0] && tokens[start + $0].kind != .string
                        // "try !a" is not "try!".
                        && !(pattern[$0] == "!" && tokens[start + $0].isApart)
                }
        }
    }

    /// The index of the token that closes the bracket at `open`, or the last token when none does.
    func closing(_ open: Int) -> Int {
        let pairs = ["(": ")", "[": "]", "{": "}"]
        guard let closer = pairs[tokens[open].text] else { return open }
        var depth = 0
        for index in open..<tokens.count where tokens[index].kind == .symbol {
            if tokens[index].text == tokens[open].text { depth += 1 }
            if tokens[index].text == closer {
                depth -= 1
                if depth == 0 { return index }
            }
        }
        return tokens.count - 1
    }

    /// The modules this file imports, with the line of each.
    var imports: [(module: String, line: Int)] {
        let kinds: Set<String> = [
            "struct", "class", "enum", "protocol", "typealias", "func", "var",
        ]
        return tokens.indices.compactMap { index in
            guard tokens[index].text == "import", tokens[index].kind == .word,
                index + 1 < tokens.count
            else { return nil }
            var next = index + 1
            if kinds.contains(tokens[next].text) { next += 1 }
            return (tokens[next].text, tokens[index].line)
        }
    }
}

/// Cuts text into tokens, byte by byte.
private struct Scanner {
    private let bytes: [UInt8]
    private var at = 0
    private var line = 1
    private(set) var tokens: [Token] = []
    private(set) var documentedLines: Set<Int> = []

    init(_ text: String) { bytes = Array(text.utf8) }

    mutating func run() {
        while at < bytes.count { step() }
    }

    private func byte(_ offset: Int = 0) -> UInt8 {
        at + offset < bytes.count ? bytes[at + offset] : 0
    }

    private func begins(_ text: StaticString) -> Bool {
        text.withUTF8Buffer { wanted in
            at + wanted.count <= bytes.count
                && wanted.indices.allSatisfy { bytes[at + $0] == wanted[$0] }
        }
    }

    private mutating func advance(_ count: Int = 1) {
        for _ in 0..<count where at < bytes.count {
            if bytes[at] == UInt8(ascii: "\n") { line += 1 }
            at += 1
        }
    }

    private mutating func step() {
        let current = byte()
        if begins("//") {
            if begins("///") { documentedLines.insert(line) }
            while at < bytes.count && byte() != UInt8(ascii: "\n") { advance() }
        } else if begins("/*") {
            skipBlockComment()
        } else if current == UInt8(ascii: "\"") || isRawString {
            takeString()
        } else if Self.isWord(current) {
            takeWord()
        } else if current == UInt8(ascii: "`") {
            advance()
        } else if current <= 32 {
            advance()
        } else {
            add(.symbol, from: at, to: at + 1, line: line)
            advance()
        }
    }

    private var isRawString: Bool {
        var offset = 0
        while byte(offset) == UInt8(ascii: "#") { offset += 1 }
        return offset > 0 && byte(offset) == UInt8(ascii: "\"")
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        (byte >= 48 && byte <= 57) || (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122)
            || byte == 95 || byte >= 128
    }

    private mutating func add(_ kind: Token.Kind, from start: Int, to end: Int, line: Int) {
        let text = String(decoding: bytes[start..<end], as: UTF8.self)
        let isApart = start == 0 || bytes[start - 1] <= 32
        tokens.append(Token(kind: kind, text: text, line: line, isApart: isApart))
    }

    private mutating func takeWord() {
        let start = at
        while at < bytes.count && Self.isWord(byte()) { advance() }
        let isNumber = bytes[start] >= 48 && bytes[start] <= 57
        add(isNumber ? .number : .word, from: start, to: at, line: line)
    }

    private mutating func skipBlockComment() {
        var depth = 0
        repeat {
            if begins("/*") {
                depth += 1
                advance(2)
            } else if begins("*/") {
                depth -= 1
                advance(2)
            } else {
                advance()
            }
        } while depth > 0 && at < bytes.count
    }

    /// A string of any of the forms `"…"`, `#"…"#`, `"""…"""`. What is interpolated is skipped as
    /// text: no rule looks there.
    private mutating func takeString() {
        var hashes = 0
        while byte() == UInt8(ascii: "#") {
            hashes += 1
            advance()
        }
        let isLong = begins("\"\"\"")
        advance(isLong ? 3 : 1)
        let start = at
        let startLine = line
        while at < bytes.count {
            if byte() == UInt8(ascii: "\\") && followedByHashes(hashes, at: 1) {
                advance(1 + hashes)
                if byte() == UInt8(ascii: "(") { skipInterpolation() } else { advance() }
            } else if (isLong ? begins("\"\"\"") : begins("\""))
                && followedByHashes(hashes, at: isLong ? 3 : 1)
            {
                break
            } else {
                advance()
            }
        }
        add(.string, from: start, to: min(at, bytes.count), line: startLine)
        advance((isLong ? 3 : 1) + hashes)
    }

    private func followedByHashes(_ count: Int, at offset: Int) -> Bool {
        (0..<count).allSatisfy { byte(offset + $0) == UInt8(ascii: "#") }
    }

    private mutating func skipInterpolation() {
        var depth = 0
        repeat {
            if byte() == UInt8(ascii: "(") { depth += 1 }
            if byte() == UInt8(ascii: ")") { depth -= 1 }
            if byte() == UInt8(ascii: "\"") {
                // A literal inside an interpolation: keep it out of the tokens.
                let before = tokens.count
                takeString()
                tokens.removeSubrange(before...)
            } else {
                advance()
            }
        } while depth > 0 && at < bytes.count
    }
}
