// A message written down for comparison of states: see Fingerprint.swift. The switches are
// exhaustive, so that a new message has to be added.

package import Vocabulary

extension LockMessage {
    /// Writes the message down. A lock's name is always its holder's: the sender of what goes to a
    /// master, the receiver of what comes from one (F3).
    package func encodeState(
        from sender: NodeID,
        to receiver: NodeID,
        into encoder: inout StateEncoder
    ) {
        switch self {
        case .request(let name, let lock, let owner, let mode, let flags, let bytes):
            encoder.begin(20, name, lock, sender)
            encoder.add(UInt64(mode.rawValue) | UInt64(flags.rawValue) << 8)
            encoder.add(UInt64(owner.rawValue))
            encoder.add(bytes)
        case .convert(let name, let lock, let mode, let flags, let value):
            encoder.begin(21, name, lock, sender)
            encoder.add(UInt64(mode.rawValue) | UInt64(flags.rawValue) << 8)
            encoder.add(value)
        case .unlock(let name, let lock, let value):
            encoder.begin(22, name, lock, sender)
            encoder.add(value)
        case .cancel(let name, let lock): encoder.begin(23, name, lock, sender)
        case .granted(let name, let lock, let mode, let remarks, let value):
            encoder.begin(30, name, lock, receiver)
            encoder.add(UInt64(mode.rawValue) | UInt64(remarks.rawValue) << 8)
            encoder.add(value)
        case .refused(let name, let lock, let status, let remarks, let obstacle):
            encoder.begin(31, name, lock, receiver)
            encoder.add(UInt64(status.rawValue) | UInt64(remarks.rawValue) << 8)
            encoder.add(obstacle?.bytes)
        case .unlocked(let name, let lock): encoder.begin(32, name, lock, receiver)
        case .notMaster(let name, let lock): encoder.begin(33, name, lock, receiver)
        case .blocking(let name, let lock, let wanted):
            encoder.begin(34, name, lock, receiver)
            encoder.add(UInt64(wanted.rawValue))
        case .rebuild(let name, let report):
            encoder.begin(41, name, report.lock, sender)
            report.encodeState(into: &encoder)
        case .seek, .chase, .cycle, .verify, .verified, .condemn, .condemned, .deadlocked:
            encodeSearch(into: &encoder)
        case .moving, .movingSeen, .transfer, .taken, .moved: encodeMove(into: &encoder)
        case .lookup, .lookupReply, .claim, .claimReply, .confirm, .confirmReply, .remove,
            .disclaim, .entry,
            .entryIs, .handover, .purge, .masters, .stagedMasters, .claimedMasters, .sent, .expect,
            .reached, .proceed:
            encodeNames(into: &encoder)
        }
    }

    private func encodeNames(into encoder: inout StateEncoder) {
        switch self {
        case .lookup(let name, let denied):
            encoder.begin(1, name)
            encoder.add(UInt64(denied.rawValue))
        case .entry(let name, let master):
            encoder.begin(8, name)
            encoder.add(UInt64(master.rawValue))
        case .entryIs(let name): encoder.begin(9, name)
        case .purge(let owner): encoder.add(380 + UInt64(owner.rawValue) << 16)
        case .stagedMasters(let names), .claimedMasters(let names):
            if case .stagedMasters = self { encoder.add(45) } else { encoder.add(46) }
            encoder.add(names.count)
            for name in names.sorted() { encoder.add(name) }
        case .lookupReply(let name, let master):
            encoder.begin(2, name)
            encoder.add(UInt64(master.rawValue))
        case .claim(let name): encoder.begin(3, name)
        case .claimReply(let name, let master):
            encoder.begin(4, name)
            encoder.add(UInt64(master.rawValue))
        case .confirm(let name): encoder.begin(5, name)
        case .confirmReply(let name, let isMaster):
            encoder.begin(6, name)
            encoder.add(isMaster)
        case .remove(let name): encoder.begin(7, name)
        case .disclaim(let name): encoder.begin(10, name)
        case .handover(let name, let value):
            encoder.begin(35, name)
            encoder.add(value)
        case .masters(let names):
            encoder.add(40)
            encoder.add(names.count)
            // The receiver enters them one by one: their order means nothing.
            for name in names.sorted() { encoder.add(name) }
        case .sent(let phase, let counts):
            encoder.add(420 + UInt64(phase.rawValue))
            encoder.add(counts.count)
            for entry in counts {
                encoder.add(UInt64(entry.node.rawValue) << 32 | UInt64(entry.count))
            }
        case .expect(let phase, let count):
            encoder.add(425 + UInt64(phase.rawValue))
            encoder.add(UInt64(count))
        case .reached(let phase): encoder.add(430 + UInt64(phase.rawValue))
        case .proceed(let phase): encoder.add(440 + UInt64(phase.rawValue))
        default: preconditionFailure("LockCore: a message with a lock is written down above")
        }
    }

    private func encodeMove(into encoder: inout StateEncoder) {
        switch self {
        case .moving(let name, let target):
            encoder.begin(60, name)
            encoder.add(UInt64(target.rawValue))
        case .movingSeen(let name): encoder.begin(61, name)
        case .transfer(let name, let things, _, let isLast):
            encoder.begin(62, name)
            encoder.add(things)
            encoder.add(isLast)
        case .taken(let name): encoder.begin(63, name)
        case .moved(let name, let master):
            encoder.begin(64, name)
            encoder.add(UInt64(master.rawValue))
        default: preconditionFailure("LockCore: not a message of a move")
        }
    }

    /// With names as they are: states that differ in them only count twice (F5).
    private func encodeSearch(into encoder: inout StateEncoder) {
        for byte in "\(self)".utf8 { encoder.add(UInt64(byte)) }
    }
}

extension RebuiltLock {
    fileprivate func encodeState(into encoder: inout StateEncoder) {
        let isAsked = state == .waiting || state == .converting
        let lasting: LockFlags = isAsked ? .known : [.persistent]
        encoder.add(UInt64(flags.intersection(lasting).rawValue) | UInt64(owner.rawValue) << 32)
        encoder.add(
            UInt64(state.rawValue) | UInt64(granted.rawValue) << 8
                | UInt64(requested.rawValue) << 16
        )
        encoder.add(value)
        encoder.add(isVouched)
    }
}

extension StateEncoder {
    fileprivate mutating func begin(_ tag: UInt64, _ name: ResourceName) {
        add(tag)
        add(name)
    }

    fileprivate mutating func begin(
        _ tag: UInt64,
        _ name: ResourceName,
        _ lock: LockID,
        _ holder: NodeID
    ) {
        begin(tag, name)
        refer(to: lock, of: holder)
    }
}
