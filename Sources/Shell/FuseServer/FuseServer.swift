// The door to the kernel: mounts, receives requests from /dev/fuse, and hands them to a file
// system.
//
// libfuse makes the mount (it knows fusermount3 and the mount options); the messages are read and
// written here. libfuse 3.14 does not send the INIT flags that coherent caching needs, hides fields
// and requests that we must see (KERNEL, section on libfuse), and its loop parks a thread per
// request.
//
//   process ── system call ── kernel ── /dev/fuse ── Receiver ──▶ Dispatcher ──▶ FileOperations
//                                           ▲                         │
//                                           ├──── Session.send ◀──────┘ replies (outside the
//                                           engine) └──── NotifyThreads ◀── FuseKernelCache ◀── the
//                                           file system
//
// Which code runs where:
//   inside the engine    Dispatcher, DirectoryActivity, FuseKernelCache's functions, the file
//   system
//   receiving threads    Receiver; they enter the engine, never wait in it, and carry at most a
//   bounded
//                        number of others' jobs (CombiningExecutor X5)
//   notify threads       everything that may block in the kernel
//
// A mount ends when the kernel closes the connection (umount, abort): reading /dev/fuse says
// ENODEV, the receiving threads end, and `run` returns. The kernel sends no farewell (DESTROY goes
// to block-device mounts only), so the file system is shut down by whoever called `run`.
//
// Docs/KERNEL.md has the rules (S, F, M, D) that the comments of this module cite.

import CFuse3
import CLinux
package import Execution
package import FileSystem
import Glibc
import LinuxSystem

