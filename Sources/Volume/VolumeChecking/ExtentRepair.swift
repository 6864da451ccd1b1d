// The extents of a file made anew from the sound ones: in order, without overlaps, and, in the
// stage "sharing", without blocks that belong to somebody else.

import BlockIO
import DiskFormat
import Vocabulary

/// An extent, and how new the leaf was that it stood in.
private struct DatedExtent {
    var extent: Extent
    var version: UInt64
}

extension Extent {
    /// The part of the run between two logical blocks that lie in it.
    fileprivate func part(_ start: UInt64, _ end: UInt64) -> Extent {
        Extent(
            logical: start,
            physical: physical + (start - logical),
            length: UInt32(end - start),
            isUnwritten: isUnwritten
        )
    }
}

extension RepairRound {
    /// Rebuilds the extents of a file; false if it is no sound inode with extents, or there is no
    /// room.
    func rebuildExtents(_ number: InodeNumber) async throws(CheckError) -> Bool {
        let buffer = makeBuffer()
        guard let record = try await readInode(number, into: buffer), record.layout == .extents
        else { return false }
        let (extents, _) = try await soundExtents(of: number, record, buffer)
        return try await writeExtents(number, record, extents, in: buffer)
    }

    /// The sound extents of a file in order and without overlaps, and the sound nodes of its tree.
    func soundExtents(
        of number: InodeNumber,
        _ record: InodeRecord,
        _ buffer: AlignedBuffer
    ) async throws(CheckError) -> (extents: [Extent], nodes: [BlockAddress]) {
        var found: [DatedExtent] = []
        let superblock = superblock
        let nodes = try await TreeSalvage.walk(
            .extents,
            of: number,
            record,
            buffer.readOnly,
            in: self
        ) { leaf in
            found += leaf.extents(in: superblock)
                .map { DatedExtent(extent: $0, version: leaf.version) }
        }
        return (Self.disentangle(found), nodes)
    }

    /// Of extents that overlap, the one from the newer leaf keeps what both claim, or of two from
    /// leaves equally new the one that begins first; the other keeps the rest.
    private static func disentangle(_ found: [DatedExtent]) -> [Extent] {
        // In descending order, so that the next is at the end.
        func precedes(_ left: DatedExtent, _ right: DatedExtent) -> Bool {
            (left.extent.logical, right.version) < (right.extent.logical, left.version)
        }
        var waiting = found.sorted { precedes($1, $0) }
        var kept: [DatedExtent] = []
        func putBack(_ part: Extent, _ version: UInt64) {
            let item = DatedExtent(extent: part, version: version)
            let place = waiting.firstIndex { precedes($0, item) } ?? waiting.endIndex
            waiting.insert(item, at: place)
        }
        while let next = waiting.popLast() {
            guard let last = kept.last, next.extent.logical < last.extent.logicalEnd else {
                kept.append(next)
                continue
            }
            if next.version > last.version {
                kept.removeLast()
                if last.extent.logical < next.extent.logical {
                    let front = last.extent.part(last.extent.logical, next.extent.logical)
                    kept.append(DatedExtent(extent: front, version: last.version))
                }
                if last.extent.logicalEnd > next.extent.logicalEnd {
                    let rest = last.extent.part(next.extent.logicalEnd, last.extent.logicalEnd)
                    putBack(rest, last.version)
                }
                kept.append(next)
            } else if next.extent.logicalEnd > last.extent.logicalEnd {
                putBack(
                    next.extent.part(last.extent.logicalEnd, next.extent.logicalEnd),
                    next.version
                )
            }
        }
        return kept.map(\.extent)
    }

    /// Writes extents, in order and without overlaps, as those of a file.
    private func writeExtents(
        _ number: InodeNumber,
        _ record: InodeRecord,
        _ extents: [Extent],
        in buffer: AlignedBuffer
    ) async throws(CheckError) -> Bool {
        var record = record
        let attributes = try await attributeChain(of: number, record).blocks.count
        let data = extents.reduce(UInt64(0)) { $0 + UInt64($1.length) }
        record.blockCount = 1 + UInt64(attributes) + data
        let records = extents.map { (key: $0.logical, bytes: Self.bytes($0)) }
        let room = record.bodyLength(blockSize: blockSize)
        if extents.count * Extent.byteCount <= room {
            record.height = 0
            record.rootCount = UInt16(extents.count)
            try await writeRoot(number, record, body: records.flatMap(\.bytes), in: buffer)
            return true
        }
        guard
            let tree = try await build(.extents, of: number, plan(records), rootRoom: room)
        else { return false }
        record.blockCount += tree.nodeCount
        try await writeRoot(number, record, tree, in: buffer)
        return true
    }

