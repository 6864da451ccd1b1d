// The tables of the lock manager, mode by mode, through the public calls.

import Testing
import Vocabulary

@testable import LockCore

/// One node alone, with its effects.
struct Solo: ~Copyable {
    var space = Lockspace(node: NodeID(1), incarnation: 5)
    var effects: [LockEffect] = []
    static let name = ResourceName(kind: .application, number: 1)

    init() {
        space.viewChanged(
            ClusterView(
                epoch: Epoch(1),
                members: [Member(node: NodeID(1), incarnation: 5)],
                slotsToReplay: []
            ),
            effects: &effects
        )
        effects = []
    }

    mutating func request(_ mode: LockMode, _ flags: LockFlags = [], cookie: UInt64 = 1) -> LockID {
        space.request(Self.name, mode, flags, cookie: cookie, effects: &effects)
    }

    mutating func convert(
        _ lock: LockID,
        _ mode: LockMode,
        _ flags: LockFlags = [],
        value: ValueBlock? = nil
    ) {
        space.convert(lock, to: mode, flags, value: value, effects: &effects)
    }

    mutating func unlock(_ lock: LockID, _ flags: LockFlags = [], value: ValueBlock? = nil) {
        space.unlock(lock, flags, value: value, effects: &effects)
    }

    /// The completions since the last call.
    mutating func completions() -> [LockCompletion] {
        defer { effects = [] }
        return effects.compactMap {
            if case .complete(let completion) = $0 { completion } else { nil }
        }
    }
}

struct MatrixTests {
    /// Row: granted; column: requested. (Linux fs/dlm, OpenVMS $ENQ.)
    static let compatible: [[Bool]] = [
        [true, true, true, true, true, true],
        [true, true, true, true, true, false],
        [true, true, true, false, false, false],
        [true, true, false, true, false, false],
        [true, true, false, false, false, false],
        [true, false, false, false, false, false],
    ]

    /// Row: granted; column: requested. R: resource to caller, W: caller to resource.
    static let directions: [[Character]] = [
        Array("RRRRRR"), Array(".RRRRR"), Array("..RRRR"), Array("...RRR"), Array("WWWWWR"),
        Array("WWWWWW"),
    ]

    static let queueConversions: [LockMode: [LockMode]] = [
        .null: [.concurrentRead, .concurrentWrite, .protectedRead, .protectedWrite, .exclusive],
        .concurrentRead: [.concurrentWrite, .protectedRead, .protectedWrite, .exclusive],
        .concurrentWrite: [.protectedRead, .protectedWrite, .exclusive],
        .protectedRead: [.concurrentWrite, .protectedWrite, .exclusive],
        .protectedWrite: [.exclusive],
        .exclusive: [],
    ]

    @Test("Compatibility", arguments: LockMode.allCases, LockMode.allCases)
    func compatibility(held: LockMode, wanted: LockMode) throws {
        let expected = Self.compatible[Int(held.rawValue)][Int(wanted.rawValue)]
        #expect(held.isCompatible(with: wanted) == expected)
        #expect((compatibleModes(held) & (1 << wanted.rawValue) != 0) == expected)
        var solo = Solo()
        _ = solo.request(held, cookie: 1)
        _ = solo.request(wanted, [.noQueue], cookie: 2)
        let statuses = solo.completions().map(\.status)
        #expect(statuses == [.granted, expected ? .granted : .wouldBlock])
        try solo.space.checkInvariants()
    }

    @Test("Conversions beside a third lock", arguments: LockMode.allCases, LockMode.allCases)
    func conversions(from: LockMode, to: LockMode) {
        for other in LockMode.allCases where other.isCompatible(with: from) {
            var solo = Solo()
            let lock = solo.request(from, cookie: 1)
            _ = solo.request(other, cookie: 2)
            _ = solo.completions()
            solo.convert(lock, to, [.noQueue])
            let answer = solo.completions()
            let expected = to.isCompatible(with: other)
            #expect(answer.map(\.status) == [expected ? .granted : .wouldBlock])
            #expect(answer.map(\.mode) == [expected ? to : from])
        }
    }

    @Test("Value block direction", arguments: LockMode.allCases, LockMode.allCases)
    func valueDirections(from: LockMode, to: LockMode) {
        let first = ValueBlock(1, 2, 3, 4)
        let second = ValueBlock(5, 6, 7, 8)
        var solo = Solo()
        // Somebody keeps the resource alive and writes a first value.
        let keeper = solo.request(.exclusive, cookie: 9)
        solo.convert(keeper, .null, [.valueBlock], value: first)
        _ = solo.completions()
        let lock = solo.request(from, [.valueBlock], cookie: 1)
        let heard1 = solo.completions()
        #expect(heard1.first?.value == first, "a new request reads")
        solo.convert(lock, to, [.valueBlock], value: second)
        let answer = solo.completions().first
        let direction = Self.directions[Int(from.rawValue)][Int(to.rawValue)]
        #expect(answer?.status == .granted)
        #expect(answer?.value == (direction == "R" ? first : nil))
        let now = solo.space.describe(Solo.name)?.value?.value
        #expect(now == (direction == "W" ? second : first))
    }

