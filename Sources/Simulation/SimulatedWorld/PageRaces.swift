// Races for pages that are up to date without any lock: the kernel has put the bytes of a write(2) into a page
// before it asks, and a mapping stores without asking at all. Some programs at once on two nodes, one of
// which has the lock when they begin; afterwards the file is empty.
//
// The end. A write(2) waits for the lock, something is stored into its page, and the other node makes the file
// shorter. The store is written back when its page is dropped, and what of it is behind the end by then is
// lost (rule F8). Which of the three comes first is anybody's guess; but when all have ended, and the file
// has grown again, both nodes show the same, and nobody what is nowhere else.
//
// The future. A write(2) of whole pages waits for the lock, and somebody on its node reads there. Once he has
// read the new bytes, whoever reads on the other node does so too (rule F3) - but not in the moment before
// the request has arrived: the kernel has shown the new bytes then already.
//
// The mapping. Somebody reads a page, and waits for the lock; meanwhile the file is mapped and stored into as
// soon as the page is there. Whoever reads on the other node after that reads what was stored (rule M1).

import Execution
import FileStore
import FileSystem
import SimulatedMachine
import Vocabulary

extension Simulation {
    private static let longEnd: UInt64 = 40_960

    /// Who races, and for what.
    private struct PageRace {
        let node: SimulatedNode
        let other: SimulatedNode
        let path: PathNames
        let object: Int
        /// Of the first page.
        let place: UInt64
        let what: String
    }

    /// Plays one with some file, if there is another node.
    func raceForPages(_ node: SimulatedNode) async throws {
        let others = cluster.living.filter { $0 !== node }
        // Not what fills the volume: it would never be full.
        let paths = tree.allPaths().filter {
            tree.objects[$0.object].kind == .file && tree.objects[$0.object].size <= Self.longEnd
        }
        guard !others.isEmpty, !paths.isEmpty else { return }
        let (path, object) = paths[dice.below(paths.count)]
        tree.actor = Int(node.slot.rawValue)
        let race = PageRace(
            node: node,
            other: others[dice.below(others.count)],
            path: path,
            object: object,
            place: TreeModel.pageSize * UInt64(dice.below(8)),
            what: "race for pages of #\(object)"
        )
        try await unlessFull(object) {
            switch self.dice.below(3) {
            case 0: try await self.raceForTheEnd(race)
            case 1: try await self.raceWithTheFuture(race)
            default: try await self.raceWithAMapping(race)
            }
            try await self.within(race.what) {
                _ = try await node.perform(.truncate(path, 0))
            }
            self.tree.resize(object, to: 0)
            self.tree.dropPrivileges(object)
        }
    }

    // MARK: The end

    private func raceForTheEnd(_ race: PageRace) async throws {
        let (node, other, place) = (race.node, race.other, race.place)
        let bytes = patternBytes(dice.next(), count: Int(TreeModel.pageSize) * (1 + dice.below(2)))
        let stored = patternBytes(dice.next(), count: 1 + dice.below(bytes.count))
        let synchronizes = dice.oneIn(2)
        let end = UInt64(dice.below(Int(place) + bytes.count))
        let delay = dice.below(dice.oneIn(2) ? 20_000 : 2_000_000)
        log(
            "\(node.kernel.name): write and store \(place)+\(bytes.count), \(other.kernel.name): truncate \(end), all at once"
        )
        // The other one has the lock, and this one nothing of the file.
        try await within(race.what) {
            _ = try await other.perform(.truncate(race.path, Self.longEnd))
        }
        try await withFile(race, .both) { file in
            let running = [
                self.start(0) { () throws(FileError) in try await node.write(file, place, bytes) },
                self.start(0) { () throws(FileError) in
                    await self.awaitPage(file, place)
                    node.onWrite?(file.inode.identity, place, stored)
                    _ = try await node.kernel.store(file, at: place, stored)
                    if synchronizes { try await node.kernel.synchronize(file, dataOnly: true) }
                },
                self.start(delay) { () throws(FileError) in
                    _ = try await other.perform(.truncate(race.path, end))
                },
            ]
            try await self.within(race.what) {
                try await self.end(running)
                try await node.kernel.synchronize(file, dataOnly: true)
                try await node.kernel.truncate(file, to: Self.longEnd)
                let mine = try await node.kernel.read(file, at: 0, count: Int(Self.longEnd))
                let theirs = try await other.perform(.read(race.path, 0, count: Int(Self.longEnd)))
                guard mine != theirs else { return }
                throw SimulationFailure(
                    "\(race.what): \(node.kernel.name), not \(other.kernel.name): \(difference(mine, theirs, 0))"
                )
            }
        }
    }

    /// As whoever waits for the page, as mincore(2) shows it.
    private func awaitPage(_ file: KernelFile, _ place: UInt64) async {
        var patience = 400
        while file.inode.pages[place / TreeModel.pageSize]?.isUptodate != true, patience > 0 {
            await engine.sleep(nanoseconds: 5_000)
            patience -= 1
        }
    }

