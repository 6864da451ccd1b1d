// What administrators ask of quotas: usage, limits, grace (QuotaBook.swift).

import BlockIO
package import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// Usage and limits of everybody.
package struct QuotaReport: Sendable {
    /// Ascending; `usage` is everything, settled or not.
    package var records: [QuotaRecord]
    /// Seconds.
    package var blockGrace: UInt64
    package var inodeGrace: UInt64
}

extension MountedVolume {
    private func book() throws(FileError) -> QuotaBook {
        try checkUsable()
        guard let quotas else { throw .notSupported }
        return quotas
    }

    /// What every user and group uses, of all nodes. What a node charges while this goes on may be in it or not.
    ///
    /// - Throws: `notSupported` on a volume without quotas.
    package func quotaReport() async throws(FileError) -> QuotaReport {
        let book = try book()
        try await locks.enter(book.tableGlock, .shared)
        defer { locks.leave(book.tableGlock, .shared) }
        var records: [UInt64: QuotaRecord] = [:]
        var keys: [UInt64] = []
        func add(_ record: QuotaRecord) {
            let key = record.principal.key
            if records[key] == nil {
                keys.append(key)
                records[key] = record
            } else {
                records[key]?.usage += record.usage
            }
        }
        for index in 0..<superblock.quotaTableLength {
            let table = QuotaTableBlock(try await book.tableBlock(index).bytes)
            for place in 0..<table.capacity {
                let record = try book.check { () throws(FormatError) in
                    try table.record(at: place)
                }
                if let record { add(record) }
            }
        }
        for index in 0..<superblock.slotCount {
            for entry in try await entries(SlotIndex(index), book) {
                var record = QuotaRecord(entry.principal)
                record.usage = entry.amount
                add(record)
            }
        }
        let grace = QuotaTableBlock(try await book.tableBlock(0).bytes).grace
        let found = keys.sorted().compactMap { records[$0] }
        return QuotaReport(
            records: found.filter { !$0.isVoid },
            blockGrace: grace.blocks,
            inodeGrace: grace.inodes
        )
    }

    /// What a slot's share says.
    private func entries(
        _ slot: SlotIndex,
        _ book: QuotaBook
    ) async throws(FileError) -> [(principal: QuotaPrincipal, amount: QuotaAmount)] {
        let isOwn = slot == self.slot && !options.isReadOnly
        let glock = book.shareGlocks[Int(slot.rawValue)]
        if isOwn { try await book.join() } else { try await locks.enter(glock, .shared) }
        defer { if isOwn { book.part() } else { locks.leave(glock, .shared) } }
        let share = QuotaShareBlock(try await book.shareBlock(slot).bytes)
        var found: [(QuotaPrincipal, QuotaAmount)] = []
        for place in 0..<share.capacity {
            let entry = try book.check { () throws(FormatError) in try share.entry(at: place) }
            if let entry { found.append((entry.principal, entry.amount)) }
        }
        return found
    }

    /// Sets limits of a user or group; nil leaves what there is. They hold on all nodes when this returns.
    ///
    /// - Throws: `notSupported` on a volume without quotas; `notPermitted` for user 0 and group 0; `invalid` for
    ///   a soft limit above the hard one; `noSpace` if the table has no room for one more.
    package func setQuota(
        of principal: QuotaPrincipal,
        blocks: QuotaLimit?,
        inodes: QuotaLimit?
    ) async throws(FileError) {
        let book = try book()
        try checkWritable()
        guard principal.identity != 0 else { throw .notPermitted }
        for case let limit? in [blocks, inodes] {
            let isSorted = limit.hard == 0 || limit.soft <= limit.hard
            guard isSorted, max(limit.soft, limit.hard) <= UInt64(QuotaAmount.largest) else {
                throw .invalid
            }
        }
        try await locks.enter(book.tableGlock, .exclusive)
        defer { locks.leave(book.tableGlock, .exclusive) }
        try await book.collect(principal)
        try await book.join()
        defer { book.part() }
        var place = try await book.find(principal)
        let grace = QuotaTableBlock(try await book.tableBlock(0).bytes).grace
        let transaction = try await beginLogging(blocks: place.cost + 1)
        defer { transaction.end() }
        if let blocks { place.record.blockLimit = blocks }
        if let inodes { place.record.inodeLimit = inodes }
        book.settle(&place, in: transaction)
        let time = UInt64(clamping: now.seconds)
        place.record.beginGrace(blocks: time + grace.blocks, inodes: time + grace.inodes)
        place.store(in: transaction)
        book.standings[principal.key] = nil  // QuotaBook Q5
    }

    /// Sets how long soft limits may be passed, in seconds, from now on; nil leaves what there is.
    ///
    /// - Throws: `notSupported` on a volume without quotas.
    package func setQuotaGrace(blocks: UInt64?, inodes: UInt64?) async throws(FileError) {
        let book = try book()
        try checkWritable()
        try await locks.enter(book.tableGlock, .exclusive)
        defer { locks.leave(book.tableGlock, .exclusive) }
        let block = try await book.tableBlock(0)
        let transaction = try await beginLogging(blocks: 1)
        defer { transaction.end() }
        transaction.modify(block)
        let table = QuotaTableBlock(block.bytes)
        let old = table.grace
        table.grace = (blocks ?? old.blocks, inodes ?? old.inodes)
    }

    /// Says, now and then, that the table has no room for one more.
    func reportQuotaTableFull() {
        let now = engine.clock.now
        if let last = quotaTableFullAt, now.rawValue - last.rawValue < 60_000_000_000 { return }
        quotaTableFullAt = now
        onReport?(
            "the table of quotas is full: no more users and groups can be counted, and what they do is refused; "
                + "make a volume with room for more (mkfs.lockstep -O quota=COUNT)"
        )
    }
}

extension QuotaRecord {
    /// Grace that does not run begins where a soft limit is passed.
    fileprivate mutating func beginGrace(blocks: UInt64, inodes: UInt64) {
        let isOver: (QuotaLimit, Int64) -> Bool = { $0.soft > 0 && $1 > Int64(clamping: $0.soft) }
        if blockDeadline == 0, isOver(blockLimit, usage.blocks) { blockDeadline = blocks }
        if inodeDeadline == 0, isOver(inodeLimit, usage.inodes) { inodeDeadline = inodes }
    }
}
