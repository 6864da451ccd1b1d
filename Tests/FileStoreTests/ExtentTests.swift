import DiskFormat
import Execution
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileStore

/// What stands at one logical block.
private struct Mapped: Hashable {
    var physical: UInt64
    var isUnwritten: Bool
}

/// A file and what its extents should be, block by block.
private final class ModelFile {
    let volume: TestVolume
    var file: StoredInode
    var blocks: [UInt64: Mapped] = [:]
    var dice: SeededGenerator
    var highestSeen: UInt8 = 0

    init(_ volume: TestVolume, _ file: StoredInode, seed: UInt64) {
        self.volume = volume
        self.file = file
        dice = SeededGenerator(seed: seed)
    }

    var extents: ExtentMap { ExtentMap(volume.store, file) }

    /// Puts an extent somewhere into a hole within `span`.
    func insert(span: Int, longest: Int) async throws {
        let start = UInt64(dice.below(span))
        var length = 1 + dice.below(longest)
        for offset in 0..<length where blocks[start + UInt64(offset)] != nil {
            length = offset
            break
        }
        guard length > 0 else { return }
        let isUnwritten = dice.oneIn(3)
        // Mostly where the block before it ends, so that merging happens.
        let goal = dice.oneIn(3) ? nil : blocks[start &- 1].map { BlockAddress($0.physical + 1) }
        try await extents.prepareInsertion(at: start)
        let extent = try await volume.change(extents.insertionCost()) { allocator in
            let run = try #require(allocator.takeData(near: goal, wanted: UInt32(length)))
            let extent = Extent(
                logical: start,
                physical: run.start,
                length: run.length,
                isUnwritten: isUnwritten
            )
            try await extents.insert(extent, with: allocator)
            return extent
        }
        for offset in 0..<UInt64(extent.length) {
            blocks[start + offset] = Mapped(
                physical: extent.physical.rawValue + offset,
                isUnwritten: isUnwritten
            )
        }
    }

    /// Puts an extent into a hole that is long enough.
    func put(_ logical: UInt64, length: UInt32) async throws {
        try await volume.change(extents.insertionCost()) {
            let run = try #require($0.takeData(near: nil, wanted: length))
            try #require(run.length == length)
            let extent = Extent(logical: logical, physical: run.start, length: length)
            try await extents.insert(extent, with: $0)
            for offset in 0..<UInt64(length) {
                blocks[logical + offset] = Mapped(
                    physical: run.start.rawValue + offset,
                    isUnwritten: false
                )
            }
        }
    }

    /// The first logical block of the leaf behind that of `logical`, if there is one.
    func bound(behind logical: UInt64) async throws -> UInt64? {
        var source = NodeSource(volume.store, file)
        return try await source.run { source throws(Interruption) in
            try Tree(source, .extents).descend(to: logical).upperBound
        }
    }

    /// Marks a part of an unwritten extent.
    func markSome(span: Int) async throws {
        guard case .extent(let extent) = try await extents.lookup(UInt64(dice.below(span))),
            extent.isUnwritten
        else { return }
        let from = dice.below(Int(extent.length))
        let length = 1 + dice.below(Int(extent.length) - from)
        try await volume.change(extents.insertionCost()) {
            try await extents.markWritten(
                extent.logical + UInt64(from),
                length: UInt32(length),
                with: $0
            )
        }
        for block in extent.logical + UInt64(from)..<extent.logical + UInt64(from + length) {
            blocks[block]?.isUnwritten = false
        }
    }

    /// Removes a range in steps, holding nothing but the groups each step names (and one to take
    /// blocks from).
    func remove(_ start: UInt64, _ end: UInt64) async throws {
        var last = end
        while let step = try await extents.nextRemoval(
            from: start,
            to: end,
            groupLimit: 1 + dice.below(4)
        ) {
            #expect(step.firstLogical < last && step.firstLogical >= start)
            last = step.firstLogical
            var groups = Set(step.groups)
            if step.cost.newBlocks > 0 { groups.insert(0) }
            try await volume.change(step.cost, groups: groups.sorted()) {
                try extents.remove(step, with: $0)
            }
            for piece in step.pieces {
                for block in piece.logical..<piece.logicalEnd {
                    let mapped = blocks.removeValue(forKey: block)
                    #expect(mapped?.physical == piece.physical.rawValue + block - piece.logical)
                }
            }
        }
        #expect(!blocks.keys.contains { $0 >= start && $0 < end })
    }

