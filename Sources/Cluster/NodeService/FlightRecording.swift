// A recording outside the recorder: header, records, checksum; from bytes and to bytes. The format
// is in Docs/OBSERVATION.md. Whatever the bytes are, reading returns a recording or throws.

import CChecksum
import ClusterWire
package import LockCore
package import Vocabulary

/// Why bytes are no recording.
package enum FlightError: Error, Hashable, Sendable, CustomStringConvertible {
    case notARecording
    case otherVersion(UInt16)
    case damaged
    /// A record that means nothing, at this byte.
    case badRecord(at: Int)

    package var description: String {
        switch self {
        case .notARecording: "is not a recording"
        case .otherVersion(let version):
            "is a recording of version \(version); this program reads version \(FlightFormat.version)"
        case .damaged: "is damaged: its checksum or its length is wrong"
        case .badRecord(let place): "has a record at byte \(place) that is not understood"
        }
    }
}

/// One thing that went into a lockspace.
package enum FlightEvent: Hashable, Sendable {
    case request(
        ResourceName,
        LockMode,
        LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        patience: UInt32,
        bytes: LockedBytes?
    )
    case convert(LockID, LockMode, LockFlags, ValueBlock?)
    case unlock(LockID, LockFlags, ValueBlock?)
    case cancel(LockID)
    case ownerIsGone(LockOwner)
    case purgeOrphans(of: NodeID, LockOwner)
    case message(LockMessage, from: NodeID, Epoch)
    /// A peer said that the journals of this epoch are replayed, or this node did it.
    case journalsReplayed(Epoch, from: NodeID)
    case view(ClusterView)
    case leave
    case tick
    /// Nothing went in.
    case malformed(from: NodeID)
}

/// One record.
package struct FlightRecord: Hashable, Sendable {
    /// The engine's clock, in nanoseconds.
    package var tick: UInt64
    /// How many effects it had; `UInt16.max` stands for more too.
    package var effects: Int
    package var event: FlightEvent
}

