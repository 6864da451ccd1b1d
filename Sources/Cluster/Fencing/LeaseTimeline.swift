// Fencing by time, where hardware makes it true: a node renews a lease on the device, and its host's watchdog resets
// the machine if nobody strokes it in time. A check in the program itself proves nothing, since the process can be stopped
// between the check and the write; only what stops the whole machine does, so without a watchdog there is no lease.
//
// One renewal, and what follows if it was the last. Times in nanoseconds; h by the holder's clock, o by an observer's
//
//   h0            the write of the renewal is begun; the holder counts from here
//   o0            an observer has read the renewal: o0 is not before h0, whatever the device did in between
//   h0 + stop     not renewed again: the holder stops by itself, makes its kernel forget, and strokes the watchdog no more
//   h0 + reset    = stop + watchdog: the last stroke was before h0 + stop, so the machine is reset by now
//   o0 + recover  = (reset + flight) x (1 + drift): what the machine had sent to the device before its reset has arrived or
//                 never will; the observers may recover
//
// Invariants
// L1. reset >= stop + watchdog, whatever process was frozen when: the watchdog is stroked only in the same step that has
//     found the lease valid, and by a stroke that the hardware counts from.
// L2. recover, by any clock that is `drift` faster than the holder's, is not before reset + flight by the holder's.
// L3. A holder that works renews at least twice before it has to stop: renewals that take `slowest` each do not stop it.
//
// Source: the timing of sanlock (Gray and Lamport's Delta leases) and of SBD; the arithmetic is done here again because
// each of its terms must be explained to whoever chooses them.

package import Vocabulary

/// What a lease is made of. All in nanoseconds.
package struct LeaseTerms: Hashable, Sendable {
    /// From one renewal to the next.
    package var interval: UInt64
    /// The longest that a renewal may take on the device without being taken for an outage.
    package var slowest: UInt64
    /// How long the holder works after the last renewal was begun.
    package var stop: UInt64
    /// The time after which the watchdog resets the machine.
    package var watchdog: UInt64
    /// The longest that a request can be under way in the storage after its sender is gone.
    package var flight: UInt64
    /// By how much one clock may be faster than another, in parts per million.
    package var drift: UInt64

    /// From its parts.
    package init(
        interval: UInt64,
        slowest: UInt64,
        stop: UInt64,
        watchdog: UInt64,
        flight: UInt64,
        drift: UInt64
    ) {
        self.interval = interval
        self.slowest = slowest
        self.stop = stop
        self.watchdog = watchdog
        self.flight = flight
        self.drift = drift
    }
}

/// Why terms cannot be used.
package struct LeaseTermsError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong, and what would be right.
    package let description: String
}

/// The times that follow from terms. See the head of this file.
package struct LeaseTimeline: Hashable, Sendable {
    /// What it is made of.
    package let terms: LeaseTerms
    /// When the machine has been reset, after the last renewal was begun; by the holder's clock.
    package let reset: UInt64
    /// When others may recover, after they have read the last renewal; by their clocks.
    package let recover: UInt64

    /// The longest time of any kind, in nanoseconds: a day.
    private static let longest: UInt64 = 86_400_000_000_000

    /// The times of some terms.
    package init(_ terms: LeaseTerms) throws(LeaseTermsError) {
        let times: [(String, UInt64)] = [
            ("interval", terms.interval), ("slowest renewal", terms.slowest), ("stop", terms.stop),
            ("watchdog", terms.watchdog), ("time in flight", terms.flight),
        ]
        for (name, time) in times
        where time > Self.longest || (time == 0 && name != "time in flight") {
            throw LeaseTermsError(description: "\(name): between 1 ns and a day, not \(time) ns")
        }
        guard terms.drift <= 100_000 else {
            throw LeaseTermsError(
                description: "drift: at most 100,000 millionths, not \(terms.drift)"
            )
        }
        // L3: one renewal has just missed its time, the next one is late.
        let needed = 2 * (terms.interval + terms.slowest)
        guard terms.stop >= needed else {
            throw LeaseTermsError(
                description:
                    "a holder would stop after \(text(terms.stop)) although its device is well: two renewals may take "
                    + text(needed)
            )
        }
        self.terms = terms
        reset = terms.stop + terms.watchdog
        let certain = reset + terms.flight
        // Rounded up (L2).
        recover = certain + (certain / 1_000_000 + 1) * terms.drift
    }

    /// The time line, for administrators.
    package var lines: [String] {
        [
            "0 s: the last renewal is begun; others read it at this time or later",
            "\(text(terms.stop)): not renewed, the node stops by itself and its watchdog is stroked no more",
            "\(text(reset)): the watchdog has reset the machine, whatever its programs did",
            "\(text(reset + terms.flight)): what it had sent to the device has arrived, or never will",
            "\(text(recover)): others may recover, by their own clocks (\(terms.drift) millionths apart at most)",
        ]
    }
}

