// What workloads are made of, and how they are written down: words with parts between colons, as in
// `rename:A/foo:B/bar`, with a plus between two operations.

/// One operation on the tree. Paths are relative to the root and have no slash in front; the root
/// itself is the empty path.
package enum CrashOperation: Hashable, Sendable {
    case create(String)
    case write(String, offset: Int, count: Int)
    case append(String, count: Int)
    case truncate(String, size: Int)
    case rename(String, to: String)
    case exchange(String, String)
    case link(String, at: String)
    case unlink(String)
    case makeDirectory(String)
    case removeDirectory(String)
    case makeSymlink(String, length: Int)
    case setAttribute(String, count: Int)
    /// Opens a file that stays open to the end.
    case open(String)
    case synchronize(String)
    case synchronizeAll
    /// Longer than changes may stay in memory.
    case pause
    /// Unmounts in order. Nothing comes after it.
    case unmount

    /// As it is written down.
    package var text: String {
        switch self {
        case .create(let path): "create:\(path)"
        case .write(let path, let offset, let count): "write:\(path):\(offset):\(count)"
        case .append(let path, let count): "append:\(path):\(count)"
        case .truncate(let path, let size): "truncate:\(path):\(size)"
        case .rename(let path, let target): "rename:\(path):\(target)"
        case .exchange(let path, let other): "exchange:\(path):\(other)"
        case .link(let path, let name): "link:\(path):\(name)"
        case .unlink(let path): "unlink:\(path)"
        case .makeDirectory(let path): "mkdir:\(path)"
        case .removeDirectory(let path): "rmdir:\(path)"
        case .makeSymlink(let path, let length): "symlink:\(path):\(length)"
        case .setAttribute(let path, let count): "setxattr:\(path):\(count)"
        case .open(let path): "open:\(path)"
        case .synchronize(let path): "fsync:\(path)"
        case .synchronizeAll: "sync"
        case .pause: "pause"
        case .unmount: "unmount"
        }
    }

    /// From its text; nil if it is none.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: Character(":"), omittingEmptySubsequences: false)
            .map { String($0) }
        let numbers = parts.map { Int($0) ?? -1 }
        func has(_ count: Int, numbers first: Int) -> Bool {
            parts.count == count + 1 && numbers[first...].allSatisfy { $0 >= 0 }
        }
        switch parts[0] {
        case "create" where has(1, numbers: 2): self = .create(parts[1])
        case "write" where has(3, numbers: 2):
            self = .write(parts[1], offset: numbers[2], count: numbers[3])
        case "append" where has(2, numbers: 2): self = .append(parts[1], count: numbers[2])
        case "truncate" where has(2, numbers: 2): self = .truncate(parts[1], size: numbers[2])
        case "rename" where has(2, numbers: 3): self = .rename(parts[1], to: parts[2])
        case "exchange" where has(2, numbers: 3): self = .exchange(parts[1], parts[2])
        case "link" where has(2, numbers: 3): self = .link(parts[1], at: parts[2])
        case "unlink" where has(1, numbers: 2): self = .unlink(parts[1])
        case "mkdir" where has(1, numbers: 2): self = .makeDirectory(parts[1])
        case "rmdir" where has(1, numbers: 2): self = .removeDirectory(parts[1])
        case "symlink" where has(2, numbers: 2): self = .makeSymlink(parts[1], length: numbers[2])
        case "setxattr" where has(2, numbers: 2): self = .setAttribute(parts[1], count: numbers[2])
        case "open" where has(1, numbers: 2): self = .open(parts[1])
        case "fsync" where has(1, numbers: 2): self = .synchronize(parts[1])
        case "sync" where parts.count == 1: self = .synchronizeAll
        case "pause" where parts.count == 1: self = .pause
        case "unmount" where parts.count == 1: self = .unmount
        default: return nil
        }
    }

    /// The paths it names, in order.
    package var paths: [String] {
        switch self {
        case .create(let path), .write(let path, _, _), .append(let path, _),
            .truncate(let path, _), .unlink(let path), .makeDirectory(let path),
            .removeDirectory(let path), .makeSymlink(let path, _), .setAttribute(let path, _),
            .open(let path), .synchronize(let path):
            [path]
        case .rename(let path, let other), .exchange(let path, let other),
            .link(let path, let other):
            [path, other]
        case .synchronizeAll, .pause, .unmount: []
        }
    }

    /// Bytes that number `number` of a workload writes into a file at `offset`: never zero, and
    /// never what another operation writes at the same offset.
    package static func pattern(_ number: Int, offset: Int, count: Int) -> [UInt8] {
        (offset..<offset + count).map { place in
            UInt8(1 + (number * 61 + place * 7 + (place >> 8) * 13) % 255)
        }
    }
}

