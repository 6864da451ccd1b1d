// The tree as plain values: what the oracle knows of what the file system ought to do. It shares no
// code with the file system.

/// What an object is.
package enum ModelKind: Hashable, Sendable {
    case file
    case directory
    case symlink
}

/// One object of the model.
package struct ModelNode: Hashable, Sendable {
    package var kind: ModelKind
    /// Of a file: its bytes. Of a symbolic link: its target.
    package var content: [UInt8] = []
    package var attribute: [UInt8]?
    /// Of a directory: names and the numbers of what they lead to, ascending.
    package var entries: [ModelEntry] = []
    /// The number of the operation that made it: who it is in trees that not all operations led to.
    package fileprivate(set) var birth = -1
    /// Other bytes that a file may have, each of these as long as `content`: what a crash left of
    /// operations that were not durable.
    package var alternatives: [[UInt8]] = []

    package init(kind: ModelKind) { self.kind = kind }

    /// Makes a file so long; what is new is zero.
    package mutating func resize(to size: Int) {
        Self.resize(&content, to: size)
        for index in alternatives.indices { Self.resize(&alternatives[index], to: size) }
    }

    private static func resize(_ bytes: inout [UInt8], to size: Int) {
        if size < bytes.count {
            bytes.removeLast(bytes.count - size)
        } else {
            bytes.append(contentsOf: [UInt8](repeating: 0, count: size - bytes.count))
        }
    }

    /// Puts bytes into a file, which is made longer if they do not fit.
    fileprivate mutating func write(_ bytes: [UInt8], at offset: Int) {
        resize(to: max(content.count, offset + bytes.count))
        let range = offset..<offset + bytes.count
        content.replaceSubrange(range, with: bytes)
        for index in alternatives.indices {
            alternatives[index].replaceSubrange(range, with: bytes)
        }
    }
}

/// A name in a directory.
package struct ModelEntry: Hashable, Sendable {
    package var name: String
    package var node: Int
}

