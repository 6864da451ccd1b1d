// The flight recorder of a node: what went into its lockspace lately, in memory, at a few
// nanoseconds an event. Docs/OBSERVATION.md has the format; FlightRecording.swift reads it.
//
// Invariants
// R1. Nothing is allocated after `init`, nothing is looked up, and nothing can fail.
// R2. Everything that can change the lockspace is recorded, in order, before it goes in, with the
//     time that the lockspace is told. So from the node's beginning on the records alone decide
//     what it does, and a fresh lockspace can do it again.
// R3. The memory is cut in segments. When one is full the next takes its place, the oldest is
//     overwritten as a whole: a record never straddles, and what is left is a whole end of the
//     story. Once something was overwritten the story cannot be replayed any more, only told.

import Execution
import LockCore
import Vocabulary

/// The kinds of records. Never renumbered.
enum FlightKind: UInt8 {
    case request = 1
    case convert = 2
    case unlock = 3
    case cancel = 4
    case ownerIsGone = 5
    case purgeOrphans = 6
    case message = 7
    case view = 8
    case journalsReplayed = 9
    case leave = 10
    case tick = 11
    /// Nothing went in: a peer sent what is no message.
    case malformed = 12
}

/// Numbers of the format.
package enum FlightFormat {
    /// "LKSR".
    package static let magic: UInt32 = 0x5253_4B4C
    package static let version: UInt16 = 3
    /// Bytes before the first record.
    package static let headerLength = 96
    /// Length (4), kind (1), zero (1), effects (2), tick in nanoseconds (8).
    static let recordHeader = 16
    static let nameLength = 40
}

