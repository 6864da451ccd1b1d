// Recovery of dead nodes' journals by a survivor, while everybody else goes on.
//
// Lock recovery comes first, and leaves every lock manager granting nothing new: what the dead nodes
// may have changed is in their logs only, and locks that they mastered themselves have gone with
// them. The coordinator of the view then
//
//   1. locks the journals of the slots: whoever has recovered them before is finished
//   2. holds the log barrier in PR, as the dead nodes did
//   3. reads their logs: the names that cover the newest images are the *footprint*
//   4. asks for each name of the footprint in EX, without queueing
//   5. says that ordinary grants go on (`whenCovered`), on all nodes
//   6. brings the images home that are covered by the names it got, and marks the journals clean
//   7. gives the locks up
//
// Only who wants something in the footprint waits for 6. A newer view may come at any point: then it
// all begins again, on whoever coordinates that view.
//
// Invariants
// V1. Before a name is granted to anybody, either everything that a dead node's log says about it is
//     in place, or this node has it in EX. From one view to the next the lock managers grant nothing
//     that is not asked for recovery (I9 of the lock manager), so 5 is the only door.
// V2. A name that is refused in 4 is held by a survivor. So the dead node had given it up, and then
//     what it had changed under it was settled in place: its images are not newer, and the place may
//     be written by its present owner at this moment. It is left alone. (Whatever covers metadata is
//     held in PR or EX, never less.)
// V3. The log barrier cannot be granted exclusively before the logs are clean, so nothing that stands
//     in them becomes data meanwhile (R7, S2).
// V4. Two recoveries of one journal exclude each other by its lock: a name in the footprint that the
//     former holds is never taken for one that a survivor uses (V2).
// V5. If it cannot be done, the locks stay: nobody sees what is not whole. They go with the node.
//
// All requests carry `LockFlags.recovery`. Lock order: journals ascending, the barrier, then names
// without queueing; nothing else is held.
//
// Source: the order of GFS2's recovery (`fs/gfs2/recovery.c`), which blocks every lock of the volume
// until the journal is replayed.

package import BlockIO
package import DiskFormat
package import Execution
package import Journaling
package import LockCache
package import Vocabulary

/// One journal that was recovered, and what it took.
package struct RecoveredJournal: Sendable {
    package let slot: SlotIndex
    /// What the log had and what was done with it; nothing if it was clean.
    package let report: ReplayReport
    /// Names in the footprint of all logs of this recovery, and how many of them survivors held.
    package let covered: Int
    package let settled: Int
    /// Until ordinary grants went on, and until the journal was clean: nanoseconds since the
    /// beginning.
    package let untilCovered: UInt64
    package let untilClean: UInt64
}

