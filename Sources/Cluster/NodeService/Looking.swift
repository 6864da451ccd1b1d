// What an administrator may see of the lock manager of a node.

import Execution
package import LockCore
package import Vocabulary

extension LockNode {
    /// As `Lockspace.pointee.describe(atMost:)`, with ages reckoned from now.
    package func describe(
        atMost limit: Int,
        onlyWaiting: Bool,
        holder: NodeID?,
        where isWanted: (ResourceName) -> Bool
    ) -> (found: [ResourceDescription], omitted: Int) {
        _ = tellTime()
        return space.pointee.describe(
            atMost: limit,
            onlyWaiting: onlyWaiting,
            holder: holder,
            where: isWanted
        )
    }
}

extension LockNode {
    /// Everything that is counted, with names: the lock manager's counts, then the node's.
    package var allCounters: [(name: String, count: UInt64)] {
        counters.members + [("malformedMessages", malformedMessages)]
    }

    /// Whether this node left the lock manager, or was put out.
    package var hasLeft: Bool { space.pointee.hasLeft }

    /// What the flight recorder has kept, as `FlightRecording` reads it; nothing if it is off.
    package var recording: [UInt8] {
        guard let recorder else { return [] }
        return FlightRecording.bytes(
            recorder,
            node: node,
            incarnation: incarnation,
            settings: space.pointee.settings,
            tick: tellTime(),
            civilTime: engine.clock.civilTime,
            // Only a whole story can be held against it, and only such a one is short.
            digest: recorder.hasWrapped ? 0 : space.pointee.digest
        )
    }
}
