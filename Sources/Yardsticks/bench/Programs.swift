import CLinux
import Glibc
import LinuxSystem

/// What a program took.
struct ResourceUse {
    var seconds: Double
    /// Of all processors, in user mode and in the kernel.
    var processorSeconds: Double
    /// Of memory, at most.
    var peakBytes: Int
}

/// Running other programs.
enum Programs {
    /// Starts a program. Its output goes where this one's errors go.
    static func start(_ path: String, _ arguments: [String]) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, 2, 1)
        return try startProgram(path, arguments, &actions)
    }

    /// Waits for a child and returns its exit code, 128 + signal if one ended it.
    static func wait(for process: pid_t) -> Int32 { waitForProgram(process) }

    /// Runs a program and throws unless it succeeds.
    static func run(_ path: String, _ arguments: [String]) throws {
        let code = wait(for: try start(path, arguments))
        guard code == 0 else {
            throw BenchFailure("\(path) \(arguments.joined(separator: " ")): exit code \(code)")
        }
    }

    /// Runs a program, which must succeed, and says what it took.
    static func measure(_ path: String, _ arguments: [String]) throws -> ResourceUse {
        let begin = nanoseconds()
        let process = try start(path, arguments)
        var status: Int32 = 0
        var usage = rusage()
        while wait4(process, &status, 0, &usage) < 0 && errno == EINTR {}
        let took = nanoseconds() - begin
        guard status == 0 else {
            throw BenchFailure("\(path) \(arguments.joined(separator: " ")): status \(status)")
        }
        func seconds(_ time: timeval) -> Double {
            Double(time.tv_sec) + Double(time.tv_usec) / 1_000_000
        }
        return ResourceUse(
            seconds: Double(took) / 1_000_000_000,
            processorSeconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            peakBytes: usage.ru_maxrss * 1024
        )
    }

    /// What a program prints; it must succeed.
    static func output(_ path: String, _ arguments: [String]) throws -> String {
        let program = try ChildProcess(path, arguments)
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while case let count = fread(&buffer, 1, buffer.count, program.output), count > 0 {
            bytes += buffer[..<count]
        }
        let code = program.end()
        guard code == 0 else {
            throw BenchFailure("\(path) \(arguments.joined(separator: " ")): exit code \(code)")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The file system of a mount point, "" where nothing is mounted.
    static func fileSystem(at path: String) -> String {
        guard let table = fopen("/proc/self/mounts", "re") else { return "" }
        defer { fclose(table) }
        var line = [CChar](repeating: 0, count: 4096)
        var found = ""
        while fgets(&line, Int32(line.count), table) != nil {
            let fields = String(
                decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) },
                as: UTF8.self
            )
            .split(separator: " ")
            if fields.count > 2, fields[1] == path { found = String(fields[2]) }
        }
        return found
    }

    /// Takes a FUSE mount away, also one that is in use.
    static func unmount(_ root: String) {
        do {
            try run("fusermount3", ["-u", root])
        } catch {
            _ = try? run("fusermount3", ["-u", "-z", root])
        }
    }

    /// A new folder of a measurement; whoever makes it removes it.
    static func makeFolder(in parent: String) throws -> String {
        var template = Array("\(parent)/lockstep-bench-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw BenchFailure.last("make a folder in", parent) }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A FUSE daemon that only answers.
final class NullFuse: Sendable {
    private let root: String
    private let process: pid_t

    /// Mounts it on a folder that is there.
    init(bin: String, at root: String) throws {
        self.root = root
        process = try Programs.start("\(bin)/lockstep-null-fuse", [root, "--foreground"])
        let deadline = nanoseconds() + 10_000_000_000
        while Programs.fileSystem(at: root).isEmpty {
            guard nanoseconds() < deadline else {
                end()
                throw BenchFailure("lockstep-null-fuse does not mount")
            }
            poll(nil, 0, 20)
        }
    }

    /// Unmounts it and waits for its end.
    func end() {
        if !Programs.fileSystem(at: root).isEmpty { Programs.unmount(root) }
        kill(process, SIGTERM)
        _ = Programs.wait(for: process)
    }
}
