// What a lockspace stores: resources, locks, value blocks. Plain data; the meaning is in the essay
// at the head of Lockspace.swift.

import Vocabulary

/// What this node knows about who decides on a resource.
enum Mastery: UInt8, Sendable {
    /// The place in the slab is free.
    case free
    /// Nobody was asked. While the lockspace runs, only records without locks are in this state.
    case unknown
    /// The directory node was asked and has not answered.
    case lookingUp
    /// `master` decides.
    case remote
    /// This node decides.
    case local
}

/// Short-lived facts about a resource.
struct ResourceMarks: OptionSet, Sendable {
    let rawValue: UInt8

    /// Self-mastered as a fresh name; the directory has not acknowledged it.
    static let claimPending = ResourceMarks(rawValue: 1 << 0)
    /// Which of the two batches of claims it belongs to (see Claims.swift).
    static let claimBatch = ResourceMarks(rawValue: 1 << 1)
    /// This node became its master in the recovery that is not finished yet.
    static let newMaster = ResourceMarks(rawValue: 1 << 2)
    /// Its remote master was learned in the recovery that is not finished yet.
    static let provisional = ResourceMarks(rawValue: 1 << 3)
    /// This node became the master by a move while it had asked the directory who is: the answer is
    /// still to come (M7). The bit of `provisional`, which is for masters elsewhere.
    static let answerPending = ResourceMarks(rawValue: 1 << 3)
    /// The master that left said that the value known here is the last one (see Leaving.swift).
    static let vouched = ResourceMarks(rawValue: 1 << 4)
    /// The mastership of the tree is moving to another node (see Moving.swift). On roots.
    static let moving = ResourceMarks(rawValue: 1 << 5)
    /// On the old master: the locks are on their way to the new one, nothing is decided here any
    /// more. With `moving`.
    static let transferred = ResourceMarks(rawValue: 1 << 6)
    /// On the new master: the directory has not said yet that its entry names this node (M5).
    static let entryPending = ResourceMarks(rawValue: 1 << 7)
    /// On a holder: its master has not shown yet that it knows this node's locks. The bit of
    /// `entryPending`, which is for trees mastered here.
    static let unproven = ResourceMarks(rawValue: 1 << 7)
}

/// One name. On its master: all locks of all nodes in three queues. Elsewhere: this node's own
/// locks, all in the `granted` list whatever their state. On its directory node: who the master is.
/// A part of a tree has the mastery of its root, copied into its record (I12).
struct ResourceRecord: SlabRecord, Sendable {
    /// The last number of the name.
    var number: UInt64 = 0
    /// Of a root: its generation. Of a part: the place of the record above it.
    var generation: UInt64 = 0
    /// Next in the hash chain, or next free place.
    var link: UInt32 = 0
    /// Heads of circular lists of locks; 0 when empty.
    var granted: UInt32 = 0
    var converting: UInt32 = 0
    var waiting: UInt32 = 0
    /// The value block known here, 0 when it was never written. On the master: the value block.
    var value: UInt32 = 0
    var master = NodeID.none
    /// On the directory node: who masters the resource, `none` when nobody does.
    var directoryMaster = NodeID.none
    /// Its links in its tree (Trees.swift); 0 for a root without parts.
    var tree: UInt32 = 0
    /// Who uses the tree how much (Activity.swift); of roots mastered here, and only once another
    /// node has used it.
    var activity: UInt32 = 0
    var kind = ResourceKind.application
    var mastery = Mastery.free
    var marks: ResourceMarks = []
    /// Levels below the root.
    var depth: UInt8 = 0

    /// The place of the record above; only of a part.
    var parent: UInt32 {
        @inline(__always) get { UInt32(truncatingIfNeeded: generation) }
    }

    /// Whether no lock is linked here.
    var isEmpty: Bool {
        @inline(__always) get { granted | converting | waiting == 0 }
    }
}

/// Where a lock stands.
enum LockState: UInt8, Sendable {
    /// The place in the slab is free.
    case free
    /// Granted, nothing asked.
    case granted
    /// Granted in one mode, asks for another.
    case converting
    /// Not granted, asks for a mode.
    case waiting
    /// Only on the holder of a lock mastered elsewhere: the master was or will be told to unlock.
    case unlocking
}

/// Short-lived facts about a lock.
struct LockMarks: OptionSet, Sendable {
    let rawValue: UInt16

