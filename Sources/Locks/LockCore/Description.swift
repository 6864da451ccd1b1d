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
    /// On whose behalf; numbered by the holder.
    package var owner: LockOwner
    package var flags: LockFlags
    /// Milliseconds since its state or mode changed, as this node has seen it; to 10 ms.
    package var age: UInt64
    /// Has outlived its owner. Known on the holder only.
    package var isOrphan: Bool
    /// Of a lock of a range: its bytes and the process.
    package var bytes: LockedBytes?
    /// On the holder: its lock on the resource above; `none` elsewhere, and for a root.
    package var parent: LockID
    /// On the master: the locks whose grant or place in the queue this one waits for, and those
    /// that wait for this one; by holder and name. Empty elsewhere.
    package var blockers: [LockReference]
    package var blocked: [LockReference]

    /// What `lockstep locks` and tests print: state and modes, owner, whom it blocks, who blocks it.
    package var details: String {
        var text = "\(description)"
        if owner != .none { text += ", \(owner)" }
        if isOrphan { text += ", orphan" }
        if let bytes, granted != .null { text += ", \(bytes)" }
        if !blockers.isEmpty { text += ", blocked by \(Self.list(blockers))" }
        if !blocked.isEmpty { text += ", blocks \(Self.list(blocked))" }
        return text
    }

    private static func list(_ locks: [LockReference]) -> String {
        locks.map { "\($0.node)" }.joined(separator: " ")
    }

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

    /// The first `limit` resources by name, of those with locks for which `isWanted` says so, and how
    /// many more there are. `onlyWaiting`: only where something waits, as far as it is known here;
    /// `holder`: only where that node has a lock. Looks at each record once and describes only what
    /// it returns.
    package func describe(
        atMost limit: Int,
        onlyWaiting: Bool,
        holder: NodeID?,
        where isWanted: (ResourceName) -> Bool
    ) -> (found: [ResourceDescription], omitted: Int) {
        var chosen: [ResourceName] = []
        var count = 0
        for resource in 1..<resources.bound
        where resources[resource].mastery != .free && !resources[resource].isEmpty {
            let name = name(of: resource)
            guard isWanted(name) else { continue }
            if onlyWaiting && !isWaitedFor(resource) { continue }
            if let holder, !isHeld(resource, by: holder) { continue }
            count += 1
            chosen.append(name)
            if chosen.count >= 2 * limit + 1024 {
                chosen.sort()
                chosen.removeLast(chosen.count - limit)
            }
        }
        chosen.sort()
        let found = chosen.prefix(limit).compactMap { describe($0) }
        return (found, count - found.count)
    }

    private func isWaitedFor(_ resource: UInt32) -> Bool {
        let record = resources[resource]
        if record.converting | record.waiting != 0 { return true }
        if record.mastery == .local { return false }
        var isFound = false
        visitLocks(resource) {
            isFound = isFound || $0.state == .waiting || $0.state == .converting
        }
        return isFound
    }

    private func isHeld(_ resource: UInt32, by holder: NodeID) -> Bool {
        var isFound = false
        visitLocks(resource) { isFound = isFound || $0.holder == holder }
        return isFound
    }

    private func visitLocks(_ resource: UInt32, _ body: (LockRecord) -> Void) {
        for queue in [Queue.granted, .converting, .waiting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                body(locks[lock])
                lock = following(lock, head: first)
            }
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
            name: name(of: resource),
            master: isKnown ? record.master : .none,
            directory: members.isEmpty ? .none : directoryNode(name(of: resource)),
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
            requested: isAsking ? record.requested : nil,
            owner: record.owner,
            flags: record.flags,
            age: UInt64(stamp &- record.since) * 10,
            isOrphan: record.marks.contains(.orphan),
            bytes: bytes(of: lock),
            parent: record.parent == 0 ? .none : lockID(record.parent),
            blockers: waitsFor(lock),
            blocked: holdsUp(lock)
        )
    }

    /// The locks that stand in the way of a queued lock, itself or its turn.
    private func waitsFor(_ lock: UInt32) -> [LockReference] {
        let isQueued = locks[lock].state == .waiting || locks[lock].state == .converting
        if resources[locks[lock].resource].mastery != .local || !isQueued { return [] }
        return blockers(of: lock).map { reference($0) }
    }

    private func holdsUp(_ lock: UInt32) -> [LockReference] {
        let resource = locks[lock].resource
        if resources[resource].mastery != .local || locks[lock].state == .waiting { return [] }
        var found: [LockReference] = []
        for queue in [Queue.converting, .waiting] {
            let first = head(resource, queue)
            var other = first
            while other != 0 {
                if blockers(of: other).contains(lock) { found.append(reference(other)) }
                other = following(other, head: first)
            }
        }
        return found
    }
}
