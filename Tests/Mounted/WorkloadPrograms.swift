// Programs that do the simulation's workloads on real mounts, many at the same time.
//
//   roamer    has a tree of its own, and does each operation on another node: every lock it takes was
//             another node's before. Nobody else changes its tree, so that the model knows the answer
//             to everything: each errno, each byte read, and what is there at the end.
//   fighter   stays on its node, and shares its tree with all other fighters: what it meets was
//             changed since it looked. An operation may fail as it may for a program that is late; at
//             the end all nodes must show the same.

import Glibc
import SimulatedWorld
import Synchronization
import Vocabulary

/// What all programs of a run have done, and whether they shall go on.
final class WorkloadTally: Sendable {
    let operations = Atomic<Int>(0)
    /// Of those of fighters.
    let succeeded = Atomic<Int>(0)
    /// How often the node that comes and goes has come.
    let visits = Atomic<Int>(0)
    /// One of them has failed: the others need not go on.
    let isOver = Atomic<Bool>(false)
}

/// A tree that one program works on from all nodes.
struct Roamer {
    private let name: String
    private let nodes: [TestNode]
    private var workload: Workload
    private var dice: SeededGenerator
    private var tree = TreeModel()

    init(_ mix: WorkloadMix, name: String, nodes: [TestNode], seed: UInt64) {
        self.name = name
        self.nodes = nodes
        dice = SeededGenerator(seed: seed)
        workload = Workload(mix, dice: dice.fork())
        workload.keepsFilesSmall = true
    }

    /// - Throws: what was not as the model says.
    mutating func run(_ count: Int, _ tally: WorkloadTally) throws {
        try check(mkdir(nodes[0].root + "/" + name, 0o755))
        for number in 0..<count where !tally.isOver.load(ordering: .relaxed) {
            let node = nodes[dice.below(nodes.count)]
            let operation = workload.next(tree)
            guard isPossible(operation, on: node) else { continue }
            let expected: Result<[UInt8], any Error> = Result { try tree.apply(operation) }
            let found: Result<[UInt8], any Error> = Result {
                try TreeOperations(root: node.root + "/" + name).perform(operation)
            }
            tally.operations.add(1, ordering: .relaxed)
            guard agree(expected, found) else {
                throw Trouble(
                    "\(name), operation \(number) on \(node.name): \(operation): \(text(found)), not "
                        + text(expected)
                )
            }
        }
    }

    /// Whether the system has the operation at all: a symbolic link has no mode of its own, and no path
    /// is as long as directories moved into each other can make it.
    private func isPossible(_ operation: TreeOperation, on node: TestNode) -> Bool {
        let place = TreeOperations(root: node.root + "/" + name)
        switch operation {
        case .mode(let path, _):
            return (try? tree.find(path)).map { tree.objects[$0].kind } != .symbolicLink
                && place.isShort(path)
        case .rename(let from, let to, _), .link(let from, let to):
            return place.isShort(from) && place.isShort(to)
        case .create(let path, _), .make(_, let path, _), .remove(let path, _),
            .truncate(let path, _), .allocate(let path, _, _), .setAttribute(let path, _, _),
            .write(let path, _, _, _, _),
            .append(let path, _, _), .store(let path, _, _, _), .read(let path, _, _),
            .synchronize(let path):
            return place.isShort(path)
        }
    }

    private func agree(
        _ expected: Result<[UInt8], any Error>,
        _ found: Result<[UInt8], any Error>
    ) -> Bool {
        switch (expected, found) {
        case (.success(let right), .success(let read)): return right == read
        case (.failure(let right as FileError), .failure(let failure as SystemFailure)):
            return Self.codes(right).contains(failure.code)
        default: return false
        }
    }

