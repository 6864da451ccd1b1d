// Where agents wait for each other: the coordinator's side.

/// One place where agents meet, round after round.
package struct StressMeeting: Sendable {
    /// The number of the meeting that is being waited for.
    package private(set) var round: UInt64 = 0
    private var members: Set<Int>
    private var joining: Set<Int> = []
    private var arrived: [Int: [UInt64]] = [:]
    /// Meetings that belong together: nobody joins in between.
    private let parts: UInt64

    package init(members: Set<Int>, parts: UInt64) {
        self.members = members
        self.parts = parts
    }

    /// What there is to send.
    package enum Result: Hashable, Sendable {
        /// All are there: the meeting, for these.
        case met(StressMessage, to: [Int])
        /// These may come from this meeting on.
        case joined(UInt64, [Int])
    }

    /// An agent has come. One who was not expected does not count.
    package mutating func arrive(_ agent: Int, _ round: UInt64, _ numbers: [UInt64], place: UInt8)
        -> [Result]
    {
        guard round == self.round, members.contains(agent) else { return [] }
        arrived[agent] = numbers
        return settle(place)
    }

    /// An agent has lost its mount: nobody waits for it any more.
    package mutating func leave(_ agent: Int, place: UInt8) -> [Result] {
        members.remove(agent)
        joining.remove(agent)
        arrived[agent] = nil
        return settle(place)
    }

    /// An agent wants to come again.
    package mutating func join(_ agent: Int, place: UInt8) -> [Result] {
        members.remove(agent)
        joining.insert(agent)
        return settle(place)
    }

    private mutating func settle(_ place: UInt8) -> [Result] {
        var results: [Result] = []
        if members.isEmpty, !joining.isEmpty, round % parts != 0 {
            round += parts - round % parts
        }
        if !members.isEmpty, arrived.count == members.count {
            let agents = members.sorted()
            var numbers = [UInt64(place), round]
            for agent in agents {
                let brought = arrived[agent] ?? []
                numbers += [UInt64(agent), UInt64(brought.count)] + brought
            }
            results.append(.met(StressMessage(.met, numbers), to: agents))
            arrived = [:]
            round += 1
        }
        if round % parts == 0, arrived.isEmpty, !joining.isEmpty {
            results.append(.joined(round, joining.sorted()))
            members.formUnion(joining)
            joining = []
        }
        return results
    }
}
