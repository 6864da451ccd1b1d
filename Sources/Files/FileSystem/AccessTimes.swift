// Times of access. A read holds the inode's lock in PR, with any number of other nodes: to store that somebody has read
// would need EX, and take the file away from all who read it. So a read takes no lock for its time:
//
//   who reads holds         what becomes of the time
//     EX                    it is put into the inode, which is logged as soon as that needs no waiting, or later (LazyTimes.swift)
//     PR, CW                it stays in memory, *pending*, and the other nodes are told (one message, no answer)
//
// Every node keeps the newest pending time of each inode that it has in memory, its own or one it was told, and of some
// others besides (`ToldAccesses`), and shows it. Whoever gets EX, for whatever reason, has the time and puts it into
// the inode. So it is on the device when somebody has changed the file, and otherwise when the node that read has the
// file alone: at once if it is the only node of the cluster, else at unmount, `lockstep sync`, or after a day.
//
// Invariants
// A1. A pending time counts only if it is later than the inode's last change (ctime). So nothing has to be taken back: whoever
//     sets times, by which ctime changes too (the nodes have one clock, being of one host), outdoes all earlier reads, told or not, however late a message comes.
// A2. What is shown is the later of the inode's own and the pending one, if that counts. It never goes back, but by a change.
// A3. No access takes or asks for a lock, waits for anything, or makes another node give one up (but for once a day).
// A4. The inode is changed only under EX in the steady phase: before a demotion has begun, or by a holder for whom it waits.
// A5. A volume that stands still is not changed: the times stay pending (Freezing Z7).
//
// Weaker than on a local file system (Docs/CAVEATS.md): others see a read a moment later, and a time is lost if nobody is
// left who knows it: all nodes die, or it has been crowded out of `ToldAccesses` where nobody has the inode in memory.
//
// Which accesses there are only the kernel knows; it leaves times of access to us (S_NOATIME on every inode of FUSE) and tells of
// none. What we see are READ, READDIR and READLINK. A read from the page cache we do not see; a file that was opened
// to read, of which the kernel has pages and has asked for none, is taken to have been read when it is closed. Where every access counts
// (strictatime) files are opened past the page cache, and listings are not kept.

import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// Pending times of inodes that are not in memory, the newest so many.
struct ToldAccesses {
    static let limit = 4096

    private struct Entry {
        let file: InodeNumber
        var time: Timestamp
    }

    private var places: [InodeNumber: Int] = [:]
    private var ring: [Entry?] = []
    private var next = 0

    var count: Int { places.count }

    mutating func note(_ file: InodeNumber, _ time: Timestamp) {
        if let place = places[file], let old = ring[place] {
            ring[place]?.time = max(old.time, time)
            return
        }
        if ring.count < Self.limit {
            places[file] = ring.count
            ring.append(Entry(file: file, time: time))
            return
        }
        if let oldest = ring[next] { places.removeValue(forKey: oldest.file) }
        places[file] = next
        ring[next] = Entry(file: file, time: time)
        next = (next + 1) % Self.limit
    }

    /// Removes what is known of a file.
    mutating func take(_ file: InodeNumber) -> Timestamp? {
        guard !places.isEmpty, let place = places.removeValue(forKey: file) else { return nil }
        defer { ring[place] = nil }
        return ring[place]?.time
    }
}

/// What a node knows of accesses to one inode that the inode does not say.
struct PendingAccess {
    /// The newest.
    var time: Timestamp?
    /// It is of this node, since then.
    var ownSince: Tick?
    /// When the others were last told.
    var toldAt: Tick?
    /// In the list of those that wait to be told, or to be stored.
    var isUntold = false
    var isListed = false
}

extension MountedVolume {
    /// So often the others are told of one inode at most, in nanoseconds.
    private static let tellingInterval: UInt64 = 1_000_000_000
    /// After so long a time is stored whatever that costs, in nanoseconds.
    static let longestDelay: UInt64 = 86_400_000_000_000
    private static let secondsOfADay: Int64 = 86_400

    // MARK: Noting

    /// Somebody has read an inode, inside its glock in any mode. True if that changes what is shown.
    @discardableResult
    func noteAccess(_ inode: Inode, _ stored: StoredInode) -> Bool {
        guard counts(inode, stored.record) else { return false }
        let time = now
        if mayChangeTimes(inode) {
            inode.access.time = nil
            delayTimes(inode, stored) { $0.accessed = time }
            if !times.isLazy { storeTimesIfPossible(inode, stored) }
        } else {
            inode.access.time = max(time, inode.access.time ?? time)
            if inode.access.ownSince == nil { inode.access.ownSince = engine.clock.now }
            list(inode)
            tell(inode)
            reached(.accessPending)
        }
        return true
    }

    /// The same when a file is closed that the kernel may have read from its pages.
    func noteAccessAtClose(_ inode: Inode) async {
        guard times.access != .never, inode.kernelMayCache,
            let stored = holdIfCached(inode, .shared)
        else { return }
        let isNews = stored.record.size > 0 && noteAccess(inode, stored)
        release(inode, .shared)
        // Of the reads that it asked us for the kernel knows.
        if isNews, inode.kernelMayCache { await takeBack(inode, data: nil) }
    }

