// Locks of ranges of bytes, for fcntl(2): a resource of a kind that `isOfBytes` is locked byte by byte.
//
// Everything else is as with other resources: one master decides, holders report after a change of view, the
// mastership moves, deadlocks are searched for. What is different:
//
// B0. Such a resource is a root: it has no parts (a lock's link to the lock above it is where its bytes are).
// B1. Each lock on such a resource has bytes (`LockRecord.bytes`), from its request to its end, on the holder
//     and on the master; they never change. No other lock has.
// B2. Two locks conflict if their modes do, a byte is common to both, and they are of different owners: an owner
//     is a number of its node. A node's client splits and joins what one owner has (`HeldRanges`) by asking for
//     new locks before it gives old ones up, and what an owner has already can always be granted to it again.
// B3. Nobody is told that he is in the way: programs keep their locks.
// B4. Requests come with `LockFlags.noOrder`: whoever conflicts with nobody's granted lock is granted, whoever
//     waits before. So a waiting one waits for granted locks alone, as on Linux.
// B5. A question (`LockFlags.question`) is answered as soon as something could be granted, and never is: with the
//     first lock in the way, by its first byte, and all that its owner has locked in that mode next to it.
//
// A null lock conflicts with nothing, and keeps the mastership of a file in use where it is.
//
// Source: `posix_lock_inode`, `posix_test_lock` in Linux's fs/locks.c for who conflicts with whom, and in which
// order waiting ones are granted.

import Vocabulary

extension Lockspace {
    /// What a lock of a range covers; nil for any other lock.
    @inline(__always)
    func bytes(of lock: UInt32) -> LockedBytes? {
        let place = locks[lock].bytes
        return place == 0 ? nil : ranges[place].bytes
    }

    /// B1, for a new lock. A peer that sends no bytes, or bytes for a resource without, means all.
    mutating func setBytes(_ lock: UInt32, _ bytes: LockedBytes?) {
        guard resources[locks[lock].resource].kind.isOfBytes else { return }
        let place = ranges.take()
        ranges[place].bytes = bytes ?? .all
        locks[lock].bytes = place
    }

    /// B2: whether a granted lock keeps another from what that asks for.
    @inline(__always)
    func stands(_ blocker: UInt32, inTheWayOf lock: UInt32) -> Bool {
        if blocker == lock || locks[blocker].granted.isCompatible(with: locks[lock].requested) {
            return false
        }
        return sharesBytes(blocker, lock)
    }

    /// Whether two locks of one resource have anything to do with each other: always, but for locks of
    /// ranges.
    private func sharesBytes(_ first: UInt32, _ second: UInt32) -> Bool {
        guard let left = bytes(of: first), let right = bytes(of: second) else { return true }
        return left.overlaps(right) && !isOfOneOwner(first, second)
    }

    private func isOfOneOwner(_ first: UInt32, _ second: UInt32) -> Bool {
        locks[first].holder == locks[second].holder && locks[first].owner == locks[second].owner
            && locks[first].owner != .none
    }

    /// The granted lock with the least first byte that conflicts with `mode` for the bytes of `lock`; 0 if there
    /// is none.
    func firstObstacle(_ lock: UInt32, _ mode: LockMode) -> UInt32 {
        let mask = compatibleModes(mode)
        var found: UInt32 = 0
        for queue in [Queue.granted, .converting] {
            let first = head(locks[lock].resource, queue)
            var other = first
            while other != 0 {
                if other != lock && mask & (1 << locks[other].granted.rawValue) == 0
                    && sharesBytes(other, lock)
                    && (found == 0 || firstByte(other) < firstByte(found))
                {
                    found = other
                }
                other = following(other, head: first)
            }
        }
        return found
    }

    private func firstByte(_ lock: UInt32) -> UInt64 { ranges[locks[lock].bytes].bytes.first }

    /// B5, for a question that is linked nowhere.
    mutating func answerQuestion(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let resource = locks[lock].resource
        let blocker =
            resources[resource].kind.isOfBytes ? firstObstacle(lock, locks[lock].requested) : 0
        if blocker == 0 {
            refuseRequest(lock, .notFound, &effects)
        } else {
            let obstacle = LockObstacle(
                node: locks[blocker].holder,
                mode: locks[blocker].granted,
                bytes: extent(of: blocker)
            )
            refuseRequest(lock, .wouldBlock, obstacle: obstacle, &effects)
        }
        releaseIfUnused(resource, &effects)
    }

    /// All that the owner of a granted lock has locked in its mode in one piece.
    private func extent(of lock: UInt32) -> LockedBytes {
        var whole = ranges[locks[lock].bytes].bytes
        let first = resources[locks[lock].resource].granted
        var hasGrown = true
        while hasGrown {
            hasGrown = false
            var other = first
            while other != 0 {
                let bytes = ranges[locks[other].bytes].bytes
                let isMore = bytes.first < whole.first || bytes.last > whole.last
                if isMore && locks[other].granted == locks[lock].granted
                    && isOfOneOwner(other, lock) && bytes.touches(whole)
                {
                    whole.first = min(whole.first, bytes.first)
                    whole.last = max(whole.last, bytes.last)
                    hasGrown = true
                }
                other = following(other, head: first)
            }
        }
        return whole
    }
}
