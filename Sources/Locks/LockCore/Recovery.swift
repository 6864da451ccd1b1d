// What happens when the view changes. All members do the same steps; after each phase they wait for
// each other, and the coordinator says when to go on.
//
//   stop        nothing is granted; calls of the client are taken and wait. Locks of the departed
//   are
//               purged: a value block whose PW or EX holder died is invalid. The directory is
//               forgotten. Copies of the survivors' locks stay, marked unconfirmed. What this node
//               had asked of other masters is settled: demotions are complete (nothing can refuse
//               them), cancelled waits are over, all else will be reported.
//   directory   every master names its resources to the new directory nodes.
//   masters     holders of resources without a master ask the directory; the first becomes the
//   master.
//   locks       holders report every lock that another node masters. The master confirms its copy
//   in
//               place, so that queues keep their order, or adds one.
//   finish      unconfirmed copies go. Values: a new master takes the highest number reported, and
//   it is
//               valid if somebody holds more than CR. Then grants, conversions first and without
//               order; blocking notices are said again; requests for names without a master are
//               sent.
//
// Between the phases all wait for all (Barriers.swift): a member of the next phase can rely on all
// others having finished the last one.
//
// A view that comes in the middle begins again from "stop" (I9). What must outlive an unfinished
// recovery: the copies not yet confirmed (their holder may be the next to die), the mark of new
// masters (their value is still in doubt) and the mark on masters just learned (they may never have
// heard of it: forget them).
//
// Sideways conversions (PR to CW) are the one case where a holder's old mode can conflict with
// another's granted mode: the old master had granted both, and the answer was lost. The conflict
// proves it, so the new master grants the conversion first of all.

package import Vocabulary

/// How far the recovery of the present view has come.
struct RecoveryProgress: Sendable {
    var phase = RecoveryPhase.directory
    /// This node has everything of `phase` and said so.
    var hasReported = false
    /// Somebody left in this recovery or in one that it overtook.
    var someoneDeparted = false
    /// Questions to directory nodes without an answer.
    var lookupsOutstanding = 0
    /// Per phase: see Barriers.swift.
    var counts: [PhaseCounts] = []

    init() {}

    init(memberCount: Int, someoneDeparted: Bool) {
        counts = [PhaseCounts](repeating: PhaseCounts(memberCount: memberCount), count: 3)
        self.someoneDeparted = someoneDeparted
    }
}

extension Lockspace {
    /// Tells the new view. Views come in ascending order of epochs; an older one is ignored. A view
    /// without this life of this node puts it out: everything pending ends as `shutDown`.
    package mutating func viewChanged(_ view: ClusterView, effects: inout [LockEffect]) {
        if status == .left || view.epoch <= epoch { return }
        counters.views += 1
        guard view.members.contains(Member(node: node, incarnation: incarnation)) else {
            shutDownAll(&effects)
            return
        }
        let departed = members.filter { !view.members.contains($0) }.map(\.node)
        let overtakes = status == .recovering
        recovery = RecoveryProgress(
            memberCount: view.members.count,
            someoneDeparted: !departed.isEmpty || (overtakes && recovery.someoneDeparted)
        )
        epoch = view.epoch
        members = view.members
        isReplayPending = !view.slotsToReplay.isEmpty && replayedEpoch != view.epoch
        status = .recovering
        parkedClaims = []
        parkedLookups = []
        claims.open = 0
        claims.closing = 0
        cases = []
        abandonMoves(departed: departed)
        settleLocks(departed: departed, &effects)
        settleResources(departed: departed, overtakes: overtakes)
        beginPhase(.directory, &effects)
        receiveHeld(&effects)
        if !ripe.isEmpty { dropRipe(&effects) }
    }

    /// Journals of the view's dead nodes are replayed: ordinary requests are granted again.
    /// Remembered if it comes before the view.
    package mutating func journalsReplayed(_ replayed: Epoch, effects: inout [LockEffect]) {
        if replayed > replayedEpoch { replayedEpoch = replayed }
        guard replayed == epoch && isReplayPending else { return }
        isReplayPending = false
        guard status == .running else { return }
        for resource in 1..<resources.bound where resources[resource].mastery == .local {
            serveQueues(resource, ignoringOrder: true, &effects)
        }
    }

    // MARK: Stop

