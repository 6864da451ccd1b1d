// A table of open files that no other process copies.

import Glibc
import LinuxSystem

/// close_range(2), which Swift's headers do not show.
private typealias CloseRange = @convention(c) (UInt32, UInt32, Int32) -> Int32

private let closeRange = unsafeBitCast(dlsym(nil, "close_range"), to: CloseRange.self)

/// Runs `body` on a thread that shares its open files with nobody but the threads it starts.
///
/// A process that any other test starts inherits, until it runs its program, a copy of every open
/// file: the kernel sends a FLUSH when the copies are closed, and RELEASE only after that. Whoever
/// counts such requests opens its files here. `body` can use no file opened outside but 0, 1 and 2.
func withOwnFileTable<Value>(_ body: () throws -> Value) throws -> Value {
    try withoutActuallyEscaping(body) { body in
        // Sendable: this thread waits meanwhile.
        nonisolated(unsafe) let body = body
        nonisolated(unsafe) var result: Result<Value, any Error>?
        let thread = try runThread(name: "own-files", stackSize: 8 << 20) {
            // Unshares and closes at once: nothing that others have open is ever held here.
            let unshare = Int32(2)  // CLOSE_RANGE_UNSHARE
            guard closeRange(3, UInt32.max, unshare) == 0 else {
                result = .failure(SystemError.last("close_range"))
                return
            }
            result = Result { try body() }
        }
        thread.join()
        guard let result else { preconditionFailure("the thread has ended without a result") }
        return try result.get()
    }
}
