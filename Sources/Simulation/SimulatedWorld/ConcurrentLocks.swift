// Processes that lock a file with flock(2) in a concurrent run: alone or together, waiting or not, weaker and
// stronger, interrupted, by closing instead of unlocking. Nobody has it while somebody else has it alone.
//
// A process is taken for a holder from the moment it is told so until it begins to give the lock up, which is
// less than it really is one; of a node that has died, until it died.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// Who holds the lock of one file.
struct ConcurrentLocks {
    private struct Holder {
        let process: Int
        let life: Life
        let isExclusive: Bool
    }

    static let path: PathNames = [Array("shared".utf8), Array("log".utf8)]

    private var holders: [Holder] = []

    /// A node has died.
    mutating func died(_ life: Life) { holders.removeAll { $0.life == life } }

    fileprivate mutating func holds(_ process: SimulatedProcess, isExclusive: Bool) throws {
        // What an orphan was told does not count: its node may have been buried since.
        try process.demandDaemon()
        if let other = holders.first(where: { $0.isExclusive || isExclusive }) {
            throw SimulationFailure(
                "\(process) has the lock \(isExclusive ? "alone" : "with others"), and process \(other.process) \(other.isExclusive ? "alone" : "with others")"
            )
        }
        holders.append(
            Holder(process: process.number, life: process.life, isExclusive: isExclusive)
        )
    }

    fileprivate mutating func gives(_ process: SimulatedProcess) {
        holders.removeAll { $0.process == process.number }
    }
}

extension ConcurrentRun {
    /// Opens, locks once or twice, and closes.
    func lock(_ process: inout SimulatedProcess) async throws {
        try process.demandDaemon()
        if process.dice.oneIn(2) { return try await lockBytes(&process) }
        let file = try await process.node.kernel.open(ConcurrentLocks.path, .reading)
        do {
            try await lock(&process, file)
            if process.dice.oneIn(3) { try await lock(&process, file) }
            locks.gives(process)
            if process.dice.oneIn(2) {
                try await process.node.kernel.lock(file, .unlocked, waits: false)
            }
        } catch {
            locks.gives(process)
            try await process.node.kernel.close(file)
            throw error
        }
        try await process.node.kernel.close(file)
    }

    private func lock(_ process: inout SimulatedProcess, _ file: KernelFile) async throws {
        let isExclusive = process.dice.oneIn(2)
        let waits = !process.dice.oneIn(3)
        // Whatever it had it may lose, and if only for a moment.
        locks.gives(process)
        let result = await Simulation.result { () async throws(FileError) in
            try await process.node.kernel.lock(
                file,
                isExclusive ? .exclusive : .shared,
                waits: waits,
                interruptedAfter: process.dice.oneIn(4)
                    ? UInt64(process.dice.below(3_000_000)) : nil
            )
        }
        switch result {
        case .success: try locks.holds(process, isExclusive: isExclusive)
        case .failure(.wouldBlock) where !waits: return
        case .failure(.interrupted) where waits: return
        case .failure(let error): throw error
        }
        await engine.sleep(nanoseconds: UInt64(process.dice.below(500_000)))
    }
}
