// Giving a lock up: what was cached under it is written back and invalidated first.
//
//   1. keep new holders out                      the glock's machine, from the blocking notice on
//   2. wait for those inside                     the machine calls `demote` when nobody is inside
//   beyond the new mode
//   3. invalidate the kernel's caches            entries and listing of a directory; attributes and
//   pages of a file. What
//                                                is dirty in a shared mapping comes back as WRITEs
//                                                meanwhile.
//   4. write the dirty data                      by addresses already known
//   5. commit the journal, write metadata home   write-ahead: never the other way round
//   6. forget metadata, when nothing may be kept
//   7. convert the lock                          the machine, after `demotionFinished`
//
// Step 3 is the delicate one (Docs/KERNEL.md, rules F1 to F5). The kernel's invalidation waits for
// pages that it has locked while it waits for us: a fill (READ) or a cached write whose last page
// is partial. So while it runs
//   - requests that the held mode covers are answered at once ("urgent" holders), their ranges
//   remembered, and invalidated
//     again until a pass has met none;
//   - requests that it does not cover stay parked, and their pages are left out: such a page is
//   locked and holds nothing
//     that could be stale;
//   - a request that parks while a pass runs may be what the pass waits for: the pass is then left
//   to itself and a new
//     one leaves the page out.

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
}

extension MountedVolume {
    /// Commits what was changed under a lock and writes it home. If that fails the volume withdraws
    /// and the lock is not given up: peers get it when this node is out and its journal was
    /// replayed.
    func settle(_ glock: Glock) async {
        do throws(StorageError) {
            if store.isSettled(glock.name, journal) { return }
            try await store.settle(glock.name, journal)
            locks.note(glock, .committed(blocks: 0))
        } catch {
            withdraw("writing back what \(glock.name) protects failed: \(error)")
            await standStill()
        }
    }

    /// Never returns: a withdrawn node gives nothing up in order.
    private func standStill() async {
        while true { await stillness.wait() }
    }

    func demote(_ inode: Inode, from: LockMode, to: LockMode) async {
        counters.demotions += 1
        await invalidateKernel(inode, from: from, to: to)
        await locks.drain(inode.glock, to: to)
        if from == .exclusive {
            await writeBackForDemotion(inode)
            await settle(inode.glock)
        }
        guard to == .null else { return }
        inode.stored = nil
        inode.dirty = nil
        cache.drop(covering: inode.glock.name)
    }

    private func writeBackForDemotion(_ inode: Inode) async {
        guard let dirty = inode.dirty, !dirty.isEmpty || dirty.needsFlush else { return }
        let bytes = UInt64(dirty.byteCount)
        do throws(StorageError) {
            while !dirty.isEmpty { try await dirty.writeBack() }
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
        // Before, not after: what is told meanwhile to those whom PR covers may be kept, and has to be
        // taken back when PR goes.
        inode.kernelMayCache = false
        if inode.answered.isEmpty {
            await invalidatePages(inode, kernel, to: to)
            locks.note(inode.glock, .invalidated(names: nil))
        } else {
            let answered = inode.answered
            inode.answered = AnsweredNames()
            counters.invalidatedNames += UInt64(answered.names.count)
            await kernel.invalidateEntries(
                of: inode.handle,
                names: answered.overflowed ? nil : answered.names
            )
            locks.note(inode.glock, .invalidated(names: answered.names.count))
        }
        counters.invalidatedInodes += 1
    }

    /// Drops all pages and attributes of a file from the kernel (see the head of this file).
    private func invalidatePages(
        _ inode: Inode,
        _ kernel: any KernelCache,
        to mode: LockMode
    ) async {
        inode.isInvalidating = true
        inode.invalidations += 1
        if inode.writableOpens > 0 { inode.wasInvalidatedWhileWritable = true }
        var ranges: [Range<UInt64>] = [0..<UInt64.max]
        inode.filledDuringInvalidation = []
        while !ranges.isEmpty {
            locks.admitUrgent(inode.glock, true)
            while !ranges.isEmpty {
                let isComplete = await invalidationPass(
                    inode,
                    kernel,
                    without(inode.parkedPages(pageSize: 4096), ranges)
                )
                if isComplete { ranges = [] }
                ranges += inode.filledDuringInvalidation
                inode.filledDuringInvalidation = []
                if !ranges.isEmpty { counters.repeatedInvalidations += 1 }
            }
            locks.admitUrgent(inode.glock, false)
            // Who was let in just before the door closed may fill pages yet.
            await locks.drain(inode.glock, to: mode)
            ranges = inode.filledDuringInvalidation
            inode.filledDuringInvalidation = []
        }
        inode.isInvalidating = false
    }

    /// Invalidates ranges; false if a request parked meanwhile that the kernel may be waiting for.
    private func invalidationPass(
        _ inode: Inode,
        _ kernel: any KernelCache,
        _ ranges: [Range<UInt64>]
    ) async -> Bool {
        let outcome = Outcome<Bool>()
        inode.whenParked = { [engine] in
            // A short time for the pass to end by itself: most passes are not waiting for the
            // request.
            let soon = engine.clock.now.advanced(milliseconds: 1)
            engine.clock.schedule(
                at: soon,
                in: engine,
                EngineBound {
                    if outcome.value == nil { outcome.deliver(false) }
                }
            )
        }
        var remaining = ranges.count
        if remaining == 0 { outcome.deliver(true) }
        let handle = inode.handle
        for range in ranges {
            engine.spawn {
                await kernel.invalidateInode(
                    handle,
                    data: (
                        range.lowerBound,
                        range.upperBound == .max ? nil : UInt64(range.count)
                    )
                )
                remaining -= 1
                if remaining == 0, outcome.value == nil { outcome.deliver(true) }
            }
        }
        let isComplete = await outcome.get()
        inode.whenParked = nil
        return isComplete
    }

    /// Drops the pages of one range of a file whose lock is held; waits at most a millisecond,
    /// because a page that the kernel has locked for the very request that is being answered need
    /// not be waited for (rule F5).
    func invalidateBriefly(_ inode: Inode, _ range: Range<UInt64>) async {
        guard let kernel else { return }
        let outcome = Outcome<Void>()
        let handle = inode.handle
        engine.spawn {
            await kernel.invalidateInode(handle, data: (range.lowerBound, UInt64(range.count)))
            if outcome.value == nil { outcome.deliver(()) }
        }
        engine.clock.schedule(
            at: engine.clock.now.advanced(milliseconds: 1),
            in: engine,
            EngineBound { if outcome.value == nil { outcome.deliver(()) } }
        )
        await outcome.get()
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

extension Inode {
    /// Pages of parked requests, rounded out, ascending.
    func parkedPages(pageSize: UInt64) -> [Range<UInt64>] {
        var pages = parkedWrites.map { $0.page..<$0.page + pageSize }
        for read in parkedReads {
            let start = read.range.lowerBound / pageSize * pageSize
            let end = (read.range.upperBound + pageSize - 1) / pageSize * pageSize
            pages.append(start..<end)
        }
        return pages.sorted { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }
    }
}
