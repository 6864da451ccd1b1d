// Several nodes that write one file: each has the inode's lock in CW, which says that nobody changes the inode, and
// locks of the file's regions, which say who may have what of the data. A region is a stretch of fixed size, stated
// in the superblock; its lock is a part of the inode's in the lock manager's tree.
//
//                    inode's lock       data is protected by        times of change
//   one node alone   EX                 the inode's lock            in the inode
//   only readers     PR                 the inode's lock            in the inode
//   shared writers   CW                 locks of regions            kept by each node; asked for (below)
//
// Who comes to CW: a node that writes to a file which it has had to give up several times lately (`prefersRegions`),
// and whoever is told that somebody wants CW. Whoever wants to change more than bytes that are there (size, blocks,
// attributes) takes EX as always, and everybody else gives CW up for it; so does who has to read all at once (PR).
// Who is left alone takes EX again (`leaveRegions`).
//
// States of a region's lock are those of every glock; its holders are shared and exclusive. A concurrent holder of
// the inode's glock is inside some regions' glocks, or waits for one.
//
// Invariants
//   R1. Under CW nothing of the inode's block, its extents and its attributes changes, on any node.
//   R2. Under CW a page is in the kernel, and data is in memory, only while the region is held: clean under PR, dirty
//       under EX. A lock of a region without CW or EX of the inode protects nothing: everything went when these
//       were given up. It stays as a right for later.
//   R3. Whoever waits for a region is inside the inode's glock and inside no other region: so nobody waits in a
//       circle, and a region is given up without regard to what its users wait for elsewhere (Demotion D7).
//       A request over several regions tries, and after a few times in vain takes EX of the inode.
//   R4. Only bytes are written that have blocks already, within the file. A page that a mapping may store into is
//       filled under R3 only where that holds for all of it: its write-back needs no other lock.
//   R5. What a node has written of a region is on the device, not flushed, when the region goes to another. So while a
//       file is held in CW, fsync flushes whether or not this node has written; and a node that gives CW up
//       flushes what it has written.
//   R6. Before the first write under CW the inode says so on the device (`InodeFlags.sharedWriters`, written under EX).
//       Whoever has PR or EX of such an inode asks all nodes for the time of their last write, and under
//       EX stores the newest. Nobody writes meanwhile: PR and EX do not go together with CW. A node that
//       dies takes its times with it, as with any change that was not made durable, unless somebody has asked.
//   R7. While a region is given up the inode's lock is not, nor does anybody use the whole: giving up is a concurrent
//       holder of the inode's glock, past all that wait (GlockMachine G4c), and if the inode's lock is just
//       being given up waits for the end of that.
//   R8. Nobody gives a region up unasked while the inode is held in EX, or may come to be while a mapping is dirty: the
//       write-back of a page then waits for the whole, the whole for the giving up (R7), and that for the page.
//
// Lock order: LockTable L1 (3). L3 holds for a region as for the inode.
//
// Source: the multi-granularity of VMS (Rdb, RMS global buffers) with its intention modes; Lustre's extent locks and
// glimpse, with regions of fixed size instead of extents.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// The lock of one region of a file on this node. Engine-bound.
final class Region: GlockOwner {
    let index: UInt64
    /// Its bytes in the file.
    let bytes: Range<UInt64>
    let glock: Glock
    private unowned let inode: Inode

    package func isChangedAgain(_ glock: Glock) -> Bool { true }

    init(_ index: UInt64, of inode: Inode) {
        let volume = inode.volume
        let size = UInt64(volume.superblock.regionSize)
        self.index = index
        self.inode = inode
        bytes = index * size..<(index + 1) * size
        glock = volume.locks.make(
            inode.glock.name.child(index),
            owner: nil,
            parent: inode.glock
        )
        glock.owner = self
    }

    func demote(_ glock: Glock, from: LockMode, to: LockMode) async {
        await inode.volume.demote(self, of: inode, from: from, to: to)
    }

    /// R8: not while the file is open here, nor under EX of the inode.
    func isSpare(_ glock: Glock) -> Bool { inode.opens == 0 && inode.glock.held != .exclusive }
}

/// The regions of a file that this node has locks of, by number.
struct RegionTable {
    private(set) var regions: [Region] = []
    private var next = 0

    /// More than so many of one file are given back when they are idle.
    static let limit = 1024

