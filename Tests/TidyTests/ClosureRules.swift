// Rule E5 of the engine (Sources/Base/Execution/Engine.swift): a closure that waits has no capture
// list. Swift 6.3 compiles such a closure as concurrent code, which leaves the engine and queues up
// again around every `await` in it, so that a wake-up in between is lost.

enum ClosureRules {
    /// Words that begin a statement whose braces are a block and not a closure.
    private static let blockWords: Set<String> = [
        "if", "guard", "for", "while", "do", "switch", "defer", "else", "catch", "repeat",
    ]

    /// Closures with a capture list that wait.
    static func checkCaptureLists(_ file: SourceText) -> [Finding] {
        file.tokens.indices.compactMap { index in
            guard hasCaptureList(index, in: file), waits(index, in: file) else { return nil }
            return Finding(
                rule: .captureList,
                path: file.path,
                line: file.tokens[index].line,
                message: "a closure that waits has a capture list (Engine E5)"
            )
        }
    }

    /// Whether a closure opens at `index` whose capture list ends before its parameters or `in`.
    private static func hasCaptureList(_ index: Int, in file: SourceText) -> Bool {
        let tokens = file.tokens
        guard isSymbol("{", tokens[index]), index + 1 < tokens.count,
            isSymbol("[", tokens[index + 1])
        else { return false }
        var next = file.closing(index + 1) + 1
        // What may stand between a capture list and `in`: parameters, effects, a result.
        while next < tokens.count, next < index + 60 {
            if tokens[next].kind == .word, tokens[next].text == "in" { return true }
            if isSymbol("{", tokens[next]) || isSymbol("}", tokens[next]) { return false }
            next = isSymbol("(", tokens[next]) ? file.closing(next) + 1 : next + 1
        }
        return false
    }

    /// Whether the closure at `open` waits itself, and not only closures inside it do.
    private static func waits(_ open: Int, in file: SourceText) -> Bool {
        let end = file.closing(open)
        var index = open + 1
        while index < end {
            let token = file.tokens[index]
            if token.kind == .word, token.text == "await" { return true }
            if isSymbol("{", token), !isBlock(index, in: file) {
                index = file.closing(index)
            }
            index += 1
        }
        return false
    }

    /// Whether the brace at `index` belongs to a statement: one of its words stands before it,
    /// outside brackets, and after the previous brace.
    private static func isBlock(_ index: Int, in file: SourceText) -> Bool {
        var depth = 0
        var position = index - 1
        while position >= 0 {
            let token = file.tokens[position]
            if token.kind == .symbol {
                if token.text == ")" || token.text == "]" { depth += 1 }
                if token.text == "(" || token.text == "[" {
                    if depth == 0 { return false }
                    depth -= 1
                }
                if depth == 0, token.text == "{" || token.text == "}" { return false }
            }
            if depth == 0, token.kind == .word, blockWords.contains(token.text) { return true }
            position -= 1
        }
        return false
    }

    private static func isSymbol(_ text: String, _ token: Token) -> Bool {
        token.kind == .symbol && token.text == text
    }
}
