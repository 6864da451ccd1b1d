// Who is in a random world: views, deaths, joins, leaves, lost connections.

import LockCore
import Vocabulary

extension World {
    func add(_ id: NodeID) {
        nodes.append(WorldNode(id: id, incarnation: nextIncarnation))
        nextIncarnation += 1
    }

    /// The next view: everybody that lives, or is not fenced yet.
    func issueView(replaying slots: [SlotIndex]) {
        epoch = Epoch(epoch.rawValue + 1)
        isBroken = false
        statistics.views += 1
        let members = nodes.map { Member(node: $0.id, incarnation: $0.incarnation) }.sorted()
        if hasLostConnections {
            connectionsLost = epoch
            hasLostConnections = false
        }
        let view = ClusterView(
            epoch: epoch,
            members: members,
            slotsToReplay: slots,
            connectionsLost: connectionsLost
        )
        note("view \(view) replaying \(slots)")
        for node in alive { node.views.append(view) }
    }

    func kill() {
        let candidates = alive
        if candidates.count < 2 { return }
        let victim = candidates[dice.below(candidates.count)]
        note("\(victim.id) dies")
        statistics.deaths += 1
        victim.isAlive = false
        unfenced.append(victim)
        for number in 1...options.maximumNodes {
            let other = NodeID(UInt32(number))
            cut(channelIndex(other, victim.id))
            // Of what it said last, some may have got out.
            let index = channelIndex(victim.id, other)
            if channels[index].count > 0 {
                cut(index, to: dice.below(channels[index].count + 1))
            }
        }
    }

    func fence() {
        if unfenced.isEmpty { return }
        let slots = unfenced.map { $0.id.slot }.sorted()
        // An unfenced node is a member still: fencing one at a time or all.
        if dice.oneIn(2) {
            let victim = unfenced.removeFirst()
            forget(victim)
            issueView(replaying: dice.oneIn(2) ? [victim.id.slot] : [])
        } else {
            for victim in unfenced { forget(victim) }
            unfenced = []
            issueView(replaying: dice.oneIn(2) ? slots : [])
        }
    }

    private func forget(_ victim: WorldNode) {
        nodes.removeAll { $0 === victim }
        for lock in victim.locks + victim.orphans {
            touch(lock.subject)
            victim.remove(lock)
        }
        // Names it created and nobody saw may be created again.
        freeNames += victim.unpublished.map(\.name)
        for number in 1...options.maximumNodes {
            cut(channelIndex(victim.id, NodeID(UInt32(number))))
        }
    }

    func join() {
        if !options.faults.contains(.joins) || nodes.count > options.nodeCount { return }
        let used = nodes.map(\.id)
        let free = (1...options.maximumNodes).map { NodeID(UInt32($0)) }
            .filter { !used.contains($0) }
        if free.isEmpty { return }
        let id = free[dice.below(free.count)]
        note("\(id) joins")
        statistics.joins += 1
        add(id)
        // A new life has new connections.
        for number in 1...options.maximumNodes {
            channels[channelIndex(id, NodeID(UInt32(number)))].lostThrough = Epoch(0)
            channels[channelIndex(NodeID(UInt32(number)), id)].lostThrough = Epoch(0)
        }
        issueView(replaying: unreplayedSlots())
    }

    /// A connection between two living nodes breaks: what was on it is lost, and nothing can be
    /// sent before the next view.
    func loseConnection() {
        let candidates = alive
        if !options.faults.contains(.losses) || candidates.count < 2 { return }
        let one = dice.below(candidates.count)
        let other = (one + 1 + dice.below(candidates.count - 1)) % candidates.count
        note("the connection of \(candidates[one].id) and \(candidates[other].id) is lost")
        statistics.losses += 1
        for (from, to) in [(one, other), (other, one)] {
            let index = channelIndex(candidates[from].id, candidates[to].id)
            cut(index)
            channels[index].lostThrough = epoch
        }
        isBroken = true
        hasLostConnections = true
        if dice.oneIn(2) { issueView(replaying: unreplayedSlots()) }
    }

    /// A view that overtakes an unfinished replay names its slots again.
    func unreplayedSlots() -> [SlotIndex] {
        guard let last = alive.flatMap({ $0.views + [$0.view] }).max(by: { $0.epoch < $1.epoch })
        else { return [] }
        return replayed.contains(last.epoch) ? [] : last.slotsToReplay
    }

    // MARK: Leaving

    func startLeaving() {
        let candidates = alive.filter { !$0.isLeaving }
        if !options.faults.contains(.leaves) || candidates.count < 2 { return }
        candidates[dice.below(candidates.count)].isLeaving = true
    }

    func finishLeaving() throws {
        for node in alive where node.isLeaving {
            for lock in node.locks where lock.client.isUsable && !lock.isGone && lock.sublocks == 0
            {
                try unlock(lock)
            }
            for lock in node.locks
            where !lock.isGone && !lock.client.isIdle && lock.client.asked != .unlock
                && !lock.client.isDoomed
            {
                try cancel(lock)
            }
            guard node.locks.isEmpty && alive.count > 1 else { continue }
            try leave(node)
            return
        }
    }

    /// Somebody without locks leaves, whatever else is going on.
    func leaveAtOnce() throws {
        let candidates = alive.filter { $0.locks.isEmpty }
        if !options.faults.contains(.leaves) || candidates.isEmpty || alive.count < 2 { return }
        try leave(candidates[dice.below(candidates.count)])
    }

    private func leave(_ node: WorldNode) throws {
        note("\(node.id) leaves")
        statistics.leaves += 1
        try drive(node, about: nil) { $0.leave(effects: &$1) }
        node.isAlive = false
        nodes.removeAll { $0 === node }
        for orphan in node.orphans {
            touch(orphan.subject)
            node.remove(orphan)
        }
        for number in 1...options.maximumNodes {
            cut(channelIndex(NodeID(UInt32(number)), node.id))
        }
        issueView(replaying: unreplayedSlots())
    }
}
