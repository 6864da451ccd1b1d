// The engine: one actor per mount, on an executor that is given to it.
//
// All state of a mount (caches, glocks, transactions, the lock manager) belongs to one `Engine`.
// It is reached in two ways only:
//
//   spawn        a task on the engine's executor runs straight-line async code and may wait
//   enterIfIdle  the calling thread enters at once, does what need not wait, and leaves
//
// Invariants
// E1. At most one thread is inside at any time; `executor` sees to it (see its `checkIsolated`).
// E2. Every task is created with `executorPreference:` the engine's executor. A plain `Task {}`
// would
//     start on the global pool and break both E1 and the replay of a seed. Only this file makes
//     tasks.
// E3. A resumed continuation is queued, never run nested inside the code that resumes it.
// E4. Code between two `await`s is atomic for all others; after an `await` everything may have
//     changed except what a holder, a transaction or a pin of the caller protects.
// E5. An async closure has no capture list. Swift 6.3 compiles `{ [self] in await ... }` as code
// that runs outside any
//     actor, in spite of NonisolatedNonsendingByDefault: every wait in it then goes through the
//     queue once more before its waiter is entered anywhere, and a wake-up in between is lost.
//     Write `{ await self.... }`.
//
// In production the executor is `CombiningExecutor` (Shell/LinuxSystem), which runs a job on
// whichever thread brings it; in the simulator it is `SeededExecutor`, which picks the next job by
// seed.

package import Vocabulary

/// Runs the jobs of one engine, one at a time.
package protocol EngineExecutor: SerialExecutor, TaskExecutor {
    /// Runs `body` inside the engine on the calling thread if nobody is inside; returns false, and
    /// has done nothing, if somebody is (E1). Never waits.
    func enterIfIdle(_ body: () -> Void) -> Bool

    /// Runs `effect` soon after, outside the engine, on some thread: a reply to the kernel, bytes
    /// to a peer. In order with other effects of the same engine.
    func afterLeaving(_ effect: @escaping @Sendable () -> Void)
}

/// The time of an engine.
package protocol EngineClock: AnyObject, Sendable {
    /// Time that only grows, for time-outs and ages.
    var now: Tick { get }

    /// Time of day, for files.
    var civilTime: Timestamp { get }

    /// Calls `body` inside `engine` at `tick` or soon after; at once if that has passed.
    func schedule(at tick: Tick, in engine: Engine, _ body: EngineBound<() -> Void>)
}

/// A value that may cross to another thread because it is used inside one engine only (E1). The
/// wrapper is the promise; it holds for nothing else.
package struct EngineBound<Value>: @unchecked Sendable {
    package let value: Value

    package init(_ value: Value) { self.value = value }
}

/// The one actor of a mount.
package actor Engine {
    package nonisolated let executor: any EngineExecutor
    package nonisolated let clock: any EngineClock

    package nonisolated var unownedExecutor: UnownedSerialExecutor {
        executor.asUnownedSerialExecutor()
    }

    package init(executor: any EngineExecutor, clock: any EngineClock) {
        self.executor = executor
        self.clock = clock
    }

    /// Runs `work` inside the engine. It starts later, never nested inside the caller.
    ///
    /// Write the closure without a capture list: Swift 6.3 takes `{ [self] in … }` for a concurrent
    /// closure, which leaves the engine and queues up again around every `await` in it. E1 holds
    /// even so, but what looks like one step (return from a call that did not wait, and go on) is
    /// then two (E4).
    package nonisolated func spawn(_ work: @escaping () async -> Void) {
        let bound = EngineBound(work)
        _ = Task(executorPreference: executor) { await self.perform(bound) }
    }

    /// As `spawn`, but when the engine is idle the work starts on the calling thread before this
    /// returns and runs until it first waits. For threads outside the engine.
    package nonisolated func spawnImmediately(_ work: @escaping () async -> Void) {
        // Only entering drains the queue (E3), so the task is made inside and runs as this thread
        // leaves.
        if !executor.enterIfIdle({ spawn(work) }) { spawn(work) }
    }

    /// Runs `body` inside the engine: on the calling thread before this returns when the engine is
    /// idle, otherwise soon. For threads outside the engine that bring an event; what `body` wakes
    /// continues on the calling thread too.
    package nonisolated func enter(_ body: @escaping () -> Void) {
        if !executor.enterIfIdle(body) { spawn { body() } }
    }

    /// Runs `work` inside the engine and returns what it returns. For code outside the engine that
    /// is itself async (commands, tests).
    package func run<Result>(
        _ work: EngineBound<() async throws -> Result>
    ) async throws -> EngineBound<Result> {
        EngineBound(try await work.value())
    }

    private func perform(_ work: EngineBound<() async -> Void>) async { await work.value() }

    /// Waits until `tick`. Inside the engine.
    package nonisolated func sleep(until tick: Tick) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            clock.schedule(at: tick, in: self, EngineBound { continuation.resume() })
        }
    }

    /// Traps if the caller is not inside the engine.
    package nonisolated func assertInside() { executor.checkIsolated() }
}
