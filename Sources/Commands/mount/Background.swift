// Becoming a daemon: the command starts itself again with --foreground in a session of its own and
// waits on a pipe until the mount answers or the daemon says why it cannot.

import CLinux
import Glibc
import LinuxSystem

/// What the daemon says on the pipe when the mount answers; anything else is the reason why it does
/// not.
let readyWord = "ready"

/// POSIX_SPAWN_SETSID, which the C library shows only with _GNU_SOURCE.
private let spawnInNewSession: Int16 = 0x80

/// Starts the daemon in the background; returns an exit code when the mount answers or has failed.
func startDaemon(_ words: [String], _ arguments: MountArguments, _ console: LineLog) -> Int32 {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
        console.error("no pipe: \(errnoText(errno))")
        return ExitCode.system
    }
    defer { close(ends[0]) }
    // The daemon has the one copy that counts as descriptor 3: the pipe ends when that is closed.
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    let descriptor: Int32 = 3
    posix_spawn_file_actions_adddup2(&actions, ends[1], descriptor)
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, spawnInNewSession)
    let all = [words[0], "--foreground", "--ready", "\(descriptor)"] + words.dropFirst()
    var pointers: [UnsafeMutablePointer<CChar>?] = all.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    var process: pid_t = 0
    let failure = posix_spawn(
        &process,
        "/proc/self/exe",
        &actions,
        &attributes,
        pointers,
        environ
    )
    close(ends[1])
    guard failure == 0 else {
        console.error("cannot start the daemon: \(errnoText(failure))")
        return ExitCode.system
    }
    passSignals(to: process, console)
    let answer = readAll(ends[0])
    if answer == readyWord {
        if arguments.isVerbose {
            console.notice("\(arguments.device) is mounted at \(arguments.directory)")
        }
        return ExitCode.success
    }
    if answer.isEmpty {
        var status: Int32 = 0
        waitpid(process, &status, 0)
        console.error("the daemon ended before the mount answered (status \(status))")
        return ExitCode.mountFailed
    }
    console.error(answer)
    return ExitCode.mountFailed
}

/// Whoever stops this command stops the mount that it waits for.
private func passSignals(to daemon: pid_t, _ console: LineLog) {
    blockSignals([SIGTERM, SIGINT, SIGHUP])
    do {
        try handleSignals([SIGTERM, SIGINT, SIGHUP]) { _ in kill(daemon, SIGTERM) == 0 }
    } catch {
        console.warning("signals are not passed on: \(error)")
    }
}

private func readAll(_ descriptor: Int32) -> String {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
        let count = read(descriptor, &buffer, buffer.count)
        if count > 0 {
            bytes += buffer[..<count]
        } else if count == 0 || errno != EINTR {
            return String(decoding: bytes, as: UTF8.self)
        }
    }
}

/// Tells the command that started this daemon how it went, once.
struct Readiness {
    let descriptor: Int32?

    /// The mount answers, or `message` says why not.
    func tell(_ message: String) {
        guard let descriptor else { return }
        var rest = Array(message.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EINTR {
                break  // nobody listens any more
            }
        }
        close(descriptor)
    }
}

/// The daemon's life; returns the exit code.
func runDaemon(_ arguments: MountArguments) -> Int32 {
    let readiness = Readiness(descriptor: arguments.readyDescriptor)
    if let ready = arguments.readyDescriptor { _ = fcntl(ready, F_SETFD, FD_CLOEXEC) }
    let isBackground = arguments.readyDescriptor != nil
    let log = LineLog(
        name: programName,
        threshold: arguments.isDebugging ? .debug : .notice,
        destinations: isBackground ? [.standardError, .systemLog] : .standardError
    )
    ignoreSignalsOfWrites()
    blockSignals([SIGTERM, SIGINT, SIGHUP])
    do {
        let mount = try Mount(arguments, log)
        if arguments.isFake {
            readiness.tell(readyWord)
            return ExitCode.success
        }
        try mount.takeSignals()
        try mount.begin()
        readiness.tell(readyWord)
        if isBackground { detachFromTerminal() }
        return mount.serve()
    } catch {
        if isBackground {
            readiness.tell("\(error)")
        } else {
            log.error("\(error)")
        }
        return ExitCode.mountFailed
    }
}

/// Standard error of the caller must not be kept open: who waits for its end would wait for the
/// unmount.
private func detachFromTerminal() {
    let null = lockstep_open("/dev/null", O_RDWR, 0)
    guard null >= 0 else { return }
    dup2(null, 2)
    close(null)
    _ = chdir("/")
}
