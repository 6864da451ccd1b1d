// What this node knows of the kernel's pages of one file, as far as giving the lock up depends on
// it (Demotion.swift; Docs/KERNEL.md, rules F3 and F5).

import Execution
import LockCache

/// The size of the kernel's pages, in bytes.
let kernelPage: UInt64 = 4096

/// Rounds a range of bytes out to whole pages.
func pages(around bytes: Range<UInt64>) -> Range<UInt64> {
    let start = bytes.lowerBound / kernelPage * kernelPage
    let rest = bytes.upperBound % kernelPage
    let (end, overflow) = bytes.upperBound.addingReportingOverflow(
        rest == 0 ? 0 : kernelPage - rest
    )
    return start..<(overflow ? UInt64.max : end)
}

/// The pages that a range of bytes covers as a whole; empty if it covers none.
func wholePages(in bytes: Range<UInt64>) -> Range<UInt64> {
    let outer = pages(around: bytes)
    let start =
        outer.lowerBound == bytes.lowerBound ? outer.lowerBound : outer.lowerBound + kernelPage
    let end = bytes.upperBound / kernelPage * kernelPage
    return start..<max(start, end)
}

/// The last page of a write(2) through the page cache, if it is covered in part only: the kernel
/// holds it locked unless it was up to date. Pages that are covered as a whole are up to date at
/// once, and not locked.
func lockedPage(of range: Range<UInt64>) -> Range<UInt64>? {
    let end = pages(around: range).upperBound
    let page = end - kernelPage..<end
    let isWhole = range.lowerBound <= page.lowerBound && range.upperBound == end
    return isWhole ? nil : page
}

/// A set of bytes, as ranges that are ascending and apart.
struct ByteRanges {
    private(set) var ranges: [Range<UInt64>] = []

    var isEmpty: Bool { ranges.isEmpty }

    func overlaps(_ range: Range<UInt64>) -> Bool { ranges.contains { $0.overlaps(range) } }

    mutating func add(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        let first = ranges.firstIndex { $0.upperBound >= range.lowerBound } ?? ranges.count
        var end = first
        var merged = range
        while end < ranges.count, ranges[end].lowerBound <= range.upperBound {
            merged =
                min(
                    merged.lowerBound,
                    ranges[end].lowerBound
                )..<max(
                    merged.upperBound,
                    ranges[end].upperBound
                )
            end += 1
        }
        ranges.replaceSubrange(first..<end, with: CollectionOfOne(merged))
    }

    mutating func subtract(_ range: Range<UInt64>) {
        guard overlaps(range) else { return }
        ranges = ranges.flatMap { Self.without(range, $0) }
    }

    /// What of `range` is not in the set.
    func gaps(in range: Range<UInt64>) -> [Range<UInt64>] {
        var rest = ByteRanges()
        rest.add(range)
        for own in ranges where own.overlaps(range) { rest.subtract(own) }
        return rest.ranges
    }

    /// Replaces more pieces than `count` by the one range around them.
    mutating func coarsen(above count: Int) {
        guard ranges.count > count, let first = ranges.first, let last = ranges.last else { return }
        ranges = [first.lowerBound..<last.upperBound]
    }

    /// All of them; none afterwards.
    mutating func take() -> [Range<UInt64>] {
        defer { ranges = [] }
        return ranges
    }

    private static func without(
        _ hole: Range<UInt64>,
        _ range: Range<UInt64>
    ) -> [Range<UInt64>] {
        guard hole.overlaps(range) else { return [range] }
        var rest: [Range<UInt64>] = []
        if range.lowerBound < hole.lowerBound { rest.append(range.lowerBound..<hole.lowerBound) }
        if hole.upperBound < range.upperBound { rest.append(hole.upperBound..<range.upperBound) }
        return rest
    }
}

/// A data request that waits for the lock while the kernel holds pages for it.
struct ParkedRequest {
    /// What the kernel does with the pages meanwhile.
    enum Kind {
        /// READ into the page cache: they are locked and hold nothing yet.
        case fill
        /// WRITE of what a mapping or an unanswered write(2) left in them, under the lock that covers
        /// it: an invalidation waits for the answer.
        case writeBack
        /// The same without such a lock: the answer does not come before it is granted.
        case strayWriteBack
        /// write(2) that covers the last page in part: the page is locked if it was not up to date,
        /// and then holds nothing that is read; if it was, it is not locked, and may become old.
        case partialWrite
    }

    let ticket: UInt64
    let kind: Kind
    let pages: Range<UInt64>
    /// The region whose lock it waits for; nil if it waits for the inode's, or for something else.
    let region: UInt64?
    /// How it will use that lock.
    let mode: HolderMode
}

/// An invalidation of all pages of a range, which is under way.
private struct Pass {
    let number: UInt64
    let range: Range<UInt64>
    /// What was filled or written in the kernel's pages since it began: has to be invalidated once more.
    var touched = ByteRanges()
    /// Called with its ticket when a request parks.
    var whenParked: ((UInt64) -> Void)?
}

/// The pages of one file in the kernel. Engine-bound.
struct PageUse {
    private(set) var parked: [ParkedRequest] = []
    private var nextTicket: UInt64 = 1
    private var passes: [Pass] = []
    /// An invalidation is under way.
    var isInvalidating: Bool { !passes.isEmpty }
    /// All pages that can be up to date in the kernel, and maybe more.
    private(set) var upToDate = ByteRanges()
    /// Pages of more pieces than this are taken for one piece.
    static let mostPieces = 64

