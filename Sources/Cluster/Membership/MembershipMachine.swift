// How one node watches the others: from the first doubt to the burial. Values only; the shell
// brings events (a view was read, a process ended, time has passed) and carries out effects.
//
// States of a peer, and what is true in each
//
//   watched    in the newest view; its process is observed, its heartbeat compared
//   suspected  it is to be killed: it stood still, its connection broke, or somebody asked
//   killed     the signal was sent; its last thread may still be writing
//   gone       no thread of it exists; but its guardian may still be taking back what the kernel
//   caches
//   fenced     both are over: it cannot write, and nobody can read through it; burial was asked for
//
//     watched --still too long, lost, asked--> suspected --signal sent--> killed
//     watched, suspected, killed --last thread gone--> gone --guardian ended--> fenced --view-->
//     (none)
//
// Invariants
// W1. Views are applied in the order of their epochs, each at most once; a record that is older
// than one
//     seen is ignored (M1), so that reads may be late, doubled or skipped.
// W2. Burial is asked for fenced peers only (M2), and fenced is reached from `gone` only.
// W3. A refused or lost signal leaves the peer suspected: it is retried and said aloud, never
// assumed.
// W4. Time counts against a peer only while this node itself was running (the shell limits what one
//     `passed` may say), so that a host that was suspended does not kill everybody on waking up.
// W5. A peer is known by its life: what concerns another incarnation of the same node is ignored.

package import Vocabulary

/// Why a peer is to be fenced.
package enum Suspicion: Hashable, Sendable, CustomStringConvertible {
    case stoodStill(nanoseconds: UInt64)
    case connectionLost
    case asked

    package var description: String {
        switch self {
        case .stoodStill(let time): "made no progress for \(time / 1_000_000) ms"
        case .connectionLost: "closed its connection"
        case .asked: "is to be fenced by order"
        }
    }
}

/// One thing that happened.
package enum MembershipEvent: Hashable, Sendable {
    /// The shared record was read.
    case viewRead(ViewRecord)
    /// Somebody doubts a member.
    case suspected(Member, Suspicion)
    /// The heartbeat of a member was read.
    case heartbeat(Member, UInt64)
    /// So many nanoseconds passed in which this node ran (W4).
    case passed(UInt64)
    /// The kill signal was accepted.
    case killed(Member)
    /// The kill signal was refused, with an errno.
    case killRefused(Member, Int32)
    /// The last thread of a member is gone.
    case gone(Member)
    /// The guardian of a member has ended, or there is none.
    case guardianEnded(Member)
}

/// One thing to do.
package enum MembershipEffect: Hashable, Sendable {
    /// Observe the process and the heartbeat of a member from now on.
    case watch(Member)
    /// No more.
    case unwatch(Member)
    /// Kill a member's process, if under the lock of the record it is still in.
    case kill(Member)
    /// Find out when a member's guardian has ended; answer with `guardianEnded`.
    case awaitGuardian(Member)
    /// Under the lock: remove these from the record (M2).
    case bury([Member])
    /// There is a new view.
    case apply(ClusterView)
    /// This node is not in the view any more though it did not leave: it must stop.
    case expelled(Epoch)
    /// Say it to the administrator.
    case report(String)
}

