// Puts defects into a copy of the sources, each behind a switch: tools/mutations builds the copy once
// and runs the checks with one defect after the other switched on.
//
//   mutants TREE                      changes the lock manager's core in the copy in TREE; prints a
//                                     line per defect: number, file, line, kind, change, separated
//                                     by tabs
//   mutants TREE --cluster DEFECTS    changes journal, store, file system and glocks: first what the
//                                     list says (`WrittenDefect`), then whatever can be changed
//   mutants TREE --written DEFECTS    only what the list says

import Glibc

/// Files of the core that are left alone: they only describe, count or check.
private let untouched = [
    "Counters.swift", "Description.swift", "Digest.swift", "Fingerprint.swift",
    "Invariants.swift", "LockMessage.swift", "Lockspace.swift", "MessageFingerprint.swift",
    "Records.swift", "Slab.swift",
]

/// The same of the cluster.
private let untouchedOfCluster = [
    "GlockActivity.swift", "HolderActivity.swift", "Inspecting.swift", "LogListing.swift",
    "FileOperations.swift", "StorageError.swift", "StoreError.swift", "Usage.swift",
]

private func fail(_ line: String) -> Never {
    let text = "mutants: \(line)\n"
    _ = text.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(2)
}

private func read(_ path: String) -> String {
    guard let file = fopen(path, "r") else { fail("cannot read \(path)") }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
        bytes += buffer[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}

private func save(_ path: String, _ text: String) {
    guard let file = fopen(path, "w"), fputs(text, file) >= 0, fclose(file) == 0 else {
        fail("cannot write \(path)")
    }
}

private func names(in folder: String) -> [String] {
    guard let directory = opendir(folder) else { fail("cannot open \(folder)") }
    defer { closedir(directory) }
    var found: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name.hasSuffix(".swift") { found.append(name) }
    }
    return found.sorted()
}

/// One change after the other, each behind its switch; prints what they are.
private struct Campaign {
    let tree: String
    private var number = 1

    init(tree: String) { self.tree = tree }

    private func tell(_ mutant: Mutant) {
        print(mutant.number, mutant.file, mutant.line, mutant.kind, mutant.change, separator: "\t")
    }

    mutating func change(_ paths: [String], _ style: Mutator.Style) {
        for path in paths {
            var mutator = Mutator(
                file: path,
                text: read("\(tree)/\(path)"),
                firstNumber: number,
                style: style
            )
            mutator.run()
            number += mutator.mutants.count
            save("\(tree)/\(path)", withImport(mutator.output.joined(separator: "\n")))
            mutator.mutants.forEach(tell)
        }
    }

    /// Puts in the defects of a list.
    mutating func change(by list: [WrittenDefect]) {
        for defect in list {
            let path = "\(tree)/\(defect.file)"
            guard let (text, line) = defect.applied(to: read(path), number: number) else {
                fail(
                    "\(defect.name): what it changes does not stand exactly once in \(defect.file)"
                )
            }
            save(path, withImport(text))
            tell(
                Mutant(
                    number: number,
                    file: defect.file,
                    line: line,
                    kind: "deliberate",
                    change: "\(defect.name): \(defect.story)"
                )
            )
            number += 1
        }
    }

    /// The switch stands in a module that not every file knows.
    private func withImport(_ text: String) -> String {
        let lines = text.split(separator: "\n")
        if lines.contains(where: { $0.hasSuffix("import Vocabulary") }) { return text }
        return "import Vocabulary\n" + text
    }
}

private func paths(in folders: [String], without untouched: [String]) -> [String] {
    folders.flatMap { folder in
        names(in: "\(tree)/\(folder)").filter { !untouched.contains($0) }.map { "\(folder)/\($0)" }
    }
}

let words = CommandLine.arguments
guard words.count == 2 || words.count == 4 && ["--cluster", "--written"].contains(words[2])
else {
    fail("usage: mutants TREE [--cluster DEFECTS | --written DEFECTS]")
}
let tree = words[1]
private var campaign = Campaign(tree: tree)
if words.count == 2 {
    campaign.change(
        paths(in: ["Sources/Locks/LockCore"], without: untouched)
            + ["Sources/Base/Vocabulary/LockMode.swift"],
        .locks
    )
} else {
    guard let list = WrittenDefect.list(read(words[3])) else { fail("\(words[3]): no such list") }
    campaign.change(by: list)
    let folders = [
        "Sources/Disk/Journaling", "Sources/Files/FileStore", "Sources/Files/FileSystem",
        "Sources/Locks/LockCache",
    ]
    if words[2] == "--cluster" {
        campaign.change(paths(in: folders, without: untouchedOfCluster), .cluster)
    }
}
save("\(tree)/Sources/Base/Vocabulary/Switch.swift", Switch.source)
