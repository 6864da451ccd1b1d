// Freezing a volume: after `freeze` has returned nothing on the shared device changes, whatever any node
// does, until somebody thaws it. A copy of the device taken meanwhile is a volume that was unmounted in
// order: its journals are clean, and fsck has nothing to say.
//
// The freeze lock says what the cluster is doing, by its mode:
//
//   CW   a node that works. The node itself is a concurrent holder of its glock all the time, and so is every
//        operation that changes something while it lasts
//   PR   a node that stands still
//
// CW and PR exclude each other, and each goes with itself: all work, or all stand still. Whoever wants to
// freeze asks for PR. The blocking notice ("PR is wanted") tells every node that works to let its
// operations end and to ask for PR itself; whoever wants to thaw asks for CW, whose notice tells
// those that stand still the same the other way round. So nobody is in charge: the state is held by all
// nodes, no death changes it, and any node may end it.
//
// Phases of one node
//   running    holds CW; operations come and go
//   stopping   PR is wanted: operations that arrive wait, those inside end, CW is given up, PR asked for
//   stopped    holds PR, so no operation is inside on any node. What the kernel has dirty is asked for,
//              everything is written, the log is emptied and its header marked clean, the heart on disk
//              stops
//   quiet      all that is done
//   resuming   CW is asked for, the log is marked as in use again
//
//   running → stopping → stopped → quiet → resuming → running;  stopped → resuming when thawed early
//
// The quiet lock is how the one who asked learns that all nodes are quiet: every node has it in PR when it
// ceases to work, and gives it up when it is quiet. Who has it in EX knows. The log barrier in EX, after
// that, shows that no journal of a dead node is being brought home by a survivor either.
//
// Two kinds of changes cannot wait until operations have ended, because an operation may be waiting for
// them: the write-back of a page that a mapping has dirtied (a lock that is given up waits for it,
// KERNEL D1), and a change of the size of a file that is mapped (the kernel holds write-backs behind it).
// These enter *late*: until their node is about to become quiet.
//
// Invariants
// Z1. Nothing is changed but by who is inside: an operation, or one that entered late. Whoever enters
//     holds no lock and no transaction, but for an orphan's open lock, for which nobody waits who is
//     inside (Orphans.swift). So the freeze lock comes before all others (LockTable L1), and
//     operations that are inside always end.
// Z2. Nobody enters twice: the second time would wait for the end of the first.
// Z3. A node has PR only when no node has CW, so no operation is inside on any node.
// Z4. When a node is quiet nobody is inside on it, nothing is dirty, the log is empty and its header says
//     clean, and nothing of the volume writes to the device until CW is granted again.
// Z5. From before a node gives CW up until it is quiet, or has CW again, it holds the quiet lock. So EX on
//     that, asked for with PR on the freeze lock in hand, means that all nodes are quiet. (While a node works,
//     a request of an earlier freeze that was taken back may take the quiet lock away.)
// Z6. A quiet node that dies leaves a clean log: its recovery reads it and writes nothing
//     (JournalRecovery). One that dies before it was quiet is recovered as always; the others stand
//     still all the same, and are quiet when that is done.
// Z7. Nothing that only reads waits: no fill, no lookup, and the time of last access is left as it is.
// Z8. A thaw is never refused, and waits for nobody but the other nodes' hearing of it: what keeps a node
//     from becoming quiet is given up when a thaw is wanted.
// Z9. Whoever mounts gets CW without queueing or not at all: before it has written anything, and never
//     while the volume stands still.
//
// What this cannot do: a store into a page that is mapped changes the kernel's memory without asking. It
// stays there until the thaw; if another node wants the file meanwhile it waits so long (CAVEATS).
//
// Source of the idea: the freeze glock of GFS2 (fs/gfs2/util.c, `gfs2_freeze_lock_shared`), where the node
// that freezes holds it in EX and its death thaws.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// Why a freeze did not come about.
package enum FreezeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// EBUSY: it is frozen already, or is being frozen or thawed.
    case busy(FreezeNotice?)
    /// Somebody thawed before it was complete, or a node could not write what it had.
    case undone
    /// It was not complete in time, and was taken back.
    case slow(seconds: UInt64)
    /// The node has withdrawn or is leaving.
    case down

    package var description: String {
        switch self {
        case .busy(let notice?):
            "the volume is frozen already (EBUSY): by \(notice.node) since \(civilText(notice.since))"
        case .busy(nil): "the volume is just being frozen or thawed (EBUSY)"
        case .undone: "the volume was thawed before the freeze was complete"
        case .slow(let seconds):
            "the freeze was not complete after \(seconds) s and is taken back: some node has work that does not end "
                + "(see 'lockstep locks')"
        case .down: "this node is leaving"
        }
    }
}

