// The page cache of one file, and what fills, dirties and drops it.

import Execution
package import FileSystem
import Vocabulary

/// One page of a file in the kernel's cache.
final class KernelPage {
    static let size = 4096

    let index: UInt64
    var bytes = [UInt8](repeating: 0, count: KernelPage.size)
    var isUptodate = false
    /// Changed through a shared mapping and not written back.
    var isDirty = false
    /// What it had then is on its way to the daemon.
    var isBeingWritten = false
    /// No longer in the cache: whoever waited for the lock looks again.
    var isGone = false
    let lock = PageLock()

    init(index: UInt64) { self.index = index }
}

/// The pages of one file, ascending.
final class KernelPages {
    private(set) var pages: [KernelPage] = []

    private func place(_ index: UInt64) -> Int {
        var low = 0
        var high = pages.count
        while low < high {
            let middle = (low + high) / 2
            if pages[middle].index < index { low = middle + 1 } else { high = middle }
        }
        return low
    }

    subscript(index: UInt64) -> KernelPage? {
        let place = place(index)
        return place < pages.count && pages[place].index == index ? pages[place] : nil
    }

    /// The first page at or behind `index`.
    func first(from index: UInt64) -> KernelPage? {
        let place = place(index)
        return place < pages.count ? pages[place] : nil
    }

    func insert(_ page: KernelPage) {
        precondition(self[page.index] == nil, "two pages of one place")
        pages.insert(page, at: place(page.index))
    }

    func remove(_ page: KernelPage) {
        page.isGone = true
        pages.removeAll { $0 === page }
    }

    func removeAll() {
        for page in pages { page.isGone = true }
        pages = []
    }

    /// Some page is locked.
    var isBusy: Bool { pages.contains { $0.lock.isTaken } }
    var hasDirty: Bool { pages.contains { $0.isDirty } }
}

extension KernelModel {
    // MARK: Filling

    /// The page, locked, filled if it was not; nil if the file ends before it. `file` is whose
    /// flags the READ carries.
    func lockedPage(
        _ file: KernelFile,
        _ index: UInt64
    ) async throws(FileError) -> KernelPage? {
        let inode = file.inode
        while true {
            if let page = inode.pages[index] {
                await page.lock.enter()
                if !page.isGone {
                    if page.isUptodate { return page }
                    try await fill(file, [page], keeping: page)
                    if page.isUptodate { return page }
                }
                page.lock.leave()
                if index * UInt64(KernelPage.size) >= inode.size { return nil }
                continue
            }
            guard index * UInt64(KernelPage.size) < inode.size else { return nil }
            let run = newRun(inode, index)
            let wanted = run[Int(index - run[0].index)]
            try await fill(file, run, keeping: wanted)
            if wanted.isUptodate, !wanted.isGone { return wanted }
            wanted.lock.leave()
            if index * UInt64(KernelPage.size) >= inode.size { return nil }
        }
    }

    /// How far a kernel reads that misses a page: a little on, much, or, as for a fault of a
    /// mapping, all around.
    private func wantedPages(_ inode: KernelInode, _ index: UInt64) -> Range<UInt64> {
        if let habits { return habits.readAhead(inode.handle, index) }
        if dice.oneIn(12) { return index - min(index, UInt64(dice.below(16)))..<index + 16 }
        return index..<index + UInt64(1 + dice.below(dice.oneIn(3) ? 12 : 3))
    }

    /// New locked pages around `index`, as far as read-ahead goes.
    private func newRun(_ inode: KernelInode, _ index: UInt64) -> [KernelPage] {
        let last = (inode.size - 1) / UInt64(KernelPage.size)
        let wanted = wantedPages(inode, index)
        var start = index
        while start > wanted.lowerBound, inode.pages[start - 1] == nil { start -= 1 }
        let end = min(
            max(wanted.upperBound, index + 1),
            last + 1,
            inode.pages.first(from: index)?.index ?? UInt64.max
        )
        return (start..<end).map { index in
            let page = KernelPage(index: index)
            let entered = page.lock.enterIfFree()
            precondition(entered, "a new page is free")
            inode.pages.insert(page)
            return page
        }
    }

