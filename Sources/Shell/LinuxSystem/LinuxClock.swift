// Time of the operating system: the monotonic clock for ages, the real-time clock for files, and
// one thread that waits for the next alarm.

import CLinux
package import Execution
import Glibc
package import Vocabulary

/// The clocks of this machine, with a thread for alarms that lives until `stop`.
package final class LinuxClock: EngineClock, @unchecked Sendable {
    // Sendable: `alarms`, `sequence` and `isStopping` are used under `latch` only.

    private struct Alarm {
        var tick: Tick
        /// Alarms of the same tick ring in the order in which they were set.
        var sequence: UInt64
        var engine: Engine
        var body: EngineBound<() -> Void>

        static func < (left: Alarm, right: Alarm) -> Bool {
            (left.tick, left.sequence) < (right.tick, right.sequence)
        }
    }

    private let latch = Latch()
    private let changed = WaitCondition()
    /// A binary heap: each alarm is not before its parent.
    private var alarms: [Alarm] = []
    private var sequence: UInt64 = 0
    private var isStopping = false
    private var thread: RunningThread?

    /// - Throws: EAGAIN when the system has no room for a thread.
    package init() throws(SystemError) {
        thread = try runThread(name: "alarms") { [self] in runAlarms() }
    }

    /// Ends the thread; alarms that have not rung never will. Once, not from an alarm.
    package func stop() {
        latch.withLock {
            precondition(!isStopping, "a clock is stopped once")
            isStopping = true
            changed.signal()
        }
        thread?.join()
    }

    /// The monotonic clock, without an object.
    package static var monotonic: Tick {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Tick(UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    package var now: Tick { Self.monotonic }

    package var civilTime: Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(seconds: Int64(time.tv_sec), nanoseconds: UInt32(time.tv_nsec))
    }

    package func schedule(at tick: Tick, in engine: Engine, _ body: EngineBound<() -> Void>) {
        latch.lock()
        sequence += 1
        insert(Alarm(tick: tick, sequence: sequence, engine: engine, body: body))
        let isNext = alarms[0].sequence == sequence
        latch.unlock(signalling: changed, if: isNext)
    }

    private func runAlarms() {
        latch.lock()
        while !isStopping {
            guard let next = alarms.first else {
                changed.wait(latch)
                continue
            }
            if next.tick > now {
                _ = changed.wait(latch, until: next.tick)
                continue
            }
            removeFirst()
            latch.unlock()
            next.engine.enter(next.body.value)
            latch.lock()
        }
        latch.unlock()
    }

    // MARK: The heap

    private func insert(_ alarm: Alarm) {
        alarms.append(alarm)
        var child = alarms.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard alarms[child] < alarms[parent] else { return }
            alarms.swapAt(child, parent)
            child = parent
        }
    }

    private func removeFirst() {
        alarms.swapAt(0, alarms.count - 1)
        alarms.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < alarms.count && alarms[child] < alarms[least] {
                least = child
            }
            guard least != parent else { return }
            alarms.swapAt(least, parent)
            parent = least
        }
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
package func monotonicNow() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
