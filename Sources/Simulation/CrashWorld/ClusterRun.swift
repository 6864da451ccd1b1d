// One run of a script: two or three nodes with the volume mounted on one recorded disk, locks in one
// place, and deaths at chosen events. The survivors recover the dead node's journal with the
// production code and go on with their steps meanwhile; in the end they unmount.
//
// Invariants
//   N1. A node dies between two events of the record: the process is gone, what it had asked the
//       disk for and not got lands in one of the ways of `Landing`, and nothing of it reaches the
//       disk or the locks any more. What had returned stays: no disk cache is lost.
//   N2. The survivors hear of it after a delay that follows from the seed. Until then they only find
//       that they wait for its locks. Then grants stop, its locks are gone, and the lowest survivor
//       recovers (JournalRecovery V1 to V5); grants go on as soon as that says so.
//   N3. If the recoverer dies, the next one begins again, with the journals of both.
//   N4. A step of a dead node is left out; steps of others are done in order, and each waits for the
//       one before it and for nothing else.
//   N5. When the last survivor has unmounted, no journal is left to replay and no orphan that
//       nobody had open: recovery is really done, and not left to who mounts next.

import BlockIO
import CentralLocking
import DiskFormat
import Execution
import FileSystem
import Journaling
import LockCache
import SimulatedMachine
import Vocabulary
import VolumeChecking
import VolumeMaking

/// A death of one node.
package struct NodeDeath: Hashable, Sendable {
    /// Events of the record before it.
    package var event: Int
    /// From 1.
    package var node: Int
    /// What becomes of what it had in flight (`Landing`).
    package var variant: Int

    package init(event: Int, node: Int, variant: Int) {
        self.event = event
        self.node = node
        self.variant = variant
    }
}

/// How a step ended.
package enum StepEnd: Hashable, Sendable {
    case done
    /// In words.
    case refused(String)
    /// Refused, perhaps after a part was done, because there was no room.
    case full
    /// Its node died meanwhile.
    case died
}

/// A step that was begun.
package struct StepRecord: Hashable, Sendable {
    /// Its place in the script.
    package var number: Int
    package var step: ClusterStep
    /// Events in the record when it began, and when it ended.
    package var begunAt: Int
    package var endedAt: Int
    package var end: StepEnd

    package init(number: Int, step: ClusterStep, begunAt: Int, endedAt: Int, end: StepEnd) {
        self.number = number
        self.step = step
        self.begunAt = begunAt
        self.endedAt = endedAt
        self.end = end
    }
}

/// What came of a run.
struct ClusterOutcome: Sendable {
    var steps: [StepRecord] = []
    var deaths: [NodeDeath] = []
    var events: [DeviceEvent] = []
    /// Events when all nodes had mounted.
    var mountedAt = 0
    /// Writes that each node (from 1) had in flight after each event; without deaths only.
    var inFlight: [[Int]] = []
    /// Events at which a node (from 1) was recovering journals.
    var recovering: [(event: Int, node: Int)] = []
    /// The disk after everybody has gone.
    var image: CrashImage
    /// What the survivors saw before they unmounted; one of them is enough if all agree.
    var observed: ObservedTree?
    /// Images brought home, and names that survivors held, in recoveries.
    var broughtHome = 0
    var settled = 0
}

/// One mount among several.
private final class ClusterMember {
    let index: Int
    let host: RecordingHost
    let door: CentralLockDoor
    let recovery: JournalRecovery
    let node: CrashNode
    var isGone = false

    init(
        index: Int,
        host: RecordingHost,
        door: CentralLockDoor,
        recovery: JournalRecovery,
        node: CrashNode
    ) {
        self.index = index
        self.host = host
        self.door = door
        self.recovery = recovery
        self.node = node
    }
}

/// Runs one script once. Engine-bound.
final class ClusterRun {
    private let engine: Engine
    private let plan: VolumePlan
    private let device: RecordingDevice
    private let central = CentralLocks()
    private var dice: SeededGenerator
    private var members: [ClusterMember] = []
    private var deaths: [NodeDeath]
    private var outcome: ClusterOutcome
    private var view = 0
    private var unrecovered: [SlotIndex] = []
    private var complaint: String?
    private let recovered = Signal()
    private var pending: (member: ClusterMember, outcome: Outcome<StepEnd>)?
    /// Who recovers journals at the moment.
    private var recoverer: ClusterMember?

