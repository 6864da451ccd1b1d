// Makes defects over a source file, line by line, each behind a switch, so that one build holds all
// of them and a run chooses one.
//
// What is changed: a statement left out, two neighbours swapped, a condition turned round, `&&` for
// `||` and back, a bound off by one, `true` for `false`, a bit of a table of modes. Only what stands
// on one line is understood; the style of the sources (one statement a line) makes that most.

/// One defect.
struct Mutant {
    var number: Int
    var file: String
    /// Counted from 1, in the original.
    var line: Int
    var kind: String
    /// What it does to the line.
    var change: String
}

/// Rewrites one file.
struct Mutator {
    let file: String
    let lines: [String]
    let style: Style
    private(set) var mutants: [Mutant] = []
    private(set) var output: [String] = []
    private var next: Int

    /// How the sources of a part of the program are written.
    enum Style {
        /// Effects are collected: two of them may change places. What throws is no statement.
        case locks
        /// Statements wait and throw.
        case cluster
    }

    init(file: String, text: String, firstNumber: Int, style: Style) {
        self.file = file
        self.style = style
        lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        next = firstNumber
    }

    /// The switch of a new defect.
    private mutating func add(_ kind: String, _ line: Int, _ change: String) -> String {
        mutants.append(
            Mutant(number: next, file: file, line: line + 1, kind: kind, change: change)
        )
        defer { next += 1 }
        return "activeMutant == \(next)"
    }

    mutating func run() {
        var index = 0
        while index < lines.count {
            // Only what has effects: the order of two assignments means nothing.
            if style == .locks, index + 1 < lines.count, isStatement(index), isStatement(index + 1),
                indent(index) == indent(index + 1), lines[index].contains("&effects"),
                lines[index + 1].contains("&effects")
            {
                swap(index)
                index += 2
                continue
            }
            output.append(rewritten(index))
            index += 1
        }
    }

    // MARK: Lines

    private func trimmed(_ index: Int) -> Substring {
        lines[index].drop { $0 == " " }
    }

    private func indent(_ index: Int) -> String { String(lines[index].prefix { $0 == " " }) }

    /// Words that no statement to be left out begins with. What only counts is left alone: nobody
    /// promised exact numbers.
    private static let excluded = [
        "let ", "var ", "return", "case ", "guard ", "if ", "else", "for ", "while ", "switch ",
        "default", "break", "continue", "throw", "defer", "precondition", "assert", "counters.",
        "func ", "import ", "struct ", "try ", "self.", "@", "//", "}", "repeat", "mutating ",
        "package ", "private ", "static ", "init", "enum ", "extension ", "fatalError", "async ",
    ]

    /// What is for the administrator only: ages, and room reserved.
    private static let observed = [
        ".since = ", "reserveCapacity", "counters.", "locks.note(", ".step = ", "onReport",
        "reached(",
    ]

    /// Whether a statement begins with a word that makes it none. What throws and waits may be left
    /// out among the cluster's, with what is given back unused.
    private func isExcluded(_ text: Substring) -> Bool {
        if style == .cluster, text.hasPrefix("try ") || text.hasPrefix("self.") { return false }
        return Self.excluded.contains { text.hasPrefix($0) }
    }

    /// Whether a line gives a constant its first value, which must not be left out.
    private func isFirstValue(_ text: Substring) -> Bool {
        guard let sign = text.firstRange(of: " = ") else { return false }
        let name = text[..<sign.lowerBound]
        return lines.contains {
            let line = $0.drop { $0 == " " }
            return line.hasPrefix("let \(name): ") && !line.contains("=")
                || line.hasPrefix("var \(name): ") && !line.contains("=") && !line.hasSuffix("?")
        }
    }

    private static func isBalanced(_ text: some StringProtocol) -> Bool {
        var depth = 0
        for character in text {
            if "([{".contains(character) { depth += 1 }
            if ")]}".contains(character) { depth -= 1 }
            if depth < 0 { return false }
        }
        return depth == 0
    }

    private func isInInitializer(_ index: Int) -> Bool {
        for line in (0..<index).reversed() {
            if lines[line].contains("func ") { return false }
            if lines[line].contains(" init(") || lines[line].contains(" init?(") { return true }
        }
        return false
    }

    /// Whether a line is a whole statement that may be left out.
    private func isStatement(_ index: Int) -> Bool {
        let text = trimmed(index)
        guard let first = text.first, first.isLowercase, indent(index).count >= 8,
            !isExcluded(text), Self.isBalanced(text), !text.contains("activeMutant"),
            text.hasSuffix(")") || text.contains("= "), !isFirstValue(text)
        else { return false }
        if text.contains("{") || text.contains("//") || isInInitializer(index) { return false }
        if Self.observed.contains(where: { text.contains($0) }) { return false }
        // A label of a call, or the middle of an expression.
        let head = text.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
        if text.dropFirst(head.count).hasPrefix(": ") { return false }
        for word in [" ? ", " && ", " || ", " == ", " != "] where text.contains(word) {
            return false
        }
        let before = index > 0 ? trimmed(index - 1) : ""
        if before.hasSuffix("{") && (before.contains("->") || before.contains(": ")) {
            return before.hasPrefix("case ")
        }
        for ending in ["=", "(", ",", "&&", "||", "?", "[", "->"] where before.hasSuffix(ending) {
            return false
        }
        if before.hasSuffix(":") && !before.hasPrefix("case ") && !before.hasPrefix("default") {
            return false
        }
        let after = index + 1 < lines.count ? trimmed(index + 1) : ""
        // What a closure of one line gives back.
        if before.hasSuffix(" in"), after.hasPrefix("}") { return false }
        return ![".", "?", ":", "&&", "||", "+", "-", "="].contains { after.hasPrefix($0) }
    }

