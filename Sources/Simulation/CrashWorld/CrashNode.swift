// One node with the volume mounted, alone or beside others: the production file system, journal and
// store, without a kernel in front of it. Operations are asked for by path, one after the other.

package import BlockIO
package import DiskFormat
package import Execution
package import FileSystem
import Journaling
import LockCache
import SimulatedMachine
import Vocabulary

/// A mount of a volume in one slot. Engine-bound.
package final class CrashNode {
    package let engine: Engine
    package let volume: MountedVolume
    /// Why the node withdrew, and what it reported.
    package private(set) var complaints: [String] = []
    /// Told of each complaint.
    package var onComplaint: (() -> Void)?
    /// Keeps the lock service alive.
    private let service: any LockService

    private static let nobody = Caller(user: 0, group: 0, process: 1)
    static let attributeName = "user.crash"

    private init(_ engine: Engine, _ volume: MountedVolume, _ service: any LockService) {
        self.engine = engine
        self.volume = volume
        self.service = service
        volume.onReport = { [weak self] line in self?.complain(line) }
        volume.onWithdraw = { [weak self] line in self?.complain(line) }
    }

    private func complain(_ line: String) {
        complaints.append(line)
        onComplaint?()
    }

    /// Mounts a volume whose journals are clean, in the slot of `descriptor`, for a node that is alone.
    package static func mount(
        _ device: any BlockDevice,
        _ superblock: Superblock,
        _ descriptor: SlotDescriptor,
        _ engine: Engine
    ) async throws -> CrashNode {
        let locks = SoleNodeLocks(engine: engine)
        return try await mount(device, superblock, descriptor, engine, locks) {
            locks.client = $0
        }
    }

    /// Mounts a volume in a slot whose journal is clean. `connect` is told to whom the answers of
    /// `service` go, before the first lock is asked for.
    static func mount(
        _ device: any BlockDevice,
        _ superblock: Superblock,
        _ descriptor: SlotDescriptor,
        _ engine: Engine,
        _ service: any LockService,
        _ connect: (LockTable) -> Void
    ) async throws -> CrashNode {
        let cache = MetadataCache(device: device, superblock: superblock, capacity: 4096)
        let journal = try await Journal.open(
            device: device,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            engine: engine
        )
        let volume = MountedVolume(
            engine: engine,
            device: device,
            superblock: superblock,
            descriptor: descriptor,
            cache: cache,
            journal: journal,
            lockService: service,
            options: MountOptions()
        )
        let node = CrashNode(engine, volume, service)
        connect(volume.locks)
        try await volume.start()
        return node
    }

    // MARK: Names

    /// What a path leads to; the caller forgets it.
    func find(_ path: String) async throws -> EntryReply {
        var names = path.split(separator: "/").map { Array($0.utf8) }
        if names.isEmpty { names = [Array(".".utf8)] }
        var node = NodeHandle.root
        var found: EntryReply?
        for name in names {
            let reply = try await withBytes(name) { bytes in
                try await self.volume.lookup(node, bytes, nil)
            }
            if let found { volume.forget(found.node, count: 1) }
            guard case .found(let entry) = reply else { throw FileError.notFound }
            found = entry
            node = entry.node
        }
        guard let found else { throw FileError.notFound }
        return found
    }

    private func with<Value>(
        _ path: String,
        _ body: (EntryReply) async throws -> Value
    ) async throws -> Value {
        let entry = try await find(path)
        do {
            let value = try await body(entry)
            volume.forget(entry.node, count: 1)
            return value
        } catch {
            volume.forget(entry.node, count: 1)
            throw error
        }
    }

    private func withParent<Value>(
        of path: String,
        _ body: (NodeHandle, UnsafeRawBufferPointer) async throws -> Value
    ) async throws -> Value {
        let names = path.split(separator: "/")
        let name = Array((names.last ?? "").utf8)
        return try await with(names.dropLast().joined(separator: "/")) { directory in
            try await withBytes(name) { try await body(directory.node, $0) }
        }
    }

    /// The bytes stay where they are until `body` has returned.
    package func withBytes<Value>(
        _ bytes: [UInt8],
        _ body: (UnsafeRawBufferPointer) async throws -> Value
    ) async throws -> Value {
        let buffer = AlignedBuffer(byteCount: max(bytes.count, 1))
        buffer.bytes.copyBytes(from: bytes)
        let value = try await body(
            UnsafeRawBufferPointer(rebasing: buffer.readOnly[..<bytes.count])
        )
        withExtendedLifetime(buffer) {}
        return value
    }

    // MARK: Operations

    /// Carries out one operation. Its number says what it writes.
    package func perform(_ operation: CrashOperation, number: Int) async throws {
        switch operation {
        case .create, .makeDirectory, .makeSymlink: try await make(operation, number)
        case .write(let path, let offset, let count):
            let bytes = CrashOperation.pattern(number, offset: offset, count: count)
            try await write(path, bytes, at: UInt64(offset), appends: false)
        case .append(let path, let count):
            let size = try await with(path) { Int($0.attributes.size) }
            let bytes = CrashOperation.pattern(number, offset: size, count: count)
            try await write(path, bytes, at: UInt64(size), appends: true)
        case .truncate(let path, let size):
            var change = AttributeChange()
            change.size = UInt64(size)
            try await with(path) {
                _ = try await volume.setAttributes($0.node, nil, change, Self.nobody, nil)
            }
        case .setAttribute(let path, let count): try await setAttribute(path, count, number)
        case .rename(let path, let target): try await rename(path, target, .replace)
        case .exchange(let path, let other): try await rename(path, other, .exchange)
        case .link(let path, let name):
            try await with(path) { target in
                try await withParent(of: name) { directory, name in
                    let made = try await volume.link(
                        target.node,
                        in: directory,
                        named: name,
                        Self.nobody,
                        nil
                    )
                    volume.forget(made.node, count: 1)
                }
            }
        case .unlink(let path):
            try await withParent(of: path) { try await volume.unlink($0, $1, nil) }
        case .removeDirectory(let path):
            try await withParent(of: path) { try await volume.removeDirectory($0, $1, nil) }
        case .open(let path):
            let intent = OpenIntent(reads: true, writes: false, appends: false, truncates: false)
            // Neither closed nor forgotten: it stays open to the end.
            _ = try await volume.open(try await find(path).node, intent, nil)
        case .synchronize(let path):
            try await with(path) {
                try await volume.synchronize($0.node, nil, dataOnly: false)
            }
        case .synchronizeAll: try await volume.synchronizeAll()
        case .pause: await engine.sleep(nanoseconds: 3 * MountOptions().commitInterval)
        case .unmount: try await volume.stop()
        }
    }

    private func make(_ operation: CrashOperation, _ number: Int) async throws {
        let object: NewObject
        switch operation {
        case .makeDirectory: object = .directory(mode: 0o755)
        case .makeSymlink(_, let length):
            object = .symlink(
                target: CrashOperation.pattern(number, offset: 0, count: length)
            )
        default: object = .node(mode: 0o100644, device: 0)
        }
        try await withParent(of: operation.paths[0]) { directory, name in
            let made = try await volume.make(
                object,
                in: directory,
                named: name,
                Self.nobody,
                nil
            )
            volume.forget(made.node, count: 1)
        }
    }

    private func write(
        _ path: String,
        _ bytes: [UInt8],
        at offset: UInt64,
        appends: Bool
    ) async throws {
        try await with(path) { file in
            let opened = try await volume.open(
                file.node,
                OpenIntent(reads: false, writes: true, appends: appends, truncates: false),
                nil
            )
            let flags = WriteFlags(
                appends: appends,
                isWriteback: false,
                isDirect: opened.isDirect,
                dropsPrivileges: false
            )
            let written = try await withBytes(bytes) {
                try await volume.write(file.node, opened.handle, at: offset, from: $0, flags, nil)
            }
            try await volume.flush(file.node, opened.handle, ByteLockOwner(0))
            await volume.release(file.node, opened.handle)
            if written != bytes.count { throw FileError.noSpace }
        }
    }

    private func setAttribute(_ path: String, _ count: Int, _ number: Int) async throws {
        let value = CrashOperation.pattern(number, offset: 0, count: count)
        try await with(path) { object in
            try await withBytes(Array(Self.attributeName.utf8)) { name in
                try await withBytes(value) { value in
                    try await volume.setExtendedAttribute(
                        object.node,
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

    private func rename(_ path: String, _ target: String, _ kind: RenameKind) async throws {
        try await withParent(of: path) { from, name in
            try await withParent(of: target) { to, newName in
                try await volume.rename(
                    from,
                    name,
                    to: to,
                    newName,
                    kind,
                    Self.nobody,
                    nil
                )
            }
        }
    }

    // MARK: Looking

    /// Reads the whole tree.
    func observe() async throws -> ObservedTree {
        var objects: [ObservedObject] = []
        var paths = [""]
        while let path = paths.popLast() {
            let object = try await observe(path)
            objects.append(object)
            guard object.kind == .directory else { continue }
            for name in try await names(in: path) {
                paths.append(path.isEmpty ? name : path + "/" + name)
            }
        }
        return ObservedTree(objects: objects.sorted { $0.path < $1.path })
    }

    private func observe(_ path: String) async throws -> ObservedObject {
        try await with(path) { entry in
            let kind: ModelKind
            var content: [UInt8] = []
            switch entry.attributes.mode & 0o170000 {
            case 0o040000: kind = .directory
            case 0o120000:
                kind = .symlink
                content = try await volume.readLink(entry.node, nil)
            default:
                kind = .file
                content = try await read(entry)
            }
            return ObservedObject(
                path: path,
                kind: kind,
                inode: entry.attributes.inode,
                linkCount: entry.attributes.linkCount,
                content: content,
                attribute: kind == .symlink ? nil : try await attribute(of: entry.node)
            )
        }
    }

    private func attribute(of node: NodeHandle) async throws -> [UInt8]? {
        do {
            return try await withBytes(Array(Self.attributeName.utf8)) {
                try await volume.getExtendedAttribute(node, $0, nil)
            }
        } catch FileError.noAttribute {
            return nil
        }
    }

    private func read(_ file: EntryReply) async throws -> [UInt8] {
        let size = Int(file.attributes.size)
        guard size > 0 else { return [] }
        let intent = OpenIntent(reads: true, writes: false, appends: false, truncates: false)
        let opened = try await volume.open(file.node, intent, nil)
        let buffer = AlignedBuffer(byteCount: size)
        let count = try await volume.read(
            file.node,
            opened.handle,
            at: 0,
            into: buffer.bytes,
            isFill: false,
            reader: nil,
            nil
        )
        await volume.release(file.node, opened.handle)
        return Array(buffer.readOnly[..<count])
    }

    private func names(in path: String) async throws -> [String] {
        try await with(path) { directory in
            let opened = try await volume.openDirectory(directory.node, nil)
            var names: [String] = []
            try await volume.readDirectory(directory.node, opened.handle, after: 0, nil) { entry in
                let name = String(decoding: entry.name, as: UTF8.self)
                if name != ".", name != ".." { names.append(name) }
                return true
            }
            await volume.releaseDirectory(directory.node, opened.handle)
            return names
        }
    }
}
