// A directory: names, each with a key, an inode and a type.
//
// The key of a name is made of 55 bits of hash and 8 bits that tell names of one hash apart: the
// lowest number that is free when the name comes. It stays as long as the name does, and is what
// readdir resumes by. A small directory has its entries in the inode's body; a larger one has
// leaves and an index (TreePath).
//
//   body (inlineDirectory) --no room--> one or two leaves under a root in the body (directoryIndex)
//   full leaf --insert--> two leaves; cut in the middle, between different hashes if possible
//   leaf --last entry goes--> freed, and index nodes that become empty with it
//   root over one leaf that would half fill the body --remove--> body
//
// A lookup goes to the leaf of the lowest key its hash can have and compares names from there,
// through following leaves if the names of that hash reach so far.
//
// Invariants
// D1. Keys are unique and ascend through the leaves; `key >> 8 << 8` is the hash of the name.
// D2. Names are unique: an entry is inserted only after all names of its hash were compared.
// D3. A key never changes while its entry lives; so an enumeration that resumes behind a key
//     returns each entry that lives throughout exactly once.
// D4. entryCount is the number of entries; size is entryCount times `bytesPerEntry`.
// D5. With an index, height is 1 or more and no leaf is empty; without entries the directory is
//     inline.
//
// "." and ".." are not stored; their cookies are 1 and 2, below every key.
//
// Sources: ext4's htree (hash-ordered readdir), and what it cannot do: resume within equal hashes.

package import DiskFormat
import Journaling
import Vocabulary

/// What a directory that is in memory knows about a name.
package enum DirectoryLookup {
    case found(DirectoryEntryRecord)
    case absent
    /// Not all blocks needed are in memory.
    case unknown
}

