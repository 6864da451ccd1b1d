// Every script of Tests/Scenarios gives the output that stands in it.

import Glibc
import LockWorld
import Testing

struct ScenarioTests {
    static let folder: String = {
        let file = "\(#filePath)"
        let here = file[..<(file.lastIndex(of: "/") ?? file.endIndex)]
        return "\(here)/../Scenarios"
    }()

    static let scripts: [String] = {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasSuffix(".txt") { names.append(name) }
        }
        return names.sorted()
    }()

    static func read(_ name: String) -> [String]? {
        guard let file = fopen("\(folder)/\(name)", "r") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            if count == 0 { break }
            bytes += buffer[..<count]
        }
        var lines = String(decoding: bytes, as: UTF8.self)
            .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if lines.last == "" { lines.removeLast() }
        return lines
    }

    static func write(_ name: String, _ lines: [String]) {
        guard let file = fopen("\(folder)/\(name)", "w") else {
            Issue.record("\(name) cannot be written")
            return
        }
        fputs(lines.joined(separator: "\n") + "\n", file)
        fclose(file)
    }

    @Test("There are scenarios")
    func some() { #expect(Self.scripts.count >= 12) }

    @Test("Scenario", arguments: scripts)
    func scenario(name: String) throws {
        let lines = try #require(Self.read(name))
        let result = try ScenarioWorld.replay(lines)
        if environment("LOCKSTEP_RECORD") != nil {
            Self.write(name, result)
            return
        }
        #expect(result == lines, "LOCKSTEP_RECORD=1 records \(name) anew")
    }
}
