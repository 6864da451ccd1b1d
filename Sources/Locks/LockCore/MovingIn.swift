// The other side of a move: participants, the new master, and what a change of view makes of
// moves. The essay stands in Moving.swift.

import Vocabulary

extension Lockspace {
    // MARK: Participants

    mutating func takeMoving(
        _ name: ResourceName,
        to target: NodeID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        if moves.contains(where: { $0.root == name && $0.part == .oldMaster }) {
            counters.protocolErrors += 1
            return
        }
        let root = find(name)
        let isHolder =
            root != 0 && resources[root].mastery == .remote && resources[root].master == peer
        if isHolder && !resources[root].marks.contains(.moving) {
            resources[root].marks.insert(.moving)
            movingTrees += 1
        }
        moves.removeAll { $0.root == name }
        moves.append(Move(root: name, target: target, part: .participant, oldMaster: peer))
        send(.movingSeen(name), to: peer, &effects)
    }

    /// M2: keeps a message about a moving tree that does not come from its old master.
    mutating func isKept(_ message: LockMessage, from peer: NodeID) -> Bool {
        var said = message.lockedName
        switch message {
        case .entryIs(let name), .moving(let name, _), .confirm(let name): said = name
        case .lookupReply(let name, let master) where master == node: said = name
        default: break
        }
        guard let name = said, let place = moves.firstIndex(where: { $0.root == name.root }),
            moves[place].part == .participant
        else { return false }
        if message.lockedName == nil {
            if case .moving = message {} else if moves[place].target != node { return false }
            moves[place].kept.append((message, peer))
            return true
        }
        // The new master may believe that somebody else is the master, who forgot the tree.
        if moves[place].oldMaster == peer { return false }
        moves[place].kept.append((message, peer))
        return true
    }

    mutating func takeMoved(
        _ name: ResourceName,
        to master: NodeID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard let place = moves.firstIndex(where: { $0.root == name }),
            moves[place].part == .participant, master == peer || moves[place].target == master
        else { return }
        if master == node && !moves[place].isComplete {
            counters.protocolErrors += 1
            return
        }
        let move = moves.remove(at: place)
        if master == node {
            install(move, &effects)
        } else {
            follow(name, to: master, from: peer, &effects)
        }
        for entry in move.kept { dispatch(entry.message, from: entry.peer, &effects) }
    }

    private mutating func follow(
        _ name: ResourceName,
        to master: NodeID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let root = find(name)
        guard root != 0 && resources[root].marks.contains(.moving) else { return }
        resources[root].marks.remove(.moving)
        movingTrees -= 1
        setMastery(root, .remote, master)
        // The same word to the new master may still be on its way (M6).
        if master != peer { resources[root].marks.insert(.unproven) }
        let tree = recordsOfTree(root)
        for resource in tree { cancelReported(resource, &effects) }
        sendAllPending(root, &effects)
        for resource in tree.reversed() { releaseIfUnused(resource, &effects) }
    }

    // MARK: The new master

    mutating func takeTransfer(
        _ name: ResourceName,
        _ things: [MovedThing],
        moves count: UInt8,
        isLast: Bool,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard let place = moves.firstIndex(where: { $0.root == name }),
            moves[place].part == .participant, moves[place].target == node,
            !moves[place].isComplete, things.allSatisfy({ $0.name.root == name })
        else {
            counters.protocolErrors += 1
            return
        }
        moves[place].things += things
        moves[place].moves = count
        if !isLast { return }
        moves[place].isComplete = true
        send(.taken(name), to: peer, &effects)
    }

