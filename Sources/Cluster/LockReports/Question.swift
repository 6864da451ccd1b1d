// What an administrator's command asks of one node, and what that node asks of the others. JSON, so
// that a node of another version can say what it does not understand.

import LockCore
package import Vocabulary

/// One question.
package struct LockQuestion: Hashable, Sendable {
    /// What about.
    package enum Subject: String, Sendable {
        case locks, counters, recording
    }

    /// The version of questions and answers. Grows when a member changes its meaning; members are
    /// added without.
    package static let version: UInt64 = 1

    package var subject: Subject
    /// Only resources of these kinds; all if there are none.
    package var kinds: [ResourceKind] = []
    /// Only those with this number: of an inode its address.
    package var number: UInt64?
    /// Only those with this generation.
    package var generation: UInt64?
    /// Only these names; with them nothing else counts. At most `namesPerQuestion`.
    package var names: [ResourceName] = []
    /// Only where somebody waits.
    package var onlyWaiting = false
    /// Only where this node has a lock.
    package var node: NodeID?
    /// The most resources to tell, the first by name; 0: all.
    package var limit = 0

    /// So many names fit into one inquiry, whatever they are.
    package static let namesPerQuestion = 64

    package init(_ subject: Subject) { self.subject = subject }

    /// The most resources to tell, as a number to compare with.
    package var bound: Int { limit == 0 ? Int.max / 4 : limit }

    /// Whether a name is meant.
    package func concerns(_ name: ResourceName) -> Bool {
        if !names.isEmpty { return names.contains(name) }
        if !kinds.isEmpty && !kinds.contains(name.kind) { return false }
        if let number, number != name.number { return false }
        if let generation, generation != name.generation { return false }
        return true
    }

    /// Whether a resource is meant, when all is known of it.
    package func concerns(_ resource: ResourceReport) -> Bool {
        if !concerns(resource.name) { return false }
        if !names.isEmpty { return true }
        if onlyWaiting && !resource.locks.contains(where: \.isWaiting) { return false }
        if let node, !resource.locks.contains(where: { $0.holder == node }) { return false }
        return true
    }

    /// The question as JSON.
    package var json: JSONText {
        var members: [JSONText.Member] = [
            .init("version", .number(Self.version)), .init("ask", .string(subject.rawValue)),
        ]
        if !kinds.isEmpty { members.append("kinds", .array(kinds.map { .string($0.word) })) }
        members.append("number", number.map { .number($0) })
        members.append("generation", generation.map { .number($0) })
        if !names.isEmpty {
            members.append("names", .array(names.map { .string($0.description) }))
        }
        members.append(mark: "waiting", onlyWaiting)
        members.append("node", node.map { .count($0.rawValue) })
        members.append(nonzero: "limit", limit)
        return .object(members)
    }

    /// A question that was asked; nil if it is not understood.
    package init?(_ json: JSONText) {
        guard json["version"]?.number == Self.version,
            let subject = json["ask"]?.string.flatMap(Subject.init(rawValue:))
        else { return nil }
        self.init(subject)
        for word in json["kinds"]?.elements ?? [] {
            guard let kind = word.string.flatMap(ResourceKind.init(word:)) else { return nil }
            kinds.append(kind)
        }
        for text in json["names"]?.elements ?? [] {
            guard let name = text.string.flatMap(ResourceName.init(_:)) else { return nil }
            names.append(name)
        }
        number = json["number"]?.number
        generation = json["generation"]?.number
        onlyWaiting = json.flag("waiting")
        node = json["node"]?.number.map { NodeID(UInt32(clamping: $0)) }
        limit = Int(clamping: json.number("limit"))
    }
}