    private static func bytes(_ extent: Extent) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Extent.byteCount)
        bytes.withUnsafeMutableBytes { extent.write(to: $0, at: 0) }
        return bytes
    }

    // MARK: sharing

    /// Sorts out blocks with two owners. A metadata block belongs to whom its own header names; a
    /// data block stays with the first file, in the order of their inodes, and every
    /// other gets a copy of its own: nobody can tell whose the content is, so both keep what they
    /// read so far, and neither is changed by the other any more.
    func repairSharing(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var owned = BlockUse(superblock)
        for group in 0..<superblock.groupCount { owned.setUse(.metadata, group: group, index: 0) }
        for group in superblock.groupsWithCopy {
            owned.setUse(.metadata, group: group, index: superblock.groupLength(group) - 1)
        }
        try await forEachInode { (inode) async throws(CheckError) in
            try await ownMetadata(of: inode.number, &owned)
        }
        var changed: Set<InodeNumber> = []
        try await forEachInode { (inode) async throws(CheckError) in
            if try await ownData(of: inode.number, &owned) { changed.insert(inode.number) }
        }
        // The file that had to give way need not be the one that was named.
        if !changed.isEmpty { return found }
        if lacksSpace { return [] }
        // No data is shared: a node, or a block of attributes, is somebody else's.
        return try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let number = finding.inode else { return false }
            return try await rebuildContent(number)
        }
    }

    private func own(_ address: BlockAddress, _ use: FoundUse, _ owned: inout BlockUse) {
        guard let (group, index) = checker.place(of: address) else { return }
        owned.setUse(use, group: group, index: index)
    }

    private func ownMetadata(
        of number: InodeNumber,
        _ owned: inout BlockUse
    ) async throws(CheckError) {
        own(number.address, .metadata, &owned)
        let buffer = makeBuffer()
        guard let record = try await readInode(number, into: buffer) else { return }
        var blocks = try await attributeChain(of: number, record).blocks
        switch record.layout {
        case .extents: blocks += try await soundExtents(of: number, record, buffer).nodes
        case .directoryIndex:
            blocks += try await TreeSalvage.walk(
                .directory,
                of: number,
                record,
                buffer.readOnly,
                in: self
            ) { _ in }
        case .inlineData, .inlineDirectory, .none: break
        }
        for block in blocks { own(block, .metadata, &owned) }
    }

    /// Gives a file its data blocks, and copies of those that others have; whether it was changed.
    private func ownData(
        of number: InodeNumber,
        _ owned: inout BlockUse
    ) async throws(CheckError) -> Bool {
        let buffer = makeBuffer()
        guard let record = try await readInode(number, into: buffer), record.layout == .extents
        else { return false }
        let (extents, _) = try await soundExtents(of: number, record, buffer)
        var own: [Extent] = []
        var isShared = false
        for extent in extents {
            var start = extent.logical
            while start < extent.logicalEnd {
                let isTaken = isOwned(extent, start, owned)
                var end = start + 1
                while end < extent.logicalEnd, isOwned(extent, end, owned) == isTaken { end += 1 }
                let part = extent.part(start, end)
                if !isTaken {
                    own.append(part)
                    for step in 0..<UInt64(part.length) {
                        self.own(part.physical + step, .data, &owned)
                    }
                } else if !part.isUnwritten {
                    guard let copies = try await copy(part) else { return false }
                    own += copies
                }
                isShared = isShared || isTaken
                start = end
            }
        }
        guard isShared else { return false }
        try await flush()
        return try await writeExtents(number, record, own, in: buffer)
    }

    private func isOwned(_ extent: Extent, _ logical: UInt64, _ owned: BlockUse) -> Bool {
        guard
            let (group, index) = checker.place(of: extent.physical + (logical - extent.logical))
        else { return true }
        return owned.use(group: group, index: index) != .nothing
    }

    /// Copies the data of a run into blocks that are free; nil if there are too few.
    private func copy(_ run: Extent) async throws(CheckError) -> [Extent]? {
        guard hasRoom(for: Int(run.length), .data) else { return nil }
        let buffer = makeBuffer()
        var copies: [Extent] = []
        var done: UInt32 = 0
        while done < run.length {
            guard let (start, count) = try await takeData(run.length - done) else { return nil }
            for step in 0..<UInt64(count) {
                try await read(run.physical + UInt64(done) + step, into: buffer)
                try await write(buffer, at: start + step)
            }
            copies.append(
                Extent(logical: run.logical + UInt64(done), physical: start, length: count)
            )
            done += count
        }
        return copies
    }
}
