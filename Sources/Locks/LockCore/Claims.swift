// Fresh names. A node that has just allocated an inode masters its name at once and tells the
// directory by a *claim*; no round trip. Two rules keep that safe:
//
// - Demotions wait until the claims made before them are acknowledged (I7), and for the end of a
//   recovery, which makes anew what was not. Claims are counted in two batches, so that a steady
//   stream of creations cannot hold a demotion back for ever: those that wait close the batch they
//   came in, and newer claims count in the next.
// - A claim that meets another master's entry is parked while that node is asked to confirm it: its
//   removal, if it is on the way, comes before the answer. If the entry still names somebody then,
//   the name was not fresh: the claimant hands its locks to the master, which wins. Until it has heard
//   that it may have the name it serves nobody else, so that those are its own locks (`isEarly`): of a
//   name that is really fresh nobody can know.

import Vocabulary

/// A demotion that waits for claims.
struct DeferredDemotion: Sendable {
    var lock: LockID
    /// nil: an unlock.
    var mode: LockMode?
    var flags: LockFlags
    var value: ValueBlock?
}

/// Claims that are not acknowledged, and who waits for them.
struct ClaimLedger: Sendable {
    /// Claims of the open batch; `openBatch` is its mark.
    var open = 0
    var openBatch = false
    /// Claims of the closed batch that are still unacknowledged.
    var closing = 0
    /// Wait for the closed batch.
    var behindClosing: [DeferredDemotion] = []
    /// Wait for the open batch too.
    var behindOpen: [DeferredDemotion] = []

    var isOutstanding: Bool { open | closing != 0 }

    mutating func closeBatch() {
        precondition(closing == 0 && behindClosing.isEmpty, "LockCore I7: two closed batches")
        closing = open
        open = 0
        openBatch.toggle()
        behindClosing = behindOpen
        behindOpen = []
    }
}

/// A claim that waits for the old master's word. On the directory node.
struct ParkedClaim: Sendable {
    var name: ResourceName
    var claimant: NodeID
}

extension Lockspace {
    mutating func addClaim(_ resource: UInt32) {
        counters.claims += 1
        claims.open += 1
        resources[resource].marks.insert(.claimPending)
        if claims.openBatch { resources[resource].marks.insert(.claimBatch) }
    }

    /// Claims anew, after a recovery, what was claimed and not answered.
    mutating func claimAgain(_ effects: inout [LockEffect]) {
        for resource in 1..<resources.bound
        where resources[resource].mastery != .free
            && resources[resource].marks.contains(.claimPending)
        {
            resources[resource].marks.remove(.claimPending)
            let name = name(of: resource)
            let directory = directoryNode(name)
            if directory != node {
                addClaim(resource)
                send(.claim(name), to: directory, &effects)
            } else if resources[resource].directoryMaster != node {
                // A recovery in which this node came does not ask; and the name was not fresh.
                if resources[resource].directoryMaster == .none {
                    resources[resource].directoryMaster = node
                } else {
                    loseClaim(resource, to: resources[resource].directoryMaster, &effects)
                }
            }
        }
    }

    /// Keeps what others ask about a name that this node has claimed, until it hears whether it has
    /// it.
    mutating func isEarly(_ message: LockMessage, from peer: NodeID) -> Bool {
        switch message {
        case .request(let name, _, _, _, _, _), .convert(let name, _, _, _, _),
            .unlock(let name, _, _), .cancel(let name, _), .rebuild(let name, _):
            let root = find(name.root)
            if root == 0 || !resources[root].marks.contains(.claimPending) { return false }
            earlyMessages.append(HeldMessage(message: message, sender: peer, epoch: epoch))
            return true
        default: return false
        }
    }

    private mutating func takeEarly(_ root: ResourceName, _ effects: inout [LockEffect]) {
        let mine = earlyMessages.filter { $0.message.lockedName?.root == root }
        earlyMessages.removeAll { $0.message.lockedName?.root == root }
        for entry in mine { dispatch(entry.message, from: entry.sender, &effects) }
    }

    mutating func postpone(_ lock: UInt32, _ demotion: DeferredDemotion) {
        locks[lock].marks.insert(.deferred)
        if status == .running && postponeForMove(locks[lock].resource, demotion) { return }
        awaitClaims(demotion)
    }

    private mutating func awaitClaims(_ demotion: DeferredDemotion) {
        claims.behindOpen.append(demotion)
        if claims.closing == 0 && claims.behindClosing.isEmpty { claims.closeBatch() }
    }

    /// Executes what waited for the end of a move (M3), unless it has to wait for claims as well.
    mutating func runPostponed(_ demotion: DeferredDemotion, _ effects: inout [LockEffect]) {
        if claims.isOutstanding { awaitClaims(demotion) } else { runDeferred(demotion, &effects) }
    }

    /// Executes the demotions whose claims are acknowledged.
    mutating func runDeferred(_ effects: inout [LockEffect]) {
        if status != .running { return }
        while claims.closing == 0 {
            let ready = claims.behindClosing
            claims.behindClosing = []
            for demotion in ready { runDeferred(demotion, &effects) }
            if claims.behindOpen.isEmpty { return }
            claims.closeBatch()
        }
    }

