// The times of a file that several nodes write (Regions R6): each node keeps the time of its last write, and whoever
// shows the file's times asks all.

import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// The volumes of the other nodes.
package protocol PeerVolumes: AnyObject {
    /// The newest time at which another node has written to a file under locks of regions, as far as the inode does not
    /// say it; nil if none has. With `takes` they forget it, because this node stores it. Ends when each node has
    /// answered or is no longer in the cluster.
    func lastWrite(to file: InodeNumber, takes: Bool) async -> Timestamp?
    /// The attributes of a file that another node has exclusively and is changing, and which node that is; nil if none says
    /// so, or has not answered in time. With `teller` only that node is asked.
    func attributes(
        of file: InodeNumber,
        from teller: NodeID?
    ) async -> (attributes: GlimpsedAttributes, teller: NodeID)?
    /// Tells the other nodes that somebody here has read a file. They may hear of it late, or never.
    func tellAccess(to file: InodeNumber, at time: Timestamp)
    /// Whether this node is the only one.
    var isAlone: Bool { get }
    /// Whose answers about a file are waited for at this moment, and since when; nil if nobody's.
    func asked(about file: InodeNumber) -> (nodes: [NodeID], since: Tick)?
}

extension MountedVolume {
    /// Answers `PeerVolumes.lastWrite` of another node.
    package func lastWriteHere(to file: InodeNumber, takes: Bool) -> Timestamp? {
        guard let inode = inodes[file] else { return nil }
        defer { if takes { inode.pendingTime = nil } }
        return inode.pendingTime
    }

    /// The newest write of any node under locks of regions. What this node shows it knows from now on: it is not
    /// gone when the node dies that wrote.
    func lastWrite(_ inode: Inode, takes: Bool) async -> Timestamp? {
        counters.timeQuestions += 1
        if let told = await peers?.lastWrite(to: inode.number, takes: takes) {
            inode.pendingTime = max(told, inode.pendingTime ?? told)
        }
        return inode.pendingTime
    }

    /// Whether `stored` has everybody's times, and for a holder that may change them also has taken them over.
    func knowsTimes(_ inode: Inode, _ stored: StoredInode, _ mode: HolderMode) -> Bool {
        guard stored.record.flags.contains(.sharedWriters) else { return true }
        switch mode {
        case .concurrent: return true
        case .shared: return inode.hasAllTimes
        case .exclusive: return inode.hasAllTimes && inode.hasStoredTimes
        }
    }

    /// Makes it so, inside the inode's glock in PR or EX.
    func collectTimes(
        _ inode: Inode,
        _ stored: StoredInode,
        _ mode: HolderMode
    ) async throws(FileError) {
        await inode.loading.enter()
        defer { inode.loading.leave() }
        if knowsTimes(inode, stored, mode) { return }
        reached(.timesCollected)
        // Nothing may be stored while the volume stands still, and nobody who changes something asks then.
        let takes = mode == .exclusive && freezer.enterUnlessSealed()
        defer { if takes { freezer.leaveLate() } }
        let latest = await lastWrite(inode, takes: takes)
        if let latest, latest > stored.record.changed {
            stored.record.modified = latest
            stored.record.changed = latest
        }
        if takes {
            let transaction = try await begin(blocks: 1)
            defer { transaction.end() }
            inode.pendingTime = nil
            if !prefersRegions(inode) { stored.record.flags.remove(.sharedWriters) }
            stored.store(in: transaction)
            inode.dataHasChanged(in: transaction.sequence)
            inode.hasStoredTimes = true
        }
        inode.hasAllTimes = true
    }

    /// Stores what nobody could ask this node for any more.
    func storePendingTimes() async throws(FileError) {
        if options.isReadOnly { return }
        var pending: [Inode] = []
        inodes.forEach { if $0.pendingTime != nil, !$0.isFreed { pending.append($0) } }
        for inode in pending where inode.pendingTime != nil {
            do throws(FileError) {
                _ = try await hold(inode, .exclusive)
                release(inode, .exclusive)
                inode.pendingTime = nil
            } catch .stale {
                // Deleted meanwhile.
            }
        }
    }

    /// Says in the inode, held exclusively, whether regions of it may be written under CW from now on (R6). The caller
    /// stores it.
    func markSharing(_ inode: Inode, _ stored: StoredInode) {
        if !prefersRegions(inode) {
            stored.record.flags.remove(.sharedWriters)
        } else if !stored.record.flags.contains(.sharedWriters) {
            stored.record.flags.insert(.sharedWriters)
            inode.pendingTime = nil
            inode.hasAllTimes = true
            inode.hasStoredTimes = true
        }
    }
}
