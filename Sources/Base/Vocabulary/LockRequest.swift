/// One node's claim on a resource, as that node's lock manager names it: a slab index and the
/// number of times the place was used, so that a stale name is recognised.
package struct LockID: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// No lock.
    package static let none = LockID(0)

    package var description: String { "lock \(rawValue & 0xFFFF_FFFF).\(rawValue >> 32)" }
}

/// What a request or conversion asks for besides a mode. Numbers are ours; meanings are VMS's and
/// Linux's ($ENQ; `include/uapi/linux/dlmconstants.h`).
package struct LockFlags: OptionSet, Hashable, Sendable {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// NOQUEUE: be refused (`wouldBlock`) rather than wait.
    package static let noQueue = LockFlags(rawValue: 1 << 0)
    /// NOQUEUEBAST: with `noQueue`, tell those who are in the way all the same.
    package static let noQueueButNotify = LockFlags(rawValue: 1 << 1)
    /// VALBLK: the value block travels with this operation.
    package static let valueBlock = LockFlags(rawValue: 1 << 2)
    /// IVVALBLK: mark the resource's value block invalid.
    package static let invalidateValueBlock = LockFlags(rawValue: 1 << 3)
    /// QUECVT: a conversion goes behind those that wait already.
    package static let queueConversion = LockFlags(rawValue: 1 << 4)
    /// EXPEDITE: a new null lock, granted at once.
    package static let expedite = LockFlags(rawValue: 1 << 5)
    /// The request belongs to recovery and is granted while ordinary grants wait for the replay of
    /// a dead node's journal.
    package static let recovery = LockFlags(rawValue: 1 << 6)
    /// The name has never existed before anywhere (a newly allocated inode's address and
    /// generation): this node may master it without asking the directory first.
    package static let freshName = LockFlags(rawValue: 1 << 7)
    /// ALTPR: a protected-read grant will do if the wanted mode is not to be had at once.
    package static let alternatePR = LockFlags(rawValue: 1 << 8)
    /// ALTCW: a concurrent-write grant will do.
    package static let alternateCW = LockFlags(rawValue: 1 << 9)
    /// HEADQUE: what has to wait goes to the head of its queue.
    package static let headQueue = LockFlags(rawValue: 1 << 10)
    /// NOORDER: granted as soon as it is compatible, whoever waits before it.
    package static let noOrder = LockFlags(rawValue: 1 << 11)
    /// CONVDEADLK: a conversion that would wait for ever loses its old mode (`demoted`) rather than
    /// be refused. From the moment it is asked, the holder may rely on NL only: never for a lock
    /// that caches.
    package static let demoteOnDeadlock = LockFlags(rawValue: 1 << 12)
    /// NODLCKWT: deadlock searches pass this request over while it waits.
    package static let noDeadlockWait = LockFlags(rawValue: 1 << 13)
    /// NODLCKBLK: deadlock searches do not take this lock for one that blocks: its holder yields
    /// when told.
    package static let noDeadlockBlock = LockFlags(rawValue: 1 << 14)
    /// PERSISTENT: the lock outlives its owner, as an orphan.
    package static let persistent = LockFlags(rawValue: 1 << 15)
    /// ORPHAN: take over an orphan of this name and mode instead of asking for a new lock.
    package static let adoptOrphan = LockFlags(rawValue: 1 << 16)
    /// SYNCSTS: if it can be granted before the call returns, say so there and not by a completion.
    package static let synchronous = LockFlags(rawValue: 1 << 17)
    /// LCK$M_DEQALL: give up the whole tree of locks below this one, and then this one.
    package static let withSublocks = LockFlags(rawValue: 1 << 18)
    /// Refuse (`stopped`) rather than wait for the end of a recovery.
    package static let unlessStopped = LockFlags(rawValue: 1 << 19)

    /// All that have a meaning; others are refused in messages.
    package static let known = LockFlags(rawValue: (1 << 20) - 1)
}

/// On whose behalf a lock is asked for: a process or a transaction of this node, as its client
/// numbers them. Deadlock searches run from owner to owner; without one a lock takes no part.
package struct LockOwner: RawRepresentable, Hashable, Comparable, Sendable,
    CustomStringConvertible
{
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package init(_ rawValue: UInt32) { self.rawValue = rawValue }

    /// Nobody: the node itself, for its caches.
    package static let none = LockOwner(0)

    package static func < (left: LockOwner, right: LockOwner) -> Bool {
        left.rawValue < right.rawValue
    }

    package var description: String { "owner \(rawValue)" }
}

/// What else there is to say of a lock that was granted, or kept.
package struct LockRemarks: OptionSet, Hashable, Sendable {
    package var rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// DEMOTED: the old mode was lost to break a deadlock (`LockFlags.demoteOnDeadlock`).
    package static let demoted = LockRemarks(rawValue: 1 << 0)
    /// ALTMODE: granted in an alternative mode.
    package static let alternateMode = LockRemarks(rawValue: 1 << 1)
    /// An orphan was taken over.
    package static let adopted = LockRemarks(rawValue: 1 << 2)

    /// All that have a meaning.
    package static let known = LockRemarks(rawValue: 7)
}

/// How a request, conversion or unlock ended.
package enum LockStatus: UInt8, CaseIterable, Hashable, Sendable {
    case granted = 0
    /// Refused because it would have had to wait (EAGAIN).
    case wouldBlock = 1
    /// Withdrawn by `cancel`; a converting lock keeps its old mode.
    case cancelled = 2
    /// Refused to break a deadlock (EDEADLK).
    case deadlock = 3
    /// Waited longer than it was willing to.
    case timedOut = 4
    /// The lock is gone: the answer to an unlock.
    case unlocked = 5
    /// The lockspace shut down or this node was put out of it; nothing is held any more.
    case shutDown = 6
    /// Something is being asked of this lock already, or its name is stale (EBUSY).
    case busy = 7
    /// A recovery is going on, and the request did not want to wait for its end
    /// (`LockFlags.unlessStopped`).
    case stopped = 8
    /// No orphan of this name (ENOENT).
    case notFound = 9
    /// The lock has locks below it (SS$_SUBLOCKS).
    case hasSublocks = 10
    /// The lock named as parent is not granted, or not on the parent's name (SS$_PARNOTGRANT).
    case parentNotGranted = 11
}

/// What comes back for a request, a conversion or an unlock.
package struct LockCompletion: Hashable, Sendable {
    package var lock: LockID
    /// The number that the client gave with the request for this lock.
    package var cookie: UInt64
    package var status: LockStatus
    /// The granted mode from now on.
    package var mode: LockMode
    /// With `LockFlags.valueBlock` on a grant whose conversion reads it; nil otherwise.
    package var value: ValueBlock?
    /// False when the last writer died before it could hand over what it wrote: read the disk.
    package var isValueValid: Bool
    package var remarks: LockRemarks

    package init(
        lock: LockID,
        cookie: UInt64,
        status: LockStatus,
        mode: LockMode,
        value: ValueBlock?,
        isValueValid: Bool,
        remarks: LockRemarks = []
    ) {
        self.lock = lock
        self.cookie = cookie
        self.status = status
        self.mode = mode
        self.value = value
        self.isValueValid = isValueValid
        self.remarks = remarks
    }
}