/// The ring. Engine-bound.
package final class FlightRecorder {
    /// What a mount keeps, in bytes: some hundred thousand events.
    package static let usualCapacity = 8 << 20
    private static let segmentSize = 256 << 10

    private let memory: UnsafeMutableRawPointer
    private let segments: Int
    /// Bytes used of each segment but the present one.
    private var used: [Int]
    /// Segments begun so far, the present one included.
    private var begun = 1
    /// The next free byte of the present segment, and where it ends.
    private var next: UnsafeMutableRawPointer
    private var end: UnsafeMutableRawPointer
    /// The newest record.
    private var last: UnsafeMutableRawPointer?

    /// A ring of about `capacity` bytes, at least two segments. The memory is used, and so taken
    /// from the system, only as records come.
    package init(capacity: Int) {
        segments = max(capacity / Self.segmentSize, 2)
        memory = .allocate(byteCount: segments * Self.segmentSize, alignment: 16)
        used = [Int](repeating: 0, count: segments)
        next = memory
        end = memory + Self.segmentSize
    }

    deinit { memory.deallocate() }

    /// Whether records were overwritten (R3).
    package var hasWrapped: Bool { begun > segments }

    /// Bytes of memory, whether used or not.
    package var byteCount: Int { segments * Self.segmentSize }

    private func turn() {
        let present = (begun - 1) % segments
        used[present] = next - (memory + present * Self.segmentSize)
        next = memory + begun % segments * Self.segmentSize
        end = next + Self.segmentSize
        begun += 1
    }

    /// Room for a record with `count` bytes behind its header; returns where they go.
    @inline(__always)
    private func begin(_ kind: FlightKind, _ now: UInt64, _ count: Int) -> UnsafeMutableRawPointer {
        let size = (FlightFormat.recordHeader + count + 7) & ~7
        precondition(size <= Self.segmentSize, "NodeService R3: a record longer than a segment")
        if end - next < size { turn() }
        let record = next
        next = record + size
        last = record
        record.storeBytes(of: UInt32(truncatingIfNeeded: size), as: UInt32.self)
        // Kind, zero, and no effects yet.
        record.storeBytes(of: UInt32(kind.rawValue), toByteOffset: 4, as: UInt32.self)
        record.storeBytes(of: now, toByteOffset: 8, as: UInt64.self)
        return record + FlightFormat.recordHeader
    }

    /// How many effects the newest record had.
    @inline(__always)
    func note(effects: Int) {
        guard let last else { return }
        let before = last.load(fromByteOffset: 6, as: UInt16.self)
        let sum = min(Int(before) + effects, Int(UInt16.max))
        last.storeBytes(of: UInt16(truncatingIfNeeded: sum), toByteOffset: 6, as: UInt16.self)
    }

    // MARK: Events

    @inline(__always)
    func request(
        _ now: UInt64,
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        patience: UInt32,
        bytes: LockedBytes?
    ) {
        let length = FlightFormat.nameLength + (bytes == nil ? 32 : 56)
        let place = begin(.request, now, length)
        store(name, at: place)
        let rest = place + FlightFormat.nameLength
        rest.storeBytes(of: cookie, as: UInt64.self)
        rest.storeBytes(of: parent.rawValue, toByteOffset: 8, as: UInt64.self)
        rest.storeBytes(of: flags.rawValue, toByteOffset: 16, as: UInt32.self)
        rest.storeBytes(of: owner.rawValue, toByteOffset: 20, as: UInt32.self)
        rest.storeBytes(of: patience, toByteOffset: 24, as: UInt32.self)
        rest.storeBytes(of: UInt32(mode.rawValue), toByteOffset: 28, as: UInt32.self)
        guard let bytes else { return }
        rest.storeBytes(of: bytes.first, toByteOffset: 32, as: UInt64.self)
        rest.storeBytes(of: bytes.last, toByteOffset: 40, as: UInt64.self)
        rest.storeBytes(of: UInt64(bytes.process), toByteOffset: 48, as: UInt64.self)
    }

    @inline(__always)
    func convert(
        _ now: UInt64,
        _ lock: LockID,
        _ mode: LockMode,
        _ flags: LockFlags,
        _ value: ValueBlock?
    ) {
        operation(.convert, now, lock, mode, flags, value)
    }

    @inline(__always)
    func unlock(_ now: UInt64, _ lock: LockID, _ flags: LockFlags, _ value: ValueBlock?) {
        operation(.unlock, now, lock, .null, flags, value)
    }

    @inline(__always)
    private func operation(
        _ kind: FlightKind,
        _ now: UInt64,
        _ lock: LockID,
        _ mode: LockMode,
        _ flags: LockFlags,
        _ value: ValueBlock?
    ) {
        let place = begin(kind, now, value == nil ? 16 : 48)
        place.storeBytes(of: lock.rawValue, as: UInt64.self)
        place.storeBytes(of: flags.rawValue, toByteOffset: 8, as: UInt32.self)
        place.storeBytes(of: UInt32(mode.rawValue), toByteOffset: 12, as: UInt32.self)
        guard let value else { return }
        place.storeBytes(of: value.word0, toByteOffset: 16, as: UInt64.self)
        place.storeBytes(of: value.word1, toByteOffset: 24, as: UInt64.self)
        place.storeBytes(of: value.word2, toByteOffset: 32, as: UInt64.self)
        place.storeBytes(of: value.word3, toByteOffset: 40, as: UInt64.self)
    }

    /// An event that one or two numbers say all about.
    @inline(__always)
    func event(_ kind: FlightKind, _ now: UInt64, _ first: UInt64 = 0, _ second: UInt64 = 0) {
        let place = begin(kind, now, 16)
        place.storeBytes(of: first, as: UInt64.self)
        place.storeBytes(of: second, toByteOffset: 8, as: UInt64.self)
    }

    /// A message as it came, header included.
    @inline(__always)
    func message(_ now: UInt64, from peer: NodeID, _ bytes: UnsafeRawBufferPointer) {
        let place = begin(.message, now, 8 + bytes.count)
        place.storeBytes(of: peer.rawValue, as: UInt32.self)
        place.storeBytes(
            of: UInt32(truncatingIfNeeded: bytes.count),
            toByteOffset: 4,
            as: UInt32.self
        )
        if let base = bytes.baseAddress {
            (place + 8).copyMemory(from: base, byteCount: bytes.count)
        }
    }

    func view(_ now: UInt64, _ view: ClusterView) {
        let count = 24 + view.members.count * 16 + view.slotsToReplay.count * 4
        let place = begin(.view, now, count)
        place.storeBytes(of: view.epoch.rawValue, as: UInt64.self)
        place.storeBytes(of: UInt32(view.members.count), toByteOffset: 8, as: UInt32.self)
        place.storeBytes(of: UInt32(view.slotsToReplay.count), toByteOffset: 12, as: UInt32.self)
        place.storeBytes(of: view.connectionsLost.rawValue, toByteOffset: 16, as: UInt64.self)
        var rest = place + 24
        for member in view.members {
            rest.storeBytes(of: UInt64(member.node.rawValue), as: UInt64.self)
            rest.storeBytes(of: member.incarnation, toByteOffset: 8, as: UInt64.self)
            rest += 16
        }
        for slot in view.slotsToReplay {
            rest.storeBytes(of: slot.rawValue, as: UInt32.self)
            rest += 4
        }
    }

    @inline(__always)
    private func store(_ name: ResourceName, at place: UnsafeMutableRawPointer) {
        place.storeBytes(of: UInt32(name.kind.rawValue), as: UInt32.self)
        place.storeBytes(of: UInt32(name.depth), toByteOffset: 4, as: UInt32.self)
        place.storeBytes(of: name.number, toByteOffset: 8, as: UInt64.self)
        place.storeBytes(of: name.generation, toByteOffset: 16, as: UInt64.self)
        place.storeBytes(of: name.part, toByteOffset: 24, as: UInt64.self)
        place.storeBytes(of: name.subpart, toByteOffset: 32, as: UInt64.self)
    }

    // MARK: Reading

    /// All records that are left, oldest first.
    func appendRecords(to bytes: inout [UInt8]) {
        for number in max(0, begun - segments)..<begun {
            let segment = number % segments
            let start = memory + segment * Self.segmentSize
            let count = number == begun - 1 ? next - start : used[segment]
            bytes.append(contentsOf: UnsafeRawBufferPointer(start: start, count: count))
        }
    }
}
