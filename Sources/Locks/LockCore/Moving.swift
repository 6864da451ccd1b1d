// Moving the mastership of a tree to the node that uses it most.
//
//   old master M            participants H (all nodes with locks in the tree) and new master N
//   moving ───────────────▶ say nothing more about the tree; what the client asks waits
//          ◀─────────────── movingSeen: all this node had said is with M
//   all have seen it: nothing about the tree is on its way. From here M decides nothing on it.
//   transfer (in parts) ──▶ N keeps it, unopened
//          ◀─────────────── taken
//   M is a holder like the others from here
//   moved ────────────────▶ H and N: N decides from here; what has waited goes to it
//   entry ────────────────▶ the directory node, which tells N
//
// M1. Between `moving` and `moved` a participant sends nothing about the tree, also if it learns only
//     meanwhile that M is the master. Messages between two
//     nodes keep their order, so when M has every `movingSeen`, it has decided everything it was
//     asked, and the answers stand before its `moved`.
// M2. What reaches a participant about the tree from N before M's `moved` does is kept until then;
//     likewise N keeps what holders say before it has heard `moved` itself, and what the directory
//     node says that has heard of the end of the move before. Also the next move waits for the end
//     of this one.
// M3. Once it has sent the transfer, M decides nothing on the tree: its own client's requests queue
//     ungranted, demotions wait.
// M4. Requests of nodes that are no participants are answered "not me" when the move is over, and
//     ask the directory again.
// M5. M tells the directory node who masters the tree now, so that its own later questions come
//     after that. N does not forget the tree, and so does not remove the entry, before the directory
//     node has confirmed that it names N.
// M6. A change of view ends every move. M without `taken` masters on; N with an unopened transfer
//     says so to the new directory nodes, whose entry then names N *if nobody else claims the tree*:
//     that is so exactly if M had `taken` or is gone. Only then N opens it. The others have
//     forgotten who masters the tree and ask. Until the report of a lock in
//     PW or EX has come its value is in doubt, as the old master may have heard of its end. What no
//     report confirms goes: its holder has withdrawn it, if granted then without having heard of that.
//     As soon as N hears that another masters the tree its transfer is worth nothing.
// M7. N may have asked the directory before it heard that it masters the tree. It does not forget
//     the tree before that question is answered: the answer could pass for that to a later one.
// M8. N may have asked something of a still older master, whose answer is on its way when N opens the
//     transfer. N decides it itself; the answer comes too late and says nothing. Or the question is on its
//     way, and that master takes the tree on again before it arrives: so N takes it back, and gives up at
//     once what was granted before that was heard.
//
// Source: the idea is OpenVMS's (lock tree remastering); the protocol is ours.

package import Vocabulary

/// One thing of a tree on its way to a new master.
package enum MovedThing: Hashable, Sendable {
    /// A lock in its queue; in the order of the queues.
    case lock(ResourceName, MovedLock)
    /// A value block.
    case value(ResourceName, SequencedValue)

    /// The resource of the tree it belongs to.
    var name: ResourceName {
        switch self {
        case .lock(let name, _), .value(let name, _): name
        }
    }
}

/// A lock as its master knows it.
package struct MovedLock: Hashable, Sendable {
    package var holder: LockReference
    package var owner: LockOwner
    package var state: RebuiltLock.State
    package var granted: LockMode
    package var requested: LockMode
    package var flags: LockFlags
    /// The wants its holder was told of, bit per mode.
    package var told: UInt8
    package var isDemoted: Bool
    /// How often it has changed, so that a search for a deadlock can tell across the move.
    package var changes: UInt16
    /// Of a lock of a range.
    package var bytes: LockedBytes?

    package init(
        holder: LockReference,
        owner: LockOwner,
        state: RebuiltLock.State,
        granted: LockMode,
        requested: LockMode,
        flags: LockFlags,
        told: UInt8,
        isDemoted: Bool,
        changes: UInt16,
        bytes: LockedBytes? = nil
    ) {
        self.holder = holder
        self.owner = owner
        self.state = state
        self.granted = granted
        self.requested = requested
        self.flags = flags
        self.told = told
        self.isDemoted = isDemoted
        self.changes = changes
        self.bytes = bytes
    }
}

/// A move that this node has a part in.
struct Move: Sendable {
    enum Part: Sendable {
        case oldMaster, participant
    }

