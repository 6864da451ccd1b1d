import Vocabulary

/// Answers for scripts: one object. Blanks in names are underscores; what is wrong stands at the end,
/// in `damage`, and `sound` says whether that is empty.
package final class JSONRenderer: SheetRenderer {
    private struct Level {
        var closing: String
        /// Whether members have names.
        var hasNames: Bool
        var isEmpty = true
        /// The columns of a table.
        var names: [String] = []
    }

    private let write: (String) -> Void
    private var levels: [Level] = []
    private var damages: [JSONText] = []
    private var notes: [JSONText] = []

    /// What is wrong is listed up to here and only counted behind it.
    package static let damageLimit = 1000

    /// Gives the text to `write`, piece by piece.
    package init(_ write: @escaping (String) -> Void) {
        self.write = write
        open("{", Level(closing: "}", hasNames: true))
    }

    private func open(_ text: String, _ level: Level) {
        write(text)
        levels.append(level)
    }

    /// What stands before a member: a comma, and its name where members have one.
    private func lead(_ name: String) {
        guard let level = levels.last else { preconditionFailure("H1: nothing is open") }
        if !level.isEmpty { write(", ") }
        levels[levels.count - 1].isEmpty = false
        if level.hasNames { write(Self.key(name) + ": ") }
    }

    private static func key(_ name: String) -> String {
        JSONText.string(String(name.map { $0 == " " ? "_" : $0 })).text
    }

    private func text(_ value: SheetValue) -> String {
        switch value {
        case .number(let number): JSONText.number(number).text
        case .text(let text): JSONText.string(text).text
        case .flag(let flag): JSONText.boolean(flag).text
        case .nothing: JSONText.null.text
        }
    }

    package func field(_ name: String, _ value: SheetValue) {
        lead(name)
        write(text(value))
    }

    package func beginSection(_ name: String) {
        lead(name)
        open("{", Level(closing: "}", hasNames: true))
    }

    package func beginList(_ name: String) {
        lead(name)
        open("[", Level(closing: "]", hasNames: false))
    }

    package func beginItem(_ title: String) { beginSection(title) }

    package func beginTable(_ name: String, _ columns: [SheetColumn]) {
        lead(name)
        let names = columns.map { Self.key($0.name) }
        open("[", Level(closing: "]", hasNames: false, names: names))
    }

    package func row(_ values: [SheetValue]) {
        guard let names = levels.last?.names, names.count == values.count else {
            preconditionFailure("H1: a row outside a table, or of another length")
        }
        lead("")
        let members = zip(names, values).map { "\($0): \(text($1))" }
        write("{" + members.joined(separator: ", ") + "}")
    }

    package func end() { write(levels.removeLast().closing) }

    package func damage(_ text: String) {
        if damages.count < Self.damageLimit { damages.append(.string(text)) }
    }

    package func note(_ text: String) { notes.append(.string(text)) }

    package func finish(damageCount: UInt64) {
        field("sound", .flag(damageCount == 0))
        field("damage count", .number(damageCount))
        lead("damage")
        write(JSONText.array(damages).text)
        lead("notes")
        write(JSONText.array(notes).text)
        end()
        write("\n")
    }
}