    private mutating func settleLocks(departed: [NodeID], _ effects: inout [LockEffect]) {
        for lock in 1..<locks.bound where locks[lock].state != .free {
            let record = locks[lock]
            if record.holder == node {
                if resources[record.resource].mastery != .local {
                    settleOwnLock(lock, departed: departed, &effects)
                }
            } else if departed.contains(record.holder) {
                if record.state != .waiting && record.granted >= .protectedWrite {
                    invalidateValue(record.resource)
                }
                unlink(lock, from: queue(of: lock))
                freeLock(lock)
            } else {
                locks[lock].marks.insert(.unconfirmed)
            }
        }
    }

    /// Brings a lock that another node masters into a state that can be reported: the master's
    /// answers of the old epoch will not arrive, so nothing may depend on them. The lock may be
    /// gone afterwards.
    private mutating func settleOwnLock(
        _ lock: UInt32,
        departed: [NodeID],
        _ effects: inout [LockEffect]
    ) {
        giveUpDoubtfulMode(lock)
        let record = locks[lock]
        let resource = record.resource
        switch record.state {
        case .unlocking:
            // What it wrote, now or by a demotion settled before, has to reach the master if that
            // lives: then the lock stays until the report has certainly arrived, at the end of a
            // recovery. Likewise if its tree is moving: whoever opens the transfer has a copy.
            if mustReportUnlock(resource, departed: departed) {
                locks[lock].marks.subtract([.sent, .reportedUnlock])
            } else {
                endUnlock(lock, &effects)
            }
        case .converting where record.granted.covers(record.requested):
            locks[lock].state = .granted
            locks[lock].granted = record.requested
            locks[lock].marks.subtract([.sent, .wrote])
            complete(lock, .granted, record.requested, &effects)
        case .waiting where record.marks.contains(.cancelRequested): withdraw(lock, &effects)
        case .converting
        where record.marks.contains(.cancelRequested) && record.requested.covers(record.granted):
            withdraw(lock, &effects)
        default: locks[lock].marks.remove(.sent)
        }
    }

    private func mustReportUnlock(_ resource: UInt32, departed: [NodeID]) -> Bool {
        switch resources[resource].mastery {
        case .remote:
            if resources[root(of: resource)].marks.contains(.moving) { return true }
            return resources[resource].value != 0
                && !departed.contains(resources[resource].master)
        // Forgotten in a recovery that was overtaken, because it was moving.
        case .unknown, .lookingUp: return status == .recovering
        case .local, .free: return false
        }
    }

    /// A master may have taken the old mode of a conversion that allows it, and may be gone.
    private mutating func giveUpDoubtfulMode(_ lock: UInt32) {
        let record = locks[lock]
        if record.state == .converting && record.flags.contains(.demoteOnDeadlock)
            && !record.granted.covers(record.requested) && record.granted != .null
        {
            locks[lock].granted = .null
            locks[lock].marks.insert(.demoted)
        }
    }

    mutating func endUnlock(_ lock: UInt32, _ effects: inout [LockEffect]) {
        unlink(lock, from: .granted)
        complete(lock, .unlocked, .null, &effects)
        freeLock(lock)
    }

    private mutating func settleResources(departed: [NodeID], overtakes: Bool) {
        settleRoots(departed: departed, overtakes: overtakes)
        if trees.liveCount == 0 { return }
        for depth in (1...ResourceName.deepest).reversed() {
            for resource in 1..<resources.bound
            where resources[resource].mastery != .free && resources[resource].depth == depth {
                if resources[resource].mastery != .local && !hasEstablished(resource) {
                    forgetValue(resource)
                }
                if isUnused(resource) { removeRecord(resource) }
            }
        }
        for resource in 1..<resources.bound
        where resources[resource].mastery == .unknown && isUnused(resource) {
            removeRecord(resource)
        }
    }

    private mutating func settleRoots(departed: [NodeID], overtakes: Bool) {
        for resource in 1..<resources.bound
        where resources[resource].mastery != .free && resources[resource].depth == 0 {
            resources[resource].directoryMaster = .none
            resources[resource].marks.subtract([.claimPending, .claimBatch, .entryPending])
            let isMoving = resources[resource].marks.contains(.moving)
            resources[resource].marks.subtract([.moving, .transferred])
            let isProvisional = resources[resource].marks.contains(.provisional)
            resources[resource].marks.remove(.provisional)
            switch resources[resource].mastery {
            case .local where !isUnused(resource): continue
            case .remote where hasEstablished(resource):
                if departed.contains(resources[resource].master) || isMoving
                    || (overtakes && isProvisional)
                {
                    forgetMaster(resource)
                }
            default:
                forgetMaster(resource)
                if !hasEstablished(resource) { forgetValue(resource) }
            }
            if isUnused(resource) { removeRecord(resource) }
        }
        movingTrees = 0
    }

