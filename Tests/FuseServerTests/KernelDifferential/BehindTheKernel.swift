// What happens in the file system itself while a program runs, the same for both kernels.

import FileSystem
import Vocabulary

/// What a step led to.
struct StepOutcome: Sendable {
    /// The value or the error, as text.
    var result: String
    var requests: [RecordedRequest] = []
}

extension MemoryFiles {
    /// The tree that every program begins with.
    func plantTree() {
        nodes[0].attributes.accessed = now
        nodes[0].attributes.modified = now
        nodes[0].attributes.changed = now
        plant("a", 0o100644, bytes: 5 * 4096 + 100)
        plant("d", 0o040755)
        plant("e", 0o040755)
        plant("d/x", 0o100644, bytes: 100)
        plant("s", 0o120777)
    }

    private func plant(_ path: String, _ mode: UInt32, bytes: Int = 0) {
        let made = newNode(mode: mode, caller: Caller(user: 0, group: 0, process: 0))
        if mode & 0o170000 == 0o040000 { made.attributes.linkCount = 2 }
        if mode & 0o170000 == 0o120000 {
            made.target = Array("a".utf8)
            made.attributes.size = 1
        }
        if bytes > 0 {
            resize(made, bytes)
            for position in 0..<bytes { made.data[position] = UInt8(1 + position / 4096) }
        }
        guard let parent = found(TestPath.parent(path)) else { return }
        add(nodes[parent], Array(TestPath.name(path).utf8), nodes.count - 1)
    }

    /// The inode of a path as it is now.
    func found(_ path: String) -> Int? {
        var here = 0
        for name in TestPath.names(path) {
            guard let entry = nodes[here].names.first(where: { $0.name == name }) else {
                return nil
            }
            here = entry.node
        }
        return here
    }

    private func isFile(_ index: Int) -> Bool {
        nodes[index].attributes.mode & 0o170000 == 0o100000
    }

    private func handle(of path: String) -> NodeHandle? {
        found(path).map { NodeHandle(UInt64($0) + 1) }
    }

    /// Carries out a step that no process makes.
    func happen(_ step: KernelStep, _ cache: any KernelCache) async {
        switch step {
        case .invalidateAttributes(let path):
            if let node = handle(of: path) { await cache.invalidateInode(node, data: nil) }
        case .invalidateData(let path, let offset, let length):
            guard let node = handle(of: path) else { return }
            await cache.invalidateInode(
                node,
                data: (UInt64(offset), length.map { UInt64($0) })
            )
        case .invalidateNames(let path, let names):
            guard let node = handle(of: path) else { return }
            await cache.invalidateEntries(of: node, names: names?.map { Array($0.utf8) })
        case .allow(let entries, let attributes, let pages, let direct):
            entriesAreCacheable = entries
            attributesAreCacheable = attributes
            keepsPages = pages
            opensDirectly = direct
        case .remoteMake, .remoteUnlink: await changeNames(step, cache)
        default: await changeFile(step, cache)
        }
    }

    private func changeFile(_ step: KernelStep, _ cache: any KernelCache) async {
        switch step {
        case .remoteWrite(let path, let offset, let count, let byte, let tells):
            guard let index = found(path), isFile(index) else { return }
            let file = nodes[index]
            if offset + count > file.data.count { resize(file, offset + count) }
            for position in offset..<offset + count { file.data[position] = byte }
            file.attributes.modified = now
            guard tells, let node = handle(of: path) else { return }
            await cache.invalidateInode(node, data: (UInt64(offset), UInt64(count)))
        case .remoteTruncate(let path, let size, let tells):
            guard let index = found(path), isFile(index) else { return }
            resize(nodes[index], size)
            guard tells, let node = handle(of: path) else { return }
            await cache.invalidateInode(node, data: (0, nil))
        case .remoteMode(let path, let mode, let tells):
            guard let index = found(path) else { return }
            nodes[index].attributes.mode = nodes[index].attributes.mode & 0o170000 | mode
            nodes[index].attributes.changed = now
            guard tells, let node = handle(of: path) else { return }
            await cache.invalidateInode(node, data: nil)
        default: preconditionFailure("a process does this")
        }
    }

    private func changeNames(_ step: KernelStep, _ cache: any KernelCache) async {
        switch step {
        case .remoteMake(let path, let tells):
            guard let parent = found(TestPath.parent(path)), found(path) == nil,
                nodes[parent].attributes.mode & 0o170000 == 0o040000
            else { return }
            plant(path, 0o100600, bytes: 5000)
            guard tells, let node = handle(of: TestPath.parent(path)) else { return }
            await cache.invalidateEntries(of: node, names: [Array(TestPath.name(path).utf8)])
        case .remoteUnlink(let path, let tells):
            guard let parent = found(TestPath.parent(path)), let index = found(path),
                isFile(index), let node = handle(of: path)
            else { return }
            removeName(nodes[parent], Array(TestPath.name(path).utf8))
            guard tells, let above = handle(of: TestPath.parent(path)) else { return }
            await cache.invalidateEntries(of: above, names: [Array(TestPath.name(path).utf8)])
            await cache.invalidateInode(node, data: nil)
        default: preconditionFailure("no change of names")
        }
    }
}

/// How results are written down.
enum Outcomes {
    /// Runs of equal bytes.
    static func bytes(_ bytes: [UInt8]) -> String {
        var runs: [(byte: UInt8, count: Int)] = []
        for byte in bytes {
            if runs.last?.byte == byte {
                runs[runs.count - 1].count += 1
            } else {
                runs.append((byte, 1))
            }
        }
        return "\(bytes.count): " + runs.map { "\($0.byte)x\($0.count)" }.joined(separator: " ")
    }

    static func attributes(
        inode: UInt64,
        mode: UInt32,
        links: UInt64,
        size: UInt64,
        times: [Int64]
    ) -> String {
        "inode \(inode), mode \(String(mode, radix: 8)), links \(links), size \(size), times \(times)"
    }

    static func names(_ names: [(name: [UInt8], inode: UInt64, type: UInt32)]) -> String {
        names.map { "\(String(decoding: $0.name, as: UTF8.self))=\($0.inode)/\($0.type)" }.sorted()
            .joined(separator: " ")
    }
}
