// Several processes per node at the same time, on few files, so that every lock is fought over.
// Each kind of object is checked as what it is:
//
//   registers  records of one page or less, each write a value of its own. A read must return a
//   value that was not
//              certainly overwritten before the read began.
//   sizes      the same with ftruncate and stat.
//   the log    appended to with O_APPEND: every record once, whole, those of one process in order;
//   what was appended
//              before a read began is in it.
//   names      made exclusively and removed by their makers. Who looks while nothing changes must
//   see what is.
//
// Time is counted in steps of the executor, which no two events share.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// One write of a register, from when it began to when it had returned.
private struct RegisterWrite {
    let value: UInt64
    let begin: Int
    var end = Int.max
}

/// What was written where, and what may be read.
private final class Register {
    var writes = [RegisterWrite(value: 0, begin: 0, end: 0)]

    func begin(_ value: UInt64, at step: Int) -> Int {
        writes.append(RegisterWrite(value: value, begin: step))
        return writes.count - 1
    }

    func end(_ index: Int, at step: Int) { writes[index].end = step }

    /// Whether a read that began at `step` may return `value`.
    func mayReturn(_ value: UInt64, readFrom step: Int) -> Bool {
        guard let found = writes.first(where: { $0.value == value }) else { return false }
        return !writes.contains { $0.end < step && found.end < $0.begin }
    }
}

/// A name that processes make and remove.
private final class ContestedName {
    var isThere = false
    var owner: Int?
    /// Grows with every beginning and end of an operation that may change it.
    var version = 0
    /// Such operations that have begun and not ended.
    var changers = 0

    func begin() {
        version += 1
        changers += 1
    }

    func end() {
        version += 1
        changers -= 1
    }
}

/// The concurrent part of a run.
final class ConcurrentRun {
    private let simulation: Simulation
    private let engine: Engine
    private let cluster: SimulatedCluster
    private var registers: [[Register]]
    private var sizes = Register()
    private var names: [ContestedName]
    private var appended: [(process: Int, number: Int, end: Int)] = []
    private var nextValue: UInt64 = 1
    private(set) var failure: String?
    private(set) var operations = 0

    /// Where the registers of a file are, in bytes; none overlap.
    private typealias Slots = [(offset: UInt64, count: Int)]
    private static let scattered: Slots = [
        (0, 512), (512, 64), (4096, 4096), (8192 + 100, 1000), (16384, 512),
    ]
    /// All in two pages, written in part.
    private static let crowded: Slots = [
        (0, 512), (512, 64), (1024, 1000), (4000, 96), (4096, 64),
    ]
    private let fileCount: Int
    private let slots: Slots
    private static let recordSize = 32

    init(_ simulation: Simulation) {
        self.simulation = simulation
        engine = simulation.engine
        cluster = simulation.cluster
        // Every third run fights over one page.
        let isCrowded = simulation.dice.oneIn(3)
        fileCount = isCrowded ? 1 : 3
        slots = isCrowded ? Self.crowded : Self.scattered
        registers = (0..<fileCount).map { [slots] _ in slots.map { _ in Register() } }
        names = (0..<6).map { _ in ContestedName() }
    }

    private var step: Int { cluster.executor.steps }

    private func path(_ name: String) -> PathNames { [Array("shared".utf8), Array(name.utf8)] }

