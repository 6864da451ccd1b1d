// What is known of versions, and what a reader may therefore see.
//
// No two clocks are compared. Whatever has versions is written by this rule:
//
//   announce (every agent has heard it) -> write -> claim (told to all)        for objects whose reader
//                                                  cannot tell a version by its content
//   write -> claim                                                             for all others
//
// and read by this one:
//
//   note the floor -> read -> note the ceiling -> the version must be between them -> claim what was seen
//
// The floor is what had been claimed when the read began: whoever claimed it had completed a write, or a
// read, before; so this read, which began later, must not see anything older. The ceiling is what had been
// announced when the read had ended: a write is not begun before this agent has heard of it. Claims that
// come late make a check weaker, never wrong.
//
// A claim is *firm* or *soft*. A soft claim is the word of an agent about what it wrote itself and has not
// synced: if the agent's mount dies, it may be undone. A firm claim is about what was synced, or what another
// agent than its writer has read: a file system that lets somebody else read what a crash may undo is not
// coherent. When an agent loses its mount, its soft claims are void:
//
// I1  floor = the greatest of the firm claim and the soft claims of all agents.
// I2  Losing an agent lowers a floor to not less than the firm claim, and the ceiling not at all.
// I3  A soft claim of an earlier life (epoch) of an agent's mount than the last known is void when it comes.
// I4  Who sees less than the floor but not less than the firm claim must ask those whose soft claims stand
//     in between whether they have lost their mounts meanwhile: only that excuses it.

/// What agents have said of one object.
package struct StressClaim: Hashable, Sendable {
    /// The greatest version that no crash may undo.
    package var firm: UInt64 = 0
    /// The greatest version that each agent has written and may lose with its mount.
    package var soft: [UInt64]
    /// The greatest version that may have been begun.
    package var ceiling: UInt64 = 0
}

/// What a read that begins now must not be older than.
package struct StressFloor: Hashable, Sendable {
    package var firm: UInt64
    package var soft: [UInt64]
    /// The life of each agent's mount, as known when the floor was noted.
    package var epochs: [UInt64]

    /// The version that must be seen, or a later one.
    package var value: UInt64 { max(firm, soft.max() ?? 0) }

    /// What to think of a state that is older than the floor, or of no version that is not, when one from the
    /// firm claim on is possible.
    package var verdictOnOlder: StressVerdict { firm >= value ? .stale : judge(firm) }

    /// Judges a version that was seen.
    package func judge(_ version: UInt64) -> StressVerdict {
        if version >= value { return .sound }
        if version < firm { return .stale }
        let agents = soft.indices.filter { soft[$0] > version }
        return .staleUnless(lost: agents)
    }
}

/// What to think of something that was read.
package enum StressVerdict: Hashable, Sendable {
    case sound
    /// Older than it may be, whatever happened.
    case stale
    /// Older than it may be, unless every one of these agents has lost its mount since.
    case staleUnless(lost: [Int])
}

/// What an agent knows of all objects.
package struct StressClaims: Sendable {
    private var claims: [StressKey: StressClaim] = [:]
    /// How often each agent has lost its mount.
    package private(set) var epochs: [UInt64]

    package init(agents: Int) {
        precondition(agents > 0, "a run has agents")
        epochs = [UInt64](repeating: 0, count: agents)
    }

    private func claim(_ key: StressKey) -> StressClaim {
        claims[key] ?? StressClaim(soft: [UInt64](repeating: 0, count: epochs.count))
    }

    /// Notes what an agent has claimed. Returns whether it was news.
    ///
    /// - Parameter epoch: the life of the claiming agent's mount in which it was true (I3).
    @discardableResult
    package mutating func note(
        _ key: StressKey,
        _ version: UInt64,
        by agent: Int,
        isFirm: Bool,
        epoch: UInt64
    ) -> Bool {
        guard epochs.indices.contains(agent) else { return false }
        var claim = claim(key)
        claim.ceiling = max(claim.ceiling, version)
        if isFirm {
            guard version > claim.firm else { return false }
            claim.firm = version
        } else {
            guard epoch == epochs[agent], version > claim.soft[agent] else { return false }
            claim.soft[agent] = version
        }
        claims[key] = claim
        return true
    }

    /// Notes that a version may be begun from now on.
    package mutating func announce(_ key: StressKey, _ version: UInt64) {
        var claim = claim(key)
        claim.ceiling = max(claim.ceiling, version)
        claims[key] = claim
    }

    /// An agent has lost its mount, and what it has not synced with it (I2).
    package mutating func lose(_ agent: Int, epoch: UInt64) {
        guard epochs.indices.contains(agent), epoch > epochs[agent] else { return }
        epochs[agent] = epoch
        claims = claims.mapValues { claim in
            var claim = claim
            claim.soft[agent] = 0
            return claim
        }
    }

    /// What a read that begins now must not be older than (I1).
    package func floor(_ key: StressKey) -> StressFloor {
        let claim = claim(key)
        return StressFloor(firm: claim.firm, soft: claim.soft, epochs: epochs)
    }

    /// What a read that has ended must not be newer than. Only of objects whose versions are announced.
    package func ceiling(_ key: StressKey) -> UInt64 { claim(key).ceiling }

    /// The greatest version that another agent than the writer has seen, or that was synced.
    package func firm(_ key: StressKey) -> UInt64 { claim(key).firm }
}

extension StressFloor {
    /// Judges whether something whose versions take turns in existing (odd) and not existing (even) was
    /// rightly seen so.
    ///
    /// - Returns: the verdict, and the least version it may have been.
    package func judge(
        exists: Bool,
        ceiling: UInt64
    ) -> (verdict: StressVerdict, version: UInt64) {
        let least = Self.first(exists, from: value)
        if least <= ceiling { return (.sound, least) }
        let excused = Self.first(exists, from: firm)
        guard excused <= ceiling else { return (.stale, excused) }
        return (judge(excused), excused)
    }

    private static func first(_ exists: Bool, from version: UInt64) -> UInt64 {
        version % 2 == (exists ? 1 : 0) ? version : version + 1
    }
}
