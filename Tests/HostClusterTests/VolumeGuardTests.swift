import BlockIO
import DiskFormat
import Glibc
import HostCluster
import LinuxBlockIO
import LinuxSystem
import Testing
import Vocabulary

/// The guard on a real image, with two or more clusters that know nothing of each other.
@Suite(.serialized) struct VolumeGuardTests {
    let folder: TemporaryFolder
    let path: String
    let superblock: Superblock
    let timing: GuardTiming
    let here = HostIdentity(host: "here", machineID: "m1", bootID: "b1")
    let elsewhere = HostIdentity(host: "elsewhere", machineID: "m2", bootID: "b7")

    init() throws {
        folder = try TemporaryFolder()
        path = try folder.file("image", byteCount: 1 << 20)
        superblock = Superblock(
            volume: VolumeID(high: 11, low: 12),
            features: .none,
            blockSize: 4096,
            blockCount: 256,
            slotCapacity: 4,
            slotCount: 2,
            slotTable: BlockAddress(17),
            guardTable: BlockAddress(21),
            firstGroup: BlockAddress(32),
            blocksPerGroup: 224,
            groupCount: 1,
            root: InodeNumber(address: BlockAddress(40), generation: 1),
            regionSize: 4096,
            created: .zero,
            clusterName: "",
            volumeName: "",
            label: ""
        )
        var timing = GuardTiming()
        timing.beat = 20_000_000
        timing.watch = 600_000_000
        timing.settle = 20_000_000
        self.timing = timing
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let block = AlignedBuffer(zeroed: 4096)
        GuardRecord.free.write(
            to: block.bytes,
            at: superblock.guardTable,
            volume: superblock.volume,
            version: 1
        )
        try device.writeNow(block.readOnly, at: superblock.byteOffset(superblock.guardTable))
    }

    /// What a node of some run directory claims.
    private func claim(_ cluster: UInt64, slot: UInt32, first: Bool = true) -> SlotClaim {
        SlotClaim(
            member: Member(node: NodeID(slot: SlotIndex(slot)), incarnation: cluster * 100 + 1),
            socketPath: "",
            isFirst: first,
            clusterHigh: cluster,
            clusterLow: ~cluster
        )
    }

    private func enter(
        _ device: FileBlockDevice,
        _ claim: SlotClaim,
        host: HostIdentity? = nil,
        takeover: Bool = false,
        onLost: @escaping @Sendable (String) -> Void = { _ in }
    ) throws -> VolumeGuard {
        try VolumeGuard(
            entering: device,
            superblock,
            as: claim,
            takeover: takeover,
            host: host ?? here,
            timing: timing,
            onLost: onLost,
            onReport: { _ in }
        )
    }

    private func readGuard(_ device: FileBlockDevice) throws -> GuardRecord {
        let block = AlignedBuffer(zeroed: 4096)
        try device.readNow(block.bytes, at: superblock.byteOffset(superblock.guardTable))
        return try GuardRecord.read(
            verifying: block.readOnly,
            at: superblock.guardTable,
            volume: superblock.volume
        ).record
    }

    @Test func aFreeVolumeIsTakenAndFreedAgain() throws {
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let first = try enter(device, claim(1, slot: 0))
        let second = try enter(device, claim(1, slot: 1, first: false))
        #expect(try readGuard(device).clusterHigh == 1)
        try first.end()
        try second.end()
        try second.end()
        try second.release()
        #expect(try readGuard(device) == .free)
        // And somebody else may have it.
        let third = try enter(device, claim(2, slot: 0), host: elsewhere)
        try third.end()
        try third.release()
    }

