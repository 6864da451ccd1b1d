// One mount from beginning to end: wires the parts of a node together. This is the only place that
// knows all of them.
//
//   begin   device and superblock ─ engine ─ cluster (slot, guard, first view) ─ lock manager ─
//   replay, if it falls to us ─
//           journal ─ volume ─ FUSE ─ guardian
//   serve   until somebody unmounts (umount, fusermount3, SIGTERM) or the node is put out
//   end     data and journal to the device, locks given up, guard and slot left, exit
//
// Threads: FUSE receivers, the transport's event loop, the cluster's watcher, the guard's heart,
// timers and the device's pool. All of them reach the node's state only through the engine. The
// daemon's main thread waits for the end.

import BlockIO
import ClusterNode
import DiskFormat
import Execution
import FileSystem
import FuseServer
import Glibc
import HostCluster
import Journaling
import LinuxBlockIO
import LinuxSystem
import LockCache
import Membership
import NodeService
import Transport
import Vocabulary

/// A mount.
final class Mount: @unchecked Sendable {
    // Sendable: everything is set by `begin` before other threads are told of it, or belongs to the
    // engine.
    let arguments: MountArguments
    let log: LineLog
    let file: VolumeFile
    let engine: Engine
    private let executor: CombiningExecutor
    private let clock: LinuxClock
    private(set) var node: NodeRuntime?
    private(set) var server: FuseServer?
    private(set) var observation: Observation?
    let story = Story()
    let scrubber = Scrubber()
    let freezing = Freezing()
    private var cluster: HostCluster?
    private var volumeGuard: VolumeGuard?
    private var transport: UnixTransport?
    private var guardian: GuardianKeeper?
    /// Under `stateLatch`: signals unmount from now on.
    private var isServing = false
    /// Under `stateLatch`: the end is decided.
    private var isFailing = false
    private let stateLatch = Latch()
    private var kernelList: GuardedList?
    private var administration: Administration?
    private var pressure: MemoryPressure?
    private let inbox: NodeInbox
    private var isMounted = false

    init(_ arguments: MountArguments, _ log: LineLog) throws {
        self.arguments = arguments
        self.log = log
        executor = try CombiningExecutor()
        file = try VolumeFile(arguments, executor)
        var status = stat()
        guard stat(arguments.directory, &status) == 0 else {
            throw MountError("\(arguments.directory): \(errnoText(errno))")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw MountError("\(arguments.directory) is not a directory")
        }
        clock = try LinuxClock()
        engine = Engine(executor: executor, clock: clock)
        inbox = NodeInbox(engine: engine)
    }

    // MARK: Beginning

    func begin() throws {
        let mountPoint = try fullPath(arguments.directory)
        try refuseWhileFrozen()
        let cluster = try join(mountPoint)
        self.cluster = cluster
        do {
            try beginInCluster(cluster, mountPoint)
            // Before anybody is told that the mount answers.
            stateLatch.withLock { isServing = true }
        } catch {
            giveUp()
            throw error
        }
    }

    /// Takes a beginning back that failed half way: nobody shall see a death where there was a
    /// typing mistake.
    private func giveUp() {
        guardian?.stop()
        if let server, isMounted {
            do {
                try server.unmount(.lazy)
                server.run()
            } catch {
                log.error("cannot unmount again: \(error)")
            }
        }
        takeBackAndSayFarewell()
        guard let node, node.volume != nil else {
            leaveCluster(isClean: false)
            return
        }
        do {
            try waitInEngine { try await self.end(node) }
            leaveCluster(isClean: true)
        } catch {
            log.error("the volume was not left in order: \(error)")
        }
    }

    /// Before anything is written: asks the daemons that have the volume mounted whether it is frozen. Who freezes
    /// it a moment later is met by the freeze lock.
    private func refuseWhileFrozen() throws {
        let directory = try RunDirectory(
            root: arguments.runDirectory,
            volume: file.superblock.volume
        )
        for slot in 0..<file.superblock.slotCount {
            let answer = askDaemon(at: "\(directory.folder)/admin-\(slot)", "frozen")
            guard let answer, !answer.isEmpty else { continue }
            throw MountError(
                "\(file.path) is frozen \(answer); 'lockstep thaw' on a node that has it mounted lets it go on"
            )
        }
    }

