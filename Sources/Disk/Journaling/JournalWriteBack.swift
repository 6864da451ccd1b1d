import BlockIO
import DiskFormat
import Execution
package import Vocabulary

// Bringing images home, settling locks, and moving the tail.

extension Journal {
    // MARK: Which image is to go home

    /// The version of the newest image of an address that is not home; 0 if there is none.
    func newestVersion(_ address: BlockAddress) -> UInt64 { homes[address]?.image?.version ?? 0 }

    /// The transaction is durable: its images replace older ones (J6).
    func installHomes(of logged: LoggedTransaction) {
        let images = logged.images
        logged.images = []
        logged.copies.reserveCapacity(images.count)
        for image in images {
            let covering = image.block.covering
            let copy =
                homes[image.block.address]
                ?? HomeCopy(
                    address: image.block.address,
                    covering: covering
                )
            if homes[copy.address] == nil {
                homes[copy.address] = copy
                addToCovering(copy)
            }
            if let older = copy.image {
                if copy.isWriting { reached(.newerWhileWriting) }
                precondition(older.version < image.version, "J5: \(copy.address) gets older")
                older.transaction.release()
            }
            if copy.covering != covering {
                makeOrphan(copy)
                removeFromCovering(copy)
                copy.covering = covering
                addToCovering(copy)
            }
            copy.block?.pins -= 1
            copy.block = image.block  // Its pin passes from the transaction to the copy.
            copy.image = HomeCopy.Image(
                transaction: logged,
                offset: image.offset,
                version: image.version
            )
            copy.isWritten = false
            logged.retain()
            logged.copies.append(copy)
        }
    }

    /// A durable transaction has freed the block: an image from before is not needed any more.
    func abandonHome(_ address: BlockAddress, freedIn logged: LoggedTransaction) {
        guard let copy = homes[address], let image = copy.image else { return }
        precondition(image.transaction.sequence < logged.sequence, "J6: an image of the future")
        makeOrphan(copy)
        clearImage(copy)
    }

    private func makeOrphan(_ copy: HomeCopy) {
        guard copy.isWriting, !copy.isOrphanWrite else { return }
        copy.isOrphanWrite = true
        orphanWrites += 1
        reached(.lateWrite)
    }

    private func clearImage(_ copy: HomeCopy) {
        copy.image?.transaction.release()
        copy.image = nil
        copy.block?.pins -= 1
        copy.block = nil
        copy.isWritten = false
        removeIfDone(copy)
    }

    private func removeIfDone(_ copy: HomeCopy) {
        guard copy.image == nil, !copy.isWriting else { return }
        homes[copy.address] = nil
        removeFromCovering(copy)
    }

    private func addToCovering(_ copy: HomeCopy) {
        let covered = coveredCopies[copy.covering] ?? CoveredCopies()
        if covered.copies.isEmpty { coveredCopies[copy.covering] = covered }
        copy.indexInCovering = covered.copies.count
        covered.copies.append(copy)
    }

    private func removeFromCovering(_ copy: HomeCopy) {
        guard let covered = coveredCopies[copy.covering], let last = covered.copies.last else {
            preconditionFailure("\(copy.address) is not in the list of \(copy.covering)")
        }
        covered.copies[copy.indexInCovering] = last
        last.indexInCovering = copy.indexInCovering
        covered.copies.removeLast()
        if covered.copies.isEmpty { coveredCopies[copy.covering] = nil }
    }

    /// The writes numbered below `end` are durable.
    func markHome(before end: Int) {
        let count = end - firstUnflushed
        guard count > 0 else { return }
        for (copy, version) in unflushed.prefix(count)
        where copy.isWritten && copy.image?.version == version {
            clearImage(copy)
        }
        unflushed.removeFirst(count)
        firstUnflushed = end
    }

    // MARK: Writing in place

    /// Writes the newest images of these copies in place, adjacent ones together. Copies that need
    /// no write or are being written are left out; who needs those waits for `wroteHome`.
    private func writeHome(_ copies: [HomeCopy]) async throws(StorageError) {
        try requireRunning()
        let work = copies.filter { $0.needsWrite && !$0.isWriting }.sorted {
            $0.address < $1.address
        }
        for copy in work { copy.isWriting = true }
        var runs: [Range<Int>] = []
        for index in work.indices {
            if let last = runs.last, last.count < options.adjacentBlocks,
                work[index - 1].address + 1 == work[index].address
            {
                runs[runs.count - 1] = last.lowerBound..<index + 1
            } else {
                runs.append(index..<index + 1)
            }
        }
        var written: Set<Int> = []
        do throws(StorageError) {
            try await inParallel(runs.count, limit: options.parallelWrites, engine: engine) {
                index async throws(StorageError) in
                written.insert(index)
                try await self.writeRun(Array(work[runs[index]]))
            }
        } catch {
            // What was claimed and not begun is nobody's any more (J9).
            for index in runs.indices where !written.contains(index) {
                for copy in work[runs[index]] { finishWrite(copy, version: nil) }
            }
            wroteHome.notify()
            if error != .stopped { fail(error) }
            throw error
        }
    }

