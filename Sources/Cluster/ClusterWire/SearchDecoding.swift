// Bytes to messages of deadlock searches and of moves.

import LockCore
import Vocabulary

extension WireReader {
    private mutating func reference() throws(WireError) -> LockReference {
        let node = try node()
        return LockReference(node: node, lock: try lock())
    }

    private mutating func hop() throws(WireError) -> DeadlockHop {
        let name = try name()
        let master = try node()
        let waiter = try reference()
        let owner = LockOwner(try integer(UInt32.self))
        let requested = try mode()
        let waited = try integer(UInt32.self)
        let behind = try reference()
        let blocker = try reference()
        let blockerMode = try mode()
        let waiterChanges = try integer(UInt16.self)
        let behindChanges = try integer(UInt16.self)
        let blockerChanges = try integer(UInt16.self)
        return DeadlockHop(
            name: name,
            master: master,
            waiter: waiter,
            owner: owner,
            requested: requested,
            waited: waited,
            behind: behind,
            blocker: blocker,
            blockerMode: blockerMode,
            changes: (waiterChanges, behindChanges, blockerChanges)
        )
    }

    /// The bytes of the shortest hop: with the name of a root.
    private static let shortestHop = 74

    mutating func hops() throws(WireError) -> [DeadlockHop] {
        let count = Int(try integer(UInt16.self))
        // Checked before anything is allocated (W2).
        if count > LockMessage.longestSearch { throw .badValue(.count) }
        if remaining < count * Self.shortestHop { throw .badLength(remaining) }
        var hops: [DeadlockHop] = []
        hops.reserveCapacity(count)
        for _ in 0..<count { hops.append(try hop()) }
        return hops
    }

    mutating func probe() throws(WireError) -> DeadlockProbe {
        let origin = try reference()
        let owner = LockOwner(try integer(UInt32.self))
        let number = try integer(UInt32.self)
        return DeadlockProbe(
            origin: origin,
            originOwner: owner,
            number: number,
            hops: try hops()
        )
    }

    mutating func searchMessage(_ kind: WireKind) throws(WireError) -> LockMessage {
        switch kind {
        case .chase:
            let owner = LockOwner(try integer(UInt32.self))
            return .chase(owner, try probe())
        case .cycle: return .cycle(try hops())
        case .condemned:
            let number = try integer(UInt32.self)
            return .condemned(number, wasWaiting: try boolean())
        default: break
        }
        let number = try integer(UInt32.self)
        let place = try integer(UInt16.self)
        switch kind {
        case .verify: return .verify(number, place: place, try hop())
        case .verified: return .verified(number, place: place, stands: try boolean())
        case .condemn: return .condemn(number, place: place, try hops())
        default: throw .unknownKind(kind.rawValue)
        }
    }

    // MARK: Moves

    private static let shortestThing = 19

    mutating func transfer(_ name: ResourceName) throws(WireError) -> LockMessage {
        let moves = try byte()
        let isLast = try boolean()
        let count = Int(try integer(UInt16.self))
        if count > LockMessage.thingsPerMessage { throw .badValue(.count) }
        if remaining < count * Self.shortestThing { throw .badLength(remaining) }
        var things: [MovedThing] = []
        things.reserveCapacity(count)
        for _ in 0..<count { things.append(try thing()) }
        return .transfer(name, things, moves: moves, isLast: isLast)
    }

    private mutating func thing() throws(WireError) -> MovedThing {
        let kind = try byte()
        let name = try self.name()
        switch kind {
        case 0: return .lock(name, try movedLock(name))
        case 1:
            guard let value = try value() else { throw .badValue(.boolean) }
            return .value(name, value)
        default: throw .badValue(.thing)
        }
    }

    private mutating func movedLock(_ name: ResourceName) throws(WireError) -> MovedLock {
        let holder = try reference()
        let owner = LockOwner(try integer(UInt32.self))
        guard let state = RebuiltLock.State(rawValue: try byte()) else { throw .badValue(.state) }
        let granted = try mode()
        let requested = try mode()
        let flags = try flags()
        let told = try byte()
        if told >= 1 << 6 { throw .badValue(.mode) }
        return MovedLock(
            holder: holder,
            owner: owner,
            state: state,
            granted: granted,
            requested: requested,
            flags: flags,
            told: told,
            isDemoted: try boolean(),
            changes: try integer(UInt16.self),
            bytes: try bytes(of: name)
        )
    }
}