    private func join(_ mountPoint: String) throws -> HostCluster {
        var options = HostClusterOptions()
        options.runDirectory = arguments.runDirectory
        options.slot = arguments.slot
        options.patience = arguments.patienceSeconds * 1_000_000_000
        options.mountPoint = mountPoint
        options.device = file.path
        let client = HostClusterClient(
            onView: { [inbox] view in inbox.put(view) },
            onExpelled: { [weak self] why in self?.fail("this node was put out: \(why)") },
            onReport: { [log] line in log.notice(line) }
        )
        let host = try HostIdentity()
        return try HostCluster.join(
            file.superblock.volume,
            slotCount: file.superblock.slotCount,
            options: options,
            client: client
        ) { claim in
            transport = try listen(claim)
            volumeGuard = try VolumeGuard(
                entering: file.device,
                file.superblock,
                as: claim,
                takeover: arguments.takesOver,
                host: host,
                onLost: { [weak self] why in self?.fail("the volume was taken over: \(why)") },
                onReport: { [log] line in log.notice(line) }
            )
        }
    }

    private func listen(_ claim: SlotClaim) throws -> UnixTransport {
        let volume = file.superblock.volume
        let directory = try RunDirectory(root: arguments.runDirectory, volume: volume)
        return try UnixTransport(
            identity: TransportIdentity(
                volumeHigh: volume.high,
                volumeLow: volume.low,
                member: claim.member
            ),
            listeningAt: claim.socketPath,
            pathOf: { directory.socket($0.slot) },
            client: TransportClient(
                onMessage: { [inbox] from, bytes in inbox.put(bytes, from: from) },
                onPeerLost: { [weak self] member, why in
                    self?.cluster?.fenceNow(member.node)
                    self?.log.notice("lost the connection to \(member): \(why)")
                },
                onReport: { [log] line in log.notice(line) }
            )
        )
    }

    private func beginInCluster(_ cluster: HostCluster, _ mountPoint: String) throws {
        guard let transport else { throw MountError("the transport was not made") }
        let node = makeNode(cluster, transport)
        self.node = node
        observation = Observation(
            engine: engine,
            node: node,
            name: arguments.nodeName ?? "\(node.locks.node)"
        )
        inbox.open(
            NodeReceiver(
                onMessage: { bytes, peer in node.locks.received(bytes, from: peer) },
                onView: { view in node.adopt(view) }
            )
        )
        keepProgress(cluster)
        let volume: MountedVolume
        do {
            volume = try waitInEngine { try await node.begin() }
        } catch { throw MountError("\(file.path): \(error)") }
        let list = try GuardedList()
        kernelList = list
        let control = cluster.directory.folder + "/admin-\(cluster.member.node.slot.rawValue)"
        let server = makeServer(mountPoint)
        self.server = server
        let bound = EngineBound(volume)
        try waitInEngine {
            bound.value.kernel = server.kernelCache
            server.kernelCache.onFailure = { [weak self] why in self?.fail(why) }
            server.kernelCache.isReferenced = { bound.value.kernelRefers(to: $0) }
            bound.value.kernelList = list
            bound.value.controlPath = control
        }
        server.serve(EngineBound(volume))
        try server.mount()
        isMounted = true
        showTimes(arguments, at: mountPoint)
        list.connect(mountPoint)
        let slot = cluster.member.node.slot
        let inodes = list.inodes
        guardian = try GuardianKeeper(
            start: {
                try Guardian.start(
                    slot: slot,
                    in: cluster.directory,
                    fuseDescriptor: server.fileDescriptor,
                    list: inodes
                )
            },
            log: log,
            onLost: { [weak self] why in self?.fail(why) }
        )
        // Only now may the kernel keep what it is told.
        try waitInEngine { bound.value.isGuarded = true }
        administration = try Administration(path: control, mount: self)
        watchMemory(bound)
    }

    /// What nobody uses is given back when memory is short, where the system tells of that.
    private func watchMemory(_ volume: EngineBound<MountedVolume>) {
        do throws(SystemError) {
            pressure = try MemoryPressure { [engine] in
                engine.enter { volume.value.relieve() }
            }
        } catch {
            log.notice("nothing is given back when memory is short: \(error)")
        }
    }

