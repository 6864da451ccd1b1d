// What a run of the random world may contain, and what it did contain.

/// Disturbances besides the work of the clients.
package struct WorldFaults: OptionSet, Hashable, Sendable {
    package let rawValue: Int

    package init(rawValue: Int) { self.rawValue = rawValue }

    /// Nodes die, also several of them within one recovery.
    package static let deaths = WorldFaults(rawValue: 1 << 0)
    /// Nodes join, also during a recovery.
    package static let joins = WorldFaults(rawValue: 1 << 1)
    /// Nodes leave in order, also during a recovery.
    package static let leaves = WorldFaults(rawValue: 1 << 2)
    /// A connection between two living nodes is lost with all messages on it; the next view, of
    /// the same members if nothing else happens, opens a new one.
    package static let losses = WorldFaults(rawValue: 1 << 3)
    /// Each connection has a delay of its own, which changes.
    package static let delays = WorldFaults(rawValue: 1 << 4)

    /// Masterships move, by use and at will.
    package static let moves = WorldFaults(rawValue: 1 << 5)
    /// Owners hold several locks at once and wait for each other.
    package static let deadlocks = WorldFaults(rawValue: 1 << 6)
    /// Resources have parts.
    package static let trees = WorldFaults(rawValue: 1 << 7)
    /// Waits end after a time.
    package static let patience = WorldFaults(rawValue: 1 << 8)
    /// Owners go and leave locks behind.
    package static let orphans = WorldFaults(rawValue: 1 << 9)

    /// Some names are locked byte by byte.
    package static let ranges = WorldFaults(rawValue: 1 << 10)

    /// All of them.
    package static let all = WorldFaults(rawValue: (1 << 11) - 1)

    /// As an operator writes them.
    package static let byName: [(name: String, fault: WorldFaults)] = [
        ("deaths", .deaths), ("joins", .joins), ("leaves", .leaves), ("losses", .losses),
        ("delays", .delays), ("moves", .moves), ("deadlocks", .deadlocks), ("trees", .trees),
        ("patience", .patience), ("orphans", .orphans),
        ("ranges", .ranges),
    ]
}

/// What a run may contain.
package struct WorldOptions: Sendable {
    package var nodeCount: Int
    /// Node numbers are 1 to this; so many nodes can there be at once.
    package var maximumNodes: Int
    package var nameCount: Int
    package var steps: Int
    package var faults: WorldFaults
    /// Whether messages travel as bytes.
    package var encodes = true
    /// After so many calls of a node all its invariants are checked; otherwise those of the
    /// resource that was touched.
    package var fullCheckEvery: Int
    /// Once in so many steps on average everything comes to rest and is compared.
    package var restEvery: Int

    /// A small world is checked in full after every call, a large one now and then.
    package init(
        nodeCount: Int = 3,
        nameCount: Int = 4,
        steps: Int = 600,
        faults: WorldFaults = .all
    ) {
        self.nodeCount = nodeCount
        self.nameCount = nameCount
        self.steps = steps
        self.faults = faults
        maximumNodes = max(8, nodeCount + 2)
        fullCheckEvery = nameCount <= 16 ? 1 : nameCount
        restEvery = max(60, nameCount * nodeCount / 4)
    }

    /// The line that runs a seed again and tells what happens.
    package func replayLine(_ seed: UInt64) -> String {
        let chosen = WorldFaults.byName.filter { faults.contains($0.fault) }.map(\.name)
        return "lockstep-lockcheck random --seed \(seed) --nodes \(nodeCount) "
            + "--resources \(nameCount) --steps \(steps) "
            + "--faults \(chosen.isEmpty ? "none" : chosen.joined(separator: ",")) --explain"
    }

    /// Locks of one client at most.
    var locksPerNode: Int { max(6, nameCount * 2 / nodeCount) }

    /// One disturbance of a small world in so many is let happen, so that a large one gets
    /// somewhere between two views.
    var calm: Int { min(40, max(1, nameCount * nodeCount / 64)) }
}

/// What a run contained: a test that met nothing proves nothing.
package struct WorldStatistics: Sendable {
    package var grants = 0
    package var valuesChecked = 0
    package var invalidValues = 0
    package var notices = 0
    package var views = 0
    package var overtakenViews = 0
    package var freshRequests = 0
    package var cancelled = 0
    package var refused = 0
    package var messages = 0
    package var deaths = 0
    package var joins = 0
    package var leaves = 0
    package var losses = 0
    package var deadlocks = 0
    package var rests = 0
    /// Masterships that arrived, and those that hung in a recovery.
    package var moves = 0
    /// Circles of owners that were broken; conversions refused because two wait for each other.
    package var circles = 0
    package var pairs = 0
    package var demotions = 0
    package var timeouts = 0
    package var parts = 0
    package var orphans = 0
    package var adoptions = 0
    package var synchronous = 0

    /// Nothing met yet.
    package init() {}

    /// Adds what another run met.
    package mutating func add(_ other: WorldStatistics) {
        moves += other.moves
        circles += other.circles
        pairs += other.pairs
        demotions += other.demotions
        timeouts += other.timeouts
        parts += other.parts
        orphans += other.orphans
        adoptions += other.adoptions
        synchronous += other.synchronous
    }

    /// One line.
    package var summary: String {
        "\(grants) grants, \(messages) messages, \(views) views (\(overtakenViews) overtook), "
            + "\(deaths) deaths, \(joins) joins, \(leaves) leaves, \(losses) losses, "
            + "\(notices) notices, \(valuesChecked) values, \(deadlocks) deadlocks, \(rests) rests, "
            + "\(moves) moves, \(circles) circles, \(pairs) pairs, \(demotions) demotions, "
            + "\(timeouts) timeouts, \(parts) parts, \(orphans) orphans, "
            + "\(adoptions) adoptions, \(synchronous) at once"
    }
}