    private mutating func swap(_ index: Int) {
        let (first, second) = (trimmed(index), trimmed(index + 1))
        let both = "\(first) <-> \(second)"
        let condition = add("swap", index, both)
        let space = indent(index)
        output.append("\(space)if \(condition) { \(second); \(first) } else {")
        output.append(leftOut(index))
        output.append(leftOut(index + 1))
        output.append("\(space)}")
    }

    private mutating func leftOut(_ index: Int) -> String {
        let text = trimmed(index)
        let condition = add("drop", index, String(text))
        return "\(indent(index))if !(\(condition)) { \(text) }"
    }

    // MARK: Conditions

    private mutating func rewritten(_ index: Int) -> String {
        let text = trimmed(index)
        if text.contains("activeMutant") { return lines[index] }
        if isStatement(index) { return leftOut(index) }
        if text == "return true" || text == "return false" {
            let isTrue = text == "return true"
            let condition = add("return", index, isTrue ? "return false" : "return true")
            return "\(indent(index))return \(isTrue ? "!" : "")(\(condition))"
        }
        for opening in ["if ", "} else if ", "guard "] where text.hasPrefix(opening) {
            if let changed = changedCondition(index, opening) { return changed }
        }
        if let label = labelled(text), isLoneCall(text.dropFirst(label.count)) {
            let rest = text.dropFirst(label.count)
            let condition = add("drop", index, String(rest))
            return "\(indent(index))\(label)if !(\(condition)) { \(rest) }"
        }
        return bits(index) ?? lines[index]
    }

    /// The label of a one-line case.
    private func labelled(_ text: Substring) -> Substring? {
        guard text.hasPrefix("case ") || text.hasPrefix("default: "),
            let place = text.firstRange(of: ": ")
        else { return nil }
        return text[..<place.upperBound]
    }

    private func isLoneCall(_ text: Substring) -> Bool {
        guard let first = text.first, first.isLowercase, text.hasSuffix(")"),
            Self.isBalanced(text)
        else { return false }
        return !Self.excluded.contains { text.hasPrefix($0) } && text.contains("&effects")
    }

    private mutating func changedCondition(_ index: Int, _ opening: String) -> String? {
        let text = trimmed(index)
        let rest = text.dropFirst(opening.count)
        let closing = opening == "guard " ? " else {" : " {"
        guard let end = rest.firstRange(of: closing) else { return nil }
        let condition = rest[..<end.lowerBound]
        let tail = rest[end.lowerBound...]
        if condition.isEmpty || !Self.isBalanced(condition) || condition.contains("{") {
            return nil
        }
        for word in ["let ", "case ", "var ", "try ", "#", ", "]
        where condition.contains(word) && (word != ", " || Self.hasOuterComma(condition)) {
            return nil
        }
        var choice = "(\(condition))"
        for (kind, changed) in Self.variants(String(condition)) {
            let which = add(kind, index, "\(condition) -> \(changed)")
            choice = "(\(which) ? (\(changed)) : \(choice))"
        }
        return "\(indent(index))\(opening)\(choice)\(tail)"
    }

    private static func hasOuterComma(_ text: Substring) -> Bool {
        var depth = 0
        for character in text {
            if "([".contains(character) { depth += 1 }
            if ")]".contains(character) { depth -= 1 }
            if character == "," && depth == 0 { return true }
        }
        return false
    }

    private static func variants(_ condition: String) -> [(kind: String, text: String)] {
        var found = [("negate", "!(\(condition))")]
        for (kind, from, to) in [
            ("and", " && ", " || "), ("or", " || ", " && "), ("bound", " > ", " >= "),
            ("bound", " >= ", " > "), ("bound", " < ", " <= "), ("bound", " <= ", " < "),
        ] {
            guard let place = condition.firstRange(of: from) else { continue }
            found.append(
                (kind, condition[..<place.lowerBound] + to + condition[place.upperBound...])
            )
        }
        return found
    }

    // MARK: Tables

    /// The tables of modes, as the sources write them: one defect per entry. `flippedTable` and
    /// `flippedRow` stand in the file that `Switch.source` makes.
    private mutating func bits(_ index: Int) -> String? {
        let (table, row) = ("0x01_03_0B_07_1F_3F", "Self.compatible[Int(rawValue)] & (1")
        let isTable = lines[index].contains(table)
        if trimmed(index).hasPrefix("//") || (!isTable && !lines[index].contains(row)) {
            return nil
        }
        let base = next
        for mode in 0..<6 {
            for other in 0..<6 { _ = add("bit", index, "granted \(mode), asked \(other)") }
        }
        return isTable
            ? lines[index].replacing(table, with: "(\(table) ^ flippedTable(\(base)))")
            : lines[index].replacing(
                row,
                with: "(Self.compatible[Int(rawValue)] ^ flippedRow(\(base), rawValue)) & (1"
            )
    }
}

/// What a tree with defects in it has besides.
enum Switch {
    static let source = """
        import Glibc

        /// The defect that is switched on; 0: none.
        package let activeMutant = getenv("LOCKSTEP_MUTANT").flatMap { unsafe Int(String(cString: $0)) } ?? 0

        package func flippedTable(_ base: Int) -> UInt64 {
            let place = activeMutant - base
            return place < 0 || place >= 36 ? 0 : 1 << UInt64(8 * (place / 6) + place % 6)
        }

        package func flippedRow(_ base: Int, _ mode: UInt8) -> UInt8 {
            let place = activeMutant - base
            return place < 0 || place >= 36 || place / 6 != Int(mode) ? 0 : 1 << UInt8(place % 6)
        }

        """
}
