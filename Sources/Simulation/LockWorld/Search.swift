// The exhaustive search: every state that a small cluster can reach, by every order of messages,
// requests and disturbances, with the production state machine. Breadth first, so that the path to
// a violation is a shortest one.
//
// A state that was met before is not looked at again. What was met is kept as 128-bit digests
// (Fingerprint.swift says what equal means): that two different states have the same digest by
// chance, so that one is overlooked, has a probability below n²/2¹²⁹ for n states, 10⁻²⁴ for 10⁷.
// Two reductions are made. Free places of a client are alike (the first is used), and a message that
// is older than its receiver's view arrives before anything else happens (SearchEvent.swift). Nodes
// are not taken for symmetrical.
//
// The search ends when nothing new is found: then every reachable state was checked, of any length
// of history, within the bounds of the plan.

import LockCore
import Vocabulary

/// What a search found.
package struct SearchReport: Sendable {
    package var states = 0
    package var transitions = 0
    /// Events on the longest of the shortest paths.
    package var depth = 0
    /// States with nothing on its way.
    package var quiescent = 0
    /// The largest number of states of one depth.
    package var widest = 0
    /// False when a limit ended it.
    package var isComplete = false
    /// What was violated, and the path to it as a scenario.
    package var violation: String?
    package var story: [String] = []

    /// One line.
    package var summary: String {
        "\(states) states (\(quiescent) at rest), \(transitions) transitions, depth \(depth), "
            + "at most \(widest) states of one depth"
    }
}

/// A set of digests: open addressing, 16 bytes an entry.
struct DigestSet {
    private var entries: ContiguousArray<StateDigest>
    private(set) var count = 0
    private static let empty = StateDigest(high: 0, low: 0)

    init() { entries = ContiguousArray(repeating: Self.empty, count: 1 << 12) }

    /// Whether the digest is new.
    mutating func insert(_ digest: StateDigest) -> Bool {
        if count * 4 > entries.count * 3 { grow() }
        var place = Int(truncatingIfNeeded: digest.high) & (entries.count - 1)
        while entries[place] != Self.empty {
            if entries[place] == digest { return false }
            place = (place + 1) & (entries.count - 1)
        }
        entries[place] = digest
        count += 1
        return true
    }

    private mutating func grow() {
        let old = entries
        entries = ContiguousArray(repeating: Self.empty, count: old.count * 2)
        for digest in old where digest != Self.empty {
            var place = Int(truncatingIfNeeded: digest.high) & (entries.count - 1)
            while entries[place] != Self.empty { place = (place + 1) & (entries.count - 1) }
            entries[place] = digest
        }
    }
}

/// A search.
package struct Search {
    private let plan: SearchPlan
    private let stateLimit: Int
    private var report = SearchReport()
    private var met = DigestSet()
    /// For each state in the order of discovery: where it was reached from, and by what.
    private var parents: ContiguousArray<UInt32> = []
    private var events: ContiguousArray<UInt32> = []

    package init(_ plan: SearchPlan, stateLimit: Int = .max) {
        precondition(plan.highestNode < 16, "LockWorld: an event has four bits for a node")
        self.plan = plan
        self.stateLimit = min(stateLimit, Int(UInt32.max) - 1)
    }

    /// Searches until nothing new is found, something is wrong or the limit is reached. `progress`
    /// is told after each depth.
    package mutating func run(progress: ((SearchReport) -> Void)? = nil) -> SearchReport {
        let first = SearchState(plan)
        _ = met.insert(first.digest)
        parents.append(0)
        events.append(0)
        var level: [SearchState] = [first]
        var firstIndex = 0
        while !level.isEmpty && parents.count < stateLimit {
            report.widest = max(report.widest, level.count)
            var next: [SearchState] = []
            let nextIndex = parents.count
            for place in level.indices {
                let state = level[place]
                level[place] = first
                if state.isQuiescent { report.quiescent += 1 }
                guard expand(state, firstIndex + place, &next) else { return finish() }
            }
            level = next
            firstIndex = nextIndex
            if !level.isEmpty { report.depth += 1 }
            progress?(finish())
        }
        report.isComplete = level.isEmpty
        return finish()
    }

    /// A path by dice, told as a scenario: for the test of the telling.
    package static func walk(_ plan: SearchPlan, seed: UInt64, length: Int) -> [String] {
        var dice = SeededGenerator(seed: seed)
        var state = SearchState(plan)
        var path: [SearchEvent] = []
        while path.count < length {
            let events = state.events(plan)
            if events.isEmpty { break }
            let event = events[dice.below(events.count)]
            path.append(event)
            guard let next = try? state.after(event, plan) else { break }
            state = next
        }
        return SearchStory.tell(path, plan)
    }

    private mutating func finish() -> SearchReport {
        report.states = parents.count
        return report
    }

    /// Finds what follows a state. False when something is violated.
    private mutating func expand(
        _ state: SearchState,
        _ index: Int,
        _ next: inout [SearchState]
    ) -> Bool {
        for event in state.events(plan) {
            report.transitions += 1
            do {
                let after = try state.after(event, plan)
                guard met.insert(after.digest) else { continue }
                parents.append(UInt32(index))
                events.append(event.code)
                next.append(after)
            } catch {
                report.violation = "\(error)"
                report.story = SearchStory.tell(path(to: index) + [event], plan)
                return false
            }
        }
        return true
    }

    private func path(to index: Int) -> [SearchEvent] {
        var path: [SearchEvent] = []
        var at = index
        while at != 0 {
            path.append(SearchEvent(code: events[at]))
            at = Int(parents[at])
        }
        return path.reversed()
    }
}
