// One machine by seed: an executor that decides by dice what runs next, a clock that jumps, disks
// that forget. The code that runs on it is the production code.
//
// The executor holds three kinds of work:
//
//   jobs      what tasks of any engine served by this executor are ready to do
//   entries   bodies of timers that are due, to be called inside an engine
//   effects   what was handed to `afterLeaving`, to be called outside, strictly in order
//
// A step picks one job, one entry or the oldest effect by dice and runs it to its end; then the
// clock moves on a little. When nothing is ready, the clock jumps to the next timer.
//
// Invariants
// X1. Everything runs on the thread that is in `run`, one at a time. Work that comes from another
//     thread while `run` is running traps: somebody made a task outside `Engine.spawn`, and no seed
//     would ever repeat it.
// X2. `isInside` is true exactly while a job, an entry or the body of `enterIfIdle` runs.
// X3. The same seed and the same program give the same steps; `scheduleHash` shows it.
// X4. Time only grows, and no timer is called before its tick.
//
// One executor may serve several engines: then a whole cluster runs by one seed.

package import Execution
package import Vocabulary

/// How a run of the executor ended.
package enum RunEnd: Hashable, Sendable {
    /// The condition became true.
    case done
    /// Nothing is ready and no timer is set: whoever still waits, waits for ever.
    case idle
    /// The limit of steps was reached: no progress, or a very long run.
    case outOfSteps
}

/// Runs jobs of any number of engines on the calling thread, the next one picked by seed.
package final class SeededExecutor: EngineExecutor, @unchecked Sendable {
    // Sendable: X1.

    private var dice: SeededGenerator
    private var jobs: [UnownedJob] = []
    private var entries: [EngineBound<() -> Void>] = []
    private var effects: [@Sendable () -> Void] = []
    private var nextEffect = 0
    private var timers = TimerHeap()
    private var runningStack: UInt?

    /// Virtual time.
    package private(set) var now = Tick(1_000_000_000)

    /// Steps taken so far.
    package private(set) var steps = 0

    /// A running hash of every choice and its time. Two runs that agree here ran alike.
    package private(set) var scheduleHash: UInt64 = 14_695_981_039_346_656_037

    /// Whether somebody is inside an engine (X2).
    package private(set) var isInside = false

    /// Steps after which `run` gives up.
    package var stepLimit = 20_000_000

    /// `enterIfIdle` refuses once in so many calls, as if another thread were inside; 0 means
    /// never.
    package var refusesEntryOneIn = 0

    /// What one step costs, in nanoseconds of virtual time.
    package var nanosecondsPerStep: UInt64 = 100

    package init(seed: UInt64) { dice = SeededGenerator(seed: seed) }

    /// Dice for a part of the simulation, independent of the schedule's own throws from then on.
    package func forkDice() -> SeededGenerator { dice.fork() }

    // MARK: What engines ask for

    package func enqueue(_ job: consuming ExecutorJob) {
        requireOwnThread()
        jobs.append(UnownedJob(job))
    }

    package func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        UnownedSerialExecutor(ordinary: self)
    }

    package func asUnownedTaskExecutor() -> UnownedTaskExecutor {
        UnownedTaskExecutor(ordinary: self)
    }

    package func checkIsolated() {
        precondition(isInside, "X2: not inside an engine")
        requireOwnThread()
    }

    package func enterIfIdle(_ body: () -> Void) -> Bool {
        requireOwnThread()
        if isInside { return false }
        if refusesEntryOneIn > 0, dice.oneIn(refusesEntryOneIn) { return false }
        enter(body)
        return true
    }

    package func afterLeaving(_ effect: @escaping @Sendable () -> Void) {
        requireOwnThread()
        effects.append(effect)
    }

    /// Calls `body` inside an engine at `tick` or soon after.
    package func schedule(at tick: Tick, _ body: EngineBound<() -> Void>) {
        requireOwnThread()
        if tick <= now { entries.append(body) } else { timers.insert(body, at: tick) }
    }

    /// Waits for `nanoseconds` of virtual time.
    package func sleep(nanoseconds: UInt64) async {
        let wake = now.advanced(nanoseconds: nanoseconds)
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            schedule(at: wake, EngineBound { continuation.resume() })
        }
    }

    // MARK: Running

    /// Runs until nothing is ready and no timer is set, or the step limit is reached.
    @discardableResult
    package func runUntilIdle() -> RunEnd { run { false } }

    /// Runs until `done` is true (asked before every step), nothing is left, or the step limit is
    /// reached. Not from inside a job.
    package func run(until done: () -> Bool) -> RunEnd {
        precondition(runningStack == nil && !isInside, "X1: run within run")
        runningStack = stackAddress()
        defer { runningStack = nil }
        let lastStep = steps + stepLimit
        while !done() {
            guard step() else { return .idle }
            if steps >= lastStep { return .outOfSteps }
        }
        return .done
    }

    /// Takes one step; false if there was nothing to do.
    private func step() -> Bool {
        var choices = readyCount
        if choices == 0 {
            guard let next = timers.firstTick else { return false }
            now = max(now, next)
            releaseTimers()
            choices = readyCount
        }
        let choice = dice.below(choices)
        note(UInt64(choice) << 32 | UInt64(choices))
        note(now.rawValue)
        steps += 1
        perform(choice)
        now = now.advanced(nanoseconds: nanosecondsPerStep)
        releaseTimers()
        return true
    }

    private var readyCount: Int {
        jobs.count + entries.count + (nextEffect < effects.count ? 1 : 0)
    }

    private func perform(_ choice: Int) {
        if choice < jobs.count {
            let job = jobs.pick(choice)
            enter {
                job.runSynchronously(
                    isolatedTo: asUnownedSerialExecutor(),
                    taskExecutor: asUnownedTaskExecutor()
                )
            }
        } else if choice < jobs.count + entries.count {
            let entry = entries.pick(choice - jobs.count)
            enter(entry.value)
        } else {
            let effect = effects[nextEffect]
            nextEffect += 1
            if nextEffect == effects.count {
                effects.removeAll(keepingCapacity: true)
                nextEffect = 0
            }
            effect()
        }
    }

    private func enter(_ body: () -> Void) {
        precondition(!isInside, "X2: two inside")
        isInside = true
        body()
        isInside = false
    }

    private func releaseTimers() {
        while let due = timers.removeFirst(notAfter: now) { entries.append(due) }
    }

    private func note(_ value: UInt64) {
        scheduleHash = (scheduleHash ^ value) &* 1_099_511_628_211
    }

    // MARK: X1

    /// Without thread identities from the operating system: two threads have two stacks, and what
    /// `run` calls lies within some megabytes below its own frame.
    private func requireOwnThread() {
        guard let runningStack else { return }
        let here = stackAddress()
        let depth = runningStack > here ? runningStack - here : here - runningStack
        precondition(depth < 4 << 20, "X1: work from a foreign thread")
    }

    @inline(never)
    private func stackAddress() -> UInt {
        var local: UInt8 = 0
        return withUnsafeMutablePointer(to: &local) { UInt(bitPattern: $0) }
    }
}

