// One life of one node of a simulated cluster: the production node (`NodeRuntime`) and the production
// watch over the others (`MembershipMachine`), on a lane, a disk handle and a link of its own. This file
// stands for what Shell/HostCluster does on a host: processes and their ends, heartbeats, guardians,
// kills under the lock of the record.
//
// A process ends in steps, each after a delay of its own:
//
//   lives --killed--> dying --last thread gone--> gone --guardian has taken back--> over
//
//   lives   runs, or is held still
//   dying   runs no code and begins no request of the disk; what is under way there may still arrive
//   gone    its disk handle is cut off
//   over    nothing that its kernel has cached can be read any more; who waits for an answer gets an
//           error
//
// Only then may the others go on without it (M2). A node that leaves in order is over at once.

import ClusterNode
import Execution
import FileSystem
import LockCore
import Membership
import NodeService
import SimulatedMachine
import Vocabulary

/// One life of one node. Engine-bound.
final class SimulatedMember {
    /// How far its end has come.
    enum Phase: Int, Comparable {
        case lives, dying, gone, over

        static func < (one: Phase, other: Phase) -> Bool { one.rawValue < other.rawValue }
    }

    /// A peer that is observed, as in `Watcher`.
    private struct Observed {
        let process: SimulatedMember
        var awaitsGuardian = false
    }

    let identity: Member
    let engine: Engine
    let lane: SeededLane
    let host: SimulatedHost
    let runtime: NodeRuntime
    let link: SimulatedLink
    let end: SimulatedNetwork.End
    private(set) var phase = Phase.lives
    /// Grows while it runs.
    fileprivate var beat: UInt64 = 0
    private var machine: MembershipMachine
    private var effects: [MembershipEffect] = []
    private var observed: [Observed] = []
    private var lastPass = Tick(0)
    private var isLeaving = false
    unowned let membership: SimulatedMembership
    /// What it has said of the others, for the story.
    var onReport: ((String) -> Void)?

    var lockNode: LockNode { runtime.locks }
    var isDead: Bool { phase != .lives }

    init(
        parts: NodeParts,
        engine: Engine,
        lane: SeededLane,
        host: SimulatedHost,
        link: SimulatedLink,
        membership: SimulatedMembership
    ) {
        identity = parts.member
        self.engine = engine
        self.lane = lane
        self.host = host
        self.link = link
        self.membership = membership
        runtime = NodeRuntime(engine: engine, parts: parts)
        machine = MembershipMachine(me: parts.member, patience: SimulatedMembership.patience)
        end = SimulatedNetwork.End(lockNode: runtime.locks, engine: engine)
        runtime.onReplayed = { [weak self] epoch in self?.replayed(epoch) }
    }

    // MARK: Its end

    /// It runs no code from now on.
    func stopRunning() {
        precondition(phase == .lives, "\(identity) dies twice")
        phase = .dying
        host.beginNothing()
        link.isDead = true
        end.isDead = true
        // What is left of its tasks must run into the closed doors, or it would be held for ever.
        lane.release()
    }

    /// Its last thread is gone.
    func lastThreadGone() {
        host.cutOff()
        phase = .gone
    }

    /// Its guardian has taken back everything.
    func finish() { phase = .over }

    /// It goes in order: a view without it is its own doing.
    func leave() {
        isLeaving = true
        link.isDead = true
        end.isDead = true
        host.cutOff()
        phase = .over
    }

    // MARK: Its watch over the others

    /// The newest view that it acts on.
    var applied: Epoch { machine.applied }

    /// Starts to watch. It is in the record already.
    func begin() {
        lastPass = engine.clock.now
        look()
        tick()
    }

    private func tick() {
        let interval = SimulatedMembership.patience / 8
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: interval),
            in: engine,
            EngineBound { [weak self] in
                guard let self, phase == .lives else { return }
                beat += 1
                look()
                tick()
            }
        )
    }

    /// Reads the record, looks at the others and at the time, and does what follows.
    func look() {
        guard phase == .lives else { return }
        feed(.viewRead(membership.record))
        carryOut()
        for item in observed {
            let member = item.process.identity
            switch machine.state(of: member) {
            case .watched, .suspected, .killed:
                if item.process.phase >= .gone {
                    feed(.gone(member))
                } else {
                    feed(.heartbeat(member, item.process.beat))
                }
            case .gone:
                if item.awaitsGuardian, item.process.phase == .over { feed(.guardianEnded(member)) }
            case .fenced, nil: break
            }
        }
        let now = engine.clock.now
        // W4: as the watcher of a host that was suspended.
        let limit = SimulatedMembership.patience / 4
        feed(.passed(min(now.rawValue - lastPass.rawValue, limit)))
        lastPass = now
        carryOut()
    }

    /// The connection to a member has broken.
    func lost(_ member: Member) {
        guard phase == .lives else { return }
        feed(.viewRead(membership.record))
        feed(.suspected(member, .connectionLost))
        carryOut()
    }

    private func feed(_ event: MembershipEvent) { machine.handle(event, effects: &effects) }

    private func carryOut() {
        while !effects.isEmpty {
            let now = effects
            effects.removeAll(keepingCapacity: true)
            for effect in now { carryOut(effect) }
        }
    }

    private func carryOut(_ effect: MembershipEffect) {
        switch effect {
        case .watch(let member):
            guard let process = membership.process(member) else {
                preconditionFailure("\(member) is in the record and was never a process")
            }
            observed.append(Observed(process: process))
        case .unwatch(let member): observed.removeAll { $0.process.identity == member }
        case .kill(let member):
            // Under the lock, which takes its time.
            later {
                guard $0.membership.kill(member, by: $0.identity) else { return }
                $0.feed(.killed(member))
                $0.carryOut()
            }
        case .awaitGuardian(let member):
            for index in observed.indices where observed[index].process.identity == member {
                observed[index].awaitsGuardian = true
            }
        case .bury(let members): later { $0.membership.bury(members, by: $0.identity) }
        case .apply(let view): runtime.adopt(view)
        case .expelled(let epoch):
            if !isLeaving { membership.fail("\(identity) lives and was put out by \(epoch) (M2)") }
        case .report(let line): onReport?(line)
        }
    }

    private func later(_ body: @escaping (SimulatedMember) -> Void) {
        engine.spawn {
            await self.membership.pause(self.engine, below: 100_000)
            if self.phase == .lives { body(self) }
        }
    }

    private func replayed(_ epoch: Epoch) {
        later { $0.membership.replayed(epoch, by: $0) }
    }
}
