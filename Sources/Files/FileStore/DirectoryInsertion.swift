import DiskFormat
import Execution
package import Journaling
package import Vocabulary

/// A name about to be inserted: all names of its hash were compared, and its key is chosen.
package struct DirectoryInsertion {
    /// Exact.
    package let cost: OperationCost
    /// The key, and cookie, that the name will have.
    package let key: UInt64

    fileprivate let place: Directory.Place
    fileprivate let tree: Tree
    fileprivate let structureVersion: UInt64
}

extension Directory {
    /// What inserting one name needs in the worst case.
    package var worstInsertionCost: OperationCost {
        OperationCost(newBlocks: 0, modifiedBlocks: 1)
            + Tree.worstChange(height: inode.record.height)
    }

    /// Finds the place of a new name.
    ///
    /// - Throws: `exists`; `noSpace` if the directory has 256 names of this hash; `tooLong`,
    ///   `invalidName`; `storage`.
    package func prepareInsertion(
        _ name: UnsafeRawBufferPointer
    ) async throws(StoreError) -> DirectoryInsertion {
        try Self.check(name)
        var source = NodeSource(store, inode)
        let result = try await source.run { source throws(Interruption) in
            try search(name, source)
        }
        guard result.found == nil else { throw .exists }
        guard let (place, key) = result.gap else { throw .noSpace }
        if key & 0xFF != 0 { reached(.hashCollision) }
        let tree = result.tree
        let size = DirectoryEntryRecord.fixedByteCount + name.count
        var cost = OperationCost(newBlocks: 0, modifiedBlocks: place.path.steps.count + 2)
        if place.area.used + size > place.area.capacity {
            cost.newBlocks =
                place.area.isRoot
                ? place.area.used + size > DirectoryArea.leafCapacity(store.blockSize) ? 2 : 1
                : tree.blocksToAddLeaf(place.path)
            cost.modifiedBlocks += cost.newBlocks
        }
        return DirectoryInsertion(
            cost: cost,
            key: key,
            place: place,
            tree: tree,
            structureVersion: inode.structureVersion
        )
    }

    /// Inserts the name that was prepared; its cost is set aside. Stores the inode, whose times are
    /// the caller's business. `type` is `st_mode >> 12`.
    package func insert(
        _ insertion: DirectoryInsertion,
        _ name: UnsafeRawBufferPointer,
        target: InodeNumber,
        type: UInt8,
        with allocator: Allocator
    ) throws(StoreError) {
        precondition(
            insertion.structureVersion == inode.structureVersion,
            "FileStore F2: the directory changed"
        )
        let record = DirectoryEntryRecord(
            key: insertion.key,
            inode: target,
            type: type,
            nameLength: UInt8(name.count)
        )
        let area = insertion.place.area
        allocator.transaction.modify(area.block)
        if area.used + record.byteCount <= area.capacity {
            area.insert(record, name, at: insertion.place.offset, of: inode)
        } else {
            try split(insertion, record, name, allocator)
        }
        inode.record.entryCount += 1
        inode.record.size = inode.record.entryCount * Self.bytesPerEntry
        inode.storeStructure(in: allocator.transaction)
    }

    /// Points an existing name, found by `locate`, to another object. Does not void what was
    /// prepared.
    package func replaceTarget(
        _ location: DirectoryLocation,
        with target: InodeNumber,
        type: UInt8,
        in transaction: Transaction
    ) {
        precondition(
            location.structureVersion == inode.structureVersion,
            "FileStore F2: the directory changed"
        )
        transaction.modify(location.place.area.block)
        location.place.area.retarget(target, type, at: location.place.offset)
        inode.store(in: transaction)
    }

    // MARK: a leaf overflows

    /// Entries of a full area and a new one among them, cut in two.
    private struct Halves {
        /// All entries, packed.
        var bytes: [UInt8]
        /// Bytes and entries of the left half.
        var leftLength: Int
        var leftCount: Int
        var count: Int
        /// The first key of the right half.
        var rightKey: UInt64
    }

