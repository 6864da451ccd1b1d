// Deadlocks: who waits for whom, and the two places where a circle is broken.
//
// ## At queue time
//
// D1. A conversion that is queued behind one which it blocks itself can never be granted: the one
//     before it waits for its old mode to go, it waits for its turn. Refused as `deadlock`, or with
//     `demoteOnDeadlock` deprived of its old mode. The granted mode of a converting lock does not
//     change otherwise, so looking once, when the second comes, finds every such pair.
//
// ## Across resources and nodes
//
// Every other circle goes through several resources. A request that has waited for
// `LockSettings.deadlockWait` on behalf of an owner starts a *search* (and again after each such
// time):
//
//   holder    seek ──▶ master       who stands in this request's way?
//   master    chase ─▶ each owner   of a lock in the way: what does that owner wait for?
//   owner     seek ──▶ master ...   until the owner is the one who began: a circle
//   owner     cycle ─▶ coordinator  the path, one hop per wait
//   coordinator verify ─▶ each master: does this hop still stand, and has it stood all the time?
//   coordinator condemn ▶ the master of one wait: refuse it
//   master    deadlocked, refused ─▶ holder, condemned ─▶ coordinator
//
// D2. What waits: a queued lock waits for each granted lock that conflicts with what it asks for,
//     and for whatever those before it in its queues wait for, because the queues are served in
//     order. (A `noOrder` request waits for itself alone.)
// D3. Left out are waits with `noDeadlockWait` (also as those before others), blockers with
//     `noDeadlockBlock`, and locks without an owner: the caches of a node, which always yield.
// D4. No false victim. A path is collected hop by hop, so its ends are of different moments. Each
//     hop therefore names the locks it rests on with their `changes` at the master, and counts only
//     if the same stand there, unchanged, when the coordinator asks after the whole path was
//     collected. Then all of them stood at the moment in between, and the circle was real.
// D5. One victim per circle. The coordinator of the view (the lowest member) takes one circle at a
//     time, and the next only when the last victim has been refused. A circle that was broken with
//     another fails its verification.
// D6. The victim is the wait that began last: it closed the circle, and least is lost with it.
// D7. A path is at most `LockMessage.longestSearch` hops; each lock is visited once per search. A
//     change of view ends all searches; waits search anew.
//
// A circle needs an owner who waits for all that it asked for. One that can go on with half of it
// says so with `noDeadlockWait`.
//
// Sources: R. Davis, VAXcluster Principles, on deadlock searches; K. M. Chandy, J. Misra, L. M.
// Haas, "Distributed Deadlock Detection", ACM TOCS 1983 (edge chasing); for D4 and D5 our own.

package import Vocabulary

/// A lock of any node, by its name on its holder.
package struct LockReference: Hashable, Sendable, CustomStringConvertible {
    package var node: NodeID
    package var lock: LockID

    package init(node: NodeID, lock: LockID) {
        self.node = node
        self.lock = lock
    }

    package var description: String { "\(node) \(lock)" }
}

/// One wait in a circle: who waits on which resource, and for whom.
package struct DeadlockHop: Hashable, Sendable, CustomStringConvertible {
    package var name: ResourceName
    /// Who decides on it.
    package var master: NodeID
    /// The waiting lock, its owner on its node, what it asks for and for how many milliseconds it
    /// had waited.
    package var waiter: LockReference
    package var owner: LockOwner
    package var requested: LockMode
    package var waited: UInt32
    /// The queued lock whose turn must come first, and which is blocked; the waiter itself if it is
    /// the first.
    package var behind: LockReference
    /// The granted lock in the way, and its mode.
    package var blocker: LockReference
    package var blockerMode: LockMode
    /// `LockRecord.changes` of the three, at the master.
    package var waiterChanges: UInt16
    package var behindChanges: UInt16
    package var blockerChanges: UInt16

    package init(
        name: ResourceName,
        master: NodeID,
        waiter: LockReference,
        owner: LockOwner,
        requested: LockMode,
        waited: UInt32,
        behind: LockReference,
        blocker: LockReference,
        blockerMode: LockMode,
        changes: (waiter: UInt16, behind: UInt16, blocker: UInt16)
    ) {
        self.name = name
        self.master = master
        self.waiter = waiter
        self.owner = owner
        self.requested = requested
        self.waited = waited
        self.behind = behind
        self.blocker = blocker
        self.blockerMode = blockerMode
        waiterChanges = changes.waiter
        behindChanges = changes.behind
        blockerChanges = changes.blocker
    }

    package var description: String {
        let turn = behind == waiter ? "" : ", behind \(behind.node)"
        return "\(waiter.node) \(owner) waits for \(name) \(requested)\(turn), "
            + "which \(blocker.node) holds \(blockerMode)"
    }
}

