// What a lockspace is, written down so that equal means "behaves alike". For the search over all
// states of a small cluster (LockWorld), which has to notice that it was somewhere before.
//
// Written down is every field that can change what the lockspace does, except as follows.
//
// F1. Counters. Nothing reads them but `recoveries == 0` (a node that has just come).
// F2. Places in slabs, their free lists and generations, chains of the hash table. Places are only
//     compared for equality and walked in ascending order. The order of a walk decides nothing but
//     the order of effects about *different* locks and resources within one call: of completions
//     the client sees all before it acts, and messages about different resources commute at their
//     receiver. A chain is only searched.
// F3. Names of locks (`LockID`). They are only compared for equality, and a name that went stale
//     never comes back (a place's generation grows). They are written as references, which whoever
//     compares whole states replaces: the cookie for a lock that exists, a number by order of
//     appearance for a stale one.
// F4. Flags and progress that the next operation overwrites unread: flags of a lock of which
//     nothing is asked, `recovery` outside a recovery, an epoch replayed that is not newer than
//     the view, the name of the open batch of claims (only compared).
// F5. Time, and what only time moves: `now`, ages (`since`), timers of waits, rates of use, the next
//     review. Who searches states tells no time, so that nothing of it ever happens. For the same
//     reason `changes` of a lock and the searches for deadlocks, which begin with a tick.
// F6. After the end (`left`) everything: every call is answered alike.
//
// Whoever adds a field to a record adds it to the function of that record here, or to the list
// above with the reason. FingerprintTests knows the fields that were looked at and fails for others.

package import Vocabulary

/// A hash of a state, wide enough that two different states of one search never meet: with 10⁹
/// states the chance is below 10⁻²⁰.
package struct StateDigest: Hashable, Sendable {
    package var high: UInt64
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}

/// Takes a state word by word.
package struct StateEncoder: Sendable {
    private var first: UInt64 = 0x243F_6A88_85A3_08D3
    private var second: UInt64 = 0x1319_8A2E_0370_7344
    /// The locks that were mentioned, in order; their names are not in the digest.
    package private(set) var references: [LockReference] = []

    package init() {}

    /// Two chains of multiply and fold (wyhash), each with its own constants.
    package mutating func add(_ word: UInt64) {
        let one = (first ^ word).multipliedFullWidth(by: 0xA076_1D64_78BD_642F)
        let two = (second &+ word).multipliedFullWidth(by: 0xE703_7ED1_A0B4_28DB)
        first = (one.high ^ one.low) &+ (second << 23 | second >> 41)
        second = (two.high &+ two.low) ^ (first << 37 | first >> 27)
    }

    /// A small number.
    package mutating func add(_ number: Int) { add(UInt64(bitPattern: Int64(number))) }

    /// A truth value.
    package mutating func add(_ truth: Bool) { add(truth ? 1 : 0) }

    /// A resource by its name.
    package mutating func add(_ name: ResourceName) {
        add(UInt64(name.kind.rawValue) | UInt64(name.depth) << 8)
        add(name.number)
        add(name.generation)
        if name.depth > 0 { add(name.part) }
        if name.depth > 1 { add(name.subpart) }
    }

    /// A value block.
    package mutating func add(_ value: ValueBlock?) {
        add(value != nil)
        guard let value else { return }
        add(value.word0)
        add(value.word1)
        add(value.word2)
        add(value.word3)
    }

    /// A value block with its number.
    package mutating func add(_ value: SequencedValue?) {
        add(value?.value)
        add(value?.sequence ?? 0)
        add(value?.isValid ?? true)
    }

    /// The digest of a part, as one of the words of the whole.
    package mutating func add(_ digest: StateDigest) {
        add(digest.high)
        add(digest.low)
    }

    /// Mentions a lock.
    package mutating func refer(to lock: LockID, of holder: NodeID) {
        add(UInt64(holder.rawValue))
        references.append(LockReference(node: holder, lock: lock))
    }

    /// The digest of what was added.
    package var digest: StateDigest {
        var copy = self
        copy.add(0x5851_F42D_4C95_7F2D)
        copy.add(0x1405_7B7E_F767_814F)
        return StateDigest(high: copy.first, low: copy.second)
    }
}

