// What an exhaustive search is about: how many nodes, what their clients may ask for, how often
// something bad may happen. Everything that is not bounded here is not bounded: clients ask again
// and again for ever, messages take as long as they like.

package import Vocabulary

/// A small cluster to search through.
package struct SearchPlan: Sendable {
    /// One thing a client may ask for.
    package struct Ask: Hashable, Sendable {
        package var mode: LockMode
        package var flags: LockFlags

        package init(_ mode: LockMode, _ flags: LockFlags = []) {
            self.mode = mode
            self.flags = flags
        }
    }

    package var name: String
    package var summary: String
    /// At the beginning: nodes 1 to this.
    package var nodeCount: Int
    package var resourceCount = 1
    /// Locks of one client at a time.
    package var locksPerNode = 1
    package var requests: [Ask]
    package var conversions: [Ask]
    package var unlocks: [LockFlags] = [[]]
    package var cancels = true
    /// Requests, conversions, unlocks and cancels of one client in its life; nil: any number.
    package var operationsPerNode: Int?
    /// How often a value block may be written, in all.
    package var writes = 0
    package var deaths = 0
    package var joins = 0
    package var leaves = 0
    package var losses = 0
    /// How often a mastership may begin to move.
    package var moves = 0
    /// Whether a death leaves a journal to replay.
    package var replays = false
    /// Whether the first recovery is part of the search; otherwise it begins when all run.
    package var beginsAtOnce = false
    /// Which names: moves their directory nodes.
    package var firstName: UInt64 = 1
    /// The second resource is a fresh name, created under EX on the first, once.
    package var createsSecond = false
    /// How many masters each node remembers.
    package var cachedMasters = 0

    /// The names of the resources.
    var names: [ResourceName] {
        (0..<resourceCount).map {
            ResourceName(kind: .inode, number: firstName + UInt64($0), generation: 1)
        }
    }

    /// The highest node number there can be.
    var highestNode: Int { nodeCount + joins }

    /// What is bounded, in words.
    package var bounds: String {
        let modes = { (asks: [Ask]) in
            asks.map { "\($0.mode)\($0.flags.isEmpty ? "" : "/\($0.flags.rawValue)")" }
                .joined(separator: " ")
        }
        let operations = operationsPerNode.map { "\($0) operations per client" }
        return "\(nodeCount) nodes, \(resourceCount) resources, \(locksPerNode) locks per client; "
            + "requests \(modes(requests)); conversions \(modes(conversions)); "
            + "\(cancels ? "cancels; " : "")\(operations ?? "any number of operations"); "
            + "at most \(deaths) deaths, \(joins) joins, \(leaves) leaves, \(losses) losses, "
            + "\(moves == 0 ? "" : "\(moves) moves, ")"
            + "\(writes) writes\(replays ? "; journals to replay" : "")"
            + (createsSecond ? "; the second is a fresh name, created under EX on the first" : "")
            + (cachedMasters == 0 ? "" : "; \(cachedMasters) remembered masters")
            + (beginsAtOnce ? "" : "; from the end of the first recovery on")
    }
}

extension SearchPlan {
    private static func asks(_ modes: LockMode..., flags: LockFlags = []) -> [Ask] {
        modes.map { Ask($0, flags) }
    }

    /// The configurations by name.
    package static let all: [SearchPlan] = clients + moving

