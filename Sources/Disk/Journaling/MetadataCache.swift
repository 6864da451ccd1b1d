// The cache of metadata blocks of one mount.
//
// Invariants
// M1. At most one object per address. Whoever holds the covering lock and has the object, has the
//     truth.
// M2. A block stays cached while anybody but the cache has a reference to it: a caller, a
//     transaction, an image that is not yet written home. So what is dirty is never evicted and
//     never re-read.
// M3. Clean blocks that only the cache knows are kept up to `capacity`, the least recently used go
//     first.
// M4. When a lock is given up, all its blocks go (`drop`); none of them is dirty then.
// M5. Blocks of M3 go earlier if they have not been used for long, or memory is short (`giveBack`).

package import BlockIO
package import DiskFormat
import Execution
package import Vocabulary

/// Metadata blocks in memory, by address and by covering lock.
package final class MetadataCache {
    private struct Slot {
        var block: MetadataBlock?
        var newer: Int
        var older: Int
        var usedAt = Tick(0)
    }

    /// The slots of the blocks of one lock, in no particular order.
    private final class Covered {
        var slots: [Int] = []
    }

    private let device: any BlockDevice
    private let superblock: Superblock
    private let capacity: Int

    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    private var slotOfAddress: [BlockAddress: Int] = [:]
    private var coveredBy: [ResourceName: Covered] = [:]
    private var reads: [BlockAddress: Outcome<Void>] = [:]
    private var newest = -1
    private var oldest = -1

    /// What counts as now for uses; whoever wants blocks to go by age keeps it near the clock.
    package var useTime = Tick(0)

    /// Blocks read from the device so far.
    package private(set) var readCount = 0

    /// Keeps up to `capacity` blocks that nobody uses.
    package init(device: any BlockDevice, superblock: Superblock, capacity: Int) {
        precondition(capacity > 0, "a cache without room")
        self.device = device
        self.superblock = superblock
        self.capacity = capacity
    }

    /// Blocks in memory.
    package var count: Int { slotOfAddress.count }

    /// The block from memory, or nil.
    package func cached(_ address: BlockAddress) -> MetadataBlock? {
        guard let slot = slotOfAddress[address] else { return nil }
        if slot != newest {
            unlink(slot)
            linkAsNewest(slot)
        }
        slots[slot].usedAt = useTime
        return slots[slot].block
    }

    /// The block from memory or from the device. Everything its header says is verified.
    ///
    /// - Throws: `.format` if the block is not what the arguments say, or lies outside the volume.
    package func block(
        _ address: BlockAddress,
        kind: BlockKind,
        owner: UInt64,
        generation: UInt64,
        covering: ResourceName
    ) async throws(StorageError) -> MetadataBlock {
        while true {
            if let found = cached(address) {
                try checkingFormat { () throws(FormatError) in
                    try found.check(
                        kind: kind,
                        owner: owner,
                        generation: generation,
                        covering: covering
                    )
                }
                return found
            }
            guard let reading = reads[address] else { break }
            await reading.get()
        }
        guard address != .none, address.rawValue < superblock.blockCount else {
            throw .format(.invalidField(address, field: "address", value: address.rawValue))
        }
        let reading = Outcome<Void>()
        reads[address] = reading
        defer {
            reads[address] = nil
            reading.deliver(())
        }
        let read = try await read(address, kind: kind, covering: covering)
        try checkingFormat { () throws(FormatError) in
            try read.check(kind: kind, owner: owner, generation: generation, covering: covering)
        }
        // Somebody may have made the block anew while we read what was there before (M1).
        guard cached(address) == nil else {
            throw .format(.wrongOwner(address, expected: owner, found: 0))
        }
        insert(read)
        return read
    }

    private func read(
        _ address: BlockAddress,
        kind: BlockKind,
        covering: ResourceName
    ) async throws(StorageError) -> MetadataBlock {
        let buffer = AlignedBuffer(byteCount: Int(superblock.blockSize))
        let offset = superblock.byteOffset(address)
        readCount += 1
        try await onDevice { () async throws(DeviceError) in
            try await device.read(buffer.bytes, at: offset)
        }
        let header = try checkingFormat { () throws(FormatError) in
            try BlockHeader(
                verifying: buffer.readOnly,
                at: address,
                volume: superblock.volume,
                kind: kind
            )
        }
        return MetadataBlock(
            address: address,
            covering: covering,
            header: header,
            buffer: buffer
        )
    }

    /// Forgets all blocks of a lock that is being given up (M4). Precondition: none of them is
    /// dirty; `Journal.settle` was called.
    package func drop(covering: ResourceName) {
        guard let covered = coveredBy.removeValue(forKey: covering) else { return }
        for slot in covered.slots {
            guard let block = slots[slot].block else { continue }
            precondition(!block.isDirty, "M4: \(block.address) is dirty while \(covering) goes")
            release(slot, block)
        }
    }

    /// Whether any block of this lock is in memory.
    package func hasBlocks(covering: ResourceName) -> Bool { coveredBy[covering] != nil }

    // MARK: For the journal

    /// Adds a block that is not cached yet.
    func insert(_ block: MetadataBlock) {
        precondition(slotOfAddress[block.address] == nil, "M1: \(block.address) cached twice")
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
            slots[slot].block = block
        } else {
            slot = slots.count
            slots.append(Slot(block: block, newer: -1, older: -1))
        }
        block.slot = slot
        slotOfAddress[block.address] = slot
        let covered = coveredBy[block.covering] ?? Covered()
        if covered.slots.isEmpty { coveredBy[block.covering] = covered }
        block.indexInCovering = covered.slots.count
        covered.slots.append(slot)
        linkAsNewest(slot)
        evict()
    }

    /// Lets go of one block.
    func remove(_ block: MetadataBlock) {
        guard let slot = block.slot, let covered = coveredBy[block.covering] else { return }
        let last = covered.slots.count - 1
        if block.indexInCovering != last {
            let moved = covered.slots[last]
            covered.slots[block.indexInCovering] = moved
            slots[moved].block?.indexInCovering = block.indexInCovering
        }
        covered.slots.removeLast()
        if covered.slots.isEmpty { coveredBy[block.covering] = nil }
        release(slot, block)
    }

    private func release(_ slot: Int, _ block: MetadataBlock) {
        block.slot = nil
        slotOfAddress[block.address] = nil
        slots[slot].block = nil
        unlink(slot)
        freeSlots.append(slot)
    }

    // MARK: Least recently used

    /// A few of the oldest blocks are looked at for each block that comes; those in use are young
    /// again (M2, M3).
    private func evict() {
        var looks = 8
        while slotOfAddress.count > capacity, looks > 0, oldest >= 0 {
            looks -= 1
            let slot = oldest
            if isKnownUniquelyReferenced(&slots[slot].block), let block = slots[slot].block {
                remove(block)
            } else {
                unlink(slot)
                linkAsNewest(slot)
            }
        }
    }

    /// Drops blocks that only the cache knows (M5). Looks at `looks` of the oldest at most, and at none that was used
    /// after `moment` if that is given; those in use are young again.
    ///
    /// - Returns: how many went, and whether more looks may find more.
    package func giveBack(looks: Int, usedBefore moment: Tick?) -> (count: Int, goesOn: Bool) {
        var count = 0
        for _ in 0..<looks {
            let slot = oldest
            guard slot >= 0 else { return (count, false) }
            if let moment, slots[slot].usedAt > moment { return (count, false) }
            if isKnownUniquelyReferenced(&slots[slot].block), let block = slots[slot].block {
                remove(block)
                count += 1
            } else {
                unlink(slot)
                linkAsNewest(slot)
            }
        }
        return (count, looks > 0)
    }

    private func linkAsNewest(_ slot: Int) {
        slots[slot].newer = -1
        slots[slot].usedAt = useTime
        slots[slot].older = newest
        if newest >= 0 { slots[newest].newer = slot } else { oldest = slot }
        newest = slot
    }

    private func unlink(_ slot: Int) {
        let (newer, older) = (slots[slot].newer, slots[slot].older)
        if newer >= 0 { slots[newer].older = older } else { newest = older }
        if older >= 0 { slots[older].newer = newer } else { oldest = newer }
    }
}
