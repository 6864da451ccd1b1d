// One process in a group of corosync's: a thread that carries what corosync says to `AgreementMachine` and what that
// wants said to corosync. What else is to be done goes to a client.
//
// Invariants
// C1. The machine and the connection belong to the thread; other threads post events and are called back by nobody else.
// C2. What the machine wants said is said in its order: what corosync cannot take now waits, and nothing overtakes it.
// C3. When the connection is lost the group goes on without this process, which therefore must stop as one that was
//     expelled; there is no second connection for the same life.

import CCorosync
import CLinux
import Glibc
package import GroupAgreement
import LinuxSystem
import Vocabulary

/// Corosync does not do what is needed of it.
package struct CorosyncError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was tried, and why it failed.
    package let description: String

    init(_ what: String, _ result: lockstep_group_result) {
        description = "\(what): \(String(cString: lockstep_corosync_error(result)))"
    }

    init(_ description: String) { self.description = description }
}

/// Whom a group calls, on its thread; must not block long.
package struct CorosyncGroupClient: Sendable {
    /// Something is to be done: anything but `say` and `grace`.
    package var onEffect: @Sendable (AgreementEffect) -> Void
    /// The connection to corosync is lost (C3). The last call.
    package var onLost: @Sendable (String) -> Void

    /// From its parts.
    package init(
        onEffect: @escaping @Sendable (AgreementEffect) -> Void,
        onLost: @escaping @Sendable (String) -> Void
    ) {
        self.onEffect = onEffect
        self.onLost = onLost
    }
}

