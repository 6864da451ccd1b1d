// The words of scenario scripts, and the commands of the administrator.

import LockCore
import Vocabulary

extension ScenarioWorld {
    func administer(_ node: Node, _ words: [String]) throws {
        switch words[0] {
        case "owner-gone":
            let owner = LockOwner(UInt32(words[1]) ?? 0)
            try drive(node) { $0.ownerIsGone(owner, effects: &$1) }
        case "purge":
            let peer = try id(words, 1)
            let owner = LockOwner(words.count > 2 ? UInt32(words[2]) ?? 0 : 0)
            try drive(node) { $0.purgeOrphans(of: peer, owner: owner, effects: &$1) }
        case "move":
            let name = try name(words, 1)
            let target = try id(words, 2)
            try drive(node) { $0.moveMaster(of: name, to: target, effects: &$1) }
        case "query":
            let name = try name(words, 1)
            guard let resource = node.space.describe(name) else {
                output.append("\(node.id): \(name): unknown")
                return
            }
            output.append("\(node.id): \(name): master \(resource.master)")
            for lock in resource.locks { output.append("  \(lock.details)") }
        case "ages":
            for lock in node.space.describe(try name(words, 1))?.locks ?? [] {
                output.append("\(node.id): \(lock) for \(lock.age) ms")
            }
        default: throw ScenarioError(description: "unknown operation \(words[0])")
        }
    }

    /// Time, settings, counts, and what nobody said.
    func observe(_ words: [String]) throws {
        switch words[0] {
        case "forge": try forge(words)
        case "due": try due(words)
        case "set": try apply(words)
        case "tick": try tick(UInt64(words.count > 1 ? words[1] : "") ?? 0)
        case "count": try count(words.count > 1 ? words[1] : "")
        default: throw ScenarioError(description: "unknown command \(words[0])")
        }
    }

    func apply(_ words: [String]) throws {
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
            case "cached-masters": settings.cachedMasters = Int(number)
            case "clearly-more": settings.clearlyMore = number
            case "most-moves": settings.mostMoves = Int(number)
            default: throw ScenarioError(description: "unknown setting \(word)")
            }
        }
        for node in nodes { node.space.settings = settings }
    }

    func tick(_ milliseconds: UInt64) throws {
        now += milliseconds
        for node in nodes where node.isAlive {
            try drive(node) { [now] in $0.tick(now, effects: &$1) }
        }
    }

    /// When a node wants to be told the time: a driver that obeys sleeps until then.
    func due(_ words: [String]) throws {
        let node = try node(try id(words, 1).rawValue)
        guard let next = node.space.nextTick else {
            output.append("\(node.id): no tick is due")
            return
        }
        output.append("\(node.id): a tick is due in \(Int64(next) - Int64(now)) ms")
    }

    func count(_ name: String) throws {
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
                default: counters.members.first { $0.name == name }?.count ?? UInt64.max
                }
            if counted == .max { throw ScenarioError(description: "no counter \(name)") }
            sum += counted
        }
        output.append("\(sum) \(name)")
    }

    // MARK: Words

    static let remarks: [(LockRemarks, String)] = [
        (.demoted, "demoted"), (.alternateMode, "alternate mode"), (.adopted, "adopted"),
    ]

    static let flags: [String: LockFlags] = [
        "noqueue": .noQueue, "noqueuebast": .noQueueButNotify, "valblk": .valueBlock,
        "ivvalblk": .invalidateValueBlock, "quecvt": .queueConversion, "expedite": .expedite,
        "recovery": .recovery, "fresh": .freshName, "altpr": .alternatePR, "altcw": .alternateCW,
        "headque": .headQueue, "noorder": .noOrder, "convdeadlk": .demoteOnDeadlock,
        "nodlckwt": .noDeadlockWait, "nodlckblk": .noDeadlockBlock, "persistent": .persistent,
        "orphan": .adoptOrphan, "syncsts": .synchronous, "deqall": .withSublocks,
        "unlessstopped": .unlessStopped,
    ]

    func node(_ number: UInt32) throws -> Node {
        guard let node = nodes.first(where: { $0.id == NodeID(number) }) else {
            throw ScenarioError(description: "no node \(number)")
        }
        return node
    }

    func id(_ words: [String], _ place: Int) throws -> NodeID {
        guard place < words.count, let number = UInt32(words[place]) else {
            throw ScenarioError(description: "a node is missing: \(words)")
        }
        return NodeID(number)
    }

    func name(_ words: [String], _ place: Int) throws -> ResourceName {
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

    func mode(_ words: [String], _ place: Int) throws -> LockMode {
        guard place < words.count,
            let mode = LockMode.allCases.first(where: { $0.description == words[place] })
        else { throw ScenarioError(description: "a mode is missing: \(words)") }
        return mode
    }
}
