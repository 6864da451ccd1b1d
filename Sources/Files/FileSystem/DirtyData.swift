// What was written to one file and is not on the device yet. Clean file data is the kernel's
// business (its page cache); the node keeps only what is dirty or in flight.
//
// Dirty data carries resolved addresses: blocks are allocated when bytes are written, so writing
// back needs no lock, no lookup and no transaction, and a demotion can always finish (lock order,
// L3).
//
// Terms: a *run* is a stretch of whole blocks, contiguous in the file and on the device, in one
// buffer.
//
// Invariants
//   D1. Runs are sorted and do not overlap.
//   D2. A block of a run belongs to the file at the run's physical address for as long as the run
//   exists: whoever frees or
//       moves blocks first discards the runs and waits until none of them is in flight.
//   D3. A run goes only when a write that began after its last change has returned.
//   D5. A block that was brought in to be changed in part stays until it was changed, even if it is
//       written back in between.
//   D6. No run reaches over the edge of a region: what one node has of a region it writes while another
//   writes the next (Regions.swift).
//   D4. Bytes behind the end of the file in the last block are zero.

package import BlockIO
import DiskFormat
import Execution
import FileStore
package import Journaling
import LockCache
package import Vocabulary

/// Counts dirty bytes of a whole mount and makes writers wait when there are too many.
package final class DirtyAccount {
    /// Bytes in runs, in flight included.
    package private(set) var byteCount: UInt64 = 0
    /// Above this, writers wait.
    package let limit: UInt64
    private let shrunk = Signal()
    private var spare: [AlignedBuffer] = []

    package init(limit: UInt64) { self.limit = limit }

    func add(_ bytes: Int) { byteCount += UInt64(bytes) }

    fileprivate func failed() {
        hasFailed = true
        shrunk.notify()
    }

    func remove(_ bytes: Int) {
        precondition(byteCount >= UInt64(bytes), "more bytes cleaned than were dirty")
        byteCount -= UInt64(bytes)
        if byteCount <= limit { shrunk.notify() }
    }

    /// More is dirty than should be: whoever writes waits.
    var isFull: Bool { byteCount > limit }

    /// Called when somebody begins to wait for room.
    var onFull: (() -> Void)?
    /// Called with the first failure of each file's data.
    var onFailure: ((DeviceError) -> Void)?
    /// The last write to the device failed: there may never be room.
    fileprivate(set) var hasFailed = false

    /// The node has withdrawn: no write is begun any more (MountedVolume V4).
    private(set) var isStopped = false

    /// Ends all writing; who waits for room need not.
    func stop() {
        isStopped = true
        failed()
    }

    /// Waits until there is room for more.
    ///
    /// - Throws: `interrupted`; `inputOutput` when the device takes nothing.
    func waitForRoom(_ interruption: Interruption?) async throws(FileError) {
        interruption?.onRequest = { [weak self] in self?.shrunk.notify() }
        defer { interruption?.onRequest = nil }
        while isFull {
            if interruption?.isRequested == true { throw .interrupted }
            if hasFailed { throw .inputOutput }
            onFull?()
            await shrunk.wait()
        }
    }

    /// A buffer of at least `byteCount` bytes; the big ones are used again.
    func buffer(_ byteCount: Int) -> AlignedBuffer {
        if byteCount == DirtyData.largestRun, let buffer = spare.popLast() { return buffer }
        return AlignedBuffer(byteCount: byteCount)
    }

    func recycle(_ buffer: AlignedBuffer) {
        if buffer.bytes.count == DirtyData.largestRun, spare.count < 32 { spare.append(buffer) }
    }
}

