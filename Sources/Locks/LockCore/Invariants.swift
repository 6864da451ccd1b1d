// The invariants of the essay, checked. Walks everything: for tests and simulation, after every
// event.

package import Vocabulary

/// An invariant of the essay that does not hold.
package struct InvariantViolation: Error, Hashable, Sendable, CustomStringConvertible {
    /// Number and circumstances, one line.
    package var description: String
}

private func require(
    _ condition: Bool,
    _ description: @autoclosure () -> String
) throws(InvariantViolation) {
    if !condition { throw InvariantViolation(description: description()) }
}

extension Lockspace {
    /// Checks the invariants of one node. Throws the first that does not hold.
    package func checkInvariants() throws(InvariantViolation) {
        if status == .left { return }
        var linked = 0
        var records = 0
        for resource in 1..<resources.bound where resources[resource].mastery != .free {
            records += 1
            linked += try checkRecord(resource)
        }
        try require(records == resources.liveCount, "LockCore I1: lost records")
        try require(linked == locks.liveCount, "LockCore I2: a lock is in no queue")
        try require(ripe.isEmpty && mail.isEmpty, "LockCore: a call ended before its work")
        try checkClaims()
        try checkTies()
        try checkPlaces()
    }

    /// Checks the invariants of one resource as this node knows it: for worlds so large that
    /// walking everything after every event takes too long.
    package func checkInvariants(of name: ResourceName) throws(InvariantViolation) {
        if status == .left { return }
        let resource = find(name)
        if resource != 0 { _ = try checkRecord(resource) }
    }

    private func checkRecord(_ resource: UInt32) throws(InvariantViolation) -> Int {
        let record = resources[resource]
        try require(
            find(name(of: resource)) == resource,
            "LockCore I1: \(name(of: resource)) is not in the table"
        )
        let isKept =
            !isUnused(resource) || record.directoryMaster != .none
            || (record.depth == 0
                && (record.mastery == .local || record.mastery == .lookingUp))
        try require(isKept, "LockCore I1: \(name(of: resource)) is kept for nothing")
        if record.directoryMaster != .none && status == .running {
            try require(
                directoryNode(name(of: resource)) == node,
                "LockCore: a directory entry in the wrong place"
            )
        }
        var linked = 0
        for queue in [Queue.granted, .converting, .waiting] {
            linked += try checkQueue(resource, queue)
        }
        if record.depth > 0 {
            let root = resources[root(of: resource)]
            try require(
                record.mastery == root.mastery && record.master == root.master,
                "LockCore I12: \(name(of: resource)) and its root differ"
            )
        }
        if record.mastery == .local {
            try checkMastered(resource)
        } else {
            try require(
                record.converting == 0 && record.waiting == 0,
                "LockCore I2: queues without a master"
            )
            if status == .running && !record.isEmpty {
                try require(
                    record.mastery != .unknown,
                    "LockCore I6: \(name(of: resource)) is forgotten"
                )
            }
        }
        return linked
    }

    private func checkQueue(_ resource: UInt32, _ queue: Queue) throws(InvariantViolation) -> Int {
        let first = head(resource, queue)
        var count = 0
        var lock = first
        while lock != 0 {
            count += 1
            try require(locks[lock].resource == resource, "LockCore I2: a lock in a foreign queue")
            try require(
                locks[locks[lock].next].previous == lock,
                "LockCore I2: a torn queue"
            )
            try require(self.queue(of: lock) == queue, "LockCore I2: a lock in the wrong queue")
            try require(
                status != .running || !locks[lock].marks.contains(.unconfirmed),
                "LockCore: an unconfirmed copy outlived its recovery"
            )
            try require(
                locks[lock].holder == node || resources[resource].mastery == .local,
                "LockCore I2: a copy without mastership"
            )
            try require(
                locks[lock].state != .granted || locks[lock].requested == locks[lock].granted,
                "LockCore I2: a lock asks for something and does not wait"
            )
            lock = following(lock, head: first)
        }
        return count
    }

