import CLinux
package import DiskFormat
import Glibc
import LinuxSystem
import Membership
package import Vocabulary

/// What can be seen of a volume's cluster from outside: for `lockstep`, and for tools that must not
/// touch a mounted volume. Looking takes no lock and changes nothing.
package struct HostClusterStatus: Hashable, Sendable {
    /// One slot that somebody lives in, or whose guardian is still at work.
    package struct Slot: Hashable, Sendable {
        package var slot: SlotIndex
        /// Whether the newest view has it; false while it joins or leaves.
        package var isMember: Bool
        /// Whether its process lives.
        package var isAlive: Bool
        /// Whether its guardian runs.
        package var isGuarded: Bool
        /// What it says of itself; nil if it is just beginning.
        package var content: SlotContent?
    }

    package var volume: VolumeID
    package var epoch: Epoch
    package var slotCount: UInt32
    package var members: [Member]
    package var slotsToReplay: [SlotIndex]
    /// Ascending.
    package var slots: [Slot]
    /// Whose last life has withdrawn, as long as nobody else has lived there since; ascending. What
    /// they say of themselves has their last words.
    package var withdrawn: [Slot]

    /// Whether any process has the volume mounted, or the kernel may still serve what one had
    /// cached.
    package var isInUse: Bool { slots.contains { $0.isAlive || $0.isGuarded } }

    /// The volumes that have ever been mounted with this run directory (nil for the default),
    /// ascending.
    package static func volumes(in root: String?) throws -> [VolumeID] {
        let path = root ?? RunDirectory.defaultRoot()
        guard let folder = opendir(path) else {
            if errno == ENOENT { return [] }
            throw SystemError.last("open", path)
        }
        defer { closedir(folder) }
        var found: [VolumeID] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { field in
                field.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let volume = VolumeID(name) { found.append(volume) }
        }
        return found.sorted { ($0.high, $0.low) < ($1.high, $1.low) }
    }

    /// What is known of `volume`; nil if it was never mounted with this run directory.
    package static func read(_ volume: VolumeID, in root: String?) throws -> HostClusterStatus? {
        try read(RunDirectory(root: root, volume: volume))
    }

    static func read(_ directory: RunDirectory) throws -> HostClusterStatus? {
        let record = try directory.readView()
        var slots: [Slot] = []
        var withdrawn: [Slot] = []
        for slot in (0..<Superblock.maximumSlots).map(SlotIndex.init(_:)) {
            guard let found = try SlotProbe.read(directory.slot(slot)) else { continue }
            let guarded = try SlotProbe.isLocked(directory.guardian(slot))
            let isMember = record?.view.contains(NodeID(slot: slot)) ?? false
            let seen = Slot(
                slot: slot,
                isMember: isMember,
                isAlive: found.isLocked,
                isGuarded: guarded,
                content: found.content
            )
            if found.isLocked || guarded {
                slots.append(seen)
            } else if found.content?.lastWords.isEmpty == false {
                withdrawn.append(seen)
            }
        }
        guard record != nil || !slots.isEmpty || !withdrawn.isEmpty else { return nil }
        return HostClusterStatus(
            volume: directory.volume,
            epoch: record?.epoch ?? Epoch(0),
            slotCount: record?.slotCount ?? 0,
            members: record?.members ?? [],
            slotsToReplay: record?.view.slotsToReplay ?? [],
            slots: slots,
            withdrawn: withdrawn
        )
    }
}

extension HostClusterStatus {
    /// The slot whose process says that it is mounted at `mountPoint`; nil if there is none in this
    /// run directory (nil for the default).
    package static func find(
        mountPoint: String,
        in root: String?
    ) throws -> (volume: VolumeID, slot: SlotIndex)? {
        for volume in try volumes(in: root) {
            let slots = try read(volume, in: root)?.slots ?? []
            for slot in slots where slot.isAlive && slot.content?.mountPoint == mountPoint {
                return (volume, slot.slot)
            }
        }
        return nil
    }

    /// Waits until nobody lives in a slot and its guardian has ended: FUSE's own unmounting returns
    /// before the daemon has flushed and left. False if that takes longer than `patience`
    /// nanoseconds.
    package static func waitForEnd(
        of slot: SlotIndex,
        volume: VolumeID,
        in root: String?,
        patience: UInt64
    ) throws -> Bool {
        let directory = try RunDirectory(root: root, volume: volume)
        let watch = try FolderWatch(
            directory.folder,
            events: UInt32(IN_MOVED_TO) | UInt32(IN_CLOSE_WRITE)
        )
        let deadline = monotonicNow() + patience
        while true {
            let isAlive = try SlotProbe.isLocked(directory.slot(slot))
            if try !isAlive && !SlotProbe.isLocked(directory.guardian(slot)) { return true }
            guard monotonicNow() < deadline else { return false }
            // The end of a process is told a moment before its locks are free.
            _ = try watch.wait(milliseconds: 50)
        }
    }
}

/// The right to work on a volume that nobody of this host has mounted (mkfs, fsck): as long as it
/// is held, mounting is refused. Ends with `release`, or with the process.
package final class OfflineClaim: Sendable {
    private let descriptor: Int32

    /// Takes the claim, waiting at most `patience` nanoseconds for a mount that is just leaving.
    /// - Throws: `HostClusterError` that names who has the volume mounted, `SystemError`.
    package init(_ volume: VolumeID, in root: String?, patience: UInt64) throws {
        let directory = try RunDirectory(root: root, volume: volume)
        try directory.make()
        let watch = try FolderWatch(
            directory.folder,
            events: UInt32(IN_MOVED_TO) | UInt32(IN_CLOSE_WRITE)
        )
        let deadline = monotonicNow() + patience
        while true {
            let user: String
            switch try directory.withLock({ try Self.attempt(directory) }) {
            case .success(let taken):
                descriptor = taken
                return
            case .failure(let inUse): user = inUse.description
            }
            guard monotonicNow() < deadline else { throw HostClusterError(user) }
            _ = try watch.wait(milliseconds: 50)
        }
    }

    private static func attempt(
        _ directory: RunDirectory
    ) throws -> Result<Int32, HostClusterError> {
        if let status = try HostClusterStatus.read(directory),
            let user = status.slots.first(where: { $0.isAlive || $0.isGuarded })
        {
            let place = user.content.map { " at \($0.mountPoint) by process \($0.process)" } ?? ""
            return .failure(HostClusterError("the volume is mounted\(place)"))
        }
        let path = directory.offline
        let opened = lockstep_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
        guard opened >= 0 else { throw SystemError.last("open", path) }
        guard lockstep_try_lock(opened) == 0 else {
            close(opened)
            return .failure(HostClusterError("another tool works on the volume"))
        }
        return .success(opened)
    }

    /// Gives the claim up. Once.
    package func release() { close(descriptor) }
}
