// Who waits for whom: from the waiters of some resources through those who hold them up, through
// what these wait for themselves, to the end or round in a circle. A pure function of a picture.
//
// C1. A waiting lock waits for the locks that its master names as its blockers. If it names none:
//     for its turn, for the end of a recovery, or for a message that is on the way.
// C2. An application's lock waits on for what its owner waits for. That is certain.
// C3. A lock of a cache has no owner. If operations are inside the glock, one of them may be what
//     waits for another lock of the same node; which one is not known, so all such waits that the
//     order of locks allows (FileSystem/LockTable.swift, L1) are followed, and said to be possible
//     only. If nobody is inside, the cache gives way by itself and waits for no lock (L3).
// C4. Each waiting lock is followed once. Meeting one that is on the present path closes a circle.

import LockCache
import LockCore
package import Vocabulary

/// What there is to say of why some resources are not granted.
package struct WaitChain: Hashable, Sendable {
    /// One line of the story.
    package struct Step: Hashable, Sendable {
        /// What the line says.
        package enum Kind: Hashable, Sendable {
            /// The lock waits.
            case waits
            /// The lock stands in the way of the step above.
            case holds
            /// The lock waits before the step above, whose turn it is not yet.
            case before
            /// The lock above is the one at the head of the path again.
            case circle
            /// Told already, further up.
            case known
            /// Nobody is in the way; see the text.
            case reason(String)
            /// Operations of the holder's own node that wait inside it.
            case local
        }

        package var kind: Kind
        package var depth: Int
        package var resource: ResourceName
        package var lock: LockReport
        /// Whether it follows from what is known; else it is possible (C3).
        package var isCertain: Bool
    }

    package var steps: [Step] = []
    /// Waits that were not followed, because there were too many.
    package var omitted = 0
    /// Whether anybody waits, in the lock manager or inside a node.
    package var isWaitedFor: Bool { !steps.isEmpty }
    /// Whether some path leads back to itself.
    package var hasCircle: Bool { steps.contains { $0.kind == .circle } }

    /// At most so many steps, so deep, and so many possible waits of one node at once.
    package static let mostSteps = 500
    package static let deepest = 32
    package static let mostPossibleWaits = 8

    /// The chain that begins at the waiters of `names`.
    package init(of names: [ResourceName], in picture: ClusterPicture) {
        var builder = Builder(picture: picture)
        for name in names {
            guard let resource = picture[name] else { continue }
            for lock in resource.locks where lock.isWaiting {
                builder.follow(lock, resource, depth: 0, isCertain: true, path: [])
            }
            for lock in resource.locks where (lock.activity?.queued ?? 0) > 0 {
                builder.tellLocal(lock, resource)
            }
        }
        steps = builder.steps
        omitted = builder.omitted
    }

    private struct Builder {
        let picture: ClusterPicture
        var steps: [Step] = []
        var omitted = 0
        private var seen: [LockReference] = []

        init(picture: ClusterPicture) { self.picture = picture }

        mutating func add(
            _ kind: Step.Kind,
            _ depth: Int,
            _ resource: ResourceReport,
            _ lock: LockReport,
            _ isCertain: Bool = true
        ) {
            let step = Step(
                kind: kind,
                depth: depth,
                resource: resource.name,
                lock: lock,
                isCertain: isCertain
            )
            if steps.count < WaitChain.mostSteps { steps.append(step) } else { omitted += 1 }
        }

        /// Tells of a waiting lock and of all that it waits for (C1, C4).
        mutating func follow(
            _ lock: LockReport,
            _ resource: ResourceReport,
            depth: Int,
            isCertain: Bool,
            path: [LockReference]
        ) {
            add(.waits, depth, resource, lock, isCertain)
            if path.contains(lock.reference) {
                add(.circle, depth + 1, resource, lock, isCertain)
                return
            }
            if seen.contains(lock.reference) {
                add(.known, depth + 1, resource, lock)
                return
            }
            seen.append(lock.reference)
            if depth > WaitChain.deepest {
                omitted += 1
                return
            }
            let longer = path + [lock.reference]
            let found = obstacles(of: lock, resource)
            for (kind, other) in found {
                add(kind, depth + 1, resource, other)
                if kind == .holds { goOn(from: other, resource, depth: depth + 2, path: longer) }
            }
            if found.isEmpty { add(.reason(reason(lock, resource)), depth + 1, resource, lock) }
        }

        private func obstacles(of lock: LockReport, _ resource: ResourceReport)
            -> [(Step.Kind, LockReport)]
        {
            let blockers = resource.locks.filter { lock.blockers.contains($0.reference) }
            if !blockers.isEmpty { return blockers.map { (.holds, $0) } }
            guard lock.isKnownToMaster,
                let place = resource.locks.firstIndex(where: { $0.reference == lock.reference })
            else { return [] }
            return resource.locks[..<place].filter(\.isWaiting).map { (.before, $0) }
        }

        /// What a lock that holds others up waits for itself (C2, C3).
        private mutating func goOn(
            from holder: LockReport,
            _ resource: ResourceReport,
            depth: Int,
            path: [LockReference]
        ) {
            let isOwned = holder.owner != .none
            if !isOwned && holder.activity?.isInUse != true { return }
            var waits: [(ResourceReport, LockReport)] = []
            for other in picture.resources {
                for lock in other.locks
                where lock.holder == holder.holder && lock.isWaiting && lock.owner == holder.owner
                    && (isOwned || Self.mayFollow(other.name, resource.name))
                {
                    waits.append((other, lock))
                }
            }
            if !isOwned && waits.count > WaitChain.mostPossibleWaits {
                // The longest waits explain the most.
                waits.sort { $0.1.age > $1.1.age }
                omitted += waits.count - WaitChain.mostPossibleWaits
                waits.removeLast(waits.count - WaitChain.mostPossibleWaits)
            }
            for (other, lock) in waits {
                follow(lock, other, depth: depth, isCertain: isOwned, path: path)
            }
        }

        /// Whether an operation that is inside `held` may wait for `name` (L1).
        private static func mayFollow(_ name: ResourceName, _ held: ResourceName) -> Bool {
            let (next, present) = (rank(name.kind), rank(held.kind))
            if name == held { return false }
            if next == present && name.kind == .resourceGroup { return name.number > held.number }
            return next >= present
        }

        private static func rank(_ kind: ResourceKind) -> Int {
            switch kind {
            case .rename: 1
            case .inode: 2
            case .open: 3
            case .orphanList: 4
            case .resourceGroup: 5
            case .quotaTable: 6
            case .quotaShare: 7
            case .logBarrier: 8
            case .freeze, .journal, .live, .application, .flock, .byteLocks: 0
            }
        }

        /// Why a lock waits that nothing is in the way of.
        private func reason(_ lock: LockReport, _ resource: ResourceReport) -> String {
            let master = resource.master
            if picture.silent.contains(master) {
                return "\(master), which decides on it, is silent"
            }
            guard let report = picture.report(of: master) else {
                return "who decides on it is not known: the directory was asked"
            }
            if report.phase == .recovering {
                return "\(report.label), which decides on it, recovers its locks (\(report.epoch))"
            }
            if report.isReplaying { return "\(report.label) replays journals" }
            if report.waitsForReplay {
                return "nothing new is granted before journals are replayed"
            }
            if !lock.isKnownToMaster {
                return "\(report.label), which decides on it, has not heard of it yet"
            }
            return "nothing is in its way any more"
        }

        /// Operations that queue inside a node behind those that are inside the glock.
        mutating func tellLocal(_ lock: LockReport, _ resource: ResourceReport) {
            // Those behind a request of the node are told by that.
            if lock.isWaiting || lock.activity?.isInUse != true { return }
            add(.local, 0, resource, lock)
        }
    }
}