/// A time for people, in seconds.
private func text(_ nanoseconds: UInt64) -> String {
    let thousandths = nanoseconds / 1_000_000
    let fraction = thousandths % 1_000
    if fraction == 0 { return "\(thousandths / 1_000) s" }
    let digits = String(fraction + 1_000).dropFirst()
    return "\(thousandths / 1_000).\(digits) s"
}

/// One node's own lease. Values only; the shell reads the clock once for each step, before anything else.
package struct LeaseHolder: Sendable {
    /// The times.
    package let timeline: LeaseTimeline
    /// When the last renewal that has returned was begun.
    package private(set) var validSince: Tick
    /// The renewal that is under way was begun then.
    package private(set) var renewing: Tick?
    /// The lease ran out: nothing brings it back.
    package private(set) var isOver = false

    /// A lease whose first renewal was begun at `start`, and has returned.
    package init(_ timeline: LeaseTimeline, start: Tick) {
        self.timeline = timeline
        validSince = start
    }

    /// When the next renewal is due.
    package var due: Tick { validSince.advanced(nanoseconds: timeline.terms.interval) }

    /// When the lease ends if it is not renewed.
    package var end: Tick { validSince.advanced(nanoseconds: timeline.terms.stop) }

    /// Whether this node may work, and the watchdog may be stroked in this same step (L1). Once false it stays so.
    package mutating func isValid(at now: Tick) -> Bool {
        if now >= end { isOver = true }
        return !isOver
    }

    /// A renewal is about to be written. False if one is under way, or it would be in vain.
    package mutating func begin(at now: Tick) -> Bool {
        guard isValid(at: now), renewing == nil else { return false }
        renewing = now
        return true
    }

    /// The renewal has returned; it counts from when it was begun.
    package mutating func ended(isDurable: Bool, at now: Tick) {
        guard let begun = renewing else { return }
        renewing = nil
        guard isValid(at: now), isDurable else { return }
        validSince = max(validSince, begun)
    }
}

/// What an observer knows of another node's lease.
package struct LeaseObserver: Sendable {
    /// The times.
    package let timeline: LeaseTimeline
    /// The number of the renewal that was read last.
    package private(set) var counter: UInt64
    /// When it was seen to be new: the clock after the read had returned.
    package private(set) var seenAt: Tick
    /// When the lease was read last: the clock before the read was begun.
    private var readAt: Tick

    /// An observer that has just read `counter` for the first time.
    package init(_ timeline: LeaseTimeline, counter: UInt64, at now: Tick) {
        self.timeline = timeline
        self.counter = counter
        seenAt = now
        readAt = now
    }

    /// The lease was read, by a request that was begun and had returned at these times.
    package mutating func read(_ counter: UInt64, begun: Tick, returned: Tick) {
        readAt = max(readAt, begun)
        if counter == self.counter { return }
        self.counter = counter
        seenAt = returned
    }

    /// When the holder can neither write nor be read through any more, if no renewal is seen until then.
    package var end: Tick { seenAt.advanced(nanoseconds: timeline.recover) }

    /// Whether the holder is certainly gone: its lease was read once more after that, and had not been renewed.
    package var isOver: Bool { readAt >= end }
}
