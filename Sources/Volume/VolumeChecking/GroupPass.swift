// Pass 3: every resource group by itself.

import BlockIO
package import DiskFormat
import Vocabulary

extension VolumeChecker {
    func checkGroups() async throws(CheckError) {
        let buffer = makeBuffer()
        groups.reserveCapacity(Int(superblock.groupCount))
        for index in 0..<superblock.groupCount {
            let address = superblock.groupStart(index)
            let error = try await read(
                address,
                into: buffer,
                kind: .resourceGroup,
                owner: UInt64(index),
                generation: 0
            )
            groups.append(checkGroup(index, buffer.bytes, headerError: error))
            show(.groups, UInt64(index) + 1, of: UInt64(superblock.groupCount))
        }
        claimFixedBlocks()
    }

    func checkGroup(
        _ index: UInt32,
        _ block: UnsafeMutableRawBufferPointer,
        headerError: FormatError?
    ) -> ResourceGroupRecord? {
        let address = superblock.groupStart(index)
        let record: ResourceGroupRecord
        do throws(FormatError) {
            if let headerError { throw headerError }
            record = try ResourceGroupRecord(
                checking: block.readOnly,
                at: address,
                in: superblock
            )
        } catch {
            add(Finding(.groupDamaged, block: address, group: index, error: error))
            return nil
        }
        let bitmap = GroupBitmap(block: block, blockCount: record.blockCount)
        use.setMarks(ofGroup: index, from: bitmap)
        let counts = bitmap.counts()
        report.freeBlocks += UInt64(counts[Int(BlockState.free.rawValue)])
        report.quarantinedBlocks += UInt64(counts[Int(BlockState.quarantined.rawValue)])
        report.usedBlocks +=
            UInt64(counts[Int(BlockState.data.rawValue)])
            + UInt64(counts[Int(BlockState.metadata.rawValue)])
        func compare(_ kind: FindingKind, _ found: UInt32, _ state: BlockState) {
            let expected = counts[Int(state.rawValue)]
            guard found != expected else { return }
            add(
                Finding(
                    kind,
                    block: address,
                    group: index,
                    found: UInt64(found),
                    expected: UInt64(expected)
                )
            )
        }
        compare(.groupFreeCountWrong, record.freeCount, .free)
        compare(.groupQuarantinedCountWrong, record.quarantinedCount, .quarantined)
        if !bitmap.isTailClear {
            add(Finding(.groupTailNotClear, block: address, group: index))
        }
        return record
    }

    /// The group's own block and the copies of the superblock are in use before anything is walked.
    private func claimFixedBlocks() {
        for index in 0..<superblock.groupCount {
            use.setUse(.metadata, group: index, index: 0)
            if let mark = use.mark(group: index, index: 0), mark != .metadata {
                let isFree = mark == .free || mark == .quarantined
                add(
                    Finding(
                        isFree ? .blockNotMarked : .blockMarkedWrongly,
                        block: superblock.groupStart(index),
                        group: index
                    )
                )
            }
        }
        for group in superblock.groupsWithCopy {
            _ = claimMetadata(superblock.copyAddress(inGroup: group), for: nil)
        }
    }
}

extension GroupBitmap {
    /// Whether the bits behind the last block are zero.
    package var isTailClear: Bool {
        let count = Int(blockCount)
        for index in count..<(count + 3) / 4 * 4 {
            guard bits[index / 4] >> (2 * UInt8(index % 4)) & 3 == 0 else { return false }
        }
        return bits[((count + 3) / 4)...].allSatisfy { $0 == 0 }
    }
}