    private init(
        _ engine: Engine,
        _ volume: PreparedVolume,
        _ deaths: [NodeDeath],
        _ defect: DeviceDefect?,
        seed: UInt64
    ) {
        self.engine = engine
        plan = volume.plan
        device = RecordingDevice(
            content: volume.base,
            executor: engine.seededExecutor,
            defect: defect
        )
        self.deaths = deaths
        outcome = ClusterOutcome(image: device.image)
        // Not the executor's: until the first death every run of a script is the same.
        dice = SeededGenerator(seed: seed)
        for death in deaths {
            let place = UInt64(death.event) << 16 | UInt64(death.node) << 8
            dice = SeededGenerator(seed: dice.next() ^ place ^ UInt64(death.variant))
        }
    }

    /// Runs `script` on `nodes` nodes. Deaths are by event ascending.
    ///
    /// - Throws: `CrashComplaint` with what went wrong that has nothing to do with the tree.
    static func run(
        _ script: ClusterScript,
        on volume: PreparedVolume,
        nodes: Int,
        seed: UInt64,
        deaths: [NodeDeath] = [],
        defect: DeviceDefect? = nil
    ) throws -> ClusterOutcome {
        try runSimulated(seed: seed, stepLimit: 2_000_000) { engine in
            let run = ClusterRun(engine, volume, deaths, defect, seed: seed)
            try await run.carryOut(script, nodes)
            return run.outcome
        }
    }

    private func carryOut(_ script: ClusterScript, _ nodes: Int) async throws {
        for index in 0..<nodes { members.append(try await mount(index)) }
        outcome.mountedAt = device.events.count
        device.onEvent = { [self] in eventHappened($0) }
        for (number, step) in script.steps.enumerated() { try await perform(step, number) }
        try await finishRecovery()
        if !living.isEmpty { try await finish(script) }
        outcome.events = device.events
        outcome.image = device.image
    }

    private func finishRecovery() async throws {
        while !unrecovered.isEmpty, !living.isEmpty, complaint == nil { await recovered.wait() }
        try requireNoComplaint()
    }

    private var living: [ClusterMember] { members.filter { !$0.isGone } }

    private func mount(_ index: Int) async throws -> ClusterMember {
        let host = device.attach(index + 1)
        let door = CentralLockDoor(
            node: NodeID(slot: plan.slots[index].slot),
            manager: central,
            engine: engine,
            dice: engine.seededExecutor.forkDice()
        )
        let recovery = JournalRecovery(
            engine: engine,
            device: host,
            superblock: plan.superblock,
            service: door
        )
        let router = LockRouter(recovery: recovery)
        routers.append(router)
        door.client = router
        let node = try await CrashNode.mount(host, plan.superblock, plan.slots[index], engine, door)
        {
            router.volume = $0
        }
        return ClusterMember(index: index, host: host, door: door, recovery: recovery, node: node)
    }

    /// The doors refer to them weakly.
    private var routers: [LockRouter] = []

    // MARK: Steps

    private func perform(_ step: ClusterStep, _ number: Int) async throws {
        let member = members[step.node - 1]
        if member.isGone { return }
        let begun = device.events.count
        let end = Outcome<StepEnd>()
        pending = (member, end)
        engine.spawn {
            var ended = StepEnd.done
            do {
                try await member.node.perform(step.operation, number: number)
            } catch FileError.noSpace {
                ended = .full
            } catch {
                ended = .refused("\(error)")
            }
            if end.value == nil { end.deliver(ended) }
        }
        let ended = await end.get()
        pending = nil
        outcome.steps.append(
            StepRecord(
                number: number,
                step: step,
                begunAt: begun,
                endedAt: device.events.count,
                end: ended
            )
        )
        if step.operation == .unmount, ended == .done { leave(member) }
        if outcome.deaths.isEmpty, ended != .done {
            throw CrashComplaint("\(step.operation.text) on node \(step.node) failed: \(ended)")
        }
        try requireNoComplaint()
    }

    private func requireNoComplaint() throws {
        if let complaint { throw CrashComplaint(complaint) }
        for member in members where !member.isGone {
            if let line = member.node.complaints.first {
                throw CrashComplaint("node \(member.index + 1): \(line)")
            }
        }
    }

