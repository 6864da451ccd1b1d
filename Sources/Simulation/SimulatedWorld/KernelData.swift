// read(2), write(2) and stores through shared mappings.

import Execution
import FileSystem
import SimulatedMachine
package import Vocabulary

extension KernelModel {
    // MARK: Reading

    /// pread(2).
    package func read(
        _ file: KernelFile,
        at offset: UInt64,
        count: Int
    ) async throws(FileError) -> [UInt8] {
        if file.isDirect { return try await readDirect(file, at: offset, count) }
        let inode = file.inode
        if offset + UInt64(count) > inode.size {
            try await refresh(inode, .size)
        }
        var result: [UInt8] = []
        let unit = UInt64(KernelPage.size)
        while result.count < count {
            let position = offset + UInt64(result.count)
            guard position < inode.size else { break }
            let page: KernelPage
            if let cached = inode.pages[position / unit], cached.isUptodate {
                cachedPageReads += 1
                page = cached
            } else {
                guard let filled = try await lockedPage(file, position / unit) else { break }
                filled.lock.leave()
                page = filled
            }
            guard position < inode.size else { break }
            let within = Int(position % unit)
            let length = min(
                KernelPage.size - within,
                count - result.count,
                Int(min(inode.size - position, unit))
            )
            result += page.bytes[within..<within + length]
        }
        if habits == nil, dice.oneIn(16) {
            // Whoever reads on and on finds that the kernel was faster.
            let next = (offset + UInt64(result.count) + unit - 1) / unit
            let end = next + UInt64(dice.below(12))
            engine.spawn { await self.readAhead(file, next..<end) }
        }
        return result
    }