    @Test("Unlocking writes from PW and EX only", arguments: LockMode.allCases)
    func unlocking(mode: LockMode) {
        var solo = Solo()
        _ = solo.request(.null, cookie: 9)
        let lock = solo.request(mode, cookie: 1)
        solo.unlock(lock, [.valueBlock], value: ValueBlock(7))
        let value = solo.space.describe(Solo.name)?.value?.value
        #expect(value == (mode >= .protectedWrite ? ValueBlock(7) : nil))
    }

    @Test("An invalidated value stays invalid until somebody writes")
    func invalidation() {
        var solo = Solo()
        let lock = solo.request(.exclusive, [.valueBlock], cookie: 1)
        let heard2 = solo.completions()
        #expect(heard2.first?.isValueValid == true)
        solo.convert(lock, .null, [.invalidateValueBlock])
        solo.convert(lock, .exclusive, [.valueBlock])
        let heard3 = solo.completions()
        #expect(heard3.last?.isValueValid == false)
        solo.convert(lock, .null, [.valueBlock], value: ValueBlock(3))
        solo.convert(lock, .protectedRead, [.valueBlock])
        let last = solo.completions().last
        #expect(last?.isValueValid == true && last?.value == ValueBlock(3))
    }

    @Test("QUECVT is legal upwards only", arguments: LockMode.allCases, LockMode.allCases)
    func queueConversionTable(from: LockMode, to: LockMode) {
        let expected = Self.queueConversions[from]?.contains(to) ?? false
        #expect(isQueueConversionLegal(from: from, to: to) == expected)
    }

    @Test("QUECVT goes behind those that convert, a plain conversion past them")
    func queueConversion() {
        for flags in [LockFlags.queueConversion, []] {
            var solo = Solo()
            _ = solo.request(.concurrentRead, cookie: 1)
            let second = solo.request(.concurrentRead, cookie: 2)
            let third = solo.request(.null, cookie: 3)
            // CR to EX waits for the other CR.
            solo.convert(second, .exclusive)
            _ = solo.completions()
            solo.convert(third, .concurrentRead, flags)
            let heard4 = solo.completions()
            #expect(heard4.isEmpty == (flags == .queueConversion))
        }
    }

    @Test("EXPEDITE passes a queue, a plain null request waits")
    func expedite() {
        var solo = Solo()
        _ = solo.request(.exclusive, cookie: 1)
        _ = solo.request(.exclusive, cookie: 2)
        _ = solo.completions()
        _ = solo.request(.null, cookie: 3)
        let heard5 = solo.completions()
        #expect(heard5.isEmpty)
        _ = solo.request(.null, [.expedite], cookie: 4)
        let heard6 = solo.completions()
        #expect(heard6.map(\.cookie) == [4])
    }

    @Test("Alternatives are taken when the wanted mode is not to be had")
    func alternatives() {
        var solo = Solo()
        _ = solo.request(.concurrentWrite, cookie: 1)
        _ = solo.request(.exclusive, [.alternateCW], cookie: 2)
        let heard7 = solo.completions()
        #expect(heard7.map(\.mode) == [.concurrentWrite, .concurrentWrite])
        var other = Solo()
        let reader = other.request(.protectedRead, cookie: 1)
        _ = other.request(.protectedRead, cookie: 2)
        _ = other.completions()
        // Sideways would be taken from a holder that still relies on PR.
        other.convert(reader, .exclusive, [.alternateCW, .noQueue])
        let heard8 = other.completions()
        #expect(heard8.map(\.status) == [.wouldBlock])
    }

    @Test("A stale name is recognised")
    func staleNames() {
        var solo = Solo()
        let lock = solo.request(.exclusive, cookie: 1)
        solo.unlock(lock)
        let next = solo.request(.exclusive, cookie: 2)
        #expect(next != lock && next.rawValue & 0xFFFF_FFFF == lock.rawValue & 0xFFFF_FFFF)
        _ = solo.completions()
        solo.space.cancel(lock, effects: &solo.effects)
        let heard9 = solo.completions()
        #expect(heard9.isEmpty)
        let isStaleInTheWay = solo.space.isInTheWay(lock, of: .exclusive)
        let isInTheWay = solo.space.isInTheWay(next, of: .exclusive)
        #expect(!isStaleInTheWay && isInTheWay)
    }

    @Test("An operation on a stale name is refused as busy")
    func staleOperation() {
        var solo = Solo()
        let lock = solo.request(.exclusive, cookie: 1)
        solo.unlock(lock)
        _ = solo.completions()
        solo.unlock(lock)
        let heard = solo.completions()
        #expect(heard.map(\.status) == [.busy] && heard.map(\.lock) == [lock])
    }

    @Test("Twenty thousand resources come and go without a trace")
    func many() throws {
        var solo = Solo()
        var locks: [LockID] = []
        for number in 0..<20_000 as Range<UInt64> {
            locks.append(
                solo.space.request(
                    ResourceName(kind: .inode, number: number, generation: 1),
                    .exclusive,
                    [],
                    cookie: number,
                    effects: &solo.effects
                )
            )
        }
        try solo.space.checkInvariants()
        let heard10 = solo.completions()
        #expect(heard10.count == 20_000)
        for lock in locks { solo.unlock(lock) }
        var rest = 0
        solo.space.visitResources { _ in rest += 1 }
        #expect(rest == 0)
    }
}
