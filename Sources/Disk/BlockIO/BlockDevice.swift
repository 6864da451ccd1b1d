// What a block device promises, whichever it is: an image file, a disk, memory, a simulated disk.
//
// B1. Offsets and lengths are multiples of `alignment`, buffers are aligned to `alignment`.
// B2. A write is in no particular order with other writes in flight, and durable only after a
//     `flush` that was called after the write had returned.
// B3. A write of one aligned unit of `alignment` bytes is atomic against power loss; a longer one
// may
//     tear between units.
// B4. After a failed write or flush nothing is known about the written range.

/// Why a device did not do what was asked.
package enum DeviceError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The device reported an error (an errno) at this byte offset.
    case failed(operation: String, offset: UInt64, errno: Int32)
    /// The range lies outside the device.
    case outOfRange(offset: UInt64, length: Int, size: UInt64)
    /// The device was shut: this node has withdrawn or is unmounting.
    case closed

    package var description: String {
        switch self {
        case .failed(let operation, let offset, let errno):
            "\(operation) at byte \(offset) failed with errno \(errno)"
        case .outOfRange(let offset, let length, let size):
            "\(length) bytes at byte \(offset) lie outside the device of \(size) bytes"
        case .closed: "the device is closed"
        }
    }
}

/// A device of blocks. All functions may be called from the engine only; the work itself happens
/// wherever the implementation likes, and the caller continues on its own executor.
package protocol BlockDevice: AnyObject, Sendable {
    /// Bytes that offsets, lengths and buffers must be multiples of: 512 or 4096.
    var alignment: Int { get }

    /// Size in bytes.
    var byteCount: UInt64 { get }

    /// Fills the whole buffer from `offset` on. The buffer must stay valid until the call returns.
    func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) async throws(DeviceError)

    /// Writes the whole buffer at `offset`. The buffer must stay valid and unchanged until the call
    /// returns.
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) async throws(DeviceError)

    /// Makes everything durable whose write had returned before the call.
    func flush() async throws(DeviceError)
}
