// What this node has in memory under a lock, for whoever wants to know whether it may.

import DiskFormat
import Journaling
import LockCache
package import Vocabulary

/// What a node keeps of what one lock protects.
package struct MemoryUnderLock: Hashable, Sendable {
    /// The mode that covers it. While the lock manager is being asked to lower the lock, the lower one:
    /// from then on others may be granted what this node no longer needs.
    package var covering: LockMode = .null
    /// Metadata blocks.
    package var hasBlocks = false
    /// The inode, decoded.
    package var isDecoded = false
    /// Data that is not written yet.
    package var isDirty = false
    /// The kernel's number of the inode, if it is in memory.
    package var node: NodeHandle?
    /// Of an inode: regions that are held, ascending.
    package var regions: [RegionUnderLock] = []

    package init() {}
}

/// One region of a file on this node.
package struct RegionUnderLock: Hashable, Sendable {
    package var index: UInt64
    /// Its bytes in the file.
    package var bytes: Range<UInt64>
    /// As `MemoryUnderLock.covering`.
    package var covering: LockMode
}

extension MemoryUnderLock {
    /// The mode that covers some bytes of a file while others write it.
    package func covering(_ bytes: Range<UInt64>) -> LockMode {
        let modes = regions.filter { $0.bytes.overlaps(bytes) }.map(\.covering)
        return modes.min() ?? .null
    }
}

extension MountedVolume {
    /// The bytes of dirty data of a file, as ranges.
    package func dirtyBytes(of number: InodeNumber) -> [Range<UInt64>] {
        inodes[number]?.dirty?.byteRanges ?? []
    }

    /// What is in memory under the lock of an inode or of a group; of other locks the blocks only.
    package func memory(under name: ResourceName) -> MemoryUnderLock {
        var memory = MemoryUnderLock()
        memory.hasBlocks = cache.hasBlocks(covering: name)
        if name.kind == .inode {
            let number = InodeNumber(
                address: BlockAddress(name.number),
                generation: name.generation
            )
            if let inode = inodes[number] {
                memory.covering = inode.glock.covering
                memory.isDecoded = inode.stored != nil
                memory.isDirty = inode.dirty.map { !$0.isEmpty } ?? false
                memory.node = inode.handle
                memory.regions = inode.regions.regions.map {
                    RegionUnderLock(
                        index: $0.index,
                        bytes: $0.bytes,
                        covering: $0.glock.covering
                    )
                }
            }
        } else if name.kind == .resourceGroup {
            memory.covering = groups.covering(UInt32(name.number))
        }
        return memory
    }
}

/// The inodes that a node has in memory, for an observer.
package struct InodeCensus: Equatable, Sendable {
    /// As the table says, and as many as there are.
    package var counted = 0
    package var present = 0
    /// That nobody but the cache needs, in the list from which they go.
    package var idle = 0
    /// That nobody needs, and that are in no list: they never go.
    package var stray: [InodeNumber] = []
    /// Orphans for whose end a task waits.
    package var pendingOrphans = 0
}

extension MountedVolume {
    /// What is in memory now.
    package func inodeCensus() -> InodeCensus {
        var census = InodeCensus()
        census.counted = inodes.count
        census.pendingOrphans = pendingOrphans
        inodes.forEach { inode in
            census.present += 1
            if inode.isIdleListed {
                census.idle += 1
            } else if !inode.isReferenced, inode.number != superblock.root {
                census.stray.append(inode.number)
            }
        }
        return census
    }

    /// How many idle inodes may stay.
    package var mostIdleInodes: Int { options.idleInodes }
}

extension Glock {
    /// The mode that others have to respect.
    var covering: LockMode {
        if case .lowering(let mode) = machine.phase { return mode }
        return held
    }
}
