// What happens between operations: files stay open across them, time passes, memory gets short,
// nodes come, go and die.

import Execution
import FileSystem
import Vocabulary

/// A file that a process keeps open over many operations.
final class HeldFile {
    let node: SimulatedNode
    let file: KernelFile
    let object: Int

    init(node: SimulatedNode, file: KernelFile, object: Int) {
        self.node = node
        self.file = file
        self.object = object
    }
}

extension Simulation {
    // MARK: Files that stay open

    /// One operation on a file that is open, or opens or closes one.
    func playHandle(_ node: SimulatedNode, _ index: Int) async throws {
        let mine = handles.filter { $0.node === node }
        if mine.isEmpty || (mine.count < 4 && dice.oneIn(3)) {
            try await openHandle(node)
        } else {
            let handle = mine[dice.below(mine.count)]
            if dice.oneIn(4) {
                handles.removeAll { $0 === handle }
                log("\(node.kernel.name): close #\(handle.object)")
                try await close(handle)
            } else {
                try await unlessFull(handle.object) { try await self.use(handle) }
            }
        }
    }

    /// Where there is no room, nobody knows what is in the file now.
    func unlessFull(_ object: Int, _ body: () async throws -> Void) async throws {
        do {
            try await body()
        } catch let error as FileError where isRefusal(error) {
            tree.doubt(object)
            try await goOnWithoutSpace()
        }
    }

    private func openHandle(_ node: SimulatedNode) async throws {
        let paths = tree.allPaths().filter { tree.objects[$0.object].kind == .file }
        guard !paths.isEmpty else { return }
        let (path, object) = paths[dice.below(paths.count)]
        let intents: [OpenIntent] = [.reading, .writing, .both, .both, .appending]
        let intent = intents[dice.below(intents.count)]
        log("\(node.kernel.name): open \(text(path)) as #\(object)")
        let file = try await within("open \(text(path))") {
            try await node.kernel.open(path, intent)
        }
        handles.append(HeldFile(node: node, file: file, object: object))
    }

    func close(_ handle: HeldFile) async throws {
        if handle.node.isDead || handle.file.isClosed { return }
        try await within("close #\(handle.object)") {
            try await handle.node.kernel.close(handle.file)
        }
        try healthy(handle.node)
    }

    private func use(_ handle: HeldFile) async throws {
        tree.actor = Int(handle.node.slot.rawValue)
        let (node, file, object) = (handle.node, handle.file, handle.object)
        let offset = UInt64(dice.below(dice.oneIn(2) ? 6000 : 60_000))
        let count = 1 + dice.below(9000)
        let what = "\(node.kernel.name): #\(object) \(offset)+\(count)"
        let size = tree.objects[object].size
        if file.intent.writes, dice.oneIn(2) {
            let bytes = patternBytes(dice.next(), count: count)
            if file.intent.reads, dice.oneIn(2) {
                try await store(handle, at: offset, bytes)
            } else {
                log("\(what) write")
                tree.write(object, at: file.intent.appends ? size : offset, bytes)
                tree.dropPrivileges(object)
                provenance.end = size
                defer { provenance.end = nil }
                try await within("\(what) write") { try await node.write(file, offset, bytes) }
            }
        } else if file.intent.reads {
            log("\(what) read")
            let wanted = tree.read(object, at: offset, count: count)
            let shown = try await within("\(what) read") {
                try await node.kernel.read(file, at: offset, count: count)
            }
            if shown != wanted {
                throw SimulationFailure("\(what): \(difference(shown, wanted, offset))")
            }
        } else if file.intent.writes, dice.oneIn(2) {
            log("\(what) ftruncate")
            tree.resize(object, to: offset)
            try await within("\(what) ftruncate") {
                try await node.kernel.truncate(file, to: offset)
            }
        }
        try healthy(node)
        try await checkStatus(handle)
    }

