// A file system in memory, for the tests of the door to the kernel: what it says may be cached, and
// which operations it holds back, is up to the test.

import Execution
import FileSystem
import Vocabulary

/// One inode. Inside the engine.
final class MemoryNode {
    var attributes: FileAttributes
    var data: [UInt8] = []
    var target: [UInt8] = []
    /// Names in the order of their making; the cookie of an entry is its position + 3.
    var names: [(name: [UInt8], node: Int, cookie: UInt64)] = []
    var lastCookie: UInt64 = 2
    var extended: [(name: [UInt8], value: [UInt8])] = []
    var references: UInt64 = 0

    init(_ attributes: FileAttributes) { self.attributes = attributes }
}

/// Kinds of operation that can be held back whatever they are about.
enum OperationKind: Int, Sendable {
    case read, write, change, list
}

/// A request as it was carried out.
struct RecordedRequest: Hashable, Sendable {
    enum Kind: String, CaseIterable, Sendable {
        case lookup, getAttributes, setAttributes, readLink, make, create, unlink, removeDirectory
        case rename, link, open, fill, readDirect, write, writeBack, flush, release, synchronize
        case openDirectory, readDirectory, releaseDirectory
        case getExtended, setExtended, listExtended, removeExtended
    }

    var kind: Kind
    var node: UInt64
    /// Names, or a range of bytes.
    var what: String
}

/// An operation that waits until the test lets it go.
final class Hold {
    let arrived = Outcome<Void>()
    let released = Outcome<Void>()
    var wasInterrupted = false
}

/// The file system. Inside the engine.
final class MemoryFiles: FileOperations {
    /// What was locked with fcntl(2).
    private(set) var byteLocks: [(owner: ByteLockOwner, bytes: LockedBytes)] = []
    /// What was set with chattr(1), by node, and what who did so last may do.
    private(set) var flags: [UInt64: FileFlags] = [:]
    private(set) var privileges = (owner: false, protection: false)
    let engine: Engine
    var nodes: [MemoryNode] = []
    var openFiles = 0
    var openDirectories = 0
    private var nextHandle: UInt64 = 100

    /// What replies say.
    var entriesAreCacheable = true
    var attributesAreCacheable = true
    var opensDirectly = false
    /// Names whose lookup, creation or removal waits.
    var holds: [[UInt8]: Hold] = [:]
    /// The next operation of its kind waits.
    var heldNext: [Hold?] = [nil, nil, nil, nil]
    /// Called with each write's flags and length.
    var onWrite: ((WriteFlags, Int) -> Void)?
    var onRead: ((Bool) -> Void)?
    var onLookup: (([UInt8], NodeHandle) -> Void)?
    /// How the next changes fail, one after the other; how many were tried.
    var failures: [FileError] = []
    var attempts = 0
    /// Whether somebody who found no room is told that some has come, when, and how often that was asked.
    var roomIsComing = false
    var room: Hold?
    var roomQuestions = 0
    var synchronized = 0
    /// Whether threads are to be heard of, and those that were.
    var awaitsReaders = false
    private(set) var heardThreads: [UInt32] = []
    func heard(from thread: UInt32) { heardThreads.append(thread) }
    /// What open says of the pages that are cached.
    var keepsPages = true
    /// Told of every request but FORGET and STATFS, when it is carried out.
    var onRequest: ((RecordedRequest) -> Void)?
    /// The time of what is done now, if it is not the clock's.
    var time: Timestamp?
    var now: Timestamp { time ?? engine.clock.civilTime }

    init(engine: Engine) {
        self.engine = engine
        let root = newNode(mode: 0o040755, caller: Caller(user: 0, group: 0, process: 0))
        root.attributes.linkCount = 2
    }

    // MARK: Helpers

    @discardableResult
    func newNode(mode: UInt32, caller: Caller, device: UInt32 = 0) -> MemoryNode {
        let now = self.now
        let node = MemoryNode(
            FileAttributes(
                inode: InodeNumber(
                    address: BlockAddress(UInt64(nodes.count) + 1),
                    generation: 1
                ),
                mode: mode,
                linkCount: 1,
                user: caller.user,
                group: caller.group,
                device: device,
                size: 0,
                blocks: 0,
                blockSize: 4096,
                accessed: now,
                modified: now,
                changed: now,
                born: now
            )
        )
        nodes.append(node)
        return node
    }

    func node(_ handle: NodeHandle) throws(FileError) -> MemoryNode {
        guard handle.rawValue >= 1, handle.rawValue <= nodes.count else { throw .stale }
        return nodes[Int(handle.rawValue) - 1]
    }

