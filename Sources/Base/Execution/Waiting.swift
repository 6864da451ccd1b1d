// What async code inside an engine waits on. None of these is a lock against other threads: they
// order tasks of one engine, which E1 keeps from running at the same time.
//
// W1. Whether to wait is decided where the waiter is queued, in one step. Between a check and
//     `await withUnsafeContinuation` other jobs may run: the call can hop to its executor first,
//     and what was to be waited for happens unseen. So every primitive checks inside the
//     continuation's closure.

import DequeModule

/// Tasks that wait for a condition. Whoever changes the condition wakes; whoever wakes checks
/// again.
package struct WaitQueue: ~Copyable {
    private var waiting: Deque<UnsafeContinuation<Void, Never>> = []

    package init() {}

    deinit {
        precondition(waiting.isEmpty, "a wait queue went away under \(waiting.count) waiters")
    }

    /// Whether nobody waits.
    package var isEmpty: Bool { waiting.isEmpty }

    /// Puts a waiter at the end. Use `Gate` or `Signal` unless a continuation is at hand.
    package mutating func append(_ waiter: UnsafeContinuation<Void, Never>) {
        waiting.append(waiter)
    }

    /// Wakes the longest waiting task.
    package mutating func wakeOne() { waiting.popFirst()?.resume() }

    /// Wakes all, in the order in which they came.
    package mutating func wakeAll() {
        while let next = waiting.popFirst() { next.resume() }
    }
}

/// Something that tasks wait for again and again: `while !condition { await signal.wait() }`.
package final class Signal {
    private var queue = WaitQueue()
    private var notifications: UInt64 = 0

    package init() {}

    /// Waits for the next `notify` after this call began.
    package func wait() async {
        let seen = notifications
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            if notifications != seen { waiter.resume() } else { queue.append(waiter) }  // W1
        }
    }

    /// Wakes everybody who waits now.
    package func notify() {
        notifications &+= 1
        queue.wakeAll()
    }

    /// Whether somebody waits.
    package var hasWaiters: Bool { !queue.isEmpty }
}

/// Mutual exclusion among tasks, first come first served.
package final class Gate {
    private var queue = WaitQueue()

    /// Whether a task is inside.
    package private(set) var isTaken = false

    package init() {}

    /// Waits until nobody is inside, and enters. Ends with `leave`.
    package func enter() async {
        if !isTaken && queue.isEmpty {
            isTaken = true
            return
        }
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            if !isTaken && queue.isEmpty {  // W1
                isTaken = true
                waiter.resume()
            } else {
                queue.append(waiter)
            }
        }
        precondition(isTaken, "the gate was handed over open")
    }

    /// Leaves; the longest waiting task is inside from this moment on.
    package func leave() {
        precondition(isTaken, "leaving a gate nobody entered")
        if queue.isEmpty { isTaken = false } else { queue.wakeOne() }
    }
}

/// A result that arrives once and that any number of tasks may wait for.
package final class Outcome<Value> {
    private var queue = WaitQueue()

    /// What arrived, if it has.
    package private(set) var value: Value?

    package init() {}

    /// Delivers the result. Once.
    package func deliver(_ value: Value) {
        precondition(self.value == nil, "an outcome arrived twice")
        self.value = value
        queue.wakeAll()
    }

    /// Waits for the result.
    package func get() async -> Value {
        while true {
            if let value { return value }
            await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
                if value != nil { waiter.resume() } else { queue.append(waiter) }  // W1
            }
        }
    }
}