extension Lockspace {
    /// Another lockspace in the same state, to try things on.
    package func clone() -> Lockspace {
        var copy = Lockspace(node: node, incarnation: incarnation)
        copy.epoch = epoch
        copy.counters = counters
        copy.status = status
        copy.members = members
        copy.directory = directory
        copy.isReplayPending = isReplayPending
        copy.replayedEpoch = replayedEpoch
        copy.resources = resources
        copy.locks = locks
        copy.values = values
        copy.buckets = buckets
        copy.recovery = recovery
        copy.held = held
        copy.claims = claims
        copy.parkedClaims = parkedClaims
        copy.parkedLookups = parkedLookups
        copy.settings = settings
        copy.now = now
        copy.trees = trees
        copy.waits = waits
        copy.activities = activities
        copy.ranges = ranges
        copy.ripe = ripe
        copy.synchronousLock = synchronousLock
        copy.synchronousCompletion = synchronousCompletion
        copy.mail = mail
        copy.cases = cases
        copy.nextCase = nextCase
        copy.nextSearch = nextSearch
        copy.moves = moves
        copy.movingTrees = movingTrees
        copy.stagedEntries = stagedEntries
        copy.claimedEntries = claimedEntries
        copy.doubtedEntries = doubtedEntries
        copy.unwantedEntries = unwantedEntries
        copy.earlyMessages = earlyMessages
        copy.openConfirms = openConfirms
        copy.masterCache = masterCache
        copy.reviewAt = reviewAt
        return copy
    }

    /// Bytes of a lockspace's own fields when `clone` and `encodeState` were last looked through.
    /// Another size means another field: see to both, then change the number.
    package static var clonedSize: Int { 952 }

    /// Writes this node's state down.
    package func encodeState(into encoder: inout StateEncoder) {
        encoder.add(UInt64(node.rawValue))
        encoder.add(incarnation)
        encoder.add(UInt64(status.rawValue))
        if status == .left { return }
        encoder.add(epoch.rawValue)
        encoder.add(counters.recoveries == 0)
        encoder.add(isReplayPending)
        encoder.add(max(replayedEpoch, epoch).rawValue)
        encoder.add(members.count)
        for member in members {
            encoder.add(UInt64(member.node.rawValue))
            encoder.add(member.incarnation)
        }
        if status == .recovering { recovery.encodeState(into: &encoder) }
        let live = (1..<resources.bound).filter { resources[$0].mastery != .free }
            .sorted { name(of: $0) < name(of: $1) }
        encoder.add(live.count)
        for resource in live { encodeResource(resource, into: &encoder) }
        for early in [held, earlyMessages] {
            encoder.add(early.count)
            for entry in early {
                encoder.add(UInt64(entry.sender.rawValue))
                encoder.add(entry.epoch.rawValue)
                entry.message.encodeState(from: entry.sender, to: node, into: &encoder)
            }
        }
        claims.encodeState(node, into: &encoder)
        encoder.add(parkedClaims.count)
        for claim in parkedClaims {
            encoder.add(claim.name)
            encoder.add(UInt64(claim.claimant.rawValue))
        }
        encoder.add(parkedLookups.count)
        for lookup in parkedLookups {
            encoder.add(lookup.name)
            encoder.add(UInt64(lookup.asker.rawValue))
        }
        encoder.add(moves.count)
        for move in moves { move.encodeState(node, into: &encoder) }
        for entries in [stagedEntries, claimedEntries] {
            encoder.add(entries.count)
            for entry in entries {
                encoder.add(entry.name)
                encoder.add(UInt64(entry.node.rawValue))
            }
        }
        encodeDoubts(into: &encoder)
    }

    private func encodeDoubts(into encoder: inout StateEncoder) {
        encoder.add(openConfirms.count)
        for confirm in openConfirms {
            encoder.add(confirm.name)
            encoder.add(UInt64(confirm.node.rawValue) << 1 | (confirm.isVoid ? 1 : 0))
        }
        // By place: names decide it.
        for cached in masterCache where cached.master != .none {
            encoder.add(cached.name)
            encoder.add(UInt64(cached.master.rawValue))
        }
        encoder.add(masterCache.count)
        // Walked to ask different nodes, or about different names: their order decides nothing.
        for names in [doubtedEntries, unwantedEntries] {
            encoder.add(names.count)
            for name in names.sorted() { encoder.add(name) }
        }
    }

    /// Calls `body` with the name and the cookie of each lock of this node's client.
    package func visitOwnLocks(_ body: (LockID, UInt64) -> Void) {
        for lock in 1..<locks.bound where locks[lock].state != .free && locks[lock].holder == node {
            body(lockID(lock), locks[lock].identity)
        }
    }

    private func encodeResource(_ resource: UInt32, into encoder: inout StateEncoder) {
        let record = resources[resource]
        encoder.add(name(of: resource))
        encoder.add(UInt64(record.mastery.rawValue))
        encoder.add(UInt64(record.master.rawValue))
        encoder.add(UInt64(record.directoryMaster.rawValue))
        encoder.add(UInt64(record.marks.subtracting(.claimBatch).rawValue))
        let isOfOpenBatch = record.marks.contains(.claimBatch) == claims.openBatch
        encoder.add(record.marks.contains(.claimPending) && isOfOpenBatch)
        encoder.add(sequencedValue(resource))
        for queue in [Queue.granted, .converting, .waiting] {
            encoder.add(queueLength(resource, queue))
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                locks[lock].encodeState(node, into: &encoder)
                let parent = locks[lock].parent
                encoder.add(parent != 0)
                if parent != 0 { encoder.refer(to: lockID(parent), of: node) }
                encoder.add(bytes(of: lock))
                lock = following(lock, head: first)
            }
        }
    }
}

