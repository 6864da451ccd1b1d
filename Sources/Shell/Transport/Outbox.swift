// Frames on their way out: straight into the socket, or by way of the event loop.
//
//   send ─┬─ the route is idle ──────────────▶ the sending thread writes
//         ├─ somebody writes on it ──────────▶ that thread takes it along
//         ├─ the event loop is reading ──────▶ it writes when it has read what is there, in one piece
//         └─ no connection yet, or it is full ▶ a letter to the event loop, which waits for room
//
// A thread that woke the event loop for each message would add a wake-up to every round trip: with
// it a request to another node took twice as long as a bare one between two threads, most of it in
// the scheduler.
//
// Invariants (all state under `latch`, apart from what is said to be the loop's)
// O1. Nothing overtakes: a frame is written directly only if no letter of its route is with the
//     loop (`viaLoop`), and by one thread at a time (`isWriting`), in the order of `gathered`.
// O2. `gathered` is empty, or somebody is writing, or the loop will look at the end of its reading.
// O3. The descriptor is a duplicate, so that the channel can close its own at any time. It is closed
//     once, never while somebody writes; until then the peer does not see the end.
// O4. The latch is not held while writing. It is a leaf.

import CLinux
import Glibc
import LinuxSystem
import NIOCore
import Synchronization
import Vocabulary

/// The way to one life of a peer.
final class Route: @unchecked Sendable {
    // Sendable: `member` is constant, the rest belongs to the latch of the outbox.
    let member: Member
    /// A duplicate of the connection's; -1 before there is one, and afterwards.
    fileprivate var descriptor: Int32 = -1
    /// Letters that are with the event loop.
    fileprivate var viaLoop = 0
    fileprivate var isWriting = false
    /// Given up.
    fileprivate var isClosed = false
    /// Frames, back to back, for whoever writes next.
    fileprivate var gathered: [UInt8] = []

    fileprivate init(_ member: Member) { self.member = member }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }
}

/// Frames for the event loop to send; the first may lack its beginning, which is sent already.
struct Letter: Sendable {
    var route: Route
    var frames: [UInt8]
}

/// All routes of a node.
final class Outbox: @unchecked Sendable {
    // Sendable: O1-O4.
    private let latch = Latch()
    private let tally: TransportTally
    private let loop: any EventLoop
    private var routes: [Route] = []
    private var letters: [Letter] = []

    /// The loop's: it is between the first frame of a batch and the end of it.
    private var isReading = false
    /// The loop's: routes to look at then.
    private var gathering: [Route] = []

    init(loop: any EventLoop, tally: TransportTally) {
        self.loop = loop
        self.tally = tally
    }

    // MARK: Sending

    /// Sends a message. Returns whether the loop has to be told that there are letters.
    func send(_ bytes: [UInt8], to node: NodeID) -> Bool {
        latch.lock()
        guard let route = routes.first(where: { $0.member.node == node }), !route.isClosed else {
            latch.unlock()
            tally.messagesDropped.add(1, ordering: .relaxed)
            return false
        }
        tally.messagesSent.add(1, ordering: .relaxed)
        tally.bytesSent.add(UInt64(bytes.count), ordering: .relaxed)
        if route.descriptor < 0 || route.viaLoop > 0 {
            var frames: [UInt8] = []
            Self.append(bytes, to: &frames)
            let isFirst = leave(Letter(route: route, frames: frames))
            latch.unlock()
            return isFirst
        }
        Self.append(bytes, to: &route.gathered)
        if route.isWriting {
            latch.unlock()
            return false
        }
        if loop.inEventLoop && isReading {
            latch.unlock()
            if !gathering.contains(where: { $0 === route }) { gathering.append(route) }
            return false
        }
        return write(route)
    }

    private static func append(_ bytes: [UInt8], to frames: inout [UInt8]) {
        frames.reserveCapacity(frames.count + 4 + bytes.count)
        withUnsafeBytes(of: UInt32(bytes.count).littleEndian) { frames.append(contentsOf: $0) }
        frames.append(contentsOf: bytes)
    }

