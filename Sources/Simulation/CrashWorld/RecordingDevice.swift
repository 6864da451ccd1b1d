// A disk that takes note of every write and every flush, in order and with content: what the
// enumeration of crashes builds its images from.
//
// A write is noted when it is asked for: from then on any part of it may be on the medium. A flush
// is noted when it returns, with the writes that had returned before it was asked for (B2): from
// then on they are on the medium whole.
//
// One node uses the device itself. Several have a `RecordingHost` each: a host can be cut off, and
// what it had in flight then arrives in one of the ways of `Landing`. A host's read that overlaps a
// write in flight finds each sector old or new.

package import BlockIO
package import SimulatedMachine
package import Vocabulary

/// One write, as it was asked for.
package struct RecordedWrite: Hashable, Sendable {
    /// Its number among the writes of the record.
    package let id: Int
    /// Which host asked for it; 0 without hosts.
    package let host: Int
    package let offset: UInt64
    package let bytes: [UInt8]
}

/// What happened at the device.
package enum DeviceEvent: Hashable, Sendable {
    /// A write was asked for.
    case wrote(RecordedWrite)
    /// A flush returned that covers the writes with these numbers.
    case flushed([Int])
}

/// A fault of the disk itself, to test that the enumeration finds what it is there to find.
package enum DeviceDefect: String, Hashable, Sendable, CaseIterable {
    /// Every flush returns and makes nothing durable.
    case forgetsFlushes
    /// Every second flush does.
    case forgetsSomeFlushes
}

