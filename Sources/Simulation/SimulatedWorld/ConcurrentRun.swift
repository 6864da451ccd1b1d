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
//   the arena  names that everybody makes, removes, renames and lists (ConcurrentArena.swift).
//   names      made exclusively and removed by their makers. Who looks while nothing changes must
//   see what is.
//
// Nodes may die meanwhile; what may then be lost is in ConcurrentObjects.swift.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// The concurrent part of a run.
final class ConcurrentRun {
    let simulation: Simulation
    let engine: Engine
    let cluster: SimulatedCluster
    private var registers: [[Register]]
    private let sizes: Register
    private let clock = HistoryClock()
    var locks: ConcurrentLocks
    var ranges = ConcurrentRanges()
    private let arena: ConcurrentArena
    private var names: [ContestedName]
    private var appended = AppendedRecords()
    private var nextValue: UInt64 = 1
    private(set) var failure: String?
    private(set) var operations = 0
    var deaths: ConcurrentDeaths
    /// In every third run.
    private let storm: ConcurrentStorm?

    /// Processes that have not ended, and when the last one has.
    private var left = 0
    private let done = Outcome<Void>()
    private var processes = 0
    private var lives: [(node: SimulatedNode, life: Life, processes: Range<Int>)] = []
    /// Numbers of the processes that have died.
    private var dead: Set<Int> = []
    private var victims: [Int] = []

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
    private static let processesPerNode = 3
    private static let sector = 512

    init(_ simulation: Simulation) {
        self.simulation = simulation
        engine = simulation.engine
        cluster = simulation.cluster
        // Every third run fights over one page.
        let isCrowded = simulation.dice.oneIn(3)
        fileCount = isCrowded ? 1 : 3
        slots = isCrowded ? Self.crowded : Self.scattered
        registers = (0..<fileCount).map { [slots, clock] _ in slots.map { _ in Register(clock) } }
        sizes = Register(clock)
        arena = ConcurrentArena(clock)
        locks = ConcurrentLocks()
        names = (0..<6).map { _ in ContestedName() }
        deaths = ConcurrentDeaths(simulation)
        storm = simulation.dice.oneIn(3) ? ConcurrentStorm() : nil
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
        try await arena.make(first)
        // What is there before the first death is there after it.
        if !simulation.plan.faults.isEmpty { try await first.kernel.synchronizeAll() }
        cluster.onKilled = { [weak self] in self?.died($0) }
        let each = max(1, steps / (cluster.living.count * Self.processesPerNode))
        for node in cluster.living { start(on: node, each) }
        if simulation.plan.faults.contains(.freeze) { startFreezes() }
        while done.value == nil, simulation.plan.faults.contains(.scrub), failure == nil {
            try await simulation.scrubOnce()
            if simulation.plan.faults.contains(.quota) { try await simulation.quotaOnce() }
        }
        while done.value == nil, simulation.plan.faults.contains(.quota), failure == nil {
            try await simulation.quotaOnce()
        }
        await done.get()
        if let failure { throw SimulationFailure(failure) }
        try await lookEverywhere()
        try judge()
    }

    /// What processes have seen of each object must be possible in some order.
    private func judge() throws(SimulationFailure) {
        try arena.judge()
        simulation.report.judged += arena.judged
        simulation.report.undecided += arena.undecided
        for (file, registers) in registers.enumerated() {
            for (slot, register) in registers.enumerated() {
                if let violation = register.violation() {
                    throw SimulationFailure("r\(file) slot \(slot): \(violation)")
                }
            }
        }
        if let violation = sizes.violation() { throw SimulationFailure("sizes: \(violation)") }
    }

    /// The processes of a node that was mounted.
    func start(on node: SimulatedNode, _ each: Int) {
        let life = lives.count + 1
        lives.append((node, life, processes..<processes + Self.processesPerNode))
        for _ in 0..<Self.processesPerNode {
            let process = SimulatedProcess(
                node: node,
                life: life,
                number: processes,
                dice: simulation.dice.fork()
            )
            processes += 1
            begin()
            engine.spawn {
                await self.live(process, each)
                self.end()
            }
        }
    }

    private func startFreezes() {
        var freezes = ConcurrentFreezes(run: self, dice: simulation.dice.fork())
        begin()
        engine.spawn {
            do {
                try await freezes.play()
            } catch {
                self.fail("\(error)")
            }
            self.end()
        }
    }

