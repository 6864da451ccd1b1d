// Counters that everybody adds one to while he has a lock.

/// What an agent did to a counter.
package struct StressCounts: Hashable, Sendable {
    /// Additions that were carried out.
    package var added: UInt64
    /// Additions that failed with their mount: carried out or not.
    package var doubtful: UInt64
    /// Whether the agent has ever lost its mount, and with it perhaps what it had added and not synced.
    package var hasLost: Bool

    package init(added: UInt64 = 0, doubtful: UInt64 = 0, hasLost: Bool = false) {
        self.added = added
        self.doubtful = doubtful
        self.hasLost = hasLost
    }

    /// Judges the value of a counter at rest.
    ///
    /// - Parameters:
    ///   - counts: of all agents that tell.
    ///   - isComplete: all agents tell.
    /// - Returns: what is wrong, in words.
    package static func judge(_ value: UInt64, _ counts: [StressCounts], isComplete: Bool)
        -> String?
    {
        let kept = counts.filter { !$0.hasLost }.reduce(0) { $0 + $1.added }
        let most = counts.reduce(0) { $0 + $1.added + $1.doubtful }
        if value < kept { return "lost: the counter is \(value), and \(kept) were added" }
        if value > most, isComplete {
            return "too much: the counter is \(value), and \(most) were added"
        }
        return nil
    }
}
