// Nodes that die and power that fails, in the midst of operations on all nodes. What must survive:
//
//   - what was synchronised by the node that changed it last, and not changed since;
//   - a file that was synchronised on any node, with its name, as long as nobody has changed it
//   since;
//   - after the death of one node also whatever another node has changed last.
//
// What may be lost or not is then read from one node and taken as the truth; the others must show
// the same.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// A file that fsync has promised to keep.
struct Promise {
    var path: PathNames
    var object: Int
    var changes: Int
}

extension Simulation {
    /// Perhaps a disaster.
    func perhapsDisaster() async throws {
        if plan.faults.contains(.crash), dice.oneIn(50) {
            try await powerFailure()
        } else if plan.faults.contains(.kill), plan.nodes > 1, dice.oneIn(50) {
            try await death(dice.below(plan.nodes))
        } else if plan.faults.contains(.inputOutput), plan.nodes > 1, dice.oneIn(50) {
            try await withdrawal(dice.below(plan.nodes))
        } else if plan.faults.contains(.pause), dice.oneIn(50) {
            try await standstill(dice.below(plan.nodes))
        } else if plan.faults.contains(.partition), plan.nodes > 1, dice.oneIn(50) {
            try await partition()
        }
    }

    /// Notes what a completed fsync has promised.
    func promise(_ path: PathNames) {
        // What an earlier write without space has left of a file nobody knows.
        guard let object = try? tree.find(path), !tree.objects[object].isDoubtful else { return }
        promises.removeAll { $0.object == object }
        promises.append(
            Promise(path: path, object: object, changes: tree.objects[object].changes)
        )
    }

    private func powerFailure() async throws {
        if dice.oneIn(2) { try await synchronizeSome() }
        try await promiseSome()
        if plan.faults.contains(.full), dice.oneIn(2) {
            // A hundred operations, one after the other.
            try await end(crowdOut(), patience: 20 * Self.patience)
        }
        let isFull = plan.faults.contains(.full) && dice.oneIn(2)
        let work = isFull ? replaceFile() : dice.oneIn(3) ? fillLog() : []
        let operations = begin() + work
        if work.isEmpty {
            await rest()
        } else {
            await cluster.awaitDelicateMoment(&dice, limit: 400_000_000)
        }
        log("the power fails")
        report.crashes += 1
        for node in cluster.living { count(node) }
        cluster.crash()
        handles = []
        try await end(operations)
        if dice.oneIn(2) { try await check() }
        for index in 0..<plan.nodes { try await mount(index) }
        try await reconcile(isDurable: true) { $0 != nil }
    }

    private func death(_ index: Int) async throws {
        guard let victim = cluster.nodes[index], cluster.living.count > 1 else { return }
        if dice.oneIn(2) { try await synchronizeSome() }
        try await promiseSome()
        let operations = begin()
        await rest()
        log("n\(index + 1) dies")
        try await goOn(without: victim, index, operations)
    }

    /// A node stands still. Nobody may notice that for a short time; who stands still for long is
    /// killed by the others.
    private func standstill(_ index: Int) async throws {
        guard let victim = cluster.nodes[index] else { return }
        try await promiseSome()
        let operations = begin()
        await rest()
        let patience = Int(SimulatedMembership.patience)
        let isLong = cluster.living.count > 1 && dice.oneIn(2)
        let time = isLong ? 2 * patience + dice.below(patience) : dice.below(patience / 2)
        log("n\(index + 1) stands still for \(time / 1_000_000) ms")
        victim.member.lane.hold()
        await engine.sleep(until: engine.clock.now.advanced(nanoseconds: UInt64(time)))
        guard victim.isDead == isLong else {
            throw SimulationFailure(
                "n\(index + 1) stood still for \(time / 1_000_000) ms and was \(isLong ? "not " : "")killed"
            )
        }
        report.pauses += 1
        if isLong { return try await goOn(without: victim, index, operations) }
        victim.member.lane.release()
        try await goOn(operations)
    }

