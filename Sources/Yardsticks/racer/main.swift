// Two threads and one number: what a build with the thread sanitizer must report, and what it must
// not. tools/races runs it before it believes that a daemon without reports has no races. Not a
// product.
//
//   racer unguarded     the threads count without a latch: a race
//   racer guarded       each holds the latch: none
//   racer handed        one thread leaves the number in the other's mailbox, by latch and condition: none
//   racer continued     a thread resumes a task that has not suspended yet: none, and yet reported. The two
//                       meet in an atomic of Swift's runtime, which is not instrumented: this is why
//                       Tests/Races/suppressions.txt has its line

import Execution
import Glibc
import LinuxSystem
import Synchronization

/// The number.
private final class Shared: @unchecked Sendable {
    // Sendable: under the latch, or wrong on purpose.
    let latch = Latch()
    let changed = WaitCondition()
    var number = 0
    var isThere = false
}

private func count(_ shared: Shared, guarded: Bool) throws {
    let threads = try (0..<2).map { index in
        try runThread(name: "racer \(index)") {
            for _ in 0..<10_000 {
                if guarded {
                    shared.latch.withLock { shared.number += 1 }
                } else {
                    shared.number += 1
                }
            }
        }
    }
    for thread in threads { thread.join() }
}

private func hand(_ shared: Shared) throws {
    let receiver = try runThread(name: "receiver") {
        shared.latch.lock()
        while !shared.isThere { shared.changed.wait(shared.latch) }
        shared.latch.unlock()
        // Nobody else has it any more.
        shared.number += 1
    }
    shared.number = 41
    shared.latch.withLock {
        shared.isThere = true
        shared.changed.signal()
    }
    receiver.join()
}

/// Tasks that wait to be resumed, and how many have been.
private final class Waiters: @unchecked Sendable {
    // Sendable: what is not atomic is used under the latch.
    let latch = Latch()
    let changed = WaitCondition()
    var waiting: [UnsafeContinuation<Int, Never>] = []
    var isOver = false
    /// Relaxed: looking at it puts nothing in order.
    let resumed = Atomic<Int>(0)
}

private func resumeAll(_ waiters: Waiters) {
    waiters.latch.lock()
    while !waiters.isOver {
        if let waiter = waiters.waiting.popLast() {
            waiters.latch.unlock()
            waiter.resume(returning: 1)
            waiters.resumed.add(1, ordering: .relaxed)
            waiters.latch.lock()
        } else {
            waiters.changed.wait(waiters.latch)
        }
    }
    waiters.latch.unlock()
}

/// Asks a thousand times, and each time goes on only when the answer is there.
private func ask(_ waiters: Waiters) async -> Int {
    var sum = 0
    for number in 0..<1_000 {
        sum += await withUnsafeContinuation { waiter in
            waiters.latch.withLock {
                waiters.waiting.append(waiter)
                waiters.changed.signal()
            }
            while waiters.resumed.load(ordering: .relaxed) == number { sched_yield() }
        }
    }
    return sum
}

private func continueTask(_ shared: Shared) throws {
    let waiters = Waiters()
    let thread = try runThread(name: "resumer") { resumeAll(waiters) }
    let executor = try CombiningExecutor()
    Engine(executor: executor, clock: try LinuxClock()).spawn {
        let sum = await ask(waiters)
        waiters.latch.withLock {
            shared.number = sum
            waiters.isOver = true
            waiters.changed.signal()
        }
    }
    thread.join()
    executor.stop()
}

private let shared = Shared()
switch CommandLine.arguments.dropFirst().first {
case "unguarded": try count(shared, guarded: false)
case "guarded": try count(shared, guarded: true)
case "handed": try hand(shared)
case "continued": try continueTask(shared)
default:
    print("usage: racer unguarded|guarded|handed|continued")
    exit(2)
}
// So that nothing is left out as unused.
print(shared.number)
