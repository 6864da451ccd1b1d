// Requests inside the engine: what can be answered at once is; what may wait becomes a task that
// ends with the one reply of its request.
//
// Invariants
// R1. Exactly one reply per request (none for FORGET and INTERRUPT): operations return an `Answer`,
// and
//     only `finish` sends one, once.
// R2. Requests are registered in the order in which they left /dev/fuse (`Receiver`), and tasks
// start in
//     the order of their registration: a READ starts after every WRITE that arrived before it.
// R3. A request holds its bytes, its buffer and its entry in `requests` until its reply is decided.
// R4. No thread waits here: an operation that must wait suspends its task.

import CFuse3
import Execution
import FileSystem
import Glibc
import LinuxSystem
import Vocabulary

/// What became of a message that was looked at without waiting.
enum AtOnce {
    /// A reply of so many bytes lies in the scratch area; a failed send must take back `undo`.
    case reply(count: Int, undo: NodeHandle?)
    /// Nothing to send.
    case silent
    /// It may have to wait: make it a request.
    case later
}

/// All requests of a mount. Inside the engine, except where it says otherwise.
final class Dispatcher: @unchecked Sendable {
    // Sendable: engine-bound (Execution E1); the constants may be read from anywhere.

    let engine: Engine
    let session: Session
    let references: ReferenceTable
    let activity = DirectoryActivity()
    let pool: BufferPool
    let maximumTransfer: Int
    /// The file system. Set before the first request.
    private var served: (any FileOperations)?

    /// Requests without a reply, by number.
    private var requests: [UInt64: Request] = [:]
    /// Replies that are being taken back.
    private var undoing = 0
    /// A request or an undoing has ended.
    private let progress = Signal()

    init(
        engine: Engine,
        session: Session,
        references: ReferenceTable,
        pool: BufferPool,
        maximumTransfer: Int
    ) {
        self.engine = engine
        self.session = session
        self.references = references
        self.pool = pool
        self.maximumTransfer = maximumTransfer
    }

    /// The file system that answers. Before the mount, from any thread.
    func serve(_ operations: EngineBound<any FileOperations>) {
        precondition(served == nil, "a server serves one file system")
        served = operations.value
    }

    var operations: any FileOperations {
        guard let served else { preconditionFailure("requests before there was a file system") }
        return served
    }

    /// Interrupts every request without a reply.
    func interruptAll() {
        for request in requests.values.sorted(by: { $0.message.unique < $1.message.unique }) {
            request.interruption.request()
        }
    }

