import Foundation
import Testing

/// Lists of defects say of each what it changes: that must stand in the sources as they are, once, or
/// `tools/mutations --cluster` and `tools/races --defects` stop at the first that does not.
@Suite struct DefectListTests {
    private struct Defect {
        var name: String
        var file: String
        var old: [String] = []
        var new: [String] = []
    }

    private func defects(_ path: String) throws -> [Defect] {
        let list = try #require(SourceTree.shared.texts.first { $0.path == path })
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

    @Test(arguments: [("Tests/Mutations/deliberate.txt", 25), ("Tests/Races/deliberate.txt", 6)])
    func everyDefectFitsTheSources(_ list: String, atLeast least: Int) throws {
        let defects = try defects(list)
        #expect(defects.count >= least)
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
