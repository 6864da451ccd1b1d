// Where a case of the conformance suite is played: a directory of its own on one file system, which one or more
// nodes have mounted. With more than one the steps take turns, so that each sees what another has just done.

import CLinux
import Glibc

/// Does a step; what came of it in words. Throws `SystemFailure`, or `Trouble` for a step that makes no sense.
typealias ConformanceCall = @Sendable (ConformanceArguments) throws -> String

/// What a step works with.
final class ConformanceStage {
    /// The directory of the case, once for each node.
    let folders: [String]
    /// Which of them the step uses.
    private(set) var turn: Int
    var descriptors: [String: Int32] = [:]
    var marks: [String: stat] = [:]
    var mappings: [String: UnsafeMutableRawBufferPointer] = [:]
    var processes: [String: pid_t] = [:]

    init(folders: [String], firstTurn: Int) {
        self.folders = folders
        turn = firstTurn % folders.count
    }

    deinit {
        for mapping in mappings.values { munmap(mapping.baseAddress, mapping.count) }
        for descriptor in descriptors.values { close(descriptor) }
        for process in processes.values { end(process) }
    }

    private func end(_ process: pid_t) {
        kill(process, SIGKILL)
        while waitpid(process, nil, 0) < 0, errno == EINTR {}
    }

    /// Ends a program that a step has started.
    func end(program name: String) throws {
        guard let process = processes.removeValue(forKey: name) else {
            throw Trouble("no program \(name)")
        }
        end(process)
    }

    /// Each step, and what came of it. On a thread of its own, since the current directory, the umask and who the
    /// caller is are the thread's.
    static func play(_ steps: [ConformanceStep], folders: [String], firstTurn: Int) throws
        -> [String]
    {
        final class Box: @unchecked Sendable {
            // Sendable: read after the thread has been joined.
            var answers: [String] = []
            var trouble: (any Error)?
        }
        let box = Box()
        let thread = TestThread {
            do {
                try check(lockstep_unshare_directory())
                umask(0o022)
                let stage = ConformanceStage(folders: folders, firstTurn: firstTurn)
                for step in steps {
                    box.answers.append(try stage.answer(to: step))
                    stage.turn = (stage.turn + 1) % folders.count
                }
            } catch {
                box.trouble = error
            }
        }
        thread.join()
        if let trouble = box.trouble { throw trouble }
        return box.answers
    }

    private func answer(to step: ConformanceStep) throws -> String {
        guard let call = Self.calls[step.command] else {
            throw Trouble("line \(step.line): no call '\(step.command)'")
        }
        let words = ConformanceArguments(stage: self, words: step.arguments)
        do {
            return try asCaller(step.caller) { try call(words) }
        } catch let failure as SystemFailure {
            return ConformanceWord.errnoName(failure.code)
        } catch let trouble as Trouble {
            throw Trouble("line \(step.line), \(step.text): \(trouble)")
        }
    }

    /// The calls by name.
    static let calls: [String: ConformanceCall] =
        nameCalls.merging(attributeCalls) { first, _ in first }
        .merging(dataCalls) { first, _ in first }
        .merging(deviceCalls) { first, _ in first }

    // MARK: Callers

    /// Glibc's calls change all threads of a process; these only this one. The real user is changed as well
    /// (access(2) asks for it), the saved one stays root so that there is a way back.
    private func asCaller(_ caller: ConformanceCaller, _ body: () throws -> String) throws -> String
    {
        if caller == .root { return try body() }
        let others = caller.others
        try others.withUnsafeBufferPointer {
            try Self.change(SYS_setgroups, $0.count, Int(bitPattern: $0.baseAddress), 0)
        }
        try Self.change(SYS_setresgid, Int(caller.group), Int(caller.group), 0)
        try Self.change(SYS_setresuid, Int(caller.user), Int(caller.user), 0)
        let result = Result(catching: body)
        try Self.change(SYS_setresuid, 0, 0, 0)
        try Self.change(SYS_setresgid, 0, 0, 0)
        try Self.change(SYS_setgroups, 0, 0, 0)
        return try result.get()
    }

    private static func change(_ call: Int32, _ a: Int, _ b: Int, _ c: Int) throws {
        if lockstep_system_call(Int(call), a, b, c, 0, 0, 0) != 0 {
            throw Trouble("cannot become another user: \(SystemFailure(errno))")
        }
    }
}

/// The words of a step and what they mean on a stage.
struct ConformanceArguments {
    let stage: ConformanceStage
    let words: [String]

    var count: Int { words.count }

    subscript(index: Int) -> String { index < words.count ? words[index] : "" }

    func number(_ index: Int) throws -> Int { try ConformanceWord.number(self[index]) }

    func bytes(_ index: Int) throws -> [UInt8] { try ConformanceWord.bytes(self[index]) }

    /// An octal number.
    func mode(_ index: Int) throws -> UInt32 {
        guard let mode = UInt32(self[index], radix: 8) else {
            throw Trouble("'\(self[index])' is no mode")
        }
        return mode
    }

    func flags(_ index: Int, _ names: [String: Int]) throws -> Int {
        try ConformanceWord.flags(self[index], names)
    }

    func descriptor(_ index: Int) throws -> Int32 {
        if self[index] == "none" { return -1 }
        guard let descriptor = stage.descriptors[self[index]] else {
            throw Trouble("'\(self[index])' is not open")
        }
        return descriptor
    }

    /// Calls `body` with the address of a path.
    @discardableResult
    func withPath<Result>(_ index: Int, _ body: (UnsafePointer<CChar>) throws -> Result) throws
        -> Result
    {
        if self[index] == "NULL", let nowhere = UnsafePointer<CChar>(bitPattern: 0x1000) {
            return try body(nowhere)
        }
        return try pathBytes(index).withUnsafeBufferPointer { bytes in
            guard let start = bytes.baseAddress else { throw Trouble("a path is missing") }
            return try body(start)
        }
    }

    /// A path, with a zero at its end.
    func pathBytes(_ index: Int) throws -> [CChar] {
        let word = self[index]
        var bytes: [UInt8] = []
        if word.hasPrefix("=") {
            bytes = Array(try ConformanceWord.bytes(word).dropFirst())
        } else if word != "''" {
            guard !word.isEmpty else { throw Trouble("a path is missing") }
            bytes =
                Array((stage.folders[stage.turn] + "/").utf8) + (try ConformanceWord.bytes(word))
        }
        return (bytes + [0]).map { CChar(bitPattern: $0) }
    }

    func path(_ index: Int) throws -> String {
        String(
            decoding: try pathBytes(index).dropLast().map { UInt8(bitPattern: $0) },
            as: UTF8.self
        )
    }
}
