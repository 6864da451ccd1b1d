// A cluster that is made to stand still now and then, in the midst of work, and whose nodes die or leave
// meanwhile.
//
//   Z  from when `freeze` has returned until somebody thaws nothing is written, whoever dies; what the disk
//      certainly holds then is a volume that was unmounted in order, and no node has anything to write. All nodes show all that was there.

import BlockIO
import DiskFormat
import Execution
import FileSystem
import Journaling
import SimulatedMachine
import Vocabulary
import VolumeChecking
import VolumeMaking

extension SimulatedCluster {
    /// A freeze is complete: judges the disk, and from now on every write.
    ///
    /// - Throws: what is wrong with a copy that is taken now.
    func beginFreeze(_ name: String) async throws {
        disk.eachWriteInFlight { host, offset, _ in
            frozenViolation =
                frozenViolation ?? "frozen by \(name), \(host) is writing at byte \(offset) (Z)"
        }
        frozenBy = name
        for node in living where node.withdrawal == nil && node.volume.dirtyByteCount > 0 {
            throw SimulationFailure(
                "frozen by \(name), \(node.kernel.name) has \(node.volume.dirtyByteCount) dirty bytes (Z)"
            )
        }
        try await checkCopy()
    }

    /// Somebody is about to thaw.
    func endFreeze() { frozenBy = nil }

    /// A write begins.
    func judgeFreeze(_ host: String, _ offset: UInt64) {
        guard let name = frozenBy, frozenViolation == nil else { return }
        frozenViolation = "frozen by \(name), \(host) writes at byte \(offset) (Z)"
    }

    /// What a power cut would certainly leave must need no replay and no repair.
    func checkCopy() async throws {
        if let frozenViolation { throw SimulationFailure(frozenViolation) }
        let copy = MemoryBlockDevice(content: disk.durable, alignment: 512)
        for slot in plan.slots.map(\.slot) {
            let isClean = try await JournalReplay.isClean(
                device: copy,
                superblock: plan.superblock,
                slot: slot
            )
            guard isClean else {
                throw SimulationFailure("frozen, and the journal of \(slot) is not clean (Z)")
            }
        }
        let found = try await VolumeChecker.check(copy)
        guard found.isClean else {
            let findings = found.findings.prefix(5).map(\.text).joined(separator: "; ")
            throw SimulationFailure("frozen, and the checker finds: \(findings) (Z)")
        }
    }
}

extension SimulatedNode {
    /// As `Freezer.freeze`, in this node's engine.
    func freeze(seconds: UInt32) async -> Result<Void, FreezeError> {
        let outcome = Outcome<Result<Void, FreezeError>>()
        engine.spawn {
            do throws(FreezeError) {
                try await self.volume.freezer.freeze(seconds: seconds)
                outcome.deliver(.success(()))
            } catch {
                outcome.deliver(.failure(error))
            }
        }
        return await outcome.get()
    }

    /// As `Freezer.thaw`.
    func thaw() async -> Bool {
        let outcome = Outcome<Bool>()
        engine.spawn { outcome.deliver(await self.volume.freezer.thaw()) }
        return await outcome.get()
    }
}

// MARK: One operation at a time

extension Simulation {
    /// Perhaps the volume stands still for a while.
    func perhapsFreeze() async throws {
        if plan.faults.contains(.freeze), dice.oneIn(25) { try await freezeAndThaw() }
    }

    private func freezeAndThaw() async throws {
        let asker = cluster.living[dice.below(cluster.living.count)]
        let before = dice.oneIn(2) ? begin() : []
        if !before.isEmpty { await rest() }
        log("\(asker.kernel.name): freeze")
        let frozen = try await within("freezing") { await asker.freeze(seconds: 0) }
        if case .failure(let error) = frozen {
            throw SimulationFailure("\(asker.kernel.name) does not freeze: \(error)")
        }
        report.freezes += 1
        try await cluster.beginFreeze(asker.kernel.name)
        try await demandBusy()
        if before.isEmpty {
            try await compareAll()
        } else {
            try await lookAtRoots()
        }
        let gone = before.isEmpty && dice.oneIn(3) ? try await loseNode(asker) : nil
        let later = begin()
        await rest()
        try demandExclusivity()
        try await cluster.checkCopy()
        let thawer = cluster.living[dice.below(cluster.living.count)]
        log("\(thawer.kernel.name): thaw")
        cluster.endFreeze()
        guard try await within("thawing", { await thawer.thaw() }) else {
            throw SimulationFailure("\(thawer.kernel.name): the volume was not frozen any more")
        }
        try await end(before + later)
        for node in cluster.living { try healthy(node) }
        for handle in handles { try await close(handle) }
        handles = []
        if let gone { try await mount(gone) }
        try await reconcile { _ in false }
    }

