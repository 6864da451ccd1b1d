// Marks on branches that are rarely taken. A batch of simulated runs tells which of them no run has
// reached: what is never reached is not tested, however many seeds pass.
//
// A probe stands where the rare thing is known to happen, not where it is tried. It costs a load and a
// store in memory of the thread. Source of the idea: the CODE_PROBE of FoundationDB.

import CProbes

/// A branch that is rarely taken.
package enum Probe: Int, CaseIterable, Sendable {
    // Journal
    /// A transaction stands at the end of the ring and at its beginning.
    case logWraps
    /// An operation waits for room in the log.
    case waitForLogRoom
    /// An operation waits while a transaction closes.
    case waitForClosing
    /// A block is freed, or changes its lock, while its image is being written in place.
    case lateWrite
    /// A lock that is given up waits for such a write.
    case settleWaitsForLateWrite
    /// A newer image becomes durable while an older one is being written in place.
    case newerWhileWriting
    /// An image is given up between its choice and its write.
    case imageGivenUp

    // Replay and recovery
    /// A place is newer than the image in a dead log.
    case placeIsNewer
    /// A place is torn, and the image in the log replaces it.
    case tornPlace
    /// Whether a place is torn cannot be told yet.
    case doubtfulPlace
    /// A dead log has several images of one block.
    case severalImages
    /// A survivor holds what a dead log covers.
    case survivorHolds
    /// A newer view comes during a recovery.
    case recoveryOvertaken
    /// A recovery takes the log barrier in EX.
    case recoveryQuietens
    /// The orphans of a slot that nobody is in are freed by another node.
    case orphanOfTheAbsent

    // Quotas
    /// An operation cannot be charged without the table.
    case quotaAsked
    /// A node gives its share up.
    case quotaShareGiven
    /// A share is full, and settled.
    case quotaSettled
    /// The shares of all other slots are settled.
    case quotaCollected
    /// An operation is refused because its owners may not use more.
    case quotaRefused

    // Locks
    /// A conversion from PR to EX is refused, and the cache emptied first.
    case upgradeRefused
    /// A peer's want waits because this node is at work with a lock that is costly to hand over.
    case wantDelayed
    /// An operation enters during an invalidation, because it holds a page that this waits for.
    case urgentHolder
    /// A request without queueing is refused.
    case probeRefused
    /// A request over several regions cannot have them together.
    case regionsGivenUp
    /// A region is written while other nodes may write others.
    case regionWritten
    /// The times of a file that several nodes have written are asked for.
    case timesCollected
    case glimpsed
    case readerAwaited
    /// Somebody reads what other nodes may be reading: the time is kept for later.
    case accessPending
    /// A node is told such a time of a file that it has in memory.
    case accessHeard
    /// A node that may change the inode stores such a time.
    case accessMerged
    /// Times that stayed in memory are logged by themselves.
    case timesStoredLate
    /// A file that only one node uses is locked as a whole again.
    case regionsLeft
    /// A node gets the mastership of a resource from another one.
    case masterMoved
    /// A view comes while the lock tables of an older one are being rebuilt.
    case lockRecoveryOvertaken
    /// A message of an older view is dropped.
    case staleMessage
    /// Bytes that a program unlocks, or locks in another mode, lie within what it has locked.
    case rangeIsSplit

    // The kernel's caches
    /// All names of a directory are dropped, as too many were told.
    case namesOverflowed
    /// An invalidation leaves out the pages of waiting requests (D2).
    case pagesLeftOut
    /// An invalidation is begun again, because a request parked meanwhile.
    case passRestarted
    /// A page that may be up to date is dropped by a call of its own (D3).
    case doubtfulPage
    /// An invalidation is repeated for what was filled meanwhile (D4).
    case passRepeated
    /// A waiting write drops its whole pages (D5).
    case unwrittenDropped
    /// A write-back leaves out what was written past the page cache (M4).
    case writeBackOvertaken
    /// A cached write meets pages of which a write-back was carried out (M6).
    case pagesDisagree
    /// A write-back of a mapping fails (M7).
    case storeLost
    /// Times have changed since the kernel was told.
    case timesTakenBack
    /// A write-back brings bytes from behind the end of the file (F8).
    case storeBehindEnd

    // Space
    /// Room is looked for by bringing home what was freed.
    case roomBySettling
    /// Room is looked for by emptying all logs.
    case roomByBarrier
    /// An operation without room waits for what is being freed.
    case roomByReaping
    /// A freed inode's block waits until its tombstone is home.
    case tombstoneWaits
    /// A writer waits because too much data is dirty.
    case waitForDirtyRoom

    // Names and trees
    /// Two names of a directory have the same hash.
    case hashCollision
    /// A tree becomes higher.
    case treeGrows
    /// A tree becomes lower.
    case treeShrinks
    /// A node of a tree is split.
    case nodeSplit
    /// An inode becomes an orphan.
    case orphanMade
    /// An inode is opened that has just lost its last name to a rename.
    case replacedOpened
    /// A file that another node has open loses its last name.
    case lastNameWhileOpenElsewhere
    /// A lock that nobody uses is given back for its age, for the number of locks, or for lack of memory.
    case lockGivenBack
    /// Memory is said to be short.
    case pressureRelieved
    /// The node withdraws.
    case withdrawal
}

/// A set of probes.
package struct ProbeSet: Hashable, Sendable {
    /// A bit for each, in the order of their declaration: for another process of the same build.
    package private(set) var bits: UInt64

    package init(bits: UInt64 = 0) { self.bits = bits }

    /// Whether a probe is in it.
    package func contains(_ probe: Probe) -> Bool { bits >> UInt64(probe.rawValue) & 1 != 0 }

    /// Puts a probe in.
    package mutating func insert(_ probe: Probe) { bits |= 1 << UInt64(probe.rawValue) }

    /// Puts all of another set in.
    package mutating func formUnion(_ other: ProbeSet) { bits |= other.bits }

    /// Those in it, or not in it, in the order of their declaration.
    package func probes(contained: Bool) -> [Probe] {
        Probe.allCases.filter { contains($0) == contained }
    }
}

/// What this thread has reached. A simulated cluster runs in one thread, and several may run in one
/// process: what one has reached is not taken by another.
package enum Probes {
    /// What the calling thread has reached since its last call.
    package static func take() -> ProbeSet { ProbeSet(bits: lockstep_take_probes()) }
}

/// A rare branch is taken.
package func reached(_ probe: Probe) { lockstep_reach_probes(1 << UInt64(probe.rawValue)) }
