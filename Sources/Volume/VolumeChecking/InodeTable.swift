// What a check remembers of the inodes it has seen: two bits for one that is right, a record for one that
// is not, or not yet.
//
// An inode comes in when it is read (`insert`), with a record. It is *settled*, and the record dropped,
// as soon as everything that is judged at the end is known to be right: all its entries were met, a
// directory was walked and its entries of directories counted. A directory that waits for that, and with
// which nothing else is wrong, has no record either: it is *awaiting* its walk. When an entry leads to a
// settled or an awaiting inode, the block is read again and the record made anew from it (`reopen`): what
// the record held is what the block says, as that was the condition.
//
//     unknown --insert--> open --settle--> awaiting --reopen--> open --settle--> settled --reopen--> open
//
// So memory grows with what is wrong, with names of hard links that were not met yet, and with nothing
// else. Source of the idea: e2fsck's icount, which counts in bitmaps for as long as a count is 0 or 1.
//
// Invariants
// T1. Settled: sound, no finding names it, no flags, in no orphan list, no anchor, reached by an entry, and
//     link count = entries met (2 + directories in it of a directory, whose one entry stands in the
//     directory that it names as its parent, and all of whose entries were read).
// T2. Awaiting: the same, but of a directory whose entries were not read yet and were not counted.
// T3. What a group's count and newest generation are made of is counted at `insert`, once for each inode.

import DiskFormat
import Vocabulary

/// What is known of an inode once it has been read.
struct SeenInode {
    var number: InodeNumber
    var mode: UInt32
    var linkCount: UInt32
    var flags: InodeFlags
    var orphanSlot: SlotIndex
    /// Entries that lead to it, in directories that are not orphan lists.
    var links: UInt32 = 0
    /// Of a directory that was walked: entries of directories that have it as their parent, or no other.
    var subdirectories: UInt32 = 0
    /// The slot whose orphan directory lists it.
    var listedIn: SlotIndex?
    /// Its block could not be read: nothing else is known.
    var isDamaged = false
    /// A directory whose entries were looked at.
    var isWalked = false
    /// A directory some of whose entries could not be read.
    var isIncomplete = false
    /// Found by pass 5, not by way of a directory.
    var isUnreachable = false
    /// Part of the file system itself: the root and the orphan directories.
    var isAnchor = false
    /// A finding names it.
    var hasFindings = false
    /// The first directory that was found to have an entry for it; of a directory the one that
    /// counts. Nil of a file that was settled: nobody asks for that of one that is sound.
    var linkedFrom: InodeNumber?
    var parent: InodeNumber

    var isDirectory: Bool { mode & 0o170000 == 0o040000 }

    /// - Parameter record: nil if the block is damaged.
    init(_ number: InodeNumber, _ record: InodeRecord?) {
        self.number = number
        mode = record?.mode ?? 0
        linkCount = record?.linkCount ?? 0
        flags = record?.flags ?? []
        orphanSlot = record?.orphanSlot ?? SlotIndex(0)
        parent = record?.parent ?? number
        isDamaged = record == nil
    }

    /// What was known of an inode that is settled (T1) or awaiting its walk (T2), by its block.
    init(_ number: InodeNumber, quiet record: InodeRecord, isWalked: Bool) {
        self.init(number, record)
        links = isDirectory ? 1 : linkCount
        linkedFrom = isDirectory ? parent : nil
        self.isWalked = isWalked
        if isDirectory, isWalked { subdirectories = linkCount >= 2 ? linkCount - 2 : 0 }
    }

    /// Link count that it should have.
    var expectedLinks: UInt64 { isDirectory ? 2 + UInt64(subdirectories) : UInt64(links) }

    /// Nothing is wrong but what only the walk of a directory shows (T2).
    fileprivate var isQuiet: Bool {
        guard !isDamaged, !isAnchor, !isUnreachable, !hasFindings else { return false }
        guard flags.isEmpty, listedIn == nil, links > 0 else { return false }
        return !isDirectory || links == 1 && linkedFrom == parent && linkCount >= 2
    }

    fileprivate var isSettled: Bool {
        guard isQuiet, UInt64(linkCount) == expectedLinks else { return false }
        return !isDirectory || isWalked && !isIncomplete
    }

