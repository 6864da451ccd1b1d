import BlockIO
import DiskFormat
import Execution
import Vocabulary

// Commit: from the running transaction to a durable one. One task at a time does it, however many
// ask.

extension Journal {
    /// Makes everything that has ended so far durable. Concurrent callers share one commit; a call
    /// while one is in flight waits for the next. Returns at once if there is nothing to do.
    ///
    /// - Throws: `.stopped`.
    package func commit() async throws(StorageError) {
        try await commit(through: running.sequence)
    }

    /// Makes the compound transaction with this sequence number, and all before it, durable.
    package func commit(through sequence: UInt64) async throws(StorageError) {
        precondition(sequence <= running.sequence, "a transaction of the future")
        var target = sequence
        if target == running.sequence {
            if running.hasContent { requestCommit() } else { target -= 1 }
        }
        while durableSequence < target {
            try requireRunning()
            await becameDurable.wait()
        }
    }

    /// Whether the compound transaction with this sequence number is still open: its commit, and
    /// the flushes that belong to it, are yet to come.
    package func isRunning(_ sequence: UInt64) -> Bool {
        sequence == running.sequence && !running.isClosing
    }

    /// Whether a commit is under way.
    package var isCommitting: Bool { isCommitterActive }

    /// Whether the compound transaction with this sequence number is durable.
    package func isDurable(_ sequence: UInt64) -> Bool { sequence <= durableSequence }

    /// The running transaction shall be committed as soon as the committer is free.
    func requestCommit() {
        guard !isStopped, running.hasContent else { return }
        running.commitWanted = true
        guard !isCommitterActive else { return }
        isCommitterActive = true
        engine.spawn { await self.commitWhileWanted() }
    }

    private func commitWhileWanted() async {
        defer { isCommitterActive = false }
        while !isStopped, running.commitWanted {
            let closing = running
            closing.isClosing = true
            while closing.openHandles > 0, !isStopped { await handlesEnded.wait() }
            if isStopped { return }
            // Nobody gets there but by forgery; what is beyond could not be read any more.
            if let end = closing.blocks.first(where: {
                $0.version >= BlockHeader.largestNumber
            }) {
                return fail(
                    .format(.invalidField(end.address, field: "version", value: end.version))
                )
            }
            let logged = snapshot(closing)
            do throws(StorageError) {
                try await writeOrdered(closing)
                try await write(logged)
            } catch {
                fail(error)
                return
            }
            complete(logged, callbacks: closing.callbacks)
        }
    }

    /// Fixes the content (J2) and opens the next running transaction at once.
    private func snapshot(_ closing: RunningTransaction) -> LoggedTransaction {
        let logged = LoggedTransaction(closing, place: head, ring: ring)
        head += logged.blockCount
        precondition(used <= ring.blockCount, "J3: the log overflows")
        committing = logged
        running = RunningTransaction(sequence: closing.sequence + 1)
        roomChanged.notify()
        return logged
    }

    private func writeOrdered(_ closing: RunningTransaction) async throws(StorageError) {
        guard !closing.ordered.isEmpty else { return }
        let ordered = closing.ordered
        try await inParallel(ordered.count, limit: options.parallelWrites * 2, engine: engine) {
            index async throws(StorageError) in
            try self.requireRunning()
            try await ordered[index].writeOrderedData()
        }
        try await flush()
    }

    /// Writes the whole transaction, in two pieces if the ring wraps, and flushes (J4).
    private func write(_ logged: LoggedTransaction) async throws(StorageError) {
        guard let buffer = logged.buffer else { return }
        let first = min(logged.blockCount, ring.contiguous(from: logged.place))
        if first < logged.blockCount { reached(.logWraps) }
        for piece in [0..<first, first..<logged.blockCount] where !piece.isEmpty {
            try requireRunning()
            let bytes = buffer.readOnly.window(
                Int(piece.lowerBound) * ring.blockSize,
                piece.count * ring.blockSize
            )
            let offset = superblock.byteOffset(ring.address(logged.place + piece.lowerBound))
            try await onDevice { () async throws(DeviceError) in
                try await device.write(bytes, at: offset)
            }
        }
        try await flush()
        try requireRunning()
    }

    private func complete(_ logged: LoggedTransaction, callbacks: [() -> Void]) {
        committing = nil
        durableSequence = logged.sequence
        counters.commits += 1
        counters.blocksLogged += logged.images.count
        for address in logged.forgotten { abandonHome(address, freedIn: logged) }
        installHomes(of: logged)
        log.append(logged)
        for body in callbacks { body() }
        becameDurable.notify()
        roomChanged.notify()
        if used > tolerated { startCheckpoint() }
    }

    /// Flushes the device. What had been written in place before is home then.
    func flush() async throws(StorageError) {
        try requireRunning()
        let end = firstUnflushed + unflushed.count
        counters.flushes += 1
        try await onDevice { () async throws(DeviceError) in try await device.flush() }
        markHome(before: end)
    }
}