    /// Under the latch. True if the letter is the only one.
    private func leave(_ letter: Letter) -> Bool {
        letters.append(letter)
        letter.route.viaLoop += 1
        return letters.count == 1
    }

    /// Writes what has gathered, also what gathers meanwhile. Under the latch on entry, without it
    /// on return. Returns whether the loop has to be told.
    private func write(_ route: Route) -> Bool {
        route.isWriting = true
        var mustTell = false
        var bytes: [UInt8] = []
        while !route.gathered.isEmpty, !route.isClosed, route.descriptor >= 0 {
            bytes.removeAll(keepingCapacity: true)
            swap(&bytes, &route.gathered)
            let descriptor = route.descriptor
            latch.unlock()
            let (count, failure) = bytes.withUnsafeBytes { piece in
                let sent = Glibc.send(
                    descriptor,
                    piece.baseAddress,
                    piece.count,
                    Int32(MSG_DONTWAIT | MSG_NOSIGNAL)
                )
                return (max(sent, 0), sent < 0 ? errno : 0)
            }
            tally.flushes.add(1, ordering: .relaxed)
            latch.lock()
            if count == bytes.count { continue }
            if failure != 0 && failure != EAGAIN && failure != EINTR {
                // The loop hears of it from the channel.
                retire(route)
                break
            }
            // No room: the loop can wait for it (O1).
            let rest = Array(bytes.dropFirst(count)) + route.gathered
            route.gathered = []
            mustTell = leave(Letter(route: route, frames: rest))
            break
        }
        route.isWriting = false
        if route.isClosed { retire(route) }
        latch.unlock()
        return mustTell
    }

    /// Under the latch, while nobody else writes (O3).
    private func retire(_ route: Route) {
        route.gathered = []
        if route.descriptor >= 0 { close(route.descriptor) }
        route.descriptor = -1
    }

    // MARK: Views

    /// Keeps the routes to these members and makes those that are missing, before anything is sent
    /// in the new view. Returns all.
    func adopt(_ members: [Member]) -> [Route] {
        latch.withLock {
            for route in routes where !members.contains(route.member) { end(route) }
            routes = members.map { member in
                routes.first { $0.member == member } ?? Route(member)
            }
            return routes
        }
    }

    /// Nothing more goes to this life.
    func close(_ route: Route) {
        latch.withLock { end(route) }
    }

    /// Under the latch.
    private func end(_ route: Route) {
        route.isClosed = true
        if !route.isWriting { retire(route) }
    }

    private func close(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

    // MARK: On the event loop

    /// All letters, in order.
    func take() -> [Letter] {
        latch.withLock {
            defer { letters = [] }
            return letters
        }
    }

    /// The connection stands: from now on what is sent may be written directly. `descriptor`
    /// becomes the route's.
    func open(_ route: Route, _ descriptor: Int32) {
        latch.withLock {
            guard descriptor >= 0 else { return }
            guard !route.isClosed, route.descriptor < 0 else { return close(descriptor) }
            route.descriptor = descriptor
        }
    }

    /// So many letters have reached the kernel.
    func delivered(_ route: Route, _ count: Int) {
        latch.withLock { route.viaLoop -= count }
    }

    /// A message is about to be handed on: what it sets off is sent when all that has been read is
    /// handed on, in one piece.
    func beginReading() { isReading = true }

    /// Sends what was set off. Returns whether there are letters.
    func endReading() -> Bool {
        isReading = false
        if gathering.isEmpty { return false }
        var mustTell = false
        let found = gathering
        gathering.removeAll(keepingCapacity: true)
        for route in found {
            latch.lock()
            if route.isWriting || route.gathered.isEmpty {
                latch.unlock()
            } else if write(route) {
                mustTell = true
            }
        }
        return mustTell
    }
}