    /// Messages between two nodes are held up, or lost with their connection: then one of the two is
    /// killed by the other.
    private func partition() async throws {
        let living = cluster.nodes.indices.filter { cluster.nodes[$0] != nil }
        guard living.count > 1 else { return }
        let one = living[dice.below(living.count)]
        let others = living.filter { $0 != one }
        let other = others[dice.below(others.count)]
        let pair = [one, other].compactMap { cluster.nodes[$0] }
        try await promiseSome()
        let operations = begin()
        await rest()
        let ids = pair.map { NodeID(slot: $0.slot) }
        cluster.network.cut(from: ids[0], to: ids[1])
        let isSymmetric = dice.oneIn(2)
        if isSymmetric { cluster.network.cut(from: ids[1], to: ids[0]) }
        log("n\(one + 1) \(isSymmetric ? "and" : "to") n\(other + 1): nothing arrives")
        report.partitions += 1
        await rest()
        let isLost = dice.oneIn(2)
        if isLost {
            log("the connection of n\(one + 1) and n\(other + 1) breaks")
            cluster.network.breakConnection(ids[0], ids[1])
        }
        cluster.network.heal()
        guard isLost else { return try await goOn(operations) }
        try await within("one of n\(one + 1) and n\(other + 1) is killed") {
            while !pair.contains(where: \.isDead) {
                await self.engine.sleep(until: self.engine.clock.now.advanced(milliseconds: 1))
            }
        }
        let index = pair[0].isDead ? one : other
        let victim = pair[0].isDead ? pair[0] : pair[1]
        try await goOn(without: victim, index, operations)
        guard pair.filter(\.isDead).count == 1 else {
            throw SimulationFailure("n\(one + 1) and n\(other + 1) have killed each other")
        }
    }

    /// A node's way to the disk fails: sooner or later it withdraws, writes nothing from then on,
    /// and its process ends.
    private func withdrawal(_ index: Int) async throws {
        guard let victim = cluster.nodes[index], cluster.living.count > 1 else { return }
        if dice.oneIn(2) { try await synchronizeSome() }
        try await promiseSome()
        let host = victim.member.host
        host.faults.fail(&dice)
        log("the disk fails for n\(index + 1): \(host.faults)")
        let withdrawn = Outcome<Void>()
        victim.whenWithdrawn = withdrawn
        let operations = begin()
        doubt(.create([Self.insistence(1)], isExclusive: false))
        engine.spawn { await self.insist(victim) }
        try await within("n\(index + 1) withdraws") { await withdrawn.get() }
        log("n\(index + 1) withdraws: \(victim.withdrawal ?? "?")")
        report.withdrawals += 1
        // A process does not end at once.
        if dice.oneIn(2) { await rest() }
        if victim.wroteAfterWithdrawal {
            throw SimulationFailure("\(victim.kernel.name) wrote after it had withdrawn (V4)")
        }
        try await goOn(without: victim, index, operations)
    }

    /// Asks for what has to be written, until the node has met the failing disk.
    private func insist(_ victim: SimulatedNode) async {
        var round = 0
        while victim.withdrawal == nil, !victim.isDead {
            round += 1
            // A single failure may have met data only, or nothing.
            if round > 3 { victim.member.host.faults.failEverything = true }
            let name = Self.insistence(round)
            _ = await Self.result { () async throws(FileError) in
                _ = try await victim.perform(.create([name], isExclusive: false))
            }
            // On a full volume nothing was made, and nobody was asked to.
            _ = await Self.result { () async throws(FileError) in
                try await victim.kernel.synchronizeAll()
            }
        }
    }

    private static func insistence(_ round: Int) -> [UInt8] { Array("insisted \(round)".utf8) }

