// Which of the receiving threads waits for the next request, and how.
//
// A request that arrives while a thread sleeps costs the process that asks a wake-up of another
// processor before anything happens: 5 µs on hardware, 15 to 50 µs on a virtual machine, against 2
// µs for the work. So at most one receiver waits (the sentry), it watches for a while before it
// sleeps, and nobody else is woken by a request that the sentry takes.
//
//   resting ── called ──▶ receiving ── nothing there, no sentry ──▶ sentry ── a request ──▶ receiving
//      ▲                      │
//      └── nothing there, but a sentry ──┘
//
// A sentry that has taken a request works on it itself. It calls a resting thread to stand in for
// it when that may take long (much data to copy) or requests have queued up.
//
// Invariants
// T1. At most one thread is sentry.
// T2. A thread rests only while another is sentry or receiving; who receives looks again before it
//     rests. So a request in the queue is always found.

import LinuxSystem
import Vocabulary

/// The order of duty of the receiving threads.
final class Rota: @unchecked Sendable {
    // Sendable: all state is used under `latch` only.
    private let latch = Latch()
    private let called = WaitCondition()
    private var hasSentry = false
    private var resting = 0
    private var calls = 0
    private var isOver = false

    /// The calling thread found no request. True: it is the sentry now. False: it has rested, and
    /// shall look again, unless `hasEnded`.
    func standOrRest() -> Bool {
        latch.lock()
        defer { latch.unlock() }
        if !hasSentry {
            hasSentry = true
            return true
        }
        resting += 1
        while calls == 0 && !isOver { called.wait(latch) }
        if calls > 0 { calls -= 1 }
        resting -= 1
        return false
    }

    /// The sentry has taken a request; `needsAnother` if somebody shall receive meanwhile.
    func leave(needsAnother: Bool) {
        latch.lock()
        precondition(hasSentry, "Rota T1: a sentry left that was none")
        hasSentry = false
        let isCalled = needsAnother && call()
        latch.unlock(signalling: called, if: isCalled)
    }

    /// Somebody shall receive while the calling thread, which is not the sentry, works.
    func callAnother() {
        latch.lock()
        let isCalled = !hasSentry && call()
        latch.unlock(signalling: called, if: isCalled)
    }

    /// Whether somebody is called by it, and is to be woken. Under the latch.
    private func call() -> Bool {
        guard calls < resting else { return false }
        calls += 1
        return true
    }

    /// The connection has ended: nobody rests any more.
    func end() {
        latch.withLock {
            isOver = true
            called.broadcast()
        }
    }

    /// How many threads rest, those among them that are called but have not woken yet.
    var restingCount: Int { latch.withLock { resting } }

    /// Whether the connection has ended.
    var hasEnded: Bool { latch.withLock { isOver } }
}

/// How long a sentry watches before it sleeps: as long as that mostly brings a request, and seldom
/// otherwise, so that a mount that is used now and then costs no processor time.
struct Watch {
    /// Waits without watching after one that brought nothing, at most.
    private static let mostSkipped = 64

    private let length: UInt64
    private var end = Tick(0)
    private var isWatching = false
    private var skipped = 0
    private var penalty = 1

    /// `length` in nanoseconds; 0 never watches.
    init(length: UInt64) { self.length = length }

    /// A wait begins.
    mutating func begin(at now: Tick) {
        if skipped > 0 {
            skipped -= 1
            isWatching = false
        } else {
            isWatching = length > 0
            end = now.advanced(nanoseconds: length)
        }
    }

    /// Whether to look again at once. False from the moment on when it is time to sleep.
    mutating func goesOn(at now: Tick) -> Bool {
        guard isWatching else { return false }
        if now < end { return true }
        isWatching = false
        skipped = penalty
        penalty = min(penalty * 2, Self.mostSkipped)
        return false
    }

    /// The wait has brought a request.
    mutating func succeeded() {
        if isWatching { penalty = 1 }
    }
}
