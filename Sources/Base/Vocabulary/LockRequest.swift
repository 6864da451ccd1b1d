/// One node's claim on a resource, as that node's lock manager names it: a slab index and the
/// number of times the place was used, so that a stale name is recognised.
public struct LockID: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The number it stands as in messages and records.
    public var rawValue: UInt64

    /// Made of its parts.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Made of its parts.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// No lock.
    public static let none = LockID(0)

    /// For people.
    public var description: String { "lock \(rawValue & 0xFFFF_FFFF).\(rawValue >> 32)" }
}

/// What a request or conversion asks for besides a mode. Numbers are ours; meanings are VMS's and
/// Linux's ($ENQ; `include/uapi/linux/dlmconstants.h`).
public struct LockFlags: OptionSet, Hashable, Sendable {
    /// The number it stands as in messages and records.
    public var rawValue: UInt32

    /// Made of its parts.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// NOQUEUE: be refused (`wouldBlock`) rather than wait.
    public static let noQueue = LockFlags(rawValue: 1 << 0)
    /// NOQUEUEBAST: with `noQueue`, tell those who are in the way all the same.
    public static let noQueueButNotify = LockFlags(rawValue: 1 << 1)
    /// VALBLK: the value block travels with this operation.
    public static let valueBlock = LockFlags(rawValue: 1 << 2)
    /// IVVALBLK: mark the resource's value block invalid.
    public static let invalidateValueBlock = LockFlags(rawValue: 1 << 3)
    /// QUECVT: a conversion goes behind those that wait already.
    public static let queueConversion = LockFlags(rawValue: 1 << 4)
    /// EXPEDITE: a new null lock, granted at once.
    public static let expedite = LockFlags(rawValue: 1 << 5)
    /// The request belongs to recovery and is granted while ordinary grants wait for the replay of
    /// a dead node's journal.
    public static let recovery = LockFlags(rawValue: 1 << 6)
    /// The name has never existed before anywhere (a newly allocated inode's address and
    /// generation): this node may master it without asking the directory first.
    public static let freshName = LockFlags(rawValue: 1 << 7)
    /// ALTPR: a protected-read grant will do if the wanted mode is not to be had at once.
    public static let alternatePR = LockFlags(rawValue: 1 << 8)
    /// ALTCW: a concurrent-write grant will do.
    public static let alternateCW = LockFlags(rawValue: 1 << 9)
    /// HEADQUE: what has to wait goes to the head of its queue.
    public static let headQueue = LockFlags(rawValue: 1 << 10)
    /// NOORDER: granted as soon as it is compatible, whoever waits before it.
    public static let noOrder = LockFlags(rawValue: 1 << 11)
    /// CONVDEADLK: a conversion that would wait for ever loses its old mode (`demoted`) rather than
    /// be refused. From the moment it is asked, the holder may rely on NL only: never for a lock
    /// that caches.
    public static let demoteOnDeadlock = LockFlags(rawValue: 1 << 12)
    /// NODLCKWT: deadlock searches pass this request over while it waits.
    public static let noDeadlockWait = LockFlags(rawValue: 1 << 13)
    /// NODLCKBLK: deadlock searches do not take this lock for one that blocks: its holder yields
    /// when told.
    public static let noDeadlockBlock = LockFlags(rawValue: 1 << 14)
    /// PERSISTENT: the lock outlives its owner, as an orphan.
    public static let persistent = LockFlags(rawValue: 1 << 15)
    /// ORPHAN: take over an orphan of this name and mode instead of asking for a new lock.
    public static let adoptOrphan = LockFlags(rawValue: 1 << 16)
    /// SYNCSTS: if it can be granted before the call returns, say so there and not by a completion.
    public static let synchronous = LockFlags(rawValue: 1 << 17)
    /// LCK$M_DEQALL: give up the whole tree of locks below this one, and then this one.
    public static let withSublocks = LockFlags(rawValue: 1 << 18)
    /// Refuse (`stopped`) rather than wait for the end of a recovery.
    public static let unlessStopped = LockFlags(rawValue: 1 << 19)

    /// F_GETLK: nothing is granted. The answer is who stands in the way (`wouldBlock`), or that nobody
    /// does (`notFound`). For ranges of bytes.
    public static let question = LockFlags(rawValue: 1 << 20)

    /// All that have a meaning; others are refused in messages.
    public static let known = LockFlags(rawValue: (1 << 21) - 1)
}

/// On whose behalf a lock is asked for: a process or a transaction of this node, as its client
/// numbers them. Deadlock searches run from owner to owner; without one a lock takes no part.
public struct LockOwner: RawRepresentable, Hashable, Comparable, Sendable,
    CustomStringConvertible
{
    /// The number it stands as in messages and records.
    public var rawValue: UInt32

    /// Made of its parts.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Made of its parts.
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }

    /// Nobody: the node itself, for its caches.
    public static let none = LockOwner(0)

    /// By number.
    public static func < (left: LockOwner, right: LockOwner) -> Bool {
        left.rawValue < right.rawValue
    }

    /// For people.
    public var description: String { "owner \(rawValue)" }
}

/// What else there is to say of a lock that was granted, or kept.
public struct LockRemarks: OptionSet, Hashable, Sendable {
    /// The number it stands as in messages and records.
    public var rawValue: UInt8

    /// Made of its parts.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// DEMOTED: the old mode was lost to break a deadlock (`LockFlags.demoteOnDeadlock`).
    public static let demoted = LockRemarks(rawValue: 1 << 0)
    /// ALTMODE: granted in an alternative mode.
    public static let alternateMode = LockRemarks(rawValue: 1 << 1)
    /// An orphan was taken over.
    public static let adopted = LockRemarks(rawValue: 1 << 2)

    /// All that have a meaning.
    public static let known = LockRemarks(rawValue: 7)
}

/// How a request, conversion or unlock ended.
public enum LockStatus: UInt8, CaseIterable, Hashable, Sendable {
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
    /// No orphan of this name (ENOENT); nobody stands in the way (`LockFlags.question`).
    case notFound = 9
    /// The lock has locks below it (SS$_SUBLOCKS).
    case hasSublocks = 10
    /// The lock named as parent is not granted, or not on the parent's name (SS$_PARNOTGRANT).
    case parentNotGranted = 11
}

/// What comes back for a request, a conversion or an unlock.
public struct LockCompletion: Hashable, Sendable {
    /// The lock it is about; `none` if there was none.
    public var lock: LockID
    /// The number that the client gave with the request for this lock.
    public var cookie: UInt64
    /// How it ended.
    public var status: LockStatus
    /// The granted mode from now on.
    public var mode: LockMode
    /// With `LockFlags.valueBlock` on a grant whose conversion reads it; nil otherwise.
    public var value: ValueBlock?
    /// False when the last writer died before it could hand over what it wrote: read the disk.
    public var isValueValid: Bool
    /// What else there is to say.
    public var remarks: LockRemarks
    /// The answer to a question: who stands in the way.
    public var obstacle: LockObstacle?

    /// Made of its parts.
    public init(
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
        obstacle = nil
    }
}
