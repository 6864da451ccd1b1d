// Hard links.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    /// Names that one inode may have.
    static let mostLinks: UInt32 = 1_000_000

    package func link(
        _ node: NodeHandle,
        in parent: NodeHandle,
        named name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) -> EntryReply {
        let target = try inode(node)
        let directory = try await holdDirectoryForNewName(parent, name, interruption)
        defer { release(directory.inode, .exclusive) }
        // A directory is refused before its lock is asked for: it might be the one that is held.
        guard target !== directory.inode else { throw .notPermitted }
        let stored = try await hold(target, .exclusive, interruption)
        defer { release(target, .exclusive) }
        guard !stored.record.isDirectory else { throw .notPermitted }
        guard stored.record.linkCount > 0 else { throw .stale }
        guard stored.record.linkCount < Self.mostLinks else { throw .tooManyLinks }
        let insertion: DirectoryInsertion
        do throws(StoreError) {
            insertion = try await Directory(store, directory.stored).prepareInsertion(name)
        } catch {
            throw fileError(error)
        }
        let held = try await holdGroups([], metadata: insertion.cost.newBlocks, interruption)
        defer { for group in held { groups.release(group, self) } }
        let transaction = try await begin(
            blocks: insertion.cost.modifiedBlocks + held.count + 2
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: held, transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: insertion.cost.newBlocks) else { throw .noSpace }
        do throws(StoreError) {
            try Directory(store, directory.stored).insert(
                insertion,
                name,
                target: target.number,
                type: UInt8(stored.record.typeBits >> 12),
                with: allocator
            )
        } catch {
            throw failed(error)
        }
        touchDirectory(directory.stored)
        directory.stored.store(in: transaction)
        directory.inode.lastSequence = transaction.sequence
        directory.inode.answered.add(name)
        stored.record.linkCount += 1
        stored.record.changed = now
        stored.store(in: transaction)
        target.lastSequence = transaction.sequence
        return entry(target, stored, isEntryCacheable: true)
    }
}
