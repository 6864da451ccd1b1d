// Reaching the daemons of mounted volumes.

import ArgumentParser
import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxSystem
import Vocabulary

/// One line for the user: what failed, on what, what to do.
struct AdministrationError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// One daemon, by the socket it listens on.
struct Daemon {
    let socketPath: String

    /// The daemon behind a mounted directory (or any file in it).
    init(of path: String) throws {
        let answer = try Self.control(path)
        guard answer.code == 0 else {
            throw AdministrationError("\(path) \(Self.reason(answer.code, path))")
        }
        socketPath = answer.text
    }

    /// Why a path has no daemon that answers, by the errno.
    private static func reason(_ code: Int32, _ path: String) -> String {
        switch code {
        case ENOENT: return "does not exist"
        case EIO where (try? MountedPath(path)) != nil:
            return
                "is on a node that has withdrawn: 'lockstep status' without a directory says why; "
                + "unmount it, and mount it again"
        case ENOTCONN where (try? MountedPath(path)) != nil:
            return "is on a node whose daemon has died; unmount it, and mount it again"
        default: return "is not on a mounted Lockstep volume"
        }
    }

    /// So many milliseconds are given to a daemon to say where it listens.
    private static let patience: Int32 = 10_000

    /// Asks the file system for the socket's path, in a thread: the call cannot be interrupted
    /// while the daemon is stopped, but ends with this process.
    private static func control(_ path: String) throws -> (text: String, code: Int32) {
        let ready = eventfd(0, Int32(EFD_CLOEXEC))
        guard ready >= 0 else { throw SystemError.last("eventfd") }
        let found = Found()
        _ = try runThread(name: "control") {
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = getxattr(path, "lockstep.control", &buffer, buffer.count)
            found.code = count > 0 ? 0 : errno
            found.text = String(decoding: buffer[..<max(count, 0)], as: UTF8.self)
            eventfd_write(ready, 1)
        }
        var wait = pollfd(fd: ready, events: Int16(POLLIN), revents: 0)
        guard poll(&wait, 1, patience) > 0 else {
            throw AdministrationError(
                "the daemon of \(path) does not answer; is it stopped? Ask another node"
            )
        }
        close(ready)
        return (found.text, found.code)
    }

    /// What the thread finds.
    private final class Found: @unchecked Sendable {
        // Sendable: read only after the thread has said that it is done.
        var text = ""
        var code: Int32 = 0
    }

    init(socketPath: String) { self.socketPath = socketPath }

    /// The run directory and the volume that the socket lies in.
    var place: (root: String, volume: VolumeID)? {
        // <run directory>/<volume>/admin-<slot>
        let parts = socketPath.split(separator: "/")
        guard parts.count > 2, let volume = VolumeID(String(parts[parts.count - 2])) else {
            return nil
        }
        return ("/" + parts.dropLast(2).joined(separator: "/"), volume)
    }

    /// The daemons of the same volume on this host, this one among them; ascending by slot.
    func companions() -> [Daemon] {
        guard let cut = socketPath.lastIndex(of: "/") else { return [self] }
        let folder = String(socketPath[..<cut])
        return (0..<Superblock.maximumSlots).map { "\(folder)/admin-\($0)" }
            .filter { access($0, F_OK) == 0 }.map(Daemon.init(socketPath:))
    }

    /// All daemons of all volumes in a run directory (nil for the default).
    static func all(in root: String?) throws -> [Daemon] {
        let base = root ?? RunDirectory.defaultRoot()
        return try HostClusterStatus.volumes(in: root).flatMap { volume in
            (0..<Superblock.maximumSlots).map { "\(base)/\(volume)/admin-\($0)" }
                .filter { access($0, F_OK) == 0 }.map(Daemon.init(socketPath:))
        }
    }

    /// The folder of its volume in the run directory.
    var folder: Substring { socketPath[..<(socketPath.lastIndex(of: "/") ?? socketPath.endIndex)] }

    /// Whether it answers at all, within a second.
    var answers: Bool { ((try? ask("ping", within: 1)) ?? nil) != nil }

    /// As `ask`; a daemon that has died is an error.
    func demand(_ request: String, within seconds: Double? = nil) throws -> String {
        guard let answer = try ask(request, within: seconds) else {
            throw AdministrationError("the daemon at \(socketPath) has died")
        }
        return answer
    }

    /// Sends a request and returns the whole answer; nil if nobody listens (the daemon has died).
    func ask(_ request: String, within seconds: Double? = nil) throws -> String? {
        let text = String(decoding: try bytes(request, within: seconds) ?? [], as: UTF8.self)
        if text.isEmpty { return nil }
        if text.hasPrefix("error: ") {
            throw AdministrationError(String(text.dropFirst(7).dropLast()))
        }
        return text
    }

    /// The bytes of an answer; nil if nobody listens.
    ///
    /// - Throws: also when nothing came for so many seconds.
    func bytes(_ request: String, within seconds: Double?) throws -> [UInt8]? {
        let connection = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard connection >= 0 else { throw SystemError.last("socket") }
        defer { close(connection) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        guard socketPath.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw AdministrationError("\(socketPath) is too long for a socket")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in socketPath.utf8.enumerated() { field[index] = byte }
        }
        let isConnected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(connection, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if let seconds {
            var limit = timeval(tv_sec: Int(seconds), tv_usec: 0)
            let size = socklen_t(MemoryLayout<timeval>.size)
            setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
        }
        guard isConnected == 0 else {
            if errno == ECONNREFUSED || errno == ENOENT { return nil }
            throw SystemError.last("connect", socketPath)
        }
        let line = Array((request + "\n").utf8)
        // Without a signal: it may have ended since it let us connect.
        guard send(connection, line, line.count, Int32(MSG_NOSIGNAL)) == line.count else {
            if errno == EPIPE || errno == ECONNRESET { return nil }
            throw SystemError.last("write", socketPath)
        }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(connection, &buffer, buffer.count)
            if count > 0 {
                answer += buffer[..<count]
            } else if count == 0 {
                break
            } else if errno == ECONNRESET, answer.isEmpty {
                return nil  // It ended with our request in its queue.
            } else if errno == EAGAIN {
                throw AdministrationError(
                    "the daemon at \(socketPath) does not answer; is it stopped?"
                )
            } else if errno != EINTR {
                throw SystemError.last("read", socketPath)
            }
        }
        return answer
    }
}

/// Options that all sub-commands share.
struct Place: ParsableArguments {
    @Argument(help: "A directory of a mounted volume; without it, all volumes of this host.")
    var directory: String?

    @Option(name: .customLong("run"), help: "The run directory, if it is not the default.")
    var runDirectory: String?

    /// The volumes meant, with their run directory: that of the directory, or all.
    func volumes() throws -> [(root: String?, volume: VolumeID)] {
        if let directory {
            return try Daemon(of: directory).place.map { [($0.root, $0.volume)] } ?? []
        }
        return try HostClusterStatus.volumes(in: runDirectory).map { (runDirectory, $0) }
    }

    /// The daemons meant: those of the directory's volume, or all.
    func daemons() throws -> [Daemon] {
        if let directory { return try Daemon(of: directory).companions() }
        return try Daemon.all(in: runDirectory)
    }
}