    private mutating func forgetMaster(_ root: UInt32) { setMastery(root, .unknown, .none) }

    /// Whether a master elsewhere must know this record: a lock here was granted.
    func hasEstablished(_ resource: UInt32) -> Bool {
        let first = resources[resource].granted
        var lock = first
        while lock != 0 {
            if locks[lock].state != .waiting { return true }
            lock = following(lock, head: first)
        }
        return false
    }

    // MARK: Phases

    private mutating func beginPhase(_ phase: RecoveryPhase, _ effects: inout [LockEffect]) {
        recovery.phase = phase
        recovery.hasReported = false
        switch phase {
        case .directory: announceMasteries(&effects)
        case .masters: findMasters(&effects)
        case .locks: reportLocks(&effects)
        }
        reportSent(phase, &effects)
        checkPhase(&effects)
    }

    private mutating func announceMasteries(_ effects: inout [LockEffect]) {
        var names = [[ResourceName]](repeating: [], count: members.count)
        announceStaged(&effects)
        for resource in 1..<resources.bound
        where resources[resource].mastery == .local && resources[resource].depth == 0 {
            let name = name(of: resource)
            let directory = directoryNode(name)
            if directory == node {
                resources[resource].directoryMaster = node
                continue
            }
            let place = place(of: directory)
            names[place].append(name)
            if names[place].count == LockMessage.namesPerMessage {
                send(.masters(names[place]), to: directory, &effects)
                names[place] = []
            }
        }
        for (place, rest) in names.enumerated() where !rest.isEmpty {
            send(.masters(rest), to: members[place].node, &effects)
        }
    }

    private mutating func findMasters(_ effects: inout [LockEffect]) {
        // A node that just came has nothing to rebuild, and does not know who left with the same
        // view: it must not become the judge of a value (I10). Its requests wait for the end.
        if counters.recoveries == 0 { return }
        let staged = moves.map { findOrInsert($0.root) }
        for resource in 1..<resources.bound
        where resources[resource].mastery == .unknown && resources[resource].depth == 0
            && (!isUnused(resource) || staged.contains(resource))
        {
            askForMaster(resource, isFresh: false, &effects)
            if resources[resource].mastery == .lookingUp {
                recovery.lookupsOutstanding += 1
            } else {
                masterIsKnown(resource, &effects)
            }
        }
    }

    private mutating func reportLocks(_ effects: inout [LockEffect]) {
        for resource in 1..<resources.bound where resources[resource].mastery == .remote {
            var remaining = queueLength(resource, .granted)
            var lock = resources[resource].granted
            while remaining > 0 {
                remaining -= 1
                let next = locks[lock].next
                settleOwnLock(lock, departed: [], &effects)
                if locks[lock].state != .free {
                    send(
                        .rebuild(name(of: resource), report(lock)),
                        to: resources[resource].master,
                        &effects
                    )
                    locks[lock].marks.formUnion([.sent, .established])
                    if locks[lock].state == .unlocking {
                        locks[lock].marks.insert(.reportedUnlock)
                    }
                }
                lock = next
            }
            releaseIfUnused(resource, &effects)
        }
    }

    /// How this node's lock stands, for its master.
    func report(_ lock: UInt32) -> RebuiltLock {
        let record = locks[lock]
        let state: RebuiltLock.State =
            switch record.state {
            case .waiting: .waiting
            case .converting: .converting
            case .unlocking: .unlocking
            case .granted, .free: .granted
            }
        let isWaiting = state == .waiting
        return RebuiltLock(
            lock: lockID(lock),
            state: state,
            granted: isWaiting ? .null : record.granted,
            requested: record.requested,
            flags: record.flags,
            owner: record.owner,
            value: isWaiting ? nil : sequencedValue(record.resource),
            isVouched: !isWaiting && resources[record.resource].marks.contains(.vouched)
        )
    }

    /// The coordinator has said to go on.
    mutating func proceed(_ phase: RecoveryPhase, _ effects: inout [LockEffect]) {
        switch phase {
        case .directory: beginPhase(.masters, &effects)
        case .masters: beginPhase(.locks, &effects)
        case .locks: finishRecovery(&effects)
        }
    }
}
