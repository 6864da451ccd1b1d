// Pass 7: what users and groups use, by the shares and the table, against what the inodes say.
//
// Shares and table are judged by themselves always; what they say is compared only when nothing else is wrong: what
// an inode uses is certain then.

import BlockIO
import DiskFormat
import Vocabulary

/// What the shares and the table say.
struct QuotaCensus {
    /// By the inodes.
    var counted: [UInt64: QuotaAmount] = [:]
    /// By shares and table.
    var stated: [UInt64: QuotaAmount] = [:]

    /// Adds what an inode uses to its owners.
    mutating func count(_ record: InodeRecord) {
        let amount = QuotaAmount(blocks: Int64(clamping: record.blockCount), inodes: 1)
        for principal in [QuotaPrincipal.user(record.user), .group(record.group)] {
            counted[principal.key, default: .zero] += amount
        }
    }

    /// Keys of everybody, ascending.
    var principals: [UInt64] { Set(counted.keys).union(stated.keys).sorted() }

    mutating func state(_ principal: QuotaPrincipal, _ amount: QuotaAmount) {
        stated[principal.key, default: .zero] += amount
    }
}

extension VolumeChecker {
    func checkQuotas() async throws(CheckError) {
        guard superblock.features.hasQuotas else { return }
        let isCertain = report.findingCount == 0
        let buffer = makeBuffer()
        for index in 0..<superblock.slotCount {
            try await checkShare(SlotIndex(index), buffer)
        }
        for index in 0..<superblock.quotaTableLength {
            try await checkTable(index, buffer)
            show(.quotas, UInt64(index) + 1, of: UInt64(superblock.quotaTableLength))
        }
        if isCertain, report.findingCount == 0 { try await checkSearches() }
        if isCertain, report.findingCount == 0 { compareUsage() }
    }

    /// Judges a share; adds what it says.
    private func checkShare(_ slot: SlotIndex, _ buffer: AlignedBuffer) async throws(CheckError) {
        let address = superblock.quotaShare(slot)
        var error = try await read(
            address,
            into: buffer,
            kind: .quotaShare,
            owner: UInt64(slot.rawValue),
            generation: 0
        )
        if error == nil {
            do throws(FormatError) {
                let share = QuotaShareBlock(buffer.bytes)
                for place in 0..<share.capacity {
                    guard let entry = try share.entry(at: place) else { continue }
                    quotas.state(entry.principal, entry.amount)
                }
            } catch let damage {
                error = damage
            }
        }
        if let error { add(Finding(.quotaShareDamaged, block: address, slot: slot, error: error)) }
    }

    private func checkTable(_ index: UInt32, _ buffer: AlignedBuffer) async throws(CheckError) {
        let address = superblock.quotaTable(index)
        var error = try await read(
            address,
            into: buffer,
            kind: .quotaTable,
            owner: UInt64(index),
            generation: 0
        )
        if error == nil {
            do throws(FormatError) {
                let table = QuotaTableBlock(buffer.bytes)
                for place in 0..<table.capacity {
                    guard let record = try table.record(at: place) else { continue }
                    quotas.state(record.principal, record.usage)
                }
            } catch let damage {
                error = damage
            }
        }
        if let error { add(Finding(.quotaTableDamaged, block: address, error: error)) }
    }

    /// Every record is found by a search for it, and only once.
    private func checkSearches() async throws(CheckError) {
        let length = superblock.quotaTableLength
        var overflowed: [Bool] = []
        var met: Set<UInt64> = []
        var homes: [(index: UInt32, home: UInt32)] = []
        let buffer = makeBuffer()
        for index in 0..<length {
            try await read(superblock.quotaTable(index), into: buffer)
            let table = QuotaTableBlock(buffer.bytes)
            overflowed.append(table.hasOverflowed)
            for place in 0..<table.capacity {
                guard let record = try? table.record(at: place) else { continue }
                let home = UInt32(record.principal.hash % UInt64(length))
                if home != index { homes.append((index, home)) }
                if !met.insert(record.principal.key).inserted {
                    add(
                        Finding(
                            .quotaRecordLost,
                            block: superblock.quotaTable(index),
                            principal: record.principal
                        )
                    )
                }
            }
        }
        for (index, home) in homes {
            var at = home
            while at != index, overflowed[Int(at)] { at = (at + 1) % length }
            if at != index {
                add(Finding(.quotaRecordLost, block: superblock.quotaTable(index)))
            }
        }
    }

    private func compareUsage() {
        for key in quotas.principals {
            guard let principal = QuotaPrincipal(key: key) else { continue }
            let counted = quotas.counted[key] ?? .zero
            let stated = quotas.stated[key] ?? .zero
            guard counted != stated else { continue }
            let isOfBlocks = counted.blocks != stated.blocks
            add(
                Finding(
                    isOfBlocks ? .quotaBlocksWrong : .quotaInodesWrong,
                    found: UInt64(clamping: isOfBlocks ? stated.blocks : stated.inodes),
                    expected: UInt64(clamping: isOfBlocks ? counted.blocks : counted.inodes),
                    principal: principal
                )
            )
        }
    }
}
