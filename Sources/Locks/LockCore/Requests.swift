// The four operations of this node's client. With a local master they are decided at once and the
// answer stands in the effects when the call returns; with a remote one the effects carry the
// message.

package import Vocabulary

extension Lockspace {
    /// Asks for a new lock in `mode`. The completion carries `cookie`; so do blocking notices.
    ///
    /// - Parameters:
    ///   - owner: on whose behalf; deadlock searches run from owner to owner.
    ///   - parent: for a part of a tree, this node's granted lock on the resource above. It cannot
    ///     be given up while this one exists.
    ///   - patience: milliseconds after which waiting ends as `timedOut`; 0: never.
    ///   - bytes: what a lock of a range covers (ByteRanges.swift), nil for all of it; nil for a
    ///     resource of another kind.
    /// - Returns: the lock's name, to cancel, convert or unlock it by; `none` if the request was
    ///   refused before there was a lock. With `LockFlags.synchronous`, `takeSynchronous` tells
    ///   whether it was granted at once.
    @discardableResult
    package mutating func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner = .none,
        parent: LockID = .none,
        patience: UInt32 = 0,
        bytes: LockedBytes? = nil,
        effects: inout [LockEffect]
    ) -> LockID {
        counters.requests += 1
        var parentIndex: UInt32 = 0
        if status != .running || name.depth > 0 || flags.contains(.adoptOrphan) {
            parentIndex = localIndex(parent)
            if let refusal = refusal(of: name, flags, parent: parentIndex) {
                effects.append(.complete(LockCompletion(cookie: cookie, status: refusal)))
                return .none
            }
            if flags.contains(.adoptOrphan) {
                return adopt(name, mode, cookie: cookie, owner: owner, flags, &effects)
            }
        }
        let resource = findOrInsert(name)
        let lock = insertLock(resource, holder: node, identity: cookie)
        locks[lock].requested = mode
        locks[lock].flags = flags
        locks[lock].owner = owner
        if name.kind.isOfBytes { setBytes(lock, bytes) }
        if parentIndex != 0 {
            locks[lock].parent = parentIndex
            locks[parentIndex].sublocks += 1
        }
        let id = lockID(lock)
        if flags.contains(.synchronous) { synchronousLock = id }
        if resources[resource].mastery == .unknown && status == .running {
            askForMaster(resource, isFresh: flags.contains(.freshName), &effects)
        }
        if resources[resource].mastery == .local {
            if activities.liveCount > 0 { noteOwnUse(resource) }
            decideRequest(lock, &effects)
        } else {
            counters.remoteOperations += 1
            append(lock, to: .granted)
            if canSend(resource) { sendPending(lock, &effects) }
        }
        if owner != .none || patience > 0 { beginWait(id, patience: patience) }
        synchronousLock = .none
        return id
    }

    /// Why there can be no such request; nil if there can.
    private func refusal(
        of name: ResourceName,
        _ flags: LockFlags,
        parent: UInt32
    ) -> LockStatus? {
        if status == .left { return .shutDown }
        if status != .running && flags.contains(.unlessStopped) { return .stopped }
        if name.depth > 0 && (name.kind.isOfBytes || !isParent(parent, of: name)) {  // B0
            return .parentNotGranted
        }
        return nil
    }

    /// What was granted synchronously by the last call, once: see `LockFlags.synchronous`.
    package mutating func takeSynchronous() -> LockCompletion? {
        defer { synchronousCompletion = nil }
        return synchronousCompletion
    }

    /// Changes the mode of a granted lock. With `LockFlags.valueBlock` and from PW or EX downwards
    /// `value` is written. One operation at a time: otherwise the answer is `busy`. `patience` as
    /// in `request`.
    package mutating func convert(
        _ lock: LockID,
        to mode: LockMode,
        _ flags: LockFlags,
        value: ValueBlock?,
        patience: UInt32 = 0,
        effects: inout [LockEffect]
    ) {
        counters.conversions += 1
        guard let index = idleLock(lock, flags, &effects) else { return }
        if flags.contains(.synchronous) { synchronousLock = lock }
        if mustPostpone(index) && locks[index].granted.covers(mode) {
            postpone(index, DeferredDemotion(lock: lock, mode: mode, flags: flags, value: value))
        } else {
            executeConversion(index, to: mode, flags, value, &effects)
        }
        if locks[index].owner != .none || patience > 0 { beginWait(lock, patience: patience) }
        synchronousLock = .none
        if !ripe.isEmpty { dropRipe(&effects) }
    }

    /// Gives a granted lock up. With `LockFlags.valueBlock` and from PW or EX `value` is written.
    /// A lock with locks below it stays (`hasSublocks`), unless `LockFlags.withSublocks` lets them
    /// go first.
    package mutating func unlock(
        _ lock: LockID,
        _ flags: LockFlags,
        value: ValueBlock?,
        effects: inout [LockEffect]
    ) {
        counters.unlocks += 1
        if flags.contains(.withSublocks) && status != .left {
            let index = localIndex(lock)
            if index != 0 {
                doom(index, &effects)
                dropRipe(&effects)
                return
            }
        }
        guard let index = idleLock(lock, flags, &effects) else { return }
        if locks[index].sublocks > 0 {
            complete(index, .hasSublocks, locks[index].granted, &effects)
            return
        }
        giveUp(index, flags, value, &effects)
        if !ripe.isEmpty { dropRipe(&effects) }
    }

    mutating func giveUp(
        _ lock: UInt32,
        _ flags: LockFlags,
        _ value: ValueBlock?,
        _ effects: inout [LockEffect]
    ) {
        if mustPostpone(lock) {
            let id = lockID(lock)
            postpone(lock, DeferredDemotion(lock: id, mode: nil, flags: flags, value: value))
        } else {
            executeUnlock(lock, flags, value, &effects)
        }
    }

    /// Withdraws a request or a conversion towards more that still waits: it completes as
    /// `cancelled`, or as if nothing had been said when the grant was faster. Does nothing for a
    /// stale name.
    package mutating func cancel(_ lock: LockID, effects: inout [LockEffect]) {
        withdrawWait(lock, &effects)
        if !ripe.isEmpty { dropRipe(&effects) }
    }

    mutating func withdrawWait(_ lock: LockID, _ effects: inout [LockEffect]) {
        let index = localIndex(lock)
        if index == 0 || status == .left { return }
        let record = locks[index]
        let isWaiting = record.state == .waiting
        guard isWaiting || (record.state == .converting && !record.granted.covers(record.requested))
        else { return }
        let resource = record.resource
        let isFrozen = isFrozen(resource)
        let isSent = record.marks.contains(.sent)
        // What is in doubt, a wait, cannot be unsaid by a report; a conversion can.
        let maySettle =
            isWaiting
            ? !record.marks.contains(.doubtful)
            : status == .running || record.requested.covers(record.granted)
        if resources[resource].mastery == .local && (!isFrozen || !isSent) {
            decideCancel(index, &effects)
        } else if !isFrozen && !isSent && maySettle {
            // A sideways conversion may have been granted in the last epoch, so that the old mode
            // is not to be fallen back on: the master decides.
            withdraw(index, &effects)
            releaseIfUnused(resource, &effects)
        } else {
            locks[index].marks.insert(.cancelRequested)
            if canSend(resource) {
                send(
                    .cancel(name(of: resource), lock: lock),
                    to: resources[resource].master,
                    &effects
                )
            }
        }
    }

    /// I7. During a recovery nobody may learn by a demotion what the directory does not know yet.
    @inline(__always)
    private func mustPostpone(_ lock: UInt32) -> Bool {
        claims.isOutstanding || status != .running
            || (movingTrees > 0 && isFrozen(locks[lock].resource))
    }

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
            if activities.liveCount > 0 { noteOwnUse(resource) }
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
        if canSend(locks[lock].resource) { sendPending(lock, &effects) }
    }

    /// Sends what the master of a lock was not told yet.
    mutating func sendPending(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let record = locks[lock]
        let resource = record.resource
        let master = resources[resource].master
        let name = name(of: resource)
        let id = lockID(lock)
        let value = record.marks.contains(.wrote) ? sequencedValue(resource) : nil
        if record.state != .waiting
            && (!record.marks.contains(.established)
                || (record.marks.contains(.doubtful) && record.state != .unlocking))
        {
            // What the master has, or should have, before anything is asked. Nobody will answer that
            // (R2).
            var standing = report(lock)
            standing.state = .granted
            standing.requested = standing.granted
            send(.rebuild(name, standing), to: master, &effects)
            locks[lock].marks.formUnion([.sent, .established, .doubtful])
        }
        switch record.state {
        case .waiting:
            send(
                .request(
                    name,
                    lock: id,
                    owner: record.owner,
                    mode: record.requested,
                    flags: record.flags,
                    bytes: bytes(of: lock)
                ),
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
            let remarks = demotedRemark(lock)
            locks[lock].state = .granted
            locks[lock].requested = locks[lock].granted
            locks[lock].marks.subtract([.cancelRequested, .demoted])
            complete(lock, .cancelled, locks[lock].granted, remarks: remarks, &effects)
        }
    }

    /// The place of a lock of which nothing is asked; nil, and the client is told, if there is
    /// none, or after the end.
    private func idleLock(
        _ lock: LockID,
        _ flags: LockFlags,
        _ effects: inout [LockEffect]
    ) -> UInt32? {
        let index = localIndex(lock)
        let isIdle =
            index != 0 && locks[index].state == .granted
            && locks[index].marks.isDisjoint(with: [.deferred, .doomed])
        var refusal: LockStatus?
        if status == .left {
            refusal = .shutDown
        } else if !isIdle {
            refusal = .busy
        } else if status != .running && flags.contains(.unlessStopped) {
            refusal = .stopped
        }
        guard let refusal else { return index }
        var answer = LockCompletion(cookie: 0, status: refusal)
        answer.lock = lock
        if index != 0 {
            answer.cookie = locks[index].identity
            if locks[index].state != .waiting { answer.mode = locks[index].granted }
        }
        effects.append(.complete(answer))
        return nil
    }
}

extension LockCompletion {
    /// An answer without a lock.
    init(cookie: UInt64, status: LockStatus) {
        self.init(
            lock: .none,
            cookie: cookie,
            status: status,
            mode: .null,
            value: nil,
            isValueValid: false
        )
    }
}
