// Messages to bytes.

import LockCore
package import Vocabulary

/// Appends one message to `bytes`. `epoch`: of the sender's view.
package func encode(_ message: NodeMessage, epoch: Epoch, into bytes: inout [UInt8]) {
    let start = bytes.count
    bytes.append(integer: WireFormat.magic)
    bytes.append(WireFormat.version)
    bytes.append(0)
    bytes.append(integer: UInt16(0))
    bytes.append(integer: UInt32(0))
    bytes.append(integer: epoch.rawValue)
    let kind = bytes.append(payload: message)
    let length = bytes.count - start - WireFormat.headerLength
    precondition(length <= WireFormat.maximumPayload, "ClusterWire W2: a message too long")
    bytes[start + 5] = kind.rawValue
    for place in 0..<4 {
        bytes[start + 8 + place] = UInt8(truncatingIfNeeded: length >> (8 * place))
    }
}

extension [UInt8] {
    mutating func append(integer: some FixedWidthInteger) {
        var rest = integer.littleEndian
        Swift.withUnsafeBytes(of: &rest) { append(contentsOf: $0) }
    }

    mutating func append(name: ResourceName) {
        append(name.kind.rawValue)
        append(integer: name.number)
        append(integer: name.generation)
        append(name.depth)
        if name.depth > 0 { append(integer: name.part) }
        if name.depth > 1 { append(integer: name.subpart) }
    }

    mutating func append(_ name: ResourceName, _ lock: LockID) {
        append(name: name)
        append(integer: lock.rawValue)
    }

    mutating func append(value: SequencedValue?) {
        guard let value else {
            append(0)
            return
        }
        append(1)
        append(integer: value.value.word0)
        append(integer: value.value.word1)
        append(integer: value.value.word2)
        append(integer: value.value.word3)
        append(integer: value.sequence)
        append(value.isValid ? 1 : 0)
    }

    /// The bytes of a lock, if the resource is one whose locks have some.
    mutating func append(_ bytes: LockedBytes?, of name: ResourceName) {
        if name.kind.isOfBytes { append(bytes ?? .all) }
    }

    private mutating func append(_ bytes: LockedBytes) {
        append(integer: bytes.first)
        append(integer: bytes.last)
        append(integer: bytes.process)
    }

    private mutating func append(_ obstacle: LockObstacle?) {
        guard let obstacle else { return append(0) }
        append(1)
        append(integer: obstacle.node.rawValue)
        append(obstacle.mode.rawValue)
        append(obstacle.bytes)
    }

    fileprivate mutating func append(payload message: NodeMessage) -> WireKind {
        switch message {
        case .lock(let message): return append(lockMessage: message)
        case .replayed(let epoch):
            append(integer: epoch.rawValue)
            return .replayed
        case .goodbye: return .goodbye
        case .inquiry(let number, let bytes):
            append(integer: number)
            append(counted: bytes)
            return .inquiry
        case .report(let number, let part, let isLast, let bytes):
            append(integer: number)
            append(integer: part)
            append(isLast ? 1 : 0)
            append(counted: bytes)
            return .report
        case .askLastWrite(let number, let file, let takes):
            append(integer: number)
            append(integer: file.address.rawValue)
            append(integer: file.generation)
            append(takes ? 1 : 0)
            return .askLastWrite
        case .askAttributes(let number, let file):
            append(integer: number)
            append(integer: file.address.rawValue)
            append(integer: file.generation)
            return .askAttributes
        case .lastWrite(let number, let time):
            append(integer: number)
            append(time == nil ? 0 : 1)
            if let time { append(time: time) }
            return .lastWrite
        case .attributes(let number, let told):
            append(integer: number)
            append(told == nil ? 0 : 1)
            if let told { append(attributes: told) }
            return .attributes
        case .accessed(let file, let time):
            append(integer: file.address.rawValue)
            append(integer: file.generation)
            append(time: time)
            return .accessed
        case .freezes(let notice):
            append(integer: notice.node.rawValue)
            append(time: notice.since)
            append(integer: notice.seconds)
            return .freezes
        }
    }

    private mutating func append(time: Timestamp) {
        append(integer: UInt64(bitPattern: time.seconds))
        append(integer: time.nanoseconds)
    }

    private mutating func append(attributes told: GlimpsedAttributes) {
        for number in [told.mode, told.user, told.group, told.linkCount, told.device] {
            append(integer: number)
        }
        append(integer: told.size)
        append(integer: told.blockCount)
        for time in [told.accessed, told.modified, told.changed, told.born] { append(time: time) }
        append(told.hasExtendedAttributes ? 1 : 0)
    }

