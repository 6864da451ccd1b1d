// How numbers and states are said to people.

package import LockCache
import LockCore
import Vocabulary

/// Words for people.
package enum Words {
    /// A length of time: `45ms`, `3.2s`, `12m`, `5h`, `3d`.
    package static func age(_ milliseconds: UInt64) -> String {
        switch milliseconds {
        case ..<1000: "\(milliseconds)ms"
        case ..<100_000: "\(milliseconds / 1000).\(milliseconds % 1000 / 100)s"
        case ..<6_000_000: "\(milliseconds / 60_000)m"
        case ..<172_800_000: "\(milliseconds / 3_600_000)h"
        default: "\(milliseconds / 86_400_000)d"
        }
    }

    /// A number of bytes: `512 B`, `4.0 KiB`, `3.5 MiB`.
    package static func size(_ bytes: UInt64) -> String {
        let units: [(name: String, shift: UInt64)] = [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        for unit in units where bytes >> unit.shift > 0 {
            let whole = bytes >> unit.shift
            let tenth = ((bytes & ((1 << unit.shift) - 1)) * 10) >> unit.shift
            return "\(whole).\(tenth) \(unit.name)"
        }
        return "\(bytes) B"
    }

    /// `1 operation`, `2 operations`.
    package static func count(_ number: Int, _ thing: String) -> String {
        number == 1 ? "1 \(thing)" : "\(number) \(thing)s"
    }

    /// Lines of columns, each as wide as its widest cell; the last is left as it is.
    package static func table(_ rows: [[String]]) -> [String] {
        var widths: [Int] = []
        for row in rows {
            for (column, cell) in row.enumerated() where column < row.count - 1 {
                while widths.count <= column { widths.append(0) }
                widths[column] = max(widths[column], cell.count)
            }
        }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                line += cell
                if column < row.count - 1 {
                    line += String(repeating: " ", count: widths[column] - cell.count + 2)
                }
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }
}

extension HolderActivity {
    /// What the holder is doing, in one clause after another.
    package var words: String {
        var parts: [String] = []
        if exclusive > 0 { parts.append("\(Words.count(exclusive, "exclusive holder")) inside") }
        if shared > 0 { parts.append("\(Words.count(shared, "shared holder")) inside") }
        switch phase {
        case .steady: break
        case .requesting:
            parts.append("asks for \(target?.description ?? "?") since \(Words.age(phaseAge))")
        case .demoting:
            let now = step.map { ", \(Self.words($0))" } ?? ""
            let to = target?.description ?? "?"
            parts.append("giving way to \(to) since \(Words.age(phaseAge))\(now)")
        case .lowering:
            parts.append("lowering to \(target?.description ?? "?") since \(Words.age(phaseAge))")
        }
        if dirtyBytes > 0 { parts.append("\(Words.size(dirtyBytes)) dirty to flush") }
        if hasUnsettledMetadata { parts.append("changes to commit") }
        if isCommitting { parts.append("a journal commit under way") }
        if queued > 0 { parts.append("\(Words.count(queued, "operation")) queued inside the node") }
        if !asked.isEmpty {
            let nodes = asked.map(\.description).joined(separator: ", ")
            parts.append("asks \(nodes) about the file since \(Words.age(askedAge))")
        }
        if parts.isEmpty { parts.append("idle") }
        if let toldAge { parts.append("was told \(Words.age(toldAge)) ago") }
        return parts.joined(separator: ", ")
    }

    private static func words(_ step: Step) -> String {
        switch step {
        case .invalidating: "taking back what the kernel has cached"
        case .draining: "waiting for operations inside"
        case .writing: "writing file data"
        case .committing: "committing the journal and writing metadata home"
        }
    }
}

extension LockReport {
    /// What is to be said of the lock besides node, mode and age.
    package var doing: String {
        var parts: [String] = []
        if let bytes {
            // What keeps the mastership of a file in use has none to speak of.
            if granted != .null || requested != nil { parts.append(bytes.description) }
        } else if owner != .none {
            parts.append("an application's lock (\(owner))")
        }
        if isOrphan { parts.append("an orphan: its owner is gone") }
        if parent != .none { parts.append("below \(parent)") }
        if let activity { parts.append(activity.words) }
        if state == .unlocking { parts.append("being unlocked") }
        return parts.joined(separator: ", ")
    }
}