    /// Something begins that the run waits for.
    func begin() { left += 1 }

    /// It has ended.
    func end() {
        left -= 1
        if left == 0 { done.deliver(()) }
    }

    /// The first failure ends the run.
    func fail(_ reason: String) { failure = failure ?? reason }

    /// Nothing changes any more: all nodes must agree.
    private func lookEverywhere() async throws {
        var common: [Int: Int]?
        for node in cluster.living {
            var process = SimulatedProcess(
                node: node,
                life: -1,
                number: -1,
                dice: simulation.dice.fork()
            )
            let last = try await checkLog(process)
            if let common, common != last {
                throw SimulationFailure(
                    "\(node.kernel.name) shows another log than the node before"
                )
            }
            common = last
            for _ in 0..<40 { try await look(&process) }
        }
    }

    private func live(_ process: SimulatedProcess, _ count: Int) async {
        var process = process
        for _ in 0..<count {
            if let violation = simulation.violation { fail(violation) }
            if failure != nil { return }
            operations += 1
            deaths.perhaps(self, operations)
            do {
                try await act(&process)
            } catch is Orphaned {
            } catch {
                // The end of the node is the end of its processes, whatever they were told. A process that
                // met the failing disk before its node did ends at once.
                if error as? FileError == .inputOutput, process.node.hasFailingDisk { return }
                if !process.isOrphan { fail("\(process): \(error)") }
                if !process.isOrphan || process.hasEnded { return }
                if error is SimulationFailure { fail("\(process), an orphan: \(error)") }
            }
            if process.hasEnded { return }
        }
        for file in process.files {
            let result = await Simulation.result { () async throws(FileError) in
                try await process.node.kernel.close(file.file)
            }
            if case .failure(let error) = result, !process.isOrphan, !process.node.hasFailingDisk {
                fail("\(process): close: \(error)")
            }
        }
    }

    /// The slots of nodes that have died since this was asked last.
    func takeVictims() -> [Int] {
        defer { victims = [] }
        return victims
    }

    /// A node's way to the disk fails from now on.
    func diskFails(for node: SimulatedNode) {
        node.hasFailingDisk = true
        guard let (_, life, _) = lives.first(where: { $0.node === node }) else { return }
        for file in registers {
            for register in file { register.diskFails(for: life) }
        }
    }

    /// A node has died.
    func died(_ node: SimulatedNode) {
        simulation.log("\(node.kernel.name) dies")
        simulation.count(node)
        simulation.report.deaths += 1
        victims.append(Int(node.slot.rawValue))
        guard let (_, life, numbers) = lives.first(where: { $0.node === node }) else { return }
        dead.formUnion(numbers)
        do throws(SimulationFailure) {
            for file in registers { for register in file { try register.died(life, at: step) } }
            try sizes.died(life, at: step)
            try arena.died(life)
        } catch {
            fail("\(error)")
        }
        appended.died(life)
        for name in names { name.died(life) }
        storm?.died(life)
        locks.died(life)
        ranges.died(life)
        begin()
        engine.spawn {
            await self.readOn(node, life)
            self.end()
        }
    }

