// Asking the other nodes' volumes when they last wrote to a file that several nodes write (FileSystem/Regions.swift, R6).
// Questions and answers travel beside the lock manager's messages and are of no epoch.
//
// Invariants
// T1. Whoever asks hears the answer of every node of the newest view, or that the node is no longer the one that was
//     asked: then it has nothing to say.
// T2. A node answers from memory, inside the call that brings the question: nobody waits for a lock.

import ClusterWire
import Execution
package import Vocabulary

/// Where such questions go out and come in. Engine-bound.
package final class PeerTimes {
    /// What this node answers: the time of the last write, if the inode does not say it; `takes`: the asker stores it.
    package var answer: ((InodeNumber, _ takes: Bool) -> Timestamp?)?

    private let locks: LockNode
    private var nextNumber: UInt32 = 1
    private var rounds: [Round] = []

    /// One question to all.
    private final class Round {
        let number: UInt32
        var asked: [Member]
        var latest: Timestamp?
        let outcome = Outcome<Void>()

        init(number: UInt32, asked: [Member]) {
            self.number = number
            self.asked = asked
        }
    }

    /// Of a node; takes over `LockNode.onTimes`.
    package init(_ locks: LockNode) {
        self.locks = locks
        locks.onTimes = { [weak self] message, peer in self?.take(message, from: peer) }
    }

    /// The newest time that another node answers; nil if none has one.
    package func ask(_ file: InodeNumber, takes: Bool) async -> Timestamp? {
        let others = (locks.view?.members ?? []).filter { $0.node != locks.node }
        if others.isEmpty { return nil }
        let round = Round(number: nextNumber, asked: others)
        nextNumber &+= 1
        rounds.append(round)
        for member in others {
            locks.say(.askLastWrite(round.number, file, takes: takes), to: member.node)
        }
        await round.outcome.get()
        return round.latest
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
            locks.say(.lastWrite(number, answer?(file, takes)), to: peer)  // T2
        case .lastWrite(let number, let time):
            guard let round = rounds.first(where: { $0.number == number }),
                let place = round.asked.firstIndex(where: { $0.node == peer })
            else { return }
            round.asked.remove(at: place)
            if let time { round.latest = max(round.latest ?? time, time) }
            endRounds()
        default: break
        }
    }

    private func endRounds() {
        for round in rounds where round.asked.isEmpty { round.outcome.deliver(()) }
        rounds.removeAll { $0.asked.isEmpty }
    }
}
