// `mount -o remount`: other options for a mount that is there. The kernel does what it does by itself (ro, nodev, ...); the daemon
// is told the rules for times, which it alone obeys. For the rest it goes on as it was started (caches, the cluster), and a
// mount that was read-only for it stays so.

import CLinux
import FileSystem
import Glibc
import HostCluster
import LinuxSystem

/// Options that mount(2) knows, and those that take them back.
private let kernelFlags: [(name: String, opposite: String, flag: UInt)] = [
    ("ro", "rw", UInt(MS_RDONLY)), ("nosuid", "suid", UInt(MS_NOSUID)),
    ("nodev", "dev", UInt(MS_NODEV)), ("noexec", "exec", UInt(MS_NOEXEC)),
    ("nodiratime", "diratime", UInt(MS_NODIRATIME)), ("lazytime", "nolazytime", lazyTime),
    ("sync", "async", UInt(MS_SYNCHRONOUS)),
]

/// MS_LAZYTIME, which the C library does not name. It belongs to the file system, not to the mount.
private let lazyTime: UInt = 1 << 25

/// Changes the options of a mount. Returns the exit code.
func remount(_ arguments: MountArguments, _ console: LineLog) -> Int32 {
    do {
        let mounted = try MountedPath(arguments.directory)
        guard mounted.names.isEmpty else {
            throw MountError("\(arguments.directory) is not where a volume is mounted")
        }
        if arguments.isFake { return ExitCode.success }
        let before = mounted.options + mounted.volumeOptions.filter { $0 == "lazytime" }
        let flags = flags(before + arguments.flags)
        try remount(mounted.mountPoint, flags)
        let isWritable = flags & UInt(MS_RDONLY) == 0
        if isWritable, !daemonWrites(mounted.mountPoint) {
            try remount(mounted.mountPoint, flags | UInt(MS_RDONLY))
            throw MountError(
                "\(mounted.mountPoint) was mounted read-only: unmount it and mount it again to write"
            )
        }
        try tellTimes(arguments, mounted.mountPoint)
        return ExitCode.success
    } catch {
        console.error("\(error)")
        return ExitCode.mountFailed
    }
}

/// Has the table of mounts show the rules for times that mounting itself leaves out. Only who may mount can; the daemon goes
/// by its own.
func showTimes(_ arguments: MountArguments, at point: String) {
    guard !arguments.timeWords.isEmpty, geteuid() == 0, let mounted = try? MountedPath(point) else {
        return
    }
    try? remount(point, flags(mounted.options + arguments.timeWords))
}

/// The daemon obeys the new rules before the command ends.
private func tellTimes(_ arguments: MountArguments, _ point: String) throws {
    let words = arguments.flags.filter {
        arguments.timeWords.contains($0) || $0 == "ro" || $0 == "rw"
    }
    if words.isEmpty { return }
    var path = [UInt8](repeating: 0, count: 4096)
    let count = getxattr(point, "lockstep.control", &path, path.count)
    let answer =
        count > 0
        ? askDaemon(
            at: String(decoding: path[..<count], as: UTF8.self),
            "times " + words.joined(separator: " ")
        ) : nil
    guard answer == "ok\n" else {
        throw MountError(
            "\(point): the daemon does not answer; its rules for times are as they were"
        )
    }
}

/// What the options say together; later ones count.
private func flags(_ options: [String]) -> UInt {
    var flags: UInt = 0
    var times = TimeRules()
    // The table of mounts names two of the three rules.
    if !options.contains("noatime"), !options.contains("relatime") { times.access = .strict }
    for option in options {
        _ = times.take(option)
        for known in kernelFlags {
            if option == known.name { flags |= known.flag }
            if option == known.opposite { flags &= ~known.flag }
        }
    }
    switch times.access {
    case .never: flags |= UInt(MS_NOATIME)
    case .relative: flags |= UInt(MS_RELATIME)
    case .strict: flags |= UInt(MS_STRICTATIME)
    }
    return flags
}

private func remount(_ point: String, _ flags: UInt) throws {
    if mount(nil, point, nil, UInt(MS_REMOUNT) | flags, nil) == 0 { return }
    let code = errno
    let hint = code == EBUSY ? " (files are open for writing)" : ""
    throw MountError("\(point) cannot be remounted: \(errnoText(code))\(hint)")
}

/// Whether the daemon writes: it refuses to set what cannot be set in either case, but first for being read-only.
private func daemonWrites(_ point: String) -> Bool {
    setxattr(point, "lockstep.control", "", 0, 0) == 0 || errno != EROFS
}