    /// An operation has ended for want of space, perhaps half way.
    func goOnWithoutSpace() async throws {
        log("no space is left")
        report.withoutSpace += 1
        for handle in handles { try await close(handle) }
        handles = []
        try await reconcile { _ in false }
    }

    /// Nobody has died.
    private func goOn(_ operations: [Outcome<Void>]) async throws {
        try await end(operations)
        for node in cluster.living { try healthy(node) }
        for handle in handles { try await close(handle) }
        handles = []
        try await reconcile { _ in false }
    }

    private func goOn(
        without victim: SimulatedNode,
        _ index: Int,
        _ operations: [Outcome<Void>]
    ) async throws {
        count(victim)
        report.deaths += 1
        handles.removeAll { $0.node === victim }
        cluster.kill(index)
        await rest()
        // The others go on while the journal is recovered.
        let later = begin()
        try await within("recovering n\(index + 1)") { try await self.cluster.recover() }
        try await end(operations + later)
        for node in cluster.living { try healthy(node) }
        for handle in handles { try await close(handle) }
        handles = []
        if dice.oneIn(2) { try await mount(index) }
        try await reconcile { $0 == index }
        if cluster.nodes[index] == nil { try await mount(index) }
    }

    private func synchronizeSome() async throws {
        for node in cluster.living where !dice.oneIn(4) {
            log("\(node.kernel.name): sync")
            try await within("sync") { try await node.kernel.synchronizeAll() }
            tree.settle(Int(node.slot.rawValue))
        }
    }

    /// Files written and synchronised just before: nothing but fsync itself has had the time to
    /// save them.
    private func promiseSome() async throws {
        for _ in 0..<dice.below(4) {
            let living = cluster.living
            let node = living[dice.below(living.count)]
            guard let operation = workload.synchronizedWrite(tree) else { return }
            log("\(node.kernel.name): \(operation)")
            tree.actor = Int(node.slot.rawValue)
            _ = try tree.apply(operation)
            let shown = try await within("\(operation)") {
                await Self.result { () async throws(FileError) in
                    try await node.perform(operation)
                }
            }
            if isRefused(shown) {
                doubt(operation)
                continue
            }
            _ = try shown.get()
            if let path = operation.synchronizedPath { promise(path) }
        }
    }

    /// Some node fills its log: two processes make many files and remove them. Room in a log is given up and
    /// used again at once only when there is none left. What the second one has made another node may remove: then
    /// the lock of the group goes to and fro while blocks are freed whose images are on their way.
    private func fillLog() -> [Outcome<Void>] {
        let living = cluster.living
        guard !living.isEmpty else { return [] }
        let node = living[dice.below(living.count)]
        let remover = dice.oneIn(2) ? node : living[dice.below(living.count)]
        log("\(node.kernel.name) fills its log")
        return (0..<2).map { process in
            let directory = [Array("filling \(process)".utf8)]
            doubt(.make(.directory, directory, target: []))
            // What an earlier one has left.
            for entry in (try? tree.find(directory)).map({ tree.objects[$0].entries }) ?? [] {
                doubt(.remove(directory + [entry.name], isDirectory: false))
            }
            let outcome = Outcome<Void>()
            engine.spawn {
                _ = await Self.result { () async throws(FileError) in
                    try await self.fillLog(node, process == 0 ? node : remover, directory)
                }
                outcome.deliver(())
            }
            return outcome
        }
    }