    var root: ResourceName
    var target: NodeID
    var part: Part
    /// H and N: M.
    var oldMaster = NodeID.none
    /// M: who has not seen it yet.
    var unseen: [NodeID] = []
    /// M: all nodes that were told.
    var participants: [NodeID] = []
    /// M: demotions of this node's client that wait (M3).
    var postponed: [DeferredDemotion] = []
    /// M: requests to be answered "not me" (M4).
    var refused: [(name: ResourceName, lock: LockID, peer: NodeID)] = []
    /// H and N: messages that wait for `moved` (M2).
    var kept: [(message: LockMessage, peer: NodeID)] = []
    /// N: what has arrived of the transfer, and whether that is all.
    var things: [MovedThing] = []
    var moves: UInt8 = 0
    var isComplete = false
    /// N: holders that departed while the transfer lay unopened (M6).
    var lost: [NodeID] = []
}

extension Lockspace {
    /// M3. On the old master, after the transfer.
    @inline(__always)
    func isFrozen(_ resource: UInt32) -> Bool {
        if movingTrees == 0 { return false }
        return resources[root(of: resource)].marks.contains(.transferred)
    }

    private func moveIndex(_ root: ResourceName) -> Int? {
        moves.firstIndex { $0.root == root }
    }

    /// M3: keeps a demotion until the move is over. False if the tree does not move.
    mutating func postponeForMove(_ resource: UInt32, _ demotion: DeferredDemotion) -> Bool {
        guard isFrozen(resource), let place = moveIndex(name(of: resource).root) else {
            return false
        }
        moves[place].postponed.append(demotion)
        return true
    }

    private mutating func markMoving(_ root: UInt32) {
        resources[root].marks.insert(.moving)
        movingTrees += 1
    }

    /// M1, for a participant that did not know, when it heard of the move, who the old master is.
    mutating func joinMove(_ root: UInt32) {
        if moves.isEmpty || resources[root].mastery != .remote { return }
        if resources[root].marks.contains(.moving) { return }
        let (name, master) = (name(of: root), resources[root].master)
        if moves.contains(where: {
            $0.root == name && $0.part == .participant && $0.oldMaster == master
        }) {
            markMoving(root)
        }
    }

    private mutating func unmarkMoving(_ root: UInt32) {
        guard resources[root].marks.contains(.moving) else { return }
        resources[root].marks.subtract([.moving, .transferred])
        movingTrees -= 1
    }

    /// Each node with a lock in the tree, once, but this one.
    private func holders(ofTree root: UInt32) -> [NodeID] {
        var found: [NodeID] = []
        for resource in recordsOfTree(root) {
            for queue in [Queue.granted, .converting, .waiting] {
                let first = head(resource, queue)
                var lock = first
                while lock != 0 {
                    let holder = locks[lock].holder
                    if holder != node && !found.contains(holder) { found.append(holder) }
                    lock = following(lock, head: first)
                }
            }
        }
        return found
    }

    // MARK: The old master

    /// Begins to move a tree that this node masters.
    mutating func beginMove(_ root: UInt32, to target: NodeID, _ effects: inout [LockEffect]) {
        var move = Move(root: name(of: root), target: target, part: .oldMaster)
        move.participants = holders(ofTree: root)
        if !move.participants.contains(target) { move.participants.append(target) }
        move.unseen = move.participants
        moves.append(move)
        markMoving(root)
        for peer in move.participants { send(.moving(move.root, to: target), to: peer, &effects) }
    }

    /// M4: whether a new request has to ask again later.
    mutating func isTurnedAway(_ name: ResourceName, _ lock: LockID, from peer: NodeID) -> Bool {
        if movingTrees == 0 { return false }
        guard let place = moveIndex(name.root), moves[place].part == .oldMaster,
            !moves[place].unseen.contains(peer)
        else { return false }
        moves[place].refused.append((name, lock, peer))
        return true
    }

    mutating func takeMovingSeen(
        _ name: ResourceName,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard let place = moveIndex(name), moves[place].part == .oldMaster else { return }
        moves[place].unseen.removeAll { $0 == peer }
        if !moves[place].unseen.isEmpty { return }
        let root = find(name)
        if isUnused(root) {
            endMove(place, master: node, &effects)
        } else {
            transfer(root, moves[place].target, &effects)
        }
    }

