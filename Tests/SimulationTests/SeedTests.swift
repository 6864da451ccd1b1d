import Glibc
import SimulatedWorld
import Testing
import Vocabulary

/// Seeds that once failed: one line each in `Tests/Seeds`, as `seed nodes steps faults mode story`.
@Suite struct SeedTests {
    @Test(arguments: SeedFile.lines)
    func seedThatOnceFailed(_ line: SeedLine) throws {
        _ = try Simulation.run(line.plan)
    }

    @Test func thereAreSeeds() { #expect(SeedFile.lines.count >= 8) }
}

struct SeedLine: Sendable, CustomTestStringConvertible {
    let plan: SimulationPlan
    let story: String

    var testDescription: String { "seed \(plan.seed): \(story)" }
}

enum SeedFile {
    /// The lines of `Tests/Seeds/simulation.txt`; a line that says nothing is an error of the test.
    static let lines: [SeedLine] = {
        var lines: [SeedLine] = []
        for text in read().split(separator: "\n") where !text.hasPrefix("#") {
            let words = text.split(separator: " ", maxSplits: 5)
            guard words.count == 6, let seed = UInt64(words[0]), let nodes = Int(words[1]),
                let steps = Int(words[2])
            else {
                Issue.record("not a line of seeds: \(text)")
                continue
            }
            var faults: SimulationFaults = []
            for name in words[3].split(separator: ",") where name != "none" {
                guard let known = SimulationFaults.byName.first(where: { $0.name == name }) else {
                    Issue.record("no fault is called \(name)")
                    continue
                }
                faults.insert(known.fault)
            }
            var plan = SimulationPlan(seed: seed, steps: steps, nodes: nodes, faults: faults)
            plan.isConcurrent = words[4] == "concurrent"
            lines.append(SeedLine(plan: plan, story: String(words[5])))
        }
        return lines
    }()

    /// The file's text; empty, which `thereAreSeeds` notices, if it cannot be read.
    private static func read() -> String {
        let folder = "\(#filePath)".split(separator: "/").dropLast(2).joined(separator: "/")
        guard let file = fopen("/\(folder)/Seeds/simulation.txt", "r") else { return "" }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            if count == 0 { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
