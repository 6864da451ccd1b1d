// Stage 5, and the confirmation of claims: links, orphans, lost blocks, blocks of two inodes.

import DiskFormat
import FileSystem
import Vocabulary
import VolumeChecking

extension Scrub {
    func checkReferences() async throws(FileError) {
        begin(.references, of: report.inodes + UInt64(superblock.groupCount))
        for group in 0..<superblock.groupCount {
            for position in 0..<table.count(inGroup: group) {
                report.done += 1
                let index = ScrubTable.Index(group: Int(group), position: position)
                guard let finding = linkFinding(index) else { continue }
                try goOn()
                if try await isUnchanged(index) {
                    add(finding)
                } else {
                    report.changedInodes += 1
                }
            }
        }
        for group in 0..<superblock.groupCount {
            try goOn()
            try await checkGroupTotals(group)
            report.done += 1
        }
        if !disputed.isEmpty { try await settleDisputes() }
    }

    /// S3.
    private func isUnchanged(_ index: ScrubTable.Index) async throws(FileError) -> Bool {
        let number = number(of: index)
        let now = try await volume.inspecting(number) { () async throws(FileError) in
            await self.reading { () async throws(CheckError) in
                try await self.inspected(number, entriesToo: false)
            }
        }
        guard let now = now ?? nil else { return false }
        return now.version == table[index].version
    }

    // MARK: Links

    /// What does not agree about the links of an inode, if it has not changed since it was seen.
    private func linkFinding(_ index: ScrubTable.Index) -> Finding? {
        let inode = table[index]
        if inode.marks.contains(.damaged) { return nil }
        let number = number(of: index)
        let isOrphan = inode.marks.contains(.orphan)
        let isListed = inode.marks.contains(.listed)
        if isOrphan || isListed || inode.marks.contains(.listedWrongly) {
            let isRight =
                isOrphan && isListed && !inode.marks.contains(.listedWrongly)
                && inode.linkCount == 0 && inode.names == 0
            if isRight || (isPartial && !isListed) { return nil }
            return Finding(
                .inodeOrphanWrong,
                inode: number,
                slot: SlotIndex(UInt32(inode.orphanSlot)),
                found: UInt64(inode.linkCount)
            )
        }
        let isAnchor = number == superblock.root || orphanDirectories.contains(number)
        // A name that was not found may stand where nothing could be read.
        if inode.names == 0, !isAnchor {
            return isPartial
                ? nil : Finding(.inodeUnreachable, inode: number, block: number.address)
        }
        if inode.isDirectory, inode.names > (isAnchor ? 0 : 1) {
            return Finding(.directoryLinkedTwice, inode: number, found: UInt64(inode.names))
        }
        if inode.isDirectory ? inode.marks.contains(.unread) : isPartial { return nil }
        let expected =
            inode.isDirectory ? 2 + UInt64(inode.subdirectories) : UInt64(inode.names)
        guard UInt64(inode.linkCount) != expected else { return nil }
        return Finding(
            .inodeLinkCountWrong,
            inode: number,
            found: UInt64(inode.linkCount),
            expected: expected
        )
    }

    // MARK: Groups

    /// S4.
    private func checkGroupTotals(_ index: UInt32) async throws(FileError) {
        guard let record = groupRecords[Int(index)] else { return }
        let now = try await volume.inspecting(group: index) { () async throws(FileError) in
            await self.reading { () async throws(CheckError) in
                try await self.inspector.inspect(group: index)
            }
        }
        guard let now, now.version == groupVersions[Int(index)] else {
            report.changedGroups += 1
            return
        }
        let address = superblock.groupStart(index)
        let count = UInt64(table.count(inGroup: index)) + UInt64(lateCounts[Int(index)])
        if UInt64(record.inodeCount) != count {
            add(
                Finding(
                    .groupInodeCountWrong,
                    block: address,
                    group: index,
                    found: UInt64(record.inodeCount),
                    expected: count
                )
            )
        }
        let newest = table.newestGeneration(inGroup: index)
        if record.highestGeneration < newest {
            add(
                Finding(
                    .groupGenerationLow,
                    block: address,
                    group: index,
                    found: record.highestGeneration,
                    expected: newest
                )
            )
        }
        // The blocks of what could not be read are not lost.
        if !isPartial { findLost(inGroup: index) }
    }

