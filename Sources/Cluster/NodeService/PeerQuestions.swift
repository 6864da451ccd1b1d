// Asking the other nodes' volumes about a file: when they last wrote to it under locks of regions (FileSystem/Regions.swift,
// R6), and what its attributes are while one of them is changing it (FileSystem/Glimpse.swift). Questions and answers
// travel beside the lock manager's messages and are of no epoch.
//
// Invariants
// T1. Whoever asks hears the answer of every node that was asked, or that the node is no longer the one that was
//     asked: then it has nothing to say. For attributes the first node that has some is enough, and nobody is waited
//     for longer than `patience`: there is a lock to wait for, in a line that administrators see.
// T2. A node answers from memory, inside the call that brings the question: nobody waits for a lock.

import ClusterWire
package import Execution
package import Vocabulary

/// Where such questions go out and come in. Engine-bound.
package final class PeerQuestions {
    /// What this node answers: the time of the last write, if the inode does not say it; `takes`: the asker stores it.
    package var lastWriteHere: ((InodeNumber, _ takes: Bool) -> Timestamp?)?
    /// What this node answers: the attributes, if it is the one that changes the file.
    package var attributesHere: ((InodeNumber) -> GlimpsedAttributes?)?

    /// Told of what others have read.
    /// What comes before there is somebody to tell waits, as far as there is room.
    package var onAccess: ((InodeNumber, Timestamp) -> Void)? {
        didSet {
            for (file, time) in earlyAccesses { onAccess?(file, time) }
            earlyAccesses = []
        }
    }

    private var earlyAccesses: [(InodeNumber, Timestamp)] = []
    private static let mostEarlyAccesses = 4096

    private let locks: LockNode
    private let engine: Engine
    private var isTimerSet = false
    private var nextNumber: UInt32 = 1
    private var rounds: [Round] = []

    /// How long the answer to a question for attributes is waited for, in nanoseconds.
    package static let patience: UInt64 = 100_000_000

    /// One question to one or more nodes.
    private final class Round {
        let number: UInt32
        let file: InodeNumber
        let since: Tick
        /// Not waited for any longer than this.
        let until: Tick?
        var asked: [Member]
        var latest: Timestamp?
        var attributes: GlimpsedAttributes?
        var teller: NodeID?
        let outcome = Outcome<Void>()

        init(number: UInt32, file: InodeNumber, since: Tick, until: Tick?, asked: [Member]) {
            self.number = number
            self.file = file
            self.since = since
            self.until = until
            self.asked = asked
        }

        var hasEnded: Bool { asked.isEmpty || attributes != nil }
    }

    /// Of a node; takes over `LockNode.onQuestion`.
    package init(_ locks: LockNode, engine: Engine) {
        self.locks = locks
        self.engine = engine
        locks.onQuestion = { [weak self] message, peer in self?.take(message, from: peer) }
    }

    /// The newest time that another node answers; nil if none has one.
    package func lastWrite(to file: InodeNumber, takes: Bool) async -> Timestamp? {
        await ask(others, file, patience: nil) { .askLastWrite($0, file, takes: takes) }?.latest
    }

    /// The attributes of a file that another node has exclusively and is changing, and which node it is; nil if none
    /// says that it does, or not within `patience`. Only `teller` is asked, if it is given.
    package func attributes(
        of file: InodeNumber,
        from teller: NodeID?
    ) async -> (attributes: GlimpsedAttributes, teller: NodeID)? {
        let asked = others.filter { teller == nil || $0.node == teller }
        let round = await ask(asked, file, patience: Self.patience) { .askAttributes($0, file) }
        guard let round, let attributes = round.attributes, let teller = round.teller else {
            return nil
        }
        return (attributes, teller)
    }

    /// Tells all others that a file was read here.
    package func tellAccess(to file: InodeNumber, at time: Timestamp) {
        for member in others { locks.say(.accessed(file, time), to: member.node) }
    }

    /// Whether there are no others.
    package var isAlone: Bool { others.isEmpty }

    private var others: [Member] {
        (locks.view?.members ?? []).filter { $0.node != locks.node }
    }

    /// Whose answers about a file are waited for at this moment, and since when; nil if nobody's.
    package func asked(about file: InodeNumber) -> (nodes: [NodeID], since: Tick)? {
        guard let round = rounds.first(where: { $0.file == file }) else { return nil }
        return (round.asked.map(\.node), round.since)
    }

    private func ask(
        _ asked: [Member],
        _ file: InodeNumber,
        patience: UInt64?,
        _ question: (UInt32) -> NodeMessage
    ) async -> Round? {
        if asked.isEmpty { return nil }
        let now = engine.clock.now
        let round = Round(
            number: nextNumber,
            file: file,
            since: now,
            until: patience.map { now.advanced(nanoseconds: $0) },
            asked: asked
        )
        nextNumber &+= 1
        rounds.append(round)
        setTimer()
        for member in asked { locks.say(question(round.number), to: member.node) }
        await round.outcome.get()
        return round
    }

    /// One timer for all rounds, at the end of the oldest that has one: all have the same patience.
    private func setTimer() {
        guard !isTimerSet, let first = rounds.first(where: { $0.until != nil }),
            let until = first.until
        else { return }
        isTimerSet = true
        engine.clock.schedule(
            at: until,
            in: engine,
            EngineBound { [weak self] in self?.losePatience() }
        )
    }

    private func losePatience() {
        isTimerSet = false
        let now = engine.clock.now
        for round in rounds {
            if let until = round.until, until <= now { round.asked = [] }
        }
        endRounds()
        setTimer()
    }

    /// The members of the cluster are these now (T1).
    package func adopt(_ view: ClusterView) {
        for round in rounds {
            round.asked.removeAll { member in !view.members.contains { $0 == member } }
        }
        endRounds()
    }

    private func take(_ message: NodeMessage, from peer: NodeID) {
        switch message {
        case .askLastWrite(let number, let file, let takes):
            locks.say(.lastWrite(number, lastWriteHere?(file, takes)), to: peer)  // T2
        case .askAttributes(let number, let file):
            locks.say(.attributes(number, attributesHere?(file)), to: peer)  // T2
        case .lastWrite(let number, let time):
            answered(number, by: peer) { round in
                if let time { round.latest = max(round.latest ?? time, time) }
            }
        case .attributes(let number, let attributes):
            answered(number, by: peer) { round in
                guard let attributes else { return }
                round.attributes = attributes
                round.teller = peer
            }
        case .accessed(let file, let time):
            if let onAccess {
                onAccess(file, time)
            } else if earlyAccesses.count < Self.mostEarlyAccesses {
                earlyAccesses.append((file, time))
            }
        default: break
        }
    }

    private func answered(_ number: UInt32, by peer: NodeID, _ note: (Round) -> Void) {
        guard let round = rounds.first(where: { $0.number == number }),
            let place = round.asked.firstIndex(where: { $0.node == peer })
        else { return }
        round.asked.remove(at: place)
        note(round)
        endRounds()
    }

    private func endRounds() {
        for round in rounds where round.hasEnded { round.outcome.deliver(()) }
        rounds.removeAll { $0.hasEnded }
    }
}
