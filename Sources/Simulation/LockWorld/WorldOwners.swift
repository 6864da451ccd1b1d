// Time, owners and what they leave behind, and masterships that move at will.

import LockCore
import Vocabulary

extension World {
    // MARK: Time

    func tick(_ node: WorldNode) throws {
        isSearching = true
        defer { isSearching = false }
        node.tickedAt = now
        note("\(node.id) is told it is \(now)")
        try drive(node, about: nil) { [now] in $0.tick(UInt64(now), effects: &$1) }
    }

    func tickAll() throws {
        for node in alive { try tick(node) }
    }

    /// No wait goes on when it should have ended. All ticks were told and nothing is on its way.
    func checkPatience(_ node: WorldNode) throws {
        for lock in node.locks where lock.client.asked != .nothing && !lock.client.isDoomed {
            guard let deadline = lock.client.deadline, deadline <= UInt64(node.tickedAt) else {
                continue
            }
            if case .convert(let mode) = lock.client.asked, lock.client.held?.covers(mode) == true {
                continue
            }
            throw WorldFailure("\(lock.subject.name): waits at \(now), wanted to until \(deadline)")
        }
    }

    // MARK: Moves

    func moveSomething() throws {
        let candidates = alive
        let node = candidates[dice.below(candidates.count)]
        let target = candidates[dice.below(candidates.count)].id
        for _ in 0..<4 {
            let name = names[dice.below(names.count)].root
            if !node.space.canMoveMaster(of: name, to: target) { continue }
            note("\(node.id) moves the mastership of \(name) to \(target)")
            try drive(node, about: name) { $0.moveMaster(of: name, to: target, effects: &$1) }
            return
        }
    }

    // MARK: Owners

    /// An owner is gone with everything but its persistent locks.
    func endOwner(_ node: WorldNode) throws {
        let owner = LockOwner(UInt32(1 + dice.below(3)))
        let owned = node.locks.filter { $0.client.owner == owner }
        let isUnlocking = owned.contains { $0.client.asked == .unlock || $0.client.isDoomed }
        if owned.isEmpty || isUnlocking { return }
        note("\(owner) of \(node.id) is gone")
        let stays = { (lock: WorldLock) in
            lock.client.held != nil && lock.client.flags.contains(.persistent)
        }
        for lock in owned where !stays(lock) { doom(lock) }
        for lock in owned where stays(lock) {
            statistics.orphans += 1
            lock.mayBePurged = lock.client.isDoomed
            node.makeOrphan(lock)
        }
        try drive(node, about: nil) { $0.ownerIsGone(owner, effects: &$1) }
    }

    /// A lock and all below it go as soon as they can.
    func doom(_ lock: WorldLock) {
        lock.client.isDoomed = true
        touch(lock.subject)
        if lock.sublocks == 0 { return }
        for other in lock.node.orphans where other.parent === lock {
            other.mayBePurged = true
            doom(other)
        }
        for other in lock.node.locks where other.parent === lock { doom(other) }
    }

    func unlockTree(_ lock: WorldLock) throws {
        note("\(lock.node.id) unlocks \(lock.subject.name) and what is below")
        doom(lock)
        let id = lock.client.id
        try drive(lock.node, about: lock.subject.name) {
            $0.unlock(id, .withSublocks, value: nil, effects: &$1)
        }
    }

    /// Orphans of some node, of one owner or all, are told to go.
    func purgeSomething() throws {
        let candidates = alive
        let node = candidates[dice.below(candidates.count)]
        let peer = candidates[dice.below(candidates.count)]
        try purge(peer, owner: LockOwner(UInt32(dice.below(4))), from: node)
    }

    func purge(_ peer: WorldNode, owner: LockOwner, from node: WorldNode) throws {
        note("\(node.id) purges \(owner) of \(peer.id)")
        if peer === node { doomOrphans(of: peer, owner) }
        try drive(node, about: nil) {
            $0.purgeOrphans(of: peer.id, owner: owner, effects: &$1)
        }
    }

    /// The node hears that they are to go.
    func doomOrphans(of node: WorldNode, _ owner: LockOwner) {
        for orphan in node.orphans where owner == .none || orphan.client.owner == owner {
            orphan.mayBePurged = true
            doom(orphan)
        }
    }

    /// After a call of a node, before its effects: what another node said of orphans is obeyed in
    /// the call that hears it or, if it came before its view or in the middle of a recovery, in the
    /// call that ends the recovery. To take it for obeyed earlier, or of orphans that are none yet,
    /// would be wrong: who adopts one of them keeps what stands below it.
    func obeyPurges(_ node: WorldNode) {
        if node.purges.isEmpty { return }
        node.purges.removeAll { $0.epoch < node.space.epoch }
        guard node.space.isRunning else { return }
        for purge in node.purges where purge.epoch == node.space.epoch {
            doomOrphans(of: node, purge.owner)
        }
        node.purges.removeAll { $0.epoch == node.space.epoch }
    }

    /// Orphans that nobody told to go are there; the others may be.
    func checkOrphans(_ node: WorldNode) throws {
        if node.orphans.isEmpty { return }
        var present: Set<LockID> = []
        node.space.visitOwnLocks { id, _ in present.insert(id) }
        for orphan in node.orphans where !present.contains(orphan.client.id) {
            if !orphan.mayBePurged {
                throw WorldFailure("\(orphan.subject.name): an orphan of \(node.id) is gone")
            }
            touch(orphan.subject)
            node.remove(orphan)
        }
    }

    /// A request took over an orphan: the client knows it by a new number.
    func adopted(_ completion: LockCompletion, by lock: WorldLock) throws {
        guard lock.client.flags.contains(.adoptOrphan),
            let orphan = lock.node.orphans.first(where: { $0.client.id == completion.lock }),
            orphan.subject === lock.subject
        else { throw WorldFailure("\(lock.subject.name): an orphan that is none was adopted") }
        statistics.adoptions += 1
        lock.node.adopt(orphan, as: lock)
    }

    /// No orphan of that name, says the answer.
    func notFound(_ lock: WorldLock) throws {
        let missed = lock.node.orphans.contains {
            $0.subject === lock.subject && !$0.mayBePurged && $0.client.asked == .nothing
        }
        if missed { throw WorldFailure("\(lock.subject.name): an orphan was not found") }
    }
}
