// Everything that a directory shows, as a value: of two nodes it must be the same, and what the
// model of it says.

import Glibc
import SimulatedWorld

/// One object as a program sees it.
struct ShownObject: Hashable, Sendable, CustomStringConvertible {
    /// The type's bits and the nine bits for owner, group and others.
    var mode: UInt32
    var links: Int
    /// 0 for a directory: that is the file system's own affair.
    var size: Int
    var content: [UInt8]
    var attributes: [Attribute]

    var description: String {
        "mode \(String(mode, radix: 8)), \(links) links, size \(size), \(attributes.count) "
            + "attributes, content \(content.prefix(8))…"
    }
}

/// All of a tree by path.
struct TreeImage {
    private(set) var objects: [(path: String, object: ShownObject)] = []

    /// What is shown at `root`.
    init(shownAt root: String) throws {
        var waiting = [""]
        while let path = waiting.popLast() {
            let whole = root + path
            let status = try Files.status(whole)
            var object = ShownObject(
                mode: status.mode & (S_IFMT | 0o777),
                links: status.links,
                size: status.isDirectory ? 0 : status.size,
                content: [],
                attributes: []
            )
            switch status.mode & S_IFMT {
            case S_IFDIR:
                waiting += try Files.names(whole).map { path + "/" + $0 }
                object.attributes = try Files.attributes(whole)
            case S_IFREG:
                object.content = try Files.contents(whole)
                object.attributes = try Files.attributes(whole)
            case S_IFLNK: object.content = Array(try Files.linkTarget(whole).utf8)
            default: break
            }
            objects.append((path, object))
        }
        objects.sort { $0.path < $1.path }
    }

    /// What a model has.
    init(_ tree: TreeModel) {
        for (names, index) in tree.allPaths() {
            let found = tree.objects[index]
            let content =
                found.kind == .file
                ? tree.read(index, at: 0, count: Int(found.size)) : found.target
            let object = ShownObject(
                mode: Self.type(found.kind) | found.mode & 0o777,
                links: Int(found.links),
                size: found.kind == .directory ? 0 : Int(found.size),
                content: content,
                attributes: found.attributes.map {
                    Attribute(name: String(decoding: $0.name, as: UTF8.self), value: $0.value)
                }
            )
            objects.append((TreeOperations(root: "").path(names), object))
        }
        objects.sort { $0.path < $1.path }
    }

    private static func type(_ kind: ModelKind) -> UInt32 {
        switch kind {
        case .file: S_IFREG
        case .directory: S_IFDIR
        case .symbolicLink: S_IFLNK
        case .pipe: S_IFIFO
        }
    }

    /// Throws what is different, if anything is.
    func demandSame(as other: TreeImage, _ names: (String, String)) throws {
        for (mine, theirs) in zip(objects, other.objects) {
            guard mine.path == theirs.path else {
                let missing = min(mine.path, theirs.path)
                let shower = mine.path < theirs.path ? names.0 : names.1
                throw Trouble("only \(shower) has \(missing)")
            }
            if mine.object != theirs.object {
                throw Trouble(
                    "\(mine.path): \(names.0): \(mine.object); \(names.1): \(theirs.object)"
                )
            }
        }
        if objects.count != other.objects.count {
            throw Trouble(
                "\(names.0) has \(objects.count) names, \(names.1) has \(other.objects.count)"
            )
        }
    }
}
