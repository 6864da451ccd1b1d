// stat(2) of a file that another node is writing: the writer is asked what the attributes are, and keeps its lock. Otherwise
// each look at a log that grows would make its writer write back, commit and take the lock again.
//
//   who looks                                           who writes
//     PR of the inode, without queueing or notice ──▶     (holds EX: refused)
//     "what are its attributes?"                  ──▶     EX, and data written lately? ── no ──▶ "ask for the lock"
//     shows them, keeps nothing                   ◀──     yes: the inode's fields as they are now
//
// LOOKUP takes the lock unless it was taken away lately: mostly OPEN follows, and a file that somebody replaces must not go in
// between (the kernel tries again once, then says ESTALE). The next look asks that node alone, at once: one round trip. Whoever wants more than a look (to open, read, list
// attributes that are there) asks for the lock as always, and then the next looks do as well for a while.
//
// Invariants
//   P1. A node answers only while it holds EX: nobody else changes the inode, and what is told is what a stat on that node would
//       show at that moment, which lies between question and answer.
//   P2. What is told is not cached, neither here nor in the kernel: no notice would take it back.
//   P3. Everything that is told is durable, but size, blocks and times: a node that dies takes with it what it
//       had not committed, and who has seen a file longer may see it shorter then. (Who reads gets the lock: what he has
//       seen stays.) A change of anything else that is not durable yet is not told; the demotion that follows makes
//       it so.
//   P4. Who asks pins the inode: no lock keeps it in memory meanwhile.
//   P5. A question waits for no lock (NodeService/PeerQuestions.swift, T2), and ends when who was asked leaves the cluster or does not
//       answer in time; then the lock is asked for, and `lockstep locks` tells who is waited for.
//
// Source: the glimpse of Lustre, where the server asks the holder of the last extent's lock.

import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// What this node knows of looks at one inode that another node writes.
struct Glimpses {
    /// Who told last, and when.
    private(set) var teller: NodeID?
    private(set) var toldAt: Tick?
    /// Looks take the lock until then: it is needed here anyway.
    private var takesLockUntil = Tick(0)

    /// Nanoseconds for which looks take the lock after it was needed for more than looks.
    static let memory: UInt64 = 1_000_000_000

    func isWorthwhile(at now: Tick) -> Bool { now >= takesLockUntil }

    mutating func told(by node: NodeID, at now: Tick) {
        teller = node
        toldAt = now
    }

    /// Nobody is writing, or not any more.
    mutating func failed() {
        teller = nil
        toldAt = nil
    }

    /// Somebody here needs the lock.
    mutating func isNeeded(at now: Tick) {
        if let toldAt, now.rawValue - toldAt.rawValue < Self.memory {
            takesLockUntil = now.advanced(nanoseconds: Self.memory)
        }
        failed()
    }
}

extension Inode {
    /// A change other than to data stands in the compound transaction of `transaction`.
    func hasChanged(in sequence: UInt64) {
        lastSequence = sequence
        attributeSequence = sequence
    }

    /// Data, size, blocks or times were changed, nothing else.
    func dataHasChanged(in sequence: UInt64) {
        lastSequence = sequence
        dataChangedAt = volume.engine.clock.now
    }
}

extension MountedVolume {
    /// For so long after a write its node tells the attributes, in nanoseconds.
    private static let memoryOfWrites: UInt64 = 1_000_000_000

    /// Answers `PeerVolumes.attributes` of another node (P1, P3).
    package func attributesHere(of file: InodeNumber) -> GlimpsedAttributes? {
        guard !isWithdrawn, let inode = inodes[file], !inode.isFreed,
            inode.glock.held == .exclusive,
            let stored = inode.stored, stored.record.isRegular,
            knowsTimes(inode, stored, .exclusive),
            let changed = inode.dataChangedAt,
            engine.clock.now.rawValue - changed.rawValue < Self.memoryOfWrites,
            journal.isDurable(inode.attributeSequence)
        else { return nil }
        switch inode.glock.machine.phase {
        case .steady, .demoting: break
        case .requesting, .lowering: return nil
        }
        counters.glimpsesTold += 1
        let record = stored.record
        return GlimpsedAttributes(
            mode: record.mode,
            user: record.user,
            group: record.group,
            linkCount: record.linkCount,
            device: record.device,
            size: record.size,
            blockCount: record.blockCount,
            accessed: shownAccess(inode, record),
            modified: record.modified,
            changed: record.changed,
            born: record.born,
            hasExtendedAttributes: record.inlineAttributeLength > 0
                || record.attributeBlock != .none
        )
    }

    /// The attributes of an inode that another node is writing, from that node; nil where the lock is the way. The caller has
    /// pinned the inode.
    func glimpse(_ inode: Inode, _ interruption: Interruption?) async throws(FileError)
        -> GlimpsedAttributes?
    {
        precondition(inode.isReferenced, "Glimpse P4: nobody keeps the inode in memory")
        guard let peers, !inode.isFreed, !inode.isKnownNotRegular, inode.glock.held == .null,
            inode.glock.machine.isIdle, inode.glimpses.isWorthwhile(at: engine.clock.now)
        else { return nil }
        let last = inode.glimpses.teller
        if last == nil {
            if await locks.enterWithoutQueueing(inode.glock, .shared, notifies: false) {
                locks.leave(inode.glock, .shared)
                return nil
            }
            guard inode.glock.held == .null, inode.glock.machine.isIdle else { return nil }
        }
        if interruption?.isRequested == true { throw .interrupted }
        counters.glimpseQuestions += 1
        guard let told = await peers.attributes(of: inode.number, from: last), !inode.isFreed else {
            inode.glimpses.failed()
            return nil
        }
        counters.glimpses += 1
        reached(.glimpsed)
        inode.glimpses.told(by: told.teller, at: engine.clock.now)
        return told.attributes
    }

    /// Keeps an inode in memory until `unpin`.
    func pin(_ inode: Inode) { inode.pins += 1 }

    /// Ends `pin`.
    func unpin(_ inode: Inode) {
        inode.pins -= 1
        unrefer(inode)
    }

    /// Whether a peer has made this node give the inode's lock up within the memory of looks.
    func wasLostLately(_ inode: Inode) -> Bool {
        guard let lost = inode.lostAt else { return false }
        return engine.clock.now.rawValue - lost.rawValue < Glimpses.memory
    }

    /// What is shown of it (P2).
    func attributes(_ inode: Inode, _ told: GlimpsedAttributes) -> FileAttributes {
        inode.toldSize.told(told.size, to: nil, .look, at: engine.clock.now)
        inode.toldChange = nil
        inode.toldOwner = (told.user, told.group)
        return FileAttributes(
            inode: inode.number,
            mode: told.mode,
            linkCount: told.linkCount,
            user: told.user,
            group: told.group,
            device: told.device,
            size: told.size,
            blocks: told.blockCount.multipliedReportingOverflow(by: UInt64(blockSize / 512))
                .partialValue,
            blockSize: UInt32(blockSize),
            accessed: told.accessed,
            modified: told.modified,
            changed: told.changed,
            born: told.born
        )
    }
}
