// Asking other nodes something, for an administrator. Question and answer are bytes; what they say
// is LockReports' affair. They travel as messages beside those of the lock manager, are of no epoch,
// and so work while a recovery goes on.
//
// Invariants
// Q1. Nobody is waited for for ever: a node of which nothing was heard for the asker's patience is
//     silent. Every part of an answer is a sign of life.
// Q2. What a peer sends is bounded: parts come in order, an answer has at most `largestAnswer` bytes,
//     what nobody asked for is dropped.
// Q3. A long answer does not get in the way of locks: it leaves in slices with a pause between.
//     At most `mostReports` leave at a time; whoever asks more hears nothing.

import ClusterWire
package import Execution
package import Vocabulary

/// What one node answered.
package struct InquiryAnswer: Sendable {
    package var node: NodeID
    /// Nil: silent.
    package var bytes: [UInt8]?
}

/// Where inquiries go out and come in. Engine-bound.
package final class InquiryDesk {
    /// What this node answers to whoever asks. Set before the first view.
    package var answer: (([UInt8]) -> [UInt8])?

    /// The longest answer that is taken from a peer, in bytes.
    package static let largestAnswer = 64 << 20
    private static let partsPerSlice = 8
    private static let mostReports = 8

    private let locks: LockNode
    private let engine: Engine
    private var nextNumber: UInt32 = 1
    private var expected: [Expected] = []
    private var reportsUnderWay = 0

    /// An answer on its way.
    private struct Expected {
        var number: UInt32
        var node: NodeID
        var place: Int
        var bytes: [UInt8] = []
        var nextPart: UInt32 = 0
        var lastHeard: Tick
        var round: Round
    }

    /// One call of `ask`.
    private final class Round {
        var answers: [InquiryAnswer]
        var remaining = 0
        let patience: UInt64
        let outcome = Outcome<Void>()

        init(_ answers: [InquiryAnswer], patience: UInt64) {
            self.answers = answers
            self.patience = patience
        }
    }

    /// The desk of a node; takes over `LockNode.onInquiry`.
    package init(_ locks: LockNode, engine: Engine) {
        self.locks = locks
        self.engine = engine
        locks.onInquiry = { [weak self] message, peer in self?.take(message, from: peer) }
    }

    // MARK: Asking

    /// Asks each node its question, all at the same time, and returns the answers in the same
    /// order. `patience` in nanoseconds (Q1). This node itself answers at once.
    package func ask(
        _ questions: [(node: NodeID, bytes: [UInt8])],
        patience: UInt64
    ) async -> [InquiryAnswer] {
        let round = Round(
            questions.map { InquiryAnswer(node: $0.node, bytes: nil) },
            patience: patience
        )
        for (place, question) in questions.enumerated() {
            precondition(
                question.bytes.count <= WireFormat.largestInquiry,
                "NodeService Q2: a question too long"
            )
            if question.node == locks.node {
                round.answers[place].bytes = answer?(question.bytes)
                continue
            }
            expected.append(
                Expected(
                    number: nextNumber,
                    node: question.node,
                    place: place,
                    lastHeard: engine.clock.now,
                    round: round
                )
            )
            round.remaining += 1
            let number = nextNumber
            nextNumber &+= 1
            locks.say(.inquiry(number, question.bytes), to: question.node)
        }
        if round.remaining == 0 { return round.answers }
        watch(round, until: engine.clock.now.advanced(nanoseconds: patience))
        await round.outcome.get()
        return round.answers
    }

    private func watch(_ round: Round, until tick: Tick) {
        engine.clock.schedule(
            at: tick,
            in: engine,
            EngineBound { [weak self] in self?.look(round) }
        )
    }

    /// Gives up those that nothing was heard of (Q1).
    private func look(_ round: Round) {
        let now = engine.clock.now
        var next: Tick?
        var index = 0
        while index < expected.count {
            let entry = expected[index]
            let due = entry.lastHeard.advanced(nanoseconds: round.patience)
            if entry.round !== round {
                index += 1
            } else if due <= now {
                end(at: index, bytes: nil)
            } else {
                next = min(next ?? due, due)
                index += 1
            }
        }
        if let next { watch(round, until: next) }
    }

    private func end(at index: Int, bytes: [UInt8]?) {
        let entry = expected.remove(at: index)
        entry.round.answers[entry.place].bytes = bytes
        entry.round.remaining -= 1
        if entry.round.remaining == 0 { entry.round.outcome.deliver(()) }
    }

    // MARK: What comes in

    private func take(_ message: NodeMessage, from peer: NodeID) {
        switch message {
        case .inquiry(let number, let bytes):
            guard let answer, reportsUnderWay < Self.mostReports else { return }
            reportsUnderWay += 1
            sendSlice(of: answer(bytes)[...], number, part: 0, to: peer)
        case .report(let number, let part, let isLast, let bytes):
            takePart(number, part, isLast, bytes, from: peer)
        case .lock, .replayed, .goodbye, .askLastWrite, .lastWrite, .askAttributes,
            .attributes, .freezes, .accessed:
            break
        }
    }

    private func takePart(
        _ number: UInt32,
        _ part: UInt32,
        _ isLast: Bool,
        _ bytes: [UInt8],
        from peer: NodeID
    ) {
        guard let index = expected.firstIndex(where: { $0.number == number && $0.node == peer })
        else { return }  // too late, or never asked
        guard expected[index].nextPart == part,
            expected[index].bytes.count + bytes.count <= Self.largestAnswer
        else {
            end(at: index, bytes: [])  // understood by nobody, but not silent
            return
        }
        expected[index].bytes += bytes
        expected[index].nextPart += 1
        expected[index].lastHeard = engine.clock.now
        if isLast { end(at: index, bytes: expected[index].bytes) }
    }

    // MARK: Answering

    /// Sends some parts now and the others after a pause (Q3).
    private func sendSlice(
        of rest: ArraySlice<UInt8>,
        _ number: UInt32,
        part: UInt32,
        to peer: NodeID
    ) {
        var rest = rest
        var part = part
        for _ in 0..<Self.partsPerSlice {
            let piece = rest.prefix(WireFormat.largestPart)
            rest = rest.dropFirst(piece.count)
            locks.say(
                .report(number, part: part, isLast: rest.isEmpty, Array(piece)),
                to: peer
            )
            part += 1
            if rest.isEmpty {
                reportsUnderWay -= 1
                return
            }
        }
        let (remaining, next) = (rest, part)
        engine.clock.schedule(
            at: engine.clock.now.advanced(milliseconds: 1),
            in: engine,
            EngineBound { [weak self] in
                self?.sendSlice(of: remaining, number, part: next, to: peer)
            }
        )
    }
}
