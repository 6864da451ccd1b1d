import CLinux
import NIOCore
import NIOPosix
import Synchronization
import Vocabulary

/// All lines of a node. Lives on the event loop (T5).
final class Switchboard: @unchecked Sendable {
    // Sendable: T5, checked where it begins.

    /// The connection, or the lack of one, to one life of a peer.
    private struct Line {
        var member: Member
        /// Where its messages come from; nil for a stranger.
        var route: Route?
        var channel: (any Channel)?
        /// Both hellos have been said.
        var isEstablished = false
        /// Frames that wait for that, or for the end of the batch they came in.
        var outgoing = ByteBuffer()
        /// Letters that these came in.
        var letters = 0
        /// Given up (T4); stays so until a view comes without that life.
        var isLost = false
    }

    let identity: TransportIdentity
    let loop: any EventLoop
    let client: TransportClient
    let tally: TransportTally
    let outbox: Outbox
    private let pathOf: @Sendable (NodeID) -> String
    /// To the members of the adopted view, ascending.
    private var lines: [Line] = []
    /// From lives that no adopted view has yet (T2).
    private var strangers: [Line] = []
    private var isClosed = false

    init(
        identity: TransportIdentity,
        loop: any EventLoop,
        pathOf: @escaping @Sendable (NodeID) -> String,
        client: TransportClient
    ) {
        self.identity = identity
        self.loop = loop
        tally = TransportTally()
        outbox = Outbox(loop: loop, tally: tally)
        self.pathOf = pathOf
        self.client = client
    }

    /// Puts the handlers into a new channel. `peer` is whom we called; nil if we were called.
    func prepare(_ channel: any Channel, calling peer: Member?) throws {
        loop.preconditionInEventLoop()
        try channel.pipeline.syncOperations.addHandlers(
            ByteToMessageHandler(
                FrameDecoder(),
                maximumBufferSize: 2 * UnixTransport.maximumFrame + 8
            ),
            LineHandler(board: self, calling: peer)
        )
    }

    // MARK: Views

    /// `routes`: of all other members.
    func adopt(_ members: [Member], _ routes: [Route]) {
        loop.preconditionInEventLoop()
        if isClosed { return }
        for line in lines where !members.contains(line.member) { line.channel?.close(promise: nil) }
        lines.removeAll { !members.contains($0.member) }
        for route in routes {
            let member = route.member
            if lines.contains(where: { $0.member == member }) { continue }
            if let place = strangers.firstIndex(where: { $0.member == member }) {
                var line = strangers.remove(at: place)
                line.route = route
                lines.append(line)
                openRoute(lines.count - 1)
            } else {
                lines.append(Line(member: member, route: route))
                if identity.member.node < member.node { call(member) }
            }
        }
        lines.sort { $0.member < $1.member }
        precondition(
            zip(lines, lines.dropFirst()).allSatisfy { $0.member.node < $1.member.node },
            "Transport T2: two lives of one node in one view"
        )
    }