    /// Makes the files, lets the processes run, and looks at the end.
    func play(steps: Int) async throws {
        guard let first = cluster.living.first else { return }
        for node in cluster.living { node.kernel.mapsDirectFiles = !simulation.dice.oneIn(4) }
        try await first.kernel.make(.directory(mode: 0o755), [Array("shared".utf8)])
        for name in (0..<fileCount).map({ "r\($0)" }) + ["size", "log"] {
            let file = try await first.kernel.open(path(name), .both, creates: 0o644)
            if name.hasPrefix("r") {
                try await first.write(file, 0, [UInt8](repeating: 0, count: 20_480))
            }
            try await first.kernel.close(file)
        }
        let perNode = 3
        var left = cluster.living.count * perNode
        let done = Outcome<Void>()
        let each = max(1, steps / left)
        for (index, node) in cluster.living.enumerated() {
            for number in 0..<perNode {
                let process = SimulatedProcess(
                    node: node,
                    number: index * perNode + number,
                    dice: simulation.dice.fork()
                )
                engine.spawn {
                    await self.live(process, each)
                    left -= 1
                    if left == 0 { done.deliver(()) }
                }
            }
        }
        while done.value == nil, simulation.plan.faults.contains(.scrub), failure == nil {
            try await simulation.scrubOnce()
        }
        await done.get()
        if let failure { throw SimulationFailure(failure) }
        for node in cluster.living {
            var process = SimulatedProcess(node: node, number: -1, dice: simulation.dice.fork())
            try await checkLog(process)
            for _ in 0..<40 { try await look(&process) }
        }
    }

    private func live(_ process: SimulatedProcess, _ count: Int) async {
        var process = process
        for _ in 0..<count {
            if failure != nil { return }
            operations += 1
            do {
                try await act(&process)
            } catch {
                failure = failure ?? "\(process): \(error)"
                return
            }
        }
        for file in process.files {
            let result = await Simulation.result { () async throws(FileError) in
                try await process.node.kernel.close(file.file)
            }
            if case .failure(let error) = result {
                failure = failure ?? "\(process): close: \(error)"
            }
        }
    }

    private func act(_ process: inout SimulatedProcess) async throws {
        if process.dice.oneIn(8) {
            await engine.sleep(
                until: engine.clock.now.advanced(nanoseconds: UInt64(process.dice.below(3_000_000)))
            )
        }
        if process.dice.oneIn(30) { process.node.kernel.shrink() }
        switch process.dice.below(16) {
        case 0...3: try await writeRegister(&process)
        case 4: try await append(&process)
        case 5: try await resize(&process)
        case 6...7: try await contest(&process)
        default: try await look(&process)
        }
    }

    private func look(_ process: inout SimulatedProcess) async throws {
        switch process.dice.below(12) {
        case 0...6: try await readRegister(&process)
        case 7: try await checkSize(&process)
        case 8: try await checkLog(process)
        case 9: try await checkListing(process)
        default: try await checkName(&process)
        }
    }

    // MARK: Registers

