// The lock manager of one file system on one node: a deterministic state machine in the tradition
// of the VMS distributed lock manager. Calls of the client, messages of peers and views of the
// cluster go in; effects come out, in order, appended to the caller's array. No I/O, no clock, no
// chance.
//
// ## Roles
//
// A *resource* is a name. For each resource that is locked anywhere there is
//   the master      which decides; it keeps every lock on the resource in three queues;
//   the holders     nodes whose clients have locks on it; each keeps a record of its own locks;
//   the directory   node, given by a hash of the name over the members, which knows the master.
// One node can be all three, and is when it works alone: then no message is ever sent. The first
// user of a resource becomes its master. The *holder's record is the truth*: what the master and
// the directory know can be rebuilt from the holders; a change of view rebuilds what it may have lost.
//
// ## An operation
//
//   request   Requests.swift     record found or made; master known? if not, Directory.swift asks
//   decide    Granting.swift     on the master: grant, queue or refuse; blocking notices
//   serve     Serving.swift      the same for a peer's message
//   ranges    ByteRanges.swift   locks of bytes of a resource: who conflicts with whom
//   answer    Answers.swift      what the holder does with the master's reply
//
// ## States of a lock on its holder
//
//   waiting     asked for, not granted. The master may not know it yet (`sent`).
//   granted     nothing asked.
//   converting  granted in one mode, asks for another. Towards less (the old mode covers the new
//               one) the holder has given the old mode up from the moment it asked. Sideways (PR to
//               CW or back) it has kept what both modes have in common: CR.
//   unlocking   given up; waits for the master's word. Only with a remote master.
//
// ## Invariants
//
// I1.  A record exists while it has locks, is mastered here, is looked up, or has a directory entry.
// I2.  On the master each lock is in the queue of its state; elsewhere all are in the `granted` list.
// I3.  On the master the granted modes (of granted and converting locks) are compatible pairwise.
//      What a holder believes is never more than what the master believes of it.
// I4.  While the lockspace runs nothing waits that could be granted: the head of the conversion
//      queue conflicts, or there is none and the head of the wait queue conflicts. (While journals
//      are to be replayed: among the requests of recovery.)
// I5.  While the lockspace runs, for every waiter each granted lock in its way has been told of a
//      want that covers the waiter's, in its present mode. No notice is lost; none is said twice.
// I6.  While the lockspace runs, a record with locks knows its master or has asked (`lookingUp`).
// I7.  A demotion (unlock, conversion to a mode that the old one covers) is executed only when every
//      claim of a fresh name made before it has been acknowledged by the directory, and not during
//      a recovery: nobody can learn a fresh name from what the demotion uncovers before the
//      directory can tell him its master.
// I8.  Messages of an older epoch change nothing (some are a reason to ask: Doubts.swift); of a newer
//      epoch they wait for the view.
// I9.  Nothing is granted between a view and the end of its recovery. A recovery that is overtaken
//      by a newer view enables nothing.
// I10. A value block is valid only if it is what the last writer wrote: if the writer died in PW or
//      EX, or nobody is left who would know, it is invalid until somebody writes.
// I11. Nothing iterates over a hash order: same events, same effects.
// I12. A part of a tree has the mastery of its root (Trees.swift).
// I13. While a lock on a part exists, so does, granted, the lock above it on the same node.
//
// ## Directory races
//
// Only the master's own lookup, claim or removal changes the entry that names it, and messages
// between two nodes keep their order. So an entry can be stale in one way only: the master has
// forgotten the resource (or handed it on) and its word is on the way, or a view has lost it
// (Doubts.swift). Who was sent there hears "not me" and asks again, saying whom it heard that from:
// the directory node asks that node, whose answer comes behind its word, and answers then. A claim
// that meets a stale entry is parked until the old master has said whether it still is the master.
//
// ## Change of view (Recovery.swift has the steps)
//
// Every view, whether somebody joined, left or died, is handled alike: stop; forget the departed;
// tell the directory what it may not know; find masters for what has none; holders report what is
// in doubt, and all on trees with a new master; value blocks; grants; go on.
//
// Sources: Roy Davis, VAXcluster Principles; OpenVMS System Services ($ENQ, $DEQ); Linux fs/dlm for
// the tables and the order of recovery; "Lockify", FAST 2026, for fresh names.

package import Vocabulary

/// What a lockspace may do at present.
enum LockspaceStatus: UInt8, Sendable {
    /// No view yet: everything waits.
    case waitingForView
    /// Between a view and the end of its recovery.
    case recovering
    case running
    /// Left, or put out by a view without this node: every call is answered `shutDown`.
    case left
}

/// A message that came too early.
struct HeldMessage: Sendable {
    var message: LockMessage
    var sender: NodeID
    var epoch: Epoch
}