/// One mount. `mount` → `run` (until unmounted) → gone.
package final class FuseServer: @unchecked Sendable {
    // Sendable: `library`, `threads`, `mountPoint` are used by `mount`, then by `run`; `isServing`
    // under `latch`; the parts guard themselves.

    package let options: FuseOptions
    /// What the file system uses to take back what the kernel caches. Called inside the engine.
    package let kernelCache: FuseKernelCache
    /// What the kernel may know of.
    package let references = ReferenceTable()

    private let engine: Engine
    private let session: Session
    private let pool: BufferPool
    private let dispatcher: Dispatcher
    private let receiver: Receiver
    private let notifyThreads: NotifyThreads
    private var threads: [RunningThread] = []
    private var library: LibraryMount?
    private let latch = Latch()
    private var isServing = false

    /// A server without a file system yet: the file system is made with `kernelCache` and then
    /// given to `serve`.
    package init(options: FuseOptions, engine: Engine) {
        precondition(
            options.maximumTransfer >= 4096 && options.maximumTransfer <= 1 << 20
                && options.maximumTransfer % 4096 == 0,
            "a transfer is 1 to 256 pages"
        )
        precondition(options.receiverCount > 0, "nobody would receive requests")
        self.options = options
        self.engine = engine
        session = Session(log: options.log)
        pool = BufferPool(capacity: options.maximumTransfer, kept: 32)
        dispatcher = Dispatcher(
            engine: engine,
            session: session,
            references: references,
            pool: pool,
            maximumTransfer: options.maximumTransfer
        )
        receiver = Receiver(
            session: session,
            dispatcher: dispatcher,
            engine: engine,
            pool: pool,
            watchLength: options.watchLength
        )
        notifyThreads = NotifyThreads(log: options.log)
        kernelCache = FuseKernelCache(
            engine: engine,
            session: session,
            references: references,
            activity: dispatcher.activity,
            threads: notifyThreads
        )
        kernelCache.haveAllArrived = { [receiver] in receiver.haveAllArrived() }
    }

    /// A server for a file system that exists.
    package convenience init(
        options: FuseOptions,
        engine: Engine,
        operations: EngineBound<any FileOperations>
    ) {
        self.init(options: options, engine: engine)
        serve(operations)
    }

    /// The file system that answers. Once, before `mount`.
    package func serve(_ operations: EngineBound<any FileOperations>) {
        dispatcher.serve(operations)
    }

    // MARK: What others may ask

    /// What was agreed with the kernel. After `mount`.
    package var agreement: FuseAgreement { session.agreement }

    /// Whether requests are being served: INIT has been answered and the connection is open.
    package var isAnswering: Bool { latch.withLock { isServing } && !session.hasEnded }

    /// Of /dev/fuse, or -1. Whoever duplicates it may write what `FuseNotification` makes, also
    /// after this process has died; the connection then stays open until the duplicate is closed
    /// too.
    package var fileDescriptor: Int32 { session.descriptor }

    /// How many requests have arrived, by kind.
    package var requestCounts: RequestCounts { receiver.requestCounts }

    // MARK: A life

    /// Mounts, answers INIT and starts to serve. When it returns the mount answers.
    package func mount() throws(FuseServerError) {
        precondition(library == nil, "a server mounts once")
        let mounted = try LibraryMount(options)
        library = mounted
        do {
            try negotiate(mounted.descriptor)
            for index in 0..<options.receiverCount {
                threads.append(
                    try runThread(name: "fuse-\(index)") { [receiver] in receiver.run() }
                )
            }
        } catch {
            session.end()
            mounted.detach()
            for thread in threads { thread.join() }
            throw (error as? FuseServerError)
                ?? .system(error as? SystemError ?? SystemError("mount", code: EIO))
        }
        latch.withLock { isServing = true }
        raiseReadAhead()
    }

    /// Serves until the kernel has closed the connection, and every request and every invalidation
    /// has ended. Once.
    package func run() {
        precondition(library != nil, "run comes after mount")
        for thread in threads { thread.join() }
        session.end()
        // Whoever asked is gone; what still waits for a lock need not.
        let isSettled = Latch()
        let settled = WaitCondition()
        nonisolated(unsafe) var isDone = false  // used under `isSettled`
        engine.spawnImmediately {
            self.dispatcher.interruptAll()
            await self.dispatcher.settle()
            isSettled.withLock {
                isDone = true
                settled.signal()
            }
        }
        isSettled.withLock { while !isDone { settled.wait(isSettled) } }
        notifyThreads.stop()
        library?.detach()
    }

    /// How hard to unmount.
    package enum UnmountMode: Sendable {
        /// Fails with EBUSY while somebody uses the mount.
        case orderly
        /// Detaches the mount; it ends when its last user has gone.
        case lazy
        /// Ends the connection at once: users get ENOTCONN. Needs root.
        case abort
    }

    /// Asks the kernel to end the mount; `run` returns when it has. From a thread outside the
    /// engine that serves no request.
    package func unmount(_ mode: UnmountMode) throws(FuseServerError) {
        guard let library else { throw .system(SystemError("umount", code: EINVAL)) }
        try library.unmount(mode)
    }

    // MARK: Beginning

    private func negotiate(_ descriptor: Int32) throws(FuseServerError) {
        let buffer = pool.take()
        defer { pool.giveBack(buffer) }
        let area = buffer.receiveArea
        guard let start = area.baseAddress else { throw .negotiation("no memory") }
        var count = -1
        repeat {
            count = Glibc.read(descriptor, start, area.count)
        } while count < 0 && errno == EINTR
        guard count >= 0 else { throw .system(SystemError.last("reading /dev/fuse")) }
        let message = Message(start: start, count: count)
        receiver.count(message.header.pointee.opcode)
        guard message.opcode == .initialize, let offer = try? message.argument(fuse_init_in.self)
        else { throw .negotiation("it did not begin with INIT") }
        // Requests that follow must find the agreement.
        let (agreement, reply) = try Negotiation.answer(offer, options)
        try session.begin(descriptor: descriptor, agreement: agreement)
        let size = Encoding.put(reply, at: buffer.base)
        Encoding.header(at: buffer.base, unique: message.unique, error: 0, count: size)
        guard session.send(buffer.base, count: Encoding.headerSize + size) else {
            throw .negotiation("it closed the connection during INIT")
        }
        // Receivers share the descriptor: who comes second finds nothing and waits on.
        let flags = fcntl(descriptor, F_GETFL)
        guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0 else {
            throw .system(SystemError.last("fcntl", "/dev/fuse"))
        }
    }

    /// INIT cannot raise the readahead of a mount (128 KiB); sysfs can, for root.
    private func raiseReadAhead() {
        guard let wanted = options.readAheadKiB, geteuid() == 0, let library else { return }
        guard let device = library.deviceNumber() else { return }
        let path = "/sys/class/bdi/\(device)/read_ahead_kb"
        let file = lockstep_open(path, O_WRONLY, 0)
        // Containers often have sysfs read-only; the mount works without.
        guard file >= 0 else {
            options.log.information("readahead stays small: \(path): \(errnoText(errno))")
            return
        }
        defer { close(file) }
        let text = Array("\(wanted)".utf8)
        if text.withUnsafeBytes({ Glibc.write(file, $0.baseAddress, $0.count) }) < 0 {
            options.log.information("readahead stays small: \(path): \(errnoText(errno))")
        }
    }
}
