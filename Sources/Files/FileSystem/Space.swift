// Room that is there but not yet to be had, when a volume is nearly full.
//
//   frozen        freed in a transaction that is not durable yet: a commit and write-back make it
//   free
//   quarantined   was metadata: any node's log may still hold an image of it, and a replay would
//   write that over
//                 whatever data stood there. It may become data when every log has been written
//                 back since it was freed
//
// The log barrier is a lock that every node holds in PR whenever it logs (S1); a node that gives PR
// up has emptied its log (S2). So who gets it in EX knows that all logs were empty at some moment
// after its request. What was quarantined in a group that it has held since before that moment is
// in no log at all and becomes free.
//
// S1. No transaction begins without the barrier in PR, in a phase in which it is not being given
// up.
// S2. The barrier is given up after the log was emptied, with transactions that had begun before in
// it.
// S3. Groups are held before the barrier is asked for: what others free later is not in them.
// S4. The barrier in EX is lowered at once after use, so that the others may log again and the next
// request asks them all.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// What is tried when no group has room, in order.
enum SpaceEffort: CaseIterable {
    /// Commit and write back what this node has freed.
    case settle
    /// Have every log emptied, and release what is quarantined.
    case barrier
}

extension MountedVolume {
    /// S1.
    var mayLog: Bool {
        guard barrierGlock.held.covers(.protectedRead) else { return false }
        switch barrierGlock.machine.phase {
        case .steady, .requesting: return true
        case .demoting(let target), .lowering(let target): return target.covers(.protectedRead)
        }
    }

    /// Waits until this node may log again.
    func enterBarrier() async throws(StorageError) {
        do throws(FileError) {
            try await locks.enter(barrierGlock, .shared)
            locks.leave(barrierGlock, .shared)
        } catch {
            throw .stopped
        }
    }

    /// Makes room; false if there was nothing to be gained. No group is held by the caller.
    func makeRoom(_ effort: SpaceEffort) async throws(FileError) -> Bool {
        await spaceGate.enter()
        defer { spaceGate.leave() }
        switch effort {
        case .settle:
            reached(.roomBySettling)
            do throws(StorageError) {
                try await journal.checkpointAll()
            } catch {
                throw fileError(.storage(error))
            }
            return true
        case .barrier:
            return try await releaseQuarantine()
        }
    }

    /// Groups that one release works on: each changes one block of the transaction.
    private static let groupsPerRelease = 64

    private func releaseQuarantine() async throws(FileError) -> Bool {
        var held: [ResourceGroup] = []
        defer { for group in held { groups.release(group, self) } }
        for index in 0..<superblock.groupCount where held.count < Self.groupsPerRelease {
            let group = try await groups.hold(index, self)
            if group.releasable > 0 {
                held.append(group)  // S3
            } else {
                groups.release(group, self)
            }
        }
        if held.isEmpty { return false }
        reached(.roomByBarrier)
        try await locks.enter(barrierGlock, .exclusive)
        defer {
            locks.leave(barrierGlock, .exclusive)
            locks.reclaim(barrierGlock)  // S4
        }
        do throws(StorageError) {
            try await journal.checkpointAll()
            let transaction = try await journal.begin(blocks: held.count)
            defer { transaction.end() }
            for group in held {
                counters.releasedBlocks += UInt64(group.releaseQuarantine(in: transaction))
            }
        } catch {
            throw fileError(.storage(error))
        }
        return true
    }
}

/// Owner of the log barrier's glock: giving PR up means that this node's log is empty (S2).
package final class BarrierOwner: GlockOwner {
    weak var volume: MountedVolume?

    package func demote(_ glock: Glock, from: LockMode, to: LockMode) async {
        guard let volume, to == .null, !volume.journal.isAtRest else { return }
        do throws(StorageError) {
            try await volume.journal.checkpointAll()
        } catch {
            volume.withdraw("emptying the log failed: \(error)")
            await volume.standStill()
        }
    }
}
