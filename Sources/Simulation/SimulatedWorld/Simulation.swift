// One run: processes on all nodes change one tree, an operation at a time, and after each some
// node, usually another one, must show what the model says. In between nodes come and go. In the
// end everything is unmounted and checked.

import ClusterNode
import Execution
import FileSystem
import LockCache
import LockCore
import NodeService
import SimulatedMachine
import Vocabulary
import VolumeChecking

/// One run.
package final class Simulation {
    let plan: SimulationPlan
    let engine: Engine
    let cluster: SimulatedCluster
    var tree = TreeModel()
    var dice: SeededGenerator
    var workload: Workload
    var report = SimulationReport()
    var handles: [HeldFile] = []
    var scrubbing: RunningScrub?
    var limits = SimulatedLimits()
    /// How often the bound of quotas was judged.
    var quotaLooks = 0
    var promises: [Promise] = []
    let exclusivity: Exclusivity
    let provenance = Provenance()
    /// What a race for pages has shown that must not be.
    var raceViolation: String?
    /// Who has stored through a mapping in the midst of the last disaster, and into which file.
    var storers: [(node: SimulatedNode, path: PathNames)] = []
    /// What happened, newest last; the end of it is shown with a failure.
    var story: [String] = []
    /// Told each line of the story as it happens.
    let tell: ((String) -> Void)?

    /// How long orphans may stay that nobody has open, in nanoseconds of virtual time.
    static let timeToFree: UInt64 = 5_000_000_000

    /// How long one operation may take, in nanoseconds of virtual time.
    static let patience: UInt64 = 30_000_000_000

    private init(
        _ plan: SimulationPlan,
        _ engine: Engine,
        _ cluster: SimulatedCluster,
        _ tell: ((String) -> Void)?
    ) {
        self.plan = plan
        self.engine = engine
        self.cluster = cluster
        self.tell = tell.map { tell in { tell("\(engine.clock.now): \($0)") } }
        exclusivity = Exclusivity(cluster)
        dice = engine.seededExecutor.forkDice()
        workload = Workload(plan.workload, dice: dice.fork())
        workload.fillsUp = plan.faults.contains(.full)
        workload.keepsFilesSmall =
            !plan.faults.isDisjoint(with: [.deadly, .full, .rot, .freeze, .quota])
    }

    /// Makes the run.
    ///
    /// - Throws: `SimulationFailure` with the story's end, or what the executor says of a run that
    /// does not end.
    package static func run(
        _ plan: SimulationPlan,
        tell: ((String) -> Void)? = nil
    ) throws -> SimulationReport {
        _ = Probes.take()
        return try runSimulated(seed: plan.seed, stepLimit: 50_000_000) { engine in
            let cluster = try await SimulatedCluster(engine: engine, plan)
            let simulation = Simulation(plan, engine, cluster, tell)
            do {
                try await simulation.within("the run", patience: 3_600_000_000_000) {
                    try await simulation.play()
                }
            } catch {
                throw SimulationFailure(
                    "\(error)\n  \(simulation.ending.joined(separator: "\n  "))"
                )
            }
            simulation.report.traced = simulation.provenance.judged
            simulation.report.grants = simulation.exclusivity.judged
            simulation.report.records = cluster.order.judgedRecords
            simulation.report.diskGrants = cluster.order.judgedGrants
            simulation.report.messages = cluster.messageCount
            simulation.report.probes = Probes.take()
            simulation.report.jobs = engine.seededExecutor.steps
            simulation.report.virtualTime = engine.clock.now.rawValue
            simulation.report.scheduleHash = engine.seededExecutor.scheduleHash
            return simulation.report
        }
    }

    func log(_ line: String) {
        story.append(line)
        if story.count > 200 { story.removeFirst(100) }
        tell?(line)
    }

    /// The last events, those of every node, and the locks that nodes have in use.
    private var ending: [String] {
        let recent = story.suffix(12)
        var lines = Array(recent)
        for index in cluster.nodes.indices {
            let name = "n\(index + 1)"
            let own = story.dropLast(recent.count).filter {
                $0.hasPrefix("\(name):") || $0.hasPrefix("\(name) ") || $0.hasPrefix("    \(name) ")
            }
            lines += own.suffix(3).map { "before: \($0)" }
            if let node = cluster.nodes[index] { lines.append(Self.describeLocks(node)) }
        }
        return lines
    }

    // MARK: The run

    private func play() async throws {
        cluster.onDeath = { [exclusivity] in exclusivity.died() }
        cluster.onReport = { [weak self] in self?.log("    \($0.identity): \($1)") }
        for index in 0..<plan.nodes { try await mount(index) }
        if plan.isConcurrent {
            let run = ConcurrentRun(self)
            try await within("the concurrent run", patience: 600_000_000_000) {
                try await run.play(steps: self.plan.steps)
            }
            report.operations = run.operations
            for node in cluster.living { try healthy(node) }
            return try await finish()
        }
        for _ in 0..<plan.steps {
            try demandExclusivity()
            try await unlessStoresAreLost { try await self.playStep() }
        }
        try await unlessStoresAreLost { try await self.compareAll() }
        try await finish()
    }

    private func playStep() async throws {
        try await disturb()
        try await perhapsScrub()
        try await perhapsQuota()
        try await perhapsDisaster()
        try await perhapsFreeze()
        let index = dice.below(plan.nodes)
        guard let node = cluster.nodes[index] else { return }
        if dice.oneIn(6) {
            try await playHandle(node, index)
        } else if dice.oneIn(25) {
            try await raceForPages(node)
        } else {
            try await playOperation(node, workload.next(tree))
        }
        if dice.oneIn(40) { try await compareAll() }
    }

    /// A mapping stores without asking for room: on a full volume its bytes may be lost, and nobody else
    /// is to blame for what shows that. Then nobody knows what is in any file until it is looked at.
    private func unlessStoresAreLost(_ body: () async throws -> Void) async throws {
        do {
            try await body()
        } catch {
            guard !losers.isEmpty else { throw error }
        }
        while !losers.isEmpty {
            raceViolation = nil
            for node in losers { node.kernel.writebackErrors.removeAll { isRefusal($0) } }
            for index in tree.objects.indices where tree.objects[index].kind == .file {
                tree.doubt(index)
            }
            do {
                try await goOnWithoutSpace()
            } catch {
                guard !losers.isEmpty else { throw error }
            }
        }
    }

    /// Nodes that have lost what mappings stored for want of space, on a volume that is to be full.
    private var losers: [SimulatedNode] {
        cluster.living.filter { $0.kernel.writebackErrors.contains(where: isRefusal) }
    }

    func mount(_ index: Int) async throws {
        log("n\(index + 1): mount")
        let node = try await within("mounting n\(index + 1)") {
            while true {
                do {
                    return try await self.cluster.mount(index)
                } catch  where self.plan.faults.contains(.freeze) && Self.isRefusal(error) {
                    self.log("n\(index + 1): \(error)")
                    try await self.cluster.recover()
                    // Each life costs memory: not again and again.
                    repeat {
                        await self.engine.sleep(nanoseconds: 5_000_000)
                    } while self.cluster.living.contains { $0.volume.freezer.phase != .running }
                }
            }
        }
        if let node { follow(node) }
    }

    /// Judges every grant, and tells what happens below the operations.
    private func follow(_ node: SimulatedNode) {
        let name = node.kernel.name
        if !plan.isConcurrent {
            node.onWrite = { [provenance] in provenance.write($0, at: $1, $2) }
        }
        if let tell { node.kernel.trace = { tell("    \($0)") } }
        node.member.runtime.onGlockEvent = {
            [exclusivity, order = cluster.order, tell, weak node] glock, event in
            tell?("    \(name) \(glock): \(event)")
            if case .granted(let mode) = event, let node {
                exclusivity.granted(glock, mode, to: node)
                // What a dead node still believes is no grant.
                if !node.isDead, node.withdrawal == nil {
                    order.granted(glock, to: node.member.host.name)
                }
            }
        }
    }

    /// What an observer has seen that must not be.
    var violation: String? {
        exclusivity.violation ?? cluster.order.violation ?? cluster.frozenViolation
    }

    func demandExclusivity() throws(SimulationFailure) {
        if let violation { throw SimulationFailure(violation) }
    }

    private func finish() async throws {
        try await endScrub()
        for handle in handles { try await close(handle) }
        handles = []
        // Nobody has anything open any more, and what was deleted meanwhile is freed.
        let isAttended = !cluster.living.isEmpty
        await engine.sleep(nanoseconds: Self.timeToFree)
        for node in cluster.living {
            try demandNoLeaks(node)
            try node.demandShrunkenCache()
        }
        for index in cluster.nodes.indices { try await unmount(index) }
        try demandExclusivity()
        let orphans = try await check().orphans
        guard orphans == 0 || !isAttended else {
            throw SimulationFailure("\(orphans) deleted files that nobody has open are not freed")
        }
        if plan.faults.contains(.rot) { try await rot() }
    }

    func unmount(_ index: Int) async throws {
        guard let node = cluster.nodes[index] else { return }
        try await endScrub(on: node)
        log("n\(index + 1): unmount")
        count(node)
        _ = try await within("unmounting n\(index + 1)") {
            try await self.cluster.unmount(index)
        }
        try healthy(node)
    }

    /// The figures of a node that goes.
    func count(_ node: SimulatedNode) {
        report.requests += node.kernel.requestCount
        report.cachedNames += node.kernel.cachedNames
        report.cachedPages += node.kernel.cachedPageReads
        report.demotions += Int(node.volume.counters.demotions)
        report.timeQuestions += Int(node.volume.counters.timeQuestions)
        report.glimpses += Int(node.volume.counters.glimpses)
        report.glimpseQuestions += Int(node.volume.counters.glimpseQuestions)
        let counters = node.volume.counters
        report.givenBack += Int(
            counters.locksGivenBackForAge + counters.locksGivenBackForNumber
                + counters.locksGivenBackForPressure + counters.blocksGivenBack
        )
        // The lock manager's core is pure: it counts.
        let locks = node.member.runtime.locks.counters
        if locks.movesIn > 0 { reached(.masterMoved) }
        if locks.staleMessages > 0 { reached(.staleMessage) }
        if locks.views > locks.recoveries { reached(.lockRecoveryOvertaken) }
    }

    @discardableResult
    func check() async throws -> CheckReport {
        log("check")
        let found = try await cluster.check()
        guard found.isClean else {
            let findings = found.findings.prefix(5).map(\.text).joined(separator: "; ")
            throw SimulationFailure("the checker found \(found.findingCount): \(findings)")
        }
        return found
    }

    /// A node must not have complained.
    func healthy(_ node: SimulatedNode) throws(SimulationFailure) {
        if let reason = node.withdrawal {
            throw SimulationFailure("\(node.kernel.name) withdrew: \(reason)")
        }
        if let line = node.reports.first {
            throw SimulationFailure("\(node.kernel.name) reported: \(line)")
        }
        if let error = node.kernel.writebackErrors.first(where: {
            !isRefusal($0)
        }) {
            throw SimulationFailure("\(node.kernel.name): a mapping's write-back failed: \(error)")
        }
    }

    // MARK: Operations

    func playOperation(_ node: SimulatedNode, _ operation: TreeOperation) async throws {
        log("\(node.kernel.name): \(operation)")
        report.operations += 1
        tree.actor = Int(node.slot.rawValue)
        var next = tree
        if case .append(let path, _, _) = operation, let object = try? tree.find(path) {
            provenance.end = tree.objects[object].size
        }
        defer { provenance.end = nil }
        let expected = result { () throws(FileError) in try next.apply(operation) }
        let isBeingFreed = cluster.living.contains { $0.volume.pendingOrphans > 0 }
        let shown = try await within("\(operation)") {
            await Self.result { () async throws(FileError) in try await node.perform(operation) }
        }
        try healthy(node)
        if isRefused(shown) {
            doubt(operation)
            provenance.end = nil
            try await setPrivileges(node, operation)
            let again = try await within("\(operation), once more") {
                await Self.result { () async throws(FileError) in
                    try await node.perform(operation)
                }
            }
            // A part of a write may be there now, and need less.
            let isLimit = if case .failure(.quotaExceeded) = shown { true } else { false }
            if case .success = again, !isBeingFreed, !isLimit {
                throw SimulationFailure("\(operation): no space, and at once after that there was")
            }
            return try await goOnWithoutSpace()
        }
        tree = next
        if case .failure = expected { report.refused += 1 }
        try compare(shown, expected, "\(node.kernel.name): \(operation)")
        if case .success = shown, let path = operation.synchronizedPath { promise(path) }
        try await look(operation)
        if case .rename = operation { try await judgeUsage(allowingGrowth: true) }  // U1
    }

    /// Perhaps gives the file of a write that found no space the set-user-id bit, which the next one is
    /// to take, or to leave to all nodes.
    private func setPrivileges(_ node: SimulatedNode, _ operation: TreeOperation) async throws {
        let path: PathNames
        switch operation {
        case .write(let written, _, _, _, _), .append(let written, _, _): path = written
        default: return
        }
        guard dice.oneIn(2) else { return }
        log("\(node.kernel.name): chmod \(text(path)) 4711")
        // It may be gone: what the operation was to do nobody knows.
        _ = try await within("chmod") {
            await Self.result { () async throws(FileError) in
                try await node.perform(.mode(path, 0o4711))
            }
        }
    }

    func compare(
        _ shown: Result<[UInt8], FileError>,
        _ expected: Result<[UInt8], FileError>,
        _ what: String
    ) throws(SimulationFailure) {
        switch (shown, expected) {
        case (.success(let bytes), .success(let wanted)):
            if bytes != wanted {
                throw SimulationFailure(
                    "\(what): \(difference(bytes, wanted, 0)) (from the range's start)"
                )
            }
        case (.failure(let error), .failure(let wanted)):
            if error != wanted { throw SimulationFailure("\(what): \(error), not \(wanted)") }
        case (.failure(let error), .success):
            throw SimulationFailure("\(what): \(error), but it should succeed")
        case (.success, .failure(let wanted)):
            throw SimulationFailure("\(what): succeeded, but \(wanted) is right")
        }
    }

    /// Some node, usually another one, must show the effect.
    private func look(_ operation: TreeOperation) async throws {
        let living = cluster.living
        let node = living[dice.below(living.count)]
        for path in operation.paths {
            if let object = try? tree.find(path) {
                try await compare(node, path, object)
            } else if !path.isEmpty {
                try await demandAbsence(node, path)
            }
            let parent = Array(path.dropLast())
            if !path.isEmpty, let object = try? tree.find(parent), dice.oneIn(2) {
                try await compare(node, parent, object)
            }
        }
    }

    private func demandAbsence(_ node: SimulatedNode, _ path: PathNames) async throws {
        let shown = try await within("stat \(text(path))") {
            await Self.result { () async throws(FileError) in
                _ = try await node.kernel.status(path)
                return []
            }
        }
        if case .success = shown {
            throw SimulationFailure("\(node.kernel.name) shows \(text(path)), which is gone")
        }
    }

    private func compare(_ node: SimulatedNode, _ path: PathNames, _ object: Int) async throws {
        var comparison = Comparison(node: node, tree: tree, dice: dice.fork())
        try await within("looking at \(text(path)) on \(node.kernel.name)") {
            try await comparison.check(path, object)
        }
        try healthy(node)
    }

    func compareAll() async throws {
        log("compare everything")
        for node in cluster.living {
            var comparison = Comparison(node: node, tree: tree, dice: dice.fork())
            try await within("looking at everything on \(node.kernel.name)") {
                try await comparison.checkAll()
            }
            try healthy(node)
        }
        try await compareTimes()
    }

    // MARK: Waiting with a limit

    static func result<Value>(
        _ body: () async throws(FileError) -> Value
    ) async -> Result<Value, FileError> {
        do throws(FileError) {
            return .success(try await body())
        } catch {
            return .failure(error)
        }
    }

    func result<Value>(_ body: () throws(FileError) -> Value) -> Result<Value, FileError> {
        do throws(FileError) {
            return .success(try body())
        } catch {
            return .failure(error)
        }
    }

    /// Does something that must come to an end.
    @discardableResult
    func within<Value>(
        _ what: String,
        patience: UInt64 = Simulation.patience,
        _ body: @escaping () async throws -> Value
    ) async throws -> Value {
        let outcome = Outcome<Result<Value, any Error>>()
        engine.spawn {
            let result: Result<Value, any Error>
            do {
                result = .success(try await body())
            } catch {
                result = .failure(error)
            }
            if outcome.value == nil { outcome.deliver(result) }
        }
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: patience),
            in: engine,
            EngineBound { [cluster] in
                guard outcome.value == nil else { return }
                let locks = cluster.living.map { Self.describeLocks($0) }.joined(separator: "; ")
                outcome.deliver(
                    .failure(SimulationFailure("\(what) does not come to an end; \(locks)"))
                )
            }
        )
        return try await outcome.get().get()
    }

    /// The glocks of a node that are in use or waited for.
    static func describeLocks(_ node: SimulatedNode) -> String {
        var lines: [String] = []
        node.volume.locks.forEach { glock in
            let machine = glock.machine
            guard !machine.isIdle || machine.wanted != nil else { return }
            lines.append(
                "\(glock.name) \(machine.held) \(machine.phase)"
                    + (machine.isExclusive ? " exclusive" : "")
                    + (machine.sharedCount > 0 ? " shared \(machine.sharedCount)" : "")
                    + (machine.hasWaiters ? " waiters" : "")
                    + (machine.wanted.map { " wanted \($0)" } ?? "")
            )
        }
        return
            "\(node.kernel.name), \(node.kernel.waitingRequests) requests open, last looked at \(node.lastLook): \(lines.isEmpty ? "idle" : lines.joined(separator: ", "))"
    }
}

extension TreeOperation {
    /// Whether it takes names away.
    var movesNames: Bool {
        switch self {
        case .rename, .remove: true
        default: false
        }
    }

    /// The file that is durable afterwards.
    var synchronizedPath: PathNames? {
        switch self {
        case .write(let path, _, _, _, true), .synchronize(let path): path
        default: nil
        }
    }

    /// The paths whose objects it touches.
    var paths: [PathNames] {
        switch self {
        case .create(let path, _), .make(_, let path, _), .remove(let path, _),
            .truncate(let path, _), .allocate(let path, _, _), .mode(let path, _),
            .setAttribute(let path, _, _),
            .write(let path, _, _, _, _), .append(let path, _, _), .store(let path, _, _, _),
            .read(let path, _, _), .synchronize(let path):
            [path]
        case .link(let path, let new), .rename(let path, let new, _): [path, new]
        }
    }
}
