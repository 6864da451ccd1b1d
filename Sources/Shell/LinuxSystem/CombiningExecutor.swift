// The executor of a mount: jobs run on whichever thread brings them.
//
// An actor on a thread of its own costs two hand-overs per call (11.8 µs measured); here a thread
// with an event (a FUSE request, a message, a block that was read, a timer) enters the engine
// itself, runs its own job and a few that others left, and goes back to its work (0.1 µs to enter,
// 1.3 µs with a task). Whoever finds the engine taken leaves the job in the queue for the thread
// that is inside.
//
//   enterIfIdle   the entry point: enter, run the body, drain, leave. Only it and the engine's own
//   thread
//                 drain.
//   enqueue       called by the Swift runtime whenever a task becomes ready, for instance by
//   `resume()`.
//                 It appends and never runs anything: the resuming code may hold a latch.
//   afterLeaving  effects: replies to the kernel, bytes to a peer. They run without the latch and
//   outside
//                 the engine, so that a slow system call keeps nobody out of it.
//
// The life of a visit:
//
//   enterIfIdle ── body ── up to `batch` jobs ── leave ── effects ──┬── nothing left: return
//                              ▲                                    ├── budget left: enter again
//                              └────────────────────────────────────┘   else call the engine
//                              thread, return
//
// Invariants (all state under `latch`)
// X1. `owner` is the one thread inside, or nil. Jobs and bodies run only on `owner`.
// X2. When `owner` is nil and `jobs` is not empty, somebody is on the way: the engine thread has
// been called,
//     or a drainer between two batches looks again before it returns.
// X3. At most one thread runs effects (`isRunningEffects`), in the order in which they were
// appended.
// X4. When `effects` is not empty, `owner` will look on leaving, or somebody is running effects and
// looks
//     again, or the effects thread has been called.
// X5. A visiting thread runs at most `visitBudget` jobs and `effectBudget` effects of others: no
// FUSE,
//     network or notify thread is captured. The engine's own two threads have no bound.
// X6. The latch is never held while a job, a body or an effect runs. The latch is a leaf: no other
// latch is
//     taken while holding it.
//
// Sources: flat combining (Hendler et al., SPAA 2010); the measurements are ours, on two cores.

import CLinux
import DequeModule
import Execution
import Glibc