    fileprivate var isAwaiting: Bool { isQuiet && isDirectory && !isWalked }
}

/// All inodes that a check has seen.
struct InodeTable {
    /// What stands for an inode.
    enum State: UInt8 {
        case unknown = 0
        /// A record.
        case open = 1
        case settled = 2
        /// A directory whose walk is all that is missing.
        case awaiting = 3
    }

    private let superblock: Superblock
    private var states: [PairMap?]
    private var records: [UInt64: SeenInode] = [:]
    private var counts: [UInt32]
    private var generations: [UInt64]

    init(_ superblock: Superblock) {
        self.superblock = superblock
        let count = Int(superblock.groupCount)
        states = Array(repeating: nil, count: count)
        counts = Array(repeating: 0, count: count)
        generations = Array(repeating: 0, count: count)
    }

    /// Inodes of a group that were seen.
    func count(inGroup group: UInt32) -> UInt32 { counts[Int(group)] }

    /// The highest generation of the sound ones among them; 0 if there is none.
    func newestGeneration(inGroup group: UInt32) -> UInt64 { generations[Int(group)] }

    /// Inodes that had a record at the same time, at most.
    private(set) var mostRecords = 0

    /// The records, in the order of their blocks.
    var open: [SeenInode] { records.keys.sorted().compactMap { records[$0] } }

    /// What stands for the inode whose block is at an address.
    func state(of address: BlockAddress) -> State {
        guard let (group, index) = place(of: address), let map = states[Int(group)] else {
            return .unknown
        }
        return State(rawValue: map[index]) ?? .unknown
    }

    /// The record of an inode; nil if it was not seen, or has none.
    subscript(address: BlockAddress) -> SeenInode? { records[address.rawValue] }

    /// The place in its group of the first inode at or behind a place; nil if there is none.
    func next(inGroup group: UInt32, from index: UInt32) -> UInt32? {
        guard let map = states[Int(group)] else { return nil }
        return map.nextNonzero(from: index, below: superblock.groupLength(group))
    }

    /// Takes in an inode that was read for the first time.
    mutating func insert(_ inode: SeenInode) {
        precondition(state(of: inode.number.address) == .unknown, "T3: an inode is inserted once")
        guard let (group, _) = place(of: inode.number.address) else { return }
        counts[Int(group)] += 1
        if !inode.isDamaged {
            generations[Int(group)] = max(generations[Int(group)], inode.number.generation)
        }
        put(inode)
    }

    /// Gives a settled or awaiting inode its record again.
    mutating func reopen(_ inode: SeenInode) {
        let state = state(of: inode.number.address)
        precondition(state == .settled || state == .awaiting, "T1: only these have no record")
        put(inode)
    }

    /// Changes the record of an inode, if it has one.
    mutating func update(_ address: BlockAddress, _ body: (inout SeenInode) -> Void) {
        guard let index = records.index(forKey: address.rawValue) else { return }
        body(&records.values[index])
    }

    /// Notes that a finding names an inode.
    mutating func noteFinding(of address: BlockAddress) {
        update(address) { $0.hasFindings = true }
    }

    /// Drops the record of an inode with which nothing is wrong.
    mutating func settle(_ address: BlockAddress) {
        guard let inode = records[address.rawValue], let (group, index) = place(of: address) else {
            return
        }
        let state: State = inode.isSettled ? .settled : inode.isAwaiting ? .awaiting : .open
        guard state != .open else { return }
        records[address.rawValue] = nil
        states[Int(group)]?[index] = state.rawValue
    }

    private mutating func put(_ inode: SeenInode) {
        let address = inode.number.address
        guard let (group, index) = place(of: address) else { return }
        if states[Int(group)] == nil {
            states[Int(group)] = PairMap(blockCount: superblock.groupLength(group))
        }
        states[Int(group)]?[index] = State.open.rawValue
        records[address.rawValue] = inode
        mostRecords = max(mostRecords, records.count)
    }

    private func place(of address: BlockAddress) -> (group: UInt32, index: UInt32)? {
        guard let group = superblock.group(of: address) else { return nil }
        return (group, UInt32(address - superblock.groupStart(group)))
    }
}
