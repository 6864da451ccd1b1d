/// A place where the source breaks a rule.
struct Finding: Hashable, Sendable, CustomStringConvertible {
    let rule: Rule
    let path: String
    let line: Int
    let message: String

    var description: String { "\(path):\(line): \(message) [\(rule.rawValue)]" }
}

/// The rules, by the names under which `allowances.txt` knows them.
enum Rule: String, CaseIterable, Sendable {
    case layers = "layers"
    case imports = "imports"
    case bannedCall = "banned-call"
    case fileLength = "file-length"
    case functionLength = "function-length"
    case documentation = "documentation"
    case unorderedIteration = "unordered-iteration"
    case captureList = "capture-list"
    case unfinished = "unfinished"
    case foreignPath = "foreign-path"
}