    // MARK: The future

    private func raceWithTheFuture(_ race: PageRace) async throws {
        let (node, place) = (race.node, race.place)
        let (old, replacement) = try await begin(race)
        let isWhole = dice.oneIn(2)
        let start = isWhole ? 0 : dice.below(old.count)
        let end = isWhole ? old.count : start + 1 + dice.below(old.count - start)
        let new = Array(old[..<start] + replacement[start..<end] + old[end...])
        try await withFile(race, .both) { file in
            if !isWhole {
                try await self.within(race.what) {
                    _ = try await node.kernel.read(file, at: place, count: old.count)
                }
            }
            let at = place + UInt64(start)
            self.log("\(node.kernel.name): write \(at)+\(end - start), and read there meanwhile")
            let writing = self.start(0) { () throws(FileError) in
                try await node.write(file, at, Array(replacement[start..<end]))
            }
            let arrival = 200_000 + UInt64(self.dice.below(800_000))
            await self.engine.sleep(nanoseconds: arrival)
            try await self.within(race.what) {
                while writing.value == nil {
                    let shown = try await node.kernel.read(file, at: place, count: new.count)
                    if shown == new { try await self.demandStored(race, new) }
                    guard shown == new || shown == old else {
                        throw SimulationFailure("\(race.what): half a write of a page")
                    }
                    await self.engine.sleep(nanoseconds: 5_000)
                }
                try await self.end([writing])
                try await self.demandStored(race, new)
            }
        }
    }

    // MARK: The mapping

    private func raceWithAMapping(_ race: PageRace) async throws {
        let (node, place) = (race.node, race.place)
        let (_, new) = try await begin(race)
        try await withFile(race, .reading) { reader in
            self.log("\(node.kernel.name): read \(place), meanwhile map and store \(new.count)")
            let running = [
                self.start(self.dice.oneIn(2) ? 0 : self.dice.below(1_000_000)) {
                    () throws(FileError) in
                    _ = try await node.kernel.read(reader, at: place, count: new.count)
                },
                self.start(self.dice.below(self.dice.oneIn(2) ? 100_000 : 1_000_000)) {
                    () throws(FileError) in
                    _ = try await node.withFile(race.path, .both) { file throws(FileError) in
                        await self.awaitPage(file, place)
                        node.onWrite?(file.inode.identity, place, new)
                        _ = try await node.kernel.store(file, at: place, new)
                        try await self.demandStored(race, new)
                        return []
                    }
                },
            ]
            try await self.within(race.what) { try await self.end(running) }
        }
    }

    // MARK: What they share

    private func withFile(
        _ race: PageRace,
        _ intent: OpenIntent,
        _ body: (KernelFile) async throws -> Void
    ) async throws {
        let kernel = race.node.kernel
        let file = try await within(race.what) { try await kernel.open(race.path, intent) }
        do {
            try await body(file)
        } catch {
            try await within(race.what) { try await kernel.close(file) }
            throw error
        }
        try await within(race.what) { try await kernel.close(file) }
    }

    /// The other node writes what is old, and so has the lock. Returns that, and what shall be new.
    private func begin(_ race: PageRace) async throws -> (old: [UInt8], new: [UInt8]) {
        let count = Int(TreeModel.pageSize)
        let old = patternBytes(dice.next(), count: count)
        try await within(race.what) {
            _ = try await race.other.withFile(race.path, .writing) { file throws(FileError) in
                try await race.other.write(file, race.place, old)
                return []
            }
        }
        return (old, patternBytes(dice.next(), count: count))
    }

    /// The other node reads what is new.
    private func demandStored(_ race: PageRace, _ new: [UInt8]) async throws(FileError) {
        let shown = try await race.other.perform(.read(race.path, race.place, count: new.count))
        guard shown != new else { return }
        raceViolation =
            raceViolation
            ?? "\(race.what): \(race.node.kernel.name) shows what \(race.other.kernel.name) does not: \(difference(shown, new, race.place))"
    }

    private func start(
        _ delay: Int,
        _ body: @escaping () async throws(FileError) -> Void
    ) -> Outcome<Result<Void, FileError>> {
        let outcome = Outcome<Result<Void, FileError>>()
        let start = engine.clock.now.advanced(nanoseconds: UInt64(delay))
        engine.spawn {
            await self.engine.sleep(until: start)
            do throws(FileError) {
                try await body()
                outcome.deliver(.success(()))
            } catch {
                outcome.deliver(.failure(error))
            }
        }
        return outcome
    }

    /// All have ended.
    private func end(_ running: [Outcome<Result<Void, FileError>>]) async throws {
        var failed: FileError?
        for outcome in running {
            if case .failure(let error) = await outcome.get() { failed = failed ?? error }
        }
        if let raceViolation { throw SimulationFailure(raceViolation) }
        if let failed { throw failed }
    }
}