/// What a node recorded.
package struct FlightRecording: Hashable, Sendable {
    package var node: NodeID
    package var incarnation: UInt64
    package var settings: LockSettings
    /// The first record is the first thing that ever went into the lockspace (R3).
    package var isWhole: Bool
    /// When it was taken, by the engine's clock and by the calendar.
    package var tick: UInt64
    package var civilTime: Timestamp
    /// Of the lockspace when it was taken; only if it is whole.
    package var digest: UInt64
    package var records: [FlightRecord]

    /// Reads a recording.
    package init(_ bytes: [UInt8]) throws(FlightError) {
        let result = bytes.withUnsafeBytes { raw -> Result<FlightRecording, FlightError> in
            do throws(FlightError) { return .success(try FlightRecording(raw)) } catch {
                return .failure(error)
            }
        }
        self = try result.get()
    }

    private init(_ bytes: UnsafeRawBufferPointer) throws(FlightError) {
        let reader = FlightReader(bytes: bytes)
        let length = FlightFormat.headerLength
        guard bytes.count >= length + 4, reader.u32(0) == FlightFormat.magic else {
            throw .notARecording
        }
        guard reader.u16(4) == FlightFormat.version else { throw .otherVersion(reader.u16(4)) }
        let size = reader.u64(24)
        guard size == UInt64(bytes.count - length - 4),
            let base = bytes.baseAddress,
            reader.u32(bytes.count - 4) == lockstep_crc32c(0, base, bytes.count - 4)
        else { throw .damaged }
        isWhole = reader.u16(6) & 1 != 0
        node = NodeID(reader.u32(8))
        incarnation = reader.u64(16)
        tick = reader.u64(32)
        civilTime = Timestamp(
            seconds: Int64(bitPattern: reader.u64(40)),
            nanoseconds: reader.u32(48)
        )
        digest = reader.u64(56)
        settings = LockSettings()
        settings.deadlockWait = reader.u32(64)
        settings.activityInterval = reader.u32(68)
        settings.leastActivity = reader.u32(72)
        settings.clearlyMore = reader.u32(76)
        settings.largestMove = Int(reader.u32(80))
        settings.mostMoves = Int(reader.u32(84))
        settings.restAfterMove = reader.u32(88)
        settings.cachedMasters = Int(reader.u32(92))
        records = []
        guard node != .none else { throw .notARecording }
        var place = length
        while place < bytes.count - 4 {
            let (record, next) = try reader.record(at: place, end: bytes.count - 4)
            records.append(record)
            place = next
        }
    }

    /// The bytes of a recording, of a recorder's records.
    static func bytes(
        _ recorder: FlightRecorder,
        node: NodeID,
        incarnation: UInt64,
        settings: LockSettings,
        tick: UInt64,
        civilTime: Timestamp,
        digest: UInt64
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(recorder.byteCount + FlightFormat.headerLength + 4)
        bytes.append(number: FlightFormat.magic)
        bytes.append(number: FlightFormat.version)
        bytes.append(number: UInt16(recorder.hasWrapped ? 0 : 1))
        bytes.append(number: node.rawValue)
        bytes.append(number: UInt32(0))
        bytes.append(number: incarnation)
        bytes.append(number: UInt64(0))  // the length of the records, below
        bytes.append(number: tick)
        bytes.append(number: civilTime.seconds)
        bytes.append(number: civilTime.nanoseconds)
        bytes.append(number: UInt32(0))
        bytes.append(number: digest)
        for number in [
            settings.deadlockWait, settings.activityInterval, settings.leastActivity,
            settings.clearlyMore, UInt32(clamping: settings.largestMove),
            UInt32(clamping: settings.mostMoves), settings.restAfterMove,
            UInt32(clamping: settings.cachedMasters),
        ] {
            bytes.append(number: number)
        }
        while bytes.count < FlightFormat.headerLength { bytes.append(0) }
        recorder.appendRecords(to: &bytes)
        var length = UInt64(bytes.count - FlightFormat.headerLength)
        for place in 24..<32 {
            bytes[place] = UInt8(truncatingIfNeeded: length)
            length >>= 8
        }
        let checksum = bytes.withUnsafeBytes { raw -> UInt32 in
            guard let base = raw.baseAddress else { return 0 }
            return lockstep_crc32c(0, base, raw.count)
        }
        bytes.append(number: checksum)
        return bytes
    }
}

extension [UInt8] {
    fileprivate mutating func append(number: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: number.littleEndian) { append(contentsOf: $0) }
    }
}

/// Reads records; the caller has checked that the header is there.
private struct FlightReader {
    let bytes: UnsafeRawBufferPointer

    func u16(_ place: Int) -> UInt16 { number(place) }

    func u32(_ place: Int) -> UInt32 { number(place) }

    func u64(_ place: Int) -> UInt64 { number(place) }

