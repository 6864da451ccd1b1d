// The parts of a random world: names, locks, nodes, connections.

import LockCore
import Vocabulary

/// A name and who has locks on it.
final class WorldName {
    let name: ResourceName
    /// Locks of living nodes and of dead ones that are not fenced.
    var locks: [WorldLock] = []
    var last: WrittenValue?
    var isTouched = false
    /// The last round of winding down in which a lock of this name was cancelled.
    var round = 0

    init(_ name: ResourceName) { self.name = name }
}

/// A name that leaves its creator's privacy: to be used by all, or free to be created again.
struct Published {
    var name: ResourceName
    var isFree: Bool
}

/// A lock of a client.
final class WorldLock {
    let node: WorldNode
    let subject: WorldName
    var client: ClientLock
    /// Names that others may learn when the pending demotion completes.
    var publishes: [Published] = []
    /// Its place among the locks of its node and of its name.
    var placeInNode = 0
    var placeInName = 0
    var isGone = false
    /// The lock above it.
    fileprivate(set) var parent: WorldLock?
    /// How many locks stand below it.
    var sublocks = 0
    /// An orphan that somebody has told to go.
    var mayBePurged = false

    /// Whether both are in each other's way if their modes are.
    func sharesBytes(_ other: WorldLock) -> Bool {
        guard let bytes = client.bytes, let others = other.client.bytes else { return true }
        let isOfOneOwner =
            node === other.node && client.owner == other.client.owner && client.owner != .none
        return bytes.overlaps(others) && !isOfOneOwner
    }

    init(node: WorldNode, subject: WorldName, client: ClientLock, parent: WorldLock? = nil) {
        self.parent = parent
        self.node = node
        self.subject = subject
        self.client = client
    }
}

/// One node of the world in one life.
final class WorldNode {
    let id: NodeID
    let incarnation: UInt64
    var space: Lockspace
    private(set) var locks: [WorldLock] = []
    /// Locks whose owner is gone.
    private(set) var orphans: [WorldLock] = []
    private var byCookie: [UInt64: WorldLock] = [:]
    var isAlive = true
    var isLeaving = false
    /// Views on their way, oldest first.
    var views: [ClusterView] = []
    var view = ClusterView(epoch: Epoch(0), members: [], slotsToReplay: [])
    var unpublished: [Published] = []
    var callsSinceCheck = 0
    var tickedAt = 0
    /// What other nodes said of orphans that are to go, and is not obeyed yet.
    var purges: [(epoch: Epoch, owner: LockOwner)] = []

    init(id: NodeID, incarnation: UInt64) {
        self.id = id
        self.incarnation = incarnation
        space = Lockspace(node: id, incarnation: incarnation)
        space.settings.deadlockWait = 40
        space.settings.activityInterval = 60
        space.settings.leastActivity = 2
        space.settings.restAfterMove = 30
        space.settings.cachedMasters = [0, 1, 16][Int(id.rawValue) % 3]
    }

    func lock(cookie: UInt64) -> WorldLock? { byCookie[cookie] }

    func add(_ lock: WorldLock) {
        lock.placeInNode = locks.count
        locks.append(lock)
        byCookie[lock.client.cookie] = lock
        lock.placeInName = lock.subject.locks.count
        lock.subject.locks.append(lock)
        lock.parent?.sublocks += 1
    }

    func remove(_ lock: WorldLock) {
        if lock.isGone { return }
        lock.isGone = true
        lock.parent?.sublocks -= 1
        if lock.client.isOrphan {
            orphans.removeAll { $0 === lock }
        } else {
            removeFromClient(lock)
        }
        let others = lock.subject.locks.count - 1
        lock.subject.locks[others].placeInName = lock.placeInName
        lock.subject.locks.swapAt(lock.placeInName, others)
        lock.subject.locks.removeLast()
    }

    private func removeFromClient(_ lock: WorldLock) {
        byCookie[lock.client.cookie] = nil
        locks[locks.count - 1].placeInNode = lock.placeInNode
        locks.swapAt(lock.placeInNode, locks.count - 1)
        locks.removeLast()
    }

    /// Nobody hears of it any more.
    func makeOrphan(_ lock: WorldLock) {
        removeFromClient(lock)
        lock.client.isOrphan = true
        orphans.append(lock)
    }

    /// The orphan is a client's lock again; what stood below it stands below that.
    func adopt(_ orphan: WorldLock, as lock: WorldLock) {
        lock.parent?.sublocks -= 1
        lock.parent = orphan.parent
        lock.parent?.sublocks += 1
        for other in locks + orphans where other.parent === orphan {
            other.parent = lock
            lock.sublocks += 1
        }
        lock.client.id = orphan.client.id
        remove(orphan)
    }
}

/// A message on its way.
struct Packet {
    var bytes: [UInt8]
    var message: LockMessage
    var epoch: Epoch
    /// The step from which on it can arrive.
    var due: Int
}

/// One direction between two nodes: first in, first out.
struct Channel {
    private var packets: [Packet] = []
    private var start = 0
    /// Messages of this epoch and older were sent on a connection that is lost.
    var lostThrough = Epoch(0)
    /// How long a message takes at most.
    var delay = 0
    /// Its place among the channels that are not empty.
    var placeAmongBusy = -1

    var isEmpty: Bool { start == packets.count }
    var count: Int { packets.count - start }
    var first: Packet { packets[start] }
    var lastDue: Int { packets.last?.due ?? 0 }

    mutating func append(_ packet: Packet) { packets.append(packet) }

    mutating func takeFirst() -> Packet {
        let packet = packets[start]
        start += 1
        if start == packets.count || start > 1000 {
            packets.removeFirst(start)
            start = 0
        }
        return packet
    }

    /// Loses all but the first `kept`.
    mutating func cut(to kept: Int) {
        packets.removeFirst(start)
        start = 0
        packets.removeLast(packets.count - kept)
    }
}

extension LockMessage {
    /// The one resource a message is about.
    var name: ResourceName? {
        switch self {
        case .lookup(let name, _), .claim(let name), .confirm(let name), .remove(let name): name
        case .lookupReply(let name, _), .claimReply(let name, _), .confirmReply(let name, _): name
        case .request(let name, _, _, _, _, _), .convert(let name, _, _, _, _): name
        case .unlock(let name, _, _), .cancel(let name, _), .refused(let name, _, _, _, _): name
        case .granted(let name, _, _, _, _), .unlocked(let name, _), .notMaster(let name, _): name
        case .blocking(let name, _, _), .handover(let name, _), .rebuild(let name, _): name
        case .moving(let name, _), .movingSeen(let name), .taken(let name), .moved(let name, _):
            name
        case .transfer(let name, _, _, _), .entry(let name, _), .entryIs(let name): name
        case .seek(let name, _, _, _), .deadlocked(let name, _, _): name
        default: nil
        }
    }
}
