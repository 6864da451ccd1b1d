import Membership
import Testing
import Vocabulary

// Whole histories of a cluster by seed: processes that join, leave, die, stop, are killed with
// permission and without, guardians that take their time, views that are read late or not at all.
// The model knows what is true of each process; the machines know only what they are told.

/// A process of the model.
private struct ModelNode {
    var member: Member
    var machine: MembershipMachine
    var pending: [MembershipEffect] = []
    /// Its last thread is gone.
    var isGone = false
    /// A signal was sent; it dies some time later.
    var isDying = false
    var guardianRuns = true
    /// It neither runs nor answers, but exists.
    var isStopped = false
    var mayBeKilled = true
    var hasLeft = false
    var lastEpoch = Epoch(0)
    var beat: UInt64 = 0

    var acts: Bool { !isGone && !isStopped && !hasLeft && !isDying }
}

/// What must hold, and did not.
private struct Broken: Error, CustomStringConvertible { let description: String }

private struct MembershipModel {
    static let slots: UInt32 = 4
    var dice: SeededGenerator
    var record = ViewRecord(volume: "v")
    var nodes: [ModelNode] = []
    /// Slots with something unreplayed in their journals: the truth.
    var unreplayed: [Bool] = Array(repeating: true, count: Int(slots))
    var lives: UInt64 = 0
    var burials = 0
    var goodbyes = 0

    init(seed: UInt64) { dice = SeededGenerator(seed: seed) }

    mutating func run(steps: Int) throws {
        for _ in 0..<steps {
            switch dice.below(60) {
            case 0, 20, 21, 22: try join()
            case 1: if let at = anyActing() { try leave(at) }
            case 2: if let at = anyActing() { nodes[at].isDying = true }
            case 3: if let at = anyActing() { nodes[at].isStopped = true }
            case 4: if let at = anyIndex({ $0.isStopped }) { nodes[at].isStopped = false }
            case 5: if let at = anyIndex({ $0.isGone }) { nodes[at].guardianRuns = false }
            case 6, 7: if let at = anyIndex({ $0.isDying }) { nodes[at].isGone = true }
            case 8, 23, 24, 25: if let at = anyActing() { try replay(at) }
            case 9: if let at = anyActing() { try doubt(at) }
            case 10: if let at = anyActing() { nodes[at].mayBeKilled.toggle() }
            case 11, 12, 26, 27: if let at = anyActing() { try feed(at, .viewRead(record)) }
            case 13, 28, 29, 30: if let at = anyActing() { try look(at) }
            default: if let at = anyActing() { try carryOut(at) }
            }
            nodes.removeAll {
                ($0.isGone && !$0.guardianRuns && !record.contains($0.member)) || $0.hasLeft
            }
        }
        try settle()
    }

    private mutating func anyIndex(_ holds: (ModelNode) -> Bool) -> Int? {
        let found = nodes.indices.filter { holds(nodes[$0]) }
        return found.isEmpty ? nil : found[dice.below(found.count)]
    }

    private mutating func anyActing() -> Int? { anyIndex(\.acts) }

    /// Every change of the record goes through here.
    private mutating func change(_ body: (inout ViewRecord) -> Bool) throws {
        let before = record
        guard body(&record) else {
            guard record == before else { throw Broken(description: "changed without saying so") }
            return
        }
        guard record.revision == before.revision + 1 else {
            throw Broken(description: "M1: revision")
        }
        let membersChanged = record.members != before.members
        guard membersChanged ? before.epoch < record.epoch : before.epoch == record.epoch else {
            throw Broken(description: "M1: epoch")
        }
        for (slot, isDirty) in unreplayed.enumerated() where isDirty {
            let index = SlotIndex(UInt32(slot))
            let owned = record.view.contains(NodeID(slot: index))
            guard owned || record.members.isEmpty || record.view.slotsToReplay.contains(index)
            else {
                throw Broken(description: "M4: the dirty \(index) is lost in \(record.text)")
            }
        }
    }

    private mutating func join() throws {
        // As the shell does: who is certainly fenced is buried first.
        let fenced = nodes.filter { $0.isGone && !$0.guardianRuns }.map(\.member)
        try change { $0.bury(fenced) }
        let takenFiles = nodes.filter { !$0.isGone || $0.guardianRuns }.map(\.member.node.slot)
        guard
            let slot = try? record.slotToJoin(
                wanted: dice.oneIn(3) ? SlotIndex(UInt32(dice.below(4))) : nil,
                slotCount: Self.slots,
                isUsable: { !takenFiles.contains($0) }
            )
        else { return }
        guard !nodes.contains(where: { !$0.isGone && !$0.hasLeft && $0.member.node.slot == slot })
        else { throw Broken(description: "M3: \(slot) has an owner") }
        guard !unreplayed[Int(slot.rawValue)] || record.members.isEmpty else {
            throw Broken(description: "M5: moved into the dirty \(slot)")
        }
        lives += 1
        let member = Member(node: NodeID(slot: slot), incarnation: lives)
        try change {
            $0.join(member, slotCount: Self.slots); return true
        }
        unreplayed[Int(slot.rawValue)] = true  // it writes from now on
        nodes.append(
            ModelNode(member: member, machine: MembershipMachine(me: member, patience: 1000))
        )
        try feed(nodes.count - 1, .viewRead(record))
    }

