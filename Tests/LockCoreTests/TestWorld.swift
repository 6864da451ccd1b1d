// Several lockspaces in one process: seeded delivery in order per pair of nodes, views that reach
// nodes at different times, deaths, joins, leaves. One seed, one run.

import ClusterWire
import LockCore
import Vocabulary

/// What a test client asked last for a lock.
enum Asked: Equatable {
    case nothing
    case request(LockMode)
    case convert(LockMode)
    case unlock
}

/// A lock as its client sees it.
final class ClientLock {
    let cookie: UInt64
    let name: ResourceName
    var id = LockID.none
    var held: LockMode?
    var asked: Asked
    var flags: LockFlags
    /// Wants heard since the last grant or view.
    var heard: [LockMode] = []
    /// A notice came that was not acted upon.
    var mustYield: LockMode?
    /// Names that others may learn when the pending demotion completes.
    var publishes: [Published] = []

    init(cookie: UInt64, name: ResourceName, mode: LockMode, flags: LockFlags) {
        self.cookie = cookie
        self.name = name
        self.asked = .request(mode)
        self.flags = flags
    }

    /// What the client may still rely on. A conversion gives up at once what the new mode lacks.
    var effective: LockMode? {
        guard let held else { return nil }
        switch asked {
        case .nothing: return held
        case .unlock, .request: return nil
        case .convert(let mode):
            if held.covers(mode) { return mode }
            return mode.covers(held) ? held : .concurrentRead
        }
    }

    var isIdle: Bool { held != nil && asked == .nothing }
}

/// A name that leaves its creator's privacy: to be used by all, or free to be created again.
struct Published {
    var name: ResourceName
    var isFree: Bool
}

/// One node of the world in one life.
final class TestNode {
    let id: NodeID
    let incarnation: UInt64
    var space: Lockspace
    var locks: [ClientLock] = []
    var isAlive = true
    var isLeaving = false
    /// Views on their way, oldest first.
    var views: [ClusterView] = []
    var view = ClusterView(epoch: Epoch(0), members: [], slotsToReplay: [])
    var unpublished: [Published] = []

    init(id: NodeID, incarnation: UInt64) {
        self.id = id
        self.incarnation = incarnation
        space = Lockspace(node: id, incarnation: incarnation)
    }

    func lock(cookie: UInt64) -> ClientLock? { locks.first { $0.cookie == cookie } }
}

/// A message between two nodes' lives.
struct Packet {
    var bytes: [UInt8]
    var message: LockMessage
    var epoch: Epoch
}

/// A failure of an oracle: one line.
struct WorldFailure: Error, CustomStringConvertible {
    var description: String
}

/// What a run may contain.
struct WorldOptions {
    var nodeCount = 3
    var steps = 600
    var hasDeaths = true
    var hasJoins = true
    var hasLeaves = true
    var nameCount = 4
    var encodes = true
}

/// What a run contained: a test that met nothing proves nothing.
struct WorldStatistics {
    var grants = 0
    var waits = 0
    var valuesChecked = 0
    var invalidValues = 0
    var notices = 0
    var views = 0
    var overtakenViews = 0
    var freshRequests = 0
    var cancelled = 0
    var refused = 0
    var messages = 0
    var withheld = 0
}

final class World {
    var dice: SeededGenerator
    let options: WorldOptions
    var nodes: [TestNode] = []
    /// Indexed [from][to] by node number.
    var channels: [[[Packet]]]
    var epoch = Epoch(0)
    var nextIncarnation: UInt64 = 1
    var nextCookie: UInt64 = 1
    var nextValue: UInt64 = 1
    var nextFresh: UInt64 = 1000
    var names: [ResourceName]
    var freeNames: [ResourceName] = []
    var statistics = WorldStatistics()
    /// Per name: what was written last, and whether the resource may have been forgotten since.
    var written: [ResourceName: (value: ValueBlock, mayBeForgotten: Bool)] = [:]
    var replayed: [Epoch] = []
    var unfenced: [TestNode] = []
    /// Off in the last part of a run: nobody asks for anything new.
    var isWindingDown = false
    var trace: [String] = []
    var isTracing = false

    static let maximumNodes = 8

    init(seed: UInt64, options: WorldOptions) {
        dice = SeededGenerator(seed: seed)
        self.options = options
        let row = [[Packet]](repeating: [], count: Self.maximumNodes + 1)
        channels = [[[Packet]]](repeating: row, count: Self.maximumNodes + 1)
        names = (0..<options.nameCount).map {
            ResourceName(kind: .application, number: UInt64($0))
        }
        for number in 1...options.nodeCount { add(NodeID(UInt32(number))) }
        issueView(replaying: [])
    }

    func note(_ text: @autoclosure () -> String) {
        if isTracing { trace.append(text()) }
    }

    var alive: [TestNode] { nodes.filter(\.isAlive) }

    func add(_ id: NodeID) {
        nodes.append(TestNode(id: id, incarnation: nextIncarnation))
        nextIncarnation += 1
    }

