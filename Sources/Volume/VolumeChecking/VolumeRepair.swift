// Repairs a volume that nobody has mounted: does something about everything a check finds.
//
// A round is a whole check (`VolumeChecker`) and the repair of what belongs to the earliest stage
// (`RepairStage`) in which anything was found; then comes the next round, until a check finds
// nothing, or nothing more can be done. So each repair is simple and local: it may rely on what the
// stages before it guarantee, and need not know what else it puts right or brings to light. A tree
// node that is cut off leaves blocks that nothing uses; the last stage frees them, in a later
// round, when a check has seen that nothing uses them. The last check decides the exit code.
//
// Order, and what each stage guarantees when it is done:
//
//   superblocks  the primary and all copies say the same
//   places       every slot has its descriptor, its journal's place and its orphan directory
//   journals     every journal is empty; guard and heartbeats are sound
//   groups       every group's block is sound and counts its own bits
//   marks        every block that was found in use is marked as what it is
//   inodes       every inode that something leads to is sound by itself; nothing leads to one that
//                is not
//   contents     trees, entries and attributes are sound
//   sharing      no block has two owners
//   parents      directories form a tree, and name their parents
//   counts       sizes, blocks and entries of inodes are right
//   lost         every sound inode can be reached: what nothing led to is in `lost+found`
//   orphans      the orphan lists and the marks of inodes agree
//   links        link counts are right
//   blocks       nothing is marked in use that nothing uses; the groups' numbers are right
//   quotas       what users and groups use is what the inodes say
//
// Invariants
// V1. A repair is written through the rule of versions: whatever is written over a metadata block
//     has a higher version than it, and a block that begins a new life one above its group's
//     highest (Docs/decisions/0003). Where the block is torn, what its first bytes claim counts.
//     Blocks that no journal holds (the superblock and its copies, slot descriptors) have the
//     version their writers give them.
// V2. A repair is restartable. What a block will lead to is durable before the block that leads
//     there is written: first the group's bits, then the new nodes and the copied data, a flush,
//     then the inode. Interrupted anywhere, the volume is as before but for blocks that are marked
//     and not used, which the next run finds. (A block longer than the device's unit of writing may
//     tear when power fails: the next run finds it damaged.)
// V3. Nothing is freed that any sound inode uses: blocks are freed by the last stage only, in a
//     round whose check found nothing in the stages that change what belongs to whom, and by what
//     that check found in use. Nothing is taken that its group does not call free or that anything
//     was found to use.
// V4. Nothing but a journal is written before every journal that can be replayed has been replayed,
//     and the others are emptied before any block that a journal could hold is written: no log
//     can come later and undo a repair. (Only a new orphan directory, for a slot whose own cannot
//     be told any more, is made before. What the log of that slot brings home over it, the next
//     round finds.)
// V5. It ends. A round that writes nothing is the last, once what could not be repaired has been
//     tried again after the last writing; so is the last of `patience` rounds in which the number
//     of findings never was lower than ever before.
// V6. Memory: what the check needs, two more bits a block while shared blocks are sorted out, and
//     the entries or extents of one inode.
//
// Preening (`RepairMode.preen`) does what needs no question: what is right is plain, and nothing
// that somebody may have written goes away. It goes no further than the first stage in which it has
// to leave something.
//
// Sources of the shape: e2fsck (restart after a repair that changes much; clones of shared blocks;
// `lost+found`); decision 0003.

package import BlockIO
import DiskFormat
package import Vocabulary

/// What may be repaired.
package enum RepairMode: Hashable, Sendable {
    /// What is safe without a question.
    case preen
    /// Everything.
    case everything
}

/// How to repair.
package struct RepairOptions: Sendable {
    package var mode = RepairMode.everything
    /// Findings that are kept of each check, and repairs that are listed; more are only counted.
    package var findingLimit = 10_000
    /// The time that `lost+found` is made at, should it be needed.
    package var now = Timestamp.zero

    package init() {}
}

/// How a repair ended.
package enum RepairOutcome: Hashable, Sendable {
    /// Nothing was wrong.
    case clean
    /// Something was, and is not any more.
    case corrected
    /// Something still is.
    case left
}

/// What a repair has done and left.
package struct RepairReport: Hashable, Sendable {
    /// What the last check found: all that is left.
    package var check: CheckReport
    /// Findings that something was done about, in the order of the doing, the first
    /// `RepairOptions.findingLimit`. One may come again if the first repair of it was not enough.
    package var repaired: [Finding] = []
    /// All of them.
    package var repairedCount: UInt64 = 0
    /// Checks that were made.
    package var rounds = 0
    /// Something could not be repaired because no block was free for it.
    package var lacksSpace = false

    /// Journals that were replayed, in all rounds.
    package var replays: [ReplayedJournal] = []

    /// How it ended.
    package var outcome: RepairOutcome {
        guard check.isClean else { return .left }
        return repairedCount == 0 ? .clean : .corrected
    }

    /// The same for scripts: the last check, with what was repaired before.
    package var json: JSONText {
        guard case .object(var members) = check.json else { return check.json }
        members += [
            .init("repaired_count", .number(repairedCount)),
            .init("repaired", .array(repaired.map(\.json))),
            .init("rounds", .number(UInt64(rounds))),
        ]
        return .object(members)
    }
}

/// Repairs of one volume.
package enum VolumeRepair {
    /// Rounds without fewer findings than ever before after which it gives up (V5): more than there
    /// are stages, each of which may bring something to light.
    private static let patience = 3 * RepairStage.allCases.count

    /// Checks and repairs the volume on `device`, which nobody must have mounted.
    ///
    /// - Throws: `CheckError` if there is nothing that could be checked, or the device fails; what
    ///   was repaired before stays repaired (V2).
    package static func repair(
        _ device: any BlockDevice,
        options: RepairOptions = RepairOptions(),
        progress: @escaping (CheckProgress) -> Void = { _ in }
    ) async throws(CheckError) -> RepairReport {
        var checking = CheckOptions()
        checking.journals = .replay
        checking.findingLimit = max(options.findingLimit, 1)
        var checker = try await VolumeChecker.run(device, options: checking, progress: progress)
        var report = RepairReport(check: checker.report)
        report.rounds = 1
        report.replays = checker.report.replays
        var stuck: Set<Finding> = []
        var fewest = checker.report.findingCount
        var waited = 0
        var mayRetry = false
        while !checker.report.isClean, waited < patience {
            let round = RepairRound(checker, device, options, stuck: stuck)
            try await round.run()
            stuck.formUnion(round.stuck)
            report.lacksSpace = report.lacksSpace || round.lacksSpace
            report.repairedCount += UInt64(round.repaired.count)
            let room = options.findingLimit - report.repaired.count
            report.repaired += round.repaired.prefix(max(room, 0))
            if round.writes == 0 {
                guard mayRetry, !stuck.isEmpty else { break }
                // What was in the way may be gone.
                stuck = []
                mayRetry = false
                continue
            }
            mayRetry = true
            checker = try await VolumeChecker.run(device, options: checking, progress: progress)
            report.rounds += 1
            report.replays += checker.report.replays
            waited = checker.report.findingCount < fewest ? 0 : waited + 1
            fewest = min(fewest, checker.report.findingCount)
        }
        report.check = checker.report
        return report
    }
}