    /// What was written past the page cache into pages that may have been up to date. Such a page is
    /// older than the device there, until it is dropped or the kernel has asked for it again. When a
    /// mapping has changed other bytes of it, its write-back leaves these out (KERNEL M4).
    private struct DirectWrite {
        let ticket: UInt64
        var bytes: ByteRanges
    }
    private var overtaking: [DirectWrite] = []
    /// Pages of which what a mapping had changed was written back since they were dropped last, and
    /// maybe more (KERNEL M6).
    private var writtenBack = ByteRanges()

    /// Enters a waiting request; ends with `unpark`. `region`: whose lock it waits for, nil for the inode's.
    mutating func park(
        _ kind: ParkedRequest.Kind,
        _ pages: Range<UInt64>,
        region: UInt64? = nil,
        _ mode: HolderMode = .exclusive
    ) -> UInt64 {
        let ticket = nextTicket
        nextTicket += 1
        parked.append(
            ParkedRequest(ticket: ticket, kind: kind, pages: pages, region: region, mode: mode)
        )
        for pass in passes where pass.range.overlaps(pages) { pass.whenParked?(ticket) }
        return ticket
    }

    // MARK: Invalidations

    /// An invalidation of all pages of a range begins; several may run at the same time. Ends with `endPass`.
    mutating func beginPass(_ range: Range<UInt64>) -> UInt64 {
        let number = nextTicket
        nextTicket += 1
        passes.append(Pass(number: number, range: range))
        return number
    }

    /// Has `body` called when a request parks that uses pages of the pass; nil: nobody.
    mutating func whenParked(_ pass: UInt64, _ body: ((UInt64) -> Void)?) {
        guard let index = passes.firstIndex(where: { $0.number == pass }) else { return }
        passes[index].whenParked = body
    }

    /// What has to be invalidated once more for a pass; nothing afterwards.
    mutating func takeTouched(_ pass: UInt64) -> [Range<UInt64>] {
        guard let index = passes.firstIndex(where: { $0.number == pass }) else { return [] }
        passes[index].touched.coarsen(above: Self.mostPieces)
        return passes[index].touched.take()
    }

    /// All pages of its range are gone.
    mutating func endPass(_ pass: UInt64) {
        guard let index = passes.firstIndex(where: { $0.number == pass }) else { return }
        let range = passes.remove(at: index).range
        upToDate.subtract(range)
        writtenBack.subtract(range)
        forget(overtaken: range)
        overtaking.removeAll { $0.bytes.isEmpty }
    }

    mutating func unpark(_ ticket: UInt64) { parked.removeAll { $0.ticket == ticket } }

    func isParked(_ ticket: UInt64, where isMeant: (ParkedRequest) -> Bool) -> Bool {
        parked.contains { $0.ticket == ticket && isMeant($0) }
    }

    /// The kernel fills pages with these bytes, by an answer that is decided under the lock.
    mutating func noteFill(_ bytes: Range<UInt64>) {
        let range = pages(around: bytes)
        // It would not ask for a page that it has.
        forget(overtaken: range)
        note(range)
    }

    /// The kernel has put these bytes of a write(2), which is being carried out, into its pages.
    mutating func noteCachedWrite(_ bytes: Range<UInt64>) {
        forget(overtaken: wholePages(in: bytes))
        note(pages(around: bytes))
    }

    /// What a mapping has changed in these pages was carried out.
    mutating func noteWriteBack(_ pages: Range<UInt64>) {
        writtenBack.add(pages)
        writtenBack.coarsen(above: Self.mostPieces)
    }

    /// Whether a cached write over these pages may be older than they are, or newer: nobody can tell
    /// in which order the kernel put the bytes there.
    func mayDisagree(_ pages: Range<UInt64>) -> Bool { writtenBack.overlaps(pages) }

    /// The kernel has dropped these pages after such a write.
    mutating func noteDropped(_ pages: Range<UInt64>) { writtenBack.subtract(pages) }

    private mutating func forget(overtaken range: Range<UInt64>) {
        for index in overtaking.indices { overtaking[index].bytes.subtract(range) }
    }

    private mutating func note(_ range: Range<UInt64>) {
        for index in passes.indices where passes[index].range.overlaps(range) {
            passes[index].touched.add(range.clamped(to: passes[index].range))
        }
        upToDate.add(range)
        upToDate.coarsen(above: Self.mostPieces)
    }

    /// Bytes were written past the page cache; still under the lock. The result, unless no page of
    /// theirs can be up to date, names the write until `endDirectWrite`; meanwhile the pages are
    /// dropped.
    mutating func beginDirectWrite(_ bytes: Range<UInt64>) -> UInt64? {
        let range = pages(around: bytes)
        // A page that another direct write is just dropping may be there yet.
        let isBeingDropped = overtaking.contains { write in
            write.bytes.ranges.contains { pages(around: $0).overlaps(range) }
        }
        guard upToDate.overlaps(range) || isBeingDropped else { return nil }
        let ticket = nextTicket
        nextTicket += 1
        var set = ByteRanges()
        set.add(bytes)
        overtaking.append(DirectWrite(ticket: ticket, bytes: set))
        // What is filled from now on is noted again.
        upToDate.subtract(range)
        return ticket
    }

    /// The pages that were there at `beginDirectWrite` are gone.
    mutating func endDirectWrite(_ ticket: UInt64) { overtaking.removeAll { $0.ticket == ticket } }

    /// What of a page that a mapping has changed is not older than the device.
    func notOvertaken(_ range: Range<UInt64>) -> [Range<UInt64>] {
        overtaking.reduce([range]) { rest, write in rest.flatMap { write.bytes.gaps(in: $0) } }
    }

    func mayBeUpToDate(_ pages: Range<UInt64>) -> Bool { upToDate.overlaps(pages) }

    /// The pages of those parked requests, ascending.
    func parkedPages(where isMeant: (ParkedRequest) -> Bool) -> [Range<UInt64>] {
        parked.filter(isMeant).map(\.pages)
            .sorted { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }
    }
}
