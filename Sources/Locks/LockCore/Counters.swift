// What a lockspace counts, for the administrator and for tests. Counts only grow.

/// Counts since the lockspace was made.
package struct LockCounters: Hashable, Sendable {
    /// New requests of this node's client.
    package var requests: UInt64 = 0
    /// Conversions of this node's client.
    package var conversions: UInt64 = 0
    /// Unlocks of this node's client.
    package var unlocks: UInt64 = 0
    /// Operations of the client that another node decided.
    package var remoteOperations: UInt64 = 0
    /// Operations of other nodes' clients that this node decided.
    package var servedOperations: UInt64 = 0
    /// Grants this node decided, own and others'.
    package var grants: UInt64 = 0
    /// Requests and conversions this node put in a queue.
    package var waits: UInt64 = 0
    /// Requests and conversions this node refused.
    package var refusals: UInt64 = 0
    /// Blocking notices this node sent to holders, itself included.
    package var blockingNotices: UInt64 = 0
    /// Messages to other nodes: directory, locking and recovery traffic.
    package var directoryMessages: UInt64 = 0
    package var lockMessages: UInt64 = 0
    package var recoveryMessages: UInt64 = 0
    /// Views this node was told.
    package var views: UInt64 = 0
    /// Recoveries that were finished.
    package var recoveries: UInt64 = 0
    /// Messages of an older view, dropped.
    package var staleMessages: UInt64 = 0
    /// Messages that came before their view or their recovery, held.
    package var heldMessages: UInt64 = 0
    /// "Not me" answers received.
    package var wrongMaster: UInt64 = 0
    /// Requests that went to a remembered master without asking the directory.
    package var cachedMasters: UInt64 = 0
    /// Fresh names this node mastered at once, and claims the directory refused.
    package var claims: UInt64 = 0
    package var lostClaims: UInt64 = 0
    /// Requests and conversions that ended because their patience did.
    package var timeouts: UInt64 = 0
    /// Conversions refused, or demoted, where they would have waited for ever.
    package var deadlocks: UInt64 = 0
    package var demotions: UInt64 = 0
    /// Searches this node began, and cycles it heard of as coordinator: found, no longer standing
    /// when verified, broken by refusing one wait.
    package var deadlockSearches: UInt64 = 0
    package var cyclesFound: UInt64 = 0
    package var cyclesVanished: UInt64 = 0
    package var cyclesBroken: UInt64 = 0
    /// Searches given up because they went too far.
    package var searchesTooDeep: UInt64 = 0
    /// Masterships of trees that moved away and came; moves not begun because of the tree's size,
    /// or because it had moved too often.
    package var movesOut: UInt64 = 0
    package var movesIn: UInt64 = 0
    package var movesTooLarge: UInt64 = 0
    package var movesThrashing: UInt64 = 0
    /// Locks that outlived their owner; of these taken over, and purged.
    package var orphans: UInt64 = 0
    package var adoptions: UInt64 = 0
    package var purgedOrphans: UInt64 = 0
    /// Messages to other nodes of deadlock searches and of moves.
    package var deadlockMessages: UInt64 = 0
    package var moveMessages: UInt64 = 0
    /// Messages that no correct peer sends; ignored.
    package var protocolErrors: UInt64 = 0

    package init() {}

    /// All of them with their names, in the order above. The one place that says so: a test holds it
    /// against the fields.
    package var members: [(name: String, count: UInt64)] {
        [
            ("requests", requests),
            ("conversions", conversions),
            ("unlocks", unlocks),
            ("remoteOperations", remoteOperations),
            ("servedOperations", servedOperations),
            ("grants", grants),
            ("waits", waits),
            ("refusals", refusals),
            ("blockingNotices", blockingNotices),
            ("directoryMessages", directoryMessages),
            ("lockMessages", lockMessages),
            ("recoveryMessages", recoveryMessages),
            ("views", views),
            ("recoveries", recoveries),
            ("staleMessages", staleMessages),
            ("heldMessages", heldMessages),
            ("wrongMaster", wrongMaster),
            ("cachedMasters", cachedMasters),
            ("claims", claims),
            ("lostClaims", lostClaims),
            ("timeouts", timeouts),
            ("deadlocks", deadlocks),
            ("demotions", demotions),
            ("deadlockSearches", deadlockSearches),
            ("cyclesFound", cyclesFound),
            ("cyclesVanished", cyclesVanished),
            ("cyclesBroken", cyclesBroken),
            ("searchesTooDeep", searchesTooDeep),
            ("movesOut", movesOut),
            ("movesIn", movesIn),
            ("movesTooLarge", movesTooLarge),
            ("movesThrashing", movesThrashing),
            ("orphans", orphans),
            ("adoptions", adoptions),
            ("purgedOrphans", purgedOrphans),
            ("deadlockMessages", deadlockMessages),
            ("moveMessages", moveMessages),
            ("protocolErrors", protocolErrors),
        ]
    }
}
