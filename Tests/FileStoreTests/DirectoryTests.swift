import DiskFormat
import Execution
import FileStore
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

/// A directory and what should be in it. All names lead to one file, which is not freed meanwhile;
/// its link count is set right in the end.
private final class ModelDirectory {
    let volume: TestVolume
    var inode: StoredInode
    let target: InodeNumber
    var names: [[UInt8]: InodeNumber] = [:]
    /// The keys of `names`, in the order in which they came: what dice choose from.
    var order: [[UInt8]] = []
    var dice: SeededGenerator

    init(_ volume: TestVolume, seed: UInt64) async throws {
        self.volume = volume
        dice = SeededGenerator(seed: seed)
        inode = try await volume.make("directory", mode: 0o040755)
        target = try await volume.make("target", mode: 0o100644).number
    }

    var directory: Directory { Directory(volume.store, inode) }

    func insert(_ name: [UInt8]) async throws {
        let prepared = try await directory.prepareInsertion(name)
        #expect(prepared.cost.newBlocks <= directory.worstInsertionCost.newBlocks)
        #expect(prepared.cost.modifiedBlocks <= directory.worstInsertionCost.modifiedBlocks)
        let groups = [UInt32(dice.below(Int(volume.superblock.groupCount)))]
        let before = inode.record.blockCount
        try await volume.change(prepared.cost, groups: groups) {
            try directory.insert(prepared, name, target: target, type: 8, with: $0)
            #expect($0.reserved == 0)
        }
        #expect(inode.record.blockCount == before + UInt64(prepared.cost.newBlocks))
        names[name] = target
        order.append(name)
    }

    /// Removes a name, holding only the groups that the preparation names.
    func remove(at index: Int) async throws {
        let name = order[index]
        order.swapAt(index, order.count - 1)
        order.removeLast()
        try await remove(name)
    }

    /// Removes a name, of which `order` may still know.
    func remove(_ name: [UInt8]) async throws {
        names[name] = nil
        let prepared = try await directory.prepareRemoval(name)
        try await volume.change(prepared.cost, groups: prepared.groups) {
            try directory.remove(prepared, with: $0)
        }
    }

    func randomName() -> [UInt8] {
        let length = dice.oneIn(8) ? 1 + dice.below(255) : 3 + dice.below(20)
        return (0..<length).map { _ in UInt8(97 + dice.below(26)) }
    }

    func compare() async throws {
        var seen: [[UInt8]: InodeNumber] = [:]
        var last: UInt64 = 2
        try await directory.enumerate(after: 0) { record, name in
            #expect(record.key > last)
            last = record.key
            seen[Array(name)] = record.inode
            return true
        }
        #expect(seen == names)
        #expect(inode.record.entryCount == UInt64(names.count))
        #expect(inode.record.size == UInt64(names.count) * Directory.bytesPerEntry)
        for name in order.prefix(50) where names[name] != nil {
            #expect(try await directory.find(name)?.inode == names[name])
        }
        for _ in 0..<20 {
            let name = randomName()
            #expect((try await directory.find(name) != nil) == (names[name] != nil))
        }
        volume.checkGroups()
    }

    /// Writes everything home, reads it again, and has the whole volume checked.
    func remount() async throws {
        let file = try await volume.store.readInode(target)
        file.record.linkCount = UInt32(names.count) + 1
        try await volume.change(OperationCost(newBlocks: 0, modifiedBlocks: 1), groups: []) {
            file.store(in: $0.transaction)
        }
        let number = inode.number
        try await volume.remount()
        inode = try await volume.store.readInode(number)
        try await volume.expectSound()
    }
}

