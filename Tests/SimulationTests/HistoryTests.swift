// The judges of histories, against what is right by trying every order; and each invariant broken.

import FileSystem
import SimulatedMachine
import Testing
import Vocabulary

@testable import SimulatedWorld

@Suite struct RegisterHistoryTests {
    @Test func overlappingOperationsMayComeInAnyOrder() {
        var history = RegisterHistory(0)
        history.begin(1, by: 1, at: 1)
        history.read(0, by: 2, from: 2, at: 3)
        history.read(1, by: 2, from: 4, at: 5)
        history.end(1, at: 6)
        #expect(history.violation() == nil)
    }

    @Test func newAndThenOldIsImpossible() {
        var history = RegisterHistory(0)
        history.begin(1, by: 1, at: 1)
        history.read(1, by: 2, from: 2, at: 3)
        history.read(0, by: 3, from: 4, at: 5)
        history.end(1, at: 6)
        #expect(history.violation() != nil)
    }

    @Test func aReadBeforeItsWriteIsImpossible() {
        var history = RegisterHistory(0)
        history.begin(1, by: 1, at: 3)
        history.end(1, at: 4)
        history.read(1, by: 2, from: 1, at: 2)
        #expect(history.violation() != nil)
    }

    @Test func whatTheWritersNodeSeesEarlyDoesNotCount() {
        var history = RegisterHistory(0)
        history.begin(1, by: 1, at: 1)
        history.read(1, by: 1, from: 2, at: 3)
        history.read(0, by: 2, from: 4, at: 5)
        history.end(1, at: 6)
        #expect(history.violation() == nil)
    }

    /// A write on a disk that fails: only if it had not returned its node may have seen what never was.
    @Test(arguments: [false, true]) func aDoubtfulWriteMayHaveBeenSeenOnItsNodeOnly(returned: Bool)
    {
        var history = RegisterHistory(0)
        history.begin(1, by: 1, at: 1)
        if returned { history.end(1, at: 2) }
        history.read(1, by: 1, from: 3, at: 4)
        history.doubt(1)
        history.read(0, by: 2, from: 5, at: 6)
        #expect((history.violation() != nil) == returned)
        history.read(1, by: 3, from: 7, at: 8)
        history.read(0, by: 2, from: 9, at: 10)
        #expect(history.violation() != nil)
    }

    @Test func afterADeathAnOldValueMayComeBackButNotTwice() {
        var history = RegisterHistory(0)
        history.begin(1, by: 1, at: 1)
        history.end(1, at: 2)
        history.read(1, by: 1, from: 3, at: 4)
        history.restart(at: 5)
        history.read(0, by: 2, from: 6, at: 7)
        #expect(history.violation() == nil)
        history.read(1, by: 2, from: 8, at: 9)
        #expect(history.violation() == nil)
        history.read(0, by: 2, from: 10, at: 11)
        #expect(history.violation() != nil)
    }

    /// Small histories at random: the three conditions say what a search of all orders says.
    @Test func theConditionsAreThoseOfTheTheory() {
        var dice = SeededGenerator(seed: 1)
        var (possible, impossible) = (0, 0)
        for _ in 0..<4_000 {
            let world = SmallHistory(&dice)
            var history = RegisterHistory(0)
            for operation in world.operations where operation.writes {
                history.begin(operation.value, by: operation.life, at: operation.begin)
                if operation.end != .max { history.end(operation.value, at: operation.end) }
            }
            for operation in world.operations where !operation.writes {
                history.read(
                    operation.value,
                    by: operation.life,
                    from: operation.begin,
                    at: operation.end
                )
            }
            let isPossible = world.hasOrder()
            if isPossible { possible += 1 } else { impossible += 1 }
            #expect((history.violation() == nil) == isPossible, "\(world.operations)")
        }
        #expect(possible > 300 && impossible > 300)
    }
}

/// A few operations of different processes on one register, and all their orders.
private struct SmallHistory {
    struct Operation {
        let writes: Bool
        var value: UInt64
        let life: Int
        let begin: Int
        let end: Int
    }

    var operations: [Operation] = []

