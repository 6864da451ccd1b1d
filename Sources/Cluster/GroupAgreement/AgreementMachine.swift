// How the processes of a group come to the same view without a shared kernel: each applies the same changes in the same
// order, and only where a quorum hears them.
//
// What corosync gives: messages and configurations come to all members of a configuration in one order (agreed
// delivery), each ring says whether it has a quorum, and of rings that exist at the same time at most one has. What it does not
// give: when a ring breaks, a host may still hear the last messages of the old ring alone, its own among them. So what
// a host has applied last may be known to nobody else, and the rules below are made so that this never matters.
//
// A life of a group, seen by one process
//
//   unsettled   somebody has come. Everybody says what it knows; nothing is changed until all have spoken (A2)
//   settled     everybody has the same state; without a quorum it stands still
//   active      a quorum hears: members come, go, are doomed and buried
//
//     unsettled --all have spoken--> settled --"this ring is quorate"--> active --a new ring--> settled
//     settled, active --somebody has come--> unsettled
//
// A death: its process is in the configuration no more ─▶ `doom` ─▶ the lowest process that is in order has it fenced ─▶ `fenced`
// ─▶ the view without it, and its slot listed for replay. Nothing that a doomed member had is touched before `fenced`,
// and nothing is ever said to be fenced because time has passed.
//
// Invariants
// A1. Every member has a place, and no two members one process.
// A2. Between a configuration into which somebody has come and the last standing of its members the state does not
//     change: so what a standing says is what its speaker still has when it is heard, however late that is.
// A3. When all have spoken, the state that a quorum changed in the latest ring is everybody's; of several, the one that was
//     changed most often; of those, the lowest process's. A life that has seen a view which that state does not know ends.
// A4. The state changes only in a ring of which all its members have heard that it is quorate, after they were settled in
//     it: the first such message begins an *era*, by the ring's sequence. So what a minority applied of its own last words is
//     older than what the majority did afterwards.
// A5. A member leaves the view by its own goodbye or by a `fenced` that names it after a `doom` that named it, and a
//     slot is moved into only when nobody who ever lived there may still be alive. Two branches of a group may give away the same
//     slot, but only one of them lets anybody begin: when the other's owner meets what that one has left, it ends.
// A6. A process that claims a life which the state does not have is doomed, too: it may be writing to a journal.
// A7. Whoever calls a ring quorate has looked at the device in that ring, after it had its quorum: not every host has a process in the
//     group, so even a majority may know of nobody, or only of those who were in long ago, while a minority has the volume mounted. Its
//     hosts begin nothing new from then on. No view is given out while such a life is doomed and not fenced.
// A8. Who may do something for all (call a ring quorate, doom the absent, fence) is the lowest process present
//     whose life, if it has one, is in order. When it goes there is a configuration without it, and the next one does it.
//
// A9. After a quorum has come back, absent members are given some seconds to come back as well: a network heals piece by piece.
//
// Sources: virtual synchrony (Birman and Joseph, 1987) for state transfer in agreed order; extended virtual synchrony (Moser et al.,
// 1994) for what a member of a broken ring may still hear; dlm_controld for the fencing of members that come back,
// fenced for the grace (`post_join_delay`).

import Membership
package import Vocabulary