    /// I3, I4, I5. In the middle of a recovery reported and unreported locks stand side by side, so
    /// that nothing can be said.
    private func checkMastered(_ resource: UInt32) throws(InvariantViolation) {
        let name = name(of: resource)
        if status != .running { return }
        for queue in [Queue.granted, .converting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                try require(
                    !conflicts(resource, locks[lock].granted, except: lock),
                    "LockCore I3: incompatible grants on \(name)"
                )
                lock = following(lock, head: first)
            }
        }
        if !isServing(resource) { return }
        try checkNothingGrantable(resource)
        let wanted = wantedModes(resource)
        let first = resources[resource].granted
        var lock = first
        while lock != 0 {
            let blocked = wanted & ~compatibleModes(locks[lock].granted)
            for mode in LockMode.strongestFirst where blocked & (1 << mode.rawValue) != 0 {
                try require(
                    isCovered(mode, by: locks[lock].told) || locks[lock].marks.contains(.deferred),
                    "LockCore I5: \(name): a holder in \(locks[lock].granted) was not told of \(mode)"
                )
            }
            lock = following(lock, head: first)
        }
    }

    private func checkNothingGrantable(_ resource: UInt32) throws(InvariantViolation) {
        var isBlocked = false
        for queue in [Queue.converting, .waiting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                // Whoever comes first, and whoever need not wait for a turn.
                if mayGrant(lock) && (!isBlocked || locks[lock].flags.contains(.noOrder)) {
                    try require(
                        compatibleMode(lock) == nil,
                        "LockCore I4: \(name(of: resource)): a lock waits for nothing"
                    )
                    isBlocked = true
                }
                lock = following(lock, head: first)
            }
        }
    }

    private func checkClaims() throws(InvariantViolation) {
        if status != .running { return }
        var pending = 0
        for resource in 1..<resources.bound
        where resources[resource].mastery != .free
            && resources[resource].marks.contains(.claimPending)
        {
            pending += 1
        }
        try require(
            pending == claims.open + claims.closing,
            "LockCore I7: claims are miscounted"
        )
    }

    /// I13, T2 and the count of moving trees.
    private func checkTies() throws(InvariantViolation) {
        var timers = 0
        for lock in 1..<locks.bound where locks[lock].state != .free {
            let record = locks[lock]
            if record.wait != 0 {
                timers += 1
                let isWaiting = record.state == .waiting || record.state == .converting
                try require(
                    waits[record.wait].lock == lock && isWaiting,
                    "LockCore T2: a timer of a lock that does not wait"
                )
            }
            try require(
                (record.bytes != 0) == resources[record.resource].kind.isOfBytes,
                "LockCore B1: a lock of a range without bytes, or bytes of another"
            )
            if record.parent == 0 { continue }
            let parent = locks[record.parent]
            try require(
                parent.state != .free && parent.state != .unlocking && parent.holder == node
                    && parent.resource == resources[record.resource].parent,
                "LockCore I13: a lock without the lock above it"
            )
        }
        try require(timers == waits.liveCount, "LockCore T2: a timer without a lock")
        var moving = 0
        for resource in 1..<resources.bound
        where resources[resource].mastery != .free
            && resources[resource].marks.contains(.moving)
        {
            moving += 1
        }
        try require(moving == movingTrees, "LockCore M1: moving trees are miscounted")
    }

    /// Nothing is kept that no record leads to: value blocks, links of trees, uses of trees.
    private func checkPlaces() throws(InvariantViolation) {
        var (valueCount, treeCount, activityCount) = (0, 0, 0)
        for resource in 1..<resources.bound where resources[resource].mastery != .free {
            let record = resources[resource]
            if record.value != 0 { valueCount += 1 }
            if record.tree != 0 { treeCount += 1 }
            if record.activity == 0 { continue }
            activityCount += 1
            try require(
                activities[record.activity].root == resource,
                "LockCore: \(name(of: resource)) has the use of another tree"
            )
        }
        let rangeCount = (1..<locks.bound).reduce(0) {
            $0 + (locks[$1].state != .free && locks[$1].bytes != 0 ? 1 : 0)
        }
        try require(rangeCount == ranges.liveCount, "LockCore B1: bytes without a lock")
        let used = (1..<activities.bound).reduce(0) { $0 + (activities[$1].root == 0 ? 0 : 1) }
        try require(
            valueCount == values.liveCount && treeCount == trees.liveCount
                && activityCount == activities.liveCount && activityCount == used,
            "LockCore I1: something is kept of a record that is gone"
        )
    }
}
