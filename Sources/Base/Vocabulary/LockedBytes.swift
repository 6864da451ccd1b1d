/// The bytes that a lock of a range covers, and for which process they were locked.
public struct LockedBytes: Hashable, Sendable {
    /// The first byte.
    public var first: UInt64
    /// The last byte, not before the first.
    public var last: UInt64
    /// The process, as its node numbers it; 0 when it is not known.
    public var process: UInt32

    /// Made of its parts. `last` is not less than `first`.
    public init(first: UInt64, last: UInt64, process: UInt32 = 0) {
        precondition(first <= last, "a range of bytes that ends before it begins")
        self.first = first
        self.last = last
        self.process = process
    }

    /// Every byte that a file can have.
    public static let all = LockedBytes(first: 0, last: UInt64(Int64.max))

    /// Whether there is a byte that both cover.
    @inline(__always)
    public func overlaps(_ other: LockedBytes) -> Bool {
        first <= other.last && other.first <= last
    }

    /// Whether both overlap or lie side by side.
    public func touches(_ other: LockedBytes) -> Bool {
        overlaps(other) || (last < .max && last + 1 == other.first)
            || (other.last < .max && other.last + 1 == first)
    }
}

extension LockedBytes: CustomStringConvertible {
    /// For people.
    public var description: String {
        let end = last >= UInt64(Int64.max) ? "end" : "\(last)"
        let range = first == last ? "byte \(first)" : "bytes \(first)-\(end)"
        return process == 0 ? range : "\(range), process \(process)"
    }
}

/// A granted lock of a range that stands in somebody's way.
public struct LockObstacle: Hashable, Sendable {
    /// Whose it is.
    public var node: NodeID
    /// PR for a read lock, EX for a write lock.
    public var mode: LockMode
    /// What its owner has locked in this mode in one piece.
    public var bytes: LockedBytes

    /// Made of its parts.
    public init(node: NodeID, mode: LockMode, bytes: LockedBytes) {
        self.node = node
        self.mode = mode
        self.bytes = bytes
    }
}
