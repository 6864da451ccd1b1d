// The resource groups as this node uses them. A group's lock is taken in EX for every allocation
// and every free, last of all glocks and in ascending order; the node keeps it, so that its files
// come from groups that nobody else touches, and starts in a part of the volume of its own.

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// The groups of one mount. Engine-bound.
package final class GroupTable: GlockOwner {
    weak var volume: MountedVolume?
    private var glocks: [UInt32: Glock] = [:]
    private var indexOf: [ResourceName: UInt32] = [:]
    /// The group in which this node allocates at present.
    private var current: UInt32?
    /// Groups that were found too full for what was asked, with what they had; forgotten when their
    /// lock is lost.
    private var freeHints: [UInt32: UInt32] = [:]

    package init() {}

    private func glock(_ index: UInt32, _ volume: MountedVolume) -> Glock {
        if let glock = glocks[index] { return glock }
        let glock = volume.locks.make(.resourceGroup(index), owner: self)
        glocks[index] = glock
        indexOf[glock.name] = index
        return glock
    }

    /// A group's glock, for who looks at the group on the device.
    func inspected(_ index: UInt32, _ volume: MountedVolume) -> Glock { glock(index, volume) }

    /// The mode that others have to respect.
    func covering(_ index: UInt32) -> LockMode { glocks[index]?.covering ?? .null }

    /// Holds one group for changes. Ends with `release`. Groups are held in ascending order (L1).
    func hold(
        _ index: UInt32,
        _ volume: MountedVolume,
        _ interruption: Interruption? = nil
    ) async throws(FileError) -> ResourceGroup {
        let glock = glock(index, volume)
        try await volume.locks.enter(glock, .exclusive, interruption)
        do throws(StoreError) {
            return try await volume.store.group(index)
        } catch {
            volume.locks.leave(glock, .exclusive)
            throw volume.fileError(error)
        }
    }

    /// As `hold`, unless somebody else, here or elsewhere, has it.
    private func holdIfFree(
        _ index: UInt32,
        _ volume: MountedVolume
    ) async throws(FileError) -> ResourceGroup? {
        let glock = glock(index, volume)
        guard await volume.locks.enterWithoutQueueing(glock, .exclusive) else { return nil }
        do throws(StoreError) {
            return try await volume.store.group(index)
        } catch {
            volume.locks.leave(glock, .exclusive)
            throw volume.fileError(error)
        }
    }

    /// Lets a group go.
    func release(_ group: ResourceGroup, _ volume: MountedVolume) {
        guard let glock = glocks[group.index] else {
            preconditionFailure("releasing a group that was never held")
        }
        volume.locks.leave(glock, .exclusive)
    }

    /// Holds all of `indices`, ascending.
    func hold(
        all indices: [UInt32],
        _ volume: MountedVolume,
        _ interruption: Interruption? = nil
    ) async throws(FileError) -> [ResourceGroup] {
        var held: [ResourceGroup] = []
        for index in Set(indices).sorted() {
            do throws(FileError) {
                held.append(try await hold(index, volume, interruption))
            } catch {
                for group in held { release(group, volume) }
                throw error
            }
        }
        return held
    }

    /// As `findRoom`, and when there is none, once more after what only waits for a commit, and
    /// once more after what only waits for everybody's log has become free (Space.swift).
    func holdWithRoom(
        metadata: Int,
        data: Int,
        near goal: BlockAddress? = nil,
        _ volume: MountedVolume,
        _ interruption: Interruption? = nil
    ) async throws(FileError) -> ResourceGroup {
        for effort in SpaceEffort.allCases {
            do throws(FileError) {
                return try await findRoom(
                    metadata: metadata,
                    data: data,
                    near: goal,
                    volume,
                    interruption
                )
            } catch {
                guard error == .noSpace else { throw error }
            }
            if try await !volume.makeRoom(effort) { throw .noSpace }
            freeHints = [:]
        }
        return try await findRoom(
            metadata: metadata,
            data: data,
            near: goal,
            volume,
            interruption
        )
    }

    /// Holds a group that has room: at least `metadata` blocks for metadata and one for data if
    /// `data` is more than 0. No other group may be held by the caller.
    ///
    /// - Parameter goal: a block near which room is wanted: its group is tried first.
    /// - Throws: `noSpace` when no group of the volume has it.
    private func findRoom(
        metadata: Int,
        data: Int,
        near goal: BlockAddress?,
        _ volume: MountedVolume,
        _ interruption: Interruption?
    ) async throws(FileError) -> ResourceGroup {
        let count = volume.superblock.groupCount
        func suits(_ group: ResourceGroup) -> Bool {
            Int(group.freeForMetadata) >= metadata + (data > 0 ? 1 : 0)
                && (data == 0 || group.freeForData > 0)
        }
        let home = UInt32(
            UInt64(volume.slot.rawValue) * UInt64(count) / UInt64(volume.superblock.slotCount)
        )
        let first = goal.flatMap { volume.superblock.group(of: $0) } ?? current ?? home
        // First without waiting for other nodes, then with; where room is wanted first, and then all
        // groups in turn.
        for isPatient in [false, true] {
            for step in 0...count {
                let index = step == 0 ? first : ((current ?? home) + step - 1) % count
                if let hint = freeHints[index], !isPatient, Int(hint) < metadata + min(data, 1) {
                    continue
                }
                let group: ResourceGroup
                if isPatient || (step == 0 && glocks[index]?.held == .exclusive) {
                    group = try await hold(index, volume, interruption)
                } else if let free = try await holdIfFree(index, volume) {
                    group = free
                } else {
                    continue
                }
                if suits(group) {
                    freeHints[index] = nil
                    if goal == nil { current = index }
                    return group
                }
                freeHints[index] = min(group.freeForMetadata, group.freeForData)
                release(group, volume)
            }
        }
        throw .noSpace
    }

    /// Groups whose lock this node holds, with their counts: what `statfs` knows exactly.
    func forEachHeld(_ volume: MountedVolume, _ body: (ResourceGroup) -> Void) {
        for index in 0..<volume.superblock.groupCount {
            if let group = volume.store.groupIfLoaded(index) { body(group) }
        }
    }

    // MARK: Giving way

    /// But for the group from which this node allocates.
    package func isSpare(_ glock: Glock) -> Bool {
        indexOf[glock.name].map { $0 != current } ?? false
    }

    package func demote(_ glock: Glock, from: LockMode, to: LockMode) async {
        guard let volume, let index = indexOf[glock.name] else { return }
        await volume.settle(glock)
        // A group is of no use in PR: whoever asks wants to allocate.
        volume.store.dropGroup(index)
        volume.cache.drop(covering: glock.name)
        freeHints[index] = nil
        if current == index { current = nil }
    }
}
