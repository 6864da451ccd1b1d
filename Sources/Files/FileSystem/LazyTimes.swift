// Times in memory that the inode's block does not have yet.
//
// Times of access are stored when that needs no waiting, and otherwise within the commit interval. With `lazytime` they, and the times
// of data that was written in place of other data, stay in memory until
//
//   the inode is stored for another reason, which takes them along
//   fsync (fdatasync leaves them), `lockstep sync`, a freeze, an unmount
//   the lock is given up: what another node sees is true (LazyTimes B2)
//   a day has passed
//
// so that a file that is read, or overwritten, all the time costs no block in the log. A crash may then show times as they were up to
// a day ago; never those of a file whose size or blocks have changed.
//
// Invariants
// B1. Only times differ between the fields and the block: whatever else changes is stored at once, and times with it.
// B2. Nothing is unstored when a lock ceases to be EX: a demotion stores after nobody is inside and before it commits.
// B3. Nothing becomes unstored but while the volume works, and a freeze stores all before nothing may be logged any more.
//
// Source: `lazytime` of Linux (fs/inode.c, I_DIRTY_TIME) and its use by ext4.

import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
import Vocabulary

extension MountedVolume {
    /// Changes times in memory alone.
    func delayTimes(_ inode: Inode, _ stored: StoredInode, _ change: (inout InodeRecord) -> Void) {
        if !stored.hasUnstoredTimes {
            inode.unstoredSince = engine.clock.now
            if !inode.isUnstoredListed {
                inode.isUnstoredListed = true
                unstoredTimes.append(inode)
            }
        }
        stored.changeTimes(change)
    }

    /// Whether the times of a write that changes nothing else but data may stay in memory (B1, B3).
    func mayDelayWriteTimes(_ inode: Inode, _ stored: StoredInode) -> Bool {
        times.isLazy && mayChangeTimes(inode)
            && prefersRegions(inode) == stored.record.flags.contains(.sharedWriters)
    }

    /// Logs them if that needs no waiting; otherwise a timer does.
    func storeTimesIfPossible(_ inode: Inode, _ stored: StoredInode) {
        guard freezer.enterIfPossible() else { return }
        defer { freezer.leave() }
        guard mayLog, let transaction = journal.beginIfPossible(blocks: 1) else { return }
        defer { transaction.end() }
        stored.store(in: transaction)
        inode.lastSequence = transaction.sequence
    }

    /// Logs what is unstored of one inode. Whoever calls need not be inside its lock: while the lock is given up the demotion
    /// does it (B2).
    func storeTimes(_ inode: Inode) async throws(FileError) {
        guard let stored = inode.stored, stored.hasUnstoredTimes, !inode.isFreed,
            freezer.enterUnlessSealed()
        else { return }
        defer { freezer.leaveLate() }
        // Whoever is inside exclusively changes other fields too, but only with a transaction open: then they go along with it.
        let isInside = holdIfCached(inode, .shared) != nil
        defer { if isInside { release(inode, .shared) } }
        let transaction = try await beginLogging(blocks: 1)
        defer { transaction.end() }
        guard inode.stored === stored, stored.hasUnstoredTimes, !inode.isFreed else { return }
        precondition(
            inode.glock.held == .exclusive,
            "LazyTimes B2: times were left behind under \(inode.glock.name)"
        )
        reached(.timesStoredLate)
        stored.store(in: transaction)
        inode.lastSequence = transaction.sequence
    }

    /// The same of all that have been so for `age` nanoseconds. Each stays listed until it is stored, or gone: whoever
    /// must know that all is stored (a freeze, an unmount) finds what a timer has begun with, and what failed is tried again.
    func storeTimes(olderThan age: UInt64) async throws(FileError) {
        if options.isReadOnly || unstoredTimes.isEmpty { return }
        defer { forgetStoredTimes() }
        for inode in unstoredTimes {
            guard hasUnstoredTimes(inode), let since = inode.unstoredSince else { continue }
            if engine.clock.now.rawValue - since.rawValue >= age {
                try await storeTimes(inode)
            }
        }
    }

    private func hasUnstoredTimes(_ inode: Inode) -> Bool {
        inode.stored?.hasUnstoredTimes == true && !inode.isFreed
    }

    private func forgetStoredTimes() {
        unstoredTimes.removeAll { inode in
            if hasUnstoredTimes(inode) { return false }
            inode.isUnstoredListed = false
            return true
        }
    }

    /// Called by a timer.
    func storeOldTimes() async {
        do throws(FileError) {
            try await storeAccesses(isLast: false)
            try await storeTimes(olderThan: times.isLazy ? Self.longestDelay : 0)
        } catch {
            // Whoever withdraws has said why, and who leaves stores by himself. Nothing is lost otherwise: it stays listed.
            if !isWithdrawn, !isStopping { onReport?("storing times failed: \(error)") }
        }
    }

    /// Before an inode's lock ceases to be EX; nobody is inside.
    func storeTimesForDemotion(_ inode: Inode) async {
        do throws(FileError) {
            if let stored = inode.stored, knowsTimes(inode, stored, .exclusive) {
                mergeAccess(inode, stored)
            }
            try await storeTimes(inode)
        } catch {
            withdraw("storing the times of \(inode.number) failed: \(error)")
            await standStill()
        }
    }
}
