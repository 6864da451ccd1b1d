// A block device or an image file of this host, by pread and pwrite on a few threads.
//
// The engine must never block, so `read`, `write` and `flush` put a request into a queue, one of
// the pool's threads does it with an ordinary system call, and resumes the caller. (io_uring was
// measured and gave nothing here.) The `...Now` functions do the same on the calling thread.
//
// O_DIRECT always: another host, or another mount of this host, must never be served from this
// host's page cache, and a block that was acknowledged must be on its way to the device, not in
// memory. File systems that refuse O_DIRECT (tmpfs) are refused, unless `Options.allowsBuffered`
// says that every mount of this image goes through the same page cache and that a test is all this
// is about.
//
// States: open -> draining (`drain`: new work is refused, work in flight ends) -> closed (`close`).
//
// Invariants
// F1. `inFlight` counts every request accepted and not yet answered, queued or running, blocking
// ones
//     too; a file descriptor is closed only when it is zero and no new request can come.
// F2. A continuation is resumed exactly once, and never while the latch is held: it may run the
//     engine on the pool's thread.
// F3. A flush counts for a caller only if the system call began after the caller asked. Callers who
//     ask while one runs share the next.
// F4. A failed flush is final. The kernel reports a lost write to fdatasync once and then forgets
//     it; a second, successful call would be a lie, so every later flush fails with the same errno.
//
// The caller's buffer is used by the pool until the request is answered; see `BlockDevice`.