    private func find(_ parent: MemoryNode, _ name: [UInt8]) -> Int? {
        parent.names.firstIndex { $0.name == name }
    }

    private func handle(_ index: Int) -> NodeHandle { NodeHandle(UInt64(index) + 1) }

    private func entry(_ index: Int) -> EntryReply {
        nodes[index].references += 1
        return EntryReply(
            node: handle(index),
            attributes: nodes[index].attributes,
            isEntryCacheable: entriesAreCacheable,
            isAttributesCacheable: attributesAreCacheable
        )
    }

    private func isDirectory(_ node: MemoryNode) -> Bool {
        node.attributes.mode & 0o170000 == 0o040000
    }

    private func touch(_ directory: MemoryNode) {
        directory.attributes.modified = max(
            directory.attributes.modified.successor,
            now
        )
        directory.attributes.changed = directory.attributes.modified
    }

    func add(_ parent: MemoryNode, _ name: [UInt8], _ index: Int) {
        parent.lastCookie += 1
        parent.names.append((name, index, parent.lastCookie))
        touch(parent)
    }

    func removeName(_ parent: MemoryNode, _ name: [UInt8]) {
        if let position = find(parent, name) { removeName(parent, at: position) }
    }

    private func removeName(_ parent: MemoryNode, at position: Int) {
        let index = parent.names.remove(at: position).node
        nodes[index].attributes.linkCount -= 1
        touch(parent)
    }

    private func waitIfHeld(
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) {
        guard let hold = holds[Array(name)] else { return }
        try await wait(for: hold, interruption)
    }

    /// An operation that was held back once goes on by itself the next time.
    private func waitIfHeld(
        _ kind: OperationKind,
        _ interruption: Interruption?
    ) async throws(FileError) {
        guard let hold = heldNext[kind.rawValue] else { return }
        heldNext[kind.rawValue] = nil
        try await wait(for: hold, interruption)
    }

    private func wait(
        for hold: Hold,
        _ interruption: Interruption?
    ) async throws(FileError) {
        if hold.arrived.value == nil { hold.arrived.deliver(()) }
        interruption?.onRequest = {
            hold.wasInterrupted = true
            if hold.released.value == nil { hold.released.deliver(()) }
        }
        await hold.released.get()
        if hold.wasInterrupted { throw .interrupted }
    }

    private func record(_ kind: RecordedRequest.Kind, _ node: NodeHandle, _ what: String = "") {
        onRequest?(RecordedRequest(kind: kind, node: node.rawValue, what: what))
    }

    private func text(_ name: UnsafeRawBufferPointer) -> String {
        String(decoding: name, as: UTF8.self)
    }

    // MARK: Names

    func lookupIfCached(_ parent: NodeHandle, _ name: UnsafeRawBufferPointer) -> LookupReply? {
        guard holds[Array(name)] == nil, onLookup == nil else { return nil }
        return try? lookupNow(parent, Array(name))
    }

    private func lookupNow(
        _ parent: NodeHandle,
        _ name: [UInt8]
    ) throws(FileError) -> LookupReply {
        record(.lookup, parent, String(decoding: name, as: UTF8.self))
        let directory = try node(parent)
        guard isDirectory(directory) else { throw .notDirectory }
        guard name.count <= 255 else { throw .nameTooLong }
        guard let position = find(directory, name) else {
            return .absent(isCacheable: entriesAreCacheable)
        }
        return .found(entry(directory.names[position].node))
    }

    func lookup(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) -> LookupReply {
        try await waitIfHeld(name, interruption)
        let reply = try lookupNow(parent, Array(name))
        if case .found(let entry) = reply { onLookup?(Array(name), entry.node) }
        return reply
    }

    func roomComes() async -> Bool {
        roomQuestions += 1
        if let room {
            room.arrived.deliver(())
            await room.released.get()
        }
        return roomIsComing
    }

    /// Fails as long as it is told to.
    private func takeRoom() throws(FileError) {
        attempts += 1
        if let failure = failures.first {
            failures.removeFirst()
            throw failure
        }
    }

    func forget(_ node: NodeHandle, count: UInt64) {
        if let known = try? self.node(node) { known.references -= min(count, known.references) }
    }

