// Making changes durable: fsync, sync, and the timers that keep them from growing old.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    package func synchronize(
        _ node: NodeHandle,
        _ handle: OpenHandle?,
        dataOnly: Bool
    ) async throws(FileError) {
        let inode = try inode(node)
        try checkUsable()
        if options.isReadOnly { return }
        // No lock is needed: what this node has changed and not written is found here; what another
        // node has changed it has written before this node's lock was given, or still has to
        // synchronise itself.
        if let dirty = inode.dirty { try await writeBack(dirty) }
        if !dataOnly { try await storeTimes(inode) }
        do throws(StorageError) {
            let landed = inode.dirty?.landedCount ?? 0
            // The commit of a transaction that is still open flushes after the data has landed;
            // that of one that is closing, or closed, may have flushed before.
            let flushFollows = journal.isRunning(inode.lastSequence)
            if inode.lastSequence > 0, !journal.isDurable(inode.lastSequence) {
                try await journal.commit(through: inode.lastSequence)
            }
            if inode.glock.held == .concurrentWrite {
                // What others have written of regions that they gave up (Regions R5).
                try await flushDevice()
                inode.dirty?.flushed(through: landed)
            } else if let dirty = inode.dirty, dirty.needsFlush {
                if !flushFollows || !journal.isDurable(inode.lastSequence) {
                    try await flushDevice()
                }
                dirty.flushed(through: landed)
            }
        } catch {
            throw fileError(.storage(error))
        }
    }

    /// Writes the dirty data of a file.
    private func writeBack(_ dirty: DirtyData) async throws(FileError) {
        do throws(DeviceError) {
            try await dirty.writeBack()
        } catch {
            throw dataFailed(error)
        }
    }

    /// A flush that fails makes the node withdraw, as a later one may succeed although what the
    /// first was for is lost.
    func flushDevice() async throws(StorageError) {
        do throws(DeviceError) {
            try await device.flush()
        } catch {
            throw .device(error)
        }
    }

    package func synchronizeAll() async throws(FileError) {
        try checkUsable()
        if options.isReadOnly { return }
        try await storeAccesses(isLast: true)
        try await storeTimes(olderThan: 0)
        try await writeBackAll()
        do throws(StorageError) {
            try await journal.commit()
            try await flushDevice()
        } catch {
            throw fileError(.storage(error))
        }
    }

    /// Writes all dirty data of all files.
    func writeBackAll() async throws(FileError) {
        var dirty: [DirtyData] = []
        inodes.forEach { inode in
            if let data = inode.dirty, !data.isEmpty { dirty.append(data) }
        }
        // All begin before any is waited for: the device works on many at once.
        for data in dirty { data.startWriteBack() }
        for data in dirty { try await writeBack(data) }
    }

    /// Begins to write everything that is dirty, because writers wait for room.
    func makeDirtyRoom() {
        inodes.forEach { $0.dirty?.startWriteBack() }
    }

    /// Writes what has been dirty for longer than the commit interval. Called by a timer.
    func writeBackOld() async {
        let age = options.commitInterval
        let nowTick = engine.clock.now.rawValue
        var old: [DirtyData] = []
        inodes.forEach { inode in
            if let data = inode.dirty, let since = data.since, nowTick &- since.rawValue >= age {
                old.append(data)
            }
        }
        for data in old { data.startWriteBack() }
    }
}
