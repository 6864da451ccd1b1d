// What it costs to get one lock from another node, and how long this node may keep it therefore when another one wants it.
//
// A lock that goes back and forth between nodes costs each time what was cached under it: data and metadata are
// written back, the journal is committed, the kernel's pages go, messages are sent. If it were given up after a
// single operation, as it can be while many wait here, nodes that fight for it would do little else. So whoever
// was granted it keeps it, while somebody here uses it (GlockMachine G10), for half as long as it waited lately.
//
// Why the wait, which has in it what the other node kept the lock for, and half of it: with a cost C of handing over and two
// nodes that keep it for H, each waits for H + C, and H = (H + C) / 2 means H = C: half of the time is work. If one node
// keeps it for longer the other waits for longer, and keeps it longer in turn: a difference becomes half with each turn.
// (A hold by what giving the lock up costs oneself does the opposite: who does much has much to write back, may keep
// it the longer for that, and does more; in a simulated fight one node did four times what the other did.)
// Among more nodes each waits for more turns, and all come to `longestHold`.
//
// The mean is weighted exponentially: the newest wait counts a quarter. So one commit that took long is forgotten after
// a few turns, and a disk that has become slow is known as fast.
//
// Source: the hold time of GFS2's glocks, which grows and shrinks by fixed steps (fs/gfs2/glock.c,
// `GL_GLOCK_HOLD_INCR`), with a measurement in place of the steps.

/// The measured cost of handing over one lock. A value without a clock; times are nanoseconds.
package struct HandOverCost: Hashable, Sendable {
    /// No lock is kept longer than this for the sake of its cost.
    package static let longestHold: UInt64 = 5_000_000

    /// The weighted mean of the waits; 0 until one was measured. At most twice `longestHold`: more says nothing more.
    package private(set) var mean: UInt64 = 0

    /// Nothing was measured yet.
    package init() {}

    /// It was asked for at `begin` and granted at `end` by a clock that only grows. A clock that does not is passed over.
    package mutating func measured(from begin: UInt64, to end: UInt64) {
        guard end >= begin else { return }
        let cost = min(end - begin, 2 * Self.longestHold)
        mean = mean == 0 ? cost : mean - mean / 4 + cost / 4
    }

    /// When the time ends for which a lock is kept that was granted at `granted`, if that is after `now`. Nil: a lock that was
    /// never waited for, or was held so long, is given up at once.
    package func holdEnd(grantedAt granted: UInt64, now: UInt64) -> UInt64? {
        let (end, overflows) = granted.addingReportingOverflow(mean / 2)
        // A grant of the future is a clock that went back: no reason to keep anything.
        guard !overflows, end > now, granted <= now else { return nil }
        return end
    }
}
