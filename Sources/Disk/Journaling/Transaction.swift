import BlockIO
package import DiskFormat
package import Vocabulary

/// Data that must be on the device before a transaction that points to it commits.
package protocol OrderedData: AnyObject {
    /// Writes what must precede the commit; returns when the writes have returned (no flush
    /// needed). Must not begin transactions, nor wait for anybody who does.
    func writeOrderedData() async throws(StorageError)
}

/// What somebody keeps for as long as a transaction is open.
package protocol TransactionCompanion: AnyObject {
    /// The transaction has ended; it changes nothing any more.
    func transactionEnded()
}

/// What one operation changes, all or nothing: a part of the running compound transaction. Ends
/// exactly once; until then the compound transaction does not close, so no task waits for another
/// transaction or for a lock while it has one open.
package final class Transaction {
    private let journal: Journal
    private let running: RunningTransaction
    private let bound: Int
    private let number: UInt64
    private var touched: [BlockAddress] = []
    private var added = 0
    private var isOpen = true
    /// Told of the end, once.
    package var companion: (any TransactionCompanion)?

    init(journal: Journal, running: RunningTransaction, bound: Int, number: UInt64) {
        self.journal = journal
        self.running = running
        self.bound = bound
        self.number = number
        running.openHandles += 1
        running.promised += bound
    }

    deinit { precondition(!isOpen, "J1: a transaction was dropped without its end") }

    /// Sequence number of the compound transaction this belongs to.
    package var sequence: UInt64 { running.sequence }

    /// Announces a change of the block's bytes, before the first of them is changed.
    package func modify(_ block: MetadataBlock) {
        precondition(block.slot != nil, "M1: \(block.address) was forgotten and is changed")
        add(block)
    }

    /// A new metadata block, zeroed, its header written. Nothing is read. `firstVersion` is above
    /// everything any log may hold for this address: one more than the group's `highestVersion`.
    /// Precondition: the address is not cached; who frees a block forgets it.
    package func create(
        _ address: BlockAddress,
        kind: BlockKind,
        owner: UInt64,
        generation: UInt64,
        firstVersion: UInt64,
        covering: ResourceName
    ) -> MetadataBlock {
        let buffer = AlignedBuffer(zeroed: Int(journal.superblock.blockSize))
        let header = BlockHeader(
            kind: kind,
            address: address,
            version: max(firstVersion, journal.newestVersion(address)),
            volume: journal.superblock.volume,
            owner: owner,
            generation: generation
        )
        header.write(to: buffer.bytes)
        let block = MetadataBlock(
            address: address,
            covering: covering,
            header: header,
            buffer: buffer
        )
        journal.cache.insert(block)
        add(block)
        return block
    }

    /// The block was freed. It is taken out of the running transaction, out of the cache, and is
    /// not written in place any more once this transaction is durable.
    package func forget(_ block: MetadataBlock) {
        precondition(isOpen, "J1: a transaction is used after its end")
        precondition(block.slot != nil, "M1: \(block.address) is forgotten twice")
        if block.runningSequence == running.sequence {
            let last = running.blocks.count - 1
            if block.indexInRunning != last {
                let moved = running.blocks[last]
                running.blocks[block.indexInRunning] = moved
                moved.indexInRunning = block.indexInRunning
            }
            running.blocks.removeLast()
            block.runningSequence = 0
            block.pins -= 1
            // What was reserved for it stays reserved for this operation.
            added -= 1
            running.promised += 1
        }
        running.touched.insert(block.covering)
        running.forgotten.append(block.address)
        journal.cache.remove(block)
        journal.contentArrived()
    }

    /// Data that must be on the device before this transaction commits. Called once per commit and
    /// object, however often it is announced.
    package func order(_ data: any OrderedData) {
        precondition(isOpen, "J1: a transaction is used after its end")
        if running.orderedIdentities.insert(ObjectIdentifier(data)).inserted {
            running.ordered.append(data)
        }
        journal.contentArrived()
    }

    /// Calls `body` inside the engine once the transaction is durable; never if the journal stops
    /// first.
    package func whenCommitted(_ body: @escaping () -> Void) {
        precondition(isOpen, "J1: a transaction is used after its end")
        running.callbacks.append(body)
        journal.contentArrived()
    }

    /// Ends the operation. Its changes become durable with the compound transaction.
    package func end() {
        precondition(isOpen, "J1: a transaction ends twice")
        isOpen = false
        running.openHandles -= 1
        running.promised -= bound - added
        journal.handleEnded(running)
        companion?.transactionEnded()
        companion = nil
    }

    private func add(_ block: MetadataBlock) {
        precondition(isOpen, "J1: a transaction is used after its end")
        count(block)
        guard block.runningSequence != running.sequence else { return }
        block.runningSequence = running.sequence
        block.indexInRunning = running.blocks.count
        block.pins += 1
        running.blocks.append(block)
        running.touched.insert(block.covering)
        added += 1
        running.promised -= 1
        journal.contentArrived()
    }

    /// Counts each block once, whether or not another operation has already brought it into the
    /// compound transaction: the bound must hold in every order of operations.
    private func count(_ block: MetadataBlock) {
        guard block.lastHandle != number else { return }
        block.lastHandle = number
        if touched.last == block.address || touched.contains(block.address) { return }
        touched.append(block.address)
        precondition(
            touched.count <= bound,
            "J3: more than the \(bound) blocks declared are changed"
        )
    }
}
