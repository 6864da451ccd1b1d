// The receiving side of a recovery, and its end: directory entries and reported locks come in;
// values are judged; locking goes on.

import Vocabulary

extension LockState {
    /// How a lock stands at its master that stands so at its holder.
    init(reported state: RebuiltLock.State) {
        self =
            switch state {
            case .waiting: .waiting
            case .converting: .converting
            case .granted, .unlocking: .granted
            }
    }
}

extension Lockspace {
    mutating func takeMasters(_ names: [ResourceName], from peer: NodeID) {
        for name in names {
            guard status == .recovering && name.depth == 0 && directoryNode(name) == node else {
                counters.protocolErrors += 1
                continue
            }
            // What stands there was never heard of the move (R4), or is stale.
            resources[findOrInsert(name)].directoryMaster = peer
            recovery.announced.append(name)
        }
    }

    /// A holder's report: confirms or changes the copy, or makes one. Outside a recovery it comes
    /// from a node that lost a claim, or whose lock has another owner now.
    mutating func takeReport(
        _ name: ResourceName,
        _ report: RebuiltLock,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        if isTurnedAway(name, report.lock, from: peer) { return }
        if status == .recovering && report.state != .unlocking { becomeMaster(name.root, &effects) }
        let resource = masteredRecord(name)
        guard resource != 0 else {
            if report.state == .unlocking { return }
            if status == .running {
                send(.notMaster(name, lock: report.lock), to: peer, &effects)
            } else {
                counters.protocolErrors += 1
            }
            return
        }
        var copy = findCopy(resource, holder: peer, report.lock)
        if report.state == .unlocking {
            takeReportedUnlock(resource, copy, report.value, &effects)
            return
        }
        takeValue(resource, report)
        let state = LockState(reported: report.state)
        if copy != 0 && locks[copy].state == state && locks[copy].granted == report.granted
            && locks[copy].requested == report.requested
        {
            // What is asked now may have been asked anew, after what the copy knew was withdrawn.
            locks[copy].flags = report.flags
            // It may have been adopted (O3).
            if locks[copy].owner != report.owner {
                locks[copy].owner = report.owner
                noteChange(copy)
            }
            // Its holder has given the old mode up by itself, and may have asked anew since.
            locks[copy].marks.subtract([.unconfirmed, .demoted])
            return
        }
        if copy == 0 {
            copy = insertLock(resource, holder: peer, identity: report.lock.rawValue)
            setBytes(copy, report.bytes)
        } else {
            unlink(copy, from: queue(of: copy))
        }
        locks[copy].state = state
        locks[copy].granted = report.granted
        locks[copy].requested = report.requested
        locks[copy].marks.formIntersection(.ofBytes)
        locks[copy].flags = report.flags
        locks[copy].owner = report.owner
        noteChange(copy)
        append(copy, to: queue(of: copy))
        if isServing(resource) { serveQueues(resource, ignoringOrder: true, &effects) }
    }

    private mutating func takeReportedUnlock(
        _ resource: UInt32,
        _ copy: UInt32,
        _ value: SequencedValue?,
        _ effects: inout [LockEffect]
    ) {
        if copy != 0 {
            absorb(resource, value)
            unlink(copy, from: queue(of: copy))
            freeLock(copy)
        }
        releaseIfUnused(resource, &effects)
    }

    /// R5: the directory has sent a holder here for a tree that this node forgot.
    private mutating func becomeMaster(_ name: ResourceName, _ effects: inout [LockEffect]) {
        let root = findOrInsert(name)
        if resources[root].mastery != .unknown { return }
        setMastery(root, .local, node)
        resources[root].marks.insert(.newMaster)
        // What the client has asked since this node looked for masters.
        takeOver(root, &effects)
    }

    /// Takes a reported value if it is newer. Whoever has the highest number decides whether it was
    /// vouched for.
    private mutating func takeValue(_ resource: UInt32, _ report: RebuiltLock) {
        guard let value = report.value else { return }
        let known = resources[resource].value == 0 ? 0 : values[resources[resource].value].sequence
        if value.sequence > known {
            absorb(resource, value)
            resources[resource].marks.remove(.vouched)
        }
        if report.isVouched && value.sequence >= known {
            resources[resource].marks.insert(.vouched)
        }
    }

    // MARK: Finish

    mutating func finishRecovery(_ effects: inout [LockEffect]) {
        status = .running
        counters.recoveries += 1
        for lock in 1..<locks.bound
        where locks[lock].state != .free && locks[lock].marks.contains(.unconfirmed) {
            // Its holder, whose record is the truth, has withdrawn it (M6): while it waited, or without
            // having heard that it was granted.
            precondition(
                locks[lock].state != .converting,
                "LockCore M6: a lock that converts was not reported"
            )
            unlink(lock, from: queue(of: lock))
            freeLock(lock)
        }
        for resource in 1..<resources.bound where resources[resource].mastery == .local {
            judgeValue(resource)
            grantProvenConversions(resource, &effects)
        }
        for resource in 1..<resources.bound where resources[resource].mastery != .free {
            resources[resource].marks.formIntersection(.claimPending)
        }
        moves = []
        restartSearches()
        for lock in 1..<locks.bound where locks[lock].state != .free {
            locks[lock].told = 0
            // What was asked since the report is told when all go on.
            if locks[lock].marks.contains(.sent)
                || resources[locks[lock].resource].mastery == .local
            {
                locks[lock].marks.remove(.doubtful)
            }
        }
        dropForeignEntries()
        claimAgain(&effects)
        effects.append(.recoveryFinished(epoch))
        for resource in 1..<resources.bound where resources[resource].mastery == .local {
            endCancelled(resource, &effects)
            serveQueues(resource, ignoringOrder: true, &effects)
            refuseImpatient(resource, &effects)
            releaseIfUnused(resource, &effects)
        }
        settleDoubts(&effects)
        runDeferred(&effects)
        resumeRequests(&effects)
        receiveHeld(&effects)
    }

