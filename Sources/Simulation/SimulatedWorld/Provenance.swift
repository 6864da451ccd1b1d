// Where bytes come from. After a disaster nobody knows which of the changes that were not synchronised are left;
// but whatever a file shows was once written to that file at that place, or is zero. Anything else
// is a block that shows what was in it before: somebody else's data, or data that was never there.
//
//   B1. Each byte of a file is zero, or what some write of this inode put at this place.
//
// Writes that may not have been carried out count; of an append nobody knows the place before.

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
        let written = pieces[inode] ?? []
        for index in pages.keys.sorted() {
            guard let page = pages[index] else { continue }
            let start = index * TreeModel.pageSize
            guard start < size else { break }
            let count = Int(min(TreeModel.pageSize, size - start))
            judged += count
            var place = 0
            var lost: [Int] = []
            while let first = unexplained(page, from: place, count, at: start, written) {
                let end = appended(page, first, count, written)
                if end == nil { lost.append(first) }
                place = end ?? first + 1
            }
            if lost.count > Self.shortest * 8, let last = lost.last {
                return start + UInt64(lost[0])..<start + UInt64(last + 1)
            }
        }
        return nil
    }

    /// The first byte behind `from` that no piece at a known place explains.
    private func unexplained(
        _ page: [UInt8],
        from: Int,
        _ count: Int,
        at start: UInt64,
        _ written: [Piece]
    ) -> Int? {
        (from..<count).first { index in
            let byte = page[index]
            guard byte != 0 else { return false }
            let position = start + UInt64(index)
            return !written.contains { piece in
                guard let offset = piece.offset, position >= offset,
                    position - offset < UInt64(piece.bytes.count)
                else { return false }
                return piece.bytes[Int(position - offset)] == byte
            }
        }
    }

    /// Where the bytes end that some append put there.
    private func appended(
        _ page: [UInt8],
        _ first: Int,
        _ count: Int,
        _ written: [Piece]
    ) -> Int? {
        let length = Self.shortest
        guard count - first >= length else { return nil }
        for piece in written where piece.offset == nil && piece.bytes.count >= length {
            for at in 0...piece.bytes.count - length
            where piece.bytes[at] == page[first]
                && piece.bytes[at..<at + length].elementsEqual(page[first..<first + length])
            {
                var end = first + length
                while end < count, at + end - first < piece.bytes.count,
                    page[end] == piece.bytes[at + end - first]
                {
                    end += 1
                }
                return end
            }
        }
        return nil
    }
}
