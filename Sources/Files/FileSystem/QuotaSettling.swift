// The table of quotas: finding a principal's place, settling shares, taking allowances. The table's lock is held by who
// calls, and the own share is joined (QuotaBook.swift).

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
import Vocabulary

extension QuotaBook {
    /// A principal's place in the table.
    struct Place {
        let block: MetadataBlock
        let index: Int
        /// As it stands there, or a new one.
        var record: QuotaRecord
        /// Blocks that a search has to go on from once the record stands here.
        let passed: [MetadataBlock]

        /// Blocks of the table that a transaction changes.
        var cost: Int { 1 + passed.count }

        func store(in transaction: Transaction) {
            for block in passed {
                transaction.modify(block)
                QuotaTableBlock(block.bytes).hasOverflowed = true
            }
            transaction.modify(block)
            QuotaTableBlock(block.bytes).set(record, at: index)
        }
    }

    /// Blocks in a row that may be full: with more, the table is. (A transaction has room for them.)
    private static let longestSearch = 16

    /// A block of the table.
    func tableBlock(_ index: UInt32) async throws(FileError) -> MetadataBlock {
        do throws(StorageError) {
            return try await volume.cache.block(
                volume.superblock.quotaTable(index),
                kind: .quotaTable,
                owner: UInt64(index),
                generation: 0,
                covering: .quotaTable
            )
        } catch {
            throw volume.fileError(.storage(error))
        }
    }

    /// Where a principal stands, or would.
    ///
    /// - Throws: `noSpace` if there is no room for one more.
    func find(_ principal: QuotaPrincipal) async throws(FileError) -> Place {
        let length = volume.superblock.quotaTableLength
        var index = UInt32(principal.hash % UInt64(length))
        var free: (block: MetadataBlock, index: Int)?
        var passed: [MetadataBlock] = []
        var mayStandBehind = true
        for _ in 0..<length {
            let block = try await tableBlock(index)
            let table = QuotaTableBlock(block.bytes)
            for place in 0..<table.capacity {
                let record = try check { () throws(FormatError) in try table.record(at: place) }
                if mayStandBehind, let record, record.principal == principal {
                    return Place(block: block, index: place, record: record, passed: [])
                }
                if free == nil, record?.isVoid != false { free = (block, place) }
            }
            if !table.hasOverflowed { mayStandBehind = false }
            if !mayStandBehind, let free {
                return Place(
                    block: free.block,
                    index: free.index,
                    record: QuotaRecord(principal),
                    passed: passed
                )
            }
            if !table.hasOverflowed { passed.append(block) }
            guard passed.count <= Self.longestSearch else { break }
            index = (index + 1) % length
        }
        if let free {
            return Place(
                block: free.block,
                index: free.index,
                record: QuotaRecord(principal),
                passed: []
            )
        }
        volume.reportQuotaTableFull()
        throw .noSpace
    }

    func check<Value>(
        _ body: () throws(FormatError) -> Value
    ) throws(FileError) -> Value {
        do throws(FormatError) {
            return try body()
        } catch {
            throw volume.fileError(.storage(.format(error)))
        }
    }

    // MARK: Settling

    /// Adds the own share to the table, but for what is promised.
    func settle() async throws(FileError) {
        reached(.quotaSettled)
        for index in 0..<joined.view.capacity {
            let entry = try check { () throws(FormatError) in try joined.view.entry(at: index) }
            if let entry { try await settle(entry.principal) }
        }
    }

    /// Adds what the own share says of one principal to the table.
    func settle(_ principal: QuotaPrincipal) async throws(FileError) {
        var place = try await find(principal)
        let transaction = try await volume.beginLogging(blocks: place.cost + 1)
        defer { transaction.end() }
        settle(&place, in: transaction)
    }

    /// The same, in a transaction; stores the place. What is promised stays covered (Q3).
    func settle(_ place: inout Place, in transaction: Transaction) {
        let principal = place.record.principal
        let kept = .zero - pool(principal)
        place.record.usage += joined.amount(principal) - kept
        place.record.endGraceBelowLimit()
        place.store(in: transaction)
        joined.set(principal, kept, in: transaction)
    }

    /// Adds what the shares of all other slots say to the table: of one principal, or of all. Their nodes know
    /// nothing of limits any more then (Q5).
    func collect(_ principal: QuotaPrincipal?) async throws(FileError) {
        reached(.quotaCollected)
        for index in 0..<volume.superblock.slotCount where index != volume.slot.rawValue {
            let glock = shareGlocks[Int(index)]
            try await volume.locks.enter(glock, .exclusive)
            defer { volume.locks.leave(glock, .exclusive) }
            let block = try await shareBlock(SlotIndex(index))
            let view = QuotaShareBlock(block.bytes)
            for place in 0..<view.capacity {
                let entry = try check { () throws(FormatError) in try view.entry(at: place) }
                guard let entry, principal == nil || principal == entry.principal else { continue }
                try await settle(block, place, entry.principal, entry.amount)
            }
        }
    }

    private func settle(
        _ block: MetadataBlock,
        _ index: Int,
        _ principal: QuotaPrincipal,
        _ amount: QuotaAmount
    ) async throws(FileError) {
        var place = try await find(principal)
        let transaction = try await volume.beginLogging(blocks: place.cost + 1)
        defer { transaction.end() }
        place.record.usage += amount
        place.record.endGraceBelowLimit()
        place.store(in: transaction)
        transaction.modify(block)
        QuotaShareBlock(block.bytes).clear(at: index)
    }

    // MARK: Taking

