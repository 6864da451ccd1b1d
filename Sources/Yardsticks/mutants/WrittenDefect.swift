// Defects that somebody thought of, as a list:
//
//   @ NAME FILE
//     what it does, on one line
//   - lines as they stand in the file, exactly once
//   + lines in their place, in which DEFECT is the switch
//
// Lines that begin with # say something to readers.

/// One of them.
struct WrittenDefect {
    var name: String
    var file: String
    var story = ""
    private var old: [Substring] = []
    private var new: [Substring] = []

    private init(name: String, file: String) {
        self.name = name
        self.file = file
    }

    /// The defects of a list; nil if it is none.
    static func list(_ text: String) -> [WrittenDefect]? {
        var found: [WrittenDefect] = []
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            if line.hasPrefix("@ ") {
                let words = line.split(separator: " ")
                guard words.count == 3 else { return nil }
                found.append(WrittenDefect(name: String(words[1]), file: String(words[2])))
                continue
            }
            guard let last = found.indices.last, let sign = line.first else { return nil }
            switch sign {
            case " ": found[last].story += line.drop { $0 == " " }
            case "-": found[last].old.append(line.dropFirst())
            case "+": found[last].new.append(line.dropFirst())
            default: return nil
            }
        }
        return found.allSatisfy { !$0.old.isEmpty && !$0.new.isEmpty } ? found : nil
    }

    /// A file with the defect in it, and the line where it is; nil if what it changes does not stand
    /// there exactly once.
    func applied(to text: String, number: Int) -> (text: String, line: Int)? {
        let pattern = old.joined(separator: "\n") + "\n"
        let places = text.ranges(of: pattern)
        guard places.count == 1 else { return nil }
        let changed = new.joined(separator: "\n").replacing(
            "DEFECT",
            with: "(activeMutant == \(number))"
        )
        let line = text[..<places[0].lowerBound].count { $0 == "\n" } + 1
        return (text.replacingCharacters(places[0], with: changed + "\n"), line)
    }
}

extension String {
    fileprivate func replacingCharacters(_ range: Range<Index>, with text: String) -> String {
        var changed = self
        changed.replaceSubrange(range, with: text)
        return changed
    }
}