    private func split(
        _ insertion: DirectoryInsertion,
        _ record: DirectoryEntryRecord,
        _ name: UnsafeRawBufferPointer,
        _ allocator: Allocator
    ) throws(StoreError) {
        let area = insertion.place.area
        let leafCapacity = DirectoryArea.leafCapacity(store.blockSize)
        let halves: Halves
        do throws(Interruption) {
            halves = try cut(area, record, name, at: insertion.place.offset, leafCapacity)
        } catch {
            throw error.asStoreError(area.block.address)
        }
        let rightCount = halves.count - halves.leftCount
        if area.isRoot {
            let first = allocator.makeBlock(.directoryLeaf, for: inode)
            var pointers = [TreePointer(key: 0, child: first.address)]
            if halves.bytes.count <= leafCapacity {
                fill(first, halves, 0..<halves.bytes.count, halves.count)
            } else {
                fill(first, halves, 0..<halves.leftLength, halves.leftCount)
                let second = allocator.makeBlock(.directoryLeaf, for: inode)
                fill(second, halves, halves.leftLength..<halves.bytes.count, rightCount)
                pointers.append(TreePointer(key: halves.rightKey, child: second.address))
            }
            inode.record.layout = .directoryIndex
            insertion.tree.plantRoot(pointers)
            return
        }
        let right = allocator.makeBlock(.directoryLeaf, for: inode)
        fill(right, halves, halves.leftLength..<halves.bytes.count, rightCount)
        area.truncate(to: 0, length: 0, of: inode)
        fill(area.block, halves, 0..<halves.leftLength, halves.leftCount)
        try insertion.tree.addPointer(
            TreePointer(key: halves.rightKey, child: right.address),
            behind: insertion.place.path,
            with: allocator
        )
    }

    private func fill(
        _ leaf: MetadataBlock,
        _ halves: Halves,
        _ range: Range<Int>,
        _ count: Int
    ) {
        halves.bytes.withUnsafeBytes {
            DirectoryArea.fill(
                leaf,
                count: count,
                entries: $0.window(range.lowerBound, range.count)
            )
        }
    }

    /// Chooses the cut nearest the middle at which both halves fit, between different hashes if
    /// there is such a cut.
    private func cut(
        _ area: DirectoryArea,
        _ record: DirectoryEntryRecord,
        _ name: UnsafeRawBufferPointer,
        at place: Int,
        _ leafCapacity: Int
    ) throws(Interruption) -> Halves {
        var bytes = Array(area.entries)
        let encoded = [UInt8](unsafeUninitializedCapacity: record.byteCount) { buffer, count in
            record.write(to: UnsafeMutableRawBufferPointer(buffer), at: 0, name: name)
            count = record.byteCount
        }
        bytes.insert(contentsOf: encoded, at: place)
        let total = bytes.count
        var best: (cost: Int, length: Int, count: Int, key: UInt64)?
        var lastKey: UInt64 = 0
        var count = 0
        var cursor = EntryCursor(area)
        func consider(_ key: UInt64, _ length: Int) {
            if count > 0, length <= leafCapacity, total - length <= leafCapacity {
                let sameHash = key >> 8 == lastKey >> 8
                let cost = abs(2 * length - total) + (sameHash ? 2 * total : 0)
                if cost < best?.cost ?? Int.max { best = (cost, length, count, key) }
            }
            lastKey = key
            count += 1
        }
        var isInserted = false
        while true {
            let start = cursor.place
            let next = try cursor.next()
            if start == place, !isInserted {
                consider(record.key, start)
                isInserted = true
            }
            guard let next else { break }
            consider(next.key, start + (isInserted ? record.byteCount : 0))
        }
        guard let best else {
            // One entry cannot be cut, and need not be: it fits into a leaf though not into the
            // body.
            guard total <= leafCapacity else {
                throw .damaged(area.block.address, "bytes of entries", UInt64(area.used))
            }
            return Halves(
                bytes: bytes,
                leftLength: total,
                leftCount: count,
                count: count,
                rightKey: .max
            )
        }
        return Halves(
            bytes: bytes,
            leftLength: best.length,
            leftCount: best.count,
            count: count,
            rightKey: best.key
        )
    }
}
