// What a file system is, without a file system: a tree of values with the rules of POSIX as Linux
// applies them. The mounted tests do the same things to this tree and to the mounts and compare.
//
// Invariants
// M1. `links` of a file lists exactly the places that name it; a directory has one place, but the
// root.
// M2. An inode lives while a place names it or a handle has it open.
// M3. Nothing here depends on the order of a hash table: entries are sorted by name.

import Glibc

/// A name in a directory.
struct Place: Hashable, Sendable {
    var parent: Int
    var name: String
}

/// One inode of the model.
struct ModelInode: Sendable {
    enum Content: Sendable {
        case file([UInt8])
        /// Sorted by name.
        case directory([(name: String, inode: Int)])
        case symbolicLink(String)
    }

    var content: Content
    var mode: UInt32
    var owner: UInt32
    var group: UInt32
    /// The places that name it.
    var links: [Place]
    /// Sorted by name.
    var attributes: [Attribute] = []
    /// Set by utimens and true until the content changes.
    var modification: Int?
    var handles = 0
    /// What has been done to it.
    var history: [String] = []

    var isDirectory: Bool { if case .directory = content { true } else { false } }
    var isFile: Bool { if case .file = content { true } else { false } }
    var isSymbolicLink: Bool { if case .symbolicLink = content { true } else { false } }

    var bytes: [UInt8] { if case .file(let bytes) = content { bytes } else { [] } }

    var entries: [(name: String, inode: Int)] {
        if case .directory(let entries) = content { entries } else { [] }
    }

    /// What stat should say of links: a directory is named by its place, its `.` and each `..`
    /// below.
    func linkCount(in tree: ModelTree) -> Int {
        guard isDirectory else { return links.count }
        return 2 + entries.filter { tree[$0.inode].isDirectory }.count
    }
}

/// A file system in memory.
struct ModelTree: Sendable {
    static let root = 0

    private var inodes: [Int: ModelInode] = [:]
    private var nextInode = 1
    /// Live directories, in the order of their making.
    private(set) var directories: [Int] = [root]

    init(owner: UInt32, group: UInt32, rootMode: UInt32) {
        inodes[Self.root] = ModelInode(
            content: .directory([]),
            mode: rootMode,
            owner: owner,
            group: group,
            links: []
        )
    }

    subscript(inode: Int) -> ModelInode {
        get {
            guard let found = inodes[inode] else {
                preconditionFailure("M2: inode \(inode) is gone")
            }
            return found
        }
        set { inodes[inode] = newValue }
    }

    func isLive(_ inode: Int) -> Bool { inodes[inode] != nil }

    /// The inode at a place, if something is there.
    func inode(at place: Place) -> Int? {
        self[place.parent].entries.first { $0.name == place.name }?.inode
    }

    /// The path of a directory relative to the root; "" for the root itself.
    func path(ofDirectory inode: Int) -> String {
        guard let place = self[inode].links.first else { return "" }
        return path(of: place)
    }

    func path(of place: Place) -> String {
        let parent = path(ofDirectory: place.parent)
        return parent.isEmpty ? place.name : parent + "/" + place.name
    }

    /// How many directories are above.
    func depth(of inode: Int) -> Int {
        self[inode].links.first.map { 1 + depth(of: $0.parent) } ?? 0
    }

    /// Whether `ancestor` is `inode` or above it.
    func isAncestor(_ ancestor: Int, of inode: Int) -> Bool {
        if ancestor == inode { return true }
        return self[inode].links.first.map { isAncestor(ancestor, of: $0.parent) } ?? false
    }

    mutating func record(_ text: String, for inode: Int) {
        guard inodes[inode] != nil else { return }
        inodes[inode]?.history.append(text)
    }

    // MARK: Names

    /// Adds an inode under a free name.
    mutating func create(_ inode: ModelInode, at place: Place) -> Int {
        precondition(self.inode(at: place) == nil, "the name \(place.name) is taken")
        let number = nextInode
        nextInode += 1
        inodes[number] = inode
        if inode.isDirectory { directories.append(number) }
        enter(number, at: place)
        return number
    }

    mutating func enter(_ inode: Int, at place: Place) {
        self[inode].links.append(place)
        changeEntries(of: place.parent) { $0.append((place.name, inode)) }
    }

    /// Takes a name away, and the inode with it when nothing else holds it.
    mutating func remove(_ place: Place) {
        guard let inode = inode(at: place) else { preconditionFailure("nothing at \(place)") }
        changeEntries(of: place.parent) { entries in entries.removeAll { $0.name == place.name } }
        self[inode].links.removeAll { $0 == place }
        dropIfUnused(inode)
    }

    private mutating func changeEntries(
        of directory: Int,
        _ change: (inout [(name: String, inode: Int)]) -> Void
    ) {
        var entries = self[directory].entries
        change(&entries)
        entries.sort { $0.name < $1.name }
        self[directory].content = .directory(entries)
        self[directory].modification = nil
    }

    /// Forgets an inode that no name and no handle holds (M2).
    mutating func dropIfUnused(_ inode: Int) {
        guard inode != Self.root, self[inode].links.isEmpty, self[inode].handles == 0 else {
            return
        }
        if self[inode].isDirectory { directories.removeAll { $0 == inode } }
        inodes[inode] = nil
    }

    // MARK: Content

    mutating func write(_ bytes: [UInt8], to inode: Int, at offset: Int) {
        guard !bytes.isEmpty else { return }
        var content = self[inode].bytes
        let end = offset + bytes.count
        if content.count < end { content += [UInt8](repeating: 0, count: end - content.count) }
        content.replaceSubrange(offset..<end, with: bytes)
        set(content, of: inode)
    }

    mutating func truncate(_ inode: Int, to size: Int) {
        var content = self[inode].bytes
        if size <= content.count {
            content.removeLast(content.count - size)
        } else {
            content += [UInt8](repeating: 0, count: size - content.count)
        }
        set(content, of: inode)
    }

    private mutating func set(_ content: [UInt8], of inode: Int) {
        precondition(self[inode].isFile, "only files have bytes")
        self[inode].content = .file(content)
        self[inode].modification = nil
    }
}