/// What the others are told of a freeze.
package protocol FreezeHerald: AnyObject {
    /// Tells all other nodes who freezes. They may hear of the freeze itself first.
    func announce(_ notice: FreezeNotice)
}

/// Whoever else writes to the device for this node: its heartbeat.
package protocol DeviceHeart: AnyObject {
    /// Returns when nothing is being written; nothing is from then on.
    func hold() async
    /// It may write again.
    func release()
}

/// The part of one mount in freezing and thawing. Engine-bound.
package final class Freezer {
    /// Where this node stands; the head of the file says what is true in each phase.
    package enum Phase: String, Sendable {
        case running, stopping, stopped, quiet, resuming
    }

    unowned let volume: MountedVolume
    private let engine: Engine
    private let locks: LockTable
    let freezeGlock: Glock
    private let quietGlock: Glock
    package private(set) var phase = Phase.running
    /// Who froze the volume, as far as this node was told.
    package private(set) var notice: FreezeNotice?
    /// Told to the other nodes. Set before `start`.
    package weak var herald: (any FreezeHerald)?
    /// What beats on the device, if anything does.
    package var heart: (any DeviceHeart)?
    /// This node is a holder of the freeze lock in CW.
    private var isWorking = false
    /// The phase has changed, or what decides on it.
    let changed = Signal()
    /// Those that entered late and have not left.
    private var lateCount = 0
    /// Nobody enters late any more.
    private var isClosed = false
    private var isThawWanted = false
    private var isStopWanted = false
    /// The freeze that this node was asked for is not complete yet.
    private var asking: Interruption?
    private var isOutrun = false
    private var isHeartHeld = false

    init(_ volume: MountedVolume) {
        self.volume = volume
        engine = volume.engine
        locks = volume.locks
        freezeGlock = locks.make(.freeze, owner: nil)
        quietGlock = locks.make(.quiet, owner: nil)
        freezeGlock.owner = self
        quietGlock.owner = self
    }

    // MARK: Entering (Z1, Z2)

    /// Enters to change something, waiting while the volume stands still. Ends with `leave`. The caller holds
    /// nothing.
    ///
    /// - Throws: `interrupted`; `inputOutput` when this node has withdrawn, `shutDown` when it is leaving.
    func enter(_ interruption: Interruption?) async throws(FileError) {
        while !enterIfPossible() { try await waitForChange(interruption) }
    }

    /// Enters if that needs no waiting.
    func enterIfPossible() -> Bool {
        phase == .running && locks.enterIfPossible(freezeGlock, .concurrent)
    }

    /// Ends `enter`.
    func leave() { locks.leave(freezeGlock, .concurrent) }

    /// Enters for what an operation may be waiting for. Ends with `leaveLate`.
    ///
    /// - Throws: as `enter`.
    func enterLate(_ interruption: Interruption?) async throws(FileError) {
        while !enterLateIfPossible() { try await waitForChange(interruption) }
    }

    /// Enters late if that needs no waiting.
    func enterLateIfPossible() -> Bool {
        if isClosed { return false }
        lateCount += 1
        return true
    }

    /// Ends `enterLate`.
    func leaveLate() {
        precondition(lateCount > 0, "Freeze Z1: somebody left who was not inside")
        lateCount -= 1
        if lateCount == 0, phase != .running { changed.notify() }
    }

    /// Enters late for something that somebody does who only reads; false if it has to be left out.
    func enterUnlessSealed() -> Bool {
        if isSealed { return false }
        lateCount += 1
        return true
    }

    /// Waits until a transaction may begin. Nobody who is inside waits here.
    func waitUntilOpen() async throws(FileError) {
        while isSealed { try await waitForChange(nil) }
    }

    /// Whether no transaction may begin: nobody is inside, and nobody gets in.
    var isSealed: Bool { isClosed && lateCount == 0 }

    private func waitForChange(_ interruption: Interruption?) async throws(FileError) {
        if interruption?.isRequested == true { throw .interrupted }
        if volume.isWithdrawn { throw .inputOutput }
        if volume.isStopping { throw .shutDown }
        interruption?.onRequest = { [weak self] in self?.changed.notify() }
        await changed.wait()
        interruption?.onRequest = nil
        if interruption?.isRequested == true { throw .interrupted }
    }

    // MARK: Coming and going

    /// Takes the locks that every node that works has (Z9).
    ///
    /// - Throws: `busy` when the volume stands still.
    func start() async throws(FileError) {
        // Who wants to freeze from here on waits until the log is marked as in use: it may not be at rest and on its
        // way out of it.
        phase = .resuming
        do throws(FileError) {
            try await begin()
        } catch {
            become(.running)
            throw error
        }
        becomeRunning()
    }

    private func begin() async throws(FileError) {
        guard await locks.enterWithoutQueueing(freezeGlock, .concurrent, notifies: false) else {
            throw volume.isWithdrawn ? .inputOutput : .busy
        }
        isWorking = true
        do throws(StorageError) {
            try await volume.journal.wake()
        } catch {
            throw volume.metadataFailed(error)
        }
    }

    private func becomeRunning() {
        become(.running)
        if isStopWanted {
            isStopWanted = false
            beginToStop()
        }
    }

    /// Wakes all who wait: the node has withdrawn, or is leaving.
    func wakeAll() {
        asking?.request()
        changed.notify()
    }

    /// Before the node leaves: returns when it works or is quiet.
    func settle() async {
        wakeAll()
        while phase != .running, phase != .quiet, !volume.isWithdrawn { await changed.wait() }
    }

    /// Whether the node leaves a volume that stands still: nothing may be written, and nothing has to be.
    package var isQuiet: Bool { phase == .quiet }

    // MARK: Freezing

    /// So long a freeze may take to be complete, in seconds, before it is taken back.
    private static let patience: UInt64 = 60

    /// Freezes the volume; returns when nothing changes on the device any more. `seconds` as in
    /// `FreezeNotice`.
    package func freeze(seconds: UInt32) async throws(FreezeError) {
        // The thaw before is over for everybody; only this node's log is not marked as in use yet.
        while phase == .resuming, isWorking, !volume.isWithdrawn, !volume.isStopping {
            await changed.wait()
        }
        if volume.isWithdrawn || volume.isStopping { throw .down }
        guard phase == .running, asking == nil else { throw .busy(notice) }
        let own = FreezeNotice(
            node: NodeID(slot: volume.slot),
            since: engine.clock.civilTime,
            seconds: seconds
        )
        notice = own
        isOutrun = false
        let interruption = Interruption()
        asking = interruption
        defer { asking = nil }
        herald?.announce(own)
        armTimer(own)
        var isLate = false
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: Self.patience * 1_000_000_000),
            in: engine,
            EngineBound { [weak self, weak interruption] in
                guard let self, let interruption, asking === interruption else { return }
                isLate = true
                wantThaw()
            }
        )
        beginToStop()
        while phase == .stopping || phase == .stopped, !volume.isWithdrawn { await changed.wait() }
        let isDone = await areAllQuiet(interruption)
        if volume.isWithdrawn { throw .down }
        guard isDone, phase == .quiet else {
            throw isLate ? .slow(seconds: Self.patience) : .undone
        }
        if isOutrun { throw .busy(notice) }
    }

    /// Waits until all nodes are quiet and no journal is being brought home (Z5); false if there is a thaw before.
    private func areAllQuiet(_ interruption: Interruption) async -> Bool {
        guard phase == .quiet else { return false }
        do throws(FileError) {
            for glock in [quietGlock, volume.barrierGlock] {
                try await locks.enter(glock, .exclusive, interruption)
                locks.leave(glock, .exclusive)
                locks.reclaim(glock)
            }
            // One that died in the midst of this may have marked its log clean and not flushed that.
            do throws(StorageError) {
                try await volume.flushDevice()
            } catch {
                throw volume.metadataFailed(error)
            }
        } catch {
            return false
        }
        return true
    }

    /// Another node tells who freezes.
    package func hear(_ other: FreezeNotice) {
        if asking != nil, let own = notice {
            if own.comes(before: other) { return }
            isOutrun = true
        }
        notice = other
        armTimer(other)
    }

    private func armTimer(_ notice: FreezeNotice) {
        guard notice.seconds > 0 else { return }
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: UInt64(notice.seconds) * 1_000_000_000),
            in: engine,
            EngineBound { [weak self] in
                guard let self, self.notice == notice else { return }
                wantThaw()
            }
        )
    }

    private func beginToStop() {
        // Whoever leaves gives its locks up anyway.
        if volume.isStopping { return }
        guard phase == .running else {
            // Before that it is the freeze that is under way, told once more because of a new view.
            if phase == .resuming { isStopWanted = true }
            return
        }
        become(.stopping)
        engine.spawn { await self.stop() }
    }

    private func become(_ next: Phase) {
        phase = next
        changed.notify()
    }

    private func stop() async {
        do throws(FileError) {
            try await locks.enter(quietGlock, .shared)
            isWorking = false
            leave()
            locks.leave(quietGlock, .shared)  // Z5: demote gives it up when this node is quiet
            try await locks.enter(freezeGlock, .shared)
        } catch {
            return  // the lock manager has shut down
        }
        become(.stopped)
        let isQuiet = await becomeQuiet()
        if isQuiet { become(.quiet) }
        if isThawWanted || !isQuiet {
            become(.resuming)
            await resume()
        }
    }

    /// Z4. False if there is a thaw before, or something cannot be written.
    private func becomeQuiet() async -> Bool {
        await takeStores()
        do throws(FileError) {
            try await volume.storeTimes(olderThan: 0)  // LazyTimes B3
        } catch {
            return false
        }
        isClosed = true
        while lateCount > 0, !isThawWanted, !volume.isWithdrawn { await changed.wait() }
        if isThawWanted || volume.isWithdrawn { return false }
        do throws(FileError) {
            try await volume.writeBackAll()
            do throws(StorageError) {
                try await volume.journal.rest()
                try await volume.flushDevice()
            } catch {
                throw volume.metadataFailed(error)
            }
        } catch {
            return false
        }
        isHeartHeld = true
        await heart?.hold()
        return true
    }

    /// How long the kernel is waited for, in nanoseconds: what it does not give by then it keeps.
    private static let kernelPatience: UInt64 = 2_000_000_000

    /// Has everything written back that mappings have changed: the locks under which that could be are given
    /// up as if another node wanted them.
    private func takeStores() async {
        var mapped: [Inode] = []
        volume.inodes.forEach { inode in
            if inode.readWriteOpens > 0, inode.kernelMayCache, inode.glock.held != .null,
                inode.glock.held != .protectedRead
            {
                mapped.append(inode)
            }
        }
        if mapped.isEmpty { return }
        var remaining = mapped.count
        var isOver = false
        for inode in mapped {
            engine.spawn {
                await self.locks.giveWay(inode.glock)
                remaining -= 1
                if remaining == 0 { self.changed.notify() }
            }
        }
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: Self.kernelPatience),
            in: engine,
            EngineBound { [weak self] in
                isOver = true
                self?.changed.notify()
            }
        )
        while remaining > 0, !isOver, !isThawWanted, !volume.isWithdrawn { await changed.wait() }
    }

    // MARK: Thawing

    /// Lets all nodes work again; returns when this one does. False if the volume was not frozen.
    package func thaw() async -> Bool {
        if phase == .running { return false }
        wantThaw()
        while phase != .running, !volume.isWithdrawn, !volume.isStopping { await changed.wait() }
        return true
    }

    private func wantThaw() {
        switch phase {
        case .running, .resuming: return
        case .stopping, .stopped:
            // Whoever stops looks (Z8).
            isThawWanted = true
            asking?.request()
            changed.notify()
        case .quiet:
            if volume.isStopping { return }
            become(.resuming)
            asking?.request()
            engine.spawn { await self.resume() }
        }
    }

    private func resume() async {
        notice = nil
        locks.leave(freezeGlock, .shared)
        do throws(FileError) {
            try await locks.enter(freezeGlock, .concurrent)
            isWorking = true
            changed.notify()
            do throws(StorageError) {
                try await volume.journal.wake()
            } catch {
                throw volume.metadataFailed(error)
            }
            if isHeartHeld { heart?.release() }
            isHeartHeld = false
            isClosed = false
            isThawWanted = false
        } catch {
            return  // the node is going down
        }
        becomeRunning()
    }
}

extension Freezer: GlockOwner {
    package func isWanted(_ glock: Glock, _ mode: LockMode) {
        guard glock === freezeGlock else { return }
        switch glock.held {
        case .concurrentWrite: beginToStop()
        case .protectedRead: wantThaw()
        default: break
        }
    }

    package func demote(_ glock: Glock, from: LockMode, to: LockMode) async {
        guard glock === quietGlock, to == .null else { return }
        while phase != .quiet, !isWorking, !volume.isWithdrawn { await changed.wait() }  // Z5
        if volume.isWithdrawn { await volume.standStill() }
    }
}