/// One node's watch over the others. See the head of this file.
package struct MembershipMachine: Sendable {
    /// States of a peer.
    package enum PeerState: Hashable, Sendable { case watched, suspected, killed, gone, fenced }

    private struct Peer: Sendable {
        var member: Member
        var state = PeerState.watched
        var beat: UInt64?
        /// Nanoseconds since the heartbeat last moved.
        var still: UInt64 = 0
        /// Nanoseconds since the last attempt to bring it into its next state.
        var waited: UInt64 = 0
        /// Nanoseconds since it was first suspected.
        var doubted: UInt64 = 0
    }

    /// This node.
    package let me: Member
    /// Nanoseconds without a heartbeat after which a peer is fenced; 0 for never.
    package let patience: UInt64
    /// Nanoseconds between two attempts at what has not worked.
    package static let retryInterval: UInt64 = 2_000_000_000

    /// The newest record seen.
    package private(set) var record: ViewRecord?
    /// The newest view applied; 0 before the first.
    package private(set) var applied = Epoch(0)
    private var peers: [Peer] = []
    private var isExpelled = false

    /// A machine for the life `me`, which fences peers that stand still for `patience` nanoseconds.
    package init(me: Member, patience: UInt64) {
        self.me = me
        self.patience = patience
    }

    /// The state of a peer; nil if that life is not in the newest view.
    package func state(of member: Member) -> PeerState? {
        peers.first { $0.member == member }?.state
    }

    /// Takes one event in; what is to be done is appended to `effects`.
    package mutating func handle(_ event: MembershipEvent, effects: inout [MembershipEffect]) {
        if isExpelled { return }
        switch event {
        case .viewRead(let record): read(record, &effects)
        case .suspected(let member, let why): suspect(member, why, &effects)
        case .heartbeat(let member, let beat): compare(member, beat)
        case .passed(let time): pass(time, &effects)
        case .killed(let member):
            advance(member, from: [.suspected], to: .killed)
        case .killRefused(let member, let code):
            if state(of: member) == .suspected {
                effects.append(
                    .report("\(member) cannot be killed (errno \(code)): waiting for its end")
                )
            }
        case .gone(let member):
            if advance(member, from: [.watched, .suspected, .killed], to: .gone) {
                effects.append(.awaitGuardian(member))
            }
        case .guardianEnded(let member):
            if advance(member, from: [.gone], to: .fenced) { bury(&effects) }
        }
        checkInvariants()
    }

    private mutating func read(_ newer: ViewRecord, _ effects: inout [MembershipEffect]) {
        if let record, newer.revision <= record.revision { return }  // W1
        precondition(newer.epoch >= applied, "Membership W1: a newer record with an older view")
        record = newer
        for peer in peers where !newer.contains(peer.member) {
            effects.append(.unwatch(peer.member))
        }
        peers.removeAll { !newer.contains($0.member) }
        guard newer.contains(me) else {
            if applied != Epoch(0) {
                isExpelled = true
                effects.append(.expelled(newer.epoch))
            }
            return
        }
        for member in newer.members where member != me && state(of: member) == nil {
            peers.append(Peer(member: member))
            effects.append(.watch(member))
        }
        peers.sort { $0.member < $1.member }
        if newer.epoch > applied {
            applied = newer.epoch
            effects.append(.apply(newer.view))
        }
    }

    private mutating func suspect(
        _ member: Member,
        _ why: Suspicion,
        _ effects: inout [MembershipEffect]
    ) {
        guard advance(member, from: [.watched], to: .suspected) else { return }
        effects.append(.report("\(member) \(why); fencing it"))
        effects.append(.kill(member))
    }

    private mutating func compare(_ member: Member, _ beat: UInt64) {
        guard let place = peers.firstIndex(where: { $0.member == member }),
            peers[place].beat != beat
        else { return }
        peers[place].beat = beat
        peers[place].still = 0
    }

    private mutating func pass(_ time: UInt64, _ effects: inout [MembershipEffect]) {
        for place in peers.indices {
            let member = peers[place].member
            if peers[place].state == .watched {
                peers[place].still += time
                if patience > 0 && peers[place].still >= patience {
                    suspect(member, .stoodStill(nanoseconds: peers[place].still), &effects)
                }
                continue
            }
            peers[place].waited += time
            peers[place].doubted += time
            guard peers[place].waited >= Self.retryInterval else { continue }
            peers[place].waited = 0
            let seconds = peers[place].doubted / 1_000_000_000
            switch peers[place].state {
            case .watched: break
            case .suspected, .killed:  // W3
                effects.append(
                    .report("\(member) is not gone after \(seconds) s: locks wait for its end")
                )
                effects.append(.kill(member))
            case .gone:
                effects.append(
                    .report("\(member) is gone, but its guardian is not after \(seconds) s")
                )
                effects.append(.awaitGuardian(member))
            case .fenced: bury(&effects)
            }
        }
    }

    private func bury(_ effects: inout [MembershipEffect]) {
        effects.append(.bury(peers.filter { $0.state == .fenced }.map(\.member)))  // W2
    }

    /// Moves a peer on; false if that life is unknown or in another state (W5).
    @discardableResult
    private mutating func advance(
        _ member: Member,
        from states: [PeerState],
        to next: PeerState
    ) -> Bool {
        guard let place = peers.firstIndex(where: { $0.member == member }),
            states.contains(peers[place].state)
        else { return false }
        peers[place].state = next
        peers[place].waited = 0
        return true
    }

    /// Stops the program if the machine contradicts itself.
    package func checkInvariants() {
        precondition(
            zip(peers, peers.dropFirst()).allSatisfy { $0.member.node < $1.member.node },
            "Membership W5: two lives of one node are watched"
        )
        precondition(!peers.contains { $0.member == me }, "Membership: a node watches itself")
        guard let record else {
            precondition(peers.isEmpty, "Membership: peers without a view")
            return
        }
        precondition(applied <= record.epoch, "Membership W1: applied a view nobody has read")
        precondition(
            peers.allSatisfy { record.contains($0.member) },
            "Membership: somebody is watched who is not in the view"
        )
    }
}
