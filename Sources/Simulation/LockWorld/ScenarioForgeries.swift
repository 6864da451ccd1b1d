// Messages of scenario scripts that no correct peer sends: a lockspace counts them as protocol
// errors or lets them pass, and obeys none.

import LockCore
import Vocabulary

extension ScenarioWorld {
    /// `forge FROM TO KIND ...`: TO receives a message that FROM never sent, with TO's epoch. `late`
    /// as the last word: with the epoch before.
    func forge(_ words: [String]) throws {
        let isLate = words.last == "late"
        let from = try id(words, 1)
        let receiver = try node(try id(words, 2).rawValue)
        let rest = words.dropFirst(3).dropLast(isLate ? 1 : 0)
        let message = try forgery(Array(rest), from: from, to: receiver)
        let epoch = Epoch(receiver.space.epoch.rawValue - (isLate ? 1 : 0))
        try drive(receiver) { $0.receive(message, from: from, epoch: epoch, effects: &$1) }
    }

    private func forgery(
        _ words: [String],
        from peer: NodeID,
        to receiver: Node
    ) throws -> LockMessage {
        switch words.first ?? "" {
        case "condemned": return .condemned(try number(words, 1), wasWaiting: true)
        case "verified": return .verified(try number(words, 1), place: 0, stands: true)
        case "cycle": return .cycle([])
        case "condemn": return .condemn(try number(words, 1), place: 0, [])
        case "chase":
            let lock = LockReference(node: peer, lock: LockID(1))
            let probe = DeadlockProbe(
                origin: lock,
                originOwner: LockOwner(1),
                number: 1,
                hops: []
            )
            return .chase(LockOwner(try number(words, 1)), probe)
        case "sent", "expect", "reached", "proceed": return try barrier(words)
        default: break
        }
        let name = try name(words, 1)
        if let message = try aboutName(words, name) { return message }
        let owner = nodes.first { $0.id == peer }
        switch words[0] {
        case "request", "convert", "unlock", "cancel", "seek":
            let lock = try lock(words, of: owner ?? receiver)
            return try asking(words, name, lock)
        default: return try answering(words, name, try lock(words, of: receiver))
        }
    }

    /// `sent PHASE NODE COUNT`, `expect PHASE COUNT`, `reached PHASE`, `proceed PHASE`.
    private func barrier(_ words: [String]) throws -> LockMessage {
        let phases: [String: RecoveryPhase] = [
            "directory": .directory, "masters": .masters, "locks": .locks,
        ]
        guard words.count > 1, let phase = phases[words[1]] else {
            throw ScenarioError(description: "a phase is missing: \(words)")
        }
        switch words[0] {
        case "sent":
            let count = MessageCount(node: try id(words, 2), count: try number(words, 3))
            return .sent(phase, [count])
        case "expect": return .expect(phase, try number(words, 2))
        case "reached": return .reached(phase)
        default: return .proceed(phase)
        }
    }

    private func aboutName(_ words: [String], _ name: ResourceName) throws -> LockMessage? {
        switch words[0] {
        case "lookup": .lookup(name, denied: words.count > 2 ? try id(words, 2) : .none)
        case "lookup-reply": .lookupReply(name, master: try id(words, 2))
        case "claim": .claim(name)
        case "claim-reply": .claimReply(name, master: try id(words, 2))
        case "confirm-reply": .confirmReply(name, isMaster: true)
        case "confirm": .confirm(name)
        case "disclaim": .disclaim(name)
        case "remove": .remove(name)
        case "entry": .entry(name, master: try id(words, 2))
        case "entry-is": .entryIs(name)
        case "moving": .moving(name, to: try id(words, 2))
        case "moving-seen": .movingSeen(name)
        case "transfer": .transfer(name, [], moves: 1, isLast: true)
        case "taken": .taken(name)
        case "moved": .moved(name, to: try id(words, 2))
        case "masters": .masters([name])
        case "staged-masters": .stagedMasters([name])
        case "claimed-masters": .claimedMasters([name])
        case "handover":
            .handover(
                name,
                value: SequencedValue(
                    value: ValueBlock(UInt64(try number(words, 2))),
                    sequence: 1000,
                    isValid: true
                )
            )
        default: nil
        }
    }

    private func asking(
        _ words: [String],
        _ name: ResourceName,
        _ lock: LockID
    ) throws -> LockMessage {
        switch words[0] {
        case "request":
            .request(name, lock: lock, owner: .none, mode: try mode(words, 3), flags: [])
        case "convert":
            .convert(name, lock: lock, mode: try mode(words, 3), flags: [], value: nil)
        case "unlock": .unlock(name, lock: lock, value: nil)
        case "seek": .seek(name, lock: lock, waited: 1, try probe(lock, hops: words))
        default: .cancel(name, lock: lock)
        }
    }

    private func answering(
        _ words: [String],
        _ name: ResourceName,
        _ lock: LockID
    ) throws -> LockMessage {
        switch words[0] {
        case "granted":
            .granted(name, lock: lock, mode: try mode(words, 3), remarks: [], value: nil)
        case "refused": .refused(name, lock: lock, status: .wouldBlock, remarks: [])
        case "unlocked": .unlocked(name, lock: lock)
        case "not-master": .notMaster(name, lock: lock)
        case "blocking": .blocking(name, lock: lock, wanted: try mode(words, 3))
        case "deadlocked": .deadlocked(name, lock: lock, [])
        default: throw ScenarioError(description: "unknown message \(words[0])")
        }
    }

    /// A lock by its label on `node`, or by place and generation: 3.1.
    private func lock(_ words: [String], of node: Node) throws -> LockID {
        guard words.count > 2 else { throw ScenarioError(description: "a lock is missing") }
        if let lock = node.lock(words[2]) { return lock }
        // Place and generation, as a name of a lock has them.
        let parts = words[2].split(separator: ".").compactMap { UInt64($0) }
        guard let place = parts.first else {
            throw ScenarioError(description: "no lock \(words[2])")
        }
        return LockID((parts.count > 1 ? parts[1] << 32 : 0) | place)
    }

    /// A search that has gone so far already.
    private func probe(_ lock: LockID, hops words: [String]) throws -> DeadlockProbe {
        let here = LockReference(node: NodeID(9), lock: lock)
        let hop = DeadlockHop(
            name: ResourceName(kind: .inode, number: 1, generation: 1),
            master: here.node,
            waiter: here,
            owner: LockOwner(1),
            requested: .exclusive,
            waited: 1,
            behind: here,
            blocker: here,
            blockerMode: .exclusive,
            changes: (1, 1, 1)
        )
        return DeadlockProbe(
            origin: here,
            originOwner: LockOwner(1),
            number: 1,
            hops: [DeadlockHop](repeating: hop, count: Int(try number(words, 3)))
        )
    }

    private func number(_ words: [String], _ place: Int) throws -> UInt32 {
        guard place < words.count, let number = UInt32(words[place]) else {
            throw ScenarioError(description: "a number is missing: \(words)")
        }
        return number
    }
}
