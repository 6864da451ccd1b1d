// The barriers of a recovery: when everybody has everything of a phase.
//
//   each member  sent ─────▶ coordinator   so many messages of this phase to these members
//   coordinator  expect ───▶ each member   so many messages of this phase come to you, from all
//   each member  reached ──▶ coordinator   they are here
//   coordinator  proceed ──▶ each member
//
// Who expects nothing is not told so and need not say that it is there: two messages a member and
// barrier, four if it has to do with what is rebuilt. (Markers from everybody to everybody, which need no counting,
// are the square of the members: with 256 nodes 130,000 messages for one death.) In the phase
// `masters` there is nothing to count: a member has `reached` its end when its own questions are
// answered.
//
// B1. What is counted is sent once, by a member that is in the phase, and counted by its receiver
//     whatever phase that is in. Nothing of an older epoch is counted: both sides begin at 0 with
//     the view.
// B2. A member goes on only when told to, so no two members are more than one phase apart, and what
//     is of a later phase comes from one that was told already: then everything of the earlier one is
//     here, also if this node has not been told yet that it expects nothing.

import Vocabulary

/// Counts of one phase of a recovery.
struct PhaseCounts: Sendable {
    /// Messages this node sent, per place of a member.
    var sent: [UInt32]
    /// Messages that came.
    var received: UInt32 = 0
    /// How many come in all; nil until the coordinator has said so.
    var expected: UInt32?
    /// On the coordinator: the sum for each member, and whose counts are in it.
    var totals: [UInt32]
    var heard: [Bool]
    /// On the coordinator: who has reached the end.
    var reached: [Bool]

    init(memberCount: Int) {
        sent = [UInt32](repeating: 0, count: memberCount)
        totals = sent
        heard = [Bool](repeating: false, count: memberCount)
        reached = heard
    }
}

extension LockMessage {
    /// The phase it is counted in; nil if it is not.
    var countedPhase: RecoveryPhase? {
        switch self {
        case .masters, .stagedMasters, .claimedMasters: .directory
        case .rebuild: .locks
        default: nil
        }
    }
}

extension Lockspace {
    /// The place of a member in the view.
    func place(of member: NodeID) -> Int {
        members.firstIndex { $0.node == member } ?? 0
    }

    private var coordinator: NodeID { members[0].node }

    /// This node has sent all it has to say in a phase.
    mutating func reportSent(_ phase: RecoveryPhase, _ effects: inout [LockEffect]) {
        if phase == .masters { return }
        let sent = recovery.counts[Int(phase.rawValue)].sent
        if coordinator == node {
            noteSent(phase, sent.enumerated().map { ($0.offset, $0.element) }, node, &effects)
            return
        }
        var counts: [MessageCount] = []
        for (place, count) in sent.enumerated() where count > 0 {
            counts.append(MessageCount(node: members[place].node, count: count))
        }
        send(.sent(phase, counts), to: coordinator, &effects)
    }

    mutating func takeSent(
        _ phase: RecoveryPhase,
        _ counts: [MessageCount],
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard status == .recovering, coordinator == node, phase != .masters,
            counts.allSatisfy({ isMember($0.node) })
        else {
            counters.protocolErrors += 1
            return
        }
        noteSent(phase, counts.map { (place(of: $0.node), $0.count) }, peer, &effects)
    }

    private mutating func noteSent(
        _ phase: RecoveryPhase,
        _ counts: [(place: Int, count: UInt32)],
        _ sender: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let index = Int(phase.rawValue)
        if recovery.counts[index].heard[place(of: sender)] {
            counters.protocolErrors += 1
            return
        }
        for entry in counts { recovery.counts[index].totals[entry.place] &+= entry.count }
        recovery.counts[index].heard[place(of: sender)] = true
        if recovery.counts[index].heard.contains(false) { return }
        for (place, member) in members.enumerated() {
            let total = recovery.counts[index].totals[place]
            if member.node == node {
                recovery.counts[index].expected = total
            } else if total > 0 {
                send(.expect(phase, total), to: member.node, &effects)
            } else {
                recovery.counts[index].reached[place] = true
            }
        }
        checkPhase(&effects)
    }

    mutating func takeExpect(
        _ phase: RecoveryPhase,
        _ count: UInt32,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard status == .recovering, peer == coordinator, phase == recovery.phase,
            phase != .masters
        else {
            counters.protocolErrors += 1
            return
        }
        recovery.counts[Int(phase.rawValue)].expected = count
        checkPhase(&effects)
    }

    /// Reports to the coordinator when everything of the present phase is here.
    mutating func checkPhase(_ effects: inout [LockEffect]) {
        if status != .recovering || recovery.hasReported { return }
        let phase = recovery.phase
        let counts = recovery.counts[Int(phase.rawValue)]
        switch phase {
        case .masters: if recovery.lookupsOutstanding > 0 { return }
        case .directory, .locks: if counts.expected != counts.received { return }
        }
        recovery.hasReported = true
        if phase == .directory { settleEntries() }
        if coordinator == node {
            noteReached(phase, node, &effects)
        } else {
            send(.reached(phase), to: coordinator, &effects)
        }
    }

    private mutating func noteReached(
        _ phase: RecoveryPhase,
        _ member: NodeID,
        _ effects: inout [LockEffect]
    ) {
        recovery.counts[Int(phase.rawValue)].reached[place(of: member)] = true
        if recovery.counts[Int(phase.rawValue)].reached.contains(false) { return }
        for member in members where member.node != node {
            send(.proceed(phase), to: member.node, &effects)
        }
        proceed(phase, &effects)
    }

    mutating func takeReached(
        _ phase: RecoveryPhase,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard status == .recovering && coordinator == node && phase == recovery.phase else {
            counters.protocolErrors += 1
            return
        }
        noteReached(phase, peer, &effects)
    }

    mutating func takeProceed(
        _ phase: RecoveryPhase,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard status == .recovering && peer == coordinator && phase == recovery.phase else {
            counters.protocolErrors += 1
            return
        }
        if !recovery.hasReported {
            guard phase != .masters, recovery.counts[Int(phase.rawValue)].expected == nil else {
                counters.protocolErrors += 1
                return
            }
            recovery.hasReported = true
            if phase == .directory { settleEntries() }
        }
        proceed(phase, &effects)
    }
}
