import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeMaking

@testable import VolumeChecking

/// What a check remembers of inodes, and that it forgets nothing that matters (InodeTable).
@Suite struct InodeTableTests {
    private let file: UInt32 = 0o100644
    private let folder: UInt32 = 0o040755

    /// Folders of files, each of them with a second name in the next folder.
    private func sketch(folders: Int, files: Int) async throws -> VolumeSketch {
        let sketch = try await VolumeSketch(options(mebibytes: 16))
        var last: InodeNumber?
        for number in 0..<folders {
            let directory = try sketch.add("d\(number)", in: sketch.root, folder, .inlineDirectory)
            for name in 0..<files {
                _ = try sketch.add("\(number).\(name)", in: directory, file, .inlineData)
            }
            if let last, let first = sketch.inodes["\(number).0"] {
                try sketch.link("other", in: last, to: first)
            }
            last = directory
        }
        return sketch
    }

    @Test func memoryDoesNotGrowWithWhatIsRight() async throws {
        let few = try await VolumeChecker.check(sketch(folders: 3, files: 3).device)
        let many = try await VolumeChecker.check(sketch(folders: 40, files: 20).device)
        #expect(few.isClean && many.isClean, "\(lines(few)) \(lines(many))")
        #expect(few.inodes == 13 && many.inodes == 841)
        // The root and four orphan directories, the folder that is walked, what an entry leads to; and
        // files one of whose two names was met.
        #expect(few.mostInodeRecords <= 9 && many.mostInodeRecords <= 7 + 40)
        let plain = try await VolumeSketch(options(mebibytes: 16))
        for number in 0..<40 { _ = try plain.add("f\(number)", in: plain.root, file, .inlineData) }
        #expect(try await VolumeChecker.check(plain.device).mostInodeRecords <= 6)
    }

    /// An entry more than there should be, met when nothing was remembered of the file any more.
    @Test(arguments: [UInt32(1), 2]) func aNameTooManyOfASettledFileIsFound(said: UInt32)
        async throws
    {
        let sketch = try await sketch(folders: 3, files: 2)
        let number = try #require(sketch.inodes["1.1"])
        for (folder, name) in [("d0", "x"), ("d2", "y")] {
            try sketch.link(name, in: try #require(sketch.inodes[folder]), to: number)
        }
        try sketch.editInode(number) { $0.linkCount = said }
        let report = try await VolumeChecker.check(sketch.device)
        #expect(report.findings.map(\.kind) == [.inodeLinkCountWrong], "\(lines(report))")
        #expect(
            report.findings.first?.found == UInt64(said) && report.findings.first?.expected == 3
        )
        #expect(report.findings.first?.inode == number)
    }

