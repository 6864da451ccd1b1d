// An inode in memory: what this node knows and caches of one file. It lives while the kernel refers
// to it, while it is open, and a while longer, because its glock stays until somebody wants it.
//
// What protects what
//   glock          `stored`, the dirty data, the names and pages that the kernel keeps; in CW, `stored` alone,
//                  which nobody changes then, and the rest is the regions' (Regions.swift)
//   open glock     PR while a process here has the inode open: it is not freed under them
//   the engine     the counts (lookups, opens), which never need a lock

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// Names that the kernel may have cached of a directory, as far as they are worth remembering.
struct AnsweredNames {
    /// More than this and all names are dropped at once.
    static let limit = 256

    private(set) var names: [[UInt8]] = []
    private(set) var overflowed = false

    var isEmpty: Bool { names.isEmpty && !overflowed }

    mutating func add(_ name: UnsafeRawBufferPointer) {
        guard !overflowed else { return }
        if let last = names.last, last.count == name.count, last.elementsEqual(name) { return }
        if names.count == Self.limit {
            names = []
            overflowed = true
            return
        }
        names.append([UInt8](name))
    }
}

/// One inode of a mounted volume. Engine-bound.
package final class Inode {
    package let number: InodeNumber
    package let handle: NodeHandle
    package let glock: Glock
    unowned let volume: MountedVolume

    /// What is on disk, decoded; nil when the glock is not held or nobody has looked yet.
    var stored: StoredInode?
    /// One load at a time.
    let loading = Gate()
    /// References of the kernel.
    var lookups: UInt64 = 0
    /// The place in the list of what the kernel may know (`MountedVolume.kernelList`).
    var kernelListIndex: UInt32?
    /// The time of change in the last attributes that the kernel was told; nil once it has been told to forget
    /// them (rule F9).
    var toldChange: Timestamp?
    /// What size the kernel was told (rule F6).
    var toldSize = ToldSize()
    /// Notified when a thread is heard of that was told the size, if somebody waits for that.
    var readerHeard: Signal?
    /// The owner and the group that the kernel was told last.
    var toldOwner: (user: UInt32, group: UInt32)?
    /// When the kernel shall forget older times, if it shall.
    var takesBackAt: Tick?
    /// Open files here.
    var opens = 0
    /// Open directory handles here.
    var listings = 0
    /// Tasks that will use it and have not begun.
    var pins = 0
    /// Open files here through which a shared mapping could be written (rule M1).
    var readWriteOpens = 0
    /// No page is left in the kernel that was filled under PR (rule M1). While files are open for
    /// reading and writing.
    var fillsAreExclusive = false
    let remapping = Gate()
    /// The open lock, once this node has opened the inode.
    var openGlock: Glock?
    /// Whether this node is inside the open lock; one at a time enters it.
    var isInsideOpenLock = false
    let opening = Gate()
    /// It was made without a name and has none yet (Temporary.swift).
    var isTemporary = false
    /// The inode is gone for good; only the kernel's references keep this object.
    var isFreed = false
    /// What it was when this node freed it, for those here who have it in use without a file handle: as their current
    /// directory, as an open directory, pipe or device. No lock covers it, nobody else has it.
    var remains: InodeRecord?
    var dirty: DirtyData?
    /// The compound transaction that holds the newest change.
    var lastSequence: UInt64 = 0
    /// The same of the newest change other than to data, and when data was last changed (Glimpse.swift).
    var attributeSequence: UInt64 = 0
    var dataChangedAt: Tick?
    /// Looks at it while another node writes.
    var glimpses = Glimpses()
    /// When this node last had to give its lock up, wholly or in part.
    var lostAt: Tick?
    /// It is a directory, a link or a special file.
    var isKnownNotRegular = false
    /// For directories.
    var answered = AnsweredNames()
    /// Whether the kernel may have pages or attributes of it.
    var kernelMayCache = false
    /// How often the kernel's pages were invalidated: a cached write that waited across one does it
    /// again for its pages (F5).
    var invalidations: UInt64 = 0
    /// An invalidation ran while a writable handle was open; cached writes then drop their own
    /// pages (rule F5).
    var wasInvalidatedWhileWritable = false
    /// When a peer last made this node give its lock up while the file was open here, and how often
    /// within the memory of fights.
    var foughtOver: Tick?
    var fights = 0
    /// When it was last closed here.
    var closedAt = Tick(0)
    /// When a peer last said that it wants to write while others do.
    var sharedSince: Tick?
    /// Locks of regions, and what was changed under them (Regions.swift).
    var regions = RegionTable()
    /// When a region was last written here and the inode does not say so yet.
    var pendingTime: Timestamp?
    /// `stored` has everybody's times; they are stored, and nobody else has them any more.
    var hasAllTimes = false
    var hasStoredTimes = false
    /// When regions were last found not to do for a write.
    var regionsRefusedAt: Tick?
    /// When a region was last used here.
    var regionsUsedAt = Tick(0)
    /// Open files here that may write.
    var writableOpens = 0
    /// What the kernel does with the file's pages.
    var pageUse = PageUse()
    /// What keeps the mastership of its locks of programs (ProgramLocks, P0), and the locks of its bytes.
    var flockAnchor: ProgramLock?
    var rangeLocks: RangeLocks?
    /// Limits do not count for the operation that holds it exclusively (QuotaBook).
    var isExempt = false
    /// What is known of accesses and not in the inode (AccessTimes.swift).
    var access = PendingAccess()
    /// Since when there are times in memory that the block does not have (LazyTimes.swift), and whether it is in the list
    /// of those.
    var unstoredSince: Tick?
    var isUnstoredListed = false
    /// In the list of those that nobody refers to.
    var isIdleListed = false

    init(
        number: InodeNumber,
        handle: NodeHandle,
        volume: MountedVolume,
        flags: LockFlags
    ) {
        self.number = number
        self.handle = handle
        self.volume = volume
        glock = volume.locks.make(.inode(number), owner: nil, flags: flags)
        glock.owner = self
    }

    /// Whether anybody but the cache itself needs the object.
    var isReferenced: Bool { lookups > 0 || opens > 0 || listings > 0 || pins > 0 }

    /// A peer has made this node give its lock up.
    func noteFight(at now: Tick) {
        let isOld = foughtOver.map { now.rawValue - $0.rawValue >= volume.options.memoryOfFights }
        fights = isOld == false ? fights + 1 : 1
        foughtOver = now
    }

    /// The dirty data, made at first use.
    func dirtyData() -> DirtyData {
        if let dirty { return dirty }
        let made = DirtyData(
            device: volume.device,
            engine: volume.engine,
            account: volume.dirtyAccount,
            blockSize: volume.blockSize,
            regionSize: Int(volume.superblock.regionSize)
        )
        dirty = made
        return made
    }
}