    /// Small files come and go, by two nodes, and then a file takes all that is left: room for it is there only
    /// when no log has images any more of what has gone.
    private func crowdOut() -> [Outcome<Void>] {
        let living = cluster.living
        guard !living.isEmpty else { return [] }
        let maker = living[dice.below(living.count)]
        let remover = living[dice.below(living.count)]
        let directory = [Array("crowd".utf8)]
        let names = (0..<40).map { directory + [Array("\($0)".utf8)] }
        let large = directory + [Array("large".utf8)]
        var operations: [(SimulatedNode, TreeOperation)] = [
            (maker, .make(.directory, directory, target: [])),
            (maker, .remove(large, isDirectory: false)),
        ]
        operations += names.map { (maker, .create($0, isExclusive: false)) }
        operations += names.map { (remover, .remove($0, isDirectory: false)) }
        operations.append((maker, .create(large, isExclusive: false)))
        let pattern = dice.next()
        for part in 0..<UInt64(16) {
            let offset = part << 18
            operations.append(
                (
                    maker,
                    .write(large, offset, count: 1 << 18, pattern: pattern, synchronizes: false)
                )
            )
        }
        operations.append((maker, .remove(large, isDirectory: false)))
        log("\(maker.kernel.name) fills the volume, and frees it")
        for (_, operation) in operations { doubt(operation) }
        let outcome = Outcome<Void>()
        engine.spawn {
            for (node, operation) in operations {
                // It may be there already, or not fit.
                _ = await Self.result { () async throws(FileError) in
                    try await node.perform(operation)
                }
            }
            outcome.deliver(())
        }
        return [outcome]
    }

    /// Some node removes a file and writes another one at once, on a volume that may have no other room: what
    /// the removal gives may not be used before it is durable.
    private func replaceFile() -> [Outcome<Void>] {
        let living = cluster.living
        let files = tree.allPaths().filter {
            tree.objects[$0.object].kind == .file && tree.objects[$0.object].size > 8192
        }
        guard !living.isEmpty, !files.isEmpty else { return [] }
        let node = living[dice.below(living.count)]
        let old = files[dice.below(files.count)]
        let new: PathNames = old.path.dropLast() + [Array("instead".utf8)]
        let operations: [TreeOperation] = [
            .remove(old.path, isDirectory: false), .create(new, isExclusive: false),
            .write(
                new,
                0,
                count: Int(min(tree.objects[old.object].size, 1 << 20)),
                pattern: dice.next(),
                synchronizes: false
            ),
        ]
        log("\(node.kernel.name) replaces \(text(old.path))")
        for operation in operations { doubt(operation) }
        let outcome = Outcome<Void>()
        engine.spawn {
            _ = await Self.result { () async throws(FileError) in
                for operation in operations { _ = try await node.perform(operation) }
            }
            outcome.deliver(())
        }
        return [outcome]
    }

    private func fillLog(
        _ node: SimulatedNode,
        _ remover: SimulatedNode,
        _ directory: PathNames
    ) async throws(FileError) {
        do throws(FileError) {
            _ = try await node.perform(.make(.directory, directory, target: []))
        } catch .exists {
            // By an earlier disaster.
        }
        let names = (0..<30).map { directory + [Array("\($0)".utf8)] }
        for _ in 0..<3 {
            for name in names { _ = try await node.perform(.create(name, isExclusive: false)) }
            for name in names { _ = try await remover.perform(.remove(name, isDirectory: false)) }
        }
    }

    func rest() async {
        if dice.oneIn(4) { await cluster.awaitDelicateMoment(&dice, limit: 60_000_000) }
        let limit = dice.oneIn(2) ? 200_000 : dice.oneIn(2) ? 2_000_000 : 100_000_000
        await engine.sleep(until: engine.clock.now.advanced(nanoseconds: UInt64(dice.below(limit))))
    }

    /// Operations on all nodes at the same time. Nobody knows which of them will have been.
    func begin() -> [Outcome<Void>] {
        var outcomes: [Outcome<Void>] = []
        for _ in 0..<dice.below(12) {
            let living = cluster.living
            let node = living[dice.below(living.count)]
            let operation = workload.next(tree)
            log("\(node.kernel.name), meanwhile: \(operation)")
            doubt(operation)
            if case .store(let path, _, _, _) = operation { storers.append((node, path)) }
            let outcome = Outcome<Void>()
            let start = engine.clock.now.advanced(nanoseconds: UInt64(dice.below(3_000_000)))
            engine.spawn {
                await self.engine.sleep(until: start)
                _ = await Self.result { () async throws(FileError) in
                    try await node.perform(operation)
                }
                outcome.deliver(())
            }
            outcomes.append(outcome)
        }
        return outcomes
    }

