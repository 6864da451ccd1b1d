// Quotas: what each user and each group uses, counted exactly, and limited without a message per write.
//
// Charged to a principal (a user or a group) are all blocks of its inodes: their own, their data, their trees and
// extended attributes; and the inodes. Who owns an inode is who is charged, from its making until it is freed,
// names or not: unlinked files that somebody has open and what is left of the dead count until they are gone.
//
// Where it stands
//   share    one block for each slot: what its node has charged since its last settlement, plus or minus.
//            Changed in the very transaction that changes the inodes; nobody else needs to know
//   table    usage as settled, and limits. Changed by settlements and administrators only
//
//   usage of a principal = table + all shares                                                              (Q1)
//
// Allowances. The share of a limited principal is what it may still use here, as a negative number: a node *takes*
// an allowance by adding to the table and subtracting from its share in one transaction, and then uses it up without
// telling anybody. So the table is never below what is used, and a limit is kept by keeping the table below it. An
// allowance is a small part of what is left: as the limit comes near, nodes ask more often. When nothing is left
// to take, the node that needs it *collects*: it locks the share of every slot, of the living and of those that
// nobody is in, and adds it to the table. What others had not used comes back by that. Only then is anything refused.
//
//   share lock   EX while its node charges. Who collects asks for it; its node commits and writes the block home,
//                forgets what it knew of limits (Q5), and asks again when it charges next
//   table lock   EX for whoever settles, takes, collects, sets limits or reports. One at a time
//
// A transaction *joins* the share before it begins: as long as any is inside, the share is not given up. What it may
// charge is *promised* before, out of the allowances, so that nothing is refused once it has begun (FileStore F1), and
// nothing that was acknowledged fails later: blocks are allocated when they are written (decision 0004).
//
// Invariants
// Q1. At every end of a transaction the table and all shares together say of each principal what the inodes on
//     disk say. It holds through crashes, as the share is changed with the inode's block (`StoredInode.store`), and
//     settlements change table and share together.
// Q2. Nothing is charged that was not promised. What is given back needs no promise.
// Q3. Of a limited principal, what is promised on a node is covered by its allowance: share + promised <= 0.
// Q4. THE BOUND IS ZERO. Nobody who is subject to limits makes usage pass a hard limit: table <= hard, unless the limit
//     was lowered or somebody exempt has passed it; then even what is given back is not used again (but what a node
//     had taken before somebody exempt passed the limit). A rename within one directory is exempt: it may make that
//     directory larger. The price is that something may be refused before: by as many blocks as the operation may
//     need for trees at most and may turn out not to need, and by what other operations, at that moment, have been
//     promised.
// Q5. What a node knows of limits, it knows under its share's lock: setting a limit locks all shares.
// Q6. A share has a free place for every principal that a transaction inside may be the first to charge
//     (`placesPerTransaction`): before they run out the share is settled.
//
// Soft limits: beyond one, grace runs from the moment at which a settlement sees it passed, and a charge is refused
// when it is over. Before grace begins and before something is refused for it, everything is collected. Whether
// usage has come back below is seen at settlements, too: grace that began is not forgotten by a node that frees
// something and uses as much again out of its own allowance.
//
// Exempt: the superuser (FUSE tells the user of a request, not capabilities), as CAP_SYS_RESOURCE on ext4; what it
// charges is added to the table as well, whatever the limit. User 0 and group 0 have no limits (as on XFS). Write-back
// of mappings is of nobody, and not exempt. Deleting, and what frees, is never refused.
//
// Lock order (L1): behind the groups, before the log barrier: the table, then the shares by slot. With the own
// share joined (`open`), nobody waits for the table unless he has it.
//
// Sources: GFS2's quota.c (a change file for each node, merged into the quota file; quota_scale), which lets a limit be
// passed by what nodes have not told yet; allowances as in Lustre's qunits, which are held by a lock of each
// principal; quotactl(2) and dquot.c of Linux for what is charged, exempt and graced.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
import Vocabulary

/// What an operation may charge, to whom.
struct QuotaDemand {
    private(set) var charges: [(principal: QuotaPrincipal, amount: QuotaAmount)] = []
    /// Limits do not count.
    var isExempt: Bool

