// Runs the scripts of Tests/Scenarios: a story, commands, the output they give.
//
//   nodes 1 2 3                     lockspaces in one view
//   1 request NAME MODE [FLAG...] [as LABEL] [under LABEL] [owner=N] [patience=MS]
//   1 convert LABEL MODE [FLAG...] [value=N] [patience=MS]
//   1 unlock LABEL [FLAG...] [value=N]   LABEL is NAME unless `as` says otherwise
//   1 cancel LABEL
//   1 owner-gone N / 1 purge NODE N      owner N (of 1; of NODE; 0: all) is gone / its orphans go
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
//   messages                        how many messages were sent since the last time
//   count NAME                      what all nodes together have counted: see `counted`
//
// A NAME is inode:7 or, for a part of a tree, inode:7/1 or inode:7/1/2.
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

        init(_ id: NodeID, incarnation: UInt64, settings: LockSettings, now: UInt64) {
            self.id = id
            self.incarnation = incarnation
            space = Lockspace(node: id, incarnation: incarnation)
            space.settings = settings
            space.setTime(now)
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
    private var settings = LockSettings()
    private var now: UInt64 = 1_000_000

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
        case "set": try apply(words)
        case "tick": try tick(UInt64(words.count > 1 ? words[1] : "") ?? 0)
        case "count": try count(words.count > 1 ? words[1] : "")
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
        default: throw ScenarioError(description: "unknown command \(verb)")
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
        guard let lock = node.labels[words[1]]?.lock else {
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
        let parent = wishes.parent.flatMap { node.labels[$0]?.lock } ?? .none
        node.labels[label] = (.none, cookie)
        try drive(node) {
            node.labels[label]?.lock = $0.request(
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

    private func administer(_ node: Node, _ words: [String]) throws {
        switch words[0] {
        case "owner-gone":
            let owner = LockOwner(UInt32(words[1]) ?? 0)
            try drive(node) { $0.ownerIsGone(owner, effects: &$1) }
        case "purge":
            let peer = try id(words, 1)
            let owner = LockOwner(words.count > 2 ? UInt32(words[2]) ?? 0 : 0)
            try drive(node) { $0.purgeOrphans(of: peer, owner: owner, effects: &$1) }
        case "query":
            let name = try name(words, 1)
            guard let resource = node.space.describe(name) else {
                output.append("\(node.id): \(name): unknown")
                return
            }
            output.append("\(node.id): \(name): master \(resource.master)")
            for lock in resource.locks { output.append("  \(lock.details)") }
        default: throw ScenarioError(description: "unknown operation \(words[0])")
        }
    }

    private func apply(_ words: [String]) throws {
        for word in words.dropFirst() {
            let parts = word.split(separator: "=")
            guard parts.count == 2, let number = UInt32(parts[1]) else {
                throw ScenarioError(description: "a setting is missing: \(word)")
            }
            switch parts[0] {
            case "deadlock-wait": settings.deadlockWait = number
            case "activity-interval": settings.activityInterval = number
            case "least-activity": settings.leastActivity = number
            case "largest-move": settings.largestMove = Int(number)
            case "rest-after-move": settings.restAfterMove = number
            default: throw ScenarioError(description: "unknown setting \(word)")
            }
        }
        for node in nodes { node.space.settings = settings }
    }

    private func tick(_ milliseconds: UInt64) throws {
        now += milliseconds
        for node in nodes where node.isAlive {
            try drive(node) { [now] in $0.tick(now, effects: &$1) }
        }
    }

    private func count(_ name: String) throws {
        var sum: UInt64 = 0
        for node in nodes where node.isAlive {
            let counters = node.space.counters
            let counted =
                switch name {
                case "cycles-found": counters.cyclesFound
                case "cycles-broken": counters.cyclesBroken
                case "cycles-vanished": counters.cyclesVanished
                case "searches": counters.deadlockSearches
                case "moves": counters.movesIn
                case "moves-too-large": counters.movesTooLarge
                case "moves-thrashing": counters.movesThrashing
                case "stale": counters.staleMessages
                case "errors": counters.protocolErrors
                case "wrong-master": counters.wrongMaster
                default: UInt64.max
                }
            if counted == .max { throw ScenarioError(description: "no counter \(name)") }
            sum += counted
        }
        output.append("\(sum) \(name)")
    }

    private func newNode(_ number: UInt32) -> Node {
        Node(
            NodeID(number),
            incarnation: epoch * 100 + UInt64(number),
            settings: settings,
            now: now
        )
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
            let label = node.labels.first { $0.value.lock == victim }?.key ?? "?"
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

    // MARK: Words

    private static let remarks: [(LockRemarks, String)] = [
        (.demoted, "demoted"), (.alternateMode, "alternate mode"), (.adopted, "adopted"),
    ]

    fileprivate static let flags: [String: LockFlags] = [
        "noqueue": .noQueue, "noqueuebast": .noQueueButNotify, "valblk": .valueBlock,
        "ivvalblk": .invalidateValueBlock, "quecvt": .queueConversion, "expedite": .expedite,
        "recovery": .recovery, "fresh": .freshName, "altpr": .alternatePR, "altcw": .alternateCW,
        "headque": .headQueue, "noorder": .noOrder, "convdeadlk": .demoteOnDeadlock,
        "nodlckwt": .noDeadlockWait, "nodlckblk": .noDeadlockBlock, "persistent": .persistent,
        "orphan": .adoptOrphan, "syncsts": .synchronous, "deqall": .withSublocks,
        "unlessstopped": .unlessStopped,
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
        let numbers = parts.count == 2 ? parts[1].split(separator: "/").map { UInt64($0) } : []
        guard let first = numbers.first, let number = first else {
            throw ScenarioError(description: "a name is missing: \(words)")
        }
        switch parts[0] {
        case "inode":
            var name = ResourceName(kind: .inode, number: number, generation: 1)
            for part in numbers.dropFirst() { name = name.child(part ?? 0) }
            return name
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
