// A lock manager in one place for all simulated nodes: right by inspection, so that a run that
// fails with it fails because of the file system. Its answers and notices reach a node after seeded
// delays, in order.
//
// Grants stop when a node has died (`pause`) and go on when what it may have changed is replayed, or
// held by whoever replays it (`resume`), as with the distributed lock manager. In between only what
// is asked for recovery (`LockFlags.recovery`) is granted, past everybody else who waits.

package import Execution
package import LockCache
package import Vocabulary

/// All locks of a simulated cluster. Engine-bound.
package final class CentralLocks {
    fileprivate final class Lock {
        let id: LockID
        let name: ResourceName
        unowned let door: CentralLockDoor
        let cookie: UInt64
        let owner: LockOwner
        /// Of a lock of a range.
        let bytes: LockedBytes?
        var granted: LockMode?
        var wanted: LockMode?
        var notified: LockMode?
        /// What is wanted is wanted for recovery.
        var isForRecovery = false
        /// It would rather be refused than wait, but for the recovery of the dead: with these flags.
        var refusal: LockFlags?
        /// Nothing is granted: who is in the way?
        var isQuestion = false

        init(
            id: LockID,
            name: ResourceName,
            door: CentralLockDoor,
            cookie: UInt64,
            owner: LockOwner,
            bytes: LockedBytes?
        ) {
            self.id = id
            self.name = name
            self.door = door
            self.cookie = cookie
            self.owner = owner
            self.bytes = name.kind.isOfBytes ? bytes ?? .all : nil
        }

        /// Whether one may be in the way of the other, modes apart.
        func sharesBytes(_ other: Lock) -> Bool {
            guard let bytes, let others = other.bytes else { return true }
            let isOfOneOwner = door === other.door && owner == other.owner && owner != .none
            return bytes.overlaps(others) && !isOfOneOwner
        }
    }

    private final class Resource {
        var locks: [Lock] = []
        /// Conversions and new requests in the order in which they are served.
        var queue: [Lock] = []
    }

    private var resources: [ResourceName: Resource] = [:]
    private var names: [ResourceName] = []
    private var locksByID: [UInt64: Lock] = [:]
    private var nextID: UInt64 = 1
    /// Only recovery is granted anything.
    package private(set) var isPaused = false

    package init() {}

    fileprivate func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        bytes: LockedBytes?,
        _ door: CentralLockDoor
    ) -> LockID {
        let lock = Lock(
            id: LockID(nextID),
            name: name,
            door: door,
            cookie: cookie,
            owner: owner,
            bytes: bytes
        )
        nextID += 1
        locksByID[lock.id.rawValue] = lock
        let resource = resource(name)
        resource.locks.append(lock)
        lock.wanted = mode
        queue(lock, flags, resource, isConversion: false)
        return lock.id
    }

    fileprivate func convert(_ id: LockID, to mode: LockMode, _ flags: LockFlags) {
        guard let lock = locksByID[id.rawValue], let granted = lock.granted else {
            preconditionFailure("converting a lock that is not granted")
        }
        let resource = resource(lock.name)
        lock.notified = nil
        if granted.covers(mode) {
            lock.granted = mode
            answer(lock, .granted)
            serve(resource)
            return
        }
        lock.wanted = mode
        queue(lock, flags, resource, isConversion: true)
    }

    /// A conversion that waits is left alone.
    fileprivate func cancel(_ id: LockID) {
        guard let lock = locksByID[id.rawValue], lock.granted == nil else { return }
        let resource = resource(lock.name)
        remove(lock, resource)
        lock.wanted = nil
        answer(lock, .cancelled)
        serve(resource)
    }

    private func remove(_ lock: Lock, _ resource: Resource) {
        locksByID.removeValue(forKey: lock.id.rawValue)
        resource.locks.removeAll { $0 === lock }
        resource.queue.removeAll { $0 === lock }
    }

    fileprivate func unlock(_ id: LockID) {
        guard let lock = locksByID[id.rawValue] else { return }
        let resource = resource(lock.name)
        remove(lock, resource)
        answer(lock, .unlocked)
        serve(resource)
    }

    /// A node has died: nothing is granted any more.
    package func pause() { isPaused = true }

    /// All locks of a node go.
    package func forget(_ door: CentralLockDoor) {
        for name in names {
            guard let resource = resources[name] else { continue }
            for lock in resource.locks where lock.door === door {
                locksByID.removeValue(forKey: lock.id.rawValue)
            }
            resource.locks.removeAll { $0.door === door }
            resource.queue.removeAll { $0.door === door }
        }
        serveAll()
    }

    /// The dead are recovered.
    package func resume() {
        isPaused = false
        serveAll()
        for name in names {
            guard let resource = resources[name] else { continue }
            while let place = resource.queue.firstIndex(where: { $0.refusal != nil }) {
                refuse(resource.queue.remove(at: place), resource)
                serve(resource)
            }
        }
    }

    private func serveAll() {
        for name in names { if let resource = resources[name] { serve(resource) } }
    }

    private func resource(_ name: ResourceName) -> Resource {
        if let resource = resources[name] { return resource }
        let resource = Resource()
        resources[name] = resource
        names.append(name)
        return resource
    }

    /// Those behind whom a request waits: not recovery behind those who wait for its end.
    private func mayBeServed(_ lock: Lock) -> Bool { !isPaused || lock.isForRecovery }

    private func queue(
        _ lock: Lock,
        _ flags: LockFlags,
        _ resource: Resource,
        isConversion: Bool
    ) {
        lock.isForRecovery = flags.contains(.recovery)
        var place = resource.queue.count
        if flags.contains(.noOrder) {
            place = 0
        } else if isConversion {
            place = resource.queue.firstIndex { $0.granted == nil } ?? place
        }
        lock.isQuestion = flags.contains(.question)
        if flags.contains(.noQueue) {
            guard let wanted = lock.wanted else { return }
            let isFree =
                mayBeServed(lock) && !resource.queue[..<place].contains(where: mayBeServed)
                && blockers(of: lock, wanted, resource).isEmpty
            if isFree { return grant(lock) }
            // When the dead are recovered it is decided.
            lock.refusal = flags
            if mayBeServed(lock) { return refuse(lock, resource) }
        }
        resource.queue.insert(lock, at: place)
        serve(resource)
    }

    private func refuse(_ lock: Lock, _ resource: Resource) {
        if lock.refusal?.contains(.noQueueButNotify) == true { notify(lock, resource) }
        lock.refusal = nil
        lock.wanted = nil
        answer(lock, .wouldBlock)
        if lock.granted == nil { remove(lock, resource) }
    }

    private func blockers(of lock: Lock, _ mode: LockMode, _ resource: Resource) -> [Lock] {
        resource.locks.filter {
            $0 !== lock && !($0.granted ?? .null).isCompatible(with: mode) && lock.sharesBytes($0)
        }
    }

    private func serve(_ resource: Resource) {
        if let first = resource.locks.first, first.bytes != nil { return serveRanges(resource) }
        while let place = resource.queue.firstIndex(where: mayBeServed),
            let wanted = resource.queue[place].wanted,
            blockers(of: resource.queue[place], wanted, resource).isEmpty
        {
            grant(resource.queue.remove(at: place))
        }
        for waiting in resource.queue where mayBeServed(waiting) { notify(waiting, resource) }
    }

    /// Locks of ranges are granted in any order, and nobody is told to go.
    private func serveRanges(_ resource: Resource) {
        for waiting in resource.queue where mayBeServed(waiting) {
            guard let wanted = waiting.wanted else { continue }
            let inTheWay = blockers(of: waiting, wanted, resource)
            if waiting.isQuestion {
                remove(waiting, resource)
                waiting.wanted = nil
                answerQuestion(waiting, inTheWay)
            } else if inTheWay.isEmpty {
                resource.queue.removeAll { $0 === waiting }
                grant(waiting)
            }
        }
    }

    private func answerQuestion(_ lock: Lock, _ inTheWay: [Lock]) {
        let first = inTheWay.min { ($0.bytes?.first ?? 0) < ($1.bytes?.first ?? 0) }
        guard let first, let mode = first.granted, let bytes = first.bytes else {
            return answer(lock, .notFound)
        }
        let obstacle = LockObstacle(node: first.door.node, mode: mode, bytes: bytes)
        answer(lock, .wouldBlock, obstacle: obstacle)
    }

    private func notify(_ lock: Lock, _ resource: Resource) {
        if lock.bytes != nil { return }
        guard let wanted = lock.wanted else { return }
        for blocker in blockers(of: lock, wanted, resource) {
            if let notified = blocker.notified, notified.covers(wanted) { continue }
            blocker.notified = wanted
            blocker.door.deliver { $0.isBlocking(cookie: blocker.cookie, wanted: wanted) }
        }
    }

    private func grant(_ lock: Lock) {
        lock.granted = lock.wanted
        lock.wanted = nil
        lock.refusal = nil
        lock.notified = nil
        answer(lock, .granted)
    }

    private func answer(_ lock: Lock, _ status: LockStatus, obstacle: LockObstacle? = nil) {
        var completion = LockCompletion(
            lock: lock.id,
            cookie: lock.cookie,
            status: status,
            mode: lock.granted ?? .null,
            value: nil,
            isValueValid: false
        )
        completion.obstacle = obstacle
        lock.door.deliver { [completion] in $0.completed(completion) }
    }
}

