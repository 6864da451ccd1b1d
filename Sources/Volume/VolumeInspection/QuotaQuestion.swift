// `quotas`, and blocks of them.

import BlockIO
import DiskFormat
import Vocabulary

extension Inspector {
    private static let columns: [SheetColumn] = [
        .text("principal", 18), .number("blocks", 12), .number("soft", 12), .number("hard", 12),
        .number("grace ends", 12), .number("inodes", 12), .number("soft inodes", 12),
        .number("hard inodes", 12), .number("inode grace ends", 16),
    ]

    private static func row(_ record: QuotaRecord) -> [SheetValue] {
        [
            .text("\(record.principal)"), .text("\(record.usage.blocks)"),
            .number(record.blockLimit.soft), .number(record.blockLimit.hard),
            .number(record.blockDeadline), .text("\(record.usage.inodes)"),
            .number(record.inodeLimit.soft), .number(record.inodeLimit.hard),
            .number(record.inodeDeadline),
        ]
    }

    /// Shows what users and groups use, settled or not, and what they may.
    ///
    /// - Throws: on a volume without quotas.
    package func showQuotas() async throws(InspectionError) {
        guard superblock.features.hasQuotas else {
            throw InspectionError("has no quotas: they come with mkfs.lockstep -O quota")
        }
        var records: [UInt64: QuotaRecord] = [:]
        var damages: [String] = []
        for number in superblock.quotaBlocks {
            let address = BlockAddress(number)
            guard let block = await block(address) else { continue }
            if case .quotaShare(let slot) = place(of: address) {
                let error = headerError(
                    block.readOnly,
                    at: address,
                    kind: .quotaShare,
                    owner: UInt64(slot.rawValue),
                    generation: 0
                )
                if let error { damages.append("\(error)") }
                let share = QuotaShareBlock(block.bytes)
                for place in 0..<share.capacity {
                    guard error == nil, let entry = try? share.entry(at: place) else { continue }
                    records[entry.principal.key, default: QuotaRecord(entry.principal)].usage +=
                        entry.amount
                }
            } else {
                let error = headerError(
                    block.readOnly,
                    at: address,
                    kind: .quotaTable,
                    owner: address - superblock.quotaTable(0),
                    generation: 0
                )
                if let error { damages.append("\(error)") }
                let table = QuotaTableBlock(block.bytes)
                for place in 0..<table.capacity {
                    guard error == nil, var record = try? table.record(at: place) else { continue }
                    record.usage += records[record.principal.key]?.usage ?? .zero
                    records[record.principal.key] = record
                }
            }
        }
        sheet.beginTable("quotas", Self.columns)
        for key in records.keys.sorted() {
            guard let record = records[key], !record.isVoid else { continue }
            sheet.row(Self.row(record))
        }
        sheet.end()
        for damage in damages { sheet.damage(damage) }
    }

    func showQuotaShare(_ block: AlignedBuffer) {
        let share = QuotaShareBlock(block.bytes)
        sheet.beginTable(
            "entries",
            [.text("principal", 18), .text("blocks", 20), .text("inodes", 20)]
        )
        var damages: [String] = []
        for place in 0..<share.capacity {
            do throws(FormatError) {
                guard let entry = try share.entry(at: place) else { continue }
                sheet.row([
                    .text("\(entry.principal)"), .text("\(entry.amount.blocks)"),
                    .text("\(entry.amount.inodes)"),
                ])
            } catch {
                damages.append("\(error)")
            }
        }
        sheet.end()
        for damage in damages { sheet.damage(damage) }
    }

    func showQuotaTable(_ block: AlignedBuffer) {
        let table = QuotaTableBlock(block.bytes)
        sheet.field("overflowed", table.hasOverflowed ? "yes" : "no")
        sheet.field("block grace", table.grace.blocks)
        sheet.field("inode grace", table.grace.inodes)
        sheet.beginTable("records", Self.columns)
        var damages: [String] = []
        for place in 0..<table.capacity {
            do throws(FormatError) {
                if let record = try table.record(at: place) { sheet.row(Self.row(record)) }
            } catch {
                damages.append("\(error)")
            }
        }
        sheet.end()
        for damage in damages { sheet.damage(damage) }
    }
}
