// The oracle: what the tree must look like after operations that came one after the other. A value:
// a copy is a snapshot.

import FileSystem
package import Vocabulary

/// What an object of the model is.
package enum ModelKind: Hashable, Sendable {
    case file
    case directory
    case symbolicLink
    case pipe

    var typeBits: UInt32 {
        switch self {
        case .file: 0o100000
        case .directory: 0o040000
        case .symbolicLink: 0o120000
        case .pipe: 0o010000
        }
    }
}

/// A name in a directory of the model.
package struct ModelEntry: Hashable, Sendable {
    package var name: [UInt8]
    package var object: Int
}

/// A file, a directory, a link.
package struct ModelObject: Sendable {
    package var kind: ModelKind
    package var mode: UInt32
    /// Who makes something is of one group; what is in a directory with the set-group-id bit is of the
    /// directory's. The root is of group 0.
    var group: UInt32 = 0
    package var links: UInt32
    package var size: UInt64 = 0
    /// 4 KiB each; what is missing is zero.
    var pages: [UInt64: [UInt8]] = [:]
    package var target: [UInt8] = []
    /// Sorted by name.
    package var entries: [ModelEntry] = []
    var parent = 0
    /// Sorted by name.
    package var attributes: [(name: [UInt8], value: [UInt8])] = []
    /// The node that changed it last, unless that has been synchronised since.
    var toucher: Int?
    /// Something may happen to it that nobody has waited for.
    var isDoubtful = false
    /// Such an operation moves or removes it.
    var mayMove = false
    /// How often it was changed.
    var changes = 0

    func index(of name: [UInt8]) -> Int? { entries.firstIndex { $0.name == name } }
}

