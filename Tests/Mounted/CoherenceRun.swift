// Random operations from random nodes, one at a time, against a model. After each one, what it
// touched is looked at from another node: a cluster must show the same as one file system would.
//
// Each line of a failure's history names the operation's number and its node; the same seed gives
// the same operations.

import Glibc
import Vocabulary

/// One run of the coherence test.
struct CoherenceRun {
    let seed: UInt64
    /// What the operations go to.
    let nodes: [TestNode]
    /// What is looked at; the same as `nodes` but in tests of this test.
    let views: [TestNode]
    var demandsSameInodes = true
    /// Called after each operation, before anything is compared.
    var afterOperation: (Int) throws -> Void = { _ in }

    private var tree: ModelTree
    private var choice: OperationChoice
    private var dice: SeededGenerator
    private var handles: [Handle?]
    private let user: (UInt32, UInt32)
    private(set) var performed = 0

    init(seed: UInt64, nodes: [TestNode], views: [TestNode]? = nil) throws {
        self.seed = seed
        self.nodes = nodes
        self.views = views ?? nodes
        umask(0o022)
        let root = try Files.status(nodes[0].root)
        tree = ModelTree(owner: root.owner, group: root.group, rootMode: root.mode & 0o7777)
        choice = OperationChoice(seed: seed)
        dice = SeededGenerator(seed: seed ^ 0x5EED)
        handles = Array(repeating: nil, count: OperationChoice.handleCount)
        user = (geteuid(), getegid())
    }

    /// Performs `count` operations and compares. Throws at the first difference.
    mutating func run(operations count: Int, comparingAllEvery interval: Int = 1_000) throws {
        defer { closeHandles() }
        handles = Array(repeating: nil, count: OperationChoice.handleCount)
        for _ in 0..<count {
            try step()
            if performed % interval == 0 { try compareAll() }
        }
        try compareAll()
    }

    private mutating func step() throws {
        let operation = choice.next(in: tree, handles: handles)
        let handle = operation.slot.flatMap { handles[$0] }
        let number = handle?.node ?? dice.below(nodes.count)
        let node = nodes[number]
        let line = "\(performed) \(node.name): \(operation.words(in: tree))"
        let before = tree
        let concerned =
            operation.places.compactMap { tree.inode(at: $0) } + [handle?.inode].compactMap { $0 }
        let expected = tree.apply(operation, handles: handles, as: user)
        let (found, descriptor) = RealOperations.apply(
            operation,
            root: node.root,
            tree: before,
            handle: handle
        )
        performed += 1
        note(line + (found == 0 ? "" : " -> errno \(found)"), operation, concerned)
        guard found == expected else {
            throw failure(
                "\(line): errno \(found) (\(SystemFailure(found))), should be \(expected)",
                inode: concerned.first ?? operation.places.first?.parent
            )
        }
        keepHandles(operation, node: number, descriptor: descriptor)
        try afterOperation(performed)
        try compare(operation, handle: handle, actor: number)
    }

    private mutating func note(_ line: String, _ operation: Operation, _ concerned: [Int]) {
        let now = operation.places.compactMap { place in
            tree.isLive(place.parent) ? tree.inode(at: place) : nil
        }
        let parents = operation.places.map(\.parent)
        for inode in Set(concerned + now + parents).sorted() { tree.record(line, for: inode) }
    }

    private mutating func keepHandles(_ operation: Operation, node: Int, descriptor: Int32) {
        switch operation {
        case .openHandle(let slot, let place, let appends):
            guard let inode = tree.inode(at: place), descriptor >= 0 else { return }
            tree[inode].handles += 1
            handles[slot] = Handle(
                node: node,
                descriptor: descriptor,
                inode: inode,
                appends: appends
            )
        case .closeHandle(let slot):
            guard let handle = handles[slot] else { return }
            handles[slot] = nil
            tree[handle.inode].handles -= 1
            tree.dropIfUnused(handle.inode)
        default: break
        }
    }

    /// Looks at what the operation touched: from another node, and now and then from its own.
    private mutating func compare(_ operation: Operation, handle: Handle?, actor: Int) throws {
        let other = (actor + 1 + dice.below(views.count - 1)) % views.count
        var viewers = [other]
        if case .read = operation { viewers.append(actor) }
        if dice.oneIn(8) { viewers.append(actor) }
        let comparison = comparison
        for viewer in viewers {
            for place in operation.places {
                try report(views[viewer]) {
                    try comparison.checkPlace(place, root: views[viewer].root)
                    try comparison.checkAgreement(place, views[actor], views[viewer])
                }
            }
        }
        guard let inode = handle?.inode, tree.isLive(inode) else { return }
        if let place = tree[inode].links.first {
            try report(views[other]) {
                try comparison.checkPlace(place, root: views[other].root)
            }
        }
        for case let open? in handles where open.inode == inode {
            try report(views[open.node]) { try comparison.checkHandle(open) }
        }
    }

    private var comparison: Comparison {
        Comparison(tree: tree, demandsSameInodes: demandsSameInodes)
    }

    /// Compares everything on every node.
    func compareAll() throws {
        for view in views {
            try report(view) { try comparison.checkAll(root: view.root) }
        }
        for case let open? in handles {
            try report(views[open.node]) { try comparison.checkHandle(open) }
        }
    }

    private func report(_ viewer: TestNode, _ body: () throws -> Void) throws {
        do {
            try body()
        } catch let difference as Comparison.Difference {
            throw failure("seen by \(viewer.name): \(difference)", inode: difference.inode)
        }
    }

    private func failure(_ what: String, inode: Int?) -> Trouble {
        var text = "seed \(seed), after \(performed) operations: \(what)"
        if let inode, tree.isLive(inode) {
            text += "\nwhat was done to it:\n"
            text += tree[inode].history.suffix(40).joined(separator: "\n")
        }
        return Trouble(text)
    }

    private mutating func closeHandles() {
        for case let open? in handles {
            close(open.descriptor)
            tree[open.inode].handles -= 1
            tree.dropIfUnused(open.inode)
        }
        handles = []
    }
}
