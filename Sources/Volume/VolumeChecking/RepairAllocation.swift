// Blocks for repairs: nodes of rebuilt trees, copies of shared data, `lost+found`. A block is taken
// when its group calls it free and the check found nothing that uses it (VolumeRepair V3); its bits
// are written before anything leads to it (V2).

import BlockIO
import DiskFormat
import Vocabulary

/// A metadata block that was taken, and the version it begins with.
struct TakenBlock {
    var address: BlockAddress
    var version: UInt64
}

extension RepairRound {
    /// Whether a block may be taken for `state`. Quarantined ones may become metadata only.
    private func isFree(_ group: UInt32, _ index: UInt32, for state: BlockState) -> Bool {
        guard checker.use.use(group: group, index: index) == .nothing else { return false }
        let mark = checker.use.mark(group: group, index: index)
        return mark == .free || (state == .metadata && mark == .quarantined)
    }

    /// Whether `count` blocks can be taken; notes it if not.
    func hasRoom(for count: Int, _ state: BlockState) -> Bool {
        var found = 0
        for group in 0..<superblock.groupCount where checker.use.isKnown(group: group) {
            for index in 1..<superblock.groupLength(group) where isFree(group, index, for: state) {
                found += 1
                if found >= count { return true }
            }
        }
        if count > 0 { lacksSpace = true }
        return count == 0
    }

    /// Takes a run of up to `limit` blocks; nil, and notes it, if none is free.
    private func take(
        _ limit: UInt32,
        _ state: BlockState
    ) async throws(CheckError) -> (group: UInt32, index: UInt32, count: UInt32, version: UInt64)? {
        for step in 0...superblock.groupCount {
            let group = (nextFree.group + step) % superblock.groupCount
            guard checker.use.isKnown(group: group) else { continue }
            let length = superblock.groupLength(group)
            var first = step == 0 ? nextFree.index : 1
            while first < length, !isFree(group, first, for: state) { first += 1 }
            guard first < length else { continue }
            var end = first
            while end < length, end - first < limit, isFree(group, end, for: state) { end += 1 }
            var version: UInt64 = 0
            let isDone = try await editGroup(group) { record, bitmap in
                for index in first..<end { bitmap[index] = state }
                version = Self.nextVersion(record.highestVersion)
            }
            // The group is not what the check saw.
            guard isDone else { continue }
            let use: FoundUse = state == .data ? .data : .metadata
            for index in first..<end { checker.use.setUse(use, group: group, index: index) }
            nextFree = (group, end)
            return (group, first, end - first, version)
        }
        lacksSpace = true
        return nil
    }

    /// Takes one block for metadata; nil, and notes it, if none is free.
    func takeMetadata() async throws(CheckError) -> TakenBlock? {
        guard let (group, index, _, version) = try await take(1, .metadata) else { return nil }
        return TakenBlock(
            address: superblock.groupStart(group) + UInt64(index),
            version: version
        )
    }

    /// Takes a run of up to `limit` blocks for data; nil, and notes it, if none is free.
    func takeData(_ limit: UInt32) async throws(CheckError) -> (start: BlockAddress, count: UInt32)?
    {
        guard let (group, index, count, _) = try await take(limit, .data) else { return nil }
        return (superblock.groupStart(group) + UInt64(index), count)
    }

    /// Takes a block for a new inode and gives it its number; nil if none is free.
    func takeInode() async throws(CheckError) -> (number: InodeNumber, version: UInt64)? {
        guard let block = try await takeMetadata(),
            let group = superblock.group(of: block.address)
        else { return nil }
        var generation: UInt64 = 0
        _ = try await editGroup(group) { record, _ in
            generation = Self.nextVersion(record.highestGeneration)
            record.highestGeneration = generation
            record.inodeCount = min(record.inodeCount + 1, record.blockCount - 1)
        }
        guard generation > 0 else { return nil }
        return (InodeNumber(address: block.address, generation: generation), block.version)
    }

    /// Writes an empty directory, which is its own parent unless one is given.
    func writeDirectory(
        _ number: InodeNumber,
        mode: UInt32,
        flags: InodeFlags,
        parent: InodeNumber? = nil,
        version: UInt64
    ) async throws(CheckError) {
        let buffer = makeBuffer()
        BlockHeader(
            kind: .inode,
            address: number.address,
            version: version,
            volume: superblock.volume,
            owner: number.address.rawValue,
            generation: number.generation
        ).write(to: buffer.bytes)
        var record = InodeRecord(mode: mode, user: 0, group: 0, linkCount: 2, born: options.now)
        record.layout = .inlineDirectory
        record.flags = flags
        record.parent = parent ?? number
        record.writeFields(to: buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        try await write(buffer, at: number.address)
    }
}
