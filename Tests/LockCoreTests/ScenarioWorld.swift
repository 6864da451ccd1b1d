// Runs the scripts of Tests/Scenarios: a story, commands, the output they give.
//
//   nodes 1 2 3                     lockspaces in one view
//   1 request NAME MODE [FLAG...] [as LABEL]
//   1 convert LABEL MODE [FLAG...] [value=N]
//   1 unlock LABEL [value=N]        LABEL is NAME unless `as` says otherwise
//   1 cancel LABEL
//   hold 1 2 / free 1 2             messages from 1 to 2 wait / go on
//   fail 1                          the node stops; its messages on the way stay on the way
//   view 2 3 [replay 0 ...]         the next view; nodes new in it join
//   tell 2                          with `delay views`: node 2 sees the newest view
//   leave 1                         clean; the view is another command
//   replayed                        the journals of the present view
//   show NAME                       master, directory node and queues, as the master knows them
//   messages                        how many messages were sent since the last time
//
// Commands up to `----`; then what happened, up to an empty line. LOCKSTEP_RECORD=1 rewrites the
// output.

import LockCore
import Vocabulary

struct ScenarioError: Error, CustomStringConvertible {
    var description: String
}

final class ScenarioWorld {
    private final class Node {
        let id: NodeID
        let incarnation: UInt64
        var space: Lockspace
        var labels: [String: (lock: LockID, cookie: UInt64)] = [:]
        var isAlive = true

        init(_ id: NodeID, incarnation: UInt64) {
            self.id = id
            self.incarnation = incarnation
            space = Lockspace(node: id, incarnation: incarnation)
        }

        func label(_ cookie: UInt64) -> String {
            labels.first { $0.value.cookie == cookie }?.key ?? "?"
        }
    }

    private var nodes: [Node] = []
    private var channels: [(from: NodeID, to: NodeID, message: LockMessage, epoch: Epoch)] = []
    private var held: [(NodeID, NodeID)] = []
    private var epoch: UInt64 = 0
    private var nextCookie: UInt64 = 1
    private var messageCount = 0
    private var output: [String] = []
    private var view = ClusterView(epoch: Epoch(0), members: [], slotsToReplay: [])
    private var delaysViews = false

    /// Runs one block of commands; returns what happened.
    func run(_ commands: [String]) throws -> [String] {
        output = []
        for command in commands {
            try execute(command.split(separator: " ").map(String.init))
            try deliver()
        }
        return output.isEmpty ? ["(nothing)"] : output
    }

    private func execute(_ words: [String]) throws {
        guard let verb = words.first else { return }
        if let number = UInt32(verb) {
            try operate(try node(number), Array(words.dropFirst()))
            return
        }
        switch verb {
        case "nodes", "view": try changeView(Array(words.dropFirst()))
        case "hold": held.append((try id(words, 1), try id(words, 2)))
        case "free":
            let pair = (try id(words, 1), try id(words, 2))
            held.removeAll { $0 == pair }
        case "fail": try node(try id(words, 1).rawValue).isAlive = false
        case "delay": delaysViews = true
        case "tell":
            let told = try node(try id(words, 1).rawValue)
            try drive(told) { [view] in $0.viewChanged(view, effects: &$1) }
        case "leave":
            let leaving = try node(try id(words, 1).rawValue)
            try drive(leaving) { $0.leave(effects: &$1) }
            leaving.isAlive = false
        case "replayed":
            for node in nodes where node.isAlive {
                try drive(node) { [epoch] in
                    $0.journalsReplayed(Epoch(epoch), effects: &$1)
                }
            }
        case "show": try show(try name(words, 1))
        case "messages":
            output.append("\(messageCount) messages")
            messageCount = 0
        default: throw ScenarioError(description: "unknown command \(verb)")
        }
    }

    private func operate(_ node: Node, _ words: [String]) throws {
        guard words.count >= 2 else { throw ScenarioError(description: "incomplete: \(words)") }
        var flags: LockFlags = []
        var value: ValueBlock?
        var label = words[1]
        var rest = words.dropFirst(words[0] == "unlock" || words[0] == "cancel" ? 2 : 3)
        while let word = rest.popFirst() {
            if word == "as" {
                label = rest.popFirst() ?? label
            } else if word.hasPrefix("value=") {
                value = ValueBlock(UInt64(word.dropFirst(6)) ?? 0)
                flags.insert(.valueBlock)
            } else if let flag = Self.flags[word] {
                flags.insert(flag)
            } else {
                throw ScenarioError(description: "unknown flag \(word)")
            }
        }
        if words[0] == "request" {
            let cookie = nextCookie
            nextCookie += 1
            let name = try name(words, 1)
            let mode = try mode(words, 2)
            node.labels[label] = (.none, cookie)
            try drive(node) {
                node.labels[label]?.lock = $0.request(
                    name,
                    mode,
                    flags,
                    cookie: cookie,
                    effects: &$1
                )
            }
            return
        }
        guard let lock = node.labels[label]?.lock else {
            throw ScenarioError(description: "no lock \(label)")
        }
        switch words[0] {
        case "convert":
            let mode = try mode(words, 2)
            try drive(node) { $0.convert(lock, to: mode, flags, value: value, effects: &$1) }
        case "unlock": try drive(node) { $0.unlock(lock, flags, value: value, effects: &$1) }
        case "cancel": try drive(node) { $0.cancel(lock, effects: &$1) }
        default: throw ScenarioError(description: "unknown operation \(words[0])")
        }
    }

