// Giving a lock up: what was cached under it is written back and invalidated first.
//
//   1. keep new holders out            the glock's machine, from the blocking notice on
//   2. wait for those inside           the machine calls `demote` when nobody is inside beyond the
//                                      new mode
//   3. invalidate the kernel's caches  entries and listing of a directory; attributes and pages of
//                                      a file. What is dirty in a shared mapping comes back as
//                                      WRITEs meanwhile.
//   4. write the dirty data            by addresses already known
//   5. commit the journal, write       write-ahead: never the other way round
//      metadata home
//   6. forget metadata                 when nothing may be kept
//   7. convert the lock                the machine, after `demotionFinished`
//
// Step 3 is the delicate one (Docs/KERNEL.md, rules F1 to F5; the bookkeeping is in PageUse.swift).
// The kernel's invalidation of a page waits while the page is locked for a request of ours: a fill
// (READ), a write(2) that covers it in part, or its own write-back. So
//
//   D1. Under EX every request is covered, and those that use bytes of the running pass are let in
//       ("urgent" holders). A pass under EX leaves no page out: when it has ended, every write-back
//       of its range has been carried out under EX. Nothing that was changed is left in the kernel.
//   D2. Under PR those that only read are let in. Who needs EX stays parked; the pages of fills and
//       write-backs among them are left out (locked, and they show nothing that could be old).
//   D3. A write(2) that is parked under PR has its last page locked if the page was not up to date,
//       and then it shows nothing either. If the page was filled under PR, it is not locked and
//       must go. Which it is only the kernel knows: the page is dropped by a call of its own, which
//       is not waited for longer than `patience`. Where nothing was filled there is no doubt.
//   D4. What was let in during a pass and left pages behind is invalidated by another pass, over
//       just these bytes, until a pass has met none. Requests that use other bytes wait.
//   D5. A write(2) that has to wait for EX drops the pages that it covers as a whole before it
//       waits: the kernel takes them for up to date (Writing.swift, `dropUnwritten`).
//   D6. Between the last pass and the conversion nobody enters whom the new mode does not cover.
//   D7. A request that waits for one lock while another is given up: under CW, and for a region
//       (Regions.swift), the pages of a request that waits elsewhere are left out as under PR, and D3
//       holds for a write(2) among them; under EX those of one that will lock regions are. But for a
//       write-back that a lock covers: it is let in wherever it has to go, because it uses only what
//       this node still has.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension Inode: GlockOwner {
    package func demote(_ glock: Glock, from: LockMode, to: LockMode) async {
        if glock === openGlock { return }  // protects nothing cached
        await volume.demote(self, from: from, to: to)
    }

    package func keepsForItsCost(_ glock: Glock) -> Bool { glock === self.glock }

    /// Not where a write would rather lock a region: it would find EX, and never come to that.
    package func isChangedAgain(_ glock: Glock) -> Bool {
        glock === self.glock && !volume.prefersRegions(self)
    }
}

extension MountedVolume {
    /// Commits what was changed under a lock and writes it home. If that fails the volume withdraws
    /// and the lock is not given up: peers get it when this node is out and its journal was
    /// replayed.
    func settle(_ glock: Glock) async {
        do throws(StorageError) {
            if store.isSettled(glock.name, journal) { return }
            glock.step = .committing
            try await store.settle(glock.name, journal)
            locks.note(glock, .committed(blocks: 0))
        } catch {
            withdraw("writing back what \(glock.name) protects failed: \(error)")
            await standStill()
        }
    }

    /// Never returns: a withdrawn node gives nothing up in order (V4).
    func standStill() async {
        while true { await stillness.wait() }
    }

    func demote(_ inode: Inode, from: LockMode, to: LockMode) async {
        counters.demotions += 1
        inode.lostAt = engine.clock.now
        // Also if it was open at some time since the lock was granted: who takes a file to write to it, and closes it again, may
        // be kept from it by others that do the same.
        let wasOpen = from == .exclusive && inode.closedAt >= inode.glock.grantedAt
        if inode.opens > 0 || wasOpen { inode.noteFight(at: engine.clock.now) }
        inode.glock.step = .invalidating
        await invalidateKernel(inode, from: from, to: to)
        inode.glock.step = .draining
        await locks.drain(inode.glock, to: to)
        if from == .exclusive { await storeTimesForDemotion(inode) }
        if from == .exclusive || from == .concurrentWrite {
            await writeBackForDemotion(inode)
            await settle(inode.glock)
        }
        if to != .protectedRead {
            inode.hasAllTimes = false
            inode.hasStoredTimes = false
        }
        guard to == .null else { return }
        inode.stored = nil
        inode.dirty = nil
        cache.drop(covering: inode.glock.name)
    }

