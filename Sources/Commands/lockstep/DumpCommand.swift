// `lockstep dump`.

import ArgumentParser
import CLinux
import Glibc
import HostCluster
import LinuxSystem
import LockReports
import NodeService
import Vocabulary

/// `lockstep dump`
struct Dump: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Writes what went into a node's lock manager lately to a file; reads such files.",
        discussion: """
            Every node keeps its last events (calls, messages, views) in memory. A recording that \
            begins with its node can be replayed: the same lock manager does it all again, and it \
            is said whether it does the same. Of one that does not, the story can be told. The \
            mount option record=MIB says how much is kept.

            Examples:
              lockstep dump /mnt -o node.recording
              lockstep dump /mnt -o recordings --all
              lockstep dump --replay node.recording
              lockstep dump --story node.recording --resource inode:6291.1
            """
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String?
    @Option(name: .shortAndLong, help: "The file to write.")
    var output: String?
    @Flag(help: "Of all nodes of the cluster, each in a file with its number behind the name.")
    var all = false
    @Option(help: "Of the node with this number.")
    var node: UInt32?
    @Option(help: "Seconds to wait for a node that says nothing.")
    var timeout = 5.0
    @Option(help: "Replay this recording.")
    var replay: String?
    @Option(help: "Tell the story of this recording.")
    var story: String?
    @Option(help: "With --story: only this resource, as 'lockstep locks' names it.")
    var resource: String?
    @Flag(help: "With --story: also what came out, as far as the recording can be replayed.")
    var effects = false

    func validate() throws {
        let isReading = replay != nil || story != nil
        if isReading {
            guard replay == nil || story == nil, directory == nil, output == nil, !all else {
                throw ValidationError("--replay and --story take a file and nothing to dump")
            }
        } else {
            guard directory != nil, output != nil else {
                throw ValidationError("a directory and -o FILE are needed")
            }
            guard !all || node == nil else { throw ValidationError("either --all or --node") }
        }
        guard timeout > 0, timeout <= 60 else { throw ValidationError("--timeout is up to 60 s") }
        if let resource, ResourceName(resource) == nil {
            throw ValidationError("\(resource) is no name of a resource")
        }
    }

    func run() throws {
        if let replay { return try doAgain(replay) }
        if let story { return try tell(story) }
        guard let directory, let output else { return }
        let daemon = try Daemon(of: MountedPath(directory).mountPoint)
        guard all else {
            try write(recording(daemon, node), to: output)
            return
        }
        let status = try parsedAnswer(daemon.demand("status", within: timeout + 5))
        var failures: [String] = []
        for member in status["members"]?.elements.compactMap(\.number) ?? [] {
            do {
                let bytes = try recording(daemon, UInt32(clamping: member))
                try write(bytes, to: "\(output).n\(member)")
            } catch {
                failures.append("n\(member): \(error)")
            }
        }
        if !failures.isEmpty { throw AdministrationError(failures.joined(separator: "; ")) }
    }

    private func recording(_ daemon: Daemon, _ node: UInt32?) throws -> [UInt8] {
        var members: [JSONText.Member] = [.init("patience", .count(Int(timeout * 1000)))]
        if let node { members.append(.init("node", .count(node))) }
        let request = "recording " + JSONText.object(members).text
        guard let bytes = try daemon.bytes(request, within: 2 * timeout + 5), !bytes.isEmpty else {
            throw AdministrationError("the daemon at \(daemon.socketPath) has died")
        }
        if bytes.starts(with: "error: ".utf8) {
            let text = String(decoding: bytes, as: UTF8.self)
            throw AdministrationError(String(text.dropFirst(7).dropLast()))
        }
        return bytes
    }

    private func write(_ bytes: [UInt8], to path: String) throws {
        // Whoever may read it learns which numbers of inodes were used when.
        let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        guard descriptor >= 0 else { throw SystemError.last("open", path) }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 || errno == EINTR else {
                let failure = SystemError.last("write", path)
                close(descriptor)
                throw failure
            }
            rest = rest.dropFirst(max(count, 0))
        }
        guard close(descriptor) == 0 else { throw SystemError.last("close", path) }
        print("\(path): \(Words.size(UInt64(bytes.count)))")
    }

    // MARK: Reading

    private func read(_ path: String) throws -> FlightRecording {
        guard let file = fopen(path, "re") else { throw SystemError.last("open", path) }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
            bytes += buffer[..<count]
        }
        do throws(FlightError) {
            return try FlightRecording(bytes)
        } catch {
            throw AdministrationError("\(path) \(error)")
        }
    }

    private func doAgain(_ path: String) throws {
        let recording = try read(path)
        let count = recording.records.count
        var total = 0
        switch recording.replay({ total += $1.count }) {
        case .same:
            print("\(path): \(count) events of \(recording.node), \(total) effects: the same again")
        case .notWhole:
            throw AdministrationError(
                "\(path): the ring has wrapped, the beginning is lost: it can only be told (--story)"
            )
        case .otherEffects(let record, let recorded, let replayed):
            print(recording.line(recording.records[record]))
            throw AdministrationError(
                "\(path): event \(record) of \(count) had \(recorded) effects and has \(replayed) now; "
                    + "is this program of the version that recorded it?"
            )
        case .otherState:
            throw AdministrationError(
                "\(path): all \(count) events had as many effects, but the locks are others now"
            )
        }
    }

    private func tell(_ path: String) throws {
        let recording = try read(path)
        let wanted = resource.flatMap { ResourceName($0) }
        if !recording.isWhole { print("(the ring has wrapped: the beginning is lost)") }
        func isWanted(_ record: FlightRecord) -> Bool {
            wanted == nil || record.event.name == wanted
        }
        guard effects, recording.isWhole else {
            for record in recording.records where isWanted(record) { print(recording.line(record)) }
            return
        }
        _ = recording.replay { record, effects in
            guard isWanted(record) else { return }
            print(recording.line(record))
            for effect in effects { print("    " + FlightRecording.plain("\(effect)")) }
        }
    }
}