    /// Waits until every request has been decided and what was not taken is taken back: a program
    /// whose connection was ended by force has no answer, but what it had asked for is carried out
    /// or not, never half.
    func settle() async {
        while !requests.isEmpty { await progress.wait() }
        // Effects run in order: behind this one every reply has been delivered, and what was not
        // taken has begun to be taken back.
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            engine.executor.afterLeaving { [engine] in engine.enter { continuation.resume() } }
        }
        while undoing > 0 { await progress.wait() }
    }

    // MARK: At once

    /// Handles what never waits, and tries what seldom waits. `scratch` has room for
    /// `Request.replyCapacity` bytes.
    func handleAtOnce(_ message: Message, scratch: UnsafeMutableRawPointer) -> AtOnce {
        if operations.awaitsReaders, message.opcode?.isWaitedFor == true {
            operations.heard(from: message.thread)
        }
        switch message.opcode {
        case .getAttributes:
            guard
                let reply = operations.getAttributesIfCached(
                    message.node,
                    asker: message.attributeAsker
                )
            else { return .later }
            let count = Encoding.put(Encoding.attributesReply(reply), at: scratch)
            return success(message, scratch, count, undo: nil)
        case .lookup:
            guard let name = try? message.name(),
                let reply = operations.lookupIfCached(message.node, name)
            else { return .later }
            return lookedUpAtOnce(reply, message, scratch)
        case .forget:
            if let forget = try? message.argument(fuse_forget_in.self) {
                self.forget(message.node, count: forget.nlookup)
            }
            return .silent
        case .batchForget:
            forgetMany(message)
            return .silent
        case .interrupt:
            if let interrupt = try? message.argument(fuse_interrupt_in.self) {
                // Not found: its reply is on the way (R2).
                requests[interrupt.unique]?.interruption.request()
            }
            return .silent
        default:
            return .later
        }
    }

    private func lookedUpAtOnce(
        _ reply: LookupReply,
        _ message: Message,
        _ scratch: UnsafeMutableRawPointer
    ) -> AtOnce {
        switch reply {
        case .found(let entry):
            let count = Encoding.put(encode(entry, keepsAttributes: true), at: scratch)
            return success(message, scratch, count, undo: entry.node)
        case .absent(isCacheable: true) where session.agreement.keepsEntries:
            return success(
                message,
                scratch,
                Encoding.put(Encoding.absence(), at: scratch),
                undo: nil
            )
        case .absent:
            Encoding.header(at: scratch, unique: message.unique, error: ENOENT, count: 0)
            return .reply(count: Encoding.headerSize, undo: nil)
        }
    }

    private func success(
        _ message: Message,
        _ scratch: UnsafeMutableRawPointer,
        _ count: Int,
        undo: NodeHandle?
    ) -> AtOnce {
        Encoding.header(at: scratch, unique: message.unique, error: 0, count: count)
        return .reply(count: Encoding.headerSize + count, undo: undo)
    }

    /// An entry on its way to the kernel, which gains a reference.
    func encode(_ entry: EntryReply, keepsAttributes: Bool) -> fuse_entry_out {
        references.add(entry.node)
        return Encoding.entry(
            entry,
            keepsEntry: session.agreement.keepsEntries,
            keepsAttributes: keepsAttributes
        )
    }

    /// The kernel dropped references, or never learned of them.
    func forget(_ node: NodeHandle, count: UInt64) {
        references.remove(node, count: count)
        operations.forget(node, count: count)
    }

    private func forgetMany(_ message: Message) {
        guard let batch = try? message.argument(fuse_batch_forget_in.self) else { return }
        let size = MemoryLayout<fuse_forget_one>.size
        var offset = MemoryLayout<fuse_batch_forget_in>.size
        for _ in 0..<batch.count {
            guard offset + size <= message.arguments.count else { return }
            let one = message.arguments.load(fromByteOffset: offset, as: fuse_forget_one.self)
            forget(NodeHandle(one.nodeid), count: one.nlookup)
            offset += size
        }
    }

    // MARK: Requests

    /// A request that came while somebody was inside.
    func begin(_ request: Request) {
        switch handleAtOnce(request.message, scratch: request.replyArea) {
        case .silent:
            return
        case .reply(let count, let node):
            request.isAnswered = true
            request.undo.node = node
            engine.executor.afterLeaving { [self] in
                send(request, from: request.replyArea, count: count)
            }
        case .later:
            register(request)
        }
    }

    /// Starts the task of a request (R2).
    func register(_ request: Request) {
        requests[request.message.unique] = request
        activity.begin(request.message)
        // No capture list: see `Engine.spawn`. A reply's reference must be counted in the same step
        // in which the file system decided it.
        engine.spawn {
            do throws(FileError) {
                self.finish(request, try await self.executeWithRoom(request))
            } catch {
                self.finish(request, .failure(error.code))
            }
        }
    }

    /// Once more when there was no room and some has come: programs delete and expect the room at once.
    private func executeWithRoom(_ request: Request) async throws(FileError) -> Answer {
        do throws(FileError) {
            return try await execute(request)
        } catch {
            guard error == .noSpace, await operations.roomComes() else { throw error }
        }
        return try await execute(request)
    }

    /// Decides a request (R1).
    private func finish(_ request: Request, _ answer: Answer) {
        precondition(!request.isAnswered, "FuseServer R1: a second reply")
        request.isAnswered = true
        // What the file system captured must not be released outside the engine.
        request.interruption.onRequest = nil
        requests[request.message.unique] = nil
        if requests.isEmpty { progress.notify() }
        activity.end(request.message)
        engine.executor.afterLeaving { [self] in deliver(request, answer) }
    }

    // MARK: Outside the engine

    private func deliver(_ request: Request, _ answer: Answer) {
        let unique = request.message.unique
        let area = request.replyArea
        switch answer {
        case .done:
            Encoding.header(at: area, unique: unique, error: 0, count: 0)
            send(request, from: area, count: Encoding.headerSize)
        case .failure(let code):
            Encoding.header(at: area, unique: unique, error: code, count: 0)
            send(request, from: area, count: Encoding.headerSize)
        case .short(let count):
            precondition(count <= Request.replyCapacity - Encoding.headerSize, "a reply too long")
            Encoding.header(at: area, unique: unique, error: 0, count: count)
            send(request, from: area, count: Encoding.headerSize + count)
        case .data(let buffer, let count):
            let start = buffer.base + TransferBuffer.replyOffset
            Encoding.header(at: start, unique: unique, error: 0, count: count)
            send(request, from: start, count: Encoding.headerSize + count)
            pool.giveBack(buffer)
        case .bytes(let bytes):
            withUnsafeTemporaryAllocation(
                byteCount: Encoding.headerSize + bytes.count,
                alignment: 8
            ) { whole in
                guard let start = whole.baseAddress else { return }
                Encoding.header(at: start, unique: unique, error: 0, count: bytes.count)
                bytes.withUnsafeBytes {
                    whole[Encoding.headerSize...].copyBytes(from: $0)
                }
                send(request, from: start, count: whole.count)
            }
        }
    }

    private func send(_ request: Request, from start: UnsafeRawPointer, count: Int) {
        if !session.send(start, count: count) { takeBack(request.undo) }
    }

    /// The kernel did not take a reply: what it would have held is dropped. From outside the
    /// engine.
    func takeBack(_ undo: Undo) {
        let bound = EngineBound(undo)
        guard undo.node != nil || undo.file != nil || undo.directory != nil else { return }
        engine.spawnImmediately {
            self.undoing += 1
            defer {
                self.undoing -= 1
                self.progress.notify()
            }
            let operations = self.operations
            if let file = bound.value.file { await operations.release(file.node, file.handle) }
            if let directory = bound.value.directory {
                await operations.releaseDirectory(directory.node, directory.handle)
            }
            if let node = bound.value.node { self.forget(node, count: 1) }
        }
    }
}
