// A mounted volume: the operations of a file system on one node of a cluster. Each operation takes
// the locks it needs in the one order (LockTable.swift, L1), does its work with the file store
// inside one transaction, answers, and lets the locks go; the locks stay on this node until another
// wants them.
//
// Where things are
//   Operations on names       Lookup, Making, Removing, Linking, Renaming
//   Attributes                Attributes, ExtendedAttributeOperations
//   Data                      Reading, Writing, Truncating, DirtyData, Synchronizing
//   Several nodes that write  Regions, ConcurrentData, ConcurrentTimes
//   Giving a lock up          Demotion
//   Space                     GroupTable
//   Standing still            Freezing
//   What users may use        QuotaBook, QuotaSettling, QuotaAdministration
//   Deleted but open          Orphans
//   Coming and going          Mounting
//   Giving back what is idle  CacheShrinking, Shrinking
//   Times                     AccessTimes, LazyTimes
//
// Invariants
//   V1. `Inode.stored` is not nil only while the inode's glock is held in PR, CW or EX.
//   V2. Whatever the kernel was told to cache of an inode was told under its glock, and is
//   invalidated before the
//       glock is given up (V2 is what makes the system coherent; the order of steps is in
//       Demotion.swift).
//   V3. A directory's modification time grows strictly with every change of its entries
//   (Docs/KERNEL.md, rule D5).
//   V4. A volume *withdraws* when its view of the disk can no longer be trusted: metadata cannot be
//       read or does not verify, the journal or a flush fails, or what has to be written before a
//       lock is given up cannot be. From then on every operation fails with EIO, nothing is
//       written, and no lock is given up in order: the others get them when this node is fenced and
//       its journal is replayed (Docs/WITHDRAWAL.md). Data of a file that cannot be read or written
//       is an error of that file alone, as long as this node may keep its lock.

package import BlockIO
import DequeModule
package import DiskFormat
package import Execution
import FileStore
package import Journaling
package import LockCache
package import Vocabulary

/// How a volume is mounted.
package struct MountOptions: Sendable {
    package var isReadOnly = false
    /// What is done about times at first; a remount changes it.
    package var times = TimeRules()
    /// Whether there are access control lists; otherwise their attributes are refused.
    package var hasAccessLists = true
    /// How long a change may stay in memory alone, in nanoseconds.
    package var commitInterval: UInt64 = 5_000_000_000
    /// Dirty file data above which writers wait, in bytes.
    package var dirtyLimit: UInt64 = 256 << 20
    /// For so long a file that nodes have fought over is taken to be shared, and opened past the page
    /// cache when it is opened for writing, in nanoseconds.
    package var memoryOfFights: UInt64 = 10_000_000_000
    /// So often, within that time, this node has to give the lock of a file up before it locks regions of it to
    /// write; `Int.max`: never.
    package var fightsBeforeRegions = 2
    /// The most that a node takes beyond what it needs of what a user or group may still use: blocks, and an
    /// eighth of that in inodes.
    package var quotaQuantum: Int64 = 1024
    /// Inodes nobody refers to that are kept with their locks.
    package var idleInodes = 50_000
    /// Locks that are kept; above, and an eighth more, those that nobody uses go (CacheShrinking.swift).
    package var cachedLocks = 100_000
    /// Nanoseconds after which locks, and what they protect, and blocks of metadata that nobody has used are given
    /// back; 0: never.
    package var cacheAge: UInt64 = 600_000_000_000

    package init() {}
}

