// Taking back what the kernel caches (KERNEL F2-F4, D1-D3).
//
// Inodes: a notify thread writes the notification; while the kernel knows no such inode although it
// was answered with one, a first reply is on its way and the notification is repeated.
//
// Names: dropping a name takes the directory's lock in the kernel, exclusively, and that lock may
// be held for a request which the file system will answer only after this very invalidation. So:
//
//        few names, and no request holds the directory ──▶ one notification per name  ─┐
//        a request for the directory arrives, or 5 ms pass ──▶ give up on the names:   ├─▶ drop the
//        listing
//        all other cases ─────────────────────────────────▶ increment the epoch       ─┘   and be
//        done
//
// Incrementing the epoch never waits; it makes the kernel ask again for every name of the mount. A
// helper thread that is stuck with a name goes on when the directory is let go; what it drops then
// is harmless.
//
// Invariants
// C1. An invalidation ends inside the engine, once.
// C2. `invalidateEntries` never ends later than its deadline plus one epoch and one inode
// notification.
// C3. Kernels without epochs were never allowed to keep a name; only the listing is dropped there.

import Execution
package import FileSystem
import Glibc
import LinuxSystem
import Vocabulary

/// The caches of the kernel behind one mount.
package final class FuseKernelCache: KernelCache, @unchecked Sendable {
    // Sendable: `attempts` is engine-bound; the rest is constant or guards itself.

    /// More names than this are dropped by an epoch (KERNEL D2).
    private static let mostNames = 1000
    private static let patience: UInt64 = 5
    /// So often the queue of what the kernel asks is looked at until it is found empty.
    private static let looksForQuestions = 8

    private let engine: Engine
    private let session: Session
    private let references: ReferenceTable
    private let activity: DirectoryActivity
    private let threads: NotifyThreads
    /// Whether the file system has decided to answer with an inode more often than it was told to
    /// forget it. The file system sets this when answers can be decided some steps before they are
    /// returned: the references counted here begin with the return (F4). Called inside the engine.
    package var isReferenced: ((NodeHandle) -> Bool)?
    /// Whether what the kernel has asked is registered. Called inside the engine.
    var haveAllArrived: (() -> Bool)?
    /// Called when something cannot be taken back from the kernel: the lock that protects it must
    /// not be given up. On any thread.
    package var onFailure: (@Sendable (String) -> Void)?
    /// Invalidations of names that are under way.
    private var attempts: [EntryAttempt] = []

    init(
        engine: Engine,
        session: Session,
        references: ReferenceTable,
        activity: DirectoryActivity,
        threads: NotifyThreads
    ) {
        self.engine = engine
        self.session = session
        self.references = references
        self.activity = activity
        self.threads = threads
        activity.onBegin = { [unowned self] directory in
            for attempt in attempts where attempt.parent == directory { fallBack(attempt) }
        }
    }

    package var mapsDirectFiles: Bool { session.agreement.mapsDirectFiles }

    // MARK: Inodes

    package func invalidateInode(
        _ node: NodeHandle,
        data: (offset: UInt64, length: UInt64?)?,
        mayBegin: (() -> Bool)?
    ) async -> InvalidationEnd {
        let message: [UInt8]
        if let data {
            guard data.length != 0 else { return .done }
            message = FuseNotification.invalidateInode(
                node,
                offset: Int64(clamping: data.offset),
                length: Int64(clamping: data.length ?? 0)
            )
        } else {
            message = FuseNotification.invalidateInode(node, offset: -1, length: 0)
        }
        let end = await dropInode(node, message, mayBegin)
        if end != .notBegun, let data, data.offset == 0, data.length == nil {
            pruneNames(of: node)
        }
        return end
    }

    package func timesRun(_ thread: UInt32) -> UInt64? { threadRuns(thread) }

    /// KERNEL D12. Nobody waits for it: an inode that goes by this waits for its pages that are being read.
    private func pruneNames(of node: NodeHandle) {
        guard session.agreement.prunes else { return }
        threads.submit { [session] in
            let code = session.notify(FuseNotification.prune(node))
            switch code {
            case 0, ENOENT, ENODEV, ENOTCONN, EBADF: return
            default:
                session.log.warning(
                    "dropping the unused names of node \(node.rawValue): \(errnoText(code))"
                )
            }
        }
    }

    private func dropInode(
        _ node: NodeHandle,
        _ message: [UInt8],
        _ mayBegin: (() -> Bool)? = nil
    ) async -> InvalidationEnd {
        let check = mayBegin.map { EngineBound($0) }
        var round = 0
        while true {
            round += 1
            let wait = round
            let end: InvalidationEnd? = await onNotifyThread {
                if wait == 1, let check, !self.begins(check) { return .notBegun }
                guard self.tryDropping(node, message, wait) else { return nil }
                return check == nil || self.receivesAll() ? .done : .metQuestions
            }
            if let end { return end }
            if session.hasEnded { return .done }
            guard let isReferenced, isReferenced(node) else { return .done }
        }
    }

    /// Runs `body` inside the engine and waits for it: a moment later the kernel is told. On a notify thread.
    private func insideEngine<Answer: Sendable>(
        _ body: @escaping @Sendable () -> Answer
    ) -> Answer {
        let place = AnswerPlace<Answer>()
        for _ in 1...Self.looksForQuestions {
            if engine.executor.enterIfIdle({ place.put(body()) }) { return place.wait() }
            sched_yield()
        }
        engine.enter { place.put(body()) }
        return place.wait()
    }

    /// Asks whether the kernel may be told, as soon as what it has asked is registered. On a notify thread.
    private func begins(_ mayBegin: EngineBound<() -> Bool>) -> Bool {
        var look = 0
        while true {
            look += 1
            let isLast = look == Self.looksForQuestions
            let answer: Bool? = insideEngine {
                self.haveAllArrived?() ?? true || isLast ? mayBegin.value() : nil
            }
            if let answer { return answer }
            // Others receive it.
            sched_yield()
        }
    }

    /// Whether everything that the kernel asked before this call is registered (Receiver A4). On a notify thread.
    private func receivesAll() -> Bool {
        for _ in 1...Self.looksForQuestions {
            if insideEngine({ self.haveAllArrived?() ?? true }) { return true }
            sched_yield()
        }
        return false
    }

    /// False if the kernel has no such inode, as far as the references counted here can tell. On a
    /// notify thread.
    private func tryDropping(_ node: NodeHandle, _ message: [UInt8], _ round: Int) -> Bool {
        if round > 1 { pause(round, node) }
        var attempt = 0
        while true {
            let code = session.notify(message)
            switch code {
            case 0, ENODEV, ENOTCONN, EBADF: return true
            case ENOENT:
                // F4: until the reply is installed, or the kernel forgets the inode.
                if session.hasEnded { return true }
                guard references.contains(node) else { return false }
                attempt += 1
                pause(attempt, node)
            default:
                fail("the kernel does not drop inode \(node.rawValue): \(errnoText(code))")
                return true
            }
        }
    }

    /// There is no event for "the kernel has installed a reply": it is a matter of microseconds. A
    /// forget or the end of the connection ends the wait early.
    private func pause(_ attempt: Int, _ node: NodeHandle) {
        if attempt < 16 {
            sched_yield()
            return
        }
        if attempt == 10_000 {
            session.log.warning("the kernel counts node \(node.rawValue) but does not know it")
        }
        references.waitForChange(
            until: LinuxClock.monotonic.advanced(nanoseconds: UInt64(min(attempt, 100)) * 10_000)
        )
    }

    /// Runs a blocking call; the task continues inside the engine (C1).
    private func onNotifyThread<Result: Sendable>(
        _ call: @escaping @Sendable () -> Result
    ) async -> Result {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Result, Never>) in
            threads.submit { [engine] in
                let result = call()
                engine.enter { continuation.resume(returning: result) }
            }
        }
    }

    // MARK: Names

    package func invalidateEntries(of parent: NodeHandle, names: [[UInt8]]?) async {
        guard session.agreement.keepsEntries else {
            await dropListing(of: parent)
            return
        }
        guard let names, names.count <= Self.mostNames, !activity.isHeld(parent) else {
            await forgetAllNames(parent)
            return
        }
        let attempt = EntryAttempt(parent: parent)
        attempts.append(attempt)
        threads.submit { [self] in
            let isDone = names.allSatisfy { attempt.isGivenUp || dropName($0, of: parent) }
            engine.enter { [self] in
                if isDone { end(attempt, .dropped) } else { fallBack(attempt) }
            }
        }
        engine.clock.schedule(
            at: engine.clock.now.advanced(milliseconds: Self.patience),
            in: engine,
            EngineBound { [self] in fallBack(attempt) }
        )
        if await attempt.outcome.get() == .givenUp {
            await forgetAllNames(parent)
        } else {
            await dropListing(of: parent)
        }
    }

    private func fallBack(_ attempt: EntryAttempt) {
        attempt.giveUp()
        end(attempt, .givenUp)
    }

    private func end(_ attempt: EntryAttempt, _ how: EntryAttempt.End) {
        guard attempt.outcome.value == nil else { return }
        attempts.removeAll { $0 === attempt }
        attempt.outcome.deliver(how)
    }

    private func forgetAllNames(_ parent: NodeHandle) async {
        // This one never waits in the kernel, and must not wait for a thread that does (C2).
        let code = session.notify(FuseNotification.incrementEpoch())
        if code != 0 && code != ENODEV && code != ENOTCONN {
            fail("the kernel does not forget its names: \(errnoText(code))")
        }
        await dropListing(of: parent)
    }

    private func dropListing(of parent: NodeHandle) async {
        _ = await dropInode(parent, FuseNotification.invalidateInode(parent, offset: 0, length: 0))
        pruneNames(of: parent)
    }

    /// On a notify thread. May wait for the directory's lock. False if the kernel could not.
    private func dropName(_ name: [UInt8], of parent: NodeHandle) -> Bool {
        let code = session.notify(FuseNotification.invalidateEntry(parent, name: name))
        switch code {
        // ENOENT: neither the name nor the directory is cached. ENOTDIR: no longer a directory.
        case 0, ENOENT, ENOTDIR, ENODEV, ENOTCONN, EBADF: return true
        default:
            session.log.warning("dropping a name of node \(parent.rawValue): \(errnoText(code))")
            return false
        }
    }

    private func fail(_ why: String) {
        session.log.error(why)
        onFailure?(why)
    }

    // MARK: After the end

    /// Takes back everything that the kernel may have: after the connection has ended, whoever has a
    /// file open is served from the caches still if it was ended by force. No request is answered
    /// any more, so none of this waits. `nodes` are all that the kernel was told of. From a thread
    /// outside the engine.
    package func takeEverythingBack(_ nodes: ((UInt64) -> Void) -> Void) {
        _ = session.notifyAfterEnd(FuseNotification.incrementEpoch())
        nodes { number in
            let message = FuseNotification.invalidateInode(NodeHandle(number), offset: 0, length: 0)
            let code = session.notifyAfterEnd(message)
            // ENOENT: the mount is gone, or the kernel has forgotten the inode.
            if code != 0 && code != ENOENT && code != ENODEV {
                fail("the kernel does not drop inode \(number): \(errnoText(code))")
            }
        }
    }
}

/// Names being dropped one by one.
private final class EntryAttempt: @unchecked Sendable {
    // Sendable: `outcome` is engine-bound, `isOver` is used under `latch`.
    enum End { case dropped, givenUp }

    let parent: NodeHandle
    let outcome = Outcome<End>()
    private let latch = Latch()
    private var isOver = false

    init(parent: NodeHandle) { self.parent = parent }

    var isGivenUp: Bool { latch.withLock { isOver } }

    func giveUp() { latch.withLock { isOver = true } }
}

/// Where a thread waits for what is found out inside the engine.
private final class AnswerPlace<Answer: Sendable>: @unchecked Sendable {
    // Sendable: used under `latch`.
    private let latch = Latch()
    private let changed = WaitCondition()
    private var answer: Answer?

    func put(_ answer: Answer) {
        latch.lock()
        self.answer = answer
        latch.unlock(signalling: changed)
    }

    func wait() -> Answer {
        latch.lock()
        defer { latch.unlock() }
        while true {
            if let answer { return answer }
            changed.wait(latch)
        }
    }
}
