// What a node shows, compared with the oracle.

import DiskFormat
import FileSystem
import SimulatedMachine
import Vocabulary
import VolumeMaking

/// Looks at one node and tells where it differs from the model.
struct Comparison {
    let node: SimulatedNode
    let tree: TreeModel
    var dice: SeededGenerator

    /// One object: attributes, content, names.
    ///
    /// - Parameter isLasting: only what lasts whatever happens to other names of it, and to names
    /// in it.
    mutating func check(
        _ path: PathNames,
        _ object: Int,
        isLasting: Bool = false
    ) async throws {
        let expected = tree.objects[object]
        let shown = try await ask("stat", path) { kernel throws(FileError) in
            try await kernel.status(path)
        }
        try demand(shown.mode == expected.kind.typeBits | expected.mode, path) {
            "mode \(String(shown.mode, radix: 8)), not \(String(expected.mode, radix: 8))"
        }
        try demand(isLasting || shown.linkCount == expected.links, path) {
            "\(shown.linkCount) links, not \(expected.links)"
        }
        if expected.kind != .directory {
            try demand(shown.size == expected.size, path) {
                "size \(shown.size), not \(expected.size)"
            }
        }
        try await checkAttributes(path, expected)
        switch expected.kind {
        case .directory: try await checkListing(path, expected)
        case .file: try await checkContent(path, object, expected)
        case .symbolicLink:
            let target = try await ask("readlink", path) { kernel throws(FileError) in
                try await kernel.readLink(path)
            }
            try demand(target == expected.target, path) { "another target" }
        case .pipe: break
        }
    }

    private func checkAttributes(_ path: PathNames, _ expected: ModelObject) async throws {
        let names = try await ask("listxattr", path) { kernel throws(FileError) in
            try await kernel.extendedAttributeNames(path)
        }
        let shown = names.split(separator: 0).map(Array.init).sorted {
            $0.lexicographicallyPrecedes($1)
        }
        try demand(shown == expected.attributes.map(\.name), path) {
            "\(shown.count) extended attributes, not \(expected.attributes.count)"
        }
        for (name, value) in expected.attributes {
            let shown = try await ask("getxattr", path) { kernel throws(FileError) in
                try await kernel.extendedAttribute(path, name)
            }
            try demand(shown == value, path) { "another value of \(text([name]))" }
        }
    }

    private func checkListing(_ path: PathNames, _ expected: ModelObject) async throws {
        let listed = try await ask("readdir", path) { kernel throws(FileError) in
            try await kernel.list(path)
        }
        let names = listed.map(\.name).filter { $0 != [46] && $0 != [46, 46] }
        try demand(listed.count == names.count + 2, path) { "no . or .." }
        try demand(names == expected.entries.map(\.name), path) {
            let missing = expected.entries.filter { !names.contains($0.name) }.map(\.name)
            let extra = names.filter { expected.index(of: $0) == nil }
            return
                "listing lacks \(text(missing)), has besides \(text(extra)), \(names.count) for \(expected.entries.count)"
        }
        for (entry, shown) in zip(
            expected.entries,
            listed.filter { $0.name != [46] && $0.name != [46, 46] }
        ) {
            try demand(shown.typeBits == tree.objects[entry.object].kind.typeBits, path) {
                "\(text([entry.name])) is listed as another kind"
            }
        }
    }

    private mutating func checkContent(
        _ path: PathNames,
        _ object: Int,
        _ expected: ModelObject
    ) async throws {
        var ranges: [(UInt64, Int)] = []
        if expected.size <= 100_000 {
            ranges = [(0, Int(expected.size) + 10)]
        } else {
            ranges = [(0, 20_000), (expected.size - 5000, 6000)]
            let pages = expected.pages.keys.sorted()
            if !pages.isEmpty { ranges.append((pages[dice.below(pages.count)] * 4096, 8192)) }
        }
        for (offset, count) in ranges {
            let shown = try await ask("read", path) { _ throws(FileError) in
                try await node.perform(.read(path, offset, count: count))
            }
            let wanted = tree.read(object, at: offset, count: count)
            try demand(shown == wanted, path) { difference(shown, wanted, offset) }
        }
        if dice.oneIn(4) { try await checkHoles(path, object, expected.size) }
    }

