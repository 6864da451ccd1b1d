// 'lockstep-bench locks': the lock manager beside its yardsticks, all in turn, round after round, so
// that a machine that is busy for a while is busy for all of them.

import ArgumentParser
import Glibc
import LinuxSystem
import Vocabulary

struct Locks: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Measure the lock manager, and beside it what no request to another node can beat.",
        discussion: """
            The state machine alone (seconds of processor time), through the engine of a mount, and with \
            one and two other processes as nodes; beside them, in the same rounds, a ping-pong of 64 bytes \
            between two blocked threads, written in C. The middle of all rounds counts; the lowest and the \
            highest stand in brackets.
            """
    )

    @Option(help: "Rounds; the middle result of each test counts.")
    var rounds = 5

    @Option(help: "Operations of each test between nodes.")
    var requests = 10_000

    @Option(help: "Thousands of operations of each test on one node.")
    var thousands = 1_000

    @Option(help: "What to measure, with commas between.")
    var only = "core,engine,nodes"

    @Option(help: "Where the commands are. (default: beside this one)")
    var bin: String?

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    func validate() throws {
        guard (1...100).contains(rounds) else { throw ValidationError("--rounds: 1 to 100") }
        guard (1_000...10_000_000).contains(requests) else {
            throw ValidationError("--requests: 1000 to 10000000")
        }
        guard (1...100_000).contains(thousands) else {
            throw ValidationError("--thousands: 1 to 100000")
        }
        let parts = ["core", "engine", "nodes"]
        guard only.split(separator: ",").allSatisfy({ parts.contains(String($0)) }) else {
            throw ValidationError("--only: core, engine, nodes")
        }
    }

    func run() throws {
        var results = LockResults()
        let parts = Set(only.split(separator: ",").map(String.init))
        // First, while nothing else has grown the process.
        if parts.contains("core") { results.memory = try CoreLoad.memory() }
        let cores = CoreLoad(count: thousands * 1_000)
        for round in 1...rounds {
            complain("round \(round) of \(rounds)")
            if parts.contains("core") { cores.run { results.add($0) } }
            if parts.contains("engine") {
                try EngineLoad(count: thousands * 1_000).run { results.add($0) }
            }
            if parts.contains("nodes") { try betweenNodes(&results) }
        }
        print(json ? results.json : results.report())
    }

    private func betweenNodes(_ results: inout LockResults) throws {
        results.add(try pingPong("tcp", .pingPongTCP))
        let two = try RemoteLoad(nodes: 2)
        try two.requests(count: requests) { results.add($0) }
        results.add(try two.handOffs(.handOff2, milliseconds: 500))
        two.end()
        results.add(try pingPong("unix", .pingPongUnix))
        let three = try RemoteLoad(nodes: 3)
        results.add(try three.handOffs(.handOff3, milliseconds: 500))
        three.end()
    }

    /// Runs the yardstick in C.
    private func pingPong(_ transport: String, _ test: LockTest) throws -> LockFigure {
        let program = (bin ?? ownFolder) + "/lockstep-ping-pong"
        let arguments = [transport, "--bytes", "64", "--count", "\(requests)"]
        let yardstick = try ChildProcess(program, arguments)
        let line = yardstick.readLine()
        _ = yardstick.end()
        guard let text = line else { throw BenchFailure("\(program) said nothing") }
        let answer = try JSONText(parsing: text)
        func number(_ name: String) throws -> Double {
            guard case .number(let value)? = answer[name] else {
                throw BenchFailure("\(program) said '\(text)'")
            }
            return Double(value)
        }
        var figure = LockFigure(test, count: requests, seconds: try number("nanoseconds") * 1e-9)
        figure.median = try number("median") * 1e-3
        figure.percentile99 = try number("p99") * 1e-3
        figure.messages = 2
        return figure
    }
}
