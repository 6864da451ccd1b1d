import CLinux
import Glibc
import LinuxSystem
import Testing
import Vocabulary

/// A node in a process of its own (`hostclusterprobe`), killed and waited for when the test ends.
final class Probe: @unchecked Sendable {
    // Sendable: lines are guarded by the latch, the rest is constant.
    let process: pid_t
    private let input: Int32
    private let latch = Latch()
    private let arrived = WaitCondition()
    private var lines: [String] = []
    private var isTaken: [Bool] = []
    private var hasEnded = false
    private var isReaped = false
    private let reader: RunningThread

    /// Starts `hostclusterprobe` with these arguments. It lies beside the tests' own program.
    init(_ arguments: [String]) throws {
        ignoreSignalsOfWrites()
        var toChild: [Int32] = [0, 0]
        var fromChild: [Int32] = [0, 0]
        guard pipe(&toChild) == 0, pipe(&fromChild) == 0 else { throw Trouble("pipe") }
        for descriptor in toChild + fromChild { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
        let program = try Self.programPath()
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
        words.append(nil)
        defer { for word in words { free(word) } }
        var child: pid_t = 0
        let code = posix_spawn(&child, program, &actions, nil, words, environ)
        close(toChild[0])
        close(fromChild[1])
        guard code == 0 else { throw Trouble("\(program): \(errnoText(code))") }
        process = child
        input = toChild[1]
        let output = fromChild[0]
        let (latch, arrived) = (latch, arrived)
        let sink = LineSink()
        reader = try runThread(name: "probe") {
            sink.read(output) { line in
                latch.withLock { sink.deliver?(line) }
                arrived.broadcast()
            }
        }
        latch.withLock {
            sink.deliver = { [weak self] line in
                if let line { self?.lines.append(line) } else { self?.hasEnded = true }
            }
            for line in sink.early {
                if let line { lines.append(line) } else { hasEnded = true }
            }
        }
    }

    deinit {
        end()
        reader.join()
        close(input)
    }

    private static func programPath() throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        guard count > 0 else { throw Trouble("readlink") }
        let own = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // `swift test` runs the tests in a helper from the toolchain or in the bundle itself.
        for folder in [CommandLine.arguments[0], own] + CommandLine.arguments {
            guard let slash = folder.lastIndex(of: "/") else { continue }
            let path = folder[..<slash] + "/hostclusterprobe"
            if access(String(path), X_OK) == 0 { return String(path) }
        }
        throw Trouble("hostclusterprobe is not beside \(CommandLine.arguments)")
    }

    /// Sends a line.
    func tell(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        #expect(write(input, bytes, bytes.count) == bytes.count)
    }

    /// Waits for a line that begins so and takes it; others stay. Nil (and a recorded issue) when
    /// none comes within thirty seconds or the process ends.
    @discardableResult
    func expect(_ beginning: String, at location: SourceLocation = #_sourceLocation) -> String? {
        let deadline = now() + 30_000_000_000
        latch.lock()
        defer { latch.unlock() }
        while true {
            while isTaken.count < lines.count { isTaken.append(false) }
            for place in lines.indices where !isTaken[place] && lines[place].hasPrefix(beginning) {
                isTaken[place] = true
                return lines[place]
            }
            if hasEnded || !arrived.wait(latch, until: Tick(deadline)) {
                Issue.record(
                    "process \(process) did not say '\(beginning)', but \(lines.suffix(8))",
                    sourceLocation: location
                )
                return nil
            }
        }
    }

    /// The lines that begin so, of all that came.
    func said(_ beginning: String) -> [String] {
        latch.withLock { lines.filter { $0.hasPrefix(beginning) } }
    }

    /// Sends a signal.
    func signal(_ number: Int32) { #expect(kill(process, number) == 0) }

    /// Waits for the end of the process. Returns the signal it died of, or 0.
    @discardableResult
    func waitForEnd() -> Int32 {
        var status: Int32 = 0
        if latch.withLock({ isReaped }) { return 0 }
        guard waitpid(process, &status, 0) == process else { return -1 }
        latch.withLock { isReaped = true }
        return status & 0x7F
    }

    /// Kills it.
    func end() {
        if latch.withLock({ isReaped }) { return }
        kill(process, SIGKILL)
        waitForEnd()
    }

    private func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// Cuts the output of a process into lines; nil is its end.
private final class LineSink: @unchecked Sendable {
    // Sendable: `deliver` and `early` are used under the probe's latch.
    var deliver: ((String?) -> Void)?
    var early: [String?] = []

    init() { deliver = { [unowned self] in early.append($0) } }

    func read(_ descriptor: Int32, _ line: (String?) -> Void) {
        var pending: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count <= 0 { break }
            for byte in chunk[..<count] {
                if byte == 10 {
                    line(String(decoding: pending, as: UTF8.self))
                    pending.removeAll(keepingCapacity: true)
                } else {
                    pending.append(byte)
                }
            }
        }
        close(descriptor)
        line(nil)
    }
}
