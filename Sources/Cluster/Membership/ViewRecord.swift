// Who is in, as all nodes of one volume have agreed: the record that they share, and the only
// changes it may undergo. Wherever the record is kept (a file under a lock for the nodes of one
// host), each change is: take the lock, read, one of the functions below, write, release.
//
//   join      a node begins its life in a slot
//   leave     a node says goodbye after its last write; its journal is clean
//   bury      others remove nodes that can no longer write (fenced); their slots must be replayed
//   list      somebody of whom the record knows nothing is over; its slot must be replayed
//   replayed  the coordinator has replayed what a view listed
//
// Terms. A slot is *dirty* when its journal may hold what is not yet in place. An epoch is a view;
// a revision is a state of the record, and there are more revisions than epochs.
//
// Invariants
// M1. Revisions grow by one with every change, epochs with every change of the members, and when a slot is listed; neither
// ever
//     falls. Whoever has seen revision r never goes back to an older one.
// M2. A member leaves the view only by its own goodbye or after it was fenced. The caller of `bury`
//     vouches for the fence and names the life (incarnation), not only the node.
// M3. A slot has at most one owner: members are ascending and distinct.
// M4. A dirty slot stays listed until it has been replayed under the newest view; a death lists it
//     anew. `replayed` says under which view the replay began. So all who act on a view wait for the same slots, but for those
//     who read it when its own coordinator has replayed them: if what was replayed under an older view could be taken off the
//     list of a newer one, its coordinator might read the list without them and have nothing to tell those who have read it
//     before, and wait.
// M5. Nobody moves into a dirty slot, except who is alone: he replays all before he grants a lock.
// M6. Who comes first knows nothing of the past, so all slots of the volume are listed.

package import Vocabulary

/// A slot whose journal is to be replayed, and since when that is known.
package struct DirtySlot: Hashable, Sendable {
    package var slot: SlotIndex
    /// The first view that listed it.
    package var since: Epoch

    package init(slot: SlotIndex, since: Epoch) {
        self.slot = slot
        self.since = since
    }
}

/// Why a node cannot join.
package enum JoinRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// The volume has no such slot.
    case noSuchSlot(SlotIndex, slotCount: UInt32)
    /// Somebody lives there.
    case slotTaken(SlotIndex)
    /// Every slot has somebody.
    case noFreeSlot(slotCount: UInt32)
    /// What is free has a journal that is still to be replayed; it passes.
    case recovering
    /// The members of the running cluster know another number of slots.
    case slotCountDiffers(known: UInt32, offered: UInt32)

    package var description: String {
        switch self {
        case .noSuchSlot(let slot, let count):
            "the volume has \(count) slots, numbered from 0; there is no \(slot)"
        case .slotTaken(let slot): "\(slot) is in use by another mount"
        case .noFreeSlot(let count):
            "all \(count) slots of the volume are in use; add a journal or unmount somewhere"
        case .recovering: "the journals of the free slots are still being replayed"
        case .slotCountDiffers(let known, let offered):
            "the running nodes know \(known) slots, the volume now has \(offered)"
        }
    }
}

