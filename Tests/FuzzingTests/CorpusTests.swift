// What fuzzing has found is run again: inputs that failed once, by the name of what was wrong, and those
// that reach the most of the code. And changes of them by dice, by seed.

import Foundation
import Fuzzing
import Testing

/// Inputs kept in Tests/Corpus.
private enum Corpus {
    private static var folder: URL {
        URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Corpus")
    }

    static func names(of target: FuzzTarget) -> [String] {
        let path = folder.appendingPathComponent(target.rawValue).path
        return (try? FileManager.default.contentsOfDirectory(atPath: path))?.sorted() ?? []
    }

    static func bytes(_ target: FuzzTarget, _ name: String) throws -> [UInt8] {
        let path = folder.appendingPathComponent(target.rawValue).appendingPathComponent(name)
        return Array(try Data(contentsOf: path))
    }

    /// The inputs that are run: those whose name says what was wrong and is no checksum, and of the
    /// others so many that it takes seconds; all of them when time was given.
    static func chosen(of target: FuzzTarget) -> [String] {
        let step = target == .image && number("LOCKSTEP_FUZZ_SECONDS") == nil ? 6 : 1
        return names(of: target).enumerated()
            .filter { $0.element.contains("-") || $0.offset % step == 0 }.map(\.element)
    }

    /// An environment variable as a number.
    static func number(_ name: String) -> Int? {
        ProcessInfo.processInfo.environment[name].flatMap { Int($0) }
    }
}

@Suite struct CorpusTests {
    /// The inputs of every target, in parts of a hundred.
    private static let parts: [(FuzzTarget, Int)] = FuzzTarget.allCases.flatMap { target in
        stride(from: 0, to: Corpus.chosen(of: target).count, by: 100).map { (target, $0) }
    }

    @Test(arguments: parts)
    func keptInputsAreRight(target: FuzzTarget, first: Int) throws {
        for name in Corpus.chosen(of: target).dropFirst(first).prefix(100) {
            let complaint = target.run(try Corpus.bytes(target, name))
            #expect(complaint == nil, "\(target)/\(name): \(complaint ?? "")")
        }
    }

    @Test(arguments: FuzzTarget.allCases)
    func thereIsACorpus(target: FuzzTarget) throws {
        let names = Corpus.names(of: target)
        #expect(names.count >= 50, "\(target): \(names.count) inputs")
        // Small inputs reach as much and are read by people.
        for name in names { #expect(try Corpus.bytes(target, name).count <= 4096, "\(name)") }
    }

    /// Z1: an input is the same case every time. (The mutator, too.)
    @Test func mutationsComeBack() {
        let kept: [[UInt8]] = [[1, 2, 3], Array(repeating: 7, count: 40)]
        var first = FuzzMutator(seed: 5, kept: kept)
        var second = FuzzMutator(seed: 5, kept: kept)
        var other = FuzzMutator(seed: 6, kept: kept)
        let inputs = (0..<50).map { _ in first.next(limit: 64) }
        #expect(inputs == (0..<50).map { _ in second.next(limit: 64) })
        #expect(inputs != (0..<50).map { _ in other.next(limit: 64) })
        #expect(inputs.allSatisfy { $0.count <= 64 } && Set(inputs).count > 40)
    }
}

/// A short run without libFuzzer. `LOCKSTEP_FUZZ_SEED` chooses another one, `LOCKSTEP_FUZZ_SECONDS` how long
/// each target takes; without it a fixed number of inputs is run, so that the test is the same every time.
@Suite struct MutationTests {
    private static func count(of target: FuzzTarget) -> Int {
        switch target {
        case .decoders: 300
        case .messages: 1000
        case .log: 25
        case .image: 10
        }
    }

    @Test(arguments: FuzzTarget.allCases)
    func changedInputsAreRight(target: FuzzTarget) throws {
        let seed = Corpus.number("LOCKSTEP_FUZZ_SEED") ?? 1
        let seconds = Corpus.number("LOCKSTEP_FUZZ_SECONDS")
        let kept = try Corpus.names(of: target).map { try Corpus.bytes(target, $0) }
        var mutator = FuzzMutator(seed: UInt64(seed), kept: kept)
        // Should it trap, the input is here.
        let trace = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lockstep-fuzz-\(target)-\(ProcessInfo.processInfo.processIdentifier)"
        )
        let end = seconds.map { Date().addingTimeInterval(Double($0)) }
        var number = 0
        while end.map({ Date() < $0 }) ?? (number < Self.count(of: target)) {
            let input = mutator.next(limit: target.longestInput)
            try Data(input).write(to: trace)
            let complaint = target.run(input)
            #expect(
                complaint == nil,
                "\(target), seed \(seed), input \(number): \(complaint ?? "")"
            )
            guard complaint == nil else { break }
            number += 1
        }
        if end != nil { print("\(target): seed \(seed), \(number) inputs") }
        try FileManager.default.removeItem(at: trace)
    }
}
