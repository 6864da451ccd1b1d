// A model of what the Linux kernel caches in front of a FUSE file system, and of what it locks
// while it waits for the file system's answers (Docs/KERNEL.md). It caches as greedily as the
// answers permit, so that an invalidation the file system forgets becomes a stale byte that the
// oracle sees.
//
//   names       positive and negative, without limit of time; checked against an epoch
//   attributes  until invalidated; a reply that was asked for before an invalidation is not
//   believed (`attr_version`),
//               and the replies of create, mkdir, mknod, symlink and link are never kept
//   pages       4 KiB each, filled by READs with read-ahead; locked while a READ is in flight;
//   dirty through mappings
//   listings    while the directory's modification time and version are the same
//
// Requests reach the file system in the order in which they were made, after a while; replies come
// back after another while, in any order.
//
// Invariants
//   K1. A page is locked from before its READ is sent until the READ is answered; invalidation
//   waits for it.
//   K2. i_rwsem (`latch`): shared for LOOKUP of an uncached name and READDIR; exclusive for
//   everything that changes the
//       directory and for write(2) and truncation of a file.
//   K3. An inode is known here exactly while the file system counts references for it, forgets in
//   transit aside.

package import Execution
package import FileSystem
package import Vocabulary

/// One name as the kernel knows it. `target` nil: known to be absent.
final class KernelName {
    let target: KernelInode?
    /// The reply allowed it to be kept.
    var isTrusted: Bool
    let epoch: UInt64

    init(target: KernelInode?, isTrusted: Bool, epoch: UInt64) {
        self.target = target
        self.isTrusted = isTrusted
        self.epoch = epoch
    }
}

/// A directory as it was listed.
struct KernelListing {
    var modified: Timestamp
    var version: UInt64
    var entries: [ListedName]
}

/// One name of a listing.
package struct ListedName: Hashable, Sendable {
    package var name: [UInt8]
    package var inode: InodeNumber
    package var typeBits: UInt32
}

/// Attributes, by what makes them invalid together.
struct AttributeFields: OptionSet {
    let rawValue: Int

    /// What a check of permissions needs: mode and owner.
    static let permissions = AttributeFields(rawValue: 1)
    static let size = AttributeFields(rawValue: 2)
    /// Modification time and blocks.
    static let modification = AttributeFields(rawValue: 4)
    static let change = AttributeFields(rawValue: 8)
    static let access = AttributeFields(rawValue: 16)
    /// With the rest, which goes only together with these.
    static let all = AttributeFields(rawValue: 63)
    /// After a write(2).
    static let written: AttributeFields = [.size, .modification, .change]
}

/// An inode in the kernel's cache.
package final class KernelInode {
    let handle: NodeHandle
    let identity: InodeNumber
    var lookups: UInt64 = 0
    var attributes: FileAttributes
    var size: UInt64
    /// No reply allows the attributes to be kept any more.
    var isExpired = true
    /// Attributes that have changed since they were asked for.
    var invalid: AttributeFields = []
    /// Some of the attributes are used without a question.
    var keepsAttributes: Bool { !isExpired && !invalid.isSuperset(of: .all) }
    var attributeVersion: UInt64 = 0
    let latch = ReaderWriterLatch()
    /// Process-level operations that have it in hand, open files, and names that point here.
    var pins = 0
    var nameCount = 0

    var names: [[UInt8]: KernelName] = [:]
    /// The keys of `names`, in the order in which they came.
    var nameOrder: [[UInt8]] = []
    var lookupsInFlight: [[UInt8]: Signal] = [:]
    var listing: KernelListing?
    /// Where a symlink leads.
    var linkTarget: [UInt8]?
    var directoryVersion: UInt64 = 0

    let pages = KernelPages()
    var files: [KernelFile] = []
    /// What write(2) has put into pages and the file system has not carried out yet.
    var unanswered: [(number: Int, bytes: Range<UInt64>)] = []
    let answered = Signal()

    /// Some open file through which dirty pages can be written.
    var writableFile: KernelFile? { files.first { $0.intent.writes } }

    init(handle: NodeHandle, attributes: FileAttributes) {
        self.handle = handle
        identity = attributes.inode
        self.attributes = attributes
        size = attributes.size
    }

    var typeBits: UInt32 { attributes.mode & 0o170000 }
    var isDirectory: Bool { typeBits == 0o040000 }
    var isRegular: Bool { typeBits == 0o100000 }
}

