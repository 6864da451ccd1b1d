// A connection between the coordinator and an agent: a socket with length-checked messages.
//
// C1  Whoever receives never waits for a peer that does not read: what is sent is put into a queue, and a
//     thread of its own writes it. Else two that send to each other could wait for each other for ever.
// C2  Messages arrive in the order in which they were sent.

import CLinux
import Glibc
package import LinuxSystem
package import StressJudging

/// One end of a connection.
package final class StressChannel: @unchecked Sendable {
    // Sendable: what changes is guarded by `latch`.
    private let descriptor: Int32
    private let latch = Latch()
    private let changed = WaitCondition()
    private var queue: [UInt8] = []
    private var isClosed = false
    private var sender: RunningThread?

    /// Bytes that may wait before a worker has to.
    private static let room = 1 << 20

    /// Takes over a connected socket.
    ///
    /// - Throws: `SystemError` when there is no room for a thread.
    package init(_ descriptor: Int32) throws(SystemError) {
        self.descriptor = descriptor
        sender = try runThread(name: "sender") { [self] in sendAll() }
    }

    /// Sends a message, soon. Nothing happens when the connection has ended.
    ///
    /// - Parameter waits: wait while very much is to be sent; not for those who receive (C1).
    package func send(_ message: StressMessage, waits: Bool = false) {
        latch.withLock {
            while waits, queue.count > Self.room, !isClosed { changed.wait(latch) }
            guard !isClosed else { return }
            queue += message.frame
            changed.broadcast()
        }
    }

    private func sendAll() {
        while true {
            let bytes: [UInt8]? = latch.withLock {
                while queue.isEmpty, !isClosed { changed.wait(latch) }
                guard !queue.isEmpty else { return nil }
                let taken = queue
                queue = []
                changed.broadcast()
                return taken
            }
            guard let bytes, write(bytes) else { return close() }
        }
    }

    private func write(_ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { raw in
            var done = 0
            while done < raw.count {
                let count = Glibc.send(
                    descriptor,
                    raw.baseAddress?.advanced(by: done),
                    raw.count - done,
                    Int32(MSG_NOSIGNAL)
                )
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return false }
                done += count
            }
            return true
        }
    }

    /// The next message; nil when the connection has ended. By one thread.
    ///
    /// - Throws: `StressWireError` when something else than a message came.
    package func receive() throws(StressWireError) -> StressMessage? {
        guard let head = read(4) else { return nil }
        let length = head.reversed().reduce(0) { $0 << 8 | Int($1) }
        guard length <= StressMessage.longest else { throw .tooLong(length) }
        guard let body = read(length) else { return nil }
        return try StressMessage(body: body)
    }

    private func read(_ count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let got = bytes.withUnsafeMutableBytes {
                recv(descriptor, $0.baseAddress?.advanced(by: done), count - done, 0)
            }
            if got < 0, errno == EINTR { continue }
            guard got > 0 else { return nil }
            done += got
        }
        return bytes
    }

    /// Sends what waits and ends the connection. Returns when that is done, or the other end is gone.
    package func finish() {
        latch.withLock {
            isClosed = true
            changed.broadcast()
        }
        sender?.join()
        sender = nil
    }

    /// Ends the connection; whoever receives at either end is told.
    package func close() {
        latch.withLock {
            isClosed = true
            changed.broadcast()
        }
        shutdown(descriptor, Int32(SHUT_RDWR))
    }
}
