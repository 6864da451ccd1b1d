// What the search takes for equal: Fingerprint.swift.

import Testing
import Vocabulary

@testable import LockCore

struct FingerprintTests {
    /// The fields of each record as `encodeState` knows them.
    static let known: [(fields: [String], sample: any Sendable)] = [
        (
            [
                "number", "generation", "link", "granted", "converting", "waiting", "value",
                "master", "directoryMaster", "tree", "activity", "kind", "mastery", "marks",
                "depth",
            ], ResourceRecord()
        ),
        (
            [
                "identity", "resource", "next", "previous", "generation", "shortHolder", "lowFlags",
                "owner", "above", "sublocks", "wait", "since", "changes", "granted",
                "requested", "state", "told", "marks",
            ], LockRecord()
        ),
        (["value", "sequence", "isValid", "link"], ValueRecord()),
        (
            [
                "phase", "hasReported", "someoneDeparted", "lookupsOutstanding", "counts",
                "announced",
            ], RecoveryProgress()
        ),
        (["open", "openBatch", "closing", "behindClosing", "behindOpen"], ClaimLedger()),
        (
            ["lock", "mode", "flags", "value"],
            DeferredDemotion(lock: .none, mode: nil, flags: [], value: nil)
        ),
        (
            ["name", "claimant"],
            ParkedClaim(name: ResourceName(kind: .application, number: 0), claimant: .none)
        ),
        (
            ["name", "asker"],
            ParkedLookup(name: ResourceName(kind: .application, number: 0), asker: .none)
        ),
        (
            [
                "root", "target", "part", "oldMaster", "unseen", "participants", "postponed",
                "refused", "kept",
                "things", "moves", "isComplete", "lost",
            ],
            Move(
                root: ResourceName(kind: .application, number: 0),
                target: .none,
                part: .participant
            )
        ),
        (
            ["name", "master"],
            CachedMaster(name: ResourceName(kind: .application, number: 0), master: .none)
        ),
        (
            ["name", "node", "isVoid"],
            OpenConfirm(name: ResourceName(kind: .application, number: 0), node: .none)
        ),
        (
            ["message", "sender", "epoch"],
            HeldMessage(message: .reached(.locks), sender: .none, epoch: Epoch(0))
        ),
    ]

    @Test("Every field of every record is written down, or left out for a reason")
    func fields() {
        for (fields, sample) in Self.known {
            let actual = Mirror(reflecting: sample).children.compactMap(\.label)
            #expect(
                actual.sorted() == fields.sorted(),
                "\(type(of: sample)): see to encodeState in Fingerprint.swift, then list it here"
            )
        }
        #expect(
            MemoryLayout<Lockspace>.size == Lockspace.clonedSize,
            "another field of Lockspace: see to clone and encodeState, then change clonedSize"
        )
    }

    @Test("A resource with one lock takes 112 bytes of records")
    func recordSizes() {
        #expect(MemoryLayout<ResourceRecord>.stride == 56 && MemoryLayout<LockRecord>.stride == 56)
        var record = LockRecord()
        record.flags = .known
        let answeredAtOnce: LockFlags = [.adoptOrphan, .synchronous, .withSublocks, .unlessStopped]
        #expect(record.flags == LockFlags.known.subtracting(answeredAtOnce))
    }

    private func digest(_ space: borrowing Lockspace) -> StateDigest {
        var encoder = StateEncoder()
        space.encodeState(into: &encoder)
        return encoder.digest
    }

    @Test("A clone is equal, and goes its own way")
    func clone() {
        var effects: [LockEffect] = []
        var space = Lockspace(node: NodeID(1), incarnation: 1)
        let name = ResourceName(kind: .inode, number: 1, generation: 1)
        let member = Member(node: NodeID(1), incarnation: 1)
        space.viewChanged(
            ClusterView(epoch: Epoch(1), members: [member], slotsToReplay: []),
            effects: &effects
        )
        let lock = space.request(name, .exclusive, [], cookie: 1, effects: &effects)
        var other = space.clone()
        #expect(digest(space) == digest(other))
        other.unlock(lock, [], value: nil, effects: &effects)
        #expect(digest(space) != digest(other))
        #expect(space.describe(name)?.locks.count == 1)
        // Places and generations mean nothing: the same again at a place used twice.
        other.request(name, .exclusive, [], cookie: 1, effects: &effects)
        #expect(digest(space) == digest(other))
    }
}
