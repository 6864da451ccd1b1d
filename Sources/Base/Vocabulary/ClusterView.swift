/// One node in one of its lives: a node that died and came back is another member.
public struct Member: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Which node.
    public var node: NodeID
    /// Different in each life of the node; random, never 0.
    public var incarnation: UInt64

    /// From its parts.
    public init(node: NodeID, incarnation: UInt64) {
        self.node = node
        self.incarnation = incarnation
    }

    /// The order of the numbers.
    public static func < (left: Member, right: Member) -> Bool {
        (left.node, left.incarnation) < (right.node, right.incarnation)
    }

    /// For logs and reports.
    public var description: String { "\(node)" }
}

/// Who is in the cluster, as all members agree. A view names a node that has left only after that
/// node can no longer write (it was fenced, or it said goodbye after its last write).
public struct ClusterView: Hashable, Sendable, CustomStringConvertible {
    /// Grows from view to view.
    public var epoch: Epoch
    /// Ascending; never two of one node.
    public var members: [Member]
    /// Slots whose journals may hold something that is not yet in place, because their nodes died
    /// (or because nothing is known: the first mount lists all). The coordinator replays them
    /// before ordinary locks are granted. Ascending.
    public var slotsToReplay: [SlotIndex]
    /// The latest view before which messages between two nodes that live on may have been lost:
    /// their connection broke, and neither was fenced for it. 0 when that never happened.
    public var connectionsLost: Epoch

    /// From its parts.
    public init(
        epoch: Epoch,
        members: [Member],
        slotsToReplay: [SlotIndex],
        connectionsLost: Epoch = Epoch(0)
    ) {
        precondition(
            zip(members, members.dropFirst()).allSatisfy { $0.node < $1.node },
            "the members of a view are ascending and distinct"
        )
        self.epoch = epoch
        self.members = members
        self.slotsToReplay = slotsToReplay
        self.connectionsLost = connectionsLost
    }

    /// The member that directs recovery: the lowest.
    public var coordinator: NodeID { members.first?.node ?? .none }

    /// Whether a node is in, in whatever life.
    public func contains(_ node: NodeID) -> Bool { members.contains { $0.node == node } }

    /// For logs and reports.
    public var description: String {
        "\(epoch): \(members.map(\.description).joined(separator: " "))"
    }
}
