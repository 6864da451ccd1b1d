// The end of a node's part: a clean leave, or being put out.
//
// A node that leaves has unlocked everything. What it still masters for others is rebuilt by them
// in the next view; only the value blocks would be lost, because where nobody holds more than CR
// nobody could vouch for them. So it hands each such value to the holders before it falls silent.
// From that moment it decides nothing, so that what it said stays true until the view without it
// comes.

import Vocabulary

extension Lockspace {
    /// Falls silent. Pending operations end as `shutDown`; locks still held are forgotten by the
    /// others when the view without this node arrives, as if it had died.
    package mutating func leave(effects: inout [LockEffect]) {
        if status == .left { return }
        if status == .running { handValuesOver(&effects) }
        shutDownAll(&effects)
    }

    private mutating func handValuesOver(_ effects: inout [LockEffect]) {
        for resource in 1..<resources.bound
        where resources[resource].mastery == .local && resources[resource].value != 0 {
            guard let value = sequencedValue(resource), value.isValid else { continue }
            if hasHolder(resource, above: .concurrentRead) { continue }
            for queue in [Queue.granted, .converting] {
                let first = head(resource, queue)
                var lock = first
                while lock != 0 {
                    if locks[lock].holder != node {
                        send(
                            .handover(name(of: resource), value: value),
                            to: locks[lock].holder,
                            &effects
                        )
                    }
                    lock = following(lock, head: first)
                }
            }
        }
    }

    private func hasHolder(_ resource: UInt32, above mode: LockMode) -> Bool {
        for queue in [Queue.granted, .converting] {
            let first = head(resource, queue)
            var lock = first
            while lock != 0 {
                if locks[lock].granted > mode { return true }
                lock = following(lock, head: first)
            }
        }
        return false
    }

    /// The master of a resource leaves and this is the last value.
    mutating func takeHandover(
        _ name: ResourceName,
        _ value: SequencedValue,
        from peer: NodeID
    ) {
        let resource = find(name)
        guard resource != 0, resources[resource].mastery == .remote,
            resources[resource].master == peer
        else { return }
        absorb(resource, value)
        resources[resource].marks.insert(.vouched)
    }

    /// Ends everything. The slabs stay, so that late calls with old names find their cookies.
    mutating func shutDownAll(_ effects: inout [LockEffect]) {
        status = .left
        held = []
        earlyMessages = []
        for lock in 1..<locks.bound
        where locks[lock].state != .free && locks[lock].holder == node {
            let record = locks[lock]
            let isPending = record.state != .granted || record.marks.contains(.deferred)
            if isPending && !record.marks.contains(.orphan) {  // O1
                var answer = LockCompletion(cookie: record.identity, status: .shutDown)
                answer.lock = lockID(lock)
                effects.append(.complete(answer))
            }
            locks[lock].state = .granted
            locks[lock].marks.formIntersection(.ofBytes)
        }
        claims = ClaimLedger()
        endAllWaits()
        moves = []
        movingTrees = 0
        cases = []
        ripe = []
    }
}
