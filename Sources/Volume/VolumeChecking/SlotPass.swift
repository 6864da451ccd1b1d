// Pass 2: slot descriptors, the guard, heartbeats and journal headers.

import BlockIO
package import DiskFormat
import Vocabulary

extension VolumeChecker {
    func checkSlots() async throws(CheckError) {
        try await checkDescriptors()
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

    /// The same of a mounted volume: without heartbeats, which their owners write without a lock.
    /// Guard and journal headers are kept twice, so that one of the two is whole at any time.
    func checkFixedStructures() async throws(CheckError) {
        let buffer = makeBuffer()
        let address = Superblock.address(blockSize: superblock.blockSize)
        try await read(address, into: buffer)
        var damage: FormatError?
        do throws(FormatError) {
            let found = try Superblock(verifying: buffer.readOnly, at: address)
            if found != superblock {
                damage = .invalidField(
                    address,
                    field: "creation time",
                    value: UInt64(bitPattern: found.created.seconds)
                )
            }
        } catch {
            damage = error
        }
        try await checkSuperblocks(damage: damage)
        slots = []
        try await checkDescriptors()
        checkJournalPlaces()
        try await checkGuard()
        for case let slot? in slots { try await checkJournalHeader(slot) }
    }

    private func checkDescriptors() async throws(CheckError) {
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

    private func checkJournalPlaces() {
        for slot in superblock.misplacedJournals(slots) {
            add(
                Finding(
                    .journalMisplaced,
                    block: slot.journalStart,
                    blockCount: UInt64(slot.journalLength),
                    slot: slot.slot
                )
            )
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

extension Superblock {
    /// Journals stand between the heartbeats and the first group, and not in each other: the slots,
    /// of those that are sound, whose journal does not, or stands in that of one before it.
    package func misplacedJournals(_ slots: [SlotDescriptor?]) -> [SlotDescriptor] {
        var taken: [(start: BlockAddress, end: BlockAddress)] = []
        var misplaced: [SlotDescriptor] = []
        for case let slot? in slots {
            let start = slot.journalStart
            let end = start + UInt64(slot.journalLength)
            let isInside = start > guardTable + UInt64(slotCapacity) && end <= journalsEnd
            let overlaps = taken.contains { start < $0.end && $0.start < end }
            if !isInside || overlaps { misplaced.append(slot) }
            taken.append((start, end))
        }
        return misplaced
    }
}
