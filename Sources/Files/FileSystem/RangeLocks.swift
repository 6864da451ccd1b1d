// Locks of bytes that programs take with fcntl(2), cluster-wide: F_SETLK, F_SETLKW, F_GETLK, and F_OFD_*.
//
// An owner is a process (all its descriptors of the file) or an open file description (OFD locks); the kernel
// names both by a number, and this file system treats them alike. What an owner has locked of an inode is a table of
// disjoint ranges (`HeldRanges`), each a lock of the lock manager on the resource `byteLocks` of the inode with
// its bytes (LockCore, ByteRanges.swift). The master knows all locks of all nodes and decides.
//
// To lock a range: ask the master for it, waiting or not. When it is granted, whatever the owner had locked of the
// range before is replaced; what sticks out is asked for anew first, and is granted whoever waits. To unlock a
// range: the same without the first step.
//
// B1. An owner's table is changed by one task at a time (`gate`); nobody waits inside for what another owner has,
//     so that a thread can unlock what another one's wait depends on.
// B2. At close(2) the owner loses all its locks of the inode, through whatever descriptor it took them (POSIX); at
//     the last close of an open file description those taken through it that are left: only OFD locks, as
//     whoever closes names himself but never the description (KERNEL, locks).
// B3. A wait that is part of a circle of waits ends with `deadlock` (LockCore, Deadlocks.swift). As on Linux a
//     process is taken to wait for all that its threads wait for.
// B4. F_GETLK asks the master, which answers with one lock in the way: its bytes, node and process.
//
// An owner has the same number on all inodes of this node while it has locks or asks for some.
//
// Source: POSIX, fcntl(2); `posix_lock_inode` in Linux's fs/locks.c; fs/fuse/file.c for what the kernel says.

import Execution
import LockCache
package import Vocabulary

