// The door between a cache of locks and the lock manager. Neither side knows the other's types.

package import Vocabulary

/// What a node offers to whoever locks things on it. Called inside the engine. An answer may come
/// before the call returns: the caller has to have its own state in order before it calls.
package protocol LockService: AnyObject {
    /// Asks for a new lock; the answer is a completion with this cookie. Returns the lock's name at
    /// once, to cancel it by.
    ///
    /// - Parameters:
    ///   - owner: for whom: circles of waiting owners are broken (`deadlock`); `none`: for the node.
    ///   - parent: for a part of a tree, this node's granted lock of the resource above; it is given up
    ///     after all below it. `none` otherwise.
    ///   - bytes: for a resource whose kind `isOfBytes`: what is locked; nil otherwise.
    @discardableResult
    func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        bytes: LockedBytes?
    ) -> LockID

    /// Changes the mode of a granted lock. `value` is what to write, when the change writes
    /// (`LockFlags.valueBlock`, from PW or EX downwards).
    func convert(_ lock: LockID, to mode: LockMode, _ flags: LockFlags, value: ValueBlock?)

    /// Gives a granted lock up; the answer is a completion with status `unlocked`.
    func unlock(_ lock: LockID, _ flags: LockFlags, value: ValueBlock?)

    /// Withdraws what waits, if it still waits; the waiting operation completes with `cancelled`,
    /// or as if nothing had been said when the grant was faster.
    func cancel(_ lock: LockID)
}

extension LockService {
    /// Asks for a new lock of the node itself.
    @discardableResult
    package func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64
    ) -> LockID {
        request(name, mode, flags, cookie: cookie, owner: .none, parent: .none, bytes: nil)
    }

    /// Asks for a new lock that is no part of a tree.
    @discardableResult
    package func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        bytes: LockedBytes?
    ) -> LockID {
        request(name, mode, flags, cookie: cookie, owner: owner, parent: .none, bytes: bytes)
    }
}

/// Whom a lock service answers.
package protocol LockClient: AnyObject {
    /// A request, conversion or unlock has ended.
    func completed(_ completion: LockCompletion)

    /// Somebody waits for `wanted`, which the granted lock of this cookie is in the way of. Comes
    /// again only for a stronger want or after the lock was converted.
    func isBlocking(cookie: UInt64, wanted: LockMode)
}
