import ArgumentParser
import Glibc
import LockWorld

/// `lockstep-lockcheck scenarios`: scripts of a story, commands and recorded output.
struct ScenarioCheck: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scenarios",
        abstract: "Runs scripts and compares what happens with what stands in them."
    )

    @Argument(help: "Scripts, as in Tests/Scenarios.")
    var files: [String]

    @Flag(help: "Writes what happens into the scripts instead of comparing.")
    var record = false

    func run() async throws {
        var failures = 0
        for file in files {
            guard let lines = Self.lines(of: file) else {
                print("\(file): cannot be read")
                throw ExitCode(2)
            }
            do {
                let result = try ScenarioWorld.replay(lines)
                if result == lines { continue }
                if record {
                    try Self.save(result, file)
                    continue
                }
                let place = zip(result, lines).enumerated().first { $0.element.0 != $0.element.1 }
                let number = (place?.offset ?? min(result.count, lines.count)) + 1
                print("\(file):\(number): \(place?.element.0 ?? "another end")")
            } catch {
                print("\(file): \(error)")
            }
            failures += 1
        }
        if failures > 0 { throw ExitCode(1) }
        print("\(files.count) scripts: ok")
    }

    private static func save(_ lines: [String], _ path: String) throws {
        let text = lines.joined(separator: "\n") + "\n"
        guard let file = fopen(path, "w"), fputs(text, file) >= 0, fclose(file) == 0 else {
            print("\(path): cannot be written")
            throw ExitCode(2)
        }
    }

    private static func lines(of path: String) -> [String]? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
            bytes += buffer[..<count]
        }
        var lines = String(decoding: bytes, as: UTF8.self)
            .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if lines.last == "" { lines.removeLast() }
        return lines
    }
}
