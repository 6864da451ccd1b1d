// Two nodes that write one file, or one directory, and one that looks at what the other writes.

import CLinux
import Glibc
import LinuxSystem
import Synchronization

extension SharingBench {
    private static let half = 32 << 20
    private static let piece = 64 << 10

    // MARK: Halves of a file

    /// MiB in a second of all writers together, each of whom rewrites its own half.
    private func rewrite(
        _ paths: [String],
        halves: [Int],
        isSynchronized: Bool
    ) throws -> Double {
        let rates = try together(halves.count) { writer in
            let file = try open(paths[writer], O_RDWR)
            defer { close(file) }
            let bytes = [UInt8](repeating: UInt8(writer + 1), count: Self.piece)
            var position = 0
            return try rate {
                let offset = off_t(halves[writer] * Self.half + position)
                guard pwrite(file, bytes, Self.piece, offset) == Self.piece else {
                    throw BenchFailure.last("write", paths[writer])
                }
                position = (position + Self.piece) % Self.half
                if isSynchronized, position % (4 << 20) == 0, fdatasync(file) != 0 {
                    throw BenchFailure.last("fdatasync", paths[writer])
                }
            }
        }
        return rates.reduce(0, +) * Double(Self.piece) / 1_048_576
    }

    func halves(_ round: Int) throws -> [SharingFigure] {
        let name = "halves\(round)"
        let paths = roots.map { "\($0)/\(name)" }
        let local = cluster.folder + "/" + name
        for path in [paths[0], local] {
            let file = try open(path, O_WRONLY | O_CREAT)
            defer { close(file) }
            let bytes = [UInt8](repeating: 9, count: 1 << 20)
            for _ in 0..<2 * Self.half >> 20 where write(file, bytes, 1 << 20) != 1 << 20 {
                throw BenchFailure.last("write", path)
            }
        }
        var figures: [SharingFigure] = []
        for isSynchronized in [false, true] {
            let what = isSynchronized ? ", fdatasync each 4 MiB" : ""
            let alone = try rewrite([paths[0]], halves: [0], isSynchronized: isSynchronized)
            // Until both lock regions and not the file.
            _ = try SharingBench(cluster: cluster, bin: bin, seconds: 0.3).rewrite(
                paths,
                halves: [0, 1],
                isSynchronized: false
            )
            let both = try rewrite(paths, halves: [0, 1], isSynchronized: isSynchronized)
            let localAlone = try rewrite([local], halves: [0], isSynchronized: isSynchronized)
            let localBoth = try rewrite(
                [local, local],
                halves: [0, 1],
                isSynchronized: isSynchronized
            )
            figures.append(
                SharingFigure(
                    name: "two nodes rewrite halves\(what)",
                    value: both,
                    unit: "MiB/s",
                    yardstick: "MiB/s, one node",
                    beside: alone,
                    remark: "local: two writers \(rounded(localBoth / localAlone)) of one"
                )
            )
        }
        for path in [paths[0], local] { unlink(path) }
        return figures
    }

    // MARK: Files in one directory

    /// How many files each node makes in a second.
    private func create(in folders: [String], _ round: String) throws -> [Double] {
        try together(folders.count) { node in
            var number = 0
            return try rate {
                number += 1
                close(
                    try open(
                        "\(folders[node])/\(round)-\(node)-\(number)",
                        O_WRONLY | O_CREAT | O_EXCL
                    )
                )
            }
        }
    }

    func creates(_ round: Int) throws -> [SharingFigure] {
        let folders = roots.map { "\($0)/creates\(round)" }
        guard mkdir(folders[0], 0o755) == 0 else { throw BenchFailure.last("mkdir", folders[0]) }
        let alone = try create(in: [folders[0]], "alone")[0]
        let both = try create(in: folders, "both")
        try Programs.run("rm", ["-rf", folders[0]])
        return [
            SharingFigure(
                name: "two nodes create in one directory",
                value: both.reduce(0, +),
                unit: "/s",
                yardstick: "/s, one node",
                beside: alone,
                remark:
                    "the slower node makes \(rounded((both.min() ?? 0) / max(both.max() ?? 0, 1e-9))) of the other's"
            )
        ]
    }

    // MARK: Looking at files that grow

    func listing(_ round: Int) throws -> [SharingFigure] {
        let count = 1_000
        let folders = roots.map { "\($0)/listing\(round)" }
        guard mkdir(folders[0], 0o755) == 0 else { throw BenchFailure.last("mkdir", folders[0]) }
        for number in 0..<count { close(try open("\(folders[0])/\(number)", O_WRONLY | O_CREAT)) }
        @Sendable func list() throws -> Double {
            let begin = nanoseconds()
            try Programs.run("sh", ["-c", "exec ls -l '\(folders[1])' >/dev/null"])
            return Double(nanoseconds() - begin) / 1_000_000
        }
        for _ in 0..<3 { _ = try list() }
        let quiet = try (0..<5).map { _ in try list() }.sorted()[2]
        let isListed = Atomic(false)
        let appender = try together(2) { thread -> [Double] in
            if thread == 0 {
                defer { isListed.store(true, ordering: .releasing) }
                poll(nil, 0, 500)  // The appender is at work.
                return try (0..<5).map { _ in try list() }
            }
            let files = try (0..<count).map { try open("\(folders[0])/\($0)", O_WRONLY | O_APPEND) }
            defer { for file in files { close(file) } }
            var appended = 0.0
            let line = [UInt8](repeating: 0x2E, count: 64)
            while !isListed.load(ordering: .acquiring) {
                for file in files where !isListed.load(ordering: .acquiring) {
                    guard write(file, line, line.count) == line.count else {
                        throw BenchFailure.last("append in", folders[0])
                    }
                    appended += 1
                }
            }
            return [appended]
        }
        try Programs.run("rm", ["-rf", folders[0]])
        return [
            SharingFigure(
                name: "ls -l of \(count) files that grow",
                value: appender[0].sorted()[2],
                unit: "ms",
                yardstick: "ms, nobody appends",
                beside: quiet,
                remark: "\(Int(appender[1][0])) appends meanwhile"
            )
        ]
    }
}
