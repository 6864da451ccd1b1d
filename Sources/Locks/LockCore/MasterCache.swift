// Who mastered the trees that this node has no locks on any more.
//
// Who comes back to a tree would ask the directory again, one round trip for a name it knew a moment
// ago. So it remembers, and goes to that master directly.
//
// K1. What is remembered is a guess. A node that is not the master says so, as after a stale answer of
//     the directory (Directory.swift), and then the directory is asked, with who has denied.
// K2. It is only used between recoveries, and forgotten with every view: in a recovery whoever is sent
//     to a node makes it the master (R5).
// K3. It is bounded: each name has one place, where the last of those that share it stays.

import Vocabulary

/// A guess.
struct CachedMaster: Sendable {
    var name: ResourceName
    var master: NodeID
}

extension Lockspace {
    private func cachePlace(_ name: ResourceName) -> Int {
        Int(truncatingIfNeeded: name.rootHash >> 20) & (masterCache.count - 1)
    }

    /// This node gives its last lock on a tree up.
    mutating func remember(_ root: UInt32) {
        if settings.cachedMasters <= 0 || status != .running { return }
        let name = name(of: root)
        let nobody = CachedMaster(name: name, master: .none)
        if masterCache.isEmpty {
            var count = 1
            while count * 2 <= settings.cachedMasters { count *= 2 }
            masterCache = ContiguousArray(repeating: nobody, count: count)
        }
        masterCache[cachePlace(name)] = CachedMaster(name: name, master: resources[root].master)
    }

    /// Who is remembered for a name; `none` if nobody. Once: whoever asks remembers anew, or was
    /// denied.
    mutating func recallMaster(_ name: ResourceName) -> NodeID {
        if masterCache.isEmpty || status != .running { return .none }
        let place = cachePlace(name)
        let found = masterCache[place]
        guard found.name == name, found.master != .none, isMember(found.master) else {
            return .none
        }
        masterCache[place].master = .none
        counters.cachedMasters += 1
        return found.master
    }
}