/// Who has locked bytes, as the kernel names a process or an open file description.
package struct ByteLockOwner: RawRepresentable, Hashable, Sendable {
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// What is to be locked, in which mode, or unlocked.
package struct ByteLockWish: Hashable, Sendable {
    /// As fcntl(2) names it.
    package enum Kind: Hashable, Sendable {
        /// F_RDLCK
        case read
        /// F_WRLCK
        case write
        /// F_UNLCK
        case unlock
    }

    package var kind: Kind
    package var bytes: LockedBytes

    package init(_ kind: Kind, _ bytes: LockedBytes) {
        self.kind = kind
        self.bytes = bytes
    }

    fileprivate var mode: LockMode {
        switch kind {
        case .read: .protectedRead
        case .write: .exclusive
        case .unlock: .null
        }
    }
}

/// A lock of bytes that is in somebody's way.
package struct ByteLockHolder: Hashable, Sendable {
    /// F_WRLCK, else F_RDLCK.
    package var isWrite: Bool
    /// Its bytes and the process.
    package var bytes: LockedBytes
    /// Nil: this node.
    package var node: NodeID?

    package init(isWrite: Bool, bytes: LockedBytes, node: NodeID?) {
        self.isWrite = isWrite
        self.bytes = bytes
        self.node = node
    }
}

/// The numbers that owners have for the lock manager.
struct LockOwners {
    private var numbers: [UInt64: (number: LockOwner, uses: Int)] = [:]
    private var taken: Set<UInt32> = []
    private var last: UInt32 = 0

    /// The number of an owner, until as many `endUse`.
    mutating func use(_ owner: ByteLockOwner) -> LockOwner {
        if let known = numbers[owner.rawValue] {
            numbers[owner.rawValue] = (known.number, known.uses + 1)
            return known.number
        }
        repeat { last &+= 1 } while last == 0 || taken.contains(last)
        taken.insert(last)
        numbers[owner.rawValue] = (LockOwner(last), 1)
        return LockOwner(last)
    }

    mutating func endUse(_ owner: ByteLockOwner) {
        guard let known = numbers[owner.rawValue] else {
            preconditionFailure("an owner of locks that is not used")
        }
        if known.uses > 1 {
            numbers[owner.rawValue] = (known.number, known.uses - 1)
        } else {
            numbers.removeValue(forKey: owner.rawValue)
            taken.remove(known.number.rawValue)
        }
    }
}

/// One owner's locks of an inode.
final class RangeOwner {
    let owner: ByteLockOwner
    let number: LockOwner
    var held = HeldRanges()
    let gate = Gate()
    /// Through which open files it has locked something.
    var handles: [OpenHandle] = []
    /// Tasks that will look at it again.
    var users = 0

    init(_ owner: ByteLockOwner, _ number: LockOwner) {
        self.owner = owner
        self.number = number
    }
}

/// The locks of bytes of an inode on this node.
final class RangeLocks {
    let inode: InodeNumber
    /// ProgramLocks, P0.
    let anchor: ProgramLock
    fileprivate var owners: [RangeOwner] = []

    init(_ inode: InodeNumber, anchor: ProgramLock) {
        self.inode = inode
        self.anchor = anchor
    }
}

extension ProgramLocks {
    func set(
        _ inode: Inode,
        _ handle: OpenHandle,
        _ owner: ByteLockOwner,
        _ wish: ByteLockWish,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        if wish.kind == .unlock, find(inode, owner) == nil { return }
        let locks = rangeLocks(of: inode)
        let holder = enter(locks, owner)
        defer { leave(locks, holder) }
        if wish.kind == .unlock { return try await replace(wish, nil, holder, locks) }
        if !holder.held.covers(wish.bytes, wish.mode) {
            let (lock, answer) = try await ask(
                .byteLocks(locks.inode),
                wish.mode,
                waits ? [.noOrder] : [.noOrder, .noQueue],
                owner: holder.number,
                bytes: wish.bytes,
                interruption
            )
            guard let lock else { throw Self.error(answer.status) }
            try await replace(wish, lock, holder, locks)
        }
        if !holder.handles.contains(handle) { holder.handles.append(handle) }
    }

    func holder(
        inTheWayOf wish: ByteLockWish,
        _ inode: Inode,
        _ owner: ByteLockOwner,
        _ interruption: Interruption?
    ) async throws(FileError) -> LockObstacle? {
        let locks = rangeLocks(of: inode)
        let asker = enter(locks, owner)
        defer { leave(locks, asker) }
        let (_, answer) = try await ask(
            .byteLocks(locks.inode),
            wish.mode,
            [.noOrder, .noDeadlockWait, .question],
            owner: asker.number,
            bytes: wish.bytes,
            interruption
        )
        switch answer.status {
        case .notFound: return nil
        case .wouldBlock: if let obstacle = answer.obstacle { return obstacle }
        default: break
        }
        throw Self.error(answer.status)
    }

    /// Puts a granted lock, or nothing, in the place of what its owner has of the range (B1).
    private func replace(
        _ wish: ByteLockWish,
        _ lock: ProgramLock?,
        _ holder: RangeOwner,
        _ locks: RangeLocks
    ) async throws(FileError) {
        await holder.gate.enter()
        defer { holder.gate.leave() }
        var remainders: [HeldRanges.Piece] = []
        for piece in holder.held.remainders(around: wish.bytes) {
            let (kept, answer) = try await ask(
                .byteLocks(locks.inode),
                piece.mode,
                .noOrder,
                owner: holder.number,
                bytes: piece.bytes,
                nil
            )
            reached(.rangeIsSplit)
            guard let kept else {
                // The lock manager has ended, and with it all locks.
                if let lock { giveUp(lock) }
                for piece in remainders { giveUp(named(piece.lock)) }
                throw Self.error(answer.status)
            }
            remainders.append(HeldRanges.Piece(piece.bytes, piece.mode, lock: kept.number))
        }
        let new = lock.map { HeldRanges.Piece(wish.bytes, wish.mode, lock: $0.number) }
        await giveUp(numbers: holder.held.replace(wish.bytes, by: new, remainders: remainders))
    }

    // MARK: Close

    /// close(2) by an owner (B2).
    func releaseBytes(_ inode: Inode, of owner: ByteLockOwner) async {
        guard let locks = inode.rangeLocks, find(inode, owner) != nil else { return }
        await releaseAll(locks, enter(locks, owner))
    }

    /// The end of an open file description (B2).
    func releaseBytes(_ inode: Inode, takenThrough handle: OpenHandle) async {
        guard let locks = inode.rangeLocks else { return }
        for holder in locks.owners where holder.handles.contains(handle) {
            await releaseAll(locks, enter(locks, holder.owner))
        }
    }

    private func releaseAll(_ locks: RangeLocks, _ holder: RangeOwner) async {
        await holder.gate.enter()
        holder.handles = []
        await giveUp(numbers: holder.held.removeAll())
        holder.gate.leave()
        leave(locks, holder)
    }

    // MARK: Owners

    private func rangeLocks(of inode: Inode) -> RangeLocks {
        if let locks = inode.rangeLocks { return locks }
        let locks = RangeLocks(inode.number, anchor: anchor(.byteLocks(inode.number)))
        inode.rangeLocks = locks
        return locks
    }

    private func find(_ inode: Inode, _ owner: ByteLockOwner) -> RangeOwner? {
        inode.rangeLocks?.owners.first { $0.owner == owner }
    }

    private func enter(_ locks: RangeLocks, _ owner: ByteLockOwner) -> RangeOwner {
        if let known = locks.owners.first(where: { $0.owner == owner }) {
            known.users += 1
            return known
        }
        let made = RangeOwner(owner, owners.use(owner))
        made.users = 1
        locks.owners.append(made)
        return made
    }

    private func leave(_ locks: RangeLocks, _ holder: RangeOwner) {
        holder.users -= 1
        guard holder.users == 0, holder.held.pieces.isEmpty else { return }
        locks.owners.removeAll { $0 === holder }
        owners.endUse(holder.owner)
    }
}

extension MountedVolume {
    package func lockBytes(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ owner: ByteLockOwner,
        _ wish: ByteLockWish,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        let file = try lockable(node, handle)
        try await programLocks.set(
            file.inode,
            handle,
            owner,
            wish,
            waits: waits,
            interruption
        )
    }

    package func byteLock(
        inTheWayOf wish: ByteLockWish,
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ owner: ByteLockOwner,
        _ interruption: Interruption?
    ) async throws(FileError) -> ByteLockHolder? {
        let file = try lockable(node, handle)
        if wish.kind == .unlock { throw .invalid }
        let found = try await programLocks.holder(
            inTheWayOf: wish,
            file.inode,
            owner,
            interruption
        )
        guard let found else { return nil }
        return ByteLockHolder(
            isWrite: found.mode == .exclusive,
            bytes: found.bytes,
            node: found.node == NodeID(slot: slot) ? nil : found.node
        )
    }
}
