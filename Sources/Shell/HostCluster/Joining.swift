import CLinux
import DiskFormat
import Glibc
import LinuxSystem
import Membership
import Vocabulary

/// One attempt after the other to get into the view. See the head of HostCluster.swift.
struct Joining {
    let directory: RunDirectory
    let slotCount: UInt32
    let options: HostClusterOptions
    let identity: (high: UInt64, low: UInt64)

    /// What one attempt led to.
    private enum Attempt {
        case joined(SlotClaim, OwnSlot)
        /// It cannot be done now; it may be when something has changed in the folder.
        case later(JoinRefusal?)
    }

    /// Tries until it works, is refused for good, or patience is over.
    func run(_ prepare: (SlotClaim) throws -> Void) throws -> (SlotClaim, OwnSlot) {
        // Closing view.lock is what attempts do themselves; the files that matter are told by name.
        let watch = try FolderWatch(
            directory.folder,
            events: UInt32(IN_MOVED_TO) | UInt32(IN_CLOSE_WRITE)
        )
        let deadline = monotonicNow() + options.joinPatience
        while true {
            switch try directory.withLock({ try attempt(prepare) }) {
            case .joined(let claim, let slot): return (claim, slot)
            case .later(let refusal):
                guard monotonicNow() < deadline else {
                    if let refusal { throw refusal }
                    throw HostClusterError(
                        "the last node of this volume was killed and its guardian still runs"
                    )
                }
                try waitForChange(watch)
            }
        }
    }

    private func waitForChange(_ watch: FolderWatch) throws {
        // A process that ends closes its files a moment before their locks are free: do not rely on
        // the event alone.
        let until = monotonicNow() + 100_000_000
        while monotonicNow() < until {
            let names = try watch.wait(milliseconds: 50)
            if names.contains(where: { $0 != RunDirectory.viewLockName }) { return }
        }
    }

    private func attempt(_ prepare: (SlotClaim) throws -> Void) throws -> Attempt {
        if try SlotProbe.isLocked(directory.offline) {
            throw HostClusterError("a tool works on the unmounted volume (fsck, mkfs)")
        }
        var record = try currentRecord()
        let gone = try record.members.filter {
            try !SlotProbe.isLocked(directory.slot($0.node.slot))  // H1
        }
        let fenced = try gone.filter {
            try !SlotProbe.isLocked(directory.guardian($0.node.slot))  // H3
        }
        if record.members.count == gone.count && gone.count != fenced.count { return .later(nil) }
        _ = record.bury(fenced)
        for member in record.members where !gone.contains(member) { try checkNamespace(member) }

        var isLeaving = false
        let slot: SlotIndex
        do {
            slot = try record.slotToJoin(wanted: options.slot, slotCount: slotCount) { slot in
                // Out of the view but still locked: its process is about to end.
                let locked = (try? SlotProbe.isLocked(directory.slot(slot))) ?? true
                let guarded = (try? SlotProbe.isLocked(directory.guardian(slot))) ?? true
                if locked || guarded { isLeaving = true }
                return !locked && !guarded
            }
        } catch {
            if isLeaving || error == .recovering { return .later(error) }
            throw error
        }
        return try claim(slot, record, prepare)
    }

    private func claim(
        _ slot: SlotIndex,
        _ before: ViewRecord,
        _ prepare: (SlotClaim) throws -> Void
    ) throws -> Attempt {
        let member = Member(node: NodeID(slot: slot), incarnation: try randomWord())
        guard directory.socket(slot).utf8.count <= 107 else {
            throw HostClusterError(
                "\(directory.socket(slot)) is too long for a socket; use a shorter run directory"
            )
        }
        let content = SlotContent(
            process: getpid(),
            incarnation: member.incarnation,
            pidNamespace: try ownPidNamespace(),
            mountPoint: options.mountPoint,
            device: options.device
        )
        guard let own = try OwnSlot(path: directory.slot(slot), content: content) else {
            return .later(.slotTaken(slot))
        }
        let claim = SlotClaim(
            member: member,
            socketPath: directory.socket(slot),
            isFirst: before.members.isEmpty,
            clusterHigh: identity.high,
            clusterLow: identity.low
        )
        do {
            unlink(claim.socketPath)  // of an earlier life
            try prepare(claim)
            var record = before
            record.join(member, slotCount: slotCount)
            try directory.writeView(record)
        } catch {
            unlink(claim.socketPath)
            own.vacate()
            throw error
        }
        return .joined(claim, own)
    }

    /// The record; a fresh one if there is none, or if it is damaged and nobody can miss it.
    private func currentRecord() throws -> ViewRecord {
        var trouble = "gone"
        do {
            if let record = try directory.readView() { return record }
        } catch let damage as ViewRecordError {
            trouble = "damaged (\(damage))"
        }
        for slot in (0..<Superblock.maximumSlots).map(SlotIndex.init(_:)) {
            if try SlotProbe.isLocked(directory.slot(slot)) {
                throw HostClusterError(
                    "\(directory.folder)/view is \(trouble) though the volume is mounted; unmount it "
                        + "everywhere on this host, then try again"
                )
            }
        }
        return ViewRecord(volume: directory.volume.description)
    }

    /// H5.
    private func checkNamespace(_ member: Member) throws {
        guard let found = try SlotProbe.read(directory.slot(member.node.slot)),
            let content = found.content
        else { return }
        guard content.pidNamespace == (try ownPidNamespace()) else {
            throw HostClusterError(
                "the volume is mounted at \(content.mountPoint) from another PID namespace "
                    + "(a container?), from where neither can fence the other"
            )
        }
    }
}
