// Attributes: stat, chmod, chown, utimes, truncate.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func getAttributes(
        _ node: NodeHandle,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        let inode = try inode(node)
        let stored = try await hold(inode, .shared, interruption)
        defer { release(inode, .shared) }
        inode.kernelMayCache = true
        return AttributesReply(
            attributes: attributes(inode, stored),
            isCacheable: mayBeCached(inode)
        )
    }

    package func getAttributesIfCached(_ node: NodeHandle) -> AttributesReply? {
        guard !isWithdrawn, let inode = inodes[node],
            let stored = holdIfCached(inode, .shared)
        else { return nil }
        defer { release(inode, .shared) }
        inode.kernelMayCache = true
        return AttributesReply(
            attributes: attributes(inode, stored),
            isCacheable: mayBeCached(inode)
        )
    }

    package func setAttributes(
        _ node: NodeHandle,
        _ handle: OpenHandle?,
        _ change: AttributeChange,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        try checkWritable()
        return try await changeAttributes(try inode(node), change, interruption)
    }

    /// Changes attributes. While the size changes, the kernel may hold back the write-back of any
    /// page, for which an invalidation waits (rule F3).
    func changeAttributes(
        _ inode: Inode,
        _ change: AttributeChange,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        let stored = try await hold(
            inode,
            .exclusive,
            interruption,
            bytes: change.size != nil ? 0..<UInt64.max : nil
        )
        defer { release(inode, .exclusive) }
        try checkMayChange(stored.record, change)
        if let size = change.size {
            guard stored.record.isRegular else {
                throw stored.record.isDirectory ? .isDirectory : .invalid
            }
            guard size <= Self.largestFile else { throw .tooLarge }
            try await resize(inode, stored, to: size)
        }
        if let mode = change.mode {
            try await changeAccessList(Held(inode: inode, stored: stored), to: mode, interruption)
        }
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        apply(change, to: stored)
        stored.store(in: transaction)
        inode.lastSequence = transaction.sequence
        inode.kernelMayCache = true
        return AttributesReply(
            attributes: attributes(inode, stored),
            isCacheable: mayBeCached(inode)
        )
    }

    private func apply(_ change: AttributeChange, to stored: StoredInode) {
        let time = now
        if let mode = change.mode {
            stored.record.mode = stored.record.typeBits | mode & 0o7777
        }
        if let user = change.user { stored.record.user = user }
        if let group = change.group { stored.record.group = group }
        if change.dropsPrivileges { dropPrivileges(stored) }
        switch change.accessed {
        case .now: stored.record.accessed = time
        case .at(let given): stored.record.accessed = given
        case nil: break
        }
        switch change.modified {
        case .now: stored.record.modified = time
        case .at(let given): stored.record.modified = given
        case nil: if change.size != nil { stored.record.modified = time }
        }
        stored.record.changed = change.changed ?? time
    }
}
