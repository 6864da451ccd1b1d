import Glibc
import LinuxSystem
import Testing

/// Processes of a group on hosts of `tools/lab`, with a real corosync each.
@Suite(.serialized, .enabled(if: Lab.isPossible, "needs root and corosync"))
struct LabTests {
    /// A host that is cut off loses its quorum, is doomed and fenced, and is expelled when it comes back; it can join again.
    @Test func aHostThatIsCutOff() throws {
        let lab = try Lab("ltcut", hosts: 3)
        defer { lab.end() }
        let (one, two, three) = (
            try lab.process("h1"), try lab.process("h2"), try lab.process("h3")
        )
        try joinAll([one, two, three])
        try lab.run("cut", "h3")
        try three.expect("permit false")
        try one.expect("fence 3 host 3 gone")
        #expect(two.count("permit false") == 0)
        #expect(two.count("view 4") == 0, "nobody goes on before the fence is confirmed")
        one.say("fenced 3")
        try two.expect("view 4 members 1,2 replay 1")
        try lab.run("heal", "h3")
        try three.expect("expelled")
        three.say("withdrew")
        try one.expect("says n3 is over: withdrawn")
        three.end()
        one.say("replayed 4")
        let again = try lab.process("h3")
        again.say("join")
        try again.expect("joined 3")
        try two.expect("view 5 members 1,2,3 replay 0")
    }

    /// Without a quorum nobody goes on, and nobody is lost; when the network heals all go on as they were.
    @Test func nobodyHasAQuorum() throws {
        let lab = try Lab("ltall", hosts: 3)
        defer { lab.end() }
        let all = [try lab.process("h1"), try lab.process("h2"), try lab.process("h3")]
        try joinAll(all)
        try lab.run("cut", "h2")
        try lab.run("cut", "h3")
        for process in all { try process.expect("permit false") }
        try lab.run("heal", "all")
        for process in all { try process.expect("permit true", times: 2) }
        // A goodbye is heard by all only in a ring that has begun its era: what should not have come would have come by then.
        all[2].say("leave")
        for process in all[..<2] { try process.expect("view 4 members 1,2") }
        for process in all {
            #expect(process.count("expelled") == 0 && process.count("fence ") == 0)
        }
    }

    private func joinAll(_ processes: [LabProcess]) throws {
        for (index, process) in processes.enumerated() {
            process.say("join")
            try process.expect("view \(index + 1) members")
            if index == 0 { process.say("replayed 1") }
        }
        for process in processes { try process.expect("view \(processes.count) members 1,2,3") }
    }
}

/// Something did not happen.
struct LabFailure: Error, CustomStringConvertible {
    let description: String
}

/// Hosts of `tools/lab`.
final class Lab {
    static var isPossible: Bool {
        geteuid() == 0 && access("/usr/sbin/corosync", X_OK) == 0
    }

    private static let tool =
        "\(#filePath)".split(separator: "/").dropLast(3).reduce("") { "\($0)/\($1)" } + "/tools/lab"
    private let name: String
    private let journal: String
    private var processes: [LabProcess] = []

    init(_ name: String, hosts: Int) throws {
        self.name = name
        journal = "/tmp/lockstep-lab-\(name).\(getpid())"
        guard mkdir(journal, 0o700) == 0 else { throw LabFailure(description: "mkdir \(journal)") }
        signal(SIGPIPE, SIG_IGN)  // a process that has ended is told so all the same
        try run("down")  // what an earlier run has left
        try run("up", "\(hosts)")
    }

    func run(_ arguments: String...) throws {
        let child = try ChildProcess("/usr/bin/env", ["LAB=\(name)", Self.tool] + arguments)
        let code = child.end()
        guard code == 0 else {
            throw LabFailure(description: "tools/lab \(arguments): exit code \(code)")
        }
    }

    /// A process of the group on a host; corosync may still be starting there.
    func process(_ host: String) throws -> LabProcess {
        let deadline = LinuxSystem.monotonicNow() + 60_000_000_000
        while LinuxSystem.monotonicNow() < deadline {
            let probe = "\(Self.binaries)/groupprobe"
            let process = try LabProcess(
                "/usr/bin/env",
                ["LAB=\(name)", Self.tool, "run", host, probe, name, "8", journal]
            )
            if (try? process.expect("here")) != nil {
                processes.append(process)
                return process
            }
            process.end()
        }
        throw LabFailure(description: "corosync does not start on \(host)")
    }

    func end() {
        for process in processes { process.end() }
        do {
            try run("down")
        } catch {
            Issue.record(error)
        }
        _ = try? ChildProcess("/bin/rm", ["-rf", journal]).end()
    }

    private static var binaries: String {
        if let folder = getenv("LOCKSTEP_BIN") { return String(cString: folder) }
        return "\(#filePath)".split(separator: "/").dropLast(3).reduce("") { "\($0)/\($1)" }
            + "/.build/debug"
    }
}

/// A `groupprobe`.
final class LabProcess {
    private let child: ChildProcess
    private var lines: [String] = []
    private var isOver = false

    init(_ path: String, _ arguments: [String]) throws {
        child = try ChildProcess(path, arguments)
        // What poll(2) does not tell of must not be read ahead.
        setvbuf(child.output, nil, _IONBF, 0)
    }

    func say(_ line: String) { _ = child.write(line) }

    func count(_ start: String) -> Int { lines.count { $0.hasPrefix(start) } }

    /// Waits until so many of its lines begin like that.
    func expect(_ start: String, times: Int = 1) throws {
        let deadline = LinuxSystem.monotonicNow() + 60_000_000_000
        while count(start) < times {
            guard LinuxSystem.monotonicNow() < deadline else {
                throw LabFailure(description: "'\(start)' did not come: \(lines)")
            }
            guard child.says(within: 1_000) else { continue }
            guard let line = child.readLine() else {
                throw LabFailure(description: "it ended before '\(start)' came: \(lines)")
            }
            lines.append(line)
        }
    }

    func end() {
        guard !isOver else { return }
        isOver = true
        say("end")
        _ = child.end()
    }
}
