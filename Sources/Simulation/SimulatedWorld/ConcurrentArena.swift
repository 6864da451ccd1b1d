// A directory with five names that processes of all nodes make, remove, rename over each other,
// look up and list at the same time, with nothing but the file system to keep them apart. What they are told
// is judged as a whole, in the end and at every death (DirectoryHistory.swift).

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// The directory and its history.
final class ConcurrentArena {
    private static let count = 5
    private let clock: HistoryClock
    private var history = DirectoryHistory(count: ConcurrentArena.count)
    private var inodes: [InodeNumber: Int] = [:]
    /// Of the operations under way: their lives.
    private var underWay: [Int: Life] = [:]
    /// Histories that were too long to be judged.
    private(set) var undecided = 0
    /// Operations that were judged.
    private(set) var judged = 0

    init(_ clock: HistoryClock) { self.clock = clock }

    private static let directory: PathNames = [Array("shared".utf8), Array("arena".utf8)]
    private func path(_ name: Int) -> PathNames { Self.directory + [text(name)] }
    private func text(_ name: Int) -> [UInt8] { Array("a\(name)".utf8) }

    private func number(_ inode: InodeNumber) -> Int {
        if let known = inodes[inode] { return known }
        inodes[inode] = inodes.count
        return inodes.count - 1
    }

    /// Before anybody looks.
    func make(_ node: SimulatedNode) async throws {
        try await node.kernel.make(.directory(mode: 0o755), Self.directory)
    }

    private func choose(_ dice: inout SeededGenerator) -> DirectoryCall {
        let name = dice.below(Self.count)
        switch dice.below(16) {
        case 0...1: return .make(name)
        case 2: return .open(name)
        case 3...4: return .remove(name)
        case 5...8:
            let kinds: [RenameKind] = [.replace, .replace, .noReplace, .exchange]
            let other = (name + 1 + dice.below(Self.count - 1)) % Self.count
            return .rename(name, other, kinds[dice.below(kinds.count)])
        case 9...13: return .look(name)
        default: return .list
        }
    }

    /// One operation of a process.
    func act(_ process: inout SimulatedProcess) async throws {
        let call = choose(&process.dice)
        let makesPipe = process.dice.oneIn(3)
        switch call {
        case .look, .list: break
        default: try process.demandDaemon()
        }
        // What an orphan sees is judged elsewhere: it may be lost.
        guard !process.isOrphan else {
            _ = await Simulation.result { () async throws(FileError) in
                try await self.perform(call, process.node, makesPipe: makesPipe)
            }
            return
        }
        let number = history.begin(call, at: clock.next())
        underWay[number] = process.life
        defer { underWay[number] = nil }
        let node = process.node
        let result = await Simulation.result { () async throws(FileError) in
            try await self.perform(call, node, makesPipe: makesPipe)
        }
        // Twice there was no file when the kernel looked, and something else when it made one
        // (KERNEL S5).
        let isOutrun: Bool
        if case .failure(.stale) = result, case .open = call {
            isOutrun = true
        } else {
            isOutrun = false
        }
        if process.isOrphan || isOutrun {
            history.abandon(number)
            return
        }
        history.end(number, try result.get(), at: clock.next())
    }

    private func perform(
        _ call: DirectoryCall,
        _ node: SimulatedNode,
        makesPipe: Bool
    ) async throws(FileError) -> DirectoryAnswer {
        let kernel = node.kernel
        var isOpen = false
        if case .open = call { isOpen = true }
        do throws(FileError) {
            switch call {
            case .make(let name) where makesPipe:
                try await kernel.make(.node(mode: 0o010600, device: 0), path(name))
                return .done
            case .open(let name):
                let file = try await kernel.open(path(name), .writing, creates: 0o600)
                let found = file.inode.identity
                try await kernel.close(file)
                return .found(number(found))
            case .make(let name):
                let file = try await kernel.open(
                    path(name),
                    .writing,
                    creates: 0o600,
                    isExclusive: true
                )
                let made = file.inode.identity
                try await kernel.close(file)
                return .made(number(made))
            case .remove(let name):
                try await kernel.remove(path(name), isDirectory: false)
                return .done
            case .rename(let from, let to, let kind):
                let isAsked = try await kernel.rename(path(from), to: path(to), kind)
                return isAsked ? .done : .same
            case .look(let name):
                return .found(number(try await kernel.status(path(name)).inode))
            case .list: return try await list(kernel)
            }
        } catch {
            switch error {
            case .notFound: return .absent
            case .exists: return .exists
            case .invalid where isOpen: return .exists  // no file
            default: throw error
            }
        }
    }

    private func list(_ kernel: KernelModel) async throws(FileError) -> DirectoryAnswer {
        var names = [Int?](repeating: nil, count: Self.count)
        let (listed, isWhole) = try await kernel.listing(Self.directory)
        for index in names.indices {
            guard let found = listed.first(where: { $0.name == text(index) }) else { continue }
            names[index] = number(found.inode)
        }
        return isWhole ? .names(names) : .parts(names)
    }

    /// The node of a life is dead: what was seen up to now is judged, what is there from now on is not
    /// known.
    func died(_ life: Life) throws(SimulationFailure) {
        try judge()
        for (number, owner) in underWay.sorted(by: { $0.key < $1.key }) where owner == life {
            history.abandon(number)
        }
        history.restart()
    }

    /// Some order must explain all that processes were told.
    func judge() throws(SimulationFailure) {
        judged += history.count
        switch history.verdict() {
        case .possible: break
        case .undecided: undecided += 1
        case .impossible:
            throw SimulationFailure(
                "no order of \(history.count) operations explains what was seen of the names in \(SimulatedWorld.text(Self.directory)): \(history.story)"
            )
        }
    }
}
