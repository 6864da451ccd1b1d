// Looking at structures of a mounted volume on the device, for the scrub. While one is held here,
// nobody on any node changes it, and what the device has of it is current: what this node had changed
// is written home first, what others had changed they wrote home before they let the lock go.
//
// I1. Nothing is loaded into this node's caches: what is looked at is what the device has.
// I2. The lock order (LockTable, L1) holds: inodes, a parent before its child; then groups.
// I3. An inode that this node does not know is locked without becoming known: a scrub does not push
//     out what programs use, and an old number, of which the device has shown a remnant, does not
//     come in the way of the inode that lives there now.

import LockCache
package import Vocabulary

extension MountedVolume {
    /// Runs `body` while nobody changes an inode, which need not exist.
    ///
    /// - Throws: `inputOutput` when this node withdraws or the lock manager is shut down; what
    /// `body` throws.
    package func inspecting<Result>(
        _ number: InodeNumber,
        _ body: () async throws(FileError) -> Result
    ) async throws(FileError) -> Result {
        try checkUsable()
        guard let inode = inodes[number] else {
            // I3: whoever gets to know it meanwhile has a lock of its own, against this one.
            let glock = locks.make(.inode(number), owner: nil)
            defer { locks.retire(glock) }
            return try await inspecting(glock, body)
        }
        inode.pins += 1
        defer {
            inode.pins -= 1
            unrefer(inode)
        }
        return try await inspecting(inode.glock, body)
    }

    /// Runs `body` while nobody changes a group.
    ///
    /// - Throws: as above.
    package func inspecting<Result>(
        group index: UInt32,
        _ body: () async throws(FileError) -> Result
    ) async throws(FileError) -> Result {
        try checkUsable()
        let glock = groups.inspected(index, self)
        defer { if glock.held == .protectedRead { locks.reclaim(glock) } }
        return try await inspecting(glock, body)
    }

    private func inspecting<Result>(
        _ glock: Glock,
        _ body: () async throws(FileError) -> Result
    ) async throws(FileError) -> Result {
        try await locks.enter(glock, .shared)
        defer { locks.leave(glock, .shared) }
        if !options.isReadOnly { await settle(glock) }
        try checkUsable()
        return try await body()
    }
}