    /// Compares the whole map with the model.
    func compare() async throws {
        var found: [UInt64: Mapped] = [:]
        var lastEnd: UInt64 = 0
        try await extents.forEach(from: 0) { extent in
            #expect(extent.logical >= lastEnd && extent.length > 0)
            lastEnd = extent.logicalEnd
            for offset in 0..<UInt64(extent.length) {
                found[extent.logical + offset] = Mapped(
                    physical: extent.physical.rawValue + offset,
                    isUnwritten: extent.isUnwritten
                )
            }
            return true
        }
        #expect(found == blocks)
        for _ in 0..<20 {
            let place = UInt64(dice.below(30_000))
            switch try await extents.lookup(place) {
            case .extent(let extent):
                #expect(place >= extent.logical && place < extent.logicalEnd)
                #expect(
                    blocks[place]?.physical == extent.physical.rawValue + place - extent.logical
                )
            case .hole(let until):
                #expect(until > place && blocks[place] == nil)
                #expect(!blocks.keys.contains { $0 >= place && $0 < until })
            }
        }
        highestSeen = max(highestSeen, file.record.height)
        volume.checkGroups()
    }
}

@Suite struct ExtentTests {
    /// Random insertions, markings and removals; `narrow` leaves the root twelve pointers, so that
    /// the tree gets two levels.
    @Test(arguments: [(1, false), (2, true), (3, true)] as [(UInt64, Bool)])
    func agreesWithModel(seed: UInt64, narrow: Bool) throws {
        try runSimulated(seed: seed) { engine in
            let volume = try await TestVolume.make(engine, mebibytes: 64, cacheCapacity: 60)
            let free = try await volume.freeBlocks()
            let model = ModelFile(volume, try await volume.makeFile("file"), seed: seed)
            if narrow {
                let attributes = ExtendedAttributes(volume.store, model.file)
                let value = [UInt8](repeating: 7, count: 3600)
                let update = try await attributes.prepareSet("user.wide", value)
                try await volume.change(update.cost) { try attributes.apply(update, with: $0) }
                #expect(model.file.record.inlineAttributeLength > 3600)
            }
            let span = 25_000
            for round in 0..<12 {
                for _ in 0..<500 {
                    switch model.dice.below(10) {
                    case 0..<8: try await model.insert(span: span, longest: 3)
                    case 8: try await model.markSome(span: span)
                    default:
                        let start = UInt64(model.dice.below(span))
                        let length = model.dice.oneIn(80) ? 2000 : 1 + model.dice.below(20)
                        try await model.remove(start, start + UInt64(length))
                    }
                }
                try await model.compare()
                if round % 4 == 3 {
                    model.file.record.size = UInt64(span + 3) * 4096
                    try await volume.change(OperationCost(newBlocks: 0, modifiedBlocks: 1)) {
                        model.file.store(in: $0.transaction)
                    }
                    try await volume.remount()
                    model.file = try await volume.store.readInode(model.file.number)
                    try await model.compare()
                    try await volume.expectSound()
                }
            }
            #expect(model.highestSeen == (narrow ? 2 : 1))
            // Down to nothing, backwards in pieces, and every block is there again.
            try await model.remove(10_000, .max)
            try await model.compare()
            try await model.remove(0, .max)
            try await model.compare()
            #expect(model.file.record.height == 0 && model.file.record.rootCount == 0)
            #expect(model.file.record.blockCount == 1)
            try await volume.journal.commit()
            #expect(try await volume.freeBlocks() == free - 1)
            try await volume.remount()
            try await volume.expectSound()
        }
    }

    /// A file of so many extents, one block each at every second place, that there are two levels of index nodes.
    private func deepFile(
        _ engine: Engine
    ) async throws -> (volume: TestVolume, model: ModelFile, count: UInt64) {
        let volume = try await TestVolume.make(
            engine,
            mebibytes: 128,
            blocksPerGroup: nil,
            cacheCapacity: 2000
        )
        let model = ModelFile(volume, try await volume.makeFile("file"), seed: 8)
        let attributes = ExtendedAttributes(volume.store, model.file)
        let wide = try await attributes.prepareSet(
            "user.wide",
            [UInt8](repeating: 1, count: 3600)
        )
        try await volume.change(wide.cost) { try attributes.apply(wide, with: $0) }
        // From the back to the front, which leaves half full leaves.
        let count: UInt64 = 23_000
        for logical in (0..<count).reversed() { try await model.put(logical * 2, length: 1) }
        try #require(model.file.record.height == 2)
        return (volume, model, count)
    }

