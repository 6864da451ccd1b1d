// Judges a tree that was found after a crash. It knows what the operations were, what the tree
// would be after each of them (`ModelTree`), and when each had returned; nothing of how the file
// system works.
//
// A tree is right if there is a number m of operations such that
//
//   O1. m is at least the number of the last operation that a returned fsync, sync, unmount or
//       pause had made durable, and at most the number of operations that had begun;
//   O2. names, kinds, identity of what the names lead to, link counts, attributes, targets of
//       symbolic links and sizes are exactly those after m operations: a later operation never
//       comes through without an earlier one, and none comes through in part;
//   O3. but if operation m + 1 has begun and changes the size of a file, its size may be anything
//       between those before and after it (Truncating.swift promises no more);
//   O4. each byte of a file is what it was after some operation that had begun, and not an older
//       one than a returned fsync of the file, or a sync, had made durable; where the file ended
//       before the byte then, it was zero;
//   O5. a byte by which one of the m operations made the file longer is not older than that
//       operation: data come before what points to them.

/// Judges the trees that crashes of one run leave.
package struct CrashOracle: Sendable {
    /// What had been promised at a point of the record.
    private struct Promises {
        /// O1.
        var least: Int
        var most: Int
        /// For each node, the operation that O4 speaks of.
        var data: [Int]
    }

    package let history: CrashHistory
    private let expected: [ExpectedTree]

    package init(_ history: CrashHistory) {
        precondition(history.steps.count == history.states.count - 1, "a history without a run")
        self.history = history
        expected = history.states.map { ExpectedTree($0) }
    }

    /// What is wrong with a tree that a crash after `events` events left; nil if nothing is.
    package func complaint(about tree: ObservedTree, after events: Int) -> String? {
        let promises = promises(after: events)
        var complaints: [String] = []
        for count in promises.least...promises.most {
            var growing: Int?
            if let wrong = compare(tree, count, growing, promises) {
                complaints.append("after \(count) operations: \(wrong)")
            } else {
                return nil
            }
            guard count < promises.most else { continue }
            growing = sizeChange(count)
            guard growing != nil else { continue }
            if compare(tree, count, growing, promises) == nil { return nil }
        }
        let range = "\(promises.least) to \(promises.most) of \(history.steps.count) operations"
        return "the tree is none that \(range) may leave: " + complaints.joined(separator: "; ")
    }

    private func promises(after events: Int) -> Promises {
        let nodes = history.states[history.states.count - 1].nodes.count
        var data = [Int](repeating: 0, count: nodes)
        var least = 0
        for number in 0..<history.returned(after: events) {
            switch history.steps[number].operation {
            case .synchronize(let path):
                guard let node = history.states[number].find(path) else { continue }
                let last = history.concerned[..<number].lastIndex { $0.contains(node) }
                least = max(least, last.map { $0 + 1 } ?? 0)
                data[node] = number
            case .synchronizeAll, .unmount:
                least = number
                data = [Int](repeating: number, count: nodes)
            case .pause: least = number
            default: break
            }
        }
        let begun = history.begun(after: events)
        return Promises(least: least, most: max(begun, least), data: data)
    }

    /// The file whose size operation `count` + 1 changes; nil if it changes none.
    private func sizeChange(_ count: Int) -> Int? {
        switch history.workload.operations[count] {
        case .write, .append, .truncate: history.concerned[count].first
        default: nil
        }
    }

    /// The first difference from the tree after `count` operations. `changing` is a file whose
    /// size may be on its way (O3).
    private func compare(
        _ tree: ObservedTree,
        _ count: Int,
        _ changing: Int?,
        _ promises: Promises
    ) -> String? {
        expected[count].difference(from: tree) { file, node in
            let content = history.states[count].nodes[node].content
            if file.content == content { return contentAge(file, node, count, promises) }
            var sizes = content.count...content.count
            if changing == node {
                let next = history.states[count + 1].nodes[node].content.count
                sizes = min(next, content.count)...max(next, content.count)
            }
            guard sizes.contains(file.content.count) else {
                let size = file.content.count
                return changing == nil
                    ? "\(size) bytes, not \(content.count)" : "\(size) bytes, not \(sizes)"
            }
            return contentAge(file, node, changing == node ? count + 1 : count, promises)
        }
    }

    /// O4 and O5 for a file whose last change of size was at most that of operation `sized`.
    private func contentAge(
        _ have: ObservedObject,
        _ node: Int,
        _ sized: Int,
        _ promises: Promises
    ) -> String? {
        guard have.kind == .file else { return nil }
        let versions = history.states.map { $0.nodes.count > node ? $0.nodes[node].content : [] }
        let oldest = promises.data[node]
        for (offset, byte) in have.content.enumerated() {
            if versions[promises.most].count > offset, versions[promises.most][offset] == byte {
                continue
            }
            var least = oldest
            for number in stride(from: sized, to: least, by: -1)
            where versions[number - 1].count <= offset && offset < versions[number].count {
                least = number
                break
            }
            let isKnown = (least...promises.most).contains { number in
                (offset < versions[number].count ? versions[number][offset] : 0) == byte
            }
            if !isKnown {
                return "byte \(offset) is \(byte), which it was at no time from operation "
                    + "\(least) to \(promises.most)"
            }
        }
        return nil
    }
}
