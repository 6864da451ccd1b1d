// What a mounted file system offers to the kernel, and what it asks of the kernel. `FuseServer`
// translates between this and /dev/fuse; the simulator's model of the kernel speaks it too.

package import Vocabulary

/// The number by which the kernel knows an inode (FUSE's nodeid). 1 is the root. Valid while the
/// kernel counts a reference (`lookup` replies minus `forget`).
package struct NodeHandle: RawRepresentable, Hashable, Sendable {
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static let root = NodeHandle(1)
}

/// The number of an open file or directory (FUSE's fh).
package struct OpenHandle: RawRepresentable, Hashable, Sendable {
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// Who asks.
package struct Caller: Sendable {
    package var user: UInt32
    package var group: UInt32
    /// For messages only.
    package var process: Int32
    /// What the mode of a new object loses, unless its directory has a default list.
    package var umask: UInt32 = 0

    package init(user: UInt32, group: UInt32, process: Int32) {
        self.user = user
        self.group = group
        self.process = process
    }

    /// The group, if set-group-id of a file depends on whether it is the file's: not for the superuser.
    package var writerGroup: UInt32? { user == 0 ? nil : group }
    /// Limits of quotas do not count for the superuser.
    package var isExempt: Bool { user == 0 }
}

/// What `stat` shows.
package struct FileAttributes: Hashable, Sendable {
    package var inode: InodeNumber
    /// Type and permission bits as in `st_mode`.
    package var mode: UInt32
    package var linkCount: UInt32
    package var user: UInt32
    package var group: UInt32
    /// `st_rdev` as Linux encodes it.
    package var device: UInt32
    package var size: UInt64
    /// In units of 512 bytes.
    package var blocks: UInt64
    package var blockSize: UInt32
    package var accessed: Timestamp
    package var modified: Timestamp
    package var changed: Timestamp
    package var born: Timestamp

    package init(
        inode: InodeNumber,
        mode: UInt32,
        linkCount: UInt32,
        user: UInt32,
        group: UInt32,
        device: UInt32,
        size: UInt64,
        blocks: UInt64,
        blockSize: UInt32,
        accessed: Timestamp,
        modified: Timestamp,
        changed: Timestamp,
        born: Timestamp
    ) {
        self.inode = inode
        self.mode = mode
        self.linkCount = linkCount
        self.user = user
        self.group = group
        self.device = device
        self.size = size
        self.blocks = blocks
        self.blockSize = blockSize
        self.accessed = accessed
        self.modified = modified
        self.changed = changed
        self.born = born
    }
}

/// Attributes, and whether the kernel may keep them (the covering lock is held until an
/// invalidation).
package struct AttributesReply: Sendable {
    package var attributes: FileAttributes
    package var isCacheable: Bool

    package init(attributes: FileAttributes, isCacheable: Bool) {
        self.attributes = attributes
        self.isCacheable = isCacheable
    }
}

/// An inode found or made. The kernel gains one reference to `node`.
package struct EntryReply: Sendable {
    package var node: NodeHandle
    package var attributes: FileAttributes
    /// Whether name → inode may be kept by the kernel.
    package var isEntryCacheable: Bool
    /// Whether the attributes may be kept by the kernel.
    package var isAttributesCacheable: Bool

    package init(
        node: NodeHandle,
        attributes: FileAttributes,
        isEntryCacheable: Bool,
        isAttributesCacheable: Bool
    ) {
        self.node = node
        self.attributes = attributes
        self.isEntryCacheable = isEntryCacheable
        self.isAttributesCacheable = isAttributesCacheable
    }
}

/// The answer to a lookup: found, or absent for as long as the directory's lock is held.
package enum LookupReply: Sendable {
    case found(EntryReply)
    /// ENOENT; `isCacheable` tells whether the kernel may keep the absence.
    case absent(isCacheable: Bool)
}

/// How a file was opened: what the flags of open(2) say, already taken apart.
package struct OpenIntent: Sendable {
    package var reads: Bool
    package var writes: Bool
    package var appends: Bool
    package var truncates: Bool
    /// FUSE_OPEN_KILL_SUIDGID: a truncating open drops set-user-id and set-group-id.
    package var dropsPrivileges = false
    /// O_NOATIME: reads do not count.
    package var keepsAccessTime = false
    /// The group of who opens; nil if nothing depends on it.
    package var writerGroup: UInt32?

    package init(reads: Bool, writes: Bool, appends: Bool, truncates: Bool) {
        self.reads = reads
        self.writes = writes
        self.appends = appends
        self.truncates = truncates
    }
}

/// An opened file and how the kernel may cache it.
package struct OpenReply: Sendable {
    package var handle: OpenHandle
    /// FOPEN_KEEP_CACHE
    package var keepsCache: Bool
    /// FOPEN_DIRECT_IO
    package var isDirect: Bool

    package init(handle: OpenHandle, keepsCache: Bool, isDirect: Bool) {
        self.handle = handle
        self.keepsCache = keepsCache
        self.isDirect = isDirect
    }
}

/// What setattr shall change; nil means "leave".
package struct AttributeChange: Sendable {
    /// A time to set: that of the change itself, or one that is given.
    package enum Time: Sendable {
        case now
        case at(Timestamp)
    }

    package var mode: UInt32?
    package var user: UInt32?
    package var group: UInt32?
    package var size: UInt64?
    package var accessed: Time?
    package var modified: Time?
    package var changed: Timestamp?
    /// FATTR_KILL_SUIDGID: drop set-user-id and set-group-id.
    package var dropsPrivileges = false
    /// The group of who changes the size; nil if nothing depends on it.
    package var writerGroup: UInt32?

    package init() {}
}

/// What kind of object mknod, mkdir and symlink make.
package enum NewObject: Sendable {
    /// Regular file, FIFO, socket, device: `mode` has the type bits.
    case node(mode: UInt32, device: UInt32)
    case directory(mode: UInt32)
    /// `target` is copied from the request.
    case symlink(target: [UInt8])
}

/// RENAME_NOREPLACE, RENAME_EXCHANGE.
package enum RenameKind: Sendable {
    case replace
    case noReplace
    case exchange
}

/// XATTR_CREATE, XATTR_REPLACE.
package enum AttributeSetting: Sendable {
    case createOrReplace
    /// Of an access list, by somebody who may not give files the set-group-id bit: they lose it.
    case createOrReplaceWithoutSetGroupID
    case create
    case replace
}

/// What fallocate(2) does with a range.
package struct Allocation: Hashable, Sendable {
    /// What becomes of the blocks.
    package enum Kind: Hashable, Sendable {
        /// What has no blocks gets them, unwritten.
        case allocate
        /// FALLOC_FL_PUNCH_HOLE: what has blocks gives them back.
        case punch
        /// FALLOC_FL_ZERO_RANGE: it has blocks, and reads as zeros.
        case zero
    }

    package var kind: Kind
    /// FALLOC_FL_KEEP_SIZE: the file does not become longer. With a hole it never does.
    package var keepsSize: Bool

    package init(_ kind: Kind, keepsSize: Bool) {
        self.kind = kind
        self.keepsSize = keepsSize || kind == .punch
    }
}

/// SEEK_DATA, SEEK_HOLE.
package enum SeekGoal: Hashable, Sendable {
    case data
    case hole
}

/// What kind of WRITE this is: see `Docs/KERNEL.md`.
package struct WriteFlags: Sendable {
    /// O_APPEND at the time of the write: the offset given is the kernel's guess.
    package var appends: Bool
    /// Comes from the page cache's write-back (mmap): must never wait for a lock.
    package var isWriteback: Bool
    /// Bypasses the page cache (O_DIRECT, FOPEN_DIRECT_IO).
    package var isDirect: Bool
    /// FUSE_WRITE_KILL_SUIDGID
    package var dropsPrivileges: Bool
    /// The group of who writes; nil if nothing depends on it.
    package var writerGroup: UInt32?
    /// Limits of quotas do not count for who writes.
    package var isExempt = false
    /// O_SYNC or O_DSYNC, of the file or of this write: it is durable when it is answered. For
    /// writes through the page cache the kernel sees to that with FSYNC.
    package var isSynchronous = false
    /// The file was opened to append, whatever became of O_APPEND since. Set by the file system itself.
    package var isOfAppender = false
    /// `Inode.invalidations` when the write came. Set by the file system itself.
    package var invalidationsBefore: UInt64 = 0

    package init(appends: Bool, isWriteback: Bool, isDirect: Bool, dropsPrivileges: Bool) {
        self.appends = appends
        self.isWriteback = isWriteback
        self.isDirect = isDirect
        self.dropsPrivileges = dropsPrivileges
    }
}

/// One name of a directory, as handed to a readdir reply.
package struct DirectoryEntry {
    /// Valid only during the call.
    package var name: UnsafeRawBufferPointer
    package var inode: InodeNumber
    /// Type bits of `st_mode` (S_IFMT).
    package var typeBits: UInt32
    /// Where to go on after this entry. Stable as long as the entry lives; never 0.
    package var nextCookie: UInt64

    package init(
        name: UnsafeRawBufferPointer,
        inode: InodeNumber,
        typeBits: UInt32,
        nextCookie: UInt64
    ) {
        self.name = name
        self.inode = inode
        self.typeBits = typeBits
        self.nextCookie = nextCookie
    }
}

/// What statfs shows, in blocks of `blockSize`.
package struct VolumeUsage: Sendable {
    package var blockSize: UInt32
    package var blocks: UInt64
    package var free: UInt64
    package var inodes: UInt64
    package var freeInodes: UInt64
    package var longestName: UInt32

    package init(
        blockSize: UInt32,
        blocks: UInt64,
        free: UInt64,
        inodes: UInt64,
        freeInodes: UInt64,
        longestName: UInt32
    ) {
        self.blockSize = blockSize
        self.blocks = blocks
        self.free = free
        self.inodes = inodes
        self.freeInodes = freeInodes
        self.longestName = longestName
    }
}

/// A request that may be interrupted while it waits for a lock (FUSE_INTERRUPT). Engine-bound.
package final class Interruption {
    /// Whether it was interrupted.
    package private(set) var isRequested = false
    /// Called once, inside the engine, when it is.
    package var onRequest: (() -> Void)?

    package init() {}

    /// Interrupts.
    package func request() {
        guard !isRequested else { return }
        isRequested = true
        onRequest?()
    }
}

/// A mounted file system, as the kernel sees it. All functions inside the engine. Names and bytes
/// given as pointers are valid until the call returns. Errors as the manual pages of the system
/// calls say.
package protocol FileOperations: AnyObject {
    func lookup(_ parent: NodeHandle, _ name: UnsafeRawBufferPointer, _ interruption: Interruption?)
        async throws(FileError) -> LookupReply
    /// After an operation had no room: waits for what is deleted and being freed. False if there is nothing of that
    /// kind; otherwise the operation may be tried once more. The caller is inside no operation.
    func roomComes() async -> Bool
    /// The kernel drops `count` references. Never waits.
    func forget(_ node: NodeHandle, count: UInt64)
    /// Whether it matters for anything that threads are heard of.
    var awaitsReaders: Bool { get }
    /// A thread asks for something that it waits for, of whichever file: it has taken in what it was told (KERNEL F6). Called
    /// before the request is carried out, if `awaitsReaders`; reads of a file are heard of by themselves.
    func heard(from thread: UInt32)
    /// `asker`: for whom the kernel asks.
    func getAttributes(
        _ node: NodeHandle,
        asker: AttributeAsker?,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply
    /// At once, or nil if it would have to wait.
    func getAttributesIfCached(_ node: NodeHandle, asker: AttributeAsker?) -> AttributesReply?
    /// At once, or nil if it would have to wait.
    func lookupIfCached(_ parent: NodeHandle, _ name: UnsafeRawBufferPointer) -> LookupReply?
    func setAttributes(
        _ node: NodeHandle,
        _ handle: OpenHandle?,
        _ change: AttributeChange,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply
    func readLink(_ node: NodeHandle, _ interruption: Interruption?) async throws(FileError)
        -> [UInt8]
    /// mknod, mkdir, symlink.
    func make(
        _ object: NewObject,
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply
    /// create(2) as one step: makes the file unless it exists (then, with `isExclusive`, `exists`)
    /// and opens it.
    func create(
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        mode: UInt32,
        isExclusive: Bool,
        _ intent: OpenIntent,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> (EntryReply, OpenReply)
    func unlink(_ parent: NodeHandle, _ name: UnsafeRawBufferPointer, _ interruption: Interruption?)
        async throws(FileError)
    func removeDirectory(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError)
    func rename(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        to newParent: NodeHandle,
        _ newName: UnsafeRawBufferPointer,
        _ kind: RenameKind,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError)
    func link(
        _ node: NodeHandle,
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply
    func open(_ node: NodeHandle, _ intent: OpenIntent, _ interruption: Interruption?)
        async throws(FileError) -> OpenReply
    /// Fills the front of `buffer`; returns how many bytes, fewer only at end of file. `isFill`
    /// says that the bytes go into the kernel's page cache (a buffered read or a page fault), not
    /// straight to a process.
    func read(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        at offset: UInt64,
        into buffer: UnsafeMutableRawBufferPointer,
        isFill: Bool,
        reader: UInt32?,
        _ interruption: Interruption?
    ) async throws(FileError) -> Int
    func write(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        at offset: UInt64,
        from buffer: UnsafeRawBufferPointer,
        _ flags: WriteFlags,
        _ interruption: Interruption?
    ) async throws(FileError) -> Int
    /// fallocate(2) of a range of bytes. `caller` loses set-user-id bits of the file if it is not root.
    func allocate(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ range: Range<UInt64>,
        _ allocation: Allocation,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError)
    /// The first byte from `offset` on that is data, or in a hole (the end of the file is one).
    ///
    /// - Throws: `noSuchAddress` if there is none, and if `offset` is not in the file.
    func seek(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        from offset: UInt64,
        to goal: SeekGoal,
        _ interruption: Interruption?
    ) async throws(FileError) -> UInt64
    /// flock(2) of an open file.
    ///
    /// - Throws: `wouldBlock` if somebody is in the way and `waits` is false; `interrupted`.
    func lock(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ wanted: WholeFileLock,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError)
    /// O_TMPFILE: makes a regular file without a name and opens it. `parent` says on which volume it is,
    /// and what it inherits.
    func makeTemporary(
        in parent: NodeHandle,
        mode: UInt32,
        _ intent: OpenIntent,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> (EntryReply, OpenReply)
    /// fcntl(2): locks bytes of an open file for `owner`, or unlocks them.
    ///
    /// - Throws: `wouldBlock` if somebody is in the way and `waits` is false; `deadlock` if whoever is in
    ///   the way waits for the owner, `interrupted`.
    func lockBytes(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ owner: ByteLockOwner,
        _ wish: ByteLockWish,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError)
    /// F_GETLK: the lock of another owner that is in the way, nil if there is none.
    func byteLock(
        inTheWayOf wish: ByteLockWish,
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ owner: ByteLockOwner,
        _ interruption: Interruption?
    ) async throws(FileError) -> ByteLockHolder?
    /// close(2) of one descriptor by `owner`, who loses all locks of bytes of the file.
    func flush(_ node: NodeHandle, _ handle: OpenHandle, _ owner: ByteLockOwner)
        async throws(FileError)
    func release(_ node: NodeHandle, _ handle: OpenHandle) async
    func synchronize(_ node: NodeHandle, _ handle: OpenHandle?, dataOnly: Bool)
        async throws(FileError)
    /// sync(2) of the whole file system.
    func synchronizeAll() async throws(FileError)
    func openDirectory(_ node: NodeHandle, _ interruption: Interruption?) async throws(FileError)
        -> OpenReply
    /// Calls `body` for each entry after `cookie` (0 = from the start, includes "." and "..") until
    /// it returns false.
    func readDirectory(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        after cookie: UInt64,
        _ interruption: Interruption?,
        _ body: (DirectoryEntry) -> Bool
    ) async throws(FileError)
    func releaseDirectory(_ node: NodeHandle, _ handle: OpenHandle) async
    func usage() async throws(FileError) -> VolumeUsage
    func getExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) -> [UInt8]
    func setExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer,
        _ setting: AttributeSetting,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError)
    /// The names, each followed by a zero byte.
    func listExtendedAttributes(_ node: NodeHandle, _ interruption: Interruption?)
        async throws(FileError) -> [UInt8]
    func removeExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError)
    /// The flags of a file or directory that lsattr(1) shows.
    func fileFlags(_ node: NodeHandle, _ interruption: Interruption?) async throws(FileError)
        -> FileFlags
    /// Gives a file or directory other flags. `has` tells, inside the engine, what the caller may do besides
    /// what his user number permits.
    ///
    /// - Throws: `notPermitted`; `notSupported` if the volume has no such flags.
    func setFileFlags(
        _ node: NodeHandle,
        _ flags: FileFlags,
        _ caller: Caller,
        _ interruption: Interruption?,
        has: (Privilege) -> Bool
    ) async throws(FileError)
}

/// The kernel's caches, as far as the file system must know of them. Called inside the engine; each
/// call returns when the kernel no longer holds the thing.
package protocol KernelCache: AnyObject {
    /// Whether a file whose reads and writes go past the page cache (FOPEN_DIRECT_IO) can still be
    /// mapped shared (Docs/KERNEL.md, rule M2).
    var mapsDirectFiles: Bool { get }

    /// Drops cached attributes, and, with `data`, all pages of the range (to the end if `length` is
    /// nil), writing dirty pages back through `write` first. Returns only after an in-flight first
    /// reply for this inode is covered too (Docs/KERNEL.md, rule F4). While it runs, WRITEs with
    /// `isWriteback` and READs of the range must be answered.
    /// `mayBegin` is called, inside the engine, just before the kernel is told, when everything has been received that
    /// the kernel had asked by then; if it says no, the kernel is not told.
    func invalidateInode(
        _ node: NodeHandle,
        data: (offset: UInt64, length: UInt64?)?,
        mayBegin: (() -> Bool)?
    ) async -> InvalidationEnd
    /// How often a thread that waits for an answer has been on a processor in its life; nil if that cannot be said, as of one
    /// that has ended or is of another namespace of processes. Does not wait.
    func timesRun(_ thread: UInt32) -> UInt64?
    /// Drops the names in `parent`, or every name it has of that directory if `names` is nil, and
    /// the directory's listing. Never waits for a request that the file system itself is holding
    /// back.
    func invalidateEntries(of parent: NodeHandle, names: [[UInt8]]?) async
}

/// Who asks for attributes: a thread by the number that the kernel gives it, 0 if that is of another namespace of processes.
package enum AttributeAsker: Sendable {
    /// It is about to read the file (FUSE_GETATTR_FH): the size decides where it stops.
    case reader(UInt32)
    /// Whatever for.
    case looker(UInt32)

    var thread: UInt32 {
        switch self {
        case .reader(let thread), .looker(let thread): thread
        }
    }

    var reply: ToldSize.Reply {
        switch self {
        case .reader: .attributes
        case .looker: .look
        }
    }
}

/// How an invalidation ended.
package enum InvalidationEnd: Sendable {
    /// `mayBegin` said no.
    case notBegun
    /// All that is received from now on was asked after it.
    case done
    /// It is done, but what the kernel asked before may not have been received yet.
    case metQuestions
}

extension KernelCache {
    /// Drops cached attributes, and pages.
    package func invalidateInode(
        _ node: NodeHandle,
        data: (offset: UInt64, length: UInt64?)?
    ) async {
        _ = await invalidateInode(node, data: data, mayBegin: nil)
    }
}

/// A list of the inodes that the kernel may know, kept where it outlives this process.
package protocol KernelList: AnyObject {
    /// Lists an inode before the first reply that names it; nil if there is no room.
    func add(_ node: NodeHandle) -> UInt32?
    /// The kernel has forgotten the inode.
    func remove(_ index: UInt32)
}
