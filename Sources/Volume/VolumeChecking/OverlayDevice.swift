// A device that can be written without changing anything: writes stay in memory, reads see them. A
// check that must not write replays the journals onto it and then judges what a replay would have
// made.

package import BlockIO

/// Another device, with what was written since on top of it, in memory.
package final class OverlayDevice: BlockDevice, @unchecked Sendable {
    // Sendable: it serves one check, which is one task; its calls come one after the other.

    private let below: any BlockDevice
    /// What was written, by the number of the unit.
    private var units: [UInt64: [UInt8]] = [:]

    package init(over device: any BlockDevice) { below = device }

    package var alignment: Int { below.alignment }
    package var byteCount: UInt64 { below.byteCount }

    /// Bytes that stand in memory.
    package var byteCountAbove: Int { units.count * alignment }

    private func check(_ count: Int, _ offset: UInt64) throws(DeviceError) {
        guard count % alignment == 0, offset % UInt64(alignment) == 0 else {
            throw .failed(operation: "unaligned access", offset: offset, errno: 22)
        }
        guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
            throw .outOfRange(offset: offset, length: count, size: byteCount)
        }
    }

    package func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64)
        async throws(DeviceError)
    {
        try await below.read(buffer, at: offset)
        let unit = alignment
        guard !units.isEmpty else { return }
        for part in stride(from: 0, to: buffer.count, by: unit) {
            guard let bytes = units[(offset + UInt64(part)) / UInt64(unit)] else { continue }
            UnsafeMutableRawBufferPointer(rebasing: buffer[part..<part + unit])
                .copyBytes(from: bytes)
        }
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64)
        async throws(DeviceError)
    {
        try check(buffer.count, offset)
        let unit = alignment
        for part in stride(from: 0, to: buffer.count, by: unit) {
            units[(offset + UInt64(part)) / UInt64(unit)] = [UInt8](buffer[part..<part + unit])
        }
    }

    package func flush() async throws(DeviceError) {}
}
