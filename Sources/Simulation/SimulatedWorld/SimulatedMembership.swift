// What the nodes of a simulated cluster share: the record of who is in, and the processes that there
// are. Every change of the record is made by the production `ViewRecord`; each member hears of it after a
// delay of its own.

import ClusterNode
import Execution
import Membership
import NodeService
import SimulatedMachine
import Vocabulary

/// Who is in. Engine-bound.
final class SimulatedMembership {
    /// Nanoseconds without a heartbeat after which a node is killed.
    static let patience: UInt64 = 800_000_000

    let network: SimulatedNetwork
    private let engine: Engine
    private var dice: SeededGenerator
    private let slotCount: UInt32
    private(set) var record = ViewRecord(volume: "simulated")
    /// Every process that has been a member since the power failed last.
    private var processes: [SimulatedMember] = []
    /// Told when a process is killed by another member: its node stops at once.
    var onKill: ((SimulatedMember) -> Void)?
    /// Told when a process is over.
    var onOver: ((SimulatedMember) -> Void)?
    /// Told when members were removed that did not leave.
    var onBuried: (() -> Void)?
    /// What nobody may ever see.
    private(set) var failure: String?

    init(engine: Engine, network: SimulatedNetwork, dice: SeededGenerator, slotCount: UInt32) {
        self.engine = engine
        self.network = network
        self.dice = dice
        self.slotCount = slotCount
    }

    func process(_ member: Member) -> SimulatedMember? {
        processes.first { $0.identity == member }
    }

    func fail(_ why: String) { failure = failure ?? why }

    func pause(_ engine: Engine, below limit: Int) async {
        await engine.sleep(
            until: engine.clock.now.advanced(nanoseconds: UInt64(1 + dice.below(limit)))
        )
    }

    // MARK: Coming and going

    /// Takes a node in, as soon as its slot may be moved into. False if the slot is taken.
    func join(_ member: SimulatedMember) async -> Bool {
        let slot = member.identity.node.slot
        while true {
            do throws(JoinRefusal) {
                _ = try record.slotToJoin(wanted: slot, slotCount: slotCount) { _ in true }
                break
            } catch {
                guard error == .recovering else { return false }
                await pause(engine, below: 300_000)
            }
        }
        record.join(member.identity, slotCount: slotCount)
        processes.append(member)
        network.attach(member.end)
        member.begin()
        tellAll()
        return true
    }

    /// A node leaves in order; everything of it is written.
    func leave(_ member: SimulatedMember) {
        member.leave()
        if record.leave(member.identity) { tellAll() }
    }

    /// Everybody is gone at once, and so is what they shared.
    func removeAll() {
        record = ViewRecord(volume: "simulated")
        processes = []
    }

    /// The members of the record, and whether all of them live and every journal is home.
    var isSettled: Bool {
        record.dirty.isEmpty && record.members.allSatisfy { process($0)?.phase == .lives }
    }

    // MARK: Ends

    /// The process of a member has been killed, or kills itself: the rest of its end, step by step.
    func died(_ member: SimulatedMember) {
        member.stopRunning()
        engine.spawn {
            // A dying process is usually gone at once, now and then only when its last request is.
            await self.pause(self.engine, below: self.dice.oneIn(4) ? 2_000_000 : 50_000)
            member.lastThreadGone()
            self.tellAll()
            await self.pause(self.engine, below: self.dice.oneIn(4) ? 3_000_000 : 200_000)
            self.onOver?(member)
            member.finish()
            self.tellAll()
        }
    }

    /// One end notices that its connection to a peer has broken.
    func lost(_ end: NodeID, _ peer: NodeID) {
        guard let member = record.members.first(where: { $0.node == end }),
            let other = record.members.first(where: { $0.node == peer })
        else { return }
        process(member)?.lost(other)
    }

    /// Under the lock of the record: kills a member's process, if both are still in (H4).
    func kill(_ victim: Member, by killer: Member) -> Bool {
        guard record.contains(killer), record.contains(victim),
            let process = process(victim)
        else { return false }
        if process.phase == .lives { onKill?(process) }
        return true
    }

    /// Under the lock: removes members that are fenced.
    func bury(_ members: [Member], by member: Member) {
        guard record.contains(member) else { return }
        // M2, held against what really is.
        for dead in members where record.contains(dead) && process(dead)?.phase != .over {
            fail("\(member) buries \(dead), which is not over (M2)")
        }
        guard record.bury(members) else { return }
        onBuried?()
        tellAll()
    }

    /// Under the lock: the journals that the view `epoch` lists are home.
    func replayed(_ epoch: Epoch, by member: SimulatedMember) {
        guard record.contains(member.identity), record.replayed(under: epoch) else { return }
        tellAll()
    }

    // MARK: Telling

    /// Something has changed that every watcher may see; each does so after a delay of its own.
    private func tellAll() {
        for process in processes where process.phase == .lives {
            let delay = UInt64(1 + dice.below(dice.oneIn(10) ? 3_000_000 : 200_000))
            process.engine.clock.schedule(
                at: process.engine.clock.now.advanced(nanoseconds: delay),
                in: process.engine,
                EngineBound { [weak process] in process?.look() }
            )
        }
    }
}
