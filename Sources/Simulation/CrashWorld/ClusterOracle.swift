// Judges the tree that is found after nodes have died, one or all. It knows the steps, when each
// began and ended, and what the tree would be after any of them (`ModelTree`); nothing of how the
// file system works.
//
// A *cut* is a choice for each dead node: how many of its steps came through. A tree is right if
// there is a cut such that
//
//   M1. a node's cut is at least at the last step that a returned fsync, sync, unmount or pause had
//       made durable before its death, and at most at the last that had begun: what one node did
//       comes through in order;
//   M2. nobody has seen what did not come through: if a step of another node that had ended before
//       the death looked at or changed something that a step of the dead node had changed before,
//       that step is within the cut; if the other step did not end, and is itself within the cut,
//       the same. (A lock that moves takes a commit with it.)
//   M3. every step that a survivor did after the death ended as it would on the tree of the cut:
//       done or refused;
//   M4. names, kinds, identity, link counts, attributes, targets and sizes are those of the cut, and
//       of what the survivors did after it; but if the first step beyond the cut changes the size of
//       a file, that may be a whole number of blocks on its way;
//   M5. each byte of a file is what it was after some step that had begun before the death, and not
//       an older one than was durable: written back for an fsync, a sync, or because another node
//       looked at the file or changed it after. Where the file ended before the byte then, it was
//       zero; and a byte by which the file became longer is not older than that step.
//
// One node's death leaves what returned from the disk as it is, the loss of power does not; but
// what is promised is the same. With power, all nodes die at once and M3 is empty.