    private func call(_ member: Member) {
        let path = pathOf(member.node)
        ClientBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try self.prepare(channel, calling: member)
                }
            }
            .connect(unixDomainSocketPath: path)
            .whenFailure { error in
                self.loop.preconditionInEventLoop()
                self.lose(member, "cannot be reached at \(path): \(error)")
            }
    }

    // MARK: Sending

    /// Sends the letters, all for one peer in one piece.
    func post() {
        loop.preconditionInEventLoop()
        for letter in outbox.take() {
            guard let place = lines.firstIndex(where: { $0.route === letter.route }),
                !lines[place].isLost
            else { continue }
            lines[place].outgoing.writeBytes(letter.frames)
            lines[place].letters += 1
        }
        var lost: [Member] = []
        for place in lines.indices where lines[place].outgoing.readableBytes > 0 {
            if lines[place].isEstablished { flush(place) }
            if backlog(of: lines[place]) > UnixTransport.maximumBacklog {
                lost.append(lines[place].member)
            }
        }
        for member in lost { lose(member, "does not read what it is sent") }
    }

    private func flush(_ place: Int) {
        guard let channel = lines[place].channel, lines[place].outgoing.readableBytes > 0 else {
            return
        }
        var outgoing = ByteBuffer()
        swap(&outgoing, &lines[place].outgoing)
        tally.flushes.add(1, ordering: .relaxed)
        let count = lines[place].letters
        lines[place].letters = 0
        guard let route = lines[place].route else {
            return channel.writeAndFlush(outgoing, promise: nil)
        }
        // If it fails the line is lost, and its route with it.
        channel.writeAndFlush(outgoing).whenSuccess { [outbox] in outbox.delivered(route, count) }
    }

    /// Lets messages for an established line go directly.
    private func openRoute(_ place: Int) {
        guard let route = lines[place].route, let channel = lines[place].channel else { return }
        do {
            let pipeline = channel.pipeline.syncOperations
            let descriptor = try pipeline.withUnsafeTransportIfAvailable(
                of: NIOBSDSocket.Handle.self
            ) { fcntl($0, F_DUPFD_CLOEXEC, 0) }
            outbox.open(route, descriptor ?? -1)
        } catch {
            report("messages to \(route.member) go by way of the event loop: \(error)")
        }
    }

    /// The messages that were read together are handed on.
    func endReading() {
        if outbox.endReading() { post() }
    }

    /// Bytes that were sent to a peer and have not reached the kernel.
    private func backlog(of line: Line) -> Int {
        guard let channel = line.channel, !channel.isWritable else {
            return line.outgoing.readableBytes
        }
        // Without the option there is no number to judge by; the heartbeat finds who stands still.
        return (try? channel.syncOptions?.getOption(ChannelOptions.bufferedWritableBytes)) ?? 0
    }

    // MARK: Lines

    /// The bytes of our hello, as a frame.
    func helloFrame() -> ByteBuffer {
        var frame = ByteBuffer()
        frame.writeInteger(UInt32(Hello.byteCount), endianness: .little)
        Hello(identity: identity).write(to: &frame)
        return frame
    }

    /// Both hellos of a channel are said. False if the line is not wanted.
    func established(_ member: Member, _ channel: any Channel) -> Bool {
        if let place = lines.firstIndex(where: { $0.member == member }) {
            guard lines[place].channel == nil, !lines[place].isLost else { return false }
            lines[place].channel = channel
            lines[place].isEstablished = true
            flush(place)
            openRoute(place)
            return true
        }
        guard !strangers.contains(where: { $0.member == member }), strangers.count < 256 else {
            return false
        }
        strangers.append(Line(member: member, channel: channel, isEstablished: true))
        return true
    }

    /// A message came.
    func deliver(_ frame: ByteBuffer, from member: Member) {
        tally.messagesReceived.add(1, ordering: .relaxed)
        tally.bytesReceived.add(UInt64(frame.readableBytes), ordering: .relaxed)
        outbox.beginReading()
        frame.withUnsafeReadableBytes { client.onMessage(member.node, $0) }
    }

    /// An established channel has closed.
    func closed(_ member: Member, _ channel: any Channel) {
        if let place = strangers.firstIndex(where: { $0.channel === channel }) {
            // Its view may still come; then the call, or its silence, will show that it is gone.
            strangers.remove(at: place)
            return
        }
        guard let line = lines.first(where: { $0.member == member }), line.channel === channel
        else { return }
        lose(member, "has closed its connection")
    }

    /// Gives a member up (T4).
    func lose(_ member: Member, _ why: String) {
        guard let place = lines.firstIndex(where: { $0.member == member }), !lines[place].isLost
        else { return }
        if let route = lines[place].route { outbox.close(route) }
        lines[place].channel?.close(promise: nil)
        lines[place] = Line(member: member, channel: nil, isLost: true)
        if !isClosed { client.onPeerLost(member, why) }
    }

    func report(_ text: String) {
        if !isClosed { client.onReport("transport: \(text)") }
    }

    func hangUpAll() {
        isClosed = true
        for line in lines + strangers {
            if let route = line.route { outbox.close(route) }
            line.channel?.close(promise: nil)
        }
        lines = []
        strangers = []
    }
}

