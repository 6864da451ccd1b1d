// When a mount daemon is killed, the kernel goes on serving what it has cached for that mount:
// pages, attributes, names, memory mappings. Nobody would tell it that another node has changed the
// file. So each daemon has a guardian: a process that holds a duplicate of the FUSE descriptor and
// the list of the inodes that the kernel has been told of. When the daemon ends without a farewell,
// it takes all of them back, ends the connection, and ends itself. Its lock on `guardian-N` in the
// run directory makes the survivors wait for that (HostCluster H3): only then is anything granted
// that the dead node had.
//
// The order, and why nothing in it can block for ever
//
// Invalidating an inode waits for pages that are locked, and they are while a READ or WRITE that
// the dead daemon had taken is unanswered; dirty mapped pages are even written to the daemon first.
// So:
//
// G1. First the connection is aborted (/sys/fs/fuse/connections/N/abort; its owner and root may):
// every
//     request that is under way or still to come fails with ENOTCONN at once, so no page stays
//     locked and no answer is awaited. Tested on Linux 6.18: after the abort cached pages are still
//     served, and notifications are still taken. Dirty mapped pages are dropped with an error, as
//     in any crash.
// G2. Then all names (INC_EPOCH, where the kernel has it) and all inodes (INVAL_INODE over the
// whole
//     range: attributes, ACLs, pages) are invalidated. What anybody reads from then on needs the
//     daemon and fails.
// G3. Without permission to abort, the guardian takes the daemon's place meanwhile: a thread has
// the
//     requests that the dead one had taken sent again (RESEND, Linux 6.9) and answers these and all
//     new ones with ENOTCONN, so again no page stays locked; then G2. The connection ends with the
//     last descriptor, which is the guardian's. On kernels without RESEND only what cannot block is
//     invalidated before that: attributes and names, then pages, so that at worst the guardian
//     stays, visibly, and the survivors wait rather than read something old. As long as the daemon
//     is dying they are sent again and again: a thread that is about to end may take one once more.
// G4. The guardian's lock is released when everything is taken back, at the latest by its end. If it is killed, the administrator has
// taken over
//     its duty.
// G5. It takes nothing back before the daemon's last thread is gone (pidfd), which is after the
//     daemon's last write. But it aborts, or answers, as soon as the daemon is dying: its last thread
//     may be in the kernel, invalidating an entry of a directory that is locked for a request that only
//     the daemon could have answered, and SIGKILL does not end that wait. The sign is the end of a
//     thread that does nothing but live as long as the process (PIDFD_THREAD, Linux 6.9; not of the
//     first thread, whose end Linux 6.15 tells with the last one's). On older kernels the state of the
//     process is looked at every second. A daemon that ends in order says farewell before, when its
//     file system is unmounted.
// G6. A node that withdraws (its view of the disk cannot be trusted) says so in the list and ends as
//     if it had been killed. Its guardian does not abort the connection: it takes the daemon's place
//     as in G3, answers everything with EIO, takes everything back, and only then gives its lock up,
//     so that the others go on. It stays until the mount is unmounted. Where RESEND is unknown it is
//     a death like any other: ENOTCONN.
//
// SIGTERM, SIGINT and SIGHUP are ignored: those who stop a service signal all its processes, and
// the guardian has to outlive the daemon.

import CLinux
import DiskFormat
import Glibc
package import LinuxSystem
import Synchronization
package import Vocabulary