    /// Opens a transfer: this node masters the tree from now on.
    private mutating func install(_ move: Move, _ effects: inout [LockEffect]) {
        counters.movesIn += 1
        let root = findOrInsert(move.root)
        if resources[root].marks.contains(.moving) { movingTrees -= 1 }
        resources[root].marks.subtract(.moving)
        if status == .running {
            resources[root].marks.insert(.entryPending)
            let isAsking = resources[root].mastery == .lookingUp
            if isAsking && directoryNode(move.root) != node {
                resources[root].marks.insert(.answerPending)
            }
        }
        var own = ownLocks(ofTree: root)
        let believed = resources[root].master
        setMastery(root, .local, node)
        // Values first: of whoever is gone with PW or EX the next makes one invalid (M6).
        for case .value(let name, let value) in move.things { install(value, name) }
        for thing in move.things { install(thing, move, &own) }
        restAfterMove(root, moves: move.moves)
        if believed != .none && believed != move.oldMaster && isMember(believed) {
            takeBack(own, from: believed, &effects)
        }
        decidePending(own, &effects)
        // Each before the one above it.
        for resource in recordsOfTree(root).reversed() {
            if status == .running {
                serveQueues(resource, &effects)
                refuseImpatient(resource, &effects)
            }
            releaseIfUnused(resource, &effects)
        }
    }

    /// M8: what was asked of a former master, which may take the tree on again before it hears that.
    private mutating func takeBack(
        _ own: [UInt32],
        from master: NodeID,
        _ effects: inout [LockEffect]
    ) {
        if master == node { return }
        for lock in own where locks[lock].state == .waiting && locks[lock].marks.contains(.sent) {
            let name = name(of: locks[lock].resource)
            send(.cancel(name, lock: lockID(lock)), to: master, &effects)
        }
    }

    /// Takes this node's own locks of a tree out of their lists, in order.
    private mutating func ownLocks(ofTree root: UInt32) -> [UInt32] {
        var own: [UInt32] = []
        for resource in recordsOfTree(root) {
            while case let lock = resources[resource].granted, lock != 0 {
                unlink(lock, from: .granted)
                own.append(lock)
            }
        }
        return own
    }

    private mutating func install(_ value: SequencedValue, _ name: ResourceName) {
        let index = valueRecord(findOrInsert(name))
        if values[index].sequence <= value.sequence {
            values[index].value = value.value
            values[index].sequence = value.sequence
            values[index].isValid = value.isValid
        }
    }

    /// Takes one lock over. Own locks that have nothing more to ask are taken out of `own`.
    private mutating func install(_ thing: MovedThing, _ move: Move, _ own: inout [UInt32]) {
        switch thing {
        case .value: return
        case .lock(let name, let moved) where moved.holder.node == node:
            let lock = localIndex(moved.holder.lock)
            guard lock != 0, let place = own.firstIndex(of: lock),
                self.name(of: locks[lock].resource) == name
            else {
                // The change of view may have ended it: a wait that was cancelled.
                if status == .running { counters.protocolErrors += 1 }
                return
            }
            locks[lock].told = moved.told
            locks[lock].changes = moved.changes
            let isAsked =
                locks[lock].state == .waiting || locks[lock].state == .converting
                || locks[lock].state == .unlocking
            // Asked since the move began: decided when everything stands in its place.
            if isAsked && !locks[lock].marks.contains(.sent) { return }
            own.remove(at: place)
            if moved.isDemoted {
                locks[lock].granted = .null
                locks[lock].marks.insert(.demoted)
            }
            locks[lock].marks.formIntersection(
                LockMarks.lasting.union([.cancelRequested, .deferred, .demoted])
            )
            append(lock, to: queue(of: lock))
        case .lock(let name, let moved): installCopy(name, moved, move)
        }
    }

    private mutating func installCopy(_ name: ResourceName, _ moved: MovedLock, _ move: Move) {
        let resource = findOrInsert(name)
        if move.lost.contains(moved.holder.node) || !isMember(moved.holder.node) {
            if moved.state != .waiting && moved.granted >= .protectedWrite {
                invalidateValue(resource)
            }
            return
        }
        let copy = insertLock(
            resource,
            holder: moved.holder.node,
            identity: moved.holder.lock.rawValue
        )
        setBytes(copy, moved.bytes)
        locks[copy].owner = moved.owner
        locks[copy].granted = moved.granted
        locks[copy].requested = moved.requested
        locks[copy].flags = moved.flags
        locks[copy].told = moved.told
        locks[copy].changes = moved.changes
        locks[copy].state = LockState(reported: moved.state)
        if moved.isDemoted { locks[copy].marks.insert(.demoted) }
        if status == .recovering { locks[copy].marks.insert(.unconfirmed) }
        append(copy, to: queue(of: copy))
    }

