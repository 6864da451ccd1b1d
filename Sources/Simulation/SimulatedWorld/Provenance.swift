// Where bytes come from. After a disaster nobody knows which of the changes that were not synchronised are left;
// but whatever a file shows was once written to that file at that place, or is zero. Anything else
// is a block that shows what was in it before: somebody else's data, or data that was never there.
//
//   B1. Each byte of a file is zero, or what some write of this inode put at this place.
//
//   B2. Each byte of an append is at one place.
//
// Writes that may not have been carried out count; of an append nobody knows the place before. Nor
// is it in one piece: a write(2) that finds no room for all, or that the kernel sends in several
// requests, goes on at what is the end then, behind what others have appended meanwhile. So its
// bytes are ticked off as they are found (`shown`), and what is ticked off explains nothing elsewhere.
// A program that tries again appends the same bytes once more, which is another write.

import FileSystem
import Vocabulary

/// What was written to every inode of a run.
final class Provenance {
    fileprivate struct Piece {
        /// Nil: at the end of the file, wherever that was.
        let offset: UInt64?
        let bytes: [UInt8]
        /// Of a part of an append: of which, and from which of its bytes on.
        var source: (piece: Int, at: Int)?
        /// Of an append: which of its bytes have been found somewhere (B2). Empty: none.
        var shown: [Bool] = []
    }

    /// So many bytes of an append are recognised. What is shorter (between two truncations) is not; a block
    /// of somebody else's is longer.
    private static let shortest = 8

    private var pieces: [InodeNumber: [Piece]] = [:]
    /// Bytes of which the origin was asked.
    private(set) var judged = 0

    /// Where the file ends to which is appended next, while one operation goes on at a time.
    var end: UInt64?

    /// A write begins. `offset` nil: at the end.
    func write(_ inode: InodeNumber, at offset: UInt64?, _ bytes: [UInt8]) {
        pieces[inode, default: []].append(Piece(offset: offset ?? end, bytes: bytes))
    }

    /// What of a file comes from nowhere; nil if nothing does.
    func foreign(_ inode: InodeNumber, pages: [UInt64: [UInt8]], of size: UInt64) -> Range<UInt64>?
    {
        var written = pieces[inode] ?? []
        defer { pieces[inode] = written }
        for index in pages.keys.sorted() {
            guard let page = pages[index] else { continue }
            let start = index * TreeModel.pageSize
            guard start < size else { break }
            let count = Int(min(TreeModel.pageSize, size - start))
            judged += count
            if let lost = Self.unexplained(page, count, at: start, &written) {
                return start + UInt64(lost.lowerBound)..<start + UInt64(lost.upperBound)
            }
        }
        return nil
    }

    /// Bytes of a page that no piece explains.
    private static func unexplained(
        _ page: [UInt8],
        _ count: Int,
        at start: UInt64,
        _ written: inout [Piece]
    ) -> Range<Int>? {
        var isOpen = page.prefix(count).map { $0 != 0 }
        for index in written.indices { explain(page, at: start, index, &written, &isOpen) }
        var lost: Range<Int>?
        var lostCount = 0
        var place = 0
        while let first = isOpen[place...].firstIndex(of: true) {
            if let found = appended(page, first, count, written) {
                // Where this part of it went is known from now on.
                written.append(
                    Piece(
                        offset: start + UInt64(first),
                        bytes: Array(written[found.piece].bytes[found.at...]),
                        source: found
                    )
                )
                explain(page, at: start, written.endIndex - 1, &written, &isOpen)
            }
            if isOpen[first] {
                lost = (lost?.lowerBound ?? first)..<first + 1
                lostCount += 1
                if lostCount > shortest * 8 { return lost }
            }
            place = first + 1
        }
        return nil
    }

    /// Takes out what a piece at a known place explains.
    private static func explain(
        _ page: [UInt8],
        at start: UInt64,
        _ index: Int,
        _ written: inout [Piece],
        _ isOpen: inout [Bool]
    ) {
        let piece = written[index]
        guard let offset = piece.offset else { return }
        let low = max(offset, start)
        let high = min(offset + UInt64(piece.bytes.count), start + UInt64(isOpen.count))
        guard low < high else { return }
        let (first, from, length) = (Int(low - start), Int(low - offset), Int(high - low))
        // Bytes that are equal, one after the other, up to here: few are so by chance.
        var run = 0
        for step in 0..<length {
            guard page[first + step] == piece.bytes[from + step] else {
                run = 0
                continue
            }
            isOpen[first + step] = false
            run += 1
            if let source = piece.source, run >= shortest {
                let last = source.at + from + step
                tick(last + 1 - (run == shortest ? shortest : 1)...last, &written[source.piece])
            }
        }
    }

    private static func tick(_ found: ClosedRange<Int>, _ append: inout Piece) {
        if append.shown.isEmpty {
            append.shown = Array(repeating: false, count: append.bytes.count)
        }
        for index in found { append.shown[index] = true }
    }

    /// Which append of unknown place put bytes there, and which of its bytes is the first.
    private static func appended(
        _ page: [UInt8],
        _ first: Int,
        _ count: Int,
        _ written: [Piece]
    ) -> (piece: Int, at: Int)? {
        guard count - first >= shortest else { return nil }
        for (index, piece) in written.enumerated()
        where piece.offset == nil && piece.bytes.count >= shortest {
            let found = piece.bytes.withUnsafeBufferPointer { bytes in
                page.withUnsafeBufferPointer { page -> Int? in
                    var at = 0
                    while at <= bytes.count - shortest {
                        var same = 0
                        while same < shortest, bytes[at + same] == page[first + same] { same += 1 }
                        if same == shortest, !piece.hasShown(at..<at + shortest) { return at }
                        at += 1
                    }
                    return nil
                }
            }
            if let found { return (index, found) }
        }
        return nil
    }
}

extension Provenance.Piece {
    /// Any of these bytes was found elsewhere.
    fileprivate func hasShown(_ range: Range<Int>) -> Bool {
        !shown.isEmpty && shown[range].contains(true)
    }
}
