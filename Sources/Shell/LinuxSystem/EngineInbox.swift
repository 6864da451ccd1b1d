// What comes for an engine from other threads, in order.
//
// Invariants
// B1. Items are taken in the order in which they were put, one at a time, inside the engine.
// B2. The thread that brings an item takes it in itself when nobody is inside; then what the item
//     sets off has happened before `put` returns. Otherwise the thread that is inside is left a job:
//     one for however many items gather until it runs.
// B3. What comes before `open` waits for it.

package import Execution

/// An engine's mailbox.
package final class EngineInbox<Item: Sendable>: @unchecked Sendable {
    // Sendable: the three variables are used under the latch; `take` is called inside the engine.
    private let engine: Engine
    private let latch = Latch()
    private var waiting: [Item] = []
    private var take: ((Item) -> Void)?
    private var isScheduled = false

    /// A mailbox that keeps what comes until it is opened.
    package init(engine: Engine) { self.engine = engine }

    /// Leaves an item. From any thread outside the engine.
    package func put(_ item: Item) {
        schedule { waiting.append(item) }
    }

    /// From now on `take` is called, inside the engine, for each item. Once.
    package func open(_ take: @escaping (Item) -> Void) {
        schedule { self.take = take }
    }

    private func schedule(_ change: () -> Void) {
        let isDue = latch.withLock {
            change()
            guard take != nil, !waiting.isEmpty, !isScheduled else { return false }
            isScheduled = true
            return true
        }
        guard isDue, !engine.executor.enterIfIdle({ deliver() }) else { return }
        engine.spawn { self.deliver() }
    }

    private func deliver() {
        while true {
            latch.lock()
            let items = waiting
            waiting = []
            if items.isEmpty { isScheduled = false }
            let take = take
            latch.unlock()
            guard !items.isEmpty, let take else { return }
            for item in items { take(item) }
        }
    }
}
