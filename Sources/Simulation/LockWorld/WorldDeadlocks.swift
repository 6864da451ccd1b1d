// Who waits for whom in a random world, as an observer of all masters sees it, and what that says
// about the victims of deadlock searches. Computed from the queues alone, by the rules D2 and D3.

import LockCore
import Vocabulary

/// An owner of one node.
struct WorldOwner: Hashable {
    var node: NodeID
    var owner: LockOwner
}

/// All waits of a moment.
struct WaitPicture {
    struct Wait: Hashable {
        var lock: LockReference
        var from: WorldOwner
        var to: WorldOwner
    }

    private(set) var waits: Set<Wait> = []
    /// The same, in order.
    private(set) var list: [Wait] = []

    /// Adds the waits on a resource that its master describes.
    mutating func add(_ resource: ResourceDescription, isReplayPending: Bool) {
        let mayGo = { (lock: LockDescription) in
            !isReplayPending || lock.flags.contains(.recovery)
        }
        let held = resource.locks.filter { $0.granted != nil }
        let queued = resource.locks.filter { $0.requested != nil && mayGo($0) }
        for (place, waiter) in queued.enumerated() {
            if waiter.owner == .none || waiter.flags.contains(.noDeadlockWait) { continue }
            var turns = [waiter]
            if !waiter.flags.contains(.noOrder) {
                turns += queued[..<place].filter { !$0.flags.contains(.noDeadlockWait) }
            }
            for blocker in held
            where blocker.owner != .none && !blocker.isOrphan
                && !blocker.flags.contains(.noDeadlockBlock)
            {
                if turns.contains(where: { blocker.isInTheWay(of: $0) }) {
                    add(waiter, for: blocker)
                }
            }
        }
    }

    private mutating func add(_ waiter: LockDescription, for blocker: LockDescription) {
        let wait = Wait(
            lock: LockReference(node: waiter.holder, lock: waiter.lock),
            from: WorldOwner(node: waiter.holder, owner: waiter.owner),
            to: WorldOwner(node: blocker.holder, owner: blocker.owner)
        )
        if waits.insert(wait).inserted { list.append(wait) }
    }

    /// Whether each hop of a path is there and they close.
    func contains(_ hops: [DeadlockHop]) -> Bool {
        for (place, hop) in hops.enumerated() {
            let next = hops[(place + 1) % hops.count]
            let wait = Wait(
                lock: hop.waiter,
                from: WorldOwner(node: hop.waiter.node, owner: hop.owner),
                to: WorldOwner(node: next.waiter.node, owner: next.owner)
            )
            if !waits.contains(wait) || hop.blocker.node != next.waiter.node { return false }
        }
        return !hops.isEmpty
    }

    /// Those who wait, in the end, for themselves: takes away who waits for nobody until all do.
    var inCircles: [Wait] {
        var rest = list
        while true {
            let waiting = Set(rest.map(\.from))
            let fewer = rest.filter { waiting.contains($0.to) }
            if fewer.count == rest.count { return rest }
            rest = fewer
        }
    }
}

extension World {
    /// Large worlds are not looked through at every step.
    private var looksAtWaits: Bool {
        options.faults.contains(.deadlocks) && options.nameCount <= 16
    }

    /// Who waits for whom now.
    func waitPicture() -> WaitPicture {
        var picture = WaitPicture()
        for node in alive where node.space.isRunning {
            let isReplayPending = node.space.waitsForReplay
            node.space.visitResources {
                if $0.master == node.id { picture.add($0, isReplayPending: isReplayPending) }
            }
        }
        return picture
    }

    /// The waits before a call of a node, if the call may find a circle.
    func lookBefore(_ node: WorldNode) -> WaitPicture? {
        looksAtWaits && (isSearching || isQuiet) ? waitPicture() : nil
    }

    /// A coordinator has a whole path: if it is real, all of it stands now (D4).
    func rememberWaits(_ picture: WaitPicture?) {
        guard let picture else { return }
        remembered.append(picture)
        if remembered.count > 200 { remembered.removeFirst(100) }
    }

    /// A wait is about to be refused because of a circle.
    func checkVictim(_ effect: LockEffect, of node: WorldNode, _ before: WaitPicture?) throws {
        let hops: [DeadlockHop]
        switch effect {
        case .send(.deadlocked(_, _, let path), _): hops = path
        case .deadlock(let path, let victim)
        where path.contains { $0.waiter.lock == victim && $0.master == node.id }:
            hops = path
        default: return
        }
        statistics.circles += 1
        if !looksAtWaits { return }
        let path = hops.map { "\($0)" }.joined(separator: "; ")
        if !remembered.contains(where: { $0.contains(hops) }) {
            throw WorldFailure("a victim without a circle: \(path)")
        }
        if isQuiet, let before, !before.contains(hops) {
            throw WorldFailure("a second victim of a circle that is broken: \(path)")
        }
    }

    /// The client hears of the circle.
    func condemned(_ victim: LockID, _ hops: [DeadlockHop], _ node: WorldNode) throws {
        note("  \(node.id): \(victim) is the victim of \(hops)")
        guard let lock = node.locks.first(where: { $0.client.id == victim }) else {
            // It went with its owner, or is not known to its client yet.
            return
        }
        if lock.client.owner == .none || lock.client.flags.contains(.noDeadlockWait) {
            throw WorldFailure("\(lock.subject.name): the victim takes no part in deadlocks")
        }
        lock.client.isCondemned = true
    }

    /// A conversion was refused by its master although there was no search: another conversion
    /// that it blocks waits.
    func checkPair(_ effect: LockEffect, of master: WorldNode) throws {
        guard let suspect = pairSuspect else { return }
        switch effect {
        case .send(.refused(_, suspect.lock.lock, .deadlock, _, _), suspect.lock.node): break
        case .complete(let answer)
        where answer.status == .deadlock && answer.lock == suspect.lock.lock
            && suspect.lock.node == master.id:
            break
        default: return
        }
        statistics.pairs += 1
        let locks = master.space.describe(suspect.name)?.locks ?? []
        guard
            let refused = locks.first(where: {
                $0.holder == suspect.lock.node && $0.lock == suspect.lock.lock
            }), let held = refused.granted
        else { return }
        let blocks = locks.contains { other in
            other.state == .converting && !other.flags.contains(.noDeadlockWait)
                && other.requested?.isCompatible(with: held) == false
        }
        if !blocks {
            throw WorldFailure("\(suspect.name): \(refused) was refused and blocks nobody")
        }
    }

    /// Time goes on and nobody does anything: no circle stays, each is broken once.
    func checkCircles() throws {
        if !looksAtWaits { return }
        for _ in 0..<(10 + alive.reduce(0) { $0 + $1.locks.count }) {
            if waitPicture().inCircles.isEmpty { return }
            let timeouts = statistics.timeouts
            now += 50
            try tickAll()
            isQuiet = statistics.timeouts == timeouts
            defer { isQuiet = false }
            while try deliverSomething() { try checkGrants() }
        }
        let rest = waitPicture().inCircles.map { "\($0.from) for \($0.to)" }
        throw WorldFailure("circles stay: \(rest.joined(separator: "; "))")
    }
}
