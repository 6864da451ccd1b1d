// Between passes 2 and 3: journals that are not clean.

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
}
