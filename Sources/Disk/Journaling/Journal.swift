// The journal of one node: what an operation changes becomes durable as a whole or not at all, and
// costs one sequential write and one flush that it shares with all operations of that moment.
//
// Operations open a `Transaction`, announce each metadata block before they change it, and end. All
// operations that end before a commit form one compound transaction, whose states are:
//
//   running     collects changes; operations join it. There is always exactly one.
//   closing     still the running one: nobody joins any more, the commit waits for the open
//               handles.
//   committing  its blocks have got their versions and are copied into one buffer, the next one is
//               already running; its ordered data, then a flush, then the buffer, then a flush are
//               under way.
//   durable     in the log. Each of its images is brought home (written in place) sooner or later,
//               unless a newer image of the same block becomes durable first, or the block is
//               freed.
//   done        nothing of it is needed any more; when everything before it is done as well, the
//               tail of the log moves past it and its place in the ring is free.
//
// The life of one image, kept in a `HomeCopy` per address: newest in the log → claimed by a write
// in place → written → flushed, hence home. A newer durable image takes its place at any point.
//
// Invariants
// J1. A handle ends exactly once, and its task waits neither for another `begin` nor for a lock
//     while it is open. So closing always ends, and with it every commit.
// J2. The snapshot of a compound transaction is taken while no handle is open: it holds whole
//     operations.
// J3. `used` blocks of the ring + the cost of the running transaction with all that its handles may
//     still add ≤ the ring; the running transaction alone is at most a quarter of it. So a commit
//     never waits for space; only `begin` does.
// J4. Write ahead: an image is written in place only after a flush that followed its transaction's
//     commit block has returned.
// J5. At most one write in place per address is in flight, and none starts with an image older than
//     one already written: what is in place only gets newer.
// J6. The tail passes a transaction only when each of its images is home and flushed, or a newer
//     image of the block is durable in the log, or a durable transaction has freed the block.
// J7. Space is used again only after the header that gives it up is durable.
// J8. When a lock is settled no write in place is in flight for any block of it, nor for any block
//     that was freed or changed its lock: a late write must not meet the next owner.
// J9. After a failed write or flush, or `stop`, no further write is begun. Replay does the rest.
// J10. A sequence number is never used twice, not even one whose transaction did not get through.
// J11. At rest the log is empty, its header says clean, and no transaction begins: nothing is written. The
//      header says "in use" durably before the first transaction that follows.
//
// Nothing here waits for a running transaction to bring an older image home: the image is in the
// buffer of its own transaction. So checkpoint and commit never wait for each other, and the ring
// cannot fill up with what nobody may write.
//
// Order of waiting: begin → (closing | space) → (open handles | checkpoint) → device. Handles wait
// for the device only. See Docs/JOURNAL.md, Docs/decisions/0003, and for the ancestry: Tweedie,
// "Journaling the Linux ext2fs Filesystem" (1998); the compound transaction and checkpoint lists of
// Linux jbd2.

package import BlockIO
package import DiskFormat
package import Execution
import Vocabulary

/// What may be chosen about a journal.
package struct JournalOptions: Hashable, Sendable {
    /// A running transaction is committed when it is this old, in nanoseconds.
    package var commitInterval: UInt64
    /// Writes in place that are in flight together.
    package var parallelWrites: Int
    /// Adjacent blocks that are written in place by one write.
    package var adjacentBlocks: Int
    /// How much of the ring may be in use, in percent (1...75), before room is freed in the
    /// background; half of that is left.
    package var fullness = 50 {
        didSet { precondition((1...75).contains(fullness), "a log with no room, or none to use") }
    }

    package init(
        commitInterval: UInt64 = 5_000_000_000,
        parallelWrites: Int = 8,
        adjacentBlocks: Int = 64
    ) {
        precondition(parallelWrites > 0 && adjacentBlocks > 0, "a journal that may not write")
        self.commitInterval = commitInterval
        self.parallelWrites = parallelWrites
        self.adjacentBlocks = adjacentBlocks
    }
}

/// What a journal has done since it was opened, and how full it is.
package struct JournalStatistics: Hashable, Sendable {
    package var commits = 0
    /// Images written to the log.
    package var blocksLogged = 0
    /// Images written in place, and by how many writes.
    package var blocksWrittenHome = 0
    package var writesHome = 0
    package var flushes = 0
    package var headerWrites = 0
    /// Times `begin` had to wait for space.
    package var waitsForSpace = 0
    /// Blocks of the ring, and how many of them are in use.
    package var ringBlocks = 0
    package var usedBlocks = 0
    /// Blocks changed in the running transaction.
    package var runningBlocks = 0
    /// Blocks whose newest image is only in the log.
    package var blocksAwaitingHome = 0
}

