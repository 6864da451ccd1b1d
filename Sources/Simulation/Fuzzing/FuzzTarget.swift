// Fuzzing: whatever bytes are read from a disk or from a peer, the production code that reads them
// must come to an end, and to a right one.
//
// A target takes bytes that mean nothing and makes a case of them: a block, a log, an image of a
// volume with some damage, a message. It runs production code on the case, and judges what comes of
// it. A trap, an endless loop and too much memory are noticed by whoever calls (libFuzzer, or the
// test that replays the corpus); what is wrong without a crash the target says in one line.
//
//   decoders  every structure of the format: decode, encode again
//   log       a journal of any content, under checksums that are right: read, replay, replay again
//   image     a volume with content and some damage: mount and use; check, repair, check; mount and
//             use; check
//   messages  what nodes and administrators' commands send each other: decode, encode again
//
// Invariants
// Z1. The same bytes are the same case and end the same way: nothing is chosen by dice, time or
//     what ran before. So an input that fails once can be kept, and fails until it is mended.
// Z2. All bytes are a case. Where they end, zeros follow; what is left over is ignored.
// Z3. Checksums are no wall: bytes can say that a block is sealed after it was damaged, so what lies
//     behind a checksum is reached like everything else.
// Z4. Every case ends: the number of changes, blocks, names and steps is bounded.
//
// Tests/Fuzzing/FuzzEntry.swift is what libFuzzer calls, tools/fuzz builds and runs it, and
// Tests/FuzzingTests replays what was kept in Tests/Corpus.

import Vocabulary

/// What is fuzzed.
public enum FuzzTarget: String, CaseIterable, Sendable {
    case decoders
    case log
    case image
    case messages

    /// Bytes of a case behind which nothing counts.
    public var longestInput: Int {
        switch self {
        case .decoders: 8192
        case .log: 1024
        case .image: 512
        case .messages: 16_384
        }
    }

    /// Runs one case.
    ///
    /// - Returns: what is wrong, in one line; nil if nothing is.
    public func run(_ bytes: [UInt8]) -> String? {
        let input = FuzzInput(Array(bytes.prefix(longestInput)))
        do {
            switch self {
            case .decoders:
                var fuzzing = try DecoderFuzzing(input)
                try fuzzing.run()
            case .log:
                var fuzzing = try LogFuzzing(input)
                try fuzzing.run()
            case .image:
                var fuzzing = ImageFuzzing(input)
                try fuzzing.run()
            case .messages:
                var fuzzing = MessageFuzzing(input)
                try fuzzing.run()
            }
            return nil
        } catch let complaint as FuzzComplaint {
            return complaint.text
        } catch {
            return "not expected: \(error)"
        }
    }
}

/// Something is wrong with production code.
struct FuzzComplaint: Error {
    let text: String

    init(_ text: String) { self.text = text }
}

/// Complains unless `holds`.
func demand(_ holds: Bool, _ what: @autoclosure () -> String) throws {
    guard holds else { throw FuzzComplaint(what()) }
}

/// The bytes of a case, taken from the front (Z2).
struct FuzzInput {
    private let bytes: [UInt8]
    private var next = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Whether only zeros follow.
    var isAtEnd: Bool { next >= bytes.count }

    /// All that is left, without taking it.
    var rest: ArraySlice<UInt8> { bytes[min(next, bytes.count)...] }

    mutating func byte() -> UInt8 {
        guard next < bytes.count else { return 0 }
        next += 1
        return bytes[next - 1]
    }

    mutating func integer<Integer: FixedWidthInteger & UnsignedInteger>(
        _: Integer.Type
    ) -> Integer {
        var value: Integer = 0
        for place in 0..<MemoryLayout<Integer>.size {
            value |= Integer(truncatingIfNeeded: byte()) << Integer(8 * place)
        }
        return value
    }

    /// A number in 0 ..< `bound`, from one byte.
    mutating func below(_ bound: Int) -> Int { Int(byte()) % max(bound, 1) }

    /// A number that is often interesting: small, near a power of two, the highest of its width, or
    /// any.
    mutating func number() -> UInt64 {
        switch byte() & 7 {
        case 0, 1: UInt64(byte())
        case 2: UInt64(integer(UInt16.self))
        case 3: (1 << UInt64(byte() & 63)) &- UInt64(byte() & 1)
        case 4: UInt64.max &- UInt64(byte())
        case 5: UInt64(UInt32.max) &- UInt64(byte())
        case 6: UInt64(Int64.max) &- UInt64(byte())
        default: integer(UInt64.self)
        }
    }
}
