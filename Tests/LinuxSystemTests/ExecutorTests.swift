import CLinux
import Execution
import Glibc
import LinuxSystem
import Testing
import Vocabulary

/// A number that only one engine touches.
private final class Tally: @unchecked Sendable {
    // Sendable: used inside the engine only; a second thread inside is what the tests look for.
    var isInside = false
    var entered = 0
    var resumed = 0
    var overlaps = 0

    func visit() {
        if isInside { overlaps += 1 }
        isInside = true
        entered += 1
        isInside = false
    }
}

/// What effects wrote, in order.
private final class Record: @unchecked Sendable {
    private let latch = Latch()
    private let grown = WaitCondition()
    private var values: [Int] = []

    func append(_ value: Int) {
        latch.withLock {
            values.append(value)
            grown.broadcast()
        }
    }

    func wait(count: Int) -> [Int] {
        latch.lock()
        defer { latch.unlock() }
        let deadline = LinuxClock.monotonic.advanced(milliseconds: 60_000)
        while values.count < count {
            guard grown.wait(latch, until: deadline) else { return values }
        }
        return values
    }
}

private func withEngine(_ body: (Engine, CombiningExecutor) throws -> Void) throws {
    let executor = try CombiningExecutor()
    let clock = try LinuxClock()
    try body(Engine(executor: executor, clock: clock), executor)
    clock.stop()
    executor.stop()
}

