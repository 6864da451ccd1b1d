// What one owner has locked of a file: ranges of bytes that are disjoint, each with a mode and the lock of the
// lock manager that stands for it. Pure: says what has to be asked for and what can be given up when a range is
// locked in another mode, or unlocked, as POSIX wants it (fcntl(2): ranges split and join, and are replaced).
//
// R1. Pieces are disjoint and in order.
// R2. Whatever is changed, nothing that stays locked is unlocked in between: the remainders of a piece are asked
//     for, as locks of their own, before the piece is given up. They are granted whoever waits, as the owner has
//     these bytes in that mode already (LockCore, B2).
//
// Pieces side by side are not joined: that would cost messages, and nobody can tell (LockCore, B5).
//
// Source: `posix_lock_inode` in Linux's fs/locks.c.

package import Vocabulary

/// The ranges of one owner.
package struct HeldRanges: Sendable {
    /// Bytes locked in one mode.
    package struct Piece: Hashable, Sendable {
        package var bytes: LockedBytes
        package var mode: LockMode
        /// The lock that stands for it, as the owner of this table numbers them.
        package var lock: UInt64

        package init(_ bytes: LockedBytes, _ mode: LockMode, lock: UInt64) {
            self.bytes = bytes
            self.mode = mode
            self.lock = lock
        }
    }

    /// In order.
    package private(set) var pieces: [Piece] = []

    package init() {}

    /// Whether every byte of the range is locked in exactly this mode.
    package func covers(_ bytes: LockedBytes, _ mode: LockMode) -> Bool {
        var next = bytes.first
        for piece in overlapping(bytes) {
            if piece.mode != mode || piece.bytes.first > next { return false }
            if piece.bytes.last >= bytes.last { return true }
            next = piece.bytes.last + 1
        }
        return false
    }

    /// What stays of the pieces that the range cuts: to be asked for before `replace`. The number of the
    /// piece's lock stands in `lock`.
    package func remainders(around bytes: LockedBytes) -> [Piece] {
        var found: [Piece] = []
        for piece in overlapping(bytes) {
            let whole = piece.bytes
            if whole.first < bytes.first {
                let left = LockedBytes(
                    first: whole.first,
                    last: bytes.first - 1,
                    process: whole.process
                )
                found.append(Piece(left, piece.mode, lock: piece.lock))
            }
            if whole.last > bytes.last {
                let right = LockedBytes(
                    first: bytes.last + 1,
                    last: whole.last,
                    process: whole.process
                )
                found.append(Piece(right, piece.mode, lock: piece.lock))
            }
        }
        return found
    }

    /// Puts `new` in the place of what is locked of the range; nil unlocks it. `remainders` are those that
    /// were asked for, with their locks. Returns the locks to be given up.
    package mutating func replace(
        _ bytes: LockedBytes,
        by new: Piece?,
        remainders: [Piece]
    ) -> [UInt64] {
        let place = firstPlace(endingNotBefore: bytes.first)
        let replaced = pieces[place...].prefix { $0.bytes.first <= bytes.last }
        var inserted = remainders
        if let new { inserted.append(new) }
        inserted.sort { $0.bytes.first < $1.bytes.first }
        pieces.replaceSubrange(replaced.indices, with: inserted)
        assert(isInOrder, "LockCache R1: pieces overlap")
        return replaced.map(\.lock)
    }

    /// Forgets everything; returns the locks.
    package mutating func removeAll() -> [UInt64] {
        defer { pieces = [] }
        return pieces.map(\.lock)
    }

    /// The place of the first piece that ends at or behind a byte.
    private func firstPlace(endingNotBefore byte: UInt64) -> Int {
        var (low, high) = (0, pieces.count)
        while low < high {
            let middle = (low + high) / 2
            if pieces[middle].bytes.last < byte { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func overlapping(_ bytes: LockedBytes) -> ArraySlice<Piece> {
        let place = firstPlace(endingNotBefore: bytes.first)
        return pieces[place...].prefix { $0.bytes.first <= bytes.last }
    }

    private var isInOrder: Bool {
        zip(pieces, pieces.dropFirst()).allSatisfy { $0.bytes.last < $1.bytes.first }
    }
}
