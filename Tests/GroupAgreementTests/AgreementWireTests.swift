import GroupAgreement
import Membership
import Testing
import Vocabulary

@Suite struct AgreementWireTests {
    private static func text(_ dice: inout SeededGenerator) -> String {
        String(repeating: ["a", "ü", "€", "x1"][dice.below(4)], count: dice.below(20))
    }

    private static func member(_ dice: inout SeededGenerator) -> Member {
        Member(node: NodeID(UInt32(1 + dice.below(9))), incarnation: dice.next() | 1)
    }

    private static func place(_ dice: inout SeededGenerator) -> MemberPlace {
        MemberPlace(
            process: GroupProcess(
                host: UInt32(dice.below(9)),
                process: UInt32(truncatingIfNeeded: dice.next())
            ),
            hostName: text(&dice),
            addresses: (0..<dice.below(4)).map { _ in text(&dice) }
        )
    }

    private static func wish(_ dice: inout SeededGenerator) -> JoinWish {
        JoinWish(
            incarnation: dice.next() | 1,
            place: place(&dice),
            slot: dice.oneIn(2) ? nil : SlotIndex(UInt32(dice.below(9))),
            slotCount: 16
        )
    }

    private static func inspection(_ dice: inout SeededGenerator) -> Inspection {
        Inspection(
            ring: RingID(host: 2, sequence: dice.next()),
            remains: (0..<dice.below(3)).map { _ in
                Remains(member: member(&dice), host: UInt32(dice.below(9)))
            }
        )
    }

    private static func state(_ dice: inout SeededGenerator) -> GroupState {
        var state = GroupState(volume: text(&dice))
        state.begin(inspection(&dice))
        for slot in 0..<UInt32(dice.below(6)) {
            var place = place(&dice)
            place.process.process = slot
            let member = Member(node: NodeID(slot: SlotIndex(slot)), incarnation: dice.next() | 1)
            state.join(member, place, slotCount: 16)
            if slot == 0 { _ = state.replayed(under: state.record.epoch) }
            if slot == 3 {
                _ = state.doom(member, .connectionLost)
                _ = state.bury(member)
            }
        }
        if let last = state.record.members.last, dice.oneIn(2) {
            _ = state.doom(last, dice.oneIn(2) ? .connectionLost : .stoodStill(nanoseconds: 5))
        }
        return state
    }

    private static func message(_ dice: inout SeededGenerator) -> AgreementMessage {
        switch dice.below(8) {
        case 0:
            .standing(dice.oneIn(4) ? nil : state(&dice), life: dice.oneIn(2) ? nil : member(&dice))
        case 1: .quorate(inspection(&dice))
        case 2: .join(member(&dice), wish(&dice))
        case 3: .leave(member(&dice))
        case 7: .inquorate(RingID(host: 3, sequence: dice.next()))
        case 4: .replayed(Epoch(dice.next()))
        case 5:
            .doom(
                member(&dice),
                [.asked, .connectionLost, .stoodStill(nanoseconds: 9)][dice.below(3)]
            )
        default: .fenced(member(&dice), FenceProof.allCases[dice.below(FenceProof.allCases.count)])
        }
    }

    @Test(arguments: 1...300 as ClosedRange<UInt64>)
    func whatIsWrittenIsRead(seed: UInt64) throws {
        var dice = SeededGenerator(seed: seed)
        let message = Self.message(&dice)
        let bytes = message.bytes
        #expect(try bytes.withUnsafeBytes { try AgreementMessage(bytes: $0) } == message)
        for count in 0..<bytes.count {
            let prefix = Array(bytes[..<count])
            #expect(throws: AgreementWireError.self) {
                try prefix.withUnsafeBytes { try AgreementMessage(bytes: $0) }
            }
        }
        #expect(throws: AgreementWireError.self) {
            try (bytes + [0]).withUnsafeBytes { try AgreementMessage(bytes: $0) }
        }
    }

    /// Whatever a stranger says, it is read or refused; what is read is written the same way.
    @Test(arguments: 1...300 as ClosedRange<UInt64>)
    func damagedBytesAreRefusedOrMeanSomething(seed: UInt64) throws {
        var dice = SeededGenerator(seed: seed)
        let good = Self.message(&dice).bytes
        for _ in 0..<200 {
            var bytes = good
            for _ in 0...dice.below(3) {
                bytes[dice.below(bytes.count)] = UInt8(truncatingIfNeeded: dice.next())
            }
            let read = try? bytes.withUnsafeBytes { try AgreementMessage(bytes: $0) }
            if let read { #expect(read.bytes == bytes) }
        }
    }

    @Test func tooManySlotsAreRefused() {
        var dice = SeededGenerator(seed: 1)
        var wish = Self.wish(&dice)
        wish.slotCount = 1_025
        let bytes = AgreementMessage.join(Self.member(&dice), wish).bytes
        let error = #expect(throws: AgreementWireError.self) {
            try bytes.withUnsafeBytes { try AgreementMessage(bytes: $0) }
        }
        #expect(error?.description == "a volume of 1025 slots")
    }

    @Test func anotherVersionIsSaid() {
        var bytes = AgreementMessage.replayed(Epoch(3)).bytes
        bytes[4] = 9
        let error = #expect(throws: AgreementWireError.self) {
            try bytes.withUnsafeBytes { try AgreementMessage(bytes: $0) }
        }
        #expect(error?.description == "version 9 of the agreement, not 1")
    }
}
