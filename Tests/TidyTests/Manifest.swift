// What Package.swift says about the targets, read from its text: the manifest is the map of the
// architecture, and these rules are about the map.

/// What a target may be made of.
enum Grade: String, CaseIterable, Sendable {
    case pure, closed, shell, command, yardstick, tests, system
}

/// A target of the manifest.
struct ManifestTarget: Sendable {
    let name: String
    let grade: Grade
    /// Names of the targets of this package that it uses.
    let uses: [String]
    /// Names of the constants for products of other packages that it uses.
    let products: [String]
    let line: Int
    /// Relative to the root of the project.
    let folder: String
}

/// The targets of a manifest, in the order in which it lists them.
struct Manifest: Sendable {
    private(set) var targets: [ManifestTarget] = []

    init(_ source: SourceText) {
        let tokens = source.tokens
        for index in tokens.indices.dropLast(2) where tokens[index + 1].text == "(" {
            if tokens[index].text == "func" || (index > 0 && tokens[index - 1].text == "func") {
                continue
            }
            let last = source.closing(index + 1)
            let inside = Array(tokens[(index + 2)..<max(index + 2, last)])
            if let target = Self.own(tokens[index], inside) ?? Self.plain(tokens[index], inside) {
                targets.append(target)
            }
        }
    }

    subscript(name: String) -> ManifestTarget? { targets.first { $0.name == name } }

    /// The target that a file belongs to.
    func owner(of path: String) -> ManifestTarget? {
        targets.first { path.hasPrefix($0.folder + "/") }
    }

    /// `pure("Name", "Folder", ["Uses", product])` and its likes.
    private static func own(_ word: Token, _ inside: [Token]) -> ManifestTarget? {
        guard let grade = Grade(rawValue: word.text), grade != .system,
            let first = inside.first, first.kind == .string
        else { return nil }
        let list = inside.drop { $0.text != "[" }
        let names = list.filter { $0.kind == .string }.map(\.text)
        let products = list.filter { $0.kind == .word }.map(\.text)
        let folder =
            switch grade {
            case .pure, .closed: "Sources/\(inside.count > 2 ? inside[2].text : "")/\(first.text)"
            case .shell: "Sources/Shell/\(first.text)"
            case .command: "Sources/Commands/\(first.text)"
            case .yardstick: "Sources/Yardsticks/\(first.text)"
            case .tests, .system: "Tests/\(first.text)"
            }
        return ManifestTarget(
            name: first.text,
            grade: grade,
            uses: names,
            products: products,
            line: first.line,
            folder: folder
        )
    }

    /// `.target(name: "Name", …)`, `.systemLibrary(…)`, `.executableTarget(…)` with a literal name.
    private static func plain(_ word: Token, _ inside: [Token]) -> ManifestTarget? {
        let isSystem = word.text == "target" || word.text == "systemLibrary"
        guard isSystem || word.text == "executableTarget", inside.count > 2,
            inside[0].text == "name", inside[1].text == ":", inside[2].kind == .string
        else { return nil }
        let path = inside.indices.first { inside[$0].text == "path" }.map { inside[$0 + 2].text }
        let uses = inside.indices.first { inside[$0].text == "dependencies" }.map { start in
            inside[start...].dropFirst(2).prefix { $0.text != "]" }
                .filter { $0.kind == .string }.map(\.text)
        }
        return ManifestTarget(
            name: inside[2].text,
            grade: isSystem ? .system : .yardstick,
            uses: uses ?? [],
            products: [],
            line: inside[2].line,
            folder: path ?? "Sources/\(inside[2].text)"
        )
    }
}

/// The rules about who may use whom.
enum LayerRules {
    /// Targets of files, of locks and of the cluster: they meet in the mount command and in the
    /// simulation only.
    static let files: Set<String> = [
        "DiskFormat", "BlockIO", "Journaling", "FileStore", "FileSystem", "VolumeMaking",
        "VolumeChecking",
    ]
    static let locks: Set<String> = ["LockCore", "LockCache"]
    static let cluster: Set<String> = ["Membership", "ClusterWire", "LockReports", "NodeService"]
    /// What a file-side target may know of locks: the door between a cache and the lock manager.
    static let door: Set<String> = ["LockCache"]