    /// Where a region is or belongs.
    private func place(of index: UInt64) -> Int {
        var (low, high) = (0, regions.count)
        while low < high {
            let middle = (low + high) / 2
            if regions[middle].index < index { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The region, made if it is not there.
    mutating func region(_ index: UInt64, of inode: Inode) -> Region {
        let place = place(of: index)
        if place < regions.count, regions[place].index == index { return regions[place] }
        let region = Region(index, of: inode)
        regions.insert(region, at: place)
        return region
    }

    /// The mode in which a region is held, `null` if it is not known.
    func held(_ index: UInt64) -> LockMode { known(index)?.glock.held ?? .null }

    /// The region, if it is there.
    func known(_ index: UInt64) -> Region? {
        let place = place(of: index)
        guard place < regions.count, regions[place].index == index else { return nil }
        return regions[place]
    }

    /// Gives an idle one back if there are too many, one after the other.
    mutating func trim(_ locks: LockTable) {
        guard regions.count > Self.limit else { return }
        next = (next + 1) % regions.count
        let glock = regions[next].glock
        guard glock.machine.isIdle else { return }
        if glock.held == .null {
            regions.remove(at: next)
            locks.discard(glock)
        } else {
            locks.reclaim(glock)
        }
    }

    /// Nothing is under way.
    var isIdle: Bool { regions.allSatisfy { $0.glock.machine.isIdle } }

    /// Gives all back.
    mutating func discardAll(_ locks: LockTable) {
        for region in regions { locks.discard(region.glock) }
        regions = []
    }
}

extension Inode {
    package func isWanted(_ glock: Glock, _ mode: LockMode) {
        guard glock === self.glock, mode == .concurrentWrite else { return }
        sharedSince = volume.engine.clock.now
    }
}

extension MountedVolume {
    // MARK: Which way

    /// Peers and this node get in each other's way so often that a writer here locks regions.
    func prefersRegions(_ inode: Inode) -> Bool {
        if let refused = inode.regionsRefusedAt,
            engine.clock.now.rawValue - refused.rawValue < Self.memoryOfRefusal
        {
            return false
        }
        return isRecent(inode.sharedSince)
            || (inode.fights >= options.fightsBeforeRegions && isRecent(inode.foughtOver))
    }

    /// For so long after a write that regions did not do for (R4), in nanoseconds.
    private static let memoryOfRefusal: UInt64 = 1_000_000_000

    private func isRecent(_ moment: Tick?) -> Bool {
        guard let moment else { return false }
        return engine.clock.now.rawValue - moment.rawValue < options.memoryOfFights
    }

    /// Whether a request that uses bytes of a file locks regions of it.
    func usesRegions(_ inode: Inode, writes: Bool) -> Bool {
        switch inode.glock.held {
        case .concurrentWrite: true
        case .null: writes ? prefersRegions(inode) : isRecent(inode.sharedSince)
        case .protectedRead: writes && prefersRegions(inode)
        default: false
        }
    }

    /// How an operation that only looks at the inode holds it: under CW nothing of it changes but times (R1).
    func lookMode(_ inode: Inode) -> HolderMode {
        inode.glock.held == .concurrentWrite ? .concurrent : .shared
    }

    // MARK: Holding

    /// The regions of some bytes.
    private func regions(of bytes: Range<UInt64>) -> ClosedRange<UInt64> {
        let size = UInt64(superblock.regionSize)
        return bytes.lowerBound / size...(max(bytes.upperBound, bytes.lowerBound + 1) - 1) / size
    }

    /// Whether some bytes reach over the edge of a region.
    func spansRegions(_ bytes: Range<UInt64>) -> Bool { regions(of: bytes).count > 1 }

    /// Whether this node has the regions of some bytes in a mode that covers `mode`.
    func holdsRegions(of bytes: Range<UInt64>, _ inode: Inode, _ mode: LockMode) -> Bool {
        regions(of: bytes).allSatisfy { inode.regions.held($0).covers(mode) }
    }

    /// Whether `enterRegions` would not have to wait.
    func canEnterRegions(of bytes: Range<UInt64>, _ inode: Inode, _ mode: HolderMode) -> Bool {
        regions(of: bytes).allSatisfy {
            inode.regions.known($0)?.glock.machine.canEnter(mode) == true
        }
    }

    /// How often a request over several regions tries.
    private static let mostTries = 8

    /// Enters the regions of some bytes, inside the inode's glock; nil if they were not to be had together (R3).
    /// `parking`: what the kernel does with the pages meanwhile. Ends with `leave`.
    func enterRegions(
        of bytes: Range<UInt64>,
        _ inode: Inode,
        _ mode: HolderMode,
        parking kind: ParkedRequest.Kind?,
        _ interruption: Interruption?
    ) async throws(FileError) -> [Region]? {
        inode.regionsUsedAt = engine.clock.now
        inode.regions.trim(locks)
        let pages = pages(around: bytes)
        let wanted = regions(of: bytes)
        var waited: Region?
        for _ in 0..<Self.mostTries {
            var missing: Region?
            var inside: [Region] = []
            for index in wanted {
                // Found anew each time: idle ones may have gone.
                let region = inode.regions.region(index, of: inode)
                if region === waited {
                    inside.append(region)
                } else if missing == nil {
                    if locks.enterIfPossible(region.glock, mode, bytes: pages) {
                        inside.append(region)
                    } else {
                        missing = region
                    }
                }
            }
            guard let missing else { return inside }
            leave(inside, mode)
            try await wait(for: missing, inode, mode, pages, kind, interruption)
            waited = missing
        }
        if let waited { leave([waited], mode) }
        reached(.regionsGivenUp)
        return nil
    }

    private func wait(
        for region: Region,
        _ inode: Inode,
        _ mode: HolderMode,
        _ pages: Range<UInt64>,
        _ kind: ParkedRequest.Kind?,
        _ interruption: Interruption?
    ) async throws(FileError) {
        let ticket = kind.map { inode.pageUse.park($0, pages, region: region.index, mode) }
        defer { if let ticket { inode.pageUse.unpark(ticket) } }
        try await locks.enter(region.glock, mode, interruption, bytes: pages)
    }

    /// Ends `enterRegions`.
    func leave(_ regions: [Region], _ mode: HolderMode) {
        for region in regions { locks.leave(region.glock, mode) }
    }

    // MARK: Giving up

    /// Gives up what is kept of one region, as `demote` does for a whole file.
    func demote(_ region: Region, of inode: Inode, from: LockMode, to: LockMode) async {
        counters.regionDemotions += 1
        // What the region protects is just being given up with all the rest; who waits for the region and is waited
        // for uses what it still has.
        while inode.glock.machine.isDemoting {
            locks.admitUsers(of: [region.bytes], region.glock)
            await locks.waitForDemotion(of: inode.glock)
            locks.admitUsers(of: [], region.glock)
        }
        // R2: otherwise whatever there is is protected by the inode's lock alone, or has gone with it.
        guard locks.enterPastWaiters(inode.glock) else {
            return await locks.drain(region.glock, to: to)
        }
        defer { locks.leave(inode.glock, .concurrent) }
        // Clean pages that nobody can change without a word may stay.
        let keepsPages = to == .protectedRead && inode.readWriteOpens == 0
        if kernel != nil, inode.kernelMayCache, !keepsPages {
            region.glock.step = .invalidating
            await invalidatePages(
                Invalidation(
                    inode: inode,
                    glock: region.glock,
                    range: region.bytes,
                    held: from,
                    mode: to,
                    region: region.index
                )
            )
        }
        region.glock.step = .draining
        await locks.drain(region.glock, to: to)
        guard from == .exclusive, let dirty = inode.dirty else { return }
        region.glock.step = .writing
        let size = UInt64(blockSize)
        do throws(DeviceError) {
            try await dirty.writeBackAndForget(
                region.bytes.lowerBound / size..<region.bytes.upperBound / size
            )
        } catch {
            withdraw("writing the data of \(inode.number) failed: \(error)")
            await standStill()
        }
    }

    /// Goes back from regions to the whole file, where nobody else uses it any more; gives the lock of an idle file
    /// up, so that others may. Called by a timer.
    func leaveRegions() {
        inodes.forEach { inode in
            guard inode.glock.held == .concurrentWrite, inode.glock.machine.isIdle else { return }
            let unused = engine.clock.now.rawValue - inode.regionsUsedAt.rawValue
            if unused >= 3 * options.memoryOfFights {
                locks.reclaim(inode.glock)
            } else if !isRecent(inode.sharedSince), !isRecent(inode.foughtOver) {
                inode.pins += 1
                engine.spawn {
                    if await self.locks.enterWithoutQueueing(
                        inode.glock,
                        .exclusive,
                        notifies: false
                    ) {
                        reached(.regionsLeft)
                        self.locks.leave(inode.glock, .exclusive)
                    }
                    inode.pins -= 1
                    self.unrefer(inode)
                }
            }
        }
    }
}