    private func writeBackForDemotion(_ inode: Inode) async {
        guard let dirty = inode.dirty, !dirty.isEmpty || dirty.needsFlush else { return }
        let bytes = UInt64(dirty.byteCount)
        inode.glock.step = .writing
        do throws(StorageError) {
            while !dirty.isEmpty { try await dirty.writeOrderedData() }
            // Whoever has the file next may be asked to make it durable and does not know of these
            // writes. The commit that follows flushes, if there is one to come.
            let landed = dirty.landedCount
            if dirty.needsFlush, !journal.isRunning(inode.lastSequence) {
                try await flushDevice()
                dirty.flushed(through: landed)
            }
            locks.note(inode.glock, .flushed(bytes: bytes))
        } catch {
            withdraw("writing the data of \(inode.number) failed: \(error)")
            await standStill()
        }
    }

    private func invalidateKernel(_ inode: Inode, from: LockMode, to: LockMode) async {
        guard let kernel, inode.kernelMayCache || !inode.answered.isEmpty else { return }
        if to == .protectedRead && inode.readWriteOpens == 0 { return }
        // The kernel has forgotten it, and whatever it had of it: memory wants the lock back, or the
        // inode is gone.
        if inode.lookups == 0, inode.opens == 0, inode.listings == 0 {
            inode.kernelMayCache = false
            inode.answered = AnsweredNames()
            return
        }
        // Before, not after: what is told meanwhile to those whom PR covers may be kept, and has to be
        // taken back when PR goes.
        inode.kernelMayCache = false
        inode.toldChange = nil
        inode.takesBackAt = nil
        if inode.answered.isEmpty {
            await invalidatePages(
                Invalidation(
                    inode: inode,
                    glock: inode.glock,
                    range: 0..<UInt64.max,
                    held: from,
                    mode: to,
                    region: nil
                )
            )
            locks.note(inode.glock, .invalidated(names: nil))
        } else {
            let answered = inode.answered
            inode.answered = AnsweredNames()
            if answered.overflowed { reached(.namesOverflowed) }
            counters.invalidatedNames += UInt64(answered.names.count)
            await kernel.invalidateEntries(
                of: inode.handle,
                names: answered.overflowed ? nil : answered.names
            )
            locks.note(inode.glock, .invalidated(names: answered.names.count))
        }
        counters.invalidatedInodes += 1
    }

    /// Drops the pages of a range, and the attributes, of a file from the kernel (see the head of this file).
    func invalidatePages(_ invalidation: Invalidation) async {
        let inode = invalidation.inode
        inode.invalidations += 1
        if inode.writableOpens > 0 { inode.wasInvalidatedWhileWritable = true }
        let pass = inode.pageUse.beginPass(invalidation.range)
        var ranges = [invalidation.range]
        while !ranges.isEmpty {
            locks.admitUsers(of: ranges, invalidation.glock)
            await dropAroundParked(ranges, invalidation, pass)
            locks.admitUsers(of: [], invalidation.glock)
            // Who was let in may leave pages behind yet (D4).
            await locks.drain(invalidation.glock, to: invalidation.mode)
            ranges = inode.pageUse.takeTouched(pass)
            if !ranges.isEmpty {
                counters.repeatedInvalidations += 1
                reached(.passRepeated)
            }
        }
        inode.pageUse.endPass(pass)
    }

    /// Has ranges invalidated; the outcome arrives when all have been.
    private func drop(
        _ ranges: [Range<UInt64>],
        _ inode: Inode,
        whenBegun: (() -> Void)? = nil
    ) -> Outcome<Void> {
        let outcome = Outcome<Void>()
        var remaining = ranges.count
        if remaining == 0 { outcome.deliver(()) }
        for range in ranges {
            engine.spawn {
                let length = range.upperBound == .max ? nil : UInt64(range.count)
                await self.takeBack(inode, data: (range.lowerBound, length), whenBegun: whenBegun)
                remaining -= 1
                if remaining == 0 { outcome.deliver(()) }
            }
        }
        return outcome
    }

    /// A pass that leaves out what parked requests hold (D2, D3, D7).
    private func dropAroundParked(
        _ ranges: [Range<UInt64>],
        _ invalidation: Invalidation,
        _ pass: UInt64
    ) async {
        let inode = invalidation.inode
        var doubtful: [Range<UInt64>] = []
        var isComplete = false
        while !isComplete {
            doubtful = inode.pageUse.parkedPages {
                invalidation.leavesOut($0) && $0.kind == .partialWrite
            }
            let holes = inode.pageUse.parkedPages { invalidation.leavesOut($0) }
            if !holes.isEmpty { reached(.pagesLeftOut) }
            isComplete = await ends(
                drop(without(holes, ranges), inode),
                invalidation,
                pass
            )
            if !isComplete { reached(.passRestarted) }
        }
        let patience = invalidation.held == .exclusive ? Self.longPatience : Self.patience
        for page in doubtful where inode.pageUse.mayBeUpToDate(page) {
            counters.doubtfulPages += 1
            reached(.doubtfulPage)
            await dropIfFree(page, inode, milliseconds: patience)
        }
    }