/// The daemon's side of its guardian.
package final class Guardian: Sendable {
    /// The argument by which the program is started as a guardian.
    package static let argument = "--guardian"

    private static let idle = Mutex<Int32>(0)

    /// The number of the thread that only lives as long as the process (G5).
    private static func idleThread() throws(SystemError) -> Int32 {
        try idle.withLock { number throws(SystemError) in
            if number == 0 {
                let started = IdleStart()
                try runThread(name: "idle") {
                    started.tell(lockstep_thread_number())
                    while true { pause() }
                }.detach()
                number = started.wait()
            }
            return number
        }
    }

    /// The guardian's process number.
    package let process: Int32
    private let handle: ProcessHandle

    private init(process: Int32, handle: ProcessHandle) {
        self.process = process
        self.handle = handle
    }

    /// Starts the guardian of the node in `slot`: this same program with `Guardian.argument`, which
    /// must then call `runGuardian`. `fuseDescriptor` is the open /dev/fuse of the mount; it stays
    /// the caller's. Standard error is not inherited unless asked for: who waits for the end of a
    /// command's output would wait for the unmount.
    /// `watchesThread` false: as on kernels that do not tell the end of one thread.
    /// - Throws: `SystemError`; EAGAIN when the slot already has a guardian.
    package static func start(
        slot: SlotIndex,
        in directory: RunDirectory,
        fuseDescriptor: Int32,
        list: AnsweredInodes,
        program: String = "/proc/self/exe",
        keepsStandardError: Bool = false,
        watchesThread: Bool = true
    ) throws -> Guardian {
        let path = directory.guardian(slot)
        let lock = lockstep_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
        guard lock >= 0 else { throw SystemError.last("open", path) }
        defer { close(lock) }
        guard lockstep_try_lock(lock) == 0 else { throw SystemError.last("lock", path) }
        guard let own = ProcessHandle(getpid()) else { throw SystemError.last("pidfd_open") }
        // -1 before Linux 6.9 (G5).
        let ownThread = watchesThread ? lockstep_pidfd_open_thread(try idleThread()) : -1
        defer { if ownThread >= 0 { close(ownThread) } }
        let process = try spawn(
            program,
            inheriting: [
                fuseDescriptor, list.descriptor, lock, own.descriptor,
                ownThread >= 0 ? ownThread : own.descriptor,
            ],
            keepsStandardError
        )
        guard let handle = ProcessHandle(process) else { throw SystemError.last("pidfd_open") }
        return Guardian(process: process, handle: handle)
    }

    /// Whether it still runs.
    package var isRunning: Bool {
        guard handle.hasEnded else { return true }
        waitpid(process, nil, WNOHANG)
        return false
    }

    /// Waits for its end; false if `descriptor` became readable first. If it ends, another must be
    /// started, or the mount be given up.
    package func ends(before descriptor: Int32) -> Bool {
        var entries = [
            pollfd(fd: handle.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
        ]
        while poll(&entries, 2, -1) < 0 && errno == EINTR {}
        if entries[1].revents != 0 { return false }
        waitpid(process, nil, 0)
        return true
    }

    /// Runs a program with these descriptors as 3, 4, ... and no signal blocked, in its own
    /// session.
    private static func spawn(
        _ program: String,
        inheriting: [Int32],
        _ keepsStandardError: Bool
    ) throws -> Int32 {
        // Above all targets, so that no step overwrites what a later one needs.
        var copies: [Int32] = []
        defer { for copy in copies { close(copy) } }
        for descriptor in inheriting {
            let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 32)
            guard copy >= 0 else { throw SystemError.last("dup") }
            copies.append(copy)
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, 0, 1)
        if !keepsStandardError { posix_spawn_file_actions_adddup2(&actions, 0, 2) }
        for (index, copy) in copies.enumerated() {
            posix_spawn_file_actions_adddup2(&actions, copy, Int32(3 + index))
        }
        // Libraries do not mark all they open: a connection that the guardian held would outlive
        // the daemon.
        lockstep_spawn_close_from(&actions, Int32(3 + copies.count))
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        let newSession: Int16 = 0x80  // POSIX_SPAWN_SETSID
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK) | newSession)
        let arguments: [UnsafeMutablePointer<CChar>?] = [
            strdup("mount.lockstep"), strdup(argument), nil,
        ]
        defer { for word in arguments { free(word) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, program, &actions, &attributes, arguments, environ)
        guard code == 0 else { throw SystemError("start", program, code: code) }
        return process
    }
}

/// How a thread tells its number to the one that started it.
private final class IdleStart: @unchecked Sendable {
    // Sendable: `number` is used under the latch.
    private let latch = Latch()
    private let arrived = WaitCondition()
    private var number: Int32 = 0

    func tell(_ number: Int32) {
        latch.withLock {
            self.number = number
            arrived.signal()
        }
    }

