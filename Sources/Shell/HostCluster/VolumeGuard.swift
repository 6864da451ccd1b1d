// The guard on disk against being mounted by somebody who does not know of us: another host that
// sees the same device, a container, another run directory of this host. The run directory cannot
// see them; the volume can.
//
// One block names the cluster that has the volume: its mode and a random identity (of the run
// directory). One block per slot carries a heartbeat, which its node moves every second. The first
// node of a cluster takes the guard, the last one to leave frees it; those between check that it is
// theirs.
//
//   guard is free                         take it
//   guard is ours (same identity)         take it: the run directory has shown that all of us are
//   dead
//   guard is foreign, a heartbeat moves   refuse, whatever the options say: somebody is writing
//   guard is foreign, all stand still     refuse unless told to take over: a stopped virtual
//   machine, a
//                                         cut cable or a host that hangs looks exactly like this,
//                                         and goes on writing when it comes back
//   ... and it was this machine before    take it, and say so: what ran before the last boot of
//   this
//       its last boot                     very machine (host name and machine id) is certainly gone
//
// Invariants
// V1. Nothing but guard and heartbeat blocks is written before the guard is ours.
// V2. A foreign guard is never taken after a time-out alone.
// V3. What was written is read again after a pause longer than a write takes: of two who take a
// free guard
//     at the same time, the first reads the other's name and gives way.
// V4. Every beat reads the guard again. If it is not ours any more, somebody has taken over by
// force: this
//     node must stop (`onLost`).
// V6. While the volume is frozen (FileSystem/Freezing.swift) nothing is written, and V4 goes on. Whoever
//     watches sees heartbeats that stand still, which lets nobody in who does not insist (V2).
// V5. The heartbeat of a slot is written by the node that lives there alone, with a number that
// only
//     grows.

package import BlockIO
package import DiskFormat
import Glibc
import LinuxSystem
import Vocabulary

/// Why the guard on disk does not let a mount in, in one line.
package enum GuardRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// Somebody else has it mounted now.
    case inUse(by: String)
    /// Somebody else had it mounted and did not say goodbye.
    case leftBehind(by: String)
    /// Somebody else took it at the same moment.
    case takenMeanwhile(by: String)
    /// This cluster's guard is gone from the disk.
    case notOurs(by: String)

    package var description: String {
        switch self {
        case .inUse(let host):
            "the volume is mounted by \(host), in a cluster that this mount is not of (another host, container "
                + "or run directory)"
        case .leftBehind(let host):
            "the volume was mounted by \(host) and not unmounted; if that mount cannot come back "
                + "(its host is off, or its processes are gone), use -o takeover"
        case .takenMeanwhile(let host): "the volume was mounted by \(host) at the same moment"
        case .notOurs(let host): "the volume's guard was taken by \(host)"
        }
    }
}

/// Times of the guard, in nanoseconds.
package struct GuardTiming: Hashable, Sendable {
    /// Between two heartbeats.
    package var beat: UInt64 = 1_000_000_000
    /// How long foreign heartbeats are watched: several beats of the slowest host.
    package var watch: UInt64 = 5_000_000_000
    /// Between writing the guard and reading it again (V3).
    package var settle: UInt64 = 200_000_000

    package init() {}
}