/// A search on its way: who began it, and what it has found so far.
package struct DeadlockProbe: Hashable, Sendable {
    package var origin: LockReference
    package var originOwner: LockOwner
    /// Which search of its node.
    package var number: UInt32
    package var hops: [DeadlockHop]

    package init(
        origin: LockReference,
        originOwner: LockOwner,
        number: UInt32,
        hops: [DeadlockHop]
    ) {
        self.origin = origin
        self.originOwner = originOwner
        self.number = number
        self.hops = hops
    }

    /// What a wait remembers of the search that came by.
    var mark: UInt64 {
        (UInt64(origin.node.rawValue) << 40) ^ (UInt64(number) << 1) ^ 1
    }
}

/// A circle that the coordinator looks into.
struct DeadlockCase: Sendable {
    var number: UInt32
    var hops: [DeadlockHop]
    /// Hops whose master has confirmed them.
    var standing = 0

    /// D6.
    var victim: Int {
        var chosen = 0
        for (place, hop) in hops.enumerated() {
            let best = hops[chosen]
            if (hop.waited, best.waiter.node, best.waiter.lock.rawValue)
                < (best.waited, hop.waiter.node, hop.waiter.lock.rawValue)
            {
                chosen = place
            }
        }
        return chosen
    }
}

extension Lockspace {
    /// D1, for a conversion about to be queued.
    func wouldDeadlock(_ lock: UInt32) -> Bool {
        let record = locks[lock]
        if record.flags.contains(.noDeadlockWait) || record.flags.contains(.noDeadlockBlock) {
            return false
        }
        // Whoever does not stand behind the others waits for their old modes only.
        let isInLine = record.flags.isDisjoint(with: [.headQueue, .noOrder])
        let first = resources[record.resource].converting
        var other = first
        while other != 0 {
            if mayGrant(other) && !locks[other].flags.contains(.noDeadlockWait)
                && stands(lock, inTheWayOf: other)
                && (isInLine || stands(other, inTheWayOf: lock))
            {
                return true
            }
            other = following(other, head: first)
        }
        return false
    }

    /// D2: the queued locks whose turn must come for `lock` to be granted, itself first.
    private func turnsBefore(_ lock: UInt32) -> [UInt32] {
        var found = [lock]
        if locks[lock].flags.contains(.noOrder) { return found }
        let resource = locks[lock].resource
        for queue in [Queue.converting, .waiting] {
            let first = head(resource, queue)
            var other = first
            while other != 0 {
                if other == lock { return found }
                if mayGrant(other) && !locks[other].flags.contains(.noDeadlockWait) {
                    found.append(other)
                }
                other = following(other, head: first)
            }
        }
        return found
    }

    /// For each lock in the way of `lock`: whose turn it blocks.
    private func obstacles(_ lock: UInt32) -> [(behind: UInt32, blocker: UInt32)] {
        let turns = turnsBefore(lock)
        let resource = locks[lock].resource
        var found: [(behind: UInt32, blocker: UInt32)] = []
        for queue in [Queue.granted, .converting] {
            let first = head(resource, queue)
            var blocker = first
            while blocker != 0 {
                let record = locks[blocker]
                if presentOwner(blocker) != .none && !record.flags.contains(.noDeadlockBlock) {
                    for turn in turns where stands(blocker, inTheWayOf: turn) {
                        found.append((turn, blocker))
                        break
                    }
                }
                blocker = following(blocker, head: first)
            }
        }
        return found
    }

    /// The granted locks in the way of a queued one, whoever they belong to.
    func blockers(of lock: UInt32) -> [UInt32] {
        let turns = turnsBefore(lock)
        var found: [UInt32] = []
        for queue in [Queue.granted, .converting] {
            let first = head(locks[lock].resource, queue)
            var blocker = first
            while blocker != 0 {
                for turn in turns where stands(blocker, inTheWayOf: turn) {
                    found.append(blocker)
                    break
                }
                blocker = following(blocker, head: first)
            }
        }
        return found
    }

