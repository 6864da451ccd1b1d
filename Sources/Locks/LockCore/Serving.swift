// The master's side of a peer's operation.

import Vocabulary

extension Lockspace {
    mutating func serveRequest(
        _ name: ResourceName,
        _ lock: LockID,
        _ owner: LockOwner,
        _ mode: LockMode,
        _ flags: LockFlags,
        _ bytes: LockedBytes?,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        counters.servedOperations += 1
        if isTurnedAway(name, lock, from: peer) { return }
        let resource = masteredRecord(name)
        guard resource != 0 else {
            send(.notMaster(name, lock: lock), to: peer, &effects)
            return
        }
        noteUse(resource, by: peer)
        if findCopy(resource, holder: peer, lock) != 0 {
            counters.protocolErrors += 1
            return
        }
        let copy = insertLock(resource, holder: peer, identity: lock.rawValue)
        locks[copy].requested = mode
        locks[copy].flags = flags
        locks[copy].owner = owner
        setBytes(copy, bytes)
        decideRequest(copy, &effects)
    }

    /// The record of a name whose tree this node masters, made when it is a new part; 0 otherwise.
    mutating func masteredRecord(_ name: ResourceName) -> UInt32 {
        let root = find(name.root)
        if root == 0 || resources[root].mastery != .local { return 0 }
        return name.depth == 0 ? root : findOrInsert(name)
    }

    mutating func serveConversion(
        _ name: ResourceName,
        _ lock: LockID,
        _ mode: LockMode,
        _ flags: LockFlags,
        _ value: SequencedValue?,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        counters.servedOperations += 1
        let copy = grantedCopy(name, lock, peer)
        if copy == 0 { return }
        noteUse(locks[copy].resource, by: peer)
        if valueDirection(from: locks[copy].granted, to: mode) == .write {
            absorb(locks[copy].resource, value)
        }
        decideConversion(copy, to: mode, flags, &effects)
    }

    mutating func serveUnlock(
        _ name: ResourceName,
        _ lock: LockID,
        _ value: SequencedValue?,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        counters.servedOperations += 1
        let copy = grantedCopy(name, lock, peer)
        if copy == 0 { return }
        if unlockWrites(from: locks[copy].granted) { absorb(locks[copy].resource, value) }
        decideUnlock(copy, &effects)
    }

    /// A cancel that comes too late finds nothing that waits, and is nothing.
    mutating func serveCancel(
        _ name: ResourceName,
        _ lock: LockID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let copy = masteredCopy(name, lock, peer)
        if copy != 0 { decideCancel(copy, &effects) }
    }

    /// The copy of a granted lock that its holder operates on; 0 when there is none, which is an
    /// error of the peer's unless this node has given the tree up: whoever has lost a claim to it
    /// cannot have heard of that.
    private mutating func grantedCopy(
        _ name: ResourceName,
        _ lock: LockID,
        _ peer: NodeID
    ) -> UInt32 {
        let root = find(name.root)
        if root == 0 || resources[root].mastery != .local { return 0 }
        let copy = masteredCopy(name, lock, peer)
        if copy != 0 && locks[copy].state == .granted { return copy }
        counters.protocolErrors += 1
        return 0
    }

    private func masteredCopy(_ name: ResourceName, _ lock: LockID, _ peer: NodeID) -> UInt32 {
        let resource = find(name)
        if resource == 0 || resources[resource].mastery != .local { return 0 }
        return findCopy(resource, holder: peer, lock)
    }
}
