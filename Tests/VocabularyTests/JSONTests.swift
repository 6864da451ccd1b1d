import Testing
import Vocabulary

@Suite struct JSONTests {
    private func value(_ dice: inout SeededGenerator, _ depth: Int) -> JSONText {
        switch dice.below(depth > 3 ? 4 : 6) {
        case 0: return .null
        case 1: return .boolean(dice.oneIn(2))
        case 2: return .number(dice.oneIn(9) ? .max : UInt64(dice.below(1000)))
        case 3: return .string(text(&dice))
        case 4: return .array((0..<dice.below(4)).map { _ in value(&dice, depth + 1) })
        default:
            return .object(
                (0..<dice.below(4)).map { _ in .init(text(&dice), value(&dice, depth + 1)) }
            )
        }
    }

    private func text(_ dice: inout SeededGenerator) -> String {
        let letters: [Character] = [
            "a", "\"", "\\", "\n", "\t", "\u{1}", "\u{7f}", "ä", "🐘", "/", " ",
        ]
        return String((0..<dice.below(6)).map { _ in letters[dice.below(letters.count)] })
    }

    @Test(arguments: 0..<300) func whatIsWrittenIsReadAgain(seed: Int) throws {
        var dice = SeededGenerator(seed: UInt64(seed))
        let value = value(&dice, 0)
        #expect(try JSONText(parsing: value.text) == value)
        #expect(try JSONText(parsing: " \n" + value.text + "\t ") == value)
    }

    @Test(arguments: [
        "", " ", "nul", "-1", "1.5", "1 2", "[1", "[1,]", "{\"a\"}", "{\"a\":}", "{a:1}", "\"a",
        "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"a\nb\"", "18446744073709551616",
        String(repeating: "[", count: 5000),
    ])
    func anythingElseIsRefused(text: String) {
        #expect(throws: JSONError.self) { try JSONText(parsing: text) }
    }

    @Test func membersAreFound() throws {
        let value = try JSONText(parsing: #"{"a": {"b": [1, "x\u0041"]}, "c": true}"#)
        #expect(value["a"]?["b"] == .array([.number(1), .string("xA")]))
        #expect(value["c"] == .boolean(true))
        #expect(value["d"] == nil)
        #expect(value["c"]?["e"] == nil)
    }
}
