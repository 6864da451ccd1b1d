// Scripts of several nodes: which node does what, one step after the other. Written down as the
// number of the node, a dot and the operation, as in `1.append:A/foo:5000+2.rename:A/foo:B/bar`.

/// One step of a script.
package struct ClusterStep: Hashable, Sendable {
    /// From 1.
    package var node: Int
    package var operation: CrashOperation

    package init(node: Int, operation: CrashOperation) {
        precondition(node > 0, "nodes are numbered from 1")
        self.node = node
        self.operation = operation
    }
}

/// Steps in order. Each operation is numbered by its place; the pattern that it writes follows from
/// it.
package struct ClusterScript: Hashable, Sendable, CustomStringConvertible {
    package var steps: [ClusterStep]

    package init(_ steps: [ClusterStep]) { self.steps = steps }

    /// From its text; nil if there is no step of that text, or no node of that number among
    /// `nodes`.
    package init?(_ text: String, nodes: Int) {
        steps = []
        for part in text.split(separator: "+", omittingEmptySubsequences: false) {
            guard let dot = part.firstIndex(of: "."), let node = Int(part[..<dot]),
                (1...nodes).contains(node),
                let operation = CrashOperation(part[part.index(after: dot)...])
            else { return nil }
            steps.append(ClusterStep(node: node, operation: operation))
        }
    }

    package var description: String {
        steps.map { "\($0.node).\($0.operation.text)" }.joined(separator: "+")
    }

    /// Whether every step can be done when all before it were: the model accepts it, and its node
    /// has not been unmounted.
    package var isPossible: Bool {
        var tree = ModelTree.clusterBase
        var gone: Set<Int> = []
        for (number, step) in steps.enumerated() {
            guard !gone.contains(step.node),
                tree.perform(step.operation, number: number) != nil
            else { return false }
            if step.operation == .unmount { gone.insert(step.node) }
        }
        return true
    }
}

extension ModelTree {
    /// The tree that all scripts begin with.
    package static let clusterBase: ModelTree = {
        var tree = ModelTree()
        for (number, operation) in CrashWorkload.clusterPreparation {
            let done = tree.perform(operation, number: number)
            precondition(done != nil, "the preparation cannot be done")
        }
        return tree
    }()
}
