// Opening and closing. While a process of this node has an inode open, the node is inside the
// inode's open lock in PR: whoever deletes the last name of the inode frees it only under that lock
// in EX (Orphans.swift).

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// Who asked for a new file and finds one that another node has made since its kernel looked. The
/// kernel takes what it is given for new: it asks for no permission, and fails with EIO, giving
/// neither the handle nor the reference back, if it is no regular file (KERNEL S5).
struct Finder {
    let caller: Caller
    /// The directory keeps what others own from being taken for one's own (`fs.protected_regular`).
    let isSticky: Bool

    /// - Throws: `isDirectory`; `stale`, which makes the kernel look the name up and check what is
    ///   there by itself, for all that is not plainly permitted. Which groups a process is in
    ///   besides its own is not known here.
    func check(_ record: InodeRecord, _ intent: OpenIntent) throws(FileError) {
        if record.isDirectory { throw .isDirectory }
        guard record.mode & 0o170000 == 0o100000 else { throw .stale }
        var wanted: UInt32 = 0
        if intent.reads { wanted |= 4 }
        if intent.writes || intent.truncates { wanted |= 2 }
        let owner = record.mode >> 6 & wanted == wanted
        let group = record.mode >> 3 & wanted == wanted
        let others = record.mode & wanted == wanted
        let isPermitted: Bool
        if record.user == caller.user {
            isPermitted = owner
        } else if isSticky || record.hasAttributes {
            // An access control list may say otherwise.
            isPermitted = false
        } else {
            isPermitted = group && (others || record.group == caller.group)
        }
        if !isPermitted { throw .stale }
    }
}

extension MountedVolume {
    package func open(
        _ node: NodeHandle,
        _ intent: OpenIntent,
        _ interruption: Interruption?
    ) async throws(FileError) -> OpenReply {
        if intent.writes { try checkWritable() }
        if intent.truncates { try await freezer.enter(interruption) }
        defer { if intent.truncates { freezer.leave() } }
        return try await openInode(try inode(node), intent, interruption)
    }

    /// Opens an inode. `finder` is who asked for a new file and finds this one.
    func openInode(
        _ inode: Inode,
        _ intent: OpenIntent,
        finder: Finder? = nil,
        _ interruption: Interruption?
    ) async throws(FileError) -> OpenReply {
        let reply = try await openExisting(inode, intent, finder, interruption)
        if intent.truncates {
            inode.toldSize.isUnknown()
            do throws(FileError) {
                var change = AttributeChange()
                change.size = 0
                change.dropsPrivileges = intent.dropsPrivileges
                change.writerGroup = intent.writerGroup
                _ = try await changeAttributes(inode, change, nil, interruption)
            } catch {
                await release(inode.handle, reply.handle)
                throw error
            }
        }
        if intent.reads && intent.writes {
            await makeFillsExclusive(inode)
        }
        return reply
    }

    private func openExisting(
        _ inode: Inode,
        _ intent: OpenIntent,
        _ finder: Finder?,
        _ interruption: Interruption?
    ) async throws(FileError) -> OpenReply {
        // The inode's lock keeps it from being freed until the open lock does.
        let mode = lookMode(inode)
        let stored = try await hold(inode, mode, interruption)
        defer { release(inode, mode) }
        if stored.record.isDirectory, intent.writes { throw .isDirectory }
        if let finder { try finder.check(stored.record, intent) }
        try checkMayOpen(stored.record, intent)
        return try await openHeld(
            inode,
            intent,
            isFresh: false,
            isOrphan: stored.record.linkCount == 0,
            interruption
        )
    }

    /// Opens an inode whose glock the caller is inside of.
    func openHeld(
        _ inode: Inode,
        _ intent: OpenIntent,
        isFresh: Bool,
        isOrphan: Bool = false,
        _ interruption: Interruption?
    ) async throws(FileError) -> OpenReply {
        try await enterOpenLock(inode, isFresh, isOrphan, interruption)
        let isDirect = opensDirect(inode, intent)
        if intent.writes { inode.writableOpens += 1 }
        if intent.reads && intent.writes { inode.readWriteOpens += 1 }
        let file = OpenFile(inode: inode, intent: intent, isDirect: isDirect)
        return OpenReply(
            handle: openFiles.insert(file),
            keepsCache: true,
            isDirect: isDirect
        )
    }

