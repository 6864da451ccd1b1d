// The master's decisions: who is granted, who waits, who is told.
//
// - A conversion is granted at once if its mode is compatible with the granted modes of all other
// locks,
//   also of those that convert. `queueConversion` sends it behind those that wait already. Once
//   queued, conversions are served strictly in order.
// - A new request is granted at once if nobody waits and it is compatible. Queued, it is served in
// order
//   when no conversion waits.
// - While journals are to be replayed, only requests with `LockFlags.recovery` are looked at; the
// others
//   stand in their queues as if they were not there.
// - `noQueue` is refused instead of queued, when it can be decided: during a recovery, and while journals are to be replayed, it
// stands in its queue, because nobody may be in its way.

package import Vocabulary

/// Bit per mode: the modes compatible with `mode`. `LockMode.isCompatible` in one shift; a test
/// compares.
@inline(__always)
func compatibleModes(_ mode: LockMode) -> UInt8 {
    UInt8(truncatingIfNeeded: UInt64(0x01_03_0B_07_1F_3F) >> (UInt64(mode.rawValue) * 8))
}

/// Whether `queueConversion` means anything for this conversion (Linux `fs/dlm/lock.c`, QUECVT
/// table).
package func isQueueConversionLegal(from: LockMode, to: LockMode) -> Bool {
    switch from {
    case .null: to > .null
    case .concurrentRead: to > .concurrentRead
    case .concurrentWrite: to > .concurrentWrite
    case .protectedRead: to > .protectedRead || to == .concurrentWrite
    case .protectedWrite: to == .exclusive
    case .exclusive: false
    }
}

extension Lockspace {
    /// Whether this node decides on a resource it masters at present: not during a recovery, nor
    /// while the tree's locks are on their way to another master (M3).
    @inline(__always)
    func isServing(_ resource: UInt32) -> Bool {
        status == .running && (movingTrees == 0 || !isFrozen(resource))
    }

    /// Whether a lock may be granted what it asks for now, other locks apart (I9).
    @inline(__always)
    func mayGrant(_ lock: UInt32) -> Bool {
        isServing(locks[lock].resource)
            && (!isReplayPending || locks[lock].flags.contains(.recovery))
    }

    /// Whether `mode` conflicts with the granted mode of any lock but `lock`.
    @inline(__always)
    func conflicts(_ resource: UInt32, _ mode: LockMode, except lock: UInt32) -> Bool {
        if resources[resource].kind.isOfBytes {
            return firstObstacle(lock, mode) != 0
        }
        let mask = compatibleModes(mode)
        let granted = resources[resource].granted
        var other = granted
        while other != 0 {
            if other != lock && mask & (1 << locks[other].granted.rawValue) == 0 { return true }
            other = following(other, head: granted)
        }
        let converting = resources[resource].converting
        other = converting
        while other != 0 {
            if other != lock && mask & (1 << locks[other].granted.rawValue) == 0 { return true }
            other = following(other, head: converting)
        }
        return false
    }

    /// The mode a lock can have beside the others: what it asks for, or an alternative that it
    /// accepts.
    func compatibleMode(_ lock: UInt32) -> LockMode? {
        let resource = locks[lock].resource
        if !conflicts(resource, locks[lock].requested, except: lock) {
            return locks[lock].requested
        }
        let flags = locks[lock].flags
        if flags.isDisjoint(with: [.alternatePR, .alternateCW]) { return nil }
        for (flag, mode) in [
            (LockFlags.alternatePR, LockMode.protectedRead),
            (LockFlags.alternateCW, LockMode.concurrentWrite),
        ] where flags.contains(flag) {
            // Never sideways: the holder, who asked for more, would rely on its old mode until it
            // hears.
            let gains =
                locks[lock].state == .waiting
                || (mode != locks[lock].granted && mode.covers(locks[lock].granted))
            if gains && !conflicts(resource, mode, except: lock) { return mode }
        }
        return nil
    }

    /// Whether somebody stands in a queue who may be granted at present.
    @inline(__always)
    func hasEligible(_ resource: UInt32, _ queue: Queue) -> Bool {
        let first = head(resource, queue)
        if first == 0 { return false }
        if !isReplayPending { return true }
        var lock = first
        while lock != 0 {
            if locks[lock].flags.contains(.recovery) { return true }
            lock = following(lock, head: first)
        }
        return false
    }