    private func act(_ process: inout SimulatedProcess) async throws {
        if process.dice.oneIn(8) {
            await engine.sleep(
                until: engine.clock.now.advanced(nanoseconds: UInt64(process.dice.below(3_000_000)))
            )
        }
        if process.dice.oneIn(30) { process.node.kernel.shrink() }
        if let storm, try await storm.act(&process) { return }
        if process.dice.oneIn(4) { return try await arena.act(&process) }
        if process.dice.oneIn(12) { return try await lock(&process) }
        if process.dice.oneIn(30) { return try await useTemporary(&process) }
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

    /// The processes of a dead node go on reading through mappings, which ask nobody, until its guardian
    /// has taken the last page back: what they see must be right for as long as they see anything.
    private func readOn(_ node: SimulatedNode, _ life: Life) async {
        while !node.kernel.isDead, failure == nil {
            for (file, registers) in registers.enumerated() {
                for (slot, register) in registers.enumerated() {
                    let (offset, count) = slots[slot]
                    guard
                        let bytes = node.kernel.mapped(path("r\(file)"), at: offset, count: count)
                    else { continue }
                    simulation.report.orphanReads += 1
                    let moment = clock.next()
                    let value = (0..<8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64(bytes[$1]) }
                    let isRight =
                        bytes == record(value, count)
                        ? register.read(value, by: life, from: step, moment, isOrphan: true)
                        : isTorn(bytes, at: offset, register, from: step)
                    if !isRight {
                        fail("\(node.kernel.name), dead: r\(file) slot \(slot): old value \(value)")
                    }
                }
            }
            await engine.sleep(nanoseconds: 50_000)
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
        try process.demandDaemon()
        let value = nextValue
        nextValue += 1
        let bytes = record(value, count)
        let register = registers[file][slot]
        register.begin(value, by: process.life, at: step)
        if process.node.hasFailingDisk { register.diskFails(for: process.life) }
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
        try process.demandDaemon()
        register.end(value, at: step)
        simulation.log("\(process): r\(file) slot \(slot) := \(value)")
        if process.dice.oneIn(8) {
            let begin = step
            try await process.node.kernel.synchronize(opened.file, dataOnly: process.dice.oneIn(2))
            try process.demandDaemon()
            for register in registers[file] { register.synchronized(process.life, from: begin) }
        }
        try await process.done(opened)
    }

    private func readRegister(_ process: inout SimulatedProcess) async throws {
        let (file, slot) = (
            process.dice.below(fileCount), process.dice.below(slots.count)
        )
        let (offset, count) = slots[slot]
        let opened = try await process.open(path("r\(file)"), file, writes: false)
        let (begin, moment) = (step, clock.next())
        let bytes = try await process.node.kernel.read(opened.file, at: offset, count: count)
        try process.demandLife()
        guard bytes.count == count else {
            throw SimulationFailure("r\(file) slot \(slot): read \(bytes.count) of \(count) bytes")
        }
        let value = (0..<8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64(bytes[$1]) }
        let register = registers[file][slot]
        if isTorn(bytes, at: offset, register, from: begin) {
            try await process.done(opened)
            return
        }
        guard bytes == record(value, count) else {
            throw SimulationFailure(
                "r\(file) slot \(slot): a torn record, which begins as \(value)"
            )
        }
        let isRight = register.read(
            value,
            by: process.life,
            from: begin,
            moment,
            isOrphan: process.isOrphan || process.node.hasFailingDisk
        )
        guard isRight else {
            throw SimulationFailure(
                "r\(file) slot \(slot): \(value), which was overwritten before the read began, or lost"
            )
        }
        try await process.done(opened)
    }

    /// Whether this is what a write in doubt may have left, sector by sector.
    private func isTorn(
        _ bytes: [UInt8],
        at offset: UInt64,
        _ register: Register,
        from step: Int
    ) -> Bool {
        guard register.mayBeTorn else { return false }
        let records = register.candidates(readFrom: step).map { record($0, bytes.count) }
        if records.contains(bytes) { return false }
        var start = 0
        while start < bytes.count {
            let left = Self.sector - (Int(offset) + start) % Self.sector
            let piece = start..<min(bytes.count, start + left)
            guard records.contains(where: { $0[piece] == bytes[piece] }) else { return false }
            start = piece.upperBound
        }
        return true
    }

    // MARK: Sizes

    private func resize(_ process: inout SimulatedProcess) async throws {
        try process.demandDaemon()
        let value = nextValue
        nextValue += 1
        sizes.begin(value, by: process.life, at: step)
        var change = AttributeChange()
        change.size = value
        try await process.node.kernel.setAttributes(path("size"), change)
        try process.demandDaemon()
        sizes.end(value, at: step)
        simulation.log("\(process): size := \(value)")
    }

    private func checkSize(_ process: inout SimulatedProcess) async throws {
        let (begin, moment) = (step, clock.next())
        let size = try await process.node.kernel.status(path("size")).size
        try process.demandLife()
        let isRight = sizes.read(
            size,
            by: process.life,
            from: begin,
            moment,
            isOrphan: process.isOrphan
        )
        guard isRight else {
            throw SimulationFailure("size \(size), which was changed before the stat began")
        }
    }

    // MARK: The log

    private func append(_ process: inout SimulatedProcess) async throws {
        try process.demandDaemon()
        process.appendCount += 1
        let line = "\(process.number) \(process.appendCount)"
        let text =
            line + String(repeating: ".", count: Self.recordSize - 1 - line.utf8.count) + "\n"
        let file = try await process.node.kernel.open(path("log"), .appending)
        let begin = step
        try await process.node.write(file, 0, Array(text.utf8))
        try process.demandDaemon()
        appended.append(
            process.number,
            process.appendCount,
            by: process.life,
            from: begin,
            at: step
        )
        simulation.log("\(process): appended \(process.appendCount)")
        try await process.node.kernel.close(file)
    }

    /// What was appended before must be in the log; not always at the first look: the kernel does
    /// not believe attributes that it had asked for before an invalidation (`attr_version`), and
    /// reads up to the size it knew.
    @discardableResult
    private func checkLog(_ process: SimulatedProcess) async throws -> [Int: Int] {
        let begin = step
        for attempt in 0... {
            let last = try await readLog(process)
            try process.demandLife()
            guard let missing = appended.missing(before: begin, last) else {
                if !process.isOrphan { appended.secure(meeting: process.life, from: begin) }
                return last
            }
            if attempt == 20 {
                throw SimulationFailure(
                    "the log lacks record \(missing.number) of process \(missing.process), appended before it was read"
                )
            }
            await engine.sleep(until: engine.clock.now.advanced(milliseconds: 1))
        }
        preconditionFailure("the loop above has no end")
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
        try process.demandDaemon()
        let index = process.dice.below(names.count)
        let name = names[index]
        if name.owner == process.number {
            try await remove(name, index, process)
            return
        }
        let wasQuiet = name.isQuiet
        name.begin(process.life)
        let (before, wasThere, wasDoubtful) = (name.version, name.isThere, name.isDoubtful)
        let result = await Simulation.result { () async throws(FileError) in
            let file = try await process.node.kernel.open(
                path("name\(index)"),
                .writing,
                creates: 0o600,
                isExclusive: true
            )
            try await process.node.kernel.close(file)
        }
        try process.demandDaemon()
        let wasAlone = wasQuiet && name.version == before
        switch result {
        case .success:
            if !wasDoubtful, !name.isDoubtful, name.owner != nil || (wasThere && wasAlone) {
                throw SimulationFailure("name \(index) was made, and was there")
            }
            name.owner = process.number
            name.changed(by: process.life, isThere: true)
            simulation.log("\(process): made name \(index)")
        case .failure(.exists):
            if wasAlone, !wasDoubtful, !wasThere {
                throw SimulationFailure("name \(index) is said to exist, and does not")
            }
            name.end(process.life)
            guard wasAlone else { return }
            if wasDoubtful { name.settle(isThere: true) }
            name.met(by: process.life)
            // Whose maker is dead belongs to whoever comes first.
            if name.owner.map({ dead.contains($0) }) ?? true { name.owner = process.number }
        case .failure(let error): throw error
        }
    }

    private func remove(
        _ name: ContestedName,
        _ index: Int,
        _ process: SimulatedProcess
    ) async throws {
        name.begin(process.life)
        name.owner = nil
        try await process.node.kernel.remove(path("name\(index)"), isDirectory: false)
        try process.demandDaemon()
        // Somebody may have made it again since.
        name.changed(by: process.life, isThere: name.owner != nil)
        simulation.log("\(process): removed name \(index)")
    }

    private func checkName(_ process: inout SimulatedProcess) async throws {
        let index = process.dice.below(names.count)
        let name = names[index]
        let before = name.version
        guard name.isQuiet else { return }
        let result = await Simulation.result { () async throws(FileError) in
            try await process.node.kernel.status(path("name\(index)"))
        }
        try process.demandLife()
        guard name.version == before else { return }
        let isShown: Bool
        switch result {
        case .success: isShown = true
        case .failure(.notFound): isShown = false
        case .failure(let error): throw error
        }
        if name.isDoubtful {
            if process.isOrphan { return }
            name.settle(isThere: isShown)
        } else if isShown != name.isThere {
            // As it was all the time, or as another look has found out meanwhile.
            throw SimulationFailure(
                "name \(index) is \(isShown ? "shown, and is gone" : "not shown, and is there")"
            )
        }
        if !process.isOrphan { name.met(by: process.life) }
    }

    private func checkListing(_ process: SimulatedProcess) async throws {
        let before = names.map { ($0.isQuiet && !$0.isDoubtful ? $0.version : -1, $0.isThere) }
        let listed = try await process.node.kernel.list([Array("shared".utf8)]).map(\.name)
        try process.demandLife()
        for (index, name) in names.enumerated() where name.version == before[index].0 {
            if listed.contains(Array("name\(index)".utf8)) != before[index].1 {
                throw SimulationFailure("the listing is wrong about name \(index)")
            }
        }
    }
}
