// The cluster of one host: the nodes are processes of one machine that have the same volume
// mounted. It needs no configuration and no daemon: a run directory, locks that the kernel drops
// when a process ends, and SIGKILL.
//
// A life
//   join    under the lock: bury who is certainly gone, take a free slot file, let the caller
//   prepare
//           (listen, take the guard on disk), publish a view with the new node
//   watch   one thread per node follows the view (inotify), the processes of the others (pidfd) and
//           their heartbeats, and carries out what `MembershipMachine` decides
//   leave   under the lock: publish a view without the node; then give the slot file up
//
// Why this is a cluster without quorum and without split brain: all nodes share one kernel. The
// lock of a slot file and the end of a process are facts, not opinions, and there is one view file
// that is changed under one lock.
//
// Invariants (M: of the record, W: of the watch; see Membership)
// H1. A slot's file is locked from before its node is in a view until after it is out of it, by
// nobody but
//     that node's process. So a member whose slot is not locked is gone.
// H2. The handle (pidfd) on a member's process is opened first and only then the slot is seen to be
// locked
//     and to name the same life: process numbers are used again, and the wrong process must not be
//     killed.
// H3. Fenced means: the pidfd is readable (or the slot's lock is free), so the last thread is gone
// and no
//     system call can be writing; *and* the guardian's lock is free, so the kernel serves nothing
//     from the dead node's caches any more. A signal that was sent proves nothing, and one that was
//     refused (EPERM) even less: then locks wait, and it is said every two seconds.
// H4. Kills are sent under the lock by a node that still is in the view. Of two nodes that suspect
// each
//     other, one dies.
// H5. All nodes of a run directory live in one PID namespace and belong to one user.
//
// Sources: the VMScluster's connection manager for the vocabulary; pidfd_open(2), fcntl_locking(2)
// (locks of open file descriptions), inotify(7).

import CLinux
package import DiskFormat
import Glibc
import LinuxSystem
package import Membership
package import Vocabulary

/// What a node tells its host's cluster when it joins.
package struct HostClusterOptions: Sendable {
    /// The run directory; nil for the default.
    package var runDirectory: String?
    /// The slot to live in; nil for the first free one.
    package var slot: SlotIndex?
    /// Nanoseconds without `progress()` after which a node is killed by the others; 0 for never.
    package var patience: UInt64 = 30_000_000_000
    /// Nanoseconds to wait while the volume is being recovered, or a process is just leaving.
    package var joinPatience: UInt64 = 60_000_000_000
    /// Shown to administrators. Up to 1,023 bytes.
    package var mountPoint = ""
    /// Shown to administrators. Up to 1,023 bytes.
    package var device = ""

    package init() {}
}

/// What is settled before the other nodes hear of a new one. Given to `prepare` of `join`.
package struct SlotClaim: Sendable {
    /// The node and its new life.
    package let member: Member
    /// Where it must be listening when `prepare` returns.
    package let socketPath: String
    /// Nobody else is in: this node takes the guard on disk, and replays every journal.
    package let isFirst: Bool
    /// Random identity of the volume's folder in the run directory: who shares it is in the same
    /// cluster.
    package let clusterHigh: UInt64
    package let clusterLow: UInt64

    package init(
        member: Member,
        socketPath: String,
        isFirst: Bool,
        clusterHigh: UInt64,
        clusterLow: UInt64
    ) {
        self.member = member
        self.socketPath = socketPath
        self.isFirst = isFirst
        self.clusterHigh = clusterHigh
        self.clusterLow = clusterLow
    }
}

/// Whom a cluster calls. On its own thread, one call at a time; must not block long, and not call
/// `leave`.
package struct HostClusterClient: Sendable {
    /// A new view, in the order of epochs; several changes may come as one.
    package var onView: @Sendable (ClusterView) -> Void
    /// This node was put out of the view, or can no longer follow it: it must stop writing at once
    /// and end.
    package var onExpelled: @Sendable (String) -> Void
    /// A line for the log.
    package var onReport: @Sendable (String) -> Void

    package init(
        onView: @escaping @Sendable (ClusterView) -> Void,
        onExpelled: @escaping @Sendable (String) -> Void,
        onReport: @escaping @Sendable (String) -> Void
    ) {
        self.onView = onView
        self.onExpelled = onExpelled
        self.onReport = onReport
    }
}