    private func number<Number: FixedWidthInteger>(_ place: Int) -> Number {
        Number(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: Number.self))
    }

    func record(at place: Int, end: Int) throws(FlightError) -> (FlightRecord, next: Int) {
        guard end - place >= FlightFormat.recordHeader else { throw .badRecord(at: place) }
        let size = Int(u32(place))
        guard size >= FlightFormat.recordHeader, size <= end - place, size % 8 == 0,
            let kind = FlightKind(rawValue: bytes[place + 4]), bytes[place + 5] == 0
        else { throw .badRecord(at: place) }
        let body = place + FlightFormat.recordHeader
        guard let event = event(kind, body, size - FlightFormat.recordHeader) else {
            throw .badRecord(at: place)
        }
        let record = FlightRecord(tick: u64(place + 8), effects: Int(u16(place + 6)), event: event)
        return (record, place + size)
    }

    private func event(_ kind: FlightKind, _ place: Int, _ count: Int) -> FlightEvent? {
        switch kind {
        case .request: return request(place, count)
        case .convert, .unlock: return operation(kind, place, count)
        case .message: return message(place, count)
        case .view: return view(place, count)
        default: break
        }
        guard count == 16 else { return nil }
        let (first, second) = (u64(place), u64(place + 8))
        switch kind {
        case .cancel: return .cancel(LockID(first))
        case .ownerIsGone: return .ownerIsGone(LockOwner(UInt32(clamping: first)))
        case .purgeOrphans:
            return .purgeOrphans(
                of: NodeID(UInt32(clamping: first)),
                LockOwner(UInt32(clamping: second))
            )
        case .journalsReplayed:
            return .journalsReplayed(Epoch(first), from: NodeID(UInt32(clamping: second)))
        case .leave: return .leave
        case .tick: return .tick
        case .malformed: return .malformed(from: NodeID(UInt32(clamping: first)))
        case .request, .convert, .unlock, .message, .view: return nil
        }
    }

    private func request(_ place: Int, _ count: Int) -> FlightEvent? {
        guard count == 72 || count == 96,
            let kind = ResourceKind(rawValue: UInt8(clamping: u32(place))),
            u32(place + 4) <= UInt32(ResourceName.deepest)
        else { return nil }
        var name = ResourceName(kind: kind, number: u64(place + 8), generation: u64(place + 16))
        if u32(place + 4) > 0 { name = name.child(u64(place + 24)) }
        if u32(place + 4) > 1 { name = name.child(u64(place + 32)) }
        let rest = place + FlightFormat.nameLength
        guard let mode = LockMode(rawValue: UInt8(clamping: u32(rest + 28))) else { return nil }
        var bytes: LockedBytes?
        if count == 96 {
            guard u64(rest + 32) <= u64(rest + 40) else { return nil }
            bytes = LockedBytes(
                first: u64(rest + 32),
                last: u64(rest + 40),
                process: u32(rest + 48)
            )
        }
        return .request(
            name,
            mode,
            LockFlags(rawValue: u32(rest + 16)),
            cookie: u64(rest),
            owner: LockOwner(u32(rest + 20)),
            parent: LockID(u64(rest + 8)),
            patience: u32(rest + 24),
            bytes: bytes
        )
    }

    private func operation(_ kind: FlightKind, _ place: Int, _ count: Int) -> FlightEvent? {
        guard count == 16 || count == 48,
            let mode = LockMode(rawValue: UInt8(clamping: u32(place + 12)))
        else { return nil }
        let flags = LockFlags(rawValue: u32(place + 8))
        let value: ValueBlock? =
            count == 16
            ? nil
            : ValueBlock(
                u64(place + 16),
                u64(place + 24),
                u64(place + 32),
                u64(place + 40)
            )
        let lock = LockID(u64(place))
        return kind == .convert
            ? .convert(lock, mode, flags, value) : .unlock(lock, flags, value)
    }

    private func message(_ place: Int, _ count: Int) -> FlightEvent? {
        guard count >= 8, case let length = Int(u32(place + 4)), length <= count - 8 else {
            return nil
        }
        let raw = UnsafeRawBufferPointer(rebasing: bytes[place + 8..<place + 8 + length])
        let sender = NodeID(u32(place))
        do throws(WireError) {
            let decoded = try decodeMessage(raw)
            switch decoded.message {
            case .lock(let message): return .message(message, from: sender, decoded.epoch)
            case .replayed(let epoch): return .journalsReplayed(epoch, from: sender)
            case .goodbye, .inquiry, .report, .askLastWrite, .lastWrite,
                .askAttributes, .attributes, .freezes, .accessed:
                return nil
            }
        } catch {
            return nil
        }
    }

    private func view(_ place: Int, _ count: Int) -> FlightEvent? {
        guard count >= 24 else { return nil }
        let (members, slots) = (Int(u32(place + 8)), Int(u32(place + 12)))
        guard members <= count / 16, slots <= count / 4, 24 + members * 16 + slots * 4 <= count
        else { return nil }
        var found: [Member] = []
        for index in 0..<members {
            let entry = place + 24 + index * 16
            let member = Member(
                node: NodeID(UInt32(clamping: u64(entry))),
                incarnation: u64(entry + 8)
            )
            if let last = found.last, last.node >= member.node { return nil }
            found.append(member)
        }
        let replay = (0..<slots).map { SlotIndex(u32(place + 24 + members * 16 + $0 * 4)) }
        return .view(
            ClusterView(
                epoch: Epoch(u64(place)),
                members: found,
                slotsToReplay: replay,
                connectionsLost: Epoch(u64(place + 16))
            )
        )
    }
}
