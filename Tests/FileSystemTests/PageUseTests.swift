import LockCache
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
    private func expect(_ use: inout PageUse, _ pass: UInt64, _ touched: [Range<UInt64>]) {
        let found = use.takeTouched(pass)
        #expect(found == touched)
    }

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
        let pass = use.beginPass(0..<UInt64.max)
        use.endPass(pass)
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
        let all = use.beginPass(0..<UInt64.max)
        expect(&use, all, [])
        use.noteFill(5000..<5001)
        use.noteCachedWrite(100..<4097)
        _ = use.beginDirectWrite(0..<4096)
        expect(&use, all, [0..<8192])
    }

    /// The lock of a region and that of the file may be given up at the same time: neither takes what the other
    /// has to do.
    @Test func passesDoNotTakeFromEachOther() {
        var use = PageUse()
        let all = use.beginPass(0..<UInt64.max)
        let second = use.beginPass(4096..<8192)
        use.noteFill(0..<8192)
        expect(&use, second, [4096..<8192])
        expect(&use, all, [0..<8192])
        use.noteFill(4096..<4097)
        use.endPass(second)
        #expect(use.isInvalidating)
        #expect(use.mayBeUpToDate(0..<4096) && !use.mayBeUpToDate(4096..<8192))
        expect(&use, all, [4096..<8192])
        use.endPass(all)
        #expect(!use.isInvalidating && !use.mayBeUpToDate(0..<UInt64.max))
    }

    /// Who waits elsewhere is left out of a pass; a write-back that is covered never is.
    @Test func whoIsLeftOutOfAPass() {
        var use = PageUse()
        _ = use.park(.fill, 0..<4096, region: 1, .shared)
        _ = use.park(.fill, 0..<8192, region: 2, .exclusive)
        _ = use.park(.partialWrite, 0..<4096)
        _ = use.park(.writeBack, 0..<4096)
        _ = use.park(.strayWriteBack, 4096..<8192)
        func left(_ region: UInt64?, _ held: LockMode) -> [ParkedRequest.Kind] {
            use.parked.filter { Invalidation.leavesOut($0, region: region, held: held) }
                .map(\.kind)
        }
        #expect(left(nil, .protectedRead).count == 5)
        #expect(left(nil, .concurrentWrite) == [.fill, .fill, .partialWrite, .strayWriteBack])
        // Under EX who uses the whole is let in, who will lock regions is not.
        #expect(left(nil, .exclusive) == [])
        _ = use.park(.fill, 0..<4096, .concurrent)
        #expect(left(nil, .exclusive) == [.fill])
        #expect(left(1, .exclusive) == [.fill, .partialWrite, .strayWriteBack, .fill])
        #expect(
            left(1, .protectedRead) == [.fill, .partialWrite, .writeBack, .strayWriteBack, .fill]
        )
    }

    @Test func parkedPagesAreListedByKind() {
        var use = PageUse()
        let write = use.park(.partialWrite, 8192..<12288)
        let fill = use.park(.fill, 0..<4096)
        #expect(use.parkedPages { _ in true } == [0..<4096, 8192..<12288])
        #expect(use.parkedPages { $0.kind == .writeBack } == [])
        #expect(use.isParked(write) { $0.kind == .partialWrite })
        #expect(use.isParked(fill) { $0.mode == .exclusive })
        use.unpark(fill)
        #expect(use.parkedPages { _ in true } == [8192..<12288])
        use.unpark(write)
        #expect(use.parked.isEmpty)
    }
}
