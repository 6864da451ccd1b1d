/// Answers for people: a line for each value, indented by sections; damage behind `!`.
package final class TextRenderer: SheetRenderer {
    private enum Level {
        case section
        case list
        case table([SheetColumn])
    }

    private let write: (String) -> Void
    private var levels: [Level] = []

    /// Gives each line, its end included, to `write`.
    package init(_ write: @escaping (String) -> Void) { self.write = write }

    private var indentation: String {
        // A list has no line of its own.
        let depth = levels.reduce(0) { if case .list = $1 { $0 } else { $0 + 1 } }
        return String(repeating: "  ", count: depth)
    }

    private func line(_ text: String) { write(indentation + text + "\n") }

    private func text(_ value: SheetValue) -> String {
        switch value {
        case .number(let number): String(number)
        case .text(let text): text
        case .flag(let flag): flag ? "yes" : "no"
        case .nothing: "-"
        }
    }

    package func field(_ name: String, _ value: SheetValue) {
        line("\(name): \(text(value))")
    }

    package func beginSection(_ name: String) {
        line("\(name):")
        levels.append(.section)
    }

    package func beginList(_ name: String) { levels.append(.list) }

    package func beginItem(_ title: String) { beginSection(title) }

    package func beginTable(_ name: String, _ columns: [SheetColumn]) {
        line("\(name):")
        levels.append(.table(columns))
        line(joined(columns.map(\.name), columns))
    }

    package func row(_ values: [SheetValue]) {
        guard case .table(let columns)? = levels.last else {
            preconditionFailure("H1: a row outside a table")
        }
        line(joined(values.map(text), columns))
    }

    /// The cells of a line, each as wide as its column; nothing behind the last.
    private func joined(_ cells: [String], _ columns: [SheetColumn]) -> String {
        var line = ""
        for (index, (cell, column)) in zip(cells, columns).enumerated() {
            if index > 0 { line += "  " }
            let blanks = String(repeating: " ", count: max(0, column.width - cell.count))
            let isLast = index == columns.count - 1
            line += column.isRight ? blanks + cell : isLast ? cell : cell + blanks
        }
        return line
    }

    package func end() { levels.removeLast() }
    package func damage(_ text: String) { line("! \(text)") }
    package func note(_ text: String) { line("(\(text))") }

    package func finish(damageCount: UInt64) {
        guard damageCount > 0 else { return }
        line(damageCount == 1 ? "1 thing is wrong" : "\(damageCount) things are wrong")
    }
}