    private func changeView(_ words: [String]) throws {
        let parts = words.split(separator: "replay", omittingEmptySubsequences: false)
        let numbers = parts[0].compactMap { UInt32($0) }.sorted()
        let slots = parts.count > 1 ? parts[1].compactMap { UInt32($0) }.map { SlotIndex($0) } : []
        epoch += 1
        for number in numbers {
            if let index = nodes.firstIndex(where: { $0.id == NodeID(number) }) {
                if nodes[index].isAlive { continue }
                nodes[index] = Node(NodeID(number), incarnation: epoch * 100 + UInt64(number))
            } else {
                nodes.append(Node(NodeID(number), incarnation: epoch * 100 + UInt64(number)))
            }
        }
        let members = nodes.filter { numbers.contains($0.id.rawValue) }
            .map { Member(node: $0.id, incarnation: $0.incarnation) }.sorted()
        view = ClusterView(epoch: Epoch(epoch), members: members, slotsToReplay: slots)
        if delaysViews { return }
        for node in nodes where node.isAlive {
            try drive(node) { [view] in $0.viewChanged(view, effects: &$1) }
        }
    }

    private func show(_ name: ResourceName) throws {
        for node in nodes where node.isAlive {
            guard let resource = node.space.describe(name), resource.master == node.id else {
                continue
            }
            let locks = resource.locks.map(\.description).joined(separator: ", ")
            var line = "\(name): master \(node.id), directory \(resource.directory): \(locks)"
            if let value = resource.value {
                line += "; value \(value.value.word0)\(value.isValid ? "" : " invalid")"
            }
            output.append(line)
            return
        }
        output.append("\(name): no master")
    }

    // MARK: Effects

    private func drive(_ node: Node, _ body: (inout Lockspace, inout [LockEffect]) -> Void) throws {
        if !node.isAlive { throw ScenarioError(description: "\(node.id) is dead") }
        var effects: [LockEffect] = []
        body(&node.space, &effects)
        for effect in effects { carryOut(effect, node) }
        try node.space.checkInvariants()
    }

    private func carryOut(_ effect: LockEffect, _ node: Node) {
        switch effect {
        case .send(let message, let peer):
            messageCount += 1
            channels.append((node.id, peer, message, node.space.epoch))
        case .complete(let completion):
            var line = "\(node.id): \(node.label(completion.cookie)) \(completion.status)"
            if completion.status == .granted { line += " \(completion.mode)" }
            if let value = completion.value { line += ", value \(value.word0)" }
            if completion.value != nil && !completion.isValueValid { line += " invalid" }
            output.append(line)
        case .blocking(let cookie, _, let wanted):
            output.append("\(node.id): \(node.label(cookie)) blocking notice, \(wanted) wanted")
        case .recoveryFinished(let epoch):
            output.append("\(node.id): recovery of \(epoch) finished")
        }
    }

    private func deliver() throws {
        var budget = 10_000
        while let index = channels.firstIndex(where: { packet in
            !held.contains { $0 == (packet.from, packet.to) }
        }) {
            let packet = channels.remove(at: index)
            budget -= 1
            if budget == 0 { throw ScenarioError(description: "messages without end") }
            guard let node = nodes.first(where: { $0.id == packet.to && $0.isAlive }) else {
                continue
            }
            try drive(node) {
                $0.receive(packet.message, from: packet.from, epoch: packet.epoch, effects: &$1)
            }
        }
    }

    // MARK: Words

    private static let flags: [String: LockFlags] = [
        "noqueue": .noQueue, "noqueuebast": .noQueueButNotify, "valblk": .valueBlock,
        "ivvalblk": .invalidateValueBlock, "quecvt": .queueConversion, "expedite": .expedite,
        "recovery": .recovery, "fresh": .freshName, "altpr": .alternatePR, "altcw": .alternateCW,
    ]

    private func node(_ number: UInt32) throws -> Node {
        guard let node = nodes.first(where: { $0.id == NodeID(number) }) else {
            throw ScenarioError(description: "no node \(number)")
        }
        return node
    }

    private func id(_ words: [String], _ place: Int) throws -> NodeID {
        guard place < words.count, let number = UInt32(words[place]) else {
            throw ScenarioError(description: "a node is missing: \(words)")
        }
        return NodeID(number)
    }

    private func name(_ words: [String], _ place: Int) throws -> ResourceName {
        let parts = place < words.count ? words[place].split(separator: ":") : []
        guard parts.count == 2, let number = UInt64(parts[1]) else {
            throw ScenarioError(description: "a name is missing: \(words)")
        }
        switch parts[0] {
        case "inode": return ResourceName(kind: .inode, number: number, generation: 1)
        case "group": return .resourceGroup(UInt32(number))
        case "journal": return .journal(SlotIndex(UInt32(number)))
        default: throw ScenarioError(description: "unknown kind \(parts[0])")
        }
    }

    private func mode(_ words: [String], _ place: Int) throws -> LockMode {
        guard place < words.count,
            let mode = LockMode.allCases.first(where: { $0.description == words[place] })
        else { throw ScenarioError(description: "a mode is missing: \(words)") }
        return mode
    }
}
