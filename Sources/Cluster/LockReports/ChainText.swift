// The story of `lockstep locks --why`.

import LockCache
import LockCore
package import Vocabulary

/// The answer to "why does this wait?".
package struct Explanation: Hashable, Sendable {
    /// What was asked about, as the administrator named it.
    package var subject: String
    package var names: [ResourceName]
    package var picture: ClusterPicture
    package var chain: WaitChain

    package init(of subject: String, _ names: [ResourceName], in picture: ClusterPicture) {
        self.subject = subject
        self.names = names
        self.picture = picture
        chain = WaitChain(of: names, in: picture)
    }

    /// For people.
    package var text: String {
        let list = names.map(\.description).joined(separator: " and ")
        var lines: [String] = []
        if names.isEmpty {
            lines.append("\(subject): nothing waits; no node has a lock on it")
        } else if chain.isWaitedFor {
            lines.append("\(subject): \(list)")
        } else {
            lines.append("\(subject): nothing waits for \(list)")
            lines += holders
        }
        for step in chain.steps {
            lines.append(String(repeating: "  ", count: step.depth) + words(step))
        }
        if chain.omitted > 0 { lines.append("\(chain.omitted) more that are not shown") }
        lines += picture.remarks
        return lines.map { $0 + "\n" }.joined()
    }

    /// Who has it, when nobody waits.
    private var holders: [String] {
        names.flatMap { name in
            (picture[name]?.locks ?? []).map { lock in
                "  \(held(lock)) on \(name)\(tail(lock))"
            }
        }
    }

    private func held(_ lock: LockReport) -> String {
        let mode = lock.granted?.description ?? lock.modes
        return "\(picture.label(lock.holder)) holds \(mode) since \(Words.age(lock.age))"
    }

    private func tail(_ lock: LockReport) -> String {
        let doing = lock.doing
        if !doing.isEmpty { return ": \(doing)" }
        if picture.silent.contains(lock.holder) {
            return ": what it does is not known, it is silent"
        }
        return ""
    }

    private func words(_ step: WaitChain.Step) -> String {
        let lock = step.lock
        let node = picture.label(lock.holder)
        switch step.kind {
        case .waits:
            let wanted = lock.requested?.description ?? "?"
            let kept = lock.granted.map { $0 == .null ? "" : ", holding \($0)" } ?? ""
            let beginning =
                step.isCertain ? "\(node) waits" : "\(node) also waits, perhaps for this,"
            let owner = lock.owner == .none ? "" : " for \(lock.owner)"
            return
                "\(beginning)\(owner) since \(Words.age(lock.age)) for \(step.resource) in \(wanted)\(kept)"
        case .holds: return held(lock) + tail(lock)
        case .before: return "\(node) is before it in the queue: \(lock.modes)\(tail(lock))"
        case .circle: return "which is where this began: a circle, nobody of it can go on"
        case .known: return "(see above)"
        case .reason(let reason): return reason
        case .local:
            let queued = Words.count(lock.activity?.queued ?? 0, "operation")
            return "\(queued) of \(node) wait for \(step.resource) behind others of the same node: "
                + lock.doing
        }
    }

    /// For programs.
    package var json: JSONText {
        .object([
            .init("subject", .string(subject)),
            .init("resources", .array(names.map { .string($0.description) })),
            .init("waits", .boolean(chain.isWaitedFor)),
            .init("circle", .boolean(chain.hasCircle)),
            .init("steps", .array(chain.steps.map { json($0) })),
            .init("omitted", .count(chain.omitted)),
            .init("picture", picture.json),
        ])
    }

    private func json(_ step: WaitChain.Step) -> JSONText {
        let kind =
            switch step.kind {
            case .waits: "waits"
            case .holds: "holds"
            case .before: "before"
            case .circle: "circle"
            case .known: "known"
            case .reason: "reason"
            case .local: "local"
            }
        var members: [JSONText.Member] = [
            .init("kind", .string(kind)), .init("depth", .count(step.depth)),
            .init("resource", .string(step.resource.description)),
            .init("node", .count(step.lock.holder.rawValue)),
            .init("nodeName", .string(picture.report(of: step.lock.holder)?.name ?? "")),
            .init("certain", .boolean(step.isCertain)),
        ]
        if case .reason(let reason) = step.kind { members.append("reason", .string(reason)) }
        members.append("lock", step.lock.json)
        members.append("text", .string(words(step)))
        return .object(members)
    }
}
