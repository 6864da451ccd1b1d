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
    /// Held by open files of an inode that programs have locked with flock(2).
    case flock = 10
    /// Bytes of an inode that programs have locked with fcntl(2); its locks are locks of ranges
    /// (`LockedBytes`).
    case byteLocks = 11
    /// Two per file system (`FileSystem/Freezing.swift`): whether the nodes work (CW) or stand still (PR), and
    /// whether all of those that stand still have come to rest.
    case freeze = 12
    /// One per file system: what users and groups use and may use, as settled.
    case quotaTable = 13
    /// One per slot: what its node has charged to users and groups and not settled.
    case quotaShare = 14

    /// Whether a lock of this kind is a lock of a range of bytes.
    package var isOfBytes: Bool {
        @inline(__always) get { self == .byteLocks }
    }

    /// How names of this kind begin in text.
    package var word: String {
        switch self {
        case .inode: "inode"
        case .resourceGroup: "group"
        case .journal: "journal"
        case .open: "open"
        case .rename: "rename"
        case .logBarrier: "log-barrier"
        case .orphanList: "orphans"
        case .live: "live"
        case .application: "application"
        case .flock: "flock"
        case .byteLocks: "byte-locks"
        case .freeze: "freeze"
        case .quotaTable: "quota-table"
        case .quotaShare: "quota-share"
        }
    }

    /// The kind whose names begin so.
    package init?(word: some StringProtocol) {
        guard let kind = Self.allCases.first(where: { $0.word == word }) else { return nil }
        self = kind
    }
}

