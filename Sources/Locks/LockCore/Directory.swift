// Who masters what: the directory node's answers, the questions of the others, the end of a
// mastership. The essay in Lockspace.swift explains which entries can be stale and why that is
// harmless.

import Vocabulary

/// A question that waits for the word of the node that the entry names. On the directory node.
struct ParkedLookup: Sendable {
    var name: ResourceName
    /// May be the directory node itself.
    var asker: NodeID
}

extension Lockspace {
    /// The node that knows the master of a name: the same on all members of a view.
    @inline(__always)
    func directoryNode(_ name: ResourceName) -> NodeID {
        if members.count == 1 { return node }
        return directory.member(name.rootHash).node
    }

    func isMember(_ peer: NodeID) -> Bool {
        for member in members where member.node == peer { return true }
        return false
    }

    // MARK: Asking

    /// Finds the master of a record in state `unknown`: knows it at once (`local`, `remote`) or
    /// asks (`lookingUp`). Locks that are linked here are the caller's to see to, by
    /// `masterIsKnown`. `isFresh`: the name never existed before, and no lock is linked here yet.
    /// `denied`: who has just said that it is not.
    mutating func askForMaster(
        _ resource: UInt32,
        isFresh: Bool,
        denied: NodeID = .none,
        _ effects: inout [LockEffect]
    ) {
        assert(resources[resource].mastery == .unknown, "LockCore: the master is known")
        assert(resources[resource].depth == 0, "LockCore I12: a part asks for its master")
        let name = name(of: resource)
        let directory = directoryNode(name)
        if directory == node {
            if resources[resource].directoryMaster == .none {
                resources[resource].directoryMaster = node
            } else if resources[resource].directoryMaster == denied {
                setMastery(resource, .lookingUp, resources[resource].master)
                park(name, asker: node, asking: denied, &effects)
                return
            }
            learnMaster(resource, resources[resource].directoryMaster)
        } else if isFresh {
            learnMaster(resource, node)
            addClaim(resource)
            send(.claim(name), to: directory, &effects)
        } else if denied == .none, case let known = recallMaster(name), known != .none {
            learnMaster(resource, known)
        } else {
            setMastery(resource, .lookingUp, resources[resource].master)
            send(.lookup(name, denied: denied), to: directory, &effects)
        }
    }

    private mutating func learnMaster(_ resource: UInt32, _ master: NodeID) {
        setMastery(resource, master == node ? .local : .remote, master)
        guard status == .recovering else { return joinMove(resource) }
        // M6: somebody masters the tree, and may go on before this node does.
        if master != node && !moves.isEmpty {
            let name = name(of: resource)
            moves.removeAll { $0.root == name }
        }
        resources[resource].marks.insert(master == node ? .newMaster : .provisional)
    }

    mutating func lookupReply(
        _ name: ResourceName,
        master: NodeID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let resource = find(name)
        if resource != 0 && resources[resource].mastery == .local
            && resources[resource].marks.contains(.answerPending)
        {
            resources[resource].marks.remove(.answerPending)
            releaseIfUnused(resource, &effects)
            return
        }
        guard resource != 0, resources[resource].mastery == .lookingUp,
            peer == directoryNode(name), isMember(master)
        else {
            counters.protocolErrors += 1
            return
        }
        learnMaster(resource, master)
        masterIsKnown(resource, &effects)
        releaseIfUnused(resource, &effects)
        if status == .recovering {
            recovery.lookupsOutstanding -= 1
            checkPhase(&effects)
        }
    }

    /// Sees to the locks that waited for the master to be known.
    mutating func masterIsKnown(_ resource: UInt32, _ effects: inout [LockEffect]) {
        switch resources[resource].mastery {
        case .local: if !openStaged(resource, &effects) { takeOver(resource, &effects) }
        case .remote:
            if !canSend(resource) { return }
            // While one lock had to ask again others may have been cancelled that had not.
            for record in recordsOfTree(resource) { cancelReported(record, &effects) }
            sendAllPending(resource, &effects)
        case .lookingUp, .unknown, .free: return
        }
    }

    /// Whether the master of a resource is another node and may be told things now.
    @inline(__always)
    func canSend(_ resource: UInt32) -> Bool {
        status == .running && resources[resource].mastery == .remote
            && (movingTrees == 0 || !resources[root(of: resource)].marks.contains(.moving))
    }

    /// Sends the master everything it was not told about the locks of this tree.
    mutating func sendAllPending(_ root: UInt32, _ effects: inout [LockEffect]) {
        if resources[root].tree == 0 {
            sendPending(of: root, &effects)
        } else {
            for resource in recordsOfTree(root) { sendPending(of: resource, &effects) }
        }
    }

    private mutating func sendPending(of resource: UInt32, _ effects: inout [LockEffect]) {
        let first = resources[resource].granted
        var lock = first
        while lock != 0 {
            if !locks[lock].marks.contains(.sent) { sendPending(lock, &effects) }
            lock = following(lock, head: first)
        }
    }

    /// Sorts this node's own locks into the three queues of a tree that it masters from now on.
    mutating func takeOver(_ root: UInt32, _ effects: inout [LockEffect]) {
        if resources[root].tree == 0 {
            takeOverRecord(root, &effects)
            return
        }
        // The parts last to first: giving up one that is not used lets the ones above go.
        for resource in recordsOfTree(root).reversed() where resources[resource].mastery == .local {
            takeOverRecord(resource, &effects)
        }
    }

