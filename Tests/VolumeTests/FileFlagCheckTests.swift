// Flags that chattr(1) sets: sound on files and directories of a volume that has them, damage elsewhere.

import DiskFormat
import Testing
import VolumeChecking
import VolumeMaking

@Suite struct FileFlagCheckTests {
    private func sketch(hasFileFlags: Bool) async throws -> VolumeSketch {
        var wanted = options(mebibytes: 16)
        wanted.journalSize = 1 << 20
        wanted.hasFileFlags = hasFileFlags
        let sketch = try await VolumeSketch(wanted)
        try sketch.populate()
        for name in ["hello", "sub"] {
            try sketch.editInode(#require(sketch.inodes[name])) { $0.flags.formUnion(.ofFiles) }
        }
        return sketch
    }

    @Test func theyAreSound() async throws {
        let sketch = try await sketch(hasFileFlags: true)
        let report = try await VolumeChecker.check(sketch.device)
        #expect(report.isClean, "\(lines(report))")
        #expect(report.superblock.features.hasFileFlags)
    }

    @Test func elsewhereTheyAreDamage() async throws {
        let sketch = try await sketch(hasFileFlags: false)
        let report = try await VolumeChecker.check(sketch.device)
        #expect(report.findings.map(\.kind) == [.inodeFlagsInvalid, .inodeFlagsInvalid])
        _ = try await VolumeRepair.repair(sketch.device)
        #expect(try await VolumeChecker.check(sketch.device).isClean)
        #expect(try sketch.record(#require(sketch.inodes["hello"])).flags == [])
    }

    /// What the inode can have stays.
    @Test func aRepairKeepsWhatIsSound() async throws {
        let sketch = try await sketch(hasFileFlags: true)
        let (file, fifo) = try (
            #require(sketch.inodes["hello"]), #require(sketch.inodes["fifo"])
        )
        try sketch.editInode(file) { $0.flags.insert(InodeFlags(rawValue: 1 << 20)) }
        try sketch.editInode(fifo) { $0.flags = .immutable }
        let report = try await VolumeChecker.check(sketch.device)
        #expect(report.findings.map(\.kind) == [.inodeFlagsInvalid, .inodeFlagsInvalid])
        _ = try await VolumeRepair.repair(sketch.device)
        #expect(try await VolumeChecker.check(sketch.device).isClean)
        #expect(try sketch.record(file).flags == .ofFiles && sketch.record(fifo).flags == [])
    }
}
