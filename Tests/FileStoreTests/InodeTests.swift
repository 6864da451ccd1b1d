import DiskFormat
import FileStore
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct InodeTests {
    private static let one = OperationCost(newBlocks: 0, modifiedBlocks: 1)

    @Test func inlineData() throws {
        try runSimulated(seed: 1) { engine in
            let volume = try await TestVolume.make(engine)
            let file = try await volume.make("file", mode: 0o100644)
            var model: [UInt8] = []
            var dice = SeededGenerator(seed: 1)
            for _ in 0..<300 {
                let offset = dice.below(dice.oneIn(3) ? file.inlineCapacity : model.count + 1)
                if dice.oneIn(4) {
                    try await volume.change(Self.one, groups: []) {
                        file.resizeInline(to: UInt64(offset), in: $0.transaction)
                    }
                    model = Array(model.prefix(offset))
                    model += [UInt8](repeating: 0, count: offset - model.count)
                } else {
                    let length = dice.below(file.inlineCapacity - offset + 1)
                    let bytes = (0..<length).map { _ in UInt8(truncatingIfNeeded: dice.next()) }
                    try await volume.change(Self.one, groups: []) { change in
                        bytes.withUnsafeBytes {
                            file.writeInline($0, at: UInt64(offset), in: change.transaction)
                        }
                    }
                    if model.count < offset {
                        model += [UInt8](repeating: 0, count: offset - model.count)
                    }
                    model.replaceSubrange(
                        offset..<min(model.count, offset + length),
                        with: bytes
                    )
                }
                #expect(file.inlineData == model && file.record.size == UInt64(model.count))
                let start = dice.below(5000)
                var buffer = [UInt8](repeating: 1, count: dice.below(5000))
                let count = buffer.withUnsafeMutableBytes {
                    file.readInline(at: UInt64(start), into: $0)
                }
                #expect(
                    Array(buffer.prefix(count))
                        == Array(model.dropFirst(start).prefix(buffer.count))
                )
            }
            try await volume.remount()
            let again = try await volume.store.readInode(file.number)
            #expect(again.inlineData == model)
            try await convert(again, model, volume)
        }
    }

    /// From inline data to extents and, empty, back.
    private func convert(
        _ again: StoredInode,
        _ model: [UInt8],
        _ volume: TestVolume
    ) async throws {
        let data = try await volume.change(Self.one, groups: []) {
            again.convertInlineDataToExtents(in: $0.transaction)
        }
        #expect(
            data == model && !again.hasInlineData && again.record.size == UInt64(model.count)
        )
        #expect(
            try await ExtentMap(volume.store, again).lookup(0) == .hole(until: .max)
        )
        try await volume.change(Self.one, groups: []) {
            again.record.size = 0
            again.convertEmptyExtentsToInlineData(in: $0.transaction)
        }
        #expect(again.inlineData == [])
        try await volume.remount()
        try await volume.expectSound()
    }

    /// Inodes come and go; numbers are never used twice and old ones are stale, at once and after a
    /// remount.
    @Test(arguments: [2, 3] as [UInt64])
    func numbersAreNeverUsedTwice(seed: UInt64) throws {
        try runSimulated(seed: seed) { engine in
            let volume = try await TestVolume.make(engine, mebibytes: 16, blocksPerGroup: 128)
            let free = try await volume.freeBlocks()
            var dice = SeededGenerator(seed: seed)
            var alive: [(name: String, inode: StoredInode)] = []
            var dead: Set<InodeNumber> = []
            var ever: Set<InodeNumber> = []
            for step in 0..<600 {
                if alive.count < 5 || dice.below(3) > 0 && alive.count < 200 {
                    let mode: UInt32 = [0o100644, 0o120777, 0o020600][dice.below(3)]
                    let inode = try await volume.make("name\(step)", mode: mode)
                    #expect(ever.insert(inode.number).inserted)
                    if inode.record.isSymbolicLink {
                        try await volume.change(Self.one, groups: []) { change in
                            Array("target".utf8).withUnsafeBytes {
                                inode.writeInline($0, at: 0, in: change.transaction)
                            }
                        }
                    }
                    #expect(volume.store.inodeIfCached(inode.number) != nil)
                    alive.append(("name\(step)", inode))
                } else {
                    let (name, inode) = alive.remove(at: dice.below(alive.count))
                    try await volume.unlink(name, inode)
                    dead.insert(inode.number)
                    #expect(volume.store.inodeIfCached(inode.number) == nil)
                }
                if dice.oneIn(10) { try await volume.journal.commit() }
                volume.checkGroups()
                if step % 200 == 199 {
                    try await volume.remount()
                    try await volume.expectSound()
                    for index in alive.indices {
                        alive[index].inode = try await volume.store.readInode(
                            alive[index].inode.number
                        )
                    }
                }
            }
            for number in dead.sorted() {
                #expect(
                    await storeError { _ = try await volume.store.readInode(number) } == "stale"
                )
            }
            for (name, inode) in alive { try await volume.unlink(name, inode) }
            try await volume.journal.commit()
            #expect(try await volume.freeBlocks() == free)
            let nowhere = InodeNumber(address: BlockAddress(3), generation: 1)
            #expect(await storeError { _ = try await volume.store.readInode(nowhere) } == "stale")
            let group = InodeNumber(address: volume.superblock.firstGroup, generation: 1)
            #expect(await storeError { _ = try await volume.store.readInode(group) } == "stale")
        }
    }

    /// An inode that still has blocks is not freed.
    @Test func blocksMustGoFirst() throws {
        try runSimulated(seed: 4) { engine in
            let volume = try await TestVolume.make(engine)
            let file = try await volume.makeFile("file")
            let extents = ExtentMap(volume.store, file)
            try await volume.change(extents.insertionCost()) {
                let run = try #require($0.takeData(near: nil, wanted: 3))
                try await extents.insert(
                    Extent(logical: 0, physical: run.start, length: run.length),
                    with: $0
                )
            }
            #expect(await isDamage { try await volume.unlink("file", file) })
        }
    }
}