package import BlockIO
import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// An image file or block device opened for aligned, direct I/O. Must be ended by `close()`: its
/// threads keep it alive until then.
package final class FileBlockDevice: BlockingBlockDevice, @unchecked Sendable {
    // Sendable: what changes is atomic, or guarded by `latch`.

    /// How to open a device.
    package struct Options: Sendable {
        /// Opens for reading alone; writes then fail with EBADF.
        package var readOnly = false
        /// Accepts a file system without O_DIRECT (tmpfs) and uses its page cache.
        package var allowsBuffered = false
        /// Opens a block device exclusively (O_EXCL): refused with EBUSY while the kernel itself
        /// has a file system or a volume manager on it. No effect on image files.
        package var exclusive = false
        /// Runs a body inside the engine whose tasks use the device, on the calling thread, if nobody
        /// is inside; false if it did not (`EngineExecutor.enterIfIdle`). With it the thread that has
        /// done a transfer goes on with the task that waited for it, instead of waking another.
        package var enter: (@Sendable (() -> Void) -> Bool)?
        /// Threads that do I/O: 1 ... 64.
        package var threadCount = 6

        package init() {}
    }

    /// The path it was opened by.
    package let path: String
    /// Bytes that offsets, lengths and buffers must be multiples of: 512 or 4096.
    package let alignment: Int
    /// Whether the page cache of this host is bypassed.
    package let isDirect: Bool
    /// Whether this is a block device and not an image file.
    package let isBlockSpecial: Bool

    private let descriptor: Int32
    private let enter: (@Sendable (() -> Void) -> Bool)?
    private let size: Atomic<UInt64>
    private let tally = Tally()
    private let latch = Latch()
    /// There is a request, a flush to do, or the end.
    private let hasWork = WaitCondition()
    /// No flush is running.
    private let mayFlush = WaitCondition()
    /// Nothing is in flight.
    private let isQuiet = WaitCondition()

    // Guarded by `latch`.
    private var queue = RequestQueue()
    private var flushWaiters: [UnsafeContinuation<Int32, Never>] = []
    private var isFlushing = false
    private var flushFailure: Int32 = 0
    private var inFlight = 0
    private var isRefusing = false
    private var hasEnded = false
    private var threads: [RunningThread] = []

    /// Opens the device at `path` and starts its threads.
    package init(path: String, options: Options = Options()) throws(DeviceOpenError) {
        precondition((1...64).contains(options.threadCount), "1 to 64 I/O threads")
        let opened = try OpenedFile(path: path, options: options)
        self.path = path
        descriptor = opened.descriptor
        enter = options.enter
        alignment = opened.alignment
        isDirect = opened.isDirect
        isBlockSpecial = opened.isBlockSpecial
        size = Atomic(opened.byteCount)
        do {
            for index in 0..<options.threadCount {
                threads.append(try runThread(name: "disk \(index)") { [self] in serve() })
            }
        } catch {
            close()
            throw DeviceOpenError(path: path, reason: "\(error)", errno: error.code)
        }
    }

    /// Size in bytes, as it was found when the device was opened or `refreshSize` was last called.
    package var byteCount: UInt64 { size.load(ordering: .acquiring) }

    /// Asks the system for the size again, after somebody grew the device. Returns it, in bytes.
    package func refreshSize() throws(DeviceError) -> UInt64 {
        try begin()
        defer { end() }
        guard let byteCount = sizeOfFile(descriptor, isBlockSpecial: isBlockSpecial) else {
            throw .failed(operation: "size", offset: 0, errno: errno)
        }
        size.store(byteCount, ordering: .releasing)
        return byteCount
    }

    /// What has been done so far.
    package var counters: DeviceCounters { tally.snapshot }

    // MARK: Waiting without blocking

    package func read(
        _ buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try check(UnsafeRawBufferPointer(buffer), offset, "read")
        guard let base = buffer.baseAddress, buffer.count > 0 else { return }
        let code = try await submitted {
            self.queue.append(Request(.read, base, buffer.count, offset, $0))
        }
        if code != 0 { throw .failed(operation: "read", offset: offset, errno: code) }
    }

    package func write(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64
    ) async throws(DeviceError) {
        try check(buffer, offset, "write")
        guard let base = buffer.baseAddress, buffer.count > 0 else { return }
        let target = UnsafeMutableRawPointer(mutating: base)  // only pwrite sees it
        let code = try await submitted {
            self.queue.append(Request(.write, target, buffer.count, offset, $0))
        }
        if code != 0 { throw .failed(operation: "write", offset: offset, errno: code) }
    }

    package func flush() async throws(DeviceError) {
        let code = try await submitted { self.flushWaiters.append($0) }
        if code != 0 { throw .failed(operation: "flush", offset: 0, errno: code) }
    }

    // MARK: On the calling thread

    package func readNow(
        _ buffer: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) throws(DeviceError) {
        try check(UnsafeRawBufferPointer(buffer), offset, "read")
        guard let base = buffer.baseAddress, buffer.count > 0 else { return }
        try begin()
        defer { end() }
        let code = transfer(.read, base, buffer.count, offset)
        if code != 0 { throw .failed(operation: "read", offset: offset, errno: code) }
    }

    package func writeNow(
        _ buffer: UnsafeRawBufferPointer,
        at offset: UInt64
    ) throws(DeviceError) {
        try check(buffer, offset, "write")
        guard let base = buffer.baseAddress, buffer.count > 0 else { return }
        try begin()
        defer { end() }
        let target = UnsafeMutableRawPointer(mutating: base)
        let code = transfer(.write, target, buffer.count, offset)
        if code != 0 { throw .failed(operation: "write", offset: offset, errno: code) }
    }

    package func flushNow() throws(DeviceError) {
        try begin()
        defer { end() }
        latch.lock()
        while isFlushing { mayFlush.wait(latch) }
        let code = synchronise()
        latch.unlock()
        if code != 0 { throw .failed(operation: "flush", offset: 0, errno: code) }
    }

    // MARK: Ending

    /// Refuses new work with `DeviceError.closed` and waits until what was accepted has ended.
    /// Blocks; not from inside an engine, whose thread may be one of the pool's. Idempotent.
    package func drain() {
        latch.lock()
        isRefusing = true
        while inFlight > 0 { isQuiet.wait(latch) }
        latch.unlock()
    }

    /// Drains, ends the threads and closes the file. Blocks. Idempotent.
    package func close() {
        drain()
        latch.lock()
        let mine = hasEnded ? [] : threads
        let isFirst = !hasEnded
        hasEnded = true
        hasWork.broadcast()
        latch.unlock()
        for thread in mine { thread.join() }
        if isFirst { Glibc.close(descriptor) }
    }

    // MARK: The inside

    /// B1 and the device's limits.
    private func check(
        _ buffer: UnsafeRawBufferPointer,
        _ offset: UInt64,
        _ operation: String
    ) throws(DeviceError) {
        let mask = UInt(alignment - 1)
        let address = UInt(bitPattern: buffer.baseAddress)
        if (UInt(offset & UInt64(mask)) | UInt(buffer.count) | address) & mask != 0 {
            throw .failed(operation: "unaligned " + operation, offset: offset, errno: EINVAL)
        }
        let limit = byteCount
        if offset > limit || UInt64(buffer.count) > limit - offset {
            throw .outOfRange(offset: offset, length: buffer.count, size: limit)
        }
    }

    /// Counts a request in (F1).
    private func begin() throws(DeviceError) {
        latch.lock()
        defer { latch.unlock() }
        if isRefusing { throw .closed }
        inFlight += 1
    }

    /// Counts a request out (F1).
    private func end() { latch.withLock { leave(1) } }

    /// Counts requests out (F1), under the latch.
    private func leave(_ count: Int) {
        inFlight -= count
        precondition(inFlight >= 0, "FileBlockDevice F1: more answers than requests")
        if inFlight == 0 { isQuiet.broadcast() }
    }

    /// Counts a request in (F1), hands it to the threads, and waits for its errno.
    private func submitted(
        _ append: (UnsafeContinuation<Int32, Never>) -> Void
    ) async throws(DeviceError) -> Int32 {
        let code = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<Int32, Never>) in
            latch.lock()
            guard !isRefusing else {
                latch.unlock()
                return continuation.resume(returning: Self.refusal)
            }
            inFlight += 1
            append(continuation)
            latch.unlock(signalling: hasWork)
        }
        if code == Self.refusal { throw .closed }
        return code
    }

    /// In place of an errno: it was not accepted.
    private static let refusal: Int32 = -1

    /// The life of one of the pool's threads.
    private func serve() {
        latch.lock()
        while true {
            if !flushWaiters.isEmpty && !isFlushing {  // first, or a stream of writes starves it
                serveFlush()
            } else if let request = queue.popFirst() {
                latch.unlock()
                let code = transfer(request.kind, request.base, request.count, request.offset)
                answer([request.continuation], code)
                latch.lock()
                leave(1)
            } else if hasEnded {
                break
            } else {
                hasWork.wait(latch)
            }
        }
        latch.unlock()
    }

    /// One flush for all who have asked so far (F3). The latch is held before and after.
    private func serveFlush() {
        var waiters: [UnsafeContinuation<Int32, Never>] = []
        swap(&waiters, &flushWaiters)
        let code = synchronise()
        latch.unlock()
        answer(waiters, code)
        latch.lock()
        leave(waiters.count)
    }

    /// Resumes who waited (F2), inside the engine if that is possible.
    private func answer(_ waiters: [UnsafeContinuation<Int32, Never>], _ code: Int32) {
        func resume() { for waiter in waiters { waiter.resume(returning: code) } }
        if let enter, enter(resume) { return }
        resume()
    }

    /// Flushes. Returns 0 or an errno. The latch is held before and after, not meanwhile; one at a
    /// time, because of two that run side by side only one is told of a lost write (F4).
    private func synchronise() -> Int32 {
        precondition(!isFlushing, "FileBlockDevice F4: two flushes side by side")
        if flushFailure != 0 { return flushFailure }
        isFlushing = true
        latch.unlock()
        let code = fdatasync(descriptor) == 0 ? 0 : errno
        latch.lock()
        isFlushing = false
        flushFailure = code
        if code == 0 { tally.countFlush() }
        mayFlush.broadcast()
        if !flushWaiters.isEmpty { hasWork.signal() }
        return code
    }

    /// Moves all bytes, however many calls it takes. Returns 0 or an errno; EIO for a file that has
    /// become shorter than it was.
    private func transfer(
        _ kind: Request.Kind,
        _ base: UnsafeMutableRawPointer,
        _ count: Int,
        _ offset: UInt64
    ) -> Int32 {
        var done = 0
        while done < count {
            let position = off_t(offset) + off_t(done)
            let moved =
                switch kind {
                case .read: pread(descriptor, base + done, count - done, position)
                case .write: pwrite(descriptor, base + done, count - done, position)
                }
            if moved > 0 {
                done += moved
            } else if moved == 0 {
                return EIO
            } else if errno != EINTR {
                return errno
            }
        }
        tally.count(kind, bytes: count)
        return 0
    }
}