    private func makeNode(_ cluster: HostCluster, _ transport: UnixTransport) -> NodeRuntime {
        var parts = NodeParts(
            member: cluster.member,
            device: file.device,
            superblock: file.superblock,
            peers: Link(transport: transport)
        )
        parts.mount = mountOptions()
        parts.journal.commitInterval = parts.mount.commitInterval
        parts.recording = arguments.recordMebibytes << 20
        parts.cachedBlocks = max(
            arguments.cachedMebibytes << 20 / Int(file.superblock.blockSize),
            64
        )
        let node = NodeRuntime(engine: engine, parts: parts)
        node.heart = volumeGuard.map { GuardHeart($0, engine) }
        node.onReplayed = { epoch in cluster.markReplayed(epoch) }
        node.onReport = { [log] line in log.notice(line) }
        node.onRecovered = { [log] in if let line = $0.line { log.notice(line) } }
        node.onFailure = { [weak self] why in self?.fail(why) }
        node.adoptView = { [story] view in
            transport.adopt(view)
            story.note("view \(view)")
        }
        node.onGlockEvent = { [story] name, event in story.note(name, event) }
        return node
    }

    private func makeServer(_ mountPoint: String) -> FuseServer {
        var options = FuseOptions(
            mountPoint: mountPoint,
            source: arguments.shownSource ?? file.path,
            log: log
        )
        options.hasAccessLists = arguments.hasAccessLists
        options.mountOptions = arguments.kernelOptions + (arguments.isReadOnly ? ["ro"] : [])
        options.allowsOthers = arguments.allowsOthers
        options.treatsKernelAsOld = arguments.treatsKernelAsOld
        if let watch = arguments.watchMicroseconds { options.watchLength = watch * 1000 }
        return FuseServer(options: options, engine: engine)
    }

    private func mountOptions() -> MountOptions {
        var options = MountOptions()
        options.isReadOnly = arguments.isReadOnly
        options.hasAccessLists = arguments.hasAccessLists
        if !arguments.usesRegions { options.fightsBeforeRegions = .max }
        options.times = arguments.times
        options.times.isReadOnly = arguments.isReadOnly
        options.commitInterval = arguments.commitSeconds * 1_000_000_000
        options.cachedLocks = arguments.cachedLocks
        options.cacheAge = arguments.cacheAgeSeconds * 1_000_000_000
        options.idleInodes = min(options.idleInodes, arguments.cachedLocks / 2)
        return options
    }

    private func fullPath(_ path: String) throws -> String {
        guard let full = realpath(path, nil) else {
            throw MountError("\(path): \(errnoText(errno))")
        }
        defer { free(full) }
        return String(cString: full)
    }

    /// Tells the others, from inside the engine, that this node makes progress.
    private func keepProgress(_ cluster: HostCluster) {
        cluster.progress()
        clock.schedule(
            at: clock.now.advanced(milliseconds: 1000),
            in: engine,
            EngineBound { [weak self] in self?.keepProgress(cluster) }
        )
    }

    // MARK: Signals

    /// SIGTERM and its like: before the mount answers, the beginning is given up as if the process
    /// had been killed; afterwards everything is made durable, and the mount is detached and ends
    /// with its last user. Call it before `begin`.
    func takeSignals() throws {
        try handleSignals([SIGTERM, SIGINT, SIGHUP]) { [self] number in
            guard stateLatch.withLock({ isServing }), let server else {
                fail("signal \(number) came before the mount answered")
                return false
            }
            if let volume = node?.volume {
                engine.spawnImmediately {
                    do throws(FileError) {
                        try await volume.synchronizeAll()
                    } catch {
                        self.log.error("what was changed could not be made durable: \(error)")
                    }
                }
            }
            do {
                try server.unmount(.lazy)
            } catch {
                log.error("cannot unmount: \(error)")
            }
            return true
        }
    }

    // MARK: Serving

    /// Serves until the mount ends; returns the exit code.
    func serve() -> Int32 {
        guard let server else { return ExitCode.system }
        server.run()
        return end()
    }

    /// Before the locks are given up. A connection that was ended by force leaves caches behind that
    /// still serve whoever has a file open.
    private func takeBackAndSayFarewell() {
        guard let inodes = kernelList?.inodes else { return }
        server?.kernelCache.takeEverythingBack { inodes.forEach($0) }
        inodes.sayFarewell()
    }

