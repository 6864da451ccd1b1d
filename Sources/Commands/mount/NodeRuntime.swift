// One node inside the engine: the lock manager, recovery, and the volume.
//
// What happens with a view
//   1. the transport connects to the new members and drops those that are gone
//   2. the lock manager recovers its tables; while journals wait to be replayed it grants nothing
//      new but what recovery itself asks for
//   3. the coordinator locks what the logs cover and tells everybody: ordinary grants go on
//   4. it brings home what the logs have (`JournalRecovery`), each restartable
//   5. it tells the cluster; the slots' orphans are looked through
// A newer view may come at any point: the lock manager starts again from 2, and the recovery is done
// again if it was not finished, which is harmless (Docs/JOURNAL.md).

import BlockIO
import DiskFormat
import Execution
import FileSystem
import Journaling
import LinuxBlockIO
import LockCache
import NodeService
import Vocabulary

/// One node. Engine-bound, apart from the closures that are set before it begins.
final class NodeRuntime: @unchecked Sendable {
    // Sendable: see above.
    private let engine: Engine
    private let file: VolumeFile
    private let member: Member
    private let options: MountOptions
    let locks: LockNode
    private(set) var volume: MountedVolume?
    private(set) var view: ClusterView?
    /// Something was written to the volume: leaving needs a clean journal.
    private(set) var hasWritten = false
    private let firstRecovery = Signal()
    private var readyEpoch: Epoch?
    private let recovery: JournalRecovery
    private let router: LockRouter
    let story = Story()
    private var complaints = Complaints()
    /// This node replays journals at this moment.
    var isReplaying: Bool { recovery.isActive }
    var recoveries: [RecoveryReport] = []
    let scrubber = Scrubber()

    var onReplayed: ((Epoch) -> Void)?
    var onReport: ((String) -> Void)?
    var onFailure: ((String) -> Void)?
    var adoptView: ((ClusterView) -> Void)?

    init(
        engine: Engine,
        file: VolumeFile,
        member: Member,
        link: Link,
        options: MountOptions,
        recording: Int
    ) {
        self.engine = engine
        self.file = file
        self.member = member
        self.options = options
        locks = LockNode(
            node: member.node,
            incarnation: member.incarnation,
            engine: engine,
            peers: link,
            recording: recording
        )
        recovery = JournalRecovery(
            engine: engine,
            device: file.device,
            superblock: file.superblock,
            service: locks
        )
        router = LockRouter(recovery: recovery)
        locks.client = router
        locks.onDeadlock = { [weak self] hops, _ in
            let story = hops.map { "\($0)" }.joined(separator: "; ")
            self?.onReport?("deadlock, one wait is refused: \(story)")
        }
        locks.onRecoveryFinished = { [weak self] view in self?.locksRecovered(view) }
        locks.onMalformed = { [weak self] peer, error in
            self?.complain(of: peer, "sent what is no message (\(error)); it is dropped")
        }
        locks.onProtocolError = { [weak self] peer in
            self?.complain(of: peer, "sent a message that means nothing here; it is passed over")
        }
    }

    /// A peer that errs may err often: one line a while.
    private func complain(of peer: NodeID, _ what: String) {
        guard let kept = complaints.mayComplain(of: peer, at: engine.clock.now) else { return }
        onReport?("\(peer) \(what)" + (kept == 0 ? "" : "; \(kept) more since the last such line"))
    }

    // MARK: Views and messages

    func adopt(_ view: ClusterView) {
        self.view = view
        adoptView?(view)
        story.note("view \(view)")
        locks.viewChanged(view)
    }

    /// The lock tables of a view are whole again on this node.
    private func locksRecovered(_ view: ClusterView) {
        if !view.slotsToReplay.isEmpty, view.coordinator == member.node {
            engine.spawn { await self.replay(view) }
            return
        }
        becomeReady(view.epoch)
        freeOrphansOfTheAbsent()
    }

    private func becomeReady(_ epoch: Epoch) {
        readyEpoch = epoch
        firstRecovery.notify()
    }

    private func replay(_ view: ClusterView) async {
        hasWritten = true
        let recovered: [RecoveredJournal]?
        do throws(StorageError) {
            recovered = try await recovery.recover(
                view.slotsToReplay,
                isCurrent: { self.view?.epoch == view.epoch },
                whenCovered: { self.locks.journalsReplayed(view.epoch) }
            )
        } catch {
            // The lock manager has left, or an earlier recovery has failed and said so.
            if error == .stopped { return }
            let slots = view.slotsToReplay.map(\.description).joined(separator: ", ")
            onFailure?("the journals of \(slots) cannot be replayed: \(error)")
            return
        }
        // The coordinator of a newer view does it again, whoever that is.
        guard let recovered else { return }
        for journal in recovered {
            recoveries.append(RecoveryReport(epoch: view.epoch, journal: journal))
            let report = journal.report
            if report.transactions == 0 { continue }
            onReport?(
                "replayed the journal of \(journal.slot): \(report.transactions) transactions, "
                    + "\(report.written) of \(report.blocks) blocks written; others went on after "
                    + "\(journal.untilCovered / 1_000_000) ms but for \(journal.covered - journal.settled) "
                    + "names, and those after \(journal.untilClean / 1_000_000) ms"
            )
        }
        onReplayed?(view.epoch)
        becomeReady(view.epoch)
        freeOrphansOfTheAbsent()
    }

    /// What nodes deleted that have died, or have left while others had it open: the coordinator
    /// frees it.
    private func freeOrphansOfTheAbsent() {
        guard let volume, let view, view.coordinator == member.node else { return }
        for slot in (0..<file.superblock.slotCount).map(SlotIndex.init(_:))
        where !view.contains(NodeID(slot: slot)) {
            engine.spawn { await volume.freeOrphans(of: slot) }
        }
    }

    // MARK: Beginning and end

    /// Waits for the first recovery, opens the journal and starts the volume.
    func begin() async throws -> MountedVolume {
        while readyEpoch == nil { await firstRecovery.wait() }
        let superblock = file.superblock
        let slot = member.node.slot
        let descriptor = try file.descriptor(slot)
        hasWritten = true
        // Clean in all normal cases: a slot whose journal is not is replayed before anybody may
        // live in it.
        _ = try await JournalReplay.replay(
            device: file.device,
            superblock: superblock,
            slot: slot
        )
        let cache = MetadataCache(device: file.device, superblock: superblock, capacity: 16_384)
        var journalOptions = JournalOptions()
        journalOptions.commitInterval = options.commitInterval
        let journal = try await Journal.open(
            device: file.device,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            engine: engine,
            options: journalOptions
        )
        let volume = MountedVolume(
            engine: engine,
            device: file.device,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            journal: journal,
            lockService: locks,
            options: options
        )
        router.volume = volume.locks
        volume.onReport = onReport
        volume.onWithdraw = onFailure
        volume.locks.onEvent = { [story] glock, event in story.note(glock.name, event) }
        self.volume = volume
        do throws(FileError) {
            try await volume.start()
        } catch {
            throw MountError(
                "\(file.path): the root directory cannot be read (\(error)); run fsck.lockstep"
            )
        }
        freeOrphansOfTheAbsent()
        return volume
    }

    /// Everything to the device, the journal clean, all locks given up.
    func end() async throws {
        await scrubber.stop()
        if let volume {
            do throws(FileError) {
                try await volume.stop()
            } catch {
                throw MountError("\(file.path): \(error)")
            }
        }
        volume?.locks.unlockAll()
        locks.leave()
    }
}

/// One journal that was replayed.
struct RecoveryReport {
    let epoch: Epoch
    let journal: RecoveredJournal
}
