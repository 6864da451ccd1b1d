// Sees to it that the mount has a guardian as long as it is served: one that ends (killed by hand,
// or by the kernel for want of memory) is replaced. Without one, a later death of the daemon would
// leave the kernel's caches to themselves.

import CLinux
import Glibc
import HostCluster
import LinuxSystem

/// The guardian of a mount, and the thread that watches it.
final class GuardianKeeper: @unchecked Sendable {
    // Sendable: `thread` is set by `init`; the rest is constant.

    /// More than so many guardians that ended: something ends them all.
    private static let mostReplacements = 100

    private let wake: Int32
    private var thread: RunningThread?

    /// Starts a guardian and keeps one. `onLost` is called when it cannot be replaced: the mount
    /// must end.
    ///
    /// - Throws: what starting the first one throws.
    init(
        start: @escaping @Sendable () throws -> Guardian,
        log: LineLog,
        onLost: @escaping @Sendable (String) -> Void
    ) throws {
        let first = try start()
        wake = eventfd(0, Int32(EFD_CLOEXEC))
        guard wake >= 0 else { throw SystemError.last("eventfd") }
        let wake = wake
        thread = try runThread(name: "guardian") {
            var guardian = first
            for _ in 0..<Self.mostReplacements {
                guard guardian.ends(before: wake) else { return }
                log.warning("the guardian has ended; another is started")
                do {
                    guardian = try start()
                } catch {
                    onLost("its guardian has ended and cannot be replaced: \(error)")
                    return
                }
            }
            onLost("its guardians end one after the other")
        }
    }

    deinit { close(wake) }

    /// Keeps no longer: the mount is about to say farewell. Once.
    func stop() {
        var one: UInt64 = 1
        // Cannot fail: the counter is at 0.
        _ = write(wake, &one, 8)
        thread?.join()
    }
}
