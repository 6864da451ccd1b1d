// Messages of deadlock searches and of moves to bytes.

import LockCore
import Vocabulary

extension [UInt8] {
    private mutating func append(_ reference: LockReference) {
        append(integer: reference.node.rawValue)
        append(integer: reference.lock.rawValue)
    }

    private mutating func append(_ hop: DeadlockHop) {
        append(name: hop.name)
        append(integer: hop.master.rawValue)
        append(hop.waiter)
        append(integer: hop.owner.rawValue)
        append(hop.requested.rawValue)
        append(integer: hop.waited)
        append(hop.behind)
        append(hop.blocker)
        append(hop.blockerMode.rawValue)
        append(integer: hop.waiterChanges)
        append(integer: hop.behindChanges)
        append(integer: hop.blockerChanges)
    }

    private mutating func append(_ hops: [DeadlockHop]) {
        precondition(hops.count <= LockMessage.longestSearch, "ClusterWire W2: too many hops")
        append(integer: UInt16(hops.count))
        for hop in hops { append(hop) }
    }

    private mutating func append(_ probe: DeadlockProbe) {
        append(probe.origin)
        append(integer: probe.originOwner.rawValue)
        append(integer: probe.number)
        append(probe.hops)
    }

    mutating func append(search message: LockMessage) -> WireKind {
        switch message {
        case .seek(let name, let lock, let waited, let probe):
            append(name, lock)
            append(integer: waited)
            append(probe)
            return .seek
        case .chase(let owner, let probe):
            append(integer: owner.rawValue)
            append(probe)
            return .chase
        case .cycle(let hops):
            append(hops)
            return .cycle
        case .verify(let number, let place, let hop):
            append(integer: number)
            append(integer: place)
            append(hop)
            return .verify
        case .verified(let number, let place, let stands):
            append(integer: number)
            append(integer: place)
            append(stands ? 1 : 0)
            return .verified
        case .condemn(let number, let place, let hops):
            append(integer: number)
            append(integer: place)
            append(hops)
            return .condemn
        case .condemned(let number, let wasWaiting):
            append(integer: number)
            append(wasWaiting ? 1 : 0)
            return .condemned
        case .deadlocked(let name, let lock, let hops):
            append(name, lock)
            append(hops)
            return .deadlocked
        default: return append(move: message)
        }
    }

    private mutating func append(move message: LockMessage) -> WireKind {
        switch message {
        case .moving(let name, let target):
            append(name: name)
            append(integer: target.rawValue)
            return .moving
        case .movingSeen(let name):
            append(name: name)
            return .movingSeen
        case .transfer(let name, let things, let moves, let isLast):
            append(name: name)
            precondition(
                things.count <= LockMessage.thingsPerMessage,
                "ClusterWire W2: too many things"
            )
            append(moves)
            append(isLast ? 1 : 0)
            append(integer: UInt16(things.count))
            for thing in things { append(thing) }
            return .transfer
        case .taken(let name):
            append(name: name)
            return .taken
        case .moved(let name, let master):
            append(name: name)
            append(integer: master.rawValue)
            return .moved
        default: return append(recovery: message)
        }
    }

    private mutating func append(_ thing: MovedThing) {
        switch thing {
        case .lock(let name, let lock):
            append(0)
            append(name: name)
            append(lock.holder)
            append(integer: lock.owner.rawValue)
            append(lock.state.rawValue)
            append(lock.granted.rawValue)
            append(lock.requested.rawValue)
            append(integer: lock.flags.rawValue)
            append(lock.told)
            append(lock.isDemoted ? 1 : 0)
            append(integer: lock.changes)
            append(lock.bytes, of: name)
        case .value(let name, let value):
            append(1)
            append(name: name)
            append(value: value)
        }
    }
}
