/// One node's claim on a resource, as that node's lock manager names it: a slab index and the
/// number of times the place was used, so that a stale name is recognised.
public struct LockID: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The number itself.
    public var rawValue: UInt64

    /// The one with this number.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The one with this number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// No lock.
    public static let none = LockID(0)

    /// For logs and reports.
    public var description: String { "lock \(rawValue & 0xFFFF_FFFF).\(rawValue >> 32)" }
}

/// What a request or conversion asks for besides a mode. Numbers are ours; meanings are VMS's and
/// Linux's ($ENQ; `include/uapi/linux/dlmconstants.h`).
public struct LockFlags: OptionSet, Hashable, Sendable {
    /// The number itself.
    public var rawValue: UInt32

    /// The one with this number.
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
}

/// How a request, conversion or unlock ended.
public enum LockStatus: UInt8, Hashable, Sendable {
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
}

/// What comes back for a request, a conversion or an unlock.
public struct LockCompletion: Hashable, Sendable {
    /// Whose operation it was.
    public var lock: LockID
    /// The number that the client gave with the request for this lock.
    public var cookie: UInt64
    /// How the operation ended.
    public var status: LockStatus
    /// The granted mode from now on.
    public var mode: LockMode
    /// With `LockFlags.valueBlock` on a grant whose conversion reads it; nil otherwise.
    public var value: ValueBlock?
    /// False when the last writer died before it could hand over what it wrote: read the disk.
    public var isValueValid: Bool

    /// From its parts.
    public init(
        lock: LockID,
        cookie: UInt64,
        status: LockStatus,
        mode: LockMode,
        value: ValueBlock?,
        isValueValid: Bool
    ) {
        self.lock = lock
        self.cookie = cookie
        self.status = status
        self.mode = mode
        self.value = value
        self.isValueValid = isValueValid
    }
}
