// A disk as bad as B1-B4 of `BlockDevice` permit: requests complete in any order after seeded
// latencies, and what was not flushed may be lost, kept, torn or kept in another order.
//
// Of every write that is not known to be durable the disk keeps the bytes:
//
//   in flight   called, not returned: seen by nobody, may reach the medium in part
//   volatile    returned: seen by every reader, may reach the medium in part
//   durable     a flush that was called after it had returned has returned
//
// Invariants
// D1. `visible` = what readers see: all returned writes in the order in which they returned. A read
//     that overlaps a write in flight finds each of its units old or new.
// D2. `durable` + any subset of the units in flight and volatile, in any order = a legal content
//     after a power cut.
// D3. A flush makes durable exactly what had returned when it was called.
// D4. After `cutOff` nothing more of that host reaches the disk; what it had in flight at that
//     moment arrived whole, in part or not at all. After `beginNothing` nothing new begins, and what
//     is in flight arrives as it would have.
//
// Several hosts may share one disk: each has a handle of its own, and can be cut off (fenced).

package import BlockIO
import Vocabulary

/// How long requests take, in nanoseconds of virtual time.
package struct DiskLatency: Hashable, Sendable {
    package var read: ClosedRange<UInt64>
    package var write: ClosedRange<UInt64>
    package var flush: ClosedRange<UInt64>
    /// One request in so many takes `slowness` times as long.
    package var slowOneIn: Int
    package var slowness: UInt64 = 20
    /// One write in so many takes `longWrite` instead, which is never slow besides; 0 for none.
    package var longWriteOneIn = 0
    package var longWrite: ClosedRange<UInt64> = 1_000_000...150_000_000

    package init(
        read: ClosedRange<UInt64> = 20_000...120_000,
        write: ClosedRange<UInt64> = 20_000...200_000,
        flush: ClosedRange<UInt64> = 100_000...1_000_000,
        slowOneIn: Int = 20
    ) {
        self.read = read
        self.write = write
        self.flush = flush
        self.slowOneIn = slowOneIn
    }
}

/// What a disk was asked to do, for the enumeration of crashes.
package enum DiskEvent: Sendable {
    /// A write returned.
    case wrote(id: UInt64, host: String, offset: UInt64, bytes: [UInt8])
    /// A flush returned; the writes with these ids are durable now.
    case flushed(host: String, ids: [UInt64])
}

/// Calls so far, of all hosts.
package struct DiskCounters: Hashable, Sendable {
    package var reads = 0
    package var writes = 0
    package var flushes = 0
    package var bytesRead: UInt64 = 0
    package var bytesWritten: UInt64 = 0
    /// Writes called while another write of the same bytes was in flight: their order is undefined.
    package var overlappingWrites = 0
}

/// Faults to come. Counts are of calls from the moment they are set: 1 is the next call.
package struct DiskFaults: Hashable, Sendable {
    package var failRead: Int?
    package var failWrite: Int?
    package var failFlush: Int?
    package var failEverything = false

    package init(
        failRead: Int? = nil,
        failWrite: Int? = nil,
        failFlush: Int? = nil,
        failEverything: Bool = false
    ) {
        self.failRead = failRead
        self.failWrite = failWrite
        self.failFlush = failFlush
        self.failEverything = failEverything
    }
}