    /// READ for a run of locked pages. All but `kept` are unlocked when this returns or throws;
    /// when it throws, that one too.
    private func fill(
        _ file: KernelFile,
        _ run: [KernelPage],
        keeping kept: KernelPage
    ) async throws(FileError) {
        let inode = file.inode
        let since = attributeMark()
        let offset = run[0].index * UInt64(KernelPage.size)
        let buffer = StableBytes(count: run.count * KernelPage.size)
        let (node, handle) = (inode.handle, file.handle)
        let count: Int
        do throws(FileError) {
            count = try await ask { () async throws(FileError) in
                try await self.volume.read(
                    node,
                    handle,
                    at: offset,
                    into: buffer.bytes,
                    isFill: true,
                    reader: nil,
                    nil
                )
            }
        } catch {
            for page in run {
                inode.pages.remove(page)
                page.lock.leave()
            }
            throw error
        }
        trace?("\(name) READ \(inode.identity) \(offset)+\(run.count * KernelPage.size): \(count)")
        invalidateAttributes(inode, .access)
        for (position, page) in run.enumerated() {
            let start = position * KernelPage.size
            let length = max(0, min(KernelPage.size, count - start))
            page.bytes.withUnsafeMutableBytes { bytes in
                bytes.initializeMemory(as: UInt8.self, repeating: 0)
                bytes.copyMemory(
                    from: UnsafeRawBufferPointer(
                        rebasing: buffer.bytes[min(start, count)..<min(start, count) + length]
                    )
                )
            }
            page.isUptodate = true
        }
        if count < run.count * KernelPage.size, inode.attributeVersion <= since,
            offset + UInt64(count) < inode.size
        {
            inode.size = offset + UInt64(count)
            inode.attributeVersion = nextVersion()
        }
        for page in run where page !== kept { page.lock.leave() }
    }

    /// Reads pages that are not there, before anybody asks for them.
    package func readAhead(_ file: KernelFile, _ pages: Range<UInt64>) async {
        guard !file.isClosed else { return }
        file.users += 1
        defer {
            file.users -= 1
            if file.users == 0 { file.unused.notify() }
        }
        for index in pages where file.inode.pages[index] == nil {
            // Nobody waits for this: it is not what keeps a mount.
            if isUnmounting || isDead || file.isClosed { return }
            do throws(FileError) {
                try await lockedPage(file, index)?.lock.leave()
            } catch {
                return  // Nobody asked.
            }
        }
    }

    // MARK: Dropping

    /// Drops all pages behind the new end of a file, and zeroes the rest of the last one.
    func truncatePages(_ inode: KernelInode, to size: UInt64) async {
        let unit = UInt64(KernelPage.size)
        var next = size / unit
        while let page = inode.pages.first(from: next) {
            next = page.index + 1
            await page.lock.enter()
            if !page.isGone {
                if page.index * unit >= size {
                    inode.pages.remove(page)
                } else {
                    for position in Int(size % unit)..<KernelPage.size { page.bytes[position] = 0 }
                }
            }
            page.lock.leave()
        }
    }

    /// Drops the pages in a range, dirty or not, and zeroes the parts of others (truncate_pagecache_range).
    ///
    /// Linux keeps a clean page of which it has zeroed a part. If a mapping has stored into it since the hole was
    /// made, and that was written back, then the page shows zeros where the device has what was stored
    /// (Docs/CAVEATS.md). Here such a page goes.
    func zeroPages(_ inode: KernelInode, _ range: Range<UInt64>) async {
        let unit = UInt64(KernelPage.size)
        var next = range.lowerBound / unit
        while let page = inode.pages.first(from: next), page.index * unit < range.upperBound {
            next = page.index + 1
            await page.lock.enter()
            if !page.isGone {
                let start = page.index * unit
                let part = range.clamped(to: start..<start + unit)
                if part.count == KernelPage.size || !page.isDirty {
                    inode.pages.remove(page)
                } else {
                    for place in part { page.bytes[Int(place - start)] = 0 }
                }
            }
            page.lock.leave()
        }
    }