    /// How long a page is waited for that is locked or will be dropped within microseconds, in
    /// milliseconds (D3).
    private static let patience: UInt64 = 50
    /// The same where it may have to be written back first.
    private static let longPatience: UInt64 = 10_000

    /// Waits for the end of a pass; false if a request parked meanwhile that the kernel may be
    /// waiting for. The pass then goes on by itself, and another one leaves the request's pages out.
    private func ends(
        _ drop: Outcome<Void>,
        _ invalidation: Invalidation,
        _ pass: UInt64
    ) async -> Bool {
        let inode = invalidation.inode
        let outcome = Outcome<Bool>()
        inode.pageUse.whenParked(pass) { [engine] ticket in
            // A short time for the pass to end by itself: most passes are not waiting for the
            // request, and who is let in is not parked for long.
            let soon = engine.clock.now.advanced(milliseconds: 1)
            engine.clock.schedule(
                at: soon,
                in: engine,
                EngineBound {
                    guard outcome.value == nil,
                        inode.pageUse.isParked(ticket, where: { invalidation.leavesOut($0) })
                    else { return }
                    outcome.deliver(false)
                }
            )
        }
        engine.spawn {
            await drop.get()
            if outcome.value == nil { outcome.deliver(true) }
        }
        let isComplete = await outcome.get()
        inode.pageUse.whenParked(pass, nil)
        return isComplete
    }

    /// Drops a page that may be locked; waits for it, or for a time from when the kernel was told.
    private func dropIfFree(
        _ page: Range<UInt64>,
        _ inode: Inode,
        milliseconds: UInt64
    ) async {
        let outcome = Outcome<Void>()
        let pass = drop([page], inode) { [engine] in
            engine.clock.schedule(
                at: engine.clock.now.advanced(milliseconds: milliseconds),
                in: engine,
                EngineBound { if outcome.value == nil { outcome.deliver(()) } }
            )
        }
        engine.spawn {
            await pass.get()
            if outcome.value == nil { outcome.deliver(()) }
        }
        await outcome.get()
    }

    /// Drops the pages of a cached write that was carried out (rule F5). The last page, if the write
    /// covers it in part, may be locked for this very request; then it shows nothing, and is not
    /// waited for longer than a millisecond.
    func invalidateAfterwards(_ inode: Inode, _ range: Range<UInt64>) async {
        guard kernel != nil else { return }
        let all = pages(around: range)
        let last = lockedPage(of: range)
        let front = all.lowerBound..<(last?.lowerBound ?? all.upperBound)
        if !front.isEmpty { await drop([front], inode).get() }
        if let last { await dropIfFree(last, inode, milliseconds: 1) }
    }

    /// Drops the pages of one range and waits until they are gone. Not for a request that has pages
    /// locked in the kernel, nor inside the lock.
    func invalidateWholly(_ inode: Inode, _ range: Range<UInt64>) async {
        guard kernel != nil else { return }
        await drop([range], inode).get()
    }
}

/// One invalidation of the kernel's pages of a file, because a lock is given up.
struct Invalidation {
    let inode: Inode
    /// The lock: the inode's, or a region's.
    let glock: Glock
    let range: Range<UInt64>
    let held: LockMode
    let mode: LockMode
    /// Which region; nil for the inode's lock.
    let region: UInt64?

    /// Whether the kernel may be holding pages for a request that is not let in (D2, D3, D7).
    func leavesOut(_ request: ParkedRequest) -> Bool {
        Self.leavesOut(request, region: region, held: held)
    }

    static func leavesOut(_ request: ParkedRequest, region: UInt64?, held: LockMode) -> Bool {
        switch (region, held) {
        case (nil, .exclusive): request.mode == .concurrent && request.kind != .writeBack
        case (nil, .concurrentWrite): request.kind != .writeBack
        case (nil, _): true
        case (let own, .exclusive): request.region != own && request.kind != .writeBack
        case (let own, _): request.region != own || request.mode != .shared
        }
    }
}

/// `ranges` without the pages in `holes`, which are ascending.
private func without(_ holes: [Range<UInt64>], _ ranges: [Range<UInt64>]) -> [Range<UInt64>] {
    var rest: [Range<UInt64>] = []
    for range in ranges {
        var start = range.lowerBound
        for hole in holes where hole.upperBound > start && hole.lowerBound < range.upperBound {
            if hole.lowerBound > start { rest.append(start..<hole.lowerBound) }
            start = max(start, hole.upperBound)
        }
        if start < range.upperBound { rest.append(start..<range.upperBound) }
    }
    return rest
}
