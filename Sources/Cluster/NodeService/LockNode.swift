// Drives the lock manager of one node: calls of the client, bytes of peers and views of the cluster
// go into the lockspace; what it asks for is carried out.
//
//   client -- request, convert, unlock, cancel --> LockNode -- completed, isBlocking --> client
//   peers  -- received ------------------------->          -- PeerLink.send ---------> peers
//   membership -- viewChanged, leave ----------->          -- onRecoveryFinished ----> who replays
//   who replayed -- journalsReplayed ----------->
//
// Invariants
// N1. The state machine is never entered while it runs: nothing is called back from inside it. Its
//     effects are collected while it runs and carried out after it has returned.
// N2. Callbacks may call this object again. Effects are carried out by the outermost call only, in
// the
//     order in which they arose; a nested call adds to the end of the queue and returns.
// N3. A message is encoded the moment it arises, with the epoch of that moment: a view that a
// callback
//     brings cannot pass an old message off as a new one.
// N4. All messages to one peer that one outermost call caused leave in one piece (cut at
//     `largestBatch`), after the callbacks.
// N5. Everything happens inside the engine (Execution E1): there is no latch here.
// N6. The state machine knows the time of the engine's clock at every call. While it has anything
//     that time will end, a tick is scheduled; never more than one, and never later than
//     `longestTick`, so that what is asked in between is not late by more.

package import ClusterWire
package import Execution
package import LockCache
package import LockCore
package import Vocabulary

/// What carries bytes to the other nodes.
package protocol PeerLink: AnyObject {
    /// Sends whole messages, encoded back to back. Reliable and in order per peer while both live;
    /// what is for a node that is gone is dropped. Must not block; may deliver before it returns.
    func send(_ bytes: [UInt8], to peer: NodeID)
}

