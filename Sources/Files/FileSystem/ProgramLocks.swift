// Locks that programs take: flock(2), cluster-wide, on the lock manager itself.
//
// A lock of a program is a lock of the lock manager on the resource `flock` of the inode, one for each open
// file that has one: LOCK_SH is PR, LOCK_EX is EX. Nothing is cached under it and nobody gives it back when
// told; so the master decides, whoever waits waits at the master, and whoever uses a file alone masters it and
// sends nothing.
//
// States of an open file: free; asking (one request of it is under way, others of the same open file wait for
// its end); holding PR or EX.
//
// Invariants
// P1. An open file holds at most one lock. As on Linux a stronger mode is not converted to: the weaker lock goes
//     first, so that two who hold it shared and both want it alone do not wait for each other; and who does
//     not get it without waiting has lost the weaker one. A weaker mode is converted to, and nobody gets in between.
// P2. When an open file ends its lock goes. A node that dies has all of its locks taken back when what it may have
//     changed is in place (JournalRecovery): whoever gets the lock next reads what was durable.
// P3. Interrupting a request that waits takes it back at the master. When the grant was faster, the lock is held
//     and the interruption changes nothing.
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

/// A lock of an open file in the lock manager.
final class ProgramLock {
    fileprivate let cookie: UInt64
    fileprivate var lock = LockID.none
    fileprivate(set) var mode = LockMode.null
    fileprivate var waiter: UnsafeContinuation<LockStatus, Never>?

    fileprivate init(cookie: UInt64) { self.cookie = cookie }
}

/// All locks of programs on this node. Engine-bound.
package final class ProgramLocks: LockClient {
    /// Marks the cookies of these locks.
    package static let cookieBit: UInt64 = 1 << 62

    private let service: any LockService
    private var slots: [ProgramLock?] = []
    private var freeSlots: [Int] = []

    package init(service: any LockService) { self.service = service }

    /// Locks that are held or asked for.
    package var count: Int { slots.count - freeSlots.count }

    // MARK: Of one open file

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
        if wanted == .unlocked { return release(file) }
        if let held = file.lock {
            if held.mode == wanted.mode { return }
            if held.mode == .exclusive { return try await weaken(held, wanted.mode) }
            release(file)
        }
        if interruption?.isRequested == true { throw .interrupted }
        let lock = make()
        let flags: LockFlags = waits ? [] : [.noQueue]
        let status = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<LockStatus, Never>) in
            lock.waiter = continuation
            lock.lock = service.request(
                .flock(file.inode.number),
                wanted.mode,
                flags,
                cookie: lock.cookie
            )
            if waits {
                interruption?.onRequest = { [service] in
                    if lock.waiter != nil { service.cancel(lock.lock) }
                }
            }
        }
        interruption?.onRequest = nil
        guard status == .granted else {
            forget(lock)
            throw Self.error(status)
        }
        lock.mode = wanted.mode
        file.lock = lock
    }

    /// Gives the lock of an open file back, if it has one.
    func release(_ file: OpenFile) {
        guard let lock = file.lock else { return }
        file.lock = nil
        // The answer frees the slot.
        if lock.lock == .none { forget(lock) } else { service.unlock(lock.lock, [], value: nil) }
    }

    private func weaken(_ lock: ProgramLock, _ mode: LockMode) async throws(FileError) {
        let status = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<LockStatus, Never>) in
            lock.waiter = continuation
            service.convert(lock.lock, to: mode, [], value: nil)
        }
        guard status == .granted else { throw Self.error(status) }
        lock.mode = mode
    }

    private static func error(_ status: LockStatus) -> FileError {
        switch status {
        case .wouldBlock: .wouldBlock
        case .cancelled: .interrupted
        default: .inputOutput
        }
    }

    // MARK: Slots

    private func make() -> ProgramLock {
        let slot = freeSlots.popLast() ?? slots.count
        if slot == slots.count { slots.append(nil) }
        let lock = ProgramLock(cookie: Self.cookieBit | UInt64(slot))
        slots[slot] = lock
        return lock
    }

    private func forget(_ lock: ProgramLock) {
        let slot = Int(lock.cookie & ~Self.cookieBit)
        precondition(slots[slot] === lock, "a lock of a program that is not in the table")
        slots[slot] = nil
        freeSlots.append(slot)
    }

    // MARK: The lock service

    package func completed(_ completion: LockCompletion) {
        let slot = Int(completion.cookie & ~Self.cookieBit)
        guard slots.indices.contains(slot), let lock = slots[slot] else { return }
        if completion.status == .unlocked { return forget(lock) }
        if completion.status == .granted { lock.lock = completion.lock }
        // The lock manager has ended: nothing is held any more, and nothing has to be given back.
        if completion.status == .shutDown { lock.lock = .none }
        if let waiter = lock.waiter {
            lock.waiter = nil
            waiter.resume(returning: completion.status)
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
        try checkUsable()
        let inode = try inode(node)
        guard let file = openFiles[handle], file.inode === inode else { throw .badHandle }
        try await programLocks.set(file, wanted, waits: waits, interruption)
    }
}
