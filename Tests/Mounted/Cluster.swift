// A cluster of the tests: an image, a run directory of its own, and some nodes, each a mount.
// Whatever happens, it leaves nothing behind: no mount, no process, no file.

import CLinux
import Glibc

/// One mount.
struct TestNode: Sendable {
    let number: Int
    /// Where it is mounted.
    let root: String

    var name: String { "node \(number + 1)" }
}

/// One image and the nodes that mount it.
final class TestCluster: Sendable {
    let folder: String
    let image: String
    let runDirectory: String
    let nodes: [TestNode]

    /// A fresh image of `size`, not mounted anywhere.
    init(nodes count: Int = 3, size: String = "512M", format: [String] = []) throws {
        let id = getenv("LOCKSTEP_TEST_ID").map { String(cString: $0) } ?? "manual"
        var template = Array("/var/tmp/lockstep-mounted-\(id)-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Trouble("mkdtemp: \(SystemFailure(errno))") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        image = folder + "/image"
        runDirectory = folder + "/run"
        nodes = (0..<count).map { [folder] in TestNode(number: $0, root: "\(folder)/node\($0 + 1)")
        }
        mkdir(runDirectory, 0o700)
        // A daemon that traps tells where, in a file: in the background it has no other place.
        mkdir(folder + "/traps", 0o700)
        setenv("SWIFT_BACKTRACE", "enable=yes,color=no,output-to=\(folder)/traps", 1)
        for node in nodes { mkdir(node.root, 0o755) }
        do {
            try Commands.demand(
                "mkfs.lockstep",
                ["-q", "-t", "lab:data", "-j", "\(count)", "-s", size] + format + [image]
            )
        } catch {
            Files.removeTree(folder)
            throw error
        }
    }

    deinit { dismantle() }

    // MARK: Mounting

    func mount(_ node: TestNode, options: [String] = []) throws {
        try Commands.demand("mount.lockstep", mountArguments(node, options: options))
        guard isMounted(node) else {
            throw Trouble("mount.lockstep said yes but \(node.root) is empty")
        }
        try note(processes(of: node) + guardians(of: node))
    }

    /// Writes down which processes the daemons and guardians are, for whoever asks afterwards whether
    /// each of them was what it should be (tools/races).
    private func note(_ daemons: [pid_t]) throws {
        guard let list = getenv("LOCKSTEP_DAEMON_LIST") else { return }
        try Files.withOpen(String(cString: list), O_WRONLY | O_CREAT | O_APPEND) { descriptor in
            let lines = daemons.map { "\($0)\n" }.joined()
            try Files.write(Array(lines.utf8), to: descriptor, at: nil)
        }
    }

    /// What `mount.lockstep` is called with.
    func mountArguments(_ node: TestNode, options: [String] = []) -> [String] {
        [image, node.root, "-o", (["run=\(runDirectory)"] + options).joined(separator: ",")]
    }

    func mountAll() throws { for node in nodes { try mount(node) } }

    /// Unmounts and waits until the daemon has ended.
    func unmount(_ node: TestNode) throws {
        let daemon = processes(of: node)
        try Commands.demand("fusermount3", ["-u", node.root])
        for process in daemon where !Commands.waitForEnd(of: process, limit: 60) {
            throw Trouble("\(node.name): its daemon \(process) has not ended 60 s after unmounting")
        }
    }

    func unmountAll() throws { for node in nodes where isMounted(node) { try unmount(node) } }

    /// SIGKILL for the daemon, and the mount point freed. What the daemon itself started to clean
    /// up after it is left to do so.
    func kill(_ node: TestNode, waits: Bool = true) throws {
        let all = processes(of: node)
        let daemon = all.filter { process in !all.contains { $0 == parent(of: process) } }
        guard !daemon.isEmpty else { throw Trouble("\(node.name) has no daemon to kill") }
        for process in daemon { Glibc.kill(process, SIGKILL) }
        for process in waits ? all : daemon
        where !Commands.waitForEnd(of: process, limit: 30) {
            throw Trouble("\(node.name): process \(process) lives 30 s after SIGKILL of its daemon")
        }
        if isMounted(node) { try Commands.demand("fusermount3", ["-u", "-z", node.root]) }
    }

    private func parent(of process: pid_t) -> pid_t? {
        // "number (name) state parent …": the name may hold anything but its last bracket is the
        // last.
        guard let text = try? Files.contents("/proc/\(process)/stat"),
            let bracket = text.lastIndex(of: UInt8(ascii: ")"))
        else { return nil }
        let fields = text[bracket...].split(separator: 32)
        return fields.count > 2 ? pid_t(String(decoding: fields[2], as: UTF8.self)) : nil
    }

    /// The daemons of a node: the processes that name its directory.
    func processes(of node: TestNode) -> [pid_t] {
        Commands.processes(naming: ["/mount.lockstep", node.root])
    }

    /// The guardians of a node: children of its daemon.
    func guardians(of node: TestNode) -> [pid_t] {
        let daemons = processes(of: node)
        return Commands.processes(naming: ["mount.lockstep", "--guardian"]).filter { process in
            daemons.contains { $0 == parent(of: process) }
        }
    }

    func isMounted(_ node: TestNode) -> Bool { device(of: node) != nil }

    /// The number of the FUSE connection, from the mount table (asking the mount could hang).
    private func device(of node: TestNode) -> Int? {
        let table = (try? Files.contents("/proc/self/mountinfo")) ?? []
        for line in table.split(separator: 10) {
            let fields = line.split(separator: 32).map { String(decoding: $0, as: UTF8.self) }
            if fields.count > 4, fields[4] == node.root {
                return fields[2].split(separator: ":").last.flatMap { Int($0) }
            }
        }
        return nil
    }

    // MARK: Looking

    /// Demands that nobody has it mounted and that a check finds nothing to repair.
    func checkClean() throws {
        let result = try Commands.run("fsck.lockstep", ["-n", "-f", image], limit: 120)
        guard result.exitCode == 0 else { throw Trouble("not clean: \(result)") }
    }

    /// How many requests the kernel has sent to a node's daemon so far.
    func requests(of node: TestNode) throws -> Int {
        let text = try Commands.demand("lockstep", ["status", "--json", node.root], limit: 20)
            .output
        guard let key = text.firstRange(of: "\"requests\"") else {
            throw Trouble("'lockstep status --json' tells no requests: \(text)")
        }
        // Either a number or an object of numbers, one for each kind of request.
        let rest = text[key.upperBound...].drop { $0 == ":" || $0 == " " || $0 == "\n" }
        let value = rest.first == "{" ? rest.prefix { $0 != "}" } : rest.prefix { $0.isNumber }
        let numbers = value.split { !$0.isNumber }.compactMap { Int($0) }
        guard !numbers.isEmpty else { throw Trouble("no number of requests in \(text)") }
        return numbers.reduce(0, +)
    }

    /// Everything that helps to understand a failure: who waits for which lock, and what was said.
    func report() -> String {
        var text = ""
        for node in nodes where isMounted(node) {
            for command in ["status", "locks"] {
                if let result = try? Commands.run("lockstep", [command, node.root], limit: 5) {
                    text += "--- \(result)\n"
                }
            }
        }
        return text + logs(below: folder + "/traps")
    }

    private func logs(below path: String) -> String {
        ((try? Files.names(path)) ?? []).reduce("") { text, name in
            let bytes = (try? Files.contents(path + "/" + name)) ?? []
            return text + "--- \(name)\n" + String(decoding: bytes.prefix(20_000), as: UTF8.self)
                + "\n"
        }
    }

    // MARK: Taking down

    /// Ends every daemon and every mount at once; what hangs in the kernel comes back with an
    /// error.
    func abort() {
        for node in nodes {
            for process in processes(of: node) { Glibc.kill(process, SIGKILL) }
            if let number = device(of: node) {
                let path = "/sys/fs/fuse/connections/\(number)/abort"
                try? Files.withOpen(path, O_WRONLY) { try Files.write([0x31], to: $0, at: nil) }
            }
        }
    }

    /// Leaves nothing behind. Gentle first, so that a passing test also shows that this works.
    func dismantle() {
        for node in nodes where isMounted(node) {
            let daemon = processes(of: node)
            _ = try? Commands.run("fusermount3", ["-u", node.root], limit: 20)
            for process in daemon { _ = Commands.waitForEnd(of: process, limit: 20) }
        }
        abort()
        for node in nodes where isMounted(node) {
            _ = try? Commands.run("fusermount3", ["-u", "-z", node.root], limit: 20)
        }
        for node in nodes {
            for process in processes(of: node) { _ = Commands.waitForEnd(of: process, limit: 20) }
        }
        Files.removeTree(folder)
    }
}
