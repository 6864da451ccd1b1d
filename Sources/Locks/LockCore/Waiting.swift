// Time. The core has no clock: whoever drives it says what time it is, in milliseconds from any
// origin, never backwards. Only waiting locks that somebody is impatient about, or on behalf of an
// owner, have timers; a cache's locks have none and cost nothing here.
//
// T1. A wait with a patience ends at the first tick not before its deadline, as `timedOut`, unless
//     the grant is faster. A recovery does not stop its clock.
// T2. A lock has a timer record only while its holder waits for it.
//
// Source: OpenVMS $ENQ and Linux DLM_LKF_TIMEOUT (fs/dlm, before 6.5), which ends waits alike.

import Vocabulary

/// How a lockspace uses time. All in milliseconds.
package struct LockSettings: Hashable, Sendable {
    /// How long a request with an owner waits before a deadlock is searched for, and again between
    /// two searches. 0: never.
    package var deadlockWait: UInt32 = 1000
    /// How often the use of trees is looked at for moving their masters; 0: they never move.
    package var activityInterval: UInt32 = 1000
    /// A node must have used a tree at least so often in an interval for it to move there.
    package var leastActivity: UInt32 = 16
    /// By how many percent more than its master it must use it.
    package var clearlyMore: UInt32 = 13
    /// Trees with more locks stay where they are.
    package var largestMove: Int = 4096
    /// Moves under way at a time.
    package var mostMoves = 4
    /// How long a tree that has moved stays at least; doubled with each move that follows soon.
    package var restAfterMove: UInt32 = 5000
    /// Of how many trees this node remembers the master when it has no locks on them any more,
    /// rounded down to a power of two. 0: of none.
    package var cachedMasters = 4096

    package init() {}
}

/// The timers of a waiting lock.
struct WaitRecord: SlabRecord, Sendable {
    /// The lock; 0 while the place is free.
    var lock: UInt32 = 0
    var link: UInt32 = 0
    /// When it began to wait.
    var began: UInt64 = 0
    /// When its patience ends; 0: never.
    var deadline: UInt64 = 0
    /// When a deadlock is searched for; 0: never.
    var searchAt: UInt64 = 0
    /// The search that has been here last.
    var seen: UInt64 = 0
}

extension Lockspace {
    /// The time now, coarse enough to fit a lock record: wraps after 497 days.
    @inline(__always)
    var stamp: UInt32 { UInt32(truncatingIfNeeded: now / 10) }

    /// Says what time it is, without looking at what is due. Ages are reckoned from it.
    @inline(__always)
    package mutating func setTime(_ time: UInt64) {
        now = max(now, time)
    }

    /// Says what time it is, and does what is due: ends waits, searches for deadlocks, moves
    /// masters.
    package mutating func tick(_ time: UInt64, effects: inout [LockEffect]) {
        setTime(time)
        if status == .left { return }
        expireWaits(&effects)
        if status == .running {
            searchDeadlocks(&effects)
            reviewActivity(&effects)
        }
        drainMail(&effects)
        if !ripe.isEmpty { dropRipe(&effects) }
    }

    /// When the next tick is due; nil when none is.
    package var nextTick: UInt64? {
        var next: UInt64?
        func consider(_ time: UInt64) {
            if time != 0 && time < next ?? .max { next = time }
        }
        if waits.liveCount > 0 {
            for wait in 1..<waits.bound where waits[wait].lock != 0 {
                consider(waits[wait].deadline)
                if status == .running && settings.deadlockWait > 0 {
                    consider(waits[wait].searchAt)
                }
            }
        }
        if status == .running && activities.liveCount > 0 { consider(reviewAt) }
        return next
    }

    /// Gives a lock that waits its timers; nothing if it does not wait (T2).
    mutating func beginWait(_ id: LockID, patience: UInt32) {
        let lock = localIndex(id)
        if lock == 0 { return }
        let record = locks[lock]
        let isWaiting =
            record.state == .waiting
            || (record.state == .converting && !record.granted.covers(record.requested))
        let isSearched =
            record.owner != .none && settings.deadlockWait > 0
            && !record.flags.contains(.noDeadlockWait)
        if !isWaiting || (patience == 0 && !isSearched) { return }
        let wait = waits.take()
        waits[wait] = WaitRecord(lock: lock, began: now)
        if patience > 0 { waits[wait].deadline = now + UInt64(patience) }
        if isSearched { waits[wait].searchAt = now + UInt64(settings.deadlockWait) }
        locks[lock].wait = wait
    }

    mutating func endWait(_ lock: UInt32) {
        let wait = locks[lock].wait
        locks[lock].wait = 0
        waits[wait].lock = 0
        waits.release(wait)
    }

    mutating func endAllWaits() {
        for wait in 1..<waits.bound where waits[wait].lock != 0 { endWait(waits[wait].lock) }
    }

    /// After a recovery everything is asked anew, and searches begin anew.
    mutating func restartSearches() {
        for wait in 1..<waits.bound where waits[wait].lock != 0 && waits[wait].searchAt != 0 {
            waits[wait].searchAt = now + UInt64(settings.deadlockWait)
            waits[wait].seen = 0
        }
    }

    /// T1.
    private mutating func expireWaits(_ effects: inout [LockEffect]) {
        if waits.liveCount == 0 { return }
        for wait in 1..<waits.bound {
            let record = waits[wait]
            if record.lock == 0 || record.deadline == 0 || record.deadline > now { continue }
            waits[wait].deadline = 0
            locks[record.lock].marks.insert(.expired)
            withdrawWait(lockID(record.lock), &effects)
        }
    }
}