/// One mounted volume on one node. Engine-bound.
package final class MountedVolume: FileOperations {
    package let engine: Engine
    package let device: any BlockDevice
    package let superblock: Superblock
    package let slot: SlotIndex
    package let options: MountOptions
    package let locks: LockTable
    /// Locks that programs have taken.
    let programLocks: ProgramLocks
    let cache: MetadataCache
    let journal: Journal
    let store: FileStore
    let dirtyAccount: DirtyAccount
    let blockSize: Int
    var inodes = InodeTable()
    var openFiles = OpenFileTable()
    private(set) var groups: GroupTable
    /// Where this node lists what it deleted while it was open.
    let orphanDirectory: InodeNumber
    /// Inodes nobody refers to, oldest first; entries may be out of date (`isIdleListed`).
    var idleInodes: [Inode] = []
    /// The kernel, once it is there.
    package var kernel: (any KernelCache)?
    /// The other nodes' volumes, once there is a way to them.
    package weak var peers: (any PeerVolumes)?
    /// Where what the kernel may know is listed for whoever takes it back after this process was
    /// killed.
    package var kernelList: (any KernelList)?
    /// Somebody is there to do so: what the kernel is told before it may not keep.
    package var isGuarded = false
    /// Where this mount takes administrators' requests; told to who asks for the attribute
    /// `controlAttribute`.
    package var controlPath: String?
    package private(set) var isWithdrawn = false
    /// Called once when the volume withdraws, with one line that says why.
    package var onWithdraw: ((String) -> Void)?
    package internal(set) var counters = VolumeCounters()
    var isStopping = false
    var isSweepScheduled = false
    /// What is given back of what nobody uses, and whether steps of that are under way.
    var shrinking: CacheShrinking
    var isShrinking = false
    /// Commits when the timer last looked.
    var quietCommits = 0
    /// Tasks that are freeing an orphan right now or finding out whether it is open; `stop` waits for them.
    var reapers = 0
    let reapersEnded = Signal()
    /// Orphans of other nodes that this one frees when they are closed.
    var orphansAwaited: Set<InodeNumber> = []
    /// Orphans that this node waits for or is freeing: their room comes back without anybody asking.
    package internal(set) var pendingOrphans = 0
    /// Replaced inodes that may still be opened, until when, in order of time (Orphans G1).
    var graced: Deque<(inode: Inode, due: Tick)> = []
    var isGraceTimerSet = false
    /// Never notified: where tasks of a withdrawn volume stay.
    let stillness = Signal()
    let renameGlock: Glock
    let barrierGlock: Glock
    /// Whether this node works or stands still.
    package private(set) lazy var freezer = Freezer(self)
    /// Names of those that wait for the barrier's demotion.
    let barrierOwner: BarrierOwner
    /// What users and groups use; nil on a volume without quotas.
    private(set) var quotas: QuotaBook?
    /// When it was last said that no more users and groups can be counted.
    var quotaTableFullAt: Tick?
    /// One at a time makes room.
    let spaceGate = Gate()
    /// Usage of groups whose lock is elsewhere, as last read.
    var usageCache = UsageCache()
    /// What is done about times now.
    package var times: TimeRules
    /// Inodes with a time of access that waits to be stored, those of which the others have to be told, and those with
    /// times that only memory has.
    var pendingAccesses: [Inode] = []
    let storingAccesses = Gate()
    var untoldAccesses: [Inode] = []
    var unstoredTimes: [Inode] = []
    /// Threads that may not have taken in what they were told of the size of a file (ToldSize), the oldest first.
    var awaitedReaders: [(thread: UInt32, node: NodeHandle)] = []
    /// Of inodes that are not in memory.
    var toldAccesses = ToldAccesses()

    /// A volume whose journal is open and whose lock service answers. `start` (Mounting.swift)
    /// follows.
    package init(
        engine: Engine,
        device: any BlockDevice,
        superblock: Superblock,
        descriptor: SlotDescriptor,
        cache: MetadataCache,
        journal: Journal,
        lockService: any LockService,
        options: MountOptions
    ) {
        self.engine = engine
        self.device = device
        self.superblock = superblock
        self.options = options
        times = options.times
        slot = descriptor.slot
        orphanDirectory = descriptor.orphanDirectory
        locks = LockTable(engine: engine, service: lockService)
        programLocks = ProgramLocks(service: lockService)
        locks.programs = programLocks
        self.cache = cache
        self.journal = journal
        store = FileStore(superblock: superblock, cache: cache)
        blockSize = Int(superblock.blockSize)
        dirtyAccount = DirtyAccount(limit: options.dirtyLimit)
        groups = GroupTable()
        locks.useTime = engine.clock.now
        cache.useTime = engine.clock.now
        shrinking = CacheShrinking(age: options.cacheAge, bound: options.cachedLocks)
        renameGlock = locks.make(.rename, owner: nil)
        barrierOwner = BarrierOwner()
        barrierGlock = locks.make(.logBarrier, owner: barrierOwner)
        groups.volume = self
        if superblock.features.hasQuotas {
            let book = QuotaBook(self)
            quotas = book
            store.accountant = book
        }
        barrierOwner.volume = self
        locks.onDelay = { [weak self] in self?.counters.minimumHolds += 1 }
        _ = freezer
        dirtyAccount.onFailure = { [weak self] error in self?.report(.device(error)) }
        dirtyAccount.onFull = { [weak self] in self?.makeDirtyRoom() }
        journal.onFailure = { [weak self] error in self?.withdraw("the journal failed: \(error)") }
    }

    // MARK: Inodes

    /// The inode behind the kernel's number.
    func inode(_ handle: NodeHandle) throws(FileError) -> Inode {
        try checkUsable()
        guard let inode = inodes[handle] else { throw .stale }
        return inode
    }

    /// The inode in memory, made if it is not there.
    func remember(_ number: InodeNumber, flags: LockFlags = []) -> Inode {
        if let inode = inodes[number] { return inode }
        let inode = Inode(
            number: number,
            handle: inodes.reserveHandle(),
            volume: self,
            flags: flags
        )
        inode.access.time = toldAccesses.take(number)
        inodes.insert(inode)
        return inode
    }

    /// The kernel gains a reference with the reply that is being made.
    func refer(to inode: Inode) {
        inode.lookups += 1
        if inode.lookups == 1 { inode.toldSize.isUnknown() }
        if inode.lookups == 1, inode.kernelListIndex == nil {
            inode.kernelListIndex = kernelList?.add(inode.handle)
        }
    }

    /// Whether the kernel counts a reference to an inode, or will when the reply that is being made
    /// arrives.
    package func kernelRefers(to node: NodeHandle) -> Bool {
        inodes[node].map { $0.lookups > 0 } ?? false
    }

    /// Whether the kernel may keep the attributes that it is told of an inode: not while others write to it.
    func attributesMayBeCached(_ inode: Inode) -> Bool {
        inode.glock.held.covers(.protectedRead) && mayBeCached(inode)
    }

    /// Whether the kernel may keep what it is told of an inode: somebody must be able to take it
    /// back if this process is killed.
    func mayBeCached(_ inode: Inode) -> Bool {
        // What is told while an invalidation runs might be kept for ever: it has dropped attributes
        // already.
        if inode.pageUse.isInvalidating { return false }
        guard kernelList != nil else { return true }
        return isGuarded && (inode.kernelListIndex != nil || inode.handle == .root)
    }

    /// After a reference has gone: lists the inode as idle if it was the last.
    func unrefer(_ inode: Inode) {
        if inode.lookups == 0, let index = inode.kernelListIndex {
            kernelList?.remove(index)
            inode.kernelListIndex = nil
        }
        guard !inode.isReferenced, !inode.isIdleListed, inode.number != superblock.root else {
            return
        }
        inode.isIdleListed = true
        idleInodes.append(inode)
        if idleInodes.count > options.idleInodes + options.idleInodes / 8 { sweepSoon() }
    }

    /// Fails when no operation may go on.
    func checkUsable() throws(FileError) {
        if isWithdrawn { throw .inputOutput }
    }

    /// Fails when nothing may be changed.
    func checkWritable() throws(FileError) {
        try checkUsable()
        if options.isReadOnly { throw .readOnly }
    }

    // MARK: Holding

    /// Enters an inode's glock and has its fields at hand. Ends with `release`. `bytes` are those
    /// whose pages the kernel may hold until the request is answered (KERNEL F3).
    ///
    /// - Throws: `interrupted`, `stale` when the inode has been freed, `inputOutput`.
    func hold(
        _ inode: Inode,
        _ mode: HolderMode,
        _ interruption: Interruption? = nil,
        bytes: Range<UInt64>? = nil
    ) async throws(FileError) -> StoredInode {
        if inode.isFreed { throw .stale }
        if inode.glimpses.teller != nil { inode.glimpses.isNeeded(at: engine.clock.now) }
        try await locks.enter(inode.glock, mode, interruption, bytes: bytes)
        if let stored = inode.stored, !inode.isFreed, knowsTimes(inode, stored, mode) {
            if mode == .exclusive { mergeAccess(inode, stored) }
            return stored
        }
        do throws(FileError) {
            let stored = try await load(inode)
            if !knowsTimes(inode, stored, mode) { try await collectTimes(inode, stored, mode) }
            if mode == .exclusive { mergeAccess(inode, stored) }
            return stored
        } catch {
            locks.leave(inode.glock, mode)
            throw error
        }
    }

    /// As `hold`, of an inode that an entry leads to while its directory is held: it is there, or the
    /// volume is damaged.
    func holdEntry(
        _ inode: Inode,
        _ mode: HolderMode,
        _ interruption: Interruption? = nil
    ) async throws(FileError) -> StoredInode {
        do throws(FileError) {
            return try await hold(inode, mode, interruption)
        } catch .stale where !inode.isFreed {
            throw damaged(
                inode.number.address,
                "inode that an entry leads to",
                inode.number.generation
            )
        }
    }

    /// As `hold`, at once or not at all.
    func holdIfCached(_ inode: Inode, _ mode: HolderMode) -> StoredInode? {
        guard !inode.isFreed, let stored = inode.stored, knowsTimes(inode, stored, mode),
            locks.enterIfPossible(inode.glock, mode)
        else { return nil }
        if mode == .exclusive { mergeAccess(inode, stored) }
        return stored
    }

    /// Ends `hold`.
    func release(_ inode: Inode, _ mode: HolderMode) {
        if mode == .exclusive {
            takeBackTimes(inode)
            inode.isExempt = false
        }
        locks.leave(inode.glock, mode)
    }

    /// The kernel drops the times of what it changes itself, but takes an answer that was decided before that and
    /// arrives after it for valid: it is told when no such answer can be under way any more (rule F9).
    private func takeBackTimes(_ inode: Inode) {
        guard let told = inode.toldChange, let stored = inode.stored,
            stored.record.changed != told
        else { return }
        inode.toldChange = nil
        let isPending = inode.takesBackAt != nil
        inode.takesBackAt = engine.clock.now.advanced(nanoseconds: Self.answerTime)
        if !isPending { awaitTakingBack(inode) }
    }

    /// Nanoseconds that an answer may need until the kernel has taken it in.
    private static let answerTime: UInt64 = 50_000_000

    private func awaitTakingBack(_ inode: Inode) {
        guard kernel != nil, let time = inode.takesBackAt else { return }
        engine.clock.schedule(
            at: time,
            in: engine,
            EngineBound { [weak self, weak inode] in
                // Demoted in between: the kernel has forgotten everything.
                guard let self, let inode, let last = inode.takesBackAt else { return }
                if last > time { return awaitTakingBack(inode) }
                inode.takesBackAt = nil
                reached(.timesTakenBack)
                engine.spawn { await self.takeBack(inode, data: nil) }
            }
        )
    }

    private func load(_ inode: Inode) async throws(FileError) -> StoredInode {
        await inode.loading.enter()
        defer { inode.loading.leave() }
        if inode.isFreed { throw .stale }
        if let stored = inode.stored { return stored }
        do throws(StoreError) {
            let stored = try await store.readInode(inode.number)
            inode.stored = stored
            inode.isKnownNotRegular = !stored.record.isRegular
            return stored
        } catch {
            throw fileError(error)
        }
    }

    // MARK: Transactions and failures

    /// Begins a transaction that changes at most `blocks` metadata blocks, and charges users and groups what
    /// `demand` says at most; without, nothing but what it gives back.
    ///
    /// - Throws: `quotaExceeded`.
    func begin(
        blocks: Int,
        charging demand: QuotaDemand = QuotaDemand(isExempt: true)
    ) async throws(FileError) -> Transaction {
        guard let quotas else { return try await beginLogging(blocks: blocks) }
        // Not with a quota's lock in hand.
        try await freezer.waitUntilOpen()
        return try await quotas.begin(blocks: blocks, demand)
    }

    /// Begins a transaction that charges nobody. Nothing is logged without the log barrier in PR (Space.swift).
    func beginLogging(blocks: Int) async throws(FileError) -> Transaction {
        try await freezer.waitUntilOpen()
        do throws(StorageError) {
            while true {
                if !mayLog { try await enterBarrier() }
                let transaction = try await journal.begin(blocks: blocks)
                if mayLog { return transaction }
                transaction.end()
            }
        } catch {
            throw fileError(.storage(error))
        }
    }

    /// What an error of the store is to a program. Metadata that cannot be read or is damaged makes
    /// this node withdraw (V4).
    func fileError(_ error: StoreError) -> FileError {
        switch error {
        case .storage(let storage): return metadataFailed(storage)
        case .data(let device): return dataFailed(device)
        case .notFound: return .notFound
        case .exists: return .exists
        case .noSpace: return .noSpace
        case .tooLong: return .nameTooLong
        case .tooLarge: return .range
        case .invalidName: return .invalid
        case .stale: return .stale
        }
    }

    /// Something that no writer of this format leaves was met before anything was changed; `field`
    /// says where in the block.
    func damaged(_ block: BlockAddress, _ field: String, _ value: UInt64) -> FileError {
        fileError(.storage(.format(.invalidField(block, field: field, value: value))))
    }

    /// Fails if an entry of a directory leads where none can lead: to the directory itself, whose lock
    /// is held. (`checkChild` has the rest.)
    func checkEntry(_ entry: DirectoryEntryRecord, of directory: Inode) throws(FileError) {
        guard entry.inode != directory.number else {
            throw damaged(
                directory.number.address,
                "entry that leads to its own directory",
                entry.key
            )
        }
    }

    /// Fails if what an entry led to belongs to the file system itself: no entry leads there.
    func checkChild(_ child: Inode, _ stored: StoredInode) throws(FileError) {
        guard !stored.record.flags.contains(.system) else {
            throw damaged(
                child.number.address,
                "flags of what an entry leads to",
                UInt64(stored.record.flags.rawValue)
            )
        }
    }

    /// Fails if a directory that has a subdirectory does not count it, or counts more than there can
    /// be.
    func checkLinks(of directory: Held) throws(FileError) {
        let count = directory.stored.record.linkCount
        guard count > 2, count < .max else {
            throw damaged(directory.inode.number.address, "link count", UInt64(count))
        }
    }

    /// What failed after the first change: memory and disk can no longer be trusted to agree (V4).
    func failed(_ error: StoreError) -> FileError {
        withdraw("a change could not be completed: \(error)")
        return fileError(error)
    }

    /// An error of metadata, the journal or a flush (V4).
    func metadataFailed(_ error: StorageError) -> FileError {
        switch error {
        // The consequence of an end that has its own reason.
        case .stopped, .device(.closed): break
        case .device: withdraw("the disk failed: \(error)")
        case .format: withdraw("metadata is damaged: \(error)")
        }
        return .inputOutput
    }

    /// An error of a file's data, which concerns that file alone.
    func dataFailed(_ error: DeviceError) -> FileError {
        report(.device(error))
        return .inputOutput
    }

    /// A line for the log about damage or a device that fails.
    func report(_ error: StorageError) {
        counters.storageErrors += 1
        onReport?("\(error)")
    }

    /// Told of damage and device errors, one line each.
    package var onReport: ((String) -> Void)? {
        get { reporter }
        set { reporter = newValue }
    }
    private var reporter: ((String) -> Void)?

    /// Stops for good (V4): nothing is written any more, everything fails. `reason` says what was
    /// found, in one line.
    package func withdraw(_ reason: String) {
        guard !isWithdrawn else { return }
        isWithdrawn = true
        reached(.withdrawal)
        counters.storageErrors += 1
        journal.stop()
        dirtyAccount.stop()
        reapersEnded.notify()
        freezer.wakeAll()
        onWithdraw?(reason)
    }

    // MARK: Times

    /// Now, for a file.
    var now: Timestamp { engine.clock.civilTime }

    /// Marks a directory as changed (V3).
    func touchDirectory(_ stored: StoredInode) {
        let time = max(now, stored.record.modified.successor)
        stored.record.modified = time
        stored.record.changed = time
    }

    /// What `stat` shows of an inode that is held; `lastWrite` is of those that its record does not tell of.
    func attributes(
        _ inode: Inode,
        _ stored: StoredInode,
        lastWrite: Timestamp? = nil,
        asker: AttributeAsker? = nil
    ) -> FileAttributes {
        var record = stored.record
        if let lastWrite, lastWrite > record.changed {
            record.modified = lastWrite
            record.changed = lastWrite
        }
        return attributes(inode, record, asker: asker)
    }

    /// The same of an inode that is gone.
    func attributes(
        _ inode: Inode,
        _ record: InodeRecord,
        asker: AttributeAsker? = nil
    ) -> FileAttributes {
        tell(inode, record.size, to: asker?.thread, asker?.reply ?? .look)
        inode.toldChange = attributesMayBeCached(inode) ? record.changed : nil
        inode.toldOwner = (record.user, record.group)
        // Of a damaged inode it may be anything.
        let blocks = record.blockCount.multipliedReportingOverflow(by: UInt64(blockSize / 512))
        return FileAttributes(
            inode: inode.number,
            mode: record.mode,
            linkCount: record.linkCount,
            user: record.user,
            group: record.group,
            device: record.device,
            size: record.size,
            blocks: blocks.overflow ? .max : blocks.partialValue,
            blockSize: UInt32(blockSize),
            accessed: shownAccess(inode, record),
            modified: record.modified,
            changed: record.changed,
            born: record.born
        )
    }
}