/// The name of a resource. A *root* is kind, number and generation; the generation is part of the
/// name, so that a lock on a deleted inode is never a lock on its successor. Below a root stand
/// parts, and parts of parts: a *tree* of at most `deepest` levels under its root, with one master
/// for the whole (OpenVMS $ENQ, `parid`).
public struct ResourceName: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// What it stands for.
    public var kind: ResourceKind
    /// Levels below the root: 0 for a root, at most `deepest`.
    public private(set) var depth: UInt8 = 0
    /// Which of its kind.
    public var number: UInt64
    /// Which of those that ever had this number.
    public var generation: UInt64
    /// Which part of the root; 0 when `depth` is 0.
    public private(set) var part: UInt64 = 0
    /// Which part of the part; 0 when `depth` is less than 2.
    public private(set) var subpart: UInt64 = 0

    /// The most levels below a root.
    public static let deepest: UInt8 = 2

    /// The name of a root.
    public init(kind: ResourceKind, number: UInt64, generation: UInt64 = 0) {
        self.kind = kind
        self.number = number
        self.generation = generation
    }

    /// The name of a part of this resource. `depth` is less than `deepest`.
    public func child(_ number: UInt64) -> ResourceName {
        precondition(depth < Self.deepest, "a resource tree too deep")
        var name = self
        if depth == 0 { name.part = number } else { name.subpart = number }
        name.depth = depth + 1
        return name
    }

    /// What this is a part of; nil for a root.
    public var parent: ResourceName? {
        if depth == 0 { return nil }
        var name = self
        if depth == 1 { name.part = 0 } else { name.subpart = 0 }
        name.depth = depth - 1
        return name
    }

    /// The root of its tree; itself for a root.
    public var root: ResourceName {
        depth == 0 ? self : ResourceName(kind: kind, number: number, generation: generation)
    }

    /// Its number among the parts of its parent; of a root its number.
    public var lastNumber: UInt64 {
        switch depth {
        case 0: number
        case 1: part
        default: subpart
        }
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

    /// What programs lock with flock(2).
    public static func flock(_ number: InodeNumber) -> ResourceName {
        ResourceName(kind: .flock, number: number.address.rawValue, generation: number.generation)
    }

    /// What programs lock with fcntl(2).
    public static func byteLocks(_ number: InodeNumber) -> ResourceName {
        ResourceName(
            kind: .byteLocks,
            number: number.address.rawValue,
            generation: number.generation
        )
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

    /// The one lock of the table of quotas.
    public static let quotaTable = ResourceName(kind: .quotaTable, number: 0)

    /// The lock of a slot's share of the quotas.
    public static func quotaShare(_ slot: SlotIndex) -> ResourceName {
        ResourceName(kind: .quotaShare, number: UInt64(slot.rawValue))
    }

    /// The one rename lock.
    public static let rename = ResourceName(kind: .rename, number: 0)

    /// The one log barrier.
    public static let logBarrier = ResourceName(kind: .logBarrier, number: 0)

    /// Whether the nodes work or stand still.
    public static let freeze = ResourceName(kind: .freeze, number: 0)

    /// Held by nodes that have not come to rest.
    public static let quiet = ResourceName(kind: .freeze, number: 1)

    /// The one live lock.
    public static let live = ResourceName(kind: .live, number: 0)

    /// By number.
    public static func < (left: ResourceName, right: ResourceName) -> Bool {
        let (first, second) = (
            (left.kind.rawValue, left.number, left.generation),
            (right.kind.rawValue, right.number, right.generation)
        )
        if first != second { return first < second }
        return (left.depth > 0 ? 1 : 0, left.part, left.depth > 1 ? 1 : 0, left.subpart)
            < (right.depth > 0 ? 1 : 0, right.part, right.depth > 1 ? 1 : 0, right.subpart)
    }

    /// A fixed mixing of the whole name: the same on every node and in every run, unlike
    /// `hashValue`. (Finalizer of splitmix64.)
    @inline(__always)
    public var stableHash: UInt64 {
        depth == 0 ? rootHash : Self.mix(rootHash, part, subpart, depth)
    }

    private static func mix(_ hash: UInt64, _ part: UInt64, _ subpart: UInt64, _ depth: UInt8)
        -> UInt64
    {
        var mixed = hash ^ (part &* 0x9E37_79B9_7F4A_7C15) ^ (UInt64(depth) << 56)
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed ^= subpart &* 0xC2B2_AE3D_27D4_EB4F
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// The same mixing of the root's name alone: what chooses the directory node of a tree.
    public var rootHash: UInt64 {
        var mixed = number &* 0x9E37_79B9_7F4A_7C15
        mixed ^= generation &* 0xC2B2_AE3D_27D4_EB4F
        mixed ^= UInt64(kind.rawValue) &* 0x1656_67B1_9E37_79F9
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// For people.
    public var description: String {
        switch depth {
        case 0: rootDescription
        case 1: "\(rootDescription)/\(part)"
        default: "\(rootDescription)/\(part)/\(subpart)"
        }
    }

    private var rootDescription: String {
        switch kind {
        case .inode, .open, .application, .flock, .byteLocks:
            "\(kind.word):\(number).\(generation)"
        case .resourceGroup, .journal, .orphanList, .freeze, .quotaShare: "\(kind.word):\(number)"
        case .rename, .logBarrier, .live, .quotaTable: kind.word
        }
    }
}

extension ResourceName {
    /// The name that `description` writes; nil for any other text.
    package init?(_ text: some StringProtocol) {
        let levels = text.split(separator: "/", omittingEmptySubsequences: false)
        guard levels.count <= Int(Self.deepest) + 1 else { return nil }
        let root = levels[0].split(separator: ":", maxSplits: 1)
        guard let word = root.first, let kind = ResourceKind(word: word) else { return nil }
        let parts = root.count > 1 ? root[1].split(separator: ".", maxSplits: 1) : []
        let numbers = parts.map { UInt64($0) ?? 0 }
        var name = ResourceName(
            kind: kind,
            number: numbers.first ?? 0,
            generation: numbers.count > 1 ? numbers[1] : 0
        )
        for level in levels.dropFirst() {
            guard let part = UInt64(level) else { return nil }
            name = name.child(part)
        }
        // One text is one name: leading zeros and the like are refused.
        guard name.description == text else { return nil }
        self = name
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

    /// Made of its parts.
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
