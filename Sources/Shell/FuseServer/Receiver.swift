// The threads that receive requests.
//
// One of them waits for the kernel, the others rest (Rota.swift). Receiving and registering are one
// step under the arrival latch, so that requests are registered in the order in which the kernel
// queued them (KERNEL D2):
//
//   arrival.lock ── read ──┬── engine idle: enter; answer at once or register; arrival.unlock;
//                          │   drain what that started; send the answer
//                          └── engine taken: queue it for whoever is inside; arrival.unlock
//
// Invariants
// A1. Between the read and the registration (or the append to `queue`) nobody else reads.
// A2. Whoever enters the engine with a message first registers what is in `queue`.
// A3. Neither latch is held while a request is worked on or a reply is sent. Order: arrival, then
// queue;
//     entering the engine under `arrival` never waits.
// A4. Where `haveAllArrived` finds nothing to read, under `arrival`, everything that the kernel had queued is registered, or
// in `queue`.

import CFuse3
import CLinux
import Execution
import Glibc
import LinuxSystem

/// Receives the requests of one session.
final class Receiver: @unchecked Sendable {
    // Sendable: `counts` is used under `arrival`, `queue` and `isPumpComing` under `queueLatch`.

    private let session: Session
    private let dispatcher: Dispatcher
    private let engine: Engine
    private let pool: BufferPool

    private let arrival = Latch()
    private var counts = [UInt64](repeating: 0, count: 64)

    private let queueLatch = Latch()
    private var queue: [Request] = []
    private var isPumpComing = false

    private let rota = Rota()
    /// Nanoseconds.
    private let watchLength: UInt64

    init(
        session: Session,
        dispatcher: Dispatcher,
        engine: Engine,
        pool: BufferPool,
        watchLength: UInt64
    ) {
        self.watchLength = watchLength
        self.session = session
        self.dispatcher = dispatcher
        self.engine = engine
        self.pool = pool
    }

    /// How many requests have arrived, by opcode.
    var requestCounts: RequestCounts { RequestCounts(byOpcode: arrival.withLock { counts }) }

    /// Counts a request that was received elsewhere (INIT).
    func count(_ opcode: UInt32) { arrival.withLock { counts[min(Int(opcode), 63)] += 1 } }

    /// Serves until the kernel closes the connection. On a thread of its own.
    func run() {
        let waiter = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard waiter >= 0 else {
            session.log.error("epoll_create1: \(errnoText(errno))")
            return
        }
        defer { close(waiter) }
        var interest = epoll_event()
        interest.events = EPOLLIN.rawValue
        guard epoll_ctl(waiter, EPOLL_CTL_ADD, session.descriptor, &interest) == 0 else {
            session.log.error("epoll_ctl on /dev/fuse: \(errnoText(errno))")
            return
        }
        let thread = ReceivingThread(buffer: pool.take(), watch: Watch(length: watchLength))
        while receiveOne(thread), !rota.hasEnded {
            if !thread.isSentry || thread.goesOn() { continue }
            var event = epoll_event()
            _ = epoll_wait(waiter, &event, 1, -1)
        }
        rota.end()
        pool.giveBack(thread.buffer)
    }

    /// Takes a request if there is one; otherwise the thread is the sentry, or has rested. False
    /// when the connection has ended.
    private func receiveOne(_ thread: ReceivingThread) -> Bool {
        arrival.lock()
        let area = thread.buffer.receiveArea
        let count = Glibc.read(session.descriptor, area.baseAddress, area.count)
        guard count >= 0, let start = area.baseAddress else {
            let code = errno
            arrival.unlock()
            guard goesOn(after: code) else { return false }
            thread.streak = 0
            if !thread.isSentry, rota.standOrRest() { thread.becomeSentry() }
            return true
        }
        let message = Message(start: start, count: count)
        counts[min(Int(message.header.pointee.opcode), 63)] += 1
        leavePost(thread, message)

        var result = AtOnce.later
        let entered = engine.executor.enterIfIdle {
            registerQueued()
            result = dispatcher.handleAtOnce(message, scratch: thread.scratch)
            if case .later = result { dispatcher.register(keep(message, of: thread)) }
            arrival.unlock()
        }
        guard entered else {
            queueUp(keep(message, of: thread))
            return true
        }
        if case .reply(let length, let node) = result {
            if !session.send(thread.scratch, count: length), let node {
                dispatcher.takeBack(Undo(node: node))
            }
        }
        return true
    }

    /// Bytes of data above which somebody else receives while they are copied.
    private static let muchData = 64 << 10
    /// Requests in a row that were there already when they were looked for.
    private static let queueIsLong = 3

    /// The thread will be busy; if for long, another one is called.
    private func leavePost(_ thread: ReceivingThread, _ message: Message) {
        thread.streak += 1
        let needsAnother =
            thread.streak >= Self.queueIsLong || message.count >= Self.muchData
            || message.opcode == .read
        if thread.isSentry {
            thread.isSentry = false
            thread.watch.succeeded()
            rota.leave(needsAnother: needsAnother)
        } else if needsAnother {
            rota.callAnother()
        }
    }

    private func goesOn(after code: Int32) -> Bool {
        switch code {
        // ENOENT: the request was interrupted before it was read.
        case EAGAIN, EINTR, ENOENT: return true
        case ENODEV: return false
        default:
            session.log.error("reading /dev/fuse: \(errnoText(code))")
            return false
        }
    }

    /// Makes a message outlive the thread's buffer: small ones are copied, large ones keep the
    /// buffer.
    private func keep(_ message: Message, of thread: ReceivingThread) -> Request {
        if message.count <= 8192 { return Request(copying: message) }
        defer { thread.buffer = pool.take() }
        return Request(taking: thread.buffer, from: pool, count: message.count)
    }

    /// Registers what has arrived; false if the kernel has queued more than that (A4). Inside the engine.
    func haveAllArrived() -> Bool {
        arrival.lock()
        var poll = pollfd(fd: session.descriptor, events: Int16(POLLIN), revents: 0)
        let isEmpty = Glibc.poll(&poll, 1, 0) == 0
        arrival.unlock()
        registerQueued()
        return isEmpty
    }

    // MARK: While somebody else is inside

    /// Ends the arrival of a request that could not be registered at once.
    private func queueUp(_ request: Request) {
        queueLatch.lock()
        queue.append(request)
        let needsPump = !isPumpComing
        isPumpComing = true
        queueLatch.unlock()
        arrival.unlock()
        if needsPump { engine.spawn { self.registerQueued() } }
    }

    /// Registers what queued up (A2). Inside the engine.
    private func registerQueued() {
        queueLatch.lock()
        let waiting = queue
        queue.removeAll()
        isPumpComing = false
        queueLatch.unlock()
        for request in waiting { dispatcher.begin(request) }
    }
}

/// What belongs to one receiving thread.
private final class ReceivingThread {
    var buffer: TransferBuffer
    var watch: Watch
    var isSentry = false
    /// Requests received since the queue was last found empty.
    var streak = 0
    /// Where answers given at once are written.
    let scratch: UnsafeMutableRawPointer

    init(buffer: TransferBuffer, watch: Watch) {
        self.buffer = buffer
        self.watch = watch
        scratch = .allocate(byteCount: Request.replyCapacity, alignment: 16)
    }

    deinit { scratch.deallocate() }

    func becomeSentry() {
        isSentry = true
        watch.begin(at: LinuxClock.monotonic)
    }

    /// Whether to look again without sleeping. Others who want the processor go first.
    func goesOn() -> Bool {
        guard watch.goesOn(at: LinuxClock.monotonic) else { return false }
        sched_yield()
        return true
    }
}
