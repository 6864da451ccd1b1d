// Stage "lost": sound inodes that nothing leads to come into the directory `lost+found` of the
// root, which is made when it is needed, under the name `#ADDRESS.GENERATION`. Those without links
// were being deleted and are freed: a tombstone takes the inode's place, and the last stage frees
// the blocks.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    private static let directoryName = Array("lost+found".utf8)

    func repairLost(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var done: [Finding] = []
        var saved: [(finding: Finding, entry: SalvagedEntry)] = []
        let buffer = makeBuffer()
        for finding in found {
            guard let number = finding.inode,
                let record = try await readInode(number, into: buffer)
            else { continue }
            let isSpareList = record.flags.contains(.system) && record.entryCount == 0
            if record.linkCount == 0 || isSpareList {
                try await bury(number, in: buffer)
                done.append(finding)
                continue
            }
            let name = "#\(number.address.rawValue).\(number.generation)"
            let entry = SalvagedEntry(
                key: 0,
                inode: number,
                type: UInt8(truncatingIfNeeded: record.mode >> 12 & 0xF),
                name: Array(name.utf8)
            )
            saved.append((finding, entry))
        }
        guard !saved.isEmpty, let directory = try await lostAndFound() else { return done }
        var change = DirectoryChange()
        change.added = saved.map(\.entry)
        guard try await rebuildDirectory(directory, change) else { return done }
        // Now that they are found they say so themselves.
        for (finding, entry) in saved {
            let isDirectory = entry.type == 4
            _ = try await editInode(entry.inode) { record in
                record.flags.remove(.orphan)
                if isDirectory { record.parent = directory } else { record.linkCount = 1 }
            }
            done.append(finding)
        }
        return done
    }

    /// Puts a tombstone into the place of an inode whose block is given.
    private func bury(
        _ number: InodeNumber,
        in buffer: AlignedBuffer
    ) async throws(CheckError) {
        let address = number.address
        let version = BlockHeader.version(of: buffer.readOnly)
        buffer.bytes.clear(0, buffer.bytes.count)
        BlockHeader(
            kind: .inode,
            address: address,
            version: version,
            volume: superblock.volume,
            owner: address.rawValue,
            generation: 0
        ).write(to: buffer.bytes)
        InodeRecord(mode: 0, user: 0, group: 0, linkCount: 0, born: .zero)
            .writeFields(to: buffer.bytes)
        try await writeNext(buffer, at: address)
    }

    /// The directory for lost inodes; nil if there is no room to make it.
    private func lostAndFound() async throws(CheckError) -> InodeNumber? {
        let root = superblock.root
        let buffer = makeBuffer()
        guard let record = try await readInode(root, into: buffer), record.isDirectory else {
            return nil
        }
        let entries = try await entries(of: root, record, buffer)
        // Should the name be a file's, the directory has a number behind it (`rebuildDirectory`).
        let numbered = Self.directoryName + [UInt8(ascii: "~")]
        for entry in entries
        where entry.name == Self.directoryName || entry.name.starts(with: numbered) {
            guard let inode = try await seen(entry.inode.address),
                inode.number == entry.inode, inode.isDirectory, !inode.isDamaged
            else { continue }
            return entry.inode
        }
        guard let (number, version) = try await takeInode() else { return nil }
        try await writeDirectory(
            number,
            mode: 0o040700,
            flags: [],
            parent: root,
            version: version
        )
        try await flush()
        var change = DirectoryChange()
        change.added = [
            SalvagedEntry(key: 0, inode: number, type: 4, name: Self.directoryName)
        ]
        return try await rebuildDirectory(root, change) ? number : nil
    }
}
