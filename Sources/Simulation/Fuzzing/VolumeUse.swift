// A mount of any volume, and everything a program may do with it: reads all there is, changes
// something of each kind, unmounts. Bounded, whatever the volume says of itself (Z4).

import BlockIO
import CrashWorld
import DiskFormat
import Execution
import FileSystem
import Journaling
import SimulatedMachine
import Vocabulary
import VolumeChecking

/// One mount, used to its end.
final class VolumeUse {
    /// Objects that are looked at, and those of them that are changed.
    private static let mostObjects = 400
    private static let mostChanged = 12
    private static let longestRead = 65_536

    private let node: CrashNode
    private let isSound: Bool
    private let buffer = AlignedBuffer(byteCount: longestRead)
    private var directories: [NodeHandle] = []
    private var objects: [Found] = []

    /// Something with a name, and the kernel's reference to it.
    private struct Found {
        let parent: NodeHandle
        let name: [UInt8]
        let entry: EntryReply
        var typeBits: UInt32 { entry.attributes.mode & 0o170000 }
    }

    private init(_ node: CrashNode, isSound: Bool) {
        self.node = node
        self.isSound = isSound
    }

    /// Mounts a volume, uses it and unmounts it. A sound one must show no damage, and must be sound
    /// afterwards.
    static func use(_ content: DiskContent, isSound: Bool) throws {
        var hasWithdrawn = false
        var after: DiskContent?
        do {
            try runSimulated(seed: 1, stepLimit: ImageFuzzing.stepLimit) { engine in
                let device = MemoryBlockDevice(content: content)
                guard let node = try await mount(device, engine, isSound: isSound) else { return }
                let use = VolumeUse(node, isSound: isSound)
                node.onComplaint = { [weak node] in
                    if node?.volume.isWithdrawn == true { hasWithdrawn = true }
                }
                try await use.run()
                if isSound { after = device.content }
            }
        } catch SimulationError.deadlock where hasWithdrawn {
            // Requests of a volume that has withdrawn may stay where they are.
        }
        guard let after else { return }
        let report = try ImageFuzzing.check(after)
        let findings = report?.findings.prefix(3).map(\.text) ?? ["no volume"]
        try demand(report?.isClean == true, "after a use and an unmount: \(findings)")
    }

    /// As the mount command does it: superblock, journals, own descriptor; nil if it refuses.
    private static func mount(
        _ device: MemoryBlockDevice,
        _ engine: Engine,
        isSound: Bool
    ) async throws -> CrashNode? {
        do {
            let buffer = AlignedBuffer(byteCount: Int(Superblock.blockSizes.upperBound))
            try await device.read(buffer.bytes, at: Superblock.byteOffset)
            let superblock = try Superblock(verifying: buffer.readOnly, at: nil)
            try superblock.checkFeatures(forWriting: true)
            let needed = superblock.blockCount * UInt64(superblock.blockSize)
            guard device.byteCount >= needed else {
                throw FormatError.truncated(needed: needed, found: device.byteCount)
            }
            for slot in 0..<superblock.slotCount {
                _ = try await JournalReplay.replay(
                    device: device,
                    superblock: superblock,
                    slot: SlotIndex(slot)
                )
            }
            let address = superblock.slotDescriptor(SlotIndex(0))
            try await device.read(
                UnsafeMutableRawBufferPointer(
                    rebasing: buffer.bytes[..<Int(superblock.blockSize)]
                ),
                at: superblock.byteOffset(address)
            )
            let descriptor = try SlotDescriptor(
                verifying: UnsafeRawBufferPointer(
                    rebasing: buffer.readOnly[..<Int(superblock.blockSize)]
                ),
                at: address,
                in: superblock
            )
            return try await CrashNode.mount(device, superblock, descriptor, engine)
        } catch {
            if isSound { throw FuzzComplaint("a sound volume cannot be mounted: \(error)") }
            return nil
        }
    }

    // MARK: one use

    private var volume: MountedVolume { node.volume }

