// What one node knows of the locks, of itself alone: as master of its resources all locks in their
// queues, elsewhere its own, and what it is doing with what it holds.

package import LockCache
package import LockCore
package import Vocabulary

/// One lock as one node, or all together (`ClusterPicture`), know it.
package struct LockReport: Hashable, Sendable {
    package var holder: NodeID
    /// Its name on the holder.
    package var lock: LockID
    package var state: LockDescription.State
    package var granted: LockMode?
    package var requested: LockMode?
    package var owner: LockOwner
    package var flags: LockFlags
    /// Milliseconds since state or mode changed.
    package var age: UInt64
    package var isOrphan: Bool
    /// Of a lock of a range.
    package var bytes: LockedBytes?
    package var parent: LockID
    package var blockers: [LockReference]
    package var blocked: [LockReference]
    /// What the holder is doing with it, if it protects a cache and the holder has said so.
    package var activity: HolderActivity?
    /// Who knows of it; both when a picture is complete.
    package var isKnownToMaster: Bool
    package var isKnownToHolder: Bool

    /// A lock as the node that describes it knows it.
    package init(_ description: LockDescription, by node: NodeID, isMaster: Bool) {
        holder = description.holder
        lock = description.lock
        state = description.state
        granted = description.granted
        requested = description.requested
        owner = description.owner
        flags = description.flags
        age = description.age
        isOrphan = description.isOrphan
        bytes = description.bytes
        parent = description.parent
        blockers = description.blockers
        blocked = description.blocked
        isKnownToMaster = isMaster
        isKnownToHolder = description.holder == node
    }

    /// Whether it waits for a mode that it has no right to yet.
    package var isWaiting: Bool {
        guard let requested else { return false }
        switch state {
        case .waiting: return true
        case .converting: return granted.map { !$0.covers(requested) } ?? true
        case .granted, .unlocking: return false
        }
    }

    /// Its name in the cluster.
    package var reference: LockReference { LockReference(node: holder, lock: lock) }

    /// `EX`, `PR>EX` for a conversion, `>EX` for a new request.
    package var modes: String {
        let held = granted?.description ?? ""
        guard let requested else { return held.isEmpty ? "-" : held }
        return "\(held)>\(requested)"
    }
}

/// One resource.
package struct ResourceReport: Hashable, Sendable {
    package var name: ResourceName
    /// Who decides; `none` while that is not known.
    package var master: NodeID
    package var directory: NodeID
    package var value: SequencedValue?
    /// Granted, then converting, then waiting, each in order; not in order if the master did not
    /// say.
    package var locks: [LockReport]
    /// Whether the master itself said so.
    package var isFromMaster: Bool

    /// A resource as one node knows it.
    package init(_ description: ResourceDescription, by node: NodeID) {
        name = description.name
        master = description.master
        directory = description.directory
        value = description.value
        isFromMaster = description.master == node
        locks = []
        for lock in description.locks {
            locks.append(LockReport(lock, by: node, isMaster: isFromMaster))
        }
    }
}

/// What one node answers.
package struct NodeReport: Hashable, Sendable {
    /// Whether its lock manager grants.
    package enum Phase: String, Sendable {
        case running
        /// A recovery goes on: the picture may be incomplete.
        case recovering
        case left
    }

    package var node: NodeID
    package var name: String
    package var epoch: Epoch
    package var phase: Phase
    /// Ordinary requests wait for the replay of journals.
    package var waitsForReplay: Bool
    /// It is replaying them itself.
    package var isReplaying: Bool
    /// Its clock, in milliseconds; only differences mean anything.
    package var time: UInt64
    package var resources: [ResourceReport] = []
    /// How many more there are than were asked for.
    package var omitted = 0
    /// Counts with their names, if they were asked for.
    package var counters: [NamedCount] = []

    package init(
        node: NodeID,
        name: String,
        epoch: Epoch,
        phase: Phase,
        waitsForReplay: Bool,
        isReplaying: Bool,
        time: UInt64
    ) {
        self.node = node
        self.name = name
        self.epoch = epoch
        self.phase = phase
        self.waitsForReplay = waitsForReplay
        self.isReplaying = isReplaying
        self.time = time
    }

    /// How people are shown the node.
    package var label: String {
        name.isEmpty || name == "\(node)" ? "\(node)" : "\(node) (\(name))"
    }
}

/// A count of something.
package struct NamedCount: Hashable, Sendable {
    package var name: String
    package var count: UInt64

    package init(_ name: String, _ count: UInt64) {
        self.name = name
        self.count = count
    }
}
