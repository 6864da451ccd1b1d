import DiskFormat
import FileStore
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct AttributeTests {
    /// Writes a prepared change, holding only the groups it names (and one to take blocks from).
    private func apply(
        _ update: AttributeUpdate,
        _ attributes: ExtendedAttributes,
        _ volume: TestVolume
    ) async throws {
        var groups = Set(update.groups)
        if update.cost.newBlocks > 0 { groups.insert(1) }
        try await volume.change(update.cost, groups: groups.sorted()) {
            try attributes.apply(update, with: $0)
            #expect($0.reserved == 0)
        }
    }

    /// Random attributes of all sizes, on a file with inline data, a file with extents and a
    /// directory.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func agreesWithModel(seed: UInt64) throws {
        try runSimulated(seed: seed) { engine in
            let volume = try await TestVolume.make(engine, cacheCapacity: 20)
            let free = try await volume.freeBlocks()
            var inode =
                seed == 1
                ? try await volume.make("object", mode: 0o100644)
                : seed == 2
                    ? try await volume.makeFile("object")
                    : try await volume.make("object", mode: 0o040755)
            let text = Array("some inline data".utf8)
            if seed == 1 {
                try await volume.change(OperationCost(newBlocks: 0, modifiedBlocks: 1)) { change in
                    text.withUnsafeBytes { inode.writeInline($0, at: 0, in: change.transaction) }
                }
            }
            var model: [String: [UInt8]] = [:]
            var dice = SeededGenerator(seed: seed)
            var wasInline = false
            var wasChain = false
            for step in 0..<400 {
                let attributes = ExtendedAttributes(volume.store, inode)
                try await self.change(&model, attributes, volume, step, &dice)
                wasInline = wasInline || inode.record.inlineAttributeLength > 0
                wasChain = wasChain || inode.record.attributeBlock != .none
                #expect(
                    inode.record.inlineAttributeLength == 0 || inode.record.attributeBlock == .none
                )
                if step % 40 == 39 {
                    try await volume.remount()
                    inode = try await volume.store.readInode(inode.number)
                    try await volume.expectSound()
                }
                try await compare(model, ExtendedAttributes(volume.store, inode))
                volume.checkGroups()
            }
            #expect(wasInline && wasChain)
            if seed == 1 { #expect(inode.inlineData == text) }
            let attributes = ExtendedAttributes(volume.store, inode)
            try await apply(try await attributes.prepareRemoveAll(), attributes, volume)
            #expect(attributes.isEmpty && inode.record.blockCount == 1)
            try await volume.unlink("object", inode)
            try await volume.journal.commit()
            #expect(try await volume.freeBlocks() == free)
        }
    }

    /// Sets or removes one attribute, here and in the model.
    private func change(
        _ model: inout [String: [UInt8]],
        _ attributes: ExtendedAttributes,
        _ volume: TestVolume,
        _ step: Int,
        _ dice: inout SeededGenerator
    ) async throws {
        let name = "user.\(dice.below(12))"
        if dice.oneIn(4) {
            if model.removeValue(forKey: name) != nil {
                try await apply(
                    try await attributes.prepareRemove(name),
                    attributes,
                    volume
                )
            } else {
                #expect(
                    await storeError { _ = try await attributes.prepareRemove(name) }
                        == "notFound"
                )
            }
        } else {
            let length =
                dice.oneIn(6) ? dice.below(20_000) : dice.below(dice.oneIn(2) ? 40 : 1500)
            let value = (0..<length).map { UInt8(truncatingIfNeeded: $0 &+ step) }
            let total = model.reduce(0) {
                $0 + ($1.key == name ? 0 : 4 + $1.key.utf8.count + $1.value.count)
            }
            let fits =
                total + 4 + name.utf8.count + length <= AttributeRecord.longestStream
            if fits {
                try await apply(
                    try await attributes.prepareSet(name, value),
                    attributes,
                    volume
                )
                model[name] = value
            } else {
                #expect(
                    await storeError { _ = try await attributes.prepareSet(name, value) }
                        == "noSpace"
                )
            }
        }
    }

    private func compare(_ model: [String: [UInt8]], _ attributes: ExtendedAttributes) async throws
    {
        let names = try await attributes.names()
        let found = names.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        #expect(found.count == model.count && Set(found) == Set(model.keys))
        for name in found { #expect(try await attributes.value(name) == model[name]) }
        #expect(
            await storeError { _ = try await attributes.value("user.none") } == "notFound"
        )
    }

    @Test func limitsAndExpectations() throws {
        try runSimulated(seed: 4) { engine in
            let volume = try await TestVolume.make(engine)
            let file = try await volume.make("file", mode: 0o100644)
            let attributes = ExtendedAttributes(volume.store, file)
            func error(
                _ name: String,
                _ length: Int,
                _ expectation: AttributeExpectation = .any
            ) async -> String? {
                let value = [UInt8](repeating: 1, count: length)
                return await storeError {
                    _ = try await attributes.prepareSet(name, value, expectation)
                }
            }
            #expect(await error("", 1) == "invalidName")
            #expect(await error(String(repeating: "n", count: 256), 1) == "tooLong")
            #expect(await error(String(repeating: "n", count: 255), 1) == nil)
            #expect(await error("user.a", 65_536) == "tooLarge")
            #expect(await error("user.a", 65_535) == nil)
            #expect(await error("user.a", 1, .present) == "notFound")
            let update = try await attributes.prepareSet(
                "user.a",
                [UInt8](repeating: 2, count: 65_535),
                .absent
            )
            #expect(update.cost.newBlocks == 17)
            try await apply(update, attributes, volume)
            #expect(await error("user.a", 1, .absent) == "exists")
            #expect(await error("user.b", 5000) == "noSpace")
            #expect(await error("user.a", 65_535, .present) == nil)
            // An empty value is a value.
            try await apply(try await attributes.prepareSet("user.a", []), attributes, volume)
            #expect(try await attributes.value("user.a") == [])
            #expect(file.record.attributeBlock == .none && file.record.blockCount == 1)
        }
    }

    /// Inline data that grows pushes the attributes into a block.
    @Test func movingOut() throws {
        try runSimulated(seed: 5) { engine in
            let volume = try await TestVolume.make(engine)
            let file = try await volume.make("file", mode: 0o100644)
            let attributes = ExtendedAttributes(volume.store, file)
            let value = [UInt8](repeating: 3, count: 1000)
            try await apply(
                try await attributes.prepareSet("user.a", value),
                attributes,
                volume
            )
            #expect(file.inlineCapacity == 4096 - 256 - 1010)
            try await apply(try attributes.prepareMovingOut(), attributes, volume)
            #expect(file.inlineCapacity == 4096 - 256)
            #expect(file.record.attributeBlock != .none && file.record.blockCount == 2)
            #expect(try await attributes.value("user.a") == value)
            let data = [UInt8](repeating: 9, count: file.inlineCapacity)
            try await volume.change(OperationCost(newBlocks: 0, modifiedBlocks: 1)) { change in
                data.withUnsafeBytes { file.writeInline($0, at: 0, in: change.transaction) }
            }
            #expect(try await attributes.value("user.a") == value)
            #expect(file.inlineData == data)
            try await volume.remount()
            try await volume.expectSound()
        }
    }
}
