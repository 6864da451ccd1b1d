import Glibc
import GroupAgreement
import Membership
import Testing
import Vocabulary

@Suite struct AgreementTests {
    /// LOCKSTEP_AGREEMENT_SEEDS=A..B asks for others.
    private static var seeds: ClosedRange<UInt64> {
        guard let wish = getenv("LOCKSTEP_AGREEMENT_SEEDS") else { return 1...300 }
        let parts = String(cString: wish).split(separator: ".").compactMap { UInt64($0) }
        precondition(parts.count == 2 && parts[0] <= parts[1], "LOCKSTEP_AGREEMENT_SEEDS=A..B")
        return parts[0]...parts[1]
    }

    /// Everything happens to a group; then the network heals, and all is as it should be.
    private func play(_ seed: UInt64, _ counts: inout [String: Int]) throws {
        let group = SimulatedGroup(seed: seed, hosts: seed % 2 == 0 ? 3 : 5)
        do {
            try disturb(group)
            try heal(group)
        } catch {
            throw GroupViolation(
                description:
                    "seed \(seed): \(error)\n\(group.history.suffix(400).joined(separator: "\n"))"
            )
        }
        for (what, count) in group.counts { counts[what, default: 0] += count }
    }

    private func disturb(_ group: SimulatedGroup) throws {
        for _ in 0..<1_500 {
            switch group.below(150) {
            case 0: group.cut(1 + group.below(3))
            case 1: if let member = any(group) { group.end(member) }
            case 2: if group.below(3) == 0 { group.switchOff(host(group)) }
            case 3, 4: group.switchOn(host(group))
            case 5, 6: group.start(on: host(group))
            case 7: if let member = any(group) { group.leave(member) }
            case 8:
                if let member = any(group), let view = member.view, group.below(3) == 0 {
                    let target = view.members[group.below(view.members.count)]
                    group.suspect(target, by: member)
                }
            default: try group.advance()
            }
        }
    }

    private func any(_ group: SimulatedGroup) -> SimulatedProcess? {
        group.living.isEmpty ? nil : group.living[group.below(group.living.count)]
    }

    private func host(_ group: SimulatedGroup) -> UInt32 {
        UInt32(1 + group.below(Int(group.hostCount)))
    }

    private func heal(_ group: SimulatedGroup) throws {
        for host in 1...group.hostCount { group.switchOn(host) }
        group.cut(1)
        try settle(group)
        for host in 1...group.hostCount
        where !group.living.contains(where: { $0.address.host == host }) {
            group.switchOn(host)
            group.cut(1)
            try settle(group)
            group.start(on: host)
            try settle(group)
        }
        try group.advance()  // whoever can begins
        let members = group.living.filter { $0.life != nil && !$0.isExpelled && !$0.isStopped }
        guard !members.isEmpty else { throw GroupViolation(description: "nobody is in") }
        for member in members {
            guard let state = member.machine.state, member.machine.isActive, state.doomed.isEmpty,
                state == members[0].machine.state, member.view?.epoch == state.record.epoch,
                member.view?.members == state.record.members,
                state.record.members == members.compactMap(\.life).sorted(), member.hasBegun
            else {
                throw GroupViolation(
                    description:
                        "\(member.address) has not settled: \(String(describing: member.machine.state)), view \(String(describing: member.view))"
                )
            }
        }
    }

    private func settle(_ group: SimulatedGroup) throws {
        for _ in 0..<20_000 {
            try group.advance()
            if group.isQuiet, group.isSettledDown { return }
        }
        throw GroupViolation(description: "nothing comes to rest: \(group.standing)")
    }

    @Test func everybodyComesToTheSame() throws {
        var counts: [String: Int] = [:]
        for seed in Self.seeds { try play(seed, &counts) }
        let wanted = [
            "joined", "left", "expelled", "fenced", "agent failed", "views", "rings", "last words",
            "begun", "switched off", "ended",
        ]
        for what in wanted { #expect(counts[what, default: 0] > 10, "\(what): \(counts)") }
    }
}