/// What a kernel is free to do, and the dice decide in a simulation: in a comparison with a real
/// kernel the model does what that one did. All else is left to no chance either then.
package struct KernelHabits {
    /// The pages that are read when this one is missing, whatever is cached of them.
    package var readAhead: (NodeHandle, UInt64) -> Range<UInt64>

    package init(readAhead: @escaping (NodeHandle, UInt64) -> Range<UInt64>) {
        self.readAhead = readAhead
    }
}

/// The kernel of one node. Engine-bound.
package final class KernelModel: KernelCache {
    let engine: Engine
    let volume: any FileOperations
    package let name: String
    var dice: SeededGenerator
    var epoch: UInt64 = 1
    var version: UInt64 = 1
    private var inodes: [UInt64: KernelInode] = [:]
    private var order: [KernelInode] = []
    /// Replies on their way that carry a reference, by inode.
    private var inTransit: [UInt64: Int] = [:]
    private var requests: [() async -> Void] = []
    private var isPumping = false
    private var pending: [UInt64: () -> Void] = [:]
    private var pendingOrder: [UInt64] = []
    private var nextRequest: UInt64 = 1
    package private(set) var isDead = false
    /// Nobody answers requests any more.
    private var hasNoDaemon = false
    /// No request is made any more.
    package var isUnmounting = false
    let root: KernelInode
    /// One rename between directories at a time.
    let renaming = Gate()
    /// Kernels before Linux 6.16 are not let map a file that is opened direct (KERNEL M5).
    package var mapsDirectFiles = true
    /// Write-backs of mappings that failed.
    package var writebackErrors: [FileError] = []
    /// Nil: the dice decide.
    package var habits: KernelHabits?
    /// Told of data requests and invalidations, one line each.
    package var trace: ((String) -> Void)?
    /// Requests sent.
    package private(set) var requestCount = 0
    /// Pages handed to processes without a request.
    package var cachedPageReads = 0
    /// Names used without a request.
    package var cachedNames = 0

    package init(
        engine: Engine,
        volume: any FileOperations,
        name: String,
        dice: SeededGenerator
    ) {
        self.engine = engine
        self.volume = volume
        self.name = name
        self.dice = dice
        let unknown = FileAttributes(
            inode: InodeNumber(address: .none, generation: 0),
            mode: 0o040755,
            linkCount: 2,
            user: 0,
            group: 0,
            device: 0,
            size: 0,
            blocks: 0,
            blockSize: 4096,
            accessed: .zero,
            modified: .zero,
            changed: .zero,
            born: .zero
        )
        root = KernelInode(handle: .root, attributes: unknown)
        root.lookups = 1
        root.pins = 1
        inodes[1] = root
        order = [root]
    }

    /// The daemon is dead. What is cached can be read; who asks waits, until its guardian has taken
    /// everything back.
    func daemonDied() {
        hasNoDaemon = true
        requests = []
    }

    /// The connection is aborted: whoever waits gets an error, and so does whoever comes.
    func die() {
        isDead = true
        for number in pendingOrder { pending.removeValue(forKey: number)?() }
        pendingOrder = []
        requests = []
    }

    // MARK: Requests

    /// Requests that are not answered.
    package var waitingRequests: Int { pendingOrder.count }

    /// Sends a request and waits for its reply. `arrived` runs inside the file system's engine at
    /// the moment it answers.
    func ask<Reply>(
        _ body: @escaping () async throws(FileError) -> Reply,
        arrived: @escaping (Reply) -> Void = { _ in }
    ) async throws(FileError) -> Reply {
        if isDead { throw .inputOutput }
        precondition(!isUnmounting || hasNoDaemon, "a request after the last")
        requestCount += 1
        let outcome = Outcome<Result<Reply, FileError>>()
        let number = nextRequest
        nextRequest += 1
        pending[number] = { outcome.deliver(.failure(.inputOutput)) }
        pendingOrder.append(number)
        submit {
            let result: Result<Reply, FileError>
            do throws(FileError) {
                let reply = try await self.withRoom(body)
                result = .success(reply)
                if self.pending[number] != nil, !self.hasNoDaemon { arrived(reply) }
            } catch {
                result = .failure(error)
            }
            guard !self.hasNoDaemon, self.pending.removeValue(forKey: number) != nil else { return }
            self.pendingOrder.removeAll { $0 == number }
            outcome.deliver(result)
        }
        let result = await outcome.get()
        if dice.oneIn(2) { await transit() }
        return try result.get()
    }

    /// As the server does.
    private func withRoom<Reply>(
        _ body: () async throws(FileError) -> Reply
    ) async throws(FileError) -> Reply {
        do throws(FileError) {
            return try await body()
        } catch {
            guard error == .noSpace, await volume.roomComes() else { throw error }
        }
        return try await body()
    }

    func transit() async {
        await engine.sleep(
            until: engine.clock.now.advanced(nanoseconds: UInt64(dice.below(40_000)))
        )
    }

    /// Queues a request: they start in the order in which they were made.
    private func submit(_ request: @escaping () async -> Void) {
        if hasNoDaemon { return }
        requests.append(request)
        guard !isPumping else { return }
        isPumping = true
        pump()
    }

    private func pump() {
        guard !requests.isEmpty else {
            isPumping = false
            return
        }
        let delay = dice.oneIn(2) ? 0 : UInt64(dice.below(30_000))
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: delay),
            in: engine,
            EngineBound { [self] in
                engine.spawn { await self.startRequest() }
            }
        )
    }

    private func startRequest() async {
        guard !requests.isEmpty else {
            isPumping = false
            return
        }
        let request = requests.removeFirst()
        pump()
        await request()
    }

    /// A request whose reply gives the kernel a reference.
    func askForEntry(
        _ body: @escaping () async throws(FileError) -> EntryReply
    ) async throws(FileError) -> EntryReply {
        try await ask(body, arrived: { [self] in depart($0) })
    }

    /// A reply with a reference has left the file system.
    func depart(_ reply: EntryReply) { inTransit[reply.node.rawValue, default: 0] += 1 }

    /// A reply with a reference is there: the inode, known from now on.
    func install(
        _ reply: EntryReply,
        since: UInt64?,
        keepsAttributes: Bool
    ) async -> KernelInode {
        let key = reply.node.rawValue
        if let count = inTransit[key] { inTransit[key] = count > 1 ? count - 1 : nil }
        let inode: KernelInode
        if let known = inodes[key] {
            precondition(
                known === root || known.identity == reply.attributes.inode,
                "K3: \(name) knows \(known.identity) by \(key), now it is \(reply.attributes.inode)"
            )
            inode = known
        } else {
            inode = KernelInode(handle: reply.node, attributes: reply.attributes)
            inodes[key] = inode
            order.append(inode)
        }
        inode.lookups += 1
        inode.pins += 1
        await change(
            inode,
            reply.attributes,
            isValid: keepsAttributes && reply.isAttributesCacheable,
            since: since
        )
        inode.pins -= 1
        return inode
    }

    /// All inodes in the cache.
    var known: [KernelInode] { order }

    /// Whether a reply that makes `handle` known is on its way.
    func isInTransit(_ handle: NodeHandle) -> Bool { inTransit[handle.rawValue] != nil }

    func inode(_ handle: NodeHandle) -> KernelInode? { inodes[handle.rawValue] }

    // MARK: Attributes

    /// A point in the order of attribute changes: what is asked for now is not believed after a
    /// later invalidation.
    func attributeMark() -> UInt64 { version }

    func nextVersion() -> UInt64 {
        version += 1
        return version
    }

    /// Attributes from a reply that was asked for at `since` (nil: unprotected).
    func change(
        _ inode: KernelInode,
        _ attributes: FileAttributes,
        isValid: Bool,
        since: UInt64?
    ) async {
        if let since, inode.attributeVersion > since { return }
        inode.attributeVersion = nextVersion()
        inode.attributes = attributes
        inode.isExpired = !isValid
        inode.invalid = []
        guard inode.isRegular else { return }
        let old = inode.size
        inode.size = attributes.size
        if attributes.size < old { await truncatePages(inode, to: attributes.size) }
    }

    /// Attributes have to be asked for again.
    func invalidateAttributes(_ inode: KernelInode, _ fields: AttributeFields = .all) {
        inode.invalid.formUnion(fields)
    }

    /// A check of permissions: it asks, if need be, and with it learns everything.
    func checkPermission(_ inode: KernelInode) async throws(FileError) {
        // Of symlinks nothing is asked.
        guard inode.typeBits != 0o120000 else { return }
        try await refresh(inode, .permissions)
    }

    /// GETATTR, unless the fields are known.
    @discardableResult
    func refresh(
        _ inode: KernelInode,
        _ fields: AttributeFields
    ) async throws(FileError) -> FileAttributes {
        if !inode.isExpired, inode.invalid.isDisjoint(with: fields) {
            var known = inode.attributes
            if inode.isRegular { known.size = inode.size }
            return known
        }
        let since = attributeMark()
        let handle = inode.handle
        let reply = try await ask { () async throws(FileError) in
            if let quick = self.volume.getAttributesIfCached(handle, asker: nil) { return quick }
            return try await self.volume.getAttributes(handle, asker: nil, nil)
        }
        await change(inode, reply.attributes, isValid: reply.isCacheable, since: since)
        return reply.attributes
    }

    /// The directory was changed by a process of this node.
    func directoryChanged(_ inode: KernelInode) {
        invalidateAttributes(inode)
        inode.directoryVersion += 1
    }

    // MARK: Forgetting

    /// Memory pressure: drops some names, and inodes that nobody uses.
    package func shrink() {
        guard !isDead, !isUnmounting else { return }
        for inode in order where inode.isDirectory && !inode.nameOrder.isEmpty {
            guard inode.latch.isIdle, dice.oneIn(2) else { continue }
            let victim = inode.nameOrder[dice.below(inode.nameOrder.count)]
            if inode.names[victim]?.target?.isDirectory == true, dice.oneIn(2) { continue }
            dropName(inode, victim)
        }
        for inode in order where dice.oneIn(2) { evictIfUnused(inode) }
    }

    /// Linux, unlike the dice, forgets an inode at once when nothing refers to it.
    package func forgetUnused() {
        for inode in order { evictIfUnused(inode) }
    }

    /// Forgets an inode that nothing refers to.
    func evictIfUnused(_ inode: KernelInode) {
        guard inode !== root, inode.pins == 0, inode.nameCount == 0, inode.nameOrder.isEmpty,
            inode.latch.isIdle, !inode.pages.isBusy, !inode.pages.hasDirty,
            inodes[inode.handle.rawValue] === inode, !isDead, !isUnmounting
        else { return }
        inodes[inode.handle.rawValue] = nil
        order.removeAll { $0 === inode }
        inode.pages.removeAll()
        let (handle, count) = (inode.handle, inode.lookups)
        submit { self.volume.forget(handle, count: count) }
    }

    /// A reference that came with a reply nobody wants.
    func forgetOne(_ reply: EntryReply) {
        let key = reply.node.rawValue
        if let count = inTransit[key] { inTransit[key] = count > 1 ? count - 1 : nil }
        let handle = reply.node
        submit { self.volume.forget(handle, count: 1) }
    }
}
