// Threads of our own. Blocking calls belong on these and never on the cooperative pool, which has
// only as many threads as the machine has cores.

import CLinux
import Glibc

/// A running thread. Whoever needs to know that it ended joins it.
package struct RunningThread: @unchecked Sendable {
    // Sendable: a pthread_t is a name, not a place.
    fileprivate let identity: pthread_t

    /// Waits until the thread has returned. Once, and never from the thread itself.
    package func join() {
        let failure = pthread_join(identity, nil)
        precondition(failure == 0, "pthread_join: \(errnoText(failure))")
    }

    /// Lets the thread end unobserved. Instead of `join`.
    package func detach() {
        let failure = pthread_detach(identity)
        precondition(failure == 0, "pthread_detach: \(errnoText(failure))")
    }
}

/// Carries the closure through C's void pointer.
private final class ThreadStart {
    let name: String
    let body: @Sendable () -> Void

    init(name: String, body: @escaping @Sendable () -> Void) {
        self.name = name
        self.body = body
    }
}

/// Starts a thread that runs `body` and ends with it. The thread must be joined or detached. All
/// signals are blocked in it, so that they reach only the thread that waits for them
/// (`handleSignals`).
/// - Parameters:
///   - name: shown by ps and debuggers; the kernel keeps 15 bytes.
///   - stackSize: bytes; at least 16 KiB.
/// - Throws: EAGAIN when the system has no room for another thread.
package func runThread(
    name: String,
    stackSize: Int = 512 << 10,
    _ body: @escaping @Sendable () -> Void
) throws(SystemError) -> RunningThread {
    precondition(stackSize >= 16 << 10, "a thread needs a stack")
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, stackSize)

    var everything = sigset_t()
    var before = sigset_t()
    sigfillset(&everything)
    pthread_sigmask(SIG_SETMASK, &everything, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }

    let start = Unmanaged.passRetained(ThreadStart(name: name, body: body))
    var identity = pthread_t()
    let failure = pthread_create(
        &identity,
        &attributes,
        { argument in
            guard let argument else { return nil }
            let start = Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue()
            lockstep_name_thread(String(start.name.utf8.prefix(15)) ?? "lockstep")
            start.body()
            return nil
        },
        start.toOpaque()
    )
    guard failure == 0 else {
        start.release()
        throw SystemError("pthread_create", name, code: failure)
    }
    return RunningThread(identity: identity)
}