    /// The next view: everybody that lives, or is not fenced yet.
    func issueView(replaying slots: [SlotIndex]) {
        epoch = Epoch(epoch.rawValue + 1)
        statistics.views += 1
        let members = nodes.filter { node in node.isAlive || unfenced.contains { $0 === node } }
            .map { Member(node: $0.id, incarnation: $0.incarnation) }.sorted()
        let view = ClusterView(epoch: epoch, members: members, slotsToReplay: slots)
        note("view \(view) replaying \(slots)")
        for node in alive { node.views.append(view) }
    }

    // MARK: Driving one node

    func drive(_ node: TestNode, _ body: (inout Lockspace, inout [LockEffect]) -> Void) throws {
        var effects: [LockEffect] = []
        body(&node.space, &effects)
        for effect in effects { try carryOut(effect, of: node) }
        try node.space.checkInvariants()
        if node.space.counters.protocolErrors > 0 {
            throw WorldFailure(description: "\(node.id) met a protocol error")
        }
    }

    private func carryOut(_ effect: LockEffect, of node: TestNode) throws {
        switch effect {
        case .send(let message, let peer):
            statistics.messages += 1
            note("  \(node.id) -> \(peer): \(message)")
            guard nodes.contains(where: { $0.id == peer && $0.isAlive }) else { return }
            var bytes: [UInt8] = []
            if options.encodes {
                encode(.lock(message), epoch: node.space.epoch, into: &bytes)
            }
            channels[Int(node.id.rawValue)][Int(peer.rawValue)].append(
                Packet(bytes: bytes, message: message, epoch: node.space.epoch)
            )
        case .complete(let completion): try completed(completion, node)
        case .blocking(let cookie, _, let wanted): try blocked(cookie, wanted, node)
        case .deadlock: break
        case .recoveryFinished(let finished):
            note("  \(node.id): recovery of \(finished) finished")
            if finished != node.space.epoch {
                throw WorldFailure(description: "an overtaken recovery finished")
            }
        }
    }

    // MARK: The client's side

    private func completed(_ completion: LockCompletion, _ node: TestNode) throws {
        note("  \(node.id): \(completion)")
        guard let lock = node.lock(cookie: completion.cookie) else {
            throw WorldFailure(description: "an answer for nobody: \(completion)")
        }
        if lock.asked == .nothing { throw WorldFailure(description: "an answer to nothing") }
        switch completion.status {
        case .granted: try grantArrived(completion, lock, node)
        case .wouldBlock, .cancelled, .deadlock:
            if completion.status == .cancelled { statistics.cancelled += 1 }
            if completion.status == .wouldBlock { statistics.refused += 1 }
            if case .request = lock.asked {
                remove(lock, node)
            } else {
                guard completion.mode == lock.held else {
                    throw WorldFailure(description: "a refused conversion changed the mode")
                }
            }
            lock.asked = .nothing
        case .unlocked:
            if lock.asked != .unlock {
                throw WorldFailure(description: "unlocked without being asked")
            }
            publish(lock)
            remove(lock, node)
        case .shutDown:
            if !node.space.hasLeft { throw WorldFailure(description: "shut down early") }
            remove(lock, node)
        case .timedOut, .busy, .stopped, .notFound, .hasSublocks, .parentNotGranted:
            throw WorldFailure(description: "an answer that cannot be: \(completion)")
        }
    }

    private func remove(_ lock: ClientLock, _ node: TestNode) {
        node.locks.removeAll { $0 === lock }
    }

    private func publish(_ lock: ClientLock) {
        // A name is used again only in quiet times: strictly, a fresh name never existed before.
        let isQuiet = alive.allSatisfy { $0.space.isRunning && $0.space.epoch == epoch }
        for published in lock.publishes {
            if !published.isFree {
                names.append(published.name)
            } else if isQuiet {
                freeNames.append(published.name)
            }
        }
        lock.publishes = []
    }

    private func grantArrived(
        _ completion: LockCompletion,
        _ lock: ClientLock,
        _ node: TestNode
    ) throws {
        statistics.grants += 1
        let before = lock.held
        let mode: LockMode
        var isLess = false
        switch lock.asked {
        case .request(let wanted): mode = wanted
        case .convert(let wanted):
            mode = wanted
            isLess = before?.covers(wanted) ?? false
        default: throw WorldFailure(description: "granted without being asked")
        }
        let isAlternative =
            (completion.mode == .protectedRead && lock.flags.contains(.alternatePR))
            || (completion.mode == .concurrentWrite && lock.flags.contains(.alternateCW))
        if completion.mode != mode && !isAlternative {
            throw WorldFailure(description: "granted \(completion.mode) instead of \(mode)")
        }
        let isSideways = before.map { !mode.covers($0) } ?? false
        if !isLess && !isSideways && !lock.flags.contains(.recovery)
            && !node.view.slotsToReplay.isEmpty && !replayed.contains(node.view.epoch)
        {
            throw WorldFailure(
                description: "\(lock.name) granted before the journals were replayed"
            )
        }
        lock.held = completion.mode
        lock.asked = .nothing
        lock.heard = []
        if isLess { publish(lock) }
        try checkValue(completion, lock)
    }

