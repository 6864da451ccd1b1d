// What several nodes lose or win by using the same files at the same time, each figure beside one that is measured in
// the same round: one node alone, the local file system, or the parts that the work is made of.

import ArgumentParser
import CLinux
import Glibc
import LinuxSystem
import Vocabulary

struct Sharing: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Measure nodes that use the same files: writers, creators, locks, readers of what others write.",
        discussion: """
            Makes an image and mounts it on two nodes. Parts: 'halves' (both rewrite their half of one file, \
            beside one alone), 'creates' (both create files in one directory, beside one alone), 'listing' (ls -l \
            of files that the other appends to, beside nobody appending), 'locks' (byte-range locks and flock \
            passed round in a ring, with reads and writes of the byte and with a mapping, on one node and on two, \
            beside requests of a FUSE daemon that does nothing), 'handoff' (4 KiB written here and read there, \
            beside the messages, writes, flushes and reads that it takes). The middle round counts.
            """
    )

    static let parts = ["halves", "creates", "listing", "locks", "handoff"]

    @Option(help: "Where the image and the local files go.")
    var folder = "/var/tmp"

    @Option(help: "Where the commands are. (default: beside this one)")
    var bin: String?

    @Option(help: "Rounds.")
    var rounds = 3

    @Option(help: "Seconds that each rate is measured for.")
    var seconds = 3.0

    @Option(help: "The parts, with commas between.")
    var only = Sharing.parts.joined(separator: ",")

    @Option(help: "More options of each mount, with commas between.")
    var options = ""

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    private var wanted: [String] { only.split(separator: ",").map(String.init) }

    func validate() throws {
        guard (1...100).contains(rounds) else { throw ValidationError("--rounds: 1 to 100") }
        guard (0.1...600).contains(seconds) else { throw ValidationError("--seconds: 0.1 to 600") }
        for part in wanted where !Self.parts.contains(part) {
            throw ValidationError(
                "--only: '\(part)' is none of \(Self.parts.joined(separator: ", "))"
            )
        }
    }

    func run() throws {
        let bin = bin ?? ownFolder
        let cluster = try BenchCluster(
            bin: bin,
            folder: folder,
            nodes: 2,
            size: "4G",
            options: options
        )
        defer { cluster.takeDown() }
        let bench = SharingBench(cluster: cluster, bin: bin, seconds: seconds)
        var rounds: [[SharingFigure]] = []
        for round in 0..<self.rounds {
            var figures: [SharingFigure] = []
            for part in wanted { figures += try bench.measure(part, round) }
            rounds.append(figures)
        }
        let middle = rounds[0].indices.map { place in
            SharingFigure.middle(rounds.map { $0[place] })
        }
        print(json ? JSONText.array(middle.map(\.json)).text : SharingFigure.report(middle))
    }
}

/// One figure beside another.
struct SharingFigure {
    let name: String
    let value: Double
    let unit: String
    /// What it is beside, and how much that came to.
    let yardstick: String
    let beside: Double
    /// What else is to be known, for people.
    var remark = ""

    var ratio: Double { value / max(beside, 1e-9) }

    /// Of the same figure in several rounds the one whose ratio is in the middle.
    static func middle(_ figures: [SharingFigure]) -> SharingFigure {
        figures.sorted { $0.ratio < $1.ratio }[figures.count / 2]
    }

    /// A table, and below it what is to be known besides.
    static func report(_ figures: [SharingFigure]) -> String {
        let rows = figures.map {
            [
                $0.name, rounded($0.value) + " " + $0.unit,
                rounded($0.beside) + " " + $0.yardstick, rounded($0.ratio),
            ]
        }
        let remarks = figures.filter { !$0.remark.isEmpty }.map { "\($0.name): \($0.remark)" }
        return table([["test", "figure", "beside", "ratio"]] + rows) + "\n\n"
            + remarks.joined(separator: "\n")
    }

    var json: JSONText {
        .object([
            .init("test", .string(name)), .init("value", .string(rounded(value))),
            .init("unit", .string(unit)), .init("yardstick", .string(yardstick)),
            .init("beside", .string(rounded(beside))), .init("ratio", .string(rounded(ratio))),
            .init("remark", .string(remark)),
        ])
    }
}

/// The measurements on two nodes.
struct SharingBench: Sendable {
    let cluster: BenchCluster
    let bin: String
    let seconds: Double

    var roots: [String] { cluster.roots }

    func measure(_ part: String, _ round: Int) throws -> [SharingFigure] {
        switch part {
        case "halves": try halves(round)
        case "creates": try creates(round)
        case "listing": try listing(round)
        case "locks": try locks(round)
        default: try handoff(round)
        }
    }

    /// Does something again and again until its time is over; returns how often in a second.
    func rate(_ body: () throws -> Void) rethrows -> Double {
        let begin = nanoseconds()
        let end = begin + UInt64(seconds * 1_000_000_000)
        var count = 0
        var now = begin
        while now < end {
            try body()
            count += 1
            now = nanoseconds()
        }
        return Double(count) * 1_000_000_000 / Double(now - begin)
    }

    func open(_ path: String, _ flags: Int32) throws -> Int32 {
        let descriptor = lockstep_open(path, flags, 0o644)
        guard descriptor >= 0 else { throw BenchFailure.last("open", path) }
        return descriptor
    }
}