    func wait() -> Int32 {
        latch.withLock {
            while number == 0 { arrived.wait(latch) }
            return number
        }
    }
}

/// The life of a guardian, in a process that `Guardian.start` made. Returns its exit status: 0 when
/// the daemon said farewell or everything was taken back, 1 when something could not be.
package func runGuardian(log: LineLog) -> Int32 {
    for number in [SIGTERM, SIGINT, SIGHUP, SIGPIPE] { signal(number, SIG_IGN) }
    lockstep_name_thread("lockstep-guard")
    let (device, listDescriptor, lock): (Int32, Int32, Int32) = (3, 4, 5)
    let daemon = WatchedDaemon(process: 6, idleThread: 7)
    let list: AnsweredInodes
    do {
        list = try AnsweredInodes(inherited: listDescriptor)
    } catch {
        log.error("guardian: \(error)")
        return 1
    }
    do {
        try daemon.waitForDeath()
        if list.saidFarewell {
            try daemon.waitForEnd()
            return 0
        }
        return try TakingBack(device: device, lock: lock, list: list, log: log).run(daemon)
    } catch {
        log.error("guardian: \(error)")
        return 1
    }
}

/// The daemon, as its guardian sees it (G5).
private struct WatchedDaemon {
    /// Of the whole process: readable when its last thread is gone.
    let process: Int32
    /// Readable when the idle thread is gone. Of the process again on older kernels.
    let idleThread: Int32
    private let number = getppid()

    init(process: Int32, idleThread: Int32) {
        self.process = process
        self.idleThread = idleThread
    }

    /// Waits until it is dying: its idle thread is gone.
    func waitForDeath() throws(SystemError) {
        while true {
            var entries = [process, idleThread].map {
                pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
            }
            let count = poll(&entries, 2, 1_000)
            if count > 0 || (count == 0 && isZombie) { return }
            guard count == 0 || errno == EINTR else { throw .last("poll") }
        }
    }

    /// Waits until no system call of it is under way. `meanwhile` is called every 100 ms.
    func waitForEnd(_ meanwhile: () -> Void = {}) throws(SystemError) {
        var entry = pollfd(fd: process, events: Int16(POLLIN), revents: 0)
        while true {
            let count = poll(&entry, 1, 100)
            if count == 1 { return }
            guard count == 0 || errno == EINTR else { throw .last("poll") }
            meanwhile()
        }
    }

    /// Whether the first thread is a zombie, by the state in the table of processes.
    private var isZombie: Bool {
        let file = lockstep_open("/proc/\(number)/stat", O_RDONLY, 0)
        guard file >= 0 else { return false }  // gone, which the descriptor of the process tells
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = read(file, &bytes, bytes.count)
        // "number (name) state": the name may hold anything but its last bracket is the last.
        guard count > 0, let bracket = bytes[..<count].lastIndex(of: UInt8(ascii: ")")),
            bracket + 2 < count
        else { return false }
        return bytes[bracket + 2] == UInt8(ascii: "Z")
    }
}

/// What a guardian does for a dead daemon.
private struct TakingBack {
    let device: Int32
    let lock: Int32
    let list: AnsweredInodes
    let log: LineLog

    func run(_ daemon: WatchedDaemon) throws(SystemError) -> Int32 {
        let stays = list.saidWithdrawn && resend()
        let aborted = !stays && abortConnection()
        var answering: RunningThread?
        if !aborted {
            if !stays { _ = resend() }
            answering = startAnswering(stays ? -EIO : -ENOTCONN)
        }
        // Its last threads may have taken requests after the first time, also such as were sent again: then
        // what waits in the kernel for one of them goes on only when it is sent once more (G5).
        try daemon.waitForEnd { if !aborted { _ = resend() } }
        if !aborted { _ = resend() }
        let hasEpoch = notify(code: 8, payload: [])  // FUSE_NOTIFY_INC_EPOCH, Linux 6.16
        var count = 0
        var failures = 0
        if !aborted { list.forEach { invalidate($0, from: -1) } }  // what cannot block, first (G3)
        list.forEach { inode in
            count += 1
            if !invalidate(inode, from: 0) { failures += 1 }
        }
        log.notice(
            "guardian: the daemon \(stays ? "withdrew" : "died"); "
                + "took back what the kernel had cached of \(count) inodes"
                + (hasEpoch ? "" : ", but names only with them")
                + (stays ? "; everything fails with EIO until the volume is unmounted" : "")
                + (aborted || stays ? "" : "; the connection ends with this process")
                + (failures > 0 ? "; \(failures) could not be" : "")
        )
        if failures > 0 { return 1 }
        if stays, let answering {
            close(lock)
            answering.join()
        }
        return 0
    }