/// Judges the trees that are found after deaths in one run.
package struct ClusterOracle: Sendable {
    /// One death, or several at one event.
    private struct Moment: Sendable {
        var nodes: [Int]
        /// Steps that ended at no more events than this were over.
        var endedBy: Int
    }

    fileprivate struct Trail: Sendable {
        /// Births of what the step changed, and of all that it looked at.
        var changed: [Int] = []
        var involved: [Int] = []
        /// The size of this file changes.
        var sized: Int?
    }

    private let steps: [StepRecord]
    private let moments: [Moment]
    private let blockSize: Int
    private let base: ModelTree

    /// The oracle for nodes that died one by one.
    package init(steps: [StepRecord], deaths: [NodeDeath], blockSize: Int = 4096) {
        base = .clusterBase
        self.steps = steps
        self.blockSize = blockSize
        moments = deaths.map { Moment(nodes: [$0.node], endedBy: $0.event - 1) }
    }

    /// The oracle for a loss of power of all nodes (from 1 to `nodes`) after `events` events. Steps
    /// that had not begun then are left out.
    package init(steps: [StepRecord], nodes: Int, powerLostAt events: Int, blockSize: Int = 4096) {
        base = .clusterBase
        self.steps = steps.filter { $0.begunAt < events || $0.endedAt <= events }
        self.blockSize = blockSize
        moments = [Moment(nodes: Array(1...nodes), endedBy: events)]
    }

    /// A survivor met a full volume, which the model knows nothing of: what a dead node was about to
    /// free may never have become free. Nothing can be said about the tree then.
    package var knowsNothing: Bool { steps.contains { $0.end == .full } }

    /// What is wrong with a tree; nil if nothing is, or nothing can be said.
    package func complaint(about tree: ObservedTree) -> String? {
        if knowsNothing { return nil }
        var complaints: [String] = []
        var cuts: [[Int]] = [[]]
        for moment in moments {
            cuts = cuts.flatMap { cut in
                let trails = trails(omitted(cut))
                return moment.nodes.reduce([cut]) { cuts, node in
                    let range = least(node, moment, trails)...own(node).count
                    return cuts.flatMap { cut in range.map { cut + [$0] } }
                }
            }
        }
        for cut in cuts.reversed() {
            let omitted = omitted(cut)
            guard isClosed(omitted), endsFit(omitted) else { continue }
            for candidate in candidates(omitted) {
                let wrong = ExpectedTree(candidate).difference(from: tree) { file, node in
                    difference(candidate.nodes[node], file.content)
                }
                guard let wrong else { return nil }
                if complaints.count < 4 {
                    let names = omitted.map { steps[$0].step.operation.text }
                    complaints.append("without \(names): \(wrong)")
                }
            }
        }
        if complaints.isEmpty { return "no cut explains how the survivors' steps ended: \(ends)" }
        return "the tree is none that may be: " + complaints.joined(separator: "; ")
    }

    private var ends: String {
        steps.map { "\($0.step.node).\($0.step.operation.text) \($0.end)" }.joined(separator: ", ")
    }

    private var dead: [Int] { moments.flatMap(\.nodes) }

    private func own(_ node: Int) -> [Int] {
        steps.indices.filter { steps[$0].step.node == node }
    }

    private func moment(of node: Int) -> Moment? { moments.first { $0.nodes.contains(node) } }

    /// Whether a step was over when its node, or `moment`, came to an end.
    private func hasEnded(_ index: Int, by moment: Moment) -> Bool {
        steps[index].end == .done && steps[index].endedAt <= moment.endedBy
    }

    /// Steps beyond the cut, ascending.
    private func omitted(_ cut: [Int]) -> [Int] {
        zip(dead, cut).flatMap { own($0).dropFirst($1) }.sorted()
    }

    // MARK: M1 and M2

    /// What each step looked at, in the tree that it met.
    private func trails(_ omitted: [Int]) -> [Trail] {
        var tree = base
        return steps.indices.map { index in
            var trail = Trail()
            let (number, operation) = (steps[index].number, steps[index].step.operation)
            let before = tree
            for path in operation.paths {
                trail.involved += before.nodes(along: path).map { before.nodes[$0].birth }
            }
            guard !omitted.contains(index), let changed = tree.perform(operation, number: number)
            else { return trail }
            trail.changed = changed.map { tree.nodes[$0].birth }
            trail.involved += trail.changed
            switch operation {
            case .write, .append, .truncate: trail.sized = trail.changed.first
            default: break
            }
            return trail
        }
    }

    private func least(_ node: Int, _ moment: Moment, _ trails: [Trail]) -> Int {
        let own = own(node)
        var least = 0
        for index in steps.indices where hasEnded(index, by: moment) {
            let step = steps[index].step
            let before = own.count { $0 < index }
            if step.operation == .pause { least = max(least, before) }
            guard step.node == node else {
                // M2, for those who had seen it.
                let seen = own.prefix(before).lastIndex { trails[$0].meets(trails[index]) }
                least = max(least, seen.map { $0 + 1 } ?? 0)
                continue
            }
            switch step.operation {
            case .synchronizeAll, .unmount: least = max(least, before)
            case .synchronize:
                guard let target = trails[index].involved.last else { continue }
                let last = own.prefix(before).lastIndex { trails[$0].changed.contains(target) }
                least = max(least, last.map { $0 + 1 } ?? 0)
            default: break
            }
        }
        return least
    }

    /// M2, for steps that did not end.
    private func isClosed(_ omitted: [Int]) -> Bool {
        for index in omitted {
            guard
                let place = moments.firstIndex(where: {
                    $0.nodes.contains(steps[index].step.node)
                })
            else { continue }
            let moment = moments[place]
            let earlier = moments[..<place].flatMap(\.nodes)
            let trails = trails(omitted.filter { earlier.contains(steps[$0].step.node) })
            for other in index + 1..<steps.count
            where steps[other].step.node != steps[index].step.node && !omitted.contains(other) {
                let isBefore =
                    steps[other].endedAt <= moment.endedBy
                    || moment.nodes.contains(steps[other].step.node)
                if isBefore, trails[index].meets(trails[other]) { return false }
            }
        }
        return true
    }

    // MARK: M3

    private func endsFit(_ omitted: [Int]) -> Bool {
        guard let first = moments.first else { return true }
        for index in steps.indices where steps[index].endedAt > first.endedBy {
            if let own = moment(of: steps[index].step.node), steps[index].endedAt > own.endedBy {
                continue
            }
            // Steps of nodes that died only later were there for this one to see.
            let gone = moments.filter { steps[index].endedAt > $0.endedBy }.flatMap(\.nodes)
            var tree = base
            for earlier in 0..<index {
                if gone.contains(steps[earlier].step.node), omitted.contains(earlier) { continue }
                _ = tree.perform(steps[earlier].step.operation, number: steps[earlier].number)
            }
            let done = tree.perform(steps[index].step.operation, number: steps[index].number)
            if (done != nil) != (steps[index].end == .done) { return false }
        }
        return true
    }

    // MARK: M4 and M5

    /// The trees that a cut leaves: one, and more if a size may be on its way.
    private func candidates(_ omitted: [Int]) -> [ModelTree] {
        var candidates = [base]
        var reached = 0
        for (number, moment) in moments.enumerated() {
            let earlier = moments[..<number].flatMap(\.nodes)
            let past = steps.indices.filter { isPast($0, moment) }
            candidates = candidates.flatMap { tree -> [ModelTree] in
                var tree = tree
                for index in past where index >= reached && !omitted.contains(index) {
                    _ = tree.perform(steps[index].step.operation, number: steps[index].number)
                }
                let versions = Versions(past, omitted, earlier, self)
                return sizesOnTheirWay(tree, omitted, moment).map { tree in
                    age(tree, versions, moment)
                }
            }
            reached = (past.last ?? -1) + 1
        }
        for index in reached..<steps.count where !omitted.contains(index) {
            for place in candidates.indices {
                _ = candidates[place].perform(
                    steps[index].step.operation,
                    number: steps[index].number
                )
            }
        }
        return candidates
    }

    /// Whether a step comes before a death: it had ended, or it is the dead node's.
    private func isPast(_ index: Int, _ moment: Moment) -> Bool {
        steps[index].endedAt <= moment.endedBy || moment.nodes.contains(steps[index].step.node)
    }

    /// The contents of files after each of the steps before a death, those included that did not
    /// come through.
    private struct Versions {
        /// Places of the steps; the version after `places[i]` is `trees[i + 1]`.
        let places: [Int]
        let trees: [ModelTree]
        let trails: [Trail]
        /// For each version but the first, whether its step came through.
        let came: [Bool]

        init(_ past: [Int], _ omitted: [Int], _ earlier: [Int], _ oracle: ClusterOracle) {
            let places = past.filter {
                !(omitted.contains($0) && earlier.contains(oracle.steps[$0].step.node))
            }
            self.places = places
            var tree = oracle.base
            var trees = [tree]
            for index in places {
                let step = oracle.steps[index]
                _ = tree.perform(step.step.operation, number: step.number)
                trees.append(tree)
            }
            self.trees = trees
            trails = oracle.trails(oracle.steps.indices.filter { !places.contains($0) })
            came = places.map { !omitted.contains($0) }
        }

        func content(_ birth: Int, _ version: Int) -> [UInt8] {
            trees[version].nodes.first { $0.birth == birth }?.content ?? []
        }
    }

    /// The tree, and those in which the first step beyond the cut of a dead node has brought a size
    /// to a whole number of blocks.
    private func sizesOnTheirWay(
        _ tree: ModelTree,
        _ omitted: [Int],
        _ moment: Moment
    ) -> [ModelTree] {
        var trees = [tree]
        for node in moment.nodes {
            guard let next = omitted.first(where: { steps[$0].step.node == node }) else { continue }
            for tree in trees {
                var after = tree
                let step = steps[next]
                switch step.step.operation {
                case .write, .append, .truncate: break
                default: continue
                }
                guard let changed = after.perform(step.step.operation, number: step.number)?.first
                else { continue }
                let sizes = [tree.nodes[changed].content.count, after.nodes[changed].content.count]
                let (low, high) = (min(sizes[0], sizes[1]), max(sizes[0], sizes[1]))
                for size in stride(from: low / blockSize * blockSize, to: high, by: blockSize)
                where size > low {
                    var between = sizes[0] < sizes[1] ? after : tree
                    between.nodes[changed].resize(to: size)
                    trees.append(between)
                }
            }
        }
        return trees
    }

    /// M5: the bytes that files may have after a death.
    private func age(_ tree: ModelTree, _ versions: Versions, _ moment: Moment) -> ModelTree {
        var tree = tree
        for node in tree.nodes.indices where tree.nodes[node].kind == .file {
            let birth = tree.nodes[node].birth
            let touched = versions.places.indices.filter {
                versions.trails[versions.places[$0]].changed.contains(birth)
            }
            guard let last = touched.last else { continue }
            let oldest = oldest(birth, versions, moment)
            let content = tree.nodes[node].content
            let reached = (touched.last { versions.came[$0] }).map { $0 + 1 } ?? 0
            var alternatives: [[UInt8]] = tree.nodes[node].alternatives
            for version in Set([oldest] + touched.map { $0 + 1 }).sorted()
            where version >= oldest && version <= last + 1 {
                var bytes = versions.content(birth, version)
                fit(&bytes, to: content)
                for (low, high, since) in growth(birth, versions, upTo: reached)
                where version < since && low < content.count {
                    let range = low..<min(high, content.count)
                    bytes.replaceSubrange(range, with: content[range])
                }
                if bytes != content { alternatives.append(bytes) }
            }
            tree.nodes[node].alternatives = alternatives
        }
        return tree
    }

    private func fit(_ bytes: inout [UInt8], to content: [UInt8]) {
        if bytes.count > content.count { bytes.removeLast(bytes.count - content.count) }
        bytes += [UInt8](repeating: 0, count: content.count - bytes.count)
    }

    /// Stretches by which a file became longer, and the versions that did it.
    private func growth(
        _ birth: Int,
        _ versions: Versions,
        upTo last: Int
    ) -> [(low: Int, high: Int, since: Int)] {
        (1..<max(last + 1, 1)).compactMap { version in
            let before = versions.content(birth, version - 1).count
            let after = versions.content(birth, version).count
            return before < after ? (before, after, version) : nil
        }
    }

    /// The oldest version of a file of which something may be left.
    private func oldest(_ birth: Int, _ versions: Versions, _ moment: Moment) -> Int {
        var oldest = 0
        for (place, index) in versions.places.enumerated() {
            let (step, trail) = (steps[index].step, versions.trails[index])
            let isAlive = !moment.nodes.contains(step.node)
            if isAlive, trail.changed.contains(birth) { oldest = place + 1 }
            guard hasEnded(index, by: moment) else { continue }
            let earlier = versions.places[..<place].indices.filter {
                versions.trails[versions.places[$0]].changed.contains(birth)
            }
            // Of the node itself, and of others: those have written what they gave up.
            let own = earlier.last { steps[versions.places[$0]].step.node == step.node }
            let others = earlier.last { steps[versions.places[$0]].step.node != step.node }
            switch step.operation {
            case .synchronize where trail.involved.last == birth:
                oldest = max(oldest, (earlier.last ?? -1) + 1)
            case .synchronizeAll, .unmount: oldest = max(oldest, (own ?? -1) + 1)
            default: break
            }
            if trail.involved.contains(birth) { oldest = max(oldest, (others ?? -1) + 1) }
        }
        return oldest
    }

    private func difference(_ node: ModelNode, _ found: [UInt8]) -> String? {
        if found == node.content { return nil }
        guard found.count == node.content.count else {
            return "\(found.count) bytes, not \(node.content.count)"
        }
        for (offset, byte) in found.enumerated() where byte != node.content[offset] {
            if node.alternatives.contains(where: { $0[offset] == byte }) { continue }
            return "byte \(offset) is \(byte), and not \(node.content[offset]) or one of "
                + "\(node.alternatives.map { $0[offset] })"
        }
        return nil
    }
}

extension ClusterOracle.Trail {
    /// Whether another step looked at or changed what this one changed.
    fileprivate func meets(_ other: Self) -> Bool {
        changed.contains { other.involved.contains($0) }
    }
}
