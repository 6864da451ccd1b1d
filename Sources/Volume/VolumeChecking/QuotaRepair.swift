// Stage "quotas": damaged shares and blocks of the table are made anew, empty; then, in a round in which nothing else is
// wrong, usage is set to what the inodes say, and the shares are emptied. Limits stay where they can be read.
//
// Records stay in their places: who is interrupted here finds wrong numbers in the next run, and no limit lost.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    func repairQuotas(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        let damaged = found.filter {
            $0.kind == .quotaShareDamaged || $0.kind == .quotaTableDamaged
        }
        if !damaged.isEmpty {
            return try await each(damaged) { (finding) async throws(CheckError) -> Bool in
                guard let address = finding.block else { return false }
                try await makeAnew(address, slot: finding.slot)
                return true
            }
        }
        var table: [AlignedBuffer] = []
        for index in 0..<superblock.quotaTableLength {
            let buffer = makeBuffer()
            try await read(superblock.quotaTable(index), into: buffer)
            table.append(buffer)
        }
        guard count(in: table) else { return [] }
        // The shares last: until the table is right, what it says with them is wrong in any case.
        for (index, buffer) in table.enumerated() {
            try await writeNext(buffer, at: superblock.quotaTable(UInt32(index)))
        }
        try await flush()
        for index in 0..<superblock.slotCount {
            let address = superblock.quotaShare(SlotIndex(index))
            let buffer = makeBuffer()
            try await read(address, into: buffer)
            let share = QuotaShareBlock(buffer.bytes)
            for place in 0..<share.capacity { share.clear(at: place) }
            try await writeNext(buffer, at: address)
        }
        return found
    }

    private func makeAnew(_ address: BlockAddress, slot: SlotIndex?) async throws(CheckError) {
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        let version = Self.nextVersion(claimedVersion(buffer.readOnly, at: address))
        if let slot {
            QuotaShareBlock(buffer.bytes).format(superblock, slot, version: version)
        } else {
            let index = UInt32(address - superblock.quotaTable(0))
            let table = QuotaTableBlock(buffer.bytes)
            table.format(superblock, index: index, version: version)
            // Who stands behind it may have come over it.
            table.hasOverflowed = true
        }
        BlockHeader.seal(buffer.bytes)
        try await write(buffer, at: address)
    }

    /// Sets usage in the table to what the inodes say, and lets every record be found; false if there is no room for
    /// all.
    private func count(in table: [AlignedBuffer]) -> Bool {
        var missing = checker.quotas.counted
        for (index, buffer) in table.enumerated() {
            let block = QuotaTableBlock(buffer.bytes)
            for place in 0..<block.capacity {
                guard var record = try? block.record(at: place) else { continue }
                let home = Int(record.principal.hash % UInt64(table.count))
                let key = record.principal.key
                let isFirst = missing[key] != nil || checker.quotas.counted[key] == nil
                record.usage = missing.removeValue(forKey: key) ?? .zero
                block.set(isFirst && !record.isVoid ? record : nil, at: place)
                mark(table, from: home, to: index)
            }
        }
        for key in missing.keys.sorted() {
            guard let principal = QuotaPrincipal(key: key), let usage = missing[key] else {
                continue
            }
            var record = QuotaRecord(principal)
            record.usage = usage
            if !put(record, into: table) { return false }
        }
        return true
    }

    private func mark(_ table: [AlignedBuffer], from home: Int, to index: Int) {
        var at = home
        while at != index {
            QuotaTableBlock(table[at].bytes).hasOverflowed = true
            at = (at + 1) % table.count
        }
    }

    private func put(_ record: QuotaRecord, into table: [AlignedBuffer]) -> Bool {
        let home = Int(record.principal.hash % UInt64(table.count))
        for step in 0..<table.count {
            let index = (home + step) % table.count
            let block = QuotaTableBlock(table[index].bytes)
            for place in 0..<block.capacity {
                guard case .some(.none) = try? block.record(at: place) else { continue }
                block.set(record, at: place)
                mark(table, from: home, to: index)
                return true
            }
        }
        return false
    }
}
