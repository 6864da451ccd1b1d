// A tree of the model, name by name, and how one that was found differs from it.

/// All names of a model tree, by path ascending, and what they lead to.
struct ExpectedTree: Sendable {
    private struct Name: Sendable {
        var path: String
        var node: Int
        var linkCount: UInt32
    }

    let tree: ModelTree
    private let names: [Name]

    init(_ tree: ModelTree) {
        self.tree = tree
        var found: [Name] = []
        func visit(_ node: Int, _ path: String) {
            let object = tree.nodes[node]
            let isDirectory = object.kind == .directory
            let links =
                isDirectory
                ? 2 + object.entries.count { tree.nodes[$0.node].kind == .directory }
                : tree.nameCount(of: node)
            found.append(Name(path: path, node: node, linkCount: UInt32(links)))
            for entry in object.entries {
                visit(entry.node, path.isEmpty ? entry.name : path + "/" + entry.name)
            }
        }
        visit(0, "")
        names = found.sorted { $0.path < $1.path }
    }

    /// The first difference: names, identity, kinds, link counts, attributes and targets of symbolic
    /// links; nil if there is none. `content` says what is wrong with the content of a file, the
    /// number of whose node it is given.
    func difference(
        from found: ObservedTree,
        content: (_ file: ObservedObject, _ node: Int) -> String?
    ) -> String? {
        let objects = found.objects
        for (want, have) in zip(names, objects) where want.path != have.path {
            return want.path < have.path ? "/\(want.path) is missing" : "/\(have.path) is there"
        }
        if names.count > objects.count { return "/\(names[objects.count].path) is missing" }
        if objects.count > names.count { return "/\(objects[names.count].path) is there" }
        for index in names.indices {
            let (want, have) = (names[index], objects[index])
            if let twin = names.indices.first(where: {
                (names[$0].node == want.node) != (objects[$0].inode == have.inode)
            }) {
                return names[twin].node == want.node
                    ? "/\(want.path) and /\(names[twin].path) are not the same"
                    : "/\(want.path) and /\(names[twin].path) are the same"
            }
            if let wrong = difference(have, want, content) { return "/\(want.path): \(wrong)" }
        }
        return nil
    }

    private func difference(
        _ have: ObservedObject,
        _ want: Name,
        _ content: (_ file: ObservedObject, _ node: Int) -> String?
    ) -> String? {
        let node = tree.nodes[want.node]
        if have.kind != node.kind { return "a \(have.kind), not a \(node.kind)" }
        if have.linkCount != want.linkCount {
            return "\(have.linkCount) links, not \(want.linkCount)"
        }
        if have.attribute != node.attribute { return "another extended attribute" }
        if node.kind == .file { return content(have, want.node) }
        return have.content == node.content ? nil : "another target"
    }
}