    /// What the node calls a hole is zero, and data and holes follow each other to the end.
    private mutating func checkHoles(
        _ path: PathNames,
        _ object: Int,
        _ size: UInt64
    ) async throws {
        let start = size == 0 ? 0 : UInt64(dice.below(Int(clamping: size)))
        var places: [(data: UInt64, hole: UInt64)] = []
        _ = try await ask("lseek", path) { kernel throws(FileError) in
            let file = try await kernel.open(path, .reading)
            var place = start
            do throws(FileError) {
                while place < size, places.count < 20 {
                    let data = try await kernel.seek(file, from: place, to: .data)
                    place = try await kernel.seek(file, from: data, to: .hole)
                    places.append((data, place))
                }
            } catch {
                try await kernel.close(file)
                guard error == .noSuchAddress else { throw error }
                return true
            }
            try await kernel.close(file)
            return true
        }
        var last = start
        for (data, hole) in places {
            try demand(last <= data && data < hole && hole <= size, path) {
                "data at \(data) behind \(last), a hole at \(hole) of \(size)"
            }
            try demandZeros(path, object, last..<data)
            last = hole
        }
        if places.count < 20 { try demandZeros(path, object, last..<max(last, size)) }
    }

    private func demandZeros(_ path: PathNames, _ object: Int, _ range: Range<UInt64>) throws {
        for (page, bytes) in tree.objects[object].pages.sorted(by: { $0.key < $1.key }) {
            let start = page * TreeModel.pageSize
            let part = range.clamped(to: start..<start + TreeModel.pageSize)
            let isZero = part.allSatisfy { bytes[Int($0 - start)] == 0 }
            try demand(isZero, path) { "a hole at \(range) that is none" }
        }
    }

    /// What is there, if anything.
    func kind(_ path: PathNames) async -> ModelKind? {
        let result = await Simulation.result { () async throws(FileError) in
            try await node.kernel.status(path)
        }
        guard case .success(let shown) = result else { return nil }
        let kinds: [ModelKind] = [.file, .directory, .symbolicLink, .pipe]
        return kinds.first { $0.typeBits == shown.mode & 0o170000 }
    }

    /// Every object of the tree.
    mutating func checkAll() async throws {
        for (path, object) in tree.allPaths() { try await check(path, object) }
    }

    private func ask<Result>(
        _ what: String,
        _ path: PathNames,
        _ body: (KernelModel) async throws(FileError) -> Result
    ) async throws -> Result {
        node.lastLook = "\(what) \(text(path))"
        do throws(FileError) {
            return try await body(node.kernel)
        } catch {
            throw SimulationFailure("\(node.kernel.name) \(what) \(text(path)): \(error)")
        }
    }

    private func demand(
        _ isTrue: Bool,
        _ path: PathNames,
        _ complaint: () -> String
    ) throws(SimulationFailure) {
        if !isTrue {
            throw SimulationFailure("\(node.kernel.name) shows of \(text(path)) \(complaint())")
        }
    }
}

/// Where two pieces of a file begin to differ.
func difference(_ shown: [UInt8], _ wanted: [UInt8], _ offset: UInt64) -> String {
    guard let index = zip(shown, wanted).enumerated().first(where: { $1.0 != $1.1 })?.offset else {
        return "\(shown.count) bytes from \(offset), not \(wanted.count)"
    }
    var end = index
    while end < min(shown.count, wanted.count), shown[end] != wanted[end] { end += 1 }
    let zeros = shown[index..<end].allSatisfy { $0 == 0 } ? ", zeros" : ""
    return "other bytes \(offset + UInt64(index))..<\(offset + UInt64(end))\(zeros)"
}

extension Simulation {
    /// The model knows no times; but all nodes show the same of them.
    func compareTimes() async throws {
        let living = cluster.living
        guard living.count > 1 else { return }
        for (path, _) in tree.allPaths() {
            var shown: [[Timestamp]] = []
            // What a mapping has stored counts when it is written back, and that may be at the first look of
            // another node.
            // And an answer may be taken back 50 ms later (KERNEL F9).
            for attempt in 1...2 where attempt == 1 || Set(shown).count > 1 {
                if attempt == 2 { await engine.sleep(nanoseconds: 60_000_000) }
                shown = []
                for node in living {
                    let status = try await within("stat \(text(path))") {
                        try await node.kernel.status(path)
                    }
                    shown.append([status.modified, status.changed])
                }
            }
            guard let odd = shown.firstIndex(where: { $0 != shown[0] }) else { continue }
            throw SimulationFailure(
                "\(text(path)): \(living[0].kernel.name) shows the times \(shown[0]), \(living[odd].kernel.name) \(shown[odd])"
            )
        }
    }

    /// A node at rest, with nothing open, keeps no more in memory than it may.
    func demandNoLeaks(_ node: SimulatedNode) throws(SimulationFailure) {
        var census = node.volume.inodeCensus()
        // One list of orphans for each slot stays.
        let lists = cluster.plan.slots.map(\.orphanDirectory)
        census.stray.removeAll { lists.contains($0) }
        guard census.counted == census.present, census.stray.isEmpty, census.pendingOrphans == 0,
            census.idle <= node.volume.mostIdleInodes
        else {
            throw SimulationFailure(
                "\(node.kernel.name) at rest: \(census), of which \(node.volume.mostIdleInodes) may be idle"
            )
        }
    }
}
