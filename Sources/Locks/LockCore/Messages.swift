// Where a peer's message goes. A message of an older epoch is dropped, of a newer one held until
// its view arrives; locking traffic of the present epoch is held until this node has finished its
// recovery too (I8, I9). What no correct peer would send is counted and ignored, never obeyed and
// never a trap.

package import Vocabulary

extension Lockspace {
    /// Takes one message. `epoch` is the epoch of the sender's view when it was sent.
    package mutating func receive(
        _ message: LockMessage,
        from peer: NodeID,
        epoch messageEpoch: Epoch,
        effects: inout [LockEffect]
    ) {
        if status == .left { return }
        if messageEpoch < epoch { return takeStale(message, from: peer, &effects) }
        if messageEpoch > epoch || (status != .running && !message.belongsToRecovery) {
            counters.heldMessages += 1
            held.append(HeldMessage(message: message, sender: peer, epoch: messageEpoch))
            return
        }
        guard peer != node && isMember(peer) else {
            counters.protocolErrors += 1
            return
        }
        if status == .running {
            if !moves.isEmpty && isKept(message, from: peer) { return }
            if claims.isOutstanding && isEarly(message, from: peer) { return }
        }
        let isCounted = status == .recovering ? message.countedPhase : nil
        dispatch(message, from: peer, &effects)
        if let phase = isCounted {
            recovery.counts[Int(phase.rawValue)].received += 1
            checkPhase(&effects)
        }
        if !mail.isEmpty { drainMail(&effects) }
        if !ripe.isEmpty { dropRipe(&effects) }
    }

    /// Takes the held messages again; those that are still early are held again, in order.
    mutating func receiveHeld(_ effects: inout [LockEffect]) {
        let early = held
        held = []
        for entry in early {
            receive(entry.message, from: entry.sender, epoch: entry.epoch, effects: &effects)
        }
    }

    mutating func dispatch(
        _ message: LockMessage,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        switch message {
        case .request(let name, let lock, let owner, let mode, let flags, let bytes):
            serveRequest(name, lock, owner, mode, flags, bytes, from: peer, &effects)
        case .convert(let name, let lock, let mode, let flags, let value):
            serveConversion(name, lock, mode, flags, value, from: peer, &effects)
        case .unlock(let name, let lock, let value):
            serveUnlock(name, lock, value, from: peer, &effects)
        case .cancel(let name, let lock): serveCancel(name, lock, from: peer, &effects)
        case .granted(let name, let lock, let mode, let remarks, let value):
            granted(name, lock, mode, remarks, value, from: peer, &effects)
        case .refused(let name, let lock, let status, let remarks, let obstacle):
            refused(name, lock, status, remarks, obstacle, from: peer, &effects)
        case .unlocked(let name, let lock): unlocked(name, lock, from: peer, &effects)
        case .notMaster(let name, let lock): notMaster(name, lock, from: peer, &effects)
        case .blocking(let name, let lock, let wanted):
            blocking(name, lock, wanted, from: peer, &effects)
        case .handover(let name, let value): takeHandover(name, value, from: peer)
        case .purge(let owner): purge(owner, &effects)
        case .seek, .chase, .cycle, .verify, .verified, .condemn, .condemned, .deadlocked:
            takeSearch(message, from: peer, &effects)
        case .moving, .movingSeen, .transfer, .taken, .moved:
            dispatchMove(message, from: peer, &effects)
        case .rebuild(let name, let report): takeReport(name, report, from: peer, &effects)
        case .masters(let names): takeMasters(names, from: peer)
        case .stagedMasters(let names):
            takeEntries(names, from: peer) { $0.stagedEntries.append(($1, peer)) }
        case .claimedMasters(let names):
            takeEntries(names, from: peer) { $0.claimedEntries.append(($1, peer)) }
        case .sent(let phase, let counts): takeSent(phase, counts, from: peer, &effects)
        case .expect(let phase, let count): takeExpect(phase, count, from: peer, &effects)
        case .reached(let phase): takeReached(phase, from: peer, &effects)
        case .proceed(let phase): takeProceed(phase, from: peer, &effects)
        default: dispatchDirectory(message, from: peer, &effects)
        }
    }

    private mutating func dispatchMove(
        _ message: LockMessage,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        switch message {
        case .moving(let name, let target) where name.depth == 0 && target != peer:
            takeMoving(name, to: target, from: peer, &effects)
        case .movingSeen(let name): takeMovingSeen(name, from: peer, &effects)
        case .transfer(let name, let things, let moves, let isLast):
            takeTransfer(name, things, moves: moves, isLast: isLast, from: peer, &effects)
        case .taken(let name): takeTaken(name, from: peer, &effects)
        case .moved(let name, let master): takeMoved(name, to: master, from: peer, &effects)
        default: counters.protocolErrors += 1
        }
    }

    private mutating func dispatchDirectory(
        _ message: LockMessage,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        if let name = message.directoryName, name.depth > 0 {
            counters.protocolErrors += 1
            return
        }
        switch message {
        case .lookup(let name, let denied):
            serveLookup(name, denied: denied, from: peer, &effects)
        case .lookupReply(let name, let master):
            lookupReply(name, master: master, from: peer, &effects)
        case .claim(let name): serveClaim(name, from: peer, &effects)
        case .claimReply(let name, let master):
            claimReply(name, master: master, from: peer, &effects)
        case .confirm(let name): serveConfirm(name, from: peer, &effects)
        case .confirmReply(let name, let isMaster):
            confirmReply(name, isMaster: isMaster, from: peer, &effects)
        case .disclaim(let name): serveDisclaim(name, from: peer, &effects)
        case .remove(let name): serveRemove(name, from: peer, &effects)
        case .entry(let name, let master):
            if directoryNode(name) == node && isMember(master) {
                enterMaster(name, master, &effects)
            } else {
                counters.protocolErrors += 1
            }
        case .entryIs(let name): takeEntryIs(name, &effects)
        default: counters.protocolErrors += 1
        }
    }
}

extension LockMessage {
    /// Whether a node takes it in the middle of a recovery: recovery's own messages, and the
    /// directory's, which recovery uses and which are rebuilt before anybody can ask.
    var belongsToRecovery: Bool {
        switch self {
        case .lookup, .lookupReply, .claim, .claimReply, .confirm, .confirmReply, .remove,
            .disclaim, .entry, .entryIs, .masters, .stagedMasters, .claimedMasters, .rebuild,
            .sent, .expect, .reached, .proceed:
            true
        case .request, .convert, .unlock, .cancel, .granted, .refused, .unlocked, .notMaster,
            .blocking, .handover, .purge, .seek, .chase, .cycle, .verify, .verified, .condemn,
            .condemned, .deadlocked, .moving, .movingSeen, .transfer, .taken, .moved:
            false
        }
    }

    /// The root that a question to the directory, or an answer of it, speaks of.
    var directoryName: ResourceName? {
        switch self {
        case .lookup(let name, _), .lookupReply(let name, _), .claim(let name),
            .claimReply(let name, _), .confirm(let name), .confirmReply(let name, _),
            .remove(let name), .disclaim(let name), .entry(let name, _), .entryIs(let name):
            name
        default: nil
        }
    }
}