    private mutating func transfer(
        _ root: UInt32,
        _ target: NodeID,
        _ effects: inout [LockEffect]
    ) {
        resources[root].marks.insert(.transferred)
        var things: [MovedThing] = []
        for resource in recordsOfTree(root) {
            let name = name(of: resource)
            for queue in [Queue.granted, .converting, .waiting] {
                let first = head(resource, queue)
                var lock = first
                while lock != 0 {
                    if locks[lock].holder == node { locks[lock].marks.insert(.sent) }
                    things.append(.lock(name, movedLock(lock)))
                    lock = following(lock, head: first)
                }
            }
            if let value = sequencedValue(resource) { things.append(.value(name, value)) }
        }
        let moves = min(movesSoFar(root), 254) + 1
        let name = name(of: root)
        var rest = things[...]
        repeat {
            let part = Array(rest.prefix(LockMessage.thingsPerMessage))
            rest = rest.dropFirst(part.count)
            let message = LockMessage.transfer(name, part, moves: moves, isLast: rest.isEmpty)
            send(message, to: target, &effects)
        } while !rest.isEmpty
    }

    private func movedLock(_ lock: UInt32) -> MovedLock {
        let record = locks[lock]
        let id = record.holder == node ? lockID(lock) : LockID(record.identity)
        let state: RebuiltLock.State =
            switch record.state {
            case .waiting: .waiting
            case .converting: .converting
            default: .granted
            }
        return MovedLock(
            holder: LockReference(node: record.holder, lock: id),
            owner: presentOwner(lock),
            state: state,
            granted: record.granted,
            requested: record.requested,
            flags: record.flags,
            told: record.told,
            isDemoted: record.marks.contains(.demoted),
            changes: record.changes,
            bytes: bytes(of: lock)
        )
    }

    mutating func takeTaken(
        _ name: ResourceName,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard let place = moveIndex(name), moves[place].part == .oldMaster,
            moves[place].target == peer, moves[place].unseen.isEmpty
        else {
            counters.protocolErrors += 1
            return
        }
        counters.movesOut += 1
        endMove(place, master: peer, &effects)
    }

    /// Tells everybody the outcome; becomes a holder like the others if the tree has moved.
    private mutating func endMove(
        _ place: Int,
        master: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let move = moves.remove(at: place)
        let root = find(move.root)
        // M4, before `moved`: who hears it as the new master, or a holder, asks from there anew.
        for entry in move.refused {
            send(.notMaster(entry.name, lock: entry.lock), to: entry.peer, &effects)
        }
        for peer in move.participants { send(.moved(move.root, to: master), to: peer, &effects) }
        unmarkMoving(root)
        if master != node {
            let directory = directoryNode(move.root)
            if directory == node {
                enterMaster(move.root, master, &effects)
            } else {
                send(.entry(move.root, master: master), to: directory, &effects)
            }
            becomeHolder(root, of: master)
        }
        for demotion in move.postponed { runPostponed(demotion, &effects) }
        let tree = recordsOfTree(root)
        if master != node {
            for resource in tree { cancelReported(resource, &effects) }
            sendAllPending(root, &effects)
        }
        for resource in tree.reversed() { releaseIfUnused(resource, &effects) }
    }

    /// Drops the copies of others' locks; own locks go back into one list. What was queued since
    /// the transfer is not `sent` and will be.
    private mutating func becomeHolder(_ root: UInt32, of master: NodeID) {
        dropActivity(root)
        for resource in recordsOfTree(root) {
            let own = takeOut(resource)
            for lock in own {
                // Adopted since: the new master knows another owner (O3).
                if locks[lock].state == .granted && locks[lock].marks.contains(.doubtful) {
                    locks[lock].marks.remove(.sent)
                    locks[lock].marks.insert(.established)
                    append(lock, to: .granted)
                    continue
                }
                let isSent = locks[lock].marks.contains(.sent)
                if locks[lock].state != .waiting || isSent {
                    locks[lock].marks.insert(.established)
                }
                if locks[lock].state == .granted { locks[lock].marks.insert(.sent) }
                append(lock, to: .granted)
            }
            if !hasEstablished(resource) { forgetValue(resource) }
        }
        setMastery(root, .remote, master)
        // It may not have heard yet that the move is over (M6).
        resources[root].marks.insert(.unproven)
    }

    /// Empties the queues of a record: copies are freed, this node's own locks returned in order.
    private mutating func takeOut(_ resource: UInt32) -> [UInt32] {
        var own: [UInt32] = []
        for queue in [Queue.granted, .converting, .waiting] {
            while case let lock = head(resource, queue), lock != 0 {
                unlink(lock, from: queue)
                if locks[lock].holder == node { own.append(lock) } else { freeLock(lock) }
            }
        }
        return own
    }
}
