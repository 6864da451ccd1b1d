// Unmounting, and waiting for the node behind it.

import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxSystem
import Membership
import Vocabulary

/// One line for the user: what failed, on what, what to do.
struct UnmountError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// The node behind a mounted directory.
struct MountedNode {
    let volume: VolumeID
    let slot: SlotIndex
    /// The run directory.
    let root: String
    /// As the newest view has it.
    let member: Member?

    /// Nil if nobody is behind it any more: its daemon has died, or the node has withdrawn.
    ///
    /// - Throws: `UnmountError` when `path` is not a directory of a mounted volume.
    init?(of path: String) throws {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = getxattr(path, "lockstep.control", &buffer, buffer.count)
        guard count > 0 else {
            switch errno {
            case ENOENT, EACCES: throw UnmountError("\(path): \(errnoText(errno))")
            case EIO, ENOTCONN:
                if try MountedPath(path).mountPoint == path { return nil }
                fallthrough
            default: throw UnmountError("\(path) is not on a mounted Lockstep volume")
            }
        }
        // <run directory>/<volume>/admin-<slot>
        let parts = String(decoding: buffer[..<count], as: UTF8.self).split(separator: "/")
        guard parts.count > 2, let volume = VolumeID(String(parts[parts.count - 2])),
            let number = parts[parts.count - 1].split(separator: "-").last.flatMap({ UInt32($0) })
        else { throw UnmountError("\(path): its daemon is of another version of Lockstep") }
        self.volume = volume
        let slot = SlotIndex(number)
        let root = "/" + parts.dropLast(2).joined(separator: "/")
        self.slot = slot
        self.root = root
        member = try HostClusterStatus.read(volume, in: root)?.members.first {
            $0.node.slot == slot
        }
    }

    /// Waits until the node is gone.
    ///
    /// - Throws: `UnmountError` when that takes too long, or when it did not leave in order.
    func waitUntilGone(patience: UInt64) throws {
        let isGone = try HostClusterStatus.waitForEnd(
            of: slot,
            volume: volume,
            in: root,
            patience: patience * 1_000_000_000
        )
        guard isGone else {
            throw UnmountError(
                "unmounted, but after \(patience) s node \(slot.rawValue + 1) is still writing, or "
                    + "somebody still uses the mount; see the system log"
            )
        }
        // Who leaves in order takes itself out of the view first.
        let members = try HostClusterStatus.read(volume, in: root)?.members ?? []
        if let member, members.contains(member) {
            throw UnmountError(
                "unmounted, but node \(slot.rawValue + 1) did not leave in order; its journal is "
                    + "replayed at the next mount (see the system log for the reason)"
            )
        }
    }
}

/// Unmounts a directory.
///
/// - Throws: `UnmountError` that says who is in the way.
func unmount(_ path: String, _ arguments: Arguments) throws {
    if geteuid() == 0 {
        var flags = Int32(UMOUNT_NOFOLLOW)
        if arguments.isForced { flags |= Int32(MNT_FORCE) }
        if arguments.isLazy { flags |= Int32(MNT_DETACH) }
        guard umount2(path, flags) == 0 else {
            let advice = errno == EBUSY ? "; see who uses it with 'fuser -m \(path)'" : ""
            throw UnmountError("\(path): \(errnoText(errno))\(advice)")
        }
        return
    }
    if arguments.isForced { throw UnmountError("\(path): only root can end a mount by force") }
    let words = ["fusermount3", "-u"] + (arguments.isLazy ? ["-z"] : []) + ["--", path]
    var vector = words.map { strdup($0) } + [nil]
    defer { for word in vector { free(word) } }
    var process: pid_t = 0
    let failure = posix_spawnp(&process, "fusermount3", nil, nil, &vector, environ)
    guard failure == 0 else { throw UnmountError("fusermount3: \(errnoText(failure))") }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    guard status == 0 else { throw UnmountError("\(path) was not unmounted") }
}

/// The absolute path without links. A mount whose node is gone cannot be asked for its own.
private func fullPath(_ path: String) throws -> String {
    if let full = realpath(path, nil) {
        defer { free(full) }
        return String(cString: full)
    }
    let code = errno
    guard [EIO, ENOTCONN].contains(code), let mounted = try? MountedPath(path),
        mounted.names.isEmpty
    else { throw UnmountError("\(path): \(errnoText(code))") }
    return mounted.mountPoint
}

/// The whole command; returns the exit code.
func run(_ arguments: Arguments, _ console: LineLog) -> Int32 {
    do {
        let path = try fullPath(arguments.directory)
        let found = try MountedNode(of: path)
        try unmount(path, arguments)
        guard let node = found else {
            console.notice(
                "\(path) is unmounted; its node had died or withdrawn, and the others take its work over"
            )
            return ExitCode.success
        }
        if arguments.isVerbose {
            console.notice("\(path) is unmounted; waiting for node \(node.slot.rawValue + 1)")
        }
        try node.waitUntilGone(patience: arguments.patience)
        if arguments.isVerbose { console.notice("node \(node.slot.rawValue + 1) has left") }
        return ExitCode.success
    } catch let error as UnmountError {
        console.error("\(error)")
        return ExitCode.notUnmounted
    } catch {
        console.error("\(arguments.directory): \(error)")
        return ExitCode.system
    }
}