/// The shared record of one volume. See the head of this file.
package struct ViewRecord: Hashable, Sendable {
    /// The volume's UUID, as text.
    package let volume: String
    /// How many slots the volume has.
    package private(set) var slotCount: UInt32
    /// Number of this state of the record; 0 before the first change.
    package private(set) var revision: UInt64
    /// Number of the view; 0 before the first.
    package private(set) var epoch: Epoch
    /// Ascending by node, distinct.
    package private(set) var members: [Member]
    /// Ascending by slot, distinct.
    package private(set) var dirty: [DirtySlot]

    /// The record of a volume that nobody has mounted yet.
    package init(volume: String) {
        self.volume = volume
        slotCount = 0
        revision = 0
        epoch = Epoch(0)
        members = []
        dirty = []
    }

    /// A record from its parts (decoding). Nil when they contradict each other.
    package init?(
        volume: String,
        slotCount: UInt32,
        revision: UInt64,
        epoch: Epoch,
        members: [Member],
        dirty: [DirtySlot]
    ) {
        self.volume = volume
        self.slotCount = slotCount
        self.revision = revision
        self.epoch = epoch
        self.members = members
        self.dirty = dirty
        guard violation == nil else { return nil }
    }

    /// What members act on.
    package var view: ClusterView {
        ClusterView(epoch: epoch, members: members, slotsToReplay: dirty.map(\.slot))
    }

    /// Whether this life of this node is in.
    package func contains(_ member: Member) -> Bool { members.contains(member) }

    /// The slot a new node would get: `wanted`, or the lowest free one. `isUsable` may rule slots
    /// out that the record does not know to be taken (a process that is just leaving).
    package func slotToJoin(
        wanted: SlotIndex?,
        slotCount offered: UInt32,
        isUsable: (SlotIndex) -> Bool
    ) throws(JoinRefusal) -> SlotIndex {
        let count = members.isEmpty ? offered : slotCount
        guard count == offered else {
            throw .slotCountDiffers(known: slotCount, offered: offered)
        }
        if let wanted {
            guard wanted.rawValue < count else { throw .noSuchSlot(wanted, slotCount: count) }
            guard isFree(wanted), isUsable(wanted) else { throw .slotTaken(wanted) }
            guard mayMoveInto(wanted) else { throw .recovering }
            return wanted
        }
        var someoneRecovers = false
        for slot in (0..<count).map(SlotIndex.init(_:)) where isFree(slot) && isUsable(slot) {
            if mayMoveInto(slot) { return slot }
            someoneRecovers = true
        }
        throw someoneRecovers ? .recovering : .noFreeSlot(slotCount: count)
    }

    private func isFree(_ slot: SlotIndex) -> Bool {
        !members.contains { $0.node == NodeID(slot: slot) }
    }

    private func mayMoveInto(_ slot: SlotIndex) -> Bool {
        members.isEmpty || !dirty.contains { $0.slot == slot }
    }

    /// A node begins its life. The slot comes from `slotToJoin`, under the same lock.
    package mutating func join(_ newcomer: Member, slotCount offered: UInt32) {
        precondition(newcomer.incarnation != 0, "Membership: a life is never number 0")
        precondition(newcomer.node.slot.rawValue < offered, "Membership: no such slot")
        precondition(isFree(newcomer.node.slot), "Membership M3: \(newcomer) has an owner")
        precondition(mayMoveInto(newcomer.node.slot), "Membership M5: \(newcomer) is dirty")
        advance()
        if members.isEmpty {  // M6
            slotCount = offered
            dirty = (0..<offered).map { DirtySlot(slot: SlotIndex($0), since: epoch) }
        }
        members.append(newcomer)
        members.sort()
        check()
    }

    /// A node says goodbye. False, and nothing changes, if that life is not in.
    package mutating func leave(_ member: Member) -> Bool {
        guard let place = members.firstIndex(of: member) else { return false }
        advance()
        members.remove(at: place)
        check()
        return true
    }

    /// Removes members that were fenced (M2) and lists their slots (M4). Those that are not in are
    /// passed over: another node was faster. False if nothing changes.
    package mutating func bury(_ fenced: [Member]) -> Bool {
        let dead = members.filter { fenced.contains($0) }
        guard !dead.isEmpty else { return false }
        advance()
        members.removeAll { fenced.contains($0) }
        for member in dead {
            dirty.removeAll { $0.slot == member.node.slot }
            dirty.append(DirtySlot(slot: member.node.slot, since: epoch))
        }
        dirty.sort { $0.slot < $1.slot }
        check()
        return true
    }

    /// Somebody has lived in a slot of whom this record knows nothing, and is over: a new view lists the slot (M4). False, and
    /// nothing changes, if there is no such slot, if it has an owner, or if nobody is in: then who comes lists all (M6).
    package mutating func list(_ slot: SlotIndex) -> Bool {
        guard !members.isEmpty, slot.rawValue < slotCount, isFree(slot) else { return false }
        advance()
        dirty.removeAll { $0.slot == slot }
        dirty.append(DirtySlot(slot: slot, since: epoch))
        dirty.sort { $0.slot < $1.slot }
        check()
        return true
    }

    /// All slots that the view `began` listed are replayed (M4). False, and nothing changes, if none of them is still
    /// listed, or if there is a newer view: its coordinator does it again.
    package mutating func replayed(under began: Epoch) -> Bool {
        precondition(began <= epoch, "Membership M4: replayed under a view of the future")
        guard began == epoch, !dirty.isEmpty else { return false }
        dirty = []
        revision += 1
        check()
        return true
    }

    private mutating func advance() {
        revision += 1
        epoch = Epoch(epoch.rawValue + 1)
    }

    /// What is wrong with the record, if anything.
    private var violation: String? {
        if !zip(members, members.dropFirst()).allSatisfy({ $0.node < $1.node }) {
            return "M3: members are not ascending and distinct"
        }
        if !zip(dirty, dirty.dropFirst()).allSatisfy({ $0.slot < $1.slot }) {
            return "M4: dirty slots are not ascending and distinct"
        }
        if members.contains(where: { $0.node == .none || $0.incarnation == 0 }) {
            return "M3: a member without a slot or a life"
        }
        if members.contains(where: { $0.node.slot.rawValue >= slotCount }) {
            return "M3: a member in a slot that does not exist"
        }
        if dirty.contains(where: { $0.since > epoch || $0.slot.rawValue >= slotCount }) {
            return "M4: a dirty slot of the future, or beyond the last"
        }
        if epoch.rawValue > revision { return "M1: more views than changes" }
        return nil
    }

    private func check() {
        if let violation { preconditionFailure("Membership \(violation)") }
    }
}