    init(_ dice: inout SeededGenerator) {
        let count = 2 + dice.below(5)
        var moments = Array(1...2 * count)
        for index in moments.indices.reversed() { moments.swapAt(index, dice.below(index + 1)) }
        var writes: UInt64 = 0
        for index in 0..<count {
            let pair = [moments[2 * index], moments[2 * index + 1]].sorted()
            let isWrite = dice.oneIn(2)
            if isWrite { writes += 1 }
            operations.append(
                // Every operation on a node of its own: nobody sees anything early.
                Operation(
                    writes: isWrite,
                    value: writes,
                    life: index + 1,
                    begin: pair[0],
                    end: isWrite && dice.oneIn(6) ? .max : pair[1]
                )
            )
        }
        for index in operations.indices where !operations[index].writes {
            operations[index].value = UInt64(dice.below(Int(writes) + 1))
        }
    }

    func hasOrder() -> Bool { search(Array(repeating: false, count: operations.count), 0) }

    private func search(_ done: [Bool], _ value: UInt64) -> Bool {
        let left = operations.indices.filter { !done[$0] }
        if left.allSatisfy({ operations[$0].end == .max }) { return true }
        let limit = left.map { operations[$0].end }.min() ?? .max
        return left.contains { index in
            let operation = operations[index]
            guard operation.begin < limit, operation.writes || operation.value == value else {
                return false
            }
            var next = done
            next[index] = true
            return search(next, operation.writes ? operation.value : value)
        }
    }
}

@Suite struct DirectoryHistoryTests {
    private func history(
        _ operations: [(DirectoryCall, DirectoryAnswer, Range<Int>)]
    ) -> DirectoryHistory {
        var history = DirectoryHistory(count: 3)
        var events: [(moment: Int, index: Int, isEnd: Bool)] = []
        for (index, operation) in operations.enumerated() {
            events.append((operation.2.lowerBound, index, false))
            events.append((operation.2.upperBound, index, true))
        }
        var numbers: [Int: Int] = [:]
        for event in events.sorted(by: { $0.moment < $1.moment }) {
            if event.isEnd, let number = numbers[event.index] {
                history.end(number, operations[event.index].1, at: event.moment)
            } else {
                numbers[event.index] = history.begin(operations[event.index].0, at: event.moment)
            }
        }
        return history
    }

    @Test func oneAfterTheOther() {
        let right = history([
            (.make(0), .made(7), 1..<2), (.rename(0, 1, .replace), .done, 3..<4),
            (.look(1), .found(7), 5..<6), (.look(0), .absent, 7..<8),
            (.list, .names([nil, 7, nil]), 9..<10), (.make(1), .exists, 11..<12),
            (.remove(1), .done, 13..<14), (.remove(1), .absent, 15..<16),
        ])
        #expect(right.verdict() == .possible)
    }

    /// Each answer that cannot be, behind a name that was made as inode 7.
    @Test(arguments: [
        (DirectoryCall.look(0), DirectoryAnswer.absent), (.look(0), .found(8)),
        (.look(1), .found(7)), (.make(0), .made(8)), (.make(1), .exists), (.remove(0), .absent),
        (.remove(1), .done), (.rename(0, 1, .replace), .absent), (.rename(1, 0, .replace), .done),
        (.rename(0, 1, .noReplace), .exists), (.rename(0, 1, .exchange), .done),
        (.list, .names([nil, nil, nil])), (.list, .names([7, 7, nil])), (.make(0), .done),
        (.open(0), .found(8)), (.open(1), .found(7)), (.open(1), .exists), (.open(0), .absent),
    ])
    func anAnswerThatCannotBe(_ call: DirectoryCall, _ answer: DirectoryAnswer) {
        let wrong = history([(.make(0), .made(7), 1..<2), (call, answer, 3..<4)])
        #expect(wrong.verdict() == .impossible)
        #expect(wrong.story.contains("under way") == false)
    }

    @Test func openedMadeAndFound() {
        let right = history([
            (.open(0), .found(7), 1..<2), (.open(0), .found(7), 3..<4),
            (.look(0), .found(7), 5..<6),
            (.make(1), .done, 7..<8), (.open(1), .exists, 9..<10), (.look(1), .found(8), 11..<12),
            (.remove(1), .done, 13..<14), (.open(1), .found(9), 15..<16),
        ])
        #expect(right.verdict() == .possible)
    }

    /// A listing in the midst of a rename shows one of the two names, not both and not neither.
    @Test func aListingDuringARename() {
        func verdict(_ names: [Int?]) -> DirectoryHistory.Verdict {
            history([
                (.make(0), .made(7), 1..<2), (.rename(0, 1, .replace), .done, 3..<6),
                (.list, .names(names), 4..<5),
            ]).verdict()
        }
        #expect(verdict([7, nil, nil]) == .possible)
        #expect(verdict([nil, 7, nil]) == .possible)
        #expect(verdict([7, 7, nil]) == .impossible)
        #expect(verdict([nil, nil, nil]) == .impossible)
    }