    init(isExempt: Bool) { self.isExempt = isExempt }

    /// What an inode's owners may be charged with.
    init(_ record: InodeRecord, blocks: Int, inodes: Int = 0, isExempt: Bool) {
        self.isExempt = isExempt
        add(record, blocks: blocks, inodes: inodes)
    }

    /// Adds what an inode's owners may be charged with.
    mutating func add(_ record: InodeRecord, blocks: Int, inodes: Int = 0) {
        add(.user(record.user), QuotaAmount(blocks: Int64(blocks), inodes: Int64(inodes)))
        add(.group(record.group), QuotaAmount(blocks: Int64(blocks), inodes: Int64(inodes)))
    }

    /// Adds what one principal may be charged with.
    mutating func add(_ principal: QuotaPrincipal, _ amount: QuotaAmount) {
        if amount == .zero { return }
        if let known = charges.firstIndex(where: { $0.principal == principal }) {
            charges[known].amount += amount
        } else {
            charges.append((principal, amount))
        }
    }
}

/// What a node knows of a principal's limits, as long as it has its share (Q5).
struct QuotaStanding {
    var limitsBlocks = false
    var limitsInodes = false
    /// More is used than the hard limit allows: even what is given back here goes to the table first.
    var isOverBlocks = false
    var isOverInodes = false
    /// When grace ends, in seconds since 1970 UTC; 0 if it does not run.
    var blockDeadline: UInt64 = 0
    var inodeDeadline: UInt64 = 0

    static let unlimited = QuotaStanding()

    init() {}

    init(_ record: QuotaRecord) {
        limitsBlocks = record.blockLimit.isLimited
        limitsInodes = record.inodeLimit.isLimited
        isOverBlocks = record.blockLimit.isPassed(by: record.usage.blocks)
        isOverInodes = record.inodeLimit.isPassed(by: record.usage.inodes)
        blockDeadline = record.blockDeadline
        inodeDeadline = record.inodeDeadline
    }
}

/// The own share, in memory.
final class QuotaShare {
    let block: MetadataBlock
    private var places: [UInt64: Int] = [:]
    private(set) var free: [Int] = []

    var view: QuotaShareBlock { QuotaShareBlock(block.bytes) }

    init(_ block: MetadataBlock) throws(FormatError) {
        self.block = block
        for index in (0..<view.capacity).reversed() {
            if let entry = try view.entry(at: index) {
                places[entry.principal.key] = index
            } else {
                free.append(index)
            }
        }
    }

    /// What was charged and not settled.
    func amount(_ principal: QuotaPrincipal) -> QuotaAmount {
        places[principal.key].map { view.amount(at: $0) } ?? .zero
    }

    /// Changes it, in a transaction.
    func set(_ principal: QuotaPrincipal, _ amount: QuotaAmount, in transaction: Transaction) {
        transaction.modify(block)
        if let place = places[principal.key] {
            if amount == .zero {
                view.clear(at: place)
                places[principal.key] = nil
                free.append(place)
            } else {
                view.set(principal, amount, at: place)
            }
            return
        }
        if amount == .zero { return }
        guard let place = free.popLast() else {
            preconditionFailure("QuotaBook Q6: no place for \(principal)")
        }
        places[principal.key] = place
        view.set(principal, amount, at: place)
    }
}

/// The quotas as this node keeps them. Engine-bound.
final class QuotaBook: GlockOwner, UsageAccountant {
    unowned let volume: MountedVolume
    let tableGlock: Glock
    /// By slot.
    let shareGlocks: [Glock]
    /// Loaded while the share's lock is held and nobody else has asked for it.
    private(set) var share: QuotaShare?
    var standings: [UInt64: QuotaStanding] = [:]
    /// What open transactions may still charge.
    private var promised: [UInt64: QuotaAmount] = [:]
    /// Transactions, and who else needs the share to stay.
    private(set) var open = 0
    /// Notified when one of them has ended.
    let ended = Signal()
    /// Whoever is about to be refused knows by this how many blocks would not have been.
    var lastRoom: Int64 = 0

    /// Principals that no transaction is the first to charge more of: a rename has two directories, what is moved,
    /// what is replaced and the list of orphans, with two each.
    static let placesPerTransaction = 10

