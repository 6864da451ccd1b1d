// Who uses a tree how much, and when its mastership should move (Moving.swift moves it).
//
// The master counts the operations of each node on the trees it masters, from the first operation
// of another node on; trees that only their master uses cost nothing. Every
// `LockSettings.activityInterval` the counts are smoothed into rates. A tree moves to the node that
// has used it most when that node
// A1. used it at least `leastActivity` times in the interval, and by `clearlyMore` percent more than
//     the master, by its smoothed rate, in two intervals running (hysteresis);
// A2. and the tree has no more than `largestMove` locks, and fewer than `mostMoves` are moving;
// A3. and the tree has rested: each move doubles the time it must stay, up to 64 times
//     `restAfterMove`, and a time twice as long as that without a move halves it. A tree that two
//     nodes fight over ends up staying where it is (thrashing).
//
// Source: OpenVMS "remastering" by activity (LOCKDIRWT apart); the numbers are ours.

package import Vocabulary

/// How one node uses a tree.
struct NodeActivity: Sendable {
    var node = NodeID.none
    /// Operations in the interval that is running.
    var count: UInt32 = 0
    /// Smoothed operations per interval, times 16.
    var rate: UInt32 = 0
}

/// How a tree is used.
struct ActivityRecord: SlabRecord, Sendable {
    /// The root; 0 while the place is free.
    var root: UInt32 = 0
    var link: UInt32 = 0
    var own = NodeActivity()
    /// The busiest other nodes.
    var first = NodeActivity()
    var second = NodeActivity()
    var third = NodeActivity()
    /// Intervals running in which the same node was clearly busier.
    var streak: UInt8 = 0
    /// How often it moved without resting in between.
    var moves: UInt8 = 0
    /// Until when it stays.
    var restsUntil: UInt64 = 0

    /// Counts one operation of another node.
    mutating func note(_ node: NodeID) {
        if first.node == node {
            first.count += 1
        } else if second.node == node {
            second.count += 1
            if second.count > first.count { swap(&first, &second) }
        } else if third.node == node {
            third.count += 1
            if third.count > second.count { swap(&second, &third) }
        } else if third.count == 0 {
            third = NodeActivity(node: node, count: 1)
        } else {
            third.count -= 1  // Misra and Gries: a frequent node gets a place in the end
        }
    }

    /// Ends an interval. Whether nobody used the tree any more.
    mutating func smooth() -> Bool {
        Self.smooth(&own)
        Self.smooth(&first)
        Self.smooth(&second)
        Self.smooth(&third)
        return own.rate | first.rate | second.rate | third.rate == 0
    }

    private static func smooth(_ activity: inout NodeActivity) {
        activity.rate = (activity.rate + min(activity.count, 1 << 20) * 16) / 2
        activity.count = 0
    }

    /// The other node with the highest rate.
    var busiest: NodeActivity {
        var best = first
        if second.rate > best.rate { best = second }
        if third.rate > best.rate { best = third }
        return best
    }
}

extension Lockspace {
    /// Counts an operation of another node on a resource mastered here.
    mutating func noteUse(_ resource: UInt32, by peer: NodeID) {
        if settings.activityInterval == 0 { return }
        let root = root(of: resource)
        var activity = resources[root].activity
        if activity == 0 {
            activity = activities.take()
            activities[activity] = ActivityRecord(root: root)
            resources[root].activity = activity
            if activities.liveCount == 1 { reviewAt = now + UInt64(settings.activityInterval) }
        }
        activities[activity].note(peer)
    }

    /// Counts an operation of this node on a resource mastered here, if others use it too.
    mutating func noteOwnUse(_ resource: UInt32) {
        let activity = resources[root(of: resource)].activity
        if activity != 0 { activities[activity].own.count += 1 }
    }

    mutating func dropActivity(_ resource: UInt32) {
        let activity = resources[resource].activity
        if activity == 0 { return }
        resources[resource].activity = 0
        activities[activity].root = 0
        activities.release(activity)
    }

