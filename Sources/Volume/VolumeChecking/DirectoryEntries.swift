// Pass 4, the entries of a directory: each name, and what it leads to.

import DiskFormat
import Vocabulary

/// One entry, out of the block it was read from: what it leads to is read before the next one is
/// looked at.
private struct Entry {
    var record: DirectoryEntryRecord
    var name: [UInt8]
}

extension VolumeChecker {
    /// Checks the entries that stand packed in `length` bytes from `offset` on.
    func checkEntries(
        of visit: InodeVisit,
        _ block: UnsafeRawBufferPointer,
        at offset: Int,
        length: Int,
        count: Int,
        _ range: KeyRange
    ) async throws(CheckError) {
        var position = offset
        let end = offset + length
        var areSorted = true
        var read = 0
        for _ in 0..<count {
            guard let record = DirectoryEntryRecord(block, at: position, end: end) else { break }
            let name = Array(
                block.window(
                    position + DirectoryEntryRecord.fixedByteCount,
                    Int(record.nameLength)
                )
            )
            position += record.byteCount
            visit.entries += 1
            read += 1
            if let last = visit.lastKey, record.key <= last { areSorted = false }
            if visit.trustsKeys, record.key < range.lower || record.key >= range.upper {
                areSorted = false
            }
            let entry = Entry(record: record, name: name)
            checkName(entry, of: visit)
            visit.lastKey = max(visit.lastKey ?? 0, record.key)
            try await follow(entry, from: visit)
        }
        if position != end || read < count {
            visit.isComplete = false
            add(
                Finding(
                    .entryDamaged,
                    inode: visit.number,
                    found: UInt64(position - offset),
                    expected: UInt64(length)
                )
            )
        }
        if !areSorted { add(Finding(.entriesUnsorted, inode: visit.number)) }
    }

    private func checkName(_ entry: Entry, of visit: InodeVisit) {
        let key = entry.record.key
        if let last = visit.lastKey, last >> 8 == key >> 8 {
            if visit.namesOfHash.contains(entry.name) {
                add(Finding(.entryNameDuplicate, inode: visit.number, name: entry.name))
            }
        } else {
            visit.namesOfHash.removeAll(keepingCapacity: true)
        }
        visit.namesOfHash.append(entry.name)
        let (isName, firstKey) = entry.name.withUnsafeBytes { name in
            let isName: Bool
            do throws(NameError) {
                try DiskFormat.checkName(name)
                isName = true
            } catch {
                isName = false
            }
            return (isName, DirectoryEntryRecord.firstKey(forName: name))
        }
        if !isName {
            add(Finding(.entryNameInvalid, inode: visit.number, name: entry.name))
        } else if key >> 8 != firstKey >> 8 {
            add(
                Finding(
                    .entryKeyWrong,
                    inode: visit.number,
                    name: entry.name,
                    found: key,
                    expected: firstKey
                )
            )
        }
    }

    /// Looks at what an entry leads to, and counts the link.
    private func follow(_ entry: Entry, from visit: InodeVisit) async throws(CheckError) {
        let number = entry.record.inode
        let address = number.address
        if let inspection {
            inspection.onEntry(
                InodeInspection.Entry(
                    name: entry.name,
                    inode: number,
                    type: UInt32(entry.record.type)
                )
            )
            return
        }
        let claimsDirectory = entry.record.type == 4
        guard try await admit(number) == .seen, let inode = inodes[address] else {
            add(
                Finding(
                    .entryTargetMissing,
                    inode: visit.number,
                    block: number.address,
                    name: entry.name
                )
            )
            if claimsDirectory { countSubdirectory(of: visit) }
            return
        }
        if !inode.isDamaged, UInt32(entry.record.type) != inode.mode >> 12 {
            add(
                Finding(
                    .entryTypeWrong,
                    inode: visit.number,
                    name: entry.name,
                    found: UInt64(entry.record.type),
                    expected: UInt64(inode.mode >> 12)
                )
            )
        }
        if let slot = visit.orphanSlot {
            if inode.listedIn != nil || inode.isAnchor {
                add(Finding(.inodeOrphanWrong, inode: number, slot: slot))
            }
            inodes.update(address) { $0.listedIn = slot }
            return
        }
        inodes.update(address) { $0.links = Self.successor($0.links) }
        if inode.isDamaged ? claimsDirectory : inode.isDirectory {
            followSubdirectory(inode, entry, from: visit)
        } else if inode.linkedFrom == nil {
            inodes.update(address) { $0.linkedFrom = visit.number }
        }
        inodes.settle(address)
    }

    /// The next number, where there is one.
    private static func successor(_ number: UInt32) -> UInt32 { number == .max ? .max : number + 1 }

    /// A directory has one entry, in the directory that it names as its parent.
    private func followSubdirectory(_ inode: SeenInode, _ entry: Entry, from visit: InodeVisit) {
        if inode.isAnchor || inode.linkedFrom != nil {
            add(
                Finding(
                    .directoryLinkedTwice,
                    inode: inode.number,
                    name: entry.name,
                    found: visit.number.address.rawValue
                )
            )
            return
        }
        inodes.update(inode.number.address) { $0.linkedFrom = visit.number }
        countSubdirectory(of: visit)
        if !inode.isDamaged, inode.parent != visit.number {
            add(
                Finding(
                    .directoryParentWrong,
                    inode: inode.number,
                    found: inode.parent.address.rawValue,
                    expected: visit.number.address.rawValue
                )
            )
        }
    }

    private func countSubdirectory(of visit: InodeVisit) {
        visit.subdirectories = Self.successor(visit.subdirectories)
    }
}
