// Real mounts for tests, and the system calls that drive them.

import CLinux
import Execution
import FileSystem
import FuseServer
import Glibc
import LinuxSystem
import Testing
import Vocabulary

/// A memory file system mounted on a fresh directory.
final class TestMount: @unchecked Sendable {
    // Sendable: constants, except `files`, which is engine-bound.
    let path: String
    let engine: Engine
    let server: FuseServer
    let files: EngineBound<MemoryFiles>

    init(path: String, engine: Engine, server: FuseServer, files: EngineBound<MemoryFiles>) {
        self.path = path
        self.engine = engine
        self.server = server
        self.files = files
    }

    /// Runs `body` inside the engine and waits for it.
    @discardableResult
    func inside<Value: Sendable>(_ body: @escaping (MemoryFiles) async -> Value) -> Value {
        let latch = Latch()
        let done = WaitCondition()
        nonisolated(unsafe) var result: Value?
        let files = self.files
        engine.spawn {
            let value = await body(files.value)
            latch.withLock {
                result = value
                done.broadcast()
            }
        }
        latch.lock()
        defer { latch.unlock() }
        while true {
            if let result { return result }
            done.wait(latch)
        }
    }

    /// What `action` cost in requests.
    func requests(_ action: () throws -> Void) rethrows -> RequestCounts {
        let before = server.requestCounts
        try action()
        return server.requestCounts.since(before)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Holds back the next operation on a name.
    func hold(_ name: String) -> EngineBound<Hold> {
        inside { files in
            let hold = Hold()
            files.holds[Array(name.utf8)] = hold
            return EngineBound(hold)
        }
    }

    /// Holds back the next operation of a kind.
    func hold(next kind: OperationKind) -> EngineBound<Hold> {
        inside { files in
            let hold = Hold()
            files.heldNext[kind.rawValue] = hold
            return EngineBound(hold)
        }
    }

    /// Waits until the operation is there.
    func arrival(of hold: EngineBound<Hold>) {
        inside { _ in await hold.value.arrived.get() }
    }

    func release(_ hold: EngineBound<Hold>) {
        inside { files in
            files.holds = files.holds.filter { $0.value !== hold.value }
            if hold.value.released.value == nil { hold.value.released.deliver(()) }
        }
    }

    func node(_ name: String) -> NodeHandle {
        inside { files in
            let wanted = Array(name.utf8)
            let entry = files.nodes[0].names.first { $0.name == wanted }
            return NodeHandle(UInt64(entry?.node ?? -1) &+ 1)
        }
    }
}

/// Mounts, runs `body`, and cleans up also when `body` throws or hangs: does not end within `limit` seconds.
func withMount(
    limit: UInt64 = 60,
    configure: (inout FuseOptions) -> Void = { _ in },
    _ body: (TestMount) throws -> Void
) throws {
    var template = Array("/tmp/lockstep-fuse-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemError.last("mkdtemp") }
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { rmdir(path) }

    let executor = try CombiningExecutor()
    let clock = try LinuxClock()
    defer {
        clock.stop()
        executor.stop()
    }
    let engine = Engine(executor: executor, clock: clock)
    let files = EngineBound(MemoryFiles(engine: engine))
    var options = FuseOptions(
        mountPoint: path,
        source: "a,test",
        log: LineLog(name: "fuse-test")
    )
    options.allowsOthers = false
    configure(&options)
    let server = FuseServer(
        options: options,
        engine: engine,
        operations: EngineBound(files.value as any FileOperations)
    )
    try server.mount()
    let serving = try runThread(name: "serving") { server.run() }
    let watchdog = try Watchdog(seconds: limit) {
        umount2(path, Int32(MNT_FORCE | MNT_DETACH))
    }
    defer {
        umount2(path, Int32(MNT_DETACH))
        serving.join()
        watchdog.stop()
    }
    try body(TestMount(path: path, engine: engine, server: server, files: files))
}

/// Ends a test that hangs in a system call: the connection is aborted and the calls fail.
final class Watchdog: @unchecked Sendable {
    private let latch = Latch()
    private let changed = WaitCondition()
    private var isOver = false
    private var thread: RunningThread?

    init(seconds: UInt64, _ bite: @escaping @Sendable () -> Void) throws {
        thread = try runThread(name: "watchdog") { [self] in
            let deadline = LinuxClock.monotonic.advanced(milliseconds: seconds * 1000)
            latch.lock()
            while !isOver {
                if !changed.wait(latch, until: deadline) {
                    Issue.record("the test hung; its connection was aborted")
                    bite()
                    break
                }
            }
            latch.unlock()
        }
    }

    func stop() {
        latch.withLock {
            isOver = true
            changed.broadcast()
        }
        thread?.join()
    }
}

// MARK: System calls

/// The result of a call, or its error number as a negative value.
func call(_ body: () -> Int) -> Int {
    let result = body()
    return result < 0 ? -Int(errno) : result
}

func status(_ path: String) -> stat? {
    var status = stat()
    return lstat(path, &status) == 0 ? status : nil
}

func statusCode(_ path: String) -> Int {
    var status = stat()
    return call { Int(lstat(path, &status)) }
}

func openFile(_ path: String, _ flags: Int32, _ mode: UInt32 = 0o644) throws -> Int32 {
    let file = lockstep_open(path, flags, mode)
    guard file >= 0 else { throw SystemError.last("open", path) }
    return file
}

func makeFile(_ path: String, _ content: [UInt8] = []) throws {
    let file = try openFile(path, O_CREAT | O_EXCL | O_WRONLY)
    defer { close(file) }
    try writeAll(file, content)
}

func writeAll(_ file: Int32, _ content: [UInt8]) throws {
    var done = 0
    while done < content.count {
        let count = content[done...].withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
        guard count >= 0 else { throw SystemError.last("write") }
        done += count
    }
}

func content(_ path: String) throws -> [UInt8] {
    let file = try openFile(path, O_RDONLY)
    defer { close(file) }
    var all: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    while true {
        let count = chunk.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
        guard count >= 0 else { throw SystemError.last("read", path) }
        if count == 0 { return all }
        all.append(contentsOf: chunk[..<count])
    }
}

/// The names of a directory in the order of readdir.
func list(_ path: String) throws -> [String] {
    guard let directory = opendir(path) else { throw SystemError.last("opendir", path) }
    defer { closedir(directory) }
    var names: [String] = []
    errno = 0
    while let entry = readdir(directory) {
        names.append(
            withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
        )
        errno = 0
    }
    guard errno == 0 else { throw SystemError.last("readdir", path) }
    return names
}
