// The lock service of a node that is alone: it grants whatever is asked for, soon.

package import Execution
package import LockCache
package import Vocabulary

/// Grants every lock to the one node there is. Engine-bound.
package final class SoleNodeLocks: LockService {
    private struct Lock {
        var cookie: UInt64
        var mode: LockMode
    }

    private let engine: Engine
    /// By name, which counts from 1; nil when it was given up.
    private var locks: [Lock?] = []
    /// Who is answered. Set before the first request.
    package weak var client: (any LockClient)?

    package init(engine: Engine) { self.engine = engine }

    package func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        bytes: LockedBytes?
    ) -> LockID {
        locks.append(Lock(cookie: cookie, mode: mode))
        let lock = LockID(rawValue: UInt64(locks.count))
        answer(lock, .granted)
        return lock
    }

    package func convert(_ lock: LockID, to mode: LockMode, _ flags: LockFlags, value: ValueBlock?)
    {
        locks[Int(lock.rawValue) - 1]?.mode = mode
        answer(lock, .granted)
    }

    package func unlock(_ lock: LockID, _ flags: LockFlags, value: ValueBlock?) {
        locks[Int(lock.rawValue) - 1]?.mode = .null
        answer(lock, .unlocked)
        locks[Int(lock.rawValue) - 1] = nil
    }

    /// Nothing waits, so nothing can be withdrawn.
    package func cancel(_ lock: LockID) {}

    private func answer(_ lock: LockID, _ status: LockStatus) {
        guard let entry = locks[Int(lock.rawValue) - 1] else {
            preconditionFailure("\(lock) is not held")
        }
        let completion = LockCompletion(
            lock: lock,
            cookie: entry.cookie,
            status: status,
            mode: entry.mode,
            value: nil,
            isValueValid: false
        )
        engine.clock.schedule(
            at: engine.clock.now,
            in: engine,
            EngineBound { [self] in client?.completed(completion) }
        )
    }
}