/// One node's way to the central locks.
package final class CentralLockDoor: LockService {
    /// Whose door it is.
    let node: NodeID
    private let manager: CentralLocks
    private let engine: Engine
    private var dice: SeededGenerator
    private var events: [(any LockClient) -> Void] = []
    private var isDelivering = false
    private(set) var isDead = false
    /// Whom the answers go to.
    package weak var client: (any LockClient)?

    package init(node: NodeID, manager: CentralLocks, engine: Engine, dice: SeededGenerator) {
        self.node = node
        self.manager = manager
        self.engine = engine
        self.dice = dice
    }

    package func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        bytes: LockedBytes?
    ) -> LockID {
        if isDead { return .none }
        return manager.request(
            name,
            mode,
            flags,
            cookie: cookie,
            owner: owner,
            bytes: bytes,
            self
        )
    }

    package func convert(
        _ lock: LockID,
        to mode: LockMode,
        _ flags: LockFlags,
        value: ValueBlock?
    ) {
        if !isDead { manager.convert(lock, to: mode, flags) }
    }

    package func unlock(_ lock: LockID, _ flags: LockFlags, value: ValueBlock?) {
        if !isDead { manager.unlock(lock) }
    }

    package func cancel(_ lock: LockID) { if !isDead { manager.cancel(lock) } }

    /// Nothing reaches this node any more, and nothing comes from it.
    package func die() { isDead = true }

    fileprivate func deliver(_ event: @escaping (any LockClient) -> Void) {
        events.append(event)
        guard !isDelivering else { return }
        isDelivering = true
        next()
    }

    private func next() {
        let delay = dice.oneIn(3) ? 0 : UInt64(dice.below(80_000))
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: delay),
            in: engine,
            EngineBound { [self] in
                let event = events.removeFirst()
                if !isDead, let client { event(client) }
                if events.isEmpty { isDelivering = false } else { next() }
            }
        )
    }
}