    /// An image on its way home. It keeps the bytes even if the image is given up meanwhile; then
    /// the write is one too many and harmless, because whoever gets the place next waits for it
    /// (J8).
    private struct Claim {
        var copy: HomeCopy
        var version: UInt64
        var buffer: AlignedBuffer
        var offset: Int
    }

    private func writeRun(_ copies: [HomeCopy]) async throws(StorageError) {
        while homeHolds > 0, !isStopped { await homeReleased.wait() }
        // An image may have been given up since the copy was claimed: what follows it is not
        // adjacent then.
        var pieces: [[Claim]] = []
        for copy in copies {
            guard let image = copy.image, let buffer = image.transaction.buffer else {
                reached(.imageGivenUp)
                finishWrite(copy, version: nil)
                continue
            }
            let claim = Claim(
                copy: copy,
                version: image.version,
                buffer: buffer,
                offset: image.offset
            )
            if let before = pieces.last?.last, before.copy.address + 1 == copy.address {
                pieces[pieces.count - 1].append(claim)
            } else {
                pieces.append([claim])
            }
        }
        runsInFlight += 1
        defer {
            runsInFlight -= 1
            wroteHome.notify()
        }
        for (index, piece) in pieces.enumerated() {
            do throws(StorageError) {
                try await writePiece(piece)
            } catch {
                for rest in pieces[index...] {
                    for claim in rest { finishWrite(claim.copy, version: nil) }
                }
                throw error
            }
            for claim in piece { finishWrite(claim.copy, version: claim.version) }
        }
    }

    /// Writes adjacent blocks with one write: a single one from the buffer of its transaction,
    /// several from a copy.
    private func writePiece(_ piece: [Claim]) async throws(StorageError) {
        try requireRunning()
        let size = ring.blockSize
        var buffer = piece[0].buffer
        var window = buffer.readOnly.window(piece[0].offset, size)
        if piece.count > 1 {
            buffer = AlignedBuffer(byteCount: piece.count * size)
            for (index, claim) in piece.enumerated() {
                buffer.bytes.put(claim.buffer.readOnly.window(claim.offset, size), index * size)
            }
            window = buffer.readOnly
        }
        defer { withExtendedLifetime(buffer) {} }
        let offset = superblock.byteOffset(piece[0].copy.address)
        try await onDevice { () async throws(DeviceError) in
            try await device.write(window, at: offset)
        }
        counters.writesHome += 1
        counters.blocksWrittenHome += piece.count
    }

    /// The write of an image in place returned, or, with version nil, did not happen or failed.
    private func finishWrite(_ copy: HomeCopy, version: UInt64?) {
        precondition(copy.isWriting, "J5: a write ends twice")
        copy.isWriting = false
        if copy.isOrphanWrite {
            copy.isOrphanWrite = false
            orphanWrites -= 1
        }
        if let version, copy.image?.version == version {
            copy.isWritten = true
            copy.block?.pins -= 1
            copy.block = nil
            unflushed.append((copy, version))
        } else {
            removeIfDone(copy)
        }
    }

    /// Begins no write in place from now on, and returns when none is in flight. While every living
    /// node holds, a place that does not verify is really torn, and not one that its owner is writing
    /// at this moment: for who replays a log beside nodes that have no log barrier to hold. Commits go
    /// on; what needs a write in place waits. Ends with `releaseWritesHome`.
    package func holdWritesHome() async {
        homeHolds += 1
        while runsInFlight > 0 { await wroteHome.wait() }
    }

    /// Ends one `holdWritesHome`.
    package func releaseWritesHome() {
        precondition(homeHolds > 0, "writes in place are released twice")
        homeHolds -= 1
        if homeHolds == 0 { homeReleased.notify() }
    }

    // MARK: Settling a lock

    /// Before a lock is given up: commits if something of it is not durable, then writes all its
    /// blocks in place. Afterwards none of them is dirty, and every other node reads what this one
    /// wrote (J8).
    package func settle(covering: ResourceName) async throws(StorageError) {
        try requireRunning()
        while let sequence = uncommittedSequence(touching: covering) {
            try await commit(through: sequence)
        }
        while true {
            try requireRunning()
            let copies = coveredCopies[covering]?.copies ?? []
            if copies.contains(where: { $0.needsWrite && !$0.isWriting }) {
                try await writeHome(copies)
            } else if orphanWrites > 0 || copies.contains(where: \.isWriting) {
                if orphanWrites > 0 { reached(.settleWaitsForLateWrite) }
                await wroteHome.wait()
            } else {
                return
            }
        }
    }