    private func record(_ value: UInt64, _ count: Int) -> [UInt8] {
        if value == 0 { return [UInt8](repeating: 0, count: count) }
        var bytes = patternBytes(value, count: count)
        for index in 0..<8 {
            bytes[index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index)))
        }
        return bytes
    }

    private func writeRegister(_ process: inout SimulatedProcess) async throws {
        let (file, slot) = (
            process.dice.below(fileCount), process.dice.below(slots.count)
        )
        let (offset, count) = slots[slot]
        let opened = try await process.open(path("r\(file)"), file, writes: true)
        let value = nextValue
        nextValue += 1
        let bytes = record(value, count)
        let register = registers[file][slot]
        let write = register.begin(value, at: step)
        if opened.file.intent.reads, process.node.kernel.canMap(opened.file),
            process.dice.oneIn(2)
        {
            let done = try await process.node.kernel.store(opened.file, at: offset, bytes)
            if done != count { throw SimulationFailure("stored \(done) of \(count)") }
            // A store into a page that a write(2) of the same node is just replacing takes effect
            // with that write at the latest (Docs/CAVEATS.md).
            await process.node.kernel.writesEnd(
                opened.file.inode,
                offset..<offset + UInt64(count)
            )
        } else {
            try await process.node.write(opened.file, offset, bytes)
        }
        register.end(write, at: step)
        simulation.log("\(process): r\(file) slot \(slot) := \(value)")
        if process.dice.oneIn(8) {
            try await process.node.kernel.synchronize(opened.file, dataOnly: process.dice.oneIn(2))
        }
        try await process.done(opened)
    }

    private func readRegister(_ process: inout SimulatedProcess) async throws {
        let (file, slot) = (
            process.dice.below(fileCount), process.dice.below(slots.count)
        )
        let (offset, count) = slots[slot]
        let opened = try await process.open(path("r\(file)"), file, writes: false)
        let begin = step
        let bytes = try await process.node.kernel.read(opened.file, at: offset, count: count)
        guard bytes.count == count else {
            throw SimulationFailure("r\(file) slot \(slot): read \(bytes.count) of \(count) bytes")
        }
        let value = (0..<8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64(bytes[$1]) }
        guard bytes == record(value, count) else {
            throw SimulationFailure(
                "r\(file) slot \(slot): a torn record, which begins as \(value)"
            )
        }
        guard registers[file][slot].mayReturn(value, readFrom: begin) else {
            throw SimulationFailure(
                "r\(file) slot \(slot): \(value), which was overwritten before the read began"
            )
        }
        try await process.done(opened)
    }

    // MARK: Sizes

    private func resize(_ process: inout SimulatedProcess) async throws {
        let value = nextValue
        nextValue += 1
        let write = sizes.begin(value, at: step)
        var change = AttributeChange()
        change.size = value
        try await process.node.kernel.setAttributes(path("size"), change)
        sizes.end(write, at: step)
        simulation.log("\(process): size := \(value)")
    }

    private func checkSize(_ process: inout SimulatedProcess) async throws {
        let begin = step
        let size = try await process.node.kernel.status(path("size")).size
        guard sizes.mayReturn(size, readFrom: begin) else {
            throw SimulationFailure("size \(size), which was changed before the stat began")
        }
    }

    // MARK: The log

    private func append(_ process: inout SimulatedProcess) async throws {
        process.appendCount += 1
        let line = "\(process.number) \(process.appendCount)"
        let text =
            line + String(repeating: ".", count: Self.recordSize - 1 - line.utf8.count) + "\n"
        let file = try await process.node.kernel.open(path("log"), .appending)
        try await process.node.write(file, 0, Array(text.utf8))
        appended.append((process.number, process.appendCount, step))
        simulation.log("\(process): appended \(process.appendCount)")
        try await process.node.kernel.close(file)
    }

    /// What was appended before must be in the log; not always at the first look: the kernel does
    /// not believe attributes that it had asked for before an invalidation (`attr_version`), and
    /// reads up to the size it knew.
    private func checkLog(_ process: SimulatedProcess) async throws {
        let begin = step
        for attempt in 0... {
            let last = try await readLog(process)
            let missing = appended.first {
                $0.end < begin && last[$0.process, default: 0] < $0.number
            }
            guard let missing else { return }
            if attempt == 20 {
                throw SimulationFailure(
                    "the log lacks record \(missing.number) of process \(missing.process), appended before it was read"
                )
            }
            await engine.sleep(until: engine.clock.now.advanced(milliseconds: 1))
        }
    }

    /// The last record of each process. Every record is whole, and those of one process are in
    /// order.
    private func readLog(_ process: SimulatedProcess) async throws -> [Int: Int] {
        let file = try await process.node.kernel.open(path("log"), .reading)
        let bytes = try await process.node.kernel.read(file, at: 0, count: 1 << 20)
        try await process.node.kernel.close(file)
        var last: [Int: Int] = [:]
        let whole = bytes.count / Self.recordSize * Self.recordSize
        for start in stride(from: 0, to: whole, by: Self.recordSize) {
            let text = String(decoding: bytes[start..<start + Self.recordSize], as: UTF8.self)
            let words = text.split(separator: ".").first?.split(separator: " ") ?? []
            guard words.count == 2, let writer = Int(words[0]), let number = Int(words[1]),
                number == last[writer, default: 0] + 1
            else { throw SimulationFailure("the log at \(start): \(text)") }
            last[writer] = number
        }
        return last
    }

    // MARK: Names

    private func contest(_ process: inout SimulatedProcess) async throws {
        let index = process.dice.below(names.count)
        let name = names[index]
        let place = path("name\(index)")
        if name.owner == process.number {
            name.begin()
            name.owner = nil
            try await process.node.kernel.remove(place, isDirectory: false)
            name.isThere = false
            name.end()
            simulation.log("\(process): removed name \(index)")
            return
        }
        let (before, wasThere) = (name.version, name.isThere)
        let wasQuiet = name.changers == 0
        name.begin()
        let result = await Simulation.result { () async throws(FileError) in
            let file = try await process.node.kernel.open(
                place,
                .writing,
                creates: 0o600,
                isExclusive: true
            )
            try await process.node.kernel.close(file)
        }
        switch result {
        case .success:
            if name.owner != nil || (wasThere && wasQuiet && name.version == before + 1) {
                throw SimulationFailure("name \(index) was made, and was there")
            }
            name.owner = process.number
            name.isThere = true
            simulation.log("\(process): made name \(index)")
        case .failure(.exists):
            if !wasThere && wasQuiet && name.version == before + 1 {
                throw SimulationFailure("name \(index) is said to exist, and does not")
            }
        case .failure(let error): throw error
        }
        name.end()
    }

    private func checkName(_ process: inout SimulatedProcess) async throws {
        let index = process.dice.below(names.count)
        let name = names[index]
        let (before, wasThere) = (name.version, name.isThere)
        guard name.changers == 0 else { return }
        let result = await Simulation.result { () async throws(FileError) in
            try await process.node.kernel.status(path("name\(index)"))
        }
        guard name.version == before else { return }
        switch result {
        case .success where wasThere: return
        case .failure(.notFound) where !wasThere: return
        case .success: throw SimulationFailure("name \(index) is shown, and is gone")
        case .failure(let error): throw SimulationFailure("name \(index): \(error), and is there")
        }
    }

    private func checkListing(_ process: SimulatedProcess) async throws {
        let before = names.map { ($0.changers == 0 ? $0.version : -1, $0.isThere) }
        let listed = try await process.node.kernel.list([Array("shared".utf8)]).map(\.name)
        for (index, name) in names.enumerated() where name.version == before[index].0 {
            if listed.contains(Array("name\(index)".utf8)) != before[index].1 {
                throw SimulationFailure("the listing is wrong about name \(index)")
            }
        }
    }
}

