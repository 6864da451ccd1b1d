// How long a check takes and how much memory, beside e2fsck on an ext4 with the same content.

import ArgumentParser
import CLinux
import Glibc
import LinuxSystem
import Vocabulary

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure fsck.lockstep beside e2fsck.",
        discussion: """
            Makes a sparse image with Lockstep and one with ext4, fills both with the same directories \
            and files through their mounts, and checks them in turn, each time after the kernel has \
            dropped its caches. Needs root and e2fsprogs.
            """
    )

    @Option(help: "Where the images go.")
    var folder = "/var/tmp"

    @Option(help: "Where the commands are. (default: beside this one)")
    var bin: String?

    @Option(help: "Files; a thousand a directory. One in ten has 4 KiB, the others are empty.")
    var files = 100_000

    @Option(help: "GiB of each image, sparse.")
    var gibibytes = 64

    @Option(help: "Rounds; the middle result counts.")
    var rounds = 3

    func validate() throws {
        guard (0...100_000_000).contains(files) else {
            throw ValidationError("--files: up to 10^8")
        }
        guard (1...16_384).contains(gibibytes) else {
            throw ValidationError("--gibibytes: 1 to 16384")
        }
        guard (1...100).contains(rounds) else { throw ValidationError("--rounds: 1 to 100") }
    }

    func run() throws {
        guard geteuid() == 0 else { throw ValidationError("needs root, to mount ext4") }
        let lab = try CheckLab(bin: bin ?? ownFolder, folder: folder)
        defer { lab.takeDown() }
        try lab.prepare(files: files, gibibytes: gibibytes)
        var results: [String: [ResourceUse]] = [:]
        for _ in 0..<rounds {
            for subject in CheckLab.subjects {
                results[subject, default: []].append(try lab.check(subject))
            }
        }
        var rows = [["check of \(files) files in \(gibibytes) GiB", "seconds", "CPU s", "MiB"]]
        for subject in CheckLab.subjects {
            let all = (results[subject] ?? []).sorted { $0.seconds < $1.seconds }
            let middle = all[all.count / 2]
            rows.append([
                subject, rounded(middle.seconds), rounded(middle.processorSeconds),
                rounded(Double(middle.peakBytes) / 1_048_576),
            ])
        }
        print(table(rows))
    }
}

/// Two images with the same content.
private final class CheckLab {
    static let subjects = ["fsck.lockstep -n -f", "e2fsck -n -f"]

    private let bin: String
    private let folder: String
    private var ours: String { folder + "/ours" }
    private var theirs: String { folder + "/theirs" }

    init(bin: String, folder parent: String) throws {
        self.bin = bin
        folder = try Programs.makeFolder(in: parent)
    }

    func prepare(files: Int, gibibytes: Int) throws {
        for path in [ours, theirs, folder + "/run"] where mkdir(path, 0o700) != 0 {
            throw BenchFailure.last("make", path)
        }
        try Programs.run(
            "\(bin)/mkfs.lockstep",
            ["-q", "-t", "bench:bench", "-j", "3", "-s", "\(gibibytes)G", folder + "/image"]
        )
        try Programs.run(
            "\(bin)/mount.lockstep",
            [folder + "/image", ours, "-o", "run=\(folder)/run"]
        )
        try fill(ours, files)
        try Programs.run("\(bin)/umount.lockstep", [ours])
        let inodes = max(1_024, files + files / 500 + 1_000)
        try Programs.run(
            "mkfs.ext4",
            ["-q", "-F", "-N", "\(inodes)", folder + "/image.ext4", "\(gibibytes)G"]
        )
        try Programs.run("mount", ["-o", "loop", folder + "/image.ext4", theirs])
        try fill(theirs, files)
        try Programs.run("umount", [theirs])
    }

    private func fill(_ root: String, _ files: Int) throws {
        let data = [UInt8](repeating: 7, count: 4096)
        for index in 0..<files {
            let directory = "\(root)/d\(index / 1_000)"
            if index % 1_000 == 0, mkdir(directory, 0o755) != 0 {
                throw BenchFailure.last("make", directory)
            }
            let path = "\(directory)/file-\(index)"
            let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
            guard descriptor >= 0 else { throw BenchFailure.last("create", path) }
            defer { close(descriptor) }
            if index % 10 == 0, write(descriptor, data, data.count) != data.count {
                throw BenchFailure.last("write", path)
            }
        }
    }

    func check(_ subject: String) throws -> ResourceUse {
        sync()
        let caches = lockstep_open("/proc/sys/vm/drop_caches", O_WRONLY, 0)
        guard caches >= 0, write(caches, "3", 1) == 1 else {
            throw BenchFailure.last("drop the kernel's caches:", "/proc/sys/vm/drop_caches")
        }
        close(caches)
        return subject == Self.subjects[0]
            ? try Programs.measure("\(bin)/fsck.lockstep", ["-n", "-f", folder + "/image"])
            : try Programs.measure("e2fsck", ["-n", "-f", folder + "/image.ext4"])
    }

    func takeDown() {
        if !Programs.fileSystem(at: theirs).isEmpty { _ = try? Programs.run("umount", [theirs]) }
        if !Programs.fileSystem(at: ours).isEmpty {
            _ = try? Programs.run("fusermount3", ["-u", "-z", ours])
        }
        _ = try? Programs.run("rm", ["-rf", folder])
    }
}
