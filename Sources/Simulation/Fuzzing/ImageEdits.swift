// Damage with knowledge of the format: what a fuzzer's bytes do to a volume.

import BlockIO
import DiskFormat
import SimulatedMachine
import Vocabulary

/// Changes blocks of a volume as bytes say.
struct ImageEdits {
    /// Changes of one case at most (Z4).
    static let limit = 24

    let volume: FuzzVolume
    var content: DiskContent
    /// Whether a superblock or a copy of it was changed and sealed: then nothing is left that could
    /// tell what is right.
    private(set) var changedSuperblock = false
    private let block: AlignedBuffer
    private let other: AlignedBuffer

    init(_ volume: FuzzVolume) {
        self.volume = volume
        content = volume.content
        block = AlignedBuffer(byteCount: Int(volume.superblock.blockSize))
        other = AlignedBuffer(byteCount: Int(volume.superblock.blockSize))
    }

    /// Applies changes until the input ends.
    mutating func apply(_ input: inout FuzzInput) {
        var count = 0
        while !input.isAtEnd, count < Self.limit {
            let address = volume.place(input.byte(), input.byte())
            edit(address, &input)
            count += 1
        }
    }

    /// One change of one block: what kind it is and whether the block is sealed afterwards its first
    /// byte says.
    private mutating func edit(_ address: BlockAddress, _ input: inout FuzzInput) {
        read(address, into: block)
        let how = input.byte()
        switch how & 7 {
        case 0, 1: change(&input)
        case 2:
            for _ in 0...input.below(4) { change(&input) }
        case 3:
            let offset = self.offset(&input)
            block.bytes.put64(volume.place(input.byte(), input.byte()).rawValue, offset)
        case 4: takeIdentity(address, of: volume.place(input.byte(), input.byte()))
        case 5: moveRecords(&input)
        case 6: block.bytes.clear(0, block.bytes.count)
        default:
            let bit = Int(input.integer(UInt16.self)) % (block.bytes.count * 8)
            block.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        }
        let seals = how & 0x80 == 0
        if seals { BlockHeader.seal(block.bytes) }
        if block.readOnly.u16(4) == BlockKind.superblock.rawValue, seals {
            changedSuperblock = true
        }
        content.write(block.readOnly, at: volume.superblock.byteOffset(address))
    }

    private func read(_ address: BlockAddress, into buffer: AlignedBuffer) {
        content.read(buffer.bytes, at: volume.superblock.byteOffset(address))
    }

    /// A place with room for eight bytes: of the header, of the fields, of the records, or any.
    private func offset(_ input: inout FuzzInput) -> Int {
        let choice = input.byte()
        let step = Int(choice >> 2)
        switch choice & 3 {
        case 0: return 64 + 4 * step
        case 1: return 256 + 4 * step + input.below(4)
        case 2: return step
        default: return Int(input.integer(UInt16.self)) % (block.bytes.count - 7)
        }
    }

    /// A number of one to eight bytes becomes another.
    private func change(_ input: inout FuzzInput) {
        let offset = offset(&input)
        let value = input.number()
        switch input.byte() & 7 {
        case 0: block.bytes[offset] = UInt8(truncatingIfNeeded: value)
        case 1: block.bytes.put16(UInt16(truncatingIfNeeded: value), offset)
        case 2: block.bytes.put32(UInt32(truncatingIfNeeded: value), offset)
        case 3: block.bytes.put64(value, offset)
        case 4: block.bytes.put64(block.readOnly.u64(offset) &+ value, offset)
        case 5: block.bytes.put64(block.readOnly.u64(offset) &- value, offset)
        case 6: block.bytes.put16(block.readOnly.u16(offset) &+ 1, offset)
        default: block.bytes.put16(block.readOnly.u16(offset) &- 1, offset)
        }
    }

    /// The block becomes a copy of another, as if it belonged here.
    private func takeIdentity(_ address: BlockAddress, of source: BlockAddress) {
        read(source, into: other)
        block.bytes.copyMemory(from: other.readOnly)
        block.bytes.put64(address.rawValue, 16)
        if block.readOnly.u16(4) == BlockKind.inode.rawValue {
            block.bytes.put64(address.rawValue, 48)
        }
    }

    /// Bytes of the block move within it: records twice, or in another order.
    private func moveRecords(_ input: inout FuzzInput) {
        let (from, to) = (offset(&input), offset(&input))
        let length = min(Int(input.byte()), block.bytes.count - max(from, to))
        let bytes = Array(block.readOnly.window(from, length))
        bytes.withUnsafeBytes { block.bytes.put($0, to) }
    }
}
