import CLinux
import DiskFormat
import Glibc
import LinuxSystem
import Membership
import Vocabulary

/// The thread of a node that watches the others: it brings events to `MembershipMachine` and
/// carries out its effects. All state but the list of commands belongs to that thread.
final class Watcher: @unchecked Sendable {
    // Sendable: see above; what other threads touch is guarded by `latch`.

    /// What other threads ask for.
    enum Command {
        case replayed(Epoch)
        case suspected(NodeID, Suspicion)
    }

    private let directory: RunDirectory
    private let client: HostClusterClient
    private let wake: Int32
    private let changes: FolderWatch
    private let latch = Latch()
    private var commands: [Command] = []
    private var isStopping = false
    private var isLeaving = false
    private var thread: RunningThread?

    // Of the thread.
    private var machine: MembershipMachine
    private var effects: [MembershipEffect] = []
    private var observed: [Observed] = []
    private var lastPass = monotonicNow()
    private var nextBurial: [Member] = []
    private var lastTrouble = ""

    /// A member under observation.
    private struct Observed {
        let member: Member
        var process: ProcessHandle?
        var file: Int32
        var awaitsGuardian = false
    }

    /// Starts the thread. The node is in the view already.
    init(
        directory: RunDirectory,
        me: Member,
        patience: UInt64,
        client: HostClusterClient
    ) throws(SystemError) {
        self.directory = directory
        self.client = client
        machine = MembershipMachine(me: me, patience: patience)
        changes = try FolderWatch(
            directory.folder,
            events: UInt32(IN_MOVED_TO) | UInt32(IN_CLOSE_WRITE)
        )
        wake = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard wake >= 0 else { throw .last("eventfd") }
        thread = try runThread(name: "membership") { [self] in run() }
    }

    deinit { close(wake) }

    /// Asks for something. From any thread.
    func post(_ command: Command) {
        latch.withLock { commands.append(command) }
        wakeUp()
    }

    /// From now on a view without this node is its own doing. Before it is published.
    func expectLeaving() { latch.withLock { isLeaving = true } }

    /// Ends the thread and waits for its end. From any other thread, once.
    func stop() {
        latch.withLock { isStopping = true }
        wakeUp()
        thread?.join()
    }

    private func wakeUp() {
        var one: UInt64 = 1
        _ = write(wake, &one, 8)  // fails only when it has been rung 2^64 times
    }

    // MARK: The thread

    private func run() {
        readView()
        carryOut()
        while true {
            waitForSomething()
            let (asked, stopping) = latch.withLock { () -> ([Command], Bool) in
                defer { commands = [] }
                return (commands, isStopping)
            }
            if stopping { break }
            if takeChanges() { readView() }
            for command in asked { obey(command) }
            observe()
            carryOut()
        }
        for item in observed where item.file >= 0 { close(item.file) }
        observed = []
    }

    /// Milliseconds between two looks at heartbeats; less while a guardian's end is awaited, whose
    /// closing is told a moment before its lock is free.
    private var interval: Int32 {
        if observed.contains(where: { $0.awaitsGuardian }) { return 10 }
        if machine.patience == 0 { return 1000 }
        return Int32(min(max(machine.patience / 8_000_000, 10), 1000))
    }

    private func waitForSomething() {
        var entries = [
            pollfd(fd: wake, events: Int16(POLLIN), revents: 0),
            pollfd(fd: changes.descriptor, events: Int16(POLLIN), revents: 0),
        ]
        for item in observed {
            // Who is known to have ended would wake us for ever.
            if let process = item.process, isWaitingForEnd(item.member) {
                entries.append(
                    pollfd(fd: process.descriptor, events: Int16(POLLIN), revents: 0)
                )
            }
        }
        if poll(&entries, nfds_t(entries.count), interval) < 0 && errno != EINTR {
            trouble(SystemError.last("poll"))
        }
        var count: UInt64 = 0
        _ = read(wake, &count, 8)  // EAGAIN: nobody rang
    }

    private func isWaitingForEnd(_ member: Member) -> Bool {
        switch machine.state(of: member) {
        case .watched, .suspected, .killed: true
        case .gone, .fenced, nil: false
        }
    }

    /// Whether a file changed that may have to do with the view or a guardian.
    private func takeChanges() -> Bool {
        do {
            return try changes.take().contains { $0 != RunDirectory.viewLockName }
        } catch {
            trouble(error)
            return true
        }
    }

    private func readView() {
        do {
            guard let record = try directory.readView() else {
                throw HostClusterError("\(directory.folder)/view is gone")
            }
            feed(.viewRead(record))
        } catch { trouble(error) }
    }

    private func obey(_ command: Command) {
        switch command {
        case .suspected(let node, let why):
            // The newest view decides whether that node has just left.
            readView()
            guard let record = machine.record,
                let member = record.members.first(where: { $0.node == node })
            else { return }
            feed(.suspected(member, why))
        case .replayed(let epoch):
            do {
                let record = try directory.withLock { () -> ViewRecord? in
                    guard var record = try directory.readView(), record.contains(machine.me),
                        record.replayed(under: epoch)
                    else { return nil }
                    try directory.writeView(record)
                    return record
                }
                if let record { feed(.viewRead(record)) }
            } catch { trouble(error) }
        }
    }

    private func feed(_ event: MembershipEvent) { machine.handle(event, effects: &effects) }

