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
        asker: AttributeAsker?,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        let inode = try inode(node)
        if let record = inode.remains {
            return AttributesReply(attributes: attributes(inode, record), isCacheable: false)
        }
        pin(inode)
        if let asker { inode.toldSize.asks(asker.thread, asker.reply, at: engine.clock.now) }
        defer {
            if let asker { isAnswered(inode, asker) }
            unpin(inode)
        }
        // Who reads needs the lock next.
        if asker?.reply != .attributes, let told = try await glimpse(inode, interruption) {
            return AttributesReply(attributes: attributes(inode, told), isCacheable: false)
        }
        let mode = lookMode(inode)
        // Who has asked before an invalidation is answered before it (rule F6): the lock is still held.
        let bytes = asker?.reply == .attributes ? 0..<UInt64.max : nil
        let stored = try await hold(inode, mode, interruption, bytes: bytes)
        defer { release(inode, mode) }
        let lastWrite = mode == .concurrent ? await lastWrite(inode, takes: false) : nil
        inode.kernelMayCache = true
        return AttributesReply(
            attributes: attributes(inode, stored, lastWrite: lastWrite, asker: asker),
            isCacheable: attributesMayBeCached(inode)
        )
    }

    package func getAttributesIfCached(_ node: NodeHandle, asker: AttributeAsker?)
        -> AttributesReply?
    {
        guard !isWithdrawn, let inode = inodes[node],
            let stored = holdIfCached(inode, .shared)
        else { return nil }
        defer { release(inode, .shared) }
        inode.kernelMayCache = true
        return AttributesReply(
            attributes: attributes(inode, stored, asker: asker),
            isCacheable: mayBeCached(inode)
        )
    }

    /// Notes what a thread is told of the size, so that it can be heard of (rule F6).
    func tell(_ inode: Inode, _ size: UInt64, to reader: UInt32?, _ reply: ToldSize.Reply) {
        inode.toldSize.told(
            size,
            to: reader,
            reply,
            runs: { reader.flatMap { kernel?.timesRun($0) } },
            at: engine.clock.now
        )
        guard let reader, reader != 0, inode.toldSize.isAwaited(reader) else { return }
        awaitedReaders.removeAll { $0.thread == reader && $0.node == inode.handle }
        // Who is left out is waited for until its time is over, or it reads this file.
        if awaitedReaders.count == ToldSize.mostReaders { awaitedReaders.removeFirst() }
        awaitedReaders.append((reader, inode.handle))
    }

    package var awaitsReaders: Bool { !awaitedReaders.isEmpty }

    package func heard(from thread: UInt32) {
        var index = 0
        while index < awaitedReaders.count {
            guard awaitedReaders[index].thread == thread else {
                index += 1
                continue
            }
            let node = awaitedReaders.remove(at: index).node
            if let inode = inodes[node] { isHeard(inode, thread) }
        }
    }

    /// A thread asks for data: it has taken in what it was told (rule F6).
    func isHeard(_ inode: Inode, _ reader: UInt32) {
        inode.toldSize.isHeard(reader)
        inode.readerHeard?.notify()
    }

    /// Who asked has its answer; an invalidation may be waiting for that.
    private func isAnswered(_ inode: Inode, _ asker: AttributeAsker) {
        inode.toldSize.isAnswered(asker.thread, asker.reply)
        inode.readerHeard?.notify()
    }

    package func setAttributes(
        _ node: NodeHandle,
        _ handle: OpenHandle?,
        _ change: AttributeChange,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        try checkWritable()
        let inode = try inode(node)
        // While the size changes the kernel holds back what mappings have changed, for which an operation that is
        // inside may be waiting.
        if change.size != nil, inode.readWriteOpens > 0 {
            try await freezer.enterLate(interruption)
            defer { freezer.leaveLate() }
            return try await changeAttributes(inode, change, caller, interruption)
        }
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        return try await changeAttributes(inode, change, caller, interruption)
    }

    /// Changes attributes. While the size changes, the kernel may hold back the write-back of any
    /// page, for which an invalidation waits (rule F3).
    func changeAttributes(
        _ inode: Inode,
        _ change: AttributeChange,
        _ caller: Caller?,
        _ interruption: Interruption?
    ) async throws(FileError) -> AttributesReply {
        if var record = inode.remains {
            if change.size != nil { throw record.isDirectory ? .isDirectory : .invalid }
            apply(change, to: &record)
            inode.remains = record
            return AttributesReply(attributes: attributes(inode, record), isCacheable: false)
        }
        let stored = try await hold(
            inode,
            .exclusive,
            interruption,
            bytes: change.size != nil ? 0..<UInt64.max : nil
        )
        defer { release(inode, .exclusive) }
        inode.isExempt = caller?.isExempt ?? true
        if let caller { try checkOwner(inode, stored.record, change, caller) }
        try checkMayChange(stored.record, change)
        if let size = change.size {
            guard stored.record.isRegular else {
                throw stored.record.isDirectory ? .isDirectory : .invalid
            }
            guard size <= Self.largestFile else { throw .tooLarge }
            try await dropCapabilities(inode, stored, interruption)
            try await resize(inode, stored, to: size)
        }
        if let mode = change.mode {
            try await changeAccessList(Held(inode: inode, stored: stored), to: mode, interruption)
        }
        let transaction = try await begin(
            blocks: 1,
            charging: transferDemand(inode, stored.record, change)
        )
        defer { transaction.end() }
        apply(change, to: &stored.record)
        stored.store(in: transaction)
        inode.hasChanged(in: transaction.sequence)
        inode.kernelMayCache = true
        return AttributesReply(
            attributes: attributes(inode, stored),
            isCacheable: mayBeCached(inode)
        )
    }

    /// Linux has decided by the owner and the group that it was told last, which may be another node's past: then it is
    /// told ESTALE, upon which it looks the name up once more and decides again (KERNEL D12).
    private func checkOwner(
        _ inode: Inode,
        _ record: InodeRecord,
        _ change: AttributeChange,
        _ caller: Caller
    ) throws(FileError) {
        guard caller.user != 0, let told = inode.toldOwner else { return }
        let isOwnersAlone =
            change.mode != nil || change.user != nil || change.group != nil
            || change.accessed != nil || change.modified != nil
        if isOwnersAlone, told.user == caller.user, record.user != caller.user { throw .stale }
        if let mode = change.mode, mode & 0o2000 != 0, told.group != record.group { throw .stale }
    }

    /// What an inode uses goes to its new owners.
    private func transferDemand(
        _ inode: Inode,
        _ record: InodeRecord,
        _ change: AttributeChange
    ) -> QuotaDemand {
        var demand = QuotaDemand(isExempt: inode.isExempt)
        let amount = QuotaAmount(blocks: Int64(clamping: record.blockCount), inodes: 1)
        if let user = change.user, user != record.user { demand.add(.user(user), amount) }
        if let group = change.group, group != record.group { demand.add(.group(group), amount) }
        return demand
    }

    private func apply(_ change: AttributeChange, to record: inout InodeRecord) {
        let time = now
        if let mode = change.mode {
            record.mode = record.typeBits | mode & 0o7777
        }
        if let user = change.user { record.user = user }
        if let group = change.group { record.group = group }
        if change.dropsPrivileges, !record.isDirectory {
            dropPrivileges(&record, change.writerGroup)
        }
        switch change.accessed {
        case .now: record.accessed = time
        case .at(let given): record.accessed = given
        case nil: break
        }
        switch change.modified {
        case .now: record.modified = time
        case .at(let given): record.modified = given
        case nil: if change.size != nil { record.modified = time }
        }
        record.changed = change.changed ?? time
    }
}