    mutating func runDeferred(_ demotion: DeferredDemotion, _ effects: inout [LockEffect]) {
        let lock = localIndex(demotion.lock)
        if lock != 0 && postponeForMove(locks[lock].resource, demotion) { return }
        precondition(
            lock != 0 && locks[lock].marks.contains(.deferred),
            "LockCore I7: a deferred demotion lost its lock"
        )
        locks[lock].marks.remove(.deferred)
        if let mode = demotion.mode {
            executeConversion(lock, to: mode, demotion.flags, demotion.value, &effects)
        } else {
            executeUnlock(lock, demotion.flags, demotion.value, &effects)
        }
    }

    // MARK: On the claimant

    mutating func claimReply(
        _ name: ResourceName,
        master: NodeID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let resource = find(name)
        guard resource != 0, resources[resource].marks.contains(.claimPending),
            peer == directoryNode(name), isMember(master)
        else {
            counters.protocolErrors += 1
            return
        }
        let isOfOpenBatch =
            resources[resource].marks.contains(.claimBatch) == claims.openBatch
        resources[resource].marks.subtract([.claimPending, .claimBatch])
        if isOfOpenBatch { claims.open -= 1 } else { claims.closing -= 1 }
        if master != node { loseClaim(resource, to: master, &effects) }
        if !earlyMessages.isEmpty { takeEarly(name, &effects) }
        let rest = find(name)
        if rest != 0 { releaseIfUnused(rest, &effects) }
        runDeferred(&effects)
    }

    /// Reports this node's locks to the true master.
    private mutating func loseClaim(
        _ resource: UInt32,
        to master: NodeID,
        _ effects: inout [LockEffect]
    ) {
        counters.lostClaims += 1
        for record in recordsOfTree(resource) { handOver(record) }
        setMastery(resource, .remote, master)
        joinMove(resource)
        if canSend(resource) { sendAllPending(resource, &effects) }
    }

    /// Puts all locks into the one list of a record that is mastered elsewhere. They are this
    /// node's, and nobody was told of them: a claimant serves nobody before it has heard that it
    /// has the name.
    private mutating func handOver(_ resource: UInt32) {
        for queue in [Queue.converting, .waiting] {
            while case let lock = head(resource, queue), lock != 0 {
                precondition(
                    locks[lock].holder == node,
                    "LockCore: a claimant has served another node"
                )
                unlink(lock, from: queue)
                append(lock, to: .granted)
            }
        }
    }

    /// The directory node doubts what it knows of a name. Whatever this node had to say about it
    /// stands before this answer.
    mutating func serveConfirm(
        _ name: ResourceName,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let root = find(name)
        // Who has asked since may have been made the master by the time that this arrives.
        let isMaster =
            root != 0
            && (resources[root].mastery == .local || resources[root].mastery == .lookingUp)
        send(.confirmReply(name, isMaster: isMaster), to: peer, &effects)
    }

    // MARK: On the directory node

    mutating func serveClaim(
        _ name: ResourceName,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard directoryNode(name) == node else {
            counters.protocolErrors += 1
            return
        }
        let resource = findOrInsert(name)
        let known = resources[resource].directoryMaster
        if known == .none || known == peer {
            resources[resource].directoryMaster = peer
            send(.claimReply(name, master: peer), to: peer, &effects)
        } else if known == node {
            send(.claimReply(name, master: node), to: peer, &effects)
        } else {
            parkedClaims.append(ParkedClaim(name: name, claimant: peer))
            askToConfirm(name, known, &effects)
        }
    }

    mutating func confirmReply(
        _ name: ResourceName,
        isMaster: Bool,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard
            let place = openConfirms.firstIndex(where: { $0.name == name && $0.node == peer })
        else {
            counters.protocolErrors += 1
            return
        }
        let isVoid = openConfirms.remove(at: place).isVoid
        let root = find(name)
        // A word about the end that was lost (R5).
        if !isMaster && !isVoid && root != 0 && resources[root].directoryMaster == peer {
            resources[root].directoryMaster = .none
        }
        settleParkedClaims(name, &effects)
        settleParkedLookups(name, &effects)
        let entry = find(name)
        if entry != 0 { releaseIfUnused(entry, &effects) }
    }

    /// Decides parked claims of a name by what the entry says now.
    mutating func settleParkedClaims(_ name: ResourceName, _ effects: inout [LockEffect]) {
        if parkedClaims.isEmpty { return }
        let mine = parkedClaims.filter { $0.name == name }
        if mine.isEmpty { return }
        parkedClaims.removeAll { $0.name == name }
        for claim in mine {
            let resource = findOrInsert(name)
            if resources[resource].directoryMaster == .none {
                resources[resource].directoryMaster = claim.claimant
            }
            send(
                .claimReply(name, master: resources[resource].directoryMaster),
                to: claim.claimant,
                &effects
            )
        }
    }
}
