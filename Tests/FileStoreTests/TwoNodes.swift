import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import SimulatedMachine
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

/// One node that mounts the volume: its own slot, journal and cache.
final class TestNode {
    let slot: SlotIndex
    let host: SimulatedHost
    let cache: MetadataCache
    let journal: Journal
    let store: FileStore

    init(_ plan: VolumePlan, slot: SlotIndex, _ disk: SimulatedDisk, _ engine: Engine) async throws
    {
        self.slot = slot
        host = disk.attach("\(slot)")
        cache = MetadataCache(device: host, superblock: plan.superblock, capacity: 200)
        journal = try await Journal.open(
            device: host,
            superblock: plan.superblock,
            descriptor: plan.slots[Int(slot.rawValue)],
            cache: cache,
            engine: engine
        )
        store = FileStore(superblock: plan.superblock, cache: cache)
    }
}

/// Two nodes that work on one directory of files and hand the locks to each other; one of them dies
/// now and then, and the other replays its journal. Locks are what a real mount does with them, and
/// no more: who gives one up settles and drops it.
final class TwoNodes {
    /// What a completed operation did to the names of the directory.
    struct Change {
        var node: Int
        var sequence: UInt64
        var name: String
        var number: InodeNumber?
    }

    let engine: Engine
    let disk: SimulatedDisk
    let plan: VolumePlan
    var nodes: [TestNode] = []
    var owners: [ResourceName: Int] = [:]
    var dice: SeededGenerator
    /// Names at the time of the last crash, and what was done since.
    var base: [String: InodeNumber] = [:]
    var changes: [Change] = []
    var nextName = 0
    /// Files that were freed, and by whom.
    var gone: [(number: InodeNumber, node: Int)] = []
    var deaths = 0

    init(_ engine: Engine, seed: UInt64) async throws {
        self.engine = engine
        dice = SeededGenerator(seed: seed)
        var options = VolumeOptions(
            deviceSize: 12 << 20,
            volume: VolumeID(high: 3, low: 4),
            created: .zero
        )
        options.blocksPerGroup = 160
        options.journalCount = 2
        options.journalSize = 300 * 4096
        plan = try VolumePlan(options)
        disk = SimulatedDisk(byteCount: 12 << 20, executor: engine.seededExecutor)
        try await VolumeMaker.make(on: disk.attach(), plan: plan)
        for index in 0..<2 {
            nodes.append(try await TestNode(plan, slot: SlotIndex(UInt32(index)), disk, engine))
        }
    }

    var superblock: Superblock { plan.superblock }

    var names: [String: InodeNumber] { Self.names(base, changes) }

    private static func names(
        _ base: [String: InodeNumber],
        _ changes: [Change]
    ) -> [String: InodeNumber] {
        changes.reduce(into: base) { $0[$1.name] = $1.number }
    }

    // MARK: locks

    /// Gives a node the locks it needs; whoever has one gives it up as a demotion does.
    func take(_ resources: [ResourceName], for node: Int) async throws {
        for resource in resources where owners[resource] != node {
            if let owner = owners[resource] {
                try await nodes[owner].store.settle(resource, nodes[owner].journal)
                nodes[owner].cache.drop(covering: resource)
                if resource.kind == .resourceGroup {
                    nodes[owner].store.dropGroup(UInt32(resource.number))
                }
            }
            owners[resource] = node
        }
    }