@Suite struct DirectoryTests {
    @Test(arguments: [(1, 4096), (2, 4096), (3, 16384)] as [(UInt64, UInt32)])
    func agreesWithModel(seed: UInt64, blockSize: UInt32) throws {
        try runSimulated(seed: seed) { engine in
            let volume = try await TestVolume.make(
                engine,
                mebibytes: blockSize == 4096 ? 32 : 64,
                blockSize: blockSize,
                cacheCapacity: 30
            )
            let model = try await ModelDirectory(volume, seed: seed)
            // Grows, breathes, and shrinks to nothing.
            for share in [9, 9, 6, 5, 2, 1, 7, 5, 1, 0] {
                for _ in 0..<400 {
                    if model.dice.below(10) < share || (share > 0 && model.order.isEmpty) {
                        let name = model.randomName()
                        if model.names[name] != nil {
                            #expect(
                                await storeError {
                                    _ = try await model.directory.prepareInsertion(name)
                                } == "exists"
                            )
                        } else {
                            try await model.insert(name)
                        }
                    } else if !model.order.isEmpty {
                        try await model.remove(at: model.dice.below(model.order.count))
                    }
                }
                try await model.compare()
                try await model.remount()
                try await model.compare()
            }
            while !model.order.isEmpty { try await model.remove(at: 0) }
            #expect(model.inode.record.layout == .inlineDirectory)
            #expect(model.inode.record.blockCount == 1 && model.directory.isEmpty)
            try await model.remount()
        }
    }

    /// Twenty thousand names: two levels, no name lost, all found at once when in memory.
    @Test func twentyThousandNames() throws {
        try runSimulated(seed: 9) { engine in
            _ = Probes.take()
            let volume = try await TestVolume.make(engine, mebibytes: 32, cacheCapacity: 4000)
            let model = try await ModelDirectory(volume, seed: 9)
            let count = 20_000
            func name(_ index: Int) -> [UInt8] { Array("file-\(index)-of-a-large-directory".utf8) }
            for index in 0..<count { try await model.insert(name(index)) }
            #expect(model.inode.record.height == 2)
            for index in 0..<count {
                let bytes = Bytes(name(index))
                guard case .found(let record) = model.directory.findIfCached(bytes.readOnly) else {
                    Issue.record("name \(index) is not found in memory")
                    return
                }
                #expect(record.inode == model.target)
            }
            try await model.remount()
            try await model.compare()
            for index in 0..<count {
                #expect(try await model.directory.find(name(index)) != nil)
            }
            // Half a leaf or more of content in each leaf.
            let bytes = count * (DirectoryEntryRecord.fixedByteCount + 34)
            #expect(model.inode.record.blockCount < UInt64(bytes / 2000))
            // From the front, so that whole subtrees go there; then from the back.
            var inOrder: [[UInt8]] = []
            try await model.directory.enumerate(after: 0) { _, name in
                inOrder.append(Array(name))
                return true
            }
            for (index, name) in inOrder[..<15_000].enumerated() {
                try await model.remove(name)
                if index % 2500 == 2499 { try await model.remount() }
            }
            try await model.compare()
            for name in inOrder[15_000...].reversed() { try await model.remove(name) }
            #expect(model.inode.record.layout == .inlineDirectory)
            try await model.remount()
            let reached = Probes.take()
            for probe in [Probe.nodeSplit, .treeGrows, .treeShrinks] {
                #expect(reached.contains(probe))
            }
        }
    }

    /// Names of one hash fill more than one leaf, get the lowest free number, and end at 256.
    @Test func collisions() throws {
        try runSimulated(seed: 10) { engine in
            _ = Probes.take()
            let volume = try await TestVolume.make(engine, cacheCapacity: 20)
            let model = try await ModelDirectory(volume, seed: 10)
            for _ in 0..<200 { try await model.insert(model.randomName()) }
            let first = collidingName(0).withUnsafeBytes {
                DirectoryEntryRecord.firstKey(forName: $0)
            }
            for number in 0..<256 {
                let name = collidingName(number)
                #expect(
                    name.withUnsafeBytes { DirectoryEntryRecord.firstKey(forName: $0) } == first
                )
                try await model.insert(name)
                #expect(try await model.directory.find(name)?.key == first + UInt64(number))
            }
            #expect(Probes.take().contains(.hashCollision))
            for number in 256..<260 {
                #expect(
                    await storeError {
                        _ = try await model.directory.prepareInsertion(collidingName(number))
                    } == "noSpace"
                )
                #expect(try await model.directory.find(collidingName(number)) == nil)
            }
            #expect(
                await storeError {
                    _ = try await model.directory.prepareInsertion(collidingName(255))
                } == "exists"
            )
            try await model.compare()
            try await model.remount()
            // Holes are filled from below, whatever the order of removal.
            for number in [200, 17, 90, 0, 255] {
                let index = try #require(model.order.firstIndex(of: collidingName(number)))
                try await model.remove(at: index)
            }
            for (number, key) in [(300, 0), (301, 17), (302, 90), (303, 200), (304, 255)] {
                try await model.insert(collidingName(number))
                let found = try await model.directory.find(collidingName(number))
                #expect(found?.key == first + UInt64(key))
            }
            try await model.compare()
            while let index = model.order.firstIndex(where: { $0.count == 108 }) {
                try await model.remove(at: index)
            }
            for _ in 0..<300 {
                let number = 256 + model.dice.below(250)
                let name = collidingName(number)
                if let index = model.order.firstIndex(of: name) {
                    try await model.remove(at: index)
                } else {
                    try await model.insert(name)
                }
            }
            try await model.compare()
            try await model.remount()
        }
    }

    /// A listing in small pieces, while names come and go: whatever lives throughout is there
    /// exactly once.
    @Test(arguments: [11, 12, 13, 14] as [UInt64])
    func listingIsStable(seed: UInt64) throws {
        try runSimulated(seed: seed) { engine in
            let volume = try await TestVolume.make(engine)
            let model = try await ModelDirectory(volume, seed: seed)
            var stable: Set<[UInt8]> = []
            for number in 0..<150 {
                let name = Array(model.randomName().prefix(200)) + Array("-\(number)".utf8)
                try await model.insert(name)
                if number % 2 == 0 { stable.insert(name) }
            }
            for number in 0..<40 {
                let name = collidingName(number)
                try await model.insert(name)
                if number % 3 == 0 { stable.insert(name) }
            }
            var counts: [[UInt8]: Int] = [:]
            var cookie: UInt64 = 0
            var rounds = 0
            while true {
                var batch = 1 + model.dice.below(7)
                let start = cookie
                try await model.directory.enumerate(after: cookie) { record, name in
                    counts[Array(name), default: 0] += 1
                    cookie = record.key
                    batch -= 1
                    return batch > 0
                }
                if cookie == start { break }
                rounds += 1
                for _ in 0..<model.dice.below(12) {
                    let index = model.dice.below(model.order.count)
                    if model.dice.oneIn(2), !stable.contains(model.order[index]) {
                        try await model.remove(at: index)
                    } else {
                        let number = 40 + model.dice.below(400)
                        let name = model.dice.oneIn(3) ? collidingName(number) : model.randomName()
                        if model.names[name] == nil { try await model.insert(name) }
                    }
                }
            }
            #expect(rounds > 20)
            for name in stable { #expect(counts[name] == 1) }
            try await model.compare()
            // The synchronous form sees the same.
            var cached: [[UInt8]: Int] = [:]
            let rest = model.directory.enumerateCached(after: 2) { _, name in
                cached[Array(name), default: 0] += 1
                return true
            }
            #expect(rest == nil && cached.count == model.names.count)
            #expect(cached.allSatisfy { $0.value == 1 })
        }
    }

    @Test func replaceTargetAndSameDirectoryRename() throws {
        try runSimulated(seed: 15) { engine in
            let volume = try await TestVolume.make(engine)
            let model = try await ModelDirectory(volume, seed: 15)
            for _ in 0..<300 { try await model.insert(model.randomName()) }
            let other = try await volume.make("other", mode: 0o040755)
            // rename a over b: b leads to a's object, a goes. Prepared before anything changes.
            for _ in 0..<100 {
                let from = model.order[model.dice.below(model.order.count)]
                let to = model.order[model.dice.below(model.order.count)]
                guard from != to else { continue }
                let location = try await model.directory.locate(to)
                let removal = try await model.directory.prepareRemoval(from)
                try await volume.change(
                    removal.cost + OperationCost(newBlocks: 0, modifiedBlocks: 2),
                    groups: removal.groups
                ) {
                    model.directory.replaceTarget(
                        location,
                        with: other.number,
                        type: 4,
                        in: $0.transaction
                    )
                    try model.directory.remove(removal, with: $0)
                }
                model.names[from] = nil
                model.order.removeAll { $0 == from }
                model.names[to] = other.number
                let found = try await model.directory.find(to)
                #expect(found?.inode == other.number && found?.type == 4)
            }
            // rename a to a new name: remove first, the worst case of the insertion set aside.
            for _ in 0..<100 {
                let from = model.order[model.dice.below(model.order.count)]
                let to = Array(model.randomName().prefix(200)) + from.prefix(20)
                let removal = try await model.directory.prepareRemoval(from)
                let cost = removal.cost + model.directory.worstInsertionCost
                let groups = Set(removal.groups + [2]).sorted()
                try await volume.change(cost, groups: groups) {
                    try model.directory.remove(removal, with: $0)
                    let insertion = try await model.directory.prepareInsertion(to)
                    try model.directory.insert(
                        insertion,
                        to,
                        target: removal.entry.inode,
                        type: 8,
                        with: $0
                    )
                }
                model.names[to] = model.names.removeValue(forKey: from)
                model.order.removeAll { $0 == from }
                model.order.append(to)
            }
            try await model.compare()
        }
    }

    /// Attributes leave so little of the body that not even one long name fits.
    @Test func narrowBody() throws {
        try runSimulated(seed: 17) { engine in
            let volume = try await TestVolume.make(engine)
            let model = try await ModelDirectory(volume, seed: 17)
            let attributes = ExtendedAttributes(volume.store, model.inode)
            let wide = try await attributes.prepareSet(
                "user.wide",
                [UInt8](repeating: 1, count: 3600)
            )
            try await volume.change(wide.cost) { try attributes.apply(wide, with: $0) }
            for length in [200, 255, 1, 90, 100, 30] {
                try await model.insert([UInt8](repeating: 120, count: length))
            }
            try await model.compare()
            while !model.order.isEmpty {
                try await model.remove(at: 0)
                try await model.compare()
            }
            for _ in 0..<1500 {
                try await model.insert(
                    Array(model.randomName().prefix(250)) + Array("\(model.order.count)".utf8)
                )
            }
            #expect(model.inode.record.height == 2)
            try await model.compare()
            try await model.remount()
            while !model.order.isEmpty { try await model.remove(at: 0) }
            #expect(model.inode.record.blockCount == 1)
            try await model.remount()
        }
    }

    @Test func namesAreChecked() throws {
        try runSimulated(seed: 16) { engine in
            let volume = try await TestVolume.make(engine)
            let directory = Directory(volume.store, try await volume.root)
            for (name, error) in [
                ("", "invalidName"), (".", "invalidName"), ("..", "invalidName"),
                ("a/b", "invalidName"), ("a\0b", "invalidName"),
                (String(repeating: "x", count: 256), "tooLong"),
            ] {
                #expect(await storeError { _ = try await directory.find(name) } == error)
                #expect(
                    await storeError { _ = try await directory.prepareInsertion(name) } == error
                )
            }
            #expect(try await directory.find(String(repeating: "x", count: 255)) == nil)
            #expect(
                await storeError { _ = try await directory.prepareRemoval(Array("none".utf8)) }
                    == "notFound"
            )
        }
    }
}
