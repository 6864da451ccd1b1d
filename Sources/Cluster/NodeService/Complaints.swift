// Log lines about peers that do not keep to the protocol: one a while, however many there are.

package import Vocabulary

/// Decides which of many equal complaints is said. Engine-bound.
package struct Complaints {
    private struct Entry {
        var peer: NodeID
        var saidAt: Tick
        var kept: UInt64
    }

    private var entries: [Entry] = []
    private let interval: UInt64

    /// One complaint of each peer in `nanoseconds`.
    package init(interval nanoseconds: UInt64 = 10_000_000_000) { interval = nanoseconds }

    /// Whether to say it now: nil if not; else how many were kept back since the last.
    package mutating func mayComplain(of peer: NodeID, at now: Tick) -> UInt64? {
        guard let place = entries.firstIndex(where: { $0.peer == peer }) else {
            entries.append(Entry(peer: peer, saidAt: now, kept: 0))
            return 0
        }
        if now < entries[place].saidAt.advanced(nanoseconds: interval) {
            entries[place].kept += 1
            return nil
        }
        defer { entries[place] = Entry(peer: peer, saidAt: now, kept: 0) }
        return entries[place].kept
    }
}
