// The daemon's ear for administrators: a Unix socket in the volume's run directory. One request a
// connection: a line; the answer is text up to the end of the connection. `lockstep` speaks it.
//
//   status        JSON: the node, its view, counters
//   locks [JSON]  what the nodes know of the locks, as text or JSON (see `LockInspection`)
//   counters [JSON]  what the nodes have counted
//   trace [NAME]  the story of the last lock events, of one resource if it is named
//   recording [JSON]  what a node's flight recorder has kept, as it is
//   ping          the answer is "ok"
//   sync          makes everything durable; the answer is "ok"
//   freeze start SECONDS  begins to freeze the volume, for so long (0: until it is thawed); the answer is "ok"
//   freeze status JSON: how the last one begun here ended, and how the volume is now
//   thaw          begins to thaw it, on all nodes; the answer is "ok"
//   frozen        by whom and since when it is frozen; nothing if it is not
//   scrub start|stop  begins a scrub of the volume, or ends it; the answer is "ok"
//   scrub status  JSON: how far it is and what it has found
//   times OPTION...  the rules for times are these from now on, as mount(8) spells them, and ro or rw; the answer is "ok"
//   quota ...     usage and limits of users and groups (Quotas.swift)

import CLinux
import Execution
import FileSystem
import Glibc
import LinuxSystem
import Vocabulary

/// The socket and its thread.
final class Administration: @unchecked Sendable {
    // Sendable: immutable after `init`.
    private let path: String
    private let listener: Int32
    private let thread: RunningThread
    private static let longestRequest = 32_768

    init(path: String, mount: Mount) throws {
        self.path = path
        unlink(path)
        let listener = socket(
            AF_UNIX,
            Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue),
            0
        )
        guard listener >= 0 else { throw SystemError.last("socket", path) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        guard path.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else {
            close(listener)
            throw MountError("\(path) is too long for a socket; choose a shorter run directory")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in path.utf8.enumerated() { field[index] = byte }
        }
        let isBound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard isBound == 0, chmod(path, 0o600) == 0, listen(listener, 16) == 0 else {
            let failure = SystemError.last("bind", path)
            close(listener)
            throw failure
        }
        self.listener = listener
        let inspection = Inspection(mount: mount)
        thread = try runThread(name: "admin") {
            Self.serve(listener, inspection)
        }
    }

    /// Takes no further request. Once.
    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        thread.join()
        close(listener)
        unlink(path)
    }

    private static func serve(_ listener: Int32, _ inspection: Inspection) {
        while true {
            let connection = accept(listener, nil, nil)
            guard connection >= 0 else {
                if errno == EINTR || errno == ECONNABORTED { continue }
                return
            }
            _ = fcntl(connection, F_SETFD, FD_CLOEXEC)
            // A client that says nothing must not keep the others out.
            var limit = timeval(tv_sec: 5, tv_usec: 0)
            setsockopt(
                connection,
                SOL_SOCKET,
                SO_RCVTIMEO,
                &limit,
                socklen_t(MemoryLayout<timeval>.size)
            )
            setsockopt(
                connection,
                SOL_SOCKET,
                SO_SNDTIMEO,
                &limit,
                socklen_t(MemoryLayout<timeval>.size)
            )
            send(connection, inspection.answer(request(connection)))
            close(connection)
        }
    }

    private static func request(_ connection: Int32) -> String {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while bytes.count < longestRequest, read(connection, &byte, 1) == 1 {
            if byte == UInt8(ascii: "\n") { break }
            bytes.append(byte)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func send(_ connection: Int32, _ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(connection, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EINTR {
                return  // the client has gone
            }
        }
    }
}