/// The inodes of a mount, by address and by the kernel's number.
struct InodeTable {
    private var slots: [Inode?] = [nil]
    private var free: [Int] = []
    private var byAddress: [UInt64: Inode] = [:]

    /// Inodes in memory.
    var count: Int { slots.count - free.count - 1 }

    subscript(handle: NodeHandle) -> Inode? {
        let index = Int(truncatingIfNeeded: handle.rawValue)
        return slots.indices.contains(index) ? slots[index] : nil
    }

    /// The inode of that number, if it is in memory.
    subscript(number: InodeNumber) -> Inode? {
        guard let inode = byAddress[number.address.rawValue] else { return nil }
        return inode.number == number ? inode : nil
    }

    /// The kernel's number for the next inode.
    mutating func reserveHandle() -> NodeHandle {
        if let index = free.popLast() { return NodeHandle(UInt64(index)) }
        slots.append(nil)
        return NodeHandle(UInt64(slots.count - 1))
    }

    mutating func insert(_ inode: Inode) {
        slots[Int(inode.handle.rawValue)] = inode
        byAddress[inode.number.address.rawValue] = inode
    }

    mutating func remove(_ inode: Inode) {
        let index = Int(inode.handle.rawValue)
        precondition(slots[index] === inode, "removing an inode that is not in the table")
        slots[index] = nil
        free.append(index)
        if byAddress[inode.number.address.rawValue] === inode {
            byAddress.removeValue(forKey: inode.number.address.rawValue)
        }
    }

    /// All inodes, in the order of the kernel's numbers.
    func forEach(_ body: (Inode) -> Void) {
        for case let inode? in slots { body(inode) }
    }
}

/// One open file or directory.
final class OpenFile {
    let inode: Inode
    let intent: OpenIntent
    let isDirect: Bool
    /// The kernel has asked for data of it.
    var wasRead = false
    /// The lock of a program (ProgramLocks), and who is asking for it: one at a time.
    var lock: ProgramLock?
    let locking = Gate()

    init(inode: Inode, intent: OpenIntent, isDirect: Bool) {
        self.inode = inode
        self.intent = intent
        self.isDirect = isDirect
    }
}

/// The open files of a mount.
struct OpenFileTable {
    private var slots: [OpenFile?] = [nil]
    private var free: [Int] = []

    var count: Int { slots.count - free.count - 1 }

    subscript(handle: OpenHandle) -> OpenFile? {
        let index = Int(truncatingIfNeeded: handle.rawValue)
        return slots.indices.contains(index) ? slots[index] : nil
    }

    /// Whether there is an open file as `isWanted` says. Looks at all of them.
    func contains(where isWanted: (OpenFile) -> Bool) -> Bool {
        slots.contains { $0.map(isWanted) ?? false }
    }

    mutating func insert(_ file: OpenFile) -> OpenHandle {
        let index = free.popLast() ?? slots.count
        if index == slots.count { slots.append(file) } else { slots[index] = file }
        return OpenHandle(UInt64(index))
    }

    mutating func remove(_ handle: OpenHandle) -> OpenFile? {
        let index = Int(truncatingIfNeeded: handle.rawValue)
        guard slots.indices.contains(index), let file = slots[index] else { return nil }
        slots[index] = nil
        free.append(index)
        return file
    }
}
