// Typed numbers. An index, a count and a size are three different things, and a node is not a slot:
// mixing them up is the commonest mistake of storage code, so the compiler is asked to refuse it.

/// A node of the cluster: one life of one mount. Slot `n` of the volume hosts node `n + 1`; zero
/// means "no node".
public struct NodeID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number itself.
    public var rawValue: UInt32

    /// The one with this number.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The one with this number.
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }

    /// The node that lives in a slot.
    public init(slot: SlotIndex) { rawValue = slot.rawValue + 1 }

    /// No node at all.
    public static let none = NodeID(0)

    /// The slot (and journal) this node owns. Only for real nodes.
    public var slot: SlotIndex {
        precondition(rawValue > 0, "the null node has no slot")
        return SlotIndex(rawValue - 1)
    }

    /// The order of the numbers.
    public static func < (left: NodeID, right: NodeID) -> Bool { left.rawValue < right.rawValue }

    /// For logs and reports.
    public var description: String { "n\(rawValue)" }
}

/// A place for a node on the volume, counted from zero; slot `n` has journal `n`.
public struct SlotIndex: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number itself.
    public var rawValue: UInt32

    /// The one with this number.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The one with this number.
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }

    /// The order of the numbers.
    public static func < (left: SlotIndex, right: SlotIndex) -> Bool {
        left.rawValue < right.rawValue
    }

    /// For logs and reports.
    public var description: String { "slot \(rawValue)" }
}

/// The address of a block on the volume, in file-system blocks from the volume's start. Zero is the
/// block before the first superblock and never holds an object: it means "no block".
public struct BlockAddress: RawRepresentable, Hashable, Comparable, Sendable,
    CustomStringConvertible
{
    /// The number itself.
    public var rawValue: UInt64

    /// The one with this number.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The one with this number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// No block.
    public static let none = BlockAddress(0)

    /// The order of the numbers.
    public static func < (left: BlockAddress, right: BlockAddress) -> Bool {
        left.rawValue < right.rawValue
    }

    /// So many further on.
    public static func + (left: BlockAddress, right: UInt64) -> BlockAddress {
        BlockAddress(left.rawValue + right)
    }

    /// How many lie between.
    public static func - (left: BlockAddress, right: BlockAddress) -> UInt64 {
        left.rawValue - right.rawValue
    }

    /// For logs and reports.
    public var description: String { "block \(rawValue)" }
}

/// Who an inode is: where it lives and which of the inodes that ever lived there it is.
public struct InodeNumber: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The block that holds the inode. Also what `stat` shows as `st_ino`.
    public var address: BlockAddress
    /// Never reused at the same address; 1 or higher.
    public var generation: UInt64

    /// From its parts.
    public init(address: BlockAddress, generation: UInt64) {
        self.address = address
        self.generation = generation
    }

    /// The order of the numbers.
    public static func < (left: InodeNumber, right: InodeNumber) -> Bool {
        (left.address.rawValue, left.generation) < (right.address.rawValue, right.generation)
    }

    /// For logs and reports.
    public var description: String { "inode \(address.rawValue).\(generation)" }
}

/// The number of a membership view. Grows by at least one with every change; messages carry it and
/// those of another epoch are dropped or held.
public struct Epoch: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number itself.
    public var rawValue: UInt64

    /// The one with this number.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The one with this number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The order of the numbers.
    public static func < (left: Epoch, right: Epoch) -> Bool { left.rawValue < right.rawValue }

    /// For logs and reports.
    public var description: String { "epoch \(rawValue)" }
}

/// A point of time of the engine's own clock, in nanoseconds since some fixed start. Only
/// differences mean anything.
public struct Tick: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number itself.
    public var rawValue: UInt64

    /// The one with this number.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The one with this number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The order of the numbers.
    public static func < (left: Tick, right: Tick) -> Bool { left.rawValue < right.rawValue }

    /// The tick `nanoseconds` later.
    public func advanced(nanoseconds: UInt64) -> Tick { Tick(rawValue &+ nanoseconds) }

    /// The tick `milliseconds` later.
    public func advanced(milliseconds: UInt64) -> Tick {
        Tick(rawValue &+ milliseconds * 1_000_000)
    }

    /// For logs and reports.
    public var description: String { "\(rawValue / 1000) µs" }
}

/// A point of civil time: what files carry. Seconds since 1970 UTC and 0 ..< 1,000,000,000
/// nanoseconds.
public struct Timestamp: Hashable, Comparable, Sendable {
    /// Whole seconds since 1970.
    public var seconds: Int64
    /// Within the second.
    public var nanoseconds: UInt32

    /// From its parts.
    public init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    /// All zero.
    public static let zero = Timestamp(seconds: 0, nanoseconds: 0)

    /// The next representable point of time; of the last one itself.
    public var successor: Timestamp {
        if nanoseconds < 999_999_999 {
            return Timestamp(seconds: seconds, nanoseconds: nanoseconds + 1)
        }
        return seconds == .max ? self : Timestamp(seconds: seconds + 1, nanoseconds: 0)
    }

    /// The order of the numbers.
    public static func < (left: Timestamp, right: Timestamp) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }
}
