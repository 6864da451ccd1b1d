import CLinux
import Glibc

/// Compares what a mount shows with what the model says.
struct Comparison {
    let tree: ModelTree
    /// Inode numbers, modification and change times that one node showed; every other must show the
    /// same. Off where the "nodes" of a test of the test are different file systems.
    var demandsSameInodes = true

    /// A thing that is not as it should be.
    struct Difference: Error, CustomStringConvertible {
        let description: String
        /// The model's inode that it is about.
        let inode: Int?
    }

    private func demand<Value: Equatable>(
        _ what: String,
        _ found: Value,
        _ expected: Value,
        _ inode: Int?,
        _ path: String
    ) throws {
        guard found == expected else {
            throw Difference(
                description: "\(path): \(what) is \(found), should be \(expected)",
                inode: inode
            )
        }
    }

    /// Everything about one name, and the listing of its directory, as seen below `root`.
    func checkPlace(_ place: Place, root: String) throws {
        guard tree.isLive(place.parent) else { return }
        let path = root + "/" + tree.path(of: place)
        if let inode = tree.inode(at: place) {
            try checkInode(inode, path)
        } else {
            do {
                let status = try Files.status(path)
                throw Difference(
                    description: "\(path) should not exist, but stat says \(status)",
                    inode: place.parent
                )
            } catch let failure as SystemFailure {
                try demand("errno of stat", failure.code, ENOENT, place.parent, path)
            }
        }
        try checkListing(place.parent, root: root)
    }

    /// Attributes, extended attributes and content of one inode.
    func checkInode(_ inode: Int, _ path: String) throws {
        let expected = tree[inode]
        try wrap(inode, path) {
            try checkStatus(try Files.status(path), inode, path)
            if !expected.isSymbolicLink {
                try demand(
                    "extended attributes",
                    try Files.attributes(path),
                    expected.attributes,
                    inode,
                    path
                )
            }
            switch expected.content {
            case .file(let bytes): try checkBytes(try Files.contents(path), bytes, inode, path)
            case .symbolicLink(let target):
                try demand("link target", try Files.linkTarget(path), target, inode, path)
            case .directory: break
            }
        }
    }

    private func checkListing(_ directory: Int, root: String) throws {
        let path = root + "/" + tree.path(ofDirectory: directory)
        try wrap(directory, path) {
            let expected = tree[directory].entries.map(\.name).sorted()
            try demand("listing", try Files.names(path), expected, directory, path)
        }
    }

    /// What an open handle sees.
    func checkHandle(_ handle: Handle) throws {
        let name = "handle of node \(handle.node + 1)"
        try wrap(handle.inode, name) {
            try checkStatus(try Files.status(of: handle.descriptor), handle.inode, name)
            let bytes = try Files.contents(of: handle.descriptor)
            try checkBytes(bytes, tree[handle.inode].bytes, handle.inode, name)
        }
    }

    private func checkStatus(_ status: Status, _ inode: Int, _ path: String) throws {
        let expected = tree[inode]
        let kind: UInt32 =
            expected.isDirectory ? S_IFDIR : expected.isSymbolicLink ? S_IFLNK : S_IFREG
        try demand("kind", status.mode & S_IFMT, kind, inode, path)
        try demand(
            "mode",
            String(status.mode & 0o7777, radix: 8),
            String(expected.mode, radix: 8),
            inode,
            path
        )
        try demand("owner", status.owner, expected.owner, inode, path)
        try demand("group", status.group, expected.group, inode, path)
        try demand("link count", status.links, expected.linkCount(in: tree), inode, path)
        if expected.isFile { try demand("size", status.size, expected.bytes.count, inode, path) }
        if let modification = expected.modification {
            try demand("modification time", status.modification, modification, inode, path)
        }
    }

    private func checkBytes(
        _ found: [UInt8],
        _ expected: [UInt8],
        _ inode: Int,
        _ path: String
    ) throws {
        try demand("length read", found.count, expected.count, inode, path)
        guard found != expected else { return }
        let first = zip(found, expected).enumerated().first { $0.element.0 != $0.element.1 }
        let wrong = zip(found, expected).filter { $0 != $1 }.count
        throw Difference(
            description: "\(path): \(wrong) of \(found.count) bytes differ, the first at "
                + "\(first?.offset ?? 0): \(first?.element.0 ?? 0) instead of \(first?.element.1 ?? 0)",
            inode: inode
        )
    }

    /// Two nodes' stat of one name.
    func checkAgreement(_ place: Place, _ one: TestNode, _ other: TestNode) throws {
        guard demandsSameInodes, tree.isLive(place.parent), let inode = tree.inode(at: place) else {
            return
        }
        let path = tree.path(of: place)
        try wrap(inode, path) {
            let first = try Files.status(one.root + "/" + path)
            let second = try Files.status(other.root + "/" + path)
            try demand("stat on \(other.name), against \(one.name)", second, first, inode, path)
        }
    }

    /// The whole tree.
    func checkAll(root: String) throws {
        for directory in tree.directories {
            try checkListing(directory, root: root)
            for entry in tree[directory].entries {
                let path = tree.path(of: Place(parent: directory, name: entry.name))
                try checkInode(entry.inode, root + "/" + path)
            }
        }
    }

    private func wrap(_ inode: Int, _ path: String, _ body: () throws -> Void) throws {
        do {
            try body()
        } catch let failure as SystemFailure {
            throw Difference(description: "\(path): \(failure)", inode: inode)
        }
    }
}
