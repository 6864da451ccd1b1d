// Membership by hand: who is in, who has left or died, and the views that say so. Each member hears
// of a view after a delay of its own. The journals that a view lists are recovered by its
// coordinator, with the production `JournalRecovery`, once its lock manager has finished recovery.

import DiskFormat
import Execution
import FileSystem
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
    let recovery: JournalRecovery
    let router: LockRouter
    /// Once the slot's journal is open.
    var journal: Journal?
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
        superblock: Superblock,
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
        recovery = JournalRecovery(
            engine: engine,
            device: host,
            superblock: superblock,
            service: lockNode
        )
        router = LockRouter(recovery: recovery)
        lockNode.client = router
        end = SimulatedNetwork.End(lockNode: lockNode, engine: engine)
        network.attach(end)
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
    /// Told of slots that were replayed, and who did it.
    var onReplayed: (([SlotIndex], SimulatedMember) -> Void)?
    /// The first replay that failed although its node was alive.
    private(set) var failure: String?

    init(
        network: SimulatedNetwork,
        dice: SeededGenerator,
        slotsToReplay: [SlotIndex]
    ) {
        self.network = network
        self.dice = dice
        self.slotsToReplay = slotsToReplay
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
        member.lockNode.viewChanged(view)
    }

    private func recoveryFinished(_ view: ClusterView, _ member: SimulatedMember) {
        guard view.coordinator == member.identity.node, !view.slotsToReplay.isEmpty else { return }
        member.engine.spawn { await self.replayAll(view, member) }
    }

    private func replayAll(_ view: ClusterView, _ member: SimulatedMember) async {
        let recovered: [RecoveredJournal]?
        do throws(StorageError) {
            recovered = try await member.recovery.recover(
                view.slotsToReplay,
                isCurrent: { !member.isDead && self.epoch == view.epoch },
                whenCovered: { member.lockNode.journalsReplayed(view.epoch) }
            )
        } catch {
            if !member.isDead { failure = failure ?? "replaying \(view.slotsToReplay): \(error)" }
            return
        }
        // A newer view lists what is left again.
        guard let recovered, !member.isDead else { return }
        let slots = recovered.map(\.slot)
        slotsToReplay.removeAll { slots.contains($0) }
        onReplayed?(slots, member)
    }
}