/// A disk in memory that keeps a record. Used inside one simulated run.
package final class RecordingDevice: BlockDevice, @unchecked Sendable {
    // Sendable: X1 of the executor.

    package let alignment = 512
    private let executor: SeededExecutor
    private var dice: SeededGenerator
    private let defect: DeviceDefect?
    /// What readers see.
    package private(set) var image: CrashImage
    private var inFlight: [RecordedWrite] = []
    private var nextID = 0
    private var flushes = 0
    /// Writes that have returned and that no flush has covered.
    private var returned: [Int] = []
    private var isRecording = true

    /// Nothing takes time.
    package var isImmediate = false

    /// What happened so far.
    package private(set) var events: [DeviceEvent] = []

    /// Told of each event when it has been noted: how many there are now.
    package var onEvent: ((Int) -> Void)?

    package init(content: DiskContent, executor: SeededExecutor, defect: DeviceDefect? = nil) {
        image = CrashImage(base: content)
        self.executor = executor
        self.defect = defect
        dice = executor.forkDice()
    }

    package var byteCount: UInt64 { image.content.byteCount }

    /// The record ends here; the disk goes on.
    package func endRecord() { isRecording = false }

    /// A handle for one of several nodes. Numbers count from 1 and are given once.
    package func attach(_ number: Int) -> RecordingHost { RecordingHost(self, number) }

    package func read(
        _ buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try check(offset, buffer.count)
        await delay()
        image.content.read(buffer, at: offset)
    }

    package func write(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        let write = try begin(buffer, at: offset, host: 0)
        await delay()
        finish(write, buffer)
    }

    package func flush() async throws(DeviceError) {
        let covered = returned
        await delay()
        makeDurable(covered)
    }

    // MARK: Steps of a request

    fileprivate func begin(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64,
        host: Int
    ) throws(DeviceError) -> RecordedWrite {
        try check(offset, buffer.count)
        let write = RecordedWrite(id: nextID, host: host, offset: offset, bytes: Array(buffer))
        nextID += 1
        inFlight.append(write)
        note(.wrote(write))
        return write
    }

    fileprivate func finish(_ write: RecordedWrite, _ buffer: UnsafeRawBufferPointer) {
        precondition(
            write.bytes.withUnsafeBytes { $0.elementsEqual(buffer) },
            "a buffer was changed while it was written"
        )
        inFlight.removeAll { $0.id == write.id }
        image.land(write)
        returned.append(write.id)
    }

    /// Writes that a flush which is asked for now will cover.
    fileprivate var covered: [Int] { returned }

    fileprivate func makeDurable(_ covered: [Int]) {
        flushes += 1
        guard isRecording else { return }
        switch defect {
        case .forgetsFlushes: return
        case .forgetsSomeFlushes where flushes % 2 == 0: return
        case .forgetsSomeFlushes, nil: break
        }
        let gone = Set(covered)
        returned.removeAll { gone.contains($0) }
        note(.flushed(covered))
    }

    private func note(_ event: DeviceEvent) {
        guard isRecording else { return }
        events.append(event)
        onEvent?(events.count)
    }

    /// Writes of a host that have not returned, in the order in which they were asked for.
    package func writesInFlight(of host: Int) -> [RecordedWrite] {
        inFlight.filter { $0.host == host }
    }

    /// What a host had in flight arrives as `variant` says, and not at any later time.
    fileprivate func abandon(_ host: Int, _ variant: Int, _ dice: inout SeededGenerator) {
        Landing.land(writesInFlight(of: host), variant, on: &image, &dice)
        inFlight.removeAll { $0.host == host }
    }

    fileprivate func readAmidWrites(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) {
        image.content.read(buffer, at: offset)
        let end = offset + UInt64(buffer.count)
        for write in inFlight
        where write.offset < end && offset < write.offset + UInt64(write.bytes.count) {
            for start in stride(from: 0, to: write.bytes.count, by: alignment) {
                let place = write.offset + UInt64(start)
                guard place >= offset, place < end, dice.oneIn(2) else { continue }
                let target = Int(place - offset)
                UnsafeMutableRawBufferPointer(rebasing: buffer[target..<target + alignment])
                    .copyBytes(from: write.bytes[start..<start + alignment])
            }
        }
    }

    fileprivate func check(_ offset: UInt64, _ length: Int) throws(DeviceError) {
        precondition(
            offset % UInt64(alignment) == 0 && length % alignment == 0,
            "B1: \(length) bytes at \(offset) are not aligned to \(alignment)"
        )
        guard offset <= byteCount, UInt64(length) <= byteCount - offset else {
            throw .outOfRange(offset: offset, length: length, size: byteCount)
        }
    }

    fileprivate func delay() async {
        if isImmediate { return }
        await executor.sleep(nanoseconds: 10_000 + UInt64(dice.below(90_000)))
    }
}

/// One node's handle on a disk that several share.
package final class RecordingHost: BlockDevice, @unchecked Sendable {
    // Sendable: X1 of the executor.

    private let device: RecordingDevice
    package let number: Int
    /// Nothing of this host reaches the disk any more.
    package private(set) var isCutOff = false

    fileprivate init(_ device: RecordingDevice, _ number: Int) {
        self.device = device
        self.number = number
    }

    package var alignment: Int { device.alignment }
    package var byteCount: UInt64 { device.byteCount }

    /// Cuts the host off; what it had in flight lands as `variant` says (`Landing`). Its calls fail
    /// with `.closed` from now on.
    package func cutOff(_ variant: Int, _ dice: inout SeededGenerator) {
        isCutOff = true
        device.abandon(number, variant, &dice)
    }

    private func requireConnection() throws(DeviceError) { if isCutOff { throw .closed } }

    package func read(
        _ buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try device.check(offset, buffer.count)
        await device.delay()
        try requireConnection()
        device.readAmidWrites(buffer, at: offset)
    }

    package func write(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try requireConnection()
        let write = try device.begin(buffer, at: offset, host: number)
        // Asking for it may have been the moment of this node's death.
        try requireConnection()
        await device.delay()
        try requireConnection()
        device.finish(write, buffer)
    }

    package func flush() async throws(DeviceError) {
        try requireConnection()
        let covered = device.covered
        await device.delay()
        try requireConnection()
        device.makeDurable(covered)
    }
}