    /// Decides what was asked of own locks while their tree moved. First all stand in their places
    /// with what they have; unlocks come last, as a record without locks goes.
    private mutating func decidePending(_ own: [UInt32], _ effects: inout [LockEffect]) {
        for lock in own {
            locks[lock].marks.formIntersection(
                LockMarks.lasting.union([.cancelRequested, .deferred, .demoted])
            )
            if locks[lock].state == .waiting {
                enqueue(lock, .waiting)
            } else {
                append(lock, to: .granted)
            }
        }
        for lock in own where locks[lock].state == .converting {
            let (mode, flags) = (locks[lock].requested, locks[lock].flags)
            locks[lock].state = .granted
            decideConversion(lock, to: mode, flags, &effects)
        }
        for lock in own where locks[lock].state == .unlocking { decideUnlock(lock, &effects) }
    }

    // MARK: The directory node

    /// The old master says who masters a tree now (M5).
    mutating func enterMaster(
        _ name: ResourceName,
        _ master: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let resource = findOrInsert(name)
        resources[resource].directoryMaster = master
        voidConfirms(name)
        settleParkedClaims(name, &effects)
        settleParkedLookups(name, &effects)
        if master == node {
            takeEntryIs(name, &effects)
        } else {
            send(.entryIs(name), to: master, &effects)
        }
    }

    mutating func takeEntryIs(_ name: ResourceName, _ effects: inout [LockEffect]) {
        let root = find(name)
        if root == 0 { return }
        resources[root].marks.remove(.entryPending)
        releaseIfUnused(root, &effects)
    }

    // MARK: A change of view (M6)

    /// Ends all moves but keeps unopened transfers; what was put off is done after the recovery.
    mutating func abandonMoves(departed: [NodeID]) {
        var staged: [Move] = []
        for var move in moves {
            claims.behindOpen += move.postponed
            move.kept = []
            if move.part == .participant && move.isComplete {
                for peer in departed where !move.lost.contains(peer) { move.lost.append(peer) }
                staged.append(move)
            }
        }
        moves = staged
        stagedEntries = []
        claimedEntries = []
    }

    /// Says to the directory nodes which trees lie here unopened.
    mutating func announceStaged(_ effects: inout [LockEffect]) {
        for move in moves where move.isComplete {
            let root = find(move.root)
            if root != 0 && resources[root].mastery == .local { continue }
            let directory = directoryNode(move.root)
            if directory == node {
                stagedEntries.append((move.root, node))
            } else {
                send(.stagedMasters([move.root]), to: directory, &effects)
            }
        }
    }

    /// Masterships that are less than certain; looked at when all that are certain have been named.
    mutating func takeEntries(
        _ names: [ResourceName],
        from peer: NodeID,
        _ take: (inout Lockspace, ResourceName) -> Void
    ) {
        for name in names {
            guard status == .recovering && name.depth == 0 && directoryNode(name) == node else {
                counters.protocolErrors += 1
                continue
            }
            take(&self, name)
        }
    }

    /// All who master anything have said so. What nobody masters belongs to who has it unopened,
    /// whatever the entry said before (M6), then to who has claimed it.
    mutating func settleEntries() {
        for entry in stagedEntries where !recovery.announced.contains(entry.name) {
            resources[findOrInsert(entry.name)].directoryMaster = entry.node
        }
        for entry in claimedEntries {
            let root = findOrInsert(entry.name)
            if resources[root].directoryMaster == .none {
                resources[root].directoryMaster = entry.node
            }
        }
        stagedEntries = []
        claimedEntries = []
        recovery.announced = []
    }

    /// In a recovery, when this node is to master a tree: opens the transfer of it, if there is one.
    mutating func openStaged(_ root: UInt32, _ effects: inout [LockEffect]) -> Bool {
        guard status == .recovering, !moves.isEmpty else { return false }
        let name = name(of: root)
        guard let place = moves.firstIndex(where: { $0.root == name && $0.isComplete }) else {
            return false
        }
        let move = moves.remove(at: place)
        resources[root].marks.remove(.newMaster)
        install(move, &effects)
        return true
    }
}
