// A glock binds one resource of the lock manager to what this node caches under it. This file is
// the pure machine: who may use the cache now, what to ask of the lock manager, when to give way.
//
// Terms
//   held      the mode the lock manager has granted (NL, CW, PR or EX; NL also before the first
//   request)
//   target    the mode that is being asked for or lowered to, while an answer is outstanding
//   wanted    the strongest mode a peer waits for and we are in the way of
//   holder    one operation of this node that uses the cache, shared, exclusive or concurrent; holders
//   queue here
//             first come first served, inside the node
//   concurrent  an operation that reads or writes a part of what the lock protects and has a lock of its
//             own for that part (FileSystem/Regions.swift); holders of other nodes do the same at the same
//             time
//
// Phases and what is true in them
//   steady      nothing outstanding; holders come and go as `held` allows
//   requesting  the lock manager was asked for `target`; no holder is inside that `held` does not
//   cover
//   demoting    the owner is writing back and invalidating on the way to `target`; `held` is still
//   held
//   lowering    the lock manager was asked to lower to `target`; nobody is inside beyond `target`
//
//   steady ── head of the queue needs more ──▶ requesting ── granted ──▶ steady
//   requesting (EX over PR, not to be had at once) ── refused ──▶ steady with wanted = EX (G6)
//   steady ── wanted, and nobody is inside beyond the new mode ──▶ demoting ── finished ──▶
//   lowering ──▶ steady
//
// Invariants
//   G1. Exclusive holders are alone; shared holders only with shared ones, concurrent ones only with
//       concurrent ones.
//   G2. Whoever is inside is covered by `held`: shared by PR or EX, concurrent by CW or EX, exclusive by EX.
//   G3. The lock is kept after the last holder has left, until a peer wants it or memory does.
//   G4. While `wanted` is set nobody new enters beyond the mode that will be left, except
//       (a) the holders for whose sake the lock was just granted, so that every grant does some
//       work, and
//       (b) holders that use bytes which the owner is just invalidating in the kernel ("urgent"):
//       the kernel may hold the very page that the invalidation waits for (KERNEL F3), and
//       (c) concurrent holders for whom a part is given up, or who finish what this waits for.
//   G5. Lowering starts only when the owner says that what was cached is written back and
//   invalidated.
//   G6. An upgrade of a lock that caches never waits with the old mode in hand: it is asked for
//   without
//       queueing, and when refused the cache is emptied, the lock goes to NL and queues for EX from
//       there. Two PR holders that both write are the normal case and must not dead-lock.
//   G7. At most one operation is outstanding at the lock manager.
//   G8. PR and CW allow different things to be cached: from one to the other the way leads through NL.
//   G9. A concurrent holder may wait for the lock of a part, which may be on its way out and wait for the end of a
//       demotion of the whole: so none is inside when a demotion begins, also of EX to CW, and during it only urgent
//       ones and those of (c) enter, which wait for nothing.
//
// Source: the glock of GFS2 (Documentation/filesystems/gfs2-glocks.rst), with holders that are
// queued in one line instead of two lists, and G6 instead of conversion dead-lock handling.

package import Vocabulary

/// How an operation uses what a glock protects.
package enum HolderMode: UInt8, Sendable {
    case shared
    case exclusive
    /// Uses a part, for which it has another lock.
    case concurrent

    /// The lock that covers this use.
    package var lockMode: LockMode {
        switch self {
        case .shared: .protectedRead
        case .exclusive: .exclusive
        case .concurrent: .concurrentWrite
        }
    }
}

/// What the owner of a glock must do. In order.
package enum GlockAction: Hashable, Sendable {
    /// The holder with this ticket is inside now.
    case grant(UInt64)
    /// The holder with this ticket will never be: the lock manager has shut down.
    case refuse(UInt64)
    /// Ask the lock manager for a new lock or, when there is one, for a conversion upwards.
    case request(LockMode, LockFlags)
    /// Write back and invalidate what may not stay under `to`, then say `demotionFinished`.
    case demote(from: LockMode, to: LockMode)
    /// Convert downwards; everything is written back.
    case lower(LockMode)
}