    /// Whether read(2) and write(2) of a new open file go past the page cache.
    ///
    /// Those that append do, because the page cache's idea of the end of the file may be old (rule
    /// F7). So do those that write to a file which nodes fight over: write(2) puts its bytes into
    /// pages before we hold the lock (rule F5), and a page that is filled for them would need EX
    /// (rule M1), while a read that goes past the page cache needs only PR (rule M2).
    private func opensDirect(_ inode: Inode, _ intent: OpenIntent) -> Bool {
        if times.access == .strict, intent.reads, !intent.keepsAccessTime,
            kernel?.mapsDirectFiles == true
        {
            return true  // every read shall come here
        }
        guard intent.writes else { return false }
        // Where such files cannot be mapped, shared mappings are not safe at all (rule M5).
        if intent.reads, let kernel, !kernel.mapsDirectFiles { return true }
        if intent.appends { return true }
        guard let last = inode.foughtOver else { return false }
        return engine.clock.now.rawValue - last.rawValue < options.memoryOfFights
    }

    /// Counts an open; the first one enters the open lock.
    private func enterOpenLock(
        _ inode: Inode,
        _ isFresh: Bool,
        _ isOrphan: Bool,
        _ interruption: Interruption?
    ) async throws(FileError) {
        await inode.opening.enter()
        defer { inode.opening.leave() }
        if !inode.isInsideOpenLock, isOrphan {
            // ESTALE makes the kernel look the name up once more: something else may have it now.
            let openLock = openGlock(of: inode)
            guard await locks.enterWithoutQueueing(openLock, .shared, notifies: false) else {
                throw .stale  // Orphans G2
            }
            inode.isInsideOpenLock = true
            reached(.replacedOpened)
        } else if !inode.isInsideOpenLock {
            try await locks.enter(
                openGlock(of: inode, isFresh: isFresh),
                .shared,
                interruption
            )
            inode.isInsideOpenLock = true
        }
        inode.opens += 1
    }

    /// The open lock of an inode.
    func openGlock(of inode: Inode, isFresh: Bool = false) -> Glock {
        if let glock = inode.openGlock { return glock }
        let glock = locks.make(
            .open(inode.number),
            owner: inode,
            flags: isFresh ? .freshName : []
        )
        inode.openGlock = glock
        return glock
    }

    /// From the first read-write open on, page-cache fills take EX; pages that were filled under PR
    /// must go (rule M1).
    private func makeFillsExclusive(_ inode: Inode) async {
        // Whoever opens it too waits until the old pages are gone: a store into one of them would
        // need EX to be written back, and the lock could not be given up for it.
        await inode.remapping.enter()
        defer { inode.remapping.leave() }
        if inode.fillsAreExclusive { return }
        // A lock on its way from EX to PR kept the pages, because nobody could store into them when
        // it set out.
        let isSafe = inode.glock.held == .exclusive && inode.glock.machine.phase == .steady
        if !isSafe, inode.kernelMayCache, kernel != nil {
            // A cached write of another open file may have put its bytes into these pages and not been
            // carried out: what a READ brings meanwhile is older (F5). Who opens it is one of them.
            inode.invalidations += 1
            if inode.writableOpens > 1 { inode.wasInvalidatedWhileWritable = true }
            await takeBack(inode, data: (0, nil))
        }
        inode.fillsAreExclusive = inode.readWriteOpens > 0
    }

    package func flush(_ node: NodeHandle, _ handle: OpenHandle, _ owner: ByteLockOwner)
        async throws(FileError)
    {
        if let file = openFiles[handle] { await programLocks.releaseBytes(file.inode, of: owner) }
        if let file = openFiles[handle], file.intent.reads, !file.intent.writes,
            !file.intent.keepsAccessTime, !file.wasRead
        {
            await noteAccessAtClose(file.inode)
        }
        // Nothing is written at close: what must be durable is synchronised. An earlier failure to
        // write the file's data is reported here.
        try checkUsable()
        if let file = openFiles[handle], file.intent.writes, let failure = file.inode.dirty?.failure
        {
            throw dataFailed(failure)
        }
    }

    package func release(_ node: NodeHandle, _ handle: OpenHandle) async {
        guard let file = openFiles.remove(handle) else { return }
        let inode = file.inode
        programLocks.release(file)
        if inode.rangeLocks != nil {
            await programLocks.releaseBytes(inode, takenThrough: handle)
        }
        inode.opens -= 1
        inode.closedAt = engine.clock.now
        if inode.opens == 0 { releaseAnchors(inode) }
        if inode.opens == 0, inode.isTemporary {
            inode.isTemporary = false
            awaitClosing(of: inode)  // O1
        }
        if file.intent.writes {
            inode.writableOpens -= 1
            if inode.writableOpens == 0 { inode.wasInvalidatedWhileWritable = false }
        }
        if file.intent.reads && file.intent.writes {
            inode.readWriteOpens -= 1
            if inode.readWriteOpens == 0 { inode.fillsAreExclusive = false }
        }
        if inode.opens == 0, inode.isInsideOpenLock, let glock = inode.openGlock {
            inode.isInsideOpenLock = false
            locks.leave(glock, .shared)
        }
        unrefer(inode)
    }
}
