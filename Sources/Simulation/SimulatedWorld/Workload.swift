// Which operation comes next: by dice, among what the tree has.

import FileSystem
package import Vocabulary

/// Throws the dice for operations on a tree. Simulated processes and programs on real mounts do the same.
package struct Workload: Sendable {
    var dice: SeededGenerator
    /// No file far beyond a megabyte.
    package var keepsFilesSmall = false
    /// Long writes, so that the volume is full before long.
    var fillsUp = false
    private var nextPattern: UInt64 = 1
    private let mix: WorkloadMix
    private let table: [(kind: OperationKind, weight: Int)]

    package init(_ mix: WorkloadMix, dice: SeededGenerator) {
        self.mix = mix
        self.dice = dice
        table = mix.table
    }

    private mutating func pattern() -> UInt64 {
        nextPattern += 1
        return nextPattern &* 0x9E37_79B9
    }

    private mutating func newName() -> [UInt8] {
        if dice.oneIn(30) {
            return [UInt8](
                repeating: UInt8(ascii: "x") + UInt8(dice.below(3)),
                count: 200 + dice.below(56)
            )
        }
        return Array("\(dice.oneIn(3) ? "file" : "n")\(dice.below(mix.names))".utf8)
    }

    /// A place where something could be made, or already is.
    mutating func place(_ paths: [(path: PathNames, object: Int)], _ tree: TreeModel) -> PathNames {
        let directories = paths.filter { tree.objects[$0.object].kind == .directory }
        var parent = directories[dice.below(directories.count)].path
        if parent.count > 5 || !dice.oneIn(mix.deepOneIn) { parent = [] }
        return parent + [newName()]
    }

    /// Some path that exists; of that kind if there is one.
    mutating func existing(
        _ paths: [(path: PathNames, object: Int)],
        _ tree: TreeModel,
        _ kind: ModelKind? = nil
    ) -> PathNames {
        let suitable = kind.map { kind in paths.filter { tree.objects[$0.object].kind == kind } }
        if let suitable, !suitable.isEmpty { return suitable[dice.below(suitable.count)].path }
        return paths[dice.below(paths.count)].path
    }

    /// What comes next in this tree.
    package mutating func next(_ tree: TreeModel) -> TreeOperation {
        let paths = tree.allPaths()
        // What grows without end makes runs slow.
        if paths.count > 60 * max(1, mix.names / 14), dice.oneIn(6) { return remove(paths, tree) }
        let hasFiles = paths.contains { tree.objects[$0.object].kind == .file }
        switch hasFiles ? kind() : .create {
        case .create: return .create(place(paths, tree), isExclusive: dice.oneIn(2))
        case .directory: return .make(.directory, place(paths, tree), target: [])
        case .special: return other(paths, tree)
        case .link: return .link(existing(paths, tree, .file), place(paths, tree))
        case .rename: return rename(paths, tree)
        case .truncate: return .truncate(existing(paths, tree, .file), offset(tree, paths))
        case .allocate: return allocate(paths, tree)
        case .mode: return .mode(existing(paths, tree), UInt32(dice.below(0o10000)))
        case .attribute: return attribute(paths, tree)
        case .write: return write(paths, tree)
        case .append:
            return .append(existing(paths, tree, .file), count: length(), pattern: pattern())
        case .store:
            let path = existing(paths, tree, .file)
            return .store(
                path,
                offset(tree, paths),
                count: 1 + dice.below(9000),
                pattern: pattern()
            )
        case .read:
            return .read(
                existing(paths, tree, .file),
                offset(tree, paths),
                count: 1 + dice.below(40_000)
            )
        case .synchronize: return .synchronize(existing(paths, tree, .file))
        case .remove: return remove(paths, tree)
        }
    }

    private mutating func kind() -> OperationKind {
        var left = dice.below(table.reduce(0) { $0 + $1.weight })
        for (kind, weight) in table {
            if left < weight { return kind }
            left -= weight
        }
        preconditionFailure("a mix without weights")
    }

    private mutating func allocate(
        _ paths: [(path: PathNames, object: Int)],
        _ tree: TreeModel
    ) -> TreeOperation {
        let start = offset(tree, paths)
        let range = start..<start + UInt64(1 + dice.below(dice.oneIn(2) ? 5000 : 80_000))
        let kinds: [Allocation.Kind] = [.allocate, .punch, .zero]
        let kind = kinds[dice.below(kinds.count)]
        return .allocate(
            existing(paths, tree, .file),
            range,
            Allocation(kind, keepsSize: dice.oneIn(2))
        )
    }

    private mutating func other(
        _ paths: [(path: PathNames, object: Int)],
        _ tree: TreeModel
    ) -> TreeOperation {
        if dice.oneIn(4) { return .make(.pipe, place(paths, tree), target: []) }
        let count = dice.oneIn(4) ? 3900 + dice.below(195) : 1 + dice.below(200)
        let target = patternBytes(pattern(), count: count).map { UInt8(ascii: "a") + $0 % 26 }
        return .make(.symbolicLink, place(paths, tree), target: target)
    }

    private mutating func rename(
        _ paths: [(path: PathNames, object: Int)],
        _ tree: TreeModel
    ) -> TreeOperation {
        let from = existing(paths, tree)
        guard !from.isEmpty else { return .make(.directory, place(paths, tree), target: []) }
        var to = dice.oneIn(2) ? place(paths, tree) : existing(paths, tree)
        if to.isEmpty { to = place(paths, tree) }
        let kinds: [RenameKind] = [.replace, .replace, .replace, .noReplace, .exchange]
        return .rename(from, to, kinds[dice.below(kinds.count)])
    }

    private mutating func attribute(
        _ paths: [(path: PathNames, object: Int)],
        _ tree: TreeModel
    ) -> TreeOperation {
        let name = Array("user.\(dice.below(5))".utf8)
        let path = existing(paths, tree, dice.oneIn(3) ? .directory : .file)
        if dice.oneIn(4) { return .setAttribute(path, name, nil) }
        let value = patternBytes(pattern(), count: dice.below(dice.oneIn(4) ? 1500 : 60))
        return .setAttribute(path, name, value)
    }

    private mutating func write(
        _ paths: [(path: PathNames, object: Int)],
        _ tree: TreeModel
    ) -> TreeOperation {
        .write(
            existing(paths, tree, .file),
            offset(tree, paths),
            count: length(),
            pattern: pattern(),
            synchronizes: dice.oneIn(4)
        )
    }

    /// A write to some file, with fsync.
    mutating func synchronizedWrite(_ tree: TreeModel) -> TreeOperation? {
        let paths = tree.allPaths()
        guard paths.contains(where: { tree.objects[$0.object].kind == .file }) else { return nil }
        return .write(
            existing(paths, tree, .file),
            UInt64(dice.below(20_000)),
            count: length(),
            pattern: pattern(),
            synchronizes: true
        )
    }

    private mutating func remove(
        _ paths: [(path: PathNames, object: Int)],
        _ tree: TreeModel
    ) -> TreeOperation {
        let path = existing(paths, tree)
        guard !path.isEmpty else { return .create(place(paths, tree), isExclusive: true) }
        let isDirectory =
            (try? tree.find(path)).map { tree.objects[$0].kind == .directory } ?? false
        return .remove(path, isDirectory: dice.oneIn(20) ? !isDirectory : isDirectory)
    }

    /// Where in a file: often near its start, on a page's edge, sometimes far away.
    private mutating func offset(
        _ tree: TreeModel,
        _ paths: [(path: PathNames, object: Int)]
    ) -> UInt64 {
        switch dice.below(8) {
        case 0: 0
        case 1: UInt64(dice.below(12)) * 4096
        case 2: UInt64(dice.below(300))
        case 3: 4095 + UInt64(dice.below(12)) * 4096 + UInt64(dice.below(3))
        case 4: UInt64(dice.below(1 << 20))
        case 5 where !keepsFilesSmall && dice.oneIn(3): UInt64(dice.below(1 << 33))
        default: UInt64(dice.below(20_000))
        }
    }

    private mutating func length() -> Int {
        if fillsUp, dice.oneIn(2) { return 1 + dice.below(400_000) }
        if mix.longestWrite > 0 { return 1 + dice.below(mix.longestWrite) }
        return anyLength()
    }

    private mutating func anyLength() -> Int {
        switch dice.below(6) {
        case 0: 4096 * (1 + dice.below(4))
        case 1: 1 + dice.below(60_000)
        case 2: 1 + dice.below(10)
        default: 1 + dice.below(3000)
        }
    }
}