    /// Looks at processes, heartbeats, guardians and the clock.
    private func observe() {
        for item in observed {
            if isWaitingForEnd(item.member) {
                if hasEnded(item) { foundGone(item) } else { compareBeat(item) }
            }
            if item.awaitsGuardian { lookForGuardian(item.member) }
        }
        let now = monotonicNow()
        // W4: if this thread did not run for a while, nor may the others have.
        let limit = UInt64(interval) * 2_000_000
        feed(.passed(min(now - lastPass, limit)))
        lastPass = now
    }

    /// H3. A member without a handle is judged by the lock of its slot.
    private func hasEnded(_ item: Observed) -> Bool {
        if let process = item.process { return process.hasEnded }
        return !isInSlot(item)
    }

    /// Whether the slot's file is locked and names this life.
    private func isInSlot(_ item: Observed) -> Bool {
        guard item.file >= 0, lockstep_is_locked(item.file) == 1 else { return false }
        let path = directory.slot(item.member.node.slot)
        let content = (try? SlotProbe.content(item.file, path)) ?? nil
        return content?.incarnation == item.member.incarnation
    }

    /// The end of a member is seen; if it withdrew, its last words are in its slot's file.
    private func foundGone(_ item: Observed) {
        let path = directory.slot(item.member.node.slot)
        let content = (try? SlotProbe.content(item.file, path)) ?? nil
        if let content, content.incarnation == item.member.incarnation, !content.lastWords.isEmpty {
            client.onReport("\(item.member) has withdrawn: \(content.lastWords)")
        }
        feed(.gone(item.member))
    }

    private func compareBeat(_ item: Observed) {
        var beat: UInt64 = 0
        guard pread(item.file, &beat, 8, off_t(SlotContent.beatOffset)) == 8 else { return }
        feed(.heartbeat(item.member, beat))
    }

    private func lookForGuardian(_ member: Member) {
        do {
            guard try !SlotProbe.isLocked(directory.guardian(member.node.slot)) else { return }
            if let place = observed.firstIndex(where: { $0.member == member }) {
                observed[place].awaitsGuardian = false
            }
            feed(.guardianEnded(member))
        } catch { trouble(error) }
    }

    // MARK: Effects

    private func carryOut() {
        while !effects.isEmpty {
            let now = effects
            effects.removeAll(keepingCapacity: true)
            for effect in now { carryOut(effect) }
        }
    }

    private func carryOut(_ effect: MembershipEffect) {
        switch effect {
        case .watch(let member): watch(member)
        case .unwatch(let member):
            guard let place = observed.firstIndex(where: { $0.member == member }) else { return }
            if observed[place].file >= 0 { close(observed[place].file) }
            observed.remove(at: place)
        case .kill(let member): kill(member)
        case .awaitGuardian(let member):
            if let place = observed.firstIndex(where: { $0.member == member }) {
                observed[place].awaitsGuardian = true
            }
            lookForGuardian(member)
        case .bury(let members): bury(members)
        case .apply(let view): client.onView(view)
        case .expelled(let epoch):
            if latch.withLock({ isLeaving }) { return }
            client.onExpelled("this node was put out of the cluster by the view of \(epoch)")
        case .report(let line): client.onReport(line)
        }
    }

    /// H2: the handle first, then the question whether it is the one that lives in the slot.
    private func watch(_ member: Member) {
        let path = directory.slot(member.node.slot)
        var item = Observed(member: member, process: nil, file: lockstep_open(path, O_RDONLY, 0))
        if item.file < 0 { trouble(SystemError.last("open", path)) }
        let content = (try? SlotProbe.content(item.file, path)) ?? nil
        if let content, content.incarnation == member.incarnation {
            item.process = ProcessHandle(content.process)
            if item.process == nil && errno != ESRCH { trouble(SystemError.last("pidfd_open")) }
        }
        let lives = isInSlot(item)
        if !lives { item.process = nil }  // a number that may mean somebody else by now
        observed.append(item)
        if !lives { foundGone(item) }
    }

    /// H4.
    private func kill(_ member: Member) {
        do {
            try directory.withLock {
                guard let record = try directory.readView() else {
                    throw HostClusterError("\(directory.folder)/view is gone")
                }
                feed(.viewRead(record))
                guard record.contains(machine.me), record.contains(member),
                    let item = observed.first(where: { $0.member == member })
                else { return }
                guard let process = item.process else {
                    feed(isInSlot(item) ? .killRefused(member, ESRCH) : .gone(member))
                    return
                }
                let code = process.kill()
                feed(code == 0 || code == ESRCH ? .killed(member) : .killRefused(member, code))
            }
        } catch { trouble(error) }
    }

    private func bury(_ members: [Member]) {
        do {
            let record = try directory.withLock { () -> ViewRecord in
                guard var record = try directory.readView() else {
                    throw HostClusterError("\(directory.folder)/view is gone")
                }
                if record.contains(machine.me) && record.bury(members) {
                    try directory.writeView(record)
                }
                return record
            }
            feed(.viewRead(record))
        } catch { trouble(error) }
    }

    /// Says once what keeps failing.
    private func trouble(_ error: any Error) {
        let line = "the cluster of this host: \(error)"
        if line != lastTrouble { client.onReport(line) }
        lastTrouble = line
    }
}
