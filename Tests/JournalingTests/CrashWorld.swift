import BlockIO
import DiskFormat
import Execution
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

// A small world that knows at every moment what a recovery may find.
//
// There are some groups of blocks. Each has an index block, which says what the group is, under one
// lock, and members under another. Every transaction gives each group it touches a new state with a
// number of its own, and writes that number into the index and into all members; so after a crash
// the index says which state of the group's history came through, and the members must agree. A
// group belongs to one node at a time and is handed over by `settle`.

/// What a group is.
enum GroupKind: UInt64 {
    /// All members are metadata with the number of the state.
    case live = 0
    /// The members are free, in quarantine.
    case freed = 1
    /// The members hold data: every byte of them follows from the number of the state.
    case data = 2
}

/// One state of one group, made by one transaction.
final class GroupState {
    let number: UInt64
    let kind: GroupKind
    let generation: UInt64
    private(set) var node: Int
    private(set) var sequence: UInt64
    var isDurable = false

    init(number: UInt64, kind: GroupKind, generation: UInt64, node: Int, sequence: UInt64) {
        self.number = number
        self.kind = kind
        self.generation = generation
        self.node = node
        self.sequence = sequence
    }

    /// A node died and came back: its sequence numbers of before say nothing about those to come.
    func leave(_ dead: Int) {
        if node == dead { (node, sequence) = (-1, 0) }
    }
}

final class BlockGroup {
    let index: Int
    let gate = Gate()
    var owner = 0
    var history: [GroupState]

    init(index: Int) {
        self.index = index
        history = [GroupState(number: 0, kind: .live, generation: 1, node: -1, sequence: 0)]
        history[0].isDurable = true
    }

    var indexLock: ResourceName { .resourceGroup(UInt32(index)) }
    var memberLock: ResourceName {
        .inode(InodeNumber(address: BlockAddress(UInt64(1000 + index)), generation: 1))
    }
    var latest: GroupState { history[history.count - 1] }
}

final class CrashWorld {
    static let members = 5
    let engine: Engine
    let volume: TestVolume
    var disk: SimulatedDisk
    var nodes: [TestNode] = []
    let groups: [BlockGroup]
    var dice: SeededGenerator
    var isCrashed = false
    private(set) var hasFault = false
    var operations = 0
    private var nextNumber: UInt64 = 1
    /// Which group states each transaction made, to check that it is there as a whole.
    private var transactions: [[(group: Int, number: UInt64)]] = []
    /// Held by whoever needs that nobody is dead and unrecovered.
    let barrier = Gate()

    init(engine: Engine, hosts: Int, groupCount: Int, seed: UInt64) {
        self.engine = engine
        dice = SeededGenerator(seed: seed ^ 0x5EED)
        volume = TestVolume(slots: UInt32(hosts))
        groups = (0..<groupCount).map { BlockGroup(index: $0) }
        let content = volume.make(blocks: 1..<1 + groupCount * (1 + Self.members)) { block in
            let isIndex = (block - 1) % (1 + Self.members) == 0
            let group = UInt64((block - 1) / (1 + Self.members))
            return InodeNumber(
                address: BlockAddress((isIndex ? 2000 : 1000) + group),
                generation: 1
            )
        }
        disk = SimulatedDisk(content: content, executor: engine.seededExecutor)
    }

    func open() async throws {
        nodes = []
        for slot in 0..<volume.superblock.slotCount { nodes.append(try await openNode(slot)) }
        for group in groups { group.owner = dice.below(nodes.count) }
        isCrashed = false
        hasFault = false
    }

    /// Some read, write or flush of whoever comes next will fail.
    func injectFault() {
        hasFault = true
        switch dice.below(3) {
        case 0: disk.faults.failRead = 1 + dice.below(100)
        case 1: disk.faults.failWrite = 1 + dice.below(100)
        default: disk.faults.failFlush = 1 + dice.below(50)
        }
    }

    func openNode(_ slot: UInt32) async throws -> TestNode {
        try await TestNode(
            volume: volume,
            disk: disk,
            slot: slot,
            engine: engine,
            capacity: dice.oneIn(2) ? 8 : 1000,
            options: JournalOptions(commitInterval: 20_000_000, parallelWrites: 4)
        )
    }

