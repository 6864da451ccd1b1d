// Extended attributes. The kernel does not cache them; they are covered by the inode's lock.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

extension MountedVolume {
    /// Name spaces that Linux knows and that are only bytes to us. Access control lists are more
    /// (AccessLists.swift).
    private static let nameSpaces = ["user.", "trusted.", "security."]

    /// Not stored, not listed: answers with `controlPath`, so that whoever can name a directory of
    /// a mount finds its daemon.
    package static let controlAttribute = "lockstep.control"

    private func checkName(_ name: UnsafeRawBufferPointer) throws(FileError) {
        guard name.count <= AttributeRecord.longestName else { throw .range }
        for prefix in Self.nameSpaces where name.starts(with: prefix.utf8) {
            if name.count == prefix.utf8.count { throw .invalid }
            return
        }
        guard options.hasAccessLists, AccessListName(name) != nil else { throw .notSupported }
    }

    package func getExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ interruption: Interruption?
    ) async throws(FileError) -> [UInt8] {
        let inode = try inode(node)
        if let controlPath, name.elementsEqual(Self.controlAttribute.utf8) {
            return Array(controlPath.utf8)
        }
        try checkName(name)
        pin(inode)
        defer { unpin(inode) }
        if let told = try await glimpse(inode, interruption), !told.hasExtendedAttributes {
            throw .noAttribute
        }
        let mode = lookMode(inode)
        let stored = try await hold(inode, mode, interruption)
        defer { release(inode, mode) }
        // The kernel keeps lists, and that there is none.
        if AccessListName(name) != nil { inode.kernelMayCache = true }
        do throws(StoreError) {
            return try await ExtendedAttributes(store, stored).value(name)
        } catch .notFound {
            throw .noAttribute
        } catch {
            throw fileError(error)
        }
    }

    package func listExtendedAttributes(
        _ node: NodeHandle,
        _ interruption: Interruption?
    ) async throws(FileError) -> [UInt8] {
        let inode = try inode(node)
        pin(inode)
        defer { unpin(inode) }
        if let told = try await glimpse(inode, interruption), !told.hasExtendedAttributes {
            return []
        }
        let mode = lookMode(inode)
        let stored = try await hold(inode, mode, interruption)
        defer { release(inode, mode) }
        do throws(StoreError) {
            return try await ExtendedAttributes(store, stored).names()
        } catch {
            throw fileError(error)
        }
    }

    package func setExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer,
        _ setting: AttributeSetting,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try checkWritable()
        try checkName(name)
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let inode = try inode(node)
        let stored = try await hold(inode, .exclusive, interruption)
        defer { release(inode, .exclusive) }
        inode.isExempt = caller.isExempt
        try checkMayChangeFully(stored.record)
        if let list = AccessListName(name) {
            let held = Held(inode: inode, stored: stored)
            return try await setAccessList(list, value, setting, held, interruption)
        }
        let update: AttributeUpdate
        do throws(StoreError) {
            update = try await ExtendedAttributes(store, stored).prepareSet(
                name,
                value,
                setting.expectation
            )
        } catch .notFound {
            throw .noAttribute
        } catch {
            throw fileError(error)
        }
        try await apply(update, to: Held(inode: inode, stored: stored), interruption)
    }

    package func removeExtendedAttribute(
        _ node: NodeHandle,
        _ name: UnsafeRawBufferPointer,
        _ caller: Caller,
        _ interruption: Interruption?
    ) async throws(FileError) {
        try checkWritable()
        try checkName(name)
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let inode = try inode(node)
        let stored = try await hold(inode, .exclusive, interruption)
        defer { release(inode, .exclusive) }
        inode.isExempt = true  // what remains is less than before
        try checkMayChangeFully(stored.record)
        let update: AttributeUpdate
        do throws(StoreError) {
            update = try await ExtendedAttributes(store, stored).prepareRemove(name)
        } catch .notFound where AccessListName(name) != nil {
            // As Linux has it: no list is what was asked for.
            return
        } catch .notFound {
            throw .noAttribute
        } catch {
            throw fileError(error)
        }
        try await apply(update, to: Held(inode: inode, stored: stored), interruption)
    }

    /// Carries out a prepared change of attributes, and gives the inode another mode with it.
    func apply(
        _ update: AttributeUpdate,
        to held: Held,
        mode: UInt32? = nil,
        _ interruption: Interruption? = nil
    ) async throws(FileError) {
        let groupsHeld = try await holdGroups(
            update.groups,
            metadata: update.cost.newBlocks,
            interruption
        )
        defer { for group in groupsHeld { groups.release(group, self) } }
        let transaction = try await begin(
            blocks: update.cost.modifiedBlocks + groupsHeld.count + 1,
            charging: demand(held.inode, held.stored, blocks: update.cost.newBlocks)
        )
        defer { transaction.end() }
        let allocator = Allocator(store: store, groups: groupsHeld, transaction: transaction)
        defer { allocator.end() }
        guard allocator.reserve(metadata: update.cost.newBlocks) else { throw .noSpace }
        held.stored.record.changed = now
        if let mode { held.stored.record.mode = mode }
        do throws(StoreError) {
            try ExtendedAttributes(store, held.stored).apply(update, with: allocator)
        } catch {
            throw failed(error)
        }
        held.inode.hasChanged(in: transaction.sequence)
    }
}

extension AttributeSetting {
    var expectation: AttributeExpectation {
        switch self {
        case .createOrReplace, .createOrReplaceWithoutSetGroupID: .any
        case .create: .absent
        case .replace: .present
        }
    }
}