    private func findLost(inGroup group: UInt32) {
        let length = superblock.groupLength(group)
        var place: UInt32 = 0
        while let begin = use.next(.lost, group: group, from: place) {
            place = begin
            while place < length, use.isLost(group: group, index: place) { place += 1 }
            add(
                Finding(
                    .blockLost,
                    block: superblock.groupStart(group) + UInt64(begin),
                    blockCount: UInt64(place - begin),
                    group: group
                )
            )
        }
    }

    // MARK: Claims

    /// S1: the inode's lock is held, and now the group's too.
    func confirmMark(
        of claim: InodeInspection.Claim,
        _ group: UInt32,
        _ first: UInt32,
        _ inode: InodeNumber
    ) async throws(FileError) {
        let now = try await volume.inspecting(group: group) { () async throws(FileError) in
            await self.reading { () async throws(CheckError) in
                try await self.inspector.inspect(group: group)
            }
        }
        guard let now, now.record != nil else { return }
        var free: (place: UInt32, count: UInt64)?
        var wrong: (place: UInt32, count: UInt64)?
        for place in first..<first + claim.length {
            switch BlockState(rawValue: now.bits[Int(place / 4)] >> (2 * UInt8(place % 4)) & 3) {
            case .free, .quarantined: free = (free?.place ?? place, (free?.count ?? 0) + 1)
            case let mark? where mark != claim.state:
                wrong = (wrong?.place ?? place, (wrong?.count ?? 0) + 1)
            default: break
            }
        }
        for (kind, run) in [(FindingKind.blockNotMarked, free), (.blockMarkedWrongly, wrong)] {
            guard let run else { continue }
            add(
                Finding(
                    kind,
                    inode: inode,
                    block: superblock.groupStart(group) + UInt64(run.place),
                    blockCount: run.count
                )
            )
        }
    }

    /// Who claims a disputed block, and in which state of his.
    private struct Claimant: Hashable {
        let number: InodeNumber
        let version: UInt64
    }

    /// S5: all that claim a disputed block are looked for, and asked once more when all are known.
    private func settleDisputes() async throws(FileError) {
        var claimants: [UInt64: [Claimant]] = [:]
        for number in table.numbers(in: superblock) + latecomers {
            try goOn()
            guard let (version, blocks) = try await disputedBlocks(of: number) else { continue }
            for block in blocks {
                claimants[block, default: []].append(Claimant(number: number, version: version))
            }
        }
        for block in disputed.sorted() {
            guard let rivals = claimants[block], rivals.count > 1 else { continue }
            var certain = 0
            for rival in rivals {
                if let (version, blocks) = try await disputedBlocks(of: rival.number),
                    version == rival.version, blocks.contains(block)
                {
                    certain += 1
                }
            }
            guard certain > 1 else { continue }
            add(Finding(.blockUsedTwice, inode: rivals[1].number, block: BlockAddress(block)))
        }
    }

    /// The disputed blocks that an inode claims, as often as it does; nil if it is gone.
    private func disputedBlocks(
        of number: InodeNumber
    ) async throws(FileError) -> (version: UInt64, blocks: [UInt64])? {
        let found = try await volume.inspecting(number) { () async throws(FileError) in
            await self.reading { () async throws(CheckError) in
                try await self.inspected(number, entriesToo: true)
            }
        }
        guard let found = found ?? nil else { return nil }
        let blocks = found.claims.flatMap { claim in
            (0..<UInt64(claim.length)).map { claim.start.rawValue + $0 }.filter {
                disputed.contains($0)
            }
        }
        return (found.version, blocks)
    }
}
