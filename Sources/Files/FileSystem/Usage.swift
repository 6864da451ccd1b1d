// How full the volume is. Exact for groups whose lock is here; for the others what stands on the
// device, read without their locks and not more often than every few seconds: an estimate is all
// that statfs promises.

import BlockIO
import DiskFormat
import Execution
import FileStore
package import Journaling
import LockCache
package import Vocabulary

/// Counts of groups as last read from the device.
struct UsageCache {
    var counts: [(free: UInt32, inodes: UInt32)] = []
    var readAt: Tick?
    /// For how long an estimate is good enough, in nanoseconds.
    static let lifetime: UInt64 = 5_000_000_000
}

extension MountedVolume {
    package func usage() async throws(FileError) -> VolumeUsage {
        try checkUsable()
        let isStale =
            usageCache.readAt.map {
                engine.clock.now.rawValue &- $0.rawValue > UsageCache.lifetime
            } ?? true
        if isStale { try await readUsage() }
        groups.forEachHeld(self) { group in
            let record = group.record
            usageCache.counts[Int(group.index)] = (
                record.freeCount + record.quarantinedCount, record.inodeCount
            )
        }
        var free: UInt64 = 0
        var inodeCount: UInt64 = 0
        for count in usageCache.counts {
            free += UInt64(count.free)
            inodeCount += UInt64(count.inodes)
        }
        let data = superblock.blockCount - superblock.firstGroup.rawValue
        return VolumeUsage(
            blockSize: UInt32(blockSize),
            blocks: data,
            free: free,
            inodes: inodeCount + free,
            freeInodes: free,
            longestName: UInt32(DirectoryEntryRecord.longestName)
        )
    }

    /// The counts in a group's block; nil if it is not whole, or they cannot be.
    private func wholeGroup(
        _ block: UnsafeRawBufferPointer,
        at address: BlockAddress
    ) -> ResourceGroupRecord? {
        do throws(FormatError) {
            _ = try BlockHeader(
                verifying: block,
                at: address,
                volume: superblock.volume,
                kind: .resourceGroup
            )
            return try ResourceGroupRecord(checking: block, at: address, in: superblock)
        } catch {
            return nil
        }
    }

    private func readUsage() async throws(FileError) {
        let buffer = AlignedBuffer(byteCount: blockSize)
        var counts: [(free: UInt32, inodes: UInt32)] = []
        for index in 0..<superblock.groupCount {
            let address = superblock.groupStart(index)
            do throws(DeviceError) {
                try await device.read(buffer.bytes, at: superblock.byteOffset(address))
            } catch {
                throw fileError(.storage(.device(error)))
            }
            // A block that is being written elsewhere may be torn; its last known counts will do.
            if let record = wholeGroup(buffer.readOnly, at: address) {
                counts.append((record.freeCount + record.quarantinedCount, record.inodeCount))
            } else {
                let known = Int(index) < usageCache.counts.count
                counts.append(known ? usageCache.counts[Int(index)] : (0, 0))
            }
        }
        usageCache.counts = counts
        usageCache.readAt = engine.clock.now
    }
}

// MARK: For administrators

extension MountedVolume {
    /// What the journal has done.
    package var journalStatistics: JournalStatistics { journal.statistics }

    /// Inodes in memory.
    package var inodeCount: Int { inodes.count }

    /// Blocks of metadata in memory.
    package var cachedBlockCount: Int { cache.count }

    /// Dirty file data, in bytes.
    package var dirtyByteCount: UInt64 { dirtyAccount.byteCount }
}
