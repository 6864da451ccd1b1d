// How long a lock is kept for what it costs to hand it over.

import LockCache
import Testing

@Suite struct MinimumHoldTests {
    private static let longest = MinimumHold.longestHold
    private static let linger = MinimumHold.shortestLinger
    private static let millisecond: UInt64 = 1_000_000

    private func waited(_ times: UInt64...) -> MinimumHold {
        var hold = MinimumHold()
        for time in times { hold.waited(from: 7, to: 7 + time) }
        return hold
    }

    /// Asks until the lock is given up, while somebody is inside all the time; when that was.
    private func keptInUse(_ hold: inout MinimumHold, granted: UInt64) -> UInt64 {
        var verdict = hold.wanted(granted: granted, isInUse: true, now: granted)
        var now = granted
        while case .keep(let next) = verdict {
            #expect(next > now && next - now <= MinimumHold.longestLinger)
            now = next
            hold.used(now: now)
            verdict = hold.check(isInUse: true, now: now)
        }
        return now
    }

    @Test func whatWasNeverWaitedForIsGivenUpAtOnce() {
        var hold = MinimumHold()
        #expect(hold.wanted(granted: 100, isInUse: true, now: 100) == .giveUp)
        #expect(!hold.isDelaying)
    }

    @Test func whoIsAtWorkKeepsItForAShareOfTheWait() {
        for wait in [10, 15, 20] as [UInt64] {
            var hold = waited(wait * Self.millisecond)
            #expect(keptInUse(&hold, granted: 5000) == 5000 + wait * Self.millisecond / 20 * 19)
            #expect(!hold.isDelaying)
        }
    }

    /// However short the waits are there is time for a second operation, and for more when there mostly was one.
    @Test func whoIsMostlyAtWorkKeepsItForAWhile() {
        var hold = waited(1000)
        for _ in 0..<4 {
            #expect(keptInUse(&hold, granted: 5000) == 5000 + MinimumHold.shortestHold)
        }
        for _ in 0..<9 {
            #expect(keptInUse(&hold, granted: 5000) == 5000 + MinimumHold.steadyHold)
        }
    }

    /// A moment without an operation is enough; operations that come and go count.
    @Test func whoStopsWorkingGivesItUp() {
        var hold = waited(10 * Self.millisecond)
        let begin: UInt64 = 5000
        #expect(
            hold.wanted(granted: begin, isInUse: true, now: begin)
                == .keep(until: begin + Self.linger)
        )
        hold.used(now: begin + 10)
        hold.used(now: begin + 100)
        #expect(
            hold.check(isInUse: false, now: begin + Self.linger)
                == .keep(until: begin + 100 + Self.linger)
        )
        hold.used(now: begin + Self.linger)
        #expect(
            hold.check(isInUse: false, now: begin + 100 + Self.linger)
                == .keep(until: begin + 2 * Self.linger)
        )
        #expect(hold.check(isInUse: false, now: begin + 2 * Self.linger) == .giveUp)
        // It was not in vain: the next want waits too.
        #expect(hold.wanted(granted: begin, isInUse: false, now: begin) != .giveUp)
    }

    /// A second want changes nothing about the time of the first.
    @Test func laterWantsWaitForTheSameTime() {
        var hold = waited(10 * Self.millisecond)
        let end = 5000 + 19 * Self.millisecond / 2
        #expect(
            hold.wanted(granted: 5000, isInUse: true, now: end - 100) == .keep(until: end)
        )
        #expect(hold.wanted(granted: 5000, isInUse: true, now: end - 50) == .keep(until: end))
        #expect(hold.wanted(granted: 5000, isInUse: true, now: end) == .giveUp)
    }

    @Test func lateWantsDoNotWait() {
        var hold = waited(1000)
        let end = 5000 + MinimumHold.shortestHold
        #expect(hold.wanted(granted: 5000, isInUse: true, now: end) == .giveUp)
        #expect(hold.wanted(granted: 5000, isInUse: true, now: 100 * end) == .giveUp)
        #expect(hold.wanted(granted: 5000, isInUse: true, now: end - 1) == .keep(until: end))
    }

    /// Hands the lock over once; whether its want was delayed.
    private func handOver(_ hold: inout MinimumHold, worksOn: Bool) -> Bool {
        guard hold.wanted(granted: 5000, isInUse: true, now: 5000) != .giveUp else { return false }
        hold.used(now: 5001)  // what it was granted for
        if worksOn { hold.used(now: 5002) }
        let end = 5002 + MinimumHold.longestLinger
        #expect(hold.check(isInUse: false, now: end) == .giveUp)
        return true
    }

    /// Who does one operation each time soon delays nobody any more, but for a trial now and then.
    @Test func lingersInVainAreLeftOut() {
        var hold = waited(1000)
        var gaps: [Int] = []
        var gap = 0
        for _ in 0..<400 {
            if handOver(&hold, worksOn: false) {
                gaps.append(gap)
                gap = 0
            } else {
                gap += 1
            }
        }
        #expect(gaps == [0, 1, 2, 4, 8, 16, 32, 64, 64, 64, 64, 64])
    }

    @Test func oneThatIsNotInVainEndsTheDoubt() {
        var hold = waited(1000)
        for _ in 0..<20 { _ = handOver(&hold, worksOn: false) }
        while !handOver(&hold, worksOn: true) {}
        #expect(handOver(&hold, worksOn: false))
        #expect(!handOver(&hold, worksOn: false))
        #expect(handOver(&hold, worksOn: false))
    }

    /// Who was at work often may miss a time; not for ever.
    @Test func trustIsSpent() {
        var hold = waited(1000)
        for _ in 0..<100 { #expect(handOver(&hold, worksOn: true)) }
        for _ in 0..<4 { #expect(handOver(&hold, worksOn: false)) }
        #expect(handOver(&hold, worksOn: false))
        #expect(!handOver(&hold, worksOn: false))
    }

    @Test func theNewestCountsAQuarter() {
        #expect(waited(400, 800).mean == 500)
        #expect(waited(400, 800, 100).mean == 400)
    }

    @Test func noLongerThanTheLongest() {
        var hold = MinimumHold()
        for end in [UInt64.max, 20 * Self.longest, Self.longest] {
            hold.waited(from: 0, to: end)
            #expect(hold.mean <= Self.longest)
        }
        let kept = keptInUse(&hold, granted: 9) - 9
        #expect(kept <= Self.longest && kept > Self.longest / 2)
    }

    @Test func aClockThatGoesBackIsPassedOver() {
        var hold = waited(400)
        hold.waited(from: 900, to: 500)
        #expect(hold.mean == 400)
        #expect(hold.wanted(granted: 901, isInUse: true, now: 900) == .giveUp)
        #expect(hold.wanted(granted: .max - 1, isInUse: true, now: .max - 1) == .giveUp)
    }

    /// Two nodes that hand a lock to and fro, of which one has kept it much longer than the other: soon both keep it for 19
    /// times what a hand-over costs.
    @Test func aDifferenceVanishes() {
        let price: UInt64 = 600_000
        var waits = [waited(20_000_000), waited(1000)]
        for _ in 1...1000 {
            for node in 0...1 {
                let other = waits[1 - node].mean
                waits[node].waited(from: 0, to: other - other / 20 + price)
            }
        }
        for wait in waits { #expect(abs(Int(wait.mean) - 20 * Int(price)) < Int(price)) }
    }
}
