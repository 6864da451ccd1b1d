// What a scrub remembers of every inode: compact, and in the order of the blocks, so that it is found
// by searching the inodes of its group.

import DiskFormat
import Vocabulary
import VolumeChecking

/// One inode that was seen.
struct ScrubbedInode {
    /// In its group.
    var place: UInt32
    var linkCount: UInt32
    var generation: UInt64
    /// Of its block when it was first seen (Scrub S3).
    var version: UInt64
    /// The block of the parent that a directory names.
    var parent: UInt64
    /// Entries that lead to it, in directories that are not orphan lists.
    var names: UInt32 = 0
    /// Of a directory: its entries of directories.
    var subdirectories: UInt32 = 0
    /// The upper four bits of the mode.
    var type: UInt8
    var orphanSlot: UInt8
    var marks: Marks

    struct Marks: OptionSet {
        var rawValue: UInt8

        /// Its orphan flag is set.
        static let orphan = Marks(rawValue: 1)
        /// An orphan directory lists it: the one of its slot.
        static let listed = Marks(rawValue: 2)
        /// One of another slot does, or two do.
        static let listedWrongly = Marks(rawValue: 4)
        /// Its block could not be judged.
        static let damaged = Marks(rawValue: 8)
        /// A directory whose entries could not all be read, or were not looked at.
        static let unread = Marks(rawValue: 16)
    }

    static let directoryType: UInt8 = 4

    var isDirectory: Bool { type == Self.directoryType }
}

/// All inodes that were seen.
struct ScrubTable {
    private var groups: [[ScrubbedInode]]

    init(groupCount: UInt32) { groups = Array(repeating: [], count: Int(groupCount)) }

    /// Where an inode stands in the table.
    struct Index {
        let group: Int
        let position: Int
    }

    /// Inodes of one group, ascending.
    func count(inGroup group: UInt32) -> Int { groups[Int(group)].count }

    /// The highest generation among the inodes of one group that are sound; 0 if there is none.
    func newestGeneration(inGroup group: UInt32) -> UInt64 {
        groups[Int(group)].reduce(0) {
            $1.marks.contains(.damaged) ? $0 : max($0, $1.generation)
        }
    }

    subscript(index: Index) -> ScrubbedInode {
        get { groups[index.group][index.position] }
        set { groups[index.group][index.position] = newValue }
    }

    /// Remembers an inode. Inodes of one group come in ascending order.
    mutating func insert(_ found: InodeInspection, group: UInt32, place: UInt32) {
        let record = found.record
        var marks: ScrubbedInode.Marks = record == nil ? [.damaged] : []
        if record?.flags.contains(.orphan) == true { marks.insert(.orphan) }
        if record?.isDirectory == true { marks.insert(.unread) }
        precondition(
            groups[Int(group)].last.map { $0.place < place } ?? true,
            "a scrub sees the inodes of a group in order"
        )
        groups[Int(group)].append(
            ScrubbedInode(
                place: place,
                linkCount: record?.linkCount ?? 0,
                generation: found.number.generation,
                version: found.version,
                parent: record?.parent.address.rawValue ?? 0,
                type: UInt8(truncatingIfNeeded: (record?.mode ?? 0) >> 12 & 0xF),
                orphanSlot: UInt8(truncatingIfNeeded: record?.orphanSlot.rawValue ?? 0),
                marks: marks
            )
        )
    }

    /// All of them, in the order of the blocks.
    func numbers(in superblock: Superblock) -> [InodeNumber] {
        groups.enumerated().flatMap { group, inodes in
            inodes.map {
                InodeNumber(
                    address: superblock.groupStart(UInt32(group)) + UInt64($0.place),
                    generation: $0.generation
                )
            }
        }
    }

    /// Where the inode that lives at a place of a group stands; nil if none was seen there.
    func find(group: UInt32, place: UInt32) -> Index? {
        let inodes = groups[Int(group)]
        var (low, high) = (0, inodes.count)
        while low < high {
            let middle = (low + high) / 2
            if inodes[middle].place < place { low = middle + 1 } else { high = middle }
        }
        guard low < inodes.count, inodes[low].place == place else { return nil }
        return Index(group: Int(group), position: low)
    }
}
