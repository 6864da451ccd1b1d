// What all nodes together know of the locks, for an administrator. Runs on a thread outside the
// engine, and is inside only to ask: reading long answers must not keep requests waiting.

import LockReports
import NodeService
import Vocabulary

/// Asks all nodes and puts their answers together.
struct ClusterInspection {
    let mount: Mount
    let observation: Observation
    /// For each round of asking, in nanoseconds.
    let patience: UInt64

    /// Names that holders are asked for once more, at most; and how many fit into a picture of who
    /// waits for whom.
    private static let mostNames = 4096
    private static let mostWaits = 4096

    private struct Gathering {
        var reports: [NodeReport] = []
        var silent: [NodeID] = []
        var garbled: [NodeID] = []
    }

    private func gather(
        _ questions: [(node: NodeID, question: LockQuestion)],
        into gathering: inout Gathering
    ) throws {
        let silent = gathering.silent
        let asked = questions.filter { !silent.contains($0.node) }.map {
            (node: $0.node, bytes: Array($0.question.json.text.utf8))
        }
        let answers = try mount.waitInEngine {
            await observation.ask(asked, patience: patience)
        }
        for answer in answers {
            guard let bytes = answer.bytes else {
                if !gathering.silent.contains(answer.node) { gathering.silent.append(answer.node) }
                continue
            }
            if let json = JSONText(bytes), let report = NodeReport(json) {
                gathering.reports.append(report)
            } else if !gathering.garbled.contains(answer.node) {
                gathering.garbled.append(answer.node)
            }
        }
    }

    /// What all nodes know about what the questions ask, as far as `result` wants it.
    private func picture(
        _ questions: [LockQuestion],
        for result: LockQuestion
    ) throws -> ClusterPicture {
        let members = try mount.waitInEngine { observation.members }
        var gathering = Gathering()
        let first = members.flatMap { member in questions.map { (member, $0) } }
        try gather(first, into: &gathering)
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
        if !second.isEmpty { try gather(second, into: &gathering) }
        return ClusterPicture(
            gathering.reports,
            silent: gathering.silent.sorted(),
            garbled: gathering.garbled.sorted(),
            question: result
        )
    }

    /// The resources that a question is about.
    func picture(_ question: LockQuestion) throws -> ClusterPicture {
        try picture([question], for: question)
    }

    /// Why locks of some resources wait.
    func explain(_ subject: String, _ question: LockQuestion) throws -> Explanation {
        var waits = LockQuestion(.locks)
        waits.onlyWaiting = true
        waits.limit = Self.mostWaits
        let picture = try picture([question, waits], for: LockQuestion(.locks))
        let names = picture.resources.map(\.name).filter(question.concerns)
        return Explanation(of: subject, names, in: picture)
    }

    /// What all nodes have counted.
    func counters() throws -> CounterTable {
        let members = try mount.waitInEngine { observation.members }
        var gathering = Gathering()
        try gather(members.map { ($0, LockQuestion(.counters)) }, into: &gathering)
        return CounterTable(
            gathering.reports,
            silent: (gathering.silent + gathering.garbled).sorted()
        )
    }

    /// What a node's flight recorder has kept; nil if it is silent or no member.
    func recording(of peer: NodeID) throws -> [UInt8]? {
        let question = Array(LockQuestion(.recording).json.text.utf8)
        return try mount.waitInEngine {
            guard observation.members.contains(peer) else { return nil }
            return await observation.ask([(peer, question)], patience: patience).first?.bytes
        }
    }
}