    func end(
        _ operations: [Outcome<Void>],
        patience: UInt64 = Simulation.patience
    ) async throws {
        try await within("what was begun before the disaster", patience: patience) {
            for operation in operations { await operation.get() }
        }
    }

    /// An operation that may happen or not, before or after others: all it can touch is in doubt.
    func doubt(_ operation: TreeOperation) {
        for path in operation.paths {
            if let object = try? tree.find(path) {
                tree.doubt(object)
                if operation.movesNames { tree.objects[object].mayMove = true }
            }
            if let object = try? tree.find(Array(path.dropLast())) { tree.doubt(object) }
        }
    }

    // MARK: What is left

    /// Checks what must have survived, `isAtRisk` telling by the last node that touched a thing
    /// what need not; takes over what is there. `isDurable` says that all of it was read from the disk.
    func reconcile(
        isDurable: Bool = false,
        _ isAtRisk: (Int?) -> Bool
    ) async throws {
        let living = cluster.living
        let node = living[dice.below(living.count)]
        log("\(node.kernel.name): what is left?")
        var lost = Survivors(
            tree: tree,
            isLost: tree.objects.map { $0.isDoubtful || isAtRisk($0.toucher) }
        )
        for promise in promises where tree.objects[promise.object].changes == promise.changes {
            if let object = try? tree.find(promise.path), object == promise.object,
                tree.isFixed(promise.path)
            {
                lost.promised.append((promise.path, object))
            }
        }
        promises = []
        let comparison = Comparison(node: node, tree: tree, dice: dice.fork())
        let survivors = lost
        try await within("looking for what must have survived") {
            try await survivors.check(comparison)
        }
        let left = try await within("reading what is left") { try await adopt(node.kernel) }
        tree = left.tree
        if !isDurable, living.count == 1 {
            // Nobody else looks, and so it may be in the memory of this node alone.
            for index in tree.objects.indices {
                tree.objects[index].toucher = Int(node.slot.rawValue)
            }
        }
        try healthy(node)
        try demandProvenance(left.identities)
        try await compareAll()
    }
}

extension Simulation {
    /// Whatever is in a file was once written to it (B1).
    private func demandProvenance(
        _ identities: [(inode: InodeNumber, object: Int)]
    ) throws(SimulationFailure) {
        for (inode, index) in identities where tree.objects[index].kind == .file {
            let object = tree.objects[index]
            if let place = provenance.foreign(inode, pages: object.pages, of: object.size) {
                throw SimulationFailure("bytes \(place) of inode \(inode) were never written to it")
            }
        }
    }
}

extension DiskFaults {
    /// Something, by dice, fails from now on: one request of a kind, after some others, or all.
    mutating func fail(_ dice: inout SeededGenerator) {
        let countdown = 1 + dice.below(8)
        switch dice.below(5) {
        case 0: failRead = countdown
        case 1: failWrite = countdown
        case 2: failFlush = countdown
        default: failEverything = true
        }
    }
}

/// What must be found after a disaster.
struct Survivors {
    let tree: TreeModel
    /// By object: it need not be there as it was.
    let isLost: [Bool]
    var promised: [(path: PathNames, object: Int)] = []

    func check(_ comparison: Comparison) async throws {
        var comparison = comparison
        try await check([], 0, &comparison)
        for (path, object) in promised {
            do {
                try await comparison.check(path, object, isLasting: true)
            } catch {
                throw SimulationFailure("a broken promise of fsync: \(error)")
            }
        }
    }

