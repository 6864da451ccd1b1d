// `groups` and `group N`.

import BlockIO
import DiskFormat
import Vocabulary
import VolumeChecking

extension Inspector {
    /// A line for each group.
    package func showGroups() async {
        sheet.beginTable(
            "groups",
            [
                .number("group", 8), .number("block", 12), .number("blocks", 8),
                .number("free", 8), .number("data", 8), .number("metadata", 8),
                .number("quarantined", 8), .number("inodes", 8), .number("highest version", 8),
                .number("highest generation", 8), .text("state", 8),
            ]
        )
        var damages: [String] = []
        for index in 0..<superblock.groupCount {
            let address = superblock.groupStart(index)
            guard let block = await block(address) else { continue }
            let record = ResourceGroupRecord(fields: block.readOnly)
            let problems = groupProblems(block, index)
            // A group may have many; as many groups may be damaged as there are.
            if damages.count < 1000 { damages += problems }
            let counts = bitmap(of: block, index).counts()
            func count(_ state: BlockState) -> SheetValue {
                .number(UInt64(counts[Int(state.rawValue)]))
            }
            sheet.row([
                .number(UInt64(index)), .number(address.rawValue),
                .number(UInt64(superblock.groupLength(index))), count(.free), count(.data),
                count(.metadata), count(.quarantined), .number(UInt64(record.inodeCount)),
                .number(record.highestVersion), .number(record.highestGeneration),
                .text(problems.isEmpty ? "sound" : "damaged"),
            ])
        }
        sheet.end()
        for damage in damages { sheet.damage(damage) }
    }

    /// Shows a group: its block, its counts beside what its state bits say, and the runs of blocks
    /// of one state.
    ///
    /// - Throws: if there is no such group.
    package func showGroup(_ index: UInt32) async throws(InspectionError) {
        guard index < superblock.groupCount else {
            throw InspectionError(
                "group \(index): the volume has groups 0 to \(superblock.groupCount - 1)"
            )
        }
        let address = superblock.groupStart(index)
        sheet.field("group", index)
        sheet.field("block", address.rawValue)
        guard let block = await block(address) else { return }
        showHeader(block, at: address)
        sheet.beginSection("record")
        showGroupRecord(block)
        sheet.end()
        let bitmap = bitmap(of: block, index)
        showCounts(bitmap)
        showRuns(bitmap, from: address)
        for problem in groupProblems(block, index, header: false) { sheet.damage(problem) }
    }

    /// For `block N`.
    func showGroupFields(_ block: AlignedBuffer, at address: BlockAddress) {
        showGroupRecord(block)
        guard case .groupHeader(let index) = place(of: address) else { return }
        showCounts(bitmap(of: block, index))
        for problem in groupProblems(block, index, header: false) { sheet.damage(problem) }
    }

    private func bitmap(of block: AlignedBuffer, _ index: UInt32) -> GroupBitmap {
        // By the superblock: what the group says of its length may be wrong.
        GroupBitmap(block: block.bytes, blockCount: superblock.groupLength(index))
    }

    private func showGroupRecord(_ block: AlignedBuffer) {
        let record = ResourceGroupRecord(fields: block.readOnly)
        sheet.field("index", record.index)
        sheet.field("block count", record.blockCount)
        sheet.field("free count", record.freeCount)
        sheet.field("quarantined count", record.quarantinedCount)
        sheet.field("inode count", record.inodeCount)
        sheet.field("highest version", record.highestVersion)
        sheet.field("highest generation", record.highestGeneration)
    }

    private func showCounts(_ bitmap: GroupBitmap) {
        let counts = bitmap.counts()
        sheet.beginSection("state bits")
        for state in BlockState.allCases {
            sheet.field(state.description, counts[Int(state.rawValue)])
        }
        sheet.end()
    }

    private func showRuns(_ bitmap: GroupBitmap, from start: BlockAddress) {
        sheet.beginTable(
            "runs",
            [.number("first", 12), .number("last", 12), .number("blocks", 8), .text("state", 11)]
        )
        var index: UInt32 = 0
        while index < bitmap.blockCount {
            let state = bitmap[index]
            let length = bitmap.run(of: state, from: index, limit: bitmap.blockCount)
            let first = start + UInt64(index)
            sheet.row([
                .number(first.rawValue), .number(first.rawValue + UInt64(length) - 1),
                .number(UInt64(length)), .text(state.description),
            ])
            index += length
        }
        sheet.end()
    }

    /// What is wrong with the block of a group, as far as it can be seen from the block alone.
    private func groupProblems(_ block: AlignedBuffer, _ index: UInt32, header: Bool = true)
        -> [String]
    {
        let address = superblock.groupStart(index)
        if let error = headerError(
            block.readOnly,
            at: address,
            kind: .resourceGroup,
            owner: UInt64(index),
            generation: 0
        ) {
            // With `header` nobody has said so yet; else only what the header alone does not show.
            switch error {
            case .wrongKind, .wrongOwner, .wrongGeneration: return ["\(error)"]
            default: return header ? ["\(error)"] : []
            }
        }
        let record: ResourceGroupRecord
        do throws(FormatError) {
            record = try ResourceGroupRecord(
                checking: block.readOnly,
                at: address,
                in: superblock
            )
        } catch {
            return ["\(error)"]
        }
        let counts = bitmap(of: block, index).counts()
        var problems: [String] = []
        if !bitmap(of: block, index).isTailClear {
            problems.append("the state bits of group \(index) go on behind its last block")
        }
        for (name, stated, state) in [
            ("free", record.freeCount, BlockState.free),
            ("quarantined", record.quarantinedCount, .quarantined),
        ] where counts[Int(state.rawValue)] != stated {
            problems.append(
                "group \(index) says \(stated) \(name) blocks, its state bits "
                    + "\(counts[Int(state.rawValue)])"
            )
        }
        return problems
    }
}