    // MARK: Decisions

    /// Decides on a new lock that is linked nowhere yet.
    mutating func decideRequest(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let resource = locks[lock].resource
        if locks[lock].marks.contains(.question) && mayGrant(lock) {
            return answerQuestion(lock, &effects)
        }
        if let mode = modeToGrantNow(lock) {
            append(lock, to: .granted)
            grant(lock, mode, &effects)
            // Granted out of turn, it may stand in the way of those it has passed.
            if resources[resource].converting | resources[resource].waiting != 0 {
                notifyBlockers(resource, &effects)
            }
            return
        }
        if mayGrant(lock) && locks[lock].flags.contains(.noQueue) {
            if locks[lock].flags.contains(.noQueueButNotify) { notifyOf(lock, &effects) }
            refuseRequest(lock, .wouldBlock, &effects)
            releaseIfUnused(resource, &effects)
            return
        }
        enqueue(lock, .waiting)
        counters.waits += 1
        if mayGrant(lock) { notifyBlockers(resource, &effects) }
    }

    private func modeToGrantNow(_ lock: UInt32) -> LockMode? {
        guard mayGrant(lock) else { return nil }
        if let mode = expeditedMode(lock) { return mode }
        let resource = locks[lock].resource
        if locks[lock].flags.contains(.noOrder) { return compatibleMode(lock) }
        if hasEligible(resource, .converting) { return nil }
        if !locks[lock].flags.contains(.headQueue) && hasEligible(resource, .waiting) { return nil }
        return compatibleMode(lock)
    }

    /// Null for a request that nothing can hold up.
    @inline(__always)
    func expeditedMode(_ lock: UInt32) -> LockMode? {
        locks[lock].flags.contains(.expedite) && locks[lock].requested == .null ? .null : nil
    }

    /// Decides on a conversion of a lock in the granted queue. What it writes was written already.
    mutating func decideConversion(
        _ lock: UInt32,
        to mode: LockMode,
        _ flags: LockFlags,
        _ effects: inout [LockEffect]
    ) {
        let resource = locks[lock].resource
        locks[lock].requested = mode
        locks[lock].flags = flags
        if locks[lock].granted.covers(mode) {
            let isLess = locks[lock].granted != mode
            grant(lock, mode, &effects)
            if isServing(resource) {
                if isLess {
                    serveQueues(resource, &effects)
                } else {
                    notifyBlockers(resource, &effects)
                }
            }
            return
        }
        let goesBehind =
            flags.contains(.queueConversion) && flags.isDisjoint(with: [.noOrder, .headQueue])
            && isQueueConversionLegal(from: locks[lock].granted, to: mode)
            && hasEligible(resource, .converting)
        if mayGrant(lock) && !goesBehind, let granted = compatibleMode(lock) {
            grant(lock, granted, &effects)
            // Sideways (PR to CW) makes room as well.
            serveQueues(resource, &effects)
            return
        }
        if mayGrant(lock) && flags.contains(.noQueue) {
            if flags.contains(.noQueueButNotify) { notifyOf(lock, &effects) }
            refuseConversion(lock, .wouldBlock, &effects)
            return
        }
        queueConversion(lock, &effects)
    }

    /// Queues a conversion, unless it would wait for ever (Deadlocks.swift, D1).
    private mutating func queueConversion(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let resource = locks[lock].resource
        let isDeadlock = mayGrant(lock) && wouldDeadlock(lock)
        if isDeadlock && !locks[lock].flags.contains(.demoteOnDeadlock) {
            counters.deadlocks += 1
            refuseConversion(lock, .deadlock, &effects)
            return
        }
        unlink(lock, from: .granted)
        locks[lock].state = .converting
        locks[lock].marks.remove(.sent)
        enqueue(lock, .converting)
        counters.waits += 1
        if isDeadlock {
            counters.demotions += 1
            locks[lock].granted = .null
            locks[lock].marks.insert(.demoted)
            serveQueues(resource, &effects)
        } else if mayGrant(lock) {
            notifyBlockers(resource, &effects)
        }
    }