extension LockRecord {
    func encodeState(_ node: NodeID, into encoder: inout StateEncoder) {
        if holder == node {
            encoder.add(UInt64(holder.rawValue))
            encoder.add(identity)
        } else {
            encoder.refer(to: LockID(identity), of: holder)
        }
        let isAsked = state == .waiting || state == .converting
        // Besides what is asked: what the end of the owner and a purge will do with it.
        let lasting: LockFlags = isAsked ? .known : [.persistent]
        encoder.add(UInt64(flags.intersection(lasting).rawValue) | UInt64(owner.rawValue) << 32)
        let word =
            UInt64(granted.rawValue) | UInt64(requested.rawValue) << 8
            | UInt64(state.rawValue) << 16 | UInt64(told) << 24 | UInt64(marks.rawValue) << 32
        encoder.add(word)
    }
}

extension RecoveryProgress {
    func encodeState(into encoder: inout StateEncoder) {
        encoder.add(UInt64(phase.rawValue))
        encoder.add(hasReported)
        encoder.add(someoneDeparted)
        encoder.add(lookupsOutstanding)
        // Only looked for in.
        encoder.add(announced.count)
        for name in announced.sorted() { encoder.add(name) }
        for phase in counts {
            encoder.add(UInt64(phase.received) << 32 | UInt64(phase.expected.map { $0 + 1 } ?? 0))
            for numbers in [phase.sent, phase.totals] {
                for number in numbers { encoder.add(UInt64(number)) }
            }
            for bits in [phase.heard, phase.reached] {
                encoder.add(bits.reduce(1) { $0 << 1 | ($1 ? 1 : 0) })
            }
        }
    }
}

extension ClaimLedger {
    func encodeState(_ node: NodeID, into encoder: inout StateEncoder) {
        encoder.add(open)
        encoder.add(closing)
        for list in [behindClosing, behindOpen] {
            encoder.add(list.count)
            for demotion in list {
                encoder.refer(to: demotion.lock, of: node)
                encoder.add(demotion.mode.map { UInt64($0.rawValue) } ?? 255)
                encoder.add(UInt64(demotion.flags.rawValue))
                encoder.add(demotion.value)
            }
        }
    }
}

extension Move {
    func encodeState(_ node: NodeID, into encoder: inout StateEncoder) {
        encoder.add(root)
        encoder.add(UInt64(target.rawValue))
        encoder.add(part == .oldMaster)
        encoder.add(UInt64(oldMaster.rawValue))
        for list in [unseen, participants, lost] {
            encoder.add(list.count)
            for node in list { encoder.add(UInt64(node.rawValue)) }
        }
        encoder.add(postponed.count)
        for demotion in postponed {
            encoder.refer(to: demotion.lock, of: node)
            encoder.add(demotion.mode.map { UInt64($0.rawValue) } ?? 255)
            encoder.add(UInt64(demotion.flags.rawValue))
            encoder.add(demotion.value)
        }
        encoder.add(refused.count)
        for entry in refused {
            encoder.add(entry.name)
            encoder.refer(to: entry.lock, of: entry.peer)
        }
        encoder.add(kept.count)
        for entry in kept {
            encoder.add(UInt64(entry.peer.rawValue))
            entry.message.encodeState(from: entry.peer, to: node, into: &encoder)
        }
        encoder.add(isComplete)
        encoder.add(things)
    }
}

extension StateEncoder {
    /// The bytes of a lock of a range.
    mutating func add(_ bytes: LockedBytes?) {
        add(bytes != nil)
        guard let bytes else { return }
        add(bytes.first)
        add(bytes.last)
        add(UInt64(bytes.process))
    }

    /// What a transfer carries.
    mutating func add(_ things: [MovedThing]) {
        add(things.count)
        for thing in things {
            switch thing {
            case .value(let name, let value):
                add(name)
                add(value)
            case .lock(let name, let lock):
                add(name)
                refer(to: lock.holder.lock, of: lock.holder.node)
                add(UInt64(lock.flags.rawValue) | UInt64(lock.owner.rawValue) << 32)
                add(
                    UInt64(lock.granted.rawValue) | UInt64(lock.requested.rawValue) << 8
                        | UInt64(lock.state.rawValue) << 16 | UInt64(lock.told) << 24
                        | (lock.isDemoted ? 1 << 32 : 0)
                )
                add(lock.bytes)
            }
        }
    }
}
