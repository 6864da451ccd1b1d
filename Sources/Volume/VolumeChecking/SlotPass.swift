// Pass 2: slot descriptors, the guard, heartbeats and journal headers.

import BlockIO
import DiskFormat
import Vocabulary

extension VolumeChecker {
    func checkSlots() async throws(CheckError) {
        let buffer = makeBuffer()
        for index in 0..<superblock.slotCount {
            let slot = SlotIndex(index)
            let address = superblock.slotDescriptor(slot)
            try await read(address, into: buffer)
            do throws(FormatError) {
                let descriptor = try SlotDescriptor(
                    verifying: buffer.readOnly,
                    at: address,
                    in: superblock
                )
                try checkOrphanDirectory(of: descriptor, at: address)
                slots.append(descriptor)
            } catch {
                slots.append(nil)
                add(Finding(.slotDescriptorDamaged, block: address, slot: slot, error: error))
            }
        }
        checkJournalPlaces()
        try await checkGuard()
        for index in 0..<superblock.slotCapacity {
            try await checkHeartbeat(SlotIndex(index))
        }
        for case let slot? in slots {
            try await checkJournalHeader(slot)
            show(.slots, UInt64(slot.slot.rawValue) + 1, of: UInt64(superblock.slotCount))
        }
    }

    /// The orphan directory of a slot is its own: neither the root nor that of a slot before it.
    private func checkOrphanDirectory(
        of slot: SlotDescriptor,
        at address: BlockAddress
    ) throws(FormatError) {
        let place = slot.orphanDirectory.address
        let isTaken = slots.contains { $0?.orphanDirectory.address == place }
        guard place != superblock.root.address, !isTaken else {
            throw .invalidField(address, field: "orphan directory", value: place.rawValue)
        }
    }

    /// Journals stand between the heartbeats and the first group, and not in each other.
    private func checkJournalPlaces() {
        var taken: [(start: BlockAddress, end: BlockAddress)] = []
        for case let slot? in slots {
            let start = slot.journalStart
            let end = start + UInt64(slot.journalLength)
            let isInside =
                start > superblock.guardTable + UInt64(superblock.slotCapacity)
                && end <= superblock.firstGroup
            let overlaps = taken.contains { start < $0.end && $0.start < end }
            if !isInside || overlaps {
                add(
                    Finding(
                        .journalMisplaced,
                        block: start,
                        blockCount: UInt64(slot.journalLength),
                        slot: slot.slot
                    )
                )
            }
            taken.append((start, end))
        }
    }

    private func checkGuard() async throws(CheckError) {
        let buffer = makeBuffer()
        let address = superblock.guardTable
        try await read(address, into: buffer)
        do throws(FormatError) {
            report.guardMode = try GuardRecord.read(
                verifying: buffer.readOnly,
                at: address,
                volume: superblock.volume
            ).record.mode
        } catch {
            add(Finding(.guardDamaged, block: address, error: error))
        }
    }

    private func checkHeartbeat(_ slot: SlotIndex) async throws(CheckError) {
        let buffer = makeBuffer()
        let address = superblock.heartbeat(slot)
        try await read(address, into: buffer)
        do throws(FormatError) {
            let heartbeat = try SlotHeartbeat(
                verifying: buffer.readOnly,
                at: address,
                volume: superblock.volume
            )
            guard heartbeat.slot == slot else {
                throw .wrongOwner(
                    address,
                    expected: UInt64(slot.rawValue),
                    found: UInt64(heartbeat.slot.rawValue)
                )
            }
        } catch {
            add(Finding(.heartbeatDamaged, block: address, slot: slot, error: error))
        }
    }

    private func checkJournalHeader(_ slot: SlotDescriptor) async throws(CheckError) {
        let buffer = makeBuffer()
        try await read(slot.journalStart, into: buffer)
        do throws(FormatError) {
            let (header, _) = try JournalHeader.read(
                verifying: buffer.readOnly,
                at: slot.journalStart,
                volume: superblock.volume,
                slot: slot.slot
            )
            guard header.length == slot.journalLength else {
                throw .invalidField(
                    slot.journalStart,
                    field: "journal length",
                    value: UInt64(header.length)
                )
            }
            if !header.isClean { report.uncleanJournals.append(slot.slot) }
        } catch {
            add(
                Finding(
                    .journalHeaderDamaged,
                    block: slot.journalStart,
                    slot: slot.slot,
                    error: error
                )
            )
        }
    }
}
