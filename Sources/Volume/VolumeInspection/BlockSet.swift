// A set of blocks of a volume, one bit for each, in pieces that are made when they are first needed.

import Vocabulary

/// A set of block addresses.
struct BlockSet {
    /// Blocks of one piece.
    private static let pieceLength: UInt64 = 1 << 16
    private var pieces: [[UInt64]] = []
    private var places: [UInt64: Int] = [:]
    private var numbers: [UInt64] = []
    /// How many are in it.
    private(set) var count: UInt64 = 0

    /// Adds a block; whether it is new.
    @discardableResult
    mutating func insert(_ address: BlockAddress) -> Bool {
        let number = address.rawValue / Self.pieceLength
        let place: Int
        if let known = places[number] {
            place = known
        } else {
            place = pieces.count
            places[number] = place
            numbers.append(number)
            pieces.append([UInt64](repeating: 0, count: Int(Self.pieceLength / 64)))
        }
        let (word, bit) = Self.position(address)
        guard pieces[place][word] & bit == 0 else { return false }
        pieces[place][word] |= bit
        count += 1
        return true
    }

    /// Whether a block is in it.
    func contains(_ address: BlockAddress) -> Bool {
        guard let place = places[address.rawValue / Self.pieceLength] else { return false }
        let (word, bit) = Self.position(address)
        return pieces[place][word] & bit != 0
    }

    private static func position(_ address: BlockAddress) -> (word: Int, bit: UInt64) {
        let within = address.rawValue % pieceLength
        return (Int(within / 64), 1 << (within % 64))
    }

    /// The numbers of the pieces, ascending: `blocks(ofPiece:)` of each gives all blocks in order.
    var pieceNumbers: [UInt64] { numbers.sorted() }

    /// The blocks of one piece, ascending.
    func blocks(ofPiece number: UInt64) -> [BlockAddress] {
        guard let place = places[number] else { return [] }
        var found: [BlockAddress] = []
        for (index, word) in pieces[place].enumerated() where word != 0 {
            var rest = word
            while rest != 0 {
                let bit = UInt64(rest.trailingZeroBitCount)
                found.append(
                    BlockAddress(number * Self.pieceLength + UInt64(index) * 64 + bit)
                )
                rest &= rest - 1
            }
        }
        return found
    }
}