/// A node's own journal, in use.
package final class Journal {
    let device: any BlockDevice
    let superblock: Superblock
    let cache: MetadataCache
    let engine: Engine
    let options: JournalOptions
    let ring: LogRing

    // Places in the ring, counted without end: the next transaction goes to `head`; what lies
    // before `tail` is free. `tail` is what the durable header says.
    var head: UInt64
    var tail: UInt64
    var headerVersion: UInt64

    var running: RunningTransaction
    var committing: LoggedTransaction?
    /// Durable transactions that the tail has not passed, oldest first.
    var log: [LoggedTransaction] = []
    var durableSequence: UInt64
    var isCommitterActive = false
    var isCheckpointActive = false
    private var nextHandle: UInt64 = 1

    var homes: [BlockAddress: HomeCopy] = [:]
    var coveredCopies: [ResourceName: CoveredCopies] = [:]
    /// Images written in place and not yet flushed, in the order in which their writes returned;
    /// the first has the number `firstUnflushed`.
    var unflushed: [(copy: HomeCopy, version: UInt64)] = []
    var firstUnflushed = 0
    var orphanWrites = 0
    /// Runs of writes in place that have begun, and reasons not to begin any.
    var runsInFlight = 0
    var homeHolds = 0

    /// Somebody ended, closed, committed, or the tail moved: who waits to begin looks again.
    let roomChanged = Signal()
    /// The last handle of a closing transaction ended.
    let handlesEnded = Signal()
    /// A transaction became durable.
    let becameDurable = Signal()
    /// A write in place returned.
    let wroteHome = Signal()
    /// Writes in place may begin again.
    let homeReleased = Signal()
    /// Those who must wait to begin, first come first served.
    private let beginning = Gate()
    /// One change of the tail at a time.
    let tailGate = Gate()

    var counters = JournalStatistics()

    /// Nothing is in the log and nothing is begun (J11).
    package private(set) var isAtRest = false

    /// No further write is begun (J9).
    package private(set) var isStopped = false

    /// Called once, inside the engine, when a write of the journal fails; it has stopped itself
    /// then.
    package var onFailure: ((StorageError) -> Void)?

    private init(
        device: any BlockDevice,
        ring: LogRing,
        cache: MetadataCache,
        engine: Engine,
        options: JournalOptions,
        header: JournalHeader,
        headerVersion: UInt64
    ) {
        self.device = device
        superblock = ring.superblock
        self.ring = ring
        self.cache = cache
        self.engine = engine
        self.options = options
        self.headerVersion = headerVersion
        head = ring.place(ofIndex: header.tail)
        tail = head
        durableSequence = header.tailSequence - 1
        running = RunningTransaction(sequence: header.tailSequence)
    }

    /// Opens this node's own journal, which was left clean or has been replayed, and marks it in
    /// use durably; `atRest`: not yet, `wake` follows.
    ///
    /// - Throws: `.format` if the header is damaged or says that a replay is due.
    package static func open(
        device: any BlockDevice,
        superblock: Superblock,
        descriptor: SlotDescriptor,
        cache: MetadataCache,
        engine: Engine,
        options: JournalOptions = JournalOptions(),
        atRest: Bool = false
    ) async throws(StorageError) -> Journal {
        let ring = LogRing(descriptor: descriptor, superblock: superblock)
        let found = try await ring.readHeader(from: device)
        guard found.header.isClean else {
            throw .format(
                .invalidField(descriptor.journalStart, field: "clean (replay is due)", value: 0)
            )
        }
        let journal = Journal(
            device: device,
            ring: ring,
            cache: cache,
            engine: engine,
            options: options,
            header: found.header,
            headerVersion: found.version
        )
        if atRest {
            journal.isAtRest = true
        } else {
            try await journal.writeHeader(isClean: false)
        }
        return journal
    }

    // MARK: Beginning

    /// The largest bound an operation may declare, in blocks.
    package var largestTransaction: Int { Int(ring.blockCount / 4) }

    /// Begins an operation that changes at most `blocks` metadata blocks. Waits for room in the
    /// log, or for a commit that is just closing. Never called while the same task has a
    /// transaction open (J1).
    ///
    /// - Throws: `.stopped`.
    package func begin(blocks: Int) async throws(StorageError) -> Transaction {
        if let transaction = beginIfPossible(blocks: blocks) { return transaction }
        await beginning.enter()
        defer { beginning.leave() }
        while true {
            if isStopped { throw .stopped }
            if hasRoom(blocks) { return makeHandle(blocks) }
            if running.isClosing { reached(.waitForClosing) }
            if running.reserved + blocks > largestTransaction, running.hasContent {
                requestCommit()
            }
            if !fitsRing(blocks) {
                counters.waitsForSpace += 1
                reached(.waitForLogRoom)
                startCheckpoint()
            }
            await roomChanged.wait()
        }
    }

    /// Begins at once, or returns nil if it would have to wait or the journal is stopped.
    package func beginIfPossible(blocks: Int) -> Transaction? {
        precondition(
            blocks >= 0 && blocks <= largestTransaction,
            "J3: no transaction may be that large"
        )
        guard !isStopped, !beginning.isTaken, hasRoom(blocks) else { return nil }
        return makeHandle(blocks)
    }

    private func hasRoom(_ blocks: Int) -> Bool {
        !isAtRest && !running.isClosing && running.reserved + blocks <= largestTransaction
            && fitsRing(blocks)
    }

    private func fitsRing(_ blocks: Int) -> Bool {
        used + ring.cost(images: running.reserved + blocks) <= ring.blockCount
    }

    private func makeHandle(_ blocks: Int) -> Transaction {
        nextHandle += 1
        return Transaction(journal: self, running: running, bound: blocks, number: nextHandle)
    }

    /// Blocks of the ring that are not free.
    var used: UInt64 { head - tail }

    func handleEnded(_ transaction: RunningTransaction) {
        precondition(transaction === running, "J2: a handle outlived its transaction")
        if transaction.openHandles == 0 {
            precondition(transaction.promised == 0, "J3: a promise outlived its handle")
            handlesEnded.notify()
        }
        if beginning.isTaken { roomChanged.notify() }
    }

    /// The running transaction has something to commit: its age counts from now.
    func contentArrived() {
        guard !running.isTimed else { return }
        running.isTimed = true
        handlesEnded.notify()  // who waits for handles may ask for a commit now
        let sequence = running.sequence
        let due = engine.clock.now.advanced(nanoseconds: options.commitInterval)
        engine.clock.schedule(
            at: due,
            in: engine,
            EngineBound { [weak self] in
                guard let self, !self.isStopped, self.running.sequence == sequence else { return }
                self.requestCommit()
            }
        )
    }

    // MARK: Rest

    /// Everything home, the log empty, the header marked clean: as after `close`, but the journal can be woken.
    /// Nobody begins a transaction meanwhile.
    ///
    /// - Throws: what emptying the log meets.
    package func rest() async throws(StorageError) {
        if isAtRest { return }
        try await checkpointAll()
        precondition(
            log.isEmpty && committing == nil && !running.hasContent && running.openHandles == 0,
            "J11: an operation while the journal comes to rest"
        )
        isAtRest = true
        do throws(StorageError) {
            try await writeHeader(isClean: true)
        } catch {
            fail(error)
            throw error
        }
    }

    /// Ends `rest`.
    package func wake() async throws(StorageError) {
        guard isAtRest else { return }
        do throws(StorageError) {
            try await writeHeader(isClean: false)
        } catch {
            fail(error)
            throw error
        }
        isAtRest = false
        roomChanged.notify()
    }

    // MARK: Stopping

    /// Withdraws: no further write of any kind is begun, and everybody who waits gets `.stopped`.
    package func stop() {
        guard !isStopped else { return }
        isStopped = true
        running.callbacks = []
        for signal in [roomChanged, handlesEnded, becameDurable, wroteHome, homeReleased] {
            signal.notify()
        }
    }

    /// Stops because of an error of the device.
    func fail(_ error: StorageError) {
        guard !isStopped else { return }
        stop()
        onFailure?(error)
    }

    func requireRunning() throws(StorageError) {
        if isStopped { throw .stopped }
    }

    /// Clean unmount: everything home, the log empty, the header marked clean. The journal is
    /// stopped then. Precondition: no handle is open.
    package func close() async throws(StorageError) {
        precondition(running.openHandles == 0, "J1: closing under an open handle")
        if isAtRest { return stop() }
        try await checkpointAll()
        precondition(
            log.isEmpty && committing == nil && !running.hasContent,
            "an operation during close"
        )
        do throws(StorageError) {
            try await writeHeader(isClean: true)
        } catch {
            fail(error)
            throw error
        }
        stop()
    }

    /// How the journal is doing.
    package var statistics: JournalStatistics {
        var now = counters
        now.ringBlocks = Int(ring.blockCount)
        now.usedBlocks = Int(used)
        now.runningBlocks = running.blocks.count
        now.blocksAwaitingHome = homes.count
        return now
    }
}

/// Calls `body` for 0 ..< count, up to `limit` at the same time, and waits for all that were begun.
/// After a failure none is begun any more; the first failure is thrown.
func inParallel(
    _ count: Int,
    limit: Int,
    engine: Engine,
    _ body: @escaping (Int) async throws(StorageError) -> Void
) async throws(StorageError) {
    if count == 1 { return try await body(0) }
    var next = 0
    var workers = min(limit, count)
    var failure: StorageError?
    if workers == 0 { return }
    let finished = Outcome<Void>()
    for _ in 0..<workers {
        engine.spawn {
            while next < count, failure == nil {
                let index = next
                next += 1
                do throws(StorageError) {
                    try await body(index)
                } catch {
                    failure = failure ?? error
                }
            }
            workers -= 1
            if workers == 0 { finished.deliver(()) }
        }
    }
    await finished.get()
    if let failure { throw failure }
}
