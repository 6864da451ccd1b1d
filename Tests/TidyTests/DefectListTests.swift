import Foundation
import Testing

/// Tests/Mutations/deliberate.txt says of each defect what it changes: that must stand in the sources as
/// they are, once, or `tools/mutations --cluster` stops at the first that does not.
@Suite struct DefectListTests {
    private struct Defect {
        var name: String
        var file: String
        var old: [String] = []
        var new: [String] = []
    }

    private func defects() throws -> [Defect] {
        let tree = SourceTree.shared
        let list = try #require(
            tree.texts.first { $0.path == "Tests/Mutations/deliberate.txt" }
        )
        var found: [Defect] = []
        for line in list.lines where !line.isEmpty && !line.hasPrefix("#") {
            if line.hasPrefix("@ ") {
                let words = line.split(separator: " ").map(String.init)
                try #require(words.count == 3, "\(line)")
                found.append(Defect(name: words[1], file: words[2]))
                continue
            }
            try #require(!found.isEmpty, "\(line)")
            if line.hasPrefix("-") { found[found.count - 1].old.append(String(line.dropFirst())) }
            if line.hasPrefix("+") { found[found.count - 1].new.append(String(line.dropFirst())) }
        }
        return found
    }

    @Test func everyDefectFitsTheSources() throws {
        let defects = try defects()
        #expect(defects.count >= 25)
        #expect(Set(defects.map(\.name)).count == defects.count, "two have one name")
        for defect in defects {
            let path = "\(SourceTree.shared.root)/\(defect.file)"
            let text = try String(contentsOfFile: path, encoding: .utf8)
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
                .map(String.init)
            let old = defect.old
            try #require(!old.isEmpty, "\(defect.name) changes nothing")
            let places = lines.indices.filter { start in
                start + old.count <= lines.count
                    && lines[start..<start + old.count].elementsEqual(old)
            }
            #expect(
                places.count == 1,
                "\(defect.name) stands \(places.count) times in \(defect.file)"
            )
            #expect(defect.new.contains { $0.contains("DEFECT") }, "\(defect.name) has no switch")
        }
    }
}