/// A process's place in a group. See the head of this file.
package final class CorosyncGroup: @unchecked Sendable {
    // Sendable: C1; what other threads touch is guarded by `latch`.

    /// This process.
    package let me: GroupProcess
    private let name: String
    private let client: CorosyncGroupClient
    private let connection: OpaquePointer
    private let box: Unmanaged<Box>
    private let wake: Int32
    private let latch = Latch()
    private var posted: [AgreementEvent] = []
    private var isStopping = false
    private var thread: RunningThread?

    // Of the thread.
    private var machine: AgreementMachine
    private var effects: [AgreementEffect] = []
    private var outgoing: [[UInt8]] = []
    private var grace: (ring: RingID, end: UInt64)?

    /// How long absent members may take to come back after the quorum has, in nanoseconds.
    private static let graceTime: UInt64 = 3_000_000_000

    /// Joins the group of a volume; the client hears of it from `start` on. `volume`: its UUID as text.
    ///
    /// - Throws: `CorosyncError` when corosync is not installed, does not run, has no quorum provider, or does not admit
    ///   this process.
    package init(volume: String, client: CorosyncGroupClient) throws(CorosyncError) {
        try Self.load()
        let box = Unmanaged.passRetained(Box())
        let bells = lockstep_group_client(
            context: box.toOpaque(),
            delivered: { context, sender, bytes, count in
                Box.group(context)?.deliver(
                    UnsafeRawBufferPointer(start: bytes, count: count),
                    GroupProcess(host: sender.host, process: sender.process)
                )
            },
            configured: { context, members, memberCount, joined, joinedCount in
                Box.group(context)?.take(
                    .configured(
                        CorosyncGroup.processes(members, memberCount),
                        joined: CorosyncGroup.processes(joined, joinedCount)
                    )
                )
            },
            ring: { context, host, sequence, hosts, count in
                let hosts = Array(UnsafeBufferPointer(start: hosts, count: count)).sorted()
                Box.group(context)?.take(
                    .ring(RingID(host: host, sequence: sequence), hosts: hosts)
                )
            },
            quorum: { context, host, sequence, isQuorate in
                Box.group(context)?.take(
                    .quorum(RingID(host: host, sequence: sequence), isQuorate: isQuorate != 0)
                )
            }
        )
        var result: lockstep_group_result = 0
        guard let connection = lockstep_group_open(bells, &result) else {
            box.release()
            throw CorosyncError("connecting to corosync", result)
        }
        self.connection = connection
        self.box = box
        var host: UInt32 = 0
        result = Self.patiently { lockstep_group_host(connection, &host) }
        me = GroupProcess(host: host, process: UInt32(bitPattern: getpid()))
        name = "lockstep:\(volume)"
        self.client = client
        machine = AgreementMachine(me: me, volume: volume)
        wake = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        box.takeUnretainedValue().group = self
        guard result == 0 else { throw CorosyncError("asking corosync for this host", result) }
        guard wake >= 0 else { throw CorosyncError("eventfd: \(errnoText(errno))") }
        let name = name
        result = Self.patiently { lockstep_group_join(connection, name) }
        guard result == 0 else { throw CorosyncError("joining the group \(name)", result) }
        result = Self.patiently { lockstep_group_track_quorum(connection) }
        guard result == 0 else { throw CorosyncError("following the quorum", result) }
    }

    /// Begins to listen. Once.
    ///
    /// - Throws: `CorosyncError` when there is no room for a thread.
    package func start() throws(CorosyncError) {
        do {
            // Corosync's libraries put a megabyte on the stack.
            thread = try runThread(name: "group", stackSize: 8 << 20) { [self] in run() }
        } catch {
            throw CorosyncError(error.description)
        }
    }

    deinit {
        // Otherwise the thread has closed it.
        if thread == nil { lockstep_group_close(connection) }
        if wake >= 0 { close(wake) }
        box.release()
    }

    /// Leads from C's pointer to the group.
    private final class Box {
        unowned(unsafe) var group: CorosyncGroup?

        static func group(_ context: UnsafeMutableRawPointer?) -> CorosyncGroup? {
            guard let context else { return nil }
            return Unmanaged<Box>.fromOpaque(context).takeUnretainedValue().group
        }
    }

    private static func load() throws(CorosyncError) {
        var problem = [CChar](repeating: 0, count: 256)
        guard lockstep_corosync_load(&problem, problem.count) == 0 else {
            let why = problem.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            throw CorosyncError("corosync's libraries cannot be loaded: \(why)")
        }
    }

    /// Repeats what corosync cannot do just now, for up to 10 s: it is forming a ring, and does not say
    /// when that is done.
    private static func patiently(_ call: () -> lockstep_group_result) -> lockstep_group_result {
        for _ in 0..<1_000 {
            let result = call()
            if result != 1 { return result }
            _ = poll(nil, 0, 10)
        }
        return 1
    }

    private static func processes(
        _ list: UnsafePointer<lockstep_group_process>?,
        _ count: Int
    ) -> [GroupProcess] {
        UnsafeBufferPointer(start: list, count: count).map {
            GroupProcess(host: $0.host, process: $0.process)
        }.sorted()
    }

    /// Tells the machine of something. From any thread.
    package func post(_ event: AgreementEvent) {
        latch.withLock { posted.append(event) }
        ring()
    }

    /// Leaves the group and ends the thread. From any other thread, once, after `start`.
    package func stop() {
        latch.withLock { isStopping = true }
        ring()
        thread?.join()
    }

    private func ring() {
        var one: UInt64 = 1
        _ = write(wake, &one, 8)  // fails only when it has been rung 2^64 times
    }

    // MARK: The thread

    private func run() {
        var descriptors: [Int32] = [-1, -1]
        if lockstep_group_descriptors(connection, &descriptors) != 0 {
            return lose("its descriptors cannot be had")
        }
        while true {
            var entries = (descriptors + [wake]).map {
                pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
            }
            // What corosync could not take is offered again soon (C2).
            if poll(&entries, 3, patience) < 0, errno != EINTR {
                return lose("poll: \(errnoText(errno))")
            }
            var count: UInt64 = 0
            _ = read(wake, &count, 8)  // EAGAIN: nobody rang
            let (events, isOver) = latch.withLock { () -> ([AgreementEvent], Bool) in
                defer { posted = [] }
                return (posted, isStopping)
            }
            if isOver { return end() }
            for event in events { take(event) }
            if let grace, monotonicNow() >= grace.end {
                self.grace = nil
                take(.graceOver(grace.ring))
            }
            let result = lockstep_group_dispatch(connection)
            if result != 0 { return lose(String(cString: lockstep_corosync_error(result))) }
            if let problem = sayOutgoing() { return lose(problem) }
        }
    }

    /// Milliseconds to wait for something to happen.
    private var patience: Int32 {
        if !outgoing.isEmpty { return 5 }
        return grace == nil ? -1 : 100
    }

    private func end() {
        let connection = connection
        let name = name
        _ = Self.patiently { lockstep_group_leave(connection, name) }  // closing leaves as well
        lockstep_group_close(connection)
    }

    private func lose(_ why: String) {
        lockstep_group_close(connection)
        client.onLost("the connection to corosync is lost: \(why)")
    }

    private func deliver(_ bytes: UnsafeRawBufferPointer, _ sender: GroupProcess) {
        do throws(AgreementWireError) {
            take(.delivered(try AgreementMessage(bytes: bytes), from: sender))
        } catch {
            client.onEffect(.report("\(sender) said what cannot be read: \(error)"))
        }
    }

    private func take(_ event: AgreementEvent) {
        machine.handle(event, &effects)
        while !effects.isEmpty {
            let batch = effects
            effects.removeAll(keepingCapacity: true)
            for effect in batch {
                switch effect {
                case .say(let message): outgoing.append(message.bytes)
                case .grace(let ring): grace = (ring, monotonicNow() + Self.graceTime)
                default: client.onEffect(effect)
                }
            }
        }
    }

    /// C2. What is wrong, if the connection is of no use any more.
    private func sayOutgoing() -> String? {
        var sent = 0
        defer { outgoing.removeFirst(sent) }
        for bytes in outgoing {
            let result = bytes.withUnsafeBytes {
                lockstep_group_say(connection, $0.baseAddress, $0.count)
            }
            if result == 1 { return nil }
            if result != 0 { return String(cString: lockstep_corosync_error(result)) }
            sent += 1
        }
        return nil
    }
}
