// Runs the scripts of Tests/Scenarios: a story, commands, the output they give.
//
//   nodes 1 2 3                     lockspaces in one view
//   1 request NAME MODE [FLAG...] [as LABEL] [under LABEL] [owner=N] [patience=MS]
//   1 convert LABEL MODE [FLAG...] [value=N] [patience=MS]
//   1 unlock LABEL [FLAG...] [value=N]   LABEL is NAME unless `as` says otherwise
//   1 cancel LABEL
//   1 owner-gone N / 1 purge NODE N      owner N (of 1; of NODE; 0: all) is gone / its orphans go
//   1 move NAME NODE                the mastership of a tree begins to move
//   1 query NAME                    the resource as node 1 knows it
//   tick MS                         so much later, on all nodes
//   set NAME=N ...                  settings of all nodes: see `apply`
//   hold 1 2 / free 1 2             messages from 1 to 2 wait / go on
//   fail 1                          the node stops; its messages on the way stay on the way
//   view 2 3 [replay 0 ...]         the next view; nodes new in it join
//   tell 2                          with `delay views`: node 2 sees the newest view
//   leave 1                         clean; the view is another command
//   replayed                        the journals of the present view
//   show NAME                       master, directory node and queues, as the master knows them
//   1 ages NAME                     how long node 1 has seen each lock of it as it is
//   due 1                           when node 1 wants to be told the time
//   forge 1 2 MESSAGE ...           node 2 hears from node 1 what that never said: see `forge`
//   messages                        how many messages were sent since the last time
//   count NAME                      what all living nodes together have counted: see `count`
//
// A NAME is inode:7 or, for a part of a tree, inode:7/1 or inode:7/1/2.
//   step                            from now on messages and views wait for:
//   deliver 1 2                     the oldest message from 1 to 2 arrives
//   tell 2 / tell 2 newest          node 2 sees the oldest, or the newest, view it has not seen
//   go                              the end of this; everything arrives
//   lose 1 2                        all messages between 1 and 2, and all they say before a view
//
// Commands up to `----`; then what happened, up to an empty line. LOCKSTEP_RECORD=1 rewrites the
// output.

import LockCore
import Vocabulary

/// A script that cannot be run: what is wrong with it.
package struct ScenarioError: Error, CustomStringConvertible {
    package var description: String
}

