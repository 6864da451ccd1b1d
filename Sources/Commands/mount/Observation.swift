// What this node tells of its lock manager to whoever asks, and the way to ask others.

import ClusterNode
import Execution
import FileSystem
import LockCache
import LockCore
import LockReports
import NodeService
import Vocabulary

/// Reports of one node. Engine-bound.
final class Observation {
    private let engine: Engine
    private let node: NodeRuntime
    private let name: String
    private let desk: InquiryDesk

    /// The most resources that are told at once, however many are asked for: the node does nothing
    /// else meanwhile.
    private static let mostResources = 20_000

    init(engine: Engine, node: NodeRuntime, name: String) {
        self.engine = engine
        self.node = node
        self.name = name
        desk = InquiryDesk(node.locks, engine: engine)
        desk.answer = { [weak self] bytes in self?.answer(bytes) ?? [] }
    }

    // MARK: This node

    private func answer(_ bytes: [UInt8]) -> [UInt8] {
        guard let json = JSONText(bytes), let question = LockQuestion(json) else { return [] }
        if question.subject == .recording { return node.locks.recording }
        return Array(report(question).json.text.utf8)
    }

    private func report(_ question: LockQuestion) -> NodeReport {
        let locks = node.locks
        var report = NodeReport(
            node: locks.node,
            name: name,
            epoch: locks.view?.epoch ?? Epoch(0),
            phase: locks.isRunning ? .running : locks.hasLeft ? .left : .recovering,
            waitsForReplay: locks.waitsForReplay,
            isReplaying: node.isReplaying,
            time: engine.clock.now.rawValue / 1_000_000
        )
        switch question.subject {
        case .locks: addResources(question, to: &report)
        case .counters: report.counters = locks.allCounters.map { NamedCount($0.name, $0.count) }
        case .recording: break
        }
        return report
    }

    private func addResources(_ question: LockQuestion, to report: inout NodeReport) {
        let isNamed = !question.names.isEmpty
        let (found, omitted) = node.locks.describe(
            atMost: min(question.bound, Self.mostResources),
            onlyWaiting: question.onlyWaiting && !isNamed,
            holder: isNamed ? nil : question.node,
            where: question.concerns
        )
        report.omitted = omitted
        let activities = node.volume?.activities(of: Set(found.map(\.name))) ?? [:]
        for description in found {
            var resource = ResourceReport(description, by: report.node)
            for place in resource.locks.indices
            where resource.locks[place].holder == report.node
                && resource.locks[place].owner == .none
            {
                resource.locks[place].activity = activities[resource.name]
            }
            report.resources.append(resource)
        }
    }

    // MARK: Others

    /// All members of the present view, this node among them.
    var members: [NodeID] {
        let members = node.locks.view?.members.map(\.node) ?? []
        return members.contains(node.locks.node) ? members : members + [node.locks.node]
    }

    /// Asks nodes; `patience` in nanoseconds.
    func ask(
        _ questions: [(node: NodeID, bytes: [UInt8])],
        patience: UInt64
    ) async -> [InquiryAnswer] {
        await desk.ask(questions, patience: patience)
    }
}

extension JSONText {
    /// The value that bytes say; nil if they say none.
    init?(_ bytes: [UInt8]) {
        do throws(JSONError) {
            self = try JSONText(parsing: String(decoding: bytes, as: UTF8.self))
        } catch {
            return nil
        }
    }
}
