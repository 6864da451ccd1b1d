// The holder's side: what the master's answers do to this node's locks.

import Vocabulary

extension Lockspace {
    mutating func granted(
        _ name: ResourceName,
        _ id: LockID,
        _ mode: LockMode,
        _ value: SequencedValue?,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let lock = answeredLock(name, id, peer)
        guard lock != 0 && (locks[lock].state == .waiting || locks[lock].state == .converting)
        else {
            counters.protocolErrors += 1
            return
        }
        let resource = locks[lock].resource
        let direction = valueDirection(
            from: locks[lock].state == .waiting ? nil : locks[lock].granted,
            to: mode
        )
        locks[lock].state = .granted
        locks[lock].granted = mode
        locks[lock].requested = mode
        locks[lock].marks = [.established, .sent]
        absorb(resource, value)
        var read: ValueBlock?
        if direction == .read && locks[lock].flags.contains(.valueBlock) {
            read = value?.value ?? .zero
        }
        effects.append(
            .complete(
                LockCompletion(
                    lock: id,
                    cookie: locks[lock].identity,
                    status: .granted,
                    mode: mode,
                    value: read,
                    isValueValid: direction == .read
                        ? value?.isValid ?? true : isKnownValueValid(resource)
                )
            )
        )
    }

    private func isKnownValueValid(_ resource: UInt32) -> Bool {
        let index = resources[resource].value
        return index == 0 || values[index].isValid
    }

    mutating func refused(
        _ name: ResourceName,
        _ id: LockID,
        _ status: LockStatus,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let lock = answeredLock(name, id, peer)
        switch lock == 0 ? .free : locks[lock].state {
        case .waiting:
            let resource = locks[lock].resource
            unlink(lock, from: .granted)
            complete(lock, status, .null, &effects)
            freeLock(lock)
            releaseIfUnused(resource, &effects)
        case .converting:
            locks[lock].state = .granted
            locks[lock].requested = locks[lock].granted
            locks[lock].marks = [.established, .sent]
            complete(lock, status, locks[lock].granted, &effects)
        default: counters.protocolErrors += 1
        }
    }

    mutating func unlocked(
        _ name: ResourceName,
        _ id: LockID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let lock = answeredLock(name, id, peer)
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
        guard lock != 0, resources[locks[lock].resource].name == name,
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
            resources[resource].mastery = .unknown
            askForMaster(resource, isFresh: false, &effects)
            masterIsKnown(resource, &effects)
        case .remote: sendPending(lock, &effects)
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
        effects.append(.blocking(cookie: record.identity, lock: id, wanted: wanted))
    }

    /// The lock that the master of its resource speaks of; 0 when it is gone.
    private func answeredLock(_ name: ResourceName, _ id: LockID, _ peer: NodeID) -> UInt32 {
        let lock = localIndex(id)
        if lock == 0 { return 0 }
        let resource = locks[lock].resource
        // While another lock of the same name had to ask for the master again, the old master may
        // have become the master again and answer this one.
        let mastery = resources[resource].mastery
        guard mastery == .remote || mastery == .lookingUp, resources[resource].master == peer,
            resources[resource].name == name
        else { return 0 }
        return lock
    }
}