    func indexAddress(_ group: BlockGroup) -> BlockAddress {
        volume.address(1 + group.index * (1 + Self.members))
    }

    func memberAddress(_ group: BlockGroup, _ member: Int) -> BlockAddress {
        indexAddress(group) + UInt64(1 + member)
    }

    // MARK: Operations

    /// One random operation of one client.
    func operate(_ dice: inout SeededGenerator) async throws {
        operations += 1
        let first = groups[dice.below(groups.count)]
        await first.gate.enter()
        defer { first.gate.leave() }
        let node = nodes[first.owner]
        switch dice.below(20) {
        case 0: try await commit(node)
        case 1, 2: try await handOver(first, &dice)
        case 3: try await node.journal.checkpointAll()
        case 4: try await node.journal.settle(covering: first.memberLock)
        case 5...6 where first.latest.kind == .live:
            try await free(first, node, &dice)
        case 7...8 where first.latest.kind == .freed:
            try await becomeData(first, node, &dice)
        case 9: try await verify(first, node)
        case 10...14:
            let second = groups[dice.below(groups.count)]
            if second.index > first.index {
                await second.gate.enter()
                defer { second.gate.leave() }
                if second.owner == first.owner {
                    return try await write([first, second], node, &dice)
                }
            }
            try await write([first], node, &dice)
        default: try await write([first], node, &dice)
        }
    }

