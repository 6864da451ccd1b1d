// Stage 4: what directories name.

import DiskFormat
import FileSystem
import Vocabulary
import VolumeChecking

extension Scrub {
    func checkDirectories() async throws(FileError) {
        begin(.directories, of: report.inodes)
        for group in 0..<superblock.groupCount {
            for position in 0..<table.count(inGroup: group) {
                let index = ScrubTable.Index(group: Int(group), position: position)
                report.done += 1
                guard table[index].isDirectory, !table[index].marks.contains(.damaged) else {
                    continue
                }
                try goOn()
                try await checkDirectory(index, number(of: index))
            }
        }
        // The list grows while it is walked.
        var position = 0
        while position < latecomers.count {
            try goOn()
            try await visitLatecomer(latecomers[position])
            position += 1
        }
    }

    private func visitLatecomer(_ number: InodeNumber) async throws(FileError) {
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
        report.inodes += 1
        if found.record?.isDirectory == true {
            try await checkDirectory(nil, number)
        } else {
            for finding in found.findings { add(finding) }
            if !found.isComplete { isPartial = true }
        }
        if let group = superblock.group(of: number.address) { lateCounts[Int(group)] += 1 }
    }

    func number(of index: ScrubTable.Index) -> InodeNumber {
        let inode = table[index]
        return InodeNumber(
            address: superblock.groupStart(UInt32(index.group)) + UInt64(inode.place),
            generation: inode.generation
        )
    }

    /// Entries of one directory that are looked into.
    private static let mostSuspects = 65_536

    private func checkDirectory(
        _ index: ScrubTable.Index?,
        _ number: InodeNumber
    ) async throws(FileError) {
        let slot = orphanDirectories.firstIndex(of: number).map { SlotIndex(UInt32($0)) }
        var suspects: [InodeInspection.Entry] = []
        let found = try await volume.inspecting(number) {
            () async throws(FileError) -> InodeInspection? in
            let found = await self.reading { () async throws(CheckError) in
                try await self.inspected(number, entriesToo: true) { entry in
                    self.report.entries += 1
                    if self.count(entry, in: index, number, slot) { return }
                    if suspects.count < Self.mostSuspects {
                        suspects.append(entry)
                    } else {
                        self.report.newEntries += 1
                    }
                }
            }
            guard let found = found ?? nil else { return nil }
            try await self.judgeClaims(of: found)
            return found
        }
        // A directory that is gone has taken what it named with it, or that has changed (S3).
        guard let found else { return }
        report.directories += 1
        for finding in found.findings { add(finding) }
        if found.isComplete {
            if let index { table[index].marks.remove(.unread) }
        } else {
            isPartial = true
        }
        try await confirm(suspects, of: number)
    }

    /// Counts an entry; false if it does not agree with what stage 3 has seen.
    private func count(
        _ entry: InodeInspection.Entry,
        in directory: ScrubTable.Index?,
        _ number: InodeNumber,
        _ slot: SlotIndex?
    ) -> Bool {
        if let directory, slot == nil, entry.type == UInt32(ScrubbedInode.directoryType) {
            table[directory].subdirectories &+= 1
        }
        guard let group = superblock.group(of: entry.inode.address) else { return false }
        let place = UInt32(entry.inode.address - superblock.groupStart(group))
        guard let index = table.find(group: group, place: place) else {
            return isLate.contains(entry.inode)
        }
        var inode = table[index]
        guard inode.generation == entry.inode.generation else { return false }
        defer { table[index] = inode }
        if let slot {
            let isRight =
                UInt32(inode.orphanSlot) == slot.rawValue && !inode.marks.contains(.listed)
            inode.marks.insert(isRight ? .listed : .listedWrongly)
            return true
        }
        inode.names = inode.names == .max ? .max : inode.names + 1
        if inode.marks.contains(.damaged) { return true }
        return UInt32(inode.type) == entry.type
            && (!inode.isDirectory || inode.parent == number.address.rawValue)
    }

    // MARK: Suspicions (S2)

    /// Looks into entries that did not agree: most lead to what is new.
    private func confirm(
        _ suspects: [InodeInspection.Entry],
        of directory: InodeNumber
    ) async throws(FileError) {
        var remaining: Set<InodeInspection.Entry> = []
        for entry in suspects {
            try goOn()
            let disagreement = try await volume.inspecting(entry.inode) {
                () async throws(FileError) in
                await self.disagreement(entry, directory)
            }
            if disagreement != nil { remaining.insert(entry) } else { meet(entry.inode) }
        }
        if remaining.isEmpty { return }
        try await volume.inspecting(directory) { () async throws(FileError) in
            var still: [InodeInspection.Entry] = []
            _ = await self.reading { () async throws(CheckError) in
                try await self.inspector.inspect(directory, entriesToo: true) { entry in
                    if remaining.contains(entry) { still.append(entry) }
                }
            }
            for entry in still {
                let finding: Finding?
                if entry.inode == directory {  // its lock is held
                    finding = await self.disagreement(entry, directory)
                } else {
                    finding = try await self.volume.inspecting(entry.inode) {
                        () async throws(FileError) in
                        await self.disagreement(entry, directory)
                    }
                }
                if let finding { self.add(finding) }
            }
        }
    }

    /// Notes an inode that is sound and was not seen in stage 3.
    private func meet(_ number: InodeNumber) {
        guard let group = superblock.group(of: number.address) else { return }
        let place = UInt32(number.address - superblock.groupStart(group))
        if let index = table.find(group: group, place: place),
            table[index].generation == number.generation
        {
            return
        }
        if isLate.insert(number).inserted { latecomers.append(number) }
    }

    /// What is wrong about an entry whose target's lock is held; nil if nothing is.
    private func disagreement(
        _ entry: InodeInspection.Entry,
        _ directory: InodeNumber
    ) async -> Finding? {
        let child = await reading { () async throws(CheckError) in
            try await self.inspector.inspect(entry.inode, entriesToo: false)
        }
        guard let child else { return nil }  // could not be read, which is noted
        guard let child else {
            return Finding(
                .entryTargetMissing,
                inode: directory,
                block: entry.inode.address,
                name: entry.name
            )
        }
        guard let record = child.record else { return child.findings.first }
        if record.mode >> 12 != entry.type {
            return Finding(
                .entryTypeWrong,
                inode: directory,
                name: entry.name,
                found: UInt64(entry.type),
                expected: UInt64(record.mode >> 12)
            )
        }
        if record.isDirectory, record.parent != directory, !orphanDirectories.contains(directory) {
            return Finding(
                .directoryParentWrong,
                inode: entry.inode,
                found: record.parent.address.rawValue,
                expected: directory.address.rawValue
            )
        }
        return nil
    }
}
