// `mount -o remount`: other options for a mount that is there. The kernel does it; the daemon goes on as it was
// started, so that what it does by itself (how times of access are kept, caches, the cluster) cannot be changed, and a
// mount that was read-only for it stays so.

import CLinux
import Glibc
import HostCluster
import LinuxSystem

/// Options that mount(2) knows, and those that take them back.
private let kernelFlags: [(name: String, opposite: String, flag: UInt)] = [
    ("ro", "rw", UInt(MS_RDONLY)), ("nosuid", "suid", UInt(MS_NOSUID)),
    ("nodev", "dev", UInt(MS_NODEV)), ("noexec", "exec", UInt(MS_NOEXEC)),
    ("noatime", "atime", UInt(MS_NOATIME)),
    ("nodiratime", "diratime", UInt(MS_NODIRATIME)),
    ("relatime", "norelatime", UInt(MS_RELATIME)),
    ("sync", "async", UInt(MS_SYNCHRONOUS)),
]

/// Changes the options of a mount. Returns the exit code.
func remount(_ arguments: MountArguments, _ console: LineLog) -> Int32 {
    do {
        let mounted = try MountedPath(arguments.directory)
        guard mounted.names.isEmpty else {
            throw MountError("\(arguments.directory) is not where a volume is mounted")
        }
        if arguments.isFake { return ExitCode.success }
        let flags = flags(mounted.options + arguments.flags)
        try remount(mounted.mountPoint, flags)
        let isWritable = flags & UInt(MS_RDONLY) == 0
        if isWritable, !daemonWrites(mounted.mountPoint) {
            try remount(mounted.mountPoint, flags | UInt(MS_RDONLY))
            throw MountError(
                "\(mounted.mountPoint) was mounted read-only: unmount it and mount it again to write"
            )
        }
        return ExitCode.success
    } catch {
        console.error("\(error)")
        return ExitCode.mountFailed
    }
}

/// What the options say together; later ones count.
private func flags(_ options: [String]) -> UInt {
    var flags: UInt = 0
    for option in options {
        for known in kernelFlags {
            if option == known.name { flags |= known.flag }
            if option == known.opposite { flags &= ~known.flag }
        }
        // One of the three rules for times of access holds.
        if option == "noatime" { flags &= ~UInt(MS_RELATIME) }
        if option == "relatime" { flags &= ~UInt(MS_NOATIME) }
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
