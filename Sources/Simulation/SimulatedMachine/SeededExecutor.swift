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
// X5. A lane is held from outside: nothing of it is running then.
//
// One executor may serve several engines: then a whole cluster runs by one seed. A `SeededLane` is
// the part of it that serves one node, and can be held still.

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
    private var jobs: [ReadyJob] = []
    private var entries: [ReadyEntry] = []
    private var effects: [ReadyEffect] = []
    private var nextEffect = 0
    private var timers = TimerHeap()
    private var runningStack: UInt?
    /// Whose job or entry runs (X5).
    private var runningLane: SeededLane?

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
        jobs.append(ReadyJob(job: UnownedJob(job), lane: nil))
    }

    fileprivate func enqueue(_ job: UnownedJob, of lane: SeededLane) {
        requireOwnThread()
        jobs.append(ReadyJob(job: job, lane: lane))
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
        afterLeaving(ReadyEffect(effect: effect, lane: nil))
    }

    fileprivate func afterLeaving(_ effect: ReadyEffect) {
        requireOwnThread()
        effects.append(effect)
    }

    /// Calls `body` inside an engine at `tick` or soon after; of a lane that is held, once it is
    /// not.
    package func schedule(
        at tick: Tick,
        of lane: SeededLane? = nil,
        _ body: EngineBound<() -> Void>
    ) {
        requireOwnThread()
        let entry = ReadyEntry(body: body, lane: lane)
        if tick <= now { begin(entry) } else { timers.insert(entry, at: tick) }
    }

    private func begin(_ entry: ReadyEntry) {
        if let lane = entry.lane, lane.isHeld {
            lane.heldEntries.append(entry)
        } else {
            entries.append(entry)
        }
    }

    /// Takes what is ready of a lane out of the choices.
    fileprivate func hold(_ lane: SeededLane) {
        precondition(runningLane !== lane, "X5: a lane holds itself in one of its own jobs")
        lane.heldJobs = jobs.filter { $0.lane === lane }
        jobs.removeAll { $0.lane === lane }
        lane.heldEntries = entries.filter { $0.lane === lane }
        entries.removeAll { $0.lane === lane }
        let waiting = effects[nextEffect...]
        lane.heldEffects = waiting.filter { $0.lane === lane }
        effects = waiting.filter { $0.lane !== lane }
        nextEffect = 0
    }

    /// Puts back what was held and what has come since.
    fileprivate func release(_ lane: SeededLane) {
        jobs += lane.heldJobs
        entries += lane.heldEntries
        effects += lane.heldEffects
        lane.heldJobs = []
        lane.heldEntries = []
        lane.heldEffects = []
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
        while choices == 0 {
            // What is due may be of a lane that is held.
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
        defer { runningLane = nil }
        if choice < jobs.count {
            let ready = jobs.pick(choice)
            runningLane = ready.lane
            enter {
                ready.job.runSynchronously(
                    isolatedTo: ready.lane?.asUnownedSerialExecutor() ?? asUnownedSerialExecutor(),
                    taskExecutor: ready.lane?.asUnownedTaskExecutor() ?? asUnownedTaskExecutor()
                )
            }
        } else if choice < jobs.count + entries.count {
            let entry = entries.pick(choice - jobs.count)
            runningLane = entry.lane
            enter(entry.body.value)
        } else {
            let effect = effects[nextEffect]
            nextEffect += 1
            if nextEffect == effects.count {
                effects.removeAll(keepingCapacity: true)
                nextEffect = 0
            }
            effect.effect()
        }
    }

    private func enter(_ body: () -> Void) {
        precondition(!isInside, "X2: two inside")
        isInside = true
        body()
        isInside = false
    }

    private func releaseTimers() {
        while let due = timers.removeFirst(notAfter: now) { begin(due) }
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

private struct ReadyJob {
    let job: UnownedJob
    let lane: SeededLane?
}

private struct ReadyEntry {
    let body: EngineBound<() -> Void>
    let lane: SeededLane?
}

private struct ReadyEffect {
    let effect: @Sendable () -> Void
    let lane: SeededLane?
}

/// The executor of one node of a simulated cluster. While it is held (a process that was stopped, a
/// machine that was suspended) nothing of the node runs; what becomes ready waits, timers come late.
package final class SeededLane: EngineExecutor, @unchecked Sendable {
    // Sendable: X1 of the executor.

    package let machine: SeededExecutor
    /// Whether it is held.
    package private(set) var isHeld = false
    fileprivate var heldJobs: [ReadyJob] = []
    fileprivate var heldEntries: [ReadyEntry] = []
    fileprivate var heldEffects: [ReadyEffect] = []

    package init(_ machine: SeededExecutor) { self.machine = machine }

    /// Nothing of it runs from now on. Not from inside one of its own jobs (X5).
    package func hold() {
        guard !isHeld else { return }
        isHeld = true
        machine.hold(self)
    }

    /// It goes on.
    package func release() {
        guard isHeld else { return }
        isHeld = false
        machine.release(self)
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isHeld {
            heldJobs.append(ReadyJob(job: job, lane: self))
        } else {
            machine.enqueue(job, of: self)
        }
    }

    package func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        UnownedSerialExecutor(ordinary: self)
    }

    package func asUnownedTaskExecutor() -> UnownedTaskExecutor {
        UnownedTaskExecutor(ordinary: self)
    }

    package func checkIsolated() { machine.checkIsolated() }

    package func enterIfIdle(_ body: () -> Void) -> Bool { !isHeld && machine.enterIfIdle(body) }

    package func afterLeaving(_ effect: @escaping @Sendable () -> Void) {
        let ready = ReadyEffect(effect: effect, lane: self)
        if isHeld { heldEffects.append(ready) } else { machine.afterLeaving(ready) }
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
        var entry: ReadyEntry

        func isBefore(_ other: Timer) -> Bool {
            (tick.rawValue, order) < (other.tick.rawValue, other.order)
        }
    }

    private var timers: [Timer] = []
    private var nextOrder: UInt64 = 0

    var firstTick: Tick? { timers.first?.tick }

    mutating func insert(_ entry: ReadyEntry, at tick: Tick) {
        timers.append(Timer(tick: tick, order: nextOrder, entry: entry))
        nextOrder += 1
        var child = timers.count - 1
        while child > 0, timers[child].isBefore(timers[(child - 1) / 2]) {
            timers.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func removeFirst(notAfter now: Tick) -> ReadyEntry? {
        guard let first = timers.first, first.tick <= now else { return nil }
        timers.swapAt(0, timers.count - 1)
        timers.removeLast()
        var parent = 0
        while true {
            var smallest = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < timers.count {
                if timers[child].isBefore(timers[smallest]) { smallest = child }
            }
            if smallest == parent { return first.entry }
            timers.swapAt(parent, smallest)
            parent = smallest
        }
    }
}
