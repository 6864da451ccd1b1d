import CLinux
import Glibc

/// Ends a cluster that does not answer in time, so that the test fails instead of hanging.
final class Watchdog: @unchecked Sendable {
    // Sendable: all but `hasBitten` is constant, and that is read only after the thread has been
    // joined.
    private let cluster: TestCluster
    private let limit: Double
    private let whenOver = eventfd(0, Int32(EFD_CLOEXEC))
    private var hasBitten = false

    private init(_ cluster: TestCluster, limit: Double) {
        self.cluster = cluster
        // For finding out why something hangs: no need to wait as long as a loaded machine may
        // take.
        let longest = getenv("LOCKSTEP_LIMIT").flatMap { Double(String(cString: $0)) }
        self.limit = min(limit * Patience.factor, longest ?? .infinity)
    }

    deinit { close(whenOver) }

    /// Runs `body`; after `limit` seconds prints what can be learned, and ends all mounts of
    /// `cluster`. Also prints it when `body` throws.
    static func guarding(_ cluster: TestCluster, limit: Double, _ body: () throws -> Void) throws {
        let dog = Watchdog(cluster, limit: limit)
        let thread = TestThread { dog.watch() }
        var failure: (any Error)?
        do { try body() } catch { failure = error }
        eventfd_write(dog.whenOver, 1)
        thread.join()
        if dog.hasBitten {
            throw Trouble(
                "not finished within \(dog.limit) s; then: \(failure.map { "\($0)" } ?? "the end")"
            )
        }
        if let failure {
            print("failed: \(failure)\n\(cluster.report())")
            throw failure
        }
    }

    private func watch() {
        var wait = pollfd(fd: whenOver, events: Int16(POLLIN), revents: 0)
        if poll(&wait, 1, Int32(limit * 1000)) > 0 { return }
        hasBitten = true
        print("the watchdog ends the test after \(limit) seconds\n\(cluster.report())")
        cluster.abort()
    }
}

/// A thread of a test: file calls block, so that they do not belong on the pool of tasks.
final class TestThread {
    private var thread = pthread_t()

    init(_ body: @escaping @Sendable () -> Void) {
        let box = Unmanaged.passRetained(Box(body))
        let code = pthread_create(
            &thread,
            nil,
            { argument in
                if let argument {
                    Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
                }
                return nil
            },
            box.toOpaque()
        )
        precondition(code == 0, "no thread for a test")
    }

    /// Waits until it has ended. Once.
    func join() { pthread_join(thread, nil) }

    private final class Box {
        let body: @Sendable () -> Void

        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Runs `body` once for each number at the same time, and throws the first error that one
    /// threw.
    static func together(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        let results = Results(count)
        let threads = (0..<count).map { number in
            TestThread {
                do { try body(number) } catch { results.errors[number] = error }
            }
        }
        for thread in threads { thread.join() }
        for case let error? in results.errors { throw error }
    }

    /// Where each thread leaves its error.
    private final class Results: @unchecked Sendable {
        // Sendable: each thread writes its own element, and they are read after all have been
        // joined.
        let errors: UnsafeMutableBufferPointer<(any Error)?>

        init(_ count: Int) {
            errors = .allocate(capacity: count)
            errors.initialize(repeating: nil)
        }

        deinit {
            errors.deinitialize()
            errors.deallocate()
        }
    }
}
