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
//
// A mount and a simulated node are this same class: only the device, the link and whoever brings views
// differ.

package import BlockIO
package import DiskFormat
package import Execution
package import FileSystem
package import Journaling
package import LockCache
package import LockCore
package import NodeService
package import Vocabulary

/// What a node is made of.
package struct NodeParts {
    package var member: Member
    package var device: any BlockDevice
    /// Verified.
    package var superblock: Superblock
    /// The way to the other nodes' lock managers.
    package var peers: any PeerLink
    package var mount = MountOptions()
    package var journal = JournalOptions()
    package var locks = LockSettings()
    /// Blocks of metadata that are kept in memory.
    package var cachedBlocks = 16_384
    /// Bytes of the lock manager's flight recorder; 0 for none.
    package var recording = 0
    /// Another lock manager for the volume than the node's own, to tell whose fault something is.
    package var substitute: (any LockService)?

    package init(
        member: Member,
        device: any BlockDevice,
        superblock: Superblock,
        peers: any PeerLink
    ) {
        self.member = member
        self.device = device
        self.superblock = superblock
        self.peers = peers
    }
}

/// Why a node could not begin or end in order: one line.
package struct NodeError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}

/// One node. Engine-bound, apart from the closures that are set before it begins.
package final class NodeRuntime: @unchecked Sendable {
    // Sendable: see above.
    private let engine: Engine
    private let parts: NodeParts
    /// This life of this node.
    package var member: Member { parts.member }
    /// Its lock manager.
    package let locks: LockNode
    /// The mounted volume, once `begin` has made it.
    package private(set) var volume: MountedVolume?
    /// Its journal, likewise.
    package private(set) var journal: Journal?
    /// The newest view; nil before the first.
    package private(set) var view: ClusterView?
    /// Something was written to the volume: leaving needs a clean journal.
    package private(set) var hasWritten = false
    private let firstRecovery = Signal()
    private var readyEpoch: Epoch?
    private let recovery: JournalRecovery
    private let router: LockRouter
    private let questions: PeerQuestions
    private var complaints = Complaints()
    /// This node replays journals at this moment.
    package var isReplaying: Bool { recovery.isActive }
    /// What it has replayed, oldest first.
    package private(set) var recoveries: [RecoveryReport] = []

    /// Everything that the journals of the view of this epoch may have changed is locked: the others
    /// may go on.
    package var onCovered: ((Epoch) -> Void)?
    /// A journal was replayed.
    package var onRecovered: ((RecoveryReport) -> Void)?
    /// All journals that the view of this epoch lists are home.
    package var onReplayed: ((Epoch) -> Void)?
    /// A line for the log.
    package var onReport: ((String) -> Void)?
    /// The node must not go on (Docs/WITHDRAWAL.md).
    package var onFailure: ((String) -> Void)?
    /// What beats on the device for this node, if anything does. Set before `begin`.
    package var heart: (any DeviceHeart)?
    /// A view, before the lock manager hears of it: connections follow it.
    package var adoptView: ((ClusterView) -> Void)?
    /// Whom the lock manager answers; whoever stands in for it must too.
    package var lockClient: any LockClient { router }
    /// What happens to the volume's glocks.
    package var onGlockEvent: ((ResourceName, GlockEvent) -> Void)?

    /// A node that is in no view yet.
    package init(engine: Engine, parts: NodeParts) {
        self.engine = engine
        self.parts = parts
        locks = LockNode(
            node: parts.member.node,
            incarnation: parts.member.incarnation,
            engine: engine,
            peers: parts.peers,
            settings: parts.locks,
            recording: parts.recording
        )
        recovery = JournalRecovery(
            engine: engine,
            device: parts.device,
            superblock: parts.superblock,
            service: parts.substitute ?? locks
        )
        router = LockRouter(recovery: recovery)
        questions = PeerQuestions(locks, engine: engine)
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

    /// The node is in a newer view.
    package func adopt(_ view: ClusterView) {
        self.view = view
        adoptView?(view)
        locks.viewChanged(view)
        questions.adopt(view)
        volume?.tellAllAccesses()
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
                whenCovered: {
                    self.locks.journalsReplayed(view.epoch)
                    self.onCovered?(view.epoch)
                }
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
            let report = RecoveryReport(epoch: view.epoch, journal: journal)
            recoveries.append(report)
            onRecovered?(report)
        }
        onReplayed?(view.epoch)
        becomeReady(view.epoch)
        freeOrphansOfTheAbsent()
    }

    /// What nodes deleted that have died, or have left while others had it open: the coordinator
    /// frees it.
    private func freeOrphansOfTheAbsent() {
        guard let volume, let view, view.coordinator == member.node else { return }
        for slot in (0..<parts.superblock.slotCount).map(SlotIndex.init(_:))
        where !view.contains(NodeID(slot: slot)) {
            engine.spawn { await volume.freeOrphans(of: slot) }
        }
    }

    // MARK: Beginning and end

    /// Waits for the first recovery, opens the journal and starts the volume.
    ///
    /// - Throws: `StorageError` when the slot cannot be used, `NodeError` when the root cannot be
    ///   read.
    package func begin() async throws -> MountedVolume {
        while readyEpoch == nil { await firstRecovery.wait() }
        let slot = member.node.slot
        let descriptor = try await readDescriptor(slot)
        hasWritten = true
        // Clean in all normal cases: a slot whose journal is not is replayed before anybody may
        // live in it.
        _ = try await JournalReplay.replay(
            device: parts.device,
            superblock: parts.superblock,
            slot: slot
        )
        let cache = MetadataCache(
            device: parts.device,
            superblock: parts.superblock,
            capacity: parts.cachedBlocks
        )
        let journal = try await Journal.open(
            device: parts.device,
            superblock: parts.superblock,
            descriptor: descriptor,
            cache: cache,
            engine: engine,
            options: parts.journal,
            atRest: true
        )
        self.journal = journal
        let volume = makeVolume(descriptor, cache, journal)
        self.volume = volume
        do throws(FileError) {
            try await volume.start()
        } catch .busy {
            throw NodeError(
                "the volume is frozen, or just being frozen or thawed; 'lockstep thaw' on a node that has it mounted "
                    + "lets it go on"
            )
        } catch {
            throw NodeError("the root directory cannot be read (\(error)); run fsck.lockstep")
        }
        freeOrphansOfTheAbsent()
        return volume
    }

    private func makeVolume(
        _ descriptor: SlotDescriptor,
        _ cache: MetadataCache,
        _ journal: Journal
    ) -> MountedVolume {
        let volume = MountedVolume(
            engine: engine,
            device: parts.device,
            superblock: parts.superblock,
            descriptor: descriptor,
            cache: cache,
            journal: journal,
            lockService: parts.substitute ?? locks,
            options: parts.mount
        )
        router.volume = volume.locks
        volume.freezer.herald = self
        volume.freezer.heart = heart
        locks.onFreeze = { [weak volume] in volume?.freezer.hear($0) }
        volume.peers = self
        questions.lastWriteHere = { [weak volume] file, takes in
            volume?.lastWriteHere(to: file, takes: takes)
        }
        questions.attributesHere = { [weak volume] file in volume?.attributesHere(of: file) }
        questions.onAccess = { [weak volume] file, time in volume?.hearAccess(to: file, at: time) }
        volume.onReport = { [weak self] in self?.onReport?($0) }
        volume.onWithdraw = { [weak self] in self?.onFailure?($0) }
        volume.locks.onEvent = { [weak self] glock, event in
            self?.onGlockEvent?(glock.name, event)
        }
        return volume
    }

    /// What the volume says about a slot.
    private func readDescriptor(_ slot: SlotIndex) async throws -> SlotDescriptor {
        let superblock = parts.superblock
        let address = superblock.slotDescriptor(slot)
        let buffer = AlignedBuffer(byteCount: Int(superblock.blockSize))
        do {
            try await parts.device.read(buffer.bytes, at: superblock.byteOffset(address))
            return try SlotDescriptor(verifying: buffer.readOnly, at: address, in: superblock)
        } catch {
            throw NodeError("the descriptor of \(slot): \(error); run fsck.lockstep")
        }
    }

    /// Everything to the device, the journal clean, all locks given up.
    ///
    /// - Throws: `FileError` when something could not be written.
    package func end() async throws {
        if let volume { try await volume.stop() }
        volume?.locks.unlockAll()
        locks.leave()
    }
}

extension NodeRuntime: PeerVolumes {
    package func lastWrite(to file: InodeNumber, takes: Bool) async -> Timestamp? {
        await questions.lastWrite(to: file, takes: takes)
    }

    package func attributes(
        of file: InodeNumber,
        from teller: NodeID?
    ) async -> (attributes: GlimpsedAttributes, teller: NodeID)? {
        await questions.attributes(of: file, from: teller)
    }

    package func tellAccess(to file: InodeNumber, at time: Timestamp) {
        questions.tellAccess(to: file, at: time)
    }

    package var isAlone: Bool { questions.isAlone }

    package func asked(about file: InodeNumber) -> (nodes: [NodeID], since: Tick)? {
        questions.asked(about: file)
    }
}

extension NodeRuntime: FreezeHerald {
    package func announce(_ notice: FreezeNotice) { locks.announce(notice) }
}

/// One journal that was replayed.
package struct RecoveryReport: Sendable {
    /// The view that named it.
    package let epoch: Epoch
    package let journal: RecoveredJournal
}