    /// The places where the manifest breaks the order of the layers.
    static func check(_ manifest: Manifest) -> [Finding] {
        var findings: [Finding] = []
        var above: Set<String> = []
        for target in manifest.targets {
            for used in target.uses {
                if let complaint = complaint(target, used, above: above, manifest) {
                    findings.append(
                        Finding(
                            rule: .layers,
                            path: "Package.swift",
                            line: target.line,
                            message: complaint
                        )
                    )
                }
            }
            above.insert(target.name)
        }
        return findings
    }

    private static func complaint(
        _ target: ManifestTarget,
        _ used: String,
        above: Set<String>,
        _ manifest: Manifest
    ) -> String? {
        guard let dependency = manifest[used] else { return "\(target.name) uses unknown \(used)" }
        guard above.contains(used) else {
            return "\(target.name) uses \(used), which is not above it"
        }
        let isPureC = used == "CChecksum" || used == "CProbes"
        switch target.grade {
        case .pure where dependency.grade != .pure && !isPureC:
            return "\(target.name) is pure but uses \(used), which is \(dependency.grade)"
        case .closed where dependency.grade != .pure && dependency.grade != .closed && !isPureC:
            return "\(target.name) is closed but uses \(used), which is \(dependency.grade)"
        case .shell where dependency.grade == .shell && used != "LinuxSystem":
            return "\(target.name) uses \(used): a shell may use no other shell than LinuxSystem"
        case .pure, .closed, .shell, .command, .yardstick, .tests, .system: break
        }
        return familyComplaint(target, used)
    }

    private static func familyComplaint(_ target: ManifestTarget, _ used: String) -> String? {
        if used == "SimulatedWorld" && target.name != "simulate" && target.grade != .tests {
            return "\(target.name) uses SimulatedWorld, which is for simulate and tests alone"
        }
        if locks.contains(target.name) && (files.contains(used) || cluster.contains(used)) {
            return "\(target.name) uses \(used): locks know neither files nor the cluster"
        }
        if cluster.contains(target.name) && files.contains(used) {
            return "\(target.name) uses \(used): the cluster does not know files"
        }
        if files.contains(target.name)
            && (cluster.contains(used) || (locks.contains(used) && !door.contains(used)))
        {
            return "\(target.name) uses \(used): files do not know the cluster"
        }
        if files.contains(target.name) && locks.contains(used) && target.name != "FileSystem" {
            return "\(target.name) uses \(used): the store works under locks that others hold"
        }
        return nil
    }

    /// Imports that a file's grade does not allow, or that its target does not declare.
    static func checkImports(_ file: SourceText, _ manifest: Manifest) -> [Finding] {
        guard let owner = manifest.owner(of: file.path) else { return [] }
        return file.imports.compactMap { module, line in
            guard let why = importComplaint(module, owner, manifest) else { return nil }
            return Finding(rule: .imports, path: file.path, line: line, message: why)
        }
    }

    private static func importComplaint(
        _ module: String,
        _ owner: ManifestTarget,
        _ manifest: Manifest
    ) -> String? {
        if manifest[module] != nil {
            return owner.uses.contains(module) || module == owner.name
                ? nil : "\(owner.name) imports \(module) without declaring it"
        }
        let isInner = owner.grade == .pure || owner.grade == .closed
        if module == "Foundation" || module.hasPrefix("Foundation") {
            return owner.grade == .tests
                ? nil : "Foundation is for tests alone: it makes a daemon ten times as large"
        }
        if module == "Dispatch" { return "Dispatch: tasks and threads belong to the engine" }
        let allowedInside: Set<String> = ["DequeModule", "OrderedCollections", "Synchronization"]
        if isInner && !allowedInside.contains(module) {
            return "\(owner.name) is \(owner.grade) and may not import \(module)"
        }
        if isInner && module == "Synchronization" && owner.name != "Execution" {
            return "Synchronization: only the engine has anything to synchronise"
        }
        return nil
    }
}