    /// Puts a lock that has to wait into its queue: at the end, or with HEADQUE at the head.
    mutating func enqueue(_ lock: UInt32, _ queue: Queue) {
        append(lock, to: queue)
        if locks[lock].flags.contains(.headQueue) { makeFirst(lock, in: queue) }
        noteChange(lock)
    }

    /// What others have to do with this lock is no longer the same.
    @inline(__always)
    mutating func noteChange(_ lock: UInt32) {
        locks[lock].changes &+= 1
        locks[lock].since = stamp
    }

    /// Removes a granted lock. What it writes was written already.
    mutating func decideUnlock(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let resource = locks[lock].resource
        unlink(lock, from: .granted)
        if locks[lock].holder == node {
            complete(lock, .unlocked, .null, &effects)
        } else {
            send(
                .unlocked(name(of: resource), lock: LockID(locks[lock].identity)),
                to: locks[lock].holder,
                &effects
            )
        }
        freeLock(lock)
        if isServing(resource) { serveQueues(resource, &effects) }
        releaseIfUnused(resource, &effects)
    }

    /// Withdraws what waits. A granted lock is left alone: the grant was faster.
    mutating func decideCancel(_ lock: UInt32, _ effects: inout [LockEffect]) {
        endWaiting(lock, .cancelled, &effects)
    }

    /// Ends what waits without a grant. Does nothing for a granted lock.
    mutating func endWaiting(_ lock: UInt32, _ status: LockStatus, _ effects: inout [LockEffect]) {
        let resource = locks[lock].resource
        switch locks[lock].state {
        case .waiting:
            unlink(lock, from: .waiting)
            refuseRequest(lock, status, &effects)
        case .converting:
            unlink(lock, from: .converting)
            append(lock, to: .granted)
            refuseConversion(lock, status, &effects)
        default: return
        }
        if isServing(resource) { serveQueues(resource, &effects) }
        releaseIfUnused(resource, &effects)
    }

    // MARK: Outcomes

    /// Makes a lock in the granted queue granted in `mode`, and tells its holder.
    @inline(__always)
    mutating func grant(_ lock: UInt32, _ mode: LockMode, _ effects: inout [LockEffect]) {
        let resource = locks[lock].resource
        let direction = valueDirection(
            from: locks[lock].state == .waiting ? nil : locks[lock].granted,
            to: mode
        )
        var remarks = demotedRemark(lock)
        if locks[lock].requested != mode { remarks.insert(.alternateMode) }
        locks[lock].state = .granted
        locks[lock].granted = mode
        locks[lock].requested = mode
        locks[lock].told = 0
        noteChange(lock)
        counters.grants += 1
        if locks[lock].holder != node {
            locks[lock].marks.remove(.demoted)
            send(
                .granted(
                    name(of: resource),
                    lock: LockID(locks[lock].identity),
                    mode: mode,
                    remarks: remarks,
                    value: direction == .read ? sequencedValue(resource) : nil
                ),
                to: locks[lock].holder,
                &effects
            )
            return
        }
        locks[lock].marks.formIntersection(.lasting)
        var value: ValueBlock?
        if direction == .read && locks[lock].flags.contains(.valueBlock) {
            let index = resources[resource].value
            value = index == 0 ? ValueBlock.zero : values[index].value
        }
        complete(lock, .granted, mode, value: value, remarks: remarks, &effects)
    }

    /// Tells this node's client how an operation ended.
    @inline(__always)
    mutating func complete(
        _ lock: UInt32,
        _ status: LockStatus,
        _ mode: LockMode,
        value: ValueBlock? = nil,
        remarks: LockRemarks = [],
        isValueValid: Bool? = nil,
        obstacle: LockObstacle? = nil,
        _ effects: inout [LockEffect]
    ) {
        let index = resources[locks[lock].resource].value
        var completion = LockCompletion(
            lock: lockID(lock),
            cookie: locks[lock].identity,
            status: status,
            mode: mode,
            value: value,
            isValueValid: isValueValid ?? (index == 0 || values[index].isValid),
            remarks: remarks
        )
        completion.obstacle = obstacle
        let special = locks[lock].marks.intersection([.expired, .doomed, .orphan])
        if locks[lock].wait == 0 && special.isEmpty && synchronousLock == .none {
            effects.append(.complete(completion))
        } else {
            completeSpecially(lock, completion, &effects)
        }
    }

