// What this node does with the locks of its caches, for the administrator.

import Execution
import FileStore
import Journaling
package import LockCache
package import Vocabulary

extension MountedVolume {
    /// What is done with the glocks of some resources; nothing of those that have none. Looks at
    /// every glock once.
    package func activities(of names: Set<ResourceName>) -> [ResourceName: HolderActivity] {
        var found: [ResourceName: HolderActivity] = [:]
        locks.forEach { glock in
            if names.contains(glock.name) { found[glock.name] = activity(glock) }
        }
        return found
    }

    private func activity(_ glock: Glock) -> HolderActivity {
        let now = engine.clock.now
        func age(_ tick: Tick) -> UInt64 {
            (now.rawValue - min(tick.rawValue, now.rawValue)) / 1_000_000
        }
        let machine = glock.machine
        var activity = HolderActivity()
        activity.shared = machine.sharedCount + machine.concurrentCount
        activity.exclusive = machine.isExclusive ? 1 : 0
        activity.queued = machine.queuedCount
        switch machine.phase {
        case .steady: break
        case .requesting(let mode): (activity.phase, activity.target) = (.requesting, mode)
        case .demoting(let mode): (activity.phase, activity.target) = (.demoting, mode)
        case .lowering(let mode): (activity.phase, activity.target) = (.lowering, mode)
        }
        if activity.phase != .steady { activity.phaseAge = age(glock.phaseSince) }
        activity.step = glock.step
        activity.toldAge = glock.toldAt.map(age)
        if let inode = glock.owner as? Inode, glock === inode.glock {
            activity.dirtyBytes = UInt64(inode.dirty?.byteCount ?? 0)
            if let asked = peers?.asked(about: inode.number) {
                activity.asked = asked.nodes
                activity.askedAge = age(asked.since)
            }
        }
        if glock.held == .exclusive {
            activity.hasUnsettledMetadata = !store.isSettled(glock.name, journal)
            activity.isCommitting = activity.hasUnsettledMetadata && journal.isCommitting
        }
        return activity
    }
}
