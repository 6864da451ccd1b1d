// Rules about the text of one file.

import Foundation

enum TextRules {
    static let longestFile = 800
    static let longestFunction = 60

    /// What pure and closed code may not say: time, chance and tasks come only from what it is
    /// given, or a seed would not replay.
    static let bannedInside: [[String]] = [
        ["Task", "{"], ["Task", "("], ["Task", ".", "detached"], ["Task", ".", "immediate"],
        ["Task", ".", "sleep"], ["Task", ".", "yield"],
        [".", "random", "("], [".", "shuffled", "("], [".", "shuffle", "("],
        [".", "randomElement", "("], ["ContinuousClock"], ["SuspendingClock"], ["Date", "("],
        ["SystemRandomNumberGenerator"], ["UUID", "("], ["DispatchQueue"], ["Thread"], ["Mutex"],
        ["gettimeofday"], ["clock_gettime"], ["hashValue"],
    ]

    /// What no code of the system may say.
    static let bannedEverywhere: [[String]] = [
        ["try", "!"], ["fatalError", "("], ["Task", "{"], ["Task", ".", "detached"],
        ["usleep", "("],
        ["nanosleep", "("], ["sleep", "("],
    ]

    /// Calls that the source may not make.
    static func checkBans(_ file: SourceText, grade: Grade) -> [Finding] {
        let isInner = grade == .pure || grade == .closed
        // The engine is the one place that makes tasks.
        let makesTasks = file.path.hasPrefix("Sources/Base/Execution/")
        let bans = isInner ? bannedInside + bannedEverywhere : bannedEverywhere
        var findings: Set<Finding> = []
        for ban in bans {
            if makesTasks && ban.first == "Task" && ban != ["Task", "{"] { continue }
            for index in file.matches(of: ban) where !isOwn(ban, at: index, in: file) {
                findings.insert(
                    Finding(
                        rule: .bannedCall,
                        path: file.path,
                        line: file.tokens[index].line,
                        message: "'\(ban.joined())' is not allowed here"
                    )
                )
            }
        }
        return findings.sorted { $0.line < $1.line }
    }

    /// Whether the word is somebody else's: a method of that name, or its declaration.
    private static func isOwn(_ ban: [String], at index: Int, in file: SourceText) -> Bool {
        guard ban.first != ".", index > 0 else { return false }
        let before = file.tokens[index - 1].text
        return before == "." || before == "func" || (before == "await" && ban == ["sleep", "("])
    }

    /// A file that is too long.
    static func checkLength(_ file: SourceText) -> [Finding] {
        guard file.lines.count > longestFile else { return [] }
        return [
            Finding(
                rule: .fileLength,
                path: file.path,
                line: file.lines.count,
                message: "\(file.lines.count) lines; at most \(longestFile)"
            )
        ]
    }

    /// Functions that are too long, from the line of `func` or `init` to the closing brace.
    static func checkFunctionLength(_ file: SourceText) -> [Finding] {
        bodies(file).compactMap { start, close in
            let length = file.tokens[close].line - file.tokens[start].line + 1
            guard length > longestFunction else { return nil }
            let name = file.tokens[start].text == "init" ? "init" : file.tokens[start + 1].text
            return Finding(
                rule: .functionLength,
                path: file.path,
                line: file.tokens[start].line,
                message: "'\(name)' has \(length) lines; at most \(longestFunction)"
            )
        }
    }

    /// The functions of a file that have a body: index of `func` or `init`, index of the closing
    /// brace.
    private static func bodies(_ file: SourceText) -> [(Int, Int)] {
        file.tokens.indices.compactMap { index in
            let token = file.tokens[index]
            guard token.kind == .word, token.text == "func" || token.text == "init" else {
                return nil
            }
            if index > 0 && [".", "self", "super"].contains(file.tokens[index - 1].text) {
                return nil
            }
            guard let open = bodyStart(after: index, in: file) else { return nil }
            return (index, file.closing(open))
        }
    }

    /// Words that end a declaration without a body, as in a protocol.
    private static let enders: Set<String> = [
        "func", "var", "let", "case", "static", "package", "public", "private", "fileprivate",
        "internal", "subscript", "associatedtype", "mutating", "nonmutating", "typealias", "init",
        "deinit", "nonisolated", "}", "@", "#", "=", "extension", "struct", "class", "enum",
    ]

    private static func bodyStart(after start: Int, in file: SourceText) -> Int? {
        var index = start + 1
        var seenParameters = false
        while index < file.tokens.count {
            let text = file.tokens[index].text
            if file.tokens[index].kind == .symbol && (text == "(" || text == "[") {
                if text == "(" { seenParameters = true }
                index = file.closing(index) + 1
                continue
            }
            if seenParameters && text == "{" { return index }
            if seenParameters && enders.contains(text) { return nil }
            index += 1
        }
        return nil
    }

