// A disk that takes note of every write and every flush, in order and with content: what the
// enumeration of crashes builds its images from.
//
// A write is noted when it is asked for: from then on any part of it may be on the medium. A flush
// is noted when it returns, with the writes that had returned before it was asked for (B2): from
// then on they are on the medium whole.

package import BlockIO
package import SimulatedMachine
import Vocabulary

/// One write, as it was asked for.
package struct RecordedWrite: Hashable, Sendable {
    /// Its number among the writes of the record.
    package let id: Int
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
    private var content: DiskContent
    private var nextID = 0
    private var flushes = 0
    /// Writes that have returned and that no flush has covered.
    private var returned: [Int] = []
    private var isRecording = true

    /// Nothing takes time.
    package var isImmediate = false

    /// What happened so far.
    package private(set) var events: [DeviceEvent] = []

    package init(content: DiskContent, executor: SeededExecutor, defect: DeviceDefect? = nil) {
        self.content = content
        self.executor = executor
        self.defect = defect
        dice = executor.forkDice()
    }

    package var byteCount: UInt64 { content.byteCount }

    /// The record ends here; the disk goes on.
    package func endRecord() { isRecording = false }

    package func read(
        _ buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try check(offset, buffer.count)
        await delay()
        content.read(buffer, at: offset)
    }

    package func write(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try check(offset, buffer.count)
        let write = RecordedWrite(id: nextID, offset: offset, bytes: Array(buffer))
        nextID += 1
        if isRecording { events.append(.wrote(write)) }
        await delay()
        precondition(
            write.bytes.withUnsafeBytes { $0.elementsEqual(buffer) },
            "a buffer was changed while it was written"
        )
        content.write(buffer, at: offset)
        returned.append(write.id)
    }

    package func flush() async throws(DeviceError) {
        let covered = returned
        await delay()
        flushes += 1
        guard isRecording else { return }
        switch defect {
        case .forgetsFlushes: return
        case .forgetsSomeFlushes where flushes % 2 == 0: return
        case .forgetsSomeFlushes, nil: break
        }
        events.append(.flushed(covered))
        let gone = Set(covered)
        returned.removeAll { gone.contains($0) }
    }

    private func check(_ offset: UInt64, _ length: Int) throws(DeviceError) {
        precondition(
            offset % UInt64(alignment) == 0 && length % alignment == 0,
            "B1: \(length) bytes at \(offset) are not aligned to \(alignment)"
        )
        guard offset <= byteCount, UInt64(length) <= byteCount - offset else {
            throw .outOfRange(offset: offset, length: length, size: byteCount)
        }
    }

    private func delay() async {
        if isImmediate { return }
        await executor.sleep(nanoseconds: 10_000 + UInt64(dice.below(90_000)))
    }
}
