// The same tests on three file systems in turn, round after round, so that a machine that is busy
// for a while is busy for all of them:
//
//   local      a directory of the disk that the image lies on: what the kernel alone can do
//   null       a FUSE daemon that only answers: what no FUSE file system can beat
//   lockstep   one node of a cluster of three journals, on an image on the same disk

import CLinux
import Glibc
import Vocabulary

/// Three file systems on one disk.
final class Comparison {
    /// One file system under test.
    struct Subject {
        let name: String
        let root: String
    }

    private let bin: String
    private let folder: String
    private var daemon: NullFuse?
    private(set) var subjects: [Subject] = []
    private var results: [String: [String: [Measurement]]] = [:]

    init(bin: String, folder parent: String) throws {
        self.bin = bin
        folder = try Programs.makeFolder(in: parent)
    }

    /// Mounts what can be mounted. `only` names the subjects that are wanted.
    func prepare(only: [String], imageBytes: Int) throws {
        for name in only {
            let root = "\(folder)/\(name)"
            guard mkdir(root, 0o755) == 0 else { throw BenchFailure.last("make", root) }
            switch name {
            case "local": break
            case "null": daemon = try NullFuse(bin: bin, at: root)
            case "lockstep": try mountLockstep(root, imageBytes)
            default: throw BenchFailure("'\(name)' is none of local, null, lockstep")
            }
            subjects.append(Subject(name: name, root: root))
        }
    }

    private func mountLockstep(_ root: String, _ imageBytes: Int) throws {
        let image = folder + "/image"
        try Programs.run(
            "\(bin)/mkfs.lockstep",
            ["-q", "-t", "bench:bench", "-j", "3", "-s", "\(imageBytes >> 20)M", image]
        )
        guard mkdir(folder + "/run", 0o700) == 0 else { throw BenchFailure.last("make", folder) }
        try Programs.run("\(bin)/mount.lockstep", [image, root, "-o", "run=\(folder)/run"])
    }

    /// All tests on all subjects, `rounds` times.
    func run(rounds: Int, size: WorkloadSize, progress: (String) -> Void) throws {
        for round in 1...rounds {
            for subject in subjects {
                progress("round \(round) of \(rounds): \(subject.name)")
                try Workload(directory: subject.root, size: size).run { measurement in
                    results[measurement.test, default: [:]][subject.name, default: []]
                        .append(measurement)
                }
            }
        }
    }

    /// Unmounts and removes everything. Waits for the daemons.
    func takeDown() {
        for subject in subjects.reversed() where !Programs.fileSystem(at: subject.root).isEmpty {
            Programs.unmount(subject.root)
        }
        daemon?.end()
        _ = try? Programs.run("rm", ["-rf", folder])
    }

    /// The middle one of an odd number of rounds; the worse of the middle two of an even one.
    private func typical(_ test: String, _ subject: String) -> Measurement? {
        guard let all = results[test]?[subject], !all.isEmpty else { return nil }
        return all.sorted { $0.seconds < $1.seconds }[all.count / 2]
    }

    /// One row for each test: rate and latencies of each subject, and how Lockstep compares.
    func report() -> String {
        var rows = [["test"]]
        for subject in subjects { rows[0] += ["\(subject.name) /s", "median µs", "p99 µs"] }
        let others = subjects.map(\.name).filter { $0 != "lockstep" }
        rows[0] += others.map { "of \($0)" }
        for test in Self.order where results[test] != nil {
            var row = [test]
            for subject in subjects {
                let found = typical(test, subject.name)
                row +=
                    found.map { [rounded($0.rate), rounded($0.median), rounded($0.percentile99)] }
                    ?? ["-", "-", "-"]
            }
            for other in others {
                guard let base = typical(test, other), let own = typical(test, "lockstep") else {
                    row.append("-")
                    continue
                }
                row.append("\(Int((own.rate / base.rate * 100).rounded()))%")
            }
            rows.append(row)
        }
        return table(rows)
    }

    var json: String {
        let parts = Self.order.flatMap { test in
            subjects.flatMap { subject in
                (results[test]?[subject.name] ?? []).map {
                    "{\"subject\": \(JSONText.string(subject.name).text), \"result\": \($0.json)}"
                }
            }
        }
        return "[\n" + parts.joined(separator: ",\n") + "\n]"
    }

    private static let order = [
        "create", "stat-warm", "stat-cold", "readdir", "write", "read-cold", "read-warm", "fsync",
        "unlink",
    ]
}
