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
        case .request(let name, let lock, let mode, let flags):
            encoder.begin(20, name, lock, sender)
            encoder.add(UInt64(mode.rawValue) | UInt64(flags.rawValue) << 8)
        case .convert(let name, let lock, let mode, let flags, let value):
            encoder.begin(21, name, lock, sender)
            encoder.add(UInt64(mode.rawValue) | UInt64(flags.rawValue) << 8)
            encoder.add(value)
        case .unlock(let name, let lock, let value):
            encoder.begin(22, name, lock, sender)
            encoder.add(value)
        case .cancel(let name, let lock): encoder.begin(23, name, lock, sender)
        case .granted(let name, let lock, let mode, let value):
            encoder.begin(30, name, lock, receiver)
            encoder.add(UInt64(mode.rawValue))
            encoder.add(value)
        case .refused(let name, let lock, let status):
            encoder.begin(31, name, lock, receiver)
            encoder.add(UInt64(status.rawValue))
        case .unlocked(let name, let lock): encoder.begin(32, name, lock, receiver)
        case .notMaster(let name, let lock): encoder.begin(33, name, lock, receiver)
        case .blocking(let name, let lock, let wanted):
            encoder.begin(34, name, lock, receiver)
            encoder.add(UInt64(wanted.rawValue))
        case .rebuild(let name, let report):
            encoder.begin(41, name, report.lock, sender)
            report.encodeState(into: &encoder)
        case .lookup, .lookupReply, .claim, .claimReply, .confirm, .confirmReply, .remove,
            .handover, .masters, .marker, .reached, .proceed:
            encodeNames(into: &encoder)
        }
    }

    private func encodeNames(into encoder: inout StateEncoder) {
        switch self {
        case .lookup(let name): encoder.begin(1, name)
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
        case .handover(let name, let value):
            encoder.begin(35, name)
            encoder.add(value)
        case .masters(let names):
            encoder.add(40)
            encoder.add(names.count)
            // The receiver enters them one by one: their order means nothing.
            for name in names.sorted() { encoder.add(name) }
        case .marker(let phase): encoder.add(420 + UInt64(phase.rawValue))
        case .reached(let phase): encoder.add(430 + UInt64(phase.rawValue))
        case .proceed(let phase): encoder.add(440 + UInt64(phase.rawValue))
        case .request, .convert, .unlock, .cancel, .granted, .refused, .unlocked, .notMaster,
            .blocking, .rebuild:
            preconditionFailure("LockCore: a message with a lock is written down above")
        }
    }
}

extension RebuiltLock {
    fileprivate func encodeState(into encoder: inout StateEncoder) {
        let isAsked = state == .waiting || state == .converting
        encoder.add(isAsked ? UInt64(flags.rawValue) : 0)
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
