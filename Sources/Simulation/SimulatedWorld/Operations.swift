// What a process may do in one go, done both to the model and to a node.

package import FileSystem
package import Vocabulary

/// One operation of a process: a system call or open, one call, close.
package enum TreeOperation: Sendable, CustomStringConvertible {
    case create(PathNames, isExclusive: Bool)
    case make(ModelKind, PathNames, target: [UInt8])
    case link(PathNames, PathNames)
    case remove(PathNames, isDirectory: Bool)
    case rename(PathNames, PathNames, RenameKind)
    case truncate(PathNames, UInt64)
    case allocate(PathNames, Range<UInt64>, Allocation)
    case mode(PathNames, UInt32)
    case setAttribute(PathNames, [UInt8], [UInt8]?)
    case write(PathNames, UInt64, count: Int, pattern: UInt64, synchronizes: Bool)
    case append(PathNames, count: Int, pattern: UInt64)
    case store(PathNames, UInt64, count: Int, pattern: UInt64)
    case read(PathNames, UInt64, count: Int)
    case synchronize(PathNames)

    package var description: String {
        switch self {
        case .create(let path, let isExclusive):
            "create \(text(path))\(isExclusive ? " (exclusive)" : "")"
        case .make(let kind, let path, _): "make \(kind) \(text(path))"
        case .link(let path, let new): "link \(text(path)) \(text(new))"
        case .remove(let path, let isDirectory): "\(isDirectory ? "rmdir" : "unlink") \(text(path))"
        case .rename(let path, let new, let kind): "rename \(text(path)) \(text(new)) \(kind)"
        case .truncate(let path, let size): "truncate \(text(path)) \(size)"
        case .allocate(let path, let range, let allocation):
            "\(allocation.kind) \(text(path)) \(range)\(allocation.keepsSize ? "" : ", may grow")"
        case .mode(let path, let mode): "chmod \(text(path)) \(String(mode, radix: 8))"
        case .setAttribute(let path, let name, let value):
            "setxattr \(text(path)) \(text([name])) \(value.map { "\($0.count) bytes" } ?? "gone")"
        case .write(let path, let offset, let count, _, let synchronizes):
            "write \(text(path)) \(offset)+\(count)\(synchronizes ? " and fsync" : "")"
        case .append(let path, let count, _): "append \(text(path)) \(count)"
        case .store(let path, let offset, let count, _): "store \(text(path)) \(offset)+\(count)"
        case .read(let path, let offset, let count): "read \(text(path)) \(offset)+\(count)"
        case .synchronize(let path): "fsync \(text(path))"
        }
    }
}

/// A path as text, long names cut.
func text(_ path: PathNames) -> String {
    "/"
        + path.map { name in
            name.count > 20
                ? String(decoding: name.prefix(12), as: UTF8.self) + "..(\(name.count))"
                : String(decoding: name, as: UTF8.self)
        }.joined(separator: "/")
}

/// Bytes that tell which write they come from and where they belong.
package func patternBytes(_ pattern: UInt64, count: Int) -> [UInt8] {
    var dice = SeededGenerator(seed: pattern)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + 8)
    while bytes.count < count {
        let word = dice.next()
        for shift in stride(from: 0, to: 64, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(shift)))
        }
    }
    return Array(bytes.prefix(count))
}

extension TreeModel {
    /// Does the operation to the model; what it answers is what a read returns.
    package mutating func apply(_ operation: TreeOperation) throws(FileError) -> [UInt8] {
        switch operation {
        case .create(let path, let isExclusive): try create(path, isExclusive)
        case .make(let kind, let path, let target):
            try make(kind, path, mode: kind == .symbolicLink ? 0o777 : 0o750, target: target)
        case .link(let path, let new): try link(path, new)
        case .remove(let path, let isDirectory): try remove(path, isDirectory: isDirectory)
        case .rename(let path, let new, let kind): try rename(path, new, kind)
        case .truncate(let path, let size):
            resize(try findFile(path, writes: true), to: size)
        case .allocate(let path, let range, let allocation):
            let object = try findFile(path, writes: true)
            allocate(object, range, allocation)
            dropPrivileges(object)
        case .mode(let path, let mode):
            let object = try find(path)
            objects[object].mode = mode
            touch(object)
        case .setAttribute(let path, let name, let value):
            let object = try find(path)
            if value == nil, !objects[object].attributes.contains(where: { $0.name == name }) {
                throw .noAttribute
            }
            setAttribute(object, name, value)
        case .write(let path, let offset, let count, let pattern, _):
            let object = try findFile(path, writes: true)
            write(object, at: offset, patternBytes(pattern, count: count))
            dropPrivileges(object)
        case .append(let path, let count, let pattern):
            let object = try findFile(path, writes: true)
            write(object, at: objects[object].size, patternBytes(pattern, count: count))
            dropPrivileges(object)
        case .store(let path, let offset, let count, let pattern):
            let object = try findFile(path, writes: true)
            let room = objects[object].size - min(offset, objects[object].size)
            let length = Int(min(UInt64(count), room))
            if length > 0 {
                write(
                    object,
                    at: offset,
                    Array(patternBytes(pattern, count: count).prefix(length))
                )
            }
        case .read(let path, let offset, let count):
            return read(try findFile(path, writes: false), at: offset, count: count)
        case .synchronize(let path): _ = try findFile(path, writes: false)
        }
        return []
    }

