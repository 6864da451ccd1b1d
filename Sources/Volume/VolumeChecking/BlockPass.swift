// Pass 6: what the groups say against what was found.

import BlockIO
import DiskFormat
import Vocabulary

extension VolumeChecker {
    func checkBlocks() async throws(CheckError) {
        for group in 0..<superblock.groupCount {
            if let record = groups[Int(group)] {
                checkNumbers(
                    record,
                    inodes: inodes.count(inGroup: group),
                    generation: inodes.newestGeneration(inGroup: group)
                )
                findLost(inGroup: group)
                try await checkQuarantine(of: record)
            }
            show(.blocks, UInt64(group) + 1, of: UInt64(superblock.groupCount))
        }
    }

    private func checkNumbers(
        _ record: ResourceGroupRecord,
        inodes: UInt32,
        generation: UInt64
    ) {
        let address = superblock.groupStart(record.index)
        if record.inodeCount != inodes {
            add(
                Finding(
                    .groupInodeCountWrong,
                    block: address,
                    group: record.index,
                    found: UInt64(record.inodeCount),
                    expected: UInt64(inodes)
                )
            )
        }
        if record.highestGeneration < generation {
            add(
                Finding(
                    .groupGenerationLow,
                    block: address,
                    group: record.index,
                    found: record.highestGeneration,
                    expected: generation
                )
            )
        }
    }

    /// Runs of blocks that are marked in use and that nothing uses.
    private func findLost(inGroup group: UInt32) {
        let start = superblock.groupStart(group)
        let length = superblock.groupLength(group)
        var index: UInt32 = 0
        while let first = use.next(.lost, group: group, from: index) {
            index = first
            while index < length, use.isLost(group: group, index: index) { index += 1 }
            add(
                Finding(
                    .blockLost,
                    block: start + UInt64(first),
                    blockCount: UInt64(index - first),
                    group: group
                )
            )
        }
    }

    /// A quarantined block still shows what it was; a new block there must start above its version.
    private func checkQuarantine(of record: ResourceGroupRecord) async throws(CheckError) {
        let buffer = makeBuffer()
        let start = superblock.groupStart(record.index)
        var highest: UInt64 = 0
        var next: UInt32 = 1
        while let index = use.next(.marked(.quarantined), group: record.index, from: next) {
            next = index + 1
            let address = start + UInt64(index)
            try await read(address, into: buffer)
            guard
                let header = try? BlockHeader(
                    verifying: buffer.readOnly,
                    at: address,
                    volume: superblock.volume
                )
            else { continue }
            highest = max(highest, header.version)
        }
        if highest > record.highestVersion {
            add(
                Finding(
                    .groupVersionLow,
                    block: start,
                    group: record.index,
                    found: record.highestVersion,
                    expected: highest
                )
            )
        }
    }
}
