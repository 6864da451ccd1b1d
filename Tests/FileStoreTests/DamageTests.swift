import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

/// Blocks that were changed by somebody who can compute checksums: every operation ends, with a
/// result or with an error, and never traps.
@Suite struct DamageTests {
    /// A volume with one directory and one file that have trees and chains, and the addresses of
    /// their blocks.
    private func build(_ engine: Engine) async throws -> (
        TestVolume, file: InodeNumber, directory: InodeNumber, blocks: [BlockAddress]
    ) {
        let volume = try await TestVolume.make(engine)
        let file = try await volume.makeFile("file")
        let inode = try await volume.make("directory", mode: 0o040755)
        for object in [file, inode] {
            let attributes = ExtendedAttributes(volume.store, object)
            let wide = try await attributes.prepareSet(
                "user.wide",
                [UInt8](repeating: 1, count: 3600)
            )
            try await volume.change(wide.cost) { try attributes.apply(wide, with: $0) }
        }
        let extents = ExtentMap(volume.store, file)
        for index in 0..<1400 {
            // From both ends, so that leaves are half full and the root overflows.
            let logical = UInt64(index % 2 == 0 ? index : 10_000 - index) * 2
            try await volume.change(extents.insertionCost()) {
                let run = try #require($0.takeData(near: nil, wanted: 1))
                try await extents.insert(
                    Extent(
                        logical: logical,
                        physical: run.start,
                        length: 1,
                        isUnwritten: index % 5 == 0
                    ),
                    with: $0
                )
            }
        }
        let directory = Directory(volume.store, inode)
        for index in 0..<1300 {
            let name = "a directory entry called \(index)"
            let insertion = try await directory.prepareInsertion(name)
            try await volume.change(insertion.cost, groups: [3]) {
                try directory.insert(insertion, name, target: file.number, type: 8, with: $0)
            }
        }
        #expect(inode.record.height == 2 && file.record.height == 2)
        let attributes = ExtendedAttributes(volume.store, inode)
        let long = try await attributes.prepareSet("user.long", [UInt8](repeating: 1, count: 9000))
        try await volume.change(long.cost) { try attributes.apply(long, with: $0) }
        try await volume.remount()
        let blocks = try await volume.blocks(ownedBy: [file.number, inode.number])
        return (volume, file.number, inode.number, blocks)
    }

    /// Changes a few bytes where fields are likely, header excepted.
    private func spoil(_ bytes: UnsafeMutableRawBufferPointer, _ dice: inout SeededGenerator) {
        for _ in 0...dice.below(3) {
            let place: Int
            switch dice.below(5) {
            case 0: place = 64 + dice.below(16)
            case 1: place = 152 + dice.below(40)
            case 2: place = 256 + dice.below(200)
            default: place = 64 + dice.below(400)
            }
            switch dice.below(4) {
            case 0: bytes[place] = 0
            case 1: bytes[place] = 0xFF
            case 2: bytes[place] &+= 1
            default: bytes[place] = UInt8(truncatingIfNeeded: dice.next())
            }
        }
    }

    @Test(arguments: 0..<3)
    func nothingTraps(part: Int) throws {
        try runSimulated(seed: UInt64(part)) { engine in
            let (volume, file, directory, blocks) = try await build(engine)
            #expect(blocks.count > 30)
            var dice = SeededGenerator(seed: UInt64(part) + 100)
            let sound = volume.disk.visible
            var errors = 0
            for _ in 0..<80 {
                let copy = MemoryBlockDevice(content: sound)
                let victim = blocks[dice.below(blocks.count)]
                let buffer = AlignedBuffer(byteCount: 4096)
                let offset = volume.superblock.byteOffset(victim)
                try await copy.read(buffer.bytes, at: offset)
                spoil(buffer.bytes, &dice)
                BlockHeader.seal(buffer.bytes)
                try await copy.write(buffer.readOnly, at: offset)
                let damaged = try await volume.opened(on: copy)
                for _ in 0..<3 {
                    errors += await use(damaged, file, directory, &dice)
                }
            }
            // Many kinds of damage are seen; some change nothing that these operations look at.
            #expect(errors > 30)
        }
    }