/// Who this host is, for the guard.
package struct HostIdentity: Hashable, Sendable {
    /// Host name, machine and boot, as the guard block shows it: at most 63 bytes.
    package let text: String
    private let machine: String?

    /// Of this host.
    package init() throws {
        var name = [CChar](repeating: 0, count: 65)
        guard gethostname(&name, 64) == 0 else { throw SystemError.last("gethostname") }
        let host = String(
            decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) },
            as: UTF8.self
        )
        let boot = try readSmallFile("/proc/sys/kernel/random/boot_id")
        let machine = try readSmallFile("/etc/machine-id")
        self.init(host: host, machineID: machine ?? "", bootID: boot ?? "")
    }

    /// Of a host that is described. Without a machine id or a boot id it is like no other.
    package init(host: String, machineID: String, bootID: String) {
        let short = String(decoding: host.utf8.prefix(30), as: UTF8.self)
        let known = !machineID.isEmpty && !bootID.isEmpty
        let machine = "\(short) machine=\(Self.digits(machineID))"
        self.machine = known ? machine : nil
        text = known ? "\(machine) boot=\(Self.digits(bootID))" : short
    }

    private static func digits(_ text: String) -> String {
        let sum = Array(text.utf8).withUnsafeBytes { crc32c($0) }
        let digits = String(sum, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    /// Whether `other` was this machine before its last boot.
    package func isLaterBoot(than other: String) -> Bool {
        guard let machine else { return false }
        return other.hasPrefix(machine + " boot=") && other != text
    }
}

/// One node's hold on the guard of a volume. See the head of this file.
package final class VolumeGuard: @unchecked Sendable {
    // Sendable: all but what the latch guards is constant; the beat belongs to whoever beats.

    private let area: GuardArea
    private let claim: SlotClaim
    private let record: GuardRecord
    private let timing: GuardTiming
    private let onLost: @Sendable (String) -> Void
    private let latch = Latch()
    private let ending = WaitCondition()
    private var isEnding = false
    /// Nothing is written (V6).
    private var isHeld = false
    /// A heartbeat is being written.
    private var isBeating = false
    /// Whom to tell that it is not any more.
    private var whenHeld: (@Sendable () -> Void)?
    private var thread: RunningThread?
    private var beat: UInt64

    /// Enters: the first node of a cluster takes the guard (up to `timing.watch` if it is foreign),
    /// others check that it is theirs. For `prepare` of `HostCluster.join`. From then on a thread
    /// moves the heartbeat until `end`.
    ///
    /// `onLost` is called, from that thread, when the guard was taken by force: this node must stop
    /// writing at once. `onReport` gets lines for the log.
    /// - Throws: `GuardRefusal`, `DeviceError`, `FormatError`, `SystemError`.
    package init(
        entering device: any BlockingBlockDevice,
        _ superblock: Superblock,
        as claim: SlotClaim,
        takeover: Bool,
        host: HostIdentity,
        timing: GuardTiming = GuardTiming(),
        onLost: @escaping @Sendable (String) -> Void,
        onReport: @escaping @Sendable (String) -> Void
    ) throws {
        area = GuardArea(device: device, superblock: superblock)
        self.claim = claim
        self.timing = timing
        self.onLost = onLost
        record = GuardRecord(
            mode: .hostLocal,
            clusterHigh: claim.clusterHigh,
            clusterLow: claim.clusterLow,
            host: host.text
        )
        beat = try area.beat(of: claim.member.node.slot)?.beat ?? 0
        if claim.isFirst {
            try Self.ensureFree(
                area,
                ours: record,
                host: host,
                takeover: takeover,
                timing: timing,
                onReport: onReport
            )
            try take()
        } else {
            let found = try area.guardRecord().record
            guard found.isSameCluster(as: record) else {
                throw GuardRefusal.notOurs(by: found.owner)
            }
        }
        try writeBeat()
        thread = try runThread(name: "guard") { [self] in keepBeating(onReport) }
    }

    /// Refuses unless nobody can have the volume mounted: for tools that work on an unmounted
    /// volume, with `force` for what `-o takeover` means to a mount. Nothing is written. Who has
    /// the run directory of this cluster is judged by that (`OfflineClaim`), not here.
    /// - Throws: `GuardRefusal`, `DeviceError`, `FormatError`, and what reading the identity
    /// throws.
    package static func ensureNobody(
        on device: any BlockingBlockDevice,
        _ superblock: Superblock,
        runDirectory: String?,
        force: Bool,
        host: HostIdentity,
        timing: GuardTiming = GuardTiming()
    ) throws {
        let directory = try RunDirectory(root: runDirectory, volume: superblock.volume)
        try directory.make()
        let identity = try directory.identity()
        let ours = GuardRecord(
            mode: .hostLocal,
            clusterHigh: identity.high,
            clusterLow: identity.low,
            host: host.text
        )
        try ensureFree(
            GuardArea(device: device, superblock: superblock),
            ours: ours,
            host: host,
            takeover: force,
            timing: timing,
            onReport: { _ in }
        )
    }

    /// The table at the head of this file.
    private static func ensureFree(
        _ area: GuardArea,
        ours: GuardRecord,
        host: HostIdentity,
        takeover: Bool,
        timing: GuardTiming,
        onReport: (String) -> Void
    ) throws {
        let found = try area.guardRecord().record
        if found.mode == .free || found.isSameCluster(as: ours) { return }
        let before = try area.allBeats()
        let deadline = monotonicNow() + timing.watch
        repeat {
            pause(min(timing.beat / 2, timing.watch))
            if try area.allBeats() != before { throw GuardRefusal.inUse(by: found.owner) }
        } while monotonicNow() < deadline
        guard try area.guardRecord().record == found else {
            throw GuardRefusal.inUse(by: found.owner)
        }
        if host.isLaterBoot(than: found.host) {
            onReport("the volume was in use when this host went down; recovering it")
        } else if takeover {
            onReport("taking the volume over from \(found.owner), as ordered")
        } else {
            throw GuardRefusal.leftBehind(by: found.owner)  // V2
        }
    }

    /// V3.
    private func take() throws {
        try area.write(record, version: area.guardRecord().version + 1)
        Self.pause(timing.settle)
        let found = try area.guardRecord().record
        guard found == record else { throw GuardRefusal.takenMeanwhile(by: found.owner) }
    }

    /// Stops the heartbeat and says on disk that nobody lives in the slot (but V6). Before the node leaves
    /// its cluster. Blocks. Idempotent.
    package func end() throws {
        let running = latch.withLock { () -> RunningThread? in
            isEnding = true
            defer { thread = nil }
            return thread
        }
        ending.broadcast()
        guard let running else { return }
        running.join()
        if latch.withLock({ isHeld }) { return }
        beat += 1
        try area.write(
            SlotHeartbeat(
                slot: claim.member.node.slot,
                incarnation: 0,
                beat: beat,
                clusterHigh: claim.clusterHigh,
                clusterLow: claim.clusterLow
            )
        )
    }

    /// Frees the guard. By the last node, after `end`, when all journals are clean: in `lastOut` of
    /// `HostCluster.leave`.
    package func release() throws {
        let (found, version) = try area.guardRecord()
        guard found.isSameCluster(as: record) else { throw GuardRefusal.notOurs(by: found.owner) }
        try area.write(.free, version: version + 1)
    }

    // MARK: The thread

    private func keepBeating(_ onReport: @Sendable (String) -> Void) {
        var lastTrouble = ""
        var next = monotonicNow()
        while true {
            next += timing.beat
            let ended = latch.withLock { () -> Bool in
                while !isEnding && ending.wait(latch, until: Tick(next)) {}
                return isEnding
            }
            if ended { return }
            next = max(next, monotonicNow())  // a disk that was slow is not beaten in a hurry
            do {
                try beatUnlessHeld()
                let found = try area.guardRecord().record
                guard found.isSameCluster(as: record) else {
                    onLost("\(GuardRefusal.notOurs(by: found.owner))")
                    return
                }
                lastTrouble = ""
            } catch DeviceError.closed {
                return  // the node has withdrawn
            } catch {
                if "\(error)" != lastTrouble { onReport("heartbeat on disk: \(error)") }
                lastTrouble = "\(error)"
            }
        }
    }

    /// Writes nothing from now on, until `release`; calls `done`, from some thread or before this returns, when
    /// nothing is being written any more.
    package func hold(_ done: @escaping @Sendable () -> Void) {
        let waits = latch.withLock { () -> Bool in
            isHeld = true
            if isBeating { whenHeld = done }
            return isBeating
        }
        if !waits { done() }
    }

    /// Ends `hold`.
    package func goOn() { latch.withLock { isHeld = false } }

    private func beatUnlessHeld() throws {
        let mayWrite = latch.withLock { () -> Bool in
            isBeating = !isHeld
            return isBeating
        }
        if !mayWrite { return }
        defer {
            let done = latch.withLock { () -> (@Sendable () -> Void)? in
                isBeating = false
                defer { whenHeld = nil }
                return whenHeld
            }
            done?()
        }
        try writeBeat()
    }

    private func writeBeat() throws {
        beat += 1
        try area.write(
            SlotHeartbeat(
                slot: claim.member.node.slot,
                incarnation: claim.member.incarnation,
                beat: beat,
                clusterHigh: claim.clusterHigh,
                clusterLow: claim.clusterLow
            )
        )
    }

    /// Lets time pass: a disk has no events to wait for.
    private static func pause(_ nanoseconds: UInt64) {
        let deadline = Tick(monotonicNow() + nanoseconds)
        let latch = Latch()
        let never = WaitCondition()
        latch.withLock { while never.wait(latch, until: deadline) {} }
    }
}

extension GuardRecord {
    /// Whether two records name one cluster, whichever node wrote them.
    fileprivate func isSameCluster(as other: GuardRecord) -> Bool {
        mode == other.mode && clusterHigh == other.clusterHigh && clusterLow == other.clusterLow
    }

    /// Who it is, for messages.
    fileprivate var owner: String {
        let kind =
            switch mode {
            case .free: "nobody"
            case .hostLocal: "a host"
            case .corosync: "a corosync cluster"
            case .alone: "a host that mounts it alone"
            }
        let name = host.split(separator: " ").first.map(String.init) ?? ""
        return name.isEmpty ? kind : "host '\(name)'"
    }
}

/// The guard blocks of a volume.
private struct GuardArea {
    let device: any BlockingBlockDevice
    let superblock: Superblock

    private func withBlock<Result>(
        _ body: (UnsafeMutableRawBufferPointer) throws -> Result
    ) rethrows -> Result {
        let buffer = AlignedBuffer(byteCount: Int(superblock.blockSize))
        return try withExtendedLifetime(buffer) { try body(buffer.bytes) }
    }

    /// Reads and decodes. Somebody may be writing the block at that moment: what does not verify is
    /// read again a few times.
    private func read<Value>(
        _ address: BlockAddress,
        _ decode: (UnsafeRawBufferPointer) throws -> Value
    ) throws -> Value {
        try withBlock { block in
            var attempts = 0
            while true {
                try device.readNow(block, at: superblock.byteOffset(address))
                do {
                    return try decode(UnsafeRawBufferPointer(block))
                } catch {
                    attempts += 1
                    if attempts == 5 { throw error }
                }
            }
        }
    }

    func guardRecord() throws -> (record: GuardRecord, version: UInt64) {
        try read(superblock.guardTable) {
            try GuardRecord.read(
                verifying: $0,
                at: superblock.guardTable,
                volume: superblock.volume
            )
        }
    }

    /// Durable when it returns.
    func write(_ record: GuardRecord, version: UInt64) throws {
        try withBlock { block in
            record.write(
                to: block,
                at: superblock.guardTable,
                volume: superblock.volume,
                version: version
            )
            try device.writeNow(
                UnsafeRawBufferPointer(block),
                at: superblock.byteOffset(superblock.guardTable)
            )
            try device.flushNow()
        }
    }

    /// The heartbeat of a slot; nil if the block cannot be read as one: it may be written anew.
    func beat(of slot: SlotIndex) throws(DeviceError) -> SlotHeartbeat? {
        let address = superblock.heartbeat(slot)
        do {
            return try read(address) {
                try SlotHeartbeat(verifying: $0, at: address, volume: superblock.volume)
            }
        } catch let error as DeviceError {
            throw error
        } catch {
            return nil
        }
    }

    /// The heartbeats of all slots that the volume can have.
    func allBeats() throws -> [SlotHeartbeat?] {
        try (0..<superblock.slotCapacity).map { try beat(of: SlotIndex($0)) }
    }

    /// Visible to all who read the device when it returns; need not be durable.
    func write(_ heartbeat: SlotHeartbeat) throws {
        try withBlock { block in
            let address = superblock.heartbeat(heartbeat.slot)
            heartbeat.write(to: block, at: address, volume: superblock.volume)
            try device.writeNow(
                UnsafeRawBufferPointer(block),
                at: superblock.byteOffset(address)
            )
        }
    }
}