    private func counts(_ inode: Inode, _ record: InodeRecord) -> Bool {
        guard times.access != .never, !times.isReadOnly, !options.isReadOnly, !isWithdrawn,
            !inode.isFreed, !record.flags.contains(.noAccessTime),
            !(record.isDirectory && times.sparesDirectories)
        else { return false }
        if times.access == .strict { return true }
        let accessed = shownAccess(inode, record)
        return accessed <= record.modified || accessed <= record.changed
            || now.seconds - accessed.seconds >= Self.secondsOfADay
    }

    /// A2.
    func shownAccess(_ inode: Inode, _ record: InodeRecord) -> Timestamp {
        guard let time = inode.access.time, time > record.changed else { return record.accessed }
        return max(time, record.accessed)
    }

    /// A4, A5.
    func mayChangeTimes(_ inode: Inode) -> Bool {
        inode.glock.held == .exclusive && inode.glock.machine.phase == .steady
            && freezer.phase == .running && !isStopping
    }

    /// Puts what is pending into an inode that is held exclusively.
    func mergeAccess(_ inode: Inode, _ stored: StoredInode) {
        guard let time = inode.access.time, !inode.isFreed, freezer.phase == .running else {
            return
        }
        precondition(inode.glock.held == .exclusive, "AccessTimes A4: the inode is not this node's")
        inode.access.time = nil
        inode.access.ownSince = nil
        guard time > stored.record.changed, time > stored.record.accessed else { return }
        delayTimes(inode, stored) { $0.accessed = time }
        reached(.accessMerged)
    }

    // MARK: Among nodes

    private func tell(_ inode: Inode) {
        guard let peers, let time = inode.access.time, !inode.access.isUntold else { return }
        let now = engine.clock.now
        if let last = inode.access.toldAt, now.rawValue - last.rawValue < Self.tellingInterval {
            inode.access.isUntold = true
            untoldAccesses.append(inode)
            if untoldAccesses.count == 1 { tellLater() }
            return
        }
        inode.access.toldAt = now
        peers.tellAccess(to: inode.number, at: time)
    }

    private func tellLater() {
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: Self.tellingInterval),
            in: engine,
            EngineBound { [weak self] in
                guard let self, !isWithdrawn else { return }
                let untold = untoldAccesses
                untoldAccesses = []
                for inode in untold {
                    inode.access.isUntold = false
                    inode.access.toldAt = nil
                    tell(inode)
                }
            }
        )
    }

    /// Another node has come: it has heard of nothing.
    package func tellAllAccesses() {
        for inode in pendingAccesses where inode.access.ownSince != nil {
            inode.access.toldAt = nil
            tell(inode)
        }
    }

    /// Another node's user has read a file.
    package func hearAccess(to file: InodeNumber, at time: Timestamp) {
        if isWithdrawn { return }
        guard let inode = inodes[file], !inode.isFreed else {
            toldAccesses.note(file, time)
            return
        }
        if let known = inode.access.time, time <= known { return }
        if let record = inode.stored?.record, time <= record.changed || time <= record.accessed {
            return
        }
        reached(.accessHeard)
        inode.access.time = time
        list(inode)
        guard inode.lookups > 0, inode.kernelMayCache else { return }
        engine.spawn { await self.takeBack(inode, data: nil) }
    }

    // MARK: Storing

    private func list(_ inode: Inode) {
        if inode.access.isListed { return }
        inode.access.isListed = true
        pendingAccesses.append(inode)
    }

    /// Stores what is pending where that disturbs nobody, and what has been pending for a day. `isLast`: all, as far as
    /// nobody else has the files; others know what they do.
    func storeAccesses(isLast: Bool) async throws(FileError) {
        // One at a time: who leaves must find what a timer has begun with.
        await storingAccesses.enter()
        defer { storingAccesses.leave() }
        if options.isReadOnly || freezer.phase != .running { return }
        var listed = pendingAccesses[...]
        pendingAccesses = []
        for inode in listed { inode.access.isListed = false }
        defer { for inode in listed where inode.access.time != nil { list(inode) } }
        let isAlone = peers?.isAlone ?? true
        while let inode = listed.popFirst() {
            guard inodes[inode.number] === inode, !inode.isFreed else { continue }
            guard let time = inode.access.time, let stored = inode.stored else { continue }
            if time <= stored.record.changed || time <= stored.record.accessed {
                inode.access.time = nil
                inode.access.ownSince = nil
                continue
            }
            let age = inode.access.ownSince.map { engine.clock.now.rawValue - $0.rawValue } ?? 0
            let isDue = age >= (times.isLazy ? Self.longestDelay : options.commitInterval)
            // Regions are left in their own time (Regions.swift).
            if inode.glock.held == .concurrentWrite, !isStopping, age < Self.longestDelay {
                list(inode)
                continue
            }
            let isWanted = isLast || (isDue && isAlone) || inode.glock.held == .exclusive
            pin(inode)
            defer {
                if inode.access.time != nil { list(inode) }
                unpin(inode)
            }
            if age >= Self.longestDelay, inode.access.ownSince != nil {
                try await storeAccess(inode)
            } else if isWanted,
                await locks.enterWithoutQueueing(inode.glock, .exclusive, notifies: false)
            {
                if let stored = inode.stored, knowsTimes(inode, stored, .exclusive) {
                    mergeAccess(inode, stored)
                }
                release(inode, .exclusive)
            }
        }
    }

    private func storeAccess(_ inode: Inode) async throws(FileError) {
        do throws(FileError) {
            _ = try await hold(inode, .exclusive)
            release(inode, .exclusive)
        } catch .stale {
            // Deleted meanwhile.
        }
    }
}