/// The medium and its volatile cache, shared by any number of hosts.
package final class SimulatedDisk: @unchecked Sendable {
    /// Told of every write as it begins: the name of its host, its first byte, its content.
    package var onWrite: ((String, UInt64, UnsafeRawBufferPointer) -> Void)?
    /// Hears of every write that failed, or whose host was cut off, and that has not arrived whole: its first byte.
    package var onTorn: ((UInt64) -> Void)?

    // Sendable: X1 of the executor.

    fileprivate struct Write {
        var id: UInt64
        var host: Int
        var offset: UInt64
        var bytes: [UInt8]
    }

    fileprivate let executor: SeededExecutor
    fileprivate let alignment: Int
    fileprivate var dice: SeededGenerator
    private var inFlight: [Write] = []
    /// Returned and not durable, in the order in which they returned.
    private var volatile: [Write] = []
    private var nextID: UInt64 = 1
    /// By the number of the handle: its name, and whether it is cut off.
    private var hosts: [(name: String, isCutOff: Bool)] = []

    /// What readers see (D1).
    package private(set) var visible: DiskContent

    /// What is certain to survive a power cut.
    package private(set) var durable: DiskContent

    package var latency: DiskLatency
    package fileprivate(set) var counters = DiskCounters()

    /// Faults that any host meets.
    package var faults = DiskFaults()

    /// What happened since `record` was called; empty otherwise.
    package private(set) var events: [DiskEvent] = []
    private var isRecording = false

    package init(
        content: DiskContent,
        alignment: Int = 512,
        executor: SeededExecutor,
        latency: DiskLatency = DiskLatency()
    ) {
        visible = content
        durable = content
        self.alignment = alignment
        self.executor = executor
        self.latency = latency
        dice = executor.forkDice()
    }

    package convenience init(
        byteCount: UInt64,
        alignment: Int = 512,
        executor: SeededExecutor,
        latency: DiskLatency = DiskLatency()
    ) {
        self.init(
            content: DiskContent(byteCount: byteCount),
            alignment: alignment,
            executor: executor,
            latency: latency
        )
    }

    /// A host's handle on the disk.
    package func attach(_ name: String = "host") -> SimulatedHost {
        hosts.append((name, false))
        return SimulatedHost(name: name, number: hosts.count - 1, disk: self)
    }

    /// From now on `events` grows with every write and flush that returns.
    package func record() { isRecording = true }

    /// Power cut: all hosts are cut off, and of what is not durable each unit is there or not, as
    /// the seed says (D2). Returns what a new disk would find.
    package func crash(seed: UInt64) -> DiskContent {
        for host in hosts.indices { hosts[host].isCutOff = true }
        var chance = SeededGenerator(seed: seed)
        var content = durable
        var rest = volatile + inFlight
        while !rest.isEmpty {
            // Half of the time in order, so that "everything arrived" is a common case as well.
            let index = chance.oneIn(2) ? 0 : chance.below(rest.count)
            land(rest.remove(at: index), on: &content, &chance)
        }
        volatile = []
        inFlight = []
        return content
    }

    /// The content after the first `count` of `events` on a disk that began as `base`: flushed
    /// writes for certain, the others whole, in part or not at all, as the seed says.
    package static func content(
        base: DiskContent,
        events: [DiskEvent],
        count: Int,
        alignment: Int,
        seed: UInt64
    ) -> DiskContent {
        var chance = SeededGenerator(seed: seed)
        var content = base
        var open: [Write] = []
        for event in events.prefix(count) {
            switch event {
            case .wrote(let id, _, let offset, let bytes):
                open.append(
                    Write(id: id, host: 0, offset: offset, bytes: bytes)
                )
            case .flushed(_, let ids):
                let covered = Set(ids)
                for write in open where covered.contains(write.id) {
                    write.bytes.withUnsafeBytes { content.write($0, at: write.offset) }
                }
                open.removeAll { covered.contains($0.id) }
            }
        }
        for write in open { land(write, on: &content, &chance, alignment: alignment) }
        return content
    }

    // MARK: Writes on their way

    private func land(
        _ write: Write,
        on content: inout DiskContent,
        _ chance: inout SeededGenerator
    ) {
        Self.land(write, on: &content, &chance, alignment: alignment)
    }

    /// Brings a write to the medium whole, not at all, or in part.
    private static func land(
        _ write: Write,
        on content: inout DiskContent,
        _ chance: inout SeededGenerator,
        alignment: Int
    ) {
        let fate = chance.below(3)
        if fate == 0 { return }
        write.bytes.withUnsafeBytes { bytes in
            if fate == 1 { return content.write(bytes, at: write.offset) }
            for start in stride(from: 0, to: bytes.count, by: alignment) where chance.oneIn(2) {
                let unit = UnsafeRawBufferPointer(rebasing: bytes[start..<start + alignment])
                content.write(unit, at: write.offset + UInt64(start))
            }
        }
    }

    fileprivate func begin(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64,
        host: Int
    ) -> UInt64 {
        let end = offset + UInt64(buffer.count)
        for other in inFlight
        where other.offset < end && offset < other.offset + UInt64(other.bytes.count) {
            counters.overlappingWrites += 1
        }
        let id = nextID
        nextID += 1
        inFlight.append(Write(id: id, host: host, offset: offset, bytes: Array(buffer)))
        return id
    }

    /// The write has arrived whole.
    fileprivate func finish(_ id: UInt64) {
        guard let index = inFlight.firstIndex(where: { $0.id == id }) else { return }
        arrive(inFlight.remove(at: index))
    }

    /// A write that failed or was cut off: perhaps it arrived, perhaps in part (B4, D4).
    fileprivate func abandon(_ id: UInt64) {
        guard let index = inFlight.firstIndex(where: { $0.id == id }) else { return }
        var write = inFlight.remove(at: index)
        var content = visible
        land(write, on: &content, &dice)
        let landed = content.bytes(at: write.offset, count: write.bytes.count)
        let isTorn = landed != write.bytes
        write.bytes = landed
        arrive(write)
        if isTorn { onTorn?(write.offset) }
    }

    private func arrive(_ write: Write) {
        write.bytes.withUnsafeBytes { visible.write($0, at: write.offset) }
        volatile.append(write)
        guard isRecording else { return }
        events.append(
            .wrote(
                id: write.id,
                host: hosts[write.host].name,
                offset: write.offset,
                bytes: write.bytes
            )
        )
    }

    /// D1: what a read finds, torn where a write is in flight.
    fileprivate func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) {
        visible.read(buffer, at: offset)
        let end = offset + UInt64(buffer.count)
        for write in inFlight
        where write.offset < end && offset < write.offset + UInt64(write.bytes.count) {
            write.bytes.withUnsafeBytes { bytes in
                for start in stride(from: 0, to: bytes.count, by: alignment) {
                    let place = write.offset + UInt64(start)
                    guard place >= offset, place < end, dice.oneIn(2) else { continue }
                    let target = Int(place - offset)
                    UnsafeMutableRawBufferPointer(rebasing: buffer[target..<target + alignment])
                        .copyMemory(
                            from: UnsafeRawBufferPointer(
                                rebasing: bytes[start..<start + alignment]
                            )
                        )
                }
            }
        }
    }

    /// Shows every write that was called and has not returned: the name of its host, its first byte,
    /// its content.
    package func eachWriteInFlight(_ body: (String, UInt64, UnsafeRawBufferPointer) -> Void) {
        for write in inFlight {
            write.bytes.withUnsafeBytes { body(hosts[write.host].name, write.offset, $0) }
        }
    }

    fileprivate func returnedWrites() -> [UInt64] { volatile.map(\.id) }

    /// D3.
    fileprivate func makeDurable(_ ids: [UInt64], host: Int) {
        let covered = Set(ids)
        for write in volatile where covered.contains(write.id) {
            write.bytes.withUnsafeBytes { durable.write($0, at: write.offset) }
        }
        volatile.removeAll { covered.contains($0.id) }
        if isRecording { events.append(.flushed(host: hosts[host].name, ids: ids)) }
    }

    fileprivate func isCutOff(_ host: Int) -> Bool { hosts[host].isCutOff }

    fileprivate func cutOff(_ host: Int) {
        hosts[host].isCutOff = true
        for write in inFlight where write.host == host { abandon(write.id) }
    }

    // MARK: Time and faults

    fileprivate func isLongWrite() -> Bool {
        latency.longWriteOneIn > 0 && dice.oneIn(latency.longWriteOneIn)
    }

    fileprivate func delay(_ range: ClosedRange<UInt64>, mayBeSlow: Bool = true) async {
        let span = Int(range.upperBound - range.lowerBound) + 1
        var nanoseconds = range.lowerBound + UInt64(dice.below(span))
        if mayBeSlow, latency.slowOneIn > 0, dice.oneIn(latency.slowOneIn) {
            nanoseconds *= latency.slowness
        }
        await executor.sleep(nanoseconds: nanoseconds)
    }

}

