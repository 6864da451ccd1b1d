// Checks all metadata of a volume while programs use it. Every structure is looked at under its own
// lock, on the device, by the code of fsck.lockstep; nobody waits longer than one inode's metadata
// take to be read. What is reported is certain: a contradiction between two structures that were not
// looked at in the same moment is only a suspicion, and is looked into until it is certain, or goes.
//
//   1 fixed        superblock and copies, slot descriptors, guard, journal headers
//   2 groups       every group's block, before any inode
//   3 inodes       group by group every inode, with its trees and attributes; of a directory its own
//                  block alone. What an inode claims is compared with what the group says, and with
//                  what others have claimed
//   4 directories  every directory with its entries; what they name is compared with what 3 has found
//   5 references   link counts, orphans, blocks that nobody claims, blocks claimed twice
//
// What makes a suspicion certain
// S1. A claim that the group's block, as it was in stage 2, does not agree with is compared with the
//     group again while both locks are held (the inode's before the group's).
// S2. An entry that leads to nothing known is looked up again under the directory's lock, and what it
//     leads to is looked at while that is held (the parent before the child). If that is sound, it is
//     a latecomer: it was made since, or it stood in some node's log only when its group was looked
//     through. What it claims is compared like all others' (and a directory is walked), but its links
//     are not judged, as names of it may have been moved before it was first seen.
// S3. The version of an inode's block grows with every change of the inode: of its link count, its
//     name (a rename changes the time of what it moves), its claims, its orphan flag. If it is the same
//     in stage 5 as in stage 3, all names that were counted between are names of this very state.
// S4. The version of a group's block grows with every block that is taken or freed. If it is the same
//     in stage 5 as in stage 2, a block that is marked all the time and that no inode claimed is lost.
//     Groups that changed are not judged in this point, and are counted: scrub again when it is quieter.
// S5. A block that two inodes claimed is certain when both are found to claim it, unchanged, after
//     each other and again.
// S6. The block of an inode may have been freed and given to another one since it was met, and be
//     written at this moment under a lock that is not ours: then it looks torn. What is damaged is
//     looked at again three times, a tenth of a second apart, before it is called so (of the first
//     hundred such inodes; when there are more, writing is not the reason).
// S7. Which inode a block is of (its number is its lock's name) is read under the lock of its group. A node that has just
//     made an inode masters the lock's name without having asked; that is safe as others learn of the name only by a lock
//     that the node lowers, and that waits until the name is known to the directory (LockCore/Claims.swift). The device
//     alone would show it earlier.
//
// What this cannot see: what has changed and is gone again, and the data of files, which carry no
// checksum. What it never does: change anything (the node writes home what it has in its log, as it
// would a little later).
//
// Memory: four bits a block, 40 bytes an inode.

import BlockIO
import DiskFormat
import Execution
package import FileSystem
package import Vocabulary
package import VolumeChecking

/// Where a scrub is.
package enum ScrubStage: Int, CaseIterable, Sendable, CustomStringConvertible {
    case fixed = 1
    case groups
    case inodes
    case directories
    case references

    package var description: String {
        switch self {
        case .fixed: "fixed structures"
        case .groups: "groups"
        case .inodes: "inodes"
        case .directories: "directories"
        case .references: "references"
        }
    }
}

/// What a scrub has found, so far or in the end.
package struct ScrubReport: Sendable {
    package var stage = ScrubStage.fixed
    /// Of `total`, in this stage.
    package var done: UInt64 = 0
    package var total: UInt64 = 0
    package var isFinished = false
    /// Somebody stopped it.
    package var wasStopped = false
    package var findings: [Finding] = []
    /// More than are kept, perhaps.
    package var findingCount: UInt64 = 0
    package var inodes: UInt64 = 0
    package var directories: UInt64 = 0
    package var entries: UInt64 = 0
    /// Blocks of inodes, their trees and their attributes, and of groups.
    package var metadataBlocks: UInt64 = 0
    /// Groups in which blocks came and went meanwhile: not searched for lost blocks (S4).
    package var changedGroups: UInt64 = 0
    /// Inodes whose links did not agree and that changed meanwhile (S3).
    package var changedInodes: UInt64 = 0
    /// Entries of new inodes that were too many to be looked into, in directories with more than
    /// 65,536 of them.
    package var newEntries: UInt64 = 0
    /// What could not be read: one line each, the first hundred.
    package var unreadable: [String] = []
    /// Nanoseconds.
    package var duration: UInt64 = 0

    package init() {}

    /// Nothing is wrong, as far as was looked.
    package var isClean: Bool { findingCount == 0 && unreadable.isEmpty }
}