/// The state machine of one node. Not a value to copy: it owns its slabs.
package struct Lockspace: ~Copyable, Sendable {
    /// This node.
    package let node: NodeID
    /// This life of it.
    package let incarnation: UInt64

    /// The epoch of the present view; 0 before the first.
    package internal(set) var epoch = Epoch(0)

    /// Counts of what was done.
    package internal(set) var counters = LockCounters()

    var status = LockspaceStatus.waitingForView
    var members: [Member] = []
    var directory = DirectoryMap()
    /// Journals of the present view are not replayed yet: ordinary requests are not granted.
    var isReplayPending = false
    /// The newest epoch whose journals are known to be replayed.
    var replayedEpoch = Epoch(0)

    /// How time is used. May be changed at any time.
    package var settings = LockSettings()

    /// Milliseconds from any origin, as last told.
    var now: UInt64 = 0

    var resources = Slab<ResourceRecord>()
    var locks = Slab<LockRecord>()
    var values = Slab<ValueRecord>()
    var trees = Slab<TreeRecord>()
    var waits = Slab<WaitRecord>()
    var activities = Slab<ActivityRecord>()
    var ranges = Slab<BytesRecord>()
    var buckets = ContiguousArray<UInt32>(repeating: 0, count: 64)

    var recovery = RecoveryProgress()
    var held: [HeldMessage] = []
    var claims = ClaimLedger()
    var parkedClaims: [ParkedClaim] = []
    var parkedLookups: [ParkedLookup] = []

    /// Doomed locks that may be ready to go.
    var ripe: [LockID] = []
    /// The lock whose grant the running call wants to say itself, and that grant.
    var synchronousLock = LockID.none
    var synchronousCompletion: LockCompletion?

    /// Steps of deadlock searches that this node owes itself.
    var mail: [LockMessage] = []
    /// On the coordinator: cycles that were found; the first is being verified.
    var cases: [DeadlockCase] = []
    var nextCase: UInt32 = 1
    var nextSearch: UInt32 = 1

    /// Moves of masterships that this node has a part in, and how many roots are marked `moving`.
    var moves: [Move] = []
    var movingTrees = 0
    /// Trees that this node may be the master of if nobody else is: see Moving.swift, M6.
    var stagedEntries: [(name: ResourceName, node: NodeID)] = []
    /// In a recovery, on the directory node: what came of `claimedMasters`.
    var claimedEntries: [(name: ResourceName, node: NodeID)] = []
    /// Entries of this directory node that may be stale, and entries elsewhere that may name this
    /// node without reason: asked about, and disclaimed, when the recovery is over (Doubts.swift).
    var doubtedEntries: [ResourceName] = []
    var unwantedEntries: [ResourceName] = []
    var openConfirms: [OpenConfirm] = []
    /// Empty until something is remembered (MasterCache.swift).
    var masterCache: ContiguousArray<CachedMaster> = []
    /// What others said about names that this node has claimed, until it hears whether it may have
    /// them (Claims.swift).
    var earlyMessages: [HeldMessage] = []
    /// When the use of trees is looked at next.
    var reviewAt: UInt64 = 0

    /// Nothing: a field of unknown size keeps the compiler (Swift 6.3) from passing the whole state by
    /// value. Without it every call of a method that only reads copies all of it to the stack first.
    private let anchor: any Sendable = ()

    /// A lockspace that waits for its first view. `node` is not `none`; `incarnation` is the one
    /// that views name this node with.
    package init(node: NodeID, incarnation: UInt64) {
        precondition(node != .none, "LockCore: the null node has no lockspace")
        self.node = node
        self.incarnation = incarnation
    }

    /// Whether locks are granted: a view is there and its recovery is finished.
    package var isRunning: Bool { status == .running }

    /// Whether this node left or was put out.
    package var hasLeft: Bool { status == .left }

    /// Whether ordinary requests wait for the replay of journals.
    package var waitsForReplay: Bool { isReplayPending }

    /// Bytes of the slabs and the hash table.
    package var byteCount: Int {
        resources.byteCount + locks.byteCount + values.byteCount + trees.byteCount
            + waits.byteCount + activities.byteCount + ranges.byteCount
            + buckets.capacity * MemoryLayout<UInt32>.stride
    }

    /// Sends, and counts by kind.
    mutating func send(_ message: LockMessage, to peer: NodeID, _ effects: inout [LockEffect]) {
        assert(peer != node, "LockCore: a message to oneself")
        switch message {
        case .lookup, .lookupReply, .claim, .claimReply, .confirm, .confirmReply, .remove,
            .disclaim, .entry, .entryIs:
            counters.directoryMessages += 1
        case .masters, .stagedMasters, .claimedMasters, .rebuild, .sent, .expect, .reached,
            .proceed, .handover:
            counters.recoveryMessages += 1
        case .seek, .chase, .cycle, .verify, .verified, .condemn, .condemned, .deadlocked:
            counters.deadlockMessages += 1
        case .moving, .movingSeen, .transfer, .taken, .moved: counters.moveMessages += 1
        default: counters.lockMessages += 1
        }
        if status == .recovering, let phase = message.countedPhase {
            recovery.counts[Int(phase.rawValue)].sent[place(of: peer)] += 1
        }
        effects.append(.send(message, to: peer))
    }
}
