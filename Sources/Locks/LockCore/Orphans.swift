// Locks that outlive their owner. When an owner is gone, its locks go, except those that were
// granted as `persistent`: these stay as orphans of the node, until somebody adopts one (a request
// with `adoptOrphan` for the same name and mode) or they are purged. An orphan cannot yield: what
// its holder is told meanwhile is kept for whoever adopts it.
//
// O1. An orphan is never told of anything and never completes anything: nobody is there to hear.
// O2. Orphans die with their node, as all its locks do.
// O3. The master hears of the end of an owner and of the heir, because a search for a deadlock goes from
//     owner to owner: an orphan has none, also if a new one has the old number.
//
// Source: Linux fs/dlm (DLM_LKF_PERSISTENT, DLM_LKF_ORPHAN, dlm_purge).

package import Vocabulary

extension Lockspace {
    /// An owner of this node is gone: its locks are given up and its waits withdrawn; persistent
    /// locks become orphans.
    package mutating func ownerIsGone(_ owner: LockOwner, effects: inout [LockEffect]) {
        if status == .left || owner == .none { return }
        let isOwned = { (record: LockRecord, node: NodeID) in
            record.state != .free && record.holder == node && record.owner == owner
                && !record.marks.contains(.orphan)
        }
        // Orphans first: what goes may take them with it, of which nobody hears (O1). All of them before
        // anything is withdrawn, as that may grant what the owner still waits for.
        var orphans: [UInt32] = []
        for lock in 1..<locks.bound where isOwned(locks[lock], node) {
            let isGranted = locks[lock].state == .granted || locks[lock].state == .converting
            if !isGranted || !locks[lock].flags.contains(.persistent) { continue }
            locks[lock].marks.insert(.orphan)
            counters.orphans += 1
            orphans.append(lock)
        }
        for lock in orphans {
            withdrawWait(lockID(lock), &effects)
            tellOfOwner(lock, &effects)
        }
        for lock in 1..<locks.bound where isOwned(locks[lock], node) { doom(lock, &effects) }
        dropRipe(&effects)
    }

    /// Gives up the orphans of a node: of one owner that is gone, or with `none` all.
    package mutating func purgeOrphans(
        of peer: NodeID,
        owner: LockOwner,
        effects: inout [LockEffect]
    ) {
        if status == .left { return }
        if peer == node {
            purge(owner, &effects)
        } else if isMember(peer) && status == .running {
            send(.purge(owner), to: peer, &effects)
        }
    }

    mutating func purge(_ owner: LockOwner, _ effects: inout [LockEffect]) {
        for lock in 1..<locks.bound
        where locks[lock].state != .free && locks[lock].marks.contains(.orphan)
            && (owner == .none || locks[lock].owner == owner)
        {
            counters.purgedOrphans += 1
            doom(lock, &effects)
        }
        dropRipe(&effects)
    }

    /// On whose behalf a lock stands now (O3).
    @inline(__always)
    func presentOwner(_ lock: UInt32) -> LockOwner {
        locks[lock].marks.contains(.orphan) ? .none : locks[lock].owner
    }

    /// O3. What is asked of an orphan ends first: it is told then.
    mutating func tellOfOwner(_ lock: UInt32, _ effects: inout [LockEffect]) {
        if locks[lock].state != .granted { return }
        let resource = locks[lock].resource
        if resources[resource].mastery == .local {
            // Sent with the transfer, under another owner.
            if isFrozen(resource) { locks[lock].marks.insert(.doubtful) }
            return
        }
        locks[lock].marks.remove(.sent)
        locks[lock].marks.insert(.doubtful)
        if canSend(resource) { sendPending(lock, &effects) }
    }

    /// Takes over an orphan of this node, or says why there is none: no orphan of this name
    /// (`notFound`), or one in another mode (`wouldBlock`).
    mutating func adopt(
        _ name: ResourceName,
        _ mode: LockMode,
        cookie: UInt64,
        owner: LockOwner,
        _ flags: LockFlags,
        _ effects: inout [LockEffect]
    ) -> LockID {
        var isInOtherMode = false
        for lock in 1..<locks.bound
        where locks[lock].state == .granted && locks[lock].marks.contains(.orphan)
            && locks[lock].marks.isDisjoint(with: [.doomed, .deferred])
            && self.name(of: locks[lock].resource) == name
        {
            guard locks[lock].granted == mode else {
                isInOtherMode = true
                continue
            }
            locks[lock].marks.remove(.orphan)
            locks[lock].identity = cookie
            locks[lock].owner = owner
            // Whether it outlives this owner too is for this one to say.
            locks[lock].flags.remove(.persistent)
            locks[lock].flags.formUnion(flags.intersection(.persistent))
            counters.adoptions += 1
            tellOfOwner(lock, &effects)
            complete(lock, .granted, mode, remarks: .adopted, &effects)
            var said: UInt8 = 0
            // In a recovery all is told anew at its end.
            for want in LockMode.strongestFirst
            where status == .running && locks[lock].told & (1 << want.rawValue) != 0
                && !mode.isCompatible(with: want)
                && !isCovered(want, by: said)
            {
                said |= 1 << want.rawValue
                effects.append(.blocking(cookie: cookie, lock: lockID(lock), wanted: want))
            }
            return lockID(lock)
        }
        effects.append(
            .complete(
                LockCompletion(cookie: cookie, status: isInOtherMode ? .wouldBlock : .notFound)
            )
        )
        return .none
    }
}
