// The glocks of one mount: drives each `GlockMachine`, turns its actions into calls of the lock
// service and into resumed operations, and keeps the waiting operations' continuations.
//
// Lock order (L1). Whoever holds several glocks took them in this order, and never waits for one
// that comes before another he holds:
//
//   0. the freeze lock, by whoever changes something (Freezing.swift)
//   1. the rename lock
//   2. directories, a parent before its child; two directories of which neither is known to be the
//   other's
//      parent only under the rename lock, ancestors first, else by number
//   3. other inodes, by number; then, inside one of them and nothing else, one of its regions at a time, or
//      several if no further one has to be waited for (Regions.swift)
//   4. open locks, without queueing (refused rather than waited for)
//   5. orphan directories
//   6. resource groups, by number
//   7. the table of quotas, then shares of quotas, by slot (QuotaBook.swift)
//   8. the log barrier, without other waits
//   then the transaction; nobody waits for a glock with a transaction open (L2).
//
// Code that serves a blocking notice takes none of these locks (L3): demotion writes back by
// addresses that are already known and commits the journal, so that it can always finish.

import BlockIO
import DiskFormat
package import Execution
import FileStore
import Journaling
package import LockCache
package import Vocabulary

/// Whoever caches something under a glock.
package protocol GlockOwner: AnyObject {
    /// Writes back and invalidates what may not be cached under `to`. New holders are kept out
    /// meanwhile.
    func demote(_ glock: Glock, from: LockMode, to: LockMode) async
    /// A peer waits for a mode that is in the way of this node's. Before anything follows from it.
    func isWanted(_ glock: Glock, _ mode: LockMode)
    /// Whether EX is kept for a while although a peer wants it, if handing it over is costly (MinimumHold).
    func keepsForItsCost(_ glock: Glock) -> Bool
    /// Whether who changes what it protects, and looks at it, probably changes it again.
    func isChangedAgain(_ glock: Glock) -> Bool
    /// Whether an idle lock may be given back because nobody has used it for long.
    func isSpare(_ glock: Glock) -> Bool
}

extension GlockOwner {
    package func isWanted(_ glock: Glock, _ mode: LockMode) {}
    package func keepsForItsCost(_ glock: Glock) -> Bool { false }
    package func isChangedAgain(_ glock: Glock) -> Bool { keepsForItsCost(glock) }
    package func isSpare(_ glock: Glock) -> Bool { false }
}

/// One glock of this node. Engine-bound.
package final class Glock {
    package let name: ResourceName
    /// What it is a part of.
    let parent: Glock?
    package internal(set) weak var owner: (any GlockOwner)?
    package internal(set) var machine: GlockMachine
    /// The lock manager's name of the lock; known from the first answer on.
    var lock: LockID = .none
    /// A first request is outstanding: there is no lock yet.
    var isNew = false
    let cookie: UInt64
    var waiters: [UInt64: UnsafeContinuation<Bool, Never>] = [:]
    var drained: UnsafeContinuation<Void, Never>?
    /// When the present mode was granted.
    package internal(set) var grantedAt = Tick(0)
    /// When EX was last given up.
    var lostAt: Tick?
    /// When it was last used, or granted (CacheShrinking S5).
    package internal(set) var usedAt = Tick(0)
    /// How long it is kept while peers want it.
    var hold = MinimumHold()
    /// What peers want of which the machine has not been told yet.
    var delayedWants: [LockMode] = []
    // For whoever asks why it does not give way (GlockActivity.swift).
    /// When the machine came into its phase.
    var phaseSince = Tick(0)
    /// When a peer's want was heard that is not satisfied yet.
    var toldAt: Tick?
    /// How far the demotion under way has come.
    var step: HolderActivity.Step?
    /// It is discarded as soon as nothing is under way.
    var isRetired = false
    /// Notified when the phase changes, if somebody waits for that.
    var phaseChange: Signal?
    /// There are glocks of its parts.
    var hasParts = false

    init(name: ResourceName, cookie: UInt64, flags: LockFlags, parent: Glock?) {
        self.name = name
        self.cookie = cookie
        self.parent = parent
        machine = GlockMachine(firstFlags: flags)
    }

    /// The mode the lock manager has granted.
    package var held: LockMode { machine.held }
}

