// An image of a volume with damage, and what is done with a volume: either a mount that nobody asked a
// check before, or a check, a repair, and a mount of what was repaired.
//
// What is demanded
//   - the check (fsck -n) writes nothing and, where it finds nothing, neither does the repair
//   - the repair (fsck -y) leaves nothing, or says why: no block was free, or somebody had sealed
//     another superblock, so that nothing tells what is right. What it leaves a second run finds
//     again, and leaves again
//   - on a volume of which nothing was found the file system meets no damage: no withdrawal, no
//     report, no EIO. After it was used and unmounted a check finds nothing
//   - a mount of a damaged volume refuses, reports or withdraws as it likes, and ends

import BlockIO
import DiskFormat
import SimulatedMachine
import Vocabulary
import VolumeChecking

/// One image and what becomes of it.
struct ImageFuzzing {
    private var input: FuzzInput

    /// Steps of the engine after which a case has no end (Z4). An ordinary one takes some thousands.
    static let stepLimit = 2_000_000

    init(_ input: FuzzInput) { self.input = input }

    mutating func run() throws {
        let choice = input.byte()
        let story = FuzzVolume.Story(rawValue: Int(choice & 3)) ?? .everything
        let volume = try FuzzVolume.with(story)
        var edits = ImageEdits(volume)
        edits.apply(&input)
        if choice & 0x80 == 0 {
            try VolumeUse.use(edits.content, isSound: false)
        } else {
            try Self.judge(edits.content, mayBeLeft: edits.changedSuperblock)
        }
    }

    /// Checks, repairs, and uses what was repaired.
    static func judge(_ content: DiskContent, mayBeLeft: Bool) throws {
        let checked = try Self.check(content)
        guard let (repaired, after) = try Self.repair(content) else {
            try demand(checked == nil, "the check looked at what the repair refused")
            return
        }
        let first = "\(checked?.findings.first.map { "\($0)" } ?? "nothing")"
        try demand(checked != nil, "the repair took what the check refused")
        try demand(
            checked?.isClean != true || repaired.outcome == .clean,
            "the check found nothing, the repair did: \(repaired.repaired.map(\.text))"
        )
        let findings = repaired.check.findings
        try demand(
            repaired.check.isClean || repaired.lacksSpace || mayBeLeft,
            "left after a repair: \(findings.prefix(3).map(\.text)); first was \(first)"
        )
        guard let (again, last) = try Self.repair(after) else {
            throw FuzzComplaint("a second repair refuses what the first took")
        }
        if repaired.check.isClean {
            try demand(
                again.outcome == .clean && again.rounds == 1,
                "a second repair finds something: \(again.repaired.map(\.text))"
            )
            try VolumeUse.use(last, isSound: true)
        } else {
            let left = Set(again.check.findings.map(\.kind))
            try demand(
                left.isSubset(of: Set(findings.map(\.kind))),
                "a second repair leaves something else: \(again.check.findings.map(\.text))"
            )
        }
    }

    /// What a check that writes nothing finds; nil if it refuses.
    static func check(_ content: DiskContent) throws -> CheckReport? {
        try runSimulated(seed: 1, stepLimit: stepLimit) { _ in
            let device = MemoryBlockDevice(content: content)
            var report: CheckReport?
            do throws(CheckError) {
                report = try await VolumeChecker.check(device)
            } catch {
                // It refuses, in words.
                _ = error.description
            }
            try demand(device.writeCount == 0, "a check that must not write has written")
            return report
        }
    }

    private static func repair(
        _ content: DiskContent
    ) throws -> (RepairReport, DiskContent)? {
        try runSimulated(seed: 1, stepLimit: stepLimit) { _ in
            let device = MemoryBlockDevice(content: content)
            do throws(CheckError) {
                return (try await VolumeRepair.repair(device), device.content)
            } catch {
                return nil
            }
        }
    }
}