    private func end() -> Int32 {
        administration?.stop()
        pressure?.stop()
        guardian?.stop()
        takeBackAndSayFarewell()
        var code = ExitCode.success
        do {
            guard let node else { return ExitCode.system }
            try waitInEngine { try await self.end(node) }
            leaveCluster(isClean: true)
        } catch {
            log.error("the volume was not left in order: \(error)")
            leaveCluster(isClean: false)
            code = ExitCode.system
        }
        return code
    }

    /// Leaves in order, or, if the journal is not clean, by ending: the others fence this process
    /// and replay.
    /// Everything to the device, the journal clean, all locks given up.
    private func end(_ node: NodeRuntime) async throws {
        await scrubber.stop()
        do {
            try await node.end()
        } catch { throw MountError("\(file.path): \(error)") }
    }

    private func leaveCluster(isClean: Bool) {
        guard isClean, let cluster, let volumeGuard else {
            if node?.hasWritten == false { leaveUntouched() }
            return
        }
        do {
            try volumeGuard.end()
            try cluster.leave { try volumeGuard.release() }
            transport?.close()
            file.device.close()
        } catch {
            log.error("leaving the cluster: \(error)")
        }
    }

    /// Leaves after a beginning that failed before anything was written.
    private func leaveUntouched() {
        do {
            try volumeGuard?.end()
            try cluster?.leave { try volumeGuard?.release() }
        } catch {
            log.error("leaving the cluster: \(error)")
        }
    }

    /// This node must not go on: it withdraws. It ends at once, as if it had been killed, so that
    /// nothing more can be written; its guardian takes back what the kernel has cached and answers
    /// with EIO from then on, the others replay its journal (Docs/WITHDRAWAL.md). With
    /// `errors=panic` a core is left and the guardian does not answer.
    func fail(_ why: String) {
        let isFirst = stateLatch.withLock {
            defer { isFailing = true }
            return !isFailing
        }
        guard isFirst else { return }
        log.error("\(why); this node withdraws, the others take over")
        cluster?.sayLastWords(why)
        if arguments.panicsOnError {
            // No report of the language's runtime first: it takes seconds, in which the node is silent.
            signal(SIGABRT, SIG_DFL)
            abort()
        }
        kernelList?.inodes.sayWithdrawn()
        kill(getpid(), SIGKILL)
    }

    // MARK: The engine, from a thread that may wait

    /// Runs `work` inside the engine and waits for its end.
    func waitInEngine<Result>(_ work: @escaping () async throws -> Result) throws -> Result {
        let box = ResultBox<Result>()
        engine.spawnImmediately {
            do {
                box.deliver(.success(try await work()))
            } catch {
                box.deliver(.failure(error))
            }
        }
        return try box.wait()
    }
}

/// The result of work that another thread waits for.
private final class ResultBox<Value>: @unchecked Sendable {
    // Sendable: `result` is used under the latch.
    private let latch = Latch()
    private let arrived = WaitCondition()
    private var result: Result<Value, any Error>?

    func deliver(_ value: Result<Value, any Error>) {
        latch.withLock {
            result = value
            arrived.signal()
        }
    }

    func wait() throws -> Value {
        latch.lock()
        defer { latch.unlock() }
        while true {
            if let result { return try result.get() }
            arrived.wait(latch)
        }
    }
}

/// The lock manager's way to its peers.
final class Link: PeerLink {
    private let transport: UnixTransport

    init(transport: UnixTransport) { self.transport = transport }

    func send(_ bytes: [UInt8], to node: NodeID) { transport.send(bytes, to: node) }
}

/// The list for the guardian, as the volume fills it.
final class GuardedList: KernelList {
    let inodes: AnsweredInodes

    init() throws {
        inodes = try AnsweredInodes()
        // The kernel knows the root without being told.
        _ = inodes.add(NodeHandle.root.rawValue)
    }

    func add(_ node: NodeHandle) -> UInt32? { inodes.add(node.rawValue) }

    func remove(_ index: UInt32) { inodes.remove(index) }

    func connect(_ mountPoint: String) {
        var status = stat()
        if stat(mountPoint, &status) == 0 { inodes.setConnection(device: UInt64(status.st_dev)) }
    }
}