    /// The numbers for what the model says.
    private static func codes(_ error: FileError) -> [Int32] {
        switch error {
        case .notFound: [ENOENT]
        case .exists: [EEXIST]
        case .notDirectory: [ENOTDIR]
        case .isDirectory: [EISDIR]
        case .notEmpty: [ENOTEMPTY]
        // Opening what is no file: a symbolic link, a pipe that nobody reads.
        case .invalid: [EINVAL, ELOOP, ENXIO]
        case .notPermitted: [EPERM]
        case .noAttribute: [ENODATA]
        case .busy: [EBUSY]
        default: []
        }
    }

    private func text(_ result: Result<[UInt8], any Error>) -> String {
        switch result {
        case .success(let bytes): "\(bytes.count) bytes \(bytes.prefix(8))…"
        case .failure(let error): "\(error)"
        }
    }

    /// At the end: every node shows what the model has.
    func verify() throws {
        let right = TreeImage(tree)
        for node in nodes {
            let shown = try TreeImage(shownAt: node.root + "/" + name)
            try shown.demandSame(as: right, ("\(node.name) in \(name)", "the model"))
        }
    }
}

/// A tree that programs on all nodes work on at the same time.
final class Arena: Sendable {
    /// What a program that is late may be told.
    private static let losses: Set<Int32> = [
        ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, ELOOP, ENXIO, EPERM, ENODATA, EBUSY,
        EFAULT, ENAMETOOLONG, EOPNOTSUPP, ESTALE, EXDEV, ESPIPE,
    ]

    private let name: String
    /// The dice and what is thought to be there: it follows the operations as they end, which is not
    /// quite the order in which they happened.
    private let belief: Mutex<(workload: Workload, tree: TreeModel)>

    init(_ mix: WorkloadMix, name: String, seed: UInt64) {
        self.name = name
        var workload = Workload(mix, dice: SeededGenerator(seed: seed))
        workload.keepsFilesSmall = true
        belief = Mutex((workload, TreeModel()))
    }

    func make(on node: TestNode) throws { try check(mkdir(node.root + "/" + name, 0o755)) }

    /// One program on `node`.
    func fight(on node: TestNode, _ count: Int, _ tally: WorkloadTally) throws {
        for _ in 0..<count where !tally.isOver.load(ordering: .relaxed) {
            try step(on: node, tally)
        }
    }

    /// One operation.
    func step(on node: TestNode, _ tally: WorkloadTally) throws {
        let operation = belief.withLock { $0.workload.next($0.tree) }
        do {
            _ = try TreeOperations(root: node.root + "/" + name).perform(operation)
            tally.succeeded.add(1, ordering: .relaxed)
            belief.withLock { _ = try? $0.tree.apply(operation) }
        } catch let failure as SystemFailure where Self.losses.contains(failure.code) {
            // What is thought to be there may be gone for good.
            if failure.code == ENOENT { belief.withLock { forget(operation, &$0.tree) } }
        } catch {
            throw Trouble("\(name) on \(node.name): \(operation): \(error)")
        }
        tally.operations.add(1, ordering: .relaxed)
    }

    private func forget(_ operation: TreeOperation, _ tree: inout TreeModel) {
        let path: PathNames
        switch operation {
        case .link(let from, _), .rename(let from, _, _): path = from
        case .remove(let gone, _), .truncate(let gone, _), .mode(let gone, _),
            .setAttribute(let gone, _, _), .write(let gone, _, _, _, _), .append(let gone, _, _),
            .store(let gone, _, _, _), .read(let gone, _, _), .synchronize(let gone):
            path = gone
        default: return
        }
        for isDirectory in [false, true] {
            _ = try? tree.apply(.remove(path, isDirectory: isDirectory))
        }
    }

    /// At the end: all nodes show the same.
    func verify(on nodes: [TestNode]) throws {
        let first = try TreeImage(shownAt: nodes[0].root + "/" + name)
        for node in nodes.dropFirst() {
            try TreeImage(shownAt: node.root + "/" + name)
                .demandSame(as: first, ("\(node.name) in \(name)", nodes[0].name))
        }
    }
}
