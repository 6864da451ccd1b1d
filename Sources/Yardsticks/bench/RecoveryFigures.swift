// How long others wait when a node is killed: from SIGKILL to the first create by another node in the
// directory that the dead one was working in.

import ArgumentParser
import CLinux
import Glibc
import LinuxSystem
import Vocabulary

struct Recovery: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure how long others wait after a node was killed.",
        discussion: """
            Makes an image and mounts it on three nodes. In each round one node creates files in a \
            directory without a pause and is killed; from that moment another node tries to create \
            one there. Shown are the time until that has succeeded, what the survivor says that the \
            replay took of it, and the rest: noticing the death, fencing, taking back what the dead \
            node's kernel had cached, a new view, the lock tables.
            """
    )

    @Option(help: "Where the image goes.")
    var folder = "/var/tmp"

    @Option(help: "Where the commands are. (default: beside this one)")
    var bin: String?

    @Option(help: "Rounds.")
    var rounds = 20

    @Option(help: "Files that are created before the node is killed.")
    var files = 2_000

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    func validate() throws {
        guard (1...1_000).contains(rounds) else { throw ValidationError("--rounds: 1 to 1000") }
        guard (1...1_000_000).contains(files) else {
            throw ValidationError("--files: 1 to 1000000")
        }
    }

    func run() throws {
        let lab = try RecoveryLab(bin: bin ?? ownFolder, folder: folder)
        defer { lab.cluster.takeDown() }
        var figures: [RecoveryLab.Figure] = []
        for round in 0..<rounds { figures.append(try lab.round(round, files: files)) }
        print(json ? Self.json(figures) : Self.report(figures))
    }

    private static func report(_ figures: [RecoveryLab.Figure]) -> String {
        func row(_ name: String, _ value: (RecoveryLab.Figure) -> UInt64) -> [String] {
            let sorted = figures.map(value).sorted()
            let picks = [sorted.first, sorted[sorted.count / 2], sorted.last].compactMap { $0 }
            return [name] + picks.map { rounded(Double($0) / 1_000_000) }
        }
        return table([
            ["ms", "least", "median", "most"], row("SIGKILL to create", \.total),
            row("replay until others go on", \.untilCovered), row("replay to its end", \.replay),
            row("besides the replay", \.besides),
        ])
    }

    private static func json(_ figures: [RecoveryLab.Figure]) -> String {
        JSONText.array(
            figures.map {
                .object([
                    .init("nanoseconds", .number($0.total)),
                    .init("replayUntilOthersGoOn", .number($0.untilCovered)),
                    .init("replay", .number($0.replay)), .init("besides", .number($0.besides)),
                ])
            }
        ).text
    }
}

/// Three nodes, one of which is killed again and again.
private final class RecoveryLab {
    /// One round, in nanoseconds.
    struct Figure {
        var total: UInt64
        var untilCovered: UInt64
        var replay: UInt64
        /// What the create waited beyond the replay of the journal.
        var besides: UInt64 { total - min(total, replay) }
    }

    let cluster: BenchCluster
    private var roots: [String] { cluster.roots }

    init(bin: String, folder: String) throws {
        cluster = try BenchCluster(bin: bin, folder: folder, nodes: 3, size: "4G")
    }

    /// Kills a node at work and has another create beside it.
    func round(_ round: Int, files: Int) throws -> Figure {
        let victim = roots[round % 3]
        let other = roots[(round + 1) % 3]
        let place = "round\(round)"
        guard mkdir("\(victim)/\(place)", 0o755) == 0 else {
            throw BenchFailure.last("mkdir", victim)
        }
        let daemon = pid_t(try cluster.status(victim).number("pid"))
        for index in 0..<files { try create("\(victim)/\(place)/before-\(index)") }
        // A node that has come back has a list of its own.
        let survivors = try roots.filter { $0 != victim }.map {
            (root: $0, known: try cluster.status($0).list("recoveries").count)
        }
        guard kill(daemon, SIGKILL) == 0 else { throw BenchFailure.last("kill", victim) }
        let start = nanoseconds()
        try create("\(other)/\(place)/after")
        let total = nanoseconds() - start
        let recovery = try waitForRecovery(survivors)
        try Programs.run("fusermount3", ["-u", "-z", victim])
        try cluster.mount(victim)
        return Figure(
            total: total,
            untilCovered: recovery.number("microsecondsUntilOthersGoOn") * 1_000,
            replay: recovery.number("microseconds") * 1_000
        )
    }

    /// What the recovering node tells of the recovery: any of the survivors is it.
    private func waitForRecovery(_ survivors: [(root: String, known: Int)]) throws -> JSONText {
        let deadline = nanoseconds() + 60_000_000_000
        while nanoseconds() < deadline {
            for (root, known) in survivors {
                let all = try cluster.status(root).list("recoveries")
                if all.count > known, let newest = all.last { return newest }
            }
            poll(nil, 0, 5)
        }
        throw BenchFailure("no survivor has replayed a journal within a minute")
    }

    private func create(_ path: String) throws {
        let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
        guard descriptor >= 0 else { throw BenchFailure.last("create", path) }
        close(descriptor)
    }
}