    private func checkValue(_ completion: LockCompletion, _ lock: ClientLock) throws {
        if !completion.isValueValid { statistics.invalidValues += 1 }
        guard let value = completion.value, completion.isValueValid,
            completion.mode > .concurrentRead
        else { return }
        guard let last = written[lock.name] else {
            if value == .zero { return }
            throw WorldFailure(description: "\(lock.name): a value nobody wrote")
        }
        statistics.valuesChecked += 1
        if value == last.value || (last.mayBeForgotten && value == .zero) { return }
        throw WorldFailure(description: "\(lock.name): \(value) is valid, \(last) was written last")
    }

    private func blocked(_ cookie: UInt64, _ wanted: LockMode, _ node: TestNode) throws {
        note("  \(node.id): cookie \(cookie) is in the way of \(wanted)")
        statistics.notices += 1
        guard let lock = node.lock(cookie: cookie), let held = lock.held else {
            throw WorldFailure(description: "a notice for a lock that is not granted")
        }
        if held.isCompatible(with: wanted) {
            throw WorldFailure(description: "a notice to a holder that is not in the way")
        }
        if lock.heard.contains(where: { $0.covers(wanted) }) {
            throw WorldFailure(description: "a notice said twice: \(wanted)")
        }
        lock.heard.append(wanted)
        lock.mustYield = wanted
    }

    // MARK: Oracles

    /// No two incompatible grants anywhere. A node that died counts until it is fenced.
    func checkGrants() throws {
        let counted = nodes.filter { node in
            node.isAlive || unfenced.contains { $0 === node }
        }
        var all: [(ClientLock, NodeID)] = []
        for node in counted {
            for lock in node.locks where lock.effective != nil { all.append((lock, node.id)) }
        }
        for (index, (first, firstNode)) in all.enumerated() {
            for (second, secondNode) in all[(index + 1)...] where first.name == second.name {
                guard let one = first.effective, let other = second.effective else { continue }
                if one.isCompatible(with: other) { continue }
                throw WorldFailure(
                    description:
                        "\(first.name): \(firstNode) has \(one) and \(secondNode) has \(other)"
                )
            }
        }
        for name in written.keys where !all.contains(where: { $0.0.name == name }) {
            written[name]?.mayBeForgotten = true
        }
    }

    /// At rest: one master per name with locks, the directory names it, holders and master agree.
    func checkRest() throws {
        for node in alive where !node.space.isRunning {
            throw WorldFailure(description: "\(node.id) is at rest in a recovery")
        }
        var masters: [ResourceName: NodeID] = [:]
        var entries: [ResourceName: NodeID] = [:]
        var copies: [ResourceName: [LockDescription]] = [:]
        for node in alive {
            var seen: [ResourceDescription] = []
            node.space.visitResources { seen.append($0) }
            for resource in seen {
                if resource.directoryEntry != .none {
                    entries[resource.name] = resource.directoryEntry
                }
                if resource.master == node.id {
                    if let other = masters[resource.name] {
                        throw WorldFailure(
                            description: "\(resource.name): masters \(other) and \(node.id)"
                        )
                    }
                    masters[resource.name] = node.id
                    copies[resource.name] = resource.locks
                }
            }
        }
        if masters.count != entries.count {
            throw WorldFailure(
                description: "\(masters.count) masters, \(entries.count) directory entries"
            )
        }
        for (name, master) in masters where entries[name] != master {
            throw WorldFailure(description: "\(name): the directory does not know \(master)")
        }
        for node in alive {
            for lock in node.locks { try checkCopy(of: lock, node, copies[lock.name] ?? []) }
        }
        let total = copies.values.reduce(0) { $0 + $1.count }
        let owned = alive.reduce(0) { $0 + $1.locks.count }
        if total != owned {
            throw WorldFailure(description: "\(total) locks on masters, \(owned) with clients")
        }
    }

    private func checkCopy(
        of lock: ClientLock,
        _ node: TestNode,
        _ copies: [LockDescription]
    ) throws {
        guard let copy = copies.first(where: { $0.holder == node.id && $0.lock == lock.id }) else {
            throw WorldFailure(description: "\(lock.name): the master lost \(node.id)'s lock")
        }
        let expected: LockDescription.State =
            lock.isIdle ? .granted : lock.held == nil ? .waiting : .converting
        if copy.state != expected || copy.granted != lock.held {
            throw WorldFailure(
                description:
                    "\(lock.name): the master has \(copy), the client \(String(describing: lock.held)) \(lock.asked)"
            )
        }
        guard let held = lock.held, lock.isIdle, !node.space.waitsForReplay else { return }
        for other in copies {
            guard let wanted = other.requested, !held.isCompatible(with: wanted) else { continue }
            if !lock.heard.contains(where: { $0.covers(wanted) }) {
                throw WorldFailure(
                    description: "\(lock.name): \(node.id) in \(held) never heard of \(wanted)"
                )
            }
        }
    }
}
