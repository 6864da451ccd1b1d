// Coming and going: what a mount does before it answers and after the last request, and the timers
// in between.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    /// Reads the root and takes the locks that every mount holds. The caller has replayed what had
    /// to be replayed.
    ///
    /// - Throws: `busy` when the volume is frozen: nothing has been written then; what reading the root's inode meets.
    package func start() async throws(FileError) {
        try await freezer.start()
        try await locks.enter(barrierGlock, .shared)
        locks.leave(barrierGlock, .shared)
        let root = remember(superblock.root)
        precondition(root.handle == .root, "the root is the kernel's inode 1")
        root.lookups = 1
        let stored = try await hold(root, .shared)
        let isDirectory = stored.record.isDirectory
        release(root, .shared)
        guard isDirectory else { throw .notDirectory }
        if !options.isReadOnly {
            engine.spawn { await self.freeOrphans(of: self.slot) }
        }
        scheduleMaintenance()
    }

    /// Everything to the device, the journal clean, no lock in use. No request comes any more.
    ///
    /// - Throws: `inputOutput` when something could not be written, or this node has withdrawn: it
    /// must end as the dead do.
    package func stop() async throws(FileError) {
        await freeReplaced()
        isStopping = true
        await freezer.settle()
        if freezer.isQuiet { return try await stopQuiet() }
        while reapers > 0, !isWithdrawn { await reapersEnded.wait() }
        if isWithdrawn { throw .inputOutput }
        try await storePendingTimes()
        try await storeAccesses(isLast: true)
        try await storeTimes(olderThan: 0)
        try await writeBackAll()
        do throws(StorageError) {
            // Requests that the kernel has given up may still be at work: their transactions end
            // first.
            try await journal.checkpointAll()
            try await journal.close()
        } catch {
            throw metadataFailed(error)
        }
    }

    /// The end on a volume that stands still: everything is written already, and nothing may be.
    private func stopQuiet() async throws(FileError) {
        do throws(StorageError) {
            try await journal.close()
        } catch {
            throw metadataFailed(error)
        }
    }

    // MARK: Timers

    private func scheduleMaintenance() {
        let next = engine.clock.now.advanced(nanoseconds: options.commitInterval / 5 + 1)
        engine.clock.schedule(
            at: next,
            in: engine,
            EngineBound { [weak self] in
                guard let self, !isStopping, !isWithdrawn else { return }
                shrink()
                engine.spawn {
                    if self.options.isReadOnly { return self.sweep() }
                    await self.writeBackOld()
                    self.leaveRegions()
                    self.sweep()
                    await self.storeOldTimes()
                    await self.emptyQuietLog()
                }
                scheduleMaintenance()
            }
        )
    }

    /// Writes home what a node that has fallen quiet still has in its log: a death then costs the
    /// others no replay, and what they read of the free space on the device is true.
    private func emptyQuietLog() async {
        let statistics = journal.statistics
        let isQuiet = statistics.commits == quietCommits && statistics.runningBlocks == 0
        quietCommits = statistics.commits
        guard isQuiet, statistics.blocksAwaitingHome > 0 else { return }
        do throws(StorageError) {
            try await journal.checkpointAll()
        } catch {
            _ = metadataFailed(error)
        }
    }

    func sweepSoon() {
        guard !isSweepScheduled else { return }
        isSweepScheduled = true
        engine.spawn {
            self.isSweepScheduled = false
            self.sweep()
        }
    }

    /// Gives back the locks of inodes that nobody has referred to for the longest time, and forgets
    /// those that are gone.
    func sweep() {
        var kept: [Inode] = []
        let excess = idleInodes.count - options.idleInodes
        var index = 0
        for inode in idleInodes {
            defer { index += 1 }
            guard !inode.isReferenced else {
                inode.isIdleListed = false
                continue
            }
            if canForget(inode) {
                forget(inode)
                continue
            }
            // The lock of a freed inode goes when its end is on the device anyway: to give it up
            // earlier costs a commit.
            let isDone = inode.isFreed && store.isSettled(inode.glock.name, journal)
            if isDone || index < excess {
                locks.reclaim(inode.glock)
                if let open = inode.openGlock { locks.reclaim(open) }
            }
            kept.append(inode)
        }
        idleInodes = kept
    }

    private func canForget(_ inode: Inode) -> Bool {
        guard inode.glock.machine.isIdle, inode.glock.held == .null, inode.dirty == nil,
            inode.regions.isIdle
        else { return false }
        guard let open = inode.openGlock else { return true }
        return open.machine.isIdle && open.held == .null
    }

    private func forget(_ inode: Inode) {
        counters.reclaimedInodes += 1
        inode.regions.discardAll(locks)
        locks.discard(inode.glock)
        if let open = inode.openGlock { locks.discard(open) }
        inode.isIdleListed = false
        if let time = inode.access.time, !inode.isFreed { toldAccesses.note(inode.number, time) }
        inodes.remove(inode)
    }

    /// What another slot's descriptor says.
    func readDescriptor(_ slot: SlotIndex) async throws(FileError) -> SlotDescriptor {
        let buffer = AlignedBuffer(byteCount: blockSize)
        let address = superblock.slotDescriptor(slot)
        do throws(DeviceError) {
            try await device.read(buffer.bytes, at: superblock.byteOffset(address))
        } catch {
            throw fileError(.storage(.device(error)))
        }
        do throws(FormatError) {
            return try SlotDescriptor(
                verifying: buffer.readOnly,
                at: address,
                in: superblock
            )
        } catch {
            throw fileError(.storage(.format(error)))
        }
    }
}
