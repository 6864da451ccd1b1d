// Putting together what the nodes have said: each resource once, as its master has it, and to each
// lock what its holder alone knows.
//
// P1. What the master says of queues, modes and blockers counts; what the holder says of orphans,
//     parents and of what it does with the lock is added. A lock that only its holder knows (its
//     request is on the way, or the master is silent) is listed too, and marked.
// P2. Reports are of slightly different moments, so that a lock may be missing on one side, or a
//     resource have two masters while its mastership moves; then the one in the newest view counts.
// P3. The first `limit` resources by name are exact although every node tells only its own first
//     ones: whatever comes before them on a node comes before them altogether.

import LockCore
package import Vocabulary

/// What is known of the locks of a cluster.
package struct ClusterPicture: Hashable, Sendable {
    /// Everybody who answered, ascending, without their resources.
    package var nodes: [NodeReport]
    /// Members that did not answer in time.
    package var silent: [NodeID]
    /// Members whose answer was not understood.
    package var garbled: [NodeID]
    /// Ascending by name.
    package var resources: [ResourceReport]
    /// Not all were told.
    package var isCut: Bool

    /// The picture of `reports`, of one question and of those that followed it for the same.
    package init(
        _ reports: [NodeReport],
        silent: [NodeID] = [],
        garbled: [NodeID] = [],
        question: LockQuestion
    ) {
        self.silent = silent
        self.garbled = garbled
        nodes = Self.nodes(reports)
        var all: [Entry] = []
        for report in reports {
            for resource in report.resources {
                all.append(Entry(resource: resource, reporter: report.node, epoch: report.epoch))
            }
        }
        all.sort { Self.precedes($0, $1) }
        var merged: [ResourceReport] = []
        var start = 0
        while start < all.count {
            var end = start + 1
            while end < all.count, all[end].resource.name == all[start].resource.name { end += 1 }
            merged.append(Self.merge(all[start..<end]))
            start = end
        }
        // A holder may have said of a resource what its master knows better.
        merged.removeAll { !question.concerns($0) && question.names.isEmpty }
        isCut = merged.count > question.bound || reports.contains { $0.omitted > 0 }
        resources = Array(merged.prefix(question.bound))
    }

    private struct Entry {
        var resource: ResourceReport
        var reporter: NodeID
        var epoch: Epoch
    }

    /// By name; of one name the master's first, the newest view's before others (P2).
    private static func precedes(_ left: Entry, _ right: Entry) -> Bool {
        if left.resource.name != right.resource.name {
            return left.resource.name < right.resource.name
        }
        if left.resource.isFromMaster != right.resource.isFromMaster {
            return left.resource.isFromMaster
        }
        if left.epoch != right.epoch { return left.epoch > right.epoch }
        return left.reporter < right.reporter
    }

    private static func nodes(_ reports: [NodeReport]) -> [NodeReport] {
        var nodes: [NodeReport] = []
        for report in reports where !nodes.contains(where: { $0.node == report.node }) {
            var node = report
            node.resources = []
            nodes.append(node)
        }
        return nodes.sorted { $0.node < $1.node }
    }

    /// One resource from all that was said of it, the master's word first (P1).
    private static func merge(_ entries: ArraySlice<Entry>) -> ResourceReport {
        guard var merged = entries.first?.resource else {
            preconditionFailure("LockReports: a resource that nobody spoke of")
        }
        if !merged.isFromMaster {
            merged.locks = []
            merged.master = entries.first { $0.resource.master != .none }?.resource.master ?? .none
        }
        for entry in entries {
            for lock in entry.resource.locks where lock.holder == entry.reporter {
                add(lock, to: &merged)
            }
        }
        return merged
    }

    /// What a holder says of its own lock.
    private static func add(_ lock: LockReport, to resource: inout ResourceReport) {
        guard let place = resource.locks.firstIndex(where: { $0.reference == lock.reference })
        else {
            var own = lock
            own.isKnownToMaster = false
            resource.locks.append(own)
            return
        }
        resource.locks[place].isKnownToHolder = true
        resource.locks[place].isOrphan = resource.locks[place].isOrphan || lock.isOrphan
        if lock.parent != .none { resource.locks[place].parent = lock.parent }
        if let activity = lock.activity { resource.locks[place].activity = activity }
    }

    /// Names whose holders have answered but have not spoken of them: what to ask them next.
    package var unasked: [(node: NodeID, names: [ResourceName])] {
        nodes.compactMap { report in
            let names = resources.filter { resource in
                resource.locks.contains { $0.holder == report.node && !$0.isKnownToHolder }
            }
            return names.isEmpty ? nil : (report.node, names.map(\.name))
        }
    }

    /// A resource.
    package subscript(name: ResourceName) -> ResourceReport? {
        resources.first { $0.name == name }
    }

    /// What a node has said of itself.
    package func report(of node: NodeID) -> NodeReport? { nodes.first { $0.node == node } }

    /// `n1 (lab1)`, or `n1` if it has no other name or did not answer.
    package func label(_ node: NodeID) -> String { report(of: node)?.label ?? "\(node)" }

    // MARK: What is wrong with it

    /// One line for each thing that keeps the picture from being whole.
    package var remarks: [String] {
        var lines: [String] = []
        for node in silent {
            lines.append("\(node) is silent: it did not answer in time; what it knows is missing")
        }
        for node in garbled {
            lines.append("\(node) gave an answer that is not understood; is it of another version?")
        }
        for node in nodes {
            switch node.phase {
            case .running: break
            case .recovering:
                lines.append(
                    "\(node.label) recovers its locks (\(node.epoch)): masters and queues may be incomplete"
                )
            case .left: lines.append("\(node.label) has left the lock manager")
            }
            if node.isReplaying {
                lines.append("\(node.label) replays journals; new locks wait for it")
            } else if node.waitsForReplay {
                lines.append("\(node.label) grants no new locks before journals are replayed")
            }
        }
        let epochs = nodes.map(\.epoch)
        if let first = epochs.first, epochs.contains(where: { $0 != first }) {
            lines.append("the nodes are of different views: membership is just changing")
        }
        return lines
    }

    /// The picture as JSON.
    package var json: JSONText {
        var members: [JSONText.Member] = [
            .init(
                "nodes",
                .array(
                    nodes.map { node in
                        var members: [JSONText.Member] = [
                            .init("node", .count(node.node.rawValue)),
                            .init("name", .string(node.name)),
                            .init("epoch", .number(node.epoch.rawValue)),
                            .init("phase", .string(node.phase.rawValue)),
                        ]
                        members.append(mark: "waitsForReplay", node.waitsForReplay)
                        members.append(mark: "isReplaying", node.isReplaying)
                        return .object(members)
                    }
                )
            ),
            .init("silent", .array(silent.map { .count($0.rawValue) })),
            .init("garbled", .array(garbled.map { .count($0.rawValue) })),
            .init("remarks", .array(remarks.map { .string($0) })),
        ]
        members.append(mark: "cut", isCut)
        members.append("resources", .array(resources.map(\.json)))
        return .object(members)
    }
}