    /// I10: what a new master may believe.
    private mutating func judgeValue(_ resource: UInt32) {
        let marks = resources[resource].marks
        let isNew = resources[root(of: resource)].marks.contains(.newMaster)
        if !isNew || marks.contains(.vouched) || !recovery.someoneDeparted {
            return
        }
        for queue in [Queue.granted, .converting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                if locks[lock].granted > .concurrentRead { return }
                lock = following(lock, head: first)
            }
        }
        invalidateValue(resource)
    }

    /// A converting lock whose old mode conflicts with somebody's granted mode had been granted its
    /// new mode: the answer was lost with the old epoch (I3). Where two conversions in opposite
    /// directions conflict, one of them was granted: the one whose new mode agrees with all the
    /// others, or either, as neither holder relies on more than CR.
    private mutating func grantProvenConversions(
        _ resource: UInt32,
        _ effects: inout [LockEffect]
    ) {
        var remaining = queueLength(resource, .converting)
        var lock = resources[resource].converting
        while remaining > 0 {
            remaining -= 1
            let next = locks[lock].next
            let isSideways = !locks[lock].requested.covers(locks[lock].granted)
            if isSideways && conflicts(resource, locks[lock].granted, except: lock)
                && !conflicts(resource, locks[lock].requested, except: lock)
            {
                unlink(lock, from: .converting)
                append(lock, to: .granted)
                grant(lock, locks[lock].requested, &effects)
            }
            lock = next
        }
    }

    /// Refuses what was queued while nothing could be decided but would rather be refused than wait, and ends
    /// what was cancelled meanwhile: one after the other, as each makes room for those behind it.
    mutating func refuseImpatient(_ resource: UInt32, _ effects: inout [LockEffect]) {
        while let (lock, queue) = firstImpatient(resource, isCancelled: false) {
            let isCancelled = locks[lock].marks.contains(.cancelRequested)
            let status = isCancelled ? LockStatus.cancelled : .wouldBlock
            if !isCancelled && locks[lock].flags.contains(.noQueueButNotify) {
                notifyOf(lock, &effects)
            }
            refuse(lock, in: queue, status, &effects)
            serveQueues(resource, ignoringOrder: true, &effects)
        }
    }

    /// Ends what was cancelled during the recovery before anything is granted.
    private mutating func endCancelled(_ resource: UInt32, _ effects: inout [LockEffect]) {
        while let (lock, queue) = firstImpatient(resource, isCancelled: true) {
            refuse(lock, in: queue, .cancelled, &effects)
        }
    }

    private mutating func refuse(
        _ lock: UInt32,
        in queue: Queue,
        _ status: LockStatus,
        _ effects: inout [LockEffect]
    ) {
        unlink(lock, from: queue)
        if queue == .converting {
            append(lock, to: .granted)
            refuseConversion(lock, status, &effects)
        } else {
            refuseRequest(lock, status, &effects)
        }
    }

    private func firstImpatient(
        _ resource: UInt32,
        isCancelled: Bool
    ) -> (lock: UInt32, queue: Queue)? {
        for queue in [Queue.converting, .waiting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                if locks[lock].marks.contains(.cancelRequested)
                    || (!isCancelled && locks[lock].flags.contains(.noQueue) && mayGrant(lock))
                {
                    return (lock, queue)
                }
                lock = following(lock, head: first)
            }
        }
        return nil
    }

    /// Sends what the client asked while nothing could be sent.
    private mutating func resumeRequests(_ effects: inout [LockEffect]) {
        for resource in 1..<resources.bound where !resources[resource].isEmpty {
            switch resources[resource].mastery {
            case .unknown:
                if resources[resource].depth > 0 { continue }
                askForMaster(resource, isFresh: false, &effects)
                masterIsKnown(resource, &effects)
            case .remote:
                endReportedUnlocks(resource, &effects)
                cancelReported(resource, &effects)
                sendAllPending(resource, &effects)
                releaseIfUnused(resource, &effects)
            case .local, .lookingUp, .free: continue
            }
        }
    }

    private mutating func endReportedUnlocks(
        _ resource: UInt32,
        _ effects: inout [LockEffect]
    ) {
        var remaining = queueLength(resource, .granted)
        var lock = resources[resource].granted
        while remaining > 0 {
            remaining -= 1
            let next = locks[lock].next
            if locks[lock].marks.contains(.reportedUnlock) {
                endUnlock(lock, &effects)
            }
            lock = next
        }
        if !hasEstablished(resource) { forgetValue(resource) }
    }

    mutating func cancelReported(_ resource: UInt32, _ effects: inout [LockEffect]) {
        let first = resources[resource].granted
        var lock = first
        while lock != 0 {
            if locks[lock].marks.isSuperset(of: [.cancelRequested, .sent]) {
                send(
                    .cancel(name(of: resource), lock: lockID(lock)),
                    to: resources[resource].master,
                    &effects
                )
            }
            lock = following(lock, head: first)
        }
    }
}