    private func run() async throws {
        for slot in 0..<volume.superblock.slotCount {
            await volume.freeOrphans(of: SlotIndex(slot))
        }
        directories = [.root]
        var next = 0
        while next < directories.count, objects.count < Self.mostObjects {
            try await list(directories[next])
            next += 1
        }
        for object in objects { try await look(object) }
        try await tried("statfs") { _ = try await volume.usage() }
        for object in objects.prefix(Self.mostChanged) { try await change(object) }
        try await make()
        try await tried("sync") { try await volume.synchronizeAll() }
        for object in objects { volume.forget(object.entry.node, count: 1) }
        try await tried("unmount") { try await volume.stop() }
        if isSound, let complaint = node.complaints.first {
            throw FuzzComplaint("a sound volume was complained about: \(complaint)")
        }
    }

    /// Carries out something that may be refused. Of a sound volume nothing fails with EIO.
    private func tried(_ what: String, _ body: () async throws -> Void) async throws {
        do {
            try await body()
        } catch FileError.inputOutput where isSound {
            throw FuzzComplaint("\(what): EIO on a sound volume \(node.complaints.first ?? "")")
        } catch is FileError {
            return
        }
    }

    /// Reads a directory in several parts, and looks up every name.
    private func list(_ directory: NodeHandle) async throws {
        var names: [[UInt8]] = []
        try await tried("readdir") {
            let opened = try await volume.openDirectory(directory, nil)
            var cookie: UInt64 = 0
            var parts = 0
            var hasMore = true
            while hasMore, parts < 40 {
                parts += 1
                hasMore = false
                var left = 30
                try await volume.readDirectory(directory, opened.handle, after: cookie, nil) {
                    if left == 0 {
                        hasMore = true
                        return false
                    }
                    left -= 1
                    cookie = $0.nextCookie
                    names.append(Array($0.name))
                    return true
                }
            }
            await volume.releaseDirectory(directory, opened.handle)
        }
        for name in names where objects.count < Self.mostObjects {
            if name == Array(".".utf8) || name == Array("..".utf8) { continue }
            try await tried("lookup") {
                let reply = try await node.withBytes(name) {
                    try await volume.lookup(directory, $0, nil)
                }
                guard case .found(let entry) = reply else { return }
                objects.append(Found(parent: directory, name: name, entry: entry))
                let isNew = !directories.contains(entry.node)
                if entry.attributes.mode & 0o170000 == 0o040000, isNew {
                    directories.append(entry.node)
                }
            }
        }
    }

    /// Reads all of an object.
    private func look(_ object: Found) async throws {
        let handle = object.entry.node
        try await tried("getattr") { _ = try await volume.getAttributes(handle, asker: nil, nil) }
        try await tried("listxattr") {
            let names = try await volume.listExtendedAttributes(handle, nil)
            for name in names.split(separator: 0).prefix(20) {
                _ = try await node.withBytes(Array(name)) {
                    try await volume.getExtendedAttribute(handle, $0, nil)
                }
            }
        }
        switch object.typeBits {
        case 0o120000: try await tried("readlink") { _ = try await volume.readLink(handle, nil) }
        case 0o100000: try await tried("read") { try await read(object) }
        default: break
        }
    }

    private func read(_ object: Found) async throws {
        let handle = object.entry.node
        let intent = OpenIntent(reads: true, writes: false, appends: false, truncates: false)
        let opened = try await volume.open(handle, intent, nil)
        let size = object.entry.attributes.size
        for offset in [0, 65_536, size / 2, size &- 100, size, UInt64(Int64.max) - 65_536] {
            _ = try await volume.read(
                handle,
                opened.handle,
                at: min(offset, UInt64(Int64.max) - 65_536) / 4096 * 4096,
                into: buffer.bytes,
                isFill: true,
                reader: nil,
                nil
            )
        }
        await volume.release(handle, opened.handle)
    }

    // MARK: changes

    private static let nobody = Caller(user: 0, group: 0, process: 1)

