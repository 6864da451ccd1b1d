import CLinux
import Glibc

/// A pthread mutex with conditions to wait for: for threads that may block (I/O pools, the membership
/// thread). Not for the engine. Each condition has its own queue, so that waking one waiter cannot be
/// lost on a waiter for something else.
package final class Monitor: @unchecked Sendable {
    // Sendable: the pointer is constant and pthread's functions are made for sharing.
    fileprivate let mutex: UnsafeMutablePointer<pthread_mutex_t>

    package init() {
        mutex = .allocate(capacity: 1)
        let code = pthread_mutex_init(mutex, nil)
        precondition(code == 0, "a mutex could not be made")
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    /// Waits until nobody is inside, and enters.
    package func lock() {
        let code = pthread_mutex_lock(mutex)
        precondition(code == 0, "a mutex was broken")
    }

    /// Leaves.
    package func unlock() {
        let code = pthread_mutex_unlock(mutex)
        precondition(code == 0, "left a monitor from outside")
    }

    /// Runs `body` inside.
    package func withLock<Result, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lock()
        defer { unlock() }
        return try body()
    }
}

/// Something that threads inside a monitor wait for: `while !true { condition.wait() }`.
package final class Condition: @unchecked Sendable {
    // Sendable: as for `Monitor`.
    private let monitor: Monitor
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    /// A condition of `monitor`, which must be held around every `wait`.
    package init(of monitor: Monitor) {
        self.monitor = monitor
        condition = .allocate(capacity: 1)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        let code = pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
        precondition(code == 0, "a condition could not be made")
    }

    deinit {
        pthread_cond_destroy(condition)
        condition.deallocate()
    }

    /// Leaves the monitor, waits to be woken, enters again. May return for no reason.
    package func wait() { pthread_cond_wait(condition, monitor.mutex) }

    /// As `wait`, but not beyond `deadline`, in nanoseconds of CLOCK_MONOTONIC. False when it has passed.
    package func wait(until deadline: UInt64) -> Bool {
        var time = timespec(
            tv_sec: Int(deadline / 1_000_000_000),
            tv_nsec: Int(deadline % 1_000_000_000)
        )
        return pthread_cond_timedwait(condition, monitor.mutex, &time) != ETIMEDOUT
    }

    /// Wakes one waiter.
    package func signal() { pthread_cond_signal(condition) }

    /// Wakes all waiters.
    package func broadcast() { pthread_cond_broadcast(condition) }
}
