// The descriptor of /dev/fuse: what is written to it.

import CFuse3
import Glibc
import LinuxSystem

/// One connection with the kernel. From any thread.
final class Session: @unchecked Sendable {
    // Sendable: `descriptor` and `agreement` are set before the first thread starts; `isOver` is
    // used under `endLatch`.

    /// A duplicate of our own of /dev/fuse's, -1 before the mount. Open as long as this object
    /// lives: a late reply must not reach a file that was given the same number.
    private(set) var descriptor: Int32 = -1
    private(set) var agreement = FuseAgreement()
    let log: LineLog

    private let endLatch = Latch()
    private var isOver = false

    init(log: LineLog) { self.log = log }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Takes a duplicate of the descriptor of /dev/fuse. Once.
    func begin(descriptor original: Int32, agreement: FuseAgreement) throws(FuseServerError) {
        precondition(descriptor < 0, "a session begins once")
        descriptor = fcntl(original, F_DUPFD_CLOEXEC, 0)
        guard descriptor >= 0 else { throw .system(SystemError.last("fcntl", "/dev/fuse")) }
        self.agreement = agreement
    }

    /// Whether the connection has ended. If it was ended by force, whoever has a file open is still
    /// served from the kernel's caches (`FuseKernelCache.takeEverythingBack`).
    var hasEnded: Bool { endLatch.withLock { isOver } }

    /// The kernel has closed the connection.
    func end() { endLatch.withLock { isOver = true } }

    /// Writes a reply that lies in one piece. Returns false if the kernel did not take it: its
    /// request is gone because the process was killed or the connection aborted.
    func send(_ start: UnsafeRawPointer, count: Int) -> Bool {
        while true {
            let written = Glibc.write(descriptor, start, count)
            if written == count { return true }
            precondition(written < 0, "the kernel took part of a reply")
            switch errno {
            case EINTR: continue
            case ENOENT, ENODEV, ECONNABORTED, ENOTCONN: return false
            default:
                log.error("a reply of \(count) bytes was refused: \(errnoText(errno))")
                return false
            }
        }
    }

    /// Writes an error reply.
    func sendError(_ code: Int32, to unique: UInt64) {
        withUnsafeTemporaryAllocation(byteCount: Encoding.headerSize, alignment: 8) { area in
            guard let start = area.baseAddress else { return }
            Encoding.header(at: start, unique: unique, error: code, count: 0)
            _ = send(start, count: Encoding.headerSize)
        }
    }

    /// Writes a notification. Blocks as long as the kernel does. Returns 0 or the error number.
    func notify(_ message: [UInt8]) -> Int32 {
        if hasEnded { return ENODEV }
        return notifyAfterEnd(message)
    }

    /// As `notify`, also when the connection has ended: the kernel takes it as long as the mount is
    /// used.
    func notifyAfterEnd(_ message: [UInt8]) -> Int32 {
        while true {
            let written = message.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress, $0.count)
            }
            if written >= 0 { return 0 }
            if errno != EINTR { return errno }
        }
    }
}
