// What an agent has done lately, for whoever wants to understand a violation.

/// One operation of an agent.
package struct StressEvent: Hashable, Sendable {
    /// Nanoseconds since the agent began; not to be compared with those of other agents.
    package var time: UInt64
    package var key: StressKey
    /// The call, or what was concluded: "pwrite".
    package var what: String
    package var value: UInt64
    /// The result of the call; an errno below zero.
    package var result: Int

    package init(time: UInt64, key: StressKey, what: String, value: UInt64, result: Int) {
        self.time = time
        self.key = key
        self.what = what
        self.value = value
        self.result = result
    }

    /// One line of a report.
    package var line: String {
        let digits = String(time / 1000 % 1_000_000)
        let part = String(repeating: "0", count: 6 - digits.count) + digits
        return "\(time / 1_000_000_000).\(part) s  \(key)  \(what) \(value) -> \(result)"
    }
}

/// The last events of a workload.
package struct StressHistory: Sendable {
    private var ring: [StressEvent] = []
    private var next = 0
    /// Events that are kept.
    package static let room = 8192

    package init() {}

    /// Notes one; the oldest goes when there is no room.
    package mutating func note(_ event: StressEvent) {
        if ring.count < Self.room {
            ring.append(event)
        } else {
            ring[next] = event
        }
        next = (next + 1) % Self.room
    }

    /// The last events of an object, oldest first, as lines.
    package func lines(of key: StressKey, last count: Int) -> [String] {
        let ordered = ring.count < Self.room ? ring[...] : ring[next...] + ring[..<next]
        return ordered.filter { $0.key == key }.suffix(count).map(\.line)
    }
}