    private mutating func leave(_ at: Int) throws {
        let member = nodes[at].member
        guard record.contains(member) else { return }
        // A clean journal is what goodbye promises; what others left dirty stays so.
        if !record.view.slotsToReplay.contains(member.node.slot) {
            unreplayed[Int(member.node.slot.rawValue)] = false
        }
        try change { $0.leave(member) }
        nodes[at].hasLeft = true
        goodbyes += 1
    }

    /// The coordinator of a view replays what that view lists.
    private mutating func replay(_ at: Int) throws {
        guard nodes[at].machine.applied != Epoch(0), record.contains(nodes[at].member),
            record.epoch == nodes[at].machine.applied || dice.oneIn(2)
        else { return }
        let began = nodes[at].machine.applied
        for dirty in record.dirty where dirty.since <= began {
            let owner = nodes.first {
                $0.member.node.slot == dirty.slot && record.contains($0.member)
            }
            // Only the first mounter's own slot is both owned and listed; he begins a clean
            // journal.
            if owner == nil { unreplayed[Int(dirty.slot.rawValue)] = false }
        }
        try change { $0.replayed(under: began) }
    }

    private mutating func doubt(_ at: Int) throws {
        let others = record.members.filter { $0 != nodes[at].member }
        guard !others.isEmpty else { return }
        try feed(at, .suspected(others[dice.below(others.count)], .asked))
    }

    /// What a shell looks at from time to time.
    private mutating func look(_ at: Int) throws {
        nodes[at].beat += 1
        for other in nodes where nodes[at].machine.state(of: other.member) != nil {
            try feed(at, other.isGone ? .gone(other.member) : .heartbeat(other.member, other.beat))
        }
        try feed(at, .passed(UInt64(dice.below(400))))
        if dice.oneIn(8) { try feed(at, .passed(MembershipMachine.retryInterval)) }
    }

    private mutating func feed(_ at: Int, _ event: MembershipEvent) throws {
        var effects: [MembershipEffect] = []
        nodes[at].machine.handle(event, effects: &effects)
        nodes[at].pending += effects
        nodes[at].machine.checkInvariants()
    }

    private mutating func carryOut(_ at: Int) throws {
        guard !nodes[at].pending.isEmpty else { return }
        let effect = nodes[at].pending.removeFirst()
        let me = nodes[at].member
        switch effect {
        case .watch, .unwatch, .report: break
        case .apply(let view):
            guard nodes[at].lastEpoch < view.epoch else { throw Broken(description: "W1: \(view)") }
            nodes[at].lastEpoch = view.epoch
        case .expelled:
            guard !record.contains(me) else { throw Broken(description: "expelled without reason") }
            throw Broken(description: "\(me) was buried alive")
        case .kill(let member):
            try feed(at, .viewRead(record))
            guard record.contains(me), record.contains(member) else { return }
            guard let victim = nodes.firstIndex(where: { $0.member == member }) else {
                throw Broken(description: "a member without a process")
            }
            if nodes[victim].mayBeKilled {
                nodes[victim].isDying = true
                nodes[victim].isStopped = false
                try feed(at, .killed(member))
            } else {
                try feed(at, .killRefused(member, 1))
            }
        case .awaitGuardian(let member):
            let running = nodes.contains { $0.member == member && $0.guardianRuns }
            if running {
                nodes[at].pending.append(effect)
            } else {
                try feed(at, .guardianEnded(member))
            }
        case .bury(let members):
            guard record.contains(me) else { return }
            for node in nodes where members.contains(node.member) && record.contains(node.member) {
                guard node.isGone && !node.guardianRuns else {
                    throw Broken(description: "M2: \(node.member) was buried before it was fenced")
                }
                burials += 1
            }
            try change { $0.bury(members) }
            try feed(at, .viewRead(record))
        }
    }

    /// Whatever has happened: when signals are permitted again and time passes, the living agree on
    /// a view without the dead.
    private mutating func settle() throws {
        for at in nodes.indices {
            nodes[at].mayBeKilled = true
            if nodes[at].isStopped { nodes[at].isDying = true }
        }
        for _ in 0..<200 {
            for at in nodes.indices where nodes[at].isDying { nodes[at].isGone = true }
            for at in nodes.indices where nodes[at].isGone { nodes[at].guardianRuns = false }
            for at in nodes.indices where nodes[at].acts {
                try feed(at, .viewRead(record))
                try look(at)
                while nodes[at].acts && !nodes[at].pending.isEmpty { try carryOut(at) }
            }
        }
        let living = nodes.filter(\.acts)
        guard !living.isEmpty else { return }
        guard living.allSatisfy({ $0.lastEpoch == record.epoch }) else {
            throw Broken(description: "the living do not agree")
        }
        guard record.members == living.map(\.member).sorted() else {
            throw Broken(description: "the view \(record.view) is not of the living")
        }
    }
}

@Suite struct MembershipSimulationTests {
    @Test func historiesBySeed() {
        var burials = 0
        var goodbyes = 0
        for seed in 0..<400 as Range<UInt64> {
            var model = MembershipModel(seed: seed)
            do { try model.run(steps: 600) } catch { Issue.record("seed \(seed): \(error)") }
            burials += model.burials
            goodbyes += model.goodbyes
        }
        // The histories are worth something only if all this happens in them.
        #expect(burials > 400 && goodbyes > 400, "\(burials) burials, \(goodbyes) goodbyes")
    }
}