    init(_ volume: MountedVolume) {
        self.volume = volume
        tableGlock = volume.locks.make(.quotaTable, owner: nil)
        shareGlocks = (0..<volume.superblock.slotCount).map {
            volume.locks.make(.quotaShare(SlotIndex($0)), owner: nil)
        }
        tableGlock.owner = self
        for glock in shareGlocks { glock.owner = self }
    }

    var ownGlock: Glock { shareGlocks[Int(volume.slot.rawValue)] }

    func pool(_ principal: QuotaPrincipal) -> QuotaAmount { promised[principal.key] ?? .zero }

    // MARK: Joining

    private var isHere: Bool {
        share != nil && ownGlock.held == .exclusive && ownGlock.machine.phase == .steady
    }

    /// Keeps the own share here until `part`.
    func join() async throws(FileError) {
        if isHere {
            open += 1
            return
        }
        try await volume.locks.enter(ownGlock, .exclusive)
        defer { volume.locks.leave(ownGlock, .exclusive) }
        if share == nil { share = try await loadShare() }
        open += 1
    }

    private func loadShare() async throws(FileError) -> QuotaShare {
        let block = try await shareBlock(volume.slot)
        do throws(FormatError) {
            return try QuotaShare(block)
        } catch {
            throw volume.fileError(.storage(.format(error)))
        }
    }

    /// A slot's share, whose lock is held.
    func shareBlock(_ slot: SlotIndex) async throws(FileError) -> MetadataBlock {
        do throws(StorageError) {
            return try await volume.cache.block(
                volume.superblock.quotaShare(slot),
                kind: .quotaShare,
                owner: UInt64(slot.rawValue),
                generation: 0,
                covering: .quotaShare(slot)
            )
        } catch {
            throw volume.fileError(.storage(error))
        }
    }

    /// Ends `join`.
    func part() {
        precondition(open > 0, "QuotaBook: parting without having joined")
        open -= 1
        ended.notify()
    }

    /// The own share, which was joined.
    var joined: QuotaShare {
        guard let share, open > 0 else {
            preconditionFailure("QuotaBook Q2: the share was not joined")
        }
        return share
    }

    // MARK: Transactions

    /// Begins a transaction that charges at most what `demand` says.
    func begin(blocks: Int, _ demand: QuotaDemand) async throws(FileError) -> Transaction {
        try await join()
        if hasPlaces, affords(demand) { return try await beginJoined(blocks, demand) }
        part()
        return try await beginSettled(blocks, demand)
    }

    /// The way past the table.
    private func beginSettled(
        _ blocks: Int,
        _ demand: QuotaDemand
    ) async throws(FileError) -> Transaction {
        reached(.quotaAsked)
        try await volume.locks.enter(tableGlock, .exclusive)
        defer { volume.locks.leave(tableGlock, .exclusive) }
        while true {
            try await join()
            do throws(FileError) {
                if !hasPlaces { try await settle() }
                for (principal, amount) in demand.charges {
                    try await provide(principal, amount, isExempt: demand.isExempt)
                }
            } catch {
                part()
                throw error
            }
            // What was provided may have been used by another operation meanwhile.
            if hasPlaces, affords(demand) { return try await beginJoined(blocks, demand) }
            let others = open - 1
            let needsPlaces = !hasPlaces
            part()
            if needsPlaces, others > 0 { await ended.wait() }
        }
    }

    /// Q6, for all that are inside.
    private var hasPlaces: Bool {
        joined.free.count >= open * Self.placesPerTransaction
    }

    /// Q3.
    private func affords(_ demand: QuotaDemand) -> Bool {
        let now = UInt64(clamping: volume.now.seconds)
        for (principal, amount) in demand.charges where principal.identity != 0 {
            guard let standing = standings[principal.key] else { return false }
            let unused = unused(principal)
            func covers(
                _ limits: Bool,
                _ isOver: Bool,
                _ deadline: UInt64,
                _ wanted: Int64,
                _ unused: Int64
            ) -> Bool {
                guard limits, wanted > 0 else { return true }
                if unused < wanted { return false }
                return demand.isExempt || !isOver && (deadline == 0 || now < deadline)
            }
            guard
                covers(
                    standing.limitsBlocks,
                    standing.isOverBlocks,
                    standing.blockDeadline,
                    amount.blocks,
                    unused.blocks
                ),
                covers(
                    standing.limitsInodes,
                    standing.isOverInodes,
                    standing.inodeDeadline,
                    amount.inodes,
                    unused.inodes
                )
            else { return false }
        }
        return true
    }

