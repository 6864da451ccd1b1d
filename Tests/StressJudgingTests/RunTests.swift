import StressJudging
import Testing
import Vocabulary

/// Races, counters, latencies, histories, messages and reports.
@Suite struct RunTests {
    private func judge(_ race: StressRace, _ winners: Set<Int>, isComplete: Bool = true) -> String?
    {
        race.judge(
            (0..<3).map { (agent: $0, result: winners.contains($0) ? .won : .late) },
            isComplete: isComplete
        )
    }

    @Test(arguments: StressRace.allCases)
    func aRaceHasTheWinnersItMustHave(_ race: StressRace) {
        if race.hasOneWinner {
            #expect(judge(race, [1]) == nil)
            #expect(judge(race, [0, 2]) != nil)
            #expect(judge(race, []) != nil)
            // Somebody was lost in it: he may have been the one.
            #expect(judge(race, [], isComplete: false) == nil)
        } else {
            #expect(judge(race, [0, 1, 2]) == nil)
            #expect(judge(race, [0, 1]) != nil)
        }
    }

    @Test func aCounterIsTheSumOfAdditions() {
        let three = [StressCounts(added: 5), StressCounts(added: 7), StressCounts(added: 1)]
        #expect(StressCounts.judge(13, three, isComplete: true) == nil)
        #expect(StressCounts.judge(12, three, isComplete: true)?.hasPrefix("lost") == true)
        #expect(StressCounts.judge(14, three, isComplete: true)?.hasPrefix("too much") == true)
        #expect(StressCounts.judge(14, three, isComplete: false) == nil)
        let lossy = [StressCounts(added: 5, doubtful: 1, hasLost: true), StressCounts(added: 7)]
        for value: UInt64 in 7...13 {
            #expect(StressCounts.judge(value, lossy, isComplete: true) == nil)
        }
        #expect(StressCounts.judge(6, lossy, isComplete: true) != nil)
        #expect(StressCounts.judge(14, lossy, isComplete: true) != nil)
    }

    @Test func latenciesAreKeptWithinAQuarter() throws {
        var latencies = StressLatencies()
        #expect(latencies.within(500) == 0)
        for value: UInt64 in 1...1000 { latencies.note(nanoseconds: value * 1000) }
        for (part, expected): (UInt64, UInt64) in [(500, 500_000), (990, 990_000)] {
            let found = latencies.within(part)
            #expect(found >= expected && found <= expected * 5 / 4, "\(part): \(found)")
        }
        #expect(latencies.longest == 1_000_000)
        let copy = try #require(StressLatencies(numbers: latencies.numbers))
        #expect(copy == latencies)
        #expect(StressLatencies(numbers: [1, 2]) == nil)
        #expect(StressLatencies(numbers: [1, 256, 1]) == nil)
    }

    @Test func theLastEventsAreKept() {
        var history = StressHistory()
        let (one, two) = (StressKey(.logs, 0, 0), StressKey(.logs, 0, 1))
        for number in 0..<UInt64(StressHistory.room + 100) {
            let key = number % 2 == 0 ? one : two
            history.note(
                StressEvent(time: number, key: key, what: "pread", value: number, result: 1)
            )
        }
        let lines = history.lines(of: one, last: 2)
        #expect(lines.count == 2)
        #expect(lines.last?.hasSuffix("pread \(StressHistory.room + 98) -> 1") == true)
        #expect(history.lines(of: StressKey(.logs, 9, 9), last: 2).isEmpty)
    }

    @Test func messagesComeBackAsTheyWere() throws {
        let message = StressMessage(.claims, [1, .max, 0], texts: ["", "späte Zeile"])
        let frame = message.frame
        #expect(frame.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) } == frame.count - 4)
        let body = Array(frame.dropFirst(4))
        #expect(try StressMessage(body: body) == message)
        for end in body.indices {
            #expect(throws: StressWireError.self) { try StressMessage(body: Array(body[..<end])) }
        }
        #expect(throws: StressWireError.self) { try StressMessage(body: body + [0]) }
        var strange = body
        strange[0] = 200
        #expect(throws: StressWireError.unknownKind(200)) { try StressMessage(body: strange) }
        var many = body
        many[4] = 0xFF
        #expect(throws: StressWireError.self) { try StressMessage(body: many) }
    }

    @Test func aReportSaysWhatWasFound() throws {
        var report = StressReport(seed: 4, agents: ["a", "b"])
        report.milliseconds = 2000
        let times = StressLatencies().numbers
        var isTaken = [report.add([2, 10, 1, 0, UInt64(times.count)] + times, of: 1)]
        isTaken.append(report.add([2, 30, 0, 2, UInt64(times.count)] + times, of: 1))
        #expect(report.lines.count == 1)
        #expect(report.lines.first?.operations == 40)
        isTaken.append(report.add([2, 30, 0], of: 1))
        isTaken.append(report.add([99, 30, 0, 0, 0], of: 1))
        #expect(isTaken == [true, true, false, false])
        var violation = StressViolation(
            agent: 0,
            key: StressKey(.logs, 0, 1),
            words: "lost",
            agents: 2
        )
        violation.history[1] = ["0.1 s  append"]
        report.violations = [violation]
        report.violationCount = 3
        #expect(report.text.contains("VIOLATION logs 0.1, seen by agent 0: lost\n"))
        #expect(report.text.contains("    0.1 s  append"))
        #expect(report.text.contains("2 more violations"))
        #expect(
            report.text.hasSuffix("3 violations in 40 operations of 2 agents in 2 s (20 per s)")
        )
        let json = try JSONText(parsing: report.json.text)
        #expect(json.number("violationCount") == 3)
        #expect(json.list("workloads").first?.number("perSecond") == 20)
        #expect(json.list("violations").first?.string("what") == "lost")
        #expect(json["trouble"] == .null)
    }
}
