// One node of the lock benchmark, with the parts that a mount has: the engine on its combining
// executor, the lock manager, the inbox, the transport. Only the file system is missing.

import Execution
import Glibc
import LinuxSystem
import LockCache
import LockCore
import NodeService
import Transport
import Vocabulary

/// A lock manager with whoever waits for its answers.
final class BenchNode: LockClient, @unchecked Sendable {
    // Sendable: set in `init` and `connect`, before others know of it; the rest belongs to the
    // engine.
    let engine: Engine
    let node: NodeID
    private let executor: CombiningExecutor
    private let clock: LinuxClock
    private let link = BenchLink()
    let locks: LockNode
    private let inbox: NodeInbox
    private let ready = Bell()

    /// Whoever waits for the answer with this cookie: the place in the array.
    private var waiters: [((LockCompletion) -> Void)?] = []
    private var freeCookies: [UInt64] = []
    /// Told of notices that somebody waits for a lock of ours.
    var onBlocking: ((UInt64, LockMode) -> Void)?
    /// A node that was there is gone.
    let onLost: @Sendable (String) -> Void

    init(node: NodeID, onLost: @escaping @Sendable (String) -> Void) throws {
        self.node = node
        self.onLost = onLost
        executor = try CombiningExecutor()
        clock = try LinuxClock()
        engine = Engine(executor: executor, clock: clock)
        inbox = NodeInbox(engine: engine)
        locks = LockNode(
            node: node,
            incarnation: Self.member(node).incarnation,
            engine: engine,
            peers: link
        )
        locks.client = self
        locks.onRecoveryFinished = { [ready] _ in ready.signal() }
    }

    static func member(_ node: NodeID) -> Member {
        Member(node: node, incarnation: 100 + UInt64(node.rawValue))
    }

    /// Listens, so that others can call.
    func listen(in folder: String) throws {
        let path: @Sendable (NodeID) -> String = { "\(folder)/node-\($0.rawValue)" }
        let inbox = inbox
        let onLost = onLost
        link.transport = try UnixTransport(
            identity: TransportIdentity(volumeHigh: 1, volumeLow: 2, member: Self.member(node)),
            listeningAt: path(node),
            pathOf: path,
            client: TransportClient(
                onMessage: { from, bytes in inbox.put(bytes, from: from) },
                onPeerLost: { member, why in onLost("\(member) \(why)") },
                onReport: { line in complain(line) }
            )
        )
    }

    /// Enters the only view, of nodes 1 to `count`, and waits until locks are granted.
    func join(count: UInt32) {
        let view = ClusterView(
            epoch: Epoch(1),
            members: (1...count).map { Self.member(NodeID($0)) },
            slotsToReplay: []
        )
        let receiver = NodeReceiver(
            onMessage: { bytes, peer in self.locks.received(bytes, from: peer) },
            onView: { view in
                self.link.transport?.adopt(view)
                self.locks.viewChanged(view)
            }
        )
        inbox.open(receiver)
        inbox.put(view)
        ready.wait()
    }

    /// Ends the node's threads.
    func end() {
        link.transport?.close()
        executor.stop()
        clock.stop()
    }

    /// Bytes and messages so far.
    var carried: TransportCounters? { link.transport?.counters }

    // MARK: The client, inside the engine

    func completed(_ completion: LockCompletion) {
        let index = Int(completion.cookie)
        guard let waiter = waiters[index] else { return }
        waiters[index] = nil
        waiter(completion)
    }

    func isBlocking(cookie: UInt64, wanted: LockMode) { onBlocking?(cookie, wanted) }

    /// A cookie of one's own.
    func takeCookie() -> UInt64 {
        waiters.append(nil)
        return UInt64(waiters.count - 1)
    }

    /// Says who takes the next answer with this cookie.
    func expect(_ cookie: UInt64, _ waiter: @escaping (LockCompletion) -> Void) {
        waiters[Int(cookie)] = waiter
    }

    /// Asks, and waits for the answer.
    func ask(_ cookie: UInt64, _ operation: () -> Void) async -> LockCompletion {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<LockCompletion, Never>) in
            expect(cookie) { continuation.resume(returning: $0) }
            operation()
        }
    }

    /// A lock on a name, waited for.
    func request(_ name: ResourceName, _ mode: LockMode, cookie: UInt64) async -> LockCompletion {
        await ask(cookie) { locks.request(name, mode, [], cookie: cookie) }
    }

    /// Gives a lock up, and waits for the master's word.
    func unlock(_ lock: LockID, cookie: UInt64) async {
        _ = await ask(cookie) { locks.unlock(lock, [], value: nil) }
    }

    /// Changes a mode.
    func convert(_ lock: LockID, to mode: LockMode, cookie: UInt64) async {
        _ = await ask(cookie) { locks.convert(lock, to: mode, [], value: nil) }
    }

    /// Lock and directory messages that this node has sent.
    var messageCount: UInt64 { locks.counters.lockMessages + locks.counters.directoryMessages }

    // MARK: From a thread that may wait

    /// Runs `work` inside the engine and waits for its end.
    func run<Result>(_ work: @escaping () async -> Result) -> Result {
        let box = EngineBound(Box<Result>())
        let done = Bell()
        engine.spawnImmediately {
            box.value.value = await work()
            done.signal()
        }
        done.wait()
        guard let result = box.value.value else { preconditionFailure("work without a result") }
        return result
    }
}

/// The lock manager's way to the other nodes.
private final class BenchLink: PeerLink {
    var transport: UnixTransport?

    func send(_ bytes: [UInt8], to peer: NodeID) { transport?.send(bytes, to: peer) }
}

/// A place for a result.
private final class Box<Value> {
    var value: Value?
}

/// Something that happens once for each time it is waited for.
final class Bell: Sendable {
    private let latch = Latch()
    private let happened = WaitCondition()
    private let count = Counter()

    func signal() {
        latch.withLock {
            count.value += 1
            happened.signal()
        }
    }

    func wait() {
        latch.withLock {
            while count.value == 0 { happened.wait(latch) }
            count.value -= 1
        }
    }
}

/// A number that belongs to whoever holds a latch, or is inside the engine.
final class Counter: @unchecked Sendable {
    // Sendable: see above.
    var value: UInt64 = 0
}

/// A line to the standard error.
func complain(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
}