    /// Sees to it that a charge is covered, if it may be.
    ///
    /// - Throws: `quotaExceeded`.
    func provide(
        _ principal: QuotaPrincipal,
        _ amount: QuotaAmount,
        isExempt: Bool
    ) async throws(FileError) {
        guard principal.identity != 0 else { return }
        for isCollected in [false, true] {
            if isCollected { try await collect(principal) }
            var place = try await find(principal)
            if !place.record.blockLimit.isLimited, !place.record.inodeLimit.isLimited {
                standings[principal.key] = .unlimited
                return
            }
            let grace = QuotaTableBlock(try await tableBlock(0).bytes).grace
            let transaction = try await volume.beginLogging(blocks: place.cost + 1)
            defer { transaction.end() }
            if place.record.isOverHardLimit { settle(&place, in: transaction) }
            // From here on nothing waits: what is unused is what it was when it was weighed.
            let unused = unused(principal)
            let record = place.record
            func weighing(_ isOfBlocks: Bool) -> QuotaWeighing {
                QuotaWeighing(
                    usage: isOfBlocks ? record.usage.blocks : record.usage.inodes,
                    unused: isOfBlocks ? unused.blocks : unused.inodes,
                    wanted: isOfBlocks ? amount.blocks : amount.inodes,
                    limit: isOfBlocks ? record.blockLimit : record.inodeLimit,
                    deadline: isOfBlocks ? record.blockDeadline : record.inodeDeadline,
                    grace: isOfBlocks ? grace.blocks : grace.inodes,
                    now: UInt64(clamping: volume.now.seconds),
                    isExempt: isExempt,
                    isExact: isCollected
                )
            }
            let quantum = volume.options.quotaQuantum
            let parts = Int64(2 * volume.superblock.slotCount)
            let blocks = weighing(true).decide(quantum: quantum, parts: parts)
            let inodes = weighing(false).decide(quantum: quantum / 8, parts: parts)
            guard let blocks, let inodes else {
                guard isCollected else { continue }
                lastRoom = inodes == nil ? 0 : weighing(true).room
                reached(.quotaRefused)
                throw .quotaExceeded
            }
            place.record.blockDeadline = blocks.deadline
            place.record.inodeDeadline = inodes.deadline
            standings[principal.key] = QuotaStanding(place.record)
            let taken = QuotaAmount(blocks: blocks.taken, inodes: inodes.taken)
            if taken == .zero, place.record == record { return }
            place.record.usage += taken
            place.store(in: transaction)
            joined.set(principal, joined.amount(principal) - taken, in: transaction)
            return
        }
    }
}

extension QuotaRecord {
    /// A limit was lowered, or somebody exempt has passed it.
    var isOverHardLimit: Bool {
        blockLimit.isPassed(by: usage.blocks) || inodeLimit.isPassed(by: usage.inodes)
    }

    /// Grace that ran ends when what is settled is not above the soft limit.
    mutating func endGraceBelowLimit() {
        if usage.blocks <= Int64(clamping: blockLimit.soft) || blockLimit.soft == 0 {
            blockDeadline = 0
        }
        if usage.inodes <= Int64(clamping: inodeLimit.soft) || inodeLimit.soft == 0 {
            inodeDeadline = 0
        }
    }
}

extension QuotaLimit {
    /// Whether so much is above the hard limit.
    func isPassed(by usage: Int64) -> Bool { hard > 0 && usage > Int64(clamping: hard) }
}

/// Whether something may be taken, of blocks or of inodes.
struct QuotaWeighing {
    /// As the table has it: allowances count as used.
    var usage: Int64
    /// Of the own allowance.
    var unused: Int64
    var wanted: Int64
    var limit: QuotaLimit
    var deadline: UInt64
    /// Seconds.
    var grace: UInt64
    /// Seconds since 1970 UTC.
    var now: UInt64
    var isExempt: Bool
    /// Everything was collected: nobody else has anything unused.
    var isExact: Bool

    /// What could be wanted and would not pass a limit that may not be passed now.
    var room: Int64 {
        var room = Int64.max
        let isOver = deadline != 0 && now >= deadline
        if limit.hard > 0 { room = Int64(clamping: limit.hard) - (usage - unused) }
        if limit.soft > 0, isOver {
            room = min(room, Int64(clamping: limit.soft) - (usage - unused))
        }
        return max(room, 0)
    }

    /// What to take, and when grace ends then; nil: refused, or to be collected first.
    func decide(quantum: Int64, parts: Int64) -> (taken: Int64, deadline: UInt64)? {
        guard limit.isLimited else {
            // Nothing is kept covered: what is charged may be settled at any time.
            return (0, 0)
        }
        guard wanted > 0 else { return (0, deadline) }
        let needed = max(wanted - unused, 0)
        let after = usage + needed
        let (soft, hard) = (Int64(clamping: limit.soft), Int64(clamping: limit.hard))
        if isExempt { return (needed, deadline) }
        if hard > 0, needed > 0, after > hard { return nil }
        var ends = deadline
        if soft > 0, after > soft || deadline != 0 {
            let isRunning = deadline != 0 && now < deadline
            if !isExact, !isRunning { return nil }
            if isExact {
                if usage - unused + wanted <= soft {
                    ends = 0
                } else if deadline == 0 {
                    ends = now + max(grace, 1)
                } else if now >= deadline {
                    return nil
                }
            }
        }
        var most = hard > 0 ? hard : .max
        if soft > 0, ends == 0 { most = min(most, soft) }
        let extra = max(min(quantum, (most - min(after, most)) / parts), 0)
        return (needed > 0 ? needed + extra : 0, ends)
    }
}