    private func readDirect(
        _ file: KernelFile,
        at offset: UInt64,
        _ count: Int
    ) async throws(FileError) -> [UInt8] {
        await writeBackDirtyPages(file.inode, offset..<offset + UInt64(count))
        let buffer = StableBytes(count: count)
        let (node, handle) = (file.inode.handle, file.handle)
        defer { invalidateAttributes(file.inode, .access) }
        let done = try await ask { () async throws(FileError) in
            try await self.volume.read(
                node,
                handle,
                at: offset,
                into: UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<count]),
                isFill: false,
                reader: nil,
                nil
            )
        }
        return buffer.array(done)
    }

    // MARK: Writing

    /// pwrite(2), and write(2) of a file opened to append: then `offset` means nothing. Returns the
    /// bytes written.
    package func write(
        _ file: KernelFile,
        at offset: UInt64,
        _ bytes: [UInt8]
    ) async throws(FileError) -> Int {
        let inode = file.inode
        await inode.latch.enterExclusive()
        defer { inode.latch.leaveExclusive() }
        let start = file.intent.appends ? inode.size : offset
        if file.isDirect { return try await writeDirect(file, at: start, bytes) }
        var done = 0
        while done < bytes.count {
            let count = try await writeBatch(file, at: start + UInt64(done), bytes[done...])
            if count == 0 { break }
            done += count
        }
        return done
    }

    private func finishWrite(_ inode: KernelInode, end: UInt64) {
        inode.attributeVersion = nextVersion()
        if end > inode.size { inode.size = end }
        invalidateAttributes(inode, .written)
    }

    /// A write that has failed may have changed attributes all the same: privileges went first.
    private func failWrite(_ inode: KernelInode) {
        inode.attributeVersion = nextVersion()
        invalidateAttributes(inode, .written)
    }

    private func writeDirect(
        _ file: KernelFile,
        at offset: UInt64,
        _ bytes: [UInt8]
    ) async throws(FileError) -> Int {
        let inode = file.inode
        await dropPages(inode, offset, UInt64(bytes.count))
        let written: Int
        do throws(FileError) {
            written = try await send(file, at: offset, bytes, isDirect: true)
        } catch {
            failWrite(inode)
            throw error
        }
        // Not after asynchronous I/O, which nobody waits for here.
        if habits != nil || !dice.oneIn(3) { await dropPages(inode, offset, UInt64(bytes.count)) }
        finishWrite(inode, end: offset + UInt64(written))
        return written
    }

    /// One WRITE of write(2) through the page cache: up to 16 pages, ending with the first that is
    /// not up to date and only written in part, which stays locked meanwhile.
    private func writeBatch(
        _ file: KernelFile,
        at offset: UInt64,
        _ bytes: ArraySlice<UInt8>
    ) async throws(FileError) -> Int {
        let inode = file.inode
        let number = (inode.unanswered.last?.number ?? 0) + 1
        inode.unanswered.append((number, offset..<offset + UInt64(bytes.count)))
        defer {
            inode.unanswered.removeAll { $0.number == number }
            inode.answered.notify()
        }
        let unit = UInt64(KernelPage.size)
        var touched: [KernelPage] = []
        var locked: KernelPage?
        var count = 0
        while count < bytes.count, touched.count < 16, locked == nil {
            let position = offset + UInt64(count)
            let within = Int(position % unit)
            let length = min(KernelPage.size - within, bytes.count - count)
            let page = await grab(inode, position / unit)
            let from = bytes.startIndex + count
            page.bytes.replaceSubrange(
                within..<within + length,
                with: bytes[from..<from + length]
            )
            if length == KernelPage.size { page.isUptodate = true }
            if page.isUptodate { page.lock.leave() } else { locked = page }
            touched.append(page)
            count += length
        }
        defer { locked?.lock.leave() }
        let piece = Array(bytes.prefix(count))
        do throws(FileError) {
            let written = try await send(file, at: offset, piece, isDirect: false)
            finishWrite(inode, end: offset + UInt64(written))
            return written
        } catch {
            for page in touched { page.isUptodate = false }
            failWrite(inode)
            throw error
        }
    }

    /// The page, locked, made if it is not there.
    private func grab(_ inode: KernelInode, _ index: UInt64) async -> KernelPage {
        while let page = inode.pages[index] {
            await page.lock.enter()
            if !page.isGone { return page }
            page.lock.leave()
        }
        let page = KernelPage(index: index)
        let entered = page.lock.enterIfFree()
        precondition(entered, "a new page is free")
        inode.pages.insert(page)
        return page
    }

    private func send(
        _ file: KernelFile,
        at offset: UInt64,
        _ bytes: [UInt8],
        isDirect: Bool
    ) async throws(FileError) -> Int {
        let content = StableBytes(bytes)
        trace?(
            "\(name) WRITE \(file.inode.identity) \(offset)+\(bytes.count)\(isDirect ? " direct" : "")"
        )
        let (node, handle) = (file.inode.handle, file.handle)
        var flags = WriteFlags(
            appends: file.intent.appends,
            isWriteback: false,
            isDirect: isDirect,
            dropsPrivileges: true
        )
        flags.writerGroup = Self.caller.writerGroup
        let written = try await ask { () async throws(FileError) in
            try await self.volume.write(
                node,
                handle,
                at: offset,
                from: content.readOnly,
                flags,
                nil
            )
        }
        trace?("\(name) has written \(file.inode.identity) \(offset)+\(written)")
        return written
    }

    // MARK: Mappings

    /// Whether a file can be mapped shared.
    package func canMap(_ file: KernelFile) -> Bool { !file.isDirect || mapsDirectFiles }

    /// Maps a file shared, if it is not mapped.
    private func map(_ file: KernelFile) async {
        precondition(canMap(file), "the kernel refuses the mapping")
        let isMapped = file.isMapped && (habits != nil || dice.oneIn(2))
        file.isMapped = true
        // Mapping a file that is opened direct drops all its pages.
        if file.isDirect, !isMapped { await dropPages(file.inode, 0, nil) }
    }

    /// Stores bytes through a shared mapping of a file that is open for reading and writing. Stops
    /// at the end of the file (where the kernel would send SIGBUS). Returns how many.
    package func store(
        _ file: KernelFile,
        at offset: UInt64,
        _ bytes: [UInt8]
    ) async throws(FileError) -> Int {
        precondition(file.intent.reads && file.intent.writes, "a shared mapping needs both")
        await map(file)
        let unit = UInt64(KernelPage.size)
        var done = 0
        while done < bytes.count {
            let position = offset + UInt64(done)
            guard let page = try await lockedPage(file, position / unit) else { break }
            defer { page.lock.leave() }
            guard position < file.inode.size else { break }
            let within = Int(position % unit)
            let length = min(
                KernelPage.size - within,
                bytes.count - done,
                Int(min(file.inode.size - position, unit))
            )
            page.bytes.replaceSubrange(
                within..<within + length,
                with: bytes[done..<done + length]
            )
            page.isDirty = true
            done += length
        }
        return done
    }

    /// fallocate(2): dirty pages go first, and what shows other bytes afterwards.
    func allocate(
        _ file: KernelFile,
        _ range: Range<UInt64>,
        _ allocation: Allocation
    ) async throws(FileError) {
        let inode = file.inode
        await inode.latch.enterExclusive()
        defer { inode.latch.leaveExclusive() }
        if allocation.kind != .allocate { await writeBackDirtyPages(inode, range) }
        let (node, handle) = (inode.handle, file.handle)
        do throws(FileError) {
            try await ask { () async throws(FileError) in
                try await self.volume.allocate(
                    node,
                    handle,
                    range,
                    allocation,
                    KernelModel.caller,
                    nil
                )
            }
        } catch {
            failWrite(inode)
            throw error
        }
        if !allocation.keepsSize { finishWrite(inode, end: range.upperBound) }
        if allocation.kind != .allocate { await zeroPages(inode, range) }
        invalidateAttributes(inode, .written)
    }

    /// lseek(2) for data and holes.
    func seek(
        _ file: KernelFile,
        from offset: UInt64,
        to goal: SeekGoal
    ) async throws(FileError) -> UInt64 {
        let inode = file.inode
        await inode.latch.enterExclusive()
        defer { inode.latch.leaveExclusive() }
        let (node, handle) = (inode.handle, file.handle)
        return try await ask { () async throws(FileError) in
            try await self.volume.seek(node, handle, from: offset, to: goal, nil)
        }
    }

    /// flock(2); a signal may end the wait after so many nanoseconds.
    func lock(
        _ file: KernelFile,
        _ wanted: WholeFileLock,
        waits: Bool,
        interruptedAfter delay: UInt64? = nil
    ) async throws(FileError) {
        let (node, handle) = (file.inode.handle, file.handle)
        let interruption = interruption(after: waits ? delay : nil)
        try await ask { () async throws(FileError) in
            try await self.volume.lock(node, handle, wanted, waits: waits, interruption)
        }
    }

    private func interruption(after delay: UInt64?) -> Interruption {
        let interruption = Interruption()
        if let delay {
            engine.spawn {
                await self.engine.sleep(nanoseconds: delay)
                interruption.request()
            }
        }
        return interruption
    }

    /// F_SETLK, F_SETLKW; a signal may end the wait after so many nanoseconds.
    func lock(
        _ file: KernelFile,
        _ owner: ByteLockOwner,
        _ wish: ByteLockWish,
        waits: Bool,
        interruptedAfter delay: UInt64? = nil
    ) async throws(FileError) {
        let (node, handle) = (file.inode.handle, file.handle)
        let interruption = interruption(after: waits ? delay : nil)
        try await ask { () async throws(FileError) in
            try await self.volume.lockBytes(
                node,
                handle,
                owner,
                wish,
                waits: waits,
                interruption
            )
        }
    }

    /// F_GETLK.
    func lock(
        inTheWayOf wish: ByteLockWish,
        _ file: KernelFile,
        _ owner: ByteLockOwner
    ) async throws(FileError) -> ByteLockHolder? {
        let (node, handle) = (file.inode.handle, file.handle)
        return try await ask { () async throws(FileError) in
            try await self.volume.byteLock(inTheWayOf: wish, node, handle, owner, nil)
        }
    }

    /// Loads the first byte of each page through a shared mapping, as far as the file goes.
    package func load(
        _ file: KernelFile,
        _ pages: Range<UInt64>
    ) async throws(FileError) -> [UInt8] {
        await map(file)
        var result: [UInt8] = []
        for index in pages {
            guard let page = try await lockedPage(file, index) else { break }
            defer { page.lock.leave() }
            guard index * UInt64(KernelPage.size) < file.inode.size else { break }
            result.append(page.bytes[0])
        }
        return result
    }

    /// Returns when every write(2) has been carried out that had been begun on the pages of these
    /// bytes.
    func writesEnd(_ inode: KernelInode, _ bytes: Range<UInt64>) async {
        let unit = UInt64(KernelPage.size)
        let pages = bytes.lowerBound / unit * unit..<(bytes.upperBound + unit - 1) / unit * unit
        let begun = inode.unanswered.filter { $0.bytes.overlaps(pages) }.map(\.number)
        while inode.unanswered.contains(where: { begun.contains($0.number) }) {
            await inode.answered.wait()
        }
    }
}
