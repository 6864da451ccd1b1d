// What an owner has locked of a file against a table of single bytes.

import LockCache
import Testing
import Vocabulary

struct HeldRangesTests {
    /// Bytes one by one, and the locks that cover them.
    private struct Bench {
        static let count: UInt64 = 24
        var held = HeldRanges()
        var modes = [LockMode](repeating: .null, count: Int(count))
        var locks: [UInt64: (bytes: LockedBytes, mode: LockMode)] = [:]
        var next: UInt64 = 1

        mutating func ask(_ bytes: LockedBytes, _ mode: LockMode) -> UInt64 {
            locks[next] = (bytes, mode)
            next += 1
            return next - 1
        }

        /// The strongest mode of a byte by the locks that are held.
        func covered(_ byte: UInt64) -> LockMode {
            locks.values.filter { $0.bytes.first <= byte && byte <= $0.bytes.last }
                .map(\.mode).max() ?? .null
        }

        /// As `ProgramLocks` does it; `check` is called whenever locks were asked for or given up.
        mutating func set(
            _ bytes: LockedBytes,
            _ mode: LockMode,
            check: (Bench) -> Void
        ) {
            if mode != .null, held.covers(bytes, mode) { return }
            let new = mode == .null ? nil : ask(bytes, mode)
            check(self)
            var remainders: [HeldRanges.Piece] = []
            for piece in held.remainders(around: bytes) {
                let lock = ask(piece.bytes, piece.mode)
                check(self)
                remainders.append(HeldRanges.Piece(piece.bytes, piece.mode, lock: lock))
            }
            let piece = new.map { HeldRanges.Piece(bytes, mode, lock: $0) }
            for lock in held.replace(bytes, by: piece, remainders: remainders) {
                #expect(locks.removeValue(forKey: lock) != nil)
                check(self)
            }
        }
    }

    @Test("Against single bytes", arguments: 1...200 as ClosedRange<UInt64>)
    func model(seed: UInt64) {
        var dice = SeededGenerator(seed: seed)
        var bench = Bench()
        for _ in 0..<60 {
            let first = UInt64(dice.below(Int(Bench.count)))
            let last = min(Bench.count - 1, first + UInt64(dice.below(8)))
            let mode = [LockMode.null, .protectedRead, .exclusive][dice.below(3)]
            let bytes = LockedBytes(first: first, last: last)
            let before = bench.modes
            for byte in first...last { bench.modes[Int(byte)] = mode }
            let after = bench.modes
            bench.set(bytes, mode) { bench in
                // R2: what stays locked, outside the range or in it, never is not.
                for byte in 0..<Bench.count {
                    let kept = min(before[Int(byte)], after[Int(byte)])
                    #expect(bench.covered(byte) >= kept, "byte \(byte) is free for a moment")
                }
            }
            for byte in 0..<Bench.count {
                #expect(bench.covered(byte) == bench.modes[Int(byte)], "seed \(seed)")
            }
            #expect(bench.held.pieces.count == bench.locks.count)
            for piece in bench.held.pieces {
                #expect(bench.locks[piece.lock]?.bytes == piece.bytes)
                #expect(bench.locks[piece.lock]?.mode == piece.mode)
            }
        }
        #expect(Set(bench.held.removeAll()) == Set(bench.locks.keys))
        #expect(bench.held.pieces.isEmpty)
    }

    @Test func theLastByteThereIs() {
        var held = HeldRanges()
        let end = LockedBytes(first: 100, last: UInt64(Int64.max))
        _ = held.replace(end, by: .init(end, .exclusive, lock: 1), remainders: [])
        #expect(held.covers(LockedBytes(first: 100, last: UInt64(Int64.max)), .exclusive))
        #expect(!held.covers(LockedBytes(first: 99, last: 100), .exclusive))
        #expect(!held.covers(end, .protectedRead))
        let cut = LockedBytes(first: 200, last: UInt64(Int64.max))
        let kept = held.remainders(around: cut)
        #expect(kept.map(\.bytes) == [LockedBytes(first: 100, last: 199)])
    }
}
