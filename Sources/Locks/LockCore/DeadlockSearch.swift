// Searches for deadlocks: the holder's part and the coordinator's. The essay stands in
// Deadlocks.swift.

import Vocabulary

extension Lockspace {
    /// Sends a step of a search; one to this node itself is taken when the running call is done.
    mutating func post(
        _ message: LockMessage,
        to peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        if peer == node { mail.append(message) } else { send(message, to: peer, &effects) }
    }

    /// Takes the steps that this node owes itself.
    mutating func drainMail(_ effects: inout [LockEffect]) {
        while !mail.isEmpty {
            let steps = mail
            mail = []
            for step in steps where status == .running {
                takeSearch(step, from: node, &effects)
            }
        }
    }

    mutating func takeSearch(
        _ message: LockMessage,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        switch message {
        case .seek(let name, let lock, let waited, let probe):
            takeSeek(name, lock, waited: waited, probe, from: peer, &effects)
        case .chase(let owner, let probe): takeChase(owner, probe, &effects)
        case .cycle(let hops): takeCycle(hops, &effects)
        case .verify(let number, let place, let hop):
            let reply = LockMessage.verified(number, place: place, stands: stands(hop))
            post(reply, to: peer, &effects)
        case .verified(let number, _, let stands): takeVerified(number, stands, &effects)
        case .condemn(let number, let place, let hops):
            takeCondemn(number, place, hops, from: peer, &effects)
        case .condemned(let number, let wasWaiting):
            takeCondemned(number, wasWaiting, &effects)
        case .deadlocked(let name, let lock, let hops):
            let index = localIndex(lock)
            if index != 0 && self.name(of: locks[index].resource) == name {
                effects.append(.deadlock(hops, victim: lock))
            }
        default: counters.protocolErrors += 1
        }
    }

    // MARK: On the holder

    /// Begins the searches that are due.
    mutating func searchDeadlocks(_ effects: inout [LockEffect]) {
        if waits.liveCount == 0 || settings.deadlockWait == 0 { return }
        for wait in 1..<waits.bound {
            let record = waits[wait]
            if record.lock == 0 || record.searchAt == 0 || record.searchAt > now { continue }
            waits[wait].searchAt = now + UInt64(settings.deadlockWait)
            counters.deadlockSearches += 1
            let probe = DeadlockProbe(
                origin: LockReference(node: node, lock: lockID(record.lock)),
                originOwner: locks[record.lock].owner,
                number: nextSearch,
                hops: []
            )
            nextSearch &+= 1
            seek(wait, probe, &effects)
        }
    }

    /// Asks the master of a waiting lock who stands in its way.
    private mutating func seek(
        _ wait: UInt32,
        _ probe: DeadlockProbe,
        _ effects: inout [LockEffect]
    ) {
        waits[wait].seen = probe.mark
        let lock = waits[wait].lock
        let resource = locks[lock].resource
        let isKnown =
            resources[resource].mastery == .local
            || (canSend(resource) && locks[lock].marks.contains(.sent))
        if !isKnown { return }
        let waited = UInt32(truncatingIfNeeded: min(now - waits[wait].began, UInt64(UInt32.max)))
        let message = LockMessage.seek(
            name(of: resource),
            lock: lockID(lock),
            waited: waited,
            probe
        )
        post(message, to: resources[resource].master, &effects)
    }

    /// What does this owner wait for? If it is the one who began, the circle is closed.
    private mutating func takeChase(
        _ owner: LockOwner,
        _ probe: DeadlockProbe,
        _ effects: inout [LockEffect]
    ) {
        if owner == .none || probe.hops.isEmpty {
            counters.protocolErrors += 1
            return
        }
        if probe.origin.node == node && probe.originOwner == owner {
            let origin = localIndex(probe.origin.lock)
            if origin != 0 && locks[origin].wait != 0 {
                post(.cycle(probe.hops), to: members[0].node, &effects)
            }
            return
        }
        for wait in 1..<waits.bound where waits[wait].lock != 0 && waits[wait].searchAt != 0 {
            if locks[waits[wait].lock].owner == owner && waits[wait].seen != probe.mark {
                seek(wait, probe, &effects)
            }
        }
    }

    // MARK: On the coordinator

    /// The most circles that wait to be looked into. What is dropped is found again.
    private static let mostCases = 64

    private mutating func takeCycle(_ hops: [DeadlockHop], _ effects: inout [LockEffect]) {
        guard members[0].node == node, !hops.isEmpty, hops.allSatisfy({ isMember($0.master) })
        else {
            counters.protocolErrors += 1
            return
        }
        if cases.count >= Self.mostCases { return }
        counters.cyclesFound += 1
        cases.append(DeadlockCase(number: nextCase, hops: hops))
        nextCase &+= 1
        if cases.count == 1 { verifyFirst(&effects) }
    }

    private mutating func verifyFirst(_ effects: inout [LockEffect]) {
        guard let first = cases.first else { return }
        for (place, hop) in first.hops.enumerated() {
            let message = LockMessage.verify(
                first.number,
                place: UInt16(truncatingIfNeeded: place),
                hop
            )
            post(message, to: hop.master, &effects)
        }
    }

    private mutating func takeVerified(
        _ number: UInt32,
        _ stands: Bool,
        _ effects: inout [LockEffect]
    ) {
        guard let first = cases.first, first.number == number else { return }
        if !stands {
            counters.cyclesVanished += 1
            closeCase(&effects)
            return
        }
        cases[0].standing += 1
        if cases[0].standing < first.hops.count { return }
        let victim = first.victim
        let message = LockMessage.condemn(
            number,
            place: UInt16(truncatingIfNeeded: victim),
            first.hops
        )
        post(message, to: first.hops[victim].master, &effects)
    }

    private mutating func takeCondemned(
        _ number: UInt32,
        _ wasWaiting: Bool,
        _ effects: inout [LockEffect]
    ) {
        guard let first = cases.first, first.number == number else { return }
        if wasWaiting { counters.cyclesBroken += 1 } else { counters.cyclesVanished += 1 }
        closeCase(&effects)
    }

    private mutating func closeCase(_ effects: inout [LockEffect]) {
        cases.removeFirst()
        verifyFirst(&effects)
    }
}
