// What comes for a node from other threads, in order: messages of peers and views of the cluster.
//
// Invariants
// B1. Items are taken in the order in which they were put, one at a time, inside the engine.
// B2. The thread that brings an item takes it in itself when nobody is inside, without a copy of a
//     message's bytes; what the item sets off has then happened before the call returns. Otherwise
//     the thread that is inside is left a job: one for however many items gather until it runs.
// B3. What comes before `open` waits for it.

package import Execution
package import Vocabulary

/// Whom an inbox hands on to, inside the engine.
package struct NodeReceiver {
    /// A message of a peer. The bytes are valid during the call only.
    package var onMessage: (UnsafeRawBufferPointer, NodeID) -> Void
    /// A view of the cluster.
    package var onView: (ClusterView) -> Void

    package init(
        onMessage: @escaping (UnsafeRawBufferPointer, NodeID) -> Void,
        onView: @escaping (ClusterView) -> Void
    ) {
        self.onMessage = onMessage
        self.onView = onView
    }
}

/// A node's mailbox.
package final class NodeInbox: @unchecked Sendable {
    // Sendable: the three variables are used under the latch; the receiver is called inside the
    // engine.
    private enum Item {
        case view(ClusterView)
        case message([UInt8], NodeID)
    }

    private let engine: Engine
    private let latch = Latch()
    private var waiting: [Item] = []
    private var receiver: NodeReceiver?
    /// Somebody is on the way in and will take what waits.
    private var isScheduled = false

    /// A mailbox that keeps what comes until it is opened.
    package init(engine: Engine) { self.engine = engine }

    /// Leaves a message. From any thread outside the engine.
    package func put(_ bytes: UnsafeRawBufferPointer, from peer: NodeID) {
        latch.lock()
        guard let receiver, !isScheduled, waiting.isEmpty else {
            waiting.append(.message([UInt8](bytes), peer))
            latch.unlock()
            return
        }
        isScheduled = true
        latch.unlock()
        let hasEntered = engine.executor.enterIfIdle {
            receiver.onMessage(bytes, peer)
            deliver()
        }
        if hasEntered { return }
        // Before whatever has gathered since (B1).
        latch.withLock { waiting.insert(.message([UInt8](bytes), peer), at: 0) }
        engine.spawn { self.deliver() }
    }

    /// Leaves a view. From any thread outside the engine.
    package func put(_ view: ClusterView) {
        schedule { waiting.append(.view(view)) }
    }

    /// From now on `receiver` is called. Once.
    package func open(_ receiver: NodeReceiver) {
        schedule { self.receiver = receiver }
    }

    private func schedule(_ change: () -> Void) {
        let isDue = latch.withLock {
            change()
            guard receiver != nil, !waiting.isEmpty, !isScheduled else { return false }
            isScheduled = true
            return true
        }
        guard isDue, !engine.executor.enterIfIdle({ deliver() }) else { return }
        engine.spawn { self.deliver() }
    }

    private func deliver() {
        while true {
            latch.lock()
            guard !waiting.isEmpty, let receiver else {
                isScheduled = false
                latch.unlock()
                return
            }
            let items = waiting
            waiting = []
            latch.unlock()
            for item in items {
                switch item {
                case .view(let view): receiver.onView(view)
                case .message(let bytes, let peer):
                    bytes.withUnsafeBytes { receiver.onMessage($0, peer) }
                }
            }
        }
    }
}