    private mutating func completeSpecially(
        _ lock: UInt32,
        _ completion: LockCompletion,
        _ effects: inout [LockEffect]
    ) {
        var completion = completion
        if locks[lock].wait != 0 { endWait(lock) }
        if locks[lock].marks.contains(.expired) {
            locks[lock].marks.remove(.expired)
            if completion.status == .cancelled {
                completion.status = .timedOut
                counters.timeouts += 1
            }
        }
        if locks[lock].marks.contains(.doomed) { ripe.append(completion.lock) }
        if locks[lock].marks.contains(.orphan) { return }  // O1
        if completion.lock == synchronousLock && completion.status == .granted {
            synchronousCompletion = completion
        } else {
            effects.append(.complete(completion))
        }
    }

    /// Ends a new, unlinked lock that is not granted.
    mutating func refuseRequest(
        _ lock: UInt32,
        _ status: LockStatus,
        obstacle: LockObstacle? = nil,
        _ effects: inout [LockEffect]
    ) {
        counters.refusals += 1
        if locks[lock].holder == node {
            complete(lock, status, .null, obstacle: obstacle, &effects)
        } else {
            send(
                .refused(
                    name(of: locks[lock].resource),
                    lock: LockID(locks[lock].identity),
                    status: status,
                    remarks: [],
                    obstacle: obstacle
                ),
                to: locks[lock].holder,
                &effects
            )
        }
        freeLock(lock)
    }

    /// Lets a lock in the granted queue keep its mode.
    mutating func refuseConversion(
        _ lock: UInt32,
        _ status: LockStatus,
        _ effects: inout [LockEffect]
    ) {
        counters.refusals += 1
        let remarks = demotedRemark(lock)
        locks[lock].marks.remove(.demoted)
        locks[lock].state = .granted
        locks[lock].requested = locks[lock].granted
        noteChange(lock)
        // It may have been cancelled before, while somebody else or nobody decided.
        locks[lock].marks.remove(.cancelRequested)
        if locks[lock].holder == node {
            complete(lock, status, locks[lock].granted, remarks: remarks, &effects)
        } else {
            send(
                .refused(
                    name(of: locks[lock].resource),
                    lock: LockID(locks[lock].identity),
                    status: status,
                    remarks: remarks
                ),
                to: locks[lock].holder,
                &effects
            )
        }
    }

    // MARK: Queues

    /// Grants what can be granted now, in order; then tells who stands in the way of the rest (I4,
    /// I5). `ignoringOrder` is for conversions after a recovery: their order was lost, and a
    /// made-up order would manufacture deadlocks.
    @inline(__always)
    mutating func serveQueues(
        _ resource: UInt32,
        ignoringOrder: Bool = false,
        _ effects: inout [LockEffect]
    ) {
        if resources[resource].converting | resources[resource].waiting == 0 { return }
        serveWaiters(resource, ignoringOrder: ignoringOrder, &effects)
    }

    private mutating func serveWaiters(
        _ resource: UInt32,
        ignoringOrder: Bool,
        _ effects: inout [LockEffect]
    ) {
        // Again, as one that was granted sideways, out of turn, may have made room before it.
        while serveConversions(resource, ignoringOrder: ignoringOrder, &effects) {}
        serveRequests(resource, &effects)
        notifyBlockers(resource, &effects)
    }

    /// One pass over the conversion queue. Returns whether anything was granted.
    private mutating func serveConversions(
        _ resource: UInt32,
        ignoringOrder: Bool,
        _ effects: inout [LockEffect]
    ) -> Bool {
        var hasGranted = false
        var isBlocked = false
        var remaining = queueLength(resource, .converting)
        var lock = resources[resource].converting
        while remaining > 0 {
            remaining -= 1
            let next = locks[lock].next
            if mayGrant(lock) {
                let mayPass = !isBlocked || ignoringOrder || locks[lock].flags.contains(.noOrder)
                if mayPass, let mode = compatibleMode(lock) {
                    unlink(lock, from: .converting)
                    append(lock, to: .granted)
                    grant(lock, mode, &effects)
                    hasGranted = true
                } else {
                    isBlocked = true
                }
            }
            lock = next
        }
        return hasGranted
    }