    func make(
        _ object: NewObject,
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply {
        record(.make, parent, text(name))
        try await waitIfHeld(name, interruption)
        try takeRoom()
        let directory = try node(parent)
        guard find(directory, Array(name)) == nil else { throw .exists }
        switch object {
        case .node(let mode, let device): newNode(mode: mode, caller: caller, device: device)
        case .directory(let mode):
            newNode(mode: mode, caller: caller).attributes.linkCount = 2
        case .symlink(let target):
            let made = newNode(mode: 0o120777, caller: caller)
            made.target = target
            made.attributes.size = UInt64(target.count)
        }
        add(directory, Array(name), nodes.count - 1)
        return entry(nodes.count - 1)
    }

    func create(
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        mode: UInt32,
        isExclusive: Bool,
        _ intent: OpenIntent,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> (EntryReply, OpenReply) {
        record(.create, parent, text(name))
        try await waitIfHeld(name, interruption)
        let directory = try node(parent)
        let index: Int
        if let position = find(directory, Array(name)) {
            guard !isExclusive else { throw .exists }
            index = directory.names[position].node
        } else {
            newNode(mode: 0o100000 | mode & 0o7777, caller: caller)
            index = nodes.count - 1
            add(directory, Array(name), index)
        }
        return (entry(index), try openNow(handle(index), intent))
    }

    func unlink(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) {
        record(.unlink, parent, text(name))
        try await waitIfHeld(name, interruption)
        let directory = try node(parent)
        guard let position = find(directory, Array(name)) else { throw .notFound }
        guard !isDirectory(nodes[directory.names[position].node]) else { throw .isDirectory }
        removeName(directory, at: position)
    }

    func removeDirectory(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) {
        record(.removeDirectory, parent, text(name))
        let directory = try node(parent)
        guard let position = find(directory, Array(name)) else { throw .notFound }
        guard nodes[directory.names[position].node].names.isEmpty else { throw .notEmpty }
        removeName(directory, at: position)
    }

    func rename(
        _ parent: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        to newParent: NodeHandle,
        _ newName: UnsafeRawBufferPointer,
        _ kind: RenameKind,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        record(.rename, parent, "\(text(name)) \(newParent.rawValue)/\(text(newName))")
        let (from, to) = (try node(parent), try node(newParent))
        guard let source = find(from, Array(name)) else { throw .notFound }
        let moved = from.names[source].node
        let target = find(to, Array(newName))
        switch kind {
        case .exchange:
            guard let target else { throw .notFound }
            from.names[source].node = to.names[target].node
            to.names[target].node = moved
            touch(from)
            touch(to)
            return
        case .noReplace:
            guard target == nil else { throw .exists }
        case .replace:
            if let target {
                guard nodes[to.names[target].node].names.isEmpty else { throw .notEmpty }
                removeName(to, at: target)
            }
        }
        guard let again = find(from, Array(name)) else { throw .notFound }
        from.names.remove(at: again)
        touch(from)
        add(to, Array(newName), moved)
    }

    func link(
        _ node: NodeHandle,
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply {
        record(.link, parent, text(name))
        let directory = try self.node(parent)
        guard find(directory, Array(name)) == nil else { throw .exists }
        let index = Int(node.rawValue) - 1
        nodes[index].attributes.linkCount += 1
        add(directory, Array(name), index)
        return entry(index)
    }

    func readLink(
        _ node: NodeHandle,
        _ interruption: Interruption?
    ) async throws(FileError) -> [UInt8] {
        record(.readLink, node)
        return try self.node(node).target
    }

    // MARK: Attributes

    func getAttributes(
        _ node: NodeHandle,
        asker: AttributeAsker?,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        record(.getAttributes, node)
        return try attributes(node)
    }

    private func attributes(_ node: NodeHandle) throws(FileError) -> AttributesReply {
        AttributesReply(
            attributes: try self.node(node).attributes,
            isCacheable: attributesAreCacheable
        )
    }

    func getAttributesIfCached(_ node: NodeHandle, asker: AttributeAsker?) -> AttributesReply? {
        guard let known = try? attributes(node) else { return nil }
        record(.getAttributes, node)
        return known
    }

    func setAttributes(
        _ node: NodeHandle,
        _ handle: OpenHandle?,
        _ change: AttributeChange,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        record(.setAttributes, node)
        let file = try self.node(node)
        try await waitIfHeld(.change, interruption)
        if let mode = change.mode {
            file.attributes.mode = file.attributes.mode & 0o170000 | mode & 0o7777
        }
        if let user = change.user { file.attributes.user = user }
        if let group = change.group { file.attributes.group = group }
        if let size = change.size { resize(file, Int(size)) }
        let now = self.now
        func time(_ wish: AttributeChange.Time) -> Timestamp {
            switch wish {
            case .now: now
            case .at(let time): time
            }
        }
        if let accessed = change.accessed { file.attributes.accessed = time(accessed) }
        if let modified = change.modified { file.attributes.modified = time(modified) }
        file.attributes.changed = now
        return try attributes(node)
    }

    func resize(_ file: MemoryNode, _ size: Int) {
        if size < file.data.count {
            file.data.removeLast(file.data.count - size)
        } else {
            file.data.append(contentsOf: repeatElement(0, count: size - file.data.count))
        }
        file.attributes.size = UInt64(size)
        file.attributes.blocks = UInt64((size + 511) / 512)
        file.attributes.modified = now
        file.attributes.changed = file.attributes.modified
    }

    // MARK: Data

    func open(
        _ node: NodeHandle,
        _ intent: OpenIntent,
        _ interruption: Interruption?
    ) async throws(FileError) -> OpenReply {
        record(.open, node)
        return try openNow(node, intent)
    }

    private func openNow(
        _ node: NodeHandle,
        _ intent: OpenIntent
    ) throws(FileError) -> OpenReply {
        let file = try self.node(node)
        if intent.truncates { resize(file, 0) }
        openFiles += 1
        nextHandle += 1
        return OpenReply(
            handle: OpenHandle(nextHandle),
            keepsCache: keepsPages,
            isDirect: opensDirectly
        )
    }

    func read(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        at offset: UInt64,
        into buffer: UnsafeMutableRawBufferPointer,
        isFill: Bool,
        reader: UInt32?,
        _ interruption: Interruption?
    ) async throws(FileError) -> Int {
        record(isFill ? .fill : .readDirect, node, "\(offset)+\(buffer.count)")
        let file = try self.node(node)
        onRead?(isFill)
        try await waitIfHeld(.read, interruption)
        let start = min(Int(offset), file.data.count)
        let end = min(start + buffer.count, file.data.count)
        file.data.withUnsafeBytes { buffer.copyBytes(from: $0[start..<end]) }
        return end - start
    }

    func write(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        at offset: UInt64,
        from buffer: UnsafeRawBufferPointer,
        _ flags: WriteFlags,
        _ interruption: Interruption?
    ) async throws(FileError) -> Int {
        record(flags.isWriteback ? .writeBack : .write, node, "\(offset)+\(buffer.count)")
        let file = try self.node(node)
        onWrite?(flags, buffer.count)
        if !flags.isWriteback { try await waitIfHeld(.write, interruption) }
        try takeRoom()
        let start = flags.appends ? file.data.count : Int(offset)
        let end = start + buffer.count
        if end > file.data.count && !flags.isWriteback { resize(file, end) }
        let fits = min(end, file.data.count) - start
        if fits > 0 {
            file.data.withUnsafeMutableBytes {
                $0[start..<start + fits].copyBytes(from: buffer[..<fits])
            }
        }
        file.attributes.modified = now
        return buffer.count
    }

    func allocate(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ range: Range<UInt64>,
        _ allocation: Allocation,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        let file = try self.node(node)
        let (start, end) = (Int(range.lowerBound), Int(range.upperBound))
        if !allocation.keepsSize, end > file.data.count { resize(file, end) }
        guard allocation.kind != .allocate else { return }
        for place in min(start, file.data.count)..<min(end, file.data.count) {
            file.data[place] = 0
        }
    }

    func seek(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        from offset: UInt64,
        to goal: SeekGoal,
        _ interruption: Interruption?
    ) async throws(FileError) -> UInt64 {
        let file = try self.node(node)
        guard Int(offset) < file.data.count else { throw .noSuchAddress }
        return goal == .data ? offset : UInt64(file.data.count)
    }

    func lock(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ wanted: WholeFileLock,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        if !waits, wanted == .exclusive { throw .wouldBlock }
    }

    func makeTemporary(
        in parent: NodeHandle,
        mode: UInt32,
        _ intent: OpenIntent,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> (EntryReply, OpenReply) {
        throw .notImplemented
    }

    /// Bytes that a process of another node has locked.
    static let locked = LockedBytes(first: 100, last: 109, process: 4242)

    func lockBytes(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ owner: ByteLockOwner,
        _ wish: ByteLockWish,
        waits: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        if wish.kind == .unlock {
            byteLocks.removeAll { $0.owner == owner && $0.bytes.overlaps(wish.bytes) }
        } else if wish.bytes.overlaps(Self.locked) {
            throw waits ? .deadlock : .wouldBlock
        } else {
            byteLocks.append((owner, wish.bytes))
        }
    }

    func byteLock(
        inTheWayOf wish: ByteLockWish,
        _ node: NodeHandle,
        _ handle: OpenHandle,
        _ owner: ByteLockOwner,
        _ interruption: Interruption?
    ) async throws(FileError) -> ByteLockHolder? {
        if wish.bytes.overlaps(Self.locked) {
            return ByteLockHolder(isWrite: true, bytes: Self.locked, node: NodeID(2))
        }
        let own = byteLocks.first { $0.bytes.overlaps(wish.bytes) && $0.owner != owner }
        return own.map { ByteLockHolder(isWrite: false, bytes: $0.bytes, node: nil) }
    }

    func flush(_ node: NodeHandle, _ handle: OpenHandle, _ owner: ByteLockOwner)
        async throws(FileError)
    {
        byteLocks.removeAll { $0.owner == owner }
        record(.flush, node)
    }

    func release(_ node: NodeHandle, _ handle: OpenHandle) async {
        record(.release, node)
        openFiles -= 1
    }

    func synchronize(
        _ node: NodeHandle,
        _ handle: OpenHandle?,
        dataOnly: Bool
    ) async throws(FileError) {
        record(.synchronize, node)
        synchronized += dataOnly ? 100 : 1
    }

    func synchronizeAll() async throws(FileError) { synchronized += 10_000 }

    // MARK: Directories

    func openDirectory(
        _ node: NodeHandle,
        _ interruption: Interruption?
    ) async throws(FileError) -> OpenReply {
        record(.openDirectory, node)
        openDirectories += 1
        nextHandle += 1
        return OpenReply(
            handle: OpenHandle(nextHandle),
            keepsCache: entriesAreCacheable,
            isDirect: false
        )
    }

    func readDirectory(
        _ node: NodeHandle,
        _ handle: OpenHandle,
        after cookie: UInt64,
        _ interruption: Interruption?,
        _ body: (DirectoryEntry) -> Bool
    ) async throws(FileError) {
        record(.readDirectory, node)
        try await waitIfHeld(.list, interruption)
        let directory = try self.node(node)
        let dots: [(name: [UInt8], node: Int, cookie: UInt64)] = [
            (Array(".".utf8), Int(node.rawValue) - 1, 1),
            (Array("..".utf8), Int(node.rawValue) - 1, 2),
        ]
        for entry in dots + directory.names where entry.cookie > cookie {
            let goesOn = entry.name.withUnsafeBytes {
                body(
                    DirectoryEntry(
                        name: $0,
                        inode: nodes[entry.node].attributes.inode,
                        typeBits: nodes[entry.node].attributes.mode & 0o170000,
                        nextCookie: entry.cookie
                    )
                )
            }
            if !goesOn { return }
        }
    }

    func releaseDirectory(_ node: NodeHandle, _ handle: OpenHandle) async {
        record(.releaseDirectory, node)
        openDirectories -= 1
    }

    func usage() async throws(FileError) -> VolumeUsage {
        VolumeUsage(
            blockSize: 4096,
            blocks: 1000,
            free: 600,
            inodes: 500,
            freeInodes: 499,
            longestName: 255
        )
    }

    // MARK: Extended attributes

    func getExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) -> [UInt8] {
        record(.getExtended, node, text(name))
        let wanted = Array(name)
        guard let found = try self.node(node).extended.first(where: { $0.name == wanted }) else {
            throw .noAttribute
        }
        return found.value
    }

    func setExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer,
        _ setting: AttributeSetting,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        record(.setExtended, node, text(name))
        let file = try self.node(node)
        let wanted = Array(name)
        if let position = file.extended.firstIndex(where: { $0.name == wanted }) {
            guard setting != .create else { throw .exists }
            file.extended[position].value = Array(value)
        } else {
            guard setting != .replace else { throw .noAttribute }
            file.extended.append((wanted, Array(value)))
        }
    }

    func listExtendedAttributes(
        _ node: NodeHandle,
        _ interruption: Interruption?
    ) async throws(FileError) -> [UInt8] {
        record(.listExtended, node)
        return try self.node(node).extended.flatMap { $0.name + [0] }
    }

    func fileFlags(_ node: NodeHandle, _ interruption: Interruption?) async throws(FileError)
        -> FileFlags
    {
        flags[node.rawValue] ?? []
    }

    func setFileFlags(
        _ node: NodeHandle,
        _ flags: FileFlags,
        _ caller: Caller,
        _ interruption: Interruption?,
        has: (Privilege) -> Bool
    ) async throws(FileError) {
        self.flags[node.rawValue] = flags
        privileges = (has(.fileOwner), has(.protection))
    }

    func removeExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        record(.removeExtended, node, text(name))
        let file = try self.node(node)
        let wanted = Array(name)
        guard let position = file.extended.firstIndex(where: { $0.name == wanted }) else {
            throw .noAttribute
        }
        file.extended.remove(at: position)
    }
}
