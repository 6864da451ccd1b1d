// Puts defects into a copy of the lock manager's core, each behind a switch: tools/mutations builds
// the copy once and runs the checks with one defect after the other switched on.
//
//   mutants TREE      changes the sources of the copy in TREE; prints a line per defect:
//                     number, file, line, kind, change, separated by tabs

import Glibc

/// Files of the core that are left alone: they only describe, count or check.
private let untouched = [
    "Counters.swift", "Description.swift", "Digest.swift", "Fingerprint.swift",
    "Invariants.swift", "LockMessage.swift", "Lockspace.swift", "MessageFingerprint.swift",
    "Records.swift", "Slab.swift",
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

guard CommandLine.arguments.count == 2 else { fail("usage: mutants TREE") }
let tree = CommandLine.arguments[1]
var paths = names(in: "\(tree)/Sources/Locks/LockCore").filter { !untouched.contains($0) }
    .map { "Sources/Locks/LockCore/\($0)" }
paths.append("Sources/Base/Vocabulary/LockMode.swift")
var number = 1
for path in paths {
    var mutator = Mutator(file: path, text: read("\(tree)/\(path)"), firstNumber: number)
    mutator.run()
    number += mutator.mutants.count
    save("\(tree)/\(path)", mutator.output.joined(separator: "\n"))
    for mutant in mutator.mutants {
        print(mutant.number, mutant.file, mutant.line, mutant.kind, mutant.change, separator: "\t")
    }
}
save("\(tree)/Sources/Base/Vocabulary/Switch.swift", Switch.source)
