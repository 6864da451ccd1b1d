// What an administrator or a test may see of a lockspace.

package import Vocabulary

/// One lock on a resource as this node knows it.
package struct LockDescription: Hashable, Sendable, CustomStringConvertible {
    /// Where a lock stands.
    package enum State: String, Hashable, Sendable {
        case granted, converting, waiting, unlocking
    }

    /// Whose it is.
    package var holder: NodeID
    /// Its name on the holder.
    package var lock: LockID
    package var state: State
    /// Nil while waiting.
    package var granted: LockMode?
    /// Nil when nothing is asked.
    package var requested: LockMode?

    package var description: String {
        switch state {
        case .granted, .unlocking: "\(holder) \(granted?.description ?? "-")"
        case .converting:
            "\(holder) \(granted?.description ?? "-")>\(requested?.description ?? "-")"
        case .waiting: "\(holder) >\(requested?.description ?? "-")"
        }
    }
}

/// One resource as this node knows it.
package struct ResourceDescription: Hashable, Sendable {
    package var name: ResourceName
    /// Who decides; `none` while that is not known.
    package var master: NodeID
    /// Who knows who decides.
    package var directory: NodeID
    /// On the directory node: whom the entry names. `none` elsewhere, and when there is no entry.
    package var directoryEntry: NodeID
    /// On the master all locks, elsewhere this node's own; granted, then converting, then waiting,
    /// each in order.
    package var locks: [LockDescription]
    /// The value block as known here; nil when it was never written.
    package var value: SequencedValue?
}

extension Lockspace {
    /// Calls `body` for each resource known here, in no order that means anything (but the same for
    /// the same history), including those known only as directory entries.
    package func visitResources(_ body: (ResourceDescription) -> Void) {
        for resource in 1..<resources.bound where resources[resource].mastery != .free {
            body(describe(resource))
        }
    }

    /// One resource; nil when nothing is known of it here.
    package func describe(_ name: ResourceName) -> ResourceDescription? {
        let resource = find(name)
        return resource == 0 ? nil : describe(resource)
    }

    /// Whether this node's lock is granted in a mode that conflicts with `wanted`, and is not on
    /// its way down already.
    package func isInTheWay(_ lock: LockID, of wanted: LockMode) -> Bool {
        let index = localIndex(lock)
        if index == 0 || status == .left { return false }
        let record = locks[index]
        switch record.state {
        case .granted where !record.marks.contains(.deferred): break
        case .converting where !record.granted.covers(record.requested): break
        default: return false
        }
        return !record.granted.isCompatible(with: wanted)
    }

    private func describe(_ resource: UInt32) -> ResourceDescription {
        var found: [LockDescription] = []
        for queue in [Queue.granted, .converting, .waiting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                found.append(describeLock(lock))
                lock = following(lock, head: first)
            }
        }
        let record = resources[resource]
        let isKnown = record.mastery == .local || record.mastery == .remote
        return ResourceDescription(
            name: record.name,
            master: isKnown ? record.master : .none,
            directory: members.isEmpty ? .none : directoryNode(record.name),
            directoryEntry: record.directoryMaster,
            locks: found,
            value: sequencedValue(resource)
        )
    }

    private func describeLock(_ lock: UInt32) -> LockDescription {
        let record = locks[lock]
        let isAsking = record.state == .converting || record.state == .waiting
        let state: LockDescription.State =
            switch record.state {
            case .waiting: .waiting
            case .converting: .converting
            case .unlocking: .unlocking
            case .granted, .free: .granted
            }
        return LockDescription(
            holder: record.holder,
            lock: record.holder == node ? lockID(lock) : LockID(record.identity),
            state: state,
            granted: state == .waiting ? nil : record.granted,
            requested: isAsking ? record.requested : nil
        )
    }
}
