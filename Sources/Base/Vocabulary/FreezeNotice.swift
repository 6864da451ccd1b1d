/// Who froze a volume, since when and for how long.
package struct FreezeNotice: Hashable, Sendable {
    /// The node that was asked.
    package var node: NodeID
    /// When it was asked, by its own clock.
    package var since: Timestamp
    /// After so many seconds every node thaws by itself; 0: never.
    package var seconds: UInt32

    package init(node: NodeID, since: Timestamp, seconds: UInt32) {
        self.node = node
        self.since = since
        self.seconds = seconds
    }

    /// Which of two that were asked for at the same time counts.
    package func comes(before other: FreezeNotice) -> Bool {
        since == other.since ? node < other.node : since < other.since
    }
}
