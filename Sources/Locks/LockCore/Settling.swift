// The first step of a recovery: what a change of view makes of what this node knows. The essay
// stands in Recovery.swift.

import Vocabulary

/// What has changed with a view.
struct Settlement {
    /// Who is gone, or has begun a new life.
    var departed: [NodeID]
    /// The directory until now.
    var before: DirectoryMap
    /// Messages between the living were lost too.
    var isLossy: Bool
    /// The last recovery was not finished.
    var overtakes: Bool
}

extension Lockspace {
    mutating func settleLocks(departed: [NodeID], _ effects: inout [LockEffect]) {
        for lock in 1..<locks.bound where locks[lock].state != .free {
            let record = locks[lock]
            if record.holder == node {
                if resources[record.resource].mastery != .local {
                    settleOwnLock(lock, departed: departed, &effects)
                }
            } else if departed.contains(record.holder) {
                if record.state != .waiting && record.granted >= .protectedWrite {
                    invalidateValue(record.resource)
                }
                unlink(lock, from: queue(of: lock))
                freeLock(lock)
            }
        }
    }

    /// Brings a lock that another node masters into a state that can be reported: the master's
    /// answers of the old epoch will not arrive, so nothing may depend on them. The lock may be
    /// gone afterwards.
    mutating func settleOwnLock(
        _ lock: UInt32,
        departed: [NodeID],
        _ effects: inout [LockEffect]
    ) {
        let wasSaid = !locks[lock].marks.isDisjoint(with: [.sent, .doubtful])
        if wasSaid { giveUpDoubtfulMode(lock) }
        let record = locks[lock]
        // What was asked of a master that is gone nobody knows, unless the tree was moving: the new master
        // may have been told, and have opened the transfer before this view.
        let isKnown = wasSaid && mayHaveCopies(record.resource, departed: departed)
        switch record.state {
        case .unlocking:
            // It stays until its report has certainly arrived, at the end of a recovery: what it
            // wrote, now or by a demotion settled before, has to reach the master if that lives.
            if mayHaveCopies(record.resource, departed: departed) {
                locks[lock].marks.subtract([.sent, .reportedUnlock])
                locks[lock].marks.insert(.doubtful)
            } else {
                endUnlock(lock, &effects)
            }
        case .converting where record.granted.covers(record.requested):
            locks[lock].state = .granted
            locks[lock].granted = record.requested
            locks[lock].marks.subtract([.sent, .wrote])
            locks[lock].marks.insert(.doubtful)
            complete(lock, .granted, record.requested, &effects)
        case .waiting where record.marks.contains(.cancelRequested) && !isKnown:
            withdraw(lock, &effects)
        case .converting
        where record.marks.contains(.cancelRequested) && record.requested.covers(record.granted):
            if isKnown { locks[lock].marks.insert(.doubtful) }
            withdraw(lock, &effects)
        case .waiting, .converting:
            locks[lock].marks.remove(.sent)
            if isKnown { locks[lock].marks.insert(.doubtful) }
        case .granted, .free: return
        }
    }

    /// Whether a living node may have copies of this node's locks on a resource that it does not
    /// master.
    private func mayHaveCopies(_ resource: UInt32, departed: [NodeID]) -> Bool {
        switch resources[resource].mastery {
        case .remote:
            !resources[root(of: resource)].marks.isDisjoint(with: [.moving, .unproven])
                || !departed.contains(resources[resource].master)
        // Forgotten in a recovery that was overtaken, or denied and perhaps taken on again.
        case .unknown, .lookingUp: true
        case .local, .free: false
        }
    }

    /// A master may have taken the old mode of a conversion that allows it, and may be gone.
    private mutating func giveUpDoubtfulMode(_ lock: UInt32) {
        let record = locks[lock]
        if record.state == .converting && record.flags.contains(.demoteOnDeadlock)
            && !record.granted.covers(record.requested) && record.granted != .null
        {
            locks[lock].granted = .null
            locks[lock].marks.insert(.demoted)
        }
    }

    mutating func endUnlock(_ lock: UInt32, _ effects: inout [LockEffect]) {
        unlink(lock, from: .granted)
        complete(lock, .unlocked, .null, &effects)
        freeLock(lock)
    }

    mutating func settleResources(_ settlement: Settlement) {
        settleRoots(settlement)
        if trees.liveCount == 0 { return }
        for depth in (1...ResourceName.deepest).reversed() {
            for resource in 1..<resources.bound
            where resources[resource].mastery != .free && resources[resource].depth == depth {
                if isUnused(resource) { removeRecord(resource) }
            }
        }
    }

    private mutating func settleRoots(_ settlement: Settlement) {
        for resource in 1..<resources.bound
        where resources[resource].mastery != .free && resources[resource].depth == 0 {
            settleEntry(resource, settlement)
            let marks = resources[resource].marks
            resources[resource].marks.subtract([
                .claimBatch, .moving, .transferred, .provisional,
            ])
            switch resources[resource].mastery {
            case .local:
                if settlement.isLossy || marks.contains(.moving)
                    || settlement.before.member(name(of: resource).rootHash)
                        != directory.member(name(of: resource).rootHash)
                {
                    resources[resource].marks.insert(.entryPending)
                }
                continue
            case .remote
            where keepsMaster(resource) && marks.isDisjoint(with: [.moving, .unproven])
                && !settlement.departed.contains(resources[resource].master)
                && !(settlement.overtakes && marks.contains(.provisional)):
                continue
            default:
                resources[resource].marks.remove(.unproven)
                forgetMaster(resource)
                if !hasEstablished(resource) { forgetValue(resource) }
            }
            if isUnused(resource) && resources[resource].directoryMaster == .none {
                removeRecord(resource)
            }
        }
        movingTrees = 0
    }

    /// R5, R6. Entries of places that belong to another node by now stay until the recovery is over: it
    /// may be overtaken by a view in which they belong here again.
    private mutating func settleEntry(_ root: UInt32, _ settlement: Settlement) {
        let master = resources[root].directoryMaster
        if master == .none { return }
        if settlement.isLossy || settlement.departed.contains(master) || !isMember(master) {
            resources[root].directoryMaster = .none
            return
        }
        // Others may have finished the recovery that is overtaken, and have told the node whose place it
        // was then that this mastership has ended.
        let name = name(of: root)
        if settlement.overtakes && settlement.before.member(name.rootHash).node != node
            && directoryNode(name) == node && !doubtedEntries.contains(name)
        {
            doubtedEntries.append(name)
        }
    }

    /// R3.
    private func keepsMaster(_ root: UInt32) -> Bool {
        let first = resources[root].granted
        var lock = first
        while lock != 0 {
            if locks[lock].state == .granted && locks[lock].marks.contains(.established)
                && !locks[lock].marks.contains(.doubtful)
            {
                return true
            }
            lock = following(lock, head: first)
        }
        return false
    }

    private mutating func forgetMaster(_ root: UInt32) { setMastery(root, .unknown, .none) }

    /// Whether a master elsewhere must know this record: a lock here was granted.
    func hasEstablished(_ resource: UInt32) -> Bool {
        let first = resources[resource].granted
        var lock = first
        while lock != 0 {
            if locks[lock].state != .waiting { return true }
            lock = following(lock, head: first)
        }
        return false
    }
}