    private func check(
        _ path: PathNames,
        _ object: Int,
        _ comparison: inout Comparison
    ) async throws {
        if !isLost[object] {
            do {
                try await comparison.check(path, object, isLasting: true)
            } catch {
                throw SimulationFailure("lost: \(error)")
            }
        }
        for entry in tree.objects[object].entries {
            let inner = path + [entry.name]
            let child = entry.object
            // A name of something that nobody has touched is still there, unless a directory above
            // it was moved.
            if isLost[child] || isLost[object] {
                let kind = await comparison.kind(inner)
                guard tree.objects[child].kind == .directory, kind == .directory else { continue }
                if isLost[object], !isSame(inner) { continue }
            }
            try await check(inner, child, &comparison)
        }
    }

    /// Whether no directory on the path may have been moved or replaced.
    private func isSame(_ path: PathNames) -> Bool {
        var here = 0
        for name in path {
            guard let index = tree.objects[here].index(of: name) else { return false }
            here = tree.objects[here].entries[index].object
            if isLost[here], tree.objects[here].kind == .directory { return false }
        }
        return true
    }
}

/// Reads a whole tree from a node and takes it for the truth.
func adopt(
    _ kernel: KernelModel
) async throws -> (tree: TreeModel, identities: [(inode: InodeNumber, object: Int)]) {
    var tree = TreeModel()
    var known: [InodeNumber: Int] = [:]
    var identities: [(inode: InodeNumber, object: Int)] = []
    var pending: [(path: PathNames, object: Int)] = [([], 0)]
    let root = try await kernel.status([])
    tree.objects[0].mode = root.mode & 0o7777
    try await readAttributes(kernel, [], 0, &tree)
    while let (path, directory) = pending.popLast() {
        for listed in try await kernel.list(path)
        where listed.name != [46] && listed.name != [46, 46] {
            let inner = path + [listed.name]
            if let object = known[listed.inode] {
                tree.insert(directory, listed.name, object)
                tree.objects[object].links += 1
                continue
            }
            let object = try await adoptObject(kernel, inner, &tree)
            known[listed.inode] = object
            identities.append((listed.inode, object))
            if tree.objects[object].kind == .directory { pending.append((inner, object)) }
        }
    }
    for index in tree.objects.indices { tree.objects[index].toucher = nil }
    return (tree, identities)
}

private func adoptObject(
    _ kernel: KernelModel,
    _ path: PathNames,
    _ tree: inout TreeModel
) async throws -> Int {
    let status = try await kernel.status(path)
    let kinds: [ModelKind] = [.file, .directory, .symbolicLink, .pipe]
    guard let kind = kinds.first(where: { $0.typeBits == status.mode & 0o170000 }) else {
        throw SimulationFailure("\(text(path)) is of no kind that was ever made")
    }
    let object = try tree.make(kind, path, mode: 0)
    tree.objects[object].mode = status.mode & 0o7777
    tree.objects[object].group = status.group
    try await readAttributes(kernel, path, object, &tree)
    switch kind {
    case .symbolicLink:
        tree.objects[object].target = try await kernel.readLink(path)
        tree.objects[object].size = status.size
    case .file:
        let file = try await kernel.open(path, .reading)
        var offset: UInt64 = 0
        while offset < status.size {
            let bytes = try await kernel.read(file, at: offset, count: 256 << 10)
            if bytes.isEmpty { break }
            tree.write(object, at: offset, bytes)
            offset += UInt64(bytes.count)
        }
        try await kernel.close(file)
        if offset != status.size {
            throw SimulationFailure("\(text(path)) has \(offset) bytes and says \(status.size)")
        }
    case .directory, .pipe: break
    }
    return object
}

private func readAttributes(
    _ kernel: KernelModel,
    _ path: PathNames,
    _ object: Int,
    _ tree: inout TreeModel
) async throws {
    let names = try await kernel.extendedAttributeNames(path)
    for name in names.split(separator: 0).map(Array.init) {
        tree.setAttribute(object, name, try await kernel.extendedAttribute(path, name))
    }
}
