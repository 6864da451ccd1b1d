// What lockspaces say to each other. Every message travels with the epoch of its sender's view.
// Bytes: ClusterWire.

package import Vocabulary

/// A value block with its place in the order of writes.
package struct SequencedValue: Hashable, Sendable {
    package var value: ValueBlock
    /// 1 for the first write of a resource's life; an invalidation counts as a write.
    package var sequence: UInt64
    package var isValid: Bool

    package init(value: ValueBlock, sequence: UInt64, isValid: Bool) {
        self.value = value
        self.sequence = sequence
        self.isValid = isValid
    }
}

/// A lock as its holder reports it to the master of its resource after a change of view.
package struct RebuiltLock: Hashable, Sendable {
    /// Where the lock stands.
    package enum State: UInt8, CaseIterable, Hashable, Sendable {
        case granted = 0
        case converting = 1
        case waiting = 2
        /// Given up; only the value it wrote matters, and only to a master that still has its copy.
        case unlocking = 3
    }

    /// Its name on the holder.
    package var lock: LockID
    package var state: State
    /// Null while waiting.
    package var granted: LockMode
    /// What is asked; `granted` when nothing is.
    package var requested: LockMode
    package var flags: LockFlags
    package var owner: LockOwner
    /// What the holder knows of the value block, if it was ever written.
    package var value: SequencedValue?
    /// A master that left cleanly said that `value` is the last one written.
    package var isVouched: Bool
    /// Of a lock of a range.
    package var bytes: LockedBytes?

    package init(
        lock: LockID,
        state: State,
        granted: LockMode,
        requested: LockMode,
        flags: LockFlags,
        owner: LockOwner = .none,
        value: SequencedValue?,
        isVouched: Bool,
        bytes: LockedBytes? = nil
    ) {
        self.lock = lock
        self.state = state
        self.granted = granted
        self.requested = requested
        self.flags = flags
        self.owner = owner
        self.value = value
        self.isVouched = isVouched
        self.bytes = bytes
    }
}