/// Operations in order. Each is numbered by its place; the pattern that it writes follows from it.
package struct CrashWorkload: Hashable, Sendable, CustomStringConvertible {
    package var operations: [CrashOperation]

    package init(_ operations: [CrashOperation]) { self.operations = operations }

    /// From its text; nil if there is no operation of that text.
    package init?(_ text: String) {
        var operations: [CrashOperation] = []
        for part in text.split(separator: "+", omittingEmptySubsequences: false) {
            guard let operation = CrashOperation(part) else { return nil }
            operations.append(operation)
        }
        self.operations = operations
    }

    package var description: String { operations.map(\.text).joined(separator: "+") }

    /// The tree that all workloads begin with, made by operations with these numbers.
    package static let preparation: [(number: Int, operation: CrashOperation)] = [
        .makeDirectory("A"), .makeDirectory("B"), .makeDirectory("A/empty"),
        .create("A/foo"), .write("A/foo", offset: 0, count: 9000),
        .create("B/bar"), .write("B/bar", offset: 0, count: 300),
    ].enumerated().map { (100 + $0.offset, $0.element) }

    /// The same for several nodes, and a file that takes most of the room.
    package static let clusterPreparation =
        preparation + [
            (150, .create("full")), (151, .write("full", offset: 0, count: 60_000)),
        ]

    /// What sequences are made of.
    package static let alphabet: [CrashOperation] = [
        .create("A/new"), .write("A/new", offset: 0, count: 5000),
        .append("A/foo", count: 5000), .append("B/bar", count: 200), .append("B/bar", count: 6000),
        .write("A/foo", offset: 1000, count: 6000), .write("A/foo", offset: 30_000, count: 3000),
        .write("B/bar", offset: 50, count: 100),
        .truncate("A/foo", size: 100), .truncate("A/foo", size: 0),
        .truncate("A/foo", size: 20_000), .truncate("B/bar", size: 10),
        .rename("A/foo", to: "B/bar"), .rename("B/bar", to: "A/foo"),
        .rename("A/foo", to: "A/new"), .rename("A/new", to: "A/foo"),
        .rename("A/new", to: "B/bar"), .rename("A", to: "B/dir"),
        .rename("A/empty", to: "B/empty"), .exchange("A/foo", "B/bar"),
        .link("A/foo", at: "B/link"), .link("B/bar", at: "A/new"),
        .unlink("A/foo"), .unlink("B/bar"), .unlink("A/new"), .unlink("B/link"),
        .makeDirectory("B/dir"), .makeDirectory("A/new"), .removeDirectory("A/empty"),
        .makeSymlink("A/new", length: 20), .makeSymlink("B/link", length: 2000),
        .setAttribute("A/foo", count: 30), .setAttribute("B/bar", count: 2500),
        .setAttribute("B", count: 30),
        .open("A/foo"), .open("B/bar"),
        .synchronize("A/foo"), .synchronize("B/bar"), .synchronize("A/new"),
        .synchronize("A"), .synchronize("B"), .synchronizeAll,
    ]
}