    func reference(_ lock: UInt32) -> LockReference {
        locks[lock].holder == node
            ? LockReference(node: node, lock: lockID(lock))
            : LockReference(node: locks[lock].holder, lock: LockID(locks[lock].identity))
    }

    /// A queued lock of a resource that this node masters; 0 if it does not wait here now.
    private func queued(_ resource: UInt32, _ reference: LockReference) -> UInt32 {
        let lock = mastered(resource, reference)
        if lock == 0 || !mayGrant(lock) { return 0 }
        return locks[lock].state == .waiting || locks[lock].state == .converting ? lock : 0
    }

    func mastered(_ resource: UInt32, _ reference: LockReference) -> UInt32 {
        if reference.node != node {
            return findCopy(resource, holder: reference.node, reference.lock)
        }
        let lock = localIndex(reference.lock)
        return lock != 0 && locks[lock].resource == resource ? lock : 0
    }

    // MARK: On the master

    /// Who stands in the way of this waiting lock? Their owners are asked what they wait for.
    mutating func takeSeek(
        _ name: ResourceName,
        _ lock: LockID,
        waited: UInt32,
        _ probe: DeadlockProbe,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let resource = find(name)
        guard resource != 0, resources[resource].mastery == .local, isServing(resource) else {
            return
        }
        let waiter = queued(resource, LockReference(node: peer, lock: lock))
        if waiter == 0 || locks[waiter].flags.contains(.noDeadlockWait) { return }
        if probe.hops.count >= LockMessage.longestSearch {
            counters.searchesTooDeep += 1
            return
        }
        var asked: [(node: NodeID, owner: LockOwner)] = []
        for (behind, blocker) in obstacles(waiter) {
            let (holder, owner) = (locks[blocker].holder, locks[blocker].owner)
            if asked.contains(where: { $0.node == holder && $0.owner == owner }) { continue }
            asked.append((holder, owner))
            var longer = probe
            longer.hops.append(
                DeadlockHop(
                    name: name,
                    master: node,
                    waiter: reference(waiter),
                    owner: locks[waiter].owner,
                    requested: locks[waiter].requested,
                    waited: waited,
                    behind: reference(behind),
                    blocker: reference(blocker),
                    blockerMode: locks[blocker].granted,
                    changes: (
                        locks[waiter].changes, locks[behind].changes, locks[blocker].changes
                    )
                )
            )
            post(.chase(owner, longer), to: holder, &effects)
        }
    }

    /// D4: whether a hop stands as it did when the search came by.
    func stands(_ hop: DeadlockHop) -> Bool {
        let resource = find(hop.name)
        guard resource != 0, resources[resource].mastery == .local, isServing(resource) else {
            return false
        }
        let waiter = queued(resource, hop.waiter)
        let behind = queued(resource, hop.behind)
        let blocker = mastered(resource, hop.blocker)
        guard waiter != 0, behind != 0, blocker != 0, behind != blocker,
            locks[waiter].changes == hop.waiterChanges,
            locks[behind].changes == hop.behindChanges,
            locks[blocker].changes == hop.blockerChanges,
            locks[blocker].state == .granted || locks[blocker].state == .converting
        else { return false }
        return turnsBefore(waiter).contains(behind)
            && stands(blocker, inTheWayOf: behind)
    }

    /// The coordinator has decided: this wait ends.
    mutating func takeCondemn(
        _ number: UInt32,
        _ place: UInt16,
        _ hops: [DeadlockHop],
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard peer == members[0].node, Int(place) < hops.count else {
            counters.protocolErrors += 1
            return
        }
        let hop = hops[Int(place)]
        let resource = find(hop.name)
        let isStanding = resource != 0 && stands(hop)
        if isStanding {
            let waiter = queued(resource, hop.waiter)
            if hop.waiter.node == node {
                effects.append(.deadlock(hops, victim: hop.waiter.lock))
            } else {
                let message = LockMessage.deadlocked(hop.name, lock: hop.waiter.lock, hops)
                send(message, to: hop.waiter.node, &effects)
            }
            endWaiting(waiter, .deadlock, &effects)
        }
        post(.condemned(number, wasWaiting: isStanding), to: peer, &effects)
    }
}