    /// Whether `settle` would return at once.
    package func isSettled(covering: ResourceName) -> Bool {
        uncommittedSequence(touching: covering) == nil && orphanWrites == 0
            && !(coveredCopies[covering]?.copies.contains { $0.needsWrite || $0.isWriting }
                ?? false)
    }

    private func uncommittedSequence(touching covering: ResourceName) -> UInt64? {
        if running.touched.contains(covering) { return running.sequence }
        if let committing, committing.touched.contains(covering) { return committing.sequence }
        return nil
    }

    // MARK: Moving the tail

    /// Commits, writes everything home and moves the tail to the head. Whatever had begun before
    /// the call is behind the tail afterwards, and no write in place of a block freed before the
    /// call is in flight.
    package func checkpointAll() async throws(StorageError) {
        try requireRunning()
        await endHandles()
        try await commit()
        try await checkpoint(through: durableSequence)
    }

    /// Returns when the operations that have begun have ended, or the commit that follows waits for them: one that has
    /// not announced a block yet is nothing to commit, and will be.
    private func endHandles() async {
        let begun = running
        while running === begun, begun.openHandles > 0, !begun.hasContent, !isStopped {
            await handlesEnded.wait()
        }
    }

    /// Blocks of the ring that may be in use without anything being done about it.
    var tolerated: UInt64 { ring.blockCount * UInt64(options.fullness) / 100 }

    /// Frees room in the background until half of what is tolerated is in use.
    func startCheckpoint() {
        guard !isStopped, !isCheckpointActive, !log.isEmpty else { return }
        isCheckpointActive = true
        engine.spawn { await self.freeRoom(downTo: self.tolerated / 2) }
    }

    private func freeRoom(downTo goal: UInt64) async {
        while !isStopped, used > goal,
            let target = log.last(where: { head - $0.place > goal })?.sequence
        {
            do throws(StorageError) {
                try await checkpoint(through: target)
            } catch {
                break  // The journal has stopped, and whoever needs it is told.
            }
        }
        isCheckpointActive = false
    }

    /// Brings home what the transactions through `target` still have to, and moves the tail past
    /// them.
    private func checkpoint(through target: UInt64) async throws(StorageError) {
        while true {
            try requireRunning()
            var work: [HomeCopy] = []
            var waits = orphanWrites > 0
            for transaction in log.prefix(while: { $0.sequence <= target }) {
                for copy in transaction.copies where copy.image?.transaction === transaction {
                    if copy.isWriting {
                        waits = true
                    } else if copy.needsWrite {
                        work.append(copy)
                    }
                }
            }
            if !work.isEmpty {
                try await writeHomeInBatches(work)
            } else if waits {
                await wroteHome.wait()
            } else {
                break
            }
        }
        try await advanceTail()
        precondition(log.first.map { $0.sequence > target } ?? true, "J6: the tail stays behind")
    }

    /// In batches, so that a lock to be settled meanwhile does not wait for all of it.
    private func writeHomeInBatches(_ work: [HomeCopy]) async throws(StorageError) {
        let sorted = work.sorted { $0.address < $1.address }
        let batch = options.parallelWrites * 8
        for start in stride(from: 0, to: sorted.count, by: batch) {
            try await writeHome(Array(sorted[start..<min(start + batch, sorted.count)]))
        }
    }

    /// Flushes what was written in place, then writes a header that leaves out the transactions
    /// that are done, then flushes that (J6, J7).
    private func advanceTail() async throws(StorageError) {
        await tailGate.enter()
        defer { tailGate.leave() }
        do throws(StorageError) {
            if !unflushed.isEmpty { try await flush() }
            let done = log.prefix { $0.remaining == 0 }.count
            guard done > 0 else { return }
            log.removeFirst(done)
            try await writeHeader(isClean: false)
        } catch {
            if error != .stopped { fail(error) }
            throw error
        }
        roomChanged.notify()
    }

    /// Writes the header for the log as it is, durably; what lies before it is free from then on.
    func writeHeader(isClean: Bool) async throws(StorageError) {
        try requireRunning()
        let oldest = log.first ?? committing
        let place = oldest?.place ?? head
        headerVersion += 1
        counters.headerWrites += 1
        let header = JournalHeader(
            slot: ring.descriptor.slot,
            tailSequence: oldest?.sequence ?? running.sequence,
            tail: ring.index(place),
            length: ring.descriptor.journalLength,
            isClean: isClean
        )
        try await ring.writeHeader(header, version: headerVersion, to: device)
        try await flush()
        tail = place
    }
}