    // MARK: Deaths

    private func eventHappened(_ count: Int) {
        if let recoverer, !recoverer.isGone {
            outcome.recovering.append((count, recoverer.index + 1))
        }
        if deaths.isEmpty && outcome.deaths.isEmpty {
            outcome.inFlight.append(
                members.map { device.writesInFlight(of: $0.index + 1).count }
            )
        }
        while let next = deaths.first, next.event == count {
            deaths.removeFirst()
            kill(next)
        }
    }

    /// N1.
    private func kill(_ death: NodeDeath) {
        let member = members[death.node - 1]
        if member.isGone { return }
        member.isGone = true
        outcome.deaths.append(death)
        unrecovered.append(plan.slots[member.index].slot)
        member.host.cutOff(death.variant, &dice)
        member.door.die()
        member.node.volume.withdraw("killed")
        if let pending, pending.member === member, pending.outcome.value == nil {
            pending.outcome.deliver(.died)
        }
        recovered.notify()
        let delay = [0, 40_000, 2_000_000, 300_000_000][dice.below(4)]
        engine.spawn { await self.recover(after: UInt64(delay)) }
    }

    /// N2, N3.
    private func recover(after delay: UInt64) async {
        await engine.sleep(nanoseconds: delay)
        view += 1
        let mine = view
        central.pause()
        for member in members where member.isGone { central.forget(member.door) }
        guard let coordinator = living.first else { return }
        let slots = unrecovered
        recoverer = coordinator
        do {
            let done = try await coordinator.recovery.recover(
                slots,
                isCurrent: { self.view == mine && !coordinator.isGone },
                whenCovered: { if self.view == mine { self.central.resume() } }
            )
            guard let done, !coordinator.isGone else { return }
            for journal in done {
                outcome.broughtHome += journal.report.written
                outcome.settled += journal.settled
            }
        } catch {
            if !coordinator.isGone { complaint = complaint ?? "recovering \(slots): \(error)" }
            return recovered.notify()
        }
        recoverer = nil
        unrecovered.removeAll { slots.contains($0) }
        for slot in slots {
            engine.spawn { await coordinator.node.volume.freeOrphans(of: slot) }
        }
        recovered.notify()
    }

    // MARK: The end

    /// A time of nothing before the end, as most runs have it: what is old is written, orphans go.
    private static let rest: UInt64 = 3 * MountOptions().commitInterval

    /// N5.
    private func finish(_ script: ClusterScript) async throws {
        let rests = outcome.deaths.isEmpty || dice.oneIn(2)
        var known = -1
        // A death during a rest is followed by another.
        while rests, outcome.deaths.count > known, !living.isEmpty {
            known = outcome.deaths.count
            await engine.sleep(nanoseconds: Self.rest)
            try await finishRecovery()
        }
        device.onEvent = nil
        device.endRecord()
        // Whoever mounts next has to recover.
        if living.isEmpty { return }
        if dice.oneIn(2) { try await observe() }
        for member in living {
            try await member.node.volume.stop()
            try requireNoComplaint()
            leave(member)
        }
        for slot in plan.slots {
            let isClean = try await JournalReplay.isClean(
                device: device,
                superblock: plan.superblock,
                slot: slot.slot
            )
            if !isClean { throw CrashComplaint("the journal of slot \(slot.slot) is not clean") }
        }
        let holdsOpen = script.steps.contains {
            if case .open = $0.operation { true } else { false }
        }
        if holdsOpen || !rests { return }
        let orphans = try await VolumeChecker.check(device).orphans
        if orphans > 0 { throw CrashComplaint("\(orphans) orphans left by the survivors") }
    }

    private func observe() async throws {
        for member in living {
            let tree = try await member.node.observe()
            if let other = outcome.observed, other != tree {
                throw CrashComplaint("node \(member.index + 1) sees another tree")
            }
            outcome.observed = tree
        }
    }

    private func leave(_ member: ClusterMember) {
        member.isGone = true
        member.door.die()
        // Whoever recovers and leaves before it is done has a view to follow, as one that dies (N3).
        if recoverer === member {
            central.pause()
            engine.spawn { await self.recover(after: 0) }
        }
        central.forget(member.door)
    }
}