    /// Ends the interval if it is over, and begins the moves that are due.
    mutating func reviewActivity(_ effects: inout [LockEffect]) {
        if activities.liveCount == 0 || settings.activityInterval == 0 || now < reviewAt { return }
        reviewAt = now + UInt64(settings.activityInterval)
        for activity in 1..<activities.bound where activities[activity].root != 0 {
            if activities[activity].smooth() && activities[activity].restsUntil <= now
                && movesSoFar(activities[activity].root) == 0
            {
                dropActivity(activities[activity].root)
                continue
            }
            if let target = moveTarget(activity) {
                activities[activity].streak = 0
                beginMove(activities[activity].root, to: target, &effects)
            }
        }
    }

    /// Where a tree should move now; nil if it should stay.
    private mutating func moveTarget(_ activity: UInt32) -> NodeID? {
        let record = activities[activity]
        let busiest = record.busiest
        let isClearlyBusier =
            busiest.rate >= settings.leastActivity * 16 / 2
            && UInt64(busiest.rate) * 100 > UInt64(record.own.rate)
                * UInt64(100 + settings.clearlyMore)
        if !isClearlyBusier || !isMember(busiest.node) {
            activities[activity].streak = 0
            return nil
        }
        activities[activity].streak = min(record.streak + 1, 2)
        let root = record.root
        if activities[activity].streak < 2 { return nil }
        if !mayMove(root, to: busiest.node) || moves.count >= settings.mostMoves { return nil }
        if record.restsUntil > now {
            if record.moves > 2 { counters.movesThrashing += 1 }
            return nil
        }
        if lockCount(ofTree: root, upTo: settings.largestMove + 1) > settings.largestMove {
            counters.movesTooLarge += 1
            return nil
        }
        return busiest.node
    }

    /// Whether a tree can move at all now, whoever uses it.
    private func mayMove(_ root: UInt32, to target: NodeID) -> Bool {
        status == .running && resources[root].depth == 0 && resources[root].mastery == .local
            && resources[root].marks.isEmpty && !isReplayPending && !claims.isOutstanding
            && target != node && isMember(target)
    }

    /// Whether `moveMaster` would begin a move.
    package func canMoveMaster(of name: ResourceName, to target: NodeID) -> Bool {
        let root = find(name)
        return root != 0 && mayMove(root, to: target)
    }

    /// Moves the mastership of a tree whoever uses it, if it can move now: what an administrator
    /// may want, and a checker, which tells no time.
    package mutating func moveMaster(
        of name: ResourceName,
        to target: NodeID,
        effects: inout [LockEffect]
    ) {
        if canMoveMaster(of: name, to: target) { beginMove(find(name), to: target, &effects) }
    }

    private func lockCount(ofTree root: UInt32, upTo limit: Int) -> Int {
        var count = 0
        for resource in recordsOfTree(root) {
            for queue in [Queue.granted, .converting, .waiting] {
                let first = head(resource, queue)
                var lock = first
                while lock != 0 && count < limit {
                    count += 1
                    lock = following(lock, head: first)
                }
            }
            if count >= limit { break }
        }
        return count
    }

    /// A3: how often a tree has moved without resting, seen from now.
    func movesSoFar(_ root: UInt32) -> UInt8 {
        let activity = resources[root].activity
        if activity == 0 { return 0 }
        let record = activities[activity]
        if record.moves == 0 { return 0 }
        // What lies beyond the end of its rest, in units of twice that rest.
        let rest = UInt64(settings.restAfterMove) << UInt64(min(record.moves, 6))
        let idle = now > record.restsUntil ? (now - record.restsUntil) / max(2 * rest, 1) : 0
        return UInt8(max(0, Int(record.moves) - Int(min(idle, 255))))
    }

    /// A3, on the new master.
    mutating func restAfterMove(_ root: UInt32, moves: UInt8) {
        if settings.activityInterval == 0 { return }
        assert(resources[root].activity == 0, "LockCore: the use of a tree mastered elsewhere")
        let activity = activities.take()
        var record = ActivityRecord(root: root)
        record.moves = moves
        record.restsUntil = now + UInt64(settings.restAfterMove) << UInt64(min(moves, 6))
        activities[activity] = record
        resources[root].activity = activity
        if activities.liveCount == 1 { reviewAt = now + UInt64(settings.activityInterval) }
    }
}
