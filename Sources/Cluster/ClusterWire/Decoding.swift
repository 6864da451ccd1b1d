// Bytes to messages. The only file here that reads raw memory.

import LockCore
import Vocabulary

/// Decodes the message at the start of `bytes`; more may follow it. Throws without having read
/// outside.
package func decodeMessage(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> DecodedMessage {
    var header = WireReader(bytes)
    let magic = try header.integer(UInt32.self)
    if magic != WireFormat.magic { throw .badMagic(magic) }
    let version = try header.byte()
    if version != WireFormat.version { throw .unsupportedVersion(version) }
    let kindNumber = try header.byte()
    if try header.integer(UInt16.self) != 0 { throw .badValue(.reserved) }
    let length = Int(try header.integer(UInt32.self))
    let epoch = Epoch(try header.integer(UInt64.self))
    guard let kind = WireKind(rawValue: kindNumber) else { throw .unknownKind(kindNumber) }
    if length > WireFormat.maximumPayload { throw .badLength(length) }
    let end = WireFormat.headerLength + length
    if bytes.count < end { throw .truncated(needed: end, found: bytes.count) }
    var payload = WireReader(
        UnsafeRawBufferPointer(rebasing: bytes[WireFormat.headerLength..<end])
    )
    let message = try payload.message(kind)
    if payload.remaining != 0 { throw .badLength(length) }
    return DecodedMessage(message: message, epoch: epoch, byteCount: end)
}

/// Reads fields in order, each checked.
struct WireReader {
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var remaining: Int { bytes.count - offset }

    mutating func integer<Integer: FixedWidthInteger>(
        _: Integer.Type
    ) throws(WireError) -> Integer {
        let size = MemoryLayout<Integer>.size
        if remaining < size { throw .truncated(needed: offset + size, found: bytes.count) }
        defer { offset += size }
        return Integer(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Integer.self))
    }

    mutating func byte() throws(WireError) -> UInt8 { try integer(UInt8.self) }

    mutating func boolean() throws(WireError) -> Bool {
        switch try byte() {
        case 0: return false
        case 1: return true
        default: throw .badValue(.boolean)
        }
    }

    mutating func name() throws(WireError) -> ResourceName {
        guard let kind = ResourceKind(rawValue: try byte()) else { throw .badValue(.resourceKind) }
        let number = try integer(UInt64.self)
        let root = ResourceName(
            kind: kind,
            number: number,
            generation: try integer(UInt64.self)
        )
        switch try byte() {
        case 0: return root
        case 1: return root.child(try integer(UInt64.self))
        case 2: return root.child(try integer(UInt64.self)).child(try integer(UInt64.self))
        default: throw .badValue(.depth)
        }
    }

    mutating func node() throws(WireError) -> NodeID {
        let node = NodeID(try integer(UInt32.self))
        if node == .none { throw .badValue(.node) }
        return node
    }

    mutating func lock() throws(WireError) -> LockID { LockID(try integer(UInt64.self)) }

    mutating func mode() throws(WireError) -> LockMode {
        guard let mode = LockMode(rawValue: try byte()) else { throw .badValue(.mode) }
        return mode
    }

    mutating func flags() throws(WireError) -> LockFlags {
        let flags = LockFlags(rawValue: try integer(UInt32.self))
        if !LockFlags.known.isSuperset(of: flags) { throw .badValue(.flags) }
        return flags
    }

    private mutating func remarks() throws(WireError) -> LockRemarks {
        let remarks = LockRemarks(rawValue: try byte())
        if !LockRemarks.known.isSuperset(of: remarks) { throw .badValue(.remarks) }
        return remarks
    }

    private mutating func phase() throws(WireError) -> RecoveryPhase {
        guard let phase = RecoveryPhase(rawValue: try byte()) else { throw .badValue(.phase) }
        return phase
    }

    mutating func value() throws(WireError) -> SequencedValue? {
        if try !boolean() { return nil }
        let word0 = try integer(UInt64.self)
        let word1 = try integer(UInt64.self)
        let word2 = try integer(UInt64.self)
        let word3 = try integer(UInt64.self)
        let sequence = try integer(UInt64.self)
        return SequencedValue(
            value: ValueBlock(word0, word1, word2, word3),
            sequence: sequence,
            isValid: try boolean()
        )
    }

    /// The bytes of a lock, if the resource is one whose locks have some.
    mutating func bytes(of name: ResourceName) throws(WireError) -> LockedBytes? {
        name.kind.isOfBytes ? try lockedBytes() : nil
    }

    private mutating func lockedBytes() throws(WireError) -> LockedBytes {
        let first = try integer(UInt64.self)
        let last = try integer(UInt64.self)
        if first > last { throw .badValue(.range) }
        return LockedBytes(first: first, last: last, process: try integer(UInt32.self))
    }

    private mutating func obstacle() throws(WireError) -> LockObstacle? {
        if try !boolean() { return nil }
        let node = try node()
        let mode = try mode()
        return LockObstacle(node: node, mode: mode, bytes: try lockedBytes())
    }

    /// A count of bytes, and the bytes.
    private mutating func counted() throws(WireError) -> [UInt8] {
        let count = Int(try integer(UInt16.self))
        if remaining < count { throw .truncated(needed: offset + count, found: bytes.count) }
        defer { offset += count }
        return [UInt8](bytes[offset..<offset + count])
    }

    private mutating func names() throws(WireError) -> [ResourceName] {
        let count = Int(try integer(UInt16.self))
        // Checked before anything is allocated (W2).
        if count > LockMessage.namesPerMessage { throw .badValue(.count) }
        if remaining < count * 18 { throw .badLength(remaining) }
        var names: [ResourceName] = []
        names.reserveCapacity(count)
        for _ in 0..<count { names.append(try name()) }
        return names
    }

    private mutating func counts() throws(WireError) -> [MessageCount] {
        let count = Int(try integer(UInt16.self))
        if count > LockMessage.mostMembers { throw .badValue(.count) }
        if remaining != count * 8 { throw .badLength(remaining) }
        var counts: [MessageCount] = []
        counts.reserveCapacity(count)
        for _ in 0..<count {
            let node = try node()
            counts.append(MessageCount(node: node, count: try integer(UInt32.self)))
        }
        return counts
    }

    private mutating func report(_ name: ResourceName) throws(WireError) -> RebuiltLock {
        let lock = try lock()
        guard let state = RebuiltLock.State(rawValue: try byte()) else { throw .badValue(.state) }
        let granted = try mode()
        let requested = try mode()
        let flags = try flags()
        let owner = LockOwner(try integer(UInt32.self))
        let isVouched = try boolean()
        return RebuiltLock(
            lock: lock,
            state: state,
            granted: granted,
            requested: requested,
            flags: flags,
            owner: owner,
            value: try value(),
            isVouched: isVouched,
            bytes: try bytes(of: name)
        )
    }

    private mutating func time() throws(WireError) -> Timestamp {
        let seconds = Int64(bitPattern: try integer(UInt64.self))
        let nanoseconds = try integer(UInt32.self)
        guard nanoseconds < 1_000_000_000 else { throw .badValue(.time) }
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    mutating func message(_ kind: WireKind) throws(WireError) -> NodeMessage {
        switch kind {
        case .replayed: return .replayed(Epoch(try integer(UInt64.self)))
        case .goodbye: return .goodbye
        case .sent:
            let phase = try phase()
            return .lock(.sent(phase, try counts()))
        case .expect:
            let phase = try phase()
            return .lock(.expect(phase, try integer(UInt32.self)))
        case .inquiry:
            let number = try integer(UInt32.self)
            return .inquiry(number, try counted())
        case .report:
            let number = try integer(UInt32.self)
            let part = try integer(UInt32.self)
            let isLast = try boolean()
            return .report(number, part: part, isLast: isLast, try counted())
        case .askLastWrite:
            let number = try integer(UInt32.self)
            let address = BlockAddress(try integer(UInt64.self))
            let file = InodeNumber(address: address, generation: try integer(UInt64.self))
            return .askLastWrite(number, file, takes: try boolean())
        case .lastWrite:
            let number = try integer(UInt32.self)
            return .lastWrite(number, try boolean() ? try time() : nil)
        case .askAttributes:
            let number = try integer(UInt32.self)
            let address = BlockAddress(try integer(UInt64.self))
            let file = InodeNumber(address: address, generation: try integer(UInt64.self))
            return .askAttributes(number, file)
        case .attributes:
            let number = try integer(UInt32.self)
            return .attributes(number, try boolean() ? try glimpsedAttributes() : nil)
        case .accessed:
            let address = BlockAddress(try integer(UInt64.self))
            let file = InodeNumber(address: address, generation: try integer(UInt64.self))
            return .accessed(file, try time())
        case .freezes:
            let node = try node()
            let since = try time()
            return .freezes(
                FreezeNotice(node: node, since: since, seconds: try integer(UInt32.self))
            )
        case .reached: return .lock(.reached(try phase()))
        case .proceed: return .lock(.proceed(try phase()))
        case .masters: return .lock(.masters(try names()))
        case .claimedMasters: return .lock(.claimedMasters(try names()))
        case .stagedMasters: return .lock(.stagedMasters(try names()))
        case .purge: return .lock(.purge(LockOwner(try integer(UInt32.self))))
        case .chase, .cycle, .verify, .verified, .condemn, .condemned:
            return .lock(try searchMessage(kind))
        default: return .lock(try namedMessage(kind, try name()))
        }
    }

    private mutating func glimpsedAttributes() throws(WireError) -> GlimpsedAttributes {
        GlimpsedAttributes(
            mode: try integer(UInt32.self),
            user: try integer(UInt32.self),
            group: try integer(UInt32.self),
            linkCount: try integer(UInt32.self),
            device: try integer(UInt32.self),
            size: try integer(UInt64.self),
            blockCount: try integer(UInt64.self),
            accessed: try time(),
            modified: try time(),
            changed: try time(),
            born: try time(),
            hasExtendedAttributes: try boolean()
        )
    }

    private mutating func namedMessage(
        _ kind: WireKind,
        _ name: ResourceName
    ) throws(WireError) -> LockMessage {
        switch kind {
        case .lookup: return .lookup(name, denied: NodeID(try integer(UInt32.self)))
        case .lookupReply: return .lookupReply(name, master: try node())
        case .claim: return .claim(name)
        case .claimReply: return .claimReply(name, master: try node())
        case .confirm: return .confirm(name)
        case .confirmReply: return .confirmReply(name, isMaster: try boolean())
        case .remove: return .remove(name)
        case .disclaim: return .disclaim(name)
        case .entry: return .entry(name, master: try node())
        case .entryIs: return .entryIs(name)
        case .moving: return .moving(name, to: try node())
        case .movingSeen: return .movingSeen(name)
        case .transfer: return try transfer(name)
        case .taken: return .taken(name)
        case .moved: return .moved(name, to: try node())
        case .handover:
            guard let value = try value() else { throw .badValue(.boolean) }
            return .handover(name, value: value)
        case .rebuild: return .rebuild(name, try report(name))
        default: return try lockMessage(kind, name, try lock())
        }
    }

    private mutating func lockMessage(
        _ kind: WireKind,
        _ name: ResourceName,
        _ lock: LockID
    ) throws(WireError) -> LockMessage {
        switch kind {
        case .request:
            let owner = LockOwner(try integer(UInt32.self))
            let mode = try mode()
            let flags = try flags()
            return .request(
                name,
                lock: lock,
                owner: owner,
                mode: mode,
                flags: flags,
                bytes: try bytes(of: name)
            )
        case .convert:
            let mode = try mode()
            let flags = try flags()
            return .convert(name, lock: lock, mode: mode, flags: flags, value: try value())
        case .unlock: return .unlock(name, lock: lock, value: try value())
        case .cancel: return .cancel(name, lock: lock)
        case .granted:
            let mode = try mode()
            let remarks = try remarks()
            return .granted(
                name,
                lock: lock,
                mode: mode,
                remarks: remarks,
                value: try value()
            )
        case .refused:
            guard let status = LockStatus(rawValue: try byte()) else { throw .badValue(.status) }
            let remarks = try remarks()
            return .refused(
                name,
                lock: lock,
                status: status,
                remarks: remarks,
                obstacle: try obstacle()
            )
        case .unlocked: return .unlocked(name, lock: lock)
        case .notMaster: return .notMaster(name, lock: lock)
        case .blocking: return .blocking(name, lock: lock, wanted: try mode())
        case .seek:
            let waited = try integer(UInt32.self)
            return .seek(name, lock: lock, waited: waited, try probe())
        case .deadlocked: return .deadlocked(name, lock: lock, try hops())
        default: throw .unknownKind(kind.rawValue)
        }
    }
}
