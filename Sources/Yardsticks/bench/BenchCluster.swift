// Nodes of a volume on an image, for a measurement: made, asked, and taken down whatever happens.

import CLinux
import Glibc
import LinuxSystem
import Vocabulary

/// An image that several nodes of this machine mount.
final class BenchCluster: Sendable {
    let bin: String
    let folder: String
    /// The mount points.
    let roots: [String]
    private let options: String

    /// Makes the image and mounts it. `journal`: MiB of each journal, `size`: as for `mkfs.lockstep -s`; `options`: more
    /// options of each mount, with commas between.
    ///
    /// - Throws: `BenchFailure`, with nothing left behind.
    init(
        bin: String,
        folder parent: String,
        nodes: Int,
        size: String,
        journal: Int = 64,
        options: String = ""
    ) throws {
        self.bin = bin
        folder = try Programs.makeFolder(in: parent)
        self.options = options
        roots = (1...nodes).map { [folder] in "\(folder)/node\($0)" }
        do {
            try Programs.run(
                "\(bin)/mkfs.lockstep",
                [
                    "-q", "-t", "bench:bench", "-j", "\(nodes)", "-J", "\(journal)", "-s", size,
                    folder + "/image",
                ]
            )
            for path in [folder + "/run"] + roots where mkdir(path, 0o700) != 0 {
                throw BenchFailure.last("make", path)
            }
            for root in roots { try mount(root) }
        } catch {
            takeDown()
            throw error
        }
    }

    func mount(_ root: String) throws {
        let more = options.isEmpty ? "" : "," + options
        try Programs.run(
            "\(bin)/mount.lockstep",
            [folder + "/image", root, "-o", "run=\(folder)/run" + more]
        )
    }

    /// What `lockstep status` says of a node.
    func status(_ root: String) throws -> JSONText {
        try JSONText(parsing: try Programs.output("\(bin)/lockstep", ["status", "--json", root]))
    }

    /// Everything that the nodes have in memory goes to the device.
    func synchronize() throws {
        for root in roots { try Programs.run("\(bin)/lockstep", ["sync", root]) }
    }

    /// Requests of the image by all nodes so far.
    func deviceCounts() throws -> DeviceCounts {
        var sum = DeviceCounts()
        for root in roots {
            let status = try status(root)
            guard let device = status["deviceCounters"], let journal = status["journal"] else {
                throw BenchFailure("lockstep status --json \(root) lacks the counters")
            }
            sum.reads += device.number("reads")
            sum.writes += device.number("writes")
            sum.flushes += device.number("flushes")
            sum.commits += journal.number("commits")
        }
        return sum
    }

    func takeDown() {
        for root in roots where !Programs.fileSystem(at: root).isEmpty {
            _ = try? Programs.run("fusermount3", ["-u", "-z", root])
        }
        _ = try? Programs.run("rm", ["-rf", folder])
    }
}

/// Requests of a device, and commits of journals.
struct DeviceCounts {
    var reads: UInt64 = 0
    var writes: UInt64 = 0
    var flushes: UInt64 = 0
    var commits: UInt64 = 0

    static func - (left: DeviceCounts, right: DeviceCounts) -> DeviceCounts {
        DeviceCounts(
            reads: left.reads - right.reads,
            writes: left.writes - right.writes,
            flushes: left.flushes - right.flushes,
            commits: left.commits - right.commits
        )
    }
}

/// Runs `body` in so many threads at once and returns what each came to, in their order.
///
/// - Throws: what one of them has thrown.
func together<Result: Sendable>(
    _ count: Int,
    _ body: @escaping @Sendable (Int) throws -> Result
) throws -> [Result] {
    let ends = (0..<count).map { _ in ThreadEnd<Result>() }
    let threads = try ends.enumerated().map { number, end in
        try runThread(name: "bench") {
            end.result = Swift.Result { try body(number) }
        }
    }
    for thread in threads { thread.join() }
    return try ends.map { end in
        guard let result = end.result else { throw BenchFailure("a thread has no result") }
        return try result.get()
    }
}

/// How a thread ended.
private final class ThreadEnd<Success: Sendable>: @unchecked Sendable {
    // Sendable: written by the thread, read after it was joined.
    var result: Result<Success, any Error>?
}
