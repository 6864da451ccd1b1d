// Many lock managers at once, to count what they cost: messages, steps that somebody waits for,
// memory. No chance in it: every message takes one round, so that a round is what a network's delay
// is, and the number of rounds from a call to its answer is what a client waits.

import LockCore
import Vocabulary

/// What a load costs, on average.
package struct ScaleFigures: Sendable {
    package var operations = 0
    package var messages = 0
    /// Operations that were not answered before the call returned, and the rounds they took.
    package var awaited = 0
    package var rounds = 0
    package var mostRounds = 0

    /// Messages per operation.
    package var messagesPerOperation: Double { Double(messages) / Double(max(operations, 1)) }

    /// Operations that somebody had to wait for, of a hundred.
    package var awaitedPercent: Double { 100 * Double(awaited) / Double(max(operations, 1)) }

    /// Rounds an operation took that was waited for.
    package var roundsPerWait: Double { Double(rounds) / Double(max(awaited, 1)) }
}

/// A cluster of equal nodes, in rounds.
package final class ScaleWorld {
    private var spaces: [ScaleNode] = []
    private var inFlight: [(from: NodeID, to: NodeID, message: LockMessage, epoch: Epoch)] = []
    private var epoch = Epoch(0)
    private var nextCookie: UInt64 = 1
    private(set) var messages = 0
    private var barrierMessages = 0
    /// Cookies that are answered, and holders that were told of somebody who waits.
    private var answered: [UInt64] = []
    private var told: [(node: Int, lock: LockID, wanted: LockMode)] = []

    private final class ScaleNode {
        var space: Lockspace
        var isAlive = true

        init(_ node: NodeID) {
            space = Lockspace(node: node, incarnation: 1)
            // Masterships stay: what is counted is what it costs when they do not help.
            space.settings.activityInterval = 0
        }
    }

    /// A cluster of so many nodes, with its first recovery behind it.
    package init(nodes: Int) {
        for number in 1...nodes { spaces.append(ScaleNode(NodeID(UInt32(number)))) }
        changeView()
        settle()
    }

    /// Nodes in it, dead ones too.
    package var nodeCount: Int { spaces.count }

    private func changeView() {
        epoch = Epoch(epoch.rawValue + 1)
        let members = spaces.filter(\.isAlive)
            .map { Member(node: $0.space.node, incarnation: 1) }
        let view = ClusterView(epoch: epoch, members: members, slotsToReplay: [])
        for index in spaces.indices where spaces[index].isAlive {
            drive(index) { $0.viewChanged(view, effects: &$1) }
        }
    }

    private func drive(
        _ index: Int,
        _ body: (inout Lockspace, inout [LockEffect]) -> Void
    ) {
        var effects: [LockEffect] = []
        body(&spaces[index].space, &effects)
        for effect in effects {
            switch effect {
            case .send(let message, let peer):
                messages += 1
                if message.isOfBarrier { barrierMessages += 1 }
                let node = spaces[index].space.node
                inFlight.append((node, peer, message, spaces[index].space.epoch))
            case .complete(let completion): answered.append(completion.cookie)
            case .blocking(_, let lock, let wanted): told.append((index, lock, wanted))
            case .deadlock, .recoveryFinished: continue
            }
        }
    }

    /// Delivers what is on its way now. False if nothing was.
    private func round() -> Bool {
        let arriving = inFlight
        inFlight = []
        for packet in arriving {
            let index = Int(packet.to.rawValue) - 1
            if !spaces[index].isAlive { continue }
            drive(index) {
                $0.receive(packet.message, from: packet.from, epoch: packet.epoch, effects: &$1)
            }
        }
        return !arriving.isEmpty
    }

    private func settle() { while round() {} }

    // MARK: Operations

    /// One call, to its end; those in the way yield at once, down to what goes with what is wanted.
    private func operate(
        _ figures: inout ScaleFigures,
        _ index: Int,
        _ body: (inout Lockspace, UInt64, inout [LockEffect]) -> Void
    ) {
        let cookie = nextCookie
        nextCookie += 1
        carryOut(&figures, index, isAnswered: { self.answered.contains(cookie) }) {
            body(&$0, cookie, &$1)
        }
    }

    private func carryOut(
        _ figures: inout ScaleFigures,
        _ index: Int,
        isAnswered: () -> Bool,
        _ body: (inout Lockspace, inout [LockEffect]) -> Void
    ) {
        answered.removeAll(keepingCapacity: true)
        let before = messages
        drive(index, body)
        var rounds = 0
        while !isAnswered() {
            yieldAll()
            if isAnswered() { break }
            rounds += 1
            if !round() && told.isEmpty { break }
        }
        figures.operations += 1
        if rounds > 0 {
            figures.awaited += 1
            figures.rounds += rounds
            figures.mostRounds = max(figures.mostRounds, rounds)
        }
        settle()
        figures.messages += messages - before
    }

    private func yieldAll() {
        while let notice = told.popLast() {
            let mode: LockMode =
                notice.wanted.isCompatible(with: .protectedRead) ? .protectedRead : .null
            drive(notice.node) {
                $0.convert(notice.lock, to: mode, [], value: nil, effects: &$1)
            }
        }
    }

    private func request(
        _ figures: inout ScaleFigures,
        _ index: Int,
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags = []
    ) -> LockID {
        var lock = LockID.none
        operate(&figures, index) {
            lock = $0.request(name, mode, flags, cookie: $1, effects: &$2)
        }
        return lock
    }

    /// Converts; the cookie of a lock is that of its request, so the answer is looked for by that.
    private func convert(
        _ figures: inout ScaleFigures,
        _ index: Int,
        _ lock: LockID,
        to mode: LockMode
    ) {
        carryOut(&figures, index, isAnswered: { !self.answered.isEmpty }) {
            $0.convert(lock, to: mode, [], value: nil, effects: &$1)
        }
    }

    private func name(_ node: Int, _ number: Int) -> ResourceName {
        ResourceName(kind: .inode, number: UInt64(node) << 32 | UInt64(number), generation: 1)
    }

    // MARK: Loads

    /// Each node creates names of its own (`isFresh`), or takes old ones that nobody has, and works
    /// with them: the first touch, and all that follow.
    package func privateLoad(
        names: Int,
        uses: Int,
        isFresh: Bool
    ) -> (first: ScaleFigures, later: ScaleFigures) {
        var (first, later) = (ScaleFigures(), ScaleFigures())
        let base = isFresh ? 1_000_000 : 2_000_000
        for node in spaces.indices {
            for number in 0..<names {
                let flags: LockFlags = isFresh ? .freshName : []
                let lock = request(&first, node, name(node, base + number), .exclusive, flags)
                for _ in 0..<uses {
                    convert(&later, node, lock, to: .null)
                    convert(&later, node, lock, to: .exclusive)
                }
            }
        }
        return (first, later)
    }

    /// All nodes read the same names and keep the locks.
    package func sharedLoad(names: Int) -> ScaleFigures {
        var figures = ScaleFigures()
        for number in 0..<names {
            for node in spaces.indices {
                _ = request(&figures, node, name(0, 3_000_000 + number), .protectedRead)
            }
        }
        return figures
    }

    /// All nodes write one name by turns: hand-offs.
    package func contendedLoad(turns: Int) -> ScaleFigures {
        var setUp = ScaleFigures()
        var figures = ScaleFigures()
        let locks = spaces.indices.map { request(&setUp, $0, name(0, 4_000_000), .null) }
        for turn in 0..<turns {
            let node = (turn * 7 + 1) % spaces.count
            convert(&figures, node, locks[node], to: .exclusive)
        }
        return figures
    }

    /// The last node masters so many names that the first two read too.
    package func shareOfLast(names: Int) {
        var figures = ScaleFigures()
        for number in 0..<names {
            let name = name(spaces.count - 1, 5_000_000 + number)
            for node in [spaces.count - 1, 0, 1] {
                _ = request(&figures, node, name, .protectedRead)
            }
        }
    }

    /// What the recovery from a death takes.
    package struct DeathFigures: Sendable {
        package var messages = 0
        /// Of these, what grows with the members alone.
        package var barrierMessages = 0
        package var rounds = 0
        /// Locks that the dead node had.
        package var locks = 0
    }

    /// The last node dies.
    package func death() -> DeathFigures {
        guard let last = spaces.last else { return DeathFigures() }
        var locks = 0
        last.space.visitResources {
            locks += $0.locks.filter { $0.holder == last.space.node }.count
        }
        last.isAlive = false
        let before = (messages, barrierMessages)
        changeView()
        var rounds = 0
        while round() { rounds += 1 }
        return DeathFigures(
            messages: messages - before.0,
            barrierMessages: barrierMessages - before.1,
            rounds: rounds,
            locks: locks
        )
    }

    /// Bytes of the tables of a node, on average.
    package var bytesPerNode: Int {
        spaces.reduce(0) { $0 + $1.space.byteCount } / max(spaces.count, 1)
    }
}

extension LockMessage {
    /// Whether it belongs to the barriers of a recovery (Barriers.swift).
    fileprivate var isOfBarrier: Bool {
        switch self {
        case .sent, .expect, .reached, .proceed: true
        default: false
        }
    }
}
