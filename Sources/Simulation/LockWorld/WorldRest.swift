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
            owned += node.locks.count
            for lock in node.locks {
                try picture.check(lock.client, of: node.id, checksNotices: true)
            }
        }
        if picture.lockCount != owned {
            throw WorldFailure("\(picture.lockCount) locks on masters, \(owned) with clients")
        }
        try picture.checkWaits()
    }

    /// Everybody lets go. What waits must be granted, in the end nothing is left anywhere.
    func windDown() throws {
        note("winding down")
        isWindingDown = true
        try settle()
        var round = 0
        while alive.contains(where: { !$0.locks.isEmpty }) {
            round += 1
            let before = statistics.grants
            var hasUnlocked = false
            for node in alive {
                for lock in node.locks where lock.client.isIdle {
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
            for lock in node.locks where lock.client.held != nil && lock.subject.round != round {
                let converting = lock.subject.locks.filter { $0.client.held != nil }
                if converting.count < 2 {
                    throw WorldFailure("\(lock.subject.name): a lock waits for itself")
                }
                lock.subject.round = round
                statistics.deadlocks += 1
                hasCancelled = true
                try cancel(lock)
                try checkGrants()
            }
        }
        if !hasCancelled { throw WorldFailure("requests are never answered") }
    }
}