    /// Of a listing in several parts each name is judged alone: it may show both, or neither.
    @Test func aListingInParts() {
        func verdict(_ names: [Int?]) -> DirectoryHistory.Verdict {
            history([
                (.make(0), .made(7), 1..<2), (.rename(0, 1, .replace), .done, 3..<6),
                (.list, .parts(names), 4..<5),
            ]).verdict()
        }
        #expect(verdict([7, 7, nil]) == .possible)
        #expect(verdict([nil, nil, nil]) == .possible)
        #expect(verdict([nil, 8, nil]) == .impossible)
        #expect(verdict([nil, nil, 7]) == .impossible)
    }

    /// Two who look one after the other while a name is made: not there, and then not gone again.
    @Test func whatWasSeenIsNotUnseen() {
        let wrong = history([
            (.make(0), .made(7), 1..<6), (.look(0), .found(7), 2..<3), (.look(0), .absent, 4..<5),
        ])
        #expect(wrong.verdict() == .impossible)
    }

    @Test func afterADeathTheFirstLookDecides() {
        var history = DirectoryHistory(count: 3)
        let made = history.begin(.make(0), at: 1)
        history.end(made, .made(7), at: 2)
        let pending = history.begin(.remove(0), at: 3)
        history.restart()
        let first = history.begin(.look(0), at: 4)
        history.end(first, .absent, at: 5)
        #expect(history.verdict() == .possible)
        // What was under way and is somebody's who lives may have been the reason; nothing brings it
        // back.
        history.end(pending, .done, at: 6)
        let second = history.begin(.look(0), at: 7)
        history.end(second, .found(7), at: 8)
        #expect(history.verdict() == .impossible)
    }

    /// Answers that a sequence gave, at intervals around the moments at which it gave them: always possible.
    /// With one answer of another name it is sometimes not.
    @Test func sequencesAreFound() {
        var dice = SeededGenerator(seed: 2)
        var impossible = 0
        for _ in 0..<300 {
            var operations = madeUp(&dice, count: 24)
            #expect(history(operations).verdict() == .possible)
            let index = dice.below(operations.count)
            if case .look = operations[index].0 {
                operations[index].1 = .found(99)
                #expect(history(operations).verdict() == .impossible)
                impossible += 1
            }
        }
        #expect(impossible > 30)
    }

    private func madeUp(
        _ dice: inout SeededGenerator,
        count: Int
    ) -> [(DirectoryCall, DirectoryAnswer, Range<Int>)] {
        var names: [Int?] = [nil, nil, nil]
        var made: [(DirectoryCall, DirectoryAnswer, Int, Int)] = []
        for index in 0..<count {
            let (name, other) = (dice.below(3), dice.below(2))
            let call: DirectoryCall
            let answer: DirectoryAnswer
            switch dice.below(6) {
            case 5:
                call = .open(name)
                names[name] = names[name] ?? index
                answer = .found(names[name] ?? index)
            case 0:
                call = .make(name)
                answer = names[name] == nil ? .made(index) : .exists
                names[name] = names[name] ?? index
            case 1:
                call = .remove(name)
                answer = names[name] == nil ? .absent : .done
                names[name] = nil
            case 2:
                let to = (name + 1 + other) % 3
                call = .rename(name, to, .replace)
                answer = names[name] == nil ? .absent : .done
                if names[name] != nil { (names[to], names[name]) = (names[name], nil) }
            case 3:
                call = .list
                answer = .names(names)
            default:
                call = .look(name)
                answer = names[name].map { .found($0) } ?? .absent
            }
            let moment = index * 10
            made.append((call, answer, moment - dice.below(25), moment + dice.below(25)))
        }
        // No two begins or ends at one moment.
        let moments = made.indices.flatMap { [(made[$0].2, $0, false), (made[$0].3, $0, true)] }
            .sorted { ($0.0, $0.2 ? 1 : 0, $0.1) < ($1.0, $1.2 ? 1 : 0, $1.1) }
        var places = made.map { _ in (0, 0) }
        for (place, moment) in moments.enumerated() {
            if moment.2 { places[moment.1].1 = place } else { places[moment.1].0 = place }
        }
        return made.indices.map { (made[$0].0, made[$0].1, places[$0].0..<places[$0].1) }
    }
}