/// The world of one script.
package final class ScenarioWorld {
    struct Label {
        var text: String
        var lock = LockID.none
        var cookie: UInt64
    }

    final class Node {
        let id: NodeID
        let incarnation: UInt64
        var space: Lockspace
        var labels: [Label] = []
        var isAlive = true
        /// With `step`: views it has not seen, oldest first.
        var views: [ClusterView] = []

        init(_ id: NodeID, incarnation: UInt64, settings: LockSettings, now: UInt64) {
            self.id = id
            self.incarnation = incarnation
            space = Lockspace(node: id, incarnation: incarnation)
            space.settings = settings
            space.setTime(now)
        }

        func label(_ cookie: UInt64) -> String {
            labels.first { $0.cookie == cookie }?.text ?? "?"
        }

        func lock(_ label: String) -> LockID? { labels.last { $0.text == label }?.lock }
    }

    var nodes: [Node] = []
    private var channels: [(from: NodeID, to: NodeID, message: LockMessage, epoch: Epoch)] = []
    private var held: [(NodeID, NodeID)] = []
    var epoch: UInt64 = 0
    private var nextCookie: UInt64 = 1
    private var messageCount = 0
    var output: [String] = []
    private var view = ClusterView(epoch: Epoch(0), members: [], slotsToReplay: [])
    private var delaysViews = false
    var settings = LockSettings()
    var now: UInt64 = 1_000_000
    private var isStepping = false
    private var connectionsLost = Epoch(0)
    private var lost: [(from: NodeID, to: NodeID, through: UInt64)] = []

    package init() {}

    /// Runs a whole script; returns it with the output it gave.
    ///
    /// - Throws: `ScenarioError`, or the invariant that was violated.
    package static func replay(_ lines: [String]) throws -> [String] {
        let world = ScenarioWorld()
        var result: [String] = []
        var commands: [String] = []
        var isOutput = false
        for line in lines {
            if isOutput {
                if line.isEmpty {
                    isOutput = false
                    result.append(line)
                }
                continue
            }
            result.append(line)
            if line == "----" {
                result += try world.run(commands)
                commands = []
                isOutput = true
            } else if !line.isEmpty && !line.hasPrefix("#") {
                commands.append(line)
            }
        }
        return result
    }

    /// Runs one block of commands; returns what happened.
    package func run(_ commands: [String]) throws -> [String] {
        output = []
        for command in commands {
            try execute(command.split(separator: " ").map(String.init))
            if !isStepping { try deliver() }
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
            if words.last == "newest" { told.views.removeFirst(told.views.count - 1) }
            let seen = isStepping ? told.views.removeFirst() : view
            try drive(told) { $0.viewChanged(seen, effects: &$1) }
        case "step": isStepping = true
        case "go":
            isStepping = false
            for node in nodes where node.isAlive {
                for view in node.views { try drive(node) { $0.viewChanged(view, effects: &$1) } }
                node.views = []
            }
        case "deliver": try deliverOne(from: try id(words, 1), to: try id(words, 2))
        case "lose":
            loseConnection(of: try id(words, 1), try id(words, 2))
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
        case "repeat":
            // repeat N COMMAND: without its output.
            let before = output
            for _ in 0..<(Int(words[1]) ?? 0) {
                try execute(Array(words.dropFirst(2)))
                try deliver()
            }
            output = before
        case "show": try show(try name(words, 1))
        case "messages":
            output.append("\(messageCount) messages")
            messageCount = 0
        default: try observe(words)
        }
    }

    /// The words after the name and the mode of an operation.
    private struct Wishes {
        var flags: LockFlags = []
        var value: ValueBlock?
        var label: String?
        var parent: String?
        var owner = LockOwner.none
        var patience: UInt32 = 0

        init(_ words: ArraySlice<String>) throws {
            var rest = words
            while let word = rest.popFirst() {
                let parts = word.split(separator: "=")
                let number = parts.count == 2 ? UInt64(parts[1]) : nil
                switch (String(parts[0]), number) {
                case ("as", nil): label = rest.popFirst()
                case ("under", nil): parent = rest.popFirst()
                case ("owner", let number?): owner = LockOwner(UInt32(number))
                case ("patience", let number?): patience = UInt32(number)
                case ("value", let number?):
                    value = ValueBlock(number)
                    flags.insert(.valueBlock)
                case (let name, nil):
                    guard let flag = ScenarioWorld.flags[name] else {
                        throw ScenarioError(description: "unknown flag \(word)")
                    }
                    flags.insert(flag)
                default: throw ScenarioError(description: "unknown wish \(word)")
                }
            }
        }
    }

    private func operate(_ node: Node, _ words: [String]) throws {
        guard words.count >= 2 else { throw ScenarioError(description: "incomplete: \(words)") }
        switch words[0] {
        case "request", "convert", "unlock", "cancel": break
        default: return try administer(node, words)
        }
        let hasMode = words[0] == "request" || words[0] == "convert"
        let wishes = try Wishes(words.dropFirst(hasMode ? 3 : 2))
        if words[0] == "request" { return try request(node, words, wishes) }
        guard let lock = node.lock(words[1]) else {
            throw ScenarioError(description: "no lock \(words[1])")
        }
        switch words[0] {
        case "convert":
            let mode = try mode(words, 2)
            try drive(node) {
                $0.convert(
                    lock,
                    to: mode,
                    wishes.flags,
                    value: wishes.value,
                    patience: wishes.patience,
                    effects: &$1
                )
            }
        case "unlock":
            try drive(node) { $0.unlock(lock, wishes.flags, value: wishes.value, effects: &$1) }
        default: try drive(node) { $0.cancel(lock, effects: &$1) }
        }
    }

    private func request(_ node: Node, _ words: [String], _ wishes: Wishes) throws {
        let label = wishes.label ?? words[1]
        let cookie = nextCookie
        nextCookie += 1
        let name = try name(words, 1)
        let mode = try mode(words, 2)
        let parent = wishes.parent.flatMap { node.lock($0) } ?? .none
        node.labels.append(Label(text: label, cookie: cookie))
        let place = node.labels.count - 1
        try drive(node) {
            node.labels[place].lock = $0.request(
                name,
                mode,
                wishes.flags,
                cookie: cookie,
                owner: wishes.owner,
                parent: parent,
                patience: wishes.patience,
                effects: &$1
            )
        }
        if let completion = node.space.takeSynchronous() {
            output.append("\(node.id): \(label) \(completion.status) at once")
        }
    }

    private func newNode(_ number: UInt32) -> Node {
        Node(
            NodeID(number),
            incarnation: epoch * 100 + UInt64(number),
            settings: settings,
            now: now
        )
    }

    private func loseConnection(of one: NodeID, _ other: NodeID) {
        let pair = [one, other]
        channels.removeAll { pair.contains($0.from) && pair.contains($0.to) }
        lost.append((one, other, epoch))
        lost.append((other, one, epoch))
        connectionsLost = Epoch(epoch + 1)
    }

    private func changeView(_ words: [String]) throws {
        let parts = words.split(separator: "replay", omittingEmptySubsequences: false)
        let numbers = parts[0].compactMap { UInt32($0) }.sorted()
        let slots = parts.count > 1 ? parts[1].compactMap { UInt32($0) }.map { SlotIndex($0) } : []
        epoch += 1
        for number in numbers {
            if let index = nodes.firstIndex(where: { $0.id == NodeID(number) }) {
                if nodes[index].isAlive { continue }
                nodes[index] = newNode(number)
            } else {
                nodes.append(newNode(number))
            }
        }
        let members = nodes.filter { numbers.contains($0.id.rawValue) }
            .map { Member(node: $0.id, incarnation: $0.incarnation) }.sorted()
        view = ClusterView(
            epoch: Epoch(epoch),
            members: members,
            slotsToReplay: slots,
            connectionsLost: connectionsLost
        )
        if isStepping { for node in nodes where node.isAlive { node.views.append(view) } }
        if delaysViews || isStepping { return }
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

    func drive(_ node: Node, _ body: (inout Lockspace, inout [LockEffect]) -> Void) throws {
        if !node.isAlive { throw ScenarioError(description: "\(node.id) is dead") }
        var effects: [LockEffect] = []
        body(&node.space, &effects)
        for effect in effects { try carryOut(effect, node) }
        try node.space.checkInvariants()
    }

    private func carryOut(_ effect: LockEffect, _ node: Node) throws {
        switch effect {
        case .send(let message, let peer):
            messageCount += 1
            let isLost = lost.contains {
                $0.from == node.id && $0.to == peer && node.space.epoch.rawValue <= $0.through
            }
            if isLost { return }
            channels.append((node.id, peer, message, node.space.epoch))
        case .complete(let completion):
            let label = node.labels.first { $0.cookie == completion.cookie }
            if let label, label.lock != completion.lock {
                throw ScenarioError(description: "an answer for another lock: \(completion)")
            }
            var line = "\(node.id): \(node.label(completion.cookie)) \(completion.status)"
            if completion.status == .granted { line += " \(completion.mode)" }
            if completion.status == .busy { line += " in \(completion.mode)" }
            for (remark, word) in Self.remarks where completion.remarks.contains(remark) {
                line += ", \(word)"
            }
            if let value = completion.value { line += ", value \(value.word0)" }
            if completion.value != nil && !completion.isValueValid { line += " invalid" }
            output.append(line)
        case .blocking(let cookie, _, let wanted):
            output.append("\(node.id): \(node.label(cookie)) blocking notice, \(wanted) wanted")
        case .deadlock(let hops, let victim):
            let names = hops.map { "\($0)" }.joined(separator: "; ")
            let label = node.labels.first { $0.lock == victim }?.text ?? "?"
            output.append("\(node.id): \(label) deadlock: \(names)")
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

    private func deliverOne(from: NodeID, to: NodeID) throws {
        guard let index = channels.firstIndex(where: { $0.from == from && $0.to == to }) else {
            throw ScenarioError(description: "nothing is on its way from \(from) to \(to)")
        }
        let packet = channels.remove(at: index)
        try drive(try node(to.rawValue)) {
            $0.receive(packet.message, from: from, epoch: packet.epoch, effects: &$1)
        }
    }
}
