// Sockets between hosts.

import CLinux
import Glibc
import LinuxSystem

/// Where a remote agent listens.
package struct StressAddress: Hashable, Sendable, CustomStringConvertible {
    package let host: String
    package let port: String

    /// Of HOST:PORT; a numeric address of IPv6 in brackets. Nil for anything else.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        var host = text[..<colon]
        let port = text[text.index(after: colon)...]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty, let number = UInt16(port), number > 0 else { return nil }
        self.host = String(host)
        self.port = String(port)
    }

    package var description: String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}

/// Something that stops a run before it can say anything about the file system: one line.
package struct StressTrouble: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

enum StressSockets {
    /// Tries every address that a name has.
    private static func first(
        _ address: StressAddress,
        listens: Bool,
        _ body: (Int32, UnsafePointer<addrinfo>) -> Bool
    ) throws(StressTrouble) -> Int32 {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = listens ? AI_PASSIVE : 0
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(address.host, address.port, &hints, &list)
        guard code == 0 else {
            throw StressTrouble("\(address): \(String(cString: gai_strerror(code)))")
        }
        defer { freeaddrinfo(list) }
        var reason = ENOENT
        var next = list
        while let info = next {
            let type = info.pointee.ai_socktype | Int32(SOCK_CLOEXEC.rawValue)
            let descriptor = socket(info.pointee.ai_family, type, info.pointee.ai_protocol)
            if descriptor >= 0 {
                if body(descriptor, info) { return descriptor }
                reason = errno
                close(descriptor)
            }
            next = info.pointee.ai_next
        }
        throw StressTrouble("\(address): \(errnoText(reason))")
    }

    static func connectTo(_ address: StressAddress) throws(StressTrouble) -> Int32 {
        let descriptor = try first(address, listens: false) { descriptor, info in
            connect(descriptor, info.pointee.ai_addr, info.pointee.ai_addrlen) == 0
        }
        var yes: Int32 = 1
        setsockopt(
            descriptor,
            Int32(IPPROTO_TCP),
            TCP_NODELAY,
            &yes,
            socklen_t(MemoryLayout<Int32>.size)
        )
        return descriptor
    }

    static func listen(at address: StressAddress) throws(StressTrouble) -> Int32 {
        try first(address, listens: true) { descriptor, info in
            var yes: Int32 = 1
            let size = socklen_t(MemoryLayout<Int32>.size)
            setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, size)
            return bind(descriptor, info.pointee.ai_addr, info.pointee.ai_addrlen) == 0
                && Glibc.listen(descriptor, 8) == 0
        }
    }

    /// Limits how long one receive may take; 0 for ever.
    static func setPatience(_ descriptor: Int32, seconds: Int) {
        var time = timeval(tv_sec: seconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, size)
    }

    /// Two ends that are connected; neither is passed to programs.
    static func pair() throws(StressTrouble) -> (Int32, Int32) {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else {
            throw StressTrouble("socketpair: \(errnoText(errno))")
        }
        return (ends[0], ends[1])
    }
}
