// What the logs say of the groups: which blocks are metadata, by the newest image of each group that is
// in a log or in place. For the observer of the disk (W7).

import DiskFormat
import SimulatedMachine
import Vocabulary
import VolumeMaking

/// Images of groups in the logs of all slots.
struct LoggedGroups {
    private struct Image {
        let version: UInt64
        let block: [UInt8]
    }

    /// What one log holds, by group.
    private struct Log {
        /// Of transactions that are durable: another one was begun behind them.
        var durable: [Image?]
        /// Of the last transaction, which may or may not be.
        var latest: [Image?]
        var sequence: UInt64 = 0
        /// It may hold images that were not seen on their way, or that are gone.
        var isUnknown = false
    }

    private let superblock: Superblock
    private var logs: [Log]

    init(_ superblock: Superblock, slots: Int) {
        self.superblock = superblock
        let none = [Image?](repeating: nil, count: Int(superblock.groupCount))
        logs = Array(repeating: Log(durable: none, latest: none), count: slots)
    }

    /// All that the log of a slot holds is in place.
    mutating func isClean(_ slot: Int) {
        for group in logs[slot].durable.indices {
            logs[slot].durable[group] = nil
            logs[slot].latest[group] = nil
        }
        logs[slot].sequence = 0
        logs[slot].isUnknown = false
    }

    /// The power has failed: what the log of a slot holds only a replay knows.
    mutating func isUnknown(_ slot: Int) {
        isClean(slot)
        logs[slot].isUnknown = true
    }

    /// A block of a transaction begins, not a descriptor of one.
    mutating func image(_ slot: Int, _ block: UnsafeRawBufferPointer) {
        let stated = StatedHeader(block)
        guard stated.hasMagic, stated.kind == .resourceGroup else { return }
        let group = Int(ResourceGroupRecord(fields: block).index)
        guard group < logs[slot].latest.count else { return }
        logs[slot].latest[group] = Image(version: stated.version, block: Array(block))
    }

    /// A descriptor of the transaction with that number begins: those before it are durable.
    mutating func transaction(_ slot: Int, _ sequence: UInt64) {
        guard sequence != logs[slot].sequence else { return }
        logs[slot].sequence = sequence
        for group in logs[slot].latest.indices {
            guard let image = logs[slot].latest[group] else { continue }
            logs[slot].durable[group] = image
            logs[slot].latest[group] = nil
        }
    }

    /// The state of a block of which it is certain: by what stands in place or is durable in a log,
    /// and no newer image that may be durable says that it is metadata. Nil: who knows, or it is
    /// none of a group.
    func state(of address: BlockAddress, _ disk: SimulatedDisk) -> BlockState? {
        guard let group = superblock.group(of: address), !logs.contains(where: \.isUnknown) else {
            return nil
        }
        let start = superblock.groupStart(group)
        // Its own first block holds the bits.
        guard address > start else { return nil }
        let place = disk.visible.bytes(
            at: superblock.byteOffset(start),
            count: Int(superblock.blockSize)
        )
        let stated = place.withUnsafeBytes { StatedHeader($0) }
        // A torn one says nothing.
        guard stated.hasMagic, stated.address == start else { return nil }
        var newest = Image(version: stated.version, block: place)
        for log in logs {
            if let image = log.durable[Int(group)], image.version > newest.version {
                newest = image
            }
        }
        let index = UInt32(address.rawValue - start.rawValue)
        let isInDoubt = logs.contains { log in
            guard let image = log.latest[Int(group)], image.version > newest.version else {
                return false
            }
            return state(index, of: group, in: image) == .metadata
        }
        return isInDoubt ? nil : state(index, of: group, in: newest)
    }

    private func state(_ index: UInt32, of group: UInt32, in image: Image) -> BlockState? {
        let count = superblock.groupLength(group)
        guard index < count else { return nil }
        var block = image.block
        return block.withUnsafeMutableBytes { GroupBitmap(block: $0, blockCount: count)[index] }
    }
}
