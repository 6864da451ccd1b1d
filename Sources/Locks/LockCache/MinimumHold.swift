// How long a node may keep a lock that another node wants, because handing it over is costly and work is coming.
//
// A lock that goes back and forth between nodes costs each time what was cached under it: data and metadata are
// written back, the journal is committed, the kernel's names and pages go, messages are sent. Were it given up after the
// operation for whose sake it was granted, nodes that fight for a directory would do one operation per hand-over. So who
// is at work with it keeps it for a while. At work is whoever has an operation inside or had one a moment ago: Linux lets
// one write(2) of a file, and one change of the names of a directory, in at a time, so that between two operations of even
// the busiest program nobody is inside. Giving up in that gap would be giving up after each operation (the same thing that
// disk schedulers learned of two programs that read in turn: wait a moment before the arm moves away).
//
// Terms
//   wait    from asking for the lock until it is granted by other nodes; in it is what another one kept it for
//   hold    the time since the grant for which it may be kept
//   linger  the time since the last operation for which it is kept although nobody is inside
//
// Invariants
//   H1. No lock is kept for longer than `longestHold` after its grant, if another node wants it, but for operations that are
//       inside then. It ends by itself: nobody has to come for that.
//   H2. The hold is 19 twentieths of what this node waited lately. With a cost C of handing over and two nodes that keep it for H
//       each waits H + C, and H = 0.95 (H + C) means H = 19 C: 95 % of the time is work. Who waits for longer keeps it for
//       longer in turn, so that differences vanish. (A hold by what giving up costs oneself does the opposite: who does
//       much has much to write back, keeps it the longer for that, and does more.) Among more nodes each waits for more
//       turns, and all come to `longestHold`. However little a hand-over costs, it is `shortestHold` at least, or nobody
//       would come to a second operation, and `steadyHold` if H3 trusts this node.
//   H3. Who is not at work delays nobody. A linger in which no operation came was in vain. Three that were not make up for
//       one that was: programs lose the processor now and then. While there is nothing to make up with, the next
//       ones are left out, 1, 2, 4 and so on up to 64 times, until one is tried again. A lock that nodes hand to and fro for
//       one operation each (a message through a file, a counter under a lock of programs) is so given up at once but
//       for one time in 65.
//   H4. A lock that was never waited for is given up at once.
//
// The mean is weighted exponentially: the newest wait counts a quarter. So one commit that took long is forgotten after
// a few turns, and a disk that has become slow is known as fast.
//
// Sources: the hold time of GFS2's glocks, which grows and shrinks by fixed steps (fs/gfs2/glock.c, `GL_GLOCK_HOLD_INCR`),
// with a measurement in place of the steps; anticipatory scheduling (Iyer and Druschel, SOSP 2001).

/// The minimum hold of one lock. A value without a clock; times are nanoseconds of one that does not go back.
package struct MinimumHold: Hashable, Sendable {
    /// No lock is kept longer than this after it was granted.
    package static let longestHold: UInt64 = 25_000_000
    /// It may be kept for this long at least, however little the hand-over costs: no less lets a program begin the next operation.
    package static let shortestHold: UInt64 = 2_000_000
    /// The same of a node that was at work whenever others wanted it lately.
    package static let steadyHold: UInt64 = 5_000_000
    /// Nor is it kept for longer than this without an operation.
    package static let longestLinger: UInt64 = 1_000_000
    /// What a program needs to begin the next operation: two changes of threads, on a machine that is busy.
    package static let shortestLinger: UInt64 = 400_000
    /// Trust from which on the longest linger and the steady hold are granted, and beyond which it does not grow.
    private static let steadyTrust: UInt8 = 4
    private static let mostTrust: UInt8 = 12
    private static let priceOfVanity: UInt8 = 3
    /// So many times a linger is left out at most.
    package static let longestDoubt: UInt8 = 64

    /// What is to be done about a want.
    package enum Verdict: Hashable, Sendable {
        case giveUp
        /// Keep it and look again at this time.
        case keep(until: UInt64)
    }

    /// A want that is being delayed.
    private struct Want: Hashable, Sendable {
        /// When the hold ends.
        var end: UInt64
        /// When an operation was last known to be inside.
        var lastUse: UInt64
        /// Operations that end before one counts as having come since: what was inside when it was heard.
        var before: UInt8
        /// Whether an operation came since it was heard.
        var hasWorked = false
    }

    /// The weighted mean of the waits; 0 until one was measured. At most `longestHold`: more says nothing more.
    package private(set) var mean: UInt64 = 0
    private var want: Want?
    /// Wants during which this node worked, less those during which it did not.
    private var trust: UInt8 = 0
    /// How many lingers to leave out yet, and after the next one in vain.
    private var doubt: UInt8 = 0
    private var nextDoubt: UInt8 = 1

    /// Nothing was measured yet.
    package init() {}

    /// Whether a want is being delayed.
    package var isDelaying: Bool { want != nil }

    /// It was asked for at `begin` and granted at `end`. A clock that goes back is passed over.
    package mutating func waited(from begin: UInt64, to end: UInt64) {
        guard end >= begin else { return }
        let wait = min(end - begin, Self.longestHold)
        mean = mean == 0 ? wait : mean - mean / 4 + wait / 4
    }

    /// Another node wants the lock, which was granted at `granted`; `isInUse`: an operation is inside.
    package mutating func wanted(granted: UInt64, isInUse: Bool, now: UInt64) -> Verdict {
        guard want == nil else { return check(isInUse: isInUse, now: now) }
        guard mean > 0 else { return .giveUp }  // H4
        if doubt > 0 {
            doubt -= 1
            return .giveUp
        }
        let (end, overflows) = granted.addingReportingOverflow(
            max(mean - mean / 20, isTrusted ? Self.steadyHold : Self.shortestHold)
        )
        guard !overflows, end > now, granted <= now else { return .giveUp }
        want = Want(end: end, lastUse: now, before: isInUse ? 1 : 0)
        return check(isInUse: isInUse, now: now)
    }

    /// An operation has ended, whether others are inside or not.
    package mutating func used(now: UInt64) {
        guard var want else { return }
        want.lastUse = now
        if want.before > 0 { want.before -= 1 } else { want.hasWorked = true }
        self.want = want
    }

    /// The time of a verdict has come.
    package mutating func check(isInUse: Bool, now: UInt64) -> Verdict {
        guard var want else { return .giveUp }
        if isInUse { want.lastUse = now }
        let linger = isTrusted ? Self.longestLinger : Self.shortestLinger
        let (idle, overflows) = want.lastUse.addingReportingOverflow(linger)
        let next = overflows ? want.end : min(want.end, idle)
        self.want = want
        if next > now { return .keep(until: next) }
        judge(want)
        return .giveUp
    }

    /// The lock has been given up, for whatever reason.
    package mutating func ended() { want = nil }

    private var isTrusted: Bool { trust >= Self.steadyTrust }

    private mutating func judge(_ ended: Want) {
        want = nil
        if ended.hasWorked {
            nextDoubt = 1
            trust = min(trust + 1, Self.mostTrust)
        } else if trust >= Self.priceOfVanity {
            trust -= Self.priceOfVanity
        } else {
            trust = 0
            doubt = nextDoubt
            nextDoubt = min(nextDoubt * 2, Self.longestDoubt)
        }
    }
}
