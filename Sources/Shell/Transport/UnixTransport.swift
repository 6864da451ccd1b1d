// Messages between the nodes of one host, over Unix sockets.
//
// Every node listens at a path in the run directory before it is in a view. When a view comes, the
// lower of two nodes connects to the higher; both say hello, check who is at the other end, and
// then frames flow. One event-loop thread does all of it, and calls the receiver: the lock
// manager's engine is entered right there, so a grant that arrives is acted on without another
// thread being woken.
//
// A connection that is lost is the peer's death. On one host, a Unix socket between two living
// processes does not break by itself: nothing is lost, reordered or timed out. If it closes, the
// peer has ended, or it dropped us for a malformed frame, or it ran out of memory or descriptors.
// To reconnect, both sides would have to keep and number what is unacknowledged, for a case in
// which one of them is broken: instead `onPeerLost` has it fenced (`HostCluster.fenceNow`, which
// asks the newest view first: a peer that has just left in peace is not in it; of two that suspect
// each other, one survives).
//
// States of a line: connecting or awaited -> greeted (hello sent, none received) -> established ->
// gone.
//
// Invariants
// T1. From one life of a peer, messages arrive in the order in which it sent them, each once, none
// lost
//     before the connection is.
// T2. A line belongs to one life (incarnation) of a node. What comes from a life that no adopted
// view has
//     is delivered all the same: its view may be on its way to us, and the receiver sorts by epoch.
// T3. No frame is longer than `maximumFrame`, and none is acted on before a hello of the right
// volume and
//     protocol came from a process of our own user (or root).
// T4. `onPeerLost` is called once for a life, only while the adopted view has it, and after the
// last of
//     its messages.
// T5. All lines are touched on the event loop only. `send` writes into an idle connection itself,
//     otherwise it leaves the message to whoever writes (Outbox.swift). What messages that were read
//     together set off is sent together.

import LinuxSystem
import NIOCore
import NIOPosix
import Synchronization
package import Vocabulary

/// Who speaks: said in the hello.
package struct TransportIdentity: Hashable, Sendable {
    /// The volume's UUID, two halves.
    package var volumeHigh: UInt64
    package var volumeLow: UInt64
    /// This node in this life.
    package var member: Member

    package init(volumeHigh: UInt64, volumeLow: UInt64, member: Member) {
        self.volumeHigh = volumeHigh
        self.volumeLow = volumeLow
        self.member = member
    }
}

/// Whom a transport calls, on its event-loop thread. The calls must not block.
package struct TransportClient: Sendable {
    /// A message came. The bytes are valid during the call only.
    package var onMessage: @Sendable (NodeID, UnsafeRawBufferPointer) -> Void
    /// The connection to a member is gone or could not be made (T4).
    package var onPeerLost: @Sendable (Member, String) -> Void
    /// A line for the log.
    package var onReport: @Sendable (String) -> Void

    package init(
        onMessage: @escaping @Sendable (NodeID, UnsafeRawBufferPointer) -> Void,
        onPeerLost: @escaping @Sendable (Member, String) -> Void,
        onReport: @escaping @Sendable (String) -> Void
    ) {
        self.onMessage = onMessage
        self.onPeerLost = onPeerLost
        self.onReport = onReport
    }
}

/// The transport cannot be set up, in one line.
package struct TransportError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String
}

/// What a transport has carried since it began.
package struct TransportCounters: Hashable, Sendable {
    package var messagesSent: UInt64
    package var messagesReceived: UInt64
    /// Messages to nodes that no adopted view has.
    package var messagesDropped: UInt64
    package var bytesSent: UInt64
    package var bytesReceived: UInt64
    /// Times a socket was flushed: fewer than messages when they come in bursts.
    package var flushes: UInt64
}

/// See the head of this file.
package final class UnixTransport: Sendable {
    /// The longest message, in bytes.
    package static let maximumFrame = 1 << 20
    /// Unsent bytes after which a peer that does not read is given up as lost.
    package static let maximumBacklog = 256 << 20

    private let group: MultiThreadedEventLoopGroup
    private let board: Switchboard
    private let listener: any Channel

    /// Starts to listen at `path` (at most 107 bytes; nothing may be there). `pathOf` says where
    /// the node of a view listens.
    /// - Throws: `TransportError`.
    package init(
        identity: TransportIdentity,
        listeningAt path: String,
        pathOf: @escaping @Sendable (NodeID) -> String,
        client: TransportClient
    ) throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let board = Switchboard(
            identity: identity,
            loop: group.next(),
            pathOf: pathOf,
            client: client
        )
        self.board = board
        do {
            listener = try ServerBootstrap(group: group)
                .serverChannelOption(ChannelOptions.backlog, value: 256)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try board.prepare(channel, calling: nil)
                    }
                }
                .bind(unixDomainSocketPath: path).wait()
        } catch {
            try? group.syncShutdownGracefully()  // the first error is the one to tell
            throw TransportError(description: "cannot listen at \(path): \(error)")
        }
    }

    /// Takes the members of a view: connects to those that are new (the lower of two calls), drops
    /// those that are gone. Views must come in their order. From any thread; sends that follow on
    /// the same thread reach the new members.
    package func adopt(_ view: ClusterView) {
        let board = board
        let routes = board.outbox.adopt(view.members.filter { $0 != board.identity.member })
        board.loop.execute { board.adopt(view.members, routes) }
    }

    /// Sends a message to the member that is `node` in the adopted view; keeps it until the
    /// connection stands. Does not wait. To a node that is in no view, and to this one, nothing is sent. From any
    /// thread.
    package func send(_ bytes: [UInt8], to node: NodeID) {
        precondition(
            (1...Self.maximumFrame).contains(bytes.count),
            "Transport T3: a frame too long"
        )
        guard board.outbox.send(bytes, to: node) else { return }
        let board = board
        board.loop.execute { board.post() }
    }

    /// What has been carried.
    package var counters: TransportCounters { board.tally.snapshot }

    /// Closes everything and ends the thread. Blocks; not from a callback. What was sent just
    /// before may be lost. Once.
    package func close() {
        let board = board
        do {
            try board.loop.submit { board.hangUpAll() }.wait()
            try listener.close().wait()
            try group.syncShutdownGracefully()
        } catch {
            board.client.onReport("the transport did not close cleanly: \(error)")
        }
    }
}

/// The counters themselves.
final class TransportTally: Sendable {
    let messagesSent = Atomic<UInt64>(0)
    let messagesReceived = Atomic<UInt64>(0)
    let messagesDropped = Atomic<UInt64>(0)
    let bytesSent = Atomic<UInt64>(0)
    let bytesReceived = Atomic<UInt64>(0)
    let flushes = Atomic<UInt64>(0)

    var snapshot: TransportCounters {
        TransportCounters(
            messagesSent: messagesSent.load(ordering: .relaxed),
            messagesReceived: messagesReceived.load(ordering: .relaxed),
            messagesDropped: messagesDropped.load(ordering: .relaxed),
            bytesSent: bytesSent.load(ordering: .relaxed),
            bytesReceived: bytesReceived.load(ordering: .relaxed),
            flushes: flushes.load(ordering: .relaxed)
        )
    }
}
