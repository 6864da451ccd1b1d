import Glibc

extension ModelTree {
    /// Does an operation. Returns the errno that Linux gives for it; handles must be open.
    mutating func apply(_ operation: Operation, handles: [Handle?], as user: (UInt32, UInt32))
        -> Int32
    {
        switch operation {
        case .write(let place, let data, let offset):
            fileForWriting(place, user) { $0.write(data.bytes, to: $1, at: offset) }
        case .append(let place, let data):
            fileForWriting(place, user) { $0.write(data.bytes, to: $1, at: $0[$1].bytes.count) }
        case .truncate(let place, let size):
            inode(at: place) == nil
                ? ENOENT : fileForWriting(place, user) { $0.truncate($1, to: size) }
        case .rename(let from, let to, let replacing): rename(from, to, replacing: replacing)
        case .link(let from, let to): link(from, to)
        case .unlink(let place): unlink(place)
        case .makeDirectory(let place): make(.directory([]), 0o755, at: place, user)
        case .removeDirectory(let place): removeDirectory(place)
        case .makeSymbolicLink(let place, let target):
            make(.symbolicLink(target), 0o777, at: place, user)
        case .changeMode(let place, let mode): change(place) { $0.mode = mode }
        case .changeOwner(let place, let owner, let group):
            change(place) {
                $0.owner = owner
                $0.group = group
            }
        case .setTime(let place, let nanoseconds): change(place) { $0.modification = nanoseconds }
        case .setAttribute(let place, let attribute):
            change(place) { inode in
                inode.attributes.removeAll { $0.name == attribute.name }
                inode.attributes.append(attribute)
                inode.attributes.sort { $0.name < $1.name }
            }
        case .removeAttribute(let place, let name): removeAttribute(name, place)
        case .synchronise(let place), .read(let place), .openHandle(_, let place, _):
            inode(at: place) == nil ? ENOENT : 0
        case .writeHandle(let slot, let data, let offset): writeHandle(handles[slot], data, offset)
        case .mapAndWriteHandle(let slot, let data, let offset):
            writeHandle(handles[slot], data, offset)
        case .truncateHandle(let slot, let size):
            withHandle(handles[slot]) { $0.truncate($1, to: size) }
        case .synchroniseHandle, .readHandle, .closeHandle: 0
        }
    }

    /// open(O_CREAT | O_NOFOLLOW) for writing, then `body`.
    private mutating func fileForWriting(
        _ place: Place,
        _ user: (UInt32, UInt32),
        _ body: (inout ModelTree, Int) -> Void
    ) -> Int32 {
        guard let found = inode(at: place) else {
            let fresh = ModelInode(
                content: .file([]),
                mode: 0o644,
                owner: user.0,
                group: user.1,
                links: []
            )
            body(&self, create(fresh, at: place))
            return 0
        }
        if self[found].isDirectory { return EISDIR }
        if self[found].isSymbolicLink { return ELOOP }
        body(&self, found)
        return 0
    }

    private mutating func withHandle(
        _ handle: Handle?,
        _ body: (inout ModelTree, Int) -> Void
    ) -> Int32 {
        guard let handle else { preconditionFailure("the handle is not open") }
        body(&self, handle.inode)
        return 0
    }

    private mutating func writeHandle(_ handle: Handle?, _ data: Pattern, _ offset: Int) -> Int32 {
        withHandle(handle) { tree, inode in
            let appends = handle?.appends ?? false
            tree.write(data.bytes, to: inode, at: appends ? tree[inode].bytes.count : offset)
        }
    }

    private mutating func make(
        _ content: ModelInode.Content,
        _ mode: UInt32,
        at place: Place,
        _ user: (UInt32, UInt32)
    ) -> Int32 {
        guard inode(at: place) == nil else { return EEXIST }
        _ = create(
            ModelInode(content: content, mode: mode, owner: user.0, group: user.1, links: []),
            at: place
        )
        return 0
    }

    private mutating func change(_ place: Place, _ body: (inout ModelInode) -> Void) -> Int32 {
        guard let found = inode(at: place) else { return ENOENT }
        body(&self[found])
        return 0
    }

    private mutating func removeAttribute(_ name: String, _ place: Place) -> Int32 {
        guard let found = inode(at: place) else { return ENOENT }
        guard self[found].attributes.contains(where: { $0.name == name }) else { return ENODATA }
        self[found].attributes.removeAll { $0.name == name }
        return 0
    }

    private mutating func unlink(_ place: Place) -> Int32 {
        guard let found = inode(at: place) else { return ENOENT }
        if self[found].isDirectory { return EISDIR }
        remove(place)
        return 0
    }

    private mutating func removeDirectory(_ place: Place) -> Int32 {
        guard let found = inode(at: place) else { return ENOENT }
        if !self[found].isDirectory { return ENOTDIR }
        if !self[found].entries.isEmpty { return ENOTEMPTY }
        remove(place)
        return 0
    }

    private mutating func link(_ from: Place, _ to: Place) -> Int32 {
        guard let source = inode(at: from) else { return ENOENT }
        if inode(at: to) != nil { return EEXIST }
        if self[source].isDirectory { return EPERM }
        enter(source, at: to)
        return 0
    }

    /// The order of the checks is the kernel's: names first, then loops, then kinds.
    private mutating func rename(_ from: Place, _ to: Place, replacing: Bool) -> Int32 {
        guard let source = inode(at: from) else { return ENOENT }
        let target = inode(at: to)
        if target != nil && !replacing { return EEXIST }
        if self[source].isDirectory && isAncestor(source, of: to.parent) { return EINVAL }
        if let target, self[target].isDirectory, isAncestor(target, of: from.parent) {
            return ENOTEMPTY
        }
        if let target {
            if source == target { return 0 }
            if self[source].isDirectory && !self[target].isDirectory { return ENOTDIR }
            if !self[source].isDirectory && self[target].isDirectory { return EISDIR }
            if !self[target].entries.isEmpty { return ENOTEMPTY }
            remove(to)
        }
        // Enter before removing: an inode without a name would be dropped (M2). A directory's first
        // place is its path, so the old one goes at once.
        enter(source, at: to)
        remove(from)
        return 0
    }
}
