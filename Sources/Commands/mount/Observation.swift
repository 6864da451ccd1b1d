// What this node tells of the lock managers: of its own to whoever asks, of all together to an
// administrator.

import Execution
import FileSystem
import LockCache
import LockCore
import LockReports
import NodeService
import Vocabulary

/// Reports of one node, and pictures of the cluster. Engine-bound.
final class Observation {
    private let engine: Engine
    private let node: NodeRuntime
    private let name: String
    private let desk: InquiryDesk

    /// Names that holders are asked for once more, at most; and how many fit into a picture of who
    /// waits for whom.
    private static let mostNames = 4096
    private static let mostWaits = 4096

    init(engine: Engine, node: NodeRuntime, name: String) {
        self.engine = engine
        self.node = node
        self.name = name
        desk = InquiryDesk(node.locks, engine: engine)
        desk.answer = { [weak self] bytes in self?.answer(bytes) ?? [] }
    }

    // MARK: This node

    private func answer(_ bytes: [UInt8]) -> [UInt8] {
        guard let json = Self.parsed(bytes), let question = LockQuestion(json) else { return [] }
        if question.subject == .recording { return node.locks.recording }
        return Array(report(question).json.text.utf8)
    }

    private static func parsed(_ bytes: [UInt8]) -> JSONText? {
        do throws(JSONError) {
            return try JSONText(parsing: String(decoding: bytes, as: UTF8.self))
        } catch {
            return nil
        }
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
            atMost: question.bound,
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

    // MARK: The cluster

    private struct Gathering {
        var reports: [NodeReport] = []
        var silent: [NodeID] = []
        var garbled: [NodeID] = []
    }

    private func gather(
        _ questions: [(node: NodeID, question: LockQuestion)],
        patience: UInt64,
        into gathering: inout Gathering
    ) async {
        let asked = questions.filter { !gathering.silent.contains($0.node) }
        let answers = await desk.ask(
            asked.map { ($0.node, Array($0.question.json.text.utf8)) },
            patience: patience
        )
        for answer in answers {
            guard let bytes = answer.bytes else {
                if !gathering.silent.contains(answer.node) { gathering.silent.append(answer.node) }
                continue
            }
            if let json = Self.parsed(bytes), let report = NodeReport(json) {
                gathering.reports.append(report)
            } else if !gathering.garbled.contains(answer.node) {
                gathering.garbled.append(answer.node)
            }
        }
    }

    private var members: [NodeID] {
        let members = node.locks.view?.members.map(\.node) ?? []
        return members.contains(node.locks.node) ? members : members + [node.locks.node]
    }

    /// What all nodes know about what the questions ask, as far as `result` wants it. `patience` in
    /// nanoseconds for each round of asking.
    private func picture(
        _ questions: [LockQuestion],
        for result: LockQuestion,
        patience: UInt64
    ) async -> ClusterPicture {
        var gathering = Gathering()
        let first = members.flatMap { member in questions.map { (member, $0) } }
        await gather(first, patience: patience, into: &gathering)
        let draft = ClusterPicture(gathering.reports, question: result)
        var second: [(NodeID, LockQuestion)] = []
        for (holder, names) in draft.unasked {
            var rest = names.prefix(Self.mostNames)
            while !rest.isEmpty {
                var question = LockQuestion(.locks)
                question.names = Array(rest.prefix(LockQuestion.namesPerQuestion))
                second.append((holder, question))
                rest = rest.dropFirst(LockQuestion.namesPerQuestion)
            }
        }
        let isWhole = second.isEmpty
        if !isWhole { await gather(second, patience: patience, into: &gathering) }
        return ClusterPicture(
            gathering.reports,
            silent: gathering.silent.sorted(),
            garbled: gathering.garbled.sorted(),
            question: result
        )
    }

    /// The resources that a question is about.
    func picture(_ question: LockQuestion, patience: UInt64) async -> ClusterPicture {
        await picture([question], for: question, patience: patience)
    }

    /// Why locks of an inode wait.
    func explain(
        _ subject: String,
        _ question: LockQuestion,
        patience: UInt64
    ) async -> Explanation {
        var waits = LockQuestion(.locks)
        waits.onlyWaiting = true
        waits.limit = Self.mostWaits
        let picture = await picture(
            [question, waits],
            for: LockQuestion(.locks),
            patience: patience
        )
        let names = picture.resources.map(\.name).filter(question.concerns)
        return Explanation(of: subject, names, in: picture)
    }

    /// What a node's flight recorder has kept; nil if it is silent.
    func recording(of peer: NodeID, patience: UInt64) async -> [UInt8]? {
        let question = Array(LockQuestion(.recording).json.text.utf8)
        return await desk.ask([(peer, question)], patience: patience).first?.bytes
    }

    /// What all nodes have counted.
    func counters(patience: UInt64) async -> CounterTable {
        var gathering = Gathering()
        let questions = members.map { ($0, LockQuestion(.counters)) }
        await gather(questions, patience: patience, into: &gathering)
        return CounterTable(
            gathering.reports,
            silent: (gathering.silent + gathering.garbled).sorted()
        )
    }
}
