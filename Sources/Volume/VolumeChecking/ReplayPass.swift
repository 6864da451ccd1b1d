// Between passes 2 and 3: journals that are not clean. And what is left to do when they have been
// replayed for good and nothing is wrong: the guard is freed, so that the next mount need not ask
// whether whoever had the volume may come back.

import BlockIO
import DiskFormat
import Journaling
import Vocabulary

extension VolumeChecker {
    func replayJournals() async throws(CheckError) {
        guard options.journals != .ignore else { return }
        // A journal that may stand in another one, or elsewhere, must not be believed.
        let misplaced = report.findings.filter { $0.kind == .journalMisplaced }.map(\.slot)
        for slot in report.uncleanJournals where !misplaced.contains(slot) {
            do throws(StorageError) {
                let replay = try await JournalReplay.replay(
                    device: device,
                    superblock: superblock,
                    slot: slot
                )
                report.replays.append(
                    ReplayedJournal(
                        slot: slot,
                        transactions: replay.transactions,
                        written: replay.written
                    )
                )
            } catch {
                switch error {
                case .format(let damage):
                    add(Finding(.journalLogDamaged, slot: slot, error: damage))
                case .device, .stopped:
                    throw .device(CheckError.DeviceFailure(text: "\(slot): \(error)"))
                }
            }
        }
    }

    func freeGuard() async throws(CheckError) {
        guard options.journals == .replay, report.isClean, report.guardMode != .free else { return }
        let buffer = makeBuffer()
        let address = superblock.guardTable
        try await read(address, into: buffer)
        do {
            let (_, version) = try GuardRecord.read(
                verifying: buffer.readOnly,
                at: address,
                volume: superblock.volume
            )
            GuardRecord.free.write(
                to: buffer.bytes,
                at: address,
                volume: superblock.volume,
                version: version + 1
            )
            try await device.write(buffer.readOnly, at: superblock.byteOffset(address))
            try await device.flush()
            report.guardMode = .free
        } catch {
            throw .device(CheckError.DeviceFailure(text: "the guard cannot be freed: \(error)"))
        }
    }
}
