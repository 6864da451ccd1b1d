// What the journal costs: flushes of the device for each operation, and what writers notice of a log
// that is full again and again, beside one that is never.

import ArgumentParser
import CLinux
import Glibc
import LinuxSystem
import Vocabulary

struct JournalLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "journal",
        abstract:
            "Measure what the journal costs: flushes per operation, and waits for a full log.",
        discussion: """
            Makes an image and mounts it on two nodes. First each operation is done a number of times, and \
            the flushes that both nodes asked the device for are counted. Then one node creates files \
            without a pause, once with a journal that is used up many times over, once with one that has \
            room for everything: what is longer in the first case is what writing blocks in place makes \
            writers wait.
            """
    )

    @Option(help: "Where the image goes.")
    var folder = "/var/tmp"

    @Option(help: "Where the commands are. (default: beside this one)")
    var bin: String?

    @Option(help: "Files to create with each journal.")
    var files = 60_000

    @Option(help: "Times that each operation is counted.")
    var times = 50

    @Option(help: "MiB of the small journal.")
    var small = 4

    func validate() throws {
        guard (100...1_000_000).contains(files) else {
            throw ValidationError("--files: 100 to 1000000")
        }
        guard (1...10_000).contains(times) else { throw ValidationError("--times: 1 to 10000") }
        guard (1...512).contains(small) else { throw ValidationError("--small: 1 to 512") }
    }

    func run() throws {
        let bin = bin ?? ownFolder
        let counted = try JournalLab(bin: bin, folder: folder, journal: 64)
        do {
            defer { counted.takeDown() }
            let rows = try FlushedOperation.all.map { try counted.row($0, times) }
            print(table([["operation", "flushes", "commits", "device writes"]] + rows) + "\n")
        }
        var rows = [
            [
                "journal", "creates", "rate", "median µs", "p99 µs", "p99.9 µs", "longest ms",
                "times full", "waits for room",
            ]
        ]
        for mebibytes in [small, 512] {
            let lab = try JournalLab(bin: bin, folder: folder, journal: mebibytes)
            defer { lab.takeDown() }
            rows.append(try lab.burst(files))
        }
        print(table(rows))
    }
}

/// One operation whose flushes are counted; `number` tells its repetitions apart.
private struct FlushedOperation: Sendable {
    let name: String
    /// What is not counted.
    var prepare: @Sendable (_ roots: [String], _ number: Int) throws -> Void = { _, _ in }
    let perform: @Sendable (_ roots: [String], _ number: Int) throws -> Void

    static let all: [FlushedOperation] = [
        FlushedOperation(name: "create") { roots, number in
            try create("\(roots[0])/a\(number)")
        },
        FlushedOperation(name: "create, write 4 KiB, fsync, close") { roots, number in
            try write("\(roots[0])/b\(number)", O_CREAT, 4096)
        },
        FlushedOperation(name: "append 4 KiB, fsync") { roots, _ in
            try write("\(roots[0])/log", O_CREAT | O_APPEND, 4096)
        },
        FlushedOperation(
            name: "overwrite 4 KiB, fdatasync",
            prepare: { roots, number in
                if number == 0 { try write("\(roots[0])/whole", O_CREAT, 65_536) }
            }
        ) { roots, _ in try write("\(roots[0])/whole", 0, 4096, dataOnly: true) },
        FlushedOperation(name: "write 1 MiB, fsync") { roots, number in
            try write("\(roots[0])/c\(number)", O_CREAT, 1 << 20)
        },
        FlushedOperation(
            name: "rename over another, fsync of the directory",
            prepare: { roots, number in
                try write("\(roots[0])/new\(number)", O_CREAT, 4096)
                try write("\(roots[0])/target", O_CREAT, 4096)
            }
        ) { roots, number in
            guard rename("\(roots[0])/new\(number)", "\(roots[0])/target") == 0 else {
                throw BenchFailure.last("rename over", roots[0])
            }
            try synchronizeDirectory(roots[0])
        },
        FlushedOperation(
            name: "unlink",
            prepare: { roots, number in try write("\(roots[0])/d\(number)", O_CREAT, 4096) }
        ) { roots, number in
            guard unlink("\(roots[0])/d\(number)") == 0 else {
                throw BenchFailure.last("unlink in", roots[0])
            }
        },
        FlushedOperation(name: "16 processes: create, write, fsync, each") { roots, number in
            _ = try together(16) { try write("\(roots[0])/e\(number)-\($0)", O_CREAT, 4096) }
        },
        FlushedOperation(
            name: "create, then stat by the other node"
        ) { roots, number in
            try create("\(roots[0])/f\(number)")
            var status = stat()
            guard stat("\(roots[1])/f\(number)", &status) == 0 else {
                throw BenchFailure.last("stat in", roots[1])
            }
        },
    ]