extension Array {
    /// Takes out one element without keeping the order of the others.
    fileprivate mutating func pick(_ index: Int) -> Element {
        swapAt(index, count - 1)
        return removeLast()
    }
}

/// Timers by tick, those of one tick in the order in which they were set: a binary heap.
private struct TimerHeap {
    private struct Timer {
        var tick: Tick
        var order: UInt64
        var body: EngineBound<() -> Void>

        func isBefore(_ other: Timer) -> Bool {
            (tick.rawValue, order) < (other.tick.rawValue, other.order)
        }
    }

    private var timers: [Timer] = []
    private var nextOrder: UInt64 = 0

    var firstTick: Tick? { timers.first?.tick }

    mutating func insert(_ body: EngineBound<() -> Void>, at tick: Tick) {
        timers.append(Timer(tick: tick, order: nextOrder, body: body))
        nextOrder += 1
        var child = timers.count - 1
        while child > 0, timers[child].isBefore(timers[(child - 1) / 2]) {
            timers.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func removeFirst(notAfter now: Tick) -> EngineBound<() -> Void>? {
        guard let first = timers.first, first.tick <= now else { return nil }
        timers.swapAt(0, timers.count - 1)
        timers.removeLast()
        var parent = 0
        while true {
            var smallest = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < timers.count {
                if timers[child].isBefore(timers[smallest]) { smallest = child }
            }
            if smallest == parent { return first.body }
            timers.swapAt(parent, smallest)
            parent = smallest
        }
    }
}