/// One channel: the hello, then frames.
final class LineHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private enum State {
        /// The kernel is being asked who is at the other end; what comes meanwhile waits.
        case checking([ByteBuffer])
        case awaitingHello
        case established(Member)
        case closed
    }

    private let board: Switchboard
    private let peer: Member?
    private var state = State.checking([])

    init(board: Switchboard, calling peer: Member?) {
        self.board = board
        self.peer = peer
    }

    func channelActive(context: ChannelHandlerContext) {
        checkCredentials(context)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        take(unwrapInboundIn(data), context)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        board.endReading()
        context.fireChannelReadComplete()
    }

    private func take(_ frame: ByteBuffer, _ context: ChannelHandlerContext) {
        switch state {
        case .checking(var frames):
            frames.append(frame)
            state = .checking(frames)
            if frames.count > 1024 { refuse(context, "talks before it is known") }
        case .awaitingHello: greet(frame, context)
        case .established(let member): board.deliver(frame, from: member)
        case .closed: break
        }
    }

    /// T3: the process at the other end must be of our user, or root.
    private func checkCredentials(_ context: ChannelHandlerContext) {
        guard let provider = context.channel as? any SocketOptionProvider else {
            return refuse(context, "is not a socket")
        }
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let answer: EventLoopFuture<PeerCredentials> = provider.unsafeGetSocketOption(
            level: .socket,
            name: NIOBSDSocket.Option(rawValue: peerCredentialsOption)
        )
        answer.whenComplete { result in
            let (handler, context) = bound.value
            switch result {
            case .failure(let error): handler.refuse(context, "cannot be identified: \(error)")
            case .success(let found):
                guard found.user == geteuid() || found.user == 0 else {
                    return handler.refuse(context, "belongs to user \(found.user)")
                }
                handler.identified(context)
            }
        }
    }

    private func identified(_ context: ChannelHandlerContext) {
        guard case .checking(let frames) = state else { return }
        state = .awaitingHello
        // Who calls speaks first.
        if peer != nil { context.writeAndFlush(NIOAny(board.helloFrame()), promise: nil) }
        for frame in frames { take(frame, context) }
        board.endReading()
    }

    private func greet(_ frame: ByteBuffer, _ context: ChannelHandlerContext) {
        switch Hello.read(frame) {
        case .failure(let error): refuse(context, "said \(error)")
        case .success(let hello):
            let theirs = hello.identity
            let ours = board.identity
            guard theirs.volumeHigh == ours.volumeHigh, theirs.volumeLow == ours.volumeLow else {
                return refuse(context, "is of another volume")
            }
            guard peer == nil ? theirs.member.node < ours.member.node : theirs.member == peer else {
                return refuse(context, "is \(theirs.member), which was not expected")
            }
            if peer == nil { context.writeAndFlush(NIOAny(board.helloFrame()), promise: nil) }
            state = .established(theirs.member)
            guard board.established(theirs.member, context.channel) else {
                return refuse(context, "calls a second time")
            }
        }
    }

    private func refuse(_ context: ChannelHandlerContext, _ why: String) {
        board.endReading()
        if case .closed = state { return }
        let member = end()
        board.report("a peer \(why); the connection is dropped")
        context.close(promise: nil)
        if let member { board.closed(member, context.channel) }
        if let peer, member == nil { board.lose(peer, why) }
    }

    /// The life that was at the other end, if that was established.
    private func end() -> Member? {
        defer { state = .closed }
        guard case .established(let member) = state else { return nil }
        return member
    }

    func channelInactive(context: ChannelHandlerContext) {
        board.endReading()
        if case .closed = state { return }
        if let member = end() {
            board.closed(member, context.channel)
        } else if let peer {
            board.lose(peer, "closed the connection before it said hello")
        }
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // The connection broke. A peer that leaves before it has read all that it was sent resets it:
        // that is the end of the connection (`channelInactive`), not something that it said.
        if error is IOError { return context.close(promise: nil) }
        refuse(context, "sent what cannot be read: \(error)")
    }
}

/// The kernel's `struct ucred`.
private struct PeerCredentials: Sendable {
    var process: Int32 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
}

/// SO_PEERCRED, which the C library shows only with _GNU_SOURCE.
private let peerCredentialsOption: Int32 = 17