/// Recovers journals for one node. Engine-bound.
package final class JournalRecovery: LockClient {
    /// Cookies of its locks have this bit, which those of a `LockTable` never have.
    static let cookieBit: UInt64 = 1 << 63

    private struct Wish {
        let name: ResourceName
        var lock = LockID.none
        /// How what was asked last ended; nil while that is not known.
        var status: LockStatus?
    }

    private let engine: Engine
    private let device: any BlockDevice
    private let superblock: Superblock
    private let service: any LockService
    private var wishes: [Wish] = []
    /// The barrier is held in EX.
    private var isQuiet = false
    private var isShutDown = false
    private let answered = Signal()
    private let gate = Gate()

    /// `service` answers to a `LockRouter` that knows this object.
    package init(
        engine: Engine,
        device: any BlockDevice,
        superblock: Superblock,
        service: any LockService
    ) {
        self.engine = engine
        self.device = device
        self.superblock = superblock
        self.service = service
    }

    /// Whether a recovery is under way.
    package var isActive: Bool { gate.isTaken }

    /// Recovers the journals of `slots`, whose nodes are fenced. `isCurrent`: whether the
    /// view still is the one that named them. `whenCovered` is called when ordinary grants may go on.
    /// Returns nil if a newer view has come before it was all done.
    ///
    /// - Throws: why a log could not be read or brought home; the locks are kept (V5). `.stopped`
    ///   when the lock manager shut down.
    package func recover(
        _ slots: [SlotIndex],
        isCurrent: () -> Bool,
        whenCovered: () -> Void
    ) async throws(StorageError) -> [RecoveredJournal]? {
        await gate.enter()
        defer { gate.leave() }
        // A recovery before this one has failed (V5).
        if !wishes.isEmpty { throw .stopped }
        let slots = slots.sorted()
        let start = engine.clock.now
        for slot in slots { try await lock(.journal(slot), .exclusive) }
        try await lock(.logBarrier, .protectedRead)
        var logs: [SlotIndex: DeadLog] = [:]
        for slot in slots {
            logs[slot] = try await JournalReplay.read(
                device: device,
                superblock: superblock,
                slot: slot
            )
        }
        let settled = try await lockFootprint(slots.compactMap { logs[$0] })
        guard isCurrent() else {
            reached(.recoveryOvertaken)
            unlockAll()
            return nil
        }
        let covered = engine.clock.now
        whenCovered()
        var recovered: [RecoveredJournal] = []
        for slot in slots {
            try await logs[slot]?.bringHome(isSettled: { settled.contains($0) }) {
                () async throws(StorageError) in try await self.quieten(slots.count)
            }
            recovered.append(
                RecoveredJournal(
                    slot: slot,
                    report: logs[slot]?.report ?? ReplayReport(),
                    covered: wishes.count - slots.count - 1,
                    settled: settled.count,
                    untilCovered: covered.rawValue - start.rawValue,
                    untilClean: engine.clock.now.rawValue - start.rawValue
                )
            )
        }
        unlockAll()
        return isCurrent() ? recovered : nil
    }

    /// Asks for everything that the logs cover; the names that survivors hold (V2).
    private func lockFootprint(
        _ logs: [DeadLog]
    ) async throws(StorageError) -> Set<ResourceName> {
        let first = wishes.count
        var names = logs.flatMap(\.report.footprint)
        names.sort()
        for (index, name) in names.enumerated() where index == 0 || names[index - 1] != name {
            ask(name, .exclusive, [.recovery, .noQueue])
        }
        while wishes[first...].contains(where: { $0.status == nil }) { await answered.wait() }
        // Refused by a lock manager that shut down: what is held cannot be told.
        if isShutDown { throw .stopped }
        return Set(wishes[first...].filter { $0.status != .granted }.map(\.name))
    }

    /// R5: nobody writes in place while the barrier is held in EX. Whoever waits for it in EX holds
    /// nothing that is in the way, and is passed over.
    private func quieten(_ journals: Int) async throws(StorageError) {
        if isQuiet { return }
        isQuiet = true
        reached(.recoveryQuietens)
        wishes[journals].status = nil
        service.convert(
            wishes[journals].lock,
            to: .exclusive,
            [.recovery, .noOrder],
            value: nil
        )
        try await settle(journals)
    }

    // MARK: Locks

    private func lock(_ name: ResourceName, _ mode: LockMode) async throws(StorageError) {
        let place = wishes.count
        ask(name, mode, .recovery)
        try await settle(place)
    }

    private func settle(_ place: Int) async throws(StorageError) {
        while wishes[place].status == nil { await answered.wait() }
        if wishes[place].status != .granted || isShutDown { throw .stopped }
    }

    private func ask(_ name: ResourceName, _ mode: LockMode, _ flags: LockFlags) {
        let cookie = Self.cookieBit | UInt64(wishes.count)
        wishes.append(Wish(name: name))
        service.request(name, mode, flags, cookie: cookie)
    }

    private func unlockAll() {
        for wish in wishes.reversed() where wish.status == .granted {
            service.unlock(wish.lock, [], value: nil)
        }
        wishes = []
        isQuiet = false
    }

    package func completed(_ completion: LockCompletion) {
        let place = Int(completion.cookie & ~Self.cookieBit)
        if completion.status == .shutDown { isShutDown = true }
        // The end of an unlock belongs to a recovery that is over.
        guard completion.status != .unlocked, place < wishes.count else { return }
        wishes[place].status = completion.status
        if completion.status == .granted { wishes[place].lock = completion.lock }
        answered.notify()
    }

    /// Whoever wants it has it when its journal is clean.
    package func isBlocking(cookie: UInt64, wanted: LockMode) {}
}

/// The client of a node's lock manager: parts what is for the volume from what is for recovery.
package final class LockRouter: LockClient {
    private let recovery: JournalRecovery
    /// The volume's glocks, once it is mounted.
    package weak var volume: LockTable?

    package init(recovery: JournalRecovery) { self.recovery = recovery }

    package func completed(_ completion: LockCompletion) {
        if completion.cookie & JournalRecovery.cookieBit != 0 {
            recovery.completed(completion)
        } else {
            volume?.completed(completion)
        }
    }

    package func isBlocking(cookie: UInt64, wanted: LockMode) {
        if cookie & JournalRecovery.cookieBit != 0 {
            recovery.isBlocking(cookie: cookie, wanted: wanted)
        } else {
            volume?.isBlocking(cookie: cookie, wanted: wanted)
        }
    }
}
