// Giving back what nobody uses (CacheShrinking.swift): by age and by number from the volume's timer, and when whoever
// runs the volume says that memory is short.
//
// A lock is given back as if a peer wanted it (`LockTable.reclaim`): what is cached under it is written back and
// invalidated, in the kernel too, which drops the names that nobody uses and then forgets the inode (KERNEL, `prune`); an
// inode that the kernel has forgotten, and whose locks are gone, goes with the next sweep. While the volume stands still
// (Freezing.swift) or ends, nothing is given back: that would wait for what waits for the thaw.

import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    /// What is there to give back, for an observer.
    package struct SpareLocks: Hashable, Sendable {
        /// Locks that are held, in use or not.
        package var held = 0
        /// Those of them that might be given back now.
        package var spare = 0
        /// The most that may stay, with what is let pass.
        package var most = 0
        /// When the one was last used that has not been used for the longest time.
        package var oldestUse: Tick?
    }

    /// What is there now. Looks at every glock.
    package func spareLocks() -> SpareLocks {
        var found = SpareLocks()
        found.held = locks.heldCount
        found.most = shrinking.bound + shrinking.bound / 8
        locks.forEach { glock in
            guard glock.isSpare else { return }
            found.spare += 1
            found.oldestUse = min(found.oldestUse ?? glock.usedAt, glock.usedAt)
        }
        return found
    }

    /// The machine is short of memory: the older half of what nobody uses is given back, a little at a time.
    package func relieve() {
        counters.pressures += 1
        guard mayShrink else { return }
        let (sample, stride) = sampleAges()
        shrinking.beginPressurePass(sample: sample, stride: stride, blocks: cache.count)
        reached(.pressureRelieved)
        beginSteps()
    }

    /// Called by the timer.
    func shrink() {
        let now = engine.clock.now
        locks.useTime = now
        cache.useTime = now
        guard mayShrink else { return }
        let excess = shrinking.excess(of: locks.heldCount)
        if excess > 0 {
            let (sample, stride) = sampleAges()
            shrinking.beginBoundPass(excess, sample: sample, stride: stride)
        } else if shrinking.isAgePassDue(at: now) {
            shrinking.beginAgePass(at: now, blocks: cache.count)
        }
        beginSteps()
    }

    private var mayShrink: Bool { !isStopping && !isWithdrawn && freezer.phase == .running }

    /// When some of the locks were last used that might be given back, one of so many.
    private func sampleAges() -> (sample: [Tick], stride: Int) {
        let stride = CacheShrinking.stride(over: locks.placeCount)
        var sample: [Tick] = []
        var place = 0
        while place < locks.placeCount {
            if let glock = locks.glock(at: place), glock.isSpare { sample.append(glock.usedAt) }
            place += stride
        }
        return (sample, stride)
    }

    private func beginSteps() {
        guard shrinking.pass != nil, !isShrinking else { return }
        isShrinking = true
        step()
    }

    private func step() {
        guard mayShrink else {
            shrinking.cancel()
            isShrinking = false
            return
        }
        if let pass = shrinking.pass { take(pass) }
        guard shrinking.pass != nil else {
            isShrinking = false
            return
        }
        engine.clock.schedule(
            at: engine.clock.now.advanced(nanoseconds: CacheShrinking.pause),
            in: engine,
            EngineBound { [weak self] in self?.step() }
        )
    }

    /// One step of a pass.
    private func take(_ pass: CacheShrinking.Pass) {
        var place = pass.place
        let end = min(place + CacheShrinking.looksPerStep, locks.placeCount)
        var gifts = 0
        while place < end, gifts < CacheShrinking.giftsPerStep {
            if let glock = locks.glock(at: place), glock.isSpare,
                shrinking.gives(usedAt: glock.usedAt)
            {
                locks.reclaim(glock)
                gifts += 1
            }
            place += 1
        }
        let looks = min(pass.blocks, CacheShrinking.blocksPerStep)
        let dropped = cache.giveBack(
            looks: looks,
            usedBefore: pass.reason == .age ? pass.cutoff : nil
        )
        count(pass.reason, locks: UInt64(gifts), blocks: UInt64(dropped.count))
        shrinking.stepEnded(
            at: place < locks.placeCount ? place : nil,
            blocks: looks,
            hasNoMoreBlocks: !dropped.goesOn
        )
    }

    private func count(_ reason: ShrinkReason, locks: UInt64, blocks: UInt64) {
        if locks > 0 { reached(.lockGivenBack) }
        counters.blocksGivenBack += blocks
        switch reason {
        case .age: counters.locksGivenBackForAge += locks
        case .bound: counters.locksGivenBackForNumber += locks
        case .pressure: counters.locksGivenBackForPressure += locks
        }
    }
}

extension Glock {
    /// Held, and neither used nor wanted nor needed for what is in use (S4).
    var isSpare: Bool {
        held != .null && machine.isIdle && machine.wanted == nil && !isRetired
            && owner?.isSpare(self) == true
    }
}

extension Inode {
    package func isSpare(_ glock: Glock) -> Bool {
        guard opens == 0, listings == 0, pins == 0 else { return false }
        if glock === openGlock { return !isInsideOpenLock }
        // The lock of a freed inode goes with its end (`MountedVolume.sweep`).
        return number != volume.superblock.root && !isFreed && (dirty?.isEmpty ?? true)
    }
}