    /// Notes to oneself that the project does not keep in its source.
    static func checkUnfinished(path: String, lines: [String]) -> [Finding] {
        let marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X:", "HA" + "CK:"]
        return lines.enumerated().compactMap { index, line in
            guard let mark = marks.first(where: { line.contains($0) }) else { return nil }
            return Finding(
                rule: .unfinished,
                path: path,
                line: index + 1,
                message: "'\(mark)': finish it, or say it in Docs/CAVEATS.md"
            )
        }
    }

    /// What a Markdown file links to within the project, relative to the root.
    static func links(in lines: [String], of path: String) -> [String] {
        let folder = path.split(separator: "/").dropLast().map(String.init)
        return lines.flatMap { line in
            line.components(separatedBy: "](").dropFirst().compactMap { rest -> String? in
                let target = rest.prefix { $0 != ")" && $0 != "#" }
                guard !target.isEmpty, !target.contains("://") else { return nil }
                var parts = folder
                for part in target.split(separator: "/") {
                    if part == ".." {
                        _ = parts.popLast()
                    } else if part != "." {
                        parts.append(String(part))
                    }
                }
                return parts.joined(separator: "/")
            }
        }
    }

    /// Paths of one developer's machine, which mean nothing on another.
    static func checkForeignPaths(path: String, lines: [String]) -> [Finding] {
        let marks = ["/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/"]
        return lines.enumerated().compactMap { index, line in
            guard let mark = marks.first(where: { line.contains($0) }) else { return nil }
            return Finding(
                rule: .foreignPath,
                path: path,
                line: index + 1,
                message: "'\(mark)' is a path of one machine"
            )
        }
    }
}

/// Rules about declarations.
enum DeclarationRules {
    /// Names whose meaning the language gives: a conformance needs no sentence of its own.
    static let wellKnown: Set<String> = [
        "description", "debugDescription", "hash", "next", "rawValue", "allCases", "id", "encode",
        "startIndex", "endIndex", "makeIterator", "unownedExecutor", "checkIsolated", "enqueue",
        "asUnownedSerialExecutor", "asUnownedTaskExecutor", "isIsolatingCurrentContext",
        "isSameExclusiveExecutionContext", "configuration", "run",
        "validate", "count", "isEmpty", "init",
    ]

    /// Names that the protocols of `files` ask for; they are documented there, not at each
    /// conformance.
    static func requirements(of files: [SourceText]) -> Set<String> {
        var names: Set<String> = []
        for file in files {
            for index in file.tokens.indices
            where file.tokens[index].text == "protocol" && file.tokens[index].kind == .word {
                guard let open = file.tokens[index...].firstIndex(where: { $0.text == "{" }) else {
                    continue
                }
                for inner in open..<file.closing(open)
                where ["func", "var"].contains(file.tokens[inner].text) {
                    names.insert(file.tokens[inner + 1].text)
                }
            }
        }
        return names
    }

    /// `package` and `public` types, functions and computed properties without a `///` comment.
    /// Exempt: what a protocol asks for (it says it once), operators, initialisers, `is…` and
    /// `has…`, stored properties and cases, which the comment of their type explains when their
    /// name does not.
    static func checkDocumentation(_ file: SourceText, requirements: Set<String>) -> [Finding] {
        file.tokens.indices.compactMap { index in
            let token = file.tokens[index]
            guard token.kind == .word, token.text == "package" || token.text == "public" else {
                return nil
            }
            guard let name = undocumentable(at: index, in: file) else { return nil }
            guard !requirements.contains(name), !wellKnown.contains(name) else { return nil }
            guard !isDocumented(line: token.line, in: file) else { return nil }
            return Finding(
                rule: .documentation,
                path: file.path,
                line: token.line,
                message: "'\(name)' has no documentation comment"
            )
        }
    }

    /// The name of what is declared, if it is of a kind that needs words.
    private static func undocumentable(at start: Int, in file: SourceText) -> String? {
        let kinds: Set<String> = [
            "struct", "class", "enum", "protocol", "actor", "typealias", "func",
        ]
        let modifiers: Set<String> = [
            "static", "final", "mutating", "nonmutating", "nonisolated", "override", "consuming",
            "borrowing", "indirect", "class", "package", "public", "convenience", "private", "(",
            ")",
            "set", "unsafe",
        ]
        var index = start + 1
        while index + 1 < file.tokens.count {
            let text = file.tokens[index].text
            if kinds.contains(text) && !(text == "class" && file.tokens[index + 1].text == "func") {
                let name = file.tokens[index + 1]
                return name.kind == .word ? name.text : nil
            }
            if text == "var" {
                // "isEmpty" says what it is.
                if ["is", "has"].contains(where: file.tokens[index + 1].text.hasPrefix) {
                    return nil
                }
                return isComputed(index, in: file) ? file.tokens[index + 1].text : nil
            }
            guard modifiers.contains(text) else { return nil }
            index += 1
        }
        return nil
    }