    /// A second entry of a directory, in one that is walked later, or before the directory itself is.
    @Test(arguments: ["d0", "d1", "d2"])
    func aSecondEntryOfASettledDirectoryIsFound(second: String) async throws {
        let sketch = try await sketch(folders: 3, files: 2)
        let holder = try #require(sketch.inodes["d1"])
        let other = try #require(sketch.inodes[second])
        let inner = try sketch.add("inner", in: holder, folder, .inlineDirectory)
        _ = try sketch.add("below", in: inner, folder, .inlineDirectory)
        try sketch.link("again", in: other, to: inner)
        try sketch.editInode(inner) { $0.parent = holder }
        try sketch.editInode(other) { $0.linkCount -= 1 }
        let report = try await VolumeChecker.check(sketch.device)
        #expect(report.count(of: .directoryLinkedTwice) == 1, "\(lines(report))")
        // Which of the two counts is which was met first; the counts of both may be wrong then.
        #expect(
            report.findings.allSatisfy { [inner, holder, other].contains($0.inode) },
            "\(lines(report))"
        )
        #expect(
            !report.findings.contains { $0.kind == .inodeLinkCountWrong && $0.inode == inner },
            "\(lines(report))"
        )
        let repaired = try await VolumeRepair.repair(sketch.device)
        #expect(repaired.outcome == .corrected, "\(lines(repaired.check))")
        #expect(try sketch.names(in: holder).contains { $0.1 == inner })
    }

    /// An entry of another generation than that of the file of which nothing is remembered.
    @Test func anEntryOfAnotherGenerationLeadsNowhere() async throws {
        let sketch = try await sketch(folders: 3, files: 2)
        let number = try #require(sketch.inodes["1.1"])
        let wrong = InodeNumber(address: number.address, generation: number.generation + 1)
        for name in ["d0", "d2"] {
            let directory = try #require(sketch.inodes[name])
            var entries = try sketch.inlineEntries(directory)
            entries.append(sketch.entryBytes("wrong", wrong, 8))
            try sketch.setInlineEntries(directory, sketch.pack(entries), count: entries.count)
        }
        let report = try await VolumeChecker.check(sketch.device)
        #expect(
            report.findings.map(\.kind) == [.entryTargetMissing, .entryTargetMissing],
            "\(lines(report))"
        )
    }

    /// What is marked as an orphan, or listed as one, is not right however its links are.
    @Test func anOrphanWithANameIsFound() async throws {
        let sketch = try await sketch(folders: 2, files: 2)
        let marked = try #require(sketch.inodes["1.1"])
        try sketch.editInode(marked) { $0.flags = .orphan }
        let listed = try #require(sketch.inodes["0.1"])
        try sketch.link("0000000001", in: sketch.plan.slots[0].orphanDirectory, to: listed)
        try sketch.editInode(listed) { $0.linkCount = 1 }
        let report = try await VolumeChecker.check(sketch.device)
        #expect(
            Set(report.findings.map(\.kind)) == [.inodeOrphanWrong],
            "\(lines(report))"
        )
        #expect(Set(report.findings.compactMap(\.inode)) == [marked, listed])
    }

    /// Counts and generations are of all inodes, settled or not.
    @Test func groupsCountWhatIsForgotten() async throws {
        let sketch = try await sketch(folders: 3, files: 4)
        var newest: UInt64 = 0
        sketch.editGroup(1) { record, _ in
            record.inodeCount += 1
            newest = record.highestGeneration
            record.highestGeneration = 1
        }
        let report = try await VolumeChecker.check(sketch.device)
        #expect(
            report.findings.map(\.kind) == [.groupInodeCountWrong, .groupGenerationLow],
            "\(lines(report))"
        )
        #expect(report.findings.last?.expected == newest)
    }

    /// T1 and T2, one condition after the other.
    @Test func onlyWhatIsRightIsSettled() async throws {
        let superblock = try await VolumeSketch(options(mebibytes: 16)).superblock
        let number = InodeNumber(address: superblock.groupStart(1) + 7, generation: 3)
        let other = InodeNumber(address: superblock.groupStart(1) + 9, generation: 4)
        func state(_ mode: UInt32, _ change: (inout SeenInode) -> Void = { _ in })
            -> InodeTable.State
        {
            var record = InodeRecord(mode: mode, user: 0, group: 0, linkCount: 1, born: .zero)
            record.parent = other
            if record.isDirectory { record.linkCount = 2 }
            var table = InodeTable(superblock)
            table.insert(SeenInode(number, record))
            table.update(number.address) {
                $0.links = 1
                $0.linkedFrom = other
                $0.isWalked = true
                change(&$0)
            }
            table.settle(number.address)
            return table.state(of: number.address)
        }
        #expect(state(file) == .settled && state(folder) == .settled)
        for mode in [file, folder] {
            #expect(state(mode) { $0.isDamaged = true } == .open)
            #expect(state(mode) { $0.isAnchor = true } == .open)
            #expect(state(mode) { $0.isUnreachable = true } == .open)
            #expect(state(mode) { $0.hasFindings = true } == .open)
            #expect(state(mode) { $0.flags = .orphan } == .open)
            #expect(state(mode) { $0.listedIn = SlotIndex(0) } == .open)
            #expect(state(mode) { $0.links = 0 } == .open)
            #expect(state(mode) { $0.links = 2 } == .open)
            #expect(state(mode) { $0.linkCount = 7 } == .open)
        }
        #expect(state(folder) { $0.linkedFrom = number } == .open)
        #expect(state(folder) { $0.isIncomplete = true } == .open)
        #expect(state(folder) { $0.subdirectories = 1 } == .open)
        #expect(state(folder) { $0.isWalked = false } == .awaiting)
        #expect(state(file) { $0.isWalked = false } == .settled)
    }

    /// The record that is made anew says what the dropped one said.
    @Test func aRecordMadeAnewIsAsItWas() async throws {
        let superblock = try await VolumeSketch(options(mebibytes: 16)).superblock
        let number = InodeNumber(address: superblock.groupStart(1) + 7, generation: 3)
        var record = InodeRecord(mode: file, user: 0, group: 0, linkCount: 3, born: .zero)
        let again = SeenInode(number, quiet: record, isWalked: true)
        #expect(again.links == 3 && again.expectedLinks == 3 && again.linkedFrom == nil)
        record.mode = folder
        record.linkCount = 5
        let walked = SeenInode(number, quiet: record, isWalked: true)
        #expect(walked.links == 1 && walked.subdirectories == 3 && walked.expectedLinks == 5)
        #expect(walked.linkedFrom == record.parent && walked.isWalked)
        let awaiting = SeenInode(number, quiet: record, isWalked: false)
        #expect(awaiting.links == 1 && awaiting.subdirectories == 0 && !awaiting.isWalked)
    }

    @Test func whatAFindingNamesKeepsItsRecord() async throws {
        let superblock = try await VolumeSketch(options(mebibytes: 16)).superblock
        let number = InodeNumber(address: superblock.groupStart(1) + 7, generation: 3)
        let record = InodeRecord(mode: file, user: 0, group: 0, linkCount: 1, born: .zero)
        var table = InodeTable(superblock)
        table.insert(SeenInode(number, record))
        table.noteFinding(of: number.address)
        table.update(number.address) { $0.links = 1 }
        table.settle(number.address)
        #expect(table.state(of: number.address) == .open && table[number.address]?.links == 1)
        #expect(table.next(inGroup: 1, from: 0) == 7 && table.next(inGroup: 1, from: 8) == nil)
        #expect(table.next(inGroup: 0, from: 0) == nil && table.count(inGroup: 1) == 1)
    }
}
