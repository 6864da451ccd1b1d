// A scrub finds what a check finds, on a volume that is mounted while the damage is done.

import BlockIO
import CrashWorld
import DiskFormat
import Execution
import FileSystem
import Journaling
import SimulatedMachine
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking
import VolumeScrubbing

extension FindingKind {
    /// What a scrub does not look at, and why.
    fileprivate var isForCheckersOnly: Bool {
        switch self {
        // Its owner writes it without a lock, many times a minute.
        case .heartbeatDamaged: true
        // A log is its node's own while it lives; what it covers is looked at when it is home.
        case .journalLogDamaged: true
        // Blocks that nobody uses.
        case .groupVersionLow: true
        // Of a mounted volume the shares tell what is not in the table yet.
        case .quotaShareDamaged, .quotaTableDamaged, .quotaRecordLost, .quotaBlocksWrong,
            .quotaInodesWrong:
            true
        default: false
        }
    }
}

/// Mounts the volume of a sketch in its first slot, has `damage` done, and scrubs.
private func scrubbed(
    _ sketch: VolumeSketch,
    damage: @escaping (VolumeSketch) throws -> Void
) throws -> (report: ScrubReport, isWithdrawn: Bool) {
    try runSimulated(seed: 1) { engine in
        let superblock = sketch.plan.superblock
        let cache = MetadataCache(device: sketch.device, superblock: superblock, capacity: 4096)
        let journal = try await Journal.open(
            device: sketch.device,
            superblock: superblock,
            descriptor: sketch.plan.slots[0],
            cache: cache,
            engine: engine
        )
        let locks = SoleNodeLocks(engine: engine)
        let volume = MountedVolume(
            engine: engine,
            device: sketch.device,
            superblock: superblock,
            descriptor: sketch.plan.slots[0],
            cache: cache,
            journal: journal,
            lockService: locks,
            options: MountOptions()
        )
        locks.client = volume.locks
        try await volume.start()
        try damage(sketch)
        let scrub = Scrub(volume)
        try await scrub.run()
        withExtendedLifetime(locks) {}
        return (scrub.report, volume.isWithdrawn)
    }
}

@Suite struct ScrubTests {
    @Test func nothingIsFoundWhereNothingIsWrong() async throws {
        let sketch = try await VolumeSketch.populated()
        let checked = try await VolumeChecker.check(sketch.device)
        let (report, _) = try scrubbed(sketch) { _ in }
        #expect(report.isClean && report.isFinished && !report.wasStopped, "\(texts(report))")
        // Orphan directories are no inodes of users.
        #expect(report.inodes == checked.inodes + UInt64(sketch.plan.superblock.slotCount))
        #expect(
            report.directories == checked.directories + UInt64(sketch.plan.superblock.slotCount)
        )
        #expect(report.changedGroups == 0 && report.changedInodes == 0)
    }

    /// Each finding is caused, is found, and the node that finds it does not withdraw for that.
    @Test(arguments: FindingKind.allCases)
    func whatACheckFindsIsFound(kind: FindingKind) async throws {
        let sketch = try await VolumeSketch.populated()
        let (report, isWithdrawn) = try scrubbed(sketch) { try $0.cause(kind) }
        #expect(!isWithdrawn && report.unreadable.isEmpty)
        let kinds = Set(report.findings.map(\.kind))
        if kind.isForCheckersOnly {
            #expect(kinds.isEmpty, "\(texts(report))")
            return
        }
        #expect(kinds.contains(kind), "\(texts(report))")
        // Nothing is reported that a check would not report.
        let checked = Set(try await VolumeChecker.check(sketch.device).findings.map(\.kind))
        #expect(kinds.isSubset(of: checked), "\(texts(report)) besides \(checked)")
    }

    private func texts(_ report: ScrubReport) -> String {
        (report.findings.map(\.text) + report.unreadable).joined(separator: "; ")
    }
}
