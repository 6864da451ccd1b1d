// Stage "journals": a damaged journal is emptied, the guard freed, a heartbeat cleared. What the
// journal held and had not come home is lost; the later stages put right what it leaves behind.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    func repairJournals(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        // Where a journal stands is not certain then, and this one could be written into another.
        let isUncertain = checker.report.findings.contains { $0.kind == .journalMisplaced }
        return try await each(found) { (finding) async throws(CheckError) -> Bool in
            switch finding.kind {
            case .guardDamaged: return try await freeGuard()
            case .heartbeatDamaged:
                guard let slot = finding.slot else { return false }
                return try await clearHeartbeat(slot)
            default:
                guard !isUncertain, let slot = finding.slot,
                    let descriptor = checker.slots[Int(slot.rawValue)]
                else { return false }
                try await emptyJournal(descriptor)
                return true
            }
        }
    }

    private func freeGuard() async throws(CheckError) -> Bool {
        let address = superblock.guardTable
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        let version = Self.nextVersion(claimedVersion(buffer.readOnly, at: address))
        GuardRecord.free.write(
            to: buffer.bytes,
            at: address,
            volume: superblock.volume,
            version: version
        )
        try await write(buffer, at: address)
        return true
    }

    private func clearHeartbeat(_ slot: SlotIndex) async throws(CheckError) -> Bool {
        let address = superblock.heartbeat(slot)
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        let beat = Self.nextVersion(claimedVersion(buffer.readOnly, at: address))
        SlotHeartbeat(slot: slot, incarnation: 0, beat: beat, clusterHigh: 0, clusterLow: 0)
            .write(to: buffer.bytes, at: address, volume: superblock.volume)
        try await write(buffer, at: address)
        return true
    }

    /// Writes the header of a journal with nothing in it. Its next sequence number is above all
    /// that stand in the ring, so that none of what is left there is ever taken for the present.
    func emptyJournal(_ slot: SlotDescriptor) async throws(CheckError) {
        let start = slot.journalStart
        let buffer = makeBuffer()
        try await read(start, into: buffer)
        let version = Self.nextVersion(claimedVersion(buffer.readOnly, at: start))
        var highest: UInt64 = 0
        for index in 1..<slot.journalLength {
            let address = start + UInt64(index)
            try await read(address, into: buffer)
            guard
                let header = try? BlockHeader(
                    verifying: buffer.readOnly,
                    at: address,
                    volume: superblock.volume
                ), header.kind == .journalDescriptor || header.kind == .journalCommit,
                header.owner <= BlockHeader.largestNumber
            else { continue }
            highest = max(highest, header.owner)
        }
        JournalHeader(
            slot: slot.slot,
            // One more than the next: the last transaction may not have got as far as a block.
            tailSequence: Self.nextVersion(Self.nextVersion(highest)),
            tail: 1,
            length: slot.journalLength,
            isClean: true
        ).write(to: buffer.bytes, at: start, volume: superblock.volume, version: version)
        try await write(buffer, at: start)
        try await flush()
    }
}
