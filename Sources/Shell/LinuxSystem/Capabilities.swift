// What another process may do beyond what its user may: Linux's capabilities(7), as /proc shows them.

import CLinux
import Glibc

/// Capabilities, by their bits.
package enum Capability: UInt64, Sendable {
    /// CAP_FOWNER
    case fileOwner = 3
    /// CAP_LINUX_IMMUTABLE
    case immutable = 9
}

/// Whether a thread has a capability in the user name space of this process, now. False if it cannot be told: the
/// thread is gone, or is not seen from here (number 0).
package func hasCapability(_ capability: Capability, thread: Int32) -> Bool {
    guard thread > 0 else { return false }
    // In a name space of its own everybody may have everything.
    var there = stat()
    var here = stat()
    guard stat("/proc/\(thread)/ns/user", &there) == 0, stat("/proc/self/ns/user", &here) == 0,
        there.st_ino == here.st_ino, there.st_dev == here.st_dev
    else { return false }
    guard let set = effectiveCapabilities(procStatus(thread)) else { return false }
    return set & (1 << capability.rawValue) != 0
}

/// The effective set in the text of /proc/N/status; nil if it has none.
package func effectiveCapabilities(_ status: String) -> UInt64? {
    for line in status.split(separator: "\n") where line.hasPrefix("CapEff:") {
        return UInt64(line.dropFirst(7).drop { $0 == "\t" || $0 == " " }, radix: 16)
    }
    return nil
}

private func procStatus(_ thread: Int32) -> String {
    let file = lockstep_open("/proc/\(thread)/status", O_RDONLY | O_CLOEXEC, 0)
    guard file >= 0 else { return "" }
    defer { close(file) }
    var text: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
        let count = read(file, &chunk, chunk.count)
        if count < 0 && errno == EINTR { continue }
        if count <= 0 { return String(decoding: text, as: UTF8.self) }
        text += chunk[..<count]
    }
}