/// One process's part in the agreement. See the head of this file.
package struct AgreementMachine: Sendable {
    private struct Standing: Sendable {
        var process: GroupProcess
        var state: GroupState?
        var life: Member?
    }

    private struct Fencing: Hashable, Sendable {
        var member: Member
        var host: UInt32
        var isHostHere: Bool
    }

    /// This process.
    package let me: GroupProcess
    /// The volume's UUID, as text.
    package let volume: String
    /// What everybody agrees on; nil before this process has settled for the first time.
    package private(set) var state: GroupState?
    /// The life of this node, from when it was let in until it has left or was expelled.
    package private(set) var life: Member?
    /// Everybody in the group has spoken.
    package private(set) var isSettled = false
    /// Whether the quorum service of this host has said of its last ring that it is quorate.
    package private(set) var isPermitted = false

    private var present: [GroupProcess] = []
    private var standings: [Standing] = []
    /// The lives of those present, as far as they have one.
    private var lives: [(process: GroupProcess, life: Member)] = []
    private var ring: RingID?
    private var hosts: [UInt32] = []
    /// The ring that the quorum service has spoken of last, if it is quorate.
    private var quorateRing: RingID?
    /// The same if it is not.
    private var inquorateRing: RingID?
    /// There was no quorum here since the last era.
    private var wasInquorate = true
    /// Nobody is doomed for being absent until the grace of this ring is over (A9).
    private var graceRing: RingID?
    /// The ring in which the state may change (A4).
    private var activeRing: RingID?
    private var wish: JoinWish?
    /// The last, if it was asked for.
    private var inspection: Inspection?
    private var inspectedRing: RingID?
    private var wantsToLeave = false
    private var replayedEpoch: Epoch?
    private var suspicions: [(member: Member, why: Suspicion)] = []
    private var proofs: [(member: Member, proof: FenceProof)] = []
    private var isExpelled = false
    private var appliedEpoch = Epoch(0)
    private var fencing: [Fencing] = []
    /// What was said and has not been heard yet.
    private var said: [AgreementMessage] = []

    /// The part of the process `me` in the group of a volume.
    package init(me: GroupProcess, volume: String) {
        self.me = me
        self.volume = volume
    }

    /// Whether the state may change.
    package var isActive: Bool { isSettled && ring != nil && activeRing == ring }

    /// Whether this node may write to the device for the first time in its life, if all members of its view have that view and
    /// the ring has been unbroken for longer than it takes to notice that it is broken.
    package var mayBegin: Bool {
        guard let state, let life else { return false }
        return isActive && isPermitted && !isExpelled && !state.awaitsStrangers
            && state.record.contains(life) && !state.isDoomed(life)
    }

    /// Takes one event in; what is to be done is appended to `effects`.
    package mutating func handle(_ event: AgreementEvent, _ effects: inout [AgreementEffect]) {
        switch event {
        case .configured(let members, let joined): configure(members, joined, &effects)
        case .ring(let ring, let hosts): enter(ring, hosts)
        case .delivered(let message, let speaker): hear(message, speaker, &effects)
        case .quorum(let ring, let isQuorate):
            (quorateRing, inquorateRing) = isQuorate ? (ring, nil) : (nil, ring)
            if !isQuorate { wasInquorate = true }
            if isQuorate != isPermitted {
                isPermitted = isQuorate
                effects.append(.permit(isQuorate))
            }
        case .wantsToJoin(let wish): self.wish = wish
        case .inspected(let inspection):
            if inspection.ring == ring { self.inspection = inspection }  // else of one that is over
        case .wantsToLeave: wantsToLeave = true
        case .replayed(let epoch): replayedEpoch = max(epoch, replayedEpoch ?? epoch)
        case .graceOver(let ring): if ring == graceRing { graceRing = nil }
        case .suspected(let member, let why): suspicions.append((member, why))
        case .fenced(let member, let proof): proofs.append((member, proof))
        case .withdrew:
            if let life { proofs.append((life, .ownWord)) }
        }
        propose(&effects)
        updateFencing(&effects)
        checkInvariants()
    }

    private func checkInvariants() {
        precondition(!isSettled || state != nil, "Agreement A3: settled without a state")
        precondition(!isSettled || standings.isEmpty, "Agreement A2: settled, and still listening")
        precondition(
            lives.allSatisfy { life in present.contains(life.process) },
            "Agreement A8: a life of a process that has gone"
        )
    }

    // MARK: Configurations

    private mutating func configure(
        _ members: [GroupProcess],
        _ joined: [GroupProcess],
        _ effects: inout [AgreementEffect]
    ) {
        precondition(members == members.sorted(), "Agreement: a configuration out of order")
        present = members
        said = []
        lives.removeAll { !members.contains($0.process) }
        if joined.isEmpty {
            standings.removeAll { !members.contains($0.process) }
            if !isSettled { settleIfComplete(&effects) }
            return
        }
        isSettled = false
        // Who has come has not heard it.
        activeRing = nil
        standings = []
        effects.append(.say(.standing(state, life: life)))
    }

    private mutating func enter(_ ring: RingID, _ hosts: [UInt32]) {
        self.ring = ring
        self.hosts = hosts
        said = []
    }

    private mutating func hear(
        _ message: AgreementMessage,
        _ speaker: GroupProcess,
        _ effects: inout [AgreementEffect]
    ) {
        if speaker == me, let place = said.firstIndex(of: message) { said.remove(at: place) }
        guard present.contains(speaker) else { return }
        switch message {
        case .standing(let state, let life):
            if isSettled { return }
            standings.removeAll { $0.process == speaker }
            standings.append(Standing(process: speaker, state: state, life: life))
            settleIfComplete(&effects)
        case .quorate(let inspection):
            guard isSettled, inspection.ring == ring, activeRing != ring else { return }
            activeRing = ring
            state?.begin(inspection)
            if wasInquorate {
                wasInquorate = false
                graceRing = inspection.ring
                effects.append(.grace(inspection.ring))
            }
        case .inquorate(let ring):
            if ring == self.ring { activeRing = nil }
        default:
            guard isActive else { return }
            change(message, speaker, &effects)
        }
    }

    // MARK: Settling (A2, A3, A6)

    private mutating func settleIfComplete(_ effects: inout [AgreementEffect]) {
        guard !present.isEmpty, standings.count == present.count else { return }
        standings.sort { $0.process < $1.process }
        var best: GroupState?
        for standing in standings {
            guard let other = standing.state else { continue }
            if best.map({ $0.isOlder(than: other) }) != false { best = other }
        }
        let before = state
        var state = best ?? GroupState(volume: volume)
        lives = []
        for standing in standings {
            guard let life = standing.life else { continue }
            lives.append((standing.process, life))
            if state.place(of: life)?.process != standing.process {
                state.doom(stranger: life, host: standing.process.host)
            }
        }
        self.state = state
        isSettled = true
        standings = []
        if let life {
            if !state.record.contains(life) || state.isDoomed(life) {
                expel("the others went on without this node", &effects)
            } else if let before, hasSeenMore(before, than: state) {
                expel("this node has seen members that nobody else knows of", &effects)
            }
        } else if let wish, let own = state.life(of: me), own.incarnation == wish.incarnation {
            enter(own, &effects)
        }
        publish(&effects)
    }

    private func hasSeenMore(_ before: GroupState, than after: GroupState) -> Bool {
        let (old, new) = (before.record, after.record)
        return old.epoch > new.epoch || (old.epoch == new.epoch && old.members != new.members)
    }

    // MARK: Changes

    private mutating func change(
        _ message: AgreementMessage,
        _ speaker: GroupProcess,
        _ effects: inout [AgreementEffect]
    ) {
        switch message {
        case .standing, .quorate, .inquorate: break
        case .join(let member, let wish): admit(member, wish, speaker, &effects)
        case .leave(let member):
            guard state?.place(of: member)?.process == speaker else { break }
            guard state?.leave(member) == true else { break }
            lives.removeAll { $0.process == speaker }
            if member == life {
                life = nil
                effects.append(.left)
            }
        case .replayed(let epoch): _ = state?.replayed(under: epoch)
        case .doom(let member, let why):
            guard state?.doom(member, why) == true else { break }
            effects.append(.report("\(member) \(why); it is to be fenced"))
            if member == life { expel("this node \(why)", &effects) }
        case .fenced(let member, let proof):
            guard state?.bury(member) == true else { break }
            effects.append(.report("\(member) is over: \(proof)"))
            if member == life { expel("this node was taken for dead: \(proof)", &effects) }
            if let life, state?.isDoomed(life) == true {
                expel("somebody of whom nobody knew has lived in the slot of this node", &effects)
            }
        }
        publish(&effects)
    }

    private mutating func admit(
        _ member: Member,
        _ wish: JoinWish,
        _ speaker: GroupProcess,
        _ effects: inout [AgreementEffect]
    ) {
        guard let state, wish.place.process == speaker, member.incarnation == wish.incarnation,
            member.incarnation != 0, !lives.contains(where: { $0.process == speaker }),
            slot(for: wish, wanted: member.node.slot, state) == .success(member.node.slot)
        else { return }
        self.state?.join(member, wish.place, slotCount: wish.slotCount)
        lives.append((speaker, member))
        if speaker == me, self.wish?.incarnation == member.incarnation { enter(member, &effects) }
    }

    private func slot(
        for wish: JoinWish,
        wanted: SlotIndex?,
        _ state: GroupState
    ) -> Result<SlotIndex, JoinRefusal> {
        do throws(JoinRefusal) {
            return .success(
                try state.record.slotToJoin(wanted: wanted, slotCount: wish.slotCount) { slot in
                    !state.doomed.contains { $0.member.node == NodeID(slot: slot) }
                }
            )
        } catch {
            return .failure(error)
        }
    }

    private mutating func enter(_ member: Member, _ effects: inout [AgreementEffect]) {
        life = member
        wish = nil
        effects.append(.joined(member))
    }

    private mutating func expel(_ why: String, _ effects: inout [AgreementEffect]) {
        if isExpelled { return }
        isExpelled = true
        effects.append(.expelled(why))
    }

    /// A7
    private mutating func publish(_ effects: inout [AgreementEffect]) {
        guard let state, let life, !isExpelled, state.record.contains(life),
            !state.awaitsStrangers, state.record.epoch > appliedEpoch
        else { return }
        appliedEpoch = state.record.epoch
        effects.append(.apply(state.record.view, places: state.places.map(\.place)))
    }

    // MARK: What is to be said

    /// A8
    private var isFirst: Bool {
        guard let state else { return false }
        let first = present.first { process in
            guard let life = lives.first(where: { $0.process == process })?.life else {
                return true
            }
            return state.record.contains(life) && !state.isDoomed(life)
        }
        return first == me
    }

    private mutating func say(_ message: AgreementMessage, _ effects: inout [AgreementEffect]) {
        if said.contains(message) { return }
        said.append(message)
        effects.append(.say(message))
    }

    private mutating func propose(_ effects: inout [AgreementEffect]) {
        guard isSettled, let ring, let state else { return }
        if quorateRing == ring {
            if !isActive, isFirst { proposeEra(ring, &effects) }
        } else if isActive, inquorateRing == ring {
            say(.inquorate(ring), &effects)
        }
        guard isActive else { return }
        proposeOwn(state, &effects)
        if isFirst, graceRing == nil {
            for placed in state.places where !state.isDoomed(placed.member) {
                let isHere = lives.contains {
                    $0.process == placed.place.process && $0.life == placed.member
                }
                if !isHere { say(.doom(placed.member, .connectionLost), &effects) }
            }
        }
        suspicions.removeAll { suspicion in
            state.isDoomed(suspicion.member) || !state.record.contains(suspicion.member)
        }
        for suspicion in suspicions where life != nil && !isExpelled {
            say(.doom(suspicion.member, suspicion.why), &effects)
        }
        // Of a life that is not doomed yet it is kept until it is, or is buried.
        proofs.removeAll { proof in
            !state.isDoomed(proof.member) && !state.record.contains(proof.member)
        }
        for proof in proofs where state.isDoomed(proof.member) {
            say(.fenced(proof.member, proof.proof), &effects)
        }
    }

    private mutating func proposeEra(_ ring: RingID, _ effects: inout [AgreementEffect]) {
        if let inspection, inspection.ring == ring {
            say(.quorate(inspection), &effects)
        } else if inspectedRing != ring {
            inspectedRing = ring
            effects.append(.inspect(ring))
        }
    }

    private mutating func proposeOwn(_ state: GroupState, _ effects: inout [AgreementEffect]) {
        if let wish, life == nil { proposeToJoin(wish, state, &effects) }
        guard let life else { return }
        if isExpelled {
            // It has seen what nobody else knows of (A3): the others have to end it in order.
            if state.record.contains(life), !state.isDoomed(life) {
                say(.doom(life, .asked), &effects)
            }
            return
        }
        if let epoch = replayedEpoch {
            // Of an older view it counts for nothing: the coordinator of the newer one does it again (Membership M4).
            if epoch == state.record.epoch, !state.record.dirty.isEmpty {
                say(.replayed(epoch), &effects)
            } else {
                replayedEpoch = nil
            }
        }
        if wantsToLeave { say(.leave(life), &effects) }
    }

    private mutating func proposeToJoin(
        _ wish: JoinWish,
        _ state: GroupState,
        _ effects: inout [AgreementEffect]
    ) {
        if said.contains(where: { if case .join = $0 { true } else { false } }) { return }
        switch slot(for: wish, wanted: wish.slot, state) {
        case .success(let slot):
            let member = Member(node: NodeID(slot: slot), incarnation: wish.incarnation)
            say(.join(member, wish), &effects)
        case .failure(.recovering): break
        case .failure(let refusal):
            self.wish = nil
            effects.append(.refused(refusal))
        }
    }

    // MARK: Fencing

    private mutating func updateFencing(_ effects: inout [AgreementEffect]) {
        guard let state else { return }
        var wanted: [Fencing] = []
        if isActive, isFirst {
            wanted = state.doomed.map {
                Fencing(member: $0.member, host: $0.host, isHostHere: hosts.contains($0.host))
            }
        }
        for old in fencing where !wanted.contains(where: { $0.member == old.member }) {
            effects.append(.stopFencing(old.member))
        }
        for new in wanted where !fencing.contains(new) {
            effects.append(.fence(new.member, host: new.host, isHostHere: new.isHostHere))
        }
        fencing = wanted
    }
}
