// Locks that programs take, cluster-wide, on the lock manager itself: flock(2) here, fcntl(2) in
// RangeLocks.swift.
//
// Nothing is cached under such a lock and nobody gives it back when told; so the master decides, whoever waits
// waits at the master, and whoever uses a file alone masters it and sends nothing.
//
// P0. From the first lock of an inode to the last close of it on this node a null lock (the anchor) stays on the
//     resource: the mastership of a file in use stays where it is, and no lock asks the directory.
//
// flock: a lock of the lock manager on the resource `flock` of the inode, one for each open file that has one:
// LOCK_SH is PR, LOCK_EX is EX.
//
// States of an open file: free; asking (one request of it is under way, others of the same open file wait for
// its end); holding PR or EX.
//
// P1. An open file holds at most one lock. As on Linux a stronger mode is not converted to: the weaker lock goes
//     first, so that two who hold it shared and both want it alone do not wait for each other; and who does
//     not get it without waiting has lost the weaker one. A weaker mode is converted to, and nobody gets in between.
// P2. When an open file ends its lock goes. A node that dies has all of its locks taken back when what it may have
//     changed is in place (JournalRecovery): whoever gets the lock next reads what was durable.
// P3. Interrupting a request that waits takes it back at the master. When the grant was faster, the lock is held
//     and the interruption changes nothing.
//
// P4. Who unlocks returns when the master knows: whoever is told of it, by whatever way, finds the lock free.
//
// flock takes no part in deadlock searches (flock(2) never fails with EDEADLK).
//
// Source: `flock_lock_inode` in Linux's fs/locks.c; GFS2 puts a glock of its own under each flock.

import Execution
package import LockCache
package import Vocabulary

/// What an open file asks of the lock of its file.
package enum WholeFileLock: Hashable, Sendable {
    /// LOCK_UN
    case unlocked
    /// LOCK_SH
    case shared
    /// LOCK_EX
    case exclusive

    fileprivate var mode: LockMode {
        switch self {
        case .unlocked: .null
        case .shared: .protectedRead
        case .exclusive: .exclusive
        }
    }
}

/// A lock of a program in the lock manager.
final class ProgramLock {
    fileprivate let cookie: UInt64
    fileprivate var lock = LockID.none
    fileprivate(set) var mode = LockMode.null
    /// The request has no answer yet.
    fileprivate var isAsked = true
    /// Given back: its end frees the slot.
    fileprivate var isReleased = false
    fileprivate var waiter: UnsafeContinuation<LockCompletion, Never>?

    fileprivate init(cookie: UInt64) { self.cookie = cookie }

    /// Its number among the locks of programs of this node.
    var number: UInt64 { cookie & ~ProgramLocks.cookieBit }
}

