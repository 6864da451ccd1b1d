// Another node of the lock benchmark: a process that does what the first node says on its standard
// input, a line at a time, and answers with a line.
//
//   listening                       said first, without being asked
//   join COUNT         ready        enters the view of nodes 1 to COUNT
//   master COUNT       done         takes NL locks on names 0 to COUNT - 1
//   contend MILLISECONDS   MESSAGES NANOSECONDS...       see Contention.swift

import ArgumentParser
import Glibc
import LinuxSystem
import Vocabulary

struct LockPeer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lock-peer",
        abstract: "One more node of 'locks', which starts it.",
        shouldDisplay: false
    )

    @Option(help: "The number of the node.")
    var node: UInt32

    @Option(help: "Where the sockets are.")
    var folder: String

    func run() throws {
        // The end of the first node is the end of this one.
        let node = try BenchNode(node: NodeID(self.node)) { _ in Glibc.exit(0) }
        try node.listen(in: folder)
        say("listening")
        while let line = readLine() {
            let words = line.split(separator: " ")
            guard words.count == 2, let number = UInt64(words[1]) else {
                throw BenchFailure("'\(line)' is not understood")
            }
            switch words[0] {
            case "join":
                node.join(count: UInt32(number))
                say("ready")
            case "master":
                node.run { await Self.master(node, number) }
                say("done")
            case "contend":
                let result = Contention.run(on: node, milliseconds: number)
                say(([result.messages] + result.samples).map(String.init).joined(separator: " "))
            default: throw BenchFailure("'\(line)' is not understood")
            }
        }
    }

    private static func master(_ node: BenchNode, _ count: UInt64) async {
        for index in 0..<count {
            let cookie = node.takeCookie()
            _ = await node.request(benchName(index), .null, cookie: cookie)
        }
    }

    private func say(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes[done...].withUnsafeBytes {
                write(STDOUT_FILENO, $0.baseAddress, $0.count)
            }
            if count <= 0 { return }
            done += count
        }
    }
}

/// The process of another node, seen from the first.
final class PeerProcess {
    private let program: ChildProcess

    init(node: UInt32, folder: String) throws {
        program = try ChildProcess(
            ownFolder + "/lockstep-bench",
            ["lock-peer", "--node", "\(node)", "--folder", folder]
        )
        guard try hear() == "listening" else { throw BenchFailure("a node does not listen") }
    }

    func say(_ line: String) throws {
        guard program.write(line) else { throw BenchFailure.last("write to", "another node") }
    }

    func hear() throws -> String {
        guard let line = program.readLine() else { throw BenchFailure("another node has ended") }
        return line
    }

    func end() { _ = program.end() }
}
