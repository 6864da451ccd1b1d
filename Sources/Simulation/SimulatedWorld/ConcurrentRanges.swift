// Processes that lock bytes of a file with fcntl(2) in a concurrent run, as processes or by open file description:
// reading and writing, waiting or not, interrupted, piece by piece, by closing instead of unlocking. Nobody has a
// byte while somebody else has it for writing; who asks who is in the way is not told nobody while somebody is.
//
// As with flock a process is taken for less of a holder than it is: from the moment it is told so until it begins to
// give a byte up, and while it asks for another mode for the weaker of both. A refusal changes nothing.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// Who holds which bytes of one file.
struct ConcurrentRanges {
    /// Each stands for a byte; the last for all to the end.
    static let units = 12

    /// 0, 1 for reading or 2 for writing, unit by unit.
    typealias Modes = [UInt8]

    struct Holder {
        let process: Int
        let life: Life
        var modes: Modes
        /// Counts its changes.
        var changes: Int
    }

    private(set) var holders: [Holder] = []

    /// A node has died.
    mutating func died(_ life: Life) { holders.removeAll { $0.life == life } }

    fileprivate func modes(of process: SimulatedProcess) -> Modes {
        holders.first { $0.process == process.number }?.modes
            ?? Modes(repeating: 0, count: Self.units)
    }

    fileprivate mutating func set(_ process: SimulatedProcess, _ modes: Modes) {
        if let place = holders.firstIndex(where: { $0.process == process.number }) {
            holders[place].modes = modes
            holders[place].changes += 1
        } else {
            holders.append(
                Holder(process: process.number, life: process.life, modes: modes, changes: 0)
            )
        }
    }

    fileprivate mutating func ends(_ process: SimulatedProcess) {
        holders.removeAll { $0.process == process.number }
    }

    /// Others who have something of these units that conflicts, and how often they have changed.
    fileprivate func inTheWay(
        of process: SimulatedProcess,
        _ units: ClosedRange<Int>,
        _ mode: UInt8
    ) -> [(process: Int, changes: Int)] {
        holders.filter { holder in
            holder.process != process.number
                && units.contains { holder.modes[$0] == 2 || (mode == 2 && holder.modes[$0] == 1) }
        }.map { ($0.process, $0.changes) }
    }

    fileprivate static func bytes(_ units: ClosedRange<Int>, _ process: Int) -> LockedBytes {
        LockedBytes(
            first: UInt64(units.lowerBound),
            last: units.upperBound == Self.units - 1
                ? UInt64(Int64.max) : UInt64(units.upperBound),
            process: UInt32(process) + 1
        )
    }
}

extension ConcurrentRun {
    /// Opens, locks and unlocks bytes several times, and closes.
    func lockBytes(_ process: inout SimulatedProcess) async throws {
        let file = try await process.node.kernel.open(ConcurrentLocks.path, .both)
        file.closer = UInt64(process.number) + 1
        // An open file description is an owner that no close names.
        let owner = ByteLockOwner(
            process.dice.oneIn(3) ? 1 << 32 | UInt64(process.number) : file.closer
        )
        do {
            for _ in 0..<1 + process.dice.below(6) {
                try await lockBytes(&process, file, owner)
            }
        } catch {
            ranges.ends(process)
            try await process.node.kernel.close(file)
            throw error
        }
        ranges.ends(process)
        try await process.node.kernel.close(file)
    }

    private func lockBytes(
        _ process: inout SimulatedProcess,
        _ file: KernelFile,
        _ owner: ByteLockOwner
    ) async throws {
        let first = process.dice.below(ConcurrentRanges.units)
        let last = min(ConcurrentRanges.units - 1, first + process.dice.below(4))
        let units = first...last
        let bytes = ConcurrentRanges.bytes(units, process.number)
        let kinds: [ByteLockWish.Kind] = [.read, .write, .write, .unlock]
        let kind = kinds[process.dice.below(kinds.count)]
        if kind != .unlock, process.dice.oneIn(4) {
            return try await askForBytes(process, file, owner, units, ByteLockWish(kind, bytes))
        }
        let mode: UInt8 = kind == .unlock ? 0 : kind == .read ? 1 : 2
        let old = ranges.modes(of: process)
        var (lower, new) = (old, old)
        for unit in units {
            lower[unit] = min(old[unit], mode)
            new[unit] = mode
        }
        // Who waits for ever while it has something may wait for who waits for it.
        let waits = !process.dice.oneIn(3)
        let mayBeCircle = old.contains { $0 != 0 }
        let delay: UInt64? =
            mayBeCircle || process.dice.oneIn(3)
            ? UInt64(process.dice.below(mayBeCircle ? 20_000_000 : 3_000_000)) : nil
        if lower != old { ranges.set(process, lower) }
        let result = await Simulation.result { () async throws(FileError) in
            try await process.node.kernel.lock(
                file,
                owner,
                ByteLockWish(kind, bytes),
                waits: waits,
                interruptedAfter: delay
            )
        }
        try process.demandDaemon()
        switch result {
        case .success: try took(process, units, mode, new)
        case .failure(.wouldBlock) where !waits: ranges.set(process, old)
        case .failure(.interrupted) where waits: ranges.set(process, old)
        case .failure(let error): throw error
        }
        await engine.sleep(nanoseconds: UInt64(process.dice.below(500_000)))
    }

    private func took(
        _ process: SimulatedProcess,
        _ units: ClosedRange<Int>,
        _ mode: UInt8,
        _ modes: ConcurrentRanges.Modes
    ) throws {
        ranges.set(process, modes)
        if mode == 0 { return }
        guard let other = ranges.inTheWay(of: process, units, mode).first else { return }
        throw SimulationFailure(
            "\(process) has locked units \(units) in mode \(mode), some of which process \(other.process) has"
        )
    }

    private func askForBytes(
        _ process: SimulatedProcess,
        _ file: KernelFile,
        _ owner: ByteLockOwner,
        _ units: ClosedRange<Int>,
        _ wish: ByteLockWish
    ) async throws {
        let mode: UInt8 = wish.kind == .read ? 1 : 2
        let before = ranges.inTheWay(of: process, units, mode)
        let found = try await process.node.kernel.lock(inTheWayOf: wish, file, owner)
        try process.demandDaemon()
        if let found {
            // It may be its own, of an open file description that is on its way to be released.
            guard found.bytes.overlaps(wish.bytes), found.isWrite || wish.kind == .write
            else { throw SimulationFailure("\(process) is told that \(found) is in its way") }
            return
        }
        let after = ranges.inTheWay(of: process, units, mode)
        for other in before where after.contains(where: { $0 == other }) {
            throw SimulationFailure(
                "\(process) is told that nobody is in the way of \(wish), and process \(other.process) is"
            )
        }
    }
}