/// The dirty data of one inode.
package final class DirtyData: OrderedData {
    private final class Run {
        let first: UInt64
        let physical: BlockAddress
        let buffer: AlignedBuffer
        var count: UInt64
        var isDirty = true
        var isInFlight = false

        init(first: UInt64, physical: BlockAddress, count: UInt64, buffer: AlignedBuffer) {
            self.first = first
            self.physical = physical
            self.count = count
            self.buffer = buffer
        }

        var end: UInt64 { first + count }
    }

    /// Bytes of the largest run.
    static let largestRun = 1 << 20

    private let device: any BlockDevice
    private let engine: Engine
    private let account: DirtyAccount
    private let blockSize: Int
    private let blocksPerRegion: UInt64
    private var runs: [Run] = []
    /// Nothing is in flight any more; something has landed.
    private let landed = Signal()
    private let someLanded = Signal()
    private var inFlightCount = 0
    /// Writers that have brought blocks in and not changed them yet: no run goes meanwhile (D5).
    private var holds = 0
    /// What a write to the device failed with; it stays, and the data stays dirty.
    private(set) var failure: DeviceError?
    /// When the oldest byte became dirty.
    package private(set) var since: Tick?

    init(
        device: any BlockDevice,
        engine: Engine,
        account: DirtyAccount,
        blockSize: Int,
        regionSize: Int
    ) {
        self.device = device
        self.engine = engine
        self.account = account
        self.blockSize = blockSize
        blocksPerRegion = UInt64(regionSize / blockSize)
    }

    /// Nothing dirty, nothing in flight.
    package var isEmpty: Bool { runs.isEmpty }

    /// Bytes dirty or in flight.
    package var byteCount: Int { runs.reduce(0) { $0 + Int($1.count) * blockSize } }

    /// Where in the file it is, ascending; in bytes.
    package var byteRanges: [Range<UInt64>] {
        runs.map { $0.first * UInt64(blockSize)..<$0.end * UInt64(blockSize) }
    }

    // MARK: Finding

    /// Index of the first run that ends behind `block`.
    private func index(behind block: UInt64) -> Int {
        var low = 0
        var high = runs.count
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].end <= block { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Whether a block is here.
    package func contains(_ block: UInt64) -> Bool {
        let index = index(behind: block)
        return index < runs.count && runs[index].first <= block
    }

    // MARK: Writing

    /// Takes over bytes of a file whose blocks are known.
    ///
    /// - Parameters:
    ///   - offset: where in the file, in bytes.
    ///   - logical, physical: one block of the file and its address; all blocks touched are
    ///   contiguous from there.
    ///
    /// A block that is touched only in part is here already or is new: then its rest becomes zero.
    package func write(
        _ bytes: UnsafeRawBufferPointer,
        at offset: UInt64,
        logical: UInt64,
        physical: BlockAddress
    ) {
        var done = 0
        while done < bytes.count {
            let position = offset + UInt64(done)
            let block = position / UInt64(blockSize)
            let lastBlock = (offset + UInt64(bytes.count) - 1) / UInt64(blockSize)
            let index = index(behind: block)
            let run: Run
            if index < runs.count, runs[index].first <= block {
                run = runs[index]
            } else {
                let gapEnd =
                    index < runs.count ? min(runs[index].first, lastBlock + 1) : lastBlock + 1
                let address = physical + (block - logical)
                run = room(for: block, upTo: gapEnd, at: address, before: index)
            }
            let within = Int(position - run.first * UInt64(blockSize))
            let length = min(bytes.count - done, Int(run.count) * blockSize - within)
            run.buffer.bytes.baseAddress.unsafelyUnwrapped.advanced(by: within).copyMemory(
                from: bytes.baseAddress.unsafelyUnwrapped + done,
                byteCount: length
            )
            run.isDirty = true
            done += length
        }
        if since == nil { since = engine.clock.now }
    }

    /// Makes new blocks from `block` on part of a run: of the one before if it reaches that far,
    /// else of a new one.
    private func room(
        for block: UInt64,
        upTo end: UInt64,
        at address: BlockAddress,
        before index: Int
    ) -> Run {
        let edge = (block / blocksPerRegion + 1) * blocksPerRegion  // D6
        let wanted = Int(min(end, edge) - block)
        if index > 0, block % blocksPerRegion != 0 {
            let previous = runs[index - 1]
            let capacity = previous.buffer.bytes.count / blockSize - Int(previous.count)
            if previous.end == block, previous.physical + previous.count == address, capacity > 0,
                !previous.isInFlight
            {
                let grown = min(wanted, capacity)
                zeroEdges(previous.buffer, Int(previous.count), grown)
                previous.count += UInt64(grown)
                account.add(grown * blockSize)
                return previous
            }
        }
        let blocks = min(wanted, Self.largestRun / blockSize)
        // Who writes on where a run ends will probably write on: leave room.
        let follows = index > 0 && runs[index - 1].end == block
        let capacity =
            follows
            ? min(
                Self.largestRun,
                Int(edge - block) * blockSize,
                max(blocks * blockSize, runs[index - 1].buffer.bytes.count * 4)
            )
            : blocks * blockSize
        let run = Run(
            first: block,
            physical: address,
            count: UInt64(blocks),
            buffer: account.buffer(capacity)
        )
        zeroEdges(run.buffer, 0, blocks)
        runs.insert(run, at: index)
        account.add(blocks * blockSize)
        return run
    }

    /// The first and last of new blocks may be touched in part only.
    private func zeroEdges(_ buffer: AlignedBuffer, _ first: Int, _ count: Int) {
        func zero(_ block: Int) {
            UnsafeMutableRawBufferPointer(
                rebasing: buffer.bytes[block * blockSize..<(block + 1) * blockSize]
            ).initializeMemory(as: UInt8.self, repeating: 0)
        }
        zero(first)
        if count > 1 { zero(first + count - 1) }
    }

    /// Zeroes bytes of a range, as far as they are here (D4).
    package func zero(_ range: Range<UInt64>) {
        forEachOverlap(range) { run, bytes, _ in
            run.isDirty = true
            bytes.initializeMemory(as: UInt8.self, repeating: 0)
        }
        if !runs.isEmpty, since == nil { since = engine.clock.now }
    }

    // MARK: Reading

    /// Copies what is here of `range` to its place in `buffer` (whose first byte is the range's
    /// first), and returns the ranges that are not here.
    package func copy(
        _ range: Range<UInt64>,
        to buffer: UnsafeMutableRawBufferPointer
    ) -> [Range<UInt64>] {
        var gaps: [Range<UInt64>] = []
        var position = range.lowerBound
        forEachOverlap(range) { _, bytes, part in
            if position < part.lowerBound { gaps.append(position..<part.lowerBound) }
            let place = Int(part.lowerBound - range.lowerBound)
            UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + bytes.count])
                .copyMemory(from: UnsafeRawBufferPointer(bytes))
            position = part.upperBound
        }
        if position < range.upperBound { gaps.append(position..<range.upperBound) }
        return gaps
    }

    private func forEachOverlap(
        _ range: Range<UInt64>,
        _ body: (Run, UnsafeMutableRawBufferPointer, Range<UInt64>) -> Void
    ) {
        guard !range.isEmpty, !runs.isEmpty else { return }
        let size = UInt64(blockSize)
        var index = index(behind: range.lowerBound / size)
        while index < runs.count, runs[index].first * size < range.upperBound {
            let run = runs[index]
            let part = range.clamped(to: run.first * size..<run.end * size)
            let within = Int(part.lowerBound - run.first * size)
            body(
                run,
                UnsafeMutableRawBufferPointer(
                    rebasing: run.buffer.bytes[within..<within + part.count]
                ),
                part
            )
            index += 1
        }
    }

    // MARK: Discarding

    /// Forgets all runs from `block` on, after those in flight have landed (D2). A run that
    /// straddles keeps its front.
    package func discard(from block: UInt64) async {
        await land()
        while let last = runs.last, last.end > block {
            if last.first >= block {
                runs.removeLast()
                account.remove(Int(last.count) * blockSize)
                account.recycle(last.buffer)
            } else {
                account.remove(Int(last.end - block) * blockSize)
                last.count = block - last.first
            }
        }
        if runs.isEmpty { since = nil }
    }

    /// Waits until nothing is in flight.
    private func land() async {
        while inFlightCount > 0 { await landed.wait() }
    }

    // MARK: Writing back

    package func writeOrderedData() async throws(StorageError) {
        do throws(DeviceError) {
            try await writeBack()
        } catch {
            throw .device(error)
        }
    }

    /// Writes everything that is dirty now; returns when it is on the device (not yet flushed). A
    /// run changed meanwhile stays dirty.
    package func writeBack() async throws(DeviceError) {
        for run in runs where run.isDirty && !run.isInFlight { start(run) }
        // What was in flight when it was changed again goes out once more.
        await land()
        for run in runs where run.isDirty { start(run) }
        await land()
        if let failure { throw failure }
    }

    /// Writes what is dirty of some blocks, and forgets them: somebody else may change them from now on. Nobody
    /// changes them meanwhile.
    package func writeBackAndForget(_ blocks: Range<UInt64>) async throws(DeviceError) {
        func concerned(_ run: Run) -> Bool {
            run.first < blocks.upperBound && run.end > blocks.lowerBound
        }
        while failure == nil,
            runs.contains(where: { concerned($0) && ($0.isDirty || $0.isInFlight) })
        {
            for run in runs where concerned(run) && run.isDirty && !run.isInFlight { start(run) }
            await someLanded.wait()
        }
        if let failure { throw failure }
        // Those that others hold for what they change elsewhere (D5).
        for index in runs.indices.reversed() where concerned(runs[index]) {
            let run = runs[index]
            precondition(
                run.first >= blocks.lowerBound && run.end <= blocks.upperBound,
                "DirtyData D6: a run over the edge of a region"
            )
            remove(at: index)
        }
        if runs.isEmpty { since = nil }
    }

    /// Begins to write what is dirty, without waiting for the end.
    package func startWriteBack() {
        for run in runs where run.isDirty && !run.isInFlight { start(run) }
    }

    private func start(_ run: Run) {
        run.isDirty = false
        run.isInFlight = true
        inFlightCount += 1
        engine.spawn { await self.write(run) }
    }

    private func write(_ run: Run) async {
        do throws(DeviceError) {
            if account.isStopped { throw .closed }
            let length = Int(run.count) * blockSize
            try await device.write(
                UnsafeRawBufferPointer(rebasing: run.buffer.readOnly[..<length]),
                at: run.physical.rawValue * UInt64(blockSize)
            )
            landedCount += 1
            account.hasFailed = false
        } catch {
            if failure == nil { account.onFailure?(error) }
            failure = error
            run.isDirty = true
            account.failed()
        }
        finish(run)
    }

    private func finish(_ run: Run) {
        run.isInFlight = false
        inFlightCount -= 1
        if !run.isDirty, holds == 0, let index = runs.firstIndex(where: { $0 === run }) {
            remove(at: index)
        }
        if runs.isEmpty { since = nil }
        someLanded.notify()
        if inFlightCount == 0 { landed.notify() }
    }

    private func remove(at index: Int) {
        let run = runs.remove(at: index)
        account.remove(Int(run.count) * blockSize)
        account.recycle(run.buffer)
    }

    /// Keeps all runs until `unhold` (D5).
    package func hold() { holds += 1 }

    /// Ends `hold`; what was written back meanwhile goes now.
    package func unhold() {
        precondition(holds > 0, "DirtyData D5: a hold that was not taken")
        holds -= 1
        guard holds == 0 else { return }
        for index in runs.indices.reversed()
        where !runs[index].isDirty && !runs[index].isInFlight {
            remove(at: index)
        }
        if runs.isEmpty { since = nil }
    }

    /// How many writes have returned.
    package private(set) var landedCount: UInt64 = 0
    private var flushedCount: UInt64 = 0

    /// Data was written that no flush has followed yet.
    package var needsFlush: Bool { landedCount > flushedCount }

    /// A flush that began when `count` writes had returned has returned.
    package func flushed(through count: UInt64) { flushedCount = max(flushedCount, count) }
}
