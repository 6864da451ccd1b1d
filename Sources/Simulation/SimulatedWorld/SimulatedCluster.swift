// Whole clusters by seed: several nodes, each with the production file system, on one simulated
// disk, one executor and one clock. Which job runs next, how long a request or a message takes,
// what the disk forgets: all by seed.
//
//   SimulatedCluster   the disk and the nodes; who is in, who died, who replays whose journal
//   SimulatedNode      one mount
//   KernelModel        the Linux kernel's caches in front of it, as greedy as its answers permit
//   TreeModel          what the tree must look like: the oracle
//   Workload           processes, by dice, and the comparison
//   CentralLocks       a lock manager that is right by inspection
//
// Invariants
//   W1. Same seed, same run: `SimulationReport.scheduleHash` shows it.
//   W2. Nothing here iterates over a hash table, asks a clock or throws dice but seeded ones.
//   W3. A killed node keeps running as long as its tasks have something to do, but reaches nobody:
//   its disk handle is cut,
//       its messages go nowhere, its processes' calls have failed.

import BlockIO
import CentralLocking
import DiskFormat
package import Execution
import FileSystem
import Journaling
import NodeService
package import SimulatedMachine
package import Vocabulary
package import VolumeChecking
import VolumeMaking

/// Why a run failed: one line.
package struct SimulationFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package var description: String

    package init(_ description: String) { self.description = description }
}

/// Which lock manager the nodes use.
package enum SimulatedLocks: String, Hashable, Sendable {
    /// The real one: a lockspace per node, messages between them.
    case distributed
    /// One that is right by inspection, to tell whose fault something is.
    case central
}