/// What happened to a glock, for `lockstep trace` and for counting.
package enum GlockEvent: Sendable {
    case requested(LockMode, upgrade: Bool)
    case granted(LockMode)
    case refused(LockMode)
    case blocking(wanted: LockMode)
    case demoting(from: LockMode, to: LockMode)
    case flushed(bytes: UInt64)
    case committed(blocks: Int)
    case invalidated(names: Int?)
    case lowered(LockMode)
}

/// All glocks of one mount.
package final class LockTable: LockClient {
    private let engine: Engine
    private let service: any LockService
    private var slots: [Glock?] = []
    private var freeSlots: [Int] = []
    private var nextTicket: UInt64 = 1
    /// Whose locks are no glocks.
    weak var programs: ProgramLocks?
    /// What counts as now for uses (CacheShrinking S5).
    var useTime = Tick(0)
    /// Glocks whose lock is held.
    package private(set) var heldCount = 0
    /// Whether wants are delayed (MinimumHold); for comparisons.
    package var keepsCostlyLocks = true
    /// Told whenever a peer's want is delayed.
    var onDelay: (() -> Void)?
    /// Told of every event. Set once, before the first lock.
    package var onEvent: ((Glock, GlockEvent) -> Void)?

    package init(engine: Engine, service: any LockService) {
        self.engine = engine
        self.service = service
    }

    /// How many glocks there are.
    package var count: Int { slots.count - freeSlots.count }

    /// A glock for a resource that has none yet; `parent` if it is a part of another, whose lock is granted
    /// whenever this one is entered.
    package func make(
        _ name: ResourceName,
        owner: (any GlockOwner)?,
        flags: LockFlags = [],
        parent: Glock? = nil
    ) -> Glock {
        let slot = freeSlots.popLast() ?? slots.count
        if slot == slots.count { slots.append(nil) }
        let glock = Glock(name: name, cookie: UInt64(slot), flags: flags, parent: parent)
        glock.owner = owner
        parent?.hasParts = true
        slots[slot] = glock
        return glock
    }

    /// Calls `body` for every glock, in order of creation slots.
    package func forEach(_ body: (Glock) -> Void) {
        for case let glock? in slots { body(glock) }
    }

    /// So many places for glocks there are, taken or not.
    var placeCount: Int { slots.count }

    /// The glock in a place below `placeCount`, if there is one.
    func glock(at place: Int) -> Glock? { slots[place] }

    /// Gives the lock back and forgets the glock. It is idle, and what it protected is written back
    /// and dropped. Its parts are discarded before.
    package func discard(_ glock: Glock) {
        precondition(glock.machine.isIdle, "discarding \(glock.name), which is in use")
        unlock(glock)
        if glock.held != .null { heldCount -= 1 }
        slots[Int(glock.cookie)] = nil
        freeSlots.append(Int(glock.cookie))
    }

    /// Discards a glock under which nothing is cached, now or when what is under way has ended. Nobody
    /// enters it any more.
    package func retire(_ glock: Glock) {
        glock.isRetired = true
        if glock.machine.isIdle { discard(glock) }
    }

    /// Gives all locks up, at the very end: what they protected is on the device, and nobody is
    /// inside.
    package func unlockAll() {
        forEach { glock in
            // What is being asked for or lowered ends when the lock manager leaves.
            guard glock.parent == nil, glock.machine.phase == .steady else { return }
            unlock(glock)
        }
    }

    /// A lock goes with those of its parts, also with those that are just being given up.
    private func unlock(_ glock: Glock) {
        glock.hold.ended()
        glock.delayedWants = []
        guard glock.lock != .none else { return }
        service.unlock(glock.lock, glock.hasParts ? .withSublocks : [], value: nil)
        glock.lock = .none
    }

    // MARK: Holders

    /// Enters if that needs no waiting.
    package func enterIfPossible(
        _ glock: Glock,
        _ mode: HolderMode,
        bytes: Range<UInt64>? = nil
    ) -> Bool {
        glock.machine.enterIfPossible(mode, bytes: bytes)
    }

    /// Enters, waiting for peers and for other holders. Ends with `leave`. `bytes` are those whose
    /// pages the kernel may hold meanwhile.
    ///
    /// - Throws: `interrupted` when the request was interrupted while it waited; `inputOutput` when
    /// the lock manager has
    ///   shut down.
    package func enter(
        _ glock: Glock,
        _ mode: HolderMode,
        _ interruption: Interruption? = nil,
        bytes: Range<UInt64>? = nil
    ) async throws(FileError) {
        if glock.machine.enterIfPossible(mode, bytes: bytes) { return }
        if interruption?.isRequested == true { throw .interrupted }
        let ticket = nextTicket
        nextTicket += 1
        let isInside = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<Bool, Never>) in
            glock.waiters[ticket] = continuation
            interruption?.onRequest = { [weak self] in self?.withdraw(glock, ticket) }
            let asks = likelyNeed(glock, mode)
            change(glock) {
                $0.enter(mode, ticket: ticket, bytes: bytes, asks: asks, &$1)
            }
        }
        interruption?.onRequest = nil
        if isInside { return }
        throw interruption?.isRequested == true ? .interrupted : .inputOutput
    }

    /// What this node will probably need next of a lock that it has nothing of: who changed a file or a directory a moment
    /// ago, and looks at it, mostly changes it again, and would only have got half of what it needs.
    private func likelyNeed(_ glock: Glock, _ mode: HolderMode) -> LockMode? {
        guard mode == .shared, glock.owner?.isChangedAgain(glock) == true else { return nil }
        if glock.held == .exclusive { return .exclusive }
        guard let lost = glock.lostAt,
            engine.clock.now.rawValue - lost.rawValue < Self.likelihood
        else { return nil }
        return .exclusive
    }

    /// For so long after EX was given up it is asked for in place of PR, in nanoseconds.
    private static let likelihood: UInt64 = 50_000_000

    /// Leaves.
    package func leave(_ glock: Glock, _ mode: HolderMode) {
        glock.usedAt = useTime
        change(glock) { $0.leave(mode, &$1) }
        if glock.hold.isDelaying { glock.hold.used(now: engine.clock.now.rawValue) }
        if let waiting = glock.drained {
            // Whoever waits looks again.
            glock.drained = nil
            waiting.resume()
        }
    }

    /// Enters now or not at all; true if inside. Whoever is in the way, on any node, is told if
    /// `notifies`.
    package func enterWithoutQueueing(
        _ glock: Glock,
        _ mode: HolderMode,
        notifies: Bool = true
    ) async -> Bool {
        if glock.machine.enterIfPossible(mode) { return true }
        let ticket = nextTicket
        nextTicket += 1
        return await withUnsafeContinuation {
            (continuation: UnsafeContinuation<Bool, Never>) in
            glock.waiters[ticket] = continuation
            change(glock) {
                $0.enterWithoutQueueing(mode, ticket: ticket, notifies: notifies, &$1)
            }
        }
    }

    /// Memory wants the lock back, if nobody uses it.
    package func reclaim(_ glock: Glock) { change(glock) { $0.reclaim(&$1) } }

    private func withdraw(_ glock: Glock, _ ticket: UInt64) {
        var isWithdrawn = false
        change(glock) { isWithdrawn = $0.withdraw(ticket: ticket, &$1) }
        if isWithdrawn { glock.waiters.removeValue(forKey: ticket)?.resume(returning: false) }
    }

    /// Enters past all that wait; false if that cannot be (GlockMachine G4c). Ends with `leave`.
    package func enterPastWaiters(_ glock: Glock) -> Bool { glock.machine.enterPastWaiters() }

    /// Gives the lock up as if a peer wanted it for itself; returns when what was cached is written back and
    /// invalidated.
    package func giveWay(_ glock: Glock) async {
        guard glock.held != .null else { return }
        change(glock) { $0.blocking(.exclusive, &$1) }
        let change = glock.phaseChange ?? Signal()
        glock.phaseChange = change
        while glock.machine.wanted != nil || glock.machine.isDemoting { await change.wait() }
    }

    /// Waits until a demotion has ended that is under way.
    package func waitForDemotion(of glock: Glock) async {
        let change = glock.phaseChange ?? Signal()
        glock.phaseChange = change
        while glock.machine.isDemoting { await change.wait() }
    }

    // MARK: Demotion, called by owners

    /// Lets those in who use some of these bytes, until the next call (Glock G4b).
    package func admitUsers(of bytes: [Range<UInt64>], _ glock: Glock) {
        change(glock) { $0.admitUsers(of: bytes, &$1) }
        if glock.machine.urgentAdmissions > 0 { reached(.urgentHolder) }
    }

    /// Waits until nobody is inside who needs more than `mode`.
    package func drain(_ glock: Glock, to mode: LockMode) async {
        while !glock.machine.isDrained(for: mode) {
            await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
                // Between the check above and here others may have left (Waiting.swift, W1).
                if glock.machine.isDrained(for: mode) {
                    waiter.resume()
                } else {
                    glock.drained = waiter
                }
            }
        }
    }

    /// Tells whoever listens.
    package func note(_ glock: Glock, _ event: GlockEvent) { onEvent?(glock, event) }

    // MARK: The lock service

    package func completed(_ completion: LockCompletion) {
        if completion.cookie & ProgramLocks.cookieBit != 0 {
            programs?.completed(completion)
            return
        }
        guard Int(completion.cookie) < slots.count, let glock = slots[Int(completion.cookie)]
        else { return }  // the answer to the unlock of a discarded glock
        guard completion.status != .unlocked else { return }
        if completion.status == .shutDown || (completion.status != .granted && glock.isNew) {
            glock.lock = .none  // a new request that was refused leaves no lock behind
        } else {
            glock.lock = completion.lock
        }
        glock.isNew = false
        if completion.status == .granted {
            glock.grantedAt = engine.clock.now
            glock.usedAt = useTime
            glock.toldAt = nil
            note(
                glock,
                completion.mode < glock.held ? .lowered(completion.mode) : .granted(completion.mode)
            )
        } else {
            note(glock, .refused(.exclusive))
            if completion.status != .shutDown {
                reached(glock.held == .null ? .probeRefused : .upgradeRefused)
            }
        }
        noteWait(for: glock, completion)
        if glock.held == .exclusive, completion.mode < .exclusive {
            glock.lostAt = engine.clock.now
        }
        change(glock) { $0.completed(completion.status, completion.mode, &$1) }
        // Given up for another reason than the delayed wants: what is left of them is soon over.
        if glock.held != .exclusive { tellDelayedWants(of: glock) }
    }

    package func isBlocking(cookie: UInt64, wanted: LockMode) {
        if cookie & ProgramLocks.cookieBit != 0 { return }
        guard Int(cookie) < slots.count, let glock = slots[Int(cookie)] else { return }
        note(glock, .blocking(wanted: wanted))
        glock.owner?.isWanted(glock, wanted)
        if glock.toldAt == nil { glock.toldAt = engine.clock.now }
        if !delays(glock, wanted) { change(glock) { $0.blocking(wanted, &$1) } }
    }

    // MARK: The minimum hold (MinimumHold.swift)

    private func noteWait(for glock: Glock, _ completion: LockCompletion) {
        guard completion.status == .granted, glock.held == .null,
            glock.machine.phase == .requesting(.exclusive)
        else { return }
        glock.hold.waited(from: glock.phaseSince.rawValue, to: glock.grantedAt.rawValue)
    }

    /// Whether the machine is told later of a want.
    private func delays(_ glock: Glock, _ wanted: LockMode) -> Bool {
        let machine = glock.machine
        guard keepsCostlyLocks, machine.held == .exclusive, machine.phase == .steady,
            machine.wanted == nil, glock.owner?.keepsForItsCost(glock) == true
        else { return false }
        let isFirst = !glock.hold.isDelaying
        let verdict = glock.hold.wanted(
            granted: glock.grantedAt.rawValue,
            isInUse: machine.isInUse,
            now: engine.clock.now.rawValue
        )
        guard case .keep(let time) = verdict else {
            tellDelayedWants(of: glock)
            return false
        }
        glock.delayedWants.append(wanted)
        if isFirst {
            onDelay?()
            reached(.wantDelayed)
            lookAgain(at: glock, Tick(time))
        }
        return true
    }

    private func lookAgain(at glock: Glock, _ time: Tick) {
        let granted = glock.grantedAt
        engine.clock.schedule(
            at: time,
            in: engine,
            EngineBound { [weak self, weak glock] in
                // Given up and granted again: its wants have a time of their own.
                guard let self, let glock, glock.hold.isDelaying, glock.grantedAt == granted
                else { return }
                let verdict = glock.hold.check(
                    isInUse: glock.machine.isInUse,
                    now: engine.clock.now.rawValue
                )
                switch verdict {
                case .keep(let time): lookAgain(at: glock, Tick(time))
                case .giveUp: tellDelayedWants(of: glock)
                }
            }
        )
    }

    private func tellDelayedWants(of glock: Glock) {
        glock.hold.ended()
        let wants = glock.held == .null ? [] : glock.delayedWants
        glock.delayedWants = []
        for mode in wants { change(glock) { $0.blocking(mode, &$1) } }
    }

    // MARK: Actions

    private func change(
        _ glock: Glock,
        _ body: (inout GlockMachine, inout [GlockAction]) -> Void
    ) {
        var actions: [GlockAction] = []
        let phase = glock.machine.phase
        let wasHeld = glock.held != .null
        body(&glock.machine, &actions)
        let isHeld = glock.held != .null
        if isHeld != wasHeld { heldCount += isHeld ? 1 : -1 }
        if glock.machine.phase != phase {
            glock.phaseSince = engine.clock.now
            glock.phaseChange?.notify()
        }
        for action in actions { perform(action, glock) }
        if glock.isRetired, glock.machine.isIdle, slots[Int(glock.cookie)] === glock {
            discard(glock)
        }
    }

    private func perform(_ action: GlockAction, _ glock: Glock) {
        switch action {
        case .grant(let ticket):
            glock.waiters.removeValue(forKey: ticket)?.resume(returning: true)
        case .refuse(let ticket):
            glock.waiters.removeValue(forKey: ticket)?.resume(returning: false)
        case .request(let mode, let flags):
            note(glock, .requested(mode, upgrade: glock.held != .null))
            if glock.lock == .none {
                glock.isNew = true
                service.request(
                    glock.name,
                    mode,
                    flags,
                    cookie: glock.cookie,
                    owner: .none,
                    parent: glock.parent?.lock ?? .none,
                    bytes: nil
                )
            } else {
                let kept = flags.subtracting([.freshName, .expedite])
                service.convert(glock.lock, to: mode, kept, value: nil)
            }
        case .demote(let from, let to):
            note(glock, .demoting(from: from, to: to))
            engine.spawn {
                await glock.owner?.demote(glock, from: from, to: to)
                glock.step = nil
                self.change(glock) { $0.demotionFinished(&$1) }
            }
        case .lower(let mode):
            service.convert(glock.lock, to: mode, [], value: nil)
        }
    }
}