    @Test func aLivingClusterIsNotPushedAside() throws {
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let owner = try enter(device, claim(1, slot: 1), host: elsewhere)
        let other = try FileBlockDevice(path: path)
        defer { other.close() }
        // Another run directory of the same host and boot, and another host; even if told to take
        // over.
        for (host, takeover) in [(elsewhere, false), (here, false), (here, true)] {
            #expect(throws: GuardRefusal.inUse(by: "host 'elsewhere'")) {
                _ = try enter(other, claim(2, slot: 0), host: host, takeover: takeover)
            }
        }
        #expect(throws: GuardRefusal.self) {
            _ = try enter(other, claim(2, slot: 0, first: false))
        }
        #expect(try readGuard(device).clusterHigh == 1)
        try owner.end()
        try owner.release()
    }

    @Test func aSilentOwnerNeedsAnOrder() throws {
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let dead = try enter(device, claim(1, slot: 0), host: elsewhere)
        try dead.end()  // silent, but it never freed the guard
        #expect(throws: GuardRefusal.leftBehind(by: "host 'elsewhere'")) {
            _ = try enter(device, claim(2, slot: 0))
        }
        #expect(try readGuard(device).clusterHigh == 1)
        let next = try enter(device, claim(2, slot: 0), takeover: true)
        #expect(try readGuard(device).clusterHigh == 2)
        try next.end()
        // The same run directory needs none: it has seen that its own nodes are dead.
        let again = try enter(device, claim(2, slot: 1))
        try again.end()
    }

    @Test func aMachineTakesBackWhatItsEarlierBootHad() throws {
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let before = HostIdentity(host: "here", machineID: "m1", bootID: "b0")
        #expect(here.isLaterBoot(than: before.text))
        #expect(!here.isLaterBoot(than: here.text))
        #expect(!here.isLaterBoot(than: elsewhere.text))
        let unknown = HostIdentity(host: "here", machineID: "", bootID: "b1")
        #expect(!unknown.isLaterBoot(than: before.text))
        try enter(device, claim(1, slot: 0), host: before).end()
        try enter(device, claim(2, slot: 0), host: here).end()
        // Two run directories of one boot: one of them may only be stopped.
        #expect(throws: GuardRefusal.leftBehind(by: "host 'here'")) {
            _ = try enter(device, claim(3, slot: 0), host: here)
        }
    }

    @Test func whoIsPushedAsideIsTold() throws {
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let latch = Latch()
        let told = WaitCondition()
        nonisolated(unsafe) var reason: String?
        let owner = try enter(device, claim(1, slot: 0), host: elsewhere) { why in
            latch.withLock { reason = why }
            told.broadcast()
        }
        // What a takeover writes, while this owner was thought dead.
        let block = AlignedBuffer(zeroed: 4096)
        GuardRecord(mode: .hostLocal, clusterHigh: 9, clusterLow: 9, host: "thief").write(
            to: block.bytes,
            at: superblock.guardTable,
            volume: superblock.volume,
            version: 99
        )
        try device.writeNow(block.readOnly, at: superblock.byteOffset(superblock.guardTable))
        latch.withLock { while reason == nil { told.wait(latch) } }
        #expect(reason == "the volume's guard was taken by host 'thief'")
        try owner.end()
        #expect(throws: GuardRefusal.notOurs(by: "host 'thief'")) { try owner.release() }
        #expect(try readGuard(device).host == "thief")
    }

    @Test func toolsAskTheGuardToo() throws {
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let run = folder.path + "/run"
        func ask(force: Bool) throws {
            try VolumeGuard.ensureNobody(
                on: device,
                superblock,
                runDirectory: run,
                force: force,
                host: here,
                timing: timing
            )
        }
        try ask(force: false)
        let owner = try enter(device, claim(1, slot: 0), host: elsewhere)
        #expect(throws: GuardRefusal.inUse(by: "host 'elsewhere'")) { try ask(force: true) }
        try owner.end()
        #expect(throws: GuardRefusal.leftBehind(by: "host 'elsewhere'")) {
            try ask(force: false)
        }
        try ask(force: true)
    }

    @Test func aDamagedGuardIsAnError() throws {
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let block = AlignedBuffer(zeroed: 4096)
        try device.writeNow(block.readOnly, at: superblock.byteOffset(superblock.guardTable))
        #expect(throws: FormatError.notMetadata(superblock.guardTable)) {
            _ = try enter(device, claim(1, slot: 0))
        }
    }

    @Test func hostNamesOfAnyLengthFit() throws {
        let long = HostIdentity(
            host: String(repeating: "h", count: 300),
            machineID: "m",
            bootID: "b"
        )
        #expect(long.text.utf8.count <= 63)
        #expect(try HostIdentity().text.utf8.count <= 63)
    }
}