/// The whole tree.
package struct TreeModel: Sendable {
    static let pageSize: UInt64 = 4096

    package var objects: [ModelObject] = [ModelObject(kind: .directory, mode: 0o755, links: 2)]

    /// The node whose process does what is applied next.
    var actor = 0

    package init() {}

    // MARK: Finding

    /// The object of a path.
    package func find(_ path: PathNames) throws(FileError) -> Int {
        var here = 0
        for name in path {
            guard objects[here].kind == .directory else { throw .notDirectory }
            guard let index = objects[here].index(of: name) else { throw .notFound }
            here = objects[here].entries[index].object
        }
        return here
    }

    /// All paths with what they lead to, parents before children.
    package func allPaths() -> [(path: PathNames, object: Int)] {
        var all: [(path: PathNames, object: Int)] = [([], 0)]
        var index = 0
        while index < all.count {
            let (path, object) = all[index]
            for entry in objects[object].entries { all.append((path + [entry.name], entry.object)) }
            index += 1
        }
        return all
    }

    /// Whether everything on the path stays where it is, whatever becomes of the operations in
    /// doubt.
    func isFixed(_ path: PathNames) -> Bool {
        var here = 0
        for name in path {
            guard let index = objects[here].index(of: name) else { return false }
            here = objects[here].entries[index].object
            if objects[here].mayMove { return false }
        }
        return true
    }

    private func place(_ path: PathNames) throws(FileError) -> (directory: Int, name: [UInt8]) {
        guard let name = path.last else { throw .busy }
        let directory = try find(Array(path.dropLast()))
        guard objects[directory].kind == .directory else { throw .notDirectory }
        if name.count > 255 { throw .nameTooLong }
        return (directory, name)
    }

    // MARK: Names

    mutating func insert(_ directory: Int, _ name: [UInt8], _ object: Int) {
        let entries = objects[directory].entries
        let at = entries.firstIndex { name.lexicographicallyPrecedes($0.name) } ?? entries.count
        objects[directory].entries.insert(ModelEntry(name: name, object: object), at: at)
        touch(directory)
        if objects[object].kind == .directory {
            objects[directory].links += 1
            objects[object].parent = directory
        }
    }

    mutating func removeEntry(_ directory: Int, _ name: [UInt8]) {
        guard let index = objects[directory].index(of: name) else { return }
        let object = objects[directory].entries.remove(at: index).object
        if objects[object].kind == .directory { objects[directory].links -= 1 }
        touch(directory)
    }

    mutating func touch(_ object: Int) {
        objects[object].toucher = actor
        objects[object].changes += 1
    }

    /// An operation whose end nobody knows is about to touch an object.
    mutating func doubt(_ object: Int) {
        objects[object].isDoubtful = true
        objects[object].changes += 1
    }

    /// A node has made everything durable.
    mutating func settle(_ node: Int) {
        for index in objects.indices where objects[index].toucher == node {
            objects[index].toucher = nil
        }
    }

    /// Makes an object.
    @discardableResult
    mutating func make(
        _ kind: ModelKind,
        _ path: PathNames,
        mode: UInt32,
        target: [UInt8] = []
    ) throws(FileError) -> Int {
        let (directory, name) = try place(path)
        if objects[directory].index(of: name) != nil { throw .exists }
        if objects[directory].links == 0 { throw .notFound }
        var object = ModelObject(
            kind: kind,
            mode: mode,
            links: kind == .directory ? 2 : 1
        )
        object.target = target
        object.group =
            objects[directory].mode & 0o2000 != 0
            ? objects[directory].group : KernelModel.caller.group
        // A directory with the set-group-id bit hands it on to directories.
        if kind == .directory { object.mode |= objects[directory].mode & 0o2000 }
        if kind == .symbolicLink { object.size = UInt64(target.count) }
        object.toucher = actor
        objects.append(object)
        insert(directory, name, objects.count - 1)
        return objects.count - 1
    }

    mutating func link(_ path: PathNames, _ newPath: PathNames) throws(FileError) {
        let object = try find(path)
        let (directory, name) = try place(newPath)
        if objects[directory].index(of: name) != nil { throw .exists }
        if objects[object].kind == .directory { throw .notPermitted }
        objects[object].links += 1
        touch(object)
        insert(directory, name, object)
    }

    mutating func remove(_ path: PathNames, isDirectory: Bool) throws(FileError) {
        let (directory, name) = try place(path)
        guard let index = objects[directory].index(of: name) else { throw .notFound }
        let object = objects[directory].entries[index].object
        if isDirectory {
            if objects[object].kind != .directory { throw .notDirectory }
            if !objects[object].entries.isEmpty { throw .notEmpty }
        } else if objects[object].kind == .directory {
            throw .isDirectory
        }
        removeEntry(directory, name)
        dropLink(object)
    }

    private mutating func dropLink(_ object: Int) {
        touch(object)
        objects[object].links -= objects[object].kind == .directory ? objects[object].links : 1
    }

    private func isAncestor(_ object: Int, of directory: Int) -> Bool {
        var here = directory
        while true {
            if here == object { return true }
            if here == 0 { return false }
            here = objects[here].parent
        }
    }

    mutating func rename(
        _ path: PathNames,
        _ newPath: PathNames,
        _ kind: RenameKind
    ) throws(FileError) {
        let (from, name) = try place(path)
        let (to, newName) = try place(newPath)
        guard let index = objects[from].index(of: name) else { throw .notFound }
        let moved = objects[from].entries[index].object
        let target = objects[to].index(of: newName).map { objects[to].entries[$0].object }
        if target != nil, kind == .noReplace { throw .exists }
        if target == nil, kind == .exchange { throw .notFound }
        // Linux looks at where the two are before it looks at what they are.
        if objects[moved].kind == .directory, isAncestor(moved, of: to) { throw .invalid }
        if let target, objects[target].kind == .directory, isAncestor(target, of: from) {
            throw kind == .exchange ? .invalid : .notEmpty
        }
        if target == moved { return }
        if let target, kind == .replace {
            let (isSource, isTarget) = (
                objects[moved].kind == .directory, objects[target].kind == .directory
            )
            if isSource, !isTarget { throw .notDirectory }
            if !isSource, isTarget { throw .isDirectory }
            if !objects[target].entries.isEmpty { throw .notEmpty }
        }
        touch(moved)
        removeEntry(from, name)
        if let target {
            removeEntry(to, newName)
            if kind == .exchange {
                touch(target)
                insert(from, name, target)
            } else {
                dropLink(target)
            }
        }
        insert(to, newName, moved)
    }

    // MARK: Data

    mutating func write(_ object: Int, at offset: UInt64, _ bytes: [UInt8]) {
        var done = 0
        while done < bytes.count {
            let position = offset + UInt64(done)
            let (page, within) = (position / Self.pageSize, Int(position % Self.pageSize))
            let length = min(Int(Self.pageSize) - within, bytes.count - done)
            var content =
                objects[object].pages.removeValue(forKey: page)
                ?? [UInt8](repeating: 0, count: Int(Self.pageSize))
            content.replaceSubrange(within..<within + length, with: bytes[done..<done + length])
            objects[object].pages[page] = content
            done += length
        }
        objects[object].size = max(objects[object].size, offset + UInt64(bytes.count))
        touch(object)
    }

    /// fallocate(2).
    mutating func allocate(_ object: Int, _ range: Range<UInt64>, _ allocation: Allocation) {
        if allocation.kind != .allocate {
            for page in objects[object].pages.keys.sorted() {
                let start = page * Self.pageSize
                let part = range.clamped(to: start..<start + Self.pageSize)
                for place in part { objects[object].pages[page]?[Int(place - start)] = 0 }
            }
        }
        if !allocation.keepsSize, range.upperBound > objects[object].size {
            objects[object].size = range.upperBound
        }
        touch(object)
    }

    mutating func resize(_ object: Int, to size: UInt64) {
        let old = objects[object].size
        if size < old {
            let first = size / Self.pageSize
            for page in objects[object].pages.keys.sorted() where page >= first {
                if page > first || size % Self.pageSize == 0 {
                    objects[object].pages[page] = nil
                } else {
                    for index in Int(size % Self.pageSize)..<Int(Self.pageSize) {
                        objects[object].pages[page]?[index] = 0
                    }
                }
            }
        }
        objects[object].size = size
        touch(object)
    }

    /// The bytes of a file from `offset` on, as many as there are.
    package func read(_ object: Int, at offset: UInt64, count: Int) -> [UInt8] {
        let size = objects[object].size
        guard offset < size else { return [] }
        let length = Int(min(UInt64(count), size - offset))
        var result: [UInt8] = []
        result.reserveCapacity(length)
        while result.count < length {
            let position = offset + UInt64(result.count)
            let within = Int(position % Self.pageSize)
            let part = min(Int(Self.pageSize) - within, length - result.count)
            if let page = objects[object].pages[position / Self.pageSize] {
                result += page[within..<within + part]
            } else {
                result += [UInt8](repeating: 0, count: part)
            }
        }
        return result
    }

    // MARK: Extended attributes

    mutating func setAttribute(_ object: Int, _ name: [UInt8], _ value: [UInt8]?) {
        objects[object].attributes.removeAll { $0.name == name }
        if let value { objects[object].attributes.append((name, value)) }
        objects[object].attributes.sort { $0.name.lexicographicallyPrecedes($1.name) }
        touch(object)
    }
}