    private static func isComputed(_ start: Int, in file: SourceText) -> Bool {
        let line = file.tokens[start].line
        for index in (start + 1)..<file.tokens.count {
            let token = file.tokens[index]
            if token.text == "=" { return false }
            if token.text == "{" {
                let next = index + 1 < file.tokens.count ? file.tokens[index + 1].text : ""
                return next != "didSet" && next != "willSet"
            }
            if token.line > line + 1 { return false }
            if index > start + 1 && ["var", "let", "func", "init", "}"].contains(token.text) {
                return false
            }
        }
        return false
    }

    /// Whether a `///` stands above the line, with nothing but attributes between.
    private static func isDocumented(line: Int, in file: SourceText) -> Bool {
        var above = line - 1
        while above >= 1 {
            if file.documentedLines.contains(above) { return true }
            let text = file.lines[above - 1].drop { $0 == " " }
            guard text.hasPrefix("@") || text.hasPrefix("#if") else { return false }
            above -= 1
        }
        return false
    }

    /// Loops over a `Dictionary` or `Set` that the same file declares: their order changes with
    /// every run. A heuristic: it knows the names whose declared type or initial value shows what
    /// they are.
    static func checkUnorderedIteration(_ file: SourceText) -> [Finding] {
        let tokens = file.tokens
        return tokens.indices.compactMap { index in
            guard tokens[index].text == "in", index + 2 < tokens.count else { return nil }
            guard isLoop(index, in: file) else { return nil }
            // self.a.b.keys: the last name but `keys` and `values` is what is looped over.
            var last = index + 1
            while last + 2 < tokens.count, tokens[last + 1].text == ".",
                !["keys", "values"].contains(tokens[last + 2].text)
            {
                last += 2
            }
            let after =
                last + 1 < tokens.count && tokens[last + 1].text == "." ? last + 3 : last + 1
            guard after < tokens.count, tokens[after].text == "{" || tokens[after].text == "where",
                isUnordered(
                    tokens[last].text,
                    before: index,
                    isMember: last > index + 1 && tokens[last - 2].text != "self",
                    in: file
                )
            else { return nil }
            return Finding(
                rule: .unorderedIteration,
                path: file.path,
                line: tokens[index].line,
                message: "loops over '\(tokens[last].text)', whose order changes with every run"
            )
        }
    }

    private static func isLoop(_ index: Int, in file: SourceText) -> Bool {
        let line = file.tokens[index].line
        var before = index - 1
        while before >= 0 && file.tokens[before].line == line {
            if file.tokens[before].text == "for" { return true }
            if file.tokens[before].text == "{" { return false }
            before -= 1
        }
        return false
    }

    /// Whether the nearest declaration of `name` above, else any, makes it a dictionary or a set.
    private static func isUnordered(
        _ name: String,
        before: Int,
        isMember: Bool,
        in file: SourceText
    ) -> Bool {
        let found = file.tokens.indices.dropLast(3).filter { index in
            guard file.tokens[index].text == name else { return false }
            let next = file.tokens[index + 1].text
            let isBound = index > 0 && ["var", "let"].contains(file.tokens[index - 1].text)
            return (next == ":" && file.tokens[index + 2].text != ":") || (isBound && next == "=")
        }
        let declarations = found.filter { isType($0 + 2, in: file) }
        // `other.name` may be any of them: only when all are of the kind it surely is.
        if isMember {
            return !declarations.isEmpty
                && declarations.allSatisfy { isUnordered(at: $0 + 2, in: file) }
        }
        let nearest = declarations.last { $0 < before } ?? declarations.first
        return nearest.map { isUnordered(at: $0 + 2, in: file) } ?? false
    }

    /// Whether the type, or the value, that begins at `start` is a dictionary or a set.
    private static func isUnordered(at start: Int, in file: SourceText) -> Bool {
        var at = start
        while ["any", "some", "inout", "borrowing"].contains(file.tokens[at].text) { at += 1 }
        return ["Set", "Dictionary"].contains(file.tokens[at].text)
            || isDictionaryType(at, in: file)
    }

    /// Whether what follows `name:` or `name =` can be a type or tells one (an argument label's
    /// value, as in `f(name: x)`, does not).
    private static func isType(_ index: Int, in file: SourceText) -> Bool {
        let token = file.tokens[index]
        return token.text == "[" || token.text == "inout" || token.text == "any"
            || (token.kind == .word && token.text.first?.isUppercase == true)
    }

    /// Whether `[` at `start` opens `[Key: Value]` (and not an array).
    private static func isDictionaryType(_ start: Int, in file: SourceText) -> Bool {
        guard file.tokens[start].text == "[" else { return false }
        var index = start + 1
        let end = file.closing(start)
        while index < end {
            let text = file.tokens[index].text
            if text == ":" { return true }
            if ["(", "[", "{"].contains(text) && file.tokens[index].kind == .symbol {
                index = file.closing(index)
            }
            index += 1
        }
        return false
    }
}
