import Foundation

/// The project's files.
struct SourceTree: Sendable {
    let root: String
    let swift: [SourceText]
    /// All other text that people wrote: path and lines.
    let texts: [(path: String, lines: [String])]
    let manifest: Manifest

    /// Everything, read once.
    static let shared = SourceTree(file: #filePath)

    private init(file: String) {
        // …/Tests/TidyTests/SourceTree.swift. The folder may be reached through a link.
        let folder = URL(fileURLWithPath: file).resolvingSymlinksInPath()
        let root =
            folder.deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path
        let paths = ["Sources", "Tests", "tools", "Docs", ".ci"].flatMap {
            Self.files(below: root, $0)
        }
        var found: [SourceText] = []
        var texts: [(path: String, lines: [String])] = []
        for path in paths + Self.topLevel(folder: root) {
            guard let text = try? String(contentsOfFile: "\(root)/\(path)", encoding: .utf8) else {
                continue
            }
            if path.hasSuffix(".swift") {
                found.append(SourceText(path: path, text: text))
            } else {
                let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
                texts.append((path, lines.map(String.init)))
            }
        }
        self.root = root
        self.swift = found
        self.texts = texts
        let text = found.first { $0.path == "Package.swift" }
        manifest = Manifest(text ?? SourceText(path: "Package.swift", text: ""))
    }

    private static func topLevel(folder root: String) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        return names.sorted().filter { $0.hasSuffix(".md") || $0 == "Package.swift" }
    }

    private static func files(below root: String, _ folder: String) -> [String] {
        guard let all = FileManager.default.enumerator(atPath: "\(root)/\(folder)") else {
            return []
        }
        return all.compactMap { $0 as? String }.sorted().map { "\(folder)/\($0)" }.filter { path in
            // Bytes that nobody wrote.
            if path.hasPrefix("Tests/Corpus/") { return false }
            var isFolder = ObjCBool(false)
            let isThere = FileManager.default.fileExists(
                atPath: "\(root)/\(path)",
                isDirectory: &isFolder
            )
            return isThere && !isFolder.boolValue
        }
    }

    /// Whether the project has a file or folder of this path, relative to its root.
    func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: "\(root)/\(path)")
    }

    /// The Swift files of targets of the given grades, each with its grade.
    func sources(_ grades: Set<Grade>) -> [(file: SourceText, grade: Grade)] {
        swift.compactMap { file in
            guard let owner = manifest.owner(of: file.path), grades.contains(owner.grade) else {
                return nil
            }
            return (file, owner.grade)
        }
    }
}

/// What still breaks a rule, and how often: a ratchet. Each line of `allowances.txt` is
/// `rule path count`; a count may only be lowered.
struct Allowances: Sendable {
    private var counts: [String: Int] = [:]

    init(_ lines: [String]) {
        for line in lines where !line.isEmpty && !line.hasPrefix("#") {
            let fields = line.split(separator: " ")
            if fields.count == 3, let count = Int(fields[2]) {
                counts["\(fields[0]) \(fields[1])"] = count
            }
        }
    }

    /// The number allowed of a rule in a file; 0 where nothing is said.
    func allowed(_ rule: Rule, _ path: String) -> Int { counts["\(rule.rawValue) \(path)"] ?? 0 }

    /// Complaints about `findings`, all of one rule: more than allowed, or an allowance that has
    /// become too large and must be lowered.
    func complaints(about findings: [Finding], of rule: Rule) -> [String] {
        let byPath = Dictionary(grouping: findings, by: \.path)
        let more = byPath.keys.sorted().flatMap { path -> [String] in
            let found = byPath[path] ?? []
            return found.count > allowed(rule, path) ? found.map(\.description) : []
        }
        let less = counts.keys.sorted().compactMap { key -> String? in
            let fields = key.split(separator: " ").map(String.init)
            guard fields[0] == rule.rawValue else { return nil }
            let found = byPath[fields[1]]?.count ?? 0
            guard found < counts[key] ?? 0 else { return nil }
            return found == 0
                ? "allowances.txt: remove the line '\(key) …': nothing is left of it"
                : "allowances.txt: lower the line to '\(key) \(found)'"
        }
        return more + less
    }
}
