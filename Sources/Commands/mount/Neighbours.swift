// Asking the daemons of other mounts of the volume something, before this one has begun.

import CLinux
import Glibc

/// The answer of the daemon that listens at `path`, within a second; nil if there is none.
func askDaemon(at path: String, _ request: String) -> String? {
    let connection = socket(
        AF_UNIX,
        Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue),
        0
    )
    guard connection >= 0 else { return nil }
    defer { close(connection) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    guard path.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else { return nil }
    withUnsafeMutableBytes(of: &address.sun_path) { field in
        for (index, byte) in path.utf8.enumerated() { field[index] = byte }
    }
    let isConnected = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            connect(connection, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
    }
    guard isConnected == 0 else { return nil }
    var limit = timeval(tv_sec: 1, tv_usec: 0)
    let size = socklen_t(MemoryLayout<timeval>.size)
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
    let line = Array((request + "\n").utf8)
    guard write(connection, line, line.count) == line.count else { return nil }
    var answer: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1024)
    while answer.count < 4096 {
        let count = read(connection, &buffer, buffer.count)
        if count > 0 {
            answer += buffer[..<count]
        } else if count == 0 {
            return String(decoding: answer, as: UTF8.self)
        } else if errno != EINTR {
            return nil
        }
    }
    return nil
}
