// A path of the search, told as a scenario of Tests/Scenarios: messages and views wait until they
// are delivered by hand.

import LockCore
import Vocabulary

/// Tells paths.
enum SearchStory {
    /// The lines of a scenario: a command per event, what the nodes say about it as comments.
    static func tell(_ path: [SearchEvent], _ plan: SearchPlan) -> [String] {
        var state = SearchState(plan)
        let members = state.nodes.map { "\($0.id.rawValue)" }.joined(separator: " ")
        var lines = ["nodes \(members)"]
        if plan.beginsAtOnce { lines.insert("step", at: 0) } else { lines.append("step") }
        for event in path {
            lines.append(command(event, state, plan))
            do {
                state = try state.after(event, plan) { lines.append("#     \($0)") }
            } catch {
                lines.append("#     violated: \(error)")
            }
            if let view = view(event, state) { lines.append(view) }
        }
        return lines
    }

    private static func command(
        _ event: SearchEvent,
        _ state: SearchState,
        _ plan: SearchPlan
    ) -> String {
        let node = event.node.rawValue
        let label = "\(Character(UnicodeScalar(UInt8(97 + event.a % 26))))\(node)"
        switch event.kind {
        case .deliver: return "deliver \(node) \(event.a)"
        case .control:
            if case .replayed = state.controls[Int(node)].first, event.a == 0 {
                return "# node \(node) hears that the journals are replayed"
            }
            return "tell \(node)\(event.a == 1 ? " newest" : "")"
        case .request:
            let ask = plan.requests[event.c]
            let name = plan.names[event.b]
            return
                "\(node) request inode:\(name.number) \(ask.mode)\(words(ask.flags)) as \(label)"
        case .convert:
            let ask = plan.conversions[event.b]
            return "\(node) convert \(label) \(ask.mode)\(words(ask.flags))"
                + value(event, ask.mode, ask.flags, state)
        case .unlock:
            let flags = plan.unlocks[event.b]
            return "\(node) unlock \(label)\(words(flags))" + value(event, nil, flags, state)
        case .cancel: return "\(node) cancel \(label)"
        case .die: return "fail \(node)"
        case .leave: return "leave \(node)"
        case .join: return "# node \(plan.nodeCount + state.joins + 1) joins"
        case .lose: return "lose \(node) \(event.a)"
        case .replay: return "replayed"
        }
    }

    private static func view(_ event: SearchEvent, _ state: SearchState) -> String? {
        switch event.kind {
        case .die, .leave, .join, .lose: break
        default: return nil
        }
        let members = state.nodes.map { "\($0.id.rawValue)" }.joined(separator: " ")
        let slots = state.unreplayed.map { " \($0.rawValue)" }.joined()
        return "view \(members)" + (slots.isEmpty ? "" : " replay" + slots)
    }

    private static func value(
        _ event: SearchEvent,
        _ mode: LockMode?,
        _ flags: LockFlags,
        _ state: SearchState
    ) -> String {
        guard let index = state.index(of: event.node),
            let held = state.nodes[index].clients[event.a]?.held,
            WrittenValue.writes(from: held, to: mode, flags)
        else { return "" }
        return " value=\(state.writes + 1)"
    }

    private static func words(_ flags: LockFlags) -> String {
        let known: [(LockFlags, String)] = [
            (.noQueue, "noqueue"), (.noQueueButNotify, "noqueuebast"), (.valueBlock, "valblk"),
            (.invalidateValueBlock, "ivvalblk"), (.queueConversion, "quecvt"),
            (.expedite, "expedite"), (.recovery, "recovery"), (.freshName, "fresh"),
            (.alternatePR, "altpr"), (.alternateCW, "altcw"),
        ]
        return known.filter { flags.contains($0.0) }.map { " \($0.1)" }.joined()
    }
}