    private mutating func serveRequests(_ resource: UInt32, _ effects: inout [LockEffect]) {
        var isBlocked = hasEligible(resource, .converting)
        var remaining = queueLength(resource, .waiting)
        var lock = resources[resource].waiting
        while remaining > 0 {
            remaining -= 1
            let next = locks[lock].next
            if mayGrant(lock) {
                let mayPass = !isBlocked || locks[lock].flags.contains(.noOrder)
                if locks[lock].marks.contains(.question) {
                    unlink(lock, from: .waiting)
                    answerQuestion(lock, &effects)
                } else if let mode = mayPass ? compatibleMode(lock) : expeditedMode(lock) {
                    unlink(lock, from: .waiting)
                    append(lock, to: .granted)
                    grant(lock, mode, &effects)
                } else {
                    isBlocked = true
                }
            }
            lock = next
        }
    }

    /// How many locks stand in a queue.
    func queueLength(_ resource: UInt32, _ queue: Queue) -> Int {
        let first = head(resource, queue)
        var count = 0
        var lock = first
        while lock != 0 {
            count += 1
            lock = following(lock, head: first)
        }
        return count
    }

    // MARK: Blocking notices

    /// Tells every granted lock that stands in the way of a waiter, strongest want first, unless it
    /// was told of a want that covers it (I5). A converting lock is told once it is granted in its
    /// new mode.
    mutating func notifyBlockers(_ resource: UInt32, _ effects: inout [LockEffect]) {
        let wanted = wantedModes(resource)
        if wanted == 0 { return }
        let first = resources[resource].granted
        var lock = first
        while lock != 0 {
            tell(lock, wanted, &effects)
            lock = following(lock, head: first)
        }
    }

    /// Bit per mode that an eligible waiter asks for.
    func wantedModes(_ resource: UInt32) -> UInt8 {
        var wanted: UInt8 = 0
        if resources[resource].kind.isOfBytes { return 0 }  // B3
        for queue in [Queue.converting, .waiting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                // Who would rather be refused than wait does not disturb anybody.
                if mayGrant(lock) && !locks[lock].flags.contains(.noQueue) {
                    wanted |= 1 << locks[lock].requested.rawValue
                }
                lock = following(lock, head: first)
            }
        }
        return wanted
    }

    /// Tells those who stand in the way of a lock that will be refused.
    mutating func notifyOf(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let wanted: UInt8 = 1 << locks[lock].requested.rawValue
        let first = resources[locks[lock].resource].granted
        var other = first
        while other != 0 {
            if other != lock { tell(other, wanted, &effects) }
            other = following(other, head: first)
        }
    }

    private mutating func tell(_ lock: UInt32, _ wanted: UInt8, _ effects: inout [LockEffect]) {
        let record = locks[lock]
        let blocked = wanted & ~compatibleModes(record.granted)
        if blocked == 0 || record.marks.contains(.deferred) { return }
        for mode in LockMode.strongestFirst where blocked & (1 << mode.rawValue) != 0 {
            if isCovered(mode, by: locks[lock].told) { continue }
            locks[lock].told |= 1 << mode.rawValue
            counters.blockingNotices += 1
            if record.marks.contains(.orphan) && record.holder == node { continue }
            if record.holder == node {
                effects.append(
                    .blocking(cookie: record.identity, lock: lockID(lock), wanted: mode)
                )
            } else {
                send(
                    .blocking(
                        name(of: record.resource),
                        lock: LockID(record.identity),
                        wanted: mode
                    ),
                    to: record.holder,
                    &effects
                )
            }
        }
    }

    /// Whether one of the modes in `told` covers `mode`.
    func isCovered(_ mode: LockMode, by told: UInt8) -> Bool {
        if told == 0 { return false }
        for other in LockMode.strongestFirst where told & (1 << other.rawValue) != 0 {
            if other.covers(mode) { return true }
        }
        return false
    }
}

extension LockMode {
    /// Those that can stand in somebody's way, the strongest first.
    static var strongestFirst: ModesDescending { ModesDescending() }
}

/// The modes from EX down to NL, without an allocation.
struct ModesDescending: Sequence, Sendable {
    struct Iterator: IteratorProtocol {
        var rest: UInt8 = 6

        mutating func next() -> LockMode? {
            if rest == 0 { return nil }
            rest -= 1
            return LockMode(rawValue: rest)
        }
    }

    func makeIterator() -> Iterator { Iterator() }
}
