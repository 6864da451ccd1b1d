import Testing
import Vocabulary

@testable import FileSystem

@Suite struct ByteRangesTests {
    /// Random unions and differences against a set of single bytes.
    @Test(arguments: 0..<50) func rangesAreASetOfBytes(seed: Int) {
        var dice = SeededGenerator(seed: UInt64(seed))
        var ranges = ByteRanges()
        var bytes: Set<UInt64> = []
        for _ in 0..<200 {
            let start = UInt64(dice.below(60))
            let range = start..<start + UInt64(dice.below(9))
            switch dice.below(4) {
            case 0, 1:
                ranges.add(range)
                bytes.formUnion(range)
            case 2:
                ranges.subtract(range)
                bytes.subtract(range)
            default:
                #expect(ranges.overlaps(range) == range.contains { bytes.contains($0) })
                #expect(
                    ranges.gaps(in: range).flatMap(Array.init)
                        == range.filter { !bytes.contains($0) }
                )
            }
            #expect(ranges.ranges.flatMap(Array.init) == bytes.sorted())
            for (left, right) in zip(ranges.ranges, ranges.ranges.dropFirst()) {
                #expect(left.upperBound < right.lowerBound, "two ranges that touch")
            }
        }
    }

    @Test func manyRangesBecomeOne() {
        var ranges = ByteRanges()
        for index in 0..<5 { ranges.add(UInt64(index * 10)..<UInt64(index * 10 + 1)) }
        ranges.coarsen(above: 5)
        #expect(ranges.ranges.count == 5)
        ranges.coarsen(above: 4)
        #expect(ranges.take() == [0..<41])
        #expect(ranges.isEmpty)
    }

    @Test(arguments: [
        (0..<4096, 0..<4096, 0..<4096), (1..<4096, 0..<4096, 4096..<4096),
        (0..<4097, 0..<8192, 0..<4096), (100..<9000, 0..<12288, 4096..<8192),
        (4000..<4200, 0..<8192, 4096..<4096),
    ])
    func bytesAreRoundedToPages(
        bytes: Range<UInt64>,
        outer: Range<UInt64>,
        inner: Range<UInt64>
    ) {
        #expect(pages(around: bytes) == outer)
        #expect(wholePages(in: bytes) == inner)
        #expect(pages(around: 0..<UInt64.max) == 0..<UInt64.max)
    }
}

@Suite struct PageUseTests {
    @Test func onlyWhatTheKernelMayHaveIsOvertaken() throws {
        var use = PageUse()
        #expect(use.beginDirectWrite(100..<200) == nil)
        use.noteFill(0..<4096)
        let begunFirst = use.beginDirectWrite(100..<200)
        let first = try #require(begunFirst)
        #expect(!use.mayBeUpToDate(0..<4096), "its page is being dropped")
        #expect(use.beginDirectWrite(9000..<9100) == nil)
        #expect(use.notOvertaken(0..<4096) == [0..<100, 200..<4096])
        // A write through the page cache that covers the page in part leaves the old bytes there.
        use.noteCachedWrite(300..<400)
        #expect(use.notOvertaken(0..<4096) == [0..<100, 200..<4096])
        let begunSecond = use.beginDirectWrite(150..<250)
        let second = try #require(begunSecond)
        use.endDirectWrite(first)
        #expect(use.notOvertaken(0..<4096) == [0..<150, 250..<4096])
        // What the kernel asks for again it does not have.
        use.noteFill(4000..<4001)
        #expect(use.notOvertaken(0..<4096) == [0..<4096])
        #expect(use.mayBeUpToDate(0..<4096))
        use.endDirectWrite(second)
        let begunThird = use.beginDirectWrite(100..<200)
        let third = try #require(begunThird)
        use.noteCachedWrite(0..<4096)
        #expect(use.notOvertaken(0..<4096) == [0..<4096])
        use.endDirectWrite(third)
        _ = use.beginDirectWrite(100..<200)
        use.forgetAll()
        #expect(use.notOvertaken(0..<4096) == [0..<4096])
        #expect(!use.mayBeUpToDate(0..<UInt64.max))
    }

    /// The second write finds the page that the first one has not dropped yet.
    @Test func twoDirectWritesIntoOneOldPageAreBothKept() throws {
        var use = PageUse()
        use.noteFill(0..<4096)
        let begunFirst = use.beginDirectWrite(100..<200)
        let begunSecond = use.beginDirectWrite(300..<400)
        let (first, second) = (try #require(begunFirst), try #require(begunSecond))
        #expect(use.notOvertaken(0..<4096) == [0..<100, 200..<300, 400..<4096])
        use.endDirectWrite(first)
        #expect(use.notOvertaken(0..<4096) == [0..<300, 400..<4096])
        use.endDirectWrite(second)
        #expect(use.beginDirectWrite(100..<200) == nil)
    }

    @Test func passesAreRepeatedForWhatWasTouched() {
        var use = PageUse()
        use.noteFill(0..<10)
        #expect(use.touched.isEmpty)
        use.isInvalidating = true
        use.noteFill(5000..<5001)
        use.noteCachedWrite(100..<4097)
        _ = use.beginDirectWrite(0..<4096)
        #expect(use.touched.take() == [0..<8192])
    }

    @Test func parkedPagesAreListedByKind() {
        var use = PageUse()
        let write = use.park(.partialWrite, 8192..<12288)
        let fill = use.park(.fill, 0..<4096)
        #expect(use.parkedPages([.fill, .partialWrite]) == [0..<4096, 8192..<12288])
        #expect(use.parkedPages([.writeBack]) == [])
        #expect(use.isParked(write) && use.isParked(fill))
        use.unpark(fill)
        #expect(use.parkedPages([.fill, .partialWrite]) == [8192..<12288])
        use.unpark(write)
        #expect(use.parked.isEmpty)
    }
}
