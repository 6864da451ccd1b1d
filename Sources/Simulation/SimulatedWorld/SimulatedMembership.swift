// Membership by hand: who is in, who has left or died, and the views that say so. Each member hears
// of a view after a delay of its own. The journals that a view lists are replayed by its
// coordinator once the lock managers of all members have finished their recovery; before a member
// takes such a view to its lock manager it holds its writes in place.

import Execution
import Journaling
import LockCore
import NodeService
import SimulatedMachine
import Vocabulary

/// One life of one node, as its cluster knows it.
final class SimulatedMember {
    let identity: Member
    let engine: Engine
    let host: SimulatedHost
    let lockNode: LockNode
    let link: SimulatedLink
    let end: SimulatedNetwork.End
    /// Once the slot's journal is open.
    var journal: Journal?
    /// Views with journals to replay that have not been finished.
    var holds = 0
    var isDead = false

    /// Short times: masterships are to move within a run.
    private static let settings: LockSettings = {
        var settings = LockSettings()
        settings.activityInterval = 10
        settings.leastActivity = 4
        settings.restAfterMove = 30
        return settings
    }()

    /// Bytes of the flight recorder: so many that it is whole after all but the longest runs.
    private static let recording = 64 << 20

    init(
        identity: Member,
        engine: Engine,
        host: SimulatedHost,
        network: SimulatedNetwork
    ) {
        self.identity = identity
        self.engine = engine
        self.host = host
        link = SimulatedLink(network: network, node: identity.node)
        lockNode = LockNode(
            node: identity.node,
            incarnation: identity.incarnation,
            engine: engine,
            peers: link,
            settings: Self.settings,
            recording: Self.recording
        )
        end = SimulatedNetwork.End(lockNode: lockNode, engine: engine)
        network.attach(end)
    }

    /// Holds writes in place, from now on also those of a journal that is opened later.
    func hold() async {
        holds += 1
        await journal?.holdWritesHome()
    }

    func unhold() {
        holds -= 1
        journal?.releaseWritesHome()
    }

    /// The journal is open: holds that were there before are its holds too.
    func opened(_ journal: Journal) async {
        self.journal = journal
        for _ in 0..<holds { await journal.holdWritesHome() }
    }

    func die() {
        isDead = true
        link.isDead = true
        end.isDead = true
    }
}

/// Who is in. Engine-bound.
final class SimulatedMembership {
    let network: SimulatedNetwork
    private var dice: SeededGenerator
    private(set) var members: [SimulatedMember] = []
    private var epoch = Epoch(0)
    /// Slots whose logs may hold something that is not home.
    var slotsToReplay: [SlotIndex]
    private let replaying = Gate()
    /// Replays the log of a slot through a member's device.
    let replay: (SlotIndex, SimulatedMember) async throws -> Void
    /// Told of slots that were replayed, and who did it.
    var onReplayed: (([SlotIndex], SimulatedMember) -> Void)?
    /// The first replay that failed although its node was alive.
    private(set) var failure: String?

    init(
        network: SimulatedNetwork,
        dice: SeededGenerator,
        slotsToReplay: [SlotIndex],
        replay: @escaping (SlotIndex, SimulatedMember) async throws -> Void
    ) {
        self.network = network
        self.dice = dice
        self.slotsToReplay = slotsToReplay
        self.replay = replay
    }

    /// Takes a node in. Returns when its lock manager runs and everything is replayed.
    func join(_ member: SimulatedMember) async {
        members.append(member)
        members.sort { $0.identity < $1.identity }
        member.lockNode.onRecoveryFinished = { [weak self, weak member] view in
            guard let self, let member else { return }
            self.recoveryFinished(view, member)
        }
        publish()
        while !(member.lockNode.isRunning && !member.lockNode.waitsForReplay
            && slotsToReplay.isEmpty)
        {
            await pause(member.engine, below: 300_000)
        }
    }

    /// A node has left in order, or has died and is fenced.
    func remove(_ member: SimulatedMember) {
        members.removeAll { $0 === member }
        publish()
    }

    /// Everybody is gone at once.
    func removeAll() { members = [] }

    private func pause(_ engine: Engine, below limit: Int) async {
        await engine.sleep(
            until: engine.clock.now.advanced(nanoseconds: UInt64(1 + dice.below(limit)))
        )
    }

    private func publish() {
        epoch = Epoch(epoch.rawValue + 1)
        let view = ClusterView(
            epoch: epoch,
            members: members.map(\.identity),
            slotsToReplay: slotsToReplay.sorted()
        )
        for member in members {
            member.engine.spawn { await self.bring(view, to: member) }
        }
    }

    private func bring(_ view: ClusterView, to member: SimulatedMember) async {
        await pause(member.engine, below: 400_000)
        guard !member.isDead, (member.lockNode.view?.epoch ?? Epoch(0)) < view.epoch else { return }
        if view.slotsToReplay.isEmpty { return member.lockNode.viewChanged(view) }
        await member.hold()
        if !member.isDead { member.lockNode.viewChanged(view) }
        while !member.isDead, (member.lockNode.view?.epoch ?? Epoch(0)) <= view.epoch,
            member.lockNode.waitsForReplay || !member.lockNode.isRunning
        {
            await pause(member.engine, below: 200_000)
        }
        if !member.isDead { member.unhold() }
    }

    private func recoveryFinished(_ view: ClusterView, _ member: SimulatedMember) {
        guard view.coordinator == member.identity.node, !view.slotsToReplay.isEmpty else { return }
        member.engine.spawn { await self.replayAll(view, member) }
    }

    private func replayAll(_ view: ClusterView, _ member: SimulatedMember) async {
        await replaying.enter()
        defer { replaying.leave() }
        var replayed: [SlotIndex] = []
        for slot in view.slotsToReplay where slotsToReplay.contains(slot) {
            // A newer view lists what is left again.
            guard !member.isDead, epoch == view.epoch else { return }
            do {
                try await replay(slot, member)
            } catch {
                if !member.isDead { failure = failure ?? "replaying \(slot): \(error)" }
                return
            }
            slotsToReplay.removeAll { $0 == slot }
            replayed.append(slot)
        }
        if member.isDead { return }
        member.lockNode.journalsReplayed(view.epoch)
        onReplayed?(replayed, member)
    }
}
