// Tests of the tests: without the system under test, on folders of the local file system. A harness
// that finds fault with one coherent file system, or none with an incoherent one, proves nothing.

import Glibc
import Testing

/// A folder, removed with everything in it.
final class ScratchFolder {
    let path: String

    init() throws {
        var template = Array("/var/tmp/lockstep-harness-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Trouble("mkdtemp: \(SystemFailure(errno))") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { Files.removeTree(path) }

    /// A new folder inside.
    func subfolder(_ name: String) -> String {
        mkdir(path + "/" + name, 0o755)
        return path + "/" + name
    }
}

@Suite(.serialized) struct HarnessTests {
    /// Three names of one directory are as coherent as can be.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func aCoherentFileSystemPasses(seed: UInt64) throws {
        let scratch = try ScratchFolder()
        let shared = scratch.subfolder("shared")
        let nodes = try (0..<3).map { number in
            let name = scratch.path + "/name\(number)"
            try check(symlink(shared, name))
            return TestNode(number: number, root: name + "/.")
        }
        var run = try CoherenceRun(seed: seed, nodes: nodes)
        try run.run(operations: 1_500)
        #expect(run.performed == 1_500)
    }

    /// One of three shows a copy that is renewed now and then: a cache that nobody invalidates.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func aStaleCopyIsFound(seed: UInt64) throws {
        let scratch = try ScratchFolder()
        let shared = scratch.subfolder("shared")
        let copy = scratch.path + "/copy"
        let nodes = (0..<3).map { TestNode(number: $0, root: shared) }
        let views = nodes.dropLast() + [TestNode(number: 2, root: copy)]
        func renew() throws {
            Files.removeTree(copy)
            try Commands.demand("cp", ["-a", shared, copy])
        }
        try renew()
        var run = try CoherenceRun(seed: seed, nodes: nodes, views: Array(views))
        run.demandsSameInodes = false
        run.afterOperation = { if $0 % 25 == 0 { try renew() } }
        let failure = #expect(throws: Trouble.self) { try run.run(operations: 1_000) }
        #expect(failure?.description.contains("seed \(seed)") == true)
        #expect(failure?.description.contains("what was done to it") == true)
    }

    @Test func commandsAreRunAndTimedOut() throws {
        let result = try Commands.run("sh", ["-c", "echo out; echo err >&2; exit 7"])
        #expect(result.exitCode == 7)
        #expect(result.output == "out\n")
        #expect(result.complaint == "err\n")
        let began = monotonicSeconds()
        #expect(try Commands.run("sleep", ["60"], limit: 0.2).exitCode == 128 + SIGKILL)
        #expect(monotonicSeconds() - began < 30)
        #expect(throws: Trouble.self) { try Commands.run("no-such-command", []) }
        // A process that a command leaves behind keeps nobody waiting.
        let daemon = try Commands.run("sh", ["-c", "sleep 61.5 & echo $!"])
        let number = try #require(pid_t(daemon.output.dropLast()))
        // It bears its name once the shell's child has become it.
        while Commands.processes(naming: ["sleep", "61.5"]).isEmpty,
            monotonicSeconds() - began < 30
        { sched_yield() }
        #expect(Commands.processes(naming: ["sleep", "61.5"]) == [number])
        kill(number, SIGKILL)
        #expect(Commands.waitForEnd(of: number, limit: 10))
    }

    @Test func errorsOfThreadsAreSeen() {
        #expect(throws: Trouble.self) {
            try TestThread.together(3) { if $0 == 1 { throw Trouble("on purpose") } }
        }
    }
}
