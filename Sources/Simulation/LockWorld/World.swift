// Several lockspaces in one thread, by seed: clients that ask for everything, messages in order per
// pair of nodes and after delays, connections that are lost, views that reach nodes at different
// times, deaths, joins, leaves, also several within one recovery. One seed, one run.
//
// Oracles, after every event for what it touched:
//   the invariants of the node (all of them every `fullCheckEvery` calls);
//   no answer that may not come, no notice said twice (ClientLock.swift);
//   no two incompatible locks in effect anywhere, a dead node counting until it is fenced;
//   a value block that is marked valid is what was written last;
//   no victim of a deadlock search without a circle (WorldDeadlocks.swift).
// At rest, when no message is on its way (WorldRest.swift):
//   one master for each name, and the directory knows it; masters and holders agree about each
//   lock, so no request is lost; every wait has a reason; who is in the way was told.
// When nobody does anything any more but time goes on, no circle of owners stays, and of each one
// wait is refused.
// At the end everybody lets go: every wait ends or was in a deadlock, and nothing is left.

import ClusterWire
import LockCore
import Vocabulary

/// A run of the random world.
package final class World {
    var dice: SeededGenerator
    let options: WorldOptions
    var nodes: [WorldNode] = []
    /// By sender and receiver: see `channelIndex`.
    var channels: [Channel]
    /// Channels that are not empty.
    var busy: [Int] = []
    var now = 0
    var epoch = Epoch(0)
    /// A connection was lost since the last view.
    var isBroken = false
    /// Connections broke since the last view; the last view before which some did.
    var hasLostConnections = false
    var connectionsLost = Epoch(0)
    var nextIncarnation: UInt64 = 1
    var nextCookie: UInt64 = 1
    var nextValue: UInt64 = 1
    var nextFresh: UInt64 = 1_000_000
    var names: [ResourceName]
    var freeNames: [ResourceName] = []
    private var subjects: [ResourceName: WorldName] = [:]
    /// Names whose locks changed since the last check.
    var touched: [WorldName] = []
    /// Locks that were told to yield.
    var yielding: [WorldLock] = []
    /// What happened so far.
    package internal(set) var statistics = WorldStatistics()
    var replayed: [Epoch] = []
    var unfenced: [WorldNode] = []
    /// Who waited for whom when circles were found, newest last.
    var remembered: [WaitPicture] = []
    /// The call under way may find a circle.
    var isSearching = false
    /// The conversion that the call under way decides.
    var pairSuspect: (name: ResourceName, lock: LockReference)?
    /// Nobody does anything: what the searches find, they find of what stands.
    var isQuiet = false
    /// Off in the last part of a run: nobody asks for anything new.
    var isWindingDown = false
    private let tell: ((String) -> Void)?

    /// A world at its beginning. `tell` is told every event.
    package init(seed: UInt64, options: WorldOptions, tell: ((String) -> Void)? = nil) {
        dice = SeededGenerator(seed: seed)
        self.options = options
        self.tell = tell
        let width = options.maximumNodes + 1
        channels = [Channel](repeating: Channel(), count: width * width)
        names = (0..<options.nameCount).map {
            ResourceName(kind: .application, number: UInt64($0))
        }
        if options.faults.contains(.ranges) {
            names += (0..<1 + options.nameCount / 4).map {
                ResourceName(kind: .byteLocks, number: UInt64($0), generation: 1)
            }
        }
        for number in 1...options.nodeCount { add(NodeID(UInt32(number))) }
        issueView(replaying: [])
    }

    func note(_ text: @autoclosure () -> String) {
        if let tell { tell(text()) }
    }

    var alive: [WorldNode] { nodes.filter(\.isAlive) }

    func subject(_ name: ResourceName) -> WorldName {
        if let known = subjects[name] { return known }
        let made = WorldName(name)
        subjects[name] = made
        return made
    }

    func touch(_ subject: WorldName) {
        if subject.isTouched { return }
        subject.isTouched = true
        touched.append(subject)
    }

    // MARK: Connections

    func channelIndex(_ from: NodeID, _ to: NodeID) -> Int {
        Int(from.rawValue) * (options.maximumNodes + 1) + Int(to.rawValue)
    }

    func send(_ message: LockMessage, from node: WorldNode, to peer: NodeID) {
        statistics.messages += 1
        note("  \(node.id) -> \(peer): \(message)")
        guard nodes.contains(where: { $0.id == peer && $0.isAlive }) else { return }
        let index = channelIndex(node.id, peer)
        if node.space.epoch <= channels[index].lostThrough { return }
        var bytes: [UInt8] = []
        if options.encodes { encode(.lock(message), epoch: node.space.epoch, into: &bytes) }
        if options.faults.contains(.delays) && dice.oneIn(20) {
            channels[index].delay = dice.oneIn(3) ? dice.below(200) : dice.below(10)
        }
        let due = max(channels[index].lastDue, now + dice.below(channels[index].delay + 1))
        channels[index].append(
            Packet(bytes: bytes, message: message, epoch: node.space.epoch, due: due)
        )
        if channels[index].placeAmongBusy < 0 {
            channels[index].placeAmongBusy = busy.count
            busy.append(index)
        }
    }

    /// Strikes a channel off the list of those that are not empty, if it is empty.
    func settleBusy(_ index: Int) {
        let place = channels[index].placeAmongBusy
        guard channels[index].isEmpty, place >= 0 else { return }
        channels[busy[busy.count - 1]].placeAmongBusy = place
        busy.swapAt(place, busy.count - 1)
        busy.removeLast()
        channels[index].placeAmongBusy = -1
    }

    func cut(_ index: Int, to kept: Int = 0) {
        channels[index].cut(to: kept)
        settleBusy(index)
    }

    // MARK: Driving one node

    func drive(
        _ node: WorldNode,
        about name: ResourceName?,
        _ body: (inout Lockspace, inout [LockEffect]) -> Void
    ) throws {
        var effects: [LockEffect] = []
        let counters = node.space.counters
        let before = lookBefore(node)
        node.space.setTime(UInt64(now))
        body(&node.space, &effects)
        obeyPurges(node)
        if node.space.counters.cyclesFound > counters.cyclesFound { rememberWaits(before) }
        statistics.moves += Int(node.space.counters.movesIn - counters.movesIn)
        if let completion = node.space.takeSynchronous() {
            statistics.synchronous += 1
            guard let lock = node.lock(cookie: completion.cookie),
                lock.client.flags.contains(.synchronous)
            else { throw WorldFailure("granted at once without being asked: \(completion)") }
            try completed(completion, node)
        }
        // What was granted in this call may have closed a circle that it found and broke, too.
        var isAfterGrant = false
        for effect in effects {
            if !isAfterGrant { try checkVictim(effect, of: node, before) }
            if case .complete(let completion) = effect, completion.status == .granted {
                isAfterGrant = true
            }
            try checkPair(effect, of: node)
            try carryOut(effect, of: node)
        }
        pairSuspect = nil
        node.callsSinceCheck += 1
        if node.callsSinceCheck >= options.fullCheckEvery {
            node.callsSinceCheck = 0
            try node.space.checkInvariants()
        } else if let name {
            try node.space.checkInvariants(of: name)
        }
        if node.space.counters.protocolErrors > 0 {
            throw WorldFailure("\(node.id) met a protocol error")
        }
    }

    private func carryOut(_ effect: LockEffect, of node: WorldNode) throws {
        switch effect {
        case .send(let message, let peer): send(message, from: node, to: peer)
        case .complete(let completion): try completed(completion, node)
        case .blocking(let cookie, _, let wanted):
            note("  \(node.id): cookie \(cookie) is in the way of \(wanted)")
            statistics.notices += 1
            guard let lock = node.lock(cookie: cookie) else {
                throw WorldFailure("a notice for nobody")
            }
            if lock.client.bytes != nil {
                throw WorldFailure("\(lock.subject.name): whoever locked bytes is told to go")
            }
            try lock.client.takeNotice(of: wanted)
            yielding.append(lock)
        case .deadlock(let hops, let victim): try condemned(victim, hops, node)
        case .recoveryFinished(let finished):
            note("  \(node.id): recovery of \(finished) finished")
            node.callsSinceCheck = options.fullCheckEvery
            if finished != node.space.epoch {
                throw WorldFailure("an overtaken recovery finished")
            }
        }
    }

    // MARK: Oracles

    /// No two incompatible grants of a touched name. A node that died counts until it is fenced.
    func checkGrants() throws {
        let changed = touched
        touched = []
        for subject in changed {
            subject.isTouched = false
            var isInEffect = false
            for (index, first) in subject.locks.enumerated() {
                guard let one = first.client.effective else { continue }
                isInEffect = true
                for second in subject.locks[(index + 1)...] {
                    guard let other = second.client.effective, !one.isCompatible(with: other),
                        first.sharesBytes(second)
                    else { continue }
                    throw WorldFailure(
                        "\(subject.name): \(first.node.id) has \(one) and \(second.node.id) has \(other)"
                    )
                }
            }
            if !isInEffect { subject.last?.mayBeForgotten = true }
        }
    }
}