/// Runs the jobs of one engine, one at a time, on the threads that bring them. It lives, with its
/// two threads, until `stop`.
package final class CombiningExecutor: EngineExecutor, @unchecked Sendable {
    // Sendable: see X1-X6.

    private struct State {
        var jobs: Deque<UnownedJob> = []
        var effects: Deque<@Sendable () -> Void> = []
        var owner: pthread_t?
        var isRunningEffects = false
        var isEngineThreadCalled = false
        var isEffectsThreadCalled = false
        var isStopping = false
    }

    /// Jobs between two looks at the effects: bounds how long a reply waits for other work.
    private static let batch = 8
    private static let visitBudget = 32
    private static let effectBudget = 32

    private let latch = Latch()
    private let engineThreadWanted = WaitCondition()
    private let effectsThreadWanted = WaitCondition()
    // Behind a pointer: no dynamic exclusivity checks on the hottest path of the process.
    private let state: UnsafeMutablePointer<State>
    private let threads = ThreadsHolder()

    /// - Throws: EAGAIN when the system has no room for its two threads.
    package init() throws(SystemError) {
        state = .allocate(capacity: 1)
        state.initialize(to: State())
        threads.running.append(try runThread(name: "engine") { [self] in runEngineThread() })
        threads.running.append(try runThread(name: "effects") { [self] in runEffectsThread() })
    }

    deinit {
        precondition(state.pointee.jobs.isEmpty, "an executor went away with jobs")
        state.deinitialize(count: 1)
        state.deallocate()
    }

    /// Runs what is queued and ends the executor's threads. Once, from a thread outside the engine,
    /// when nothing will be enqueued any more.
    package func stop() {
        latch.withLock {
            precondition(!state.pointee.isStopping, "an executor is stopped once")
            state.pointee.isStopping = true
            engineThreadWanted.signal()
            effectsThreadWanted.signal()
        }
        for thread in threads.running { thread.join() }
    }

    // MARK: Entry points

    package func enterIfIdle(_ body: () -> Void) -> Bool {
        latch.lock()
        guard state.pointee.owner == nil else {
            latch.unlock()
            return false
        }
        state.pointee.owner = pthread_self()
        latch.unlock()
        body()
        drainAndLeave(budget: Self.visitBudget)
        return true
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        latch.lock()
        state.pointee.jobs.append(job)
        let isCalled = state.pointee.owner == nil && callEngineThread()
        latch.unlock(signalling: engineThreadWanted, if: isCalled)
    }

    package func afterLeaving(_ effect: @escaping @Sendable () -> Void) {
        latch.lock()
        state.pointee.effects.append(effect)
        let isCalled =
            state.pointee.owner == nil && !state.pointee.isRunningEffects && callEffectsThread()
        latch.unlock(signalling: effectsThreadWanted, if: isCalled)
    }

    // MARK: Isolation

    package func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        UnownedSerialExecutor(ordinary: self)
    }

    package func asUnownedTaskExecutor() -> UnownedTaskExecutor {
        UnownedTaskExecutor(ordinary: self)
    }

    package func checkIsolated() {
        precondition(isInside, "Engine E1: this thread is not inside the engine")
    }

    package func isIsolatingCurrentContext() -> Bool? { isInside }

    /// Whether the calling thread is inside.
    package var isInside: Bool {
        latch.lock()
        defer { latch.unlock() }
        guard let owner = state.pointee.owner else { return false }
        return pthread_equal(owner, pthread_self()) != 0
    }

    // MARK: Draining

    /// Inside on entry, outside on return.
    private func drainAndLeave(budget: Int) {
        // The most frequent end of a visit, with one turn of the latch.
        latch.lock()
        if state.pointee.jobs.isEmpty && state.pointee.effects.isEmpty {
            state.pointee.owner = nil
            latch.unlock()
            return
        }
        latch.unlock()
        var left = budget
        while true {
            runBatch(&left)
            latch.lock()
            state.pointee.owner = nil
            if !state.pointee.effects.isEmpty && !state.pointee.isRunningEffects {
                state.pointee.isRunningEffects = true
                // The effects may take long; the jobs shall not wait for them (X2).
                let isCalled = !state.pointee.jobs.isEmpty && callEngineThread()
                latch.unlock(signalling: engineThreadWanted, if: isCalled)
                runEffects(budget: budget == .max ? .max : Self.effectBudget)
                latch.lock()
            }
            if state.pointee.jobs.isEmpty || state.pointee.owner != nil {
                latch.unlock()
                return
            }
            if left == 0 {
                let isCalled = callEngineThread()
                return latch.unlock(signalling: engineThreadWanted, if: isCalled)
            }
            state.pointee.owner = pthread_self()
            latch.unlock()
        }
    }

    /// Runs up to `batch` jobs, and no more than `left`. Inside.
    private func runBatch(_ left: inout Int) {
        let serial = asUnownedSerialExecutor()
        let task = asUnownedTaskExecutor()
        for _ in 0..<min(Self.batch, left) {
            latch.lock()
            let next = state.pointee.jobs.popFirst()
            latch.unlock()
            guard let job = next else { return }
            left -= 1
            job.runSynchronously(isolatedTo: serial, taskExecutor: task)
        }
    }

    /// Runs effects until there are none, or `budget` is used up. The caller has set
    /// `isRunningEffects`; it is clear on return (X3).
    private func runEffects(budget: Int) {
        var left = budget
        while true {
            latch.lock()
            guard left > 0, let effect = state.pointee.effects.popFirst() else {
                let isCalled = !state.pointee.effects.isEmpty && callEffectsThread()
                state.pointee.isRunningEffects = false
                return latch.unlock(signalling: effectsThreadWanted, if: isCalled)
            }
            latch.unlock()
            left -= 1
            effect()
        }
    }

    // MARK: The executor's own threads

    /// Calls it under the latch; whether it is to be woken once the latch is given back.
    private func callEngineThread() -> Bool {
        if state.pointee.isEngineThreadCalled { return false }
        state.pointee.isEngineThreadCalled = true
        return true
    }

    /// The same of the other one.
    private func callEffectsThread() -> Bool {
        if state.pointee.isEffectsThreadCalled { return false }
        state.pointee.isEffectsThreadCalled = true
        return true
    }

    private func runEngineThread() {
        latch.lock()
        while true {
            while !state.pointee.isEngineThreadCalled && !state.pointee.isStopping {
                engineThreadWanted.wait(latch)
            }
            state.pointee.isEngineThreadCalled = false
            if state.pointee.owner == nil && !state.pointee.jobs.isEmpty {
                state.pointee.owner = pthread_self()
                latch.unlock()
                drainAndLeave(budget: .max)
                latch.lock()
            } else if state.pointee.isStopping {
                // Whoever is still inside looks at the jobs before it leaves (X2).
                break
            }
        }
        latch.unlock()
    }

    private func runEffectsThread() {
        latch.lock()
        while true {
            while !state.pointee.isEffectsThreadCalled && !state.pointee.isStopping {
                effectsThreadWanted.wait(latch)
            }
            state.pointee.isEffectsThreadCalled = false
            if !state.pointee.isRunningEffects && !state.pointee.effects.isEmpty {
                state.pointee.isRunningEffects = true
                latch.unlock()
                runEffects(budget: .max)
                latch.lock()
            } else if state.pointee.isStopping {
                break
            }
        }
        latch.unlock()
    }
}

/// The threads, which can be started only after `self` exists.
private final class ThreadsHolder {
    var running: [RunningThread] = []
}