    private mutating func create(_ path: PathNames, _ isExclusive: Bool) throws(FileError) {
        do throws(FileError) {
            try make(.file, path, mode: 0o640)
        } catch .exists {
            if isExclusive { throw .exists }
            _ = try findFile(path, writes: true)
        }
    }

    private func findFile(_ path: PathNames, writes: Bool) throws(FileError) -> Int {
        let object = try find(path)
        if objects[object].kind == .directory { throw .isDirectory }
        if objects[object].kind != .file { throw .invalid }
        return object
    }

    mutating func dropPrivileges(_ object: Int) {
        let isForeign = objects[object].group != KernelModel.caller.group
        objects[object].mode &= ~0o4000
        if isForeign || objects[object].mode & 0o010 != 0 { objects[object].mode &= ~0o2000 }
    }
}

extension SimulatedNode {
    /// Does the operation as a process of this node.
    func perform(_ operation: TreeOperation) async throws(FileError) -> [UInt8] {
        switch operation {
        case .create(let path, let isExclusive):
            let file = try await kernel.open(
                path,
                .writing,
                creates: 0o640,
                isExclusive: isExclusive
            )
            try await kernel.close(file)
        case .make(let kind, let path, let target):
            try await kernel.make(newObject(kind, target), path)
        case .link(let path, let new): try await kernel.link(path, as: new)
        case .remove(let path, let isDirectory):
            try await kernel.remove(path, isDirectory: isDirectory)
        case .rename(let path, let new, let kind):
            try await kernel.rename(path, to: new, kind)
        case .truncate(let path, let size):
            var change = AttributeChange()
            change.size = size
            try await kernel.setAttributes(path, change)
        case .allocate(let path, let range, let allocation):
            _ = try await withFile(path, .writing) { file throws(FileError) in
                try await kernel.allocate(file, range, allocation)
                return []
            }
        case .mode(let path, let mode):
            var change = AttributeChange()
            change.mode = mode
            try await kernel.setAttributes(path, change)
        case .setAttribute(let path, let name, let value):
            if let value {
                try await kernel.setExtendedAttribute(path, name, value)
            } else {
                try await kernel.removeExtendedAttribute(path, name)
            }
        default: return try await performOnFile(operation)
        }
        return []
    }

    private func newObject(_ kind: ModelKind, _ target: [UInt8]) -> NewObject {
        switch kind {
        case .directory: .directory(mode: 0o750)
        case .symbolicLink: .symlink(target: target)
        case .file: .node(mode: 0o100750, device: 0)
        case .pipe: .node(mode: 0o010750, device: 0)
        }
    }

    private func performOnFile(_ operation: TreeOperation) async throws(FileError) -> [UInt8] {
        switch operation {
        case .write(let path, let offset, let count, let pattern, let synchronizes):
            _ = try await withFile(path, .writing) { file throws(FileError) in
                try await write(file, offset, patternBytes(pattern, count: count))
                if synchronizes { try await kernel.synchronize(file, dataOnly: false) }
                return []
            }
        case .append(let path, let count, let pattern):
            _ = try await withFile(path, .appending) { file throws(FileError) in
                try await write(file, 0, patternBytes(pattern, count: count))
                return []
            }
        case .store(let path, let offset, let count, let pattern):
            _ = try await withFile(path, .both) { file throws(FileError) in
                _ = try await kernel.status(file)
                let bytes = patternBytes(pattern, count: count)
                onWrite?(file.inode.identity, offset, bytes)
                _ = try await kernel.store(file, at: offset, bytes)
                return []
            }
        case .read(let path, let offset, let count):
            return try await withFile(path, .reading) { file throws(FileError) in
                try await kernel.read(file, at: offset, count: count)
            }
        case .synchronize(let path):
            _ = try await withFile(path, .reading) { file throws(FileError) in
                try await kernel.synchronize(file, dataOnly: true)
                return []
            }
        default: preconditionFailure("not an operation on a file")
        }
        return []
    }

    /// Writes all of the bytes, as a program does that looks at the count.
    func write(
        _ file: KernelFile,
        _ offset: UInt64,
        _ bytes: [UInt8]
    ) async throws(FileError) {
        onWrite?(file.inode.identity, file.intent.appends ? nil : offset, bytes)
        var done = 0
        while done < bytes.count {
            let count = try await kernel.write(
                file,
                at: offset + UInt64(done),
                Array(bytes[done...])
            )
            if count == 0 { throw .noSpace }
            done += count
        }
    }

    func withFile(
        _ path: PathNames,
        _ intent: OpenIntent,
        _ body: (KernelFile) async throws(FileError) -> [UInt8]
    ) async throws(FileError) -> [UInt8] {
        let file = try await kernel.open(path, intent)
        do throws(FileError) {
            let result = try await body(file)
            try await kernel.close(file)
            return result
        } catch {
            if !file.isClosed { try await kernel.close(file) }
            throw error
        }
    }
}

extension OpenIntent {
    static let reading = OpenIntent(reads: true, writes: false, appends: false, truncates: false)
    static let writing = OpenIntent(reads: false, writes: true, appends: false, truncates: false)
    static let both = OpenIntent(reads: true, writes: true, appends: false, truncates: false)
    static let appending = OpenIntent(reads: false, writes: true, appends: true, truncates: false)
}
