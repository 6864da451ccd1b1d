import BlockIO
import Execution
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct SimulatedMachineTests {
    /// A program whose tasks meet each other in every order.
    private func program(seed: UInt64) throws -> (hash: UInt64, order: [Int], now: Tick) {
        var order: [Int] = []
        var hash: UInt64 = 0
        var now = Tick(0)
        try runSimulated(seed: seed) { engine in
            let gate = Gate()
            let done = Signal()
            var left = 20
            for task in 0..<20 {
                engine.spawn {
                    await engine.sleep(nanoseconds: UInt64(task % 3) * 1000)
                    await gate.enter()
                    order.append(task)
                    await engine.sleep(nanoseconds: 10)
                    gate.leave()
                    left -= 1
                    done.notify()
                }
            }
            while left > 0 { await done.wait() }
            hash = engine.seededExecutor.scheduleHash
            now = engine.clock.now
        }
        return (hash, order, now)
    }

    @Test func sameSeedSameRun() throws {
        let first = try program(seed: 7)
        let second = try program(seed: 7)
        #expect(first.hash == second.hash)
        #expect(first.order == second.order)
        #expect(first.now == second.now)
        #expect(try program(seed: 8).order != first.order)
        #expect(first.order.sorted() == Array(0..<20))
    }

    @Test func deadlockIsFound() {
        #expect(throws: SimulationError.self) {
            try runSimulated(seed: 1) { engine in
                let gate = Gate()
                await gate.enter()
                engine.spawn {
                    await gate.enter()
                    gate.leave()
                }
                let never = Signal()
                while !gate.isTaken || true { await never.wait() }
            }
        }
    }

    @Test func busyLoopIsFound() {
        #expect(throws: SimulationError.noProgress(seed: 1, steps: 1000)) {
            try runSimulated(seed: 1, stepLimit: 1000) { engine in
                while true { await engine.sleep(nanoseconds: 5) }
            }
        }
    }

    @Test func effectsRunInOrderOutsideAndMayEnter() throws {
        nonisolated(unsafe) var seen: [Int] = []
        nonisolated(unsafe) var entered = 0
        try runSimulated(seed: 3) { engine in
            let executor = engine.seededExecutor
            for number in 0..<50 {
                engine.executor.afterLeaving {
                    seen.append(number)
                    #expect(!executor.isInside)
                    if executor.enterIfIdle({ entered += 1 }) { #expect(!executor.isInside) }
                }
            }
            #expect(!executor.enterIfIdle {})
            engine.assertInside()
            await engine.sleep(nanoseconds: 1_000_000)
        }
        #expect(seen == Array(0..<50))
        #expect(entered == 50)
    }

    @Test func foreignWorkTraps() async {
        let trapped = await #expect(
            processExitsWith: .failure,
            observing: [\.standardErrorContent]
        ) {
            let executor = SeededExecutor(seed: 1)
            let engine = Engine(executor: executor, clock: SimulatedClock(executor: executor))
            engine.spawn {
                // What the rules forbid: a task on the global pool that reaches for the engine.
                Task.detached { engine.spawn {} }
                while true { await engine.sleep(nanoseconds: 1) }
            }
            executor.runUntilIdle()
        }
        #expect(trapped.hasSaid("X1:"))
    }

    private func pattern(_ value: UInt8, count: Int = 4096) -> AlignedBuffer {
        let buffer = AlignedBuffer(byteCount: count)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: value)
        return buffer
    }

    @Test func flushedWritesSurviveAndOthersAreChosenByUnit() throws {
        var fates: Set<[Int]> = []
        for seed in 0..<60 as Range<UInt64> {
            try runSimulated(seed: seed) { engine in
                let disk = SimulatedDisk(byteCount: 1 << 20, executor: engine.seededExecutor)
                let host = disk.attach()
                let one = pattern(1)
                let two = pattern(2)
                try await host.write(one.readOnly, at: 0)
                try await host.flush()
                try await host.write(two.readOnly, at: 0)
                try await host.write(two.readOnly, at: 8192)
                #expect(disk.visible.bytes(at: 0, count: 4096) == Array(two.readOnly))
                let content = disk.crash(seed: seed)
                let units = content.bytes(at: 0, count: 4096)
                #expect(units.allSatisfy { $0 == 1 || $0 == 2 })
                for unit in stride(from: 0, to: 4096, by: 512) {
                    #expect(Set(units[unit..<unit + 512]).count == 1, "B3: a torn unit")
                }
                let there = content.bytes(at: 8192, count: 4096)
                func fate(_ bytes: [UInt8], _ new: UInt8) -> Int {
                    let count = bytes.filter { $0 == new }.count
                    return count == 0 ? 0 : count == 4096 ? 2 : 1
                }
                fates.insert([fate(units, 2), fate(there, 2)])
            }
        }
        #expect(fates.count == 9, "every combination of absent, torn and present occurs")
    }

    @Test func aWriteInFlightWhenTheFlushIsCalledIsNotCovered() throws {
        try runSimulated(seed: 5) { engine in
            let disk = SimulatedDisk(byteCount: 1 << 20, executor: engine.seededExecutor)
            disk.latency = DiskLatency(
                read: 1...1,
                write: 500_000...500_000,
                flush: 1_000_000...1_000_000,
                slowOneIn: 0
            )
            let host = disk.attach()
            let one = pattern(1)
            let written = Outcome<Void>()
            engine.spawn {
                do {
                    try await host.write(one.readOnly, at: 0)
                } catch {
                    Issue.record("\(error)")
                }
                written.deliver(())
            }
            await engine.sleep(nanoseconds: 100_000)
            try await host.flush()
            await written.get()
            #expect(disk.visible.bytes(at: 0, count: 1) == [1])
            #expect(disk.durable.bytes(at: 0, count: 1) == [0])
            try await host.flush()
            #expect(disk.durable.bytes(at: 0, count: 1) == [1])
        }
    }

    @Test func aHostThatIsCutOffWritesNothingMore() throws {
        try runSimulated(seed: 6) { engine in
            let disk = SimulatedDisk(byteCount: 1 << 20, executor: engine.seededExecutor)
            let dead = disk.attach("dead")
            let alive = disk.attach("alive")
            dead.cutOff()
            let one = pattern(1)
            await #expect(throws: DeviceError.closed) { try await dead.write(one.readOnly, at: 0) }
            try await alive.write(one.readOnly, at: 4096)
            #expect(disk.visible.bytes(at: 0, count: 1) == [0])
            #expect(disk.visible.bytes(at: 4096, count: 1) == [1])
            disk.faults.failWrite = 2
            try await alive.write(one.readOnly, at: 8192)
            await #expect(throws: DeviceError.self) {
                try await alive.write(one.readOnly, at: 12288)
            }
            await #expect(throws: DeviceError.self) {
                try await alive.write(one.readOnly, at: 1 << 20)
            }
        }
    }

    @Test func recordedEventsRebuildTheDisk() throws {
        try runSimulated(seed: 9) { engine in
            let disk = SimulatedDisk(byteCount: 1 << 20, executor: engine.seededExecutor)
            disk.record()
            let host = disk.attach()
            for value in 1...5 as ClosedRange<UInt8> {
                let buffer = pattern(value)
                try await host.write(buffer.readOnly, at: UInt64(value) * 4096)
                try await host.flush()
            }
            #expect(disk.events.count == 10)
            for count in 0...10 {
                let content = SimulatedDisk.content(
                    base: DiskContent(byteCount: 1 << 20),
                    events: disk.events,
                    count: count,
                    alignment: 512,
                    seed: 1
                )
                for value in 1...5 where value * 2 <= count {
                    #expect(content.bytes(at: UInt64(value) * 4096, count: 1) == [UInt8(value)])
                }
            }
        }
    }

    /// A lane that is held does nothing, whatever becomes ready; others go on, and afterwards it does
    /// all of it.
    @Test func aHeldLaneStandsStill() throws {
        try runSimulated(seed: 5) { engine in
            let machine = engine.seededExecutor
            let clock = SimulatedClock(executor: machine)
            let lanes = [SeededLane(machine), SeededLane(machine)]
            let engines = lanes.map { Engine(executor: $0, clock: clock) }
            var counts = [0, 0]
            var effects = 0
            for (index, lane) in engines.enumerated() {
                lane.spawn {
                    for _ in 0..<10 {
                        await lane.sleep(nanoseconds: 1_000)
                        counts[index] += 1
                    }
                }
            }
            while counts[0] < 3 { await engine.sleep(nanoseconds: 100) }
            lanes[0].hold()
            let before = counts[0]
            engines[0].spawn { counts[0] += 100 }
            let counter = EngineBound { effects += 1 }
            lanes[0].afterLeaving { counter.value() }
            #expect(!lanes[0].enterIfIdle { counts[0] += 1_000 })
            while counts[1] < 10 { await engine.sleep(nanoseconds: 1_000) }
            await engine.sleep(nanoseconds: 100_000)
            #expect(counts[0] == before && effects == 0, "held, and \(counts[0]) is not \(before)")
            lanes[0].release()
            await engine.sleep(nanoseconds: 100_000)
            #expect(counts[0] == 110 && effects == 1)
        }
    }
}
