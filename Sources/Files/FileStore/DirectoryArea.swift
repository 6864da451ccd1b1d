import DiskFormat
import Journaling
import Vocabulary

/// The entries in one leaf, or in the body of a small directory's inode.
struct DirectoryArea {
    let block: MetadataBlock
    let isRoot: Bool
    let count: Int
    /// Bytes of all entries.
    let used: Int
    /// Bytes there are for entries.
    let capacity: Int

    private var offset: Int {
        isRoot ? InodeRecord.bodyOffset : TreeNodeHeader.recordsOffset
    }

    init(_ path: TreePath, of inode: StoredInode) throws(Interruption) {
        if let leaf = path.leaf {
            let header = TreeNodeHeader(fields: leaf.bytes.readOnly)
            block = leaf
            isRoot = false
            count = Int(header.count)
            used = Int(header.usedBytes)
            capacity = Self.leafCapacity(leaf.bytes.count)
        } else {
            block = inode.block
            isRoot = true
            count = Int(inode.record.rootCount)
            used = Int(inode.record.rootLength)
            capacity = inode.bodyLength
        }
        guard used <= capacity else {
            throw .damaged(block.address, "bytes of entries", UInt64(used))
        }
    }

    /// Bytes for entries in a leaf.
    static func leafCapacity(_ blockSize: Int) -> Int {
        blockSize - TreeNodeHeader.recordsOffset
    }

    /// The bytes of the entries.
    var entries: UnsafeRawBufferPointer { block.bytes.readOnly.window(offset, used) }

    // MARK: changing; the block has been announced to the transaction

    /// Puts an entry at byte `at`, for which there is room.
    func insert(
        _ record: DirectoryEntryRecord,
        _ name: UnsafeRawBufferPointer,
        at place: Int,
        of inode: StoredInode
    ) {
        let length = record.byteCount
        precondition(place <= used && used + length <= capacity, "no room for the entry")
        let bytes = block.bytes
        let base = bytes.baseAddress.unsafelyUnwrapped + offset
        (base + place + length).copyMemory(from: base + place, byteCount: used - place)
        record.write(to: bytes, at: offset + place, name: name)
        setCounts(count + 1, used + length, of: inode)
    }

    /// Takes out the entry of `length` bytes at byte `place`.
    func remove(_ length: Int, at place: Int, of inode: StoredInode) {
        precondition(place + length <= used && count > 0, "no such entry")
        let base = block.bytes.baseAddress.unsafelyUnwrapped + offset
        (base + place).copyMemory(
            from: base + place + length,
            byteCount: used - place - length
        )
        block.bytes.clear(offset + used - length, length)
        setCounts(count - 1, used - length, of: inode)
    }

    /// Points the entry at byte `place` to another object.
    func retarget(_ inode: InodeNumber, _ type: UInt8, at place: Int) {
        block.bytes.put64(inode.address.rawValue, offset + place + 8)
        block.bytes.put64(inode.generation, offset + place + 16)
        block.bytes[offset + place + 24] = type
    }

    /// Keeps the first `count` entries, which are `length` bytes.
    func truncate(to count: Int, length: Int, of inode: StoredInode) {
        block.bytes.clear(offset + length, used - length)
        setCounts(count, length, of: inode)
    }

    private func setCounts(_ count: Int, _ used: Int, of inode: StoredInode) {
        if isRoot {
            inode.record.rootCount = UInt16(count)
            inode.record.rootLength = UInt16(used)
        } else {
            TreeNodeHeader(count: UInt16(count), height: 0, usedBytes: UInt32(used))
                .writeFields(to: block.bytes)
        }
    }

    /// Fills an empty new leaf with packed entries.
    static func fill(_ leaf: MetadataBlock, count: Int, entries: UnsafeRawBufferPointer) {
        TreeNodeHeader(count: UInt16(count), height: 0, usedBytes: UInt32(entries.count))
            .writeFields(to: leaf.bytes)
        leaf.bytes.put(entries, TreeNodeHeader.recordsOffset)
    }
}

/// Goes through the entries of an area and checks each: it lies within the area, has a name, and
/// its key is above that of its predecessor; in the end count and bytes agree.
struct EntryCursor {
    private let area: DirectoryArea
    private let bytes: UnsafeRawBufferPointer
    private var index = 0
    private var lastKey = DirectoryEntryRecord.firstKey - 1
    /// Where the next entry begins, in bytes from the start of the entries.
    private(set) var place = 0

    init(_ area: DirectoryArea) {
        self.area = area
        bytes = area.entries
    }

    /// The next entry; nil at the end.
    mutating func next() throws(Interruption) -> DirectoryEntryRecord? {
        guard index < area.count else {
            guard place == area.used else {
                throw .damaged(area.block.address, "bytes of entries", UInt64(area.used))
            }
            return nil
        }
        guard let record = DirectoryEntryRecord(bytes, at: place, end: area.used),
            record.nameLength > 0, record.key > lastKey
        else { throw .damaged(area.block.address, "directory entry", UInt64(place)) }
        lastKey = record.key
        place += record.byteCount
        index += 1
        return record
    }

    /// The name of the entry that `next` returned last.
    func name(of record: DirectoryEntryRecord) -> UnsafeRawBufferPointer {
        bytes.window(place - Int(record.nameLength), Int(record.nameLength))
    }
}
