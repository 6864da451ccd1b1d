import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import SimulatedMachine
import Vocabulary
import VolumeMaking

/// A made volume with a journal and a store on a simulated disk, used without locks by one task at
/// a time.
final class TestVolume {
    let engine: Engine
    let disk: SimulatedDisk
    let device: any BlockDevice
    let superblock: Superblock
    private(set) var cache: MetadataCache
    private(set) var journal: Journal
    private(set) var store: FileStore
    private let plan: VolumePlan
    private var descriptor: SlotDescriptor { plan.slots[0] }
    private let cacheCapacity: Int

    private init(
        engine: Engine,
        disk: SimulatedDisk,
        device: any BlockDevice,
        plan: VolumePlan,
        cacheCapacity: Int
    ) async throws {
        self.engine = engine
        self.disk = disk
        self.device = device
        self.plan = plan
        superblock = plan.superblock
        let descriptor = plan.slots[0]
        self.cacheCapacity = cacheCapacity
        cache = MetadataCache(
            device: device,
            superblock: superblock,
            capacity: cacheCapacity
        )
        journal = try await Journal.open(
            device: device,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            engine: engine
        )
        store = FileStore(superblock: superblock, cache: cache)
    }

    static func make(
        _ engine: Engine,
        mebibytes: UInt64 = 32,
        blockSize: UInt32 = 4096,
        blocksPerGroup: UInt32? = 1024,
        cacheCapacity: Int = 500
    ) async throws -> TestVolume {
        var options = VolumeOptions(
            deviceSize: mebibytes << 20,
            volume: VolumeID(high: 1, low: 2),
            created: Timestamp(seconds: 1_700_000_000, nanoseconds: 0)
        )
        options.blockSize = blockSize
        options.blocksPerGroup = blocksPerGroup
        options.journalCount = 1
        options.journalSize = 1024 * UInt64(blockSize)
        let plan = try VolumePlan(options)
        let disk = SimulatedDisk(
            byteCount: mebibytes << 20,
            executor: engine.seededExecutor
        )
        let device = disk.attach()
        try await VolumeMaker.make(on: device, plan: plan)
        return try await TestVolume(
            engine: engine,
            disk: disk,
            device: device,
            plan: plan,
            cacheCapacity: cacheCapacity
        )
    }

    /// The same volume as another device holds it, whose journal was not left in order by us.
    func opened(on device: any BlockDevice) async throws -> TestVolume {
        let buffer = AlignedBuffer(byteCount: Int(superblock.blockSize))
        JournalHeader(
            slot: descriptor.slot,
            tailSequence: 1 << 32,
            tail: 1,
            length: descriptor.journalLength,
            isClean: true
        ).write(
            to: buffer.bytes,
            at: descriptor.journalStart,
            volume: superblock.volume,
            version: 1 << 32
        )
        try await device.write(
            buffer.readOnly,
            at: superblock.byteOffset(descriptor.journalStart)
        )
        return try await TestVolume(
            engine: engine,
            disk: disk,
            device: device,
            plan: plan,
            cacheCapacity: cacheCapacity
        )
    }

    /// Writes everything home and starts with an empty memory.
    func remount() async throws {
        try await journal.close()
        cache = MetadataCache(device: device, superblock: superblock, capacity: cacheCapacity)
        journal = try await Journal.open(
            device: device,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            engine: engine
        )
        store = FileStore(superblock: superblock, cache: cache)
    }

    /// All groups' indices.
    var everyGroup: [UInt32] { Array(0..<superblock.groupCount) }

    /// One operation, as the file system would do it: groups, transaction, blocks set aside,
    /// change, end.
    func change<Result>(
        _ cost: OperationCost,
        groups indices: [UInt32]? = nil,
        _ body: (Allocator) async throws -> Result
    ) async throws -> Result {
        var groups: [ResourceGroup] = []
        for index in indices ?? everyGroup { groups.append(try await store.group(index)) }
        let transaction = try await journal.begin(blocks: cost.modifiedBlocks + groups.count)
        let allocator = Allocator(store: store, groups: groups, transaction: transaction)
        defer {
            allocator.end()
            transaction.end()
        }
        guard allocator.reserve(metadata: cost.newBlocks) else { throw StoreError.noSpace }
        return try await body(allocator)
    }

    /// Traps unless every group in memory is in order.
    func checkGroups() {
        for index in everyGroup { store.groupIfLoaded(index)?.checkInvariants() }
    }

    var root: StoredInode {
        get async throws { try await store.readInode(superblock.root) }
    }