    /// Masterships that move.
    private static let moving: [SearchPlan] = [
        SearchPlan(
            name: "move",
            summary: "2 nodes, 1 resource, PR and EX, its mastership moves twice",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.protectedRead, .exclusive),
            moves: 2
        ),
        SearchPlan(
            name: "move-two",
            summary: "2 nodes, 1 resource, two locks each, PR and EX, its mastership moves once",
            nodeCount: 2,
            locksPerNode: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.exclusive),
            operationsPerNode: 4,
            moves: 1
        ),
        SearchPlan(
            name: "move-values",
            summary: "2 nodes, 1 resource, value blocks, its mastership moves twice",
            nodeCount: 2,
            requests: asks(.null, .exclusive, flags: .valueBlock),
            conversions: asks(.null, .exclusive, flags: .valueBlock),
            unlocks: [[], .valueBlock],
            writes: 2,
            moves: 2
        ),
        SearchPlan(
            name: "move-three",
            summary: "3 nodes, 1 resource, PR and EX, its mastership moves",
            nodeCount: 3,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.exclusive),
            operationsPerNode: 2,
            moves: 1
        ),
        SearchPlan(
            name: "move-death",
            summary: "3 nodes, 1 resource, value blocks, its mastership moves, one death",
            nodeCount: 3,
            requests: asks(.null, .exclusive, flags: .valueBlock),
            conversions: asks(.null, .exclusive, flags: .valueBlock),
            cancels: false,
            operationsPerNode: 2,
            writes: 1,
            deaths: 1,
            moves: 1
        ),
        SearchPlan(
            name: "move-join",
            summary: "2 nodes and a third that joins, a mastership moves",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.protectedRead, .exclusive),
            operationsPerNode: 3,
            joins: 1,
            moves: 1
        ),
        SearchPlan(
            name: "move-loss",
            summary: "2 nodes, a mastership moves twice, a connection is lost",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive, flags: .valueBlock),
            conversions: asks(.null, .exclusive, flags: .valueBlock),
            unlocks: [.valueBlock],
            writes: 2,
            losses: 1,
            moves: 2
        ),
        SearchPlan(
            name: "move-small",
            summary: "2 nodes, 1 resource, EX, a move and a death: for every test run",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.null),
            deaths: 1,
            moves: 1
        ),
    ]

    private static let clients: [SearchPlan] = [
        SearchPlan(
            name: "quick",
            summary: "2 nodes, 1 resource, PR and EX, one death: for every test run",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.protectedRead, .exclusive),
            deaths: 1,
            beginsAtOnce: true
        ),
        SearchPlan(
            name: "pair",
            summary: "2 nodes, 2 resources, two locks each, PR and EX, one death",
            nodeCount: 2,
            resourceCount: 2,
            locksPerNode: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.protectedRead, .exclusive),
            operationsPerNode: 4,
            deaths: 1
        ),
        SearchPlan(
            name: "pair-deep",
            summary: "2 nodes, 1 resource, two locks each, NL, PR and EX, any number of operations",
            nodeCount: 2,
            locksPerNode: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.null, .protectedRead, .exclusive),
            deaths: 1
        ),
        SearchPlan(
            name: "three",
            summary: "3 nodes, 1 resource, PR and EX, one death",
            nodeCount: 3,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.protectedRead, .exclusive),
            operationsPerNode: 3,
            deaths: 1
        ),
        SearchPlan(
            name: "three-calm",
            summary: "3 nodes, 1 resource, NL, PR and EX, any number of operations, nobody dies",
            nodeCount: 3,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.null, .protectedRead, .exclusive)
        ),
        SearchPlan(
            name: "sideways",
            summary: "2 nodes, 1 resource, two locks each, CR, CW and PR: sideways conversions",
            nodeCount: 2,
            locksPerNode: 2,
            requests: asks(.concurrentWrite, .protectedRead),
            conversions: asks(.concurrentRead, .concurrentWrite, .protectedRead),
            operationsPerNode: 5,
            deaths: 1
        ),
        SearchPlan(
            name: "values",
            summary: "2 nodes, 1 resource, value blocks written and lost with a death",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive, flags: .valueBlock),
            conversions: asks(.null, .protectedRead, .exclusive, flags: .valueBlock),
            unlocks: [[], .valueBlock],
            writes: 2,
            deaths: 1
        ),
        SearchPlan(
            name: "values-three",
            summary: "3 nodes, 1 resource, value blocks, one death",
            nodeCount: 3,
            requests: asks(.protectedRead, .exclusive, flags: .valueBlock),
            conversions: asks(.null, .exclusive, flags: .valueBlock),
            cancels: false,
            operationsPerNode: 3,
            writes: 1,
            deaths: 1
        ),
        SearchPlan(
            name: "join",
            summary: "2 nodes and a third that joins, PR and EX",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.protectedRead, .exclusive),
            operationsPerNode: 3,
            joins: 1
        ),
        SearchPlan(
            name: "leave",
            summary: "2 nodes, value blocks, one leaves in order",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive, flags: .valueBlock),
            conversions: asks(.null, .exclusive, flags: .valueBlock),
            unlocks: [[], .valueBlock],
            writes: 2,
            leaves: 1
        ),
        SearchPlan(
            name: "leave-small",
            summary: "2 nodes, 1 resource, PR and EX, one leaves in order: for every test run",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.null, .exclusive),
            leaves: 1
        ),
        SearchPlan(
            name: "fresh",
            summary: "2 nodes, a name is created and found, one node dies",
            nodeCount: 2,
            resourceCount: 2,
            locksPerNode: 2,
            requests: asks(.exclusive),
            conversions: asks(.null, .exclusive),
            cancels: false,
            operationsPerNode: 5,
            deaths: 1,
            createsSecond: true
        ),
        SearchPlan(
            name: "fresh-loss",
            summary: "2 nodes, a name is created and found, a connection is lost",
            nodeCount: 2,
            resourceCount: 2,
            locksPerNode: 2,
            requests: asks(.exclusive),
            conversions: [],
            cancels: false,
            operationsPerNode: 5,
            losses: 1,
            createsSecond: true
        ),
        SearchPlan(
            name: "fresh-three",
            summary: "3 nodes, a name is created and found, one node dies",
            nodeCount: 3,
            resourceCount: 2,
            locksPerNode: 2,
            requests: asks(.exclusive),
            conversions: [],
            cancels: false,
            operationsPerNode: 3,
            deaths: 1,
            createsSecond: true
        ),
        SearchPlan(
            name: "cached",
            summary: "2 nodes that remember masters, one dies",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.exclusive),
            deaths: 1,
            cachedMasters: 1
        ),
        SearchPlan(
            name: "cached-three",
            summary: "3 nodes that remember masters",
            nodeCount: 3,
            requests: asks(.protectedRead, .exclusive),
            conversions: [],
            cancels: false,
            operationsPerNode: 4,
            cachedMasters: 1
        ),
        SearchPlan(
            name: "cached-move",
            summary: "3 nodes that remember masters, a mastership moves",
            nodeCount: 3,
            requests: asks(.exclusive),
            conversions: [],
            cancels: false,
            operationsPerNode: 4,
            moves: 1,
            cachedMasters: 1
        ),
        SearchPlan(
            name: "loss",
            summary: "2 nodes, a connection is lost twice: views of the same members",
            nodeCount: 2,
            requests: asks(.protectedRead, .exclusive),
            conversions: asks(.protectedRead, .exclusive),
            losses: 2
        ),
        SearchPlan(
            name: "flags",
            summary:
                "2 nodes, 1 resource, two locks each: noqueue, alternates, ordered conversions",
            nodeCount: 2,
            locksPerNode: 2,
            requests: [
                Ask(.protectedRead), Ask(.exclusive, [.noQueue, .noQueueButNotify]),
                Ask(.exclusive, .alternatePR),
            ],
            conversions: [Ask(.exclusive, .queueConversion), Ask(.null)],
            operationsPerNode: 4,
            deaths: 1
        ),
        SearchPlan(
            name: "replay",
            summary: "3 nodes, 1 resource, a death leaves a journal to replay",
            nodeCount: 3,
            requests: asks(.protectedRead, .exclusive) + asks(.exclusive, flags: .recovery),
            conversions: asks(.null),
            cancels: false,
            operationsPerNode: 2,
            deaths: 1,
            replays: true
        ),
    ]
}
