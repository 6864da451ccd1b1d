import Fencing
import Testing
import Vocabulary

@Suite struct LeaseTests {
    private static let second: UInt64 = 1_000_000_000

    private static func terms(drift: UInt64 = 1_000) -> LeaseTerms {
        LeaseTerms(
            interval: 2 * second,
            slowest: 3 * second,
            stop: 10 * second,
            watchdog: 5 * second,
            flight: 4 * second,
            drift: drift
        )
    }

    @Test func theTimesFollow() throws {
        let timeline = try LeaseTimeline(Self.terms())
        #expect(timeline.reset == 15 * Self.second)
        #expect(timeline.recover == 19_019_001_000)
        #expect(
            timeline.lines == [
                "0 s: the last renewal is begun; others read it at this time or later",
                "10 s: not renewed, the node stops by itself and its watchdog is stroked no more",
                "15 s: the watchdog has reset the machine, whatever its programs did",
                "19 s: what it had sent to the device has arrived, or never will",
                "19.019 s: others may recover, by their own clocks (1000 millionths apart at most)",
            ]
        )
    }

    @Test func termsThatCannotWorkAreRefused() {
        var terms = Self.terms()
        terms.stop = 9 * Self.second
        let error = #expect(throws: LeaseTermsError.self) { try LeaseTimeline(terms) }
        #expect(
            error?.description
                == "a holder would stop after 9 s although its device is well: two renewals may take 10 s"
        )
        terms = Self.terms()
        terms.watchdog = 0
        #expect(throws: LeaseTermsError.self) { try LeaseTimeline(terms) }
        terms = Self.terms(drift: 100_001)
        #expect(throws: LeaseTermsError.self) { try LeaseTimeline(terms) }
        terms = Self.terms()
        terms.flight = 86_400 * Self.second + 1
        #expect(throws: LeaseTermsError.self) { try LeaseTimeline(terms) }
        terms = Self.terms(drift: 100_000)
        terms.flight = 86_400 * Self.second
        #expect(throws: Never.self) { try LeaseTimeline(terms) }
    }

    /// At the edges, to the nanosecond.
    @Test func theEdges() throws {
        let timeline = try LeaseTimeline(Self.terms())
        var holder = LeaseHolder(timeline, start: Tick(100))
        let isValid = holder.isValid(at: Tick(100 + timeline.terms.stop - 1))
        #expect(isValid)
        var late = holder
        let isLate = late.isValid(at: Tick(100 + timeline.terms.stop))
        let begins = late.begin(at: Tick(100 + timeline.terms.stop))
        #expect(!isLate && !begins)
        // A renewal counts from when it was begun, if it returned in time.
        let first = holder.begin(at: Tick(500))
        let second = holder.begin(at: Tick(501))
        #expect(first && !second, "one at a time")
        var tooLate = holder
        tooLate.ended(isDurable: true, at: Tick(100 + timeline.terms.stop))
        #expect(tooLate.isOver && tooLate.validSince == Tick(100))
        holder.ended(isDurable: true, at: Tick(100 + timeline.terms.stop - 1))
        #expect(holder.validSince == Tick(500) && holder.end == Tick(500 + timeline.terms.stop))
        let third = holder.begin(at: Tick(900))
        #expect(third)
        holder.ended(isDurable: false, at: Tick(950))
        #expect(holder.validSince == Tick(500))

        var observer = LeaseObserver(timeline, counter: 7, at: Tick(1_000))
        observer.read(
            7,
            begun: Tick(1_000 + timeline.recover - 1),
            returned: Tick(1_000 + timeline.recover + 5)
        )
        #expect(!observer.isOver, "that read may have missed a renewal")
        observer.read(
            7,
            begun: Tick(1_000 + timeline.recover),
            returned: Tick(1_000 + timeline.recover)
        )
        #expect(observer.isOver)
        observer.read(
            8,
            begun: Tick(1_001 + timeline.recover),
            returned: Tick(1_009 + timeline.recover)
        )
        #expect(!observer.isOver && observer.end == Tick(1_009 + 2 * timeline.recover))
    }

    /// A node that is frozen at the worst moments, a device that keeps what it was sent as long as it may, clocks that
    /// run as differently as they may: nothing of it arrives when an observer has called it over.
    @Test(arguments: 1...400 as ClosedRange<UInt64>)
    func nothingArrivesAfterTheEnd(seed: UInt64) throws {
        var dice = SeededGenerator(seed: seed)
        let timeline = try LeaseTimeline(Self.terms(drift: 50_000))
        // Real time in milliseconds; the holder's clock may be the slower one by 5 %.
        let isSlow = dice.oneIn(2)
        func holders(_ time: UInt64) -> Tick { Tick(time * 1_000_000 / (isSlow ? 105 : 100) * 100) }
        func observers(_ time: UInt64) -> Tick { Tick(time * 1_000_000) }
        var holder = LeaseHolder(timeline, start: holders(0))
        var observer = LeaseObserver(timeline, counter: 0, at: observers(0))
        var stroked = holders(0)
        var counter: UInt64 = 0
        var onDisk: UInt64 = 0
        var arrivals: [(time: UInt64, counter: UInt64?)] = []
        var frozenUntil: UInt64 = 0
        var wantsToWrite = false
        var renewal: (counter: UInt64, done: UInt64)?
        var lastArrival: UInt64 = 0
        var isReset = false
        let dies = 10_000 + UInt64(dice.below(60_000))
        for time in stride(from: 0 as UInt64, to: 200_000, by: 50) {
            for arrival in arrivals where arrival.time == time {
                if let counter = arrival.counter { onDisk = max(onDisk, counter) }
                lastArrival = time
            }
            let clock = holders(time)
            if clock.rawValue - stroked.rawValue >= timeline.terms.watchdog { isReset = true }
            if !isReset, time >= frozenUntil {
                // Frozen between the check and the write, or between the two and the stroke.
                if wantsToWrite {
                    arrivals.append((time + 50 * UInt64(1 + dice.below(79)), nil))
                    wantsToWrite = false
                }
                if let done = renewal, time >= done.done {
                    holder.ended(isDurable: true, at: clock)
                    renewal = nil
                }
                if holder.isValid(at: clock) {
                    stroked = clock
                    wantsToWrite = dice.oneIn(3)
                    if time < dies, clock >= holder.due, holder.begin(at: clock) {
                        counter += 1
                        let done = time + 50 * UInt64(1 + dice.below(40))
                        arrivals.append((done, counter))
                        renewal = (counter, done)
                    }
                }
                if dice.oneIn(60) { frozenUntil = time + UInt64(dice.below(20_000)) }
            }
            observer.read(onDisk, begun: observers(time), returned: observers(time))
            if observer.isOver { break }
        }
        #expect(observer.isOver)
        let over = observer.end
        for arrival in arrivals { lastArrival = max(lastArrival, arrival.time) }
        #expect(observers(lastArrival) <= over, "something arrived at \(lastArrival) ms")
    }
}
