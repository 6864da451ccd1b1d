// Taking back what the kernel has of an inode, and no answer on its way with it (KERNEL F6).
//
// Every notification makes the kernel disregard the answers to what was asked before. So it waits until those who asked for attributes to read a
// file have been answered and have taken it in (ToldSize); and just before the kernel is told everything that it had asked is
// received and this is seen to once more. Between that moment and the kernel's own a question can still be asked and its answer
// lost: microseconds. (So it may be when `longestTakingBack` is over.)

import Execution
import Vocabulary

extension MountedVolume {
    /// After so long an invalidation begins whoever has asked, in nanoseconds; for those who have been told, ToldSize S2.
    private static let longestTakingBack: UInt64 = 1_000_000_000

    /// Has the kernel drop the attributes of an inode, and pages if `data` says so, by `KernelCache.invalidateInode`.
    func takeBack(
        _ inode: Inode,
        data: (offset: UInt64, length: UInt64?)?,
        whenBegun: (() -> Void)? = nil
    ) async {
        guard let kernel, data?.length != 0 else { return }
        guard inode.opens > 0 else {
            // Nobody here reads it.
            whenBegun?()
            await kernel.invalidateInode(inode.handle, data: data)
            return
        }
        let start = engine.clock.now
        var end = InvalidationEnd.notBegun
        while end == .notBegun {
            await waitForReaders(inode, since: start)
            end = await kernel.invalidateInode(inode.handle, data: data) { [self] in
                if mustWaitForReaders(inode, since: start) != nil { return false }
                inode.toldSize.invalidationBegins()
                whenBegun?()
                return true
            }
        }
        inode.toldSize.invalidationEnds(isDoubtful: end == .metQuestions, at: engine.clock.now)
    }

    private func waitForReaders(_ inode: Inode, since start: Tick) async {
        guard mustWaitForReaders(inode, since: start) != nil else { return }
        reached(.readerAwaited)
        let isHeard = inode.readerHeard ?? Signal()
        inode.readerHeard = isHeard
        while let end = mustWaitForReaders(inode, since: start) {
            engine.clock.schedule(at: end, in: engine, EngineBound { isHeard.notify() })
            await isHeard.wait()
            if let kernel { inode.toldSize.look(at: engine.clock.now) { kernel.timesRun($0) } }
        }
    }

    /// When to look again.
    private func mustWaitForReaders(_ inode: Inode, since start: Tick) -> Tick? {
        let now = engine.clock.now
        let end = start.advanced(nanoseconds: Self.longestTakingBack)
        if inode.toldSize.isAsked, now < end { return end }
        return inode.toldSize.waitBeforeInvalidation(at: now)
    }
}
