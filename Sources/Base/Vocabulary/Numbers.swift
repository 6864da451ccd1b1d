// Typed numbers. An index, a count and a size are three different things, and a node is not a slot:
// mixing them up is the commonest mistake of storage code, so the compiler is asked to refuse it.

/// A node of the cluster: one life of one mount. Slot `n` of the volume hosts node `n + 1`; zero
/// means "no node".
package struct NodeID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package init(_ rawValue: UInt32) { self.rawValue = rawValue }

    /// The node that lives in a slot.
    package init(slot: SlotIndex) { rawValue = slot.rawValue + 1 }

    /// No node at all.
    package static let none = NodeID(0)

    /// The slot (and journal) this node owns. Only for real nodes.
    package var slot: SlotIndex {
        precondition(rawValue > 0, "the null node has no slot")
        return SlotIndex(rawValue - 1)
    }

    package static func < (left: NodeID, right: NodeID) -> Bool { left.rawValue < right.rawValue }

    package var description: String { "n\(rawValue)" }
}

/// A place for a node on the volume, counted from zero; slot `n` has journal `n`.
package struct SlotIndex: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible
{
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package init(_ rawValue: UInt32) { self.rawValue = rawValue }

    package static func < (left: SlotIndex, right: SlotIndex) -> Bool {
        left.rawValue < right.rawValue
    }

    package var description: String { "slot \(rawValue)" }
}

/// The address of a block on the volume, in file-system blocks from the volume's start. Zero is the
/// block before the first superblock and never holds an object: it means "no block".
package struct BlockAddress: RawRepresentable, Hashable, Comparable, Sendable,
    CustomStringConvertible
{
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// No block.
    package static let none = BlockAddress(0)

    package static func < (left: BlockAddress, right: BlockAddress) -> Bool {
        left.rawValue < right.rawValue
    }

    package static func + (left: BlockAddress, right: UInt64) -> BlockAddress {
        BlockAddress(left.rawValue + right)
    }

    package static func - (left: BlockAddress, right: BlockAddress) -> UInt64 {
        left.rawValue - right.rawValue
    }

    package var description: String { "block \(rawValue)" }
}

/// Who an inode is: where it lives and which of the inodes that ever lived there it is.
package struct InodeNumber: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The block that holds the inode. Also what `stat` shows as `st_ino`.
    package var address: BlockAddress
    /// Never reused at the same address; 1 or higher.
    package var generation: UInt64

    package init(address: BlockAddress, generation: UInt64) {
        self.address = address
        self.generation = generation
    }

    package static func < (left: InodeNumber, right: InodeNumber) -> Bool {
        (left.address.rawValue, left.generation) < (right.address.rawValue, right.generation)
    }

    package var description: String { "inode \(address.rawValue).\(generation)" }
}

/// The number of a membership view. Grows by at least one with every change; messages carry it and
/// those of another epoch are dropped or held.
package struct Epoch: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static func < (left: Epoch, right: Epoch) -> Bool { left.rawValue < right.rawValue }

    package var description: String { "epoch \(rawValue)" }
}

/// A point of time of the engine's own clock, in nanoseconds since some fixed start. Only
/// differences mean anything.
package struct Tick: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static func < (left: Tick, right: Tick) -> Bool { left.rawValue < right.rawValue }

    /// The tick `nanoseconds` later.
    package func advanced(nanoseconds: UInt64) -> Tick { Tick(rawValue &+ nanoseconds) }

    /// The tick `milliseconds` later.
    package func advanced(milliseconds: UInt64) -> Tick {
        Tick(rawValue &+ milliseconds * 1_000_000)
    }

    package var description: String { "\(rawValue / 1000) µs" }
}

/// A point of civil time: what files carry. Seconds since 1970 UTC and 0 ..< 1,000,000,000
/// nanoseconds.
package struct Timestamp: Hashable, Comparable, Sendable {
    package var seconds: Int64
    package var nanoseconds: UInt32

    package init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    package static let zero = Timestamp(seconds: 0, nanoseconds: 0)

    /// The next representable point of time.
    package var successor: Timestamp {
        nanoseconds == 999_999_999
            ? Timestamp(seconds: seconds + 1, nanoseconds: 0)
            : Timestamp(seconds: seconds, nanoseconds: nanoseconds + 1)
    }

    package static func < (left: Timestamp, right: Timestamp) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }
}
