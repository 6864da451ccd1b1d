// fsck.lockstep: what the user is told, and the exit code that says the same.

import DiskFormat
import Vocabulary
import VolumeChecking

/// Prints what a check found; returns the exit code.
func tell(_ report: CheckReport, _ path: String, _ arguments: Arguments) -> Int32 {
    endProgress(arguments)
    if arguments.json {
        print(report.json.text)
    } else {
        describe(report.replays, path, isReadOnly: arguments.readOnly)
        describe(report, path)
        if !report.isClean {
            let areSafe = report.findings.allSatisfy { $0.kind.isSafeToRepair }
            print(
                "\(path): nothing was repaired; "
                    + (areSafe ? "repair it with -p" : "copy the device, then repair it with -y")
            )
        }
    }
    return report.isClean ? ExitCode.clean : ExitCode.uncorrected
}

/// Prints what a repair did and left; returns the exit code.
func tell(_ report: RepairReport, _ path: String, _ arguments: Arguments) -> Int32 {
    endProgress(arguments)
    if arguments.json {
        print(report.json.text)
    } else {
        describe(report.replays, path, isReadOnly: false)
        for finding in report.repaired { print("\(path): repaired: \(finding.text)") }
        if report.repairedCount > UInt64(report.repaired.count) {
            let more = report.repairedCount - UInt64(report.repaired.count)
            print("\(path): repaired: and \(more) more")
        }
        describe(report.check, path)
        if report.outcome == .left { print("\(path): \(advice(report, arguments))") }
    }
    switch report.outcome {
    case .clean: return ExitCode.clean
    case .corrected: return ExitCode.corrected
    case .left: return ExitCode.uncorrected
    }
}

/// What to do about what a repair left.
private func advice(_ report: RepairReport, _ arguments: Arguments) -> String {
    if report.lacksSpace {
        return
            "no block is free for the rest of the repair; copy what can be read to a larger volume "
            + "(mount -o ro)"
    }
    if arguments.preen {
        return "the rest is not repaired without being asked for; copy the device, then run "
            + "fsck.lockstep -y"
    }
    return "the rest cannot be repaired; copy what can be read to a new volume (mount -o ro), or "
        + "restore from a backup"
}

private func endProgress(_ arguments: Arguments) {
    if arguments.progress { writeToStandardError("\n") }
}

private func describe(_ replays: [ReplayedJournal], _ path: String, isReadOnly: Bool) {
    for replay in replays {
        print(
            "\(path): the journal of \(replay.slot) was not clean; \(replay.transactions) transactions, "
                + (isReadOnly
                    ? "judged as if replayed (not written)" : "\(replay.written) blocks replayed")
        )
    }
}

/// What is left.
private func describe(_ report: CheckReport, _ path: String) {
    for finding in report.findings { print("\(path): \(finding.text)") }
    if report.findingCount > UInt64(report.findings.count) {
        print("\(path): and \(report.findingCount - UInt64(report.findings.count)) more")
    }
    let total = report.superblock.blockCount
    let usage =
        "\(report.inodes) inodes (\(report.directories) directories, \(report.orphans) orphans), "
        + "\(report.usedBlocks) of \(total) blocks in use, \(report.quarantinedBlocks) quarantined"
    let state =
        switch report.findingCount {
        case 0: "clean"
        case 1: "1 finding is left"
        default: "\(report.findingCount) findings are left"
        }
    print("\(path): \(state), \(usage)")
}