/// The parts of a recovery, in order; all nodes are in the same one.
package enum RecoveryPhase: UInt8, CaseIterable, Hashable, Comparable, Sendable {
    /// Masters tell the new directory nodes what they master.
    case directory = 0
    /// Resources whose master is gone get a new one.
    case masters = 1
    /// Holders report their locks to the masters.
    case locks = 2

    package static func < (left: RecoveryPhase, right: RecoveryPhase) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// How many messages somebody sent to a node.
package struct MessageCount: Hashable, Sendable {
    package var node: NodeID
    package var count: UInt32

    package init(node: NodeID, count: UInt32) {
        self.node = node
        self.count = count
    }
}

/// One message from lockspace to lockspace.
package enum LockMessage: Hashable, Sendable {
    // To the directory node and back.

    /// Who masters this? The asker does, if nobody. `denied` has just said that it does not: an
    /// entry that names it is about to change, and is not the answer.
    case lookup(ResourceName, denied: NodeID)
    case lookupReply(ResourceName, master: NodeID)
    /// The sender masters this fresh name already.
    case claim(ResourceName)
    /// The master is not the claimant when the claim lost.
    case claimReply(ResourceName, master: NodeID)
    /// From the directory node: do you still master this, or have you asked who does? Whatever else
    /// the answering node had to say about it comes before the answer.
    case confirm(ResourceName)
    case confirmReply(ResourceName, isMaster: Bool)
    /// The sender masters this no longer: nobody has a lock on it.
    case remove(ResourceName)
    /// To the directory node: an entry may name the sender without reason.
    case disclaim(ResourceName)
    /// The sender's mastership has moved to `master`.
    case entry(ResourceName, master: NodeID)
    /// From the directory node to the new master: the entry names the receiver.
    case entryIs(ResourceName)

    // From holder to master.

    case request(
        ResourceName,
        lock: LockID,
        owner: LockOwner,
        mode: LockMode,
        flags: LockFlags,
        bytes: LockedBytes? = nil
    )
    case convert(
        ResourceName,
        lock: LockID,
        mode: LockMode,
        flags: LockFlags,
        value: SequencedValue?
    )
    case unlock(ResourceName, lock: LockID, value: SequencedValue?)
    case cancel(ResourceName, lock: LockID)

    // From master to holder. `lock` is always the holder's name for it.

    case granted(
        ResourceName,
        lock: LockID,
        mode: LockMode,
        remarks: LockRemarks,
        value: SequencedValue?
    )
    case refused(
        ResourceName,
        lock: LockID,
        status: LockStatus,
        remarks: LockRemarks,
        obstacle: LockObstacle? = nil
    )
    case unlocked(ResourceName, lock: LockID)
    /// The receiver's directory answer was stale: ask again.
    case notMaster(ResourceName, lock: LockID)
    case blocking(ResourceName, lock: LockID, wanted: LockMode)
    /// The sender masters this and leaves; this is the last value.
    case handover(ResourceName, value: SequencedValue)

    /// The orphans of the receiver, of one owner that is gone or (`none`) all, are to go.
    case purge(LockOwner)

    // Searches for deadlocks (Deadlocks.swift).

    case seek(ResourceName, lock: LockID, waited: UInt32, DeadlockProbe)
    case chase(LockOwner, DeadlockProbe)
    case cycle([DeadlockHop])
    case verify(UInt32, place: UInt16, DeadlockHop)
    case verified(UInt32, place: UInt16, stands: Bool)
    case condemn(UInt32, place: UInt16, [DeadlockHop])
    case condemned(UInt32, wasWaiting: Bool)
    case deadlocked(ResourceName, lock: LockID, [DeadlockHop])

    // Moves of masterships (Moving.swift). The names are roots.

    case moving(ResourceName, to: NodeID)
    case movingSeen(ResourceName)
    case transfer(ResourceName, [MovedThing], moves: UInt8, isLast: Bool)
    case taken(ResourceName)
    /// To the sender itself: it did not move after all.
    case moved(ResourceName, to: NodeID)

    // Recovery.

    /// The sender masters these, and their directory node may not know. At most `namesPerMessage`.
    case masters([ResourceName])
    /// Unopened transfers of these lie with the sender (Moving.swift, M6). At most
    /// `namesPerMessage`.
    case stagedMasters([ResourceName])
    /// The sender has mastered these as fresh names, and does not know whether its claims were
    /// heard. At most `namesPerMessage`.
    case claimedMasters([ResourceName])
    case rebuild(ResourceName, RebuiltLock)
    /// To the coordinator: the sender has sent so many messages of this phase, and no more. At most
    /// `mostMembers` counts.
    case sent(RecoveryPhase, [MessageCount])
    /// From the coordinator: so many messages of this phase come to the receiver.
    case expect(RecoveryPhase, UInt32)
    /// To the coordinator: the sender has everything of this phase.
    case reached(RecoveryPhase)
    /// From the coordinator: all have reached it; on to the next phase.
    case proceed(RecoveryPhase)

    /// The largest number of names in `masters`.
    package static let namesPerMessage = 192
    /// The largest number of members of a view, and so of counts in `sent`.
    package static let mostMembers = 1000
    /// The largest number of things in `transfer`.
    package static let thingsPerMessage = 64
    /// The largest number of hops in a search.
    package static let longestSearch = 64

    /// The resource that an operation on a lock, or an answer to one, speaks of; nil for all other
    /// messages.
    package var lockedName: ResourceName? {
        switch self {
        case .request(let name, _, _, _, _, _), .convert(let name, _, _, _, _),
            .unlock(let name, _, _), .cancel(let name, _), .granted(let name, _, _, _, _),
            .refused(let name, _, _, _, _), .unlocked(let name, _), .notMaster(let name, _),
            .blocking(let name, _, _), .rebuild(let name, _):
            name
        default: nil
        }
    }
}

/// What a lockspace asks of whoever drives it, in order.
package enum LockEffect: Hashable, Sendable {
    /// Send with the present epoch. Reliable and in order per pair of nodes while both live.
    case send(LockMessage, to: NodeID)
    /// An operation of the client has ended.
    case complete(LockCompletion)
    /// The client's lock stands in the way of somebody who wants `wanted`.
    case blocking(cookie: UInt64, lock: LockID, wanted: LockMode)
    /// The client's lock `victim` is about to be refused, to break this circle of waits.
    case deadlock([DeadlockHop], victim: LockID)
    /// Lock recovery of this view is finished on this node: locking goes on, except that what waits
    /// for the replay of journals waits on.
    case recoveryFinished(Epoch)
}
