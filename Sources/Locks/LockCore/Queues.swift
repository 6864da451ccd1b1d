// The three queues of a resource: circular doubly linked lists through the lock records.

import Vocabulary

/// One of a resource's lists of locks.
enum Queue: Sendable {
    case granted
    case converting
    case waiting
}

extension Lockspace {
    @inline(__always)
    func head(_ resource: UInt32, _ queue: Queue) -> UInt32 {
        switch queue {
        case .granted: resources[resource].granted
        case .converting: resources[resource].converting
        case .waiting: resources[resource].waiting
        }
    }

    @inline(__always)
    private mutating func setHead(_ resource: UInt32, _ queue: Queue, _ lock: UInt32) {
        switch queue {
        case .granted: resources[resource].granted = lock
        case .converting: resources[resource].converting = lock
        case .waiting: resources[resource].waiting = lock
        }
    }

    /// The lock after `lock` in the list that begins with `head`; 0 at the end.
    @inline(__always)
    func following(_ lock: UInt32, head: UInt32) -> UInt32 {
        let next = locks[lock].next
        return next == head ? 0 : next
    }

    /// Puts an unlinked lock at the end of a list.
    @inline(__always)
    mutating func append(_ lock: UInt32, to queue: Queue) {
        let resource = locks[lock].resource
        let first = head(resource, queue)
        if first == 0 {
            locks[lock].next = lock
            locks[lock].previous = lock
            setHead(resource, queue, lock)
            return
        }
        let last = locks[first].previous
        locks[lock].next = first
        locks[lock].previous = last
        locks[last].next = lock
        locks[first].previous = lock
    }

    /// Puts a lock of a list before all others.
    mutating func makeFirst(_ lock: UInt32, in queue: Queue) {
        setHead(locks[lock].resource, queue, lock)
    }

    /// Takes a lock out of a list.
    @inline(__always)
    mutating func unlink(_ lock: UInt32, from queue: Queue) {
        let resource = locks[lock].resource
        let next = locks[lock].next
        if next == lock {
            setHead(resource, queue, 0)
            return
        }
        let previous = locks[lock].previous
        locks[previous].next = next
        locks[next].previous = previous
        if head(resource, queue) == lock { setHead(resource, queue, next) }
    }

    /// The list a lock is linked in: by its state on the master, `granted` anywhere else.
    @inline(__always)
    func queue(of lock: UInt32) -> Queue {
        if resources[locks[lock].resource].mastery != .local { return .granted }
        switch locks[lock].state {
        case .converting: return .converting
        case .waiting: return .waiting
        default: return .granted
        }
    }

    /// A new lock record, linked nowhere.
    @inline(__always)
    mutating func insertLock(_ resource: UInt32, holder: NodeID, identity: UInt64) -> UInt32 {
        let index = locks.take()
        var record = LockRecord()
        record.generation = locks[index].generation
        record.identity = identity
        record.resource = resource
        record.holder = holder
        record.state = .waiting
        record.since = stamp
        locks[index] = record
        return index
    }

    /// Gives the place of an unlinked lock back; its name is stale from now on.
    @inline(__always)
    mutating func freeLock(_ lock: UInt32) {
        if locks[lock].wait | locks[lock].parent | locks[lock].bytes != 0 { detach(lock) }
        locks[lock].state = .free
        locks[lock].generation &+= 1
        if locks[lock].generation == 0 { locks[lock].generation = 1 }
        locks.release(lock)
    }

    /// Ends what ties a lock to timers, to its bytes and to the lock above it.
    private mutating func detach(_ lock: UInt32) {
        if locks[lock].wait != 0 { endWait(lock) }
        if locks[lock].bytes != 0 { ranges.release(locks[lock].bytes) }
        let parent = locks[lock].parent
        if parent == 0 { return }
        locks[lock].parent = 0
        locks[parent].sublocks -= 1
        if locks[parent].sublocks == 0 && locks[parent].marks.contains(.doomed) {
            ripe.append(lockID(parent))
        }
    }

    /// The name of a lock in this node's slab.
    @inline(__always)
    func lockID(_ lock: UInt32) -> LockID {
        LockID(UInt64(locks[lock].generation) << 32 | UInt64(lock))
    }

    /// The place of one of this node's own locks; 0 when the name is stale or not of here.
    @inline(__always)
    func localIndex(_ lock: LockID) -> UInt32 {
        let index = UInt32(truncatingIfNeeded: lock.rawValue)
        if index == 0 || index >= locks.bound { return 0 }
        let record = locks[index]
        if record.state == .free || record.holder != node { return 0 }
        return record.generation == UInt32(truncatingIfNeeded: lock.rawValue >> 32) ? index : 0
    }

    /// The master's copy of another node's lock; 0 when there is none.
    func findCopy(_ resource: UInt32, holder: NodeID, _ lock: LockID) -> UInt32 {
        for queue in [Queue.granted, .converting, .waiting] {
            let first = head(resource, queue)
            var index = first
            while index != 0 {
                if locks[index].identity == lock.rawValue && locks[index].holder == holder {
                    return index
                }
                index = following(index, head: first)
            }
        }
        return 0
    }
}
