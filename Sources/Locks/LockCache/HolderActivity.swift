// What a node does with a lock that it holds for a cache: the answer to "why does it not give way?".

package import Vocabulary

/// A moment in the life of a glock, as an administrator may see it. Ages are milliseconds.
package struct HolderActivity: Hashable, Sendable {
    /// What the glock has under way with the lock manager; `GlockMachine.Phase` without its modes.
    package enum Phase: String, CaseIterable, Hashable, Sendable {
        case steady, requesting, demoting, lowering
    }

    /// How far a demotion has come (FileSystem/Demotion.swift).
    package enum Step: String, CaseIterable, Hashable, Sendable {
        /// The kernel drops what it has cached.
        case invalidating
        /// Operations that use it are waited for.
        case draining
        /// Dirty file data goes to the device.
        case writing
        /// The journal is committed, and metadata written home.
        case committing
    }

    /// Operations that are inside: several at a time (shared or concurrent), or alone.
    package var shared = 0
    package var exclusive = 0
    /// Operations of the node that wait in line for the glock.
    package var queued = 0
    package var phase = Phase.steady
    /// The mode that the phase leads to.
    package var target: LockMode?
    package var phaseAge: UInt64 = 0
    package var step: Step?
    /// Since a peer's want was heard that is not satisfied yet.
    package var toldAge: UInt64?
    /// The nodes whose answers about the file are waited for (NodeService/PeerQuestions.swift), and for how long already.
    package var asked: [NodeID] = []
    package var askedAge: UInt64 = 0
    /// Of the file, in memory only.
    package var dirtyBytes: UInt64 = 0
    /// Metadata was changed under the lock that is not home yet: giving it up takes a commit.
    package var hasUnsettledMetadata = false
    /// The node's journal commits at this moment.
    package var isCommitting = false

    package init() {}

    /// Whether some operation may be using what the lock protects.
    package var isInUse: Bool { shared > 0 || exclusive > 0 }
}
