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
    /// Fresh names this node mastered at once, and claims the directory refused.
    package var claims: UInt64 = 0
    package var lostClaims: UInt64 = 0
    /// Messages that no correct peer sends; ignored.
    package var protocolErrors: UInt64 = 0

    package init() {}
}
