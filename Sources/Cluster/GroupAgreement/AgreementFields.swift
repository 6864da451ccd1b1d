// The fields of messages of a group: bounded, and checked one by one.

import Membership
import Vocabulary

/// Writes fields in order.
struct AgreementWriter {
    private(set) var bytes: [UInt8] = []

    mutating func number(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func text(_ text: String) {
        precondition(text.utf8.count <= AgreementReader.longestText, "Agreement: a text too long")
        number(UInt16(text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }

    mutating func optional<Value>(
        _ value: Value?,
        _ write: (inout AgreementWriter, Value) -> Void
    ) {
        number(UInt8(value == nil ? 0 : 1))
        if let value { write(&self, value) }
    }

    mutating func list<Element>(
        _ elements: [Element],
        _ write: (inout AgreementWriter, Element) -> Void
    ) {
        number(UInt16(elements.count))
        for element in elements { write(&self, element) }
    }

    mutating func member(_ member: Member) {
        number(member.node.rawValue)
        number(member.incarnation)
    }

    mutating func place(_ place: MemberPlace) {
        number(place.process.host)
        number(place.process.process)
        text(place.hostName)
        list(place.addresses) { $0.text($1) }
    }

    mutating func suspicion(_ why: Suspicion) {
        switch why {
        case .stoodStill(let time):
            number(UInt8(1))
            number(time)
        case .connectionLost: number(UInt8(2))
        case .asked: number(UInt8(3))
        }
    }

    mutating func wish(_ wish: JoinWish) {
        number(wish.incarnation)
        place(wish.place)
        optional(wish.slot) { $0.number($1.rawValue) }
        number(wish.slotCount)
    }

    mutating func ring(_ ring: RingID) {
        number(ring.host)
        number(ring.sequence)
    }

    mutating func inspection(_ inspection: Inspection) {
        ring(inspection.ring)
        list(inspection.remains) {
            $0.member($1.member)
            $0.number($1.host)
        }
    }

    mutating func state(_ state: GroupState) {
        number(state.era)
        number(state.revision)
        text(state.record.volume)
        number(state.record.slotCount)
        number(state.record.revision)
        number(state.record.epoch.rawValue)
        list(state.record.dirty) {
            $0.number($1.slot.rawValue)
            $0.number($1.since.rawValue)
        }
        list(state.places) {
            $0.member($1.member)
            $0.place($1.place)
        }
        list(state.doomed) {
            $0.member($1.member)
            $0.number($1.host)
            $0.suspicion($1.why)
            $0.number($1.isOnDevice ? UInt8(1) : 0)
        }
        list(state.buried) { $0.member($1) }
    }
}

/// Reads fields in order.
struct AgreementReader {
    /// The longest text, in bytes.
    static let longestText = 255
    /// The longest list.
    static let longestList = 1024

    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { offset == bytes.count }

    mutating func number<Number: FixedWidthInteger>(
        _: Number.Type
    ) throws(AgreementWireError) -> Number {
        let size = MemoryLayout<Number>.size
        guard bytes.count - offset >= size else { throw cut() }
        defer { offset += size }
        return Number(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Number.self))
    }

    private func cut() -> AgreementWireError {
        AgreementWireError(description: "cut short at byte \(bytes.count)")
    }

    mutating func boolean() throws(AgreementWireError) -> Bool {
        switch try number(UInt8.self) {
        case 0: return false
        case 1: return true
        case let value: throw AgreementWireError(description: "\(value) is neither yes nor no")
        }
    }

    mutating func text() throws(AgreementWireError) -> String {
        let count = Int(try number(UInt16.self))
        guard count <= Self.longestText else {
            throw AgreementWireError(description: "a text of \(count) bytes")
        }
        guard bytes.count - offset >= count else { throw cut() }
        let piece = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
        offset += count
        guard let text = String(validating: piece, as: UTF8.self) else {
            throw AgreementWireError(description: "a text that is not UTF-8")
        }
        return text
    }

    mutating func list<Element>(
        _ read: (inout AgreementReader) throws(AgreementWireError) -> Element
    ) throws(AgreementWireError) -> [Element] {
        let count = Int(try number(UInt16.self))
        guard count <= Self.longestList else {
            throw AgreementWireError(description: "a list of \(count)")
        }
        var elements: [Element] = []
        for _ in 0..<count { elements.append(try read(&self)) }
        return elements
    }

    mutating func member() throws(AgreementWireError) -> Member {
        let node = NodeID(try number(UInt32.self))
        let incarnation = try number(UInt64.self)
        guard node != .none, incarnation != 0 else {
            throw AgreementWireError(description: "a member without a node or a life")
        }
        return Member(node: node, incarnation: incarnation)
    }

    mutating func process() throws(AgreementWireError) -> GroupProcess {
        GroupProcess(host: try number(UInt32.self), process: try number(UInt32.self))
    }

    mutating func place() throws(AgreementWireError) -> MemberPlace {
        MemberPlace(
            process: try process(),
            hostName: try text(),
            addresses: try list { reader throws(AgreementWireError) in try reader.text() }
        )
    }

    mutating func suspicion() throws(AgreementWireError) -> Suspicion {
        switch try number(UInt8.self) {
        case 1: return .stoodStill(nanoseconds: try number(UInt64.self))
        case 2: return .connectionLost
        case 3: return .asked
        case let value: throw AgreementWireError(description: "\(value) is no suspicion")
        }
    }

    mutating func wish() throws(AgreementWireError) -> JoinWish {
        JoinWish(
            incarnation: try number(UInt64.self),
            place: try place(),
            slot: try boolean() ? SlotIndex(try number(UInt32.self)) : nil,
            slotCount: try slotCount()
        )
    }

    /// Each slot may stand in a list.
    private mutating func slotCount() throws(AgreementWireError) -> UInt32 {
        let count = try number(UInt32.self)
        guard count <= Self.longestList else {
            throw AgreementWireError(description: "a volume of \(count) slots")
        }
        return count
    }

    mutating func ring() throws(AgreementWireError) -> RingID {
        RingID(host: try number(UInt32.self), sequence: try number(UInt64.self))
    }

    mutating func inspection() throws(AgreementWireError) -> Inspection {
        Inspection(
            ring: try ring(),
            remains: try list { reader throws(AgreementWireError) in
                Remains(member: try reader.member(), host: try reader.number(UInt32.self))
            }
        )
    }

    mutating func state() throws(AgreementWireError) -> GroupState {
        let era = try number(UInt64.self)
        let revision = try number(UInt64.self)
        let volume = try text()
        let slotCount = try slotCount()
        let recordRevision = try number(UInt64.self)
        let epoch = Epoch(try number(UInt64.self))
        let dirty = try list { reader throws(AgreementWireError) in
            DirtySlot(
                slot: SlotIndex(try reader.number(UInt32.self)),
                since: Epoch(try reader.number(UInt64.self))
            )
        }
        let places = try list { reader throws(AgreementWireError) in
            PlacedMember(member: try reader.member(), place: try reader.place())
        }
        let doomed = try list { reader throws(AgreementWireError) in
            DoomedLife(
                member: try reader.member(),
                host: try reader.number(UInt32.self),
                why: try reader.suspicion(),
                isOnDevice: try reader.boolean()
            )
        }
        let buried = try list { reader throws(AgreementWireError) in try reader.member() }
        let record = ViewRecord(
            volume: volume,
            slotCount: slotCount,
            revision: recordRevision,
            epoch: epoch,
            members: places.map(\.member),
            dirty: dirty
        )
        guard let record,
            let state = GroupState(
                era: era,
                revision: revision,
                record: record,
                places: places,
                doomed: doomed,
                buried: buried
            )
        else { throw AgreementWireError(description: "a state that contradicts itself") }
        return state
    }
}
