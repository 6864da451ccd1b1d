// Signals as events: they are blocked everywhere and one thread waits for them, so that their
// handling is ordinary code and not a signal handler.

import CLinux
import Glibc

/// Blocks `signals` in the calling thread, and so in every thread it starts from now on. Call it in
/// `main` before the first other thread.
package func blockSignals(_ signals: [Int32]) {
    var set = sigset_t()
    sigemptyset(&set)
    for number in signals { sigaddset(&set, number) }
    pthread_sigmask(SIG_BLOCK, &set, nil)
}

/// Starts a thread that waits for `signals`, which must be blocked in every thread
/// (`blockSignals`), and calls `body` with the number of each. It ends when `body` returns false.
/// - Throws: EAGAIN when the system has no room for another thread.
package func handleSignals(
    _ signals: [Int32],
    _ body: @escaping @Sendable (Int32) -> Bool
) throws(SystemError) {
    let thread = try runThread(name: "signals") {
        var set = sigset_t()
        sigemptyset(&set)
        for number in signals { sigaddset(&set, number) }
        while true {
            var number: Int32 = 0
            let failure = sigwait(&set, &number)
            precondition(failure == 0, "sigwait: \(errnoText(failure))")
            if !body(number) { return }
        }
    }
    thread.detach()
}

/// A write that cannot be carried out shall fail with an errno instead of ending the process: to a
/// connection that its peer closed (EPIPE), beyond the process's limit of file size (EFBIG).
package func ignoreSignalsOfWrites() {
    for number in [SIGPIPE, SIGXFSZ] { signal(number, SIG_IGN) }
}