extension DiskFaults {
    /// Counts one call; true if it fails.
    fileprivate mutating func strike(_ countdown: WritableKeyPath<DiskFaults, Int?>) -> Bool {
        if failEverything { return true }
        guard let left = self[keyPath: countdown] else { return false }
        self[keyPath: countdown] = left > 1 ? left - 1 : nil
        return left <= 1
    }
}

/// One host's handle on a disk.
package final class SimulatedHost: BlockDevice, @unchecked Sendable {
    // Sendable: X1 of the executor.

    package let name: String
    package let disk: SimulatedDisk
    private let number: Int

    /// Faults that this host alone meets: its way to the disk.
    package var faults = DiskFaults()
    /// Writes that were begun.
    package private(set) var writesBegun = 0
    private var isClosed = false

    fileprivate init(name: String, number: Int, disk: SimulatedDisk) {
        self.name = name
        self.number = number
        self.disk = disk
    }

    package var alignment: Int { disk.alignment }
    package var byteCount: UInt64 { disk.visible.byteCount }

    private func isFaulty(_ countdown: WritableKeyPath<DiskFaults, Int?>) -> Bool {
        let everybody = disk.faults.strike(countdown)
        return faults.strike(countdown) || everybody
    }

    /// Whether the host was fenced, or power failed.
    package var isCutOff: Bool { disk.isCutOff(number) }

    /// Its process runs no more code (D4): new calls fail with `.closed` from now on.
    package func beginNothing() { isClosed = true }

    /// Fences the host (D4). Its calls fail with `.closed` from now on.
    package func cutOff() {
        isClosed = true
        guard !isCutOff else { return }
        disk.cutOff(number)
    }

    package func read(
        _ buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try checkRange(offset: offset, length: buffer.count)
        if isClosed { throw .closed }
        disk.counters.reads += 1
        disk.counters.bytesRead += UInt64(buffer.count)
        let fails = isFaulty(\.failRead)
        await disk.delay(disk.latency.read)
        if isCutOff { throw .closed }
        if fails { throw .failed(operation: "read", offset: offset, errno: 5) }
        disk.read(buffer, at: offset)
    }

    package func write(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try checkRange(offset: offset, length: buffer.count)
        if isClosed || isCutOff { throw .closed }
        writesBegun += 1
        disk.counters.writes += 1
        disk.counters.bytesWritten += UInt64(buffer.count)
        let fails = isFaulty(\.failWrite)
        disk.onWrite?(name, offset, buffer)
        let id = disk.begin(buffer, at: offset, host: number)
        if disk.isLongWrite() {
            await disk.delay(disk.latency.longWrite, mayBeSlow: false)
        } else {
            await disk.delay(disk.latency.write)
        }
        if isCutOff { throw .closed }
        if fails {
            disk.abandon(id)
            throw .failed(operation: "write", offset: offset, errno: 5)
        }
        disk.finish(id)
    }

    package func flush() async throws(DeviceError) {
        if isClosed || isCutOff { throw .closed }
        disk.counters.flushes += 1
        let fails = isFaulty(\.failFlush)
        let covered = disk.returnedWrites()
        await disk.delay(disk.latency.flush)
        if isCutOff { throw .closed }
        if fails { throw .failed(operation: "flush", offset: 0, errno: 5) }
        disk.makeDurable(covered, host: number)
    }
}
