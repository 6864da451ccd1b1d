// Threads that may block in the kernel: a notification waits for pages being read or written and
// for the lock of a directory, that is for requests which other threads answer (KERNEL S3).

import DequeModule
import LinuxSystem

/// Runs blocking calls, each on a thread of its own if need be: a call that waits delays no other.
final class NotifyThreads: @unchecked Sendable {
    // Sendable: all state is used under `latch` only.
    private let latch = Latch()
    private let changed = WaitCondition()
    private var jobs: Deque<@Sendable () -> Void> = []
    private var idle = 0
    private var total = 0
    private var isStopping = false
    private let log: LineLog

    /// More calls than this wait their turn. Each waiting one belongs to a lock that a peer wants.
    private static let most = 256
    private static let keptIdle = 4

    init(log: LineLog) { self.log = log }

    /// Runs `job` soon.
    func submit(_ job: @escaping @Sendable () -> Void) {
        latch.lock()
        jobs.append(job)
        let needsThread = jobs.count > idle && total < Self.most
        if needsThread { total += 1 }
        latch.unlock(signalling: changed)
        guard needsThread else { return }
        do {
            try runThread(name: "notify", stackSize: 128 << 10) { [self] in work() }.detach()
        } catch {
            latch.withLock { total -= 1 }
            log.warning("no thread for a cache invalidation, it waits for another: \(error)")
        }
    }

    private func work() {
        latch.lock()
        while true {
            if let job = jobs.popFirst() {
                latch.unlock()
                job()
                latch.lock()
                continue
            }
            if isStopping || idle >= Self.keptIdle { break }
            idle += 1
            changed.wait(latch)
            idle -= 1
        }
        total -= 1
        changed.broadcast()
        latch.unlock()
    }

    /// Waits until every job has run and every thread is about to end. Once, when nothing will be
    /// submitted any more.
    func stop() {
        latch.lock()
        isStopping = true
        changed.broadcast()
        while total > 0 { changed.wait(latch) }
        latch.unlock()
    }
}