/// A disk and the nodes on it. Engine-bound.
package final class SimulatedCluster {
    package let executor: SeededExecutor
    /// Where the story is told; the nodes have engines of their own.
    package let engine: Engine
    package private(set) var disk: SimulatedDisk
    package private(set) var nodes: [SimulatedNode?]
    package private(set) var dice: SeededGenerator
    let plan: VolumePlan
    let locks: SimulatedLocks
    let central = CentralLocks()
    let network: SimulatedNetwork
    private let membership: SimulatedMembership
    /// Nodes that are gone: their tasks may still run (W3).
    private var graveyard: [SimulatedNode] = []
    /// So many of them have been held against their recordings.
    private var checkedGraves = 0
    private var lives: UInt64 = 0

    /// A freshly made volume with a slot per node.
    package init(
        engine: Engine,
        nodes count: Int,
        locks: SimulatedLocks,
        deviceSize: UInt64 = 64 << 20
    ) async throws {
        self.engine = engine
        self.locks = locks
        executor = engine.seededExecutor
        dice = executor.forkDice()
        var options = VolumeOptions(
            deviceSize: deviceSize,
            volume: VolumeID(high: 0x5EED, low: 0xC0FFEE),
            created: engine.clock.civilTime
        )
        options.journalCount = UInt32(count)
        options.journalSize = dice.oneIn(2) ? 1 << 20 : 4 << 20
        options.blocksPerGroup = dice.oneIn(2) ? 512 : 2048
        let plan = try VolumePlan(options)
        self.plan = plan
        let memory = MemoryBlockDevice(byteCount: deviceSize)
        try await VolumeMaker.make(on: memory, plan: plan)
        disk = SimulatedDisk(content: memory.content, executor: executor)
        nodes = Array(repeating: nil, count: count)
        network = SimulatedNetwork(dice: dice.fork())
        membership = SimulatedMembership(
            network: network,
            dice: dice.fork(),
            slotsToReplay: plan.slots.map(\.slot)
        )
        membership.onReplayed = { [weak self] slots, member in self?.freeOrphans(slots, member) }
    }

    /// Nodes that are mounted and alive.
    package var living: [SimulatedNode] { nodes.compactMap { $0 } }

    /// Messages between lock managers so far.
    package var messageCount: Int { network.messageCount }

    // MARK: Coming and going

    /// Mounts the volume in a slot.
    @discardableResult
    package func mount(_ index: Int) async throws -> SimulatedNode {
        precondition(nodes[index] == nil, "a slot is mounted once")
        lives += 1
        let slot = plan.slots[index].slot
        let nodeEngine = Engine(
            executor: SeededLane(executor),
            clock: SimulatedClock(executor: executor, civilOffset: Int64(index))
        )
        let member = SimulatedMember(
            identity: Member(node: NodeID(slot: slot), incarnation: lives),
            engine: nodeEngine,
            host: disk.attach("n\(index + 1).\(lives)"),
            superblock: plan.superblock,
            network: network
        )
        switch locks {
        case .distributed: await membership.join(member)
        case .central: try await replay(on: member)
        }
        let node = try await makeNode(index, member)
        nodes[index] = node
        try await node.volume.start()
        return node
    }

    private func makeNode(_ index: Int, _ member: SimulatedMember) async throws -> SimulatedNode {
        let (superblock, descriptor) = (plan.superblock, plan.slots[index])
        let cache = MetadataCache(
            device: member.host,
            superblock: superblock,
            capacity: dice.oneIn(2) ? 64 : 4096
        )
        let journal = try await Journal.open(
            device: member.host,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            engine: member.engine,
            options: JournalOptions(commitInterval: 50_000_000, parallelWrites: 4)
        )
        member.journal = journal
        var options = MountOptions()
        options.commitInterval = 50_000_000
        options.idleInodes = dice.oneIn(2) ? 4 : 1000
        options.memoryOfFights = [0, 300_000, 10_000_000_000][dice.below(3)]
        options.dirtyLimit = dice.oneIn(2) ? 64 << 10 : 16 << 20
        let door = CentralLockDoor(manager: central, engine: member.engine, dice: dice.fork())
        let volume = MountedVolume(
            engine: member.engine,
            device: member.host,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            journal: journal,
            lockService: locks == .central ? door : member.lockNode,
            options: options
        )
        door.client = volume.locks
        member.router.volume = volume.locks
        let kernel = KernelModel(
            engine: member.engine,
            volume: volume,
            name: "n\(index + 1)",
            dice: dice.fork()
        )
        return SimulatedNode(
            slot: descriptor.slot,
            member: member,
            volume: volume,
            kernel: kernel,
            door: door
        )
    }

    /// Unmounts in order. No process has a file open any more.
    package func unmount(_ index: Int) async throws {
        guard let node = nodes[index] else { return }
        node.kernel.isUnmounting = true
        try await node.volume.stop()
        if let reason = node.withdrawal {
            throw SimulationFailure("n\(index + 1) withdrew: \(reason)")
        }
        nodes[index] = nil
        graveyard.append(node)
        node.leave()
        central.forget(node.door)
        if locks == .distributed { membership.remove(node.member) }
    }

    /// A node dies at once. `recover` follows.
    package func kill(_ index: Int) {
        guard let node = nodes[index] else { return }
        node.kill()
        nodes[index] = nil
        graveyard.append(node)
        membership.slotsToReplay.append(node.slot)
    }

    /// The survivors notice that a node is dead and go on without it. Returns when its log is
    /// replayed.
    package func recover() async throws {
        switch locks {
        case .distributed:
            for member in membership.members where member.isDead { membership.remove(member) }
            while !membership.slotsToReplay.isEmpty, !living.isEmpty, membership.failure == nil {
                await engine.sleep(until: engine.clock.now.advanced(milliseconds: 1))
            }
            if let failure = membership.failure { throw SimulationFailure(failure) }
        case .central:
            central.pause()
            for node in graveyard { central.forget(node.door) }
            for node in living { await node.member.journal?.holdWritesHome() }
            let slots = membership.slotsToReplay
            guard let coordinator = living.first else { return }
            try await replay(on: coordinator.member)
            for node in living { node.member.journal?.releaseWritesHome() }
            central.resume()
            freeOrphans(slots, coordinator.member)
        }
    }

    /// The orphans of the dead: whoever replayed their log looks after them.
    private func freeOrphans(_ slots: [SlotIndex], _ member: SimulatedMember) {
        guard let node = living.first(where: { $0.member === member }) else { return }
        for slot in slots where slot != node.slot {
            node.engine.spawn { await node.volume.freeOrphans(of: slot) }
        }
    }

    private func replay(on member: SimulatedMember) async throws {
        let slots = membership.slotsToReplay
        membership.slotsToReplay = []
        for slot in slots {
            _ = try await JournalReplay.replay(
                device: member.host,
                superblock: plan.superblock,
                slot: slot
            )
        }
    }

    /// Power cut for all. The nodes are gone, the disk has forgotten what it may.
    package func crash() {
        for index in nodes.indices {
            guard let node = nodes[index] else { continue }
            node.kill()
            nodes[index] = nil
            graveyard.append(node)
            central.forget(node.door)
        }
        membership.removeAll()
        central.resume()
        disk = SimulatedDisk(content: disk.crash(seed: dice.next()), executor: executor)
        membership.slotsToReplay = plan.slots.map(\.slot)
    }

    /// Replays what is to be replayed and checks the volume. Nobody has it mounted.
    package func check() async throws -> CheckReport {
        precondition(living.isEmpty, "checking a mounted volume")
        for node in graveyard[checkedGraves...] { try node.checkRecording() }
        checkedGraves = graveyard.count
        lives += 1
        let host = disk.attach("check.\(lives)")
        for slot in membership.slotsToReplay {
            _ = try await JournalReplay.replay(
                device: host,
                superblock: plan.superblock,
                slot: slot
            )
        }
        membership.slotsToReplay = []
        let device = MemoryBlockDevice(content: disk.visible, alignment: host.alignment)
        return try await VolumeChecker.check(device)
    }
}
