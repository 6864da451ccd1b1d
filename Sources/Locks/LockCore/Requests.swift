// The four operations of this node's client. With a local master they are decided at once and the
// answer stands in the effects when the call returns; with a remote one the effects carry the
// message.

package import Vocabulary

extension Lockspace {
    /// Asks for a new lock in `mode`. The completion carries `cookie`; so do blocking notices.
    /// Returns the lock's name, to cancel, convert or unlock it by; `none` after the lockspace was
    /// left.
    @discardableResult
    package mutating func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        effects: inout [LockEffect]
    ) -> LockID {
        counters.requests += 1
        if status == .left {
            effects.append(.complete(Lockspace.shutDown(.none, cookie: cookie)))
            return .none
        }
        let resource = findOrInsert(name)
        let lock = insertLock(resource, holder: node, identity: cookie)
        locks[lock].requested = mode
        locks[lock].flags = flags
        let id = lockID(lock)
        if resources[resource].mastery == .unknown && status == .running {
            askForMaster(resource, isFresh: flags.contains(.freshName), &effects)
        }
        if resources[resource].mastery == .local {
            decideRequest(lock, &effects)
            return id
        }
        counters.remoteOperations += 1
        append(lock, to: .granted)
        if status == .running && resources[resource].mastery == .remote {
            sendPending(lock, &effects)
        }
        return id
    }

    /// Changes the mode of a granted lock. With `LockFlags.valueBlock` and from PW or EX downwards
    /// `value` is written. One operation at a time: the lock is granted and nothing is asked of it.
    package mutating func convert(
        _ lock: LockID,
        to mode: LockMode,
        _ flags: LockFlags,
        value: ValueBlock?,
        effects: inout [LockEffect]
    ) {
        counters.conversions += 1
        guard let index = idleLock(lock, &effects) else { return }
        if mustPostpone && locks[index].granted.covers(mode) {
            postpone(index, DeferredDemotion(lock: lock, mode: mode, flags: flags, value: value))
        } else {
            executeConversion(index, to: mode, flags, value, &effects)
        }
    }

    /// Gives a granted lock up. With `LockFlags.valueBlock` and from PW or EX `value` is written.
    package mutating func unlock(
        _ lock: LockID,
        _ flags: LockFlags,
        value: ValueBlock?,
        effects: inout [LockEffect]
    ) {
        counters.unlocks += 1
        guard let index = idleLock(lock, &effects) else { return }
        if mustPostpone {
            postpone(index, DeferredDemotion(lock: lock, mode: nil, flags: flags, value: value))
        } else {
            executeUnlock(index, flags, value, &effects)
        }
    }

    /// Withdraws a request or a conversion towards more that still waits: it completes as
    /// `cancelled`, or as if nothing had been said when the grant was faster. Does nothing for a
    /// stale name.
    package mutating func cancel(_ lock: LockID, effects: inout [LockEffect]) {
        let index = localIndex(lock)
        if index == 0 || status == .left { return }
        let record = locks[index]
        let isWaiting = record.state == .waiting
        guard isWaiting || (record.state == .converting && !record.granted.covers(record.requested))
        else { return }
        let resource = record.resource
        if resources[resource].mastery == .local {
            decideCancel(index, &effects)
        } else if !record.marks.contains(.sent)
            && (status == .running || isWaiting || record.requested.covers(record.granted))
        {
            // A sideways conversion may have been granted in the last epoch, so that the old mode
            // is not to be fallen back on: the master decides.
            withdraw(index, &effects)
            releaseIfUnused(resource, &effects)
        } else {
            locks[index].marks.insert(.cancelRequested)
            if status == .running {
                send(
                    .cancel(resources[resource].name, lock: lock),
                    to: resources[resource].master,
                    &effects
                )
            }
        }
    }

    /// I7. During a recovery nobody may learn by a demotion what the directory does not know yet.
    private var mustPostpone: Bool { claims.isOutstanding || status != .running }

    // MARK: Execution

    mutating func executeConversion(
        _ lock: UInt32,
        to mode: LockMode,
        _ flags: LockFlags,
        _ value: ValueBlock?,
        _ effects: inout [LockEffect]
    ) {
        let resource = locks[lock].resource
        let writes =
            valueDirection(from: locks[lock].granted, to: mode) == .write
            && writeValue(resource, flags, value)
        if resources[resource].mastery == .local {
            decideConversion(lock, to: mode, flags, &effects)
            return
        }
        counters.remoteOperations += 1
        locks[lock].state = .converting
        locks[lock].requested = mode
        locks[lock].flags = flags
        beginRemote(lock, writes: writes, &effects)
    }

    mutating func executeUnlock(
        _ lock: UInt32,
        _ flags: LockFlags,
        _ value: ValueBlock?,
        _ effects: inout [LockEffect]
    ) {
        let resource = locks[lock].resource
        let writes =
            unlockWrites(from: locks[lock].granted) && writeValue(resource, flags, value)
        if resources[resource].mastery == .local {
            decideUnlock(lock, &effects)
            return
        }
        counters.remoteOperations += 1
        locks[lock].state = .unlocking
        beginRemote(lock, writes: writes, &effects)
    }

    private mutating func beginRemote(
        _ lock: UInt32,
        writes: Bool,
        _ effects: inout [LockEffect]
    ) {
        locks[lock].marks.remove(.sent)
        if writes { locks[lock].marks.insert(.wrote) } else { locks[lock].marks.remove(.wrote) }
        if status == .running && resources[locks[lock].resource].mastery == .remote {
            sendPending(lock, &effects)
        }
    }

    /// Sends what the master of a lock was not told yet.
    mutating func sendPending(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let record = locks[lock]
        let resource = record.resource
        let master = resources[resource].master
        let name = resources[resource].name
        let id = lockID(lock)
        let value = record.marks.contains(.wrote) ? sequencedValue(resource) : nil
        if !record.marks.contains(.established) && record.state != .waiting {
            send(.rebuild(name, report(lock)), to: master, &effects)
            locks[lock].marks.formUnion([.sent, .established])
            if record.state != .unlocking { return }
        }
        switch record.state {
        case .waiting:
            send(
                .request(name, lock: id, mode: record.requested, flags: record.flags),
                to: master,
                &effects
            )
        case .converting:
            send(
                .convert(
                    name,
                    lock: id,
                    mode: record.requested,
                    flags: record.flags,
                    value: value
                ),
                to: master,
                &effects
            )
        case .unlocking: send(.unlock(name, lock: id, value: value), to: master, &effects)
        case .granted, .free: return
        }
        locks[lock].marks.insert(.sent)
        if record.marks.contains(.cancelRequested) {
            send(.cancel(name, lock: id), to: master, &effects)
        }
    }

    /// Ends what the master does not know of, as cancelled.
    mutating func withdraw(_ lock: UInt32, _ effects: inout [LockEffect]) {
        if locks[lock].state == .waiting {
            unlink(lock, from: queue(of: lock))
            complete(lock, .cancelled, .null, &effects)
            freeLock(lock)
        } else {
            locks[lock].state = .granted
            locks[lock].requested = locks[lock].granted
            locks[lock].marks.remove(.cancelRequested)
            complete(lock, .cancelled, locks[lock].granted, &effects)
        }
    }

    /// The place of a lock of which nothing is asked; nil, and the client is told, after the end.
    private func idleLock(_ lock: LockID, _ effects: inout [LockEffect]) -> UInt32? {
        let index = localIndex(lock)
        if status == .left {
            let cookie = index == 0 ? 0 : locks[index].identity
            effects.append(.complete(Lockspace.shutDown(lock, cookie: cookie)))
            return nil
        }
        precondition(index != 0, "LockCore: \(lock) is stale")
        precondition(
            locks[index].state == .granted && !locks[index].marks.contains(.deferred),
            "LockCore: an operation on \(lock), which is not idle"
        )
        return index
    }

    static func shutDown(_ lock: LockID, cookie: UInt64) -> LockCompletion {
        LockCompletion(
            lock: lock,
            cookie: cookie,
            status: .shutDown,
            mode: .null,
            value: nil,
            isValueValid: false
        )
    }
}
