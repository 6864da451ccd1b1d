// Memory for requests and replies that carry file data.
//
//   0        4016             4096                                  4096 + maximumTransfer
//   | reply  | header, WRITE's | data, on a page boundary            |
//   | area   | arguments       |
//
// A request is received at 4016, so that the 80 bytes before a WRITE's data end at the page
// boundary and the data can go to the device as it is, without a copy. A READ's reply has its
// header in the 16 bytes before the boundary: header and data leave in one write(2).

import LinuxSystem

/// One buffer. It belongs to whoever took it from the pool.
final class TransferBuffer: @unchecked Sendable {
    // Sendable: one owner at a time.

    /// Where the data is.
    static let dataOffset = 4096
    /// Where a request is received: its header (40 bytes) and WRITE's arguments (40) end at
    /// `dataOffset`.
    static let receiveOffset = dataOffset - 80
    /// Where a reply with data starts: its header has 16 bytes.
    static let replyOffset = dataOffset - 16

    let base: UnsafeMutableRawPointer
    /// Bytes of data there is room for.
    let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        // A spare page: requests with several arguments are longer than their data.
        base = .allocate(byteCount: Self.dataOffset + capacity + 4096, alignment: 4096)
    }

    deinit { base.deallocate() }

    var data: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base + Self.dataOffset, count: capacity)
    }

    /// The place for a request to be received.
    var receiveArea: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base + Self.receiveOffset, count: capacity + 80 + 4096)
    }
}

/// Buffers that nobody uses, last in first out: their pages are mapped and likely in the
/// processor's cache.
final class BufferPool: @unchecked Sendable {
    // Sendable: `free` is used under `latch` only.
    private let latch = Latch()
    private var free: [TransferBuffer] = []
    private let capacity: Int
    private let kept: Int

    /// - Parameters:
    ///   - capacity: bytes of data per buffer.
    ///   - kept: how many unused buffers stay allocated.
    init(capacity: Int, kept: Int) {
        self.capacity = capacity
        self.kept = kept
    }

    func take() -> TransferBuffer {
        latch.withLock { free.popLast() } ?? TransferBuffer(capacity: capacity)
    }

    func giveBack(_ buffer: TransferBuffer) {
        latch.withLock { if free.count < kept { free.append(buffer) } }
    }
}