/// The state of one glock.
package struct GlockMachine: Sendable {
    /// Where the glock stands; the head of the file says what is true in each phase.
    package enum Phase: Hashable, Sendable {
        case steady
        case requesting(LockMode)
        case demoting(LockMode)
        case lowering(LockMode)
    }

    private struct Waiter: Sendable {
        var ticket: UInt64
        var mode: HolderMode
        /// The bytes it uses, when the kernel may hold their pages for it (G4b).
        var bytes: Range<UInt64>?
        /// Asked for in place of what it needs, when nothing is held.
        var asks: LockMode?
    }

    package private(set) var held: LockMode = .null
    package private(set) var phase: Phase = .steady
    package private(set) var wanted: LockMode?
    package private(set) var sharedCount = 0
    package private(set) var concurrentCount = 0
    package private(set) var isExclusive = false
    /// The bytes whose users may enter while demoting (G4b); none: nobody may.
    package private(set) var urgentBytes: [Range<UInt64>] = []
    /// Urgent holders admitted since the demotion began.
    package private(set) var urgentAdmissions = 0
    private var queue: [Waiter] = []
    /// Who asked without queueing, while the answer is outstanding.
    private var probe: Waiter?
    private var firstFlags: LockFlags
    private var isShutDown = false

    /// A glock nobody has asked for yet. `firstFlags` go with the first request
    /// (`freshName`, `recovery`).
    package init(firstFlags: LockFlags = []) { self.firstFlags = firstFlags }

    /// Whether anybody is inside.
    package var isInUse: Bool { isExclusive || sharedCount > 0 || concurrentCount > 0 }

    /// Whether anybody waits.
    package var hasWaiters: Bool { !queue.isEmpty }

    /// How many operations wait in line.
    package var queuedCount: Int { queue.count }

    /// Nothing inside, nothing outstanding, nobody waiting: may be forgotten once lowered to NL.
    package var isIdle: Bool { !isInUse && queue.isEmpty && phase == .steady }

    /// The mode that is left of `held` when a peer wants `mode`.
    package static func remainder(of held: LockMode, for mode: LockMode) -> LockMode {
        if mode.isCompatible(with: held) { return held }
        for rest in [LockMode.protectedRead, .concurrentWrite]
        where held.covers(rest) && mode.isCompatible(with: rest) {
            return rest
        }
        return .null
    }

    // MARK: Holders

    /// Enters at once if that is possible; the common case.
    package mutating func enterIfPossible(
        _ mode: HolderMode,
        bytes: Range<UInt64>? = nil
    ) -> Bool {
        guard canEnter(mode, bytes: bytes) else { return false }
        admit(mode)
        return true
    }

    /// Whether `enterIfPossible` would let it in.
    package func canEnter(_ mode: HolderMode, bytes: Range<UInt64>? = nil) -> Bool {
        (queue.isEmpty || isUrgent(bytes)) && mayEnter(mode, bytes)
    }

    /// Enters as a concurrent holder past all that wait, for something that gives a part up, or that this waits
    /// for: it waits for nothing itself. False if the whole is in use, or is being given up.
    package mutating func enterPastWaiters() -> Bool {
        guard held.covers(.concurrentWrite), hasRoom(for: .concurrent) else { return false }
        switch phase {
        case .steady, .requesting: break
        case .demoting: return false
        case .lowering(let target): if !target.covers(.concurrentWrite) { return false }
        }
        concurrentCount += 1
        return true
    }

    /// Whether it is being written back and invalidated.
    package var isDemoting: Bool {
        if case .demoting = phase { return true }
        return false
    }

    /// Enters, or waits in line. If nothing is held, the lock manager is asked for `asks`, which covers what it needs: others
    /// that will soon want more then need not ask again.
    package mutating func enter(
        _ mode: HolderMode,
        ticket: UInt64,
        bytes: Range<UInt64>? = nil,
        asks: LockMode? = nil,
        _ actions: inout [GlockAction]
    ) {
        if isShutDown {
            actions.append(.refuse(ticket))
            return
        }
        if enterIfPossible(mode, bytes: bytes) {
            actions.append(.grant(ticket))
            return
        }
        precondition(asks?.covers(mode.lockMode) != false, "Glock G2: asking for too little")
        queue.append(Waiter(ticket: ticket, mode: mode, bytes: bytes, asks: asks))
        proceed(&actions)
    }

    /// Enters at once or after asking the lock manager without queueing; refused rather than waited
    /// for. Who is in the way is told all the same if `notifies`.
    package mutating func enterWithoutQueueing(
        _ mode: HolderMode,
        ticket: UInt64,
        notifies: Bool = true,
        _ actions: inout [GlockAction]
    ) {
        if !isShutDown, enterIfPossible(mode) {
            actions.append(.grant(ticket))
        } else if isShutDown || !isIdle || wanted != nil || isDetour(mode.lockMode) {
            actions.append(.refuse(ticket))
        } else {
            probe = Waiter(ticket: ticket, mode: mode, bytes: nil)
            phase = .requesting(mode.lockMode)
            actions.append(
                .request(mode.lockMode, notifies ? [.noQueue, .noQueueButNotify] : .noQueue)
            )
        }
    }

    /// Takes a waiter out of the line. False if it is not in it (any more).
    package mutating func withdraw(ticket: UInt64, _ actions: inout [GlockAction]) -> Bool {
        guard let index = queue.firstIndex(where: { $0.ticket == ticket }) else { return false }
        queue.remove(at: index)
        proceed(&actions)
        return true
    }

    /// A holder leaves.
    package mutating func leave(_ mode: HolderMode, _ actions: inout [GlockAction]) {
        switch mode {
        case .shared:
            precondition(sharedCount > 0, "Glock G1: a shared holder left that was not inside")
            sharedCount -= 1
        case .exclusive:
            precondition(isExclusive, "Glock G1: an exclusive holder left that was not inside")
            isExclusive = false
        case .concurrent:
            precondition(concurrentCount > 0, "Glock G1: a concurrent holder left, not inside")
            concurrentCount -= 1
        }
        if wanted == nil && queue.isEmpty { return }
        proceed(&actions)
    }

    private func isUrgent(_ bytes: Range<UInt64>?) -> Bool {
        guard let bytes else { return false }
        return urgentBytes.contains { $0.overlaps(bytes) }
    }

    private func mayEnter(_ mode: HolderMode, _ bytes: Range<UInt64>?) -> Bool {
        guard held.covers(mode.lockMode), hasRoom(for: mode) else { return false }
        switch phase {
        case .steady:
            guard let wanted else { return true }
            return mode != .concurrent
                && Self.remainder(of: held, for: wanted).covers(mode.lockMode)
        case .requesting:
            // An upgrade of PR is outstanding; readers are covered, but must not overtake the
            // writer for ever. The answer to a request that does not queue is not far.
            return false
        case .demoting(let target):
            return (mode != .concurrent && target.covers(mode.lockMode)) || isUrgent(bytes)
        case .lowering(let target):
            return target.covers(mode.lockMode)
        }
    }

    private func hasRoom(for mode: HolderMode) -> Bool {
        !isExclusive && (mode == .shared || sharedCount == 0)
            && (mode == .concurrent || concurrentCount == 0)
    }

    private mutating func admit(_ mode: HolderMode) {
        precondition(held.covers(mode.lockMode), "Glock G2: a holder beyond the held mode")
        precondition(hasRoom(for: mode), "Glock G1: no room for this holder")
        if case .demoting = phase { urgentAdmissions += 1 }
        switch mode {
        case .shared: sharedCount += 1
        case .exclusive: isExclusive = true
        case .concurrent: concurrentCount += 1
        }
    }

    // MARK: The lock manager

    /// The outstanding request or lowering was answered.
    package mutating func completed(
        _ status: LockStatus,
        _ mode: LockMode,
        _ actions: inout [GlockAction]
    ) {
        if status == .shutDown {
            shutDown(&actions)
            return
        }
        switch phase {
        case .requesting(let target):
            requestCompleted(status, mode, target, &actions)
        case .lowering(let target):
            precondition(
                status == .granted || status == .unlocked,
                "lowering a lock cannot be refused"
            )
            held = target
            phase = .steady
            proceed(&actions)
        case .steady, .demoting:
            preconditionFailure("Glock G7: an answer to a question nobody asked")
        }
    }

    private mutating func requestCompleted(
        _ status: LockStatus,
        _ mode: LockMode,
        _ target: LockMode,
        _ actions: inout [GlockAction]
    ) {
        phase = .steady
        if let probe {
            self.probe = nil
            if status == .granted {
                held = mode
                admit(probe.mode)
                actions.append(.grant(probe.ticket))
            } else {
                actions.append(.refuse(probe.ticket))
            }
            proceed(&actions)
            return
        }
        guard status == .granted else {
            // G6: refused the upgrade; empty the cache, go to NL and queue from there.
            precondition(held != .null, "a queued request was refused with \(status)")
            wanted = .exclusive
            proceed(&actions)
            return
        }
        precondition(mode == target, "granted another mode than the one asked for")
        held = mode
        admitHead(&actions)  // G4a
        proceed(&actions)
    }

    /// A peer waits for `mode`.
    package mutating func blocking(_ mode: LockMode, _ actions: inout [GlockAction]) {
        if let wanted, wanted.covers(mode) { return }
        // Two peers that want what does not go together.
        wanted = wanted.map { mode.covers($0) ? mode : .exclusive } ?? mode
        proceed(&actions)
    }

    /// Memory wants the lock back: as if a peer wanted it in EX, but only when nobody uses it.
    package mutating func reclaim(_ actions: inout [GlockAction]) {
        guard isIdle, held != .null else { return }
        wanted = .exclusive
        proceed(&actions)
    }

    private mutating func shutDown(_ actions: inout [GlockAction]) {
        isShutDown = true
        held = isInUse ? held : .null
        phase = .steady
        wanted = nil
        if let probe { actions.append(.refuse(probe.ticket)) }
        for waiter in queue { actions.append(.refuse(waiter.ticket)) }
        probe = nil
        queue = []
    }

    // MARK: Demotion

    /// The owner invalidates these bytes: whoever uses some of them may enter, as far as the held
    /// mode covers it, until the next call. Only while demoting.
    package mutating func admitUsers(
        of bytes: [Range<UInt64>],
        _ actions: inout [GlockAction]
    ) {
        guard case .demoting = phase else {
            preconditionFailure("Glock G4: urgent holders outside a demotion")
        }
        urgentBytes = bytes
        admitUrgentWaiters(&actions)
    }

    /// What was cached beyond the target is written back and invalidated (G5), and nobody is inside
    /// beyond it.
    package mutating func demotionFinished(_ actions: inout [GlockAction]) {
        guard case .demoting(let target) = phase else {
            preconditionFailure("Glock G5: the end of a demotion that had not begun")
        }
        precondition(isDrained(for: target), "Glock G2: holders inside beyond the lowered mode")
        urgentBytes = []
        urgentAdmissions = 0
        phase = .lowering(target)
        actions.append(.lower(target))
    }

    /// Whether nobody is inside who needs more than `mode`.
    package func isDrained(for mode: LockMode) -> Bool {
        if isExclusive { return false }
        return concurrentCount == 0 && (mode.covers(.protectedRead) || sharedCount == 0)
    }

    private mutating func admitUrgentWaiters(_ actions: inout [GlockAction]) {
        var index = 0
        while index < queue.count {
            let waiter = queue[index]
            if isUrgent(waiter.bytes), mayEnter(waiter.mode, waiter.bytes) {
                queue.remove(at: index)
                admit(waiter.mode)
                actions.append(.grant(waiter.ticket))
            } else {
                index += 1
            }
        }
    }

    // MARK: Progress

    /// Does whatever the state allows next.
    private mutating func proceed(_ actions: inout [GlockAction]) {
        if case .demoting = phase {
            admitUrgentWaiters(&actions)
            admitCovered(&actions)
            return
        }
        guard phase == .steady else {
            if case .lowering = phase { admitCovered(&actions) }
            return
        }
        if let wanted {
            let rest = Self.remainder(of: held, for: wanted)
            if rest.covers(held) {
                self.wanted = nil
            } else {
                admitCovered(&actions)
                guard isDrained(for: rest) else { return }
                self.wanted = nil
                phase = .demoting(rest)
                actions.append(.demote(from: held, to: rest))
                return
            }
        }
        admitHead(&actions)
        guard let head = queue.first, !held.covers(head.mode.lockMode) else { return }
        if isDetour(head.mode.lockMode) {
            wanted = .exclusive
            return proceed(&actions)
        }
        request(for: head, &actions)
    }

    /// Whether the way from the held mode to `mode` leads through NL (G8).
    private func isDetour(_ mode: LockMode) -> Bool {
        held != .null && !held.covers(mode) && !mode.covers(held)
    }

    /// Lets the head of the line in, and those behind it that go together with it.
    private mutating func admitHead(_ actions: inout [GlockAction]) {
        while let head = queue.first, held.covers(head.mode.lockMode), hasRoom(for: head.mode) {
            queue.removeFirst()
            admit(head.mode)
            actions.append(.grant(head.ticket))
            if head.mode == .exclusive { return }
        }
    }

    /// Lets in whoever is at the head and may enter in the present phase.
    private mutating func admitCovered(_ actions: inout [GlockAction]) {
        while let head = queue.first, mayEnter(head.mode, nil) {
            queue.removeFirst()
            admit(head.mode)
            actions.append(.grant(head.ticket))
        }
    }

    private mutating func request(for head: Waiter, _ actions: inout [GlockAction]) {
        let target = held == .null ? head.asks ?? head.mode.lockMode : head.mode.lockMode
        // Those that are inside keep the held mode busy; the upgrade may be asked for meanwhile, the writer
        // waits for them.
        phase = .requesting(target)
        actions.append(.request(target, held == .null ? firstFlags : .noQueue))
    }

    /// The checks that hold between events.
    package func checkInvariants() {
        precondition(!(isExclusive && sharedCount > 0), "Glock G1")
        precondition(!isExclusive || held == .exclusive || isShutDown, "Glock G2")
        precondition(!(isExclusive && concurrentCount > 0), "Glock G1")
        precondition(!(sharedCount > 0 && concurrentCount > 0), "Glock G1")
        precondition(sharedCount == 0 || held.covers(.protectedRead) || isShutDown, "Glock G2")
        precondition(
            concurrentCount == 0 || held.covers(.concurrentWrite) || isShutDown,
            "Glock G2"
        )
        if case .demoting(let target) = phase {
            precondition(!target.covers(held), "a demotion that demotes nothing")
        } else {
            precondition(urgentBytes.isEmpty || isShutDown, "Glock G4")
        }
    }
}
