// Access control lists of files (POSIX 1003.1e): the kernel obeys them, this node keeps list and mode of one mind.
//
// X1. A file's list and its mode change together, in one transaction: setting a list sets the mode's nine bits,
//     chmod(2) changes the list.
// X2. A list that says no more than the mode is not kept (AccessControlList, C2).
// X3. What is made in a directory with a default list gets it, cut to the mode that was asked for, and directories
//     get it as their default, too; the umask counts only where there is none (so the kernel leaves that to us).
// X4. The kernel keeps a list, or that there is none, until it drops the inode's attributes (KERNEL, D10); so it has
//     been told before another node can change it.
//
// Source: `posix_acl_create`, `posix_acl_chmod`, `posix_acl_update_mode` in Linux's fs/posix_acl.c.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import Vocabulary

/// Which of the two lists an attribute's name means.
enum AccessListName {
    case access
    case byDefault

    init?(_ name: UnsafeRawBufferPointer) {
        if name.elementsEqual(AccessControlList.accessName.utf8) {
            self = .access
        } else if name.elementsEqual(AccessControlList.defaultName.utf8) {
            self = .byDefault
        } else {
            return nil
        }
    }

    var text: String {
        switch self {
        case .access: AccessControlList.accessName
        case .byDefault: AccessControlList.defaultName
        }
    }
}

/// What a new object gets from its directory's default list, or from the umask.
struct InitialAccess {
    var mode: UInt32
    /// Its lists, as attributes.
    var attributes: [(name: String, value: [UInt8])] = []
}

extension MountedVolume {
    /// X1, X2. An empty value removes the list.
    func setAccessList(
        _ name: AccessListName,
        _ value: UnsafeRawBufferPointer,
        _ setting: AttributeSetting,
        _ held: Held,
        _ interruption: Interruption?
    ) async throws(FileError) {
        let record = held.stored.record
        if record.isSymbolicLink { throw .notSupported }
        if name == .byDefault, !record.isDirectory { throw .accessDenied }
        var list: AccessControlList?
        if !value.isEmpty {
            guard let given = AccessControlList(bytes: value) else { throw .invalid }
            list = given
        }
        var mode = record.mode
        if name == .access, let given = list {
            mode = mode & ~0o777 | given.permissionBits
            if given.isMinimal { list = nil }
        }
        if case .createOrReplaceWithoutSetGroupID = setting, name == .access { mode &= ~0o2000 }
        let attributes = ExtendedAttributes(store, held.stored)
        let update: AttributeUpdate
        do throws(StoreError) {
            if let list {
                update = try await prepare(attributes, name.text, list.bytes, setting.expectation)
            } else {
                update = try await prepareRemoval(attributes, name.text)
            }
        } catch .notFound where list == nil {
            if mode == record.mode { return }
            return try await setMode(mode, held)
        } catch {
            throw fileError(error)
        }
        try await apply(update, to: held, mode: mode, interruption)
    }

    private func setMode(_ mode: UInt32, _ held: Held) async throws(FileError) {
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        held.stored.record.mode = mode
        held.stored.record.changed = now
        held.stored.store(in: transaction)
        held.inode.hasChanged(in: transaction.sequence)
    }

    private func prepare(
        _ attributes: ExtendedAttributes,
        _ name: String,
        _ value: [UInt8],
        _ expectation: AttributeExpectation
    ) async throws(StoreError) -> AttributeUpdate {
        // Valid until the call returns, which may wait in between.
        let bytes = UnsafeMutableRawBufferPointer.allocate(
            byteCount: name.utf8.count + value.count,
            alignment: 1
        )
        defer { bytes.deallocate() }
        bytes.copyBytes(from: Array(name.utf8) + value)
        return try await attributes.prepareSet(
            UnsafeRawBufferPointer(rebasing: bytes[..<name.utf8.count]),
            UnsafeRawBufferPointer(rebasing: bytes[name.utf8.count...]),
            expectation
        )
    }

    private func prepareRemoval(
        _ attributes: ExtendedAttributes,
        _ name: String
    ) async throws(StoreError) -> AttributeUpdate {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: name.utf8.count, alignment: 1)
        defer { bytes.deallocate() }
        bytes.copyBytes(from: name.utf8)
        return try await attributes.prepareRemove(UnsafeRawBufferPointer(bytes))
    }

    /// X1, for chmod(2): list and mode, if there is a list. It may come to lie elsewhere by that, if there is room in
    /// the inode's own block now.
    func changeAccessList(
        _ held: Held,
        to mode: UInt32,
        _ interruption: Interruption?
    ) async throws(FileError) {
        let attributes = ExtendedAttributes(store, held.stored)
        guard let list = try await accessList(.access, attributes) else { return }
        let update: AttributeUpdate
        do throws(StoreError) {
            update = try await prepare(
                attributes,
                AccessControlList.accessName,
                list.changed(to: mode).bytes,
                .present
            )
        } catch {
            throw fileError(error)
        }
        let whole = held.stored.record.typeBits | mode & 0o7777
        try await apply(update, to: held, mode: whole, interruption)
    }

    private func accessList(
        _ name: AccessListName,
        _ attributes: ExtendedAttributes
    ) async throws(FileError) -> AccessControlList? {
        if attributes.isEmpty || !options.hasAccessLists { return nil }
        let text = UnsafeMutableRawBufferPointer.allocate(
            byteCount: name.text.utf8.count,
            alignment: 1
        )
        defer { text.deallocate() }
        text.copyBytes(from: name.text.utf8)
        let value: [UInt8]
        do throws(StoreError) {
            value = try await attributes.value(UnsafeRawBufferPointer(text))
        } catch .notFound {
            return nil
        } catch {
            throw fileError(error)
        }
        guard let list = value.withUnsafeBytes(AccessControlList.init(bytes:)) else {
            throw .inputOutput
        }
        return list
    }

    /// X3.
    func initialAccess(
        _ mode: UInt32,
        in directory: StoredInode,
        _ caller: Caller
    ) async throws(FileError) -> InitialAccess {
        let isSymbolicLink = mode & 0o170000 == 0o120000
        if isSymbolicLink { return InitialAccess(mode: mode) }
        let attributes = ExtendedAttributes(store, directory)
        guard let list = try await accessList(.byDefault, attributes) else {
            return InitialAccess(mode: mode & ~(caller.umask & 0o777))
        }
        let own = list.inherited(by: mode)
        var access = InitialAccess(mode: mode & ~0o777 | own.permissionBits)
        if !own.isMinimal { access.attributes = [(AccessControlList.accessName, own.bytes)] }
        if mode & 0o170000 == 0o040000 {
            access.attributes.append((AccessControlList.defaultName, list.bytes))
        }
        return access
    }
}
