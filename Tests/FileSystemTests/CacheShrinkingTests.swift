// What is given back of what nobody uses, and how much (CacheShrinking S1 to S5).

import FileSystem
import Testing
import Vocabulary

@Suite struct CacheShrinkingTests {
    /// Walks once over things of these ages; returns which went. Places are looked at a few at a time.
    private func walk(_ shrinking: inout CacheShrinking, _ used: [UInt64]) -> [UInt64] {
        var gone: [UInt64] = []
        while let pass = shrinking.pass {
            let end = min(pass.place + 3, used.count)
            for place in pass.place..<end where shrinking.gives(usedAt: Tick(used[place])) {
                gone.append(used[place])
            }
            shrinking.stepEnded(
                at: end < used.count ? end : nil,
                blocks: min(pass.blocks, 10),
                hasNoMoreBlocks: false
            )
        }
        return gone
    }

    @Test func whatIsOldGoes() {
        var shrinking = CacheShrinking(age: 100, bound: 1000)
        #expect(!shrinking.isAgePassDue(at: Tick(100)), "nothing can be so old")
        #expect(shrinking.isAgePassDue(at: Tick(150)))
        shrinking.beginAgePass(at: Tick(150), blocks: 0)
        #expect(walk(&shrinking, [10, 60, 49, 50, 51, 150]) == [10, 49, 50])
        #expect(!shrinking.isAgePassDue(at: Tick(161)))
        #expect(shrinking.isAgePassDue(at: Tick(162)))
    }

    @Test func withoutAnAgeNothingGrowsOld() {
        let shrinking = CacheShrinking(age: 0, bound: 10)
        #expect(!shrinking.isAgePassDue(at: Tick(.max)))
    }

    @Test func tooManyGoDownToTheBoundOldestFirst() {
        var shrinking = CacheShrinking(age: 0, bound: 8)
        #expect(shrinking.excess(of: 9) == 0, "an eighth more may stay")
        #expect(shrinking.excess(of: 10) == 2)
        let used: [UInt64] = [7, 3, 9, 1, 4, 8, 2, 6, 5, 10]
        shrinking.beginBoundPass(2, sample: used.map { Tick($0) }, stride: 1)
        #expect(shrinking.excess(of: 100) == 0, "while a pass is under way")
        #expect(walk(&shrinking, used).sorted() == [1, 2])
        // More than there are: all of them.
        shrinking.beginBoundPass(50, sample: used.map { Tick($0) }, stride: 1)
        #expect(walk(&shrinking, used).count == used.count)
        shrinking.beginBoundPass(50, sample: [], stride: 1)
        #expect(shrinking.pass == nil)
    }

    /// Of those that were used in the same moment no more go than shall.
    @Test func ofEquallyOldOnesHalfGo() {
        var shrinking = CacheShrinking(age: 0, bound: 8)
        let used = [UInt64](repeating: 5, count: 21)
        shrinking.beginPressurePass(sample: used.map { Tick($0) }, stride: 1, blocks: 0)
        #expect(walk(&shrinking, used).count == 11)
    }

    @Test func underPressureTheOlderHalfGoes() {
        var shrinking = CacheShrinking(age: 100, bound: 8)
        let used = (0..<40).map { UInt64($0 * 7 % 40) }
        shrinking.beginPressurePass(sample: used.map { Tick($0) }, stride: 1, blocks: 25)
        #expect(shrinking.pass?.blocks == 13)
        #expect(walk(&shrinking, used).sorted() == Array(0..<20))
        #expect(shrinking.pass == nil)
        // Of nothing nothing goes, of blocks alone half.
        shrinking.beginPressurePass(sample: [], stride: 1, blocks: 4)
        #expect(shrinking.pass?.blocks == 2)
        #expect(walk(&shrinking, used) == [])
    }

    /// S1.
    @Test func pressureComesFirst() {
        var shrinking = CacheShrinking(age: 100, bound: 8)
        shrinking.beginAgePass(at: Tick(1000), blocks: 3)
        shrinking.beginPressurePass(sample: [Tick(3), Tick(5)], stride: 1, blocks: 0)
        #expect(shrinking.pass?.reason == .pressure && shrinking.pass?.cutoff == Tick(3))
        #expect(!shrinking.isAgePassDue(at: Tick(9000)))
        let before = shrinking.pass
        shrinking.beginPressurePass(sample: [Tick(9), Tick(9)], stride: 1, blocks: 0)
        #expect(shrinking.pass == before, "one does not begin anew before it has ended")
        shrinking.cancel()
        #expect(shrinking.pass == nil && shrinking.isAgePassDue(at: Tick(9000)))
    }

    /// A sample gives nearly the half: the count is of all, the cutoff of those looked at.
    @Test func aSampleWillDo() {
        let places = 20_000
        let stride = CacheShrinking.stride(over: places)
        #expect(places / stride <= CacheShrinking.sampleSize && stride > 1)
        let used = (0..<places).map { UInt64(($0 &* 2_654_435_761) % 10_007) }
        let sample = Swift.stride(from: 0, to: places, by: stride).map { Tick(used[$0]) }
        var shrinking = CacheShrinking(age: 0, bound: 8)
        shrinking.beginPressurePass(sample: sample, stride: stride, blocks: 0)
        let gone = walk(&shrinking, used)
        #expect(abs(gone.count - places / 2) < places / 40)
        #expect((gone.max() ?? 0) < 5_300)
        shrinking.beginBoundPass(1000, sample: sample, stride: stride)
        #expect(abs(walk(&shrinking, used).count - 1000) < 200)
    }
}
