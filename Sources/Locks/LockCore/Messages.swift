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
        if messageEpoch < epoch {
            counters.staleMessages += 1
            return
        }
        if messageEpoch > epoch || (status != .running && !message.belongsToRecovery) {
            counters.heldMessages += 1
            held.append(HeldMessage(message: message, sender: peer, epoch: messageEpoch))
            return
        }
        guard peer != node && isMember(peer) else {
            counters.protocolErrors += 1
            return
        }
        dispatch(message, from: peer, &effects)
    }

    /// Takes the held messages again; those that are still early are held again, in order.
    mutating func receiveHeld(_ effects: inout [LockEffect]) {
        let early = held
        held = []
        for entry in early {
            receive(entry.message, from: entry.sender, epoch: entry.epoch, effects: &effects)
        }
    }

    private mutating func dispatch(
        _ message: LockMessage,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        switch message {
        case .request(let name, let lock, let mode, let flags):
            serveRequest(name, lock, mode, flags, from: peer, &effects)
        case .convert(let name, let lock, let mode, let flags, let value):
            serveConversion(name, lock, mode, flags, value, from: peer, &effects)
        case .unlock(let name, let lock, let value):
            serveUnlock(name, lock, value, from: peer, &effects)
        case .cancel(let name, let lock): serveCancel(name, lock, from: peer, &effects)
        case .granted(let name, let lock, let mode, let value):
            granted(name, lock, mode, value, from: peer, &effects)
        case .refused(let name, let lock, let status):
            refused(name, lock, status, from: peer, &effects)
        case .unlocked(let name, let lock): unlocked(name, lock, from: peer, &effects)
        case .notMaster(let name, let lock): notMaster(name, lock, from: peer, &effects)
        case .blocking(let name, let lock, let wanted):
            blocking(name, lock, wanted, from: peer, &effects)
        case .handover(let name, let value): takeHandover(name, value, from: peer)
        default: dispatchDirectory(message, from: peer, &effects)
        }
    }

    private mutating func dispatchDirectory(
        _ message: LockMessage,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        switch message {
        case .lookup(let name): serveLookup(name, from: peer, &effects)
        case .lookupReply(let name, let master):
            lookupReply(name, master: master, from: peer, &effects)
        case .claim(let name): serveClaim(name, from: peer, &effects)
        case .claimReply(let name, let master):
            claimReply(name, master: master, from: peer, &effects)
        case .confirm(let name): serveConfirm(name, from: peer, &effects)
        case .confirmReply(let name, let isMaster):
            confirmReply(name, isMaster: isMaster, from: peer, &effects)
        case .remove(let name): serveRemove(name, from: peer, &effects)
        case .masters(let names): takeMasters(names, from: peer)
        case .rebuild(let name, let report): takeReport(name, report, from: peer, &effects)
        case .marker(let phase): takeMarker(phase, from: peer, &effects)
        case .reached(let phase): takeReached(phase, from: peer, &effects)
        case .proceed(let phase): takeProceed(phase, from: peer, &effects)
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
            .masters, .rebuild, .marker, .reached, .proceed:
            true
        case .request, .convert, .unlock, .cancel, .granted, .refused, .unlocked, .notMaster,
            .blocking, .handover:
            false
        }
    }
}