    private mutating func takeOverRecord(_ resource: UInt32, _ effects: inout [LockEffect]) {
        let first = resources[resource].granted
        if first == 0 { return }
        var own: [UInt32] = []
        var lock = first
        while lock != 0 {
            own.append(lock)
            lock = following(lock, head: first)
        }
        resources[resource].granted = 0
        // Nobody knows of a lock of ours but one that is being given up: then its master had heard
        // that, and has forgotten the resource, or died. What we know of the value may be old (I10).
        let isKnown = own.contains {
            locks[$0].state != .waiting && locks[$0].state != .unlocking
        }
        if status == .recovering && !isKnown { forgetValue(resource) }
        for lock in own where locks[lock].state != .waiting && locks[lock].state != .unlocking {
            takeOverEstablished(lock, &effects)
        }
        for lock in own where locks[lock].state == .waiting {
            locks[lock].marks.formIntersection(LockMarks.lasting.union(.cancelRequested))
            append(lock, to: .waiting)
        }
        // Last, when all stand in their places: unlocks let others go on, and records go.
        for lock in own where locks[lock].state == .unlocking {
            takeOverEstablished(lock, &effects)
        }
        if resources[resource].mastery == .free { return }
        if status == .running {
            serveQueues(resource, &effects)
            refuseImpatient(resource, &effects)
            releaseIfUnused(resource, &effects)
        }
    }

    private mutating func takeOverEstablished(_ lock: UInt32, _ effects: inout [LockEffect]) {
        let record = locks[lock]
        locks[lock].marks.formIntersection(
            LockMarks.lasting.union([.cancelRequested, .deferred, .demoted])
        )
        switch record.state {
        case .unlocking:
            append(lock, to: .granted)
            decideUnlock(lock, &effects)
        case .converting: append(lock, to: .converting)
        default: append(lock, to: .granted)
        }
    }

    // MARK: Answering

    mutating func serveLookup(
        _ name: ResourceName,
        denied: NodeID,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        guard directoryNode(name) == node else {
            counters.protocolErrors += 1
            return
        }
        // B2: who asks was told that all masters have been named.
        if status == .recovering { settleEntries() }
        let resource = findOrInsert(name)
        if resources[resource].directoryMaster == .none {
            resources[resource].directoryMaster = peer
        }
        let master = resources[resource].directoryMaster
        if master == denied && master != node {
            park(name, asker: peer, asking: master, &effects)
        } else {
            send(.lookupReply(name, master: master), to: peer, &effects)
        }
    }

    /// Lets a question wait for the word of the node that the entry names: it may have forgotten the
    /// resource, or have become its master again since it denied that.
    private mutating func park(
        _ name: ResourceName,
        asker: NodeID,
        asking master: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let isAsked = parkedLookups.contains { $0.name == name }
        parkedLookups.append(ParkedLookup(name: name, asker: asker))
        if !isAsked { askToConfirm(name, master, &effects) }
    }

    /// Answers the questions about a name that waited for its entry to change.
    mutating func settleParkedLookups(_ name: ResourceName, _ effects: inout [LockEffect]) {
        if parkedLookups.isEmpty { return }
        let asked = parkedLookups.filter { $0.name == name }
        parkedLookups.removeAll { $0.name == name }
        for lookup in asked {
            if lookup.asker != node {
                serveLookup(name, denied: .none, from: lookup.asker, &effects)
                continue
            }
            let resource = find(name)
            if resource == 0 || resources[resource].mastery != .lookingUp { continue }
            setMastery(resource, .unknown, resources[resource].master)
            askForMaster(resource, isFresh: false, &effects)
            masterIsKnown(resource, &effects)
            releaseIfUnused(resource, &effects)
        }
    }

    mutating func serveRemove(
        _ name: ResourceName,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let resource = find(name)
        guard resource != 0 && resources[resource].directoryMaster == peer else { return }
        resources[resource].directoryMaster = .none
        settleParkedClaims(name, &effects)
        settleParkedLookups(name, &effects)
        let entry = find(name)
        if entry != 0 { releaseIfUnused(entry, &effects) }
    }

    // MARK: The end

    /// Forgets a record that nothing needs: gives the mastership of a resource without locks up,
    /// and the record when it is no directory entry either (I1).
    mutating func releaseIfUnused(_ resource: UInt32, _ effects: inout [LockEffect]) {
        if !isUnused(resource) { return }
        if resources[resource].depth > 0 {
            if resources[resource].mastery == .free { return }
            let parent = resources[resource].parent
            removeRecord(resource)
            releaseIfUnused(parent, &effects)
            return
        }
        switch resources[resource].mastery {
        case .free, .lookingUp: return
        case .local:
            let marks = resources[resource].marks
            if status != .running { return }
            let pending: ResourceMarks = [.claimPending, .moving, .entryPending, .answerPending]
            if !marks.isDisjoint(with: pending) { return }
            let name = name(of: resource)
            let directory = directoryNode(name)
            if directory == node {
                resources[resource].directoryMaster = .none
            } else {
                send(.remove(name), to: directory, &effects)
            }
        case .remote: remember(resource)
        case .unknown: break
        }
        setMastery(resource, .unknown, .none)
        if resources[resource].marks.contains(.moving) { movingTrees -= 1 }
        resources[resource].marks = []
        if resources[resource].directoryMaster == .none { removeRecord(resource) }
    }
}