    /// Stores through a mapping. Whoever does not ask may know an older size: what is stored behind
    /// the end is lost (F8), what the file has gained cannot be stored to.
    private func store(_ handle: HeldFile, at offset: UInt64, _ bytes: [UInt8]) async throws {
        let (node, file, object) = (handle.node, handle.file, handle.object)
        let what = "\(node.kernel.name): #\(object) \(offset)+\(bytes.count)"
        log("\(what) store")
        let asks = !dice.oneIn(3)
        if !asks, dice.oneIn(2) { try await shorten(object, besides: node) }
        let size = tree.objects[object].size
        let length = Int(min(UInt64(bytes.count), size - min(offset, size)))
        let done = try await within("\(what) store") {
            if asks { _ = try await node.kernel.status(file) }
            node.onWrite?(file.inode.identity, offset, bytes)
            return try await node.kernel.store(file, at: offset, bytes)
        }
        if asks, done != length {
            throw SimulationFailure("\(what): stored \(done), not \(length)")
        }
        let inside = min(done, length)
        if inside > 0 { tree.write(object, at: offset, Array(bytes.prefix(inside))) }
        if done > length { try await growBehind(handle, offset, done) }
    }

    /// Another node makes a file shorter, if it can.
    private func shorten(_ object: Int, besides node: SimulatedNode) async throws {
        let size = tree.objects[object].size
        guard size > 0, let other = cluster.living.first(where: { $0 !== node }),
            let path = tree.allPaths().first(where: { $0.object == object })?.path
        else { return }
        let end = UInt64(dice.below(Int(size)))
        log("\(other.kernel.name): truncate #\(object) \(end)")
        tree.actor = Int(other.slot.rawValue)
        tree.resize(object, to: end)
        try await within("truncate #\(object)") {
            _ = try await other.perform(.truncate(path, end))
        }
        tree.actor = Int(node.slot.rawValue)
    }

    /// What was stored behind the end is written back, and so lost; then the file grows over it.
    private func growBehind(_ handle: HeldFile, _ offset: UInt64, _ count: Int) async throws {
        guard dice.oneIn(2) else { return }
        let (node, file, object) = (handle.node, handle.file, handle.object)
        let place = offset + UInt64(count + dice.below(9000))
        let bytes = patternBytes(dice.next(), count: 1 + dice.below(200))
        let what = "\(node.kernel.name): #\(object) \(place)+\(bytes.count) behind what is lost"
        log("\(what): fsync, write")
        try await within(what) { try await node.kernel.synchronize(file, dataOnly: true) }
        tree.write(object, at: place, bytes)
        tree.dropPrivileges(object)
        try await within(what) { try await node.write(file, place, bytes) }
        let wanted = tree.read(object, at: offset, count: count)
        let shown = try await within("\(what): read") {
            try await node.kernel.read(file, at: offset, count: count)
        }
        if shown != wanted {
            throw SimulationFailure("\(what): \(difference(shown, wanted, offset))")
        }
    }

    private func checkStatus(_ handle: HeldFile) async throws {
        let (node, file) = (handle.node, handle.file)
        let shown = try await within("fstat #\(handle.object)") {
            try await node.kernel.status(file)
        }
        let expected = tree.objects[handle.object]
        guard shown.size == expected.size, shown.linkCount == expected.links else {
            throw SimulationFailure(
                "\(node.kernel.name) shows of open #\(handle.object) size \(shown.size), \(shown.linkCount) links, not \(expected.size), \(expected.links)"
            )
        }
    }

    // MARK: Other things

    /// Perhaps something happens besides work.
    func disturb() async throws {
        if dice.oneIn(4) {
            for node in cluster.living where dice.oneIn(3) { node.kernel.shrink() }
        }
        if dice.oneIn(10) {
            await engine.sleep(
                until: engine.clock.now.advanced(milliseconds: UInt64(dice.below(120)))
            )
        }
        if dice.oneIn(20), let node = cluster.living.first {
            try await within("sync") { try await node.kernel.synchronizeAll() }
            tree.settle(Int(node.slot.rawValue))
        }
        if plan.faults.contains(.remount), dice.oneIn(40) {
            try await remount(dice.below(plan.nodes))
        }
    }

    private func remount(_ index: Int) async throws {
        guard let node = cluster.nodes[index] else { return }
        for handle in handles where handle.node === node { try await close(handle) }
        handles.removeAll { $0.node === node }
        try await unmount(index)
        if cluster.living.isEmpty { try await check() }
        try await mount(index)
    }
}