    private static func create(_ path: String) throws {
        let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
        guard descriptor >= 0 else { throw BenchFailure.last("create", path) }
        close(descriptor)
    }

    private static func write(
        _ path: String,
        _ flags: Int32,
        _ count: Int,
        dataOnly: Bool = false
    ) throws {
        let descriptor = lockstep_open(path, O_WRONLY | flags, 0o644)
        guard descriptor >= 0 else { throw BenchFailure.last("open", path) }
        defer { close(descriptor) }
        let bytes = [UInt8](repeating: 7, count: count)
        guard Glibc.write(descriptor, bytes, count) == count,
            (dataOnly ? fdatasync(descriptor) : fsync(descriptor)) == 0
        else { throw BenchFailure.last("write", path) }
    }

    private static func synchronizeDirectory(_ path: String) throws {
        let descriptor = lockstep_open(path, O_RDONLY | O_DIRECTORY, 0)
        guard descriptor >= 0 else { throw BenchFailure.last("open", path) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw BenchFailure.last("fsync", path) }
    }
}

/// An image on two nodes.
private final class JournalLab {
    private let cluster: BenchCluster
    private let journal: Int
    private var roots: [String] { cluster.roots }

    init(bin: String, folder: String, journal: Int) throws {
        self.journal = journal
        cluster = try BenchCluster(bin: bin, folder: folder, nodes: 2, size: "8G", journal: journal)
    }

    func takeDown() { cluster.takeDown() }

    /// Does an operation so many times, each from a state in which nothing is left to be written.
    func row(_ operation: FlushedOperation, _ times: Int) throws -> [String] {
        var sum = DeviceCounts()
        for number in 0..<times {
            try operation.prepare(roots, number)
            try cluster.synchronize()
            let before = try cluster.deviceCounts()
            try operation.perform(roots, number)
            let counts = try cluster.deviceCounts() - before
            sum.flushes += counts.flushes
            sum.commits += counts.commits
            sum.writes += counts.writes
        }
        func each(_ count: UInt64) -> String { rounded(Double(count) / Double(times)) }
        return [operation.name, each(sum.flushes), each(sum.commits), each(sum.writes)]
    }

    /// Creates files without a pause.
    func burst(_ files: Int) throws -> [String] {
        var samples: [UInt64] = []
        samples.reserveCapacity(files)
        let begin = nanoseconds()
        for index in 0..<files {
            if index % 1_000 == 0, mkdir("\(roots[0])/d\(index / 1_000)", 0o755) != 0 {
                throw BenchFailure.last("mkdir in", roots[0])
            }
            let start = nanoseconds()
            let path = "\(roots[0])/d\(index / 1_000)/\(index)"
            let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
            guard descriptor >= 0 else { throw BenchFailure.last("create", path) }
            close(descriptor)
            samples.append(nanoseconds() - start)
        }
        let took = Double(nanoseconds() - begin) / 1_000_000_000
        guard let journal = try cluster.status(roots[0])["journal"] else {
            throw BenchFailure("lockstep status --json lacks the journal")
        }
        samples.sort()
        func part(_ part: Double) -> Double {
            Double(samples[Int(Double(files - 1) * part)]) / 1_000
        }
        return [
            "\(self.journal) MiB", "\(files)", rounded(Double(files) / took) + " /s",
            rounded(part(0.5)), rounded(part(0.99)), rounded(part(0.999)),
            rounded(part(1) / 1_000),
            rounded(
                Double(journal.number("blocksLogged"))
                    / Double(max(1, journal.number("ringBlocks")))
            ),
            "\(journal.number("waitsForSpace"))",
        ]
    }
}