    /// Drops all pages of a range of bytes, writing dirty ones first.
    func dropPages(_ inode: KernelInode, _ offset: UInt64, _ length: UInt64?) async {
        let unit = UInt64(KernelPage.size)
        var next = offset / unit
        let last = length.map { $0 == 0 ? next : (offset + $0 - 1) / unit } ?? UInt64.max
        while let page = inode.pages.first(from: next), page.index <= last {
            next = page.index + 1
            await page.lock.enter()
            if !page.isGone {
                if page.isDirty { await writeBack(inode, page) }
                inode.pages.remove(page)
            }
            page.lock.leave()
        }
    }

    /// Writes back what shared mappings have changed, of some bytes or of all.
    func writeBackDirtyPages(_ inode: KernelInode, _ bytes: Range<UInt64>? = nil) async {
        let unit = UInt64(KernelPage.size)
        var next = (bytes?.lowerBound ?? 0) / unit
        let end = bytes.map { ($0.upperBound + unit - 1) / unit } ?? UInt64.max
        while let page = inode.pages.first(from: next), page.index < end {
            next = page.index + 1
            // What is under way already is waited for, as filemap_write_and_wait(9) does.
            guard page.isDirty || page.isBeingWritten else { continue }
            await page.lock.enter()
            if !page.isGone, page.isDirty { await writeBack(inode, page) }
            page.lock.leave()
        }
    }

    /// WRITE of one dirty page, which is locked.
    private func writeBack(_ inode: KernelInode, _ page: KernelPage) async {
        guard let file = inode.writableFile else { return }
        page.isDirty = false
        page.isBeingWritten = true
        file.users += 1
        defer {
            page.isBeingWritten = false
            file.users -= 1
            if file.users == 0 { file.unused.notify() }
        }
        let bytes = StableBytes(page.bytes)
        let (node, handle) = (inode.handle, file.handle)
        let offset = page.index * UInt64(KernelPage.size)
        trace?("\(name) WRITE (mapping) \(inode.identity) \(offset)+\(KernelPage.size)")
        do throws(FileError) {
            _ = try await ask { () async throws(FileError) in
                try await self.volume.write(
                    node,
                    handle,
                    at: offset,
                    from: bytes.readOnly,
                    WriteFlags(
                        appends: false,
                        isWriteback: true,
                        isDirect: false,
                        dropsPrivileges: false
                    ),
                    nil
                )
            }
            invalidateAttributes(inode, [.modification, .change])
            trace?("\(name) has written (mapping) \(inode.identity) \(offset)")
        } catch {
            writebackErrors.append(error)
        }
    }

    // MARK: Invalidation

    package func invalidateInode(
        _ node: NodeHandle,
        data: (offset: UInt64, length: UInt64?)?,
        mayBegin: (() -> Bool)?
    ) async -> InvalidationEnd {
        if let mayBegin, !mayBegin() { return .notBegun }
        while !isDead, inode(node) == nil || isInTransit(node) {
            // The first reply that makes the inode known is on its way (rule F4).
            guard isInTransit(node) else { return .done }
            await transit()
        }
        guard !isDead, let inode = inode(node) else { return .done }
        inode.pins += 1
        defer { inode.pins -= 1 }
        invalidateAttributes(inode)
        inode.attributeVersion = nextVersion()
        guard let data else { return .done }
        inode.listing = nil
        if data.offset < UInt64(KernelPage.size) { inode.linkTarget = nil }
        trace?("\(name) invalidates \(inode.identity) from \(data.offset)")
        await dropPages(inode, data.offset, data.length)
        trace?("\(name) has invalidated \(inode.identity) from \(data.offset)")
        return .done
    }

    /// Its threads are no threads of this machine.
    package func timesRun(_ thread: UInt32) -> UInt64? { nil }

    package func invalidateEntries(of parent: NodeHandle, names: [[UInt8]]?) async {
        guard !isDead else { return }
        trace?(
            "\(name) invalidates names of \(parent.rawValue): \(names.map { text($0) } ?? "all")"
        )
        let directory = inode(parent)
        if let names, directory?.latch.isIdle != false, habits != nil || !dice.oneIn(4) {
            if let directory {
                await directory.latch.enterExclusive()
                for name in names { invalidateName(directory, name) }
                directory.directoryVersion += 1
                directory.latch.leaveExclusive()
            }
        } else {
            epoch += 1
        }
        await invalidateInode(parent, data: (0, nil))
    }
}