/// What a device has done since it was opened. Failed requests are not counted.
package struct DeviceCounters: Hashable, Sendable {
    package var reads: UInt64
    package var writes: UInt64
    package var flushes: UInt64
    package var bytesRead: UInt64
    package var bytesWritten: UInt64
}

/// One read or write in the queue.
struct Request {
    enum Kind { case read, write }

    let kind: Kind
    let base: UnsafeMutableRawPointer
    let count: Int
    let offset: UInt64
    let continuation: UnsafeContinuation<Int32, Never>

    init(
        _ kind: Kind,
        _ base: UnsafeMutableRawPointer,
        _ count: Int,
        _ offset: UInt64,
        _ continuation: UnsafeContinuation<Int32, Never>
    ) {
        self.kind = kind
        self.base = base
        self.count = count
        self.offset = offset
        self.continuation = continuation
    }
}

/// First in, first out, in one array that keeps its memory.
struct RequestQueue {
    private var requests: [Request] = []
    private var head = 0

    mutating func append(_ request: Request) { requests.append(request) }

    mutating func popFirst() -> Request? {
        guard head < requests.count else { return nil }
        let next = requests[head]
        head += 1
        if head == requests.count {
            requests.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 1024 && head * 2 > requests.count {
            requests.removeFirst(head)
            head = 0
        }
        return next
    }
}

/// The counters themselves. Each is exact; together they are not of one instant.
private final class Tally: Sendable {
    private let reads = Atomic<UInt64>(0)
    private let writes = Atomic<UInt64>(0)
    private let flushes = Atomic<UInt64>(0)
    private let bytesRead = Atomic<UInt64>(0)
    private let bytesWritten = Atomic<UInt64>(0)

    func count(_ kind: Request.Kind, bytes: Int) {
        switch kind {
        case .read:
            reads.add(1, ordering: .relaxed)
            bytesRead.add(UInt64(bytes), ordering: .relaxed)
        case .write:
            writes.add(1, ordering: .relaxed)
            bytesWritten.add(UInt64(bytes), ordering: .relaxed)
        }
    }

    func countFlush() { flushes.add(1, ordering: .relaxed) }

    var snapshot: DeviceCounters {
        DeviceCounters(
            reads: reads.load(ordering: .relaxed),
            writes: writes.load(ordering: .relaxed),
            flushes: flushes.load(ordering: .relaxed),
            bytesRead: bytesRead.load(ordering: .relaxed),
            bytesWritten: bytesWritten.load(ordering: .relaxed)
        )
    }
}
