// Stages "groups", "marks" and "blocks": what the groups say of their blocks, from what was found.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    // MARK: groups by themselves

    func repairGroups(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let group = finding.group else { return false }
            if finding.kind == .groupDamaged {
                try await rebuild(group)
            } else {
                // One writing puts all of a group's counts right: the second finding needs none.
                _ = try await editGroup(group)
            }
            return true
        }
    }

    /// Makes a group's block anew. What was found in use is marked so. A sound inode that nothing
    /// was found to lead to is marked as metadata: the next check finds it as one that cannot be
    /// reached, with all that belongs to it. Other blocks that carry a header were metadata once
    /// and go into quarantine; the rest is free.
    private func rebuild(_ group: UInt32) async throws(CheckError) {
        let address = superblock.groupStart(group)
        let length = superblock.groupLength(group)
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        let claimed = claimedVersion(buffer.readOnly, at: address)
        buffer.bytes.clear(0, buffer.bytes.count)
        let bitmap = GroupBitmap(block: buffer.bytes, blockCount: length)
        bitmap[0] = .metadata
        var record = numbers(forGroup: group)
        let block = makeBuffer()
        for index in 1..<length {
            let place = address + UInt64(index)
            switch checker.use.use(group: group, index: index) {
            case .data:
                bitmap[index] = .data
                continue
            case .metadata: bitmap[index] = .metadata
            case .nothing: break
            }
            try await read(place, into: block)
            guard
                let header = try? BlockHeader(
                    verifying: block.readOnly,
                    at: place,
                    volume: superblock.volume
                )
            else { continue }
            record.highestVersion = max(record.highestVersion, header.version)
            guard bitmap[index] == .free else { continue }
            if header.kind == .inode {
                let generation = min(header.generation, BlockHeader.largestNumber)
                record.highestGeneration = max(record.highestGeneration, generation)
            }
            bitmap[index] =
                isLiveInode(header, block.readOnly, at: place) ? .metadata : .quarantined
        }
        Self.settle(&record, bitmap)
        BlockHeader(
            kind: .resourceGroup,
            address: address,
            version: Self.nextVersion(max(claimed, record.highestVersion)),
            volume: superblock.volume,
            owner: UInt64(group),
            generation: 0
        ).write(to: buffer.bytes)
        record.writeFields(to: buffer.bytes)
        BlockHeader.seal(buffer.bytes)
        try await write(buffer, at: address)
    }

    private func isLiveInode(
        _ header: BlockHeader,
        _ block: UnsafeRawBufferPointer,
        at address: BlockAddress
    ) -> Bool {
        header.kind == .inode && header.owner == address.rawValue
            && (1...BlockHeader.largestNumber).contains(header.generation)
            && (try? InodeRecord(fields: block, at: address)) != nil
    }

    /// The numbers of a group of which nothing is known. What lived there and is gone may have had
    /// higher ones than anything that is left, so they start with the highest of the volume.
    private func numbers(forGroup group: UInt32) -> ResourceGroupRecord {
        var record = ResourceGroupRecord(
            index: group,
            blockCount: superblock.groupLength(group),
            freeCount: 0,
            quarantinedCount: 0,
            inodeCount: 0,
            highestVersion: 1,
            highestGeneration: 1
        )
        for case let other? in checker.groups {
            record.highestVersion = max(record.highestVersion, other.highestVersion)
            record.highestGeneration = max(record.highestGeneration, other.highestGeneration)
        }
        record.inodeCount = checker.inodes.count(inGroup: group)
        for other in 0..<superblock.groupCount {
            let generation = checker.inodes.newestGeneration(inGroup: other)
            record.highestGeneration = max(record.highestGeneration, generation)
        }
        return record
    }

    // MARK: marks

    /// Marks what is in use as what it is, in every group: the findings may be more than were kept.
    func repairMarks(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var isDone = false
        for group in 0..<superblock.groupCount where checker.use.isKnown(group: group) {
            guard checker.use.next(.mismarked, group: group, from: 0) != nil else { continue }
            let isChanged = try await editGroup(group) { _, bitmap in
                var next: UInt32 = 0
                while let index = checker.use.next(.mismarked, group: group, from: next) {
                    next = index + 1
                    if let state = wantedMark(group, index) { bitmap[index] = state }
                }
            }
            isDone = isDone || isChanged
        }
        return isDone ? found : []
    }

    /// What a block in use should be marked as; nil if it is, or is not in use.
    private func wantedMark(_ group: UInt32, _ index: UInt32) -> BlockState? {
        let wanted: BlockState
        switch checker.use.use(group: group, index: index) {
        case .nothing: return nil
        case .data: wanted = .data
        case .metadata: wanted = .metadata
        }
        return checker.use.mark(group: group, index: index) == wanted ? nil : wanted
    }

    // MARK: blocks

    /// Frees what nothing uses and corrects the numbers of every group (V3).
    func repairBlocks(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var isDone = false
        for group in 0..<superblock.groupCount where checker.use.isKnown(group: group) {
            let highest = try await highestFreedVersion(inGroup: group)
            let isChanged = try await editGroup(group) { record, bitmap in
                for index in 1..<record.blockCount
                where checker.use.isLost(group: group, index: index) {
                    bitmap[index] = bitmap[index] == .metadata ? .quarantined : .free
                }
                record.inodeCount = checker.inodes.count(inGroup: group)
                record.highestGeneration = max(
                    record.highestGeneration,
                    checker.inodes.newestGeneration(inGroup: group)
                )
                record.highestVersion = max(record.highestVersion, highest)
            }
            isDone = isDone || isChanged
        }
        return isDone ? found : []
    }

    /// The highest version of a metadata block that is free or about to be freed.
    private func highestFreedVersion(inGroup group: UInt32) async throws(CheckError) -> UInt64 {
        let buffer = makeBuffer()
        var highest: UInt64 = 0
        for index in 1..<superblock.groupLength(group) {
            let mark = checker.use.mark(group: group, index: index)
            guard checker.use.use(group: group, index: index) == .nothing,
                mark == .metadata || mark == .quarantined
            else { continue }
            let address = superblock.groupStart(group) + UInt64(index)
            try await read(address, into: buffer)
            highest = max(highest, claimedVersion(buffer.readOnly, at: address))
        }
        return highest
    }
}