/// All locks of programs on this node. Engine-bound.
package final class ProgramLocks: LockClient {
    /// Marks the cookies of these locks.
    package static let cookieBit: UInt64 = 1 << 62

    let service: any LockService
    var owners = LockOwners()
    private var slots: [ProgramLock?] = []
    private var freeSlots: [Int] = []

    package init(service: any LockService) { self.service = service }

    /// Locks that are held or asked for.
    package var count: Int { slots.count - freeSlots.count }

    // MARK: flock

    func set(
        _ file: OpenFile,
        _ wanted: WholeFileLock,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        // While somebody else waits through the same open file it has no lock.
        if wanted == .unlocked, file.lock == nil { return }
        await file.locking.enter()
        defer { file.locking.leave() }
        if wanted == .unlocked {
            guard let lock = file.lock else { return }
            file.lock = nil
            return await giveUpAndWait(lock)
        }
        if let held = file.lock {
            if held.mode == wanted.mode { return }
            if held.mode == .exclusive { return try await weaken(held, wanted.mode) }
            release(file)
        }
        let inode = file.inode
        if inode.flockAnchor == nil { inode.flockAnchor = anchor(.flock(inode.number)) }
        let (lock, answer) = try await ask(
            .flock(inode.number),
            wanted.mode,
            waits ? [] : [.noQueue],
            interruption
        )
        guard let lock else { throw Self.error(answer.status) }
        file.lock = lock
    }

    /// Gives the lock of an open file back, if it has one.
    func release(_ file: OpenFile) {
        guard let lock = file.lock else { return }
        file.lock = nil
        giveUp(lock)
    }

    private func weaken(_ lock: ProgramLock, _ mode: LockMode) async throws(FileError) {
        let answer = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<LockCompletion, Never>) in
            lock.waiter = continuation
            service.convert(lock.lock, to: mode, [], value: nil)
        }
        guard answer.status == .granted else { throw Self.error(answer.status) }
        lock.mode = mode
    }

    static func error(_ status: LockStatus) -> FileError {
        switch status {
        case .wouldBlock: .wouldBlock
        case .cancelled: .interrupted
        case .deadlock: .deadlock
        default: .inputOutput
        }
    }

    // MARK: Locks of the lock manager

    /// Asks for a lock; nil if it was not granted, for the reason in the answer. Without `noQueue` it waits
    /// until it is, or interrupted.
    func ask(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        owner: LockOwner = .none,
        bytes: LockedBytes? = nil,
        _ interruption: Interruption?
    ) async throws(FileError) -> (lock: ProgramLock?, answer: LockCompletion) {
        if interruption?.isRequested == true { throw .interrupted }
        let lock = make()
        let answer = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<LockCompletion, Never>) in
            lock.waiter = continuation
            lock.lock = service.request(
                name,
                mode,
                flags,
                cookie: lock.cookie,
                owner: owner,
                bytes: bytes
            )
            if !flags.contains(.noQueue) {
                interruption?.onRequest = { [service] in
                    if lock.waiter != nil { service.cancel(lock.lock) }
                }
            }
        }
        interruption?.onRequest = nil
        guard answer.status == .granted else {
            forget(lock)
            return (nil, answer)
        }
        lock.mode = mode
        return (lock, answer)
    }

    /// P0. Nobody waits for it, and it waits for nobody (EXPEDITE).
    func anchor(_ name: ResourceName) -> ProgramLock {
        let lock = make()
        lock.lock = service.request(
            name,
            .null,
            .expedite,
            cookie: lock.cookie,
            owner: .none,
            bytes: nil
        )
        return lock
    }

    /// Gives a lock back; the answer frees the slot. An anchor that is not granted yet is withdrawn, or
    /// unlocked when it is granted all the same.
    func giveUp(_ lock: ProgramLock) {
        if lock.lock == .none { return forget(lock) }
        lock.isReleased = true
        if lock.isAsked {
            service.cancel(lock.lock)
        } else {
            service.unlock(lock.lock, [], value: nil)
        }
    }

    /// P4, for a granted lock.
    private func giveUpAndWait(_ lock: ProgramLock) async {
        if lock.lock == .none { return forget(lock) }
        _ = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<LockCompletion, Never>) in
            lock.waiter = continuation
            giveUp(lock)
        }
    }

    /// Gives the locks of these numbers back, all on one resource (P4: the master hears of one after the
    /// other).
    func giveUp(numbers: [UInt64]) async {
        for number in numbers.dropLast() { giveUp(named(number)) }
        if let last = numbers.last { await giveUpAndWait(named(last)) }
    }

    /// The lock of that number.
    func named(_ number: UInt64) -> ProgramLock {
        guard let lock = slots[Int(number)] else {
            preconditionFailure("lock \(number) of a program is not in the table")
        }
        return lock
    }

    private func make() -> ProgramLock {
        let slot = freeSlots.popLast() ?? slots.count
        if slot == slots.count { slots.append(nil) }
        let lock = ProgramLock(cookie: Self.cookieBit | UInt64(slot))
        slots[slot] = lock
        return lock
    }

    private func forget(_ lock: ProgramLock) {
        let slot = Int(lock.number)
        precondition(slots[slot] === lock, "a lock of a program that is not in the table")
        slots[slot] = nil
        freeSlots.append(slot)
    }

    // MARK: The lock service

    package func completed(_ completion: LockCompletion) {
        let slot = Int(completion.cookie & ~Self.cookieBit)
        guard slots.indices.contains(slot), let lock = slots[slot] else { return }
        lock.isAsked = false
        defer {
            if let waiter = lock.waiter {
                lock.waiter = nil
                waiter.resume(returning: completion)
            }
        }
        switch completion.status {
        case .unlocked: forget(lock)
        case .granted:
            lock.lock = completion.lock
            if lock.isReleased { service.unlock(lock.lock, [], value: nil) }
        case _ where lock.isReleased: forget(lock)
        // The lock manager has ended: nothing is held any more, and nothing has to be given back.
        case .shutDown: lock.lock = .none
        default: break
        }
    }

    /// A program keeps its lock for as long as it likes.
    package func isBlocking(cookie: UInt64, wanted: LockMode) {}
}

extension MountedVolume {
    package func lock(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ wanted: WholeFileLock,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try await programLocks.set(try lockable(node, handle), wanted, waits: waits, interruption)
    }

    func lockable(_ node: NodeHandle, _ handle: OpenHandle) throws(FileError) -> OpenFile {
        try checkUsable()
        let inode = try inode(node)
        guard let file = openFiles[handle], file.inode === inode else { throw .badHandle }
        return file
    }

    /// The last close of an inode on this node.
    func releaseAnchors(_ inode: Inode) {
        if let anchor = inode.flockAnchor { programLocks.giveUp(anchor) }
        inode.flockAnchor = nil
        if let anchor = inode.rangeLocks?.anchor { programLocks.giveUp(anchor) }
        inode.rangeLocks = nil
    }
}
