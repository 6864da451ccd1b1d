// How many references the kernel counts on each inode: entries that it was answered with, minus
// what it forgot. An invalidation that finds no inode in the kernel is repeated while there is a
// reference: a first reply is then on its way (KERNEL F4).

package import FileSystem
import LinuxSystem
import Vocabulary

/// The kernel's references. From any thread.
package final class ReferenceTable: @unchecked Sendable {
    // Sendable: `counts` and `watchers` are used under `latch` only. The latch is a leaf.
    private let latch = Latch()
    private let forgotten = WaitCondition()
    private var watchers = 0
    private var counts: [UInt64: UInt64] = [:]

    init() {}

    /// An entry reply is about to name this inode.
    func add(_ node: NodeHandle) {
        latch.withLock { counts[node.rawValue, default: 0] += 1 }
    }

    /// The kernel dropped `count` references, or a reply did not reach it.
    func remove(_ node: NodeHandle, count: UInt64) {
        latch.withLock {
            // The kernel holds the root without a reply, and may forget it at unmount.
            guard let before = counts[node.rawValue] else { return }
            counts[node.rawValue] = before > count ? before - count : nil
            if watchers > 0 { forgotten.broadcast() }
        }
    }

    /// Waits until something is forgotten, but not longer than until `deadline` of the monotonic
    /// clock.
    func waitForChange(until deadline: Tick) {
        latch.withLock {
            watchers += 1
            _ = forgotten.wait(latch, until: deadline)
            watchers -= 1
        }
    }

    /// Whether the kernel may know this inode.
    package func contains(_ node: NodeHandle) -> Bool {
        node == .root || latch.withLock { counts[node.rawValue] != nil }
    }

    /// How many inodes the kernel may know, without the root.
    package var count: Int { latch.withLock { counts.count } }
}