/// A tree. Nodes are numbered in the order in which they were made and stay where they are when
/// their last name has gone; number 0 is the root.
package struct ModelTree: Hashable, Sendable {
    package var nodes = [ModelNode(kind: .directory)]

    package init() {}

    // MARK: Looking

    /// The number of what a path leads to; nil if it leads nowhere.
    package func find(_ path: String) -> Int? {
        var node = 0
        for name in path.split(separator: "/") {
            guard nodes[node].kind == .directory,
                let entry = nodes[node].entries.first(where: { $0.name == name })
            else { return nil }
            node = entry.node
        }
        return node
    }

    /// The numbers of all that a path leads through, and of what it leads to, as far as it leads.
    package func nodes(along path: String) -> [Int] {
        var found = [0]
        for name in path.split(separator: "/") {
            guard
                let entry = nodes[found[found.count - 1]].entries.first(where: { $0.name == name })
            else { break }
            found.append(entry.node)
        }
        return found
    }

    /// How many names a node has, in the whole tree.
    package func nameCount(of node: Int) -> Int {
        reachable().reduce(0) { sum, directory in
            sum + nodes[directory].entries.count { $0.node == node }
        }
    }

    /// Directories that can be reached from the root.
    private func reachable() -> [Int] {
        var found = [0]
        var next = 0
        while next < found.count {
            for entry in nodes[found[next]].entries where nodes[entry.node].kind == .directory {
                found.append(entry.node)
            }
            next += 1
        }
        return found
    }

    // MARK: Changing

    /// Does an operation. Returns the numbers of the nodes that it concerns, those whose fsync
    /// makes it durable; nil, and nothing is changed, if it would be refused.
    package mutating func perform(_ operation: CrashOperation, number: Int) -> [Int]? {
        switch operation {
        case .create(let path): make(path, ModelNode(kind: .file), number)
        case .makeDirectory(let path): make(path, ModelNode(kind: .directory), number)
        case .makeSymlink(let path, let length):
            make(path, Self.symlink(number, length: length), number)
        case .write(let path, let offset, let count):
            write(path, at: offset, count: count, number)
        case .append(let path, let count):
            file(path).flatMap { write(path, at: nodes[$0].content.count, count: count, number) }
        case .truncate(let path, let size): truncate(path, to: size)
        case .setAttribute(let path, let count):
            setAttribute(path, CrashOperation.pattern(number, offset: 0, count: count))
        case .link(let path, let name): link(path, at: name)
        case .unlink(let path): remove(path, isDirectory: false)
        case .removeDirectory(let path): remove(path, isDirectory: true)
        case .rename(let path, let target): rename(path, to: target)
        case .exchange(let path, let other): exchange(path, other)
        case .open(let path): file(path).map { _ in [] }
        case .synchronize(let path): find(path).map { _ in [] }
        case .synchronizeAll, .pause, .unmount: []
        }
    }

    private static func symlink(_ number: Int, length: Int) -> ModelNode {
        var node = ModelNode(kind: .symlink)
        node.content = CrashOperation.pattern(number, offset: 0, count: length)
        return node
    }

    private func file(_ path: String) -> Int? {
        find(path).flatMap { nodes[$0].kind == .file ? $0 : nil }
    }

    /// The directory of a path, and the name in it.
    private func split(_ path: String) -> (directory: Int, name: String)? {
        let names = path.split(separator: "/")
        guard let name = names.last,
            let directory = find(names.dropLast().joined(separator: "/")),
            nodes[directory].kind == .directory
        else { return nil }
        return (directory, String(name))
    }

    private mutating func enter(_ node: Int, _ name: String, in directory: Int) {
        let place = nodes[directory].entries.firstIndex { $0.name > name }
        nodes[directory].entries.insert(
            ModelEntry(name: name, node: node),
            at: place ?? nodes[directory].entries.count
        )
    }

    private mutating func make(_ path: String, _ node: ModelNode, _ number: Int) -> [Int]? {
        guard find(path) == nil, let (directory, name) = split(path) else { return nil }
        nodes.append(node)
        nodes[nodes.count - 1].birth = number
        enter(nodes.count - 1, name, in: directory)
        return [directory, nodes.count - 1]
    }

    private mutating func write(
        _ path: String,
        at offset: Int,
        count: Int,
        _ number: Int
    ) -> [Int]? {
        guard let node = file(path) else { return nil }
        let bytes = CrashOperation.pattern(number, offset: offset, count: count)
        nodes[node].write(bytes, at: offset)
        return [node]
    }

    private mutating func truncate(_ path: String, to size: Int) -> [Int]? {
        guard let node = file(path) else { return nil }
        nodes[node].resize(to: size)
        return [node]
    }

    private mutating func setAttribute(_ path: String, _ value: [UInt8]) -> [Int]? {
        guard let node = find(path), nodes[node].kind != .symlink else { return nil }
        nodes[node].attribute = value
        return [node]
    }

    private mutating func link(_ path: String, at name: String) -> [Int]? {
        guard let node = find(path), nodes[node].kind != .directory, find(name) == nil,
            let place = split(name)
        else { return nil }
        enter(node, place.name, in: place.directory)
        return [place.directory, node]
    }

    private mutating func remove(_ path: String, isDirectory: Bool) -> [Int]? {
        guard let node = find(path), node != 0, let (directory, name) = split(path),
            (nodes[node].kind == .directory) == isDirectory, nodes[node].entries.isEmpty
        else { return nil }
        nodes[directory].entries.removeAll { $0.name == name }
        return [directory, node]
    }

    private func isInside(_ node: Int, _ ancestor: Int) -> Bool {
        node == ancestor
            || nodes[ancestor].entries.contains {
                nodes[$0.node].kind == .directory && isInside(node, $0.node)
            }
    }

    private mutating func rename(_ path: String, to target: String) -> [Int]? {
        guard let node = find(path), let from = split(path), let to = split(target),
            !isInside(to.directory, node)
        else { return nil }
        var concerned = [from.directory, to.directory, node]
        if let replaced = find(target) {
            // Two names of one file: rename(2) does nothing.
            if replaced == node { return [] }
            let isDirectory = nodes[node].kind == .directory
            guard (nodes[replaced].kind == .directory) == isDirectory,
                nodes[replaced].entries.isEmpty
            else { return nil }
            concerned.append(replaced)
            nodes[to.directory].entries.removeAll { $0.name == to.name }
        }
        nodes[from.directory].entries.removeAll { $0.name == from.name }
        enter(node, to.name, in: to.directory)
        return concerned
    }

    private mutating func exchange(_ path: String, _ other: String) -> [Int]? {
        guard let first = find(path), let second = find(other), first != second,
            let (firstDirectory, firstName) = split(path),
            let (secondDirectory, secondName) = split(other),
            !isInside(secondDirectory, first), !isInside(firstDirectory, second)
        else { return nil }
        nodes[firstDirectory].entries.removeAll { $0.name == firstName }
        nodes[secondDirectory].entries.removeAll { $0.name == secondName }
        enter(second, firstName, in: firstDirectory)
        enter(first, secondName, in: secondDirectory)
        return [firstDirectory, secondDirectory, first, second]
    }
}