/// A process with its open files.
private struct SimulatedProcess: CustomStringConvertible {
    struct Opened {
        let file: KernelFile
        let index: Int
        var isKept: Bool
    }

    let node: SimulatedNode
    let number: Int
    var dice: SeededGenerator
    var files: [Opened] = []
    var appendCount = 0

    init(node: SimulatedNode, number: Int, dice: SeededGenerator) {
        self.node = node
        self.number = number
        self.dice = dice
    }

    var description: String { "\(node.kernel.name) process \(number)" }

    /// A file that is open already, or a new open file.
    mutating func open(
        _ path: PathNames,
        _ index: Int,
        writes: Bool
    ) async throws(FileError) -> Opened {
        let suitable = files.filter {
            $0.index == index && (writes ? $0.file.intent.writes : $0.file.intent.reads)
        }
        if let kept = suitable.first, dice.oneIn(2) { return kept }
        let intent: OpenIntent = dice.oneIn(3) ? .both : writes ? .writing : .reading
        let opened = Opened(
            file: try await node.kernel.open(path, intent),
            index: index,
            isKept: files.count < 4 && dice.oneIn(3)
        )
        if opened.isKept { files.append(opened) }
        return opened
    }

    /// Closes what is not kept; now and then also what was.
    mutating func done(_ opened: Opened) async throws(FileError) {
        if opened.isKept {
            guard dice.oneIn(6) else { return }
            files.removeAll { $0.file === opened.file }
        }
        try await node.kernel.close(opened.file)
    }
}
