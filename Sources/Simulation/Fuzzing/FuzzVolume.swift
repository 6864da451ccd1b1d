// The volumes that are damaged: small, with everything the format knows, made by mkfs's code and
// filled by the file system itself. Made once for each run of a program.

import BlockIO
import CrashWorld
import DiskFormat
import Execution
import FileSystem
import SimulatedMachine
import Vocabulary
import VolumeMaking

/// A volume nobody has damaged yet.
struct FuzzVolume: Sendable {
    /// How its content came about.
    enum Story: Int, CaseIterable, Sendable {
        /// One of everything, unmounted in order.
        case everything
        /// The same, and power failed while a node worked: its journal has transactions that are
        /// not in place, and its orphan list names files.
        case crashed
        /// No block is free.
        case full
        /// As mkfs leaves it.
        case new
    }

    let superblock: Superblock
    let slots: [SlotDescriptor]
    let content: DiskContent
    /// Addresses of the blocks that hold something: by kind of metadata block; at index 0 those of
    /// data that are not zero.
    let places: [[BlockAddress]]

    private static let volumes: [Result<FuzzVolume, any Error>] = Story.allCases.map { story in
        Result { try FuzzVolume(story) }
    }

    /// The volume with that story.
    static func with(_ story: Story) throws -> FuzzVolume { try volumes[story.rawValue].get() }

    /// Two journals of the shortest length, three groups.
    static func plan(blockSize: UInt32) throws -> VolumePlan {
        var options = VolumeOptions(
            deviceSize: UInt64(blockSize) * 1024,
            volume: VolumeID(high: 0xF022, low: 1),
            created: Timestamp(seconds: SimulatedClock.epoch, nanoseconds: 0)
        )
        options.blockSize = blockSize
        options.journalCount = 2
        options.journalSize = UInt64(blockSize) * 256
        options.blocksPerGroup = 128
        options.label = "fuzzing"
        return try VolumePlan(options)
    }

    private init(_ story: Story) throws {
        let plan = try Self.plan(blockSize: 4096)
        superblock = plan.superblock
        slots = plan.slots
        content = try runSimulated(seed: 1) { engine in
            let device = MemoryBlockDevice(byteCount: plan.deviceSize)
            try await VolumeMaker.make(on: device, plan: plan)
            try await Self.fill(device, plan, engine, story)
            return device.content
        }
        places = Self.places(in: content, plan.superblock)
    }

    private static func fill(
        _ device: MemoryBlockDevice,
        _ plan: VolumePlan,
        _ engine: Engine,
        _ story: Story
    ) async throws {
        if story == .new { return }
        let node = try await CrashNode.mount(device, plan.superblock, plan.slots[0], engine)
        for (number, operation) in everything.enumerated() {
            try await node.perform(operation, number: number)
        }
        try await node.volume.stop()
        switch story {
        case .everything, .new: return
        case .crashed:
            let second = try await CrashNode.mount(device, plan.superblock, plan.slots[1], engine)
            for (number, operation) in interrupted.enumerated() {
                try await second.perform(operation, number: 1000 + number)
            }
        // It is not stopped: what follows is the failure of power.
        case .full:
            let second = try await CrashNode.mount(device, plan.superblock, plan.slots[0], engine)
            try await fillUp(second)
            try await second.volume.stop()
        }
    }

    /// Writes until there is no room for one more block.
    private static func fillUp(_ node: CrashNode) async throws {
        try await node.perform(.create("filler"), number: 2000)
        var (offset, count) = (0, 16 * 4096)
        while count >= 4096 {
            do {
                try await node.perform(.write("filler", offset: offset, count: count), number: 2001)
                try await node.perform(.synchronizeAll, number: 2002)
                offset += count
            } catch FileError.noSpace {
                count /= 2
            }
        }
    }

    /// One of everything the format knows. Long attributes leave little room in the inode's block,
    /// so that trees grow with little content.
    private static let everything: [CrashOperation] =
        [
            .makeDirectory("dir"), .makeDirectory("dir/sub"), .makeDirectory("gone"),
            .create("hello"), .write("hello", offset: 0, count: 300),
            .link("hello", at: "dir/again"),
            .create("dir/empty"), .makeSymlink("symlink", length: 30),
            .makeSymlink("long-symlink", length: 3900), .create("flat"),
            .write("flat", offset: 0, count: 9000), .write("flat", offset: 40_000, count: 5000),
            .setAttribute("flat", count: 6000), .create("short"), .setAttribute("short", count: 20),
            .create("tree"), .setAttribute("tree", count: 3700),
        ]
        + (0..<12).map { .write("tree", offset: $0 * 8192, count: 100) }
        + [.makeDirectory("many"), .setAttribute("many", count: 3000)]
        + (0..<150).map { .link("hello", at: "many/name-of-some-length-\($0)") }
        + (0..<10).map { .create("gone/\($0)") }
        + (0..<10).map { .unlink("gone/\($0)") }
        + [.removeDirectory("gone"), .synchronizeAll]

    /// What a node does before power fails.
    private static let interrupted: [CrashOperation] = [
        .create("dir/open"), .write("dir/open", offset: 0, count: 20_000), .synchronizeAll,
        .open("dir/open"), .unlink("dir/open"), .create("new"),
        .write("new", offset: 0, count: 500),
        .append("flat", count: 10_000), .unlink("many/name-of-some-length-7"),
        .rename("short", to: "dir/short"), .synchronizeAll, .truncate("tree", size: 20_000),
        .makeDirectory("dir/late"), .synchronize("dir/late"),
    ]

    private static func places(
        in content: DiskContent,
        _ superblock: Superblock
    ) -> [[BlockAddress]] {
        var places = [[BlockAddress]](repeating: [], count: BlockKind.allCases.count + 1)
        let buffer = AlignedBuffer(byteCount: Int(superblock.blockSize))
        for number in 0..<superblock.blockCount {
            let address = BlockAddress(number)
            content.read(buffer.bytes, at: superblock.byteOffset(address))
            let header = try? BlockHeader(
                verifying: buffer.readOnly,
                at: address,
                volume: superblock.volume
            )
            if let header {
                places[Int(header.kind.rawValue)].append(address)
            } else if !buffer.readOnly.isAllZero {
                places[0].append(address)
            }
        }
        return places
    }

    /// A block, by two numbers of any value: a kind, and which of the kind.
    func place(_ kind: UInt8, _ index: UInt8) -> BlockAddress {
        var kind = Int(kind) % places.count
        while places[kind].isEmpty { kind = (kind + 1) % places.count }
        return places[kind][Int(index) % places[kind].count]
    }
}
