// The holder's side: what the master's answers do to this node's locks.

import Vocabulary

extension Lockspace {
    mutating func granted(
        _ name: ResourceName,
        _ id: LockID,
        _ mode: LockMode,
        _ remarks: LockRemarks,
        _ value: SequencedValue?,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let lock = answeredLock(name, id, peer)
        if lock == 0 && isLate(name, id) {
            send(.unlock(name, lock: id, value: nil), to: peer, &effects)
            return
        }
        guard lock != 0 && (locks[lock].state == .waiting || locks[lock].state == .converting)
        else {
            counters.protocolErrors += 1
            return
        }
        let resource = locks[lock].resource
        let isDemoted =
            remarks.contains(.demoted) || locks[lock].marks.contains(.demoted)
        let old = isDemoted ? LockMode.null : locks[lock].granted
        let direction = valueDirection(
            from: locks[lock].state == .waiting ? nil : old,
            to: mode
        )
        locks[lock].state = .granted
        locks[lock].granted = mode
        locks[lock].requested = mode
        locks[lock].told = 0
        noteChange(lock)
        settleMarks(lock)
        absorb(resource, value)
        var read: ValueBlock?
        if direction == .read && locks[lock].flags.contains(.valueBlock) {
            read = value?.value ?? .zero
        }
        complete(
            lock,
            .granted,
            mode,
            value: read,
            remarks: isDemoted ? remarks.union(.demoted) : remarks,
            isValueValid: direction == .read
                ? value?.isValid ?? true : isKnownValueValid(resource),
            &effects
        )
        if locks[lock].marks.contains(.orphan) { tellOfOwner(lock, &effects) }
    }

    /// The master has answered.
    private mutating func settleMarks(_ lock: UInt32) {
        locks[lock].marks.formIntersection(.lasting)
        locks[lock].marks.formUnion([.established, .sent])
    }

    private func isKnownValueValid(_ resource: UInt32) -> Bool {
        let index = resources[resource].value
        return index == 0 || values[index].isValid
    }

    mutating func refused(
        _ name: ResourceName,
        _ id: LockID,
        _ status: LockStatus,
        _ remarks: LockRemarks,
        _ obstacle: LockObstacle?,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let lock = answeredLock(name, id, peer)
        if lock == 0 && isLate(name, id) { return }
        switch lock == 0 ? .free : locks[lock].state {
        case .waiting:
            let resource = locks[lock].resource
            unlink(lock, from: .granted)
            complete(lock, status, .null, obstacle: obstacle, &effects)
            freeLock(lock)
            releaseIfUnused(resource, &effects)
        case .converting:
            let all = remarks.union(demotedRemark(lock))
            if all.contains(.demoted) { locks[lock].granted = .null }
            locks[lock].state = .granted
            locks[lock].requested = locks[lock].granted
            noteChange(lock)
            settleMarks(lock)
            complete(lock, status, locks[lock].granted, remarks: all, &effects)
            if locks[lock].marks.contains(.orphan) { tellOfOwner(lock, &effects) }
        default: counters.protocolErrors += 1
        }
    }

    func demotedRemark(_ lock: UInt32) -> LockRemarks {
        locks[lock].marks.contains(.demoted) ? .demoted : []
    }

    mutating func unlocked(
        _ name: ResourceName,
        _ id: LockID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let lock = answeredLock(name, id, peer)
        if lock == 0 && isLate(name, id) { return }
        guard lock != 0 && locks[lock].state == .unlocking else {
            counters.protocolErrors += 1
            return
        }
        let resource = locks[lock].resource
        unlink(lock, from: .granted)
        complete(lock, .unlocked, .null, &effects)
        freeLock(lock)
        if !hasEstablished(resource) { forgetValue(resource) }
        releaseIfUnused(resource, &effects)
    }

    /// Whether an answer comes from a former master about a lock that was settled otherwise: the tree
    /// moved here while it was on its way (M8).
    private func isLate(_ name: ResourceName, _ id: LockID) -> Bool {
        let lock = localIndex(id)
        return lock == 0
            || (self.name(of: locks[lock].resource) == name
                && resources[locks[lock].resource].mastery == .local)
    }

    /// The master has spoken of a lock of this node (R3).
    @inline(__always)
    private mutating func notePresence(_ resource: UInt32) {
        let root = root(of: resource)
        if resources[root].marks.contains(.unproven) { resources[root].marks.remove(.unproven) }
    }

    /// Without a lock the master may forget the resource, and numbers begin anew.
    mutating func forgetValue(_ resource: UInt32) {
        dropValue(resource)
        resources[resource].marks.remove(.vouched)
    }

    /// The directory's answer was stale. Ask again, unless that was done since.
    mutating func notMaster(
        _ name: ResourceName,
        _ id: LockID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        counters.wrongMaster += 1
        let lock = localIndex(id)
        guard lock != 0, self.name(of: locks[lock].resource) == name,
            locks[lock].marks.contains(.sent), resources[locks[lock].resource].mastery != .local
        else { return }
        let resource = locks[lock].resource
        if locks[lock].state == .waiting && locks[lock].marks.contains(.cancelRequested) {
            withdraw(lock, &effects)
            releaseIfUnused(resource, &effects)
            return
        }
        if locks[lock].state == .unlocking {
            unlink(lock, from: .granted)
            complete(lock, .unlocked, .null, &effects)
            freeLock(lock)
            releaseIfUnused(resource, &effects)
            return
        }
        locks[lock].marks.subtract([.sent, .established])
        switch resources[resource].mastery {
        case .remote where resources[resource].master == peer:
            let root = root(of: resource)
            resources[root].marks.remove(.unproven)
            setMastery(root, .unknown, peer)
            askForMaster(root, isFresh: false, denied: peer, &effects)
            masterIsKnown(root, &effects)
        case .remote: if canSend(resource) { sendPending(lock, &effects) }
        default: return
        }
    }

    /// Passes a notice on, unless what was asked meanwhile makes it void: the lock is being given
    /// up or demoted, and the master looks again when it hears of that.
    mutating func blocking(
        _ name: ResourceName,
        _ id: LockID,
        _ wanted: LockMode,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let lock = answeredLock(name, id, peer)
        if lock == 0 { return }
        let record = locks[lock]
        switch record.state {
        case .granted where !record.marks.contains(.deferred): break
        case .converting where !record.granted.covers(record.requested): break
        default: return
        }
        // An orphan's heir will want to know.
        locks[lock].told |= 1 << wanted.rawValue
        if !record.marks.contains(.orphan) {
            effects.append(.blocking(cookie: record.identity, lock: id, wanted: wanted))
        }
    }

    /// The lock that the master of its resource speaks of; 0 when it is gone.
    private mutating func answeredLock(_ name: ResourceName, _ id: LockID, _ peer: NodeID) -> UInt32
    {
        let lock = localIndex(id)
        if lock == 0 { return 0 }
        let resource = locks[lock].resource
        // While another lock of the same name had to ask for the master again, the old master may
        // have become the master again and answer this one.
        let mastery = resources[resource].mastery
        guard mastery == .remote || mastery == .lookingUp, resources[resource].master == peer,
            self.name(of: resource) == name
        else { return 0 }
        if mastery == .remote { notePresence(resource) }
        return lock
    }
}
