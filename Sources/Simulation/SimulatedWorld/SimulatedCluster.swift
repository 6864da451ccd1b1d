// Whole clusters by seed: several nodes, each with the production file system, on one simulated disk, one executor
// and one clock. Which job runs next, how long a request or a message takes, what the disk forgets: all by seed.
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
//   W3. A killed node keeps running as long as its tasks have something to do, but reaches nobody: its disk handle is cut,
//       its messages go nowhere, its processes' calls have failed.

import BlockIO
import DiskFormat
package import Execution
import FileSystem
import Journaling
package import SimulatedMachine
package import VolumeChecking
import VolumeMaking
package import Vocabulary

/// Why a run failed: one line.
package struct SimulationFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package var description: String

    package init(_ description: String) { self.description = description }
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
    let central = CentralLocks()
    /// Nodes that died: their tasks may still run (W3).
    private var graveyard: [SimulatedNode] = []
    /// Slots whose logs may hold something that is not home.
    private var slotsToReplay: [SlotIndex]
    private var lives = 0

    /// A freshly made volume with a slot per node.
    package init(engine: Engine, nodes count: Int, deviceSize: UInt64 = 64 << 20) async throws {
        self.engine = engine
        executor = engine.seededExecutor
        dice = executor.forkDice()
        var options = VolumeOptions(
            deviceSize: deviceSize, volume: VolumeID(high: 0x5EED, low: 0xC0FFEE),
            created: engine.clock.civilTime)
        options.journalCount = UInt32(count)
        options.journalSize = dice.oneIn(2) ? 1 << 20 : 4 << 20
        options.blocksPerGroup = dice.oneIn(2) ? 512 : 2048
        plan = try VolumePlan(options)
        let memory = MemoryBlockDevice(byteCount: deviceSize)
        try await VolumeMaker.make(on: memory, plan: plan)
        disk = SimulatedDisk(content: memory.content, executor: executor)
        nodes = Array(repeating: nil, count: count)
        slotsToReplay = plan.slots.map(\.slot)
    }

    /// Nodes that are mounted and alive.
    package var living: [SimulatedNode] { nodes.compactMap { $0 } }

    // MARK: Coming and going

    /// Mounts the volume in a slot.
    @discardableResult
    package func mount(_ index: Int) async throws -> SimulatedNode {
        precondition(nodes[index] == nil, "a slot is mounted once")
        lives += 1
        let engine = Engine(
            executor: executor, clock: SimulatedClock(executor: executor, civilOffset: Int64(index)))
        let host = disk.attach("n\(index + 1).\(lives)")
        try await replay(on: host)
        let superblock = plan.superblock
        let descriptor = plan.slots[index]
        let cache = MetadataCache(
            device: host, superblock: superblock, capacity: dice.oneIn(2) ? 64 : 4096)
        let journal = try await Journal.open(
            device: host, superblock: superblock, descriptor: descriptor, cache: cache,
            engine: engine,
            options: JournalOptions(commitInterval: 50_000_000, parallelWrites: 4))
        let door = CentralLockDoor(manager: central, engine: engine, dice: dice.fork())
        var options = MountOptions()
        options.commitInterval = 50_000_000
        options.idleInodes = dice.oneIn(2) ? 4 : 1000
        options.dirtyLimit = dice.oneIn(2) ? 64 << 10 : 16 << 20
        let volume = MountedVolume(
            engine: engine, device: host, superblock: superblock, descriptor: descriptor,
            cache: cache, journal: journal, lockService: door, options: options)
        door.client = volume.locks
        let kernel = KernelModel(
            engine: engine, volume: volume, name: "n\(index + 1)", dice: dice.fork())
        let node = SimulatedNode(
            slot: descriptor.slot, engine: engine, host: host, volume: volume, kernel: kernel,
            journal: journal, door: door)
        try await volume.start()
        nodes[index] = node
        return node
    }

    /// Unmounts in order. No process has a file open any more.
    package func unmount(_ index: Int) async throws {
        guard let node = nodes[index] else { return }
        node.kernel.isUnmounting = true
        try await node.volume.stop()
        if let reason = node.withdrawal { throw SimulationFailure("n\(index + 1) withdrew: \(reason)") }
        node.door.die()
        nodes[index] = nil
        graveyard.append(node)
        if let door = node.door as? CentralLockDoor { central.forget(door) }
    }

    /// A node dies at once. `recover` follows.
    package func kill(_ index: Int) {
        guard let node = nodes[index] else { return }
        node.kill()
        nodes[index] = nil
        graveyard.append(node)
        slotsToReplay.append(node.slot)
    }

    /// The survivors notice, replay the logs of the dead, and go on.
    package func recover() async throws {
        central.pause()
        for node in graveyard where node.isDead {
            if let door = node.door as? CentralLockDoor { central.forget(door) }
        }
        guard let coordinator = living.first else { return }
        let dead = slotsToReplay
        try await replay(on: coordinator.host)
        central.resume()
        for slot in dead {
            coordinator.engine.spawn { await coordinator.volume.freeOrphans(of: slot) }
        }
    }

    private func replay(on host: SimulatedHost) async throws {
        let slots = slotsToReplay
        slotsToReplay = []
        for slot in slots {
            _ = try await JournalReplay.replay(
                device: host, superblock: plan.superblock, slot: slot)
        }
    }

    /// Power cut for all. The nodes are gone, the disk has forgotten what it may.
    package func crash() {
        for index in nodes.indices {
            guard let node = nodes[index] else { continue }
            node.kill()
            nodes[index] = nil
            graveyard.append(node)
            if let door = node.door as? CentralLockDoor { central.forget(door) }
        }
        central.resume()
        disk = SimulatedDisk(content: disk.crash(seed: dice.next()), executor: executor)
        slotsToReplay = plan.slots.map(\.slot)
    }

    /// Replays what is to be replayed and checks the volume. Nobody has it mounted.
    package func check() async throws -> CheckReport {
        precondition(living.isEmpty, "checking a mounted volume")
        try await replay(on: disk.attach("check.\(lives)"))
        let device = MemoryBlockDevice(content: disk.visible, alignment: disk.attach("size").alignment)
        return try await VolumeChecker.check(device)
    }
}