/// One node's place in the cluster of its host. See the head of this file.
package final class HostCluster: Sendable {
    /// This node in this life.
    package let member: Member
    /// The run directory's folder of the volume.
    package let directory: RunDirectory
    /// What was settled at joining.
    package let claim: SlotClaim

    private let slot: OwnSlot
    private let watcher: Watcher

    private init(
        directory: RunDirectory,
        claim: SlotClaim,
        slot: OwnSlot,
        watcher: Watcher
    ) {
        self.directory = directory
        self.claim = claim
        member = claim.member
        self.slot = slot
        self.watcher = watcher
    }

    /// The node's number.
    package var node: NodeID { member.node }

    /// Joins the cluster of this host for `volume`, which has `slotCount` slots. Blocks, at most as
    /// long as `prepare` takes and `options.joinPatience`. The process that calls is the node: a
    /// daemon forks before, not after.
    ///
    /// `prepare` runs under the lock of the volume, after a slot was taken and before anybody hears
    /// of the new node: it starts to listen at `socketPath` and, if `isFirst`, takes the guard on
    /// disk. What it throws ends the attempt and leaves nothing behind. The first `onView` may come
    /// before this returns.
    /// - Throws: `JoinRefusal`, `HostClusterError`, `SystemError`, `ViewRecordError`, or from
    /// `prepare`.
    package static func join(
        _ volume: VolumeID,
        slotCount: UInt32,
        options: HostClusterOptions,
        client: HostClusterClient,
        prepare: (SlotClaim) throws -> Void
    ) throws -> HostCluster {
        let directory = try RunDirectory(root: options.runDirectory, volume: volume)
        try directory.make()
        let joining = Joining(
            directory: directory,
            slotCount: slotCount,
            options: options,
            identity: try directory.identity()
        )
        let (claim, slot) = try joining.run(prepare)
        do {
            let watcher = try Watcher(
                directory: directory,
                me: claim.member,
                patience: options.patience,
                client: client
            )
            return HostCluster(directory: directory, claim: claim, slot: slot, watcher: watcher)
        } catch {
            // Without a watch a node must not live. Nothing was written yet: the slot stays as it
            // was.
            try directory.withLock {
                guard var record = try directory.readView(), record.leave(claim.member) else {
                    return
                }
                try directory.writeView(record)
            }
            slot.vacate()
            throw error
        }
    }

    /// Says that the daemon makes progress. Called by the engine's timer, several times within the
    /// patience of the others, from joining on, also during a long replay. Costs one atomic
    /// addition.
    package func progress() { slot.progress() }

    /// The slots that the view `epoch` listed are replayed; others may live there from now on.
    /// Returns at once; the record follows.
    package func markReplayed(_ epoch: Epoch) { watcher.post(.replayed(epoch)) }

    /// Has a member fenced: it is killed, and the others get a view without it. Returns at once.
    /// Nothing happens if that node is not in the view, or is this one.
    package func fenceNow(_ node: NodeID, because why: Suspicion = .asked) {
        watcher.post(.suspected(node, why))
    }

    /// Says why this node withdraws, before its process ends: the others repeat it, and so do
    /// administrators' commands until the slot is used again. Only the first 1,023 bytes are kept.
    /// Once; from any thread.
    package func sayLastWords(_ text: String) { slot.sayLastWords(text) }

    /// Leaves: the journal is clean and nothing is going to be written any more. Publishes a view
    /// without this node and gives the slot up. `lastOut` runs before, under the lock, if nobody
    /// else is in: it leaves the guard on disk free. The transport stays open until this returns: a
    /// connection that closes earlier is taken for a death. Blocks; not from a callback. Once.
    ///
    /// If anything is thrown, the node is gone all the same, but as if it had died: others replay
    /// its journal.
    package func leave(lastOut: () throws -> Void = {}) throws {
        defer {
            watcher.stop()
            unlink(directory.socket(member.node.slot))
            slot.vacate()
        }
        try directory.withLock {
            guard var record = try directory.readView(), record.contains(member) else {
                throw HostClusterError("this node is not in the view any more")
            }
            if record.members == [member] { try lastOut() }
            guard record.leave(member) else { return }
            watcher.expectLeaving()
            try directory.writeView(record)
        }
    }

    /// Who is in, for administrators.
    package func members() throws -> HostClusterStatus? {
        try HostClusterStatus.read(directory)
    }
}