    private func commit(_ node: TestNode) async throws {
        let before = groups.flatMap(\.history).filter {
            $0.node == number(of: node) && !$0.isDurable
        }
        try await node.journal.commit()
        for state in before { #expect(state.isDurable, "commit returned before its callbacks") }
    }

    private func number(of node: TestNode) -> Int { nodes.firstIndex { $0 === node } ?? -1 }

    private func indexBlock(
        _ group: BlockGroup,
        _ node: TestNode
    ) async throws -> MetadataBlock {
        try await node.cache.block(
            indexAddress(group),
            kind: .extentNode,
            owner: UInt64(2000 + group.index),
            generation: 1,
            covering: group.indexLock
        )
    }

    private func memberBlocks(
        _ group: BlockGroup,
        _ node: TestNode
    ) async throws -> [MetadataBlock] {
        var blocks: [MetadataBlock] = []
        for member in 0..<Self.members {
            blocks.append(
                try await node.cache.block(
                    memberAddress(group, member),
                    kind: .extentNode,
                    owner: UInt64(1000 + group.index),
                    generation: group.latest.generation,
                    covering: group.memberLock
                )
            )
        }
        return blocks
    }

    /// Puts the next state of a group into its index, within a transaction.
    private func enter(
        _ kind: GroupKind,
        generation: UInt64,
        _ group: BlockGroup,
        _ index: MetadataBlock,
        _ transaction: Transaction,
        _ node: TestNode
    ) -> UInt64 {
        let state = GroupState(
            number: nextNumber,
            kind: kind,
            generation: generation,
            node: number(of: node),
            sequence: transaction.sequence
        )
        nextNumber += 1
        group.history.append(state)
        index.bytes.put64(state.number, 64)
        index.bytes.put64(kind.rawValue, 72)
        index.bytes.put64(generation, 80)
        transaction.whenCommitted { state.isDurable = true }
        return state.number
    }

    private func fill(_ block: MetadataBlock, _ number: UInt64) {
        for offset in stride(from: 64, to: TestVolume.blockSize, by: 256) {
            block.bytes.put64(number, offset)
        }
    }

    private func write(
        _ chosen: [BlockGroup],
        _ node: TestNode,
        _ dice: inout SeededGenerator
    ) async throws {
        var indexes: [MetadataBlock] = []
        var members: [[MetadataBlock]] = []
        for group in chosen {
            indexes.append(try await indexBlock(group, node))
            members.append(
                group.latest.kind == .live ? try await memberBlocks(group, node) : []
            )
        }
        let bound = chosen.count * (1 + Self.members)
        let transaction = try await node.journal.begin(blocks: bound + dice.below(5))
        for block in indexes + members.flatMap(\.self) { transaction.modify(block) }
        if dice.oneIn(2) { await engine.sleep(nanoseconds: UInt64(dice.below(400_000))) }
        var made: [(group: Int, number: UInt64)] = []
        for (position, group) in chosen.enumerated() {
            let index = indexes[position]
            let isLive = group.latest.kind == .live
            let generation = group.latest.generation + (isLive ? 0 : 1)
            let number = enter(.live, generation: generation, group, index, transaction, node)
            made.append((group.index, number))
            if isLive {
                for block in members[position] { fill(block, number) }
                continue
            }
            for member in 0..<Self.members {
                let block = transaction.create(
                    memberAddress(group, member),
                    kind: .extentNode,
                    owner: UInt64(1000 + group.index),
                    generation: generation,
                    firstVersion: index.bytes.readOnly.u64(88) + 1,
                    covering: group.memberLock
                )
                fill(block, number)
            }
        }
        transactions.append(made)
        transaction.end()
    }

    private func free(
        _ group: BlockGroup,
        _ node: TestNode,
        _ dice: inout SeededGenerator
    ) async throws {
        let index = try await indexBlock(group, node)
        let members = try await memberBlocks(group, node)
        let transaction = try await node.journal.begin(blocks: 1)
        transaction.modify(index)
        if dice.oneIn(2) { await engine.sleep(nanoseconds: UInt64(dice.below(400_000))) }
        for block in members {
            index.bytes.put64(max(block.version, index.bytes.readOnly.u64(88)), 88)
            transaction.forget(block)
        }
        _ = enter(
            .freed,
            generation: group.latest.generation,
            group,
            index,
            transaction,
            node
        )
        transaction.end()
    }

    /// The quarantine ends: every node writes its log back, then the members become data.
    private func becomeData(
        _ group: BlockGroup,
        _ node: TestNode,
        _ dice: inout SeededGenerator
    ) async throws {
        guard !barrier.isTaken else { return }
        await barrier.enter()
        defer { barrier.leave() }
        for other in nodes { try await other.journal.checkpointAll() }
        let index = try await indexBlock(group, node)
        let data = Self.data(nextNumber)
        let buffer = AlignedBuffer(byteCount: data.count)
        buffer.bytes.copyBytes(from: data)
        for member in 0..<Self.members {
            let offset = volume.superblock.byteOffset(memberAddress(group, member))
            try await node.host.write(buffer.readOnly, at: offset)
        }
        try await node.host.flush()
        let transaction = try await node.journal.begin(blocks: 1)
        transaction.modify(index)
        dataOfState[nextNumber] = data
        _ = enter(
            .data,
            generation: group.latest.generation,
            group,
            index,
            transaction,
            node
        )
        transaction.end()
    }

    private var dataOfState: [UInt64: [UInt8]] = [:]

    private static func data(_ number: UInt64) -> [UInt8] {
        (0..<TestVolume.blockSize).map { UInt8(truncatingIfNeeded: Int(number) &* 31 &+ $0) }
    }

    private func handOver(_ group: BlockGroup, _ dice: inout SeededGenerator) async throws {
        let node = nodes[group.owner]
        try await node.journal.settle(covering: group.memberLock)
        try await node.journal.settle(covering: group.indexLock)
        #expect(node.journal.isSettled(covering: group.memberLock))
        node.cache.drop(covering: group.memberLock)
        node.cache.drop(covering: group.indexLock)
        group.owner = dice.below(nodes.count)
        try await verify(group, nodes[group.owner])
    }

    /// What a node reads is the latest state.
    private func verify(_ group: BlockGroup, _ node: TestNode) async throws {
        let index = try await indexBlock(group, node)
        #expect(index.bytes.readOnly.u64(64) == group.latest.number, "a stale index")
        guard group.latest.kind == .live else { return }
        for block in try await memberBlocks(group, node) {
            #expect(block.bytes.readOnly.u64(64) == group.latest.number, "a stale member")
        }
    }

    // MARK: After a crash

    /// Which state of each group came through, checked against everything it may be; forgets the
    /// states that did not.
    func checkRecovered(_ chosen: [BlockGroup], in content: DiskContent, _ story: String) {
        var position: [Int: Int] = [:]
        for group in chosen {
            guard let found = recoveredState(group, in: content, story) else { return }
            position[group.index] = found
            let promised = group.history.lastIndex(where: \.isDurable) ?? 0
            #expect(found >= promised, "\(story): group \(group.index) lost a durable state")
        }
        checkWhole(position, story)
        checkPrefix(chosen, position, story)
        for group in chosen {
            if let found = position[group.index] {
                group.history.removeSubrange((found + 1)...)
                group.history[found].isDurable = true
            }
        }
    }

    private func recoveredState(
        _ group: BlockGroup,
        in content: DiskContent,
        _ story: String
    ) -> Int? {
        guard
            let index = block(
                indexAddress(group),
                owner: UInt64(2000 + group.index),
                generation: 1,
                content
            )
        else {
            Issue.record("\(story): the index of group \(group.index) does not verify")
            return nil
        }
        let number = UnsafeRawBufferPointer(index.bytes).u64(64)
        guard let found = group.history.firstIndex(where: { $0.number == number }) else {
            Issue.record("\(story): group \(group.index) has state \(number), which never was")
            return nil
        }
        let state = group.history[found]
        for member in 0..<Self.members {
            let address = memberAddress(group, member)
            switch state.kind {
            case .freed: break
            case .data:
                let bytes = content.bytes(
                    at: volume.superblock.byteOffset(address),
                    count: TestVolume.blockSize
                )
                #expect(
                    bytes == dataOfState[number],
                    "\(story): data of group \(group.index) was overwritten"
                )
            case .live:
                let buffer = block(
                    address,
                    owner: UInt64(1000 + group.index),
                    generation: state.generation,
                    content
                )
                let value = buffer.map { $0.readOnly.u64(64) }
                #expect(
                    value == number,
                    "\(story): member \(member) of group \(group.index) does not agree"
                )
            }
        }
        return found
    }

    private func block(
        _ address: BlockAddress,
        owner: UInt64,
        generation: UInt64,
        _ content: DiskContent
    ) -> AlignedBuffer? {
        let buffer = AlignedBuffer(byteCount: TestVolume.blockSize)
        content.read(buffer.bytes, at: volume.superblock.byteOffset(address))
        guard
            let header = try? BlockHeader(
                verifying: buffer.readOnly,
                at: address,
                volume: volume.superblock.volume
            ),
            header.owner == owner, header.generation == generation
        else { return nil }
        return buffer
    }

    /// Each transaction is there with all its groups or with none.
    private func checkWhole(_ position: [Int: Int], _ story: String) {
        for made in transactions where made.count == 2 {
            let there = made.compactMap { part -> Bool? in
                guard let found = position[part.group],
                    let made = groups[part.group].history.firstIndex(where: {
                        $0.number == part.number
                    })
                else { return nil }
                return made <= found
            }
            if there.count == 2 {
                #expect(there[0] == there[1], "\(story): half of a transaction came through")
            }
        }
    }

    /// What one node did came through up to some point of time and no further.
    private func checkPrefix(
        _ chosen: [BlockGroup],
        _ position: [Int: Int],
        _ story: String
    ) {
        for node in nodes.indices {
            var newestThere: UInt64 = 0
            var oldestLost = UInt64.max
            for group in chosen {
                for (place, state) in group.history.enumerated()
                where state.node == node && state.sequence > 0 {
                    if place <= position[group.index] ?? 0 {
                        newestThere = max(newestThere, state.sequence)
                    } else {
                        oldestLost = min(oldestLost, state.sequence)
                    }
                }
            }
            #expect(newestThere < oldestLost, "\(story): a later change outlived an earlier one")
        }
    }

    /// The round is over: sequence numbers of before say nothing about the next.
    func forgetSequences() {
        transactions = []
        for group in groups {
            let last = group.latest
            let kept = GroupState(
                number: last.number,
                kind: last.kind,
                generation: last.generation,
                node: -1,
                sequence: 0
            )
            kept.isDurable = true
            group.history = [kept]
        }
    }
}