    /// The master was told what is asked.
    static let sent = LockMarks(rawValue: 1 << 0)
    /// The master has a copy of this lock.
    static let established = LockMarks(rawValue: 1 << 1)
    /// The client wants the operation withdrawn.
    static let cancelRequested = LockMarks(rawValue: 1 << 2)
    /// The pending operation wrote the value block known here.
    static let wrote = LockMarks(rawValue: 1 << 3)
    /// On the master: a copy from a transfer that was opened in a recovery, which its holder has not
    /// confirmed.
    static let unconfirmed = LockMarks(rawValue: 1 << 4)
    /// Given up, and the master was told by a report: over when the recovery is.
    static let reportedUnlock = LockMarks(rawValue: 1 << 6)
    /// A demotion waits until claims are acknowledged.
    static let deferred = LockMarks(rawValue: 1 << 5)
    /// The old mode of this converting lock was taken to break a deadlock, and its client does not
    /// know yet.
    static let demoted = LockMarks(rawValue: 1 << 7)
    /// Its patience is at an end: the client hears `timedOut` instead of `cancelled`.
    static let expired = LockMarks(rawValue: 1 << 8)
    /// Goes as soon as nothing is asked of it and nothing is below it (`LockFlags.withSublocks`).
    static let doomed = LockMarks(rawValue: 1 << 9)
    /// Has outlived its owner (`LockFlags.persistent`).
    static let orphan = LockMarks(rawValue: 1 << 10)
    /// On the holder: the master's copy may differ, because a change of view may have lost what was
    /// asked, or its answer. Until the end of a recovery in which it was reported.
    static let doubtful = LockMarks(rawValue: 1 << 11)

    /// A lock of a range of bytes (ByteRanges.swift).
    static let ofBytes = LockMarks(rawValue: 1 << 12)
    /// Only asks who is in the way (`LockFlags.question`).
    static let question = LockMarks(rawValue: 1 << 13)

    /// What an answer of the master does not end.
    static let lasting: LockMarks = [.doomed, .orphan, .expired, .ofBytes, .question]
}

/// One claim on a resource: of this node's client, or, on the master, the copy of another node's.
/// 56 bytes: the numbers of nodes and the flags are kept short.
struct LockRecord: SlabRecord, Sendable {
    /// This node's lock: the client's cookie. A copy: the lock's `LockID` on its holder.
    var identity: UInt64 = 0
    var resource: UInt32 = 0
    var next: UInt32 = 0
    var previous: UInt32 = 0
    /// How often the place was used; never 0.
    var generation: UInt32 = 1
    private var shortHolder: UInt16 = 0
    private var lowFlags: UInt16 = 0
    /// On whose behalf; numbered by the holder.
    var owner = LockOwner.none
    /// On the holder: the lock this one stands below; 0 for none. Of a lock of a range, which
    /// stands below none: the place of its bytes, on the master too.
    private var above: UInt32 = 0
    /// On the holder: how many locks stand below.
    var sublocks: UInt32 = 0
    /// On the holder: its timers while it waits (Waiting.swift); 0 for none.
    var wait: UInt32 = 0
    /// When its state or mode changed last, in `Lockspace.stamp`s.
    var since: UInt32 = 0
    /// On the master: counts whatever changes what others have to do with it (a new mode, a new
    /// wait), so that who looks twice sees whether it was the same all the time. Wraps.
    var changes: UInt16 = 0
    var marks: LockMarks = []
    /// Meaningless while `state` is `waiting`.
    var granted = LockMode.null
    /// What is asked; equal to `granted` when nothing is.
    var requested = LockMode.null
    var state = LockState.free
    /// Bit per mode: the wants its holder was told that it stands in the way of, in its present
    /// mode.
    var told: UInt8 = 0

    /// Whose it is: a member of the view, hence not above `LockRecord.highestNode`.
    var holder: NodeID {
        @inline(__always) get { NodeID(UInt32(shortHolder)) }
        @inline(__always) set { shortHolder = UInt16(truncatingIfNeeded: newValue.rawValue) }
    }

    /// The highest number of a node that a record can name. There are never so many slots.
    static let highestNode = NodeID(UInt32(UInt16.max))

    /// The flags of what is asked, or of what was asked last. Without the four that the call itself
    /// answers (`adoptOrphan`, `synchronous`, `withSublocks`, `unlessStopped`).
    var flags: LockFlags {
        @inline(__always) get {
            let low = LockFlags(rawValue: UInt32(lowFlags))
            return marks.contains(.question) ? low.union(.question) : low
        }
        @inline(__always) set {
            lowFlags = UInt16(truncatingIfNeeded: newValue.rawValue)
            if newValue.contains(.question) { marks.insert(.question) }
        }
    }

    /// On the holder: the lock this one stands below; 0 for none.
    var parent: UInt32 {
        @inline(__always) get { marks.contains(.ofBytes) ? 0 : above }
        @inline(__always) set { above = newValue }
    }

    /// The place of the bytes of a lock of a range; 0 for any other lock.
    var bytes: UInt32 {
        @inline(__always) get { marks.contains(.ofBytes) ? above : 0 }
        @inline(__always) set {
            marks.insert(.ofBytes)
            above = newValue
        }
    }

    var link: UInt32 {
        @inline(__always) get { next }
        @inline(__always) set { next = newValue }
    }
}

/// A value block as one node knows it.
struct ValueRecord: SlabRecord, Sendable {
    var value = ValueBlock.zero
    /// Grows with every write and with every invalidation.
    var sequence: UInt64 = 0
    var isValid = true
    var link: UInt32 = 0
}

/// The bytes of a lock of a range.
struct BytesRecord: SlabRecord, Sendable {
    var bytes = LockedBytes.all
    var link: UInt32 = 0
}