/// The lock service of one node.
package final class LockNode: LockService {
    /// Whom to answer. Set before the first call.
    package weak var client: (any LockClient)?

    /// Lock recovery of this view is finished on this node. On the coordinator the journals that
    /// the view lists may be replayed now.
    package var onRecoveryFinished: ((ClusterView) -> Void)?

    /// The journals that the view of this epoch lists are replayed. On every member.
    package var onReplayed: ((Epoch) -> Void)?

    /// A lock of this node's client is about to be refused, to break this circle of waits.
    package var onDeadlock: (([DeadlockHop], LockID) -> Void)?

    /// A peer has left: it holds nothing any more and may be left out of the next view at once.
    package var onGoodbye: ((NodeID) -> Void)?

    /// A peer sent what is no message; the rest of what came with it was dropped. The connection is
    /// of no use any more.
    package var onMalformed: ((NodeID, WireError) -> Void)?

    /// A peer sent a message that no correct peer sends at that moment; it was passed over.
    package var onProtocolError: ((NodeID) -> Void)?

    /// An administrator's inquiry of a peer, or a part of a peer's answer: see `InquiryDesk`.
    package var onInquiry: ((NodeMessage, NodeID) -> Void)?

    /// A question of a peer about a file, or an answer: see `PeerQuestions`.
    package var onQuestion: ((NodeMessage, NodeID) -> Void)?

    /// A peer freezes the volume.
    package var onFreeze: ((FreezeNotice) -> Void)?

    /// Pieces dropped because a peer sent what is no message, or is one of another version.
    package private(set) var malformedMessages: UInt64 = 0

    /// This node.
    package let node: NodeID

    /// The newest view this node was told; nil before the first.
    package private(set) var view: ClusterView?

    /// The longest piece handed to a link, as long as no single message is longer.
    package static let largestBatch = 64 * 1024

    /// Room for the messages of an operation or two, so that one array is allocated for them.
    private static let usualPiece = 128

    /// What is on its way out.
    private struct Exit {
        /// Effects of the call that is running (N1).
        var fresh: [LockEffect] = []
        /// Effects for the client, and how many of them were carried out (N2). Messages among them
        /// were encoded already.
        var queue: [LockEffect] = []
        var carriedOut = 0
        var isCarryingOut = false
        /// Encoded messages, in order of the first for each peer (N4).
        var outgoing: [(peer: NodeID, bytes: [UInt8])] = []
    }

    // Behind pointers: no dynamic exclusivity checks, of which a call would make a dozen.
    let space: UnsafeMutablePointer<Lockspace>
    private let exit: UnsafeMutablePointer<Exit>
    private let peers: any PeerLink

    let engine: Engine
    /// What went into the state machine lately; nil if nothing is recorded.
    let recorder: FlightRecorder?
    let incarnation: UInt64
    private var isTickScheduled = false

    /// The longest time between two ticks, in nanoseconds, while something waits for one.
    private static let longestTick: UInt64 = 100_000_000

    /// A node that waits for its first view. `incarnation`: the one that views name this life with.
    /// `engine`: the one that all calls come from; its clock gives the time. `recording`: bytes for
    /// the flight recorder; 0: none.
    package init(
        node: NodeID,
        incarnation: UInt64,
        engine: Engine,
        peers: any PeerLink,
        settings: LockSettings = LockSettings(),
        recording: Int = 0
    ) {
        self.node = node
        self.incarnation = incarnation
        recorder = recording > 0 ? FlightRecorder(capacity: recording) : nil
        self.engine = engine
        self.peers = peers
        space = .allocate(capacity: 1)
        space.initialize(to: Lockspace(node: node, incarnation: incarnation))
        space.pointee.settings = settings
        exit = .allocate(capacity: 1)
        exit.initialize(to: Exit())
    }

    deinit {
        space.deinitialize(count: 1)
        space.deallocate()
        exit.deinitialize(count: 1)
        exit.deallocate()
    }

    // MARK: Time (N6)

    /// Tells the state machine the time; returns it in nanoseconds.
    @inline(__always)
    func tellTime() -> UInt64 {
        let now = engine.clock.now.rawValue
        space.pointee.setTime(now / 1_000_000)
        return now
    }

    private func scheduleTick() {
        if isTickScheduled { return }
        guard let next = space.pointee.nextTick else { return }
        isTickScheduled = true
        let now = engine.clock.now.rawValue
        let due = max(next * 1_000_000, now + 1_000_000)
        let tick = Tick(min(due, now + Self.longestTick))
        engine.clock.schedule(at: tick, in: engine, EngineBound { [weak self] in self?.tick() })
    }

    private func tick() {
        isTickScheduled = false
        if space.pointee.hasLeft { return }
        let now = tellTime()
        recorder?.event(.tick, now)
        space.pointee.tick(now / 1_000_000, effects: &exit.pointee.fresh)
        carryOut()
    }

    // MARK: LockService

    @discardableResult
    package func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        bytes: LockedBytes?
    ) -> LockID {
        request(
            name,
            mode,
            flags,
            cookie: cookie,
            owner: owner,
            parent: parent,
            patience: 0,
            bytes: bytes
        )
    }

    /// As `Lockspace.request`. The completion comes to `client`, also of a synchronous grant.
    @discardableResult
    package func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID = .none,
        patience: UInt32,
        bytes: LockedBytes? = nil
    ) -> LockID {
        let lock = ask(
            name,
            mode,
            flags.subtracting(.synchronous),
            cookie: cookie,
            owner: owner,
            parent: parent,
            patience: patience,
            bytes: bytes
        )
        carryOut()
        return lock
    }

    /// Records and asks; what came of it is not carried out yet.
    private func ask(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        patience: UInt32,
        bytes: LockedBytes? = nil
    ) -> LockID {
        let now = tellTime()
        recorder?.request(
            now,
            name,
            mode,
            flags,
            cookie: cookie,
            owner: owner,
            parent: parent,
            patience: patience,
            bytes: bytes
        )
        return space.pointee.request(
            name,
            mode,
            flags,
            cookie: cookie,
            owner: owner,
            parent: parent,
            patience: patience,
            bytes: bytes,
            effects: &exit.pointee.fresh
        )
    }

    /// As `request`, for a client that wants to hear of a grant at once: the completion, if there
    /// was one before this returns, and no other.
    package func requestSynchronously(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner = .none,
        parent: LockID = .none,
        patience: UInt32 = 0
    ) -> (lock: LockID, completion: LockCompletion?) {
        let lock = ask(
            name,
            mode,
            flags.union(.synchronous),
            cookie: cookie,
            owner: owner,
            parent: parent,
            patience: patience
        )
        let completion = space.pointee.takeSynchronous()
        carryOut()
        return (lock, completion)
    }

    package func convert(_ lock: LockID, to mode: LockMode, _ flags: LockFlags, value: ValueBlock?)
    {
        let now = tellTime()
        let asked = flags.subtracting(.synchronous)
        recorder?.convert(now, lock, mode, asked, value)
        space.pointee.convert(lock, to: mode, asked, value: value, effects: &exit.pointee.fresh)
        carryOut()
    }

    package func unlock(_ lock: LockID, _ flags: LockFlags, value: ValueBlock?) {
        let now = tellTime()
        recorder?.unlock(now, lock, flags, value)
        space.pointee.unlock(lock, flags, value: value, effects: &exit.pointee.fresh)
        carryOut()
    }

    /// An owner of this node is gone: see `Lockspace.ownerIsGone`.
    package func ownerIsGone(_ owner: LockOwner) {
        let now = tellTime()
        recorder?.event(.ownerIsGone, now, UInt64(owner.rawValue))
        space.pointee.ownerIsGone(owner, effects: &exit.pointee.fresh)
        carryOut()
    }

    /// Gives up orphans of a node: see `Lockspace.purgeOrphans`.
    package func purgeOrphans(of peer: NodeID, owner: LockOwner) {
        let now = tellTime()
        recorder?.event(.purgeOrphans, now, UInt64(peer.rawValue), UInt64(owner.rawValue))
        space.pointee.purgeOrphans(of: peer, owner: owner, effects: &exit.pointee.fresh)
        carryOut()
    }

    package func cancel(_ lock: LockID) {
        let now = tellTime()
        recorder?.event(.cancel, now, lock.rawValue)
        space.pointee.cancel(lock, effects: &exit.pointee.fresh)
        carryOut()
    }

    // MARK: The cluster

    /// Takes one or more whole messages of a peer.
    package func received(_ bytes: UnsafeRawBufferPointer, from peer: NodeID) {
        var now = tellTime()
        var offset = 0
        while offset < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            do {
                let decoded = try decodeMessage(rest)
                offset += decoded.byteCount
                let message = UnsafeRawBufferPointer(rebasing: rest[..<decoded.byteCount])
                take(decoded, from: peer, message, now)
                // What others do in between may take time.
                if case .lock = decoded.message { continue }
                now = tellTime()
            } catch {
                malformedMessages += 1
                recorder?.event(.malformed, now, UInt64(peer.rawValue))
                onMalformed?(peer, error)
                break
            }
        }
        carryOut()
    }

    private func take(
        _ decoded: DecodedMessage,
        from peer: NodeID,
        _ bytes: UnsafeRawBufferPointer,
        _ now: UInt64
    ) {
        switch decoded.message {
        case .lock(let message):
            recorder?.message(now, from: peer, bytes)
            let errors = space.pointee.counters.protocolErrors
            space.pointee.receive(
                message,
                from: peer,
                epoch: decoded.epoch,
                effects: &exit.pointee.fresh
            )
            collect()
            if space.pointee.counters.protocolErrors != errors { onProtocolError?(peer) }
        case .replayed(let epoch):
            recorder?.message(now, from: peer, bytes)
            space.pointee.journalsReplayed(epoch, effects: &exit.pointee.fresh)
            collect()
            onReplayed?(epoch)
        case .goodbye: onGoodbye?(peer)
        case .inquiry, .report: onInquiry?(decoded.message, peer)
        case .askLastWrite, .lastWrite, .askAttributes, .attributes, .accessed:
            onQuestion?(decoded.message, peer)
        case .freezes(let notice): onFreeze?(notice)
        }
    }

    /// Sends what is no affair of the lock manager.
    func say(_ message: NodeMessage, to peer: NodeID) {
        post(message, to: peer)
        carryOut()
    }

    /// Tells all other nodes that the volume is being frozen.
    package func announce(_ notice: FreezeNotice) {
        for member in view?.members ?? [] where member.node != node {
            post(.freezes(notice), to: member.node)
        }
        carryOut()
    }

    /// Takes the newest view. Views may be skipped, never repeated out of order.
    package func viewChanged(_ view: ClusterView) {
        if let known = self.view, view.epoch <= known.epoch { return }
        self.view = view
        let now = tellTime()
        recorder?.view(now, view)
        space.pointee.viewChanged(view, effects: &exit.pointee.fresh)
        carryOut()
    }

    /// On the coordinator: the journals that the view of this epoch lists are replayed, or what they
    /// cover is locked. Tells everybody.
    package func journalsReplayed(_ epoch: Epoch) {
        for member in view?.members ?? [] where member.node != node {
            post(.replayed(epoch), to: member.node)
        }
        let now = tellTime()
        recorder?.event(.journalsReplayed, now, epoch.rawValue, UInt64(node.rawValue))
        space.pointee.journalsReplayed(epoch, effects: &exit.pointee.fresh)
        collect()
        onReplayed?(epoch)
        carryOut()
    }

    /// Leaves: every lock was unlocked before. Pending operations end as `shutDown`. The others
    /// hear a goodbye after everything else this node said.
    package func leave() {
        if space.pointee.hasLeft { return }
        let now = tellTime()
        recorder?.event(.leave, now)
        space.pointee.leave(effects: &exit.pointee.fresh)
        collect()
        for member in view?.members ?? [] where member.node != node {
            post(.goodbye, to: member.node)
        }
        carryOut()
    }

    // MARK: For the administrator

    /// All resources known here, ascending by name. On the master with all locks, elsewhere with
    /// this node's own.
    package var snapshot: [ResourceDescription] {
        var found: [ResourceDescription] = []
        space.pointee.visitResources { found.append($0) }
        return found.sorted { $0.name < $1.name }
    }

    /// What was done so far.
    package var counters: LockCounters { space.pointee.counters }

    /// Whether locks are granted: recovery of the present view is finished here.
    package var isRunning: Bool { space.pointee.isRunning }

    /// Whether ordinary requests wait for the replay of journals.
    package var waitsForReplay: Bool { space.pointee.waitsForReplay }

    /// Bytes of memory the lock manager's tables occupy.
    package var byteCount: Int { space.pointee.byteCount }

    // MARK: Effects

    /// Encodes the messages the state machine asked for (N3) and queues its other effects.
    private func collect() {
        if exit.pointee.fresh.isEmpty { return }
        recorder?.note(effects: exit.pointee.fresh.count)
        let epoch = space.pointee.epoch
        var hasOthers = false
        for effect in exit.pointee.fresh {
            if case .send(let message, let peer) = effect {
                post(.lock(message), to: peer, epoch: epoch)
            } else {
                hasOthers = true
            }
        }
        if !hasOthers {
            exit.pointee.fresh.removeAll(keepingCapacity: true)
        } else if exit.pointee.queue.isEmpty {
            swap(&exit.pointee.fresh, &exit.pointee.queue)
        } else {
            exit.pointee.queue += exit.pointee.fresh
            exit.pointee.fresh.removeAll(keepingCapacity: true)
        }
    }

    private func post(_ message: NodeMessage, to peer: NodeID, epoch: Epoch? = nil) {
        var place = exit.pointee.outgoing.lastIndex { $0.peer == peer }
        if let last = place, exit.pointee.outgoing[last].bytes.count >= Self.largestBatch / 2 {
            place = nil
        }
        let chosen = place ?? exit.pointee.outgoing.count
        if place == nil {
            var bytes: [UInt8] = []
            bytes.reserveCapacity(Self.usualPiece)
            exit.pointee.outgoing.append((peer, bytes))
        }
        encode(
            message,
            epoch: epoch ?? space.pointee.epoch,
            into: &exit.pointee.outgoing[chosen].bytes
        )
    }

    /// Carries everything out, unless a call further out is at it already (N2).
    private func carryOut() {
        collect()
        if exit.pointee.isCarryingOut { return }
        exit.pointee.isCarryingOut = true
        while exit.pointee.carriedOut < exit.pointee.queue.count || !exit.pointee.outgoing.isEmpty {
            while exit.pointee.carriedOut < exit.pointee.queue.count {
                let effect = exit.pointee.queue[exit.pointee.carriedOut]
                exit.pointee.carriedOut += 1
                perform(effect)
            }
            exit.pointee.queue.removeAll(keepingCapacity: true)
            exit.pointee.carriedOut = 0
            if exit.pointee.outgoing.isEmpty { break }
            let leaving = exit.pointee.outgoing
            exit.pointee.outgoing = []
            for (peer, bytes) in leaving { peers.send(bytes, to: peer) }
        }
        exit.pointee.isCarryingOut = false
        if !isTickScheduled { scheduleTick() }
    }

    private func perform(_ effect: LockEffect) {
        switch effect {
        case .complete(let completion): client?.completed(completion)
        case .blocking(let cookie, let lock, let wanted):
            // A callback before this one may have demoted the lock or given it up.
            if space.pointee.isInTheWay(lock, of: wanted) {
                client?.isBlocking(cookie: cookie, wanted: wanted)
            }
        case .deadlock(let hops, let victim): onDeadlock?(hops, victim)
        case .recoveryFinished(let epoch):
            if let view, view.epoch == epoch { onRecoveryFinished?(view) }
        case .send: break  // N3: encoded when it arose.
        }
    }
}
