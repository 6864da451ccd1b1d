// A random world at rest, and its end.

import LockCore
import Vocabulary

extension World {
    /// One master per name, the directory names it, holders and master agree, waits have reasons.
    func checkRest() throws {
        var seen: [(node: NodeID, resource: ResourceDescription)] = []
        for node in alive {
            if !node.space.isRunning { throw WorldFailure("\(node.id) is at rest in a recovery") }
            if node.space.epoch != epoch { throw WorldFailure("\(node.id) is in an old view") }
            if node.space.waitsForReplay { throw WorldFailure("\(node.id) waits for replay") }
            try node.space.checkInvariants()
            node.space.visitResources { seen.append((node.id, $0)) }
        }
        let picture = try RestPicture(seen)
        var owned = 0
        for node in alive {
            try checkOrphans(node)
            try checkPatience(node)
            owned += node.locks.count + node.orphans.count
            for lock in node.locks + node.orphans {
                try picture.check(lock.client, of: node.id, checksNotices: true)
                if lock.client.isDoomed && lock.sublocks == 0 {
                    throw WorldFailure("\(lock.subject.name): \(node.id) cannot get rid of a lock")
                }
                if let parent = lock.parent, parent.isGone || parent.client.held == nil {
                    throw WorldFailure("\(lock.subject.name): the lock above is gone")
                }
            }
        }
        if statistics.views == 1 {
            let (out, into) = alive.reduce((0, 0)) {
                ($0.0 + $1.space.counters.movesOut, $0.1 + $1.space.counters.movesIn)
            }
            if out != into { throw WorldFailure("\(out) moves began, \(into) ended") }
        }
        if picture.lockCount != owned {
            let owners = Set(
                alive.flatMap { node in
                    (node.locks + node.orphans).map {
                        LockReference(node: node.id, lock: $0.client.id)
                    }
                }
            )
            let lost = picture.resources.flatMap { resource in
                resource.locks.filter {
                    !owners.contains(LockReference(node: $0.holder, lock: $0.lock))
                }.map { "\(resource.name): \($0.holder) \($0.lock) \($0)" }
            }
            throw WorldFailure(
                "\(picture.lockCount) locks on masters, \(owned) with clients: nobody has \(lost)"
            )
        }
        try picture.checkWaits()
    }

    /// Everybody lets go. What waits must be granted, in the end nothing is left anywhere.
    func windDown() throws {
        note("winding down")
        isWindingDown = true
        try settle()
        try checkCircles()
        for node in alive { try purge(node, owner: .none, from: node) }
        try settle()
        try checkRest()
        var round = 0
        while alive.contains(where: { !$0.locks.isEmpty }) {
            round += 1
            let before = statistics.grants
            var hasUnlocked = false
            for node in alive {
                for lock in node.locks where lock.client.isUsable && lock.sublocks == 0 {
                    try unlock(lock)
                    hasUnlocked = true
                }
            }
            try settle()
            try checkRest()
            if hasUnlocked || statistics.grants > before { continue }
            try breakDeadlocks(round)
            try settle()
        }
        for node in alive {
            var rest = 0
            node.space.visitResources { _ in rest += 1 }
            if rest > 0 { throw WorldFailure("\(node.id) kept \(rest) records") }
        }
    }

    /// Nobody holds anything without asking, and nothing is granted: what is left must be
    /// conversions that wait for each other. One of each name is cancelled.
    private func breakDeadlocks(_ round: Int) throws {
        var hasCancelled = false
        for node in alive {
            for lock in node.locks where isConverting(lock) && lock.subject.round != round {
                let converting = lock.subject.locks.filter(isConverting)
                if converting.count < 2 { continue }
                lock.subject.round = round
                statistics.deadlocks += 1
                hasCancelled = true
                try cancel(lock)
                try checkGrants()
            }
        }
        if !hasCancelled { throw WorldFailure("requests are never answered") }
    }

    private func isConverting(_ lock: WorldLock) -> Bool {
        lock.client.held != nil && lock.client.asked != .nothing
    }
}
