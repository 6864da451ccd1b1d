// What a workload did: the tree after each of its operations, as the model says, and between which
// events of the record each operation began and returned.

/// One operation that was carried out.
package struct CrashStep: Hashable, Sendable {
    package var operation: CrashOperation
    /// Events in the record when it began.
    package var begunAt: Int
    /// Events in the record when it returned.
    package var returnedAt: Int

    package init(operation: CrashOperation, begunAt: Int, returnedAt: Int) {
        self.operation = operation
        self.begunAt = begunAt
        self.returnedAt = returnedAt
    }
}

/// A workload that the model accepts, and then the course of a run.
package struct CrashHistory: Sendable {
    package let workload: CrashWorkload
    /// Before the first operation, and after each.
    package let states: [ModelTree]
    /// For each operation, the nodes that it concerned.
    package let concerned: [[Int]]
    /// In the order of the operations; empty before the run.
    package var steps: [CrashStep] = []

    /// Nil if the model refuses one of the operations.
    package init?(_ workload: CrashWorkload) {
        self.workload = workload
        var tree = ModelTree()
        for (number, operation) in CrashWorkload.preparation {
            guard tree.perform(operation, number: number) != nil else { return nil }
        }
        var states = [tree]
        var concerned: [[Int]] = []
        for (number, operation) in workload.operations.enumerated() {
            // An unmounted volume takes no operations.
            if number > 0, workload.operations[number - 1] == .unmount { return nil }
            guard let nodes = tree.perform(operation, number: number) else { return nil }
            states.append(tree)
            concerned.append(nodes)
        }
        self.states = states
        self.concerned = concerned
    }

    /// Operations that had returned after `events` events.
    func returned(after events: Int) -> Int {
        steps.prefix { $0.returnedAt <= events }.count
    }

    /// Operations of which something may be on the disk after `events` events.
    func begun(after events: Int) -> Int {
        steps.prefix { $0.begunAt < events }.count
    }
}
