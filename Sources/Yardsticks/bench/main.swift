// lockstep-bench: how fast a directory is, and how Lockstep compares with what it stands on.

import ArgumentParser
import Glibc
import LinuxSystem
import Vocabulary

struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lockstep-bench",
        abstract: "Measure file systems and locks: latencies and rates of common operations.",
        subcommands: [
            Run.self, Compare.self, Locks.self, LockPeer.self, Recovery.self, Check.self,
            JournalLoad.self, Sharing.self, Pass.self,
        ]
    )
}

/// How much is done, for both commands.
struct SizeOptions: ParsableArguments {
    @Option(help: "Files to create, look at and remove.")
    var files = 10_000

    @Option(help: "MiB of the large file.")
    var mebibytes = 1_024

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    var size: WorkloadSize {
        var size = WorkloadSize()
        size.files = files
        size.fileBytes = mebibytes << 20
        return size
    }

    func validate() throws {
        guard (1...10_000_000).contains(files) else {
            throw ValidationError("--files: 1 to 10000000")
        }
        guard (1...1_000_000).contains(mebibytes) else {
            throw ValidationError("--mebibytes: 1 to 1000000")
        }
    }
}

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure one directory.",
        discussion: """
            Makes files below the directory and removes them again. As root, caches of the kernel are \
            dropped before the cold tests; otherwise 'stat-cold' is left out and 'read-cold' drops what \
            posix_fadvise can.
            """
    )

    @Option(help: "The directory; it needs room for the files.")
    var directory: String

    @Option(help: "A name for the results.")
    var label: String = ""

    @OptionGroup var options: SizeOptions

    func run() throws {
        var all: [Measurement] = []
        let workload = Workload(directory: directory, size: options.size)
        try workload.run { all.append($0) }
        if options.json {
            let results = all.map(\.json).joined(separator: ",\n")
            print(
                "{\"label\": \(JSONText.string(label).text), \"directory\": \(JSONText.string(directory).text), "
                    + "\"results\": [\n\(results)\n]}"
            )
        } else {
            if !label.isEmpty { print(label) }
            print(table([Measurement.header] + all.map(\.row)))
        }
    }
}

struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Measure Lockstep, a FUSE daemon that does nothing, and the local file system, in turn.",
        discussion: """
            Makes an image, mounts it, and removes everything afterwards. The last columns say what part \
            of the other file systems' rate Lockstep reaches.
            """
    )

    @Option(help: "Where the image and the local files go.")
    var folder = "/var/tmp"

    @Option(help: "Where the commands are. (default: beside this one)")
    var bin: String?

    @Option(help: "Rounds; the middle result of each test counts.")
    var rounds = 3

    @Option(help: "What to compare, with commas between.")
    var subjects = "local,null,lockstep"

    @OptionGroup var options: SizeOptions

    func validate() throws {
        guard (1...100).contains(rounds) else { throw ValidationError("--rounds: 1 to 100") }
    }

    func run() throws {
        let comparison = try Comparison(bin: bin ?? ownFolder, folder: folder)
        defer { comparison.takeDown() }
        let room = options.size.fileBytes * 2 + options.files * 16_384 + (512 << 20)
        try comparison.prepare(
            only: subjects.split(separator: ",").map(String.init),
            imageBytes: room
        )
        try comparison.run(rounds: rounds, size: options.size) { line in
            let bytes = Array((line + "\n").utf8)
            _ = write(STDERR_FILENO, bytes, bytes.count)
        }
        print(options.json ? comparison.json : comparison.report())
    }
}

Bench.main()