/// One scrub of one mounted volume. Engine-bound.
package final class Scrub {
    let volume: MountedVolume
    let superblock: Superblock
    private let findingLimit: Int
    package internal(set) var report = ScrubReport()
    let inspector: LiveInspector
    var table: ScrubTable
    var use: BlockUse
    /// By group: its version in stage 2, or 0 where the block is damaged.
    var groupVersions: [UInt64]
    var groupRecords: [ResourceGroupRecord?]
    /// Latecomers, by group.
    var lateCounts: [UInt32]
    /// By slot; nil where its descriptor is damaged.
    var orphanDirectories: [InodeNumber?] = []
    /// Inodes that only entries led to (S2), in the order in which they were found.
    var latecomers: [InodeNumber] = []
    var isLate: Set<InodeNumber> = []
    /// Blocks that more than one inode claimed.
    var disputed: Set<UInt64> = []
    /// Something was left out because of damage: what was not found may be there.
    var isPartial = false
    /// How often damaged inodes will be looked at again (S6).
    private var secondLooks = 300
    private var isStopped = false

    /// A scrub that has not begun. `findingLimit` findings are kept.
    package init(_ volume: MountedVolume, findingLimit: Int = 10_000) {
        self.volume = volume
        superblock = volume.superblock
        self.findingLimit = findingLimit
        inspector = LiveInspector(volume.device, volume.superblock)
        table = ScrubTable(groupCount: superblock.groupCount)
        use = BlockUse(superblock)
        groupVersions = Array(repeating: 0, count: Int(superblock.groupCount))
        groupRecords = Array(repeating: nil, count: Int(superblock.groupCount))
        lateCounts = Array(repeating: 0, count: Int(superblock.groupCount))
    }

    /// Ends it at the next structure.
    package func stop() { isStopped = true }

    /// Runs to the end, or until it is stopped. Once.
    ///
    /// - Throws: `inputOutput` when the node withdraws or leaves meanwhile.
    package func run() async throws(FileError) {
        let begin = volume.engine.clock.now
        defer {
            report.isFinished = true
            report.duration = volume.engine.clock.now.rawValue &- begin.rawValue
        }
        do throws(FileError) {
            await checkFixed()
            try await checkGroups()
            try await checkInodes()
            try await checkDirectories()
            try await checkReferences()
        } catch {
            guard error == .interrupted else { throw error }
            report.wasStopped = true
        }
    }

    // MARK: Common

    func add(_ finding: Finding) {
        report.findingCount += 1
        if report.findings.count < findingLimit { report.findings.append(finding) }
    }

    func begin(_ stage: ScrubStage, of total: UInt64) {
        report.stage = stage
        report.done = 0
        report.total = total
    }

    /// Called between structures.
    func goOn() throws(FileError) {
        if isStopped { throw .interrupted }
    }

    /// Does something with the device; what cannot be read is noted, and nil returned.
    func reading<Result>(
        _ body: () async throws(CheckError) -> Result
    ) async -> Result? {
        do throws(CheckError) {
            return try await body()
        } catch {
            if report.unreadable.count < 100 { report.unreadable.append("\(error)") }
            return nil
        }
    }

    /// Inspects an inode, whose lock is held (S6).
    func inspected(
        _ number: InodeNumber,
        entriesToo: Bool,
        onEntry: @escaping (InodeInspection.Entry) -> Void = { _ in }
    ) async throws(CheckError) -> InodeInspection? {
        for _ in 0..<3 where secondLooks > 0 {
            secondLooks -= 1
            let found = try await inspector.inspect(
                number,
                entriesToo: entriesToo,
                onEntry: onEntry
            )
            guard let found, found.record == nil else {
                secondLooks += 1
                return found
            }
            await volume.engine.sleep(
                until: volume.engine.clock.now.advanced(milliseconds: Self.patience)
            )
        }
        return try await inspector.inspect(number, entriesToo: entriesToo, onEntry: onEntry)
    }

    /// After how long a damaged inode is looked at again, in milliseconds (S6).
    private static let patience: UInt64 = 100

    // MARK: Stages 1 to 3

    private func checkFixed() async {
        begin(.fixed, of: 1)
        if let found = await reading(inspector.inspectFixed) {
            for finding in found.findings { add(finding) }
            orphanDirectories = found.orphanDirectories
            inspector.anchors = [superblock.root] + found.orphanDirectories.compactMap { $0 }
        }
        // Which inodes the slots' descriptors would lead to nobody can say.
        isPartial =
            orphanDirectories.count < Int(superblock.slotCount) || orphanDirectories.contains(nil)
        report.done = 1
    }

    private func checkGroups() async throws(FileError) {
        begin(.groups, of: UInt64(superblock.groupCount))
        for index in 0..<superblock.groupCount {
            try goOn()
            try await checkGroup(index)
            report.done += 1
        }
    }

    private func checkInodes() async throws(FileError) {
        begin(.inodes, of: UInt64(superblock.groupCount))
        for index in 0..<superblock.groupCount {
            try await visitInodes(inGroup: index)
            report.done += 1
        }
    }

    private func checkGroup(_ index: UInt32) async throws(FileError) {
        let found = try await volume.inspecting(group: index) {
            await self.reading { () async throws(CheckError) in
                try await self.inspector.inspect(group: index)
            }
        }
        report.metadataBlocks += 1
        guard let found else { return }
        for finding in found.findings { add(finding) }
        guard let record = found.record else { return }
        groupVersions[Int(index)] = found.version
        groupRecords[Int(index)] = record
        use.setMarks(ofGroup: index, bits: found.bits)
        let fixed = inspector.fixedPlaces(inGroup: index)
        for place in fixed { use.setUse(.metadata, group: index, index: place) }
    }

    private func visitInodes(inGroup index: UInt32) async throws(FileError) {
        var next: UInt32? = 0
        while let from = next {
            try goOn()
            let found = try await inodes(inGroup: index, from: from)
            next = found.next
            for number in found.numbers {
                try goOn()
                try await visit(number)
            }
        }
    }

    /// The inodes that the device shows in a group from a place on, some of them, and where to go on (S7).
    private func inodes(inGroup index: UInt32, from: UInt32) async throws(FileError) -> (
        numbers: [InodeNumber], next: UInt32?
    ) {
        let fixed = inspector.fixedPlaces(inGroup: index)
        let start = superblock.groupStart(index)
        return try await volume.inspecting(group: index) {
            var numbers: [InodeNumber] = []
            var next = from
            var looked = 0
            while let place = self.use.next(.marked(.metadata), group: index, from: next) {
                if looked == Self.blocksAtOnce { return (numbers, place) }
                next = place + 1
                if fixed.contains(place) { continue }
                looked += 1
                let hint = await self.reading { () async throws(CheckError) in
                    try await self.inspector.owner(of: start + UInt64(place))
                }
                if let hint = hint ?? nil, hint.isInode { numbers.append(hint.number) }
            }
            return (numbers, nil)
        }
    }

    /// So many blocks are looked at in one go: nobody allocates in their group meanwhile.
    private static let blocksAtOnce = 32

    /// Looks at an inode; of a directory at its own block.
    private func visit(_ number: InodeNumber) async throws(FileError) {
        let found = try await volume.inspecting(number) {
            () async throws(FileError) -> InodeInspection? in
            let found = await self.reading { () async throws(CheckError) in
                try await self.inspected(number, entriesToo: false)
            }
            guard let found = found ?? nil else { return nil }
            if found.record?.isDirectory != true { try await self.judgeClaims(of: found) }
            return found
        }
        guard let found else { return }
        for finding in found.findings { add(finding) }
        report.inodes += 1
        if !found.isComplete { isPartial = true }
        guard let group = superblock.group(of: number.address) else { return }
        table.insert(
            found,
            group: group,
            place: UInt32(number.address - superblock.groupStart(group))
        )
    }

    /// Compares what an inode, whose lock is held, claims with its groups and with others (S1).
    func judgeClaims(of inode: InodeInspection) async throws(FileError) {
        for claim in inode.claims {
            guard let group = superblock.group(of: claim.start) else { continue }
            let first = UInt32(claim.start - superblock.groupStart(group))
            if claim.state == .metadata { report.metadataBlocks += 1 }
            var agrees = true
            for place in first..<first + claim.length {
                if use.use(group: group, index: place) != .nothing {
                    disputed.insert(superblock.groupStart(group).rawValue + UInt64(place))
                } else {
                    use.setUse(
                        claim.state == .data ? .data : .metadata,
                        group: group,
                        index: place
                    )
                }
                if let mark = use.mark(group: group, index: place), mark != claim.state {
                    agrees = false
                }
            }
            if !agrees { try await confirmMark(of: claim, group, first, inode.number) }
        }
    }
}
