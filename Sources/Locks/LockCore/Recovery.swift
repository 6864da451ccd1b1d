// What happens when the view changes. All members do the same steps; after each phase they wait for
// each other, and the coordinator says when to go on.
//
//   stop        Settling.swift. Nothing is granted; calls of the client are taken and wait. Locks of
//               the departed are purged: a value block whose PW or EX holder died is invalid. What
//               this node had asked of other masters is settled as far as it can be (demotions are
//               complete, nothing can refuse them) and otherwise in doubt.
//   directory   masters name the trees whose directory node may not know who they are.
//   masters     holders in need of a master ask the directory; the first becomes the master.
//   locks       holders report locks that are in doubt, and all on trees that have a new master. The
//               master confirms its copy in place, so that queues keep their order, or adds one.
//   finish      Values: a new master takes the highest number reported, and it is valid if somebody
//               holds more than CR. Then grants, conversions first and without order; blocking
//               notices are said again; requests for names without a master are sent.
//
// Between the phases all wait for all (Barriers.swift): a member of the next phase can rely on all
// others having finished the last one.
//
// ## What a view may lose, and what it keeps
//
// A message of an older epoch is dropped (I8). So a view loses what was on its way, also between
// nodes that live on, and nothing else; what has to be said again are the things that a lost message
// was about. That is what makes a recovery grow with what the departed had, and not with the cluster:
//
// R1. A granted lock of which nothing is asked, and whose master lives, is known to that master as it
//     is: it was granted by it, or reported in a recovery that ended. It is not reported.
// R2. A lock of which something was asked and not answered is *in doubt* and is reported, until a
//     recovery ends in which that was done.
// R3. A holder keeps its master if that lives and a granted lock not in doubt on the root says so (R1):
//     a master with a copy of a granted lock forgets nothing. Everybody else asks the directory.
// R4. A master's mark says so if the directory node may not know: the entry's place belongs to
//     another node since (DirectoryMap.swift), a move was not confirmed, connections were lost. Such a
//     tree is named to its directory node. A claim that was not answered is named too, but gives way
//     to what stands there, and is made anew after the recovery.
// R5. Entries stay. One that names a departed node goes. One that names a node which masters the tree
//     no longer gives whoever asks a master that does not know it is one; in a recovery, when nobody
//     else can be one, it becomes one by the first report; afterwards it says "not me" (Directory.swift).
//     Words about the end of a mastership that come too late are reasons to ask (Doubts.swift).
// R6. Marks outlive an overtaken recovery, as others may have finished it and gone on: in doubt, unproven
//     and provisional masters, entries to be announced, copies from a transfer. Places that were
//     forgotten by a view are forgotten once.
//
// A view that comes in the middle begins again from "stop" (I9). What must outlive an unfinished
// recovery besides: the mark of new masters (their value is still in doubt) and the mark on masters
// just learned (they may never have heard of it: forget them).
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
    /// On a directory node: what was named in the phase `directory`.
    var announced: [ResourceName] = []
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
        precondition(
            view.members.allSatisfy { $0.node <= LockRecord.highestNode },
            "LockCore: a node whose number no record can hold"
        )
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
        // Connections that broke since the last view that this node has seen.
        let isLossy = view.connectionsLost > epoch
        let before = directory
        epoch = view.epoch
        members = view.members
        directory = DirectoryMap(members)
        isReplayPending = !view.slotsToReplay.isEmpty && replayedEpoch != view.epoch
        status = .recovering
        parkedClaims = []
        parkedLookups = []
        earlyMessages = []
        doubtAgain()
        masterCache = []
        claims.open = 0
        claims.closing = 0
        cases = []
        abandonMoves(departed: departed)
        settleLocks(departed: departed, &effects)
        settleResources(
            Settlement(
                departed: departed,
                before: before,
                isLossy: isLossy,
                overtakes: overtakes
            )
        )
        beginPhase(.directory, &effects)
        receiveHeld(&effects)
        if !ripe.isEmpty { dropRipe(&effects) }
    }

    /// Journals of the view's dead nodes are replayed, or whoever replays them has locked what they
    /// cover: ordinary requests are granted again.
    /// Remembered if it comes before the view.
    package mutating func journalsReplayed(_ replayed: Epoch, effects: inout [LockEffect]) {
        replayedEpoch = max(replayedEpoch, replayed)
        guard replayed == epoch && isReplayPending else { return }
        isReplayPending = false
        guard status == .running else { return }
        for resource in 1..<resources.bound where resources[resource].mastery == .local {
            serveQueues(resource, ignoringOrder: true, &effects)
            refuseImpatient(resource, &effects)
            releaseIfUnused(resource, &effects)
        }
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

    /// R4.
    private mutating func announceMasteries(_ effects: inout [LockEffect]) {
        var certain = [[ResourceName]](repeating: [], count: members.count)
        var claimed = certain
        announceStaged(&effects)
        for resource in 1..<resources.bound
        where resources[resource].mastery == .local && resources[resource].depth == 0 {
            let isClaimed = resources[resource].marks.contains(.claimPending)
            if !isClaimed && !resources[resource].marks.contains(.entryPending) { continue }
            let name = name(of: resource)
            let directory = directoryNode(name)
            if directory == node {
                if isClaimed {
                    claimedEntries.append((name, node))
                } else {
                    resources[resource].directoryMaster = node
                    recovery.announced.append(name)
                }
            } else if isClaimed {
                claimed[place(of: directory)].append(name)
            } else {
                certain[place(of: directory)].append(name)
            }
        }
        for (place, names) in certain.enumerated() {
            announce(names, to: members[place].node, &effects) { .masters($0) }
        }
        for (place, names) in claimed.enumerated() {
            announce(names, to: members[place].node, &effects) { .claimedMasters($0) }
        }
    }

    private mutating func announce(
        _ names: [ResourceName],
        to directory: NodeID,
        _ effects: inout [LockEffect],
        _ message: ([ResourceName]) -> LockMessage
    ) {
        var rest = names[...]
        while !rest.isEmpty {
            let part = rest.prefix(LockMessage.namesPerMessage)
            rest = rest.dropFirst(part.count)
            send(message(Array(part)), to: directory, &effects)
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

    /// R1, R2.
    private mutating func reportLocks(_ effects: inout [LockEffect]) {
        for resource in 1..<resources.bound where resources[resource].mastery == .remote {
            let isNew = resources[root(of: resource)].marks.contains(.provisional)
            var remaining = queueLength(resource, .granted)
            var lock = resources[resource].granted
            while remaining > 0 {
                remaining -= 1
                let next = locks[lock].next
                if isNew || locks[lock].marks.contains(.doubtful) {
                    reportLock(lock, &effects)
                }
                lock = next
            }
        }
    }

    private mutating func reportLock(_ lock: UInt32, _ effects: inout [LockEffect]) {
        settleOwnLock(lock, departed: [], &effects)
        precondition(locks[lock].state != .free, "LockCore R1: a lock ended instead of its report")
        let resource = locks[lock].resource
        send(
            .rebuild(name(of: resource), report(lock)),
            to: resources[resource].master,
            &effects
        )
        locks[lock].marks.formUnion([.sent, .established, .doubtful])
        if locks[lock].state == .unlocking { locks[lock].marks.insert(.reportedUnlock) }
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
            owner: presentOwner(lock),
            value: isWaiting ? nil : sequencedValue(record.resource),
            isVouched: !isWaiting && resources[record.resource].marks.contains(.vouched),
            bytes: bytes(of: lock)
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
