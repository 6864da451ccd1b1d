import Glibc
import SimulatedWorld
import Testing
import Vocabulary

/// Seeds that once failed: one line each in `Tests/Seeds`: the arguments of `lockstep-simulate`,
/// `#`, the story.
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
            let parts = text.split(separator: "#", maxSplits: 1)
            guard parts.count == 2, let plan = plan(parts[0].split(separator: " ").map(String.init))
            else {
                Issue.record("not a line of seeds: \(text)")
                continue
            }
            lines.append(SeedLine(plan: plan, story: String(parts[1])))
        }
        return lines
    }()

    /// The plan of a command line; nil if it is none.
    private static func plan(_ words: [String]) -> SimulationPlan? {
        var plan = SimulationPlan(seed: 0, steps: 200, nodes: 3, faults: .remount)
        // A seed alone decides all.
        if words.count == 2, words[0] == "--seed", let seed = UInt64(words[1]), seed > 0 {
            return .drawn(seed: seed)
        }
        var rest = words[...]
        while let word = rest.popFirst() {
            if word == "--concurrent" || word == "--sequential" {
                plan.isConcurrent = word == "--concurrent"
                continue
            }
            guard let value = rest.popFirst() else { return nil }
            switch word {
            case "--seed": plan.seed = UInt64(value) ?? 0
            case "--nodes": plan.nodes = Int(value) ?? 0
            case "--workload":
                guard let mix = WorkloadMix.all.first(where: { $0.name == value }) else {
                    return nil
                }
                plan.workload = mix
            case "--steps": plan.steps = Int(value) ?? 0
            case "--faults":
                plan.faults = []
                for name in value.split(separator: ",") where name != "none" {
                    guard let known = SimulationFaults.byName.first(where: { $0.name == name })
                    else { return nil }
                    plan.faults.insert(known.fault)
                }
            default: return nil
            }
        }
        return plan.seed > 0 && plan.nodes > 0 && plan.steps > 0 ? plan : nil
    }

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
