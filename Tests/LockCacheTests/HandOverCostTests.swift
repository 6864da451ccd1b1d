// What a hand-over costs and how long a lock is kept for it.

import LockCache
import Testing

@Suite struct HandOverCostTests {
    private static let longest = HandOverCost.longestHold

    @Test func whatWasNeverHandedOverIsNotKept() {
        #expect(HandOverCost().holdEnd(grantedAt: 100, now: 100) == nil)
    }

    @Test func itIsKeptForHalfTheWait() {
        var cost = HandOverCost()
        cost.measured(from: 1000, to: 1800)
        #expect(cost.mean == 800)
        #expect(cost.holdEnd(grantedAt: 5000, now: 5000) == 5400)
        #expect(cost.holdEnd(grantedAt: 5000, now: 5399) == 5400)
        #expect(cost.holdEnd(grantedAt: 5000, now: 5400) == nil)
    }

    @Test func theNewestCountsAQuarter() {
        var cost = HandOverCost()
        cost.measured(from: 0, to: 400)
        cost.measured(from: 0, to: 800)
        #expect(cost.mean == 500)
        cost.measured(from: 0, to: 100)
        #expect(cost.mean == 400)
    }

    /// It comes near what is measured, from above and below, and stays there.
    @Test(arguments: [UInt64(1), 400_000]) func itFollows(first: UInt64) {
        var cost = HandOverCost()
        cost.measured(from: 0, to: first)
        for _ in 1...40 { cost.measured(from: 7, to: 100_007) }
        #expect(abs(Int(cost.mean) - 100_000) < 20)
    }

    @Test func noLongerThanTheLongest() {
        var cost = HandOverCost()
        for end in [UInt64.max, 20 * Self.longest, Self.longest] {
            cost.measured(from: 0, to: end)
            #expect(cost.mean <= 2 * Self.longest)
            #expect(cost.holdEnd(grantedAt: 9, now: 9).map { $0 - 9 <= Self.longest } == true)
        }
        #expect(cost.holdEnd(grantedAt: 9, now: 9 + Self.longest) == nil)
    }

    @Test func aClockThatGoesBackIsPassedOver() {
        var cost = HandOverCost()
        cost.measured(from: 500, to: 900)
        cost.measured(from: 900, to: 500)
        #expect(cost.mean == 400)
        #expect(cost.holdEnd(grantedAt: 901, now: 900) == nil)
        #expect(cost.holdEnd(grantedAt: .max - 1, now: .max - 1) == nil)
    }

    /// Two nodes that hand a lock to and fro, of which one has kept it much longer than the other: soon both keep it for
    /// as long as a hand-over costs.
    @Test func aDifferenceVanishes() {
        let price: UInt64 = 600_000
        var costs = [HandOverCost(), HandOverCost()]
        costs[0].measured(from: 0, to: 8_000_000)
        costs[1].measured(from: 0, to: 1000)
        for _ in 1...60 {
            for node in 0...1 {
                let hold = costs[1 - node].holdEnd(grantedAt: 1, now: 1) ?? 1
                costs[node].measured(from: 1, to: hold + price)
            }
        }
        for cost in costs { #expect(abs(Int(cost.mean) - 2 * Int(price)) < Int(price) / 50) }
    }
}
