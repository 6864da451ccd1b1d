import StressJudging
import Testing

/// Who waits for whom, and who is waited for no more.
@Suite struct MeetingTests {
    private func message(_ round: UInt64, _ brought: [(UInt64, [UInt64])]) -> StressMessage {
        let parts = brought.flatMap { [$0.0, UInt64($0.1.count)] + $0.1 }
        return StressMessage(.met, [3, round] + parts)
    }

    @Test func allGetWhatEachHasBrought() {
        var meeting = StressMeeting(members: [0, 1], parts: 3)
        #expect(meeting.arrive(1, 0, [9], place: 3) == [])
        // Who is not expected, or comes to another meeting, does not count.
        #expect(meeting.arrive(2, 0, [], place: 3) == [])
        #expect(meeting.arrive(0, 1, [], place: 3) == [])
        let met = meeting.arrive(0, 0, [], place: 3)
        #expect(met == [.met(message(0, [(0, []), (1, [9])]), to: [0, 1])])
        #expect(meeting.round == 1)
    }

    @Test func nobodyWaitsForTheLost() {
        var meeting = StressMeeting(members: [0, 1, 2], parts: 3)
        #expect(meeting.arrive(0, 0, [7], place: 3) == [])
        #expect(meeting.leave(1, place: 3) == [])
        let met = meeting.leave(2, place: 3)
        #expect(met == [.met(message(0, [(0, [7])]), to: [0])])
    }

    @Test func whoComesBackBeginsWithARound() {
        var meeting = StressMeeting(members: [0, 1], parts: 3)
        _ = meeting.leave(1, place: 3)
        #expect(meeting.arrive(0, 0, [], place: 3).count == 1)
        #expect(meeting.join(1, place: 3) == [])
        #expect(meeting.arrive(0, 1, [], place: 3).count == 1)
        // With the last part of the round he is told that he may come to the next.
        let results = meeting.arrive(0, 2, [], place: 3)
        #expect(results == [.met(message(2, [(0, [])]), to: [0]), .joined(3, [1])])
        #expect(meeting.arrive(0, 3, [], place: 3) == [])
        #expect(meeting.arrive(1, 3, [], place: 3).count == 1)
    }

    @Test func allWereLost() {
        var meeting = StressMeeting(members: [0], parts: 3)
        #expect(meeting.arrive(0, 0, [], place: 3).count == 1)
        #expect(meeting.leave(0, place: 3) == [])
        #expect(meeting.join(0, place: 3) == [.joined(3, [0])])
    }

    @Test func aPlanComesBackAsItWas() throws {
        var plan = StressPlan()
        plan.agent = 2
        plan.agents = 5
        plan.seed = .max
        plan.rejoins = true
        plan.folder = "lockstep-stress-1"
        plan.workloads = [.sizes, .names]
        #expect(StressPlan(plan.message) == plan)
        for folder in ["", "../etc", "a/b"] {
            plan.folder = folder
            #expect(StressPlan(plan.message) == nil, "\(folder)")
        }
        plan.folder = "good"
        plan.workloads = []
        #expect(StressPlan(plan.message) == nil)
        plan.workloads = [.logs]
        for (place, value): (Int, UInt64) in [(0, 5), (1, 2000), (4, 0), (8, 0)] {
            var message = plan.message
            message.numbers[place] = value
            #expect(StressPlan(message) == nil, "\(place)")
        }
        #expect(StressPlan(StressMessage(.go)) == nil)
    }
}