    /// Of a limited principal's allowance, what is not promised.
    func unused(_ principal: QuotaPrincipal) -> QuotaAmount {
        .zero - joined.amount(principal) - pool(principal)
    }

    private func beginJoined(
        _ blocks: Int,
        _ demand: QuotaDemand
    ) async throws(FileError) -> Transaction {
        let promise = QuotaPromise(self, demand)
        do throws(FileError) {
            let transaction = try await volume.beginLogging(blocks: blocks + 1)
            transaction.companion = promise
            return transaction
        } catch {
            promise.transactionEnded()
            throw error
        }
    }

    fileprivate func promise(_ principal: QuotaPrincipal, _ amount: QuotaAmount) {
        promised[principal.key] = pool(principal) + amount
    }

    fileprivate func release(_ principal: QuotaPrincipal, _ amount: QuotaAmount) {
        let rest = pool(principal) - amount
        precondition(rest.blocks >= 0 && rest.inodes >= 0, "QuotaBook Q3: more kept than promised")
        promised[principal.key] = rest == .zero ? nil : rest
    }

    // MARK: Charging

    func charge(
        _ principal: QuotaPrincipal,
        _ amount: QuotaAmount,
        in transaction: Transaction
    ) {
        if amount == .zero { return }
        guard let promise = transaction.companion as? QuotaPromise else {
            preconditionFailure("QuotaBook Q2: a transaction that did not join the share")
        }
        promise.use(principal, amount)
        joined.set(principal, joined.amount(principal) + amount, in: transaction)
        assertCovered(principal)
    }

    /// Q3.
    private func assertCovered(_ principal: QuotaPrincipal) {
        guard let standing = standings[principal.key] else { return }
        let unused = unused(principal)
        precondition(
            !standing.limitsBlocks || unused.blocks >= 0,
            "QuotaBook Q3: blocks of \(principal) beyond its allowance"
        )
        precondition(
            !standing.limitsInodes || unused.inodes >= 0,
            "QuotaBook Q3: inodes of \(principal) beyond its allowance"
        )
    }

    // MARK: Giving way

    func demote(_ glock: Glock, from: LockMode, to: LockMode) async {
        if glock === ownGlock {
            while open > 0 { await ended.wait() }
            reached(.quotaShareGiven)
        }
        await volume.settle(glock)
        if glock === ownGlock {
            precondition(promised.isEmpty, "QuotaBook Q3: a promise without a transaction")
            share = nil
            standings = [:]  // Q5
        }
        if to == .null { volume.cache.drop(covering: glock.name) }
    }
}

/// What one transaction may still charge. It keeps the share here.
private final class QuotaPromise: TransactionCompanion {
    private let book: QuotaBook
    private var left: [(principal: QuotaPrincipal, amount: QuotaAmount)]

    /// The share was joined; this parts from it at the end.
    init(_ book: QuotaBook, _ demand: QuotaDemand) {
        self.book = book
        left = demand.charges
        for (principal, amount) in left { book.promise(principal, amount) }
    }

    /// Q2.
    func use(_ principal: QuotaPrincipal, _ amount: QuotaAmount) {
        let used = QuotaAmount(blocks: max(amount.blocks, 0), inodes: max(amount.inodes, 0))
        if used == .zero { return }
        guard let index = left.firstIndex(where: { $0.principal == principal }),
            left[index].amount.blocks >= used.blocks, left[index].amount.inodes >= used.inodes
        else {
            preconditionFailure("QuotaBook Q2: \(principal) is charged \(used) without a promise")
        }
        left[index].amount -= used
        book.release(principal, used)
    }

    func transactionEnded() {
        for (principal, amount) in left { book.release(principal, amount) }
        left = []
        book.part()
    }
}
