// Running the system's commands as a person would: by name, with a time limit, looking at what they
// print and at their exit code.

import CLinux
import Glibc
import Synchronization

/// What a command did.
struct CommandResult: Sendable, CustomStringConvertible {
    let line: String
    /// 0…255, or 128 + the signal that ended it.
    let exitCode: Int32
    let output: String
    let complaint: String

    var succeeded: Bool { exitCode == 0 }

    var description: String {
        "\(line): exit code \(exitCode)\n\(output)\(complaint)"
    }
}

enum Commands {
    /// Where the commands under test are: beside the test program, or where LOCKSTEP_BIN says.
    static let folder: String = {
        if let named = getenv("LOCKSTEP_BIN") { return String(cString: named) }
        let program = (try? Files.linkTarget("/proc/self/exe")) ?? ""
        return program.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 }
    }()

    static let required = [
        "mkfs.lockstep", "mount.lockstep", "umount.lockstep", "fsck.lockstep", "lockstep",
        "lockstep-stress",
    ]

    /// Those that have not been built.
    static var missing: [String] {
        required.filter { access("\(folder)/\($0)", X_OK) != 0 }
    }

    /// Runs a command of the system under test and waits for it to end, `limit` seconds times
    /// `Patience` at most.
    static func run(_ name: String, _ arguments: [String], limit: Double = 60) throws
        -> CommandResult
    {
        let path = required.contains(name) ? "\(folder)/\(name)" : name
        return try runProgram(path, arguments, limit: limit)
    }

    /// As `run`, and throws unless the exit code is 0.
    @discardableResult
    static func demand(
        _ name: String,
        _ arguments: [String],
        limit: Double = 60
    ) throws -> CommandResult {
        let result = try run(name, arguments, limit: limit)
        guard result.succeeded else { throw Trouble(result.description) }
        return result
    }

    /// Its output goes to files, not to pipes: a daemon that it leaves behind may keep them open.
    private static func runProgram(
        _ path: String,
        _ arguments: [String],
        limit: Double
    ) throws -> CommandResult {
        let output = lockstep_memory_file("output")
        let complaint = lockstep_memory_file("complaint")
        guard output >= 0, complaint >= 0 else {
            throw Trouble("no file for output: errno \(errno)")
        }
        defer {
            close(output)
            close(complaint)
        }
        let process = try spawn(path, arguments, output: output, complaint: complaint)
        let code = waitFor(process, limit: limit)
        return CommandResult(
            line: ([path] + arguments).joined(separator: " "),
            exitCode: code,
            output: text(output),
            complaint: text(complaint)
        )
    }

    private static func text(_ descriptor: Int32) -> String {
        String(decoding: (try? Files.contents(of: descriptor)) ?? [], as: UTF8.self)
    }

    /// One at a time: until it runs its program a child has copies of all descriptors, also of those
    /// that are closed meanwhile, and a mount in which one of them leads is busy. Whoever unmounts
    /// starts a program himself, and so comes after all that might have such copies.
    private static let spawning = Mutex(())

    private static func spawn(
        _ path: String,
        _ arguments: [String],
        output: Int32,
        complaint: Int32
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, complaint, 2)
        var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process = pid_t()
        let code = spawning.withLock { _ in
            posix_spawnp(&process, path, &actions, nil, &words, environ)
        }
        guard code == 0 else { throw Trouble("cannot run \(path): \(SystemFailure(code))") }
        return process
    }

    /// Waits for a child; kills it when the time is over.
    private static func waitFor(_ process: pid_t, limit: Double) -> Int32 {
        if !waitForEnd(of: process, limit: limit) { kill(process, SIGKILL) }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        let signal = status & 0x7F
        return signal == 0 ? (status >> 8) & 0xFF : 128 + signal
    }

    /// Waits until a process, any process, has ended. False when it lives on after `limit` seconds times
    /// `Patience`.
    static func waitForEnd(of process: pid_t, limit: Double) -> Bool {
        let descriptor = lockstep_pidfd_open(process)
        guard descriptor >= 0 else { return true }
        defer { close(descriptor) }
        let deadline = monotonicSeconds() + limit * Patience.factor
        while true {
            let rest = deadline - monotonicSeconds()
            if rest <= 0 { return false }
            var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&wait, 1, Int32(rest * 1000) + 1) > 0 { return true }
        }
    }

    /// Processes whose command line holds all of `words`, by number.
    static func processes(naming words: [String]) -> [pid_t] {
        let numbers = ((try? Files.names("/proc")) ?? []).compactMap { pid_t($0) }.sorted()
        return numbers.filter { number in
            guard number != getpid(), let raw = try? Files.contents("/proc/\(number)/cmdline")
            else {
                return false
            }
            let line = raw.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            return words.allSatisfy { word in line.contains { $0.hasSuffix(word) } }
        }
    }
}