    /// Everything there is to do, in any order; returns how many operations met an error.
    private func use(
        _ volume: TestVolume,
        _ file: InodeNumber,
        _ directory: InodeNumber,
        _ dice: inout SeededGenerator
    ) async -> Int {
        var errors = 0
        for _ in 0..<12 {
            let choice = dice.below(9)
            let place = UInt64(dice.below(21_000))
            let name = "a directory entry called \(dice.below(1400))"
            let failure = await storeError {
                let inode = try await volume.store.readInode(choice < 4 ? file : directory)
                let extents = ExtentMap(volume.store, inode)
                let names = Directory(volume.store, inode)
                let attributes = ExtendedAttributes(volume.store, inode)
                switch choice {
                case 0:
                    var count = 0
                    try await extents.forEach(from: place) { _ in
                        count += 1
                        return count < 5000
                    }
                case 1: try await Self.insert(place, extents, volume)
                case 2: try await Self.remove(place, extents, volume)
                case 3: _ = try await attributes.names()
                case 4: try await names.enumerate(after: place << 40) { _, _ in true }
                case 5: _ = try await names.find(name)
                case 6:
                    let insertion = try await names.prepareInsertion(name + "x")
                    try await volume.change(insertion.cost, groups: [1]) {
                        try names.insert(insertion, name + "x", target: file, type: 8, with: $0)
                    }
                case 7:
                    let removal = try await names.prepareRemoval(Array(name.utf8))
                    try await volume.change(removal.cost, groups: removal.groups) {
                        try names.remove(removal, with: $0)
                    }
                default:
                    let update = try await attributes.prepareSet("user.new", [1, 2, 3])
                    try await volume.change(update.cost, groups: Set(update.groups + [1]).sorted())
                    {
                        try attributes.apply(update, with: $0)
                    }
                }
            }
            if let failure, failure != "exists", failure != "notFound" { errors += 1 }
            // After damage in the middle of a change the node withdraws.
            if failure == "damage" { break }
        }
        return errors
    }

    private static func insert(
        _ place: UInt64,
        _ extents: ExtentMap,
        _ volume: TestVolume
    ) async throws {
        guard case .hole(let until) = try await extents.lookup(place) else { return }
        try await volume.change(extents.insertionCost(), groups: [2]) {
            let wanted = UInt32(min(3, until - place))
            guard let run = $0.takeData(near: nil, wanted: wanted) else { return }
            try await extents.insert(
                Extent(logical: place, physical: run.start, length: run.length),
                with: $0
            )
        }
    }

    private static func remove(
        _ place: UInt64,
        _ extents: ExtentMap,
        _ volume: TestVolume
    ) async throws {
        var steps = 0
        while steps < 40, let step = try await extents.nextRemoval(from: place, to: place + 900) {
            steps += 1
            try await volume.change(step.cost, groups: Set(step.groups + [1]).sorted()) {
                try extents.remove(step, with: $0)
            }
        }
    }

    /// A pointer that leads back up, to itself, out of the volume or to a block of somebody else is
    /// an error.
    @Test func pointersAstray() throws {
        try runSimulated(seed: 50) { engine in
            let (volume, file, directory, _) = try await build(engine)
            let sound = volume.disk.visible
            let other = try await volume.root.number.address
            for target in [
                file.address, directory.address, other, volume.superblock.firstGroup,
                BlockAddress(volume.superblock.blockCount), BlockAddress(.max), .none,
                BlockAddress(16),
            ] {
                for number in [file, directory] {
                    let copy = MemoryBlockDevice(content: sound)
                    let damaged = try await volume.opened(on: copy)
                    try await damaged.damage(number.address) {
                        for index in 0..<12 { $0.put64(target.rawValue, 256 + 16 * index + 8) }
                    }
                    let inode = try await damaged.store.readInode(number)
                    #expect(
                        await isDamage {
                            if number == file {
                                _ = try await ExtentMap(damaged.store, inode).lookup(5)
                            } else {
                                _ = try await Directory(damaged.store, inode).find("name")
                            }
                        }
                    )
                }
            }
        }
    }

    /// A chain of attributes that is a ring ends.
    @Test func ringOfAttributes() throws {
        try runSimulated(seed: 51) { engine in
            let (volume, _, directory, _) = try await build(engine)
            let inode = try await volume.store.readInode(directory)
            let first = inode.record.attributeBlock
            try await volume.damage(first) { $0.put64(first.rawValue, 64) }
            #expect(
                await isDamage { _ = try await ExtendedAttributes(volume.store, inode).names() }
            )
        }
    }
}

extension TestVolume {
    /// All metadata blocks of some inodes.
    func blocks(ownedBy numbers: [InodeNumber]) async throws -> [BlockAddress] {
        let owners = numbers.map(\.address.rawValue)
        var blocks: [BlockAddress] = []
        let buffer = AlignedBuffer(byteCount: 4096)
        for address in superblock.firstGroup.rawValue..<superblock.blockCount {
            let place = BlockAddress(address)
            try await device.read(buffer.bytes, at: superblock.byteOffset(place))
            guard
                let header = try? BlockHeader(
                    verifying: buffer.readOnly,
                    at: place,
                    volume: superblock.volume
                ),
                owners.contains(header.owner)
            else { continue }
            blocks.append(place)
        }
        return blocks
    }
}