    /// Whoever freezes again is told so.
    private func demandBusy() async throws {
        let node = cluster.living[dice.below(cluster.living.count)]
        let again = try await within("freezing again") { await node.freeze(seconds: 0) }
        guard case .failure(.busy) = again else {
            throw SimulationFailure("\(node.kernel.name) froze a frozen volume: \(again)")
        }
    }

    /// Nobody who reads waits.
    private func lookAtRoots() async throws {
        for node in cluster.living {
            try await within("looking at a frozen volume on \(node.kernel.name)") {
                _ = try await node.kernel.status([])
            }
        }
    }

    /// A node dies, or leaves; nobody gets in instead. Returns its number, if there was one to spare.
    private func loseNode(_ asker: SimulatedNode) async throws -> Int? {
        guard cluster.living.count > 1 else { return nil }
        let victim =
            dice.oneIn(2) ? asker : cluster.living[dice.below(cluster.living.count)]
        guard let index = cluster.nodes.firstIndex(where: { $0 === victim }) else { return nil }
        if plan.faults.contains(.kill), dice.oneIn(2) {
            log("n\(index + 1) dies, frozen")
            count(victim)
            report.deaths += 1
            handles.removeAll { $0.node === victim }
            cluster.kill(index)
            try await within("recovering n\(index + 1), frozen") {
                try await self.cluster.recover()
            }
        } else {
            for handle in handles where handle.node === victim { try await close(handle) }
            handles.removeAll { $0.node === victim }
            try await unmount(index)
        }
        log("n\(index + 1): mount, frozen")
        let mounted = try await within("mounting n\(index + 1), frozen") {
            await self.result { try await self.cluster.mount(index) }
        }
        guard case .failure(let error) = mounted, Self.isRefusal(error) else {
            throw SimulationFailure("n\(index + 1) mounted a frozen volume: \(mounted)")
        }
        try await within("the end of a mount that was refused") { try await self.cluster.recover() }
        try await cluster.checkCopy()
        return index
    }

    private func result<Value>(
        _ body: () async throws -> Value
    ) async -> Result<Value, any Error> {
        do {
            return .success(try await body())
        } catch {
            return .failure(error)
        }
    }

    /// Whether a mount failed because the volume stands still.
    static func isRefusal(_ error: any Error) -> Bool { "\(error)".contains("is frozen") }
}

// MARK: Many processes at the same time

/// Freezes and thaws in the midst of a concurrent run.
struct ConcurrentFreezes {
    let run: ConcurrentRun
    var dice: SeededGenerator

    /// Some rounds, one after the other.
    mutating func play() async throws {
        for _ in 0..<1 + dice.below(4) {
            await pause(below: dice.oneIn(2) ? 3_000_000 : 30_000_000)
            if run.failure != nil { return }
            guard let asker = some() else { continue }
            run.simulation.log("\(asker.kernel.name): freeze")
            let isTimed = dice.oneIn(4)
            let frozen = await asker.freeze(seconds: isTimed ? 1 : 0)
            if case .success = frozen, !asker.isDead {
                run.simulation.report.freezes += 1
                run.simulation.log("\(asker.kernel.name): frozen")
                do {
                    try await run.cluster.beginFreeze(asker.kernel.name)
                    await pause(below: 20_000_000)
                    // A failure of the power has ended it.
                    if run.cluster.frozenBy != nil { try await run.cluster.checkCopy() }
                } catch {
                    // The run ends when its processes do.
                    run.fail("\(error)")
                }
            } else {
                run.simulation.log("\(asker.kernel.name): freeze: \(frozen)")
            }
            run.cluster.endFreeze()
            try await thaw(isTimed)
        }
    }

    /// Somebody thaws, or all do by themselves. Who asked may be dead, and the others be about to stand still on
    /// its behalf.
    private mutating func thaw(_ isTimed: Bool) async throws {
        let limit = run.engine.clock.now.advanced(nanoseconds: Simulation.patience)
        var quietRounds = 0
        if isTimed { await run.engine.sleep(nanoseconds: 1_100_000_000) }
        while quietRounds < 3 {
            if let node = some() {
                run.simulation.log("\(node.kernel.name): thaw")
                _ = await node.thaw()
            }
            await run.engine.sleep(nanoseconds: 20_000_000)
            let isWorking = run.cluster.living.allSatisfy { $0.volume.freezer.phase == .running }
            quietRounds = isWorking ? quietRounds + 1 : 0
            if run.engine.clock.now > limit {
                let phases = run.cluster.living.map {
                    "\($0.kernel.name) \($0.volume.freezer.phase)"
                }
                throw SimulationFailure("thawing does not come to an end: \(phases)")
            }
        }
    }

    private mutating func pause(below limit: Int) async {
        await run.engine.sleep(nanoseconds: UInt64(dice.below(limit)))
    }

    private mutating func some() -> SimulatedNode? {
        let living = run.cluster.living.filter { $0.withdrawal == nil }
        return living.isEmpty ? nil : living[dice.below(living.count)]
    }
}
