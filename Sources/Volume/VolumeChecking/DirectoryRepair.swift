// A directory made anew from its sound entries: those that lead to sound inodes, each under a name
// that can be one, that is the only one of its kind, with the key of its hash and the type of what
// it leads to. Keys that are right stay: they are the cookies of readdir.

import BlockIO
import DiskFormat
import Vocabulary

/// What is to change in a directory besides what is wrong in it.
struct DirectoryChange {
    /// Names to add.
    var added: [SalvagedEntry] = []
    /// Inodes whose entries go.
    var removed: Set<InodeNumber> = []
}

extension RepairRound {
    /// Rebuilds a directory; false if it is no sound inode or there is no room.
    func rebuildDirectory(
        _ number: InodeNumber,
        _ change: DirectoryChange = DirectoryChange()
    ) async throws(CheckError) -> Bool {
        let buffer = makeBuffer()
        guard var record = try await readInode(number, into: buffer), record.isDirectory,
            record.layout == .inlineDirectory || record.layout == .directoryIndex
        else { return false }
        let found = try await entries(of: number, record, buffer)
        let slot = checker.slots.lazy.compactMap { $0 }.first { $0.orphanDirectory == number }?.slot
        let kept = try await judge(found, in: number, orphansOf: slot, change) + change.added
        let entries = name(kept)
        record.entryCount = UInt64(entries.count)
        record.modified = record.modified.successor
        record.blockCount = 1 + UInt64(try await attributeChain(of: number, record).blocks.count)
        if slot == nil, record.linkCount > 0 {
            record.linkCount = 2 + UInt32(entries.count { $0.type == 4 })
        }
        let bytes = entries.map { (key: $0.key, bytes: Self.bytes($0)) }
        let length = bytes.reduce(0) { $0 + $1.bytes.count }
        let room = record.bodyLength(blockSize: blockSize)
        if length <= room {
            record.layout = .inlineDirectory
            record.height = 0
            record.rootCount = UInt16(entries.count)
            record.rootLength = UInt16(length)
            try await writeRoot(number, record, body: bytes.flatMap(\.bytes), in: buffer)
            return true
        }
        guard
            let tree = try await build(.directory, of: number, plan(bytes), rootRoom: room)
        else { return false }
        record.layout = .directoryIndex
        record.blockCount += tree.nodeCount
        try await writeRoot(number, record, tree, in: buffer)
        return true
    }

    /// All entries of a directory that can be read.
    func entries(
        of number: InodeNumber,
        _ record: InodeRecord,
        _ buffer: AlignedBuffer
    ) async throws(CheckError) -> [SalvagedEntry] {
        var entries: [SalvagedEntry] = []
        _ = try await TreeSalvage.walk(.directory, of: number, record, buffer.readOnly, in: self) {
            entries += $0.entries
        }
        return entries
    }

    /// The entries that may stay, with their right types.
    private func judge(
        _ entries: [SalvagedEntry],
        in number: InodeNumber,
        orphansOf slot: SlotIndex?,
        _ change: DirectoryChange
    ) async throws(CheckError) -> [SalvagedEntry] {
        var met: Set<InodeNumber> = []
        let keepers = try await findKeepers()
        var kept: [SalvagedEntry] = []
        for var entry in entries {
            guard let inode = try await seen(entry.inode.address),
                inode.number == entry.inode, !inode.isDamaged,
                !change.removed.contains(entry.inode)
            else { continue }
            entry.type = UInt8(truncatingIfNeeded: inode.mode >> 12 & 0xF)
            let isFirst = met.insert(entry.inode).inserted
            let stays: Bool
            if let slot {
                // An orphan is listed once, in one list, and nothing else leads to it.
                stays = isFirst && !inode.isAnchor && inode.links == 0 && inode.listedIn == slot
            } else if inode.isDirectory {
                let keeper = keepers[entry.inode.address] ?? inode.linkedFrom
                stays = isFirst && !inode.isAnchor && (keeper == nil || keeper == number)
            } else {
                stays = true
            }
            if stays { kept.append(entry) }
        }
        return kept
    }

    /// Gives every entry a name and a key that are right and its own; sorted by key.
    private func name(_ entries: [SalvagedEntry]) -> [SalvagedEntry] {
        var names: Set<[UInt8]> = []
        var keys: Set<UInt64> = []
        var named: [SalvagedEntry] = []
        var waiting: [SalvagedEntry] = []
        for var entry in entries {
            if !Self.isName(entry.name) {
                entry.name = Array("#\(String(entry.key, radix: 16))".utf8)
            }
            entry.name = Self.unused(entry.name, names)
            names.insert(entry.name)
            let isRight = entry.key >> 8 == Self.firstKey(entry.name) >> 8
            if isRight, keys.insert(entry.key).inserted {
                named.append(entry)
            } else {
                waiting.append(entry)
            }
        }
        for var entry in waiting {
            var freeKey = Self.freeKey(entry.name, keys)
            while freeKey == nil {
                // A hash with all the names it can have: another name has another hash.
                entry.name = Self.unused(entry.name, names)
                names.insert(entry.name)
                freeKey = Self.freeKey(entry.name, keys)
            }
            if let freeKey { entry.key = freeKey }
            keys.insert(entry.key)
            named.append(entry)
        }
        return named.sorted { $0.key < $1.key }
    }

    /// A name that is not among `names`: the one given, or that with the lowest number behind it.
    static func unused(_ name: [UInt8], _ names: Set<[UInt8]>) -> [UInt8] {
        var candidate = name
        var number = 1
        while names.contains(candidate) {
            let suffix = Array("~\(number)".utf8)
            candidate = name.prefix(DirectoryEntryRecord.longestName - suffix.count) + suffix
            number += 1
        }
        return candidate
    }

    private static func freeKey(_ name: [UInt8], _ keys: Set<UInt64>) -> UInt64? {
        let first = firstKey(name)
        return (first..<first + DirectoryEntryRecord.maximumCollisions)
            .first { !keys.contains($0) }
    }

    private static func isName(_ name: [UInt8]) -> Bool {
        name.withUnsafeBytes { bytes in
            do throws(NameError) {
                try DiskFormat.checkName(bytes)
                return true
            } catch {
                return false
            }
        }
    }

    private static func firstKey(_ name: [UInt8]) -> UInt64 {
        name.withUnsafeBytes { DirectoryEntryRecord.firstKey(forName: $0) }
    }

    private static func bytes(_ entry: SalvagedEntry) -> [UInt8] {
        let record = DirectoryEntryRecord(
            key: entry.key,
            inode: entry.inode,
            type: entry.type,
            nameLength: UInt8(entry.name.count)
        )
        var bytes = [UInt8](repeating: 0, count: record.byteCount)
        bytes.withUnsafeMutableBytes { target in
            entry.name.withUnsafeBytes { record.write(to: target, at: 0, name: $0) }
        }
        return bytes
    }
}
