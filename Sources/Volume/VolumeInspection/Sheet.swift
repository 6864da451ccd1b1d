// What is told about a volume: named values, sections and tables, as they come, so that a directory of
// a million names needs no more memory than one of ten. How it looks is the renderer's business.
//
// H1. Sections and tables are closed in the order in which they were opened.
// H2. What is wrong is said where it is met, counted, and makes the answer "not sound".

import Vocabulary

/// One value.
package enum SheetValue: Hashable, Sendable {
    case number(UInt64)
    case text(String)
    case flag(Bool)
    /// There is none.
    case nothing

    /// A number in base 16, which scripts get as text.
    static func hexadecimalNumber(_ value: UInt64, digits: Int = 1) -> SheetValue {
        .text("0x" + hexadecimal(value, digits: digits))
    }

    /// The number of a block; nothing for address 0.
    static func address(_ address: BlockAddress) -> SheetValue {
        address == .none ? .nothing : .number(address.rawValue)
    }
}

/// A column of a table.
package struct SheetColumn: Hashable, Sendable {
    package var name: String
    /// Characters that it has in a table for people; wider values push the others aside.
    package var width: Int
    /// Whether values stand at the right, as numbers do.
    package var isRight: Bool

    /// Numbers.
    static func number(_ name: String, _ width: Int) -> SheetColumn {
        SheetColumn(name: name, width: max(width, name.count), isRight: true)
    }

    /// Words.
    static func text(_ name: String, _ width: Int) -> SheetColumn {
        SheetColumn(name: name, width: max(width, name.count), isRight: false)
    }
}

/// Makes text of what is told.
package protocol SheetRenderer: AnyObject {
    /// A named value of the section that is open.
    func field(_ name: String, _ value: SheetValue)
    /// Opens a section.
    func beginSection(_ name: String)
    /// Opens a list of sections, which all have the same name.
    func beginList(_ name: String)
    /// Opens a section of the list that is open.
    func beginItem(_ title: String)
    /// Opens a table.
    func beginTable(_ name: String, _ columns: [SheetColumn])
    /// A line of the table that is open.
    func row(_ values: [SheetValue])
    /// Closes what was opened last.
    func end()
    /// Says that something is wrong.
    func damage(_ text: String)
    /// Says how to take what follows.
    func note(_ text: String)
    /// The end: nothing follows.
    func finish(damageCount: UInt64)
}

/// What is told about a volume.
package final class Sheet {
    private let renderer: any SheetRenderer
    private var depth = 0
    /// How many things were found wrong (H2).
    package private(set) var damageCount: UInt64 = 0

    package init(_ renderer: any SheetRenderer) { self.renderer = renderer }

    func field(_ name: String, _ value: SheetValue) { renderer.field(name, value) }
    func field(_ name: String, _ value: UInt64) { renderer.field(name, .number(value)) }
    func field(_ name: String, _ value: UInt32) { renderer.field(name, .number(UInt64(value))) }
    func field(_ name: String, _ value: String) { renderer.field(name, .text(value)) }
    func field(_ name: String, _ value: Bool) { renderer.field(name, .flag(value)) }

    func beginSection(_ name: String) {
        depth += 1
        renderer.beginSection(name)
    }

    func beginList(_ name: String) {
        depth += 1
        renderer.beginList(name)
    }

    func beginItem(_ title: String) {
        depth += 1
        renderer.beginItem(title)
    }

    func beginTable(_ name: String, _ columns: [SheetColumn]) {
        depth += 1
        renderer.beginTable(name, columns)
    }

    func row(_ values: [SheetValue]) { renderer.row(values) }

    func end() {
        precondition(depth > 0, "H1: nothing is open")
        depth -= 1
        renderer.end()
    }

    /// Says that something is wrong (H2).
    package func damage(_ text: String) {
        damageCount += 1
        renderer.damage(text)
    }

    /// Says that a structure is not what it should be (H2).
    func damage(_ error: any Error) { damage("\(error)") }

    /// Says how to take the answer.
    package func note(_ text: String) { renderer.note(text) }

    /// Ends the answer.
    package func finish() {
        precondition(depth == 0, "H1: something is still open")
        renderer.finish(damageCount: damageCount)
    }

    /// Closes what an answer that could not be finished has left open.
    func endAll() {
        while depth > 0 { end() }
    }
}
