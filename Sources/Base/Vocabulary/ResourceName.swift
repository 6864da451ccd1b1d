/// What kind of thing a resource of the lock manager stands for. The numbers stand in messages and
/// in journals and never change.
public enum ResourceKind: UInt8, CaseIterable, Hashable, Sendable {
    /// Attributes, extent map, extended attributes, directory content and data of one inode.
    case inode = 1
    /// Bitmap and counts of one slice of the volume.
    case resourceGroup = 2
    /// One node's log: exclusive while the slot is mounted, and for whoever replays it.
    case journal = 3
    /// PR while any process of the node has the inode open.
    case open = 4
    /// One per file system: held by a rename that moves a directory or touches two directories.
    case rename = 5
    /// One per file system: every node holds PR; EX means every log is empty (see `FileStore`).
    case logBarrier = 6
    /// One per slot: the list of inodes that are deleted but still open.
    case orphanList = 7
    /// One per file system: PR on every mount.
    case live = 8
    /// A name given by a program that uses the lock manager directly.
    case application = 9
}

/// The name of a resource: kind, number and generation. Root names only; the generation is part of
/// the name, so that a lock on a deleted inode is never a lock on its successor.
public struct ResourceName: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// What it stands for.
    public var kind: ResourceKind
    /// What distinguishes it among its kind.
    public var number: UInt64
    /// Which of those that had this number.
    public var generation: UInt64

    /// From its parts.
    public init(kind: ResourceKind, number: UInt64, generation: UInt64 = 0) {
        self.kind = kind
        self.number = number
        self.generation = generation
    }

    /// The lock of an inode.
    public static func inode(_ number: InodeNumber) -> ResourceName {
        ResourceName(
            kind: .inode,
            number: number.address.rawValue,
            generation: number.generation
        )
    }

    /// The open lock of an inode.
    public static func open(_ number: InodeNumber) -> ResourceName {
        ResourceName(kind: .open, number: number.address.rawValue, generation: number.generation)
    }

    /// The lock of resource group `index`, counted from zero.
    public static func resourceGroup(_ index: UInt32) -> ResourceName {
        ResourceName(kind: .resourceGroup, number: UInt64(index))
    }

    /// The lock of a slot's journal.
    public static func journal(_ slot: SlotIndex) -> ResourceName {
        ResourceName(kind: .journal, number: UInt64(slot.rawValue))
    }

    /// The lock of a slot's orphan list.
    public static func orphanList(_ slot: SlotIndex) -> ResourceName {
        ResourceName(kind: .orphanList, number: UInt64(slot.rawValue))
    }

    /// The one rename lock.
    public static let rename = ResourceName(kind: .rename, number: 0)

    /// The one log barrier.
    public static let logBarrier = ResourceName(kind: .logBarrier, number: 0)

    /// The one live lock.
    public static let live = ResourceName(kind: .live, number: 0)

    /// The order of the numbers.
    public static func < (left: ResourceName, right: ResourceName) -> Bool {
        (left.kind.rawValue, left.number, left.generation)
            < (right.kind.rawValue, right.number, right.generation)
    }

    /// A fixed mixing of the three parts: the same on every node and in every run, unlike
    /// `hashValue`. (Finalizer of splitmix64.)
    public var stableHash: UInt64 {
        var mixed = number &* 0x9E37_79B9_7F4A_7C15
        mixed ^= generation &* 0xC2B2_AE3D_27D4_EB4F
        mixed ^= UInt64(kind.rawValue) &* 0x1656_67B1_9E37_79F9
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// For logs and reports.
    public var description: String {
        switch kind {
        case .inode: "inode:\(number).\(generation)"
        case .resourceGroup: "group:\(number)"
        case .journal: "journal:\(number)"
        case .open: "open:\(number).\(generation)"
        case .rename: "rename"
        case .logBarrier: "log-barrier"
        case .orphanList: "orphans:\(number)"
        case .live: "live"
        case .application: "application:\(number).\(generation)"
        }
    }
}

/// Bytes that travel with a lock from its last writer to the next holder.
public struct ValueBlock: Hashable, Sendable {
    /// 32 bytes, as four words so that copying is cheap and comparison exact.
    public var word0: UInt64
    /// Bytes 8 to 15.
    public var word1: UInt64
    /// Bytes 16 to 23.
    public var word2: UInt64
    /// Bytes 24 to 31.
    public var word3: UInt64

    /// From its parts.
    public init(_ word0: UInt64 = 0, _ word1: UInt64 = 0, _ word2: UInt64 = 0, _ word3: UInt64 = 0)
    {
        self.word0 = word0
        self.word1 = word1
        self.word2 = word2
        self.word3 = word3
    }

    /// All bytes zero: what a new resource has.
    public static let zero = ValueBlock()
}