    /// Makes an inode and a name for it in the root directory.
    func make(_ name: String, mode: UInt32) async throws -> StoredInode {
        let root = try await root
        let directory = Directory(store, root)
        let insertion = try await directory.prepareInsertion(name)
        var record = InodeRecord(
            mode: mode,
            user: 0,
            group: 0,
            linkCount: 1,
            born: Timestamp(seconds: 1, nanoseconds: 2)
        )
        if record.isDirectory {
            record.linkCount = 2
            record.parent = root.number
        }
        return try await change(insertion.cost + FileStore.makeInodeCost) { allocator in
            let inode = store.makeInode(record, near: root.number.address, with: allocator)
            if record.isDirectory { root.record.linkCount += 1 }
            try directory.insert(
                insertion,
                name,
                target: inode.number,
                type: UInt8(mode >> 12),
                with: allocator
            )
            return inode
        }
    }

    /// An empty file that keeps its data in extents.
    func makeFile(_ name: String) async throws -> StoredInode {
        let file = try await make(name, mode: 0o100644)
        try await change(OperationCost(newBlocks: 0, modifiedBlocks: 1), groups: []) {
            _ = file.convertInlineDataToExtents(in: $0.transaction)
        }
        return file
    }

    /// Removes all extents.
    func truncate(_ file: StoredInode, to start: UInt64 = 0) async throws {
        let extents = ExtentMap(store, file)
        while let step = try await extents.nextRemoval(from: start) {
            try await change(step.cost, groups: step.groups) { try extents.remove(step, with: $0) }
        }
    }

    /// Blocks that are neither free nor quarantined nor frozen.
    func freeBlocks() async throws -> UInt32 {
        try await journal.checkpointAll()
        var count: UInt32 = 0
        for index in everyGroup {
            let group = try await store.group(index)
            // Looks at all that has come home since.
            _ = group.releasable
            count += group.freeForMetadata
        }
        return count
    }
}

extension Directory {
    func find(_ name: String) async throws -> DirectoryEntryRecord? {
        let bytes = Array(name.utf8)
        return try await find(bytes)
    }

    func find(_ name: [UInt8]) async throws -> DirectoryEntryRecord? {
        let copy = Bytes(name)
        return try await find(copy.readOnly)
    }

    func prepareInsertion(_ name: String) async throws -> DirectoryInsertion {
        try await prepareInsertion(Array(name.utf8))
    }

    func prepareInsertion(_ name: [UInt8]) async throws -> DirectoryInsertion {
        let copy = Bytes(name)
        return try await prepareInsertion(copy.readOnly)
    }

    func insert(
        _ insertion: DirectoryInsertion,
        _ name: String,
        target: InodeNumber,
        type: UInt8,
        with allocator: Allocator
    ) throws {
        try insert(insertion, Array(name.utf8), target: target, type: type, with: allocator)
    }

    func insert(
        _ insertion: DirectoryInsertion,
        _ name: [UInt8],
        target: InodeNumber,
        type: UInt8,
        with allocator: Allocator
    ) throws {
        let copy = Bytes(name)
        try insert(insertion, copy.readOnly, target: target, type: type, with: allocator)
    }

    func prepareRemoval(_ name: [UInt8]) async throws -> DirectoryRemoval {
        let copy = Bytes(name)
        return try await prepareRemoval(copy.readOnly)
    }

    func locate(_ name: [UInt8]) async throws -> DirectoryLocation {
        let copy = Bytes(name)
        return try await locate(copy.readOnly)
    }
}

extension ExtendedAttributes {
    func value(_ name: String) async throws -> [UInt8] {
        let copy = Bytes(Array(name.utf8))
        return try await value(copy.readOnly)
    }

    func prepareSet(
        _ name: String,
        _ value: [UInt8],
        _ expectation: AttributeExpectation = .any
    ) async throws -> AttributeUpdate {
        let name = Bytes(Array(name.utf8))
        let value = Bytes(value)
        return try await prepareSet(name.readOnly, value.readOnly, expectation)
    }

    func prepareRemove(_ name: String) async throws -> AttributeUpdate {
        let copy = Bytes(Array(name.utf8))
        return try await prepareRemove(copy.readOnly)
    }
}

/// Bytes that stay where they are over an await.
final class Bytes {
    private let buffer: UnsafeMutableRawBufferPointer

    init(_ bytes: [UInt8]) {
        buffer = .allocate(byteCount: bytes.count, alignment: 1)
        buffer.copyBytes(from: bytes)
    }

    deinit { buffer.deallocate() }

    var readOnly: UnsafeRawBufferPointer { UnsafeRawBufferPointer(buffer) }
}

/// The name of the `StoreError` that `body` throws; nil if it throws none.
func storeError(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch let error as StoreError {
        if case .storage(.format) = error { return "damage" }
        return "\(error)"
    } catch {
        return "another error: \(error)"
    }
}

/// Whether `body` throws because metadata is not what it should be.
func isDamage(_ body: () async throws -> Void) async -> Bool {
    await storeError(body) == "damage"
}