    func change<Result>(
        _ node: Int,
        _ cost: OperationCost,
        groups indices: [UInt32],
        _ body: (Allocator) async throws -> Result
    ) async throws -> (result: Result, sequence: UInt64) {
        try await take(indices.map { .resourceGroup($0) }, for: node)
        let store = nodes[node].store
        var groups: [ResourceGroup] = []
        for index in indices { groups.append(try await store.group(index)) }
        let transaction = try await nodes[node].journal.begin(
            blocks: cost.modifiedBlocks + groups.count
        )
        let allocator = Allocator(store: store, groups: groups, transaction: transaction)
        defer {
            allocator.end()
            transaction.end()
            for group in groups { group.checkInvariants() }
        }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw StoreError.noSpace }
        return (try await body(allocator), transaction.sequence)
    }

    func inode(_ number: InodeNumber, on node: Int) async throws -> StoredInode {
        try await take([.inode(number)], for: node)
        return try await nodes[node].store.readInode(number)
    }

    func randomGroups() -> [UInt32] {
        let count = Int(superblock.groupCount)
        return Set([UInt32(dice.below(count)), UInt32(dice.below(count))]).sorted()
    }

    // MARK: operations

    func makeFile(_ node: Int) async throws {
        let name = "file \(nextName)"
        nextName += 1
        let root = try await inode(superblock.root, on: node)
        let directory = Directory(nodes[node].store, root)
        let insertion = try await directory.prepareInsertion(name)
        let record = InodeRecord(
            mode: 0o100644,
            user: 0,
            group: 0,
            linkCount: 1,
            born: Timestamp(seconds: 1, nanoseconds: 0)
        )
        let cost = insertion.cost + FileStore.makeInodeCost
        let store = nodes[node].store
        let (file, sequence) = try await change(node, cost, groups: randomGroups()) { allocator in
            let file = store.makeInode(
                record,
                near: allocator.groups[0].start,
                with: allocator
            )
            _ = file.convertInlineDataToExtents(in: allocator.transaction)
            try directory.insert(insertion, name, target: file.number, type: 8, with: allocator)
            return file
        }
        // A new name: nobody else has ever asked for its lock.
        owners[.inode(file.number)] = node
        #expect(!gone.contains { $0.number == file.number })
        changes.append(Change(node: node, sequence: sequence, name: name, number: file.number))
    }

    /// Writes a run of blocks somewhere in a file, each with a mark that says what it is.
    func write(_ node: Int, _ number: InodeNumber) async throws {
        let file = try await inode(number, on: node)
        let extents = ExtentMap(nodes[node].store, file)
        let logical = UInt64(dice.below(60))
        guard case .hole(let until) = try await extents.lookup(logical) else { return }
        let wanted = UInt32(min(UInt64(1 + dice.below(6)), until - logical))
        let host = nodes[node].host
        _ = try await change(node, extents.insertionCost(), groups: randomGroups()) { allocator in
            guard let run = allocator.takeData(near: nil, wanted: wanted) else { return }
            let end = logical + UInt64(run.length)
            file.record.size = max(file.record.size, end * 4096)
            try await extents.insert(
                Extent(logical: logical, physical: run.start, length: run.length),
                with: allocator
            )
            for offset in 0..<UInt64(run.length) {
                let buffer = AlignedBuffer(zeroed: 4096)
                buffer.bytes.put64(number.address.rawValue, 0)
                buffer.bytes.put64(number.generation, 8)
                buffer.bytes.put64(logical + offset, 16)
                try await host.write(
                    buffer.readOnly,
                    at: superblock.byteOffset(run.start + offset)
                )
            }
        }
    }

    func setAttribute(_ node: Int, _ number: InodeNumber) async throws {
        let file = try await inode(number, on: node)
        let attributes = ExtendedAttributes(nodes[node].store, file)
        let value = [UInt8](repeating: UInt8(dice.below(256)), count: dice.below(9000))
        let update = try await attributes.prepareSet("user.\(dice.below(3))", value)
        let groups = Set(update.groups + randomGroups()).sorted()
        _ = try await change(node, update.cost, groups: groups) {
            try attributes.apply(update, with: $0)
        }
    }

    func removeExtents(_ node: Int, _ number: InodeNumber, from start: UInt64) async throws {
        let file = try await inode(number, on: node)
        let extents = ExtentMap(nodes[node].store, file)
        while let step = try await extents.nextRemoval(from: start, groupLimit: 2) {
            _ = try await change(node, step.cost, groups: step.groups) {
                file.record.size = min(file.record.size, step.firstLogical * 4096)
                try extents.remove(step, with: $0)
            }
        }
    }

    func removeFile(_ node: Int, _ name: String, _ number: InodeNumber) async throws {
        try await removeExtents(node, number, from: 0)
        let file = try await inode(number, on: node)
        let attributes = ExtendedAttributes(nodes[node].store, file)
        let update = try await attributes.prepareRemoveAll()
        _ = try await change(node, update.cost, groups: update.groups) {
            try attributes.apply(update, with: $0)
        }
        let root = try await inode(superblock.root, on: node)
        let directory = Directory(nodes[node].store, root)
        let removal = try await directory.prepareRemoval(Array(name.utf8))
        let own = try #require(superblock.group(of: number.address))
        let groups = Set(removal.groups + [own]).sorted()
        let store = nodes[node].store
        let (_, sequence) = try await change(
            node,
            removal.cost + FileStore.freeInodeCost,
            groups: groups
        ) {
            try directory.remove(removal, with: $0)
            try store.freeInode(file, with: $0)
        }
        changes.append(Change(node: node, sequence: sequence, name: name, number: nil))
        gone.append((number, node))
    }

    /// Whoever still has the number of a file that is gone asks for its lock and finds out.
    func askForGone() async throws {
        guard !gone.isEmpty else { return }
        let number = gone[dice.below(gone.count)].number
        let node = dice.below(2)
        try await take([.inode(number)], for: node)
        let answer = await storeError { _ = try await nodes[node].store.readInode(number) }
        #expect(answer == "stale")
    }

    /// The log barrier: both logs are empty, then one node releases a group.
    func releaseQuarantine(_ node: Int) async throws {
        for each in nodes { try await each.journal.checkpointAll() }
        let index = UInt32(dice.below(Int(superblock.groupCount)))
        _ = try await change(node, .nothing, groups: [index]) {
            $0.groups[0].releaseQuarantine(in: $0.transaction)
        }
    }

    func randomOperation() async throws {
        let node = dice.below(2)
        let files = names.sorted { $0.value < $1.value }
        let choice = dice.below(20)
        if dice.oneIn(8) { try await askForGone() }
        if files.count < 3 || choice < 4 && files.count < 60 { return try await makeFile(node) }
        let (name, number) = files[dice.below(files.count)]
        switch choice {
        case 0..<11: try await write(node, number)
        case 11..<13: try await setAttribute(node, number)
        case 13..<15: try await removeExtents(node, number, from: UInt64(dice.below(60)))
        case 15..<18: try await removeFile(node, name, number)
        case 18: try await nodes[node].journal.commit()
        default: if dice.oneIn(4) { try await releaseQuarantine(node) }
        }
    }

    // MARK: death

    /// The node is fenced; the other one replays its journal, and a new node comes into the slot.
    func kill(_ node: Int) async throws {
        deaths += 1
        let dead = nodes[node]
        dead.host.cutOff()
        dead.journal.stop()
        let other = nodes[1 - node]
        _ = try await JournalReplay.replay(
            device: other.host,
            superblock: superblock,
            slot: dead.slot
        )
        for resource in owners.keys.sorted() where owners[resource] == node {
            owners[resource] = nil
        }
        nodes[node] = try await TestNode(plan, slot: dead.slot, disk, engine)
        // Whole compound transactions are there, up to the durable one or the one behind it.
        let found = try await listRoot()
        let possible = [UInt64(0), 1].map { extra in
            Self.names(
                base,
                changes.filter { change in
                    change.node != node
                        || change.sequence > 0 && dead.journal.isDurable(change.sequence - extra)
                }
            )
        }
        #expect(possible.contains(found))
        base = found
        changes = []
        // What the dead node freed may be there again, or its number may be dealt anew.
        gone.removeAll { $0.node == node }
    }

    func listRoot() async throws -> [String: InodeNumber] {
        let node = dice.below(2)
        let root = try await inode(superblock.root, on: node)
        var found: [String: InodeNumber] = [:]
        try await Directory(nodes[node].store, root).enumerate(after: 0) { record, name in
            found[String(decoding: name, as: UTF8.self)] = record.inode
            return true
        }
        return found
    }

    // MARK: the end

    /// Every block of every file holds its mark, and the checker finds nothing.
    func expectSound() async throws {
        #expect(try await listRoot() == names)
        for (_, number) in names.sorted(by: { $0.value < $1.value }) {
            let node = dice.below(2)
            let file = try await inode(number, on: node)
            var extents: [Extent] = []
            try await ExtentMap(nodes[node].store, file).forEach(from: 0) {
                extents.append($0)
                return true
            }
            for extent in extents { try await expectMarks(extent, number) }
        }
        for node in nodes { try await node.journal.checkpointAll() }
        let report = try await VolumeChecker.check(nodes[0].host)
        // The journals are in use: that is no damage.
        for finding in report.findings { Issue.record("\(finding.text)") }
    }

    private func expectMarks(_ extent: Extent, _ number: InodeNumber) async throws {
        for offset in 0..<UInt64(extent.length) {
            let buffer = AlignedBuffer(byteCount: 4096)
            try await nodes[0].host.read(
                buffer.bytes,
                at: superblock.byteOffset(extent.physical + offset)
            )
            let bytes = buffer.readOnly
            #expect(
                bytes.u64(0) == number.address.rawValue && bytes.u64(8) == number.generation
                    && bytes.u64(16) == extent.logical + offset
            )
        }
    }
}

@Suite struct TwoNodesTests {
    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func deathsLeaveNothingBehind(seed: UInt64) throws {
        try runSimulated(seed: seed) { engine in
            let world = try await TwoNodes(engine, seed: seed)
            for _ in 0..<8 {
                for _ in 0..<world.dice.below(150) {
                    do {
                        try await world.randomOperation()
                    } catch StoreError.noSpace {
                        // The few groups that were dealt are full. Nothing has changed.
                    }
                }
                if world.dice.oneIn(3) {
                    try await world.expectSound()
                } else {
                    try await world.kill(world.dice.below(2))
                }
            }
            try await world.expectSound()
            #expect(world.deaths > 0)
        }
    }
}
