package import DiskFormat
package import Journaling
package import Vocabulary

/// Who counts what users and groups use (FileSystem/QuotaBook.swift).
package protocol UsageAccountant: AnyObject {
    /// Adds to what a principal uses, as part of the transaction that makes it so.
    func charge(
        _ principal: QuotaPrincipal,
        _ amount: QuotaAmount,
        in transaction: Transaction
    )
}

/// An inode in memory: its block and the decoded fields. One object per inode while its lock is
/// held.
package final class StoredInode {
    package let number: InodeNumber
    package let block: MetadataBlock

    /// The fields. The caller may change times, owner, permissions, link count, flags, parent and
    /// (for regular files) size, and then calls `store`; layout, counts and attributes belong to
    /// the store.
    package var record: InodeRecord

    /// Times in `record` are newer than those in the block.
    package private(set) var hasUnstoredTimes = false

    /// Grows with each change of the inode's tree or attributes (F2).
    package private(set) var structureVersion: UInt64 = 0

    /// Who was charged, and with how much, when the fields were last in the block.
    private struct Charged: Equatable {
        var user: UInt32
        var group: UInt32
        var amount: QuotaAmount

        /// An inode is charged to its user and group with all blocks that belong to it.
        init(_ record: InodeRecord) {
            user = record.user
            group = record.group
            amount = QuotaAmount(blocks: Int64(clamping: record.blockCount), inodes: 1)
        }
    }

    private let accountant: (any UsageAccountant)?
    private var charged: Charged?

    init(
        number: InodeNumber,
        block: MetadataBlock,
        record: InodeRecord,
        isNew: Bool,
        accountant: (any UsageAccountant)?
    ) {
        self.number = number
        self.block = block
        self.record = record
        self.accountant = accountant
        if accountant != nil, !isNew { charged = Charged(record) }
    }

    /// QuotaBook Q1: what the block says from now on is charged in the transaction that makes it say so.
    private func charge(in transaction: Transaction) {
        guard let accountant else { return }
        let now = Charged(record)
        if now == charged { return }
        let old = charged
        charged = now
        account(.user(now.user), now.amount, old.map { ($0.user, $0.amount) }, QuotaPrincipal.user)
        account(
            .group(now.group),
            now.amount,
            old.map { ($0.group, $0.amount) },
            QuotaPrincipal.group
        )

        func account(
            _ principal: QuotaPrincipal,
            _ amount: QuotaAmount,
            _ old: (identity: UInt32, amount: QuotaAmount)?,
            _ name: (UInt32) -> QuotaPrincipal
        ) {
            if let old, old.identity == principal.identity {
                accountant.charge(principal, amount - old.amount, in: transaction)
                return
            }
            accountant.charge(principal, amount, in: transaction)
            if let old {
                accountant.charge(name(old.identity), .zero - old.amount, in: transaction)
            }
        }
    }

    /// Takes back what was charged for an inode that is being freed.
    func discharge(in transaction: Transaction) {
        guard let accountant, let old = charged else { return }
        charged = nil
        accountant.charge(.user(old.user), .zero - old.amount, in: transaction)
        accountant.charge(.group(old.group), .zero - old.amount, in: transaction)
    }

    /// Changes times, and nothing else, in memory: `store` takes them along.
    package func changeTimes(_ change: (inout InodeRecord) -> Void) {
        change(&record)
        hasUnstoredTimes = true
    }

    /// Writes the fields into the block, as part of a transaction.
    package func store(in transaction: Transaction) {
        hasUnstoredTimes = false
        transaction.modify(block)
        record.writeFields(to: block.bytes)
        charge(in: transaction)
    }

    /// As `store`, after the tree, body or attributes have changed: what was prepared before is
    /// void.
    func storeStructure(in transaction: Transaction) {
        structureVersion += 1
        store(in: transaction)
    }

    /// Bytes of the body that are not taken by inline attributes.
    var bodyLength: Int { record.bodyLength(blockSize: block.bytes.count) }

    /// Bytes of the body in use.
    var bodyUsed: Int {
        switch record.layout {
        case .inlineData: Int(clamping: record.size)
        case .extents where record.height == 0: Int(record.rootCount) * Extent.byteCount
        case .extents, .directoryIndex: Int(record.rootCount) * TreePointer.byteCount
        case .inlineDirectory: Int(record.rootLength)
        case .none: 0
        }
    }

    /// Bytes of the body that inline attributes always leave, so that every layout can begin: eight
    /// extents or twelve pointers.
    static let smallestBody = 192
}
