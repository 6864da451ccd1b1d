// The end of a run with the fault `rot`: nobody has the volume mounted, it is clean, and one bit of one
// metadata block turns over. Then
//
//   - mounting it is refused, or a node that looks at everything shows what is right, or it withdraws:
//     nothing wrong is ever shown;
//   - a repair finds something, and a second check finds nothing any more;
//   - the repaired volume can be mounted and looked through.

import DiskFormat
import Execution
import FileSystem
import SimulatedMachine
import Vocabulary
import VolumeChecking
import VolumeMaking

extension Simulation {
    /// Plays it. The volume is clean and not mounted.
    func rot() async throws {
        try await mount(0)
        guard let reader = cluster.nodes[0] else { return }
        tree = try await within("reading what is there") { try await adopt(reader.kernel).tree }
        try await unmount(0)
        guard let damage = cluster.turnBit(&dice) else { return }
        log("a bit turns over: \(damage)")
        report.rotted += 1
        do {
            try await lookAtDamage()
        } catch {
            throw SimulationFailure("\(damage): \(error)")
        }
        try await repair(damage)
        try await mount(0)
        if let node = cluster.nodes[0] {
            _ = try await within("reading what was repaired") { try await adopt(node.kernel) }
        }
        try await unmount(0)
        try await check()
    }

    private func lookAtDamage() async throws {
        do {
            guard try await cluster.mount(0) != nil else { return }
        } catch {
            // The whole sense of a checksum.
            log("mounting is refused: \(error)")
            cluster.abandon(0)
            return
        }
        guard let node = cluster.nodes[0] else { return }
        var comparison = Comparison(node: node, tree: tree, dice: dice.fork())
        do {
            try await within("looking at everything") { try await comparison.checkAll() }
        } catch {
            guard node.withdrawal != nil, "\(error)".contains("\(FileError.inputOutput)") else {
                throw error
            }
        }
        if node.withdrawal == nil {
            do {
                return try await within("unmounting") { try await self.cluster.unmount(0) }
            } catch {
                guard node.withdrawal != nil else { throw error }
            }
        }
        if let withdrawal = node.withdrawal {
            log("n1 withdraws: \(withdrawal)")
            report.withdrawals += 1
            if node.wroteAfterWithdrawal { throw SimulationFailure("n1 wrote after it had (V4)") }
            cluster.abandon(0)
        }
    }

    private func repair(_ damage: String) async throws {
        let device = cluster.repairable()
        let repaired = try await VolumeRepair.repair(device)
        guard repaired.outcome != .left else {
            let left = repaired.check.findings.prefix(5).map(\.text).joined(separator: "; ")
            throw SimulationFailure("\(damage): a repair leaves \(left)")
        }
        cluster.replaceDisk(device.content)
    }
}

extension SimulatedCluster {
    /// Turns one bit of one block of metadata that is in use. Says which; nil if there is none.
    func turnBit(_ dice: inout SeededGenerator) -> String? {
        let size = Int(plan.superblock.blockSize)
        var found: [(kind: UInt8, block: UInt64)] = []
        for block in 0..<plan.superblock.blockCount {
            let bytes = disk.visible.bytes(at: block * UInt64(size), count: 24)
            // Mark and address: a journal holds copies of others, whose place is elsewhere.
            let address = (0..<8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64(bytes[16 + $1]) }
            if bytes.prefix(4).elementsEqual("LKST".utf8), address == block {
                found.append((bytes[4], block))
            }
        }
        // Every kind is as likely as every other, but for what nobody reads of a clean volume.
        let unread: [BlockKind] = [
            .volumeGuard, .slotHeartbeat, .journalDescriptor, .journalCommit,
        ]
        let isRead = found.filter { block in !unread.contains { $0.rawValue == UInt16(block.kind) }
        }
        if !isRead.isEmpty, !dice.oneIn(4) { found = isRead }
        // A volume of a single group has no copy of its superblock: nothing is left without it.
        if plan.copies.isEmpty {
            found.removeAll { UInt16($0.kind) == BlockKind.superblock.rawValue }
        }
        let kinds = Set(found.map(\.kind)).sorted()
        guard !kinds.isEmpty else { return nil }
        let kind = kinds[dice.below(kinds.count)]
        let blocks = found.filter { $0.kind == kind }.map(\.block)
        let block = blocks[dice.below(blocks.count)]
        let offset = dice.oneIn(3) ? dice.below(64) : dice.below(size)
        let bit = dice.below(8)
        let place = block * UInt64(size) + UInt64(offset)
        var content = disk.visible
        let turned = [content.bytes(at: place, count: 1)[0] ^ (1 << bit)]
        turned.withUnsafeBytes { content.write($0, at: place) }
        replaceDisk(content)
        return "block \(block) of kind \(kind), byte \(offset), bit \(bit)"
    }
}
