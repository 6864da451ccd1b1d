// Mutual exclusion among threads, and waiting for another thread.
//
// A latch is a plain pthread mutex on the heap. `Synchronization.Mutex` is a priority-inheritance
// futex on Linux and hands every contended acquisition over through the kernel: with more threads
// than cores it was measured 270 times slower (0.10 M against 27.7 M acquisitions per second, eight
// threads, two cores). Latches are held for a few instructions; nobody waits for a lock, a disk or
// a peer while holding one.

import CLinux
import Glibc
package import Vocabulary

/// Mutual exclusion among threads. Not recursive.
package final class Latch: @unchecked Sendable {
    // Sendable: that is its purpose.
    fileprivate let mutex: UnsafeMutablePointer<pthread_mutex_t>

    package init() {
        mutex = .allocate(capacity: 1)
        let failure = pthread_mutex_init(mutex, nil)
        precondition(failure == 0, "pthread_mutex_init: \(errnoText(failure))")
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    /// Waits until no other thread holds it, and takes it.
    package func lock() {
        let failure = pthread_mutex_lock(mutex)
        precondition(failure == 0, "pthread_mutex_lock: \(errnoText(failure))")
    }

    /// Gives it back. Only by the thread that took it.
    package func unlock() {
        let failure = pthread_mutex_unlock(mutex)
        precondition(failure == 0, "pthread_mutex_unlock: \(errnoText(failure))")
    }

    /// Gives it back and then wakes one thread that waits for something under it, if `isWanted`. Not the other way round: who
    /// is woken would find the latch taken, and sleep once more.
    package func unlock(signalling condition: WaitCondition, if isWanted: Bool = true) {
        unlock()
        if isWanted { condition.signal() }
    }

    /// Runs `body` while holding the latch.
    package func withLock<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lock()
        defer { unlock() }
        return try body()
    }
}

/// Something that threads wait for under a latch: `while !condition { something.wait(latch) }`.
package final class WaitCondition: @unchecked Sendable {
    // Sendable: that is its purpose.
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    package init() {
        condition = .allocate(capacity: 1)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        // Time-outs must not jump with the time of day.
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        let failure = pthread_cond_init(condition, &attributes)
        precondition(failure == 0, "pthread_cond_init: \(errnoText(failure))")
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        condition.deallocate()
    }

    /// Gives the latch back, waits for a signal, takes the latch again. May return without a
    /// signal.
    package func wait(_ latch: Latch) {
        let failure = pthread_cond_wait(condition, latch.mutex)
        precondition(failure == 0, "pthread_cond_wait: \(errnoText(failure))")
    }

    /// As `wait`, but not longer than until `deadline` of the monotonic clock. Returns false when
    /// that has passed.
    package func wait(_ latch: Latch, until deadline: Tick) -> Bool {
        var time = timespec(
            tv_sec: Int(deadline.rawValue / 1_000_000_000),
            tv_nsec: Int(deadline.rawValue % 1_000_000_000)
        )
        let failure = pthread_cond_timedwait(condition, latch.mutex, &time)
        precondition(
            failure == 0 || failure == ETIMEDOUT,
            "pthread_cond_timedwait: \(errnoText(failure))"
        )
        return failure == 0
    }

    /// Wakes one waiter, if there is one.
    package func signal() { pthread_cond_signal(condition) }

    /// Wakes all waiters.
    package func broadcast() { pthread_cond_broadcast(condition) }
}