    private func change(_ object: Found) async throws {
        let handle = object.entry.node
        let attribute = Array("user.fuzz".utf8)
        for count in [10, 5000, 20] {
            try await tried("setxattr") {
                try await node.withBytes(attribute) { name in
                    try await node.withBytes([UInt8](repeating: 7, count: count)) { value in
                        try await volume.setExtendedAttribute(
                            handle,
                            name,
                            value,
                            .createOrReplace,
                            Self.nobody,
                            nil
                        )
                    }
                }
            }
        }
        if object.typeBits == 0o100000 { try await changeData(object) }
        if object.typeBits == 0o040000 { try await makeName(in: handle) }
        try await tried("removexattr") {
            try await node.withBytes(attribute) {
                try await volume.removeExtendedAttribute(handle, $0, Self.nobody, nil)
            }
        }
        let moved = Array("moved-\(objects.count)-".utf8) + object.name.prefix(100)
        try await tried("link") {
            try await node.withBytes(moved + [0x6C]) {
                let made = try await volume.link(
                    handle,
                    in: .root,
                    named: $0,
                    Self.nobody,
                    nil
                )
                volume.forget(made.node, count: 1)
            }
        }
        try await tried("rename") {
            try await node.withBytes(object.name) { name in
                try await node.withBytes(moved) {
                    try await volume.rename(
                        object.parent,
                        name,
                        to: .root,
                        $0,
                        .noReplace,
                        Self.nobody,
                        nil
                    )
                }
            }
        }
        try await remove(object, moved, from: .root)
        // Where the rename was refused.
        try await remove(object, object.name, from: object.parent)
    }

    private func remove(
        _ object: Found,
        _ name: [UInt8],
        from directory: NodeHandle
    ) async throws {
        try await tried("unlink") {
            try await node.withBytes(name) {
                if object.typeBits == 0o040000 {
                    try await volume.removeDirectory(directory, $0, nil)
                } else {
                    try await volume.unlink(directory, $0, nil)
                }
            }
        }
    }

    private func changeData(_ object: Found) async throws {
        let handle = object.entry.node
        let size = min(object.entry.attributes.size, UInt64(Int64.max) - 200_000)
        try await tried("write") {
            let intent = OpenIntent(reads: true, writes: true, appends: false, truncates: false)
            let opened = try await volume.open(handle, intent, nil)
            for offset in [0, size / 2, size, size + 10_000] {
                try await tried("write") {
                    _ = try await volume.write(
                        handle,
                        opened.handle,
                        at: offset,
                        from: UnsafeRawBufferPointer(rebasing: buffer.readOnly[..<5000]),
                        WriteFlags(
                            appends: false,
                            isWriteback: false,
                            isDirect: opened.isDirect,
                            dropsPrivileges: false
                        ),
                        nil
                    )
                }
            }
            try await tried("fsync") {
                try await volume.synchronize(handle, opened.handle, dataOnly: false)
            }
            await volume.release(handle, opened.handle)
        }
        for length in [size + 100_000, size / 3, 100, 0, 1 << 40] {
            try await tried("truncate") {
                var change = AttributeChange()
                change.size = length
                _ = try await volume.setAttributes(handle, nil, change, Self.nobody, nil)
            }
        }
    }

    /// A file with data and a directory in the root.
    private func make() async throws {
        try await makeName(in: .root)
        for number in 0..<20 {
            try await tried("mkdir") {
                try await node.withBytes(Array("made-\(number)".utf8)) {
                    let made = try await volume.make(
                        .directory(mode: 0o755),
                        in: .root,
                        named: $0,
                        Self.nobody,
                        nil
                    )
                    volume.forget(made.node, count: 1)
                }
            }
        }
    }

    private func makeName(in directory: NodeHandle) async throws {
        try await tried("create") {
            try await node.withBytes(Array("fuzz-\(directory.rawValue)".utf8)) {
                let intent = OpenIntent(reads: true, writes: true, appends: true, truncates: false)
                let (entry, opened) = try await volume.create(
                    in: directory,
                    named: $0,
                    mode: 0o100644,
                    isExclusive: true,
                    intent,
                    Self.nobody,
                    nil
                )
                await volume.release(entry.node, opened.handle)
                volume.forget(entry.node, count: 1)
            }
        }
    }
}
