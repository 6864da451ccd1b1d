// Where bytes come from. After a disaster nobody knows which of the changes that were not synchronised are left;
// but whatever a file shows was once written to that file at that place, or is zero. Anything else
// is a block that shows what was in it before: somebody else's data, or data that was never there.
//
//   B1. Each byte of a file is zero, or what some write of this inode put at this place.
//
// Writes that may not have been carried out count; of an append nobody knows the place before. Nor
// does it have one place: a write(2) that finds no room for all, or that the kernel sends in
// several requests, goes on at what is the end then, behind what others have appended meanwhile.

import FileSystem
import Vocabulary

/// What was written to every inode of a run.
final class Provenance {
    private struct Piece {
        /// Nil: at the end of the file, wherever that was.
        let offset: UInt64?
        let bytes: [UInt8]
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
        for piece in written where piece.offset != nil {
            explain(page, at: start, piece, &isOpen)
        }
        var lost: Range<Int>?
        var lostCount = 0
        var place = 0
        while let first = isOpen[place...].firstIndex(of: true) {
            if let found = appended(page, first, count, written) {
                // Where this part of it went is known from now on.
                let part = Piece(
                    offset: start + UInt64(first),
                    bytes: Array(written[found.piece].bytes[found.at...])
                )
                written.append(part)
                explain(page, at: start, part, &isOpen)
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
        _ piece: Piece,
        _ isOpen: inout [Bool]
    ) {
        guard let offset = piece.offset else { return }
        let low = max(offset, start)
        let high = min(offset + UInt64(piece.bytes.count), start + UInt64(isOpen.count))
        guard low < high else { return }
        let (first, from, length) = (Int(low - start), Int(low - offset), Int(high - low))
        page.withUnsafeBufferPointer { page in
            piece.bytes.withUnsafeBufferPointer { bytes in
                for index in 0..<length where page[first + index] == bytes[from + index] {
                    isOpen[first + index] = false
                }
            }
        }
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
                        if same == shortest { return at }
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