/// What has happened on a volume since it was mounted.
package struct VolumeCounters: Sendable {
    package var storageErrors: UInt64 = 0
    package var demotions: UInt64 = 0
    /// How often a peer's want had to wait, because this node was at work with the lock (MinimumHold).
    package var minimumHolds: UInt64 = 0
    /// Locks of regions that were given up.
    package var regionDemotions: UInt64 = 0
    /// Requests that were carried out under locks of regions.
    package var regionRequests: UInt64 = 0
    /// How often all nodes were asked for the times of a file.
    package var timeQuestions: UInt64 = 0
    /// Looks at files that were answered by the node that writes them, here and for others.
    package var glimpses: UInt64 = 0
    package var glimpsesTold: UInt64 = 0
    /// How often one node or all were asked for such a look, answered or not.
    package var glimpseQuestions: UInt64 = 0
    package var invalidatedInodes: UInt64 = 0
    package var invalidatedNames: UInt64 = 0
    package var repeatedInvalidations: UInt64 = 0
    package var strayWritebacks: UInt64 = 0
    /// Pages of waiting writes that may have been filled before (Demotion D3).
    package var doubtfulPages: UInt64 = 0
    package var orphansListed: UInt64 = 0
    package var orphansFreed: UInt64 = 0
    package var orphansLeft: UInt64 = 0
    package var reclaimedInodes: UInt64 = 0
    /// Locks that nobody used and that were given back: not used for long, too many, for lack of memory.
    package var locksGivenBackForAge: UInt64 = 0
    package var locksGivenBackForNumber: UInt64 = 0
    package var locksGivenBackForPressure: UInt64 = 0
    /// Blocks of metadata that were dropped for their age or for lack of memory.
    package var blocksGivenBack: UInt64 = 0
    /// How often memory was said to be short.
    package var pressures: UInt64 = 0
    /// Blocks that a log barrier took out of quarantine.
    package var releasedBlocks: UInt64 = 0
}