/// The names in one directory.
package struct Directory {
    package let store: FileStore
    package let inode: StoredInode

    /// What each entry adds to the size that `stat` shows.
    package static let bytesPerEntry: UInt64 = 32
    /// Cookie behind ".".
    package static let dotCookie: UInt64 = 1
    /// Cookie behind "..".
    package static let dotDotCookie: UInt64 = 2

    package init(_ store: FileStore, _ inode: StoredInode) {
        self.store = store
        self.inode = inode
    }

    /// Whether there is no name in it.
    package var isEmpty: Bool { inode.record.entryCount == 0 }

    /// The entry of a name; nil if there is none.
    ///
    /// - Throws: `tooLong`, `invalidName`, `storage`.
    package func find(
        _ name: UnsafeRawBufferPointer
    ) async throws(StoreError) -> DirectoryEntryRecord? {
        try Self.check(name)
        var source = NodeSource(store, inode)
        return try await source.run { source throws(Interruption) in
            try search(name, source).found?.record
        }
    }

    /// As `find`, at once.
    package func findIfCached(_ name: UnsafeRawBufferPointer) -> DirectoryLookup {
        let result = NodeSource(store, inode).runIfCached { source throws(Interruption) in
            try search(name, source).found?.record
        }
        guard let result else { return .unknown }
        return result.map { .found($0) } ?? .absent
    }

    static func check(_ name: UnsafeRawBufferPointer) throws(StoreError) {
        do throws(NameError) { try checkName(name) } catch {
            throw error == .tooLong ? .tooLong : .invalidName
        }
    }

    // MARK: search

    /// One place in one leaf.
    struct Place {
        var path: TreePath
        var area: DirectoryArea
        /// Bytes from the start of the entries.
        var offset: Int
    }

    /// What a search through all names of a hash finds.
    struct SearchResult {
        let tree: Tree
        var found: (place: Place, record: DirectoryEntryRecord)?
        /// Where a name of this hash would go, and its key; nil if there are too many already. Only
        /// if not found.
        var gap: (place: Place, key: UInt64)?
    }

    /// Compares all names of the hash of `name`, and finds the lowest free key on the way.
    func search(
        _ name: UnsafeRawBufferPointer,
        _ source: NodeSource
    ) throws(Interruption) -> SearchResult {
        let tree = try self.tree(source)
        let firstKey = DirectoryEntryRecord.firstKey(forName: name)
        let lastKey = firstKey + DirectoryEntryRecord.maximumCollisions - 1
        var candidate = firstKey
        var result = SearchResult(tree: tree)
        var path = try tree.descend(to: firstKey)
        while true {
            let area = try DirectoryArea(path, of: inode)
            var cursor = EntryCursor(area)
            var place = 0
            while let record = try cursor.next() {
                if record.key > lastKey { break }
                if record.key >= firstKey {
                    if Self.equal(cursor.name(of: record), name) {
                        result.found = (Place(path: path, area: area, offset: place), record)
                        return result
                    }
                    if record.key == candidate {
                        candidate += 1
                    } else if result.gap == nil {
                        result.gap = (Place(path: path, area: area, offset: place), candidate)
                    }
                }
                place = cursor.place
            }
            // The lowest free key belongs to this leaf unless the next one begins at or before it
            // (T1).
            let bound = path.upperBound ?? UInt64.max
            if result.gap == nil, candidate <= lastKey, candidate < bound {
                result.gap = (Place(path: path, area: area, offset: place), candidate)
            }
            guard bound <= lastKey, try tree.moveToNextLeaf(&path) else { return result }
        }
    }

    /// The tree, after the layout was checked (D5).
    func tree(_ source: NodeSource) throws(Interruption) -> Tree {
        let record = inode.record
        switch record.layout {
        case .inlineDirectory where record.height == 0: break
        case .directoryIndex where record.height > 0: break
        default:
            throw .damaged(inode.number.address, "layout", UInt64(record.layout.rawValue))
        }
        return Tree(source, .directory)
    }

    private static func equal(
        _ left: UnsafeRawBufferPointer,
        _ right: UnsafeRawBufferPointer
    ) -> Bool {
        left.count == right.count && left.elementsEqual(right)
    }

    // MARK: enumeration

    /// Calls `body` for each entry whose key is above `cookie`, in the order of keys, until it
    /// returns false. The record's key is the cookie to go on from. The name is valid during the
    /// call.
    package func enumerate(
        after cookie: UInt64,
        _ body: (DirectoryEntryRecord, UnsafeRawBufferPointer) -> Bool
    ) async throws(StoreError) {
        var next: UInt64? = cookie == .max ? nil : cookie + 1
        while let start = next {
            var source = NodeSource(store, inode)
            let (area, bound) = try await source.run { source throws(Interruption) in
                let path = try tree(source).descend(to: start)
                return (try DirectoryArea(path, of: inode), path.upperBound)
            }
            do throws(Interruption) {
                var cursor = EntryCursor(area)
                while let record = try cursor.next() {
                    if record.key >= start, !body(record, cursor.name(of: record)) { return }
                }
            } catch {
                throw error.asStoreError(area.block.address)
            }
            guard bound.map({ $0 > start }) ?? true else {
                throw .damaged(area.block.address, "bound", start)
            }
            next = bound
        }
    }

    /// As `enumerate`, at once, as far as blocks are in memory and in order. Returns the cookie to
    /// go on from with `enumerate`, or nil when the end was reached or `body` returned false.
    package func enumerateCached(
        after cookie: UInt64,
        _ body: (DirectoryEntryRecord, UnsafeRawBufferPointer) -> Bool
    ) -> UInt64? {
        var last = cookie
        while last < .max {
            let start = last + 1
            let leaf = NodeSource(store, inode).runIfCached { source throws(Interruption) in
                let path = try tree(source).descend(to: start)
                return (try DirectoryArea(path, of: inode), path.upperBound)
            }
            guard let (area, bound) = leaf else { return last }
            do throws(Interruption) {
                var cursor = EntryCursor(area)
                while let record = try cursor.next() {
                    guard record.key > last else { continue }
                    last = record.key
                    guard body(record, cursor.name(of: record)) else { return nil }
                }
            } catch {
                return last
            }
            guard let bound else { return nil }
            guard bound > last else { return last }
            last = bound - 1
        }
        return nil
    }
}
