/// A device whose work can also be done on the calling thread, for threads that may block:
/// commands, the thread that moves a heartbeat, the threads that fill replies to the kernel. Same
/// promises and errors as the functions of `BlockDevice`, same limits on offset, length and
/// alignment (B1).
package protocol BlockingBlockDevice: BlockDevice {
    /// Fills the whole buffer from byte `offset` on, before it returns.
    func readNow(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError)

    /// Writes the whole buffer at byte `offset`, before it returns. Durable only after a flush.
    func writeNow(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError)

    /// Makes everything durable whose write had returned before the call.
    func flushNow() throws(DeviceError)
}
