// Many names at a time: in every third concurrent run one process of each node has a directory of its own, in
// which names come and go in bursts, faster than the journal can write them home. All others list it, and ask
// for every name in it. This is what fills logs, makes trees of directories and frees blocks whose images
// are being written.

import DiskFormat
import FileSystem
import SimulatedMachine
import Vocabulary

/// The directory of one process.
private final class StormDirectory {
    let path: PathNames
    let process: Int
    let life: Life
    var names: [Int] = []
    private var next = 0
    /// All names have the same hash.
    let collides: Bool
    /// Names are long, and attributes leave so little room in the inode that a few leaves of them make
    /// the tree higher.
    let isNarrow: Bool
    /// Grows with every burst.
    var version = 0
    /// The names are changing.
    var isBusy = false
    /// The node of its process has died: nobody knows what is in it.
    var isLost = false

    init(_ process: inout SimulatedProcess) {
        collides = process.dice.oneIn(4)
        isNarrow = process.dice.oneIn(2)
        path = [Array("storm\(process.number)".utf8)]
        self.process = process.number
        life = process.life
    }

    /// Names that it may have at most: of one hash there can be 256.
    var most: Int { collides ? 200 : 330 }

    /// The number of a new name.
    func newName() -> Int {
        if collides, let free = (0..<512).first(where: { !names.contains($0) }) { return free }
        next += 1
        return next
    }

    func path(_ name: Int) -> PathNames { path + [text(name)] }

    func text(_ name: Int) -> [UInt8] {
        if collides { return collidingName(name) }
        let text = "a name of some length, number \(name)"
        return Array((isNarrow ? text + String(repeating: ".", count: 190) : text).utf8)
    }
}

/// All of them.
final class ConcurrentStorm {
    private var directories: [StormDirectory] = []

    /// Perhaps does something of this instead of anything else. Returns whether it did.
    func act(_ process: inout SimulatedProcess) async throws -> Bool {
        // Nobody removes what the dead have made: the volume has room for so many.
        let hasPlace =
            directories.count < 20 || directories.contains { $0.process == process.number }
        if process.number % 3 == 0, hasPlace, process.dice.oneIn(3) {
            try await burst(&process)
            return true
        }
        guard !directories.isEmpty, process.dice.oneIn(12) else { return false }
        try await look(&process)
        return true
    }

    /// The node of a life is dead.
    func died(_ life: Life) {
        for directory in directories where directory.life == life { directory.isLost = true }
    }

    private func burst(_ process: inout SimulatedProcess) async throws {
        try process.demandDaemon()
        let kernel = process.node.kernel
        let directory: StormDirectory
        if let known = directories.first(where: { $0.process == process.number }) {
            directory = known
        } else {
            directory = StormDirectory(&process)
            directory.isBusy = true
            directories.append(directory)
            try await kernel.make(.directory(mode: 0o755), directory.path)
            if directory.isNarrow {
                let room = Int(process.node.volume.superblock.blockSize)
                try await kernel.setExtendedAttribute(
                    directory.path,
                    Array("user.wide".utf8),
                    [UInt8](repeating: 1, count: room - 468)
                )
            }
        }
        directory.isBusy = true
        directory.version += 1
        defer { directory.isBusy = false }
        let count = 20 + process.dice.below(50)
        let isFull = directory.names.count + count > directory.most
        if !isFull, process.dice.oneIn(4) {
            for _ in 0..<count / 4 { try await churn(directory, &process) }
            return
        }
        if isFull || (!directory.names.isEmpty && process.dice.oneIn(4)) {
            try await remove(isFull ? 4 * count : count, directory, &process)
        } else if !directory.names.isEmpty, process.dice.oneIn(5) {
            try await rename(count, directory, &process)
        } else {
            try await make(count, directory, &process)
        }
    }

    private func make(
        _ count: Int,
        _ directory: StormDirectory,
        _ process: inout SimulatedProcess
    ) async throws {
        let kernel = process.node.kernel
        for _ in 0..<count {
            let name = directory.newName()
            let file = try await kernel.open(
                directory.path(name),
                .writing,
                creates: 0o600,
                isExclusive: true
            )
            if process.dice.oneIn(4) {
                let length = 1 + process.dice.below(process.dice.oneIn(8) ? 60_000 : 5_000)
                try await process.node.write(file, 0, patternBytes(UInt64(name), count: length))
            }
            try await kernel.close(file)
            try process.demandDaemon()
            directory.names.append(name)
        }
    }

    /// Makes some names and removes them at once, while what they were is still being written home.
    private func churn(
        _ directory: StormDirectory,
        _ process: inout SimulatedProcess
    ) async throws {
        let count = 1 + process.dice.below(4)
        try await make(count, directory, &process)
        if process.dice.oneIn(2) {
            try await process.node.kernel.synchronizeAll()
            try process.demandDaemon()
        }
        try await remove(count, directory, &process, isNewest: true)
    }

    private func remove(
        _ count: Int,
        _ directory: StormDirectory,
        _ process: inout SimulatedProcess,
        isNewest: Bool = false
    ) async throws {
        for _ in 0..<min(count, directory.names.count) {
            let index =
                isNewest
                ? directory.names.count - 1 : process.dice.below(directory.names.count)
            let name = directory.names[index]
            try await process.node.kernel.remove(directory.path(name), isDirectory: false)
            try process.demandDaemon()
            directory.names.swapAt(index, directory.names.count - 1)
            directory.names.removeLast()
        }
    }

    private func rename(
        _ count: Int,
        _ directory: StormDirectory,
        _ process: inout SimulatedProcess
    ) async throws {
        for _ in 0..<min(count, directory.names.count) {
            let index = process.dice.below(directory.names.count)
            let name = directory.newName()
            try await process.node.kernel.rename(
                directory.path(directory.names[index]),
                to: directory.path(name),
                .noReplace
            )
            try process.demandDaemon()
            directory.names[index] = name
        }
    }

    /// Lists a directory, and asks for its names.
    private func look(_ process: inout SimulatedProcess) async throws {
        let directory = directories[process.dice.below(directories.count)]
        guard !directory.isBusy, !directory.isLost else { return }
        let kernel = process.node.kernel
        let before = directory.version
        let dots = [Array(".".utf8), Array("..".utf8)]
        let result = await Simulation.result { () async throws(FileError) in
            Set(try await kernel.list(directory.path).map(\.name)).subtracting(dots)
        }
        try process.demandLife()
        var isSteady: Bool { directory.version == before && !directory.isLost }
        // With the node that made it the directory itself may be gone.
        guard isSteady else { return }
        let listed = try result.get()
        let names = directory.names
        if let lacking = names.first(where: { !listed.contains(directory.text($0)) }) {
            throw SimulationFailure("a list of \(text(directory.path)) lacks number \(lacking)")
        }
        guard listed.count == names.count else {
            throw SimulationFailure(
                "a list of \(text(directory.path)) has \(listed.count) names, not \(names.count)"
            )
        }
        for name in names where isSteady {
            let result = await Simulation.result { () async throws(FileError) in
                _ = try await kernel.status(directory.path(name))
            }
            try process.demandLife()
            if case .failure(.inputOutput) = result, process.node.hasFailingDisk {
                throw Orphaned()
            }
            if case .failure(let error) = result, isSteady {
                throw SimulationFailure("\(text(directory.path(name))): \(error)")
            }
        }
    }
}
