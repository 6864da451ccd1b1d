import BlockIO
import DiskFormat
import Execution
import FileSystem
import SimulatedMachine
import Testing
import Vocabulary
import VolumeMaking

@testable import SimulatedWorld

/// The observer of the disk (DiskOrder.swift), shown what it must not let pass.
@Suite struct DiskOrderTests {
    /// Two nodes that both have a file in PR, and a third way to the disk.
    private struct World {
        let engine: Engine
        let cluster: SimulatedCluster
        let file: ResourceName
        let stranger: SimulatedHost

        var order: DiskOrder { cluster.order }
        var superblock: Superblock { cluster.plan.superblock }

        /// Newer than what is in place, if nothing else is said.
        func block(
            _ kind: BlockKind,
            at address: BlockAddress,
            of name: ResourceName,
            version: UInt64 = 1 << 39
        ) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: Int(superblock.blockSize))
            bytes.withUnsafeMutableBytes { block in
                BlockHeader(
                    kind: kind,
                    address: address,
                    version: version,
                    volume: superblock.volume,
                    owner: name.number,
                    generation: name.generation
                ).write(to: block)
            }
            return bytes
        }

        /// Begins a write and leaves it on its way.
        func begin(_ bytes: [UInt8], at address: BlockAddress) async {
            let offset = superblock.byteOffset(address)
            engine.spawn {
                let buffer = AlignedBuffer(byteCount: bytes.count)
                buffer.bytes.copyBytes(from: bytes)
                // The run ends before it returns.
                try? await stranger.write(buffer.readOnly, at: offset)
            }
            await engine.sleep(nanoseconds: 1000)
        }
    }

    private func onTwoNodes(_ body: @escaping (World) async throws -> Void) throws {
        try runOnTwoNodes(synchronizes: true) { two in
            #expect(two.cluster.order.violation == nil && two.cluster.order.judgedRecords > 0)
            try await body(
                World(
                    engine: two.engine,
                    cluster: two.cluster,
                    file: two.file,
                    stranger: two.cluster.disk.attach("stranger")
                )
            )
        }
    }

    @Test func aRecordOverTheBeginOfTheLog() throws {
        try onTwoNodes { world in
            let slot = world.cluster.plan.slots[0]
            let header = world.cluster.disk.durable.bytes(
                at: world.superblock.byteOffset(slot.journalStart),
                count: Int(world.superblock.blockSize)
            )
            let tail = try header.withUnsafeBytes {
                try JournalHeader.read(
                    verifying: $0,
                    at: slot.journalStart,
                    volume: world.superblock.volume,
                    slot: slot.slot
                ).header.tail
            }
            func write(_ index: UInt32, blocks: Int) {
                let bytes = [UInt8](
                    repeating: 1,
                    count: blocks * Int(world.superblock.blockSize)
                )
                let start = world.superblock.byteOffset(slot.journalStart + UInt64(index))
                bytes.withUnsafeBytes { world.order.recordBegins(0, at: start, $0) }
            }
            write(tail + 1, blocks: 4)
            #expect(world.order.violation == nil)
            write(tail, blocks: 1)
            #expect(world.order.violation?.hasPrefix("W1") == true)
        }
    }

    @Test func aGroupThatIsStillBeingWritten() throws {
        try onTwoNodes { world in
            let last =
                world.superblock.groupStart(0) + UInt64(world.superblock.groupLength(0) - 1)
            let other = ResourceName.inode(InodeNumber(address: last, generation: 7))
            // Whether it may begin is another question (W7).
            world.order.powerFailed()
            await world.begin(world.block(.extentNode, at: last, of: other), at: last)
            world.order.granted(.resourceGroup(1), to: "n1.1")
            world.order.granted(.resourceGroup(0), to: world.stranger.name)
            #expect(world.order.violation == nil)
            world.order.granted(.resourceGroup(0), to: "n1.1")
            #expect(world.order.violation?.hasPrefix("W2") == true)
        }
    }

    @Test func anInodeThatIsStillBeingWritten() throws {
        try onTwoNodes { world in
            let address = BlockAddress(world.file.number)
            let other = ResourceName.inode(InodeNumber(address: address, generation: 7))
            await world.begin(world.block(.inode, at: address, of: other), at: address)
            world.order.granted(world.file, to: "n1.1")
            #expect(world.order.violation == nil)
            world.order.granted(other, to: "n1.1")
            #expect(world.order.violation?.hasPrefix("W3") == true)
        }
    }

    @Test func whatAnotherNodeHolds() throws {
        try onTwoNodes { world in
            let address = BlockAddress(world.file.number)
            let other = ResourceName.inode(InodeNumber(address: address, generation: 7))
            await world.begin(world.block(.inode, at: address, of: other), at: address)
            #expect(world.order.violation == nil)
            await world.begin(world.block(.inode, at: address, of: world.file), at: address)
            #expect(world.order.violation?.hasPrefix("W4") == true)
        }
    }

    /// A block that is in a log holds data.
    @Test func dataWhereALogHasAnImage() throws {
        try onTwoNodes { world in
            let address = BlockAddress(world.file.number)
            let data = [UInt8](repeating: 1, count: Int(world.superblock.blockSize))
            await world.begin(data, at: address + 1_000)
            #expect(world.order.violation == nil)
            await world.begin(data, at: address)
            #expect(world.order.violation?.hasPrefix("W5") == true)
        }
    }

    /// A block of which a log was to get an image, which has not arrived whole.
    @Test func dataWhereALogWasToHaveAnImage() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let path = [Array("new".utf8)]
            _ = try await two.first.perform(.create(path, isExclusive: true))
            let inode = try await two.first.kernel.status(path).inode
            two.first.member.host.faults.failEverything = true
            await #expect(throws: FileError.self) {
                _ = try await two.first.perform(.synchronize(path))
            }
            try #require(two.first.withdrawal?.contains("journal") == true)
            let order = two.cluster.order
            let superblock = two.cluster.plan.superblock
            let data = [UInt8](repeating: 1, count: Int(superblock.blockSize))
            data.withUnsafeBytes {
                order.writeBegins("n2.2", at: superblock.byteOffset(inode.address), $0)
            }
            #expect(order.violation == nil)
        }
    }

    @Test func metadataIntoABlockThatIsFree() throws {
        try onTwoNodes { world in
            let last =
                world.superblock.groupStart(0) + UInt64(world.superblock.groupLength(0) - 1)
            let gone = ResourceName.inode(InodeNumber(address: last, generation: 0))
            await world.begin(world.block(.inode, at: last, of: gone), at: last)
            #expect(world.order.violation == nil)
            let other = ResourceName.inode(InodeNumber(address: last, generation: 7))
            await world.begin(world.block(.inode, at: last, of: other), at: last)
            #expect(world.order.violation?.hasPrefix("W7") == true)
        }
    }

    /// That a block was given up counts when the transaction that says so is durable.
    @Test func metadataIntoABlockThatALogGivesUp() throws {
        try onTwoNodes { world in
            let address = BlockAddress(world.file.number)
            let other = ResourceName.inode(InodeNumber(address: address, generation: 7))
            let group = try #require(world.superblock.group(of: address))
            let start = world.superblock.groupStart(group)
            var image = world.cluster.disk.visible.bytes(
                at: world.superblock.byteOffset(start),
                count: Int(world.superblock.blockSize)
            )
            image.withUnsafeMutableBytes { block in
                let bitmap = GroupBitmap(
                    block: block,
                    blockCount: world.superblock.groupLength(group)
                )
                bitmap[UInt32(address.rawValue - start.rawValue)] = .quarantined
                BlockHeader.setVersion(1 << 40, of: block)
            }
            func log(_ sequence: UInt64, _ blocks: [UInt8]) {
                let place = world.cluster.plan.slots[0].journalStart + 200
                let owner = ResourceName.inode(
                    InodeNumber(address: BlockAddress(sequence), generation: 0)
                )
                let descriptor = world.block(.journalDescriptor, at: place, of: owner)
                (descriptor + blocks).withUnsafeBytes {
                    world.order.recordBegins(0, at: world.superblock.byteOffset(place), $0)
                }
            }
            log(900, image)
            await world.begin(world.block(.inode, at: address, of: other), at: address)
            #expect(world.order.violation == nil)
            log(901, [])
            await world.begin(world.block(.inode, at: address, of: other), at: address)
            #expect(world.order.violation?.hasPrefix("W7") == true)
        }
    }

    @Test func anOlderVersionOverANewerOne() throws {
        try onTwoNodes { world in
            let address = world.superblock.groupStart(0)
            let group = ResourceName.inode(InodeNumber(address: address, generation: 7))
            let place = world.cluster.disk.visible.bytes(
                at: world.superblock.byteOffset(address),
                count: BlockHeader.byteCount
            ).withUnsafeBytes { StatedHeader($0) }
            func write(version: UInt64) async {
                let block = world.block(.extentNode, at: address, of: group, version: version)
                await world.begin(block, at: address)
            }
            await write(version: place.version)
            #expect(world.order.violation == nil)
            await write(version: place.version - 1)
            #expect(world.order.violation?.hasPrefix("W8") == true)
        }
    }

    /// A group's block is in the log, and home in no version that is as new.
    @Test func aCleanLogOfWhatIsNotHome() throws {
        try onTwoNodes { world in
            // What the log holds already is to be left out.
            world.order.powerFailed()
            let slot = world.cluster.plan.slots[0]
            let address = world.superblock.groupStart(0)
            func callClean(after sequence: UInt64) async {
                let header = JournalHeader(
                    slot: slot.slot,
                    tailSequence: sequence + 2,
                    tail: 1,
                    length: slot.journalLength,
                    isClean: true
                )
                var bytes = [UInt8](repeating: 0, count: Int(world.superblock.blockSize))
                bytes.withUnsafeMutableBytes {
                    header.write(
                        to: $0,
                        at: slot.journalStart,
                        volume: world.superblock.volume,
                        version: 1
                    )
                }
                await world.begin(bytes, at: slot.journalStart)
            }
            func log(version: UInt64) async {
                let place = slot.journalStart + 200
                let owner = ResourceName.inode(
                    InodeNumber(address: BlockAddress(900), generation: 0)
                )
                var bytes = world.block(.journalDescriptor, at: place, of: owner)
                bytes.withUnsafeMutableBytes { block in
                    JournalDescriptorHeader(count: 1, index: 0).writeFields(to: block)
                    JournalEntry(address: address, version: version, covering: owner, checksum: 0)
                        .write(to: block, at: JournalDescriptorHeader.entriesOffset)
                }
                await world.begin(bytes, at: place)
            }
            await log(version: 1)
            await callClean(after: 900)
            #expect(world.order.violation == nil)
            await log(version: 1 << 40)
            await callClean(after: 899)
            #expect(world.order.violation == nil)
            await log(version: 1 << 40)
            await callClean(after: 900)
            #expect(world.order.violation?.hasPrefix("W6") == true)
        }
    }
}
