// Runs on a volume with quotas. Exactness is the checker's matter: after each loss of power, each death and at the end
// it compares usage with the inodes (`quota-blocks-wrong`). Here limits are set, files change their owners, and the
// bound is judged:
//
// U1. Usage of whom a limit holds is not above it, but for what was above it already when the limit was set; and then
//     it does not grow. What is renamed in one directory may make that larger (QuotaBook, `Renaming`).
// U2. What is refused for a limit changes nothing that could not be looked at: as with a full volume, what the
//     operation was to change is looked at and taken over.

import DiskFormat
import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

/// Limits that a run has set.
struct SimulatedLimits {
    /// What was set, and the most that was seen since then of what is not limited to less.
    struct Limit {
        var hard: QuotaAmount
        var seen: QuotaAmount
    }

    /// By principal; nil: none.
    var limits: [(principal: QuotaPrincipal, limit: Limit?)] = SimulatedLimits.principals.map {
        ($0, nil)
    }

    /// Who owns files in a run with quotas.
    static let principals: [QuotaPrincipal] = [
        .user(1000), .user(1001), .group(1000), .group(1001),
    ]
}

extension Simulation {
    /// Whether an operation may be refused so: the volume is full, or a limit is in the way.
    func isRefusal(_ error: FileError) -> Bool {
        switch error {
        case .noSpace: plan.faults.contains(.full)
        case .quotaExceeded: plan.faults.contains(.quota) && !plan.isConcurrent
        default: false
        }
    }

    /// As above, of a result.
    func isRefused<Value>(_ shown: Result<Value, FileError>) -> Bool {
        if case .failure(let error) = shown { return isRefusal(error) }
        return false
    }

    /// Perhaps changes limits or owners; then judges the bound.
    func perhapsQuota() async throws {
        guard plan.faults.contains(.quota), !cluster.living.isEmpty else { return }
        if dice.oneIn(6) { try await changeLimits() }
        if dice.oneIn(6) { try await changeOwner() }
        if dice.oneIn(2) { try await judgeUsage() }
    }

    private func changeLimits() async throws {
        let living = cluster.living
        let node = living[dice.below(living.count)]
        let place = dice.below(limits.limits.count)
        let principal = limits.limits[place].principal
        let report = try await quotaReport(node)
        let usage = report.records.first { $0.principal == principal }?.usage ?? .zero
        var hard = QuotaAmount(
            blocks: max(usage.blocks + Int64(dice.below(60)) - 10, 1),
            inodes: max(usage.inodes + Int64(dice.below(20)) - 3, 1)
        )
        if dice.oneIn(3) { hard.inodes = 0 }
        if dice.oneIn(3) { hard.blocks = 0 }
        var blocks = QuotaLimit(soft: 0, hard: UInt64(hard.blocks))
        let inodes = QuotaLimit(soft: 0, hard: UInt64(hard.inodes))
        if hard.blocks > 0, dice.oneIn(3) { blocks.soft = UInt64(hard.blocks) * 3 / 4 }
        log(
            "\(node.kernel.name): limits of \(principal): \(hard.blocks) blocks, \(hard.inodes) inodes"
        )
        let wanted = blocks
        try await within("setting limits") {
            if self.dice.oneIn(4) {
                try await node.volume.setQuotaGrace(blocks: UInt64(self.dice.below(3)), inodes: 1)
            }
            try await node.volume.setQuota(of: principal, blocks: wanted, inodes: inodes)
        }
        try healthy(node)
        limits.limits[place].limit = SimulatedLimits.Limit(hard: hard, seen: usage)
    }

    /// Gives a file to somebody else.
    private func changeOwner() async throws {
        let paths = tree.allPaths().filter { !$0.path.isEmpty }
        guard !paths.isEmpty else { return }
        let living = cluster.living
        let node = living[dice.below(living.count)]
        let path = paths[dice.below(paths.count)].path
        var change = AttributeChange()
        if dice.oneIn(2) { change.user = 1000 + UInt32(dice.below(2)) }
        if change.user == nil || dice.oneIn(2) { change.group = 1000 + UInt32(dice.below(2)) }
        log("\(node.kernel.name): chown \(text(path))")
        tree.actor = Int(node.slot.rawValue)
        let wanted = change
        let shown = try await within("chown") {
            await Self.result { () async throws(FileError) in
                try await node.kernel.setAttributes(path, wanted)
            }
        }
        if case .failure(let error) = shown, error != .quotaExceeded, error != .notPermitted {
            throw SimulationFailure("chown \(text(path)): \(error)")
        }
        // The group decides what a write takes away, and what is made in a directory belongs to.
        if case .success = shown, let group = wanted.group {
            let object = try tree.find(path)
            tree.objects[object].group = group
            tree.touch(object)
        }
        try healthy(node)
    }

    private func quotaReport(_ node: SimulatedNode) async throws -> QuotaReport {
        try await within("a report of quotas") { try await node.volume.quotaReport() }
    }

    /// U1.
    func judgeUsage(allowingGrowth: Bool = false) async throws {
        let living = cluster.living
        guard plan.faults.contains(.quota), !living.isEmpty else { return }
        let node = living[dice.below(living.count)]
        let report = try await quotaReport(node)
        try healthy(node)
        quotaLooks += 1
        for place in limits.limits.indices {
            let principal = limits.limits[place].principal
            guard var limit = limits.limits[place].limit else { continue }
            let usage = report.records.first { $0.principal == principal }?.usage ?? .zero
            func demand(_ used: Int64, _ hard: Int64, _ seen: Int64, _ what: String) throws {
                guard hard > 0, !allowingGrowth, used > max(hard, seen) else { return }
                throw SimulationFailure(
                    "\(principal) uses \(used) \(what) with a limit of \(hard), and used \(seen) before"
                )
            }
            try demand(usage.blocks, limit.hard.blocks, limit.seen.blocks, "blocks")
            try demand(usage.inodes, limit.hard.inodes, limit.seen.inodes, "inodes")
            limit.seen = usage
            limits.limits[place].limit = limit
        }
    }

    /// Reports and changes of limits while processes on all nodes work: no limit is so low that anything is refused.
    func quotaOnce() async throws {
        let living = cluster.living
        await engine.sleep(nanoseconds: UInt64(1 + dice.below(20)) * 300_000)
        guard !living.isEmpty, cluster.living.contains(where: { $0 === living[0] }) else { return }
        let node = living[dice.below(living.count)]
        guard !node.isDead else { return }
        let asks = dice.oneIn(2)
        let principal = SimulatedLimits.principals[dice.below(4)]
        let outcome = Outcome<Result<Void, FileError>>()
        node.engine.spawn {
            outcome.deliver(
                await Self.result { () async throws(FileError) in
                    if asks {
                        _ = try await node.volume.quotaReport()
                        return
                    }
                    let hard = UInt64(1 << 30)
                    try await node.volume.setQuota(
                        of: principal,
                        blocks: QuotaLimit(soft: hard - 1, hard: hard),
                        inodes: QuotaLimit(soft: 0, hard: hard)
                    )
                }
            )
        }
        // Of a node that dies meanwhile nothing may end.
        while outcome.value == nil, !node.isDead { await engine.sleep(nanoseconds: 300_000) }
        guard let shown = outcome.value else { return }
        // Whoever dies or leaves meanwhile says what it likes.
        if case .failure(let error) = shown, !node.isDead, node.withdrawal == nil,
            plan.faults.isDisjoint(with: SimulationFaults.deadly.union(.remount))
        {
            throw SimulationFailure("quotas on \(node.kernel.name): \(error)")
        }
    }
}
