// What a program file loses when it is changed: set-user-id, set-group-id and its capabilities.
//
// With HANDLE_KILLPRIV_V2 all three are ours to take (KERNEL S1). Linux does tell when the bits have to go, and takes
// the capabilities itself before a write(2) through the page cache and before it truncates; but not before a write that goes
// past it (FOPEN_DIRECT_IO, O_DIRECT), and not while it believes that there are none, which the answer to a GETATTR
// ends only if nothing has crossed it. So whatever changes a file for a program looks for itself. Not a
// write-back: what it brings was written before, and somebody may have given the file its capabilities since.

import DiskFormat
import FileStore
import Journaling
import Vocabulary

extension MountedVolume {
    /// Linux's name for the capabilities of a program file (capabilities(7)).
    private static let capability: StaticString = "security.capability"

    private var capabilityName: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: Self.capability.utf8Start,
            count: Self.capability.utf8CodeUnitCount
        )
    }

    /// Whether a file has capabilities. The lock is held.
    ///
    /// - Throws: what reading its extended attributes throws.
    func hasCapabilities(_ stored: StoredInode) async throws(FileError) -> Bool {
        guard stored.record.hasAttributes else { return false }
        do throws(StoreError) {
            _ = try await ExtendedAttributes(store, stored).value(capabilityName)
            return true
        } catch .notFound {
            return false
        } catch {
            throw fileError(error)
        }
    }

    /// Takes the capabilities of a file that is about to be changed. The lock is held exclusively.
    ///
    /// - Throws: what removing an extended attribute throws.
    func dropCapabilities(
        _ inode: Inode,
        _ stored: StoredInode,
        _ interruption: Interruption?
    ) async throws(FileError) {
        guard stored.record.hasAttributes else { return }
        let update: AttributeUpdate
        do throws(StoreError) {
            update = try await ExtendedAttributes(store, stored).prepareRemove(capabilityName)
        } catch .notFound {
            return
        } catch {
            throw fileError(error)
        }
        try await apply(update, to: Held(inode: inode, stored: stored), interruption)
    }

    /// Logs that set-user-id and set-group-id go, before a write that may fail half way: what is changed
    /// in memory and not logged would be true on this node alone.
    func dropPrivilegesFirst(
        _ inode: Inode,
        _ stored: StoredInode,
        _ writer: UInt32?
    ) async throws(FileError) {
        guard losesPrivileges(stored.record, writer) else { return }
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        dropPrivileges(&stored.record, writer)
        stored.record.changed = now
        stored.store(in: transaction)
        inode.hasChanged(in: transaction.sequence)
    }

    /// Set-user-id goes when somebody writes, and set-group-id of what the group may execute; of other files when the
    /// writer is of another group.
    func dropPrivileges(_ record: inout InodeRecord, _ writer: UInt32?) {
        if losesSetGroupID(record, writer) { record.mode &= ~0o2000 }
        record.mode &= ~0o4000
    }

    func losesPrivileges(_ record: InodeRecord, _ writer: UInt32?) -> Bool {
        record.mode & 0o4000 != 0 || losesSetGroupID(record, writer)
    }

    private func losesSetGroupID(_ record: InodeRecord, _ writer: UInt32?) -> Bool {
        guard record.mode & 0o2000 != 0 else { return false }
        if record.mode & 0o010 != 0 { return true }
        return writer.map { $0 != record.group } ?? false
    }
}