    private mutating func append(counted bytes: [UInt8]) {
        precondition(bytes.count <= WireFormat.maximumPayload, "ClusterWire W2: too many bytes")
        append(integer: UInt16(bytes.count))
        append(contentsOf: bytes)
    }

    private mutating func append(lockMessage message: LockMessage) -> WireKind {
        switch message {
        case .lookup(let name, let denied):
            append(name: name)
            append(integer: denied.rawValue)
            return .lookup
        case .lookupReply(let name, let master):
            append(name: name)
            append(integer: master.rawValue)
            return .lookupReply
        case .claim(let name):
            append(name: name)
            return .claim
        case .claimReply(let name, let master):
            append(name: name)
            append(integer: master.rawValue)
            return .claimReply
        case .confirm(let name):
            append(name: name)
            return .confirm
        case .confirmReply(let name, let isMaster):
            append(name: name)
            append(isMaster ? 1 : 0)
            return .confirmReply
        case .remove(let name):
            append(name: name)
            return .remove
        case .disclaim(let name):
            append(name: name)
            return .disclaim
        case .entry(let name, let master):
            append(name: name)
            append(integer: master.rawValue)
            return .entry
        case .entryIs(let name):
            append(name: name)
            return .entryIs
        default: return append(operation: message)
        }
    }

    private mutating func append(operation message: LockMessage) -> WireKind {
        switch message {
        case .request(let name, let lock, let owner, let mode, let flags, let bytes):
            append(name, lock)
            append(integer: owner.rawValue)
            append(mode.rawValue)
            append(integer: flags.rawValue)
            append(bytes, of: name)
            return .request
        case .convert(let name, let lock, let mode, let flags, let value):
            append(name, lock)
            append(mode.rawValue)
            append(integer: flags.rawValue)
            append(value: value)
            return .convert
        case .unlock(let name, let lock, let value):
            append(name, lock)
            append(value: value)
            return .unlock
        case .cancel(let name, let lock):
            append(name, lock)
            return .cancel
        case .granted(let name, let lock, let mode, let remarks, let value):
            append(name, lock)
            append(mode.rawValue)
            append(remarks.rawValue)
            append(value: value)
            return .granted
        case .refused(let name, let lock, let status, let remarks, let obstacle):
            append(name, lock)
            append(status.rawValue)
            append(remarks.rawValue)
            append(obstacle)
            return .refused
        case .unlocked(let name, let lock):
            append(name, lock)
            return .unlocked
        case .notMaster(let name, let lock):
            append(name, lock)
            return .notMaster
        case .blocking(let name, let lock, let wanted):
            append(name, lock)
            append(wanted.rawValue)
            return .blocking
        case .purge(let owner):
            append(integer: owner.rawValue)
            return .purge
        default: return append(search: message)
        }
    }

    private mutating func append(_ names: [ResourceName]) {
        precondition(
            names.count <= LockMessage.namesPerMessage,
            "ClusterWire W2: too many names"
        )
        append(integer: UInt16(names.count))
        for name in names { append(name: name) }
    }

    mutating func append(recovery message: LockMessage) -> WireKind {
        switch message {
        case .handover(let name, let value):
            append(name: name)
            append(value: value)
            return .handover
        case .masters(let names):
            append(names)
            return .masters
        case .claimedMasters(let names):
            append(names)
            return .claimedMasters
        case .stagedMasters(let names):
            append(names)
            return .stagedMasters
        case .rebuild(let name, let report):
            append(name, report.lock)
            append(report.state.rawValue)
            append(report.granted.rawValue)
            append(report.requested.rawValue)
            append(integer: report.flags.rawValue)
            append(integer: report.owner.rawValue)
            append(report.isVouched ? 1 : 0)
            append(value: report.value)
            append(report.bytes, of: name)
            return .rebuild
        case .sent(let phase, let counts):
            precondition(
                counts.count <= LockMessage.mostMembers,
                "ClusterWire W2: too many counts"
            )
            append(phase.rawValue)
            append(integer: UInt16(counts.count))
            for entry in counts {
                append(integer: entry.node.rawValue)
                append(integer: entry.count)
            }
            return .sent
        case .expect(let phase, let count):
            append(phase.rawValue)
            append(integer: count)
            return .expect
        case .reached(let phase):
            append(phase.rawValue)
            return .reached
        case .proceed(let phase):
            append(phase.rawValue)
            return .proceed
        default: preconditionFailure("ClusterWire W1: a message without an encoding")
        }
    }
}
