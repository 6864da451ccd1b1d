// Whole clusters by seed: several nodes, each with the production file system, on one simulated
// disk, one executor and one clock. Which job runs next, how long a request or a message takes,
// what the disk forgets: all by seed.
//
//   SimulatedCluster   the disk and the nodes; who is in, who died, who replays whose journal
//   SimulatedMembership, SimulatedMember
//                      processes, and the production membership that watches them
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
//       it begins nothing on the disk, its messages go nowhere, its kernel hears nothing of it.

import BlockIO
import CentralLocking
import ClusterNode
import DiskFormat
package import Execution
import FileSystem
import Journaling
import LockCore
import Membership
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
    /// Judges what the nodes write.
    private(set) lazy var order = DiskOrder(self)
    package private(set) var nodes: [SimulatedNode?]
    package private(set) var dice: SeededGenerator
    let plan: VolumePlan
    let locks: SimulatedLocks
    let shape: ClusterShape
    private let isSkewed: Bool
    /// Where the journals are, in bytes; each begins with its header.
    private let logs: [Range<UInt64>]
    let central = CentralLocks()
    let network: SimulatedNetwork
    private let membership: SimulatedMembership
    /// From which it follows when memory is short, if it ever is.
    private let pressureSeed: UInt64?
    /// Nodes that are gone: their tasks may still run (W3).
    private var graveyard: [SimulatedNode] = []
    /// So many of them have been held against their recordings.
    private var checkedGraves = 0
    private var lives: UInt64 = 0
    /// Whoever is mounted from now on changes nothing.
    var mountsReadOnly = false
    /// Nodes that are about to be mounted.
    private var beginnings:
        [(member: SimulatedMember, outcome: Outcome<Result<MountedVolume?, any Error>>)] = []
    /// The power failed: any log may have something that is not home.
    private var needsReplay = true
    /// Who froze the volume, while it is frozen.
    var frozenBy: String?
    /// What was written then.
    var frozenViolation: String?
    /// Told of a node that was killed by another one.
    var onKilled: ((SimulatedNode) -> Void)?
    /// How often a journal's header was written: then room in the log is given up, and what was in it
    /// must be elsewhere.
    private var headerWrites = 0
    /// How often something was written to a log.
    private var logWrites = 0
    /// Told that some node, or all, are dead.
    var onDeath: (() -> Void)?
    /// Told what members say of others.
    var onReport: ((SimulatedMember, String) -> Void)?

    /// A freshly made volume with a slot per node.
    package init(engine: Engine, _ run: SimulationPlan) async throws {
        self.engine = engine
        locks = run.locks
        isSkewed = run.faults.contains(.skew)
        pressureSeed = run.faults.contains(.pressure) ? run.seed ^ 0x5EED_0CAC : nil
        executor = engine.seededExecutor
        dice = executor.forkDice()
        shape = ClusterShape(run, &dice)
        let plan = try shape.volume(for: run, created: engine.clock.civilTime)
        self.plan = plan
        // As somebody else has left it: what is in a block before it is written is never zero.
        let memory = MemoryBlockDevice(
            content: DiskContent(byteCount: plan.deviceSize, fill: 0xA5)
        )
        try await VolumeMaker.make(on: memory, plan: plan)
        disk = SimulatedDisk(content: memory.content, executor: executor, latency: shape.latency)
        logs = plan.slots.map { slot in
            let start = plan.superblock.byteOffset(slot.journalStart)
            return start..<start + UInt64(slot.journalLength) * UInt64(plan.superblock.blockSize)
        }
        nodes = Array(repeating: nil, count: run.nodes)
        network = SimulatedNetwork(dice: dice.fork())
        network.slowest = shape.slowestMessage
        membership = SimulatedMembership(
            engine: engine,
            network: network,
            dice: dice.fork(),
            slotCount: UInt32(run.nodes)
        )
        network.onLost = { [weak membership] end, peer in membership?.lost(end, peer) }
        membership.onKill = { [weak self] member in self?.kill(member) }
        membership.onOver = { [weak self] member in self?.isOver(member) }
        membership.onBuried = { [weak self] in self?.pauseCentralLocks() }
        watchLogs()
    }

    private func watchLogs() {
        disk.onTorn = { [weak self, logs] offset in
            guard let log = logs.firstIndex(where: { $0.contains(offset) }),
                offset != logs[log].lowerBound
            else { return }
            self?.order.recordIsTorn(log)
        }
        disk.onWrite = { [weak self, logs] host, offset, bytes in
            guard let self else { return }
            judgeFreeze(host, offset)
            guard let log = logs.firstIndex(where: { $0.contains(offset) }) else {
                return order.writeBegins(host, at: offset, bytes)
            }
            if offset == logs[log].lowerBound {
                headerWrites += 1
                order.headerBegins(log, bytes)
            } else {
                logWrites += 1
                order.recordBegins(log, at: offset, bytes)
            }
        }
    }

    /// Waits for a moment at which a disaster is worst, `limit` nanoseconds at most: a transaction is on its
    /// way to some log and not durable yet, or a log has just given up room, or both, one after the
    /// other.
    func awaitDelicateMoment(_ dice: inout SeededGenerator, limit: UInt64) async {
        let end = engine.clock.now.advanced(nanoseconds: limit)
        let kind = dice.below(3)
        if kind > 0 { await awaitChange(\.headerWrites, until: end) }
        if kind < 2 { await awaitChange(\.logWrites, until: end) }
    }

    private func awaitChange(_ count: KeyPath<SimulatedCluster, Int>, until end: Tick) async {
        let before = self[keyPath: count]
        while self[keyPath: count] == before, engine.clock.now < end {
            await engine.sleep(nanoseconds: 20_000)
        }
    }

    /// Nodes that are mounted and alive.
    package var living: [SimulatedNode] { nodes.compactMap { $0 } }

    /// Messages between lock managers so far.
    package var messageCount: Int { network.messageCount }

    // MARK: Coming and going

    /// Mounts the volume in a slot. Nil if the node was killed meanwhile.
    @discardableResult
    package func mount(_ index: Int) async throws -> SimulatedNode? {
        precondition(nodes[index] == nil, "a slot is mounted once")
        lives += 1
        let (member, door) = makeMember(index)
        var complaint: String?
        member.runtime.onReport = { complaint = complaint ?? $0 }
        member.onReport = { [weak self, weak member] line in
            if let member { self?.onReport?(member, line) }
        }
        guard await membership.join(member) else {
            throw SimulationFailure("n\(index + 1): its slot is taken")
        }
        needsReplay = false
        let volume = try await begin(member)
        if let complaint, !member.isDead {
            throw SimulationFailure("n\(index + 1), beginning: \(complaint)")
        }
        guard let volume, !member.isDead else { return nil }
        let node = SimulatedNode(
            slot: plan.slots[index].slot,
            member: member,
            volume: volume,
            kernel: KernelModel(
                engine: member.engine,
                volume: volume,
                name: "n\(index + 1)",
                dice: dice.fork()
            ),
            door: door
        )
        nodes[index] = node
        if let pressureSeed { node.runShort(SeededGenerator(seed: pressureSeed &+ lives)) }
        return node
    }

    /// The production node begins, in its own engine. Nil if it was killed before it had begun.
    private func begin(_ member: SimulatedMember) async throws -> MountedVolume? {
        let outcome = Outcome<Result<MountedVolume?, any Error>>()
        beginnings.append((member, outcome))
        member.runtime.onFailure = {
            if outcome.value == nil { outcome.deliver(.failure(SimulationFailure($0))) }
        }
        member.engine.spawn {
            let result: Result<MountedVolume?, any Error>
            do {
                result = .success(try await member.runtime.begin())
            } catch {
                result = .failure(error)
            }
            if outcome.value == nil { outcome.deliver(result) }
        }
        let result = await outcome.get()
        beginnings.removeAll { $0.member === member }
        if member.isDead { return nil }
        do {
            return try result.get()
        } catch {
            // The process ends, as after any failed mount.
            membership.died(member)
            throw error
        }
    }

    private func makeMember(_ index: Int) -> (SimulatedMember, CentralLockDoor) {
        let lane = SeededLane(executor)
        let nodeEngine = Engine(
            executor: lane,
            clock: SimulatedClock(executor: executor, civilOffset: civilOffset(index))
        )
        let node = NodeID(slot: plan.slots[index].slot)
        let host = disk.attach("n\(index + 1).\(lives)")
        let link = SimulatedLink(network: network, node: node)
        let door = CentralLockDoor(
            node: node,
            manager: central,
            engine: nodeEngine,
            dice: dice.fork()
        )
        var parts = NodeParts(
            member: Member(node: node, incarnation: lives),
            device: host,
            superblock: plan.superblock,
            peers: link
        )
        parts.journal = JournalOptions(commitInterval: 50_000_000, parallelWrites: 4)
        // Writes in place all the time, or hardly ever.
        parts.journal.fullness = dice.oneIn(2) ? 50 : 2
        parts.cachedBlocks = dice.oneIn(2) ? 64 : 4096
        parts.mount.commitInterval = 50_000_000
        parts.mount.isReadOnly = mountsReadOnly
        parts.mount.idleInodes = dice.oneIn(2) ? 4 : 1000
        parts.mount.memoryOfFights = [0, 300_000, 10_000_000_000][dice.below(3)]
        parts.mount.fightsBeforeRegions = 1 + dice.below(2)
        parts.mount.quotaQuantum = [1, 16, 1024][Int(plan.superblock.blockCount + lives) % 3]
        // Without a throw of the dice: the runs are those that they were before there were such rules.
        let rule = Int(plan.superblock.blockCount + lives) + index
        parts.mount.times.access = rule % 6 == 1 ? .strict : .relative
        parts.mount.times.isLazy = rule % 2 == 1
        parts.mount.dirtyLimit = dice.oneIn(2) ? 64 << 10 : 16 << 20
        if let pressureSeed { limitCache(&parts.mount, pressureSeed) }
        parts.locks = Self.lockSettings
        parts.recording = Self.recording
        if locks == .central { parts.substitute = door }
        let member = SimulatedMember(
            parts: parts,
            engine: nodeEngine,
            lane: lane,
            host: host,
            link: link,
            membership: membership
        )
        door.client = member.runtime.lockClient
        if locks == .central {
            member.runtime.onCovered = { [weak self] epoch in
                guard let self, epoch == membership.record.epoch else { return }
                central.resume()
            }
        }
        return (member, door)
    }

    /// Little is kept, or not for long, or both, or neither.
    private func limitCache(_ options: inout MountOptions, _ seed: UInt64) {
        var dice = SeededGenerator(seed: seed &- lives)
        options.cachedLocks = [8, 24, 100_000][dice.below(3)]
        options.cacheAge = [0, 20_000_000, 300_000_000][dice.below(3)]
    }

    /// How far a node's time of day is ahead, in seconds.
    private func civilOffset(_ index: Int) -> Int64 {
        isSkewed ? Int64(dice.below(200_000)) - 100_000 : Int64(index)
    }

    /// Short times: masterships are to move within a run.
    private static let lockSettings: LockSettings = {
        var settings = LockSettings()
        settings.activityInterval = 10
        settings.leastActivity = 4
        settings.restAfterMove = 30
        return settings
    }()

    /// Bytes of the flight recorder: so many that it is whole after all but the longest runs.
    private static let recording = 64 << 20

    /// Unmounts in order. No process has a file open any more.
    package func unmount(_ index: Int) async throws {
        guard let node = nodes[index] else { return }
        node.kernel.isUnmounting = true
        let outcome = Outcome<Result<Void, any Error>>()
        node.engine.spawn {
            do {
                try await node.member.runtime.end()
                outcome.deliver(.success(()))
            } catch {
                outcome.deliver(.failure(error))
            }
        }
        try await outcome.get().get()
        if let reason = node.withdrawal {
            throw SimulationFailure("n\(index + 1) withdrew: \(reason)")
        }
        nodes[index] = nil
        graveyard.append(node)
        node.leave()
        central.forget(node.door)
        membership.leave(node.member)
    }

    /// A node dies at once; the others notice.
    package func kill(_ index: Int) {
        guard let node = nodes[index] else { return }
        onDeath?()
        node.kill()
        nodes[index] = nil
        graveyard.append(node)
        membership.died(node.member)
    }

    /// Another node kills a member's process.
    private func kill(_ member: SimulatedMember) {
        guard let index = nodes.firstIndex(where: { $0?.member === member }),
            let node = nodes[index]
        else { return membership.died(member) }
        kill(index)
        onKilled?(node)
    }

    /// The guardian of a dead node has done its work.
    private func isOver(_ member: SimulatedMember) {
        if let node = graveyard.first(where: { $0.member === member }) { node.kernel.die() }
        if let beginning = beginnings.first(where: { $0.member === member }),
            beginning.outcome.value == nil
        {
            beginning.outcome.deliver(.success(nil))
        }
    }

    /// Returns when the survivors have noticed every death and are done with it.
    package func recover() async throws {
        while !membership.isSettled, membership.failure == nil, !living.isEmpty {
            await engine.sleep(until: engine.clock.now.advanced(milliseconds: 1))
        }
        if let failure = membership.failure { throw SimulationFailure(failure) }
    }

    /// A node was put out of the view: nothing is granted until it is recovered.
    private func pauseCentralLocks() {
        guard locks == .central else { return }
        central.pause()
        for node in graveyard { central.forget(node.door) }
    }

    /// Power cut for all. The nodes are gone, the disk has forgotten what it may.
    package func crash() {
        onDeath?()
        endFreeze()
        for index in nodes.indices { abandon(index) }
        central.resume()
        replaceDisk(disk.crash(seed: dice.next()))
    }

    /// Nobody has it mounted, and it holds something else from now on.
    func replaceDisk(_ content: DiskContent) {
        precondition(living.isEmpty, "changing a mounted volume")
        disk = SimulatedDisk(content: content, executor: executor, latency: shape.latency)
        order.powerFailed()
        watchLogs()
    }

    /// What the disk holds, to be repaired.
    func repairable() -> MemoryBlockDevice {
        precondition(living.isEmpty, "repairing a mounted volume")
        return MemoryBlockDevice(content: disk.visible, alignment: 512)
    }

    /// A node that nobody is left to recover is gone at once; if it was one at all.
    func abandon(_ index: Int) {
        if let node = nodes[index] {
            node.kill()
            node.member.stopRunning()
            node.kernel.die()
            nodes[index] = nil
            graveyard.append(node)
            central.forget(node.door)
        }
        membership.removeAll()
        needsReplay = true
    }

    /// Replays what is to be replayed and checks the volume. Nobody has it mounted.
    package func check() async throws -> CheckReport {
        precondition(living.isEmpty, "checking a mounted volume")
        if let failure = membership.failure { throw SimulationFailure(failure) }
        for node in graveyard[checkedGraves...] { try node.checkRecording() }
        checkedGraves = graveyard.count
        lives += 1
        let host = disk.attach("check.\(lives)")
        for slot in plan.slots.map(\.slot) where needsReplay {
            _ = try await JournalReplay.replay(
                device: host,
                superblock: plan.superblock,
                slot: slot
            )
        }
        needsReplay = false
        let device = MemoryBlockDevice(content: disk.visible, alignment: host.alignment)
        return try await VolumeChecker.check(device)
    }
}