    /// More leaves than one index node can name; what is removed ends where leaves have lost their
    /// front.
    @Test func manyLeaves() throws {
        try runSimulated(seed: 8) { engine in
            let (volume, model, count) = try await deepFile(engine)
            #expect(model.file.record.blockCount > count + 255)
            try await model.compare()
            for start in stride(from: 0, to: count * 2, by: 80) {
                try await model.remove(start, start + 50)
            }
            for start in stride(from: 100, to: count * 2, by: 160) {
                try await model.remove(start - 40, start + 10)
            }
            try await model.compare()
            model.file.record.size = count * 2 * 4096
            try await volume.change(OperationCost(newBlocks: 0, modifiedBlocks: 1)) {
                model.file.store(in: $0.transaction)
            }
            try await volume.remount()
            try await volume.expectSound()
            model.file = try await volume.store.readInode(model.file.number)
            // Whole subtrees from the front.
            for start in stride(from: 0, to: count * 2 - 5000, by: 2000) {
                try await model.remove(start, start + 2000)
            }
            try await volume.remount()
            try await volume.expectSound()
            model.file = try await volume.store.readInode(model.file.number)
            try await model.compare()
            try await model.remove(0, .max)
            #expect(model.file.record.blockCount == 1)
        }
    }

    /// An extent that reaches beyond the bound of its leaf begins the next one, and every node above that
    /// begins with it learns its new bound.
    @Test func extentsAcrossBounds() throws {
        try runSimulated(seed: 9) { engine in
            let (volume, model, count) = try await deepFile(engine)
            var bounds = 0
            var last: UInt64 = 0
            while let bound = try await model.bound(behind: last) {
                try await model.remove(bound - 2, bound + 2)
                try await model.put(bound - 1, length: 2)
                last = bound
                bounds += 1
            }
            #expect(bounds > 255, "one index node names all leaves")
            try await model.compare()
            model.file.record.size = count * 2 * 4096
            try await volume.change(OperationCost(newBlocks: 0, modifiedBlocks: 1)) {
                model.file.store(in: $0.transaction)
            }
            try await volume.remount()
            try await volume.expectSound()
        }
    }

    /// A file written from front to back in pieces that cannot be joined fills its leaves.
    @Test func growingAtTheEndFillsLeaves() throws {
        try runSimulated(seed: 5) { engine in
            let volume = try await TestVolume.make(engine)
            let file = try await volume.makeFile("file")
            let extents = ExtentMap(volume.store, file)
            let count = 1200
            for index in 0..<count {
                try await volume.change(extents.insertionCost()) {
                    let run = try #require($0.takeData(near: nil, wanted: 1))
                    let extent = Extent(
                        logical: UInt64(index) * 2,
                        physical: run.start,
                        length: 1
                    )
                    try await extents.insert(extent, with: $0)
                }
            }
            let leaves = Int(file.record.blockCount) - 1 - count
            #expect(leaves <= (count + 166) / 167 + 1)
            #expect(file.record.height == 1)
        }
    }

    /// Blocks that follow each other become one extent whatever the order in which they come.
    @Test func neighboursAreJoined() throws {
        try runSimulated(seed: 6) { engine in
            let volume = try await TestVolume.make(engine)
            let file = try await volume.makeFile("file")
            let extents = ExtentMap(volume.store, file)
            try await volume.change(extents.insertionCost(times: 3)) {
                let run = try #require($0.takeData(near: nil, wanted: 9))
                #expect(run.length == 9)
                for part in [0, 2, 1] as [UInt64] {
                    let extent = Extent(
                        logical: 100 + part * 3,
                        physical: run.start + part * 3,
                        length: 3
                    )
                    try await extents.insert(extent, with: $0)
                }
            }
            #expect(file.record.rootCount == 1)
            #expect(
                extents.lookupIfCached(104).map {
                    if case .extent(let extent) = $0 { extent.length == 9 } else { false }
                } == true
            )
            #expect(extents.lookupIfCached(99) == .hole(until: 100))
            #expect(extents.lookupIfCached(109) == .hole(until: .max))
        }
    }

    /// An insertion over something that is there is refused as damage.
    @Test func overlapIsRefused() throws {
        try runSimulated(seed: 7) { engine in
            let volume = try await TestVolume.make(engine)
            let file = try await volume.makeFile("file")
            let extents = ExtentMap(volume.store, file)
            try await volume.change(extents.insertionCost(times: 2)) { allocator in
                let run = try #require(allocator.takeData(near: nil, wanted: 4))
                let extent = Extent(logical: 10, physical: run.start, length: 4)
                try await extents.insert(extent, with: allocator)
                for logical in [7, 10, 13] as [UInt64] {
                    let extent = Extent(logical: logical, physical: run.start, length: 4)
                    #expect(
                        await isDamage { try await extents.insert(extent, with: allocator) }
                    )
                }
            }
            #expect(file.record.rootCount == 1)
        }
    }
}