@Suite(.serialized) struct CombiningExecutorTests {
    @Test func manyThreadsAreSerialAndNothingIsLost() throws {
        try withEngine { engine, executor in
            let tally = Tally()
            let finished = Record()
            let perThread = 2_000
            let threads = try (0..<8).map { _ in
                try runThread(name: "hammer") {
                    for round in 0..<perThread {
                        switch round % 4 {
                        case 0:
                            engine.spawn {
                                tally.visit()
                                executor.afterLeaving { finished.append(0) }
                            }
                        case 1:
                            engine.spawnImmediately {
                                tally.visit()
                                executor.afterLeaving { finished.append(0) }
                            }
                        case 2:
                            while !executor.enterIfIdle({ tally.visit() }) { sched_yield() }
                            finished.append(0)
                        default:
                            engine.enter {
                                executor.checkIsolated()
                                tally.visit()
                                executor.afterLeaving { finished.append(0) }
                            }
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            let all = finished.wait(count: 8 * perThread)
            #expect(all.count == 8 * perThread)
            var visits = 0
            #expect(executor.enterIfIdle { visits = tally.entered })
            #expect(visits == 8 * perThread)
            #expect(tally.overlaps == 0)
        }
    }

    @Test func resumingFromManyThreadsContinuesEachTaskOnce() throws {
        try withEngine { engine, executor in
            let tally = Tally()
            let finished = Record()
            let count = 4_000
            let gate = Latch()
            nonisolated(unsafe) var waiting: [UnsafeContinuation<Void, Never>] = []
            for _ in 0..<count {
                engine.spawn {
                    await withUnsafeContinuation { continuation in
                        gate.withLock { waiting.append(continuation) }
                    }
                    tally.visit()
                    executor.afterLeaving { finished.append(0) }
                }
            }
            let threads = try (0..<4).map { _ in
                try runThread(name: "resumer") {
                    var mine = 0
                    while mine < count / 4 {
                        let next = gate.withLock { waiting.popLast() }
                        if let next {
                            mine += 1
                            next.resume()
                        } else {
                            sched_yield()
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            #expect(finished.wait(count: count).count == count)
            #expect(tally.overlaps == 0)
        }
    }

    @Test func effectsRunInOrderOutsideTheEngine() throws {
        try withEngine { engine, executor in
            let tally = Tally()
            let record = Record()
            let inside = Record()
            let threads = try (0..<4).map { _ in
                try runThread(name: "effects") {
                    for _ in 0..<1_000 {
                        engine.enter {
                            let number = tally.entered
                            tally.entered += 1
                            executor.afterLeaving {
                                if executor.isInside { inside.append(number) }
                                record.append(number)
                            }
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            #expect(record.wait(count: 4_000) == Array(0..<4_000))
            #expect(inside.wait(count: 0) == [])
        }
    }

    @Test func resumeNeverRunsTheTaskNested() throws {
        try withEngine { engine, executor in
            let signal = EngineBound(Signal())
            let record = Record()
            engine.enter {
                engine.spawn {
                    await signal.value.wait()
                    record.append(2)
                }
            }
            engine.enter {
                signal.value.notify()
                record.append(1)
            }
            #expect(record.wait(count: 2) == [1, 2])
        }
    }

    @Test func aVisitorRunsABoundedNumberOfOthersJobs() throws {
        try withEngine { engine, executor in
            let record = Record()
            let visitor = EngineBound(pthread_self())
            let total = 500
            engine.enter {
                for _ in 0..<total {
                    engine.spawn {
                        record.append(pthread_equal(pthread_self(), visitor.value) != 0 ? 1 : 0)
                    }
                }
            }
            let values = record.wait(count: total)
            #expect(values.count == total)
            #expect(values.reduce(0, +) <= 32)
            #expect(values.reduce(0, +) >= 1)
            _ = executor
        }
    }

    @Test func enteringATakenEngineIsRefused() throws {
        try withEngine { _, executor in
            var innerEntered = true
            #expect(executor.enterIfIdle { innerEntered = executor.enterIfIdle {} })
            #expect(!innerEntered)
        }
    }

    @Test func checkIsolatedStopsAStranger() async {
        await #expect(processExitsWith: .failure) {
            let executor = try CombiningExecutor()
            executor.checkIsolated()
        }
    }
}

@Suite struct LinuxClockTests {
    @Test func alarmsRingInOrderAndNotEarly() throws {
        try withEngine { engine, _ in
            let record = Record()
            let start = engine.clock.now
            for milliseconds in [30, 10, 20, 0, 10] {
                engine.clock.schedule(
                    at: start.advanced(milliseconds: UInt64(milliseconds)),
                    in: engine,
                    EngineBound {
                        engine.assertInside()
                        let late = engine.clock.now.rawValue - start.rawValue
                        record.append(late >= UInt64(milliseconds) * 1_000_000 ? milliseconds : -1)
                    }
                )
            }
            #expect(record.wait(count: 5) == [0, 10, 10, 20, 30])
        }
    }

    @Test func sleepingTasksContinueInside() throws {
        try withEngine { engine, executor in
            let record = Record()
            engine.spawn {
                await engine.sleep(until: engine.clock.now.advanced(milliseconds: 5))
                executor.checkIsolated()
                record.append(1)
            }
            #expect(record.wait(count: 1) == [1])
        }
    }

    @Test func civilTimeIsTheSystemsTime() throws {
        try withEngine { engine, _ in
            let difference = engine.clock.civilTime.seconds - Int64(time(nil))
            #expect(abs(difference) <= 1)
        }
    }
}

@Suite struct SystemHelpersTests {
    @Test func errorsHaveWords() {
        #expect(errnoText(ENOENT) == "No such file or directory")
        #expect(
            SystemError("open", "/x", code: EACCES).description == "open /x: Permission denied"
        )
    }

    @Test func threadsCarryTheirName() throws {
        let record = Record()
        let thread = try runThread(name: "a-name-that-is-much-too-long") {
            var bytes = [CChar](repeating: 0, count: 16)
            lockstep_thread_name(&bytes, 16)
            let length = bytes.firstIndex(of: 0) ?? 16
            record.append(length)
        }
        thread.join()
        #expect(record.wait(count: 1) == [15])
    }
}

/// What `Engine.spawn` says of capture lists, and that nothing else queues up twice.
private final class Steps: @unchecked Sendable {
    // Sendable: used inside the engine only; Sendable captures are what the trap is about.
    var log: [String] = []
    let engine: Engine

    init(engine: Engine) { self.engine = engine }

    func callee() async throws -> Int {
        engine.spawn { self.log.append("other") }
        return 1
    }

    func go() async {
        do { log.append("returned \(try await callee())") } catch { log.append("threw") }
    }
}

@Suite struct StepTests {
    @Test func returningFromACallThatDidNotWaitIsNoStep() throws {
        try withEngine { engine, executor in
            let steps = Steps(engine: engine)
            engine.spawnImmediately {
                await steps.go()
                steps.log.append("after")
            }
            #expect(executor.enterIfIdle {})
            #expect(steps.log == ["returned 1", "after", "other"])
        }
    }
}