    /// G1. False if the connection is unknown or it is not permitted.
    private func abortConnection() -> Bool {
        guard let connection = list.connection else { return false }
        let folder = "/sys/fs/fuse/connections"
        let path = "\(folder)/\(connection)/abort"
        // Where no system manager has mounted it (containers). If that fails, so does the next
        // step.
        let isMine =
            access(path, F_OK) != 0 && geteuid() == 0
            && mount("fusectl", folder, "fusectl", 0, nil) == 0
        defer { if isMine { umount2(folder, 2) } }  // MNT_DETACH
        let file = lockstep_open(path, O_WRONLY, 0)
        guard file >= 0 else { return false }
        defer { close(file) }
        return write(file, "1", 1) == 1
    }

    /// Has the requests that the dead daemon had taken sent again: FUSE_NOTIFY_RESEND, Linux 6.9.
    /// False on older ones, where nothing can be done for them.
    private func resend() -> Bool { notify(code: 7, payload: []) }

    /// G3, G6. Nil if there is no thread to be had.
    private func startAnswering(_ code: Int32) -> RunningThread? {
        let device = device
        do {
            return try runThread(name: "answer") { answerEverything(device, code) }
        } catch {
            log.warning("guardian: \(error)")
            return nil
        }
    }

    /// Invalidates an inode: attributes only (`from` -1), or all its pages too (0). That the kernel
    /// has forgotten it meanwhile is as good.
    @discardableResult
    private func invalidate(_ inode: UInt64, from offset: Int64) -> Bool {
        let words = [inode, UInt64(bitPattern: offset), 0]
        let payload = words.withUnsafeBytes { Array($0) }
        return notify(code: 2, payload: payload) || errno == ENOENT  // FUSE_NOTIFY_INVAL_INODE
    }

    /// Writes a notification; false with `errno`.
    private func notify(code: Int32, payload: [UInt8]) -> Bool {
        writeMessage(device, error: code, unique: 0, payload: payload)
    }
}

/// Answers every request with an errno, negative, until the connection has ended.
private func answerEverything(_ device: Int32, _ code: Int32) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 21, alignment: 4096)
    defer { buffer.deallocate() }
    while true {
        let count = read(device, buffer.baseAddress, buffer.count)
        if count < 0 {
            if errno == EAGAIN {
                var entry = pollfd(fd: device, events: Int16(POLLIN), revents: 0)
                poll(&entry, 1, -1)
            } else if errno != EINTR && errno != ENOENT {
                return
            }
            continue
        }
        guard count >= 16 else { continue }
        let operation = buffer.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
        if operation == 2 || operation == 42 { continue }  // FORGET, BATCH_FORGET: no answer
        let unique = buffer.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        _ = writeMessage(device, error: code, unique: unique, payload: [])
    }
}

/// Writes a `fuse_out_header` and what follows it; false with `errno`.
private func writeMessage(
    _ device: Int32,
    error: Int32,
    unique: UInt64,
    payload: [UInt8]
) -> Bool {
    var message: [UInt8] = []
    message.reserveCapacity(16 + payload.count)
    withUnsafeBytes(of: UInt32(16 + payload.count)) { message.append(contentsOf: $0) }
    withUnsafeBytes(of: error) { message.append(contentsOf: $0) }
    withUnsafeBytes(of: unique) { message.append(contentsOf: $0) }
    message.append(contentsOf: payload)
    return write(device, message, message.count) == message.count
}
